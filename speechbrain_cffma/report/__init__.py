"""The report of an evaluation: scores.csv, summary.json, summary.md and report.html.

Authors
 * The speechbrain-cffma developers 2026
"""

import csv
import json
from pathlib import Path

from speechbrain_cffma.errors import InputError, reason
from speechbrain_cffma.files import CSV
from speechbrain_cffma.report import tables
from speechbrain_cffma.statistics import LEVEL, N_RESAMPLES, SEED, summarize_systems


def write_report(folder, rows, settings):
    """Summarise scores and write the report.

    Arguments
    ---------
    folder : str or Path
        Where to write.
    rows : list of dict
        What `evaluate.score_pairs` returns.
    settings : dict
        What `evaluate.settings_of` returns.

    Returns
    -------
    dict
        What `statistics.summarize_systems` makes of the rows.

    Raises
    ------
    InputError
        If it can't be written.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> from speechbrain_cffma.evaluate import score_pairs, settings_of
    >>> folder = getfixture("tmp_path")
    >>> for i, name in enumerate(("clean", "noisy")):
    ...     audio.write(folder / name / "a.wav", getfixture("speech").numpy() + 0.1 * i)
    >>> paths = {"clean": folder / "clean" / "a.wav", "path": folder / "noisy" / "a.wav"}
    >>> pair = {"ID": "a", "system": "noisy", "snr": None, "noise": "", **paths}
    >>> settings = settings_of(["si_sdr"])
    >>> rows = score_pairs([pair], folder, settings, n_jobs=1)
    >>> summary = write_report(folder / "report", rows, settings)
    >>> sorted(path.name for path in (folder / "report").iterdir())
    ['report.html', 'scores.csv', 'summary.json', 'summary.md']
    """
    # Here, since the tables need none of what draws.
    from speechbrain_cffma.report import page

    folder = Path(folder)
    summary = summarize_systems(rows, settings["metrics"])
    columns = ["ID", "system", "snr", "noise", *settings["metrics"], "failed"]
    bootstrap = {"resamples": N_RESAMPLES, "seed": SEED, "level": LEVEL}
    document = {"settings": settings, "bootstrap": bootstrap, **summary}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "scores.csv", "w", **CSV) as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        (folder / "summary.json").write_text(
            json.dumps(document, indent=2) + "\n", encoding="utf-8"
        )
        markdown = tables.markdown(summary, settings)
        (folder / "summary.md").write_text(markdown, "utf-8", "backslashreplace")
        html = page.render(rows, summary, settings)
        (folder / "report.html").write_text(html, "utf-8", "backslashreplace")
    except OSError as error:
        raise InputError(f"the report can't be written ({reason(error)})") from error
    return summary
