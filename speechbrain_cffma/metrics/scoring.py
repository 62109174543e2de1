"""Scores by the metrics' names, for one utterance or many.

Authors
 * The speechbrain-cffma developers 2026
"""

import importlib.util
from functools import partial

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.metrics.composite import composite
from speechbrain_cffma.metrics.intrusive import estoi, pesq, si_sdr, stoi
from speechbrain_cffma.metrics.nonintrusive import DNSMOS, dnsmos
from speechbrain_cffma.metrics.segmental import llr, ssnr, wss
from speechbrain_cffma.metrics.signals import MetricError


def pesq_nb(clean, enhanced, sample_rate=SAMPLE_RATE):
    """Narrow-band PESQ; see `pesq`.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    sample_rate : int
        16000 or 8000 Hz.

    Returns
    -------
    float
        About 1.0 to 4.55.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(pesq_nb(clean, clean), 2)
    4.55
    """
    return pesq(clean, enhanced, sample_rate, "nb")


def _rating(name, clean, enhanced, sample_rate=SAMPLE_RATE, scale="int16"):
    """One of the ratings of `composite`."""
    return composite(clean, enhanced, sample_rate, scale)[name]


def _dnsmos(name, clean, enhanced, sample_rate=SAMPLE_RATE):
    """One of the ratings of `dnsmos`, which needs no clean signal."""
    return dnsmos(enhanced, sample_rate)[name]


#: Every metric by its name: a function of clean, enhanced and the sample rate.
METRICS = {
    "pesq": pesq,
    "pesq_nb": pesq_nb,
    "stoi": stoi,
    "estoi": estoi,
    "si_sdr": si_sdr,
    "ssnr": ssnr,
    "llr": llr,
    "wss": wss,
    "csig": partial(_rating, "csig"),
    "cbak": partial(_rating, "cbak"),
    "covl": partial(_rating, "covl"),
    **{name: partial(_dnsmos, name) for name in DNSMOS},
}
#: Distances; the other metrics are higher for better signals.
LOWER_IS_BETTER = {"llr", "wss"}
#: Those that validation during training uses.
BASIC = ("pesq", "stoi", "si_sdr")

#: What computes a metric, where that is a package of its own.
PACKAGES = {
    **dict.fromkeys(("pesq", "pesq_nb", "csig", "cbak", "covl"), "pesq"),
    **dict.fromkeys(("stoi", "estoi"), "pystoi"),
    **dict.fromkeys(DNSMOS, "speechmos"),
}
_RATINGS = {"csig", "cbak", "covl"}
_DEPENDS_ON_SCALE = {"ssnr", "llr", "wss", *_RATINGS}


def available_metrics(names=BASIC):
    """The metrics whose packages are installed.

    Arguments
    ---------
    names : iterable of str
        Names in `METRICS`; `METRICS` itself for all.

    Returns
    -------
    list of str
        Those of the names that can be computed.

    Example
    -------
    >>> "si_sdr" in available_metrics()
    True
    >>> "wss" in available_metrics(METRICS)
    True
    """
    return [
        name
        for name in names
        if name not in PACKAGES or importlib.util.find_spec(PACKAGES[name])
    ]


def score(clean, enhanced, metrics, sample_rate=SAMPLE_RATE, scale="int16"):
    """Score one utterance. What several metrics share is computed once.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    metrics : list of str
        Names in `METRICS`.
    sample_rate : int
        In Hz.
    scale : str
        "int16" or "unit"; see `composite`.

    Returns
    -------
    dict
        A float for each name, None where it is not defined; `failed` holds the
        reasons, or "".

    Example
    -------
    >>> import numpy as np
    >>> score(np.zeros(16000), np.zeros(16000), ["si_sdr"])
    {'si_sdr': None, 'failed': 'SI-SDR: the clean signal is silent'}
    """
    row, reasons, known = {}, {}, {}
    for names, make in (
        # The ratings need all parts; a part may have its score where they have none.
        (_RATINGS, lambda: composite(clean, enhanced, sample_rate, scale)),
        (DNSMOS.keys(), lambda: dnsmos(enhanced, sample_rate)),
    ):
        if not names.isdisjoint(metrics):
            try:
                known |= make()
            except MetricError as error:
                known |= dict.fromkeys(names)
                reasons[str(error)] = True
    for name in metrics:
        options = {"scale": scale} if name in _DEPENDS_ON_SCALE else {}
        try:
            row[name] = (
                known[name]
                if name in known
                else METRICS[name](clean, enhanced, sample_rate, **options)
            )
        except MetricError as error:
            row[name] = None
            reasons[str(error)] = True
    row["failed"] = "; ".join(reasons)
    return row


def score_all(pairs, metrics, n_jobs=1, sample_rate=SAMPLE_RATE, scale="int16"):
    """Score many utterances, in parallel.

    Arguments
    ---------
    pairs : list of (np.ndarray, np.ndarray)
        Clean and enhanced samples of each.
    metrics : list of str
        Names in `METRICS`.
    n_jobs : int
        Processes; -1 for one a core.
    sample_rate : int
        In Hz.
    scale : str
        "int16" or "unit"; see `composite`.

    Returns
    -------
    list of dict
        What `score` returns, in the same order.

    Example
    -------
    >>> import numpy as np
    >>> clean = np.array([1.0, 0.0, -1.0, 0.0])
    >>> enhanced = clean + np.array([0.0, 0.1, 0.0, 0.1])
    >>> [round(row["si_sdr"]) for row in score_all([(clean, enhanced)] * 2, ["si_sdr"])]
    [20, 20]
    """
    from joblib import Parallel, delayed

    return Parallel(n_jobs=n_jobs)(
        delayed(score)(clean, enhanced, metrics, sample_rate, scale)
        for clean, enhanced in pairs
    )


def mean_scores(rows, metrics):
    """Means over the utterances that have a score; none is counted as 0.

    Arguments
    ---------
    rows : list of dict
        What `score` returns.
    metrics : list of str
        Names in `METRICS`.

    Returns
    -------
    dict
        A float for each metric (None if no utterance has one).

    Example
    -------
    >>> mean_scores([{"pesq": 2.0}, {"pesq": None}, {"pesq": 3.0}], ["pesq"])
    {'pesq': 2.5}
    """
    means = {}
    for name in metrics:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return means
