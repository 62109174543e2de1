"""Tables of a summary, for the terminal, for papers and for model cards.

Authors
 * The speechbrain-cffma developers 2026
"""

from speechbrain_cffma.evaluation.statistics import LEVEL, N_RESAMPLES
from speechbrain_cffma.metric_table import TABLE


def text(summary, metrics):
    """The overall summary for a terminal: one column per system, one row per metric.

    Arguments
    ---------
    summary : dict
        Summary from `statistics.summarize_systems`.
    metrics : list of str
        The metrics to show.

    Returns
    -------
    str
        Lines of aligned columns.

    Example
    -------
    >>> from speechbrain_cffma.evaluation.statistics import summarize_systems
    >>> row = {"ID": "a", "system": "noisy", "snr": None, "noise": "", "failed": ""}
    >>> rows = [{**row, "pesq": 1.5}, {**row, "ID": "b", "pesq": 2.0}]
    >>> print(text(summarize_systems(rows, ["pesq"]), ["pesq"]))
    system              noisy
    files                   2
    failed                  0
    PESQ ↑  1.75 [1.50, 2.00]
    """
    blocks = [_columns(zip(*_means(summary["overall"], metrics), strict=True))]
    if len(summary["overall"]) > 1:
        differences = _differences(summary, metrics)
        blocks.append(_columns(zip(*differences, strict=True)))
    return "\n\n".join(blocks)


def markdown(summary, settings):
    """The summary for a paper: means, paired differences, means by SNR and by noise.

    Arguments
    ---------
    summary : dict
        Summary from `statistics.summarize_systems`.
    settings : dict
        Settings from `scores.scoring_settings`.

    Returns
    -------
    str
        Tables in Markdown, and a note that explains the figures.

    Example
    -------
    >>> from speechbrain_cffma.evaluation.scores import scoring_settings
    >>> from speechbrain_cffma.evaluation.statistics import summarize_systems
    >>> row = {"ID": "a", "system": "noisy", "snr": None, "noise": "", "failed": ""}
    >>> rows = [{**row, "si_sdr": 1.5}, {**row, "ID": "b", "si_sdr": 2.0}]
    >>> summary = summarize_systems(rows, ["si_sdr"])
    >>> print(markdown(summary, scoring_settings(["si_sdr"])).splitlines()[2])
    | noisy | 2 | 0 | 1.75 [1.50, 2.00] |
    """
    metrics = settings["metrics"]
    means = _means(summary["overall"], metrics)
    sections = [pipes(means)]
    if len(summary["overall"]) > 1:
        sections.append(pipes(_differences(summary, metrics)))
    for key, title, label in (("snr", "input SNR", "{} dB"), ("noise", "noise", "{}")):
        rows = [
            [label.format(name), *row]
            for name, group in summary[key].items()
            for row in _means(group, metrics)[1:]
        ]
        if rows:
            sections.append(pipes([[title, *means[0]], *rows]))
    sections.append(note(settings))
    return "\n\n".join(sections) + "\n"


def by_metric(summary, metrics):
    """The overall summary for a model card: one row per metric, one column per system.

    Arguments
    ---------
    summary : dict
        Summary from `statistics.summarize_systems`.
    metrics : list of str
        The metrics to show.

    Returns
    -------
    str
        A table in Markdown; the last columns are the paired differences.

    Example
    -------
    >>> from speechbrain_cffma.evaluation.statistics import summarize_systems
    >>> row = {"ID": "a", "snr": None, "noise": "", "failed": ""}
    >>> rows = [{**row, "system": "noisy", "pesq": 1.5}, {**row, "system": "new", "pesq": 2.0}]
    >>> print(by_metric(summarize_systems(rows, ["pesq"]), ["pesq"]).splitlines()[0])
    | system | noisy | new | new − noisy, paired |
    """
    columns = _means(summary["overall"], metrics)
    for name, *cells in _differences(summary, metrics)[1:]:
        columns.append([f"{name} − {summary['reference']}, paired", "", "", *cells])
    return pipes(zip(*columns, strict=True))


def _means(group, metrics):
    """Cells of the means, one row per system."""
    header = ["system", "files", "failed", *map(heading, metrics)]
    rows = [
        [
            name,
            str(entry["n"]),
            str(entry["failed"]),
            *(cell(entry["scores"][m], TABLE[m].digits) for m in metrics),
        ]
        for name, entry in group.items()
    ]
    return [header, *rows]


def _differences(summary, metrics):
    """Cells of the paired differences, one row per system except the reference."""
    header = [f"paired difference to {summary['reference']}", *map(heading, metrics)]
    rows = [
        [
            name,
            *(cell(entry["difference"][m], TABLE[m].digits, "+") for m in metrics),
        ]
        for name, entry in summary["overall"].items()
        if "difference" in entry
    ]
    return [header, *rows]


def heading(metric):
    """A metric's name, with an arrow to better scores.

    Arguments
    ---------
    metric : str
        A name in `METRICS`.

    Returns
    -------
    str
        The heading.

    Example
    -------
    >>> heading("wss")
    'WSS ↓'
    """
    row = TABLE[metric]
    return f"{row.heading} {'↓' if row.lower_is_better else '↑'}"


def cell(statistic, digits, sign=""):
    """A mean with its interval.

    Arguments
    ---------
    statistic : dict
        mean, low and high; None if not defined.
    digits : int
        Decimals.
    sign : str
        "+" to show the sign of positive numbers.

    Returns
    -------
    str
        The text of a table's cell.

    Example
    -------
    >>> cell({"mean": 0.5, "low": 0.4, "high": 0.6}, 2, "+")
    '+0.50 [+0.40, +0.60]'
    """
    mean, low, high = (statistic[key] for key in ("mean", "low", "high"))
    if mean is None:
        return "-"
    form = f"{sign}.{digits}f"
    if low is None:
        return f"{mean:{form}}"
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def _columns(rows):
    """Cells as lines of text; the first column is left-aligned, the others right-aligned."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if i else f"{cell:<{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def pipes(rows):
    """Cells as a table in Markdown.

    Arguments
    ---------
    rows : list of list of str
        The headings and the rows. Names are left-aligned, numbers right-aligned.

    Returns
    -------
    str
        The lines of the table.

    Example
    -------
    >>> print(pipes([["system", "PESQ"], ["noisy", "1.75"]]))
    | system | PESQ |
    | --- | ---: |
    | noisy | 1.75 |
    """
    header, *rows = [[text.replace("|", "\\|") for text in row] for row in rows]
    n_names = header.index("files") if "files" in header else 1
    rule = ["---"] * n_names + ["---:"] * (len(header) - n_names)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def note(settings):
    """Explain the figures of a report.

    Arguments
    ---------
    settings : dict
        Settings from `scores.scoring_settings`.

    Returns
    -------
    str
        A paragraph.

    Example
    -------
    >>> from speechbrain_cffma.evaluation.scores import scoring_settings
    >>> note(scoring_settings(["si_sdr"])).startswith("Means with 95 % bootstrap intervals")
    True
    """
    *first, last = (row.heading for row in TABLE.values() if row.has_scale)
    versions = ", ".join(f"{name} {v}" for name, v in settings["versions"].items())
    return (
        f"Means with {100 * LEVEL:g} % bootstrap intervals ({N_RESAMPLES:,} resamples over "
        "utterances). Files without a score are left out of means and paired differences; "
        "they never count as 0. "
        f"Scored at {settings['sample_rate']} Hz; {', '.join(first)} and {last} with the "
        f"sample scale {settings['scale']}. Versions: {versions}."
    )
