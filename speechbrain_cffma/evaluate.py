"""Score systems, each a folder of files, against the clean speech of another folder.

Finished rows are kept in `JOURNAL`, so that an interrupted evaluation goes on, and one
with a further system scores only that.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
import math
import os
from collections import Counter
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from speechbrain_cffma import __version__, conditions, media
from speechbrain_cffma.audio import SAMPLE_RATE, find_audio, mono
from speechbrain_cffma.errors import (
    CFFMAError,
    InputError,
    InstallError,
    printable,
    reason,
)
from speechbrain_cffma.files import replacing, state_of
from speechbrain_cffma.manifest import find_twins, names_of
from speechbrain_cffma.metric_table import DEFAULT, SCALES, TABLE
from speechbrain_cffma.metrics import available_metrics, score_each

#: A line a finished row, in the output folder.
JOURNAL = "progress.jsonl"


def settings_of(
    metrics=DEFAULT, scale="int16", sample_rate=SAMPLE_RATE, resample=False
):
    """What scores depend on beside the files; only scores of equal settings compare.

    Arguments
    ---------
    metrics : list of str
        Names in `metrics.METRICS`.
    scale : str
        Full scale at which the parts of the composite measures are taken, "int16" or
        "unit"; see `metrics.composite`.
    sample_rate : int
        At which files are scored, in Hz.
    resample : bool
        Whether files of other sample rates are converted; else they are an error.

    Returns
    -------
    dict
        The arguments, and the versions of this package and of those that score.

    Raises
    ------
    InputError
        If there is no such metric or scale.
    InstallError
        If a metric's package is not installed.

    Example
    -------
    >>> settings_of(["si_sdr"])["scale"]
    'int16'
    """
    unknown = [name for name in metrics if name not in TABLE]
    if unknown or not metrics:
        raise InputError(
            f"there is no metric {', '.join(unknown) or 'to score'}: choose from "
            + ", ".join(TABLE)
        )
    if scale not in SCALES:
        raise InputError(f"the scale is {' or '.join(SCALES)}, not {scale}")
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


def pair_systems(clean, systems, pair_by=None):
    """Find the files of each system, by path without extension, and their clean twins.

    Arguments
    ---------
    clean : str or Path
        Folder of clean speech.
    systems : dict
        Folder of each system's files, by its name.
    pair_by : str or None
        What a file and its clean twin have in common, see `manifest.find_twins`; None:
        their paths without extension.

    Returns
    -------
    list of dict
        ID, system, path and clean (path), a system after the other.

    Raises
    ------
    InputError
        If a file of a system is missing in another or has no clean twin: all of them,
        with their count. Clean files that no system has are left out.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("clean", "noisy"):
    ...     (folder / name).mkdir()
    ...     (folder / name / "a.wav").touch()
    >>> (pair,) = pair_systems(folder / "clean", {"noisy": folder / "noisy"})
    >>> pair["ID"], pair["system"], pair["clean"].relative_to(folder).as_posix()
    ('a', 'noisy', 'clean/a.wav')
    """
    clean_paths = find_audio(clean)
    found = []
    for folder in systems.values():
        paths = find_audio(folder)
        found.append(dict(zip(names_of(paths, folder), paths, strict=True)))
    ids = sorted(set().union(*found))
    twins = find_twins(ids, clean_paths, clean, pair_by)
    missing = {
        folder: [name for name in ids if name not in paths]
        for folder, paths in zip(
            [clean, *systems.values()], [twins, *found], strict=True
        )
    }
    n_missing = sum(map(len, missing.values()))
    if n_missing:
        raise InputError(
            f"{n_missing} files have no twin of the same "
            f"{'path without extension' if pair_by is None else pair_by}: "
            + "; ".join(
                f"{len(names)} of {len(ids)} missing in {folder}: {', '.join(names)}"
                for folder, names in missing.items()
                if names
            )
        )
    return [
        {"ID": name, "system": system, "path": paths[name], "clean": twins[name]}
        for system, paths in zip(systems, found, strict=True)
        for name in ids
    ]


def look_at(paths):
    """What the headers of files tell.

    Arguments
    ---------
    paths : iterable of Path
        The files.

    Returns
    -------
    dict
        The sample rate in Hz and the length in seconds by the path. Unreadable files are
        left out: they fail when they are scored.

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
    """Check that files have the sample rate at which they are to be scored.

    Arguments
    ---------
    headers : dict
        What `look_at` returns.
    sample_rate : int
        In Hz.

    Raises
    ------
    InputError
        If any differs, with the first one's rate and their count.

    Example
    -------
    >>> check_sample_rates({"a.wav": (8000, 0.1)}, 8000)
    """
    differing = {p: rate for p, (rate, _) in headers.items() if rate != sample_rate}
    for path, rate in differing.items():
        raise InputError(
            f"{len(differing)} of {len(headers)} files are not at {sample_rate} Hz, such "
            f"as {path} at {rate} Hz: convert them by --resample, or score at another "
            "--sample-rate"
        )


