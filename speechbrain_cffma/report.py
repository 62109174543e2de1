"""The final table of a training run: noisy beside enhanced.

Authors
 * The speechbrain-cffma developers 2026
"""

import csv
import json
from pathlib import Path

from speechbrain_cffma.metrics import mean_scores

#: How each metric is shown: its heading and decimals.
DISPLAY = {
    "pesq": ("PESQ", 2),
    "pesq_nb": ("PESQ (narrow-band)", 2),
    "stoi": ("STOI", 3),
    "estoi": ("ESTOI", 3),
    "si_sdr": ("SI-SDR (dB)", 2),
    "ssnr": ("SSNR (dB)", 2),
    "llr": ("LLR", 3),
    "wss": ("WSS", 2),
    "csig": ("CSIG", 2),
    "cbak": ("CBAK", 2),
    "covl": ("COVL", 2),
}


def comparison_rows(rows, noisy, enhanced):
    """Join the scores of noisy and enhanced, a row an utterance.

    Arguments
    ---------
    rows : list of dict
        Rows of the manifest.
    noisy : list of dict
        What `metrics.score` returns for each noisy signal.
    enhanced : list of dict
        For each enhanced one.

    Returns
    -------
    list of dict
        ID, snr, noise, noisy_<metric>, enhanced_<metric> and failed. An utterance
        that either has no score for stays out of both means.

    Example
    -------
    >>> rows = comparison_rows(
    ...     [{"ID": "a", "snr": 5.0, "noise": "wind"}],
    ...     noisy=[{"pesq": 1.5, "failed": ""}],
    ...     enhanced=[{"pesq": 2.5, "failed": ""}],
    ... )
    >>> rows[0]["noisy_pesq"], rows[0]["enhanced_pesq"]
    (1.5, 2.5)
    """
    joined = []
    for row, before, after in zip(rows, noisy, enhanced, strict=True):
        scores = {}
        for name in (name for name in before if name != "failed"):
            both = before[name] is not None and after[name] is not None
            scores[f"noisy_{name}"] = before[name] if both else None
            scores[f"enhanced_{name}"] = after[name] if both else None
        failed = [
            f"{system}: {score['failed']}"
            for system, score in (("noisy", before), ("enhanced", after))
            if score["failed"]
        ]
        joined.append(
            {
                "ID": row["ID"],
                "snr": row["snr"],
                "noise": row["noise"],
                **scores,
                "failed": "; ".join(failed),
            }
        )
    return joined


def summarize(rows, metrics):
    """Means over all utterances, for each SNR and for each noise, where known.

    Arguments
    ---------
    rows : list of dict
        What `comparison_rows` returns.
    metrics : list of str
        The metrics in it.

    Returns
    -------
    dict
        overall, snr and noise; each group has n, failed, noisy and enhanced.

    Example
    -------
    >>> rows = comparison_rows(
    ...     [{"ID": "a", "snr": 5.0, "noise": "wind"}],
    ...     noisy=[{"pesq": 1.5, "failed": ""}],
    ...     enhanced=[{"pesq": 2.5, "failed": ""}],
    ... )
    >>> summarize(rows, ["pesq"])["snr"]
    {'5.0': {'n': 1, 'failed': 0, 'noisy': {'pesq': 1.5}, 'enhanced': {'pesq': 2.5}}}
    """
    by = {
        key: {
            str(value): _group([row for row in rows if row[key] == value], metrics)
            for value in sorted(
                {row[key] for row in rows if row[key] not in (None, "")}
            )
        }
        for key in ("snr", "noise")
    }
    return {"overall": _group(rows, metrics), **by}


def table(summary, metrics):
    """The summary as text: overall and per SNR.

    Arguments
    ---------
    summary : dict
        What `summarize` returns.
    metrics : list of str
        The metrics to show.

    Returns
    -------
    str
        Lines of equal columns.

    Example
    -------
    >>> rows = comparison_rows(
    ...     [{"ID": "a", "snr": 5.0, "noise": "wind"}],
    ...     noisy=[{"pesq": 1.5, "failed": ""}],
    ...     enhanced=[{"pesq": 2.5, "failed": ""}],
    ... )
    >>> summary = summarize(rows, ["pesq"])
    >>> print(table(summary, ["pesq"]))  # doctest: +NORMALIZE_WHITESPACE
                           PESQ
    input SNR    n      noisy   enhanced
    5 dB         1       1.50       2.50
    all          1       1.50       2.50
    """
    shown = [(name, *DISPLAY[name]) for name in metrics]
    groups = [(f"{float(snr):g} dB", group) for snr, group in summary["snr"].items()]
    lines = [
        " " * 14 + "".join(f"{heading:^22}" for _, heading, _ in shown),
        f"{'input SNR':<9}{'n':>5}" + f"{'noisy':>11}{'enhanced':>11}" * len(shown),
    ]
    for label, group in [*groups, ("all", summary["overall"])]:
        cells = [
            "-" if group[system][name] is None else f"{group[system][name]:.{digits}f}"
            for name, _, digits in shown
            for system in ("noisy", "enhanced")
        ]
        lines.append(f"{label:<9}{group['n']:>5}" + "".join(f"{c:>11}" for c in cells))
    failed = summary["overall"]["failed"]
    if failed:
        lines.append(f"{failed} utterances without all scores, left out of the means")
    return "\n".join(lines)


def write_report(folder, rows, summary):
    """Write scores.csv, a row an utterance, and summary.json.

    Arguments
    ---------
    folder : str or Path
        Where to write.
    rows : list of dict
        What `comparison_rows` returns.
    summary : dict
        What `summarize` returns.

    Example
    -------
    >>> rows = comparison_rows(
    ...     [{"ID": "a", "snr": 5.0, "noise": "wind"}],
    ...     noisy=[{"pesq": 1.5, "failed": ""}],
    ...     enhanced=[{"pesq": 2.5, "failed": ""}],
    ... )
    >>> folder = getfixture("tmp_path")
    >>> write_report(folder, rows, summarize(rows, ["pesq"]))
    >>> sorted(path.name for path in folder.iterdir())
    ['scores.csv', 'summary.json']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "scores.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def _group(rows, metrics):
    means = {
        system: mean_scores(
            [{name: row[f"{system}_{name}"] for name in metrics} for row in rows],
            metrics,
        )
        for system in ("noisy", "enhanced")
    }
    return {"n": len(rows), "failed": sum(bool(row["failed"]) for row in rows), **means}
