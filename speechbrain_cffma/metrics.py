"""Scores of enhanced speech.

Authors
 * The speechbrain-cffma developers 2026
"""

import importlib.util
import math

import numpy as np

from speechbrain_cffma.audio import SAMPLE_RATE, SILENCE


class MetricError(ValueError):
    """A score that is not defined for these signals, with the reason."""


def pesq(clean, enhanced, sample_rate=SAMPLE_RATE):
    """Wide-band PESQ (ITU-T P.862.2) by the package `pesq`.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        About 1.0 to 4.64.

    Raises
    ------
    MetricError
        If either is silent or not finite, it finds no speech, or the signals are
        shorter than 0.25 s.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(pesq(clean, clean), 2)
    4.64
    """
    from pesq import PesqError
    from pesq import pesq as pesq_score

    _check("PESQ", clean, enhanced)
    try:
        return float(pesq_score(sample_rate, clean, enhanced, "wb"))
    except PesqError as error:
        reason = error.args[0]
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise MetricError(f"PESQ: {reason}") from error


def stoi(clean, enhanced, sample_rate=SAMPLE_RATE):
    """Short-time objective intelligibility by the package `pystoi`.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        About 0 to 1.

    Raises
    ------
    MetricError
        If either is silent or not finite, or there is too little speech: pystoi needs
        30 frames (0.4 s).

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(stoi(clean, clean), 3)
    1.0
    """
    import warnings

    from pystoi import stoi as stoi_score

    _check("STOI", clean, enhanced)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi_score(clean, enhanced, sample_rate))
        except (RuntimeWarning, ValueError) as error:
            raise MetricError("STOI: too little speech") from error


def si_sdr(clean, enhanced, sample_rate=SAMPLE_RATE):
    """Scale-invariant signal-to-distortion ratio
    (https://arxiv.org/abs/1811.02508, Eq. 4), without removal of the mean.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    sample_rate : int
        Not needed; every metric takes it.

    Returns
    -------
    float
        In dB.

    Raises
    ------
    MetricError
        If either is silent or not finite, or the two are equal but for a factor.

    Example
    -------
    >>> clean = np.array([1.0, 0.0, -1.0, 0.0])
    >>> noise = np.array([0.0, 0.1, 0.0, 0.1])
    >>> round(si_sdr(clean, 5 * (clean + noise)), 6)
    20.0
    """
    _check("SI-SDR", clean, enhanced)
    clean, enhanced = clean.astype(np.float64), enhanced.astype(np.float64)
    target = (enhanced @ clean / (clean @ clean)) * clean
    distortion = enhanced - target
    ratio = (target @ target) / max(distortion @ distortion, 1e-300)
    if ratio == 0 or ratio > 1e30:
        raise MetricError("SI-SDR: no distortion, or nothing but")
    return 10 * math.log10(ratio)


def _check(metric, clean, enhanced):
    for name, samples in (("the clean signal", clean), ("the signal", enhanced)):
        if not np.isfinite(samples).all():
            raise MetricError(f"{metric}: {name} holds NaN or Inf")
        if np.abs(samples).max(initial=0) < SILENCE:
            raise MetricError(f"{metric}: {name} is silent")


METRICS = {"pesq": pesq, "stoi": stoi, "si_sdr": si_sdr}


def available_metrics():
    """The metrics whose packages are installed.

    Returns
    -------
    list of str
        Names in `METRICS`.

    Example
    -------
    >>> "si_sdr" in available_metrics()
    True
    """
    needs = {"pesq": "pesq", "stoi": "pystoi", "si_sdr": "numpy"}
    return [name for name in METRICS if importlib.util.find_spec(needs[name])]


def score(clean, enhanced, metrics):
    """Score one utterance.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].
    metrics : list of str
        Names in `METRICS`.

    Returns
    -------
    dict
        A float for each name, None where it is not defined; `failed` holds the
        reasons, or "".

    Example
    -------
    >>> score(np.zeros(16000), np.zeros(16000), ["si_sdr"])
    {'si_sdr': None, 'failed': 'SI-SDR: the clean signal is silent'}
    """
    row, reasons = {}, []
    for name in metrics:
        try:
            row[name] = METRICS[name](clean, enhanced)
        except MetricError as error:
            row[name] = None
            reasons.append(str(error))
    row["failed"] = "; ".join(reasons)
    return row


def score_all(pairs, metrics, n_jobs=1):
    """Score many utterances, in parallel.

    Arguments
    ---------
    pairs : list of (np.ndarray, np.ndarray)
        Clean and enhanced samples of each.
    metrics : list of str
        Names in `METRICS`.
    n_jobs : int
        Processes; -1 for one a core.

    Returns
    -------
    list of dict
        What `score` returns, in the same order.

    Example
    -------
    >>> clean = np.array([1.0, 0.0, -1.0, 0.0])
    >>> enhanced = clean + np.array([0.0, 0.1, 0.0, 0.1])
    >>> [round(row["si_sdr"]) for row in score_all([(clean, enhanced)] * 2, ["si_sdr"])]
    [20, 20]
    """
    from joblib import Parallel, delayed

    return Parallel(n_jobs=n_jobs)(
        delayed(score)(clean, enhanced, metrics) for clean, enhanced in pairs
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