def evaluate(
    clean,
    systems,
    folder,
    settings,
    metadata=None,
    n_jobs=-1,
    overwrite=False,
    pair_by=None,
):
    """Score every file of every system.

    Arguments
    ---------
    clean : str or Path
        Folder of clean speech.
    systems : dict
        Folder of each system's files, by its name; the first is what the others are
        compared to.
    folder : str or Path
        Where the rows are kept as they finish. Those found there are not scored again
        if their two files are as they were; those whose process died are.
    settings : dict
        What `settings_of` returns.
    metadata : str or Path
        CSV with the columns ID, snr, noise, or a log, see `conditions.from_file`; by
        default file names are asked.
    n_jobs : int
        Processes; -1 for one a core.
    overwrite : bool
        Score all files anew.
    pair_by : str or None
        See `pair_systems`.

    Returns
    -------
    list of dict
        A row a file and system: ID, system, path, clean (path), snr (None if unknown),
        noise ("" if unknown), each metric (None if it has no score) and failed: the
        reason, or "".

    Raises
    ------
    InputError
        If files don't pair, are at another sample rate, or if the folder has rows of
        other settings.

    Example
    -------
    >>> import soundfile
    >>> folder, clean = getfixture("tmp_path"), getfixture("speech").numpy()
    >>> for name, samples in (("clean", clean), ("noisy", clean + 0.1 * clean[::-1])):
    ...     (folder / name).mkdir()
    ...     soundfile.write(folder / name / "a_snr20.wav", samples, 16000)
    >>> systems = {"noisy": folder / "noisy"}
    >>> settings = settings_of(["si_sdr"])
    >>> (row,) = evaluate(folder / "clean", systems, folder / "report", settings, n_jobs=1)
    >>> row["system"], row["snr"], round(row["si_sdr"]), row["failed"]
    ('noisy', 20.0, 20, '')
    """
    pairs = pair_systems(clean, systems, pair_by)
    ids = list(dict.fromkeys(pair["ID"] for pair in pairs))
    if metadata:
        known = conditions.from_file(metadata, ids)
    else:
        known = {name: conditions.from_name(name) for name in ids}
    pairs = [{**pair, **known[pair["ID"]]} for pair in pairs]
    return score_pairs(pairs, folder, settings, n_jobs, overwrite)


