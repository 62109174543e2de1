"""Enhance files and folders of files, one after the other.

What is there already is not made again, and a file that fails costs only itself.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
import os
import warnings
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from speechbrain_cffma import media
from speechbrain_cffma.audio import ENHANCED_FILE, find_audio
from speechbrain_cffma.errors import CFFMAError, InputError, one_line, reason
from speechbrain_cffma.inference.limiter import PeakWarning

logger = logging.getLogger(__name__)


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
        By how many dB the highest peak was turned down, by the target's name, where any was.
    failures : list of str
        A line for each file that failed, with its name and the reason.
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
        Files, folders and pipes; "-" alone is standard input. Folders are searched with
        their subfolders, but for the output. A file that is given twice is one job.
    output : str or Path
        A folder, in which the tree of each input folder is kept; for a single file
        also a file, by its extension, or "-" for a WAV to standard output. In a folder, files keep their names; what can't be
        written as what it was, such as a video, becomes a WAV.

    Returns
    -------
    jobs : list of Job
        In the order of the inputs.
    failures : list of str
        A line for each file that is no job: it is missing, would replace an input, or
        has the same target as another file.

    Raises
    ------
    InputError
        If a folder has no files, or the output is one file for several.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "in" / "a").mkdir(parents=True)
    >>> (folder / "in" / "a" / "b.flac").touch()
    >>> (job,), failures = plan([folder / "in"], folder / "out")
    >>> job.target.relative_to(folder).as_posix(), failures
    ('out/a/b.flac', [])
    """
    inputs, output = [Path(path) for path in inputs], Path(output)
    if media.STANDARD in inputs and len(inputs) > 1:
        raise InputError("'-', standard input, must be the only input")
    is_file = _is_file(output)
    if is_file and len(inputs) == 1 and not os.path.isdir(inputs[0]):
        media.container_of(output)
        jobs = [Job(inputs[0], output)]
    elif is_file:
        raise InputError(f"{output} is one file: name a folder for several")
    else:
        jobs = [job for path in inputs for job in _jobs_of(path, output)]
    return _check_jobs(jobs)


def _is_file(output):
    """Whether an output is one file, by what it is or by its extension."""
    if os.path.isdir(output):
        return False
    is_named = output.suffix.lower() in {*media.AUDIO, *media.VIDEO}
    return is_named or media.is_pipe(output) or os.path.exists(output)


def mark_output(inputs, output):
    """Mark a folder for enhanced files that lies in a folder of noisy ones.

    Who enhances or prepares that folder later means the recordings, and not what was
    made of them: `audio.find_audio` leaves marked folders out.

    Arguments
    ---------
    inputs : list of str or Path
        As of `plan`.
    output : str or Path
        Likewise; a folder that lies elsewhere is not marked.

    Raises
    ------
    InputError
        If it can't be written.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> talks = getfixture("tmp_path")
    >>> for name in ("a.wav", "enhanced/a.wav"):
    ...     audio.write(talks / name, getfixture("speech").numpy())
    >>> mark_output([talks], talks / "enhanced")
    >>> [path.name for path in audio.find_audio(talks)]
    ['a.wav']
    """
    output = Path(output)
    folders = {
        Path(p if os.path.isdir(p) else Path(p).parent).resolve()
        for p in inputs
        if not media.is_pipe(p)
    }
    if _is_file(output) or folders.isdisjoint(output.resolve().parents):
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / ENHANCED_FILE).write_text(
            "Enhanced by cffma: searches of the folders above leave this one out.\n",
            encoding="utf-8",
        )
    except OSError as error:
        raise InputError(f"{output} can't be written ({reason(error)})") from error


def _jobs_of(path, output):
    if not os.path.isdir(path):
        name = "stdin" if path == media.STANDARD else path.name
        return [Job(path, output / _writable(name))]
    if path.resolve() == output.resolve():
        raise InputError(f"{path} is input and output: choose another output")
    others = []
    found = find_audio(path, media.AUDIO | media.VIDEO, [output], others)
    if others:
        kinds = sorted({other.suffix.lower() or "no extension" for other in others})
        logger.warning(
            "%s: %d left out, no audio by their extensions (%s)",
            path,
            len(others),
            ", ".join(kinds),
        )
    return [Job(file, output / _writable(file.relative_to(path))) for file in found]


