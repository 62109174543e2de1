"""Enhance files and folders of files, one after the other.

What is there already is not made again, and a file that fails costs only itself.

Authors
 * The speechbrain-cffma developers 2026
"""

import shutil
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from speechbrain_cffma import media
from speechbrain_cffma.audio import EXTENSIONS, find_audio
from speechbrain_cffma.errors import CFFMAError, InputError, one_line
from speechbrain_cffma.inference import PeakWarning


class Job(NamedTuple):
    """A file to enhance.

    Arguments
    ---------
    source : Path
        The noisy file.
    target : Path
        Where the enhanced one goes.
    """

    source: Path
    target: Path


class Outcome(NamedTuple):
    """What became of the jobs.

    Arguments
    ---------
    enhanced : list of Job
        Those that went well.
    skipped : list of Job
        Those whose target was there, and newer than its source.
    limited : dict
        By how many dB the highest peak was turned down, by target, where any was.
    failures : list of str
        A line a file that failed, with its name and the reason.
    """

    enhanced: list
    skipped: list
    limited: dict
    failures: list


def plan(inputs, output):
    """Find the files and name their targets.

    Arguments
    ---------
    inputs : list of str or Path
        Files and folders. Folders are searched with their subfolders, but for the
        output.
    output : str or Path
        A folder, in which the tree of each input folder is kept; for a single file
        also a file, by its extension. In a folder, files keep their names; what can't be
        written as what it was, such as a video, becomes a WAV.

    Returns
    -------
    list of Job
        In the order of the inputs.

    Raises
    ------
    InputError
        If a folder has no files, a file would replace its own or another's source, or
        two files have one target.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "in" / "a").mkdir(parents=True)
    >>> (folder / "in" / "a" / "b.flac").touch()
    >>> (job,) = plan([folder / "in"], folder / "out")
    >>> job.target.relative_to(folder).as_posix()
    'out/a/b.flac'
    """
    inputs, output = [Path(path) for path in inputs], Path(output)
    is_file = output.suffix.lower() in EXTENSIONS and not output.is_dir()
    if is_file and len(inputs) == 1 and not inputs[0].is_dir():
        jobs = [Job(inputs[0], output)]
    elif is_file:
        raise InputError(f"{output} is one file: name a folder for several")
    else:
        jobs = [job for path in inputs for job in _jobs_of(path, output)]
    sources = {job.source.resolve() for job in jobs}
    targets = {}
    for source, target in jobs:
        if target.resolve() in sources:
            raise InputError(f"{target} would replace an input: choose another output")
        other = targets.setdefault(target, source)
        if other != source:
            raise InputError(f"{other} and {source} would both become {target}")
    return jobs


def _jobs_of(path, output):
    if not path.is_dir():
        return [Job(path, output / _writable(path.name))]
    if path.resolve() == output.resolve():
        raise InputError(f"{path} is input and output: choose another output")
    return [
        Job(file, output / _writable(file.relative_to(path)))
        for file in find_audio(path, EXTENSIONS | media.VIDEO_EXTENSIONS)
        if output.resolve() not in file.resolve().parents
    ]


def _writable(name):
    name = Path(name)
    return name if name.suffix.lower() in EXTENSIONS else name.with_suffix(".wav")


@contextmanager
def pipes(inputs, output):
    """Files in place of standard input and output.

    Arguments
    ---------
    inputs : list of str
        Files and folders; "-" alone stands for a file from standard input.
    output : str
        "-" for a WAV to standard output, once the block has ended well.

    Yields
    ------
    inputs : list of str or Path
        The same, with a temporary file for "-".
    output : str or Path
        As well.

    Raises
    ------
    InputError
        If "-" is not the only input.

    Example
    -------
    >>> with pipes(["a.wav"], "b.wav") as (inputs, output):
    ...     inputs, output
    (['a.wav'], 'b.wav')
    """
    if "-" in inputs and len(inputs) > 1:
        raise InputError("'-', standard input, must be the only input")
    with tempfile.TemporaryDirectory() as folder:
        if "-" in inputs:
            inputs = [Path(folder) / "stdin.wav"]
            with open(inputs[0], "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        if output != "-":
            yield inputs, output
            return
        output = Path(folder) / "stdout.wav"
        yield inputs, output
        if output.exists():
            with open(output, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def enhance_all(jobs, load_enhancer, overwrite=False, **options):
    """Enhance files, with a bar of the audio time and the speed.

    Arguments
    ---------
    jobs : list of Job
        What to enhance.
    load_enhancer : callable
        Gives the `CFFMAEnhancer`; called if there is anything to do.
    overwrite : bool
        Enhance also those whose target is there, and newer than its source.
    **options
        Those of `InferenceMixin.enhance_file`.

    Returns
    -------
    Outcome
        What became of them; failures are noted, not raised.

    Example
    -------
    >>> enhance_all([], load_enhancer=None).enhanced
    []
    """
    skipped = [job for job in jobs if not overwrite and _is_done(job)]
    waiting = [job for job in jobs if job not in skipped]
    outcome = Outcome([], skipped, {}, [])
    if not waiting:
        return outcome
    enhancer = load_enhancer()
    lengths = [_seconds(job.source) for job in waiting]
    with _AudioBar(sum(lengths)) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", PeakWarning)  # told at the end
        for i, job in enumerate(waiting):
            try:
                excess = enhancer.enhance_file(
                    *job, progress=progress.advance, **options
                )
            except CFFMAError as error:
                outcome.failures.append(str(error))
            except Exception as error:  # One file's failure is not that of all.
                outcome.failures.append(f"{job.source}: {one_line(error)}")
            else:
                outcome.enhanced.append(job)
                if excess:
                    outcome.limited[job.target] = excess
            progress.update(sum(lengths[: i + 1]) - progress.n)
    return outcome


def _is_done(job):
    return (
        job.target.exists() and job.target.stat().st_mtime >= job.source.stat().st_mtime
    )


def _seconds(path):
    """The length of a file; 0 if it can't be read, which is reported when it is its turn."""
    try:
        with media.open_source(path) as source:
            return source.seconds
    except CFFMAError:
        return 0


class _AudioBar(tqdm):
    """A bar of seconds of audio."""

    def __init__(self, seconds):
        super().__init__(
            total=seconds,
            desc="enhancing",
            dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def advance(self, seconds):
        """Go on by what has been enhanced."""
        self.update(seconds)
        speed = self.n / max(self.format_dict["elapsed"], 1e-3)
        self.set_postfix_str(f"{speed:.1f} x real time")


def device_named(name):
    """The device to run on.

    Arguments
    ---------
    name : str
        Such as "cpu" or "cuda:1"; "auto" takes a GPU if there is one.

    Returns
    -------
    torch.device
        A device that works.

    Raises
    ------
    InputError
        If there is no such device.

    Example
    -------
    >>> device_named("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    # Torch raises various types for unknown, absent and broken devices.
    except Exception as error:
        raise InputError(
            f"there is no device {name!r} to run on, try --device cpu [{one_line(error)}]"
        ) from error
    return torch.device(name)
