"""Match noisy recordings with clean references by name, check the pairs and prepare them.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.data.files import AudioFile, prepare_files
from speechbrain_cffma.data.manifest import logger, write_manifest
from speechbrain_cffma.errors import InputError, printable

#: Training leaves faulty files out if they are fewer than this share; else they are an error.
MAX_FAULTY_SHARE = 0.01


def utterance_ids(paths, folder):
    """IDs of files: their paths relative to a folder, without extension.

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
        If two files get the same ID, such as a.wav and a.flac.

    Example
    -------
    >>> utterance_ids([Path("noisy/p232/p232_001.wav")], "noisy")
    ['p232/p232_001']
    """
    names = [Path(p).relative_to(folder).with_suffix("").as_posix() for p in paths]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(
            f"{folder} has several files whose names differ only in the extension; keep "
            "one of each: " + ", ".join(twice)
        )
    return names


def match_files(names, paths, folder, pair_by=None):
    r"""Find the match of each name among the files of a folder.

    Arguments
    ---------
    names : list of str
        Names of files in another folder, from `utterance_ids`.
    paths : list of Path
        The files.
    folder : str or Path
        The folder of these files; their names are relative to it.
    pair_by : str or None
        A regular expression. Two names match if its groups are equal in both, or, if it
        has no groups, the text that it finds. None: if the whole names are equal.

    Returns
    -------
    dict
        The matching path for each name. Names without a match are left out.

    Raises
    ------
    InputError
        If `pair_by` is not a regular expression, or finds the same in two files.

    Example
    -------
    >>> paths = [Path("clean/clean_fileid_1.wav"), Path("clean/clean_fileid_15.wav")]
    >>> match_files(["a_snr5_fileid_15"], paths, "clean", pair_by=r"fileid_\d+")
    {'a_snr5_fileid_15': PosixPath('clean/clean_fileid_15.wav')}
    """
    try:
        pattern = re.compile(r".*" if pair_by is None else str(pair_by))
    except re.error as error:
        raise InputError(
            f"pair_by is {pair_by!r}, which is not a regular expression: {error}"
        ) from error

    def key(name):
        match = pattern.search(name)
        return match and (match.groups() or match[0])

    known = {}
    for name, path in zip(utterance_ids(paths, folder), paths, strict=True):
        if key(name) in known:
            raise InputError(
                f"pair_by={pair_by!r} finds the same text in {known[key(name)]} and {path}: "
                "give an expression that finds another text in each file of a folder"
            )
        if key(name) is not None:
            known[key(name)] = path
    return {name: known[key(name)] for name in names if key(name) in known}


def pair_files(noisy_paths, noisy_folder, clean_paths, clean_folder, pair_by=None):
    """Find the clean reference of each noisy file.

    Arguments
    ---------
    noisy_paths : list of Path
        Noisy files.
    noisy_folder : str or Path
        The folder of the noisy files; their names are relative to it.
    clean_paths : list of Path
        Clean files.
    clean_folder : str or Path
        The folder of the clean files; their names are relative to it.
    pair_by : str or None
        Regular expression for the part of the names that must be equal, see `match_files`.
        None: the paths without extension.

    Returns
    -------
    list of (str, Path, Path)
        ID, noisy path and clean path.

    Raises
    ------
    InputError
        If noisy files have no clean reference (the message lists them all), or if two
        files of a folder have the same name.

    Example
    -------
    >>> noisy, clean = [Path("noisy/p1/a.flac")], [Path("clean/p1/a.wav")]
    >>> [(name, clean.name) for name, _, clean in pair_files(noisy, "noisy", clean, "clean")]
    [('p1/a', 'a.wav')]
    """
    noisy = dict(
        zip(utterance_ids(noisy_paths, noisy_folder), noisy_paths, strict=True)
    )
    clean = match_files(noisy, clean_paths, clean_folder, pair_by)
    alone = [name for name in noisy if name not in clean]
    if alone:
        raise InputError(
            f"{len(alone)} of {len(noisy)} noisy files in {noisy_folder} have no clean "
            f"reference with the same {'name' if pair_by is None else pair_by} in "
            f"{clean_folder}; add or remove: {', '.join(alone)}"
        )
    unused = len(clean_paths) - len(set(clean.values()))
    if unused:
        logger.warning(
            "%d files in %s match no noisy file and are not used", unused, clean_folder
        )
    return [(name, path, clean[name]) for name, path in noisy.items()]


def check_matches(ids, noisy, clean):
    """Check that noisy and clean files have the same sample rate and length.

    Arguments
    ---------
    ids : list of str
        IDs of the pairs.
    noisy : list of AudioFile
        Noisy files.
    clean : list of AudioFile
        Their clean references.

    Raises
    ------
    InputError
        If pairs differ. The message describes the first pair and lists all.

    Example
    -------
    >>> noisy = AudioFile("noisy.wav", 16000, source_rate=16000, source_samples=16000)
    >>> check_matches(["a"], [noisy], [noisy._replace(path="clean.wav")])
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


def copies_folder(data_folder, manifest_folder):
    """The folder for the 16 kHz copies of a data set.

    It lies in the data set, so that all experiments share it.

    Arguments
    ---------
    data_folder : Path
        The folder of the data set.
    manifest_folder : Path
        The folder that is used instead if the data set is read-only.

    Returns
    -------
    Path
        The folder 16k in one of these. It need not exist.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> copies_folder(folder / "data", folder / "manifests") == folder / "manifests/16k"
    True
    """
    copies = Path(data_folder) / "16k"
    if copies.is_dir() or os.access(data_folder, os.W_OK):
        return copies
    return Path(manifest_folder) / "16k"


