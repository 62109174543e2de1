"""Prepare your own pairs: a folder of noisy files and a folder of clean files.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
from pathlib import Path

import numpy as np

from speechbrain_cffma.data import conditions
from speechbrain_cffma.data.pairs import prepare_pairs, write_splits
from speechbrain_cffma.data.prepared import find_sources, is_prepared, mark_prepared
from speechbrain_cffma.errors import InputError

logger = logging.getLogger(__name__)


def prepare_paired_folders(
    manifest_folder,
    noisy_folder=None,
    clean_folder=None,
    test_noisy_folder=None,
    test_clean_folder=None,
    pair_by=None,
    metadata=None,
    held_out_share=0.1,
    seed=0,
    n_jobs=-1,
):
    """Write train.csv, valid.csv and test.csv; convert files to 16 kHz mono once.

    A share of the clean files is held out for validation, and another one for testing if
    there are no test folders. If the share amounts to at least one subfolder, whole
    subfolders (speakers) are held out. All noisy files of a clean file are in one part.

    Arguments
    ---------
    manifest_folder : str or Path
        Folder for the manifests and the 16 kHz copies.
    noisy_folder : str or Path or None
        Noisy files for training and validation, with or without subfolders, in any format
        and sample rate that libsndfile reads; channels are averaged. None: only testing is
        possible, and train.csv and valid.csv have no rows.
    clean_folder : str or Path or None
        Their clean references.
    test_noisy_folder : str or Path or None
        Noisy files for testing. None: a share of those above.
    test_clean_folder : str or Path or None
        Their clean references.
    pair_by : str or None
        A regular expression for the part of the names that the files of a pair share, see
        `pairs.match_files`; None: their paths without extension.
    metadata : str or Path or None
        Input SNR and noise of the test files, see `conditions.from_file`; None: they are
        read from the names, if these state them.
    held_out_share : float
        Share of the subfolders or clean files for validation, and the same for testing.
    seed : int
        Seed of the selection.
    n_jobs : int
        Number of processes; -1: one per CPU core.

    Raises
    ------
    InputError
        If folders are missing, files have no counterpart or are faulty, there are too few
        files, or a test file is also used for training.
    """
    training = _both("noisy_folder", noisy_folder, "clean_folder", clean_folder)
    testing = _both(
        "test_noisy_folder", test_noisy_folder, "test_clean_folder", test_clean_folder
    )
    if not (training or testing):
        raise InputError(
            "there is no data: pass --noisy_folder and --clean_folder, or, to evaluate a "
            "model, --test_noisy_folder and --test_clean_folder"
        )
    arguments = {
        "folders": [training, testing],
        "pair_by": pair_by,
        "metadata": metadata,
        "held_out_share": held_out_share,
        "seed": seed,
    }
    sources = find_sources(
        (*training, *testing),
        leave_out=[manifest_folder],
        others=[metadata] if metadata else [],
    )
    if is_prepared(manifest_folder, arguments, sources.states):
        return

    def pairs_of(folders, part):
        copies = [
            Path(manifest_folder) / "16k" / part / side for side in ("noisy", "clean")
        ]
        pairs = prepare_pairs(folders, sources.files, copies, n_jobs, pair_by)
        for pair in pairs:
            subfolders = pair.sources[1].relative_to(folders[1]).parts[:-1]
            pair.row.update(
                conditions.from_name(pair.row["ID"]),
                speaker=subfolders[0] if subfolders else "",
            )
        return pairs

    parts = {"train": [], "valid": [], "test": []}
    if training:
        held_out = ("valid",) if testing else ("valid", "test")
        parts |= _split(pairs_of(training, "train"), held_out, held_out_share, seed)
    if testing:
        parts["test"] = pairs_of(testing, "test")
        _check_unseen(parts)
    if metadata:
        ids = [pair.row["ID"] for pair in parts["test"]]
        known = conditions.from_file(metadata, ids)
        for pair in parts["test"]:
            pair.row.update(known[pair.row["ID"]])
    write_splits(manifest_folder, parts)
    mark_prepared(manifest_folder, arguments, sources.states)


def _both(noisy_option, noisy, clean_option, clean):
    """Two folders, or none: () if neither is given."""
    folders = {noisy_option: noisy, clean_option: clean}
    missing = [option for option, folder in folders.items() if folder is None]
    if len(missing) == 1:
        raise InputError(
            f"--{missing[0]} is missing: {' and '.join(folders)} belong together"
        )
    return (
        ()
        if missing
        else tuple(Path(f).expanduser().absolute() for f in (noisy, clean))
    )


def _split(pairs, held_out, share, seed):
    """The pairs of each part; those that are not held out are for training."""
    speakers = {pair.row["speaker"] for pair in pairs}
    by_speaker = share * len(speakers) >= 1

    def group(pair):
        # Links can give a clean file several names.
        return pair.row["speaker"] if by_speaker else pair.sources[1].resolve()

    groups = list(dict.fromkeys(map(group, pairs)))
    n_held_out = max(1, round(share * len(groups)))
    order = np.random.default_rng(seed).permutation(len(groups))
    part_of = {
        groups[index]: part
        for n, part in enumerate(held_out)
        for index in order[n * n_held_out : (n + 1) * n_held_out]
    }
    parts = {part: [] for part in ("train", *held_out)}
    for pair in pairs:
        parts[part_of.get(group(pair), "train")].append(pair)
    what = "subfolders" if by_speaker else "clean files"
    for part, its_pairs in parts.items():
        if not its_pairs:
            raise InputError(
                f"{len(groups)} {what} are too few: none is left for {part}; add more"
            )
    logger.info(
        "%d of %d %s are held out for each of: %s",
        n_held_out,
        len(groups),
        what,
        ", ".join(held_out),
    )
    return parts


def _check_unseen(parts):
    """Check that no test file is also used for training or validation."""
    seen = {
        source.resolve()
        for part in ("train", "valid")
        for pair in parts[part]
        for source in pair.sources
    }
    tested = {source for pair in parts["test"] for source in pair.sources}
    both = sorted(str(source) for source in tested if source.resolve() in seen)
    if both:
        raise InputError(
            f"{len(both)} test files are also used for training: {', '.join(both)}"
        )
