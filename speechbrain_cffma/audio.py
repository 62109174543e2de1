"""Find, read, resample and write audio files.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
import math
import os
import sys
from pathlib import Path

import numpy as np

from speechbrain_cffma import media
from speechbrain_cffma.errors import InputError, printable, reason

SAMPLE_RATE = 16000
#: Minimum length: one frame of the SSL model, 25 ms.
MIN_SAMPLES = 400
#: A file whose peak is below this (-80 dBFS) is silent.
SILENCE = 1e-4

#: `cffma enhance` writes this file into an output folder that lies in an input folder.
ENHANCED_FILE = ".enhanced"
#: A folder with one of these files holds results: of a run, a prepare step, a report or
#: `cffma enhance`.
RESULT_FILES = ("hyperparams.yaml", "prepared.json", "progress.jsonl", ENHANCED_FILE)

logger = logging.getLogger(__name__)


def find_audio(folder, extensions=media.AUDIO, leave_out=(), others=None):
    """Find all audio files below a folder, except hidden ones and this project's results.

    Arguments
    ---------
    folder : str or Path
        The folder. Subfolders and linked folders are searched too. Hidden folders are
        skipped; pipes and folders that hold results of this project are skipped with a
        warning.
    extensions : set of str
        The extensions of audio files.
    leave_out : iterable of (str or Path)
        Further folders to skip.
    others : list or None
        If given, the paths of all other files are added to it.

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
        if path.suffix.lower() not in extensions:
            no_audio.append(path)
        elif media.is_pipe(path):  # Its reader waits for a writer.
            logger.warning("%s is left out: not a regular file", printable(str(path)))
        else:
            paths.append(path)
    if not paths:
        raise InputError(f"the folder {folder} has no audio files")
    if others is not None:
        others += sorted(no_audio)
    return sorted(paths)


def _walk(folder, leave_out):
    """Files below a folder. Each folder is searched once, even if several links lead to it."""

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
                left_out(parent / name, f"it holds results, as its {mark} shows")
            else:
                wanted.append(name)
        subfolders[:] = wanted
        yield from (parent / name for name in files if not name.startswith("."))


def _mark_of_results(folder):
    """The first of `RESULT_FILES` that a folder has, or None."""
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
        Number of samples; -1 for all up to the end.

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
    """Read all samples of an open file and average the channels.

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


def resample(samples, sample_rate, new_rate=SAMPLE_RATE):
    """Convert the sample rate of training data and of files to score.

    The filter is the one of `torchaudio.functional.resample`: a sinc with 6 zero
    crossings per side, a squared-cosine window, and its cutoff at 99 % of the lower
    Nyquist frequency.

    Arguments
    ---------
    samples : np.ndarray
        Samples [S].
    sample_rate : int
        Their sample rate in Hz.
    new_rate : int
        New sample rate in Hz.

    Returns
    -------
    np.ndarray
        Samples [ceil(S * new_rate / sample_rate)] of the same type.

    Example
    -------
    >>> resample(np.zeros(4410, dtype="float32"), 44100).shape
    (1600,)
    """
    if sample_rate == new_rate or not len(samples):
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(sample_rate, new_rate)
    up, down = new_rate // common, sample_rate // common
    step = 0.99 / max(up, down)  # argument of the sinc, from one tap to the next
    reach = math.floor(6 / step)
    places = step * np.arange(-reach, reach + 1)
    taps = step * np.sinc(places) * np.cos(np.pi * places / 12) ** 2
    return resample_poly(samples, up, down, window=taps.astype(samples.dtype))


def write(path, samples):
    """Write mono samples at 16 kHz as a WAV; the file appears when it is complete.

    Samples are stored in 16 bits, or as 32-bit floats if one exceeds full scale, so that
    nothing is clipped.

    Arguments
    ---------
    path : str or Path
        The file. Missing folders are created.
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
