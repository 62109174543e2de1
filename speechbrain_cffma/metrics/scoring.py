"""Scores by the metrics' names, for one utterance or many.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib import import_module, util
from typing import Any, NamedTuple

import numpy as np

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import CFFMAError, one_line
from speechbrain_cffma.metric_table import BASIC, PACKAGES, TABLE
from speechbrain_cffma.metrics.signals import MetricError
from speechbrain_cffma.workers import parallel_map

_N_METRICS = Counter(row.function for row in TABLE.values())


def _call(name, clean, enhanced, sample_rate, **options):
    """A metric's score, and those of the others that its function computes, by name."""
    row = TABLE[name]
    module, function = row.function.split(".")
    function = getattr(import_module(f"speechbrain_cffma.metrics.{module}"), function)
    signals = (clean, enhanced) if row.needs_clean else (enhanced,)
    value = function(*signals, sample_rate, **options)
    return value if isinstance(value, dict) else {name: value}


def _score_by(name, clean, enhanced, sample_rate=SAMPLE_RATE, **options):
    return _call(name, clean, enhanced, sample_rate, **options)[name]


#: Every metric by its name: a function of clean, enhanced and the sample rate.
METRICS = {name: partial(_score_by, name) for name in TABLE}


def available_metrics(names: Iterable[str] = BASIC) -> list[str]:
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
        name for name in names if name not in PACKAGES or util.find_spec(PACKAGES[name])
    ]


def score(
    clean: np.ndarray,
    enhanced: np.ndarray,
    metrics: Sequence[str],
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
) -> dict[str, Any]:
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
    known: dict[str, Any] = {}
    reasons: dict[str, bool] = {}
    # First the functions that compute several metrics: those are not computed again.
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
        Which of them.
    row : dict
        What `score` returns.
    crashed : bool
        Whether a metric's process died or took too long: another try may succeed.
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
) -> Iterator[Scored]:
    """Score utterances in processes of their own.

    A process that dies or takes too long costs one utterance one metric: the other
    metrics of the utterance are then computed one by one. A metric may take a minute and
    20 times the length of the utterance.

    Arguments
    ---------
    load : callable
        Gives the clean and the enhanced samples [S] of a source; a function of a module
        that can be imported.
    sources : list of tuple
        The arguments of `load` for each utterance.
    metrics : list of str
        Names in `METRICS`.
    seconds : list of float
        The length of each utterance.
    n_jobs : int
        Processes, at least one; -1 for one a core.
    sample_rate : int
        In Hz.
    scale : str
        "int16" or "unit"; see `composite`.

    Yields
    ------
    Scored
        In the order in which they end.

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

    def call(jobs):
        """Score (utterance, metrics) pairs."""
        arguments = [(load, sources[i], names, sample_rate, scale) for i, names in jobs]
        limits = [len(names) * (60 + 20 * seconds[i]) for i, names in jobs]
        with closing(
            parallel_map(_score_source, arguments, n_jobs, limits)
        ) as outcomes:
            for outcome in outcomes:
                index, names = jobs[outcome.index]
                row = outcome.result or _crashed(names, outcome.crash)
                yield Scored(index, row, bool(outcome.crash))

    again: dict[int, list[Scored]] = {}  # utterance: its rows of one metric each
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
    """What `score_each` takes to load signals that are there already.

    Arguments
    ---------
    clean : np.ndarray
        Samples [S].
    enhanced : np.ndarray
        Samples [S].

    Returns
    -------
    clean : np.ndarray
        The same.
    enhanced : np.ndarray
        The same.

    Example
    -------
    >>> as_given(1, 2)
    (1, 2)
    """
    return clean, enhanced


def _score_source(load, source, metrics, sample_rate, scale):
    """In a process of its own: what `score` returns, whatever happens."""
    try:
        return _checked(score(*load(*source), metrics, sample_rate, scale), metrics)
    except CFFMAError as error:
        return {**dict.fromkeys(metrics), "failed": str(error)}
    except Exception as error:  # One file's failure is not that of all.
        return {**dict.fromkeys(metrics), "failed": one_line(error)}


def _checked(row, metrics):
    """The row without infinite scores, and a reason that all metrics share only once."""
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
    """One row of an utterance from those of each metric."""
    row, names = {}, {}  # the metrics by the reason for which they failed
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
        Processes, of which one that dies costs one utterance one metric, see
        `score_each`; -1 for one a core, 0 for none but this one.
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
    pairs = list(pairs)
    if n_jobs == 0:
        return [score(*pair, metrics, sample_rate, scale) for pair in pairs]
    seconds = [len(clean) / sample_rate for clean, _ in pairs]
    scored = score_each(as_given, pairs, metrics, seconds, n_jobs, sample_rate, scale)
    return [row for _, row, _ in sorted(scored, key=lambda one: one.index)]


def mean_scores(
    rows: Iterable[dict[str, Any]], metrics: Sequence[str]
) -> dict[str, float | None]:
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
