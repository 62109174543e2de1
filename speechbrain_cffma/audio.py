"""Reading, converting and checking of audio files.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from speechbrain_cffma import media
from speechbrain_cffma.errors import CFFMAError, InputError, printable, reason

SAMPLE_RATE = 16000
#: Shortest usable file: one frame of the SSL model, 25 ms.
MIN_SAMPLES = 400
#: A file whose loudest sample is below this (-80 dB of full scale) is silent.
SILENCE = 1e-4

#: What `cffma enhance` leaves in a folder that it wrote among its inputs.
ENHANCED_FILE = ".enhanced"
#: A folder with one of them holds results: of a run, a prepare step, a report, or that.
RESULT_FILES = ("hyperparams.yaml", "prepared.json", "progress.jsonl", ENHANCED_FILE)

logger = logging.getLogger(__name__)


class AudioFile(NamedTuple):
    """A checked file, mono at 16 kHz.

    Arguments
    ---------
    path : str
        Where it can be read: the source itself, or its converted copy.
    n_samples : int
        Its length.
    source_rate : int
        Sample rate of the source in Hz.
    source_samples : int
        Length of the source.
    fault : str
        What is wrong with it, or "".
    """

    path: str
    n_samples: int = 0
    source_rate: int = 0
    source_samples: int = 0
    fault: str = ""


def find_audio(folder, extensions=media.AUDIO, leave_out=(), others=None):
    """All audio files below a folder, but for hidden ones and this project's results.

    Arguments
    ---------
    folder : str or Path
        The folder; subfolders are searched too, links to folders among them. Hidden
        ones are not, nor, which is logged, those with results of this project.
    extensions : set of str
        What makes a file audio.
    leave_out : iterable of (str or Path)
        Folders that are not searched either.
    others : list or None
        Gets the paths of the files that are found and are no audio.

    Returns
    -------
    list of Path
        Sorted paths.

    Raises
    ------
    InputError
        If the folder is missing or has no audio files.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.flac", "a.wav", "._a.wav", "notes.txt"):
    ...     (folder / name).touch()
    >>> [path.name for path in find_audio(folder)]
    ['a.wav', 'b.flac']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist")
    paths, no_audio = [], []
    for path in _walk(folder, {Path(other).resolve() for other in leave_out}):
        is_audio = path.suffix.lower() in extensions
        (paths if is_audio else no_audio).append(path)
    if not paths:
        raise InputError(f"the folder {folder} has no audio files")
    if others is not None:
        others += sorted(no_audio)
    return sorted(paths)


def _walk(folder, leave_out):
    """Files below a folder; each folder is searched once, however many links lead to it."""

    def left_out(path, why):
        logger.warning("the folder %s is left out: %s", printable(str(path)), why)

    def unreadable(error):
        left_out(error.filename, f"it can't be read ({reason(error)})")

    seen = {folder.resolve()}
    for parent, subfolders, files in os.walk(
        folder, followlinks=True, onerror=unreadable
    ):
        parent = Path(parent)
        wanted = []
        for name in sorted(subfolders):
            path = (parent / name).resolve()
            if name.startswith(".") or path in seen or path in leave_out:
                continue
            seen.add(path)
            if mark := _mark_of_results(path):
                left_out(parent / name, f"its {mark} tells that it holds results")
            else:
                wanted.append(name)
        subfolders[:] = wanted
        yield from (parent / name for name in files if not name.startswith("."))


def _mark_of_results(folder):
    """Which of `RESULT_FILES` a folder has, if any."""
    return next((name for name in RESULT_FILES if (folder / name).is_file()), None)


def read(path, start=0, n_samples=-1):
    """Read a file or a part of it as mono.

    Arguments
    ---------
    path : str or Path
        The file.
    start : int
        First sample.
    n_samples : int
        How many samples; -1 for all to the end.

    Returns
    -------
    np.ndarray
        Samples [S], float32 in [-1, 1].

    Raises
    ------
    InputError
        If it can't be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> write(path, np.zeros(800))
    >>> read(path, start=300).shape
    (500,)
    """
    limit = sys.maxsize if n_samples < 0 else n_samples
    with media.open_source(path, start, limit) as source:
        return mono(source)


