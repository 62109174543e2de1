"""Check recordings, and convert those that are not mono WAV or FLAC at 16 kHz.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from speechbrain_cffma import media
from speechbrain_cffma.audio import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    SILENCE,
    mono,
    read,
    resample,
    write,
)
from speechbrain_cffma.errors import CFFMAError, reason


class AudioFile(NamedTuple):
    """A checked file, mono at 16 kHz.

    Arguments
    ---------
    path : str
        Path of the source itself or of its converted copy.
    n_samples : int
        Length in samples at 16 kHz.
    source_rate : int
        Sample rate of the source in Hz.
    source_samples : int
        Length of the source in samples.
    fault : str
        What is wrong with the file, or "".
    """

    path: str
    n_samples: int = 0
    source_rate: int = 0
    source_samples: int = 0
    fault: str = ""


def prepare_files(sources, targets, n_jobs=-1, label="checking audio"):
    """Check files and convert those that are not mono WAV or FLAC at 16 kHz, in parallel.

    Existing copies are kept, so that an interrupted run continues. A copy belongs to its
    source if both have the same modification time.

    Arguments
    ---------
    sources : list of Path
        The files.
    targets : list of Path
        Path of the copy (.wav) of each file, if it needs one.
    n_jobs : int
        Number of processes; -1 for one per core.
    label : str
        Label of the progress bar.

    Returns
    -------
    list of AudioFile
        One for each source. A faulty file raises no error but has a `fault`.

    Raises
    ------
    InputError
        If a copy can't be written.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> noise = np.random.default_rng(0).uniform(-1, 1, 8000)
    >>> import soundfile
    >>> from pathlib import Path
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
        parallel(jobs),
        total=len(sources),
        desc=label,
        leave=False,
        dynamic_ncols=True,
        disable=None,  # shown in a terminal only
    )
    return list(progress)


def _prepare_file(source, target):
    try:
        # Taken before reading, so that a change in the meantime is noticed.
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
                samples = resample(samples, rate)
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
    """Whether this file is the copy of a source with this modification time."""
    return os.path.exists(path) and os.stat(path).st_mtime_ns == time
