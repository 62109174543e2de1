"""Prepare WHAMR! (Maciejewski et al., arXiv 1910.10279) for denoising, dereverberation or both.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
from pathlib import Path

from speechbrain_cffma import media
from speechbrain_cffma.data.pairs import (
    copies_folder,
    prepare_pairs,
    utterance_ids,
    write_splits,
)
from speechbrain_cffma.data.prepared import find_sources, is_prepared, mark_prepared
from speechbrain_cffma.errors import CFFMAError, InputError

logger = logging.getLogger(__name__)

#: Folders of the noisy and of the clean files.
TASKS = {
    "denoise": ("mix_single_anechoic", "s1_anechoic"),
    "dereverb": ("s1_reverb", "s1_anechoic"),
    "joint": ("mix_single_reverb", "s1_anechoic"),
}
VERSIONS = ("min", "max")
RATES = {16000: "wav16k", 8000: "wav8k"}
SPLITS = {"train": "tr", "valid": "cv", "test": "tt"}
N_PAIRS = {"train": 20000, "valid": 5000, "test": 3000}


def prepare_whamr(
    data_folder,
    manifest_folder,
    task,
    version="min",
    sample_rate=16000,
    allow_subset=False,
    n_jobs=-1,
):
    """Write train.csv, valid.csv and test.csv from the splits tr, cv and tt.

    Arguments
    ---------
    data_folder : str or Path
        The output folder of WHAMR!'s scripts, with wav16k/ or wav8k/. Files at 8 kHz
        are converted to 16 kHz once; the copies are written to its subfolder 16k/, or to
        that of the manifest folder if it is read-only.
    manifest_folder : str or Path
        Folder for the manifests.
    task : str
        denoise, dereverb or joint; the target is the anechoic first speaker.
    version : str
        min or max: mixtures end with the shorter or with the longer speaker.
    sample_rate : int
        Sample rate of the files in Hz: 16000 or 8000.
    allow_subset : bool
        Accept any number of pairs; otherwise all of them are required.
    n_jobs : int
        Number of processes; -1: one per CPU core.

    Raises
    ------
    InputError
        If an option is unknown, folders or files are missing, or files are faulty.
    """
    for name, value, known in (
        ("task", task, TASKS),
        ("version", version, VERSIONS),
        ("sample_rate", sample_rate, RATES),
    ):
        if value not in known:
            choices = ", ".join(map(str, known))
            raise InputError(f"WHAMR! has no {name} {value!r}: choose one of {choices}")
    data_folder = Path(data_folder).expanduser().absolute()
    manifest_folder = Path(manifest_folder)
    arguments = {
        "data": data_folder / RATES[sample_rate] / version,
        "task": task,
        "allow_subset": allow_subset,
    }
    folders = _find_folders(data_folder, task, version, sample_rate)
    sources = find_sources(sum(folders.values(), []))
    for paths in sources.files.values():
        _check_form(paths[0], sample_rate)
    if is_prepared(manifest_folder, arguments, sources.states):
        return

    for split, sides in folders.items():
        _check_names(split, sides, sources.files, allow_subset)
    copies = copies_folder(data_folder, manifest_folder)
    parts = {}
    for split, sides in folders.items():
        targets = [copies / side.relative_to(data_folder) for side in sides]
        parts[split] = prepare_pairs(sides, sources.files, targets, n_jobs)
        for pair in parts[split]:
            pair.row["speaker"] = pair.row["ID"][:3]  # of WSJ0: 01a of 01aa010b_...
    write_splits(manifest_folder, parts)
    mark_prepared(manifest_folder, arguments, sources.states)


def _find_folders(data_folder, task, version, sample_rate):
    """The noisy and the clean folder of each split."""
    top = data_folder / RATES[sample_rate] / version
    folders = {
        split: [top / name / side for side in TASKS[task]]
        for split, name in SPLITS.items()
    }
    missing = [
        str(side.relative_to(data_folder))
        for sides in folders.values()
        for side in sides
        if not (side.is_dir() and any(side.iterdir()))
    ]
    if missing:
        logger.error("the expected layout is\n%s", _layout(data_folder, top, task))
        others = [
            f"{name}/{other} (--sample_rate={rate} --version={other})"
            for rate, name in RATES.items()
            for other in VERSIONS
            if data_folder / name / other != top
            and (data_folder / name / other).is_dir()
        ]
        raise InputError(
            f"WHAMR! is not complete in {data_folder}: missing or empty are "
            f"{', '.join(missing)}. Pass the folder that has {RATES[sample_rate]}/ by "
            f"--data_folder=FOLDER"
            + (f", or use {' or '.join(others)}" if others else "")
        )
    return folders


def _check_form(path, sample_rate):
    """Check that a file is mono: the mean of two microphones would be another task."""
    try:
        with media.open_source(path) as source:
            rate, channels = source.sample_rate, source.channels
    except CFFMAError:  # reported later, with all files that can't be read
        return
    if (rate, channels) != (sample_rate, 1):
        raise InputError(
            f"{path} has {channels} channels at {rate} Hz, not 1 at "
            f"{sample_rate} Hz: build WHAMR! with MONO = True in its script"
        )


def _layout(data_folder, top, task):
    """The files that the scripts of WHAMR! write, as a tree."""
    noisy, clean = TASKS[task]
    lines = [f"{data_folder}/", f"  {top.relative_to(data_folder)}/"]
    for split, name in SPLITS.items():
        lines += [
            f"    {name}/",
            f"      {noisy + '/':<21}{N_PAIRS[split]:>6} WAV files",
            f"      {clean + '/':<21}{N_PAIRS[split]:>6} of the same names",
        ]
    return "\n".join(lines)


def _check_names(split, sides, files, allow_subset):
    """Check that both folders have the same files, and all files unless a subset is allowed."""
    names = [set(utterance_ids(files[side], side)) for side in sides]
    lacking = [
        f"{side} lacks {_abbreviated(set.union(*names) - own)}"
        for side, own in zip(sides, names, strict=True)
        if set.union(*names) - own
    ]
    if lacking:
        raise InputError(
            f"the {split} set of WHAMR! has files without their counterpart: "
            f"{'; '.join(lacking)}. Copy the missing files, or remove the others"
        )
    if allow_subset or len(names[0]) == N_PAIRS[split]:
        return
    # Files that both lack may be in another folder of the split.
    known = {path.stem for path in sides[0].parent.glob("*/*.wav")} - names[0]
    raise InputError(
        f"the {split} set of WHAMR! has {N_PAIRS[split]} files; {sides[0]} and "
        f"{sides[1].name} have {len(names[0])}"
        + (f" and lack {_abbreviated(known)}" if known else "")
        + ". Copy all of them, or accept a subset by --allow_subset"
    )


def _abbreviated(names):
    """The number of names and the first five: '7 files (a, b, c, d, e and 2 more)'."""
    shown = sorted(names)[:5]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} files ({', '.join(shown)}{more})"
