"""Enhance files and folders, one file after the other or in several processes.

Files that are already enhanced are skipped. If a file fails, the others go on.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
import os
import signal
import sys
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from speechbrain_cffma import media
from speechbrain_cffma.audio import ENHANCED_FILE, find_audio
from speechbrain_cffma.errors import (
    CFFMAError,
    InputError,
    one_line,
    reason,
    why_failed,
)
from speechbrain_cffma.inference.limiter import PeakWarning
from speechbrain_cffma.workers import EXIT_BY_SIGTERM, parallel_map, tell

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A file to enhance.

    Arguments
    ---------
    source : Path
        The noisy file.
    target : Path
        The enhanced file to write.
    """

    source: Path
    target: Path


class Outcome(NamedTuple):
    """The outcome of several jobs.

    Arguments
    ---------
    enhanced : list of Job
        Jobs that succeeded.
    skipped : list of Job
        Jobs whose target existed and was newer than its source.
    limited : dict
        By how many dB the highest peak of a target was turned down, by the target's name.
        Targets without such a peak are not listed.
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
        Files, folders and pipes, or only "-" for standard input. Folders are searched
        with their subfolders, except the output. A file that is given twice is one job.
    output : str or Path
        A folder, which gets the subfolders of the inputs. For a single input also a
        file, recognized by its extension, or "-" for a WAV to standard output. Files in
        a folder keep their names, but formats that can't be written, such as videos,
        become WAV.

    Returns
    -------
    jobs : list of Job
        The jobs, in the order of the inputs.
    failures : list of str
        A line for each file that gets no job, since it is missing, would replace an
        input, or has the same target as another file.

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
        raise InputError("'-' (standard input) must be the only input")
    is_file = _is_file(output)
    if is_file and len(inputs) == 1 and not os.path.isdir(inputs[0]):
        media.container_of(output)
        jobs = [Job(inputs[0], output)]
    elif is_file:
        raise InputError(f"{output} is one file: choose a folder for several inputs")
    else:
        jobs = [job for path in inputs for job in _jobs_of(path, output)]
    return _check_jobs(jobs)


def _is_file(output):
    """Whether an output is a file: it exists as one, or its extension says so."""
    if os.path.isdir(output):
        return False
    is_named = output.suffix.lower() in {*media.AUDIO, *media.VIDEO}
    return is_named or media.is_pipe(output) or os.path.exists(output)


def mark_output(inputs, output):
    """Mark an output folder that lies in an input folder.

    Later commands that use the input folder are meant for the recordings, not for the
    enhanced files, so `audio.find_audio` skips marked folders.

    Arguments
    ---------
    inputs : list of str or Path
        The inputs, as for `plan`.
    output : str or Path
        The output, as for `plan`. A folder that lies elsewhere is not marked.

    Raises
    ------
    InputError
        If the folder can't be written.

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
            "Enhanced by cffma: searches of the parent folders skip this folder.\n",
            encoding="utf-8",
        )
    except OSError as error:
        raise InputError(f"{output} can't be written ({reason(error)})") from error


def _jobs_of(path, output):
    if not os.path.isdir(path):
        name = "stdin" if path == media.STANDARD else path.name
        return [Job(path, output / _writable(name))]
    if path.resolve() == output.resolve():
        raise InputError(f"{path} is both input and output: choose another output")
    found = find_audio_in(path, media.AUDIO | media.VIDEO, [output])
    return [Job(file, output / _writable(file.relative_to(path))) for file in found]


def find_audio_in(path, extensions, leave_out):
    """`audio.find_audio`, with a warning that tells how many other files are skipped.

    Arguments
    ---------
    path : str or Path
        The folder.
    extensions : set of str
        Extensions to find.
    leave_out : list of str or Path
        Folders to leave out.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "a.wav").touch()
    >>> [path.name for path in find_audio_in(folder, [".wav"], [])]
    ['a.wav']
    """
    others = []
    found = find_audio(path, extensions, leave_out, others)
    if others:
        kinds = sorted({other.suffix.lower() or "no extension" for other in others})
        logger.warning(
            "%s: %d skipped, no audio extension (%s)",
            path,
            len(others),
            ", ".join(kinds),
        )
    return found


def _check_jobs(jobs):
    """Jobs without conflicts, and a line for each of the other jobs."""
    sources, failures = {}, []  # target -> identity of a source -> source
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
                    f"{source}: {' and '.join(others)} would also be written to {target}: "
                    "rename one, or enhance it alone with -o FILE"
                )
            elif not media.is_pipe(target) and _is_one_of(target, inputs):
                failures.append(
                    f"{source}: {target} would replace an input: choose another output"
                )
            else:
                good.append(Job(source, target))
    return good, failures


def _identity(path):
    """A value that is the same for all paths to a file."""
    if path == media.STANDARD:
        return path
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_one_of(path, files):
    try:
        return _identity(path) in files
    except OSError:  # It is missing or its name is too long, which writing reports.
        return False


def _writable(name):
    name = Path(name)
    is_writable = name.suffix.lower() in media.CONTAINERS
    return name if is_writable else name.with_suffix(".wav")


