"""Manifests: the one form in which every data set reaches training and evaluation.

A CSV with a row an utterance and the columns of `COLUMNS`; what does not apply is
empty. Training pairs that are mixed on the fly have no `noisy_wav`. Lists of noises
and of room impulse responses have `ID`, `duration` and `noise_wav` or `rir_wav`.

Authors
 * The speechbrain-cffma developers 2026
"""

import csv
import json
import logging
from collections import Counter
from pathlib import Path

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.files import replacing

logger = logging.getLogger(__name__)

COLUMNS = (
    "ID",
    "duration",
    "noisy_wav",
    "clean_wav",
    "noise_wav",
    "rir_wav",
    "speaker",
    "snr",
    "noise",
)

#: Training may go on without faulty files while they are fewer than this share.
MAX_FAULTY_SHARE = 0.01


def write_manifest(path, rows):
    """Write a manifest, under a temporary name first.

    Arguments
    ---------
    path : str or Path
        The CSV; folders are made.
    rows : list of dict
        Rows with keys of `COLUMNS`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv"
    >>> write_manifest(path, [{"ID": "a", "duration": 1.5, "clean_wav": "a.wav"}])
    >>> read_manifest(path)[0]["clean_wav"]
    'a.wav'
    """
    with replacing(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def read_manifest(path):
    """Read a manifest.

    Arguments
    ---------
    path : str or Path
        The CSV.

    Returns
    -------
    list of dict
        Its rows; `duration` in seconds and `snr` in dB as floats, `snr` None if unknown.

    Raises
    ------
    InputError
        If it is missing or has other columns.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(
            f"the manifest {path} can't be read ({error.strerror}): run the experiment's "
            "prepare step"
        ) from error
    try:
        for row in rows:
            row["duration"] = float(row["duration"])
            row["snr"] = float(row["snr"]) if row["snr"] else None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a manifest with the columns {', '.join(COLUMNS)}"
        ) from error
    return rows


def names_of(paths, folder):
    """IDs of files: their paths in a folder, without extension.

    Arguments
    ---------
    paths : list of Path
        The files.
    folder : str or Path
        The folder.

    Returns
    -------
    list of str
        Such as p232/p232_001.

    Raises
    ------
    InputError
        If two have the same name, such as a.wav and a.flac.

    Example
    -------
    >>> names_of([Path("noisy/p232/p232_001.wav")], "noisy")
    ['p232/p232_001']
    """
    names = [Path(p).relative_to(folder).with_suffix("").as_posix() for p in paths]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(
            f"{folder} has several files of the same name but for the extension: "
            + ", ".join(twice)
        )
    return names


def pair_files(noisy_paths, noisy_folder, clean_paths, clean_folder):
    """Find the clean twin of each noisy file by its path without extension.

    Arguments
    ---------
    noisy_paths : list of Path
        Noisy files.
    noisy_folder : str or Path
        The folder that their names are relative to.
    clean_paths : list of Path
        Clean files.
    clean_folder : str or Path
        Likewise.

    Returns
    -------
    list of (str, Path, Path)
        ID, noisy and clean path.

    Raises
    ------
    InputError
        If a noisy file has no clean twin: all of them, with their count; or if two
        files of a folder have the same name.

    Example
    -------
    >>> noisy, clean = [Path("noisy/p1/a.flac")], [Path("clean/p1/a.wav")]
    >>> [(name, clean.name) for name, _, clean in pair_files(noisy, "noisy", clean, "clean")]
    [('p1/a', 'a.wav')]
    """
    clean = dict(zip(names_of(clean_paths, clean_folder), clean_paths, strict=True))
    noisy = dict(zip(names_of(noisy_paths, noisy_folder), noisy_paths, strict=True))
    alone = [name for name in noisy if name not in clean]
    if alone:
        raise InputError(
            f"{len(alone)} of {len(noisy)} noisy files in {noisy_folder} have no clean "
            f"twin of the same name in {clean_folder}: {', '.join(alone)}"
        )
    unused = len(clean) - len(noisy)
    if unused:
        logger.warning(
            "%d files of %s have no noisy twin and are not used", unused, clean_folder
        )
    return [(name, path, clean[name]) for name, path in noisy.items()]


def check_twins(ids, noisy, clean):
    """Check that noisy and clean files have the same sample rate and length.

    Arguments
    ---------
    ids : list of str
        Names of the pairs.
    noisy : list of AudioFile
        Noisy files.
    clean : list of AudioFile
        Their clean twins.

    Raises
    ------
    InputError
        If any differ, with the first one's figures and all names.

    Example
    -------
    >>> from speechbrain_cffma.audio import AudioFile
    >>> noisy = AudioFile("noisy.wav", 16000, source_rate=16000, source_samples=16000)
    >>> check_twins(["a"], [noisy], [noisy._replace(path="clean.wav")])
    """
    differing = [
        (name, a, b)
        for name, a, b in zip(ids, noisy, clean, strict=True)
        if not (a.fault or b.fault)
        and (a.source_rate, a.source_samples) != (b.source_rate, b.source_samples)
    ]
    if differing:
        name, a, b = differing[0]
        raise InputError(
            f"{len(differing)} pairs differ in sample rate or length, such as {name}: noisy "
            f"{a.source_rate} Hz, {a.source_samples} samples ({a.path}); clean "
            f"{b.source_rate} Hz, {b.source_samples} samples ({b.path}). All: "
            + ", ".join(name for name, _, _ in differing)
        )


def usable(files, split):
    """Which files can be used; faults stop evaluation data always, training data from 1 %.

    Arguments
    ---------
    files : list of AudioFile or list of tuple of AudioFile
        Files, or the files of each pair.
    split : str
        "train", "valid" or "test", for the message.

    Returns
    -------
    list of bool
        True where all files of the entry are without fault.

    Raises
    ------
    InputError
        If there are too many faults: every file with what is wrong.

    Example
    -------
    >>> from speechbrain_cffma.audio import AudioFile
    >>> usable([AudioFile("a.wav")] * 2, "train")
    [True, True]
    >>> usable([AudioFile("a.wav"), AudioFile("b.wav", fault="silent")], "test")
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: 1 of 2 test files can't be used; mend or remove them: b.wav: silent
    """
    entries = [(f,) if hasattr(f, "fault") else f for f in files]
    faulty = [file for entry in entries for file in entry if file.fault]
    good = [not any(file.fault for file in entry) for entry in entries]
    n_bad = len(good) - sum(good)
    if n_bad:
        names = ", ".join(f"{file.path}: {file.fault}" for file in faulty)
        if split != "train" or n_bad >= MAX_FAULTY_SHARE * len(good):
            raise InputError(
                f"{n_bad} of {len(good)} {split} files can't be used; mend or remove "
                f"them: {names}"
            )
        logger.warning("skipping %d of %d training files: %s", n_bad, len(good), names)
    return good


def is_prepared(save_folder, arguments):
    """Whether a prepare step has already run with the same arguments.

    If not, the mark of one with other arguments is removed, since what it wrote is
    about to be replaced.

    Arguments
    ---------
    save_folder : str or Path
        Where its manifests go.
    arguments : dict
        Its arguments.

    Returns
    -------
    bool
        True if `mark_prepared` was called with equal arguments and the manifests are there.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for split in ("train", "valid", "test"):
    ...     write_manifest(folder / f"{split}.csv", [])
    >>> mark_prepared(folder, {"seed": 1})
    >>> is_prepared(folder, {"seed": 1}), is_prepared(folder, {"seed": 2})
    (True, False)
    """
    marker = _marker(save_folder)
    manifests = [marker.with_name(f"{s}.csv") for s in ("train", "valid", "test")]
    if all(path.is_file() for path in (marker, *manifests)):
        if marker.read_text() == _plain(arguments):
            return True
    marker.unlink(missing_ok=True)
    return False


def mark_prepared(save_folder, arguments):
    """Note that a prepare step has run to its end.

    Arguments
    ---------
    save_folder : str or Path
        Where its manifests are.
    arguments : dict
        Its arguments.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> mark_prepared(folder, {"seed": 1})
    >>> (folder / "prepared.json").exists()
    True
    """
    _marker(save_folder).write_text(_plain(arguments))


def _marker(save_folder):
    return Path(save_folder) / "prepared.json"


def _plain(arguments):
    return json.dumps(arguments, default=str, sort_keys=True, indent=2)
