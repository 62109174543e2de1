"""report.html: one page with tables, charts, spectrograms and audio.

Authors
 * The speechbrain-cffma developers 2026
"""

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.evaluation import figures, tables
from speechbrain_cffma.evaluation.scores import failures, read_at
from speechbrain_cffma.metric_table import TABLE
from speechbrain_cffma.pictures import RANGE, gradient

#: The page shows and plays at most this much of a file.
MAX_SECONDS = 20


def render(rows, summary, settings):
    """Make the page.

    Arguments
    ---------
    rows : list of dict
        Scores from `scores.score_pairs`. The audio of the examples is read from its files.
    summary : dict
        Their summary from `statistics.summarize_systems`.
    settings : dict
        Settings from `scores.scoring_settings`.

    Returns
    -------
    str
        HTML that needs no other file and no network.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> from speechbrain_cffma.evaluation.scores import scoring_settings
    >>> from speechbrain_cffma.evaluation.statistics import summarize_systems
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> pair = {"ID": "a", "system": "noisy", "snr": 5.0, "noise": "", "clean": path}
    >>> rows = [{**pair, "path": path, "pesq": 2.0, "failed": ""}]
    >>> html = render(rows, summarize_systems(rows, ["pesq"]), scoring_settings(["pesq"]))
    >>> html.count("<audio")
    2
    """
    metrics = settings["metrics"]
    systems = list(summary["overall"])
    environment = Environment(
        loader=PackageLoader("speechbrain_cffma.evaluation.report", ""),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        rows=rows,
        summary=summary,
        metrics=metrics,
        primary=metrics[0],
        table=TABLE,
        heading=tables.heading,
        colors={name: figures.color(i) for i, name in enumerate(systems)},
        n_files=len({row["ID"] for row in rows}),
        failures=failures(rows),
        note=tables.note(settings),
        distributions={
            metric: figures.distributions(
                {name: _scores(rows, name, metric) for name in systems}
            )
            for metric in metrics
        },
        curves={
            metric: figures.curves(summary["snr"], metric)
            for metric in metrics
            if len(summary["snr"]) > 1
        },
        examples=[
            _example(rows, name, labels, settings)
            for name, labels in choose(rows, metrics[0]).items()
        ],
        gradient=gradient(),
        range=RANGE,
        max_seconds=MAX_SECONDS,
    )


def choose(rows, metric):
    """Choose files to listen to: the best, median and worst of each system.

    Arguments
    ---------
    rows : list of dict
        Scores from `scores.score_pairs`.
    metric : str
        The metric that ranks the files.

    Returns
    -------
    dict
        For the ID of each chosen file, a list of (place, system).

    Example
    -------
    >>> rows = [{"ID": i, "system": "new", "pesq": p} for i, p in zip("abc", (2, 1, 3))]
    >>> choose(rows, "pesq")
    {'c': [('best', 'new')], 'a': [('median', 'new')], 'b': [('worst', 'new')]}
    """
    chosen = {}
    for system in dict.fromkeys(row["system"] for row in rows):
        scored = [
            row for row in rows if row["system"] == system and row[metric] is not None
        ]
        scored.sort(
            key=lambda row: row[metric], reverse=not TABLE[metric].lower_is_better
        )
        places = {"best": 0, "median": len(scored) // 2, "worst": len(scored) - 1}
        # With fewer than three files, a file would have several places: the first counts.
        taken = set()
        for place, index in places.items():
            if scored and index not in taken:
                taken.add(index)
                chosen.setdefault(scored[index]["ID"], []).append((place, system))
    return chosen


def _scores(rows, system, metric):
    return [
        row[metric]
        for row in rows
        if row["system"] == system and row[metric] is not None
    ]


def _example(rows, name, labels, settings):
    """The data of one file for the page: the signal of each system and the clean one."""
    rate = settings["sample_rate"]
    own = [row for row in rows if row["ID"] == name]
    sources = [(row["system"], row["path"], row) for row in own]
    signals, faults = [], []
    for title, path, row in [*sources, ("clean", own[0]["clean"], None)]:
        try:
            samples = np.nan_to_num(read_at(path, rate))
        except InputError as error:
            faults.append(str(error))
            continue
        signals.append((title, samples, row))
    longest = max((len(samples) for _, samples, _ in signals), default=0)
    n_shown = min(longest, MAX_SECONDS * rate)
    signals = [(title, samples[:n_shown], row) for title, samples, row in signals]
    # The same factor for all signals, so that their levels can be compared.
    peak = max((np.abs(samples).max(initial=0) for _, samples, _ in signals), default=0)
    shown = [samples / max(1.0, peak) for _, samples, _ in signals]
    images = figures.spectra(shown, rate) if shown else []
    return {
        "ID": name,
        "labels": labels,
        "snr": own[0]["snr"],
        "noise": own[0]["noise"],
        "seconds": n_shown / rate,
        "is_cut": longest > n_shown,
        "is_scaled": peak > 1,
        "khz": rate / 2000,
        "faults": faults,
        "signals": [
            {
                "title": title,
                "row": row,
                "spectrogram": image,
                "audio": figures.audio(samples, rate),
            }
            for (title, _, row), samples, image in zip(
                signals, shown, images, strict=True
            )
        ],
    }