def enhance_all(jobs, load_enhancer, overwrite=False, workers=None, **options):
    """Enhance files, with a progress bar of seconds of audio and speed.

    Worker processes enhance several files at once, the longest first, so that no long one
    begins last. A single process uses all cores, but short files keep few of them busy.

    Arguments
    ---------
    jobs : list of Job
        The files to enhance.
    load_enhancer : callable
        Returns the `CFFMAEnhancer`. It is called only if there is a file to enhance, and
        in each process. For worker processes it must be possible to pickle it.
    overwrite : bool
        Whether to enhance files again whose target exists and is newer than its source.
    workers : int or None
        Number of worker processes, each with one thread. None, a single file, or one
        that the shell has opened (`<(...)`), takes this process and all its threads.
    **options
        The options of `InferenceMixin.enhance_file`.

    Returns
    -------
    Outcome
        The outcome of all jobs, in their order. Failures are listed, not raised.

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
    if workers is None or len(waiting) == 1 or any(map(_is_stream, waiting)):
        results = _enhance_here(waiting, load_enhancer, options)
    else:
        results = _enhance_in_workers(waiting, load_enhancer, options, workers)
    for job, (excess, failure) in zip(waiting, results, strict=True):
        if failure:
            outcome.failures.append(failure)
        else:
            outcome.enhanced.append(job)
        if excess:
            outcome.limited[media.called(job.target)] = excess
    return outcome


def _enhance_here(jobs, load_enhancer, options):
    """Enhance files in this process, and return what `_enhance` returns for each."""
    enhancer = load_enhancer()
    results = []
    with _AudioBar([job.source for job in jobs]) as bar:
        for index, job in enumerate(jobs):
            bar.begin(index)
            progress = partial(bar.advance, index)
            results.append(_enhance(enhancer, job, progress, options))
            bar.end(index)
    return results


def _enhance(enhancer, job, progress, options):
    """Enhance a file. Returns by how many dB its highest peak was turned down, and why it
    failed, or "" if it did not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PeakWarning)  # reported at the end
        try:
            return enhancer.enhance_file(*job, progress=progress, **options), ""
        except Exception as error:  # The other files go on.
            return 0.0, why_failed(error, job.source)


def _enhance_in_workers(jobs, load_enhancer, options, workers):
    """As `_enhance_here`, in several processes."""
    results = {}
    with _AudioBar([job.source for job in jobs]) as bar:
        order = sorted(range(len(jobs)), key=lambda index: -_length(jobs[index].source))
        calls = parallel_map(
            _Enhancing(load_enhancer, options),
            [(jobs[index],) for index in order],
            workers,
            on_note=lambda place, seconds: bar.advance(order[place], seconds),
        )
        with closing(calls) as outcomes:
            for place, result, crash in outcomes:
                index = order[place]
                results[index] = (
                    (0.0, f"{jobs[index].source}: {crash}") if crash else result
                )
                bar.end(index)
    return [results[index] for index in range(len(jobs))]


class _Enhancing:
    """Enhances files in a worker process."""

    def __init__(self, load_enhancer, options):
        self.load_enhancer, self.options = load_enhancer, options

    def prepare(self):
        """Load the model."""
        try:
            self.enhancer = self.load_enhancer()
        except CFFMAError:
            raise
        except Exception as error:
            raise CFFMAError(f"the model can't be loaded: {one_line(error)}") from error
        # Ended as by an exception, so that a file that is half written is removed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_BY_SIGTERM))

    def __call__(self, job):
        """The result of `_enhance`."""
        tell(0.0)  # It has begun.
        return _enhance(self.enhancer, job, tell, self.options)


def _is_stream(job):
    """Whether only this process can read or write an end of a job."""
    return any(media.STREAM.fullmatch(str(path)) for path in job)


def _is_done(job):
    if any(map(media.is_pipe, job)) or not os.path.isfile(job.target):
        return False
    try:
        return os.stat(job.target).st_mtime >= os.stat(job.source).st_mtime
    except OSError:  # One of them is gone, which is reported later.
        return False


class _AudioBar(tqdm):
    """A progress bar in seconds of audio. Files are named by their place in the list.

    Files are opened one by one, so that the first one starts at once. The duration of
    the remaining files is estimated from their sizes.
    """

    def __init__(self, paths):
        self.paths = paths
        self.left = {}  # seconds that are left of the files that are being enhanced
        self.coming = sum(map(_size, paths))  # bytes of the remaining files
        self.opened = 0  # bytes of the opened files
        self.seconds = 0.0  # duration of the opened files
        super().__init__(
            total=0,
            desc="enhancing",
            dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def begin(self, index):
        """Start a file."""
        path = self.paths[index]
        size, seconds = _size(path), _seconds(path)
        self.left[index] = seconds
        self.coming = max(0, self.coming - size)
        if seconds:
            self.opened += size
            self.seconds += seconds
        per_byte = self.seconds / self.opened if self.opened else 0
        self.total = self.seconds + self.coming * per_byte
        self.refresh()

    def advance(self, index, seconds):
        """Advance by a number of enhanced seconds of a file, which may not be started."""
        if index not in self.left:
            self.begin(index)
        self.left[index] -= seconds
        self.total = max(self.total, self.n + seconds)  # Headers may be too low.
        self.update(seconds)
        speed = self.n / max(self.format_dict["elapsed"], 1e-3)
        self.set_postfix_str(f"{speed:.1f} x real time")

    def end(self, index):
        """Advance to the end of a file, even if it failed."""
        if index not in self.left:  # Its process died before it began.
            self.begin(index)
        self.update(self.left.pop(index))


def _size(path):
    try:
        return os.stat(path).st_size
    except OSError:  # It is gone, which is reported at its turn.
        return 0


def _seconds(path):
    """The length of a file in seconds; 0 if it can't be read, which is reported later."""
    if media.is_pipe(path):  # It can be read only once.
        return 0
    try:
        with media.open_source(path) as source:
            return source.seconds
    except CFFMAError:
        return 0


def _length(path):
    """The length of a file in seconds; a guess if its header has none."""
    return _seconds(path) or _size(path) / 32000  # 16 bits at 16 kHz