class Pair(NamedTuple):
    """A recorded pair that has been matched and checked.

    Arguments
    ---------
    row : dict
        Its row of a manifest: ID, duration, noisy_wav and clean_wav.
    files : (AudioFile, AudioFile)
        The noisy and the clean file, with their faults, if any.
    sources : (Path, Path)
        The original noisy and clean file.
    """

    row: dict
    files: tuple[AudioFile, AudioFile]
    sources: tuple[Path, Path]


def prepare_pairs(folders, files, copies, n_jobs=-1, pair_by=None):
    """Match the files of two folders, check them, and convert those not at 16 kHz mono.

    Arguments
    ---------
    folders : (str or Path, str or Path)
        The folder of the noisy files and the folder of their clean references, both with
        or without subfolders. Several noisy files may share one reference.
    files : dict
        The files of each folder, see `find_sources`.
    copies : (Path, Path)
        Folders for the converted copies of noisy and of clean files.
    n_jobs : int
        Number of processes; -1 for one per core.
    pair_by : str or None
        Regular expression for the part of the names that must be equal, see `match_files`.
        None: the paths without extension.

    Returns
    -------
    list of Pair
        The pairs, including faulty ones: see `drop_faulty_pairs`.

    Raises
    ------
    InputError
        If a noisy file has no clean reference, or a pair differs in sample rate or length.

    Example
    -------
    >>> from speechbrain_cffma.data.prepared import find_sources
    >>> from speechbrain_cffma import audio
    >>> folder = getfixture("tmp_path")
    >>> for side in ("noisy", "clean"):
    ...     audio.write(folder / side / "p1/a_5dB.wav", getfixture("speech").numpy())
    >>> sides = folder / "noisy", folder / "clean"
    >>> files = find_sources(sides).files
    >>> (pair,) = prepare_pairs(sides, files, copies=sides, n_jobs=1)
    >>> pair.row["ID"], pair.row["duration"]
    ('p1/a_5dB', 3.0)
    """
    noisy, clean = folders
    found = pair_files(files[noisy], noisy, files[clean], clean, pair_by)
    ids, *sides = zip(*found, strict=True)
    checked = []
    for paths, folder, target in zip(sides, folders, copies, strict=True):
        once = list(dict.fromkeys(paths))
        targets = [Path(target) / f"{name}.wav" for name in utterance_ids(once, folder)]
        prepared = prepare_files(once, targets, n_jobs, label=Path(folder).name)
        by_path = dict(zip(once, prepared, strict=True))
        checked.append([by_path[path] for path in paths])
    check_matches(ids, *checked)
    return [
        Pair(
            {
                "ID": name,
                "duration": clean.n_samples / SAMPLE_RATE,
                "noisy_wav": noisy.path,
                "clean_wav": clean.path,
            },
            (noisy, clean),
            sources,
        )
        for name, noisy, clean, *sources in zip(ids, *checked, *sides, strict=True)
    ]


def drop_faulty_pairs(pairs, split):
    """The rows of the pairs without faults; see `drop_faulty`.

    Arguments
    ---------
    pairs : list of Pair
        Pairs from `prepare_pairs`.
    split : str
        "train", "valid" or "test".

    Returns
    -------
    list of dict
        Rows of a manifest.

    Raises
    ------
    InputError
        If an evaluation file or too many training files are faulty.

    Example
    -------
    >>> files = AudioFile("noisy.wav"), AudioFile("clean.wav")
    >>> drop_faulty_pairs([Pair({"ID": "a"}, files, files)], "test")
    [{'ID': 'a'}]
    """
    good = drop_faulty([pair.files for pair in pairs], split)
    return [pair.row for pair, ok in zip(pairs, good, strict=True) if ok]


def write_splits(manifest_folder, parts):
    """Write a manifest for each split, without faulty pairs.

    Arguments
    ---------
    manifest_folder : str or Path
        Folder for the manifests.
    parts : dict
        Lists of `Pair` for train, valid and test.

    Raises
    ------
    InputError
        The errors of `drop_faulty`, before anything is written.

    Example
    -------
    >>> from speechbrain_cffma.data.manifest import read_manifest
    >>> folder = getfixture("tmp_path")
    >>> files = AudioFile("noisy.wav"), AudioFile("clean.wav")
    >>> write_splits(folder, {"test": [Pair({"ID": "a", "duration": 1.5}, files, files)]})
    >>> [row["ID"] for row in read_manifest(folder / "test.csv")]
    ['a']
    """
    rows = {part: drop_faulty_pairs(pairs, part) for part, pairs in parts.items()}
    for part, its_rows in rows.items():
        write_manifest(Path(manifest_folder) / f"{part}.csv", its_rows)


def drop_faulty(files, split):
    """Tell which files are without fault.

    Any fault in evaluation data is an error. Training data may have faults in less than
    1 % of its files.

    Arguments
    ---------
    files : list of AudioFile or list of tuple of AudioFile
        Files, or the files of each pair.
    split : str
        "train", "valid" or "test", for the message.

    Returns
    -------
    list of bool
        True if all files of the entry are without fault.

    Raises
    ------
    InputError
        If there are too many faults. The message lists each file and its fault.

    Example
    -------
    >>> drop_faulty([AudioFile("a.wav")] * 2, "train")
    [True, True]
    >>> drop_faulty([AudioFile("a.wav"), AudioFile("b.wav", fault="silent")], "test")
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
        logger.warning(
            "skipping %d of %d training files: %s", n_bad, len(good), printable(names)
        )
    return good