def score_pairs(pairs, folder, settings, n_jobs=-1, overwrite=False):
    """Score pairs of files.

    Arguments
    ---------
    pairs : list of dict
        ID, system, path, clean (path), snr and noise. The first one's system is what
        the others are compared to.
    folder : str or Path
        Where the rows are kept as they finish; see `evaluate`.
    settings : dict
        What `settings_of` returns.
    n_jobs : int
        Processes; -1 for one a core.
    overwrite : bool
        Score all files anew, whatever rows the folder has.

    Returns
    -------
    list of dict
        The pairs, with each metric (None if it has no score) and failed: the reason,
        or "".

    Raises
    ------
    InputError
        If files are at another sample rate, or if the folder has rows of other
        settings.

    Example
    -------
    >>> import soundfile
    >>> folder, clean = getfixture("tmp_path"), getfixture("speech").numpy()
    >>> paths = {"clean": folder / "clean.wav", "path": folder / "noisy.wav"}
    >>> soundfile.write(paths["clean"], clean, 16000)
    >>> soundfile.write(paths["path"], clean + 0.1 * clean[::-1], 16000)
    >>> pair = {"ID": "a", "system": "noisy", "snr": 20.0, "noise": "", **paths}
    >>> (row,) = score_pairs([pair], folder / "report", settings_of(["si_sdr"]), n_jobs=1)
    >>> row["system"], round(row["si_sdr"]), row["failed"]
    ('noisy', 20, '')
    """
    headers = look_at(pair[key] for key in ("clean", "path") for pair in pairs)
    if not settings["resample"]:
        check_sample_rates(headers, settings["sample_rate"])
    seconds = [headers.get(pair["clean"], (0, 0.0))[1] for pair in pairs]
    journal = Path(folder) / JOURNAL
    done = {} if overwrite else _read_journal(journal, settings)
    scores = _score_pairs(pairs, seconds, journal, done, settings, n_jobs)
    return [{**pair, **score} for pair, score in zip(pairs, scores, strict=True)]


def failures(rows):
    """What failed, and how often each reason occurs.

    Arguments
    ---------
    rows : list of dict
        What `evaluate` returns.

    Returns
    -------
    list of str
        A line a system and reason, with the count and the first file.

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


def _score_pairs(pairs, seconds, journal, done, settings, n_jobs):
    keys = [_key(pair) for pair in pairs]
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
    )
    with (
        _open_journal(journal, settings, done) as file,
        tqdm(
            total=len(pairs),
            initial=len(pairs) - len(waiting),
            desc="scoring",
            dynamic_ncols=True,
        ) as progress,
        closing(scores),
    ):
        for index, row, crashed in scores:
            key = keys[waiting[index]]
            done[key] = row
            if not crashed:  # Else the next run tries again.
                _append(file, key, row)
            progress.update()
    return [done[key] for key in keys]


def _read_pair(clean, path, sample_rate):
    return read_at(clean, sample_rate), read_at(path, sample_rate)


def read_at(path, sample_rate):
    """Read a mono file at a sample rate.

    Arguments
    ---------
    path : str or Path
        The file.
    sample_rate : int
        In Hz.

    Returns
    -------
    np.ndarray
        Samples [S], float32.

    Raises
    ------
    InputError
        If it can't be read or has several channels.

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
    if rate == sample_rate:
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(sample_rate, rate)
    return resample_poly(samples, sample_rate // common, rate // common)


def _key(pair):
    """Both files as they are now, and what is made of them."""
    paths = [os.path.abspath(pair[side]) for side in ("clean", "path")]
    return json.dumps([[path, *(state_of(path) or ())] for path in paths])


def _read_journal(path, settings):
    """The finished rows by their keys, if there are any."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path} can't be read ({reason(error)})") from error
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break  # What was being written when the process was killed.
    header, *rows = entries or [settings]
    if not isinstance(header, dict) or not all(_is_row(row) for row in rows):
        raise InputError(f"{path} is damaged: --overwrite scores all files anew")
    if header != settings:
        differing = [name for name in settings if header.get(name) != settings[name]]
        raise InputError(
            f"{path.parent} has scores of other settings ({', '.join(differing)}): choose "
            "another folder, or --overwrite"
        )
    return dict(rows)


def _is_row(entry):
    """Whether a line of the journal is a key and its scores."""
    match entry:
        case [str(), {"failed": str()}]:
            return True
    return False


def _open_journal(path, settings, done):
    """The journal with the rows that are done, ready for more."""
    try:
        with replacing(path) as partial:
            file = open(partial, "w", encoding="utf-8")
            file.write(json.dumps(settings) + "\n")
            for key, row in done.items():
                _append(file, key, row)
    except OSError as error:
        raise InputError(f"{path} can't be written ({reason(error)})") from error
    return file


def _append(file, key, row):
    try:
        file.write(json.dumps([key, row]) + "\n")
        file.flush()
    except OSError as error:
        raise InputError(f"{file.name} can't be written ({reason(error)})") from error
