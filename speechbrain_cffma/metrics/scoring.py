"""Score one utterance or many by metrics' names.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib import import_module, util
from typing import Any, NamedTuple

import numpy as np

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import CFFMAError, one_line
from speechbrain_cffma.metric_table import BASIC, PACKAGES, TABLE
from speechbrain_cffma.metrics.signals import MetricError
from speechbrain_cffma.workers import Outcome, parallel_map

_N_METRICS = Counter(row.function for row in TABLE.values())


def _call(name, clean, enhanced, sample_rate, **options):
    """The scores by name of all metrics that the function of this metric computes."""
    row = TABLE[name]
    module, function = row.function.split(".")
    function = getattr(import_module(f"speechbrain_cffma.metrics.{module}"), function)
    signals = (clean, enhanced) if row.needs_clean else (enhanced,)
    value = function(*signals, sample_rate, **options)
    return value if isinstance(value, dict) else {name: value}


def _score_by(name, clean, enhanced, sample_rate=SAMPLE_RATE, **options):
    return _call(name, clean, enhanced, sample_rate, **options)[name]


#: All metrics by name: functions of clean samples, enhanced samples and the sample rate.
METRICS = {name: partial(_score_by, name) for name in TABLE}


def available_metrics(names: Iterable[str] = BASIC) -> list[str]:
    """Select the metrics whose packages are installed.

    Arguments
    ---------
    names : iterable of str
        Names in `METRICS`; `METRICS` for all.

    Returns
    -------
    list of str
        The names of the metrics that can be computed.

    Example
    -------
    >>> "si_sdr" in available_metrics()
    True
    >>> "wss" in available_metrics(METRICS)
    True
    """
    return [
        name for name in names if name not in PACKAGES or util.find_spec(PACKAGES[name])
    ]


def score(
    clean: np.ndarray,
    enhanced: np.ndarray,
    metrics: Sequence[str],
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
) -> dict[str, Any]:
    """Score one utterance. Common parts of several metrics are computed once.

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
        A float for each metric, None if it is not defined; `failed` holds the reasons,
        or "".

    Example
    -------
    >>> import numpy as np
    >>> score(np.zeros(16000), np.zeros(16000), ["si_sdr"])
    {'si_sdr': None, 'failed': 'SI-SDR: the clean signal is silent'}
    """
    known: dict[str, Any] = {}
    reasons: dict[str, bool] = {}
    # Functions that compute several metrics come first, so that nothing is computed twice.
    for name in sorted(metrics, key=lambda name: _N_METRICS[TABLE[name].function] == 1):
        if name in known:
            continue
        row = TABLE[name]
        try:
            options = {"scale": scale} if row.has_scale else {}
            known |= _call(name, clean, enhanced, sample_rate, **options)
        except MetricError as error:
            failed = (n for n, own in TABLE.items() if own.function == row.function)
            known |= dict.fromkeys(failed)
            reasons[str(error)] = True
    return {**{name: known[name] for name in metrics}, "failed": "; ".join(reasons)}


class Scored(NamedTuple):
    """The scores of one of many utterances.

    Arguments
    ---------
    index : int
        Index of the utterance.
    row : dict
        Its scores, as `score` returns them.
    crashed : bool
        Whether a metric's process died or took too long. Another try may succeed.
    """

    index: int  # type: ignore[assignment] # a tuple has a method of this name
    row: dict
    crashed: bool


def score_each(
    load: Callable[..., tuple[np.ndarray, np.ndarray]],
    sources: Sequence[tuple],
    metrics: Sequence[str],
    seconds: Sequence[float],
    n_jobs: int = -1,
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
    call_each: Callable[..., Generator[Outcome, None, None]] | None = None,
) -> Iterator[Scored]:
    """Score utterances in separate processes.

    If a process dies or takes too long, one utterance loses one metric: the metrics of
    this utterance are then computed one by one. The time limit of a metric is a minute
    plus 20 times the length of the utterance.

    Arguments
    ---------
    load : callable
        `load(*source)` returns the clean and the enhanced samples [S] of a source. It must
        be a function of a module that can be imported.
    sources : list of tuple
        The arguments of `load` for each utterance.
    metrics : list of str
        Names in `METRICS`.
    seconds : list of float
        The length of each utterance.
    n_jobs : int
        Number of processes, at least 1; -1 for one per core.
    sample_rate : int
        In Hz.
    scale : str
        "int16" or "unit"; see `composite`.
    call_each : callable or None
        What starts the processes, such as `cluster.calls.cluster_map`; None for
        `workers.parallel_map`.

    Yields
    ------
    Scored
        Each utterance as soon as it is finished.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> sources = [(clean, clean + 0.1 * clean[::-1])]
    >>> (scored,) = score_each(as_given, sources, ["si_sdr"], [3.0], n_jobs=1)
    >>> scored.index, round(scored.row["si_sdr"]), scored.crashed
    (0, 20, False)
    """
    if n_jobs < 0:
        import joblib

        n_jobs = joblib.cpu_count()
    n_jobs = max(1, n_jobs)
    call_each = call_each or parallel_map

    def call(jobs):
        """Score (utterance, metrics) pairs."""
        arguments = [(load, sources[i], names, sample_rate, scale) for i, names in jobs]
        limits = [len(names) * (60 + 20 * seconds[i]) for i, names in jobs]
        with closing(call_each(_score_source, arguments, n_jobs, limits)) as outcomes:
            for outcome in outcomes:
                index, names = jobs[outcome.index]
                row = outcome.result or _crashed(names, outcome.crash)
                yield Scored(index, row, bool(outcome.crash))

    again: dict[int, list[Scored]] = {}  # utterance: its rows, one for each metric
    for scored in call([(i, metrics) for i in range(len(sources))]):
        if scored.crashed and len(metrics) > 1:
            again[scored.index] = []
        else:
            yield scored
    for scored in call([(i, [name]) for i in again for name in metrics]):
        parts = again[scored.index]
        parts.append(scored)
        if len(parts) == len(metrics):
            yield _merged(parts, metrics)


def as_given(clean, enhanced):
    """The argument `load` of `score_each` for signals that are loaded already.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].

    Returns
    -------
    clean : np.ndarray
        The argument, unchanged.
    enhanced : np.ndarray
        The argument, unchanged.

    Example
    -------
    >>> as_given(1, 2)
    (1, 2)
    """
    return clean, enhanced


def _score_source(load, source, metrics, sample_rate, scale):
    """Score a source in a separate process; errors become reasons in the row."""
    try:
        return _checked(score(*load(*source), metrics, sample_rate, scale), metrics)
    except CFFMAError as error:
        return {**dict.fromkeys(metrics), "failed": str(error)}
    except Exception as error:  # One file that fails must not stop the others.
        return {**dict.fromkeys(metrics), "failed": one_line(error)}


def _checked(row, metrics):
    """Remove scores that are not finite; state a reason only once if all metrics share it."""
    for name in metrics:
        if row[name] is not None and not math.isfinite(row[name]):
            reasons = [row["failed"], f"{name} is {row[name]}"]
            row |= {name: None, "failed": "; ".join(filter(None, reasons))}
    if all(row[name] is None for name in metrics):
        # Such as "PESQ: the signal is silent; STOI: the signal is silent".
        shared = {reason.partition(": ")[2] for reason in row["failed"].split("; ")}
        if len(shared) == 1 and shared != {""}:
            row["failed"] = shared.pop()
    return row


def _crashed(metrics, crash):
    reason = f"{crash} (cut the file into shorter ones, or leave this metric out)"
    return {**dict.fromkeys(metrics), "failed": reason}


def _merged(parts, metrics):
    """Merge the rows of an utterance, one for each metric, into one row."""
    row, names = {}, {}  # names: metrics by the reason why they failed
    for name in metrics:
        part = next(part.row for part in parts if name in part.row)
        row[name] = part[name]
        names.setdefault(part["failed"], []).append(name)
    row["failed"] = "; ".join(
        reason if len(failed) == len(metrics) else f"{', '.join(failed)}: {reason}"
        for reason, failed in names.items()
        if reason
    )
    return Scored(parts[0].index, row, any(part.crashed for part in parts))


def score_all(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    metrics: Sequence[str],
    n_jobs: int = 0,
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
) -> list[dict[str, Any]]:
    """Score many utterances.

    Arguments
    ---------
    pairs : list of (np.ndarray, np.ndarray)
        Clean and enhanced samples of each.
    metrics : list of str
        Names in `METRICS`.
    n_jobs : int
        Number of separate processes, see `score_each`; -1 for one per core, 0 to score in
        this process.
    sample_rate : int
        In Hz.
    scale : str
        "int16" or "unit"; see `composite`.

    Returns
    -------
    list of dict
        The result of `score` for each pair, in the same order.

    Example
    -------
    >>> import numpy as np
    >>> clean = np.array([1.0, 0.0, -1.0, 0.0])
    >>> enhanced = clean + np.array([0.0, 0.1, 0.0, 0.1])
    >>> [round(row["si_sdr"]) for row in score_all([(clean, enhanced)] * 2, ["si_sdr"])]
    [20, 20]
    """
    pairs = list(pairs)
    if n_jobs == 0:
        return [score(*pair, metrics, sample_rate, scale) for pair in pairs]
    seconds = [len(clean) / sample_rate for clean, _ in pairs]
    scored = score_each(as_given, pairs, metrics, seconds, n_jobs, sample_rate, scale)
    return [row for _, row, _ in sorted(scored, key=lambda one: one.index)]


def mean_scores(
    rows: Iterable[dict[str, Any]], metrics: Sequence[str]
) -> dict[str, float | None]:
    """Means over the utterances that have a score; a missing score never counts as 0.

    Arguments
    ---------
    rows : list of dict
        Results of `score`.
    metrics : list of str
        Names in `METRICS`.

    Returns
    -------
    dict
        A float for each metric, None if no utterance has a score.

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
