"""Score pairs of enhanced and clean files.

A journal stores the finished rows. An interrupted evaluation continues from it, and an
evaluation with a further system scores only that system.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from speechbrain_cffma import __version__, media
from speechbrain_cffma.audio import SAMPLE_RATE, mono, resample
from speechbrain_cffma.errors import CFFMAError, InputError, InstallError, printable
from speechbrain_cffma.evaluation.journal import (
    JOURNAL,
    append,
    key_of,
    open_journal,
    read_journal,
)
from speechbrain_cffma.metric_table import DEFAULT, SCALES, TABLE
from speechbrain_cffma.metrics import available_metrics, score_each


def scoring_settings(
    metrics=DEFAULT, scale="int16", sample_rate=SAMPLE_RATE, resample=False
):
    """The settings that affect scores. Compare only scores with equal settings.

    Arguments
    ---------
    metrics : list of str
        Names in `metrics.METRICS`.
    scale : str
        Full scale of the samples for the parts of the composite measures, "int16" or
        "unit"; see `metrics.composite`.
    sample_rate : int
        Sample rate in Hz at which files are scored.
    resample : bool
        Whether to resample files with other sample rates. If False, they are an error.

    Returns
    -------
    dict
        The arguments, and the versions of this package and of the metrics' packages.

    Raises
    ------
    InputError
        If there is no such metric or scale.
    InstallError
        If a metric's package is not installed.

    Example
    -------
    >>> scoring_settings(["si_sdr"])["scale"]
    'int16'
    """
    unknown = [name for name in metrics if name not in TABLE]
    if unknown or not metrics:
        raise InputError(
            f"there is no metric {', '.join(unknown) or 'to score'}: choose from "
            + ", ".join(TABLE)
        )
    if scale not in SCALES:
        raise InputError(f"the scale must be {' or '.join(SCALES)}, not {scale}")
    available = available_metrics(metrics)
    missing = [name for name in metrics if name not in available]
    if missing:
        extras = sorted({TABLE[name].extra for name in missing})
        raise InstallError(
            f"the metrics {', '.join(missing)} need packages that are not installed: pip "
            f"install 'speechbrain-cffma[{','.join(extras)}]', or choose other metrics"
        )
    return {
        "metrics": list(dict.fromkeys(metrics)),
        "scale": scale,
        "sample_rate": sample_rate,
        "resample": resample,
        "versions": {
            "speechbrain-cffma": __version__,
            **{
                p: version(p)
                for p in sorted({TABLE[m].package for m in metrics} - {None})
            },
        },
    }


def look_at(paths):
    """Read sample rates and lengths from the headers of files.

    Arguments
    ---------
    paths : iterable of Path
        The files.

    Returns
    -------
    dict
        Sample rate in Hz and length in seconds by path. Unreadable files are left out:
        they fail when they are scored.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 800, 8000)
    >>> look_at([path])[path]
    (8000, 0.1)
    """
    headers = {}
    for path in dict.fromkeys(paths):
        try:
            with media.open_source(path) as source:
                headers[path] = source.sample_rate, source.seconds
        except CFFMAError:
            continue
    return headers


def check_sample_rates(headers, sample_rate):
    """Check that files have the sample rate at which they will be scored.

    Arguments
    ---------
    headers : dict
        Headers from `look_at`.
    sample_rate : int
        In Hz.

    Raises
    ------
    InputError
        If files have another sample rate; the message has their count and the first one.

    Example
    -------
    >>> check_sample_rates({"a.wav": (8000, 0.1)}, 8000)
    """
    differing = {p: rate for p, (rate, _) in headers.items() if rate != sample_rate}
    for path, rate in differing.items():
        raise InputError(
            f"{len(differing)} of {len(headers)} files are not at {sample_rate} Hz, such "
            f"as {path} at {rate} Hz: resample them by --resample, or give another "
            "--sample-rate"
        )


def score_pairs(
    pairs, folder, settings, n_jobs=-1, overwrite=False, engine="local", address=None
):
    """Score pairs of files.

    Arguments
    ---------
    pairs : list of dict
        ID, system, path, clean (path), snr and noise.
    folder : str or Path
        Folder that stores each row when it is finished; see `systems.evaluate`.
    settings : dict
        Settings from `scoring_settings`.
    n_jobs : int
        Number of processes; -1 for one per core.
    overwrite : bool
        Score all files again, and replace the stored rows.
    engine : str
        See `systems.evaluate`.
    address : str or None
        See `systems.evaluate`.

    Returns
    -------
    list of dict
        The pairs, with each metric (None if there is no score) and failed (the reason,
        or "").

    Raises
    ------
    InputError
        If files have another sample rate, or if the folder has rows with other settings.

    Example
    -------
    >>> import soundfile
    >>> folder, clean = getfixture("tmp_path"), getfixture("speech").numpy()
    >>> paths = {"clean": folder / "clean.wav", "path": folder / "noisy.wav"}
    >>> soundfile.write(paths["clean"], clean, 16000)
    >>> soundfile.write(paths["path"], clean + 0.1 * clean[::-1], 16000)
    >>> pair = {"ID": "a", "system": "noisy", "snr": 20.0, "noise": "", **paths}
    >>> (row,) = score_pairs([pair], folder / "report", scoring_settings(["si_sdr"]), n_jobs=1)
    >>> row["system"], round(row["si_sdr"]), row["failed"]
    ('noisy', 20, '')
    """
    headers = look_at(pair[key] for key in ("clean", "path") for pair in pairs)
    if not settings["resample"]:
        check_sample_rates(headers, settings["sample_rate"])
    seconds = [headers.get(pair["clean"], (0, 0.0))[1] for pair in pairs]
    journal = Path(folder) / JOURNAL
    done = {} if overwrite else read_journal(journal, settings)
    with _engine(engine, address, n_jobs, settings, headers) as workers:
        scores = _score_pairs(pairs, seconds, journal, done, settings, *workers)
    return [{**pair, **score} for pair, score in zip(pairs, scores, strict=True)]


def failures(rows):
    """Summarise failures: how often each reason occurs for each system.

    Arguments
    ---------
    rows : list of dict
        Rows from `score_pairs`.

    Returns
    -------
    list of str
        One line per system and reason, with the count and the first file.

    Example
    -------
    >>> failures([{"ID": "a", "system": "new", "failed": "PESQ: the signal is silent"}])
    ['new: 1 file failed (a): PESQ: the signal is silent']
    """
    failed = [row for row in rows if row["failed"]]
    counts = Counter((row["system"], row["failed"]) for row in failed)
    first = {}
    for row in failed:
        first.setdefault((row["system"], row["failed"]), row["ID"])
    return [
        printable(
            f"{system}: {count} {'file' if count == 1 else 'files'} failed "
            f"({first[system, why]}{', ...' if count > 1 else ''}): {why}"
        )
        for (system, why), count in counts.items()
    ]


@contextmanager
def _engine(name, address, n_jobs, settings, paths):
    """What calls in worker processes, as `score_each` takes it, and their number."""
    if name == "local":
        yield n_jobs, None
        return
    from speechbrain_cffma.cluster import calls, connection

    metrics = {TABLE[name].package for name in settings["metrics"]} - {None}
    n_jobs = n_jobs if n_jobs > 0 else None
    with connection.connected(address, n_jobs):
        versions = connection.check_versions((*connection.PACKAGES, *sorted(metrics)))
        connection.check_files(paths)
        seen = next(filter(os.path.exists, map(os.path.abspath, paths)), None)
        conditions = connection.Conditions(versions, seen)
        yield n_jobs or calls.QUEUE, partial(calls.cluster_map, conditions=conditions)


def _score_pairs(pairs, seconds, journal, done, settings, n_jobs, call_each):
    keys = [key_of(pair) for pair in pairs]
    waiting = [i for i, key in enumerate(keys) if key not in done]
    sample_rate = settings["sample_rate"]
    sources = [(pairs[i]["clean"], pairs[i]["path"], sample_rate) for i in waiting]
    scores = score_each(
        _read_pair,
        sources,
        settings["metrics"],
        [seconds[i] for i in waiting],
        n_jobs,
        sample_rate,
        settings["scale"],
        call_each,
    )
    with (
        open_journal(journal, settings, done) as file,
        tqdm(
            total=len(pairs),
            initial=len(pairs) - len(waiting),
            desc="scoring",
            dynamic_ncols=True,
            disable=None,  # shown in a terminal only
        ) as progress,
        closing(scores),
    ):
        for index, row, crashed in scores:
            key = keys[waiting[index]]
            done[key] = row
            if not crashed:  # If a process died, the next run tries again.
                append(file, key, row)
            progress.update()
    return [done[key] for key in keys]


def _read_pair(clean, path, sample_rate):
    return read_at(clean, sample_rate), read_at(path, sample_rate)


def read_at(path, sample_rate):
    """Read a mono file and resample it.

    Arguments
    ---------
    path : str or Path
        The file.
    sample_rate : int
        Sample rate of the result in Hz.

    Returns
    -------
    np.ndarray
        Samples [S], float32.

    Raises
    ------
    InputError
        If the file can't be read or has several channels.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, [0.0] * 800, 8000)
    >>> read_at(path, 16000).shape
    (1600,)
    """
    with media.open_source(path) as source:
        if source.channels > 1:
            raise InputError(f"{path} has {source.channels} channels")
        rate, samples = source.sample_rate, mono(source)
    return resample(samples, rate, sample_rate)
