"""Means and paired differences of systems with bootstrap intervals, and means over seeds.

Bootstrap intervals are 95 % percentile intervals of `N_RESAMPLES` resamples over
utterances, drawn with a fixed seed. A resample takes the same utterances for all systems
and metrics. Differences are therefore paired: they don't vary with how hard an utterance
is for all systems.

Authors
 * The speechbrain-cffma developers 2026
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t

N_RESAMPLES = 10_000
SEED = 0
LEVEL = 0.95
#: Number of resampled utterances in memory at a time.
BLOCK = 2_000_000


def bootstrap(values):
    """Means of columns and their bootstrap intervals, resampled over rows.

    Arguments
    ---------
    values : np.ndarray
        Scores [N, K]; NaN if there is no score: the column then leaves this row out.

    Returns
    -------
    mean : np.ndarray
        [K], NaN for a column without scores.
    low : np.ndarray
        Lower end of the interval [K], NaN for a column with fewer than 2 scores.
    high : np.ndarray
        Upper end [K].

    Example
    -------
    >>> scores = np.random.default_rng(0).normal(loc=3.0, scale=1.0, size=(400, 1))
    >>> mean, low, high = bootstrap(scores)
    >>> print(f"{mean[0]:.1f} [{low[0]:.1f}, {high[0]:.1f}]")
    3.0 [2.9, 3.1]
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    has = np.isfinite(values)
    n_scores = has.sum(axis=0)
    # Deviations from the mean, so that a constant column has no rounding errors.
    mean = np.full(values.shape[1], np.nan)
    scored = n_scores > 0
    mean[scored] = np.where(has, values, 0)[:, scored].sum(axis=0) / n_scores[scored]
    deviations = np.where(has, values - mean, 0.0)

    rng = np.random.default_rng(SEED)
    resampled = np.empty((N_RESAMPLES, values.shape[1]))
    step = max(1, BLOCK // max(n, 1))
    for start in range(0, N_RESAMPLES, step):
        size = min(step, N_RESAMPLES - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        # How often each row is in each resample [size, N].
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        counts = counts.astype(np.float64)
        with np.errstate(invalid="ignore"):  # A resample may hold no score: NaN.
            resampled[start : start + size] = counts @ deviations / (counts @ has)

    low, high = np.full((2, values.shape[1]), np.nan)
    several = n_scores > 1
    if several.any():
        tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        ends = np.nanquantile(resampled[:, several], tails, axis=0)
        low[several], high[several] = mean[several] + ends
    return mean, low, high


def t_interval(values):
    """Means of columns and their Student's t intervals, for few rows such as seeds.

    Arguments
    ---------
    values : np.ndarray
        Scores [N, K]; NaN if there is no score: the column then leaves this row out.

    Returns
    -------
    mean : np.ndarray
        [K], NaN for a column without scores.
    low : np.ndarray
        Lower end of the interval [K], NaN for a column with fewer than 2 scores.
    high : np.ndarray
        Upper end [K].

    Example
    -------
    >>> mean, low, high = t_interval([[1.0], [2.0], [3.0]])
    >>> print(f"{mean[0]:.1f} [{low[0]:.2f}, {high[0]:.2f}]")
    2.0 [-0.48, 4.48]
    """
    values = np.asarray(values, dtype=np.float64)
    mean, half = np.full((2, values.shape[1]), np.nan)
    for i, column in enumerate(values.T):
        scores = column[np.isfinite(column)]
        n = len(scores)
        if n:
            mean[i] = scores.mean()
        if n > 1:
            half[i] = t.ppf((1 + LEVEL) / 2, n - 1) * scores.std(ddof=1) / n**0.5
    return mean, mean - half, mean + half


def summarize_systems(
    rows: Sequence[dict[str, Any]], metrics: Sequence[str]
) -> dict[str, Any]:
    """Summarise the scores of systems: overall, for each input SNR and for each noise.

    Arguments
    ---------
    rows : list of dict
        One row per file and system: ID, system, snr (None if unknown), noise ("" if
        unknown), each metric (None if there is no score) and failed (the reason, or "").
        Differences are relative to the system of the first row, the reference.
    metrics : list of str
        The metrics to summarise.

    Returns
    -------
    dict
        reference, overall, snr and noise. For each system, `overall` holds n (files),
        failed (files that lack a score), scores and, except for the reference, difference.
        For each metric, scores and difference hold n (files with a score, for a difference
        from both systems), mean, low and high (None if not defined). `snr` and `noise`
        hold the same for each of their values.

    Example
    -------
    >>> known = {"snr": 5.0, "noise": "wind", "failed": ""}
    >>> summary = summarize_systems(
    ...     [
    ...         {"ID": "a", "system": "noisy", "pesq": 1.5, **known},
    ...         {"ID": "b", "system": "noisy", "pesq": 2.0, **known},
    ...         {"ID": "a", "system": "new", "pesq": 2.0, **known},
    ...         {"ID": "b", "system": "new", "pesq": 3.0, **known},
    ...     ],
    ...     ["pesq"],
    ... )
    >>> summary["overall"]["new"]["scores"]["pesq"]
    {'n': 2, 'mean': 2.5, 'low': 2.0, 'high': 3.0}
    >>> summary["snr"]["5"]["new"]["difference"]["pesq"]
    {'n': 2, 'mean': 0.75, 'low': 0.5, 'high': 1.0}
    """
    systems = list(dict.fromkeys(row["system"] for row in rows))
    groups = {}
    for key, label in (("snr", "{:g}"), ("noise", "{}")):
        values = sorted({row[key] for row in rows} - {None, ""})
        groups[key] = {
            label.format(value): _summarize(
                [row for row in rows if row[key] == value], systems, metrics
            )
            for value in values
        }
    return {
        "reference": systems[0],
        "overall": _summarize(rows, systems, metrics),
        **groups,
    }


def _summarize(rows, systems, metrics):
    ids = {name: i for i, name in enumerate(dict.fromkeys(row["ID"] for row in rows))}
    scores = np.full((len(ids), len(systems), len(metrics)), np.nan)
    for row in rows:
        values = [np.nan if row[name] is None else row[name] for name in metrics]
        scores[ids[row["ID"]], systems.index(row["system"])] = values
    # The reference has a difference to itself here, which the result leaves out.
    columns = np.stack([scores, scores - scores[:, :1]], axis=1)
    shape = columns.shape[1:]
    n = np.isfinite(columns).sum(axis=0)
    ends = [end.reshape(shape) for end in bootstrap(columns.reshape(len(ids), -1))]

    def statistics(kind, system):
        return {
            name: {
                "n": int(n[kind, system, i]),
                **{
                    key: None
                    if np.isnan(end[kind, system, i])
                    else float(end[kind, system, i])
                    for key, end in zip(("mean", "low", "high"), ends, strict=True)
                },
            }
            for i, name in enumerate(metrics)
        }

    summary = {}
    for i, system in enumerate(systems):
        own = [row for row in rows if row["system"] == system]
        summary[system] = {
            "n": len(own),
            "failed": sum(bool(row["failed"]) for row in own),
            "scores": statistics(0, i),
        }
        if i:
            summary[system]["difference"] = statistics(1, i)
    return summary
