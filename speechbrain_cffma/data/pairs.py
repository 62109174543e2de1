"""Pairs of noisy and clean recordings: found by name, checked, and prepared.

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

#: Training may go on without faulty files while they are fewer than this share.
MAX_FAULTY_SHARE = 0.01


def utterance_ids(paths, folder):
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
    >>> utterance_ids([Path("noisy/p232/p232_001.wav")], "noisy")
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


def match_files(names, paths, folder, pair_by=None):
    r"""Find the twin of each name among the files of a folder.

    Arguments
    ---------
    names : list of str
        Names of files of another folder, from `utterance_ids`.
    paths : list of Path
        The files.
    folder : str or Path
        The folder that their names are relative to.
    pair_by : str or None
        A regular expression. Twins are equal in what it finds in their names: its
        groups, or all that it matches if it has none. None: in the whole name.

    Returns
    -------
    dict
        The path of each name's twin; names without one are not in it.

    Raises
    ------
    InputError
        If it is no regular expression, or finds the same in two files of the folder.

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
            f"pair_by is {pair_by!r}, which is no regular expression: {error}"
        ) from error

    def key(name):
        match = pattern.search(name)
        return match and (match.groups() or match[0])

    known = {}
    for name, path in zip(utterance_ids(paths, folder), paths, strict=True):
        if key(name) in known:
            raise InputError(
                f"pair_by={pair_by!r} finds the same in {known[key(name)]} and {path}: "
                "it must tell the files of one folder apart"
            )
        if key(name) is not None:
            known[key(name)] = path
    return {name: known[key(name)] for name in names if key(name) in known}


def pair_files(noisy_paths, noisy_folder, clean_paths, clean_folder, pair_by=None):
    """Find the clean twin of each noisy file.

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
    pair_by : str or None
        What twins have in common, see `match_files`; None: their paths without extension.

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
    noisy = dict(
        zip(utterance_ids(noisy_paths, noisy_folder), noisy_paths, strict=True)
    )
    clean = match_files(noisy, clean_paths, clean_folder, pair_by)
    alone = [name for name in noisy if name not in clean]
    if alone:
        raise InputError(
            f"{len(alone)} of {len(noisy)} noisy files in {noisy_folder} have no clean "
            f"twin of the same {'name' if pair_by is None else pair_by} in "
            f"{clean_folder}: {', '.join(alone)}"
        )
    unused = len(clean_paths) - len(set(clean.values()))
    if unused:
        logger.warning(
            "%d files of %s have no noisy twin and are not used", unused, clean_folder
        )
    return [(name, path, clean[name]) for name, path in noisy.items()]


def check_matches(ids, noisy, clean):
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
    """Where the 16 kHz copies of a data set go: beside it, for all experiments.

    Arguments
    ---------
    data_folder : Path
        The data set.
    manifest_folder : Path
        Where they go if the data set is read-only.

    Returns
    -------
    Path
        A folder 16k, which need not exist.

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
    """A recorded pair, found and checked.

    Arguments
    ---------
    row : dict
        Its row of a manifest: ID, duration, noisy_wav and clean_wav.
    files : (AudioFile, AudioFile)
        Noisy and clean, with their faults, if any.
    sources : (Path, Path)
        The files that these were made of.
    """

    row: dict
    files: tuple[AudioFile, AudioFile]
    sources: tuple[Path, Path]


def prepare_pairs(folders, files, copies, n_jobs=-1, pair_by=None):
    """Pair the files of two folders, check each, and convert what is not 16 kHz mono.

    Arguments
    ---------
    folders : (str or Path, str or Path)
        Those of the noisy files, in subfolders or not, and of their clean twins; one may
        be the twin of several.
    files : dict
        The files of each folder, see `find_sources`.
    copies : (Path, Path)
        Folders of the converted copies of noisy and of clean files.
    n_jobs : int
        Processes; -1 for one a core.
    pair_by : str or None
        What twins have in common, see `match_files`; None: their paths without extension.

    Returns
    -------
    list of Pair
        Their rows, faulty ones too: see `drop_faulty_pairs`.

    Raises
    ------
    InputError
        If files don't pair, or twins differ in sample rate or length.

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
    """The rows of pairs that can be used, see `drop_faulty`.

    Arguments
    ---------
    pairs : list of Pair
        What `prepare_pairs` returns.
    split : str
        "train", "valid" or "test".

    Returns
    -------
    list of dict
        Rows of a manifest.

    Raises
    ------
    InputError
        If an evaluation file, or too many training files, can't be used.

    Example
    -------
    >>> files = AudioFile("noisy.wav"), AudioFile("clean.wav")
    >>> drop_faulty_pairs([Pair({"ID": "a"}, files, files)], "test")
    [{'ID': 'a'}]
    """
    good = drop_faulty([pair.files for pair in pairs], split)
    return [pair.row for pair, ok in zip(pairs, good, strict=True) if ok]


def write_splits(manifest_folder, parts):
    """Write the manifest of each part, with its usable pairs.

    Arguments
    ---------
    manifest_folder : str or Path
        Where they go.
    parts : dict
        train, valid and test: lists of `Pair`.

    Raises
    ------
    InputError
        As of `drop_faulty`, before anything is written.

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
