"""The report of an evaluation: scores.csv, summary.json, summary.md and report.html.

Authors
 * The speechbrain-cffma developers 2026
"""

import csv
import io
import json
from pathlib import Path

from speechbrain_cffma.errors import InputError, reason
from speechbrain_cffma.evaluation import tables
from speechbrain_cffma.evaluation.statistics import (
    LEVEL,
    N_RESAMPLES,
    SEED,
    summarize_systems,
)
from speechbrain_cffma.files import CSV, atomic_write


def write_report(folder, rows, settings):
    """Summarise scores and write the report.

    Arguments
    ---------
    folder : str or Path
        Folder for the report.
    rows : list of dict
        Scores from `scores.score_pairs`.
    settings : dict
        Settings from `scores.scoring_settings`.

    Returns
    -------
    dict
        The summary of the rows from `statistics.summarize_systems`.

    Raises
    ------
    InputError
        If a file can't be written.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> from speechbrain_cffma.evaluation.scores import score_pairs, scoring_settings
    >>> folder = getfixture("tmp_path")
    >>> for i, name in enumerate(("clean", "noisy")):
    ...     audio.write(folder / name / "a.wav", getfixture("speech").numpy() + 0.1 * i)
    >>> paths = {"clean": folder / "clean" / "a.wav", "path": folder / "noisy" / "a.wav"}
    >>> pair = {"ID": "a", "system": "noisy", "snr": None, "noise": "", **paths}
    >>> settings = scoring_settings(["si_sdr"])
    >>> rows = score_pairs([pair], folder, settings, n_jobs=1)
    >>> summary = write_report(folder / "report", rows, settings)
    >>> sorted(path.name for path in (folder / "report").iterdir())
    ['report.html', 'scores.csv', 'summary.json', 'summary.md']
    """
    # Imported here, so that the tables don't need the packages that draw.
    from speechbrain_cffma.evaluation import page

    folder = Path(folder)
    summary = summarize_systems(rows, settings["metrics"])
    columns = ["ID", "system", "snr", "noise", *settings["metrics"], "failed"]
    bootstrap = {"resamples": N_RESAMPLES, "seed": SEED, "level": LEVEL}
    document = {"settings": settings, "bootstrap": bootstrap, **summary}
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    # summary.json comes last: it tells a sweep that the run has finished.
    for name, text, errors in (
        ("scores.csv", table.getvalue(), CSV["errors"]),
        ("summary.md", tables.markdown(summary, settings), "backslashreplace"),
        ("report.html", page.render(rows, summary, settings), "backslashreplace"),
        ("summary.json", json.dumps(document, indent=2) + "\n", "strict"),
    ):
        try:
            with atomic_write(folder / name) as partial:
                partial.write_text(text, "utf-8", errors, newline="")
        except OSError as error:
            raise InputError(
                f"{folder / name} can't be written ({reason(error)})"
            ) from error
    return summary