def mono(source):
    """All samples of an open file, the channels averaged.

    Arguments
    ---------
    source : media.Source
        The open file.

    Returns
    -------
    np.ndarray
        Samples [S], float32 in [-1, 1].

    Raises
    ------
    InputError
        If it can't be read to its end.

    Example
    -------
    >>> blocks = [np.ones((2, 300)), np.zeros((2, 500))]
    >>> mono(media.Source(16000, 2, 0.05, "WAV", "PCM_16", iter(blocks))).shape
    (800,)
    """
    try:
        blocks = [
            block[0] if source.channels == 1 else block.mean(axis=0)
            for block in source.blocks
        ]
    except InputError as error:
        raise InputError(f"{source.name}: {error}") from error
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype="float32")


def write(path, samples):
    """Write mono samples at 16 kHz, under a temporary name first.

    16-bit, or 32-bit float where full scale is exceeded, so that nothing is clipped.

    Arguments
    ---------
    path : str or Path
        The file; folders are made.
    samples : np.ndarray
        Samples [S].

    Raises
    ------
    InputError
        If it can't be written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> write(path, np.array([0.5, 1.5]))
    >>> read(path).tolist()
    [0.5, 1.5]
    """
    subtype = "FLOAT" if np.abs(samples).max(initial=0) >= 1 else "PCM_16"
    samples = np.asarray(samples, dtype="float32")
    seconds = len(samples) / SAMPLE_RATE
    source = media.Source(SAMPLE_RATE, 1, seconds, "WAV", subtype, iter(()))
    with media.open_target(path, source) as target:
        target.write(samples[None])


def prepare_files(sources, targets, n_jobs=-1, label="checking audio"):
    """Check files and convert those that are not mono WAV or FLAC at 16 kHz, in parallel.

    Copies made before are kept, so that an interrupted run goes on: a copy has its
    source's time of change.

    Arguments
    ---------
    sources : list of Path
        The files.
    targets : list of Path
        Where the copy of each goes if it needs one (.wav).
    n_jobs : int
        Processes; -1 for one a core.
    label : str
        Shown at the progress bar.

    Returns
    -------
    list of AudioFile
        One for each source; faults are noted, not raised.

    Raises
    ------
    InputError
        If a copy can't be written.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> noise = np.random.default_rng(0).uniform(-1, 1, 8000)
    >>> import soundfile
    >>> soundfile.write(folder / "a.wav", noise, 8000)
    >>> (file,) = prepare_files([folder / "a.wav"], [folder / "copy.wav"], n_jobs=1)
    >>> Path(file.path).name, file.n_samples, file.source_rate, file.fault
    ('copy.wav', 16000, 8000, '')
    """
    from joblib import Parallel, delayed

    jobs = (
        delayed(_prepare_file)(str(source), str(target))
        for source, target in zip(sources, targets, strict=True)
    )
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    progress = tqdm(
        parallel(jobs), total=len(sources), desc=label, leave=False, dynamic_ncols=True
    )
    return list(progress)


def _prepare_file(source, target):
    try:
        # Before it is read: what changes meanwhile is not what was copied.
        time = os.stat(source).st_mtime_ns
        with media.open_source(source) as opened:
            rate = opened.sample_rate
            is_usable = opened.format in ("WAV", "FLAC") and opened.channels == 1
            in_place = is_usable and rate == SAMPLE_RATE
            source_samples = round(opened.seconds * rate)
            is_done = source_samples and not in_place and _is_copy(target, time)
            if is_done:
                samples = read(target)
            else:
                samples = mono(opened)
                source_samples = source_samples or len(samples)
                samples = _resample(samples, rate)
    except (CFFMAError, OSError) as error:
        return AudioFile(source, fault=f"unreadable ({reason(error)})")
    fault = _fault(samples)
    if fault:
        return AudioFile(source, fault=fault)
    if not in_place and not is_done:
        write(target, samples)
        os.utime(target, ns=(time, time))
    path = source if in_place else target
    return AudioFile(path, len(samples), rate, source_samples)


def _fault(samples):
    if len(samples) < MIN_SAMPLES:
        return f"shorter than 25 ms ({len(samples)} samples)"
    if not np.isfinite(samples).all():
        return "holds NaN or Inf"
    if np.abs(samples).max() < SILENCE:
        return "silent"
    return ""


def _is_copy(path, time):
    """Whether it is the copy of a source that was changed at this time."""
    return os.path.exists(path) and os.stat(path).st_mtime_ns == time


def _resample(samples, sample_rate):
    if sample_rate == SAMPLE_RATE or not len(samples):
        return samples
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(samples), sample_rate, SAMPLE_RATE).numpy()