def _check_jobs(jobs):
    """Jobs that don't get in each other's way, and a line for each of the others."""
    sources, failures = {}, []  # the sources of each target, by what identifies them
    for source, target in jobs:
        try:
            sources.setdefault(target, {}).setdefault(_identity(source), source)
        except OSError as error:
            failures.append(f"{source} can't be read ({error.strerror})")
    inputs = {file for of_target in sources.values() for file in of_target}
    good = []
    for target, of_target in sources.items():
        for source in of_target.values():
            others = [str(other) for other in of_target.values() if other != source]
            if others:
                failures.append(
                    f"{source}: {target} would be made of {' and '.join(others)} too: "
                    "rename one, or enhance it alone, to a file named by -o"
                )
            elif not media.is_pipe(target) and _is_one_of(target, inputs):
                failures.append(
                    f"{source}: {target} would replace an input: choose another output"
                )
            else:
                good.append(Job(source, target))
    return good, failures


def _identity(path):
    """Equal for all paths to a file."""
    if path == media.STANDARD:
        return path
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_one_of(path, files):
    try:
        return _identity(path) in files
    except OSError:  # It is not there, or its name is too long: writing it says so.
        return False


def _writable(name):
    name = Path(name)
    is_writable = name.suffix.lower() in media.CONTAINERS
    return name if is_writable else name.with_suffix(".wav")


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
    outcome = Outcome([], [], {}, [])
    waiting = []
    for job in jobs:
        is_skipped = not overwrite and _is_done(job)
        (outcome.skipped if is_skipped else waiting).append(job)
    if not waiting:
        return outcome
    enhancer = load_enhancer()
    with (
        _AudioBar([job.source for job in waiting]) as progress,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", PeakWarning)  # told at the end
        for job in waiting:
            progress.begin(job.source)
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
                    outcome.limited[media.called(job.target)] = excess
            progress.end()
    return outcome


def _is_done(job):
    if any(map(media.is_pipe, job)) or not os.path.isfile(job.target):
        return False
    try:
        return os.stat(job.target).st_mtime >= os.stat(job.source).st_mtime
    except OSError:  # One of them is gone, which its turn tells.
        return False


class _AudioBar(tqdm):
    """A bar of seconds of audio.

    Files are opened one by one, so that the first begins at once: the seconds of those
    to come are estimated by their sizes.
    """

    def __init__(self, paths):
        self.coming = sum(map(_size, paths))  # bytes
        self.opened = 0  # bytes
        self.seconds = 0.0  # of the opened files
        super().__init__(
            total=0,
            desc="enhancing",
            dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def begin(self, path):
        """Go on to a file."""
        size, seconds = _size(path), _seconds(path)
        self.coming = max(0, self.coming - size)
        if seconds:
            self.opened += size
            self.seconds += seconds
        per_byte = self.seconds / self.opened if self.opened else 0
        self.total = self.seconds + self.coming * per_byte
        self.refresh()

    def advance(self, seconds):
        """Go on by what has been enhanced."""
        self.total = max(self.total, self.n + seconds)  # Headers may tell too little.
        self.update(seconds)
        speed = self.n / max(self.format_dict["elapsed"], 1e-3)
        self.set_postfix_str(f"{speed:.1f} x real time")

    def end(self):
        """Go on to the end of the file, also where it failed."""
        self.update(self.seconds - self.n)


def _size(path):
    try:
        return os.stat(path).st_size
    except OSError:  # It is gone, which is reported when it is its turn.
        return 0


def _seconds(path):
    """The length of a file; 0 if it can't be read, which is reported when it is its turn."""
    if media.is_pipe(path):  # It can be read once.
        return 0
    try:
        with media.open_source(path) as source:
            return source.seconds
    except CFFMAError:
        return 0
