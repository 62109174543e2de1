"""Audio files of any length, read and written block by block.

libsndfile reads and writes audio; PyAV (`pip install 'speechbrain-cffma[video]'`) reads
the sound of videos.

Authors
 * The speechbrain-cffma developers 2026
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from speechbrain_cffma.audio import EXTENSIONS, encoded
from speechbrain_cffma.errors import InputError, InstallError, reason
from speechbrain_cffma.files import replacing

#: Read by PyAV.
VIDEO_EXTENSIONS = {".mp4", ".m4v", ".m4a", ".mov", ".mkv", ".webm", ".avi", ".aac"}
#: libsndfile's formats of the extensions that it is not the name of.
FORMATS = {"AIF": "AIFF", "OPUS": "OGG"}
#: What is read and written at once. libsndfile's Vorbis writer needs small blocks.
BLOCK = 65536


class Source(NamedTuple):
    """An open file.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    channels : int
        Their number C.
    seconds : float
        Length as its header tells it; 0 if it does not.
    format : str
        libsndfile's name of the container; "" for a video.
    subtype : str
        libsndfile's name of the sample format.
    blocks : iterator of np.ndarray
        Its samples as blocks [C, n], float32 in [-1, 1].
    """

    sample_rate: int
    channels: int
    seconds: float
    format: str
    subtype: str
    blocks: Iterator[np.ndarray]


@contextmanager
def open_source(path):
    """Open a file for reading.

    Arguments
    ---------
    path : str or Path
        An audio file, or a video by its extension.

    Yields
    ------
    Source
        The open file.

    Raises
    ------
    InputError
        If it can't be read, or has no sound.
    InstallError
        If it is a video and PyAV is not installed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros((800, 2)), 16000)
    >>> with open_source(path) as source:
    ...     source.seconds, [block.shape for block in source.blocks]
    (0.05, [(2, 800)])
    """
    is_video = Path(path).suffix.lower() in VIDEO_EXTENSIONS
    with _open_video(path) if is_video else _open_audio(path) as source:
        yield source


@contextmanager
def _open_audio(path):
    try:
        file = soundfile.SoundFile(encoded(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path} can't be read ({reason(error)})") from error
    with file:
        rate = file.samplerate
        blocks = _audio_blocks(file)
        yield Source(
            rate, file.channels, file.frames / rate, file.format, file.subtype, blocks
        )


def _audio_blocks(file):
    try:
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            yield block.T
    except soundfile.LibsndfileError as error:
        raise InputError(f"it can't be read to its end ({error})") from error


@contextmanager
def _open_video(path):
    try:
        import av
    except ModuleNotFoundError as error:
        raise InstallError(
            f"{path}: videos need PyAV: pip install 'speechbrain-cffma[video]'"
        ) from error
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path} can't be read ({reason(error)})") from error
    with container:
        if not container.streams.audio:
            raise InputError(f"{path} has no sound")
        stream = container.streams.audio[0]
        # Planes of floats, one a channel.
        planar = av.AudioResampler("fltp", stream.layout, stream.rate)
        yield Source(
            stream.rate,
            stream.channels,
            (container.duration or 0) / av.time_base,
            "",
            "PCM_16",
            _video_blocks(container, stream, planar),
        )


def _video_blocks(container, stream, planar):
    from av import FFmpegError

    try:
        for frame in container.decode(stream):
            for part in planar.resample(frame):
                yield part.to_ndarray()
        # What it holds back where the frames are not at the stream's rate (HE-AAC).
        for part in planar.resample(None):
            yield part.to_ndarray()
    except FFmpegError as error:
        raise InputError(f"it can't be read to its end ({error})") from error


class Target:
    """A file that is being written.

    Arguments
    ---------
    file : soundfile.SoundFile
        Open for writing.
    """

    def __init__(self, file):
        self.file = file
        self.has_full_scale = file.subtype not in ("FLOAT", "DOUBLE")
        #: Samples a channel that were written.
        self.n_samples = 0

    def write(self, block):
        """Append samples.

        Arguments
        ---------
        block : np.ndarray
            Samples [C, n]; within [-1, 1] where the format has a full scale.
        """
        self.n_samples += block.shape[1]
        for start in range(0, block.shape[1], BLOCK):
            self.file.write(block[:, start : start + BLOCK].T)


@contextmanager
def open_target(path, source, subtype=None):
    """Open a file for writing; it appears when the block ends, and not upon an error.

    Arguments
    ---------
    path : str or Path
        The file; its extension gives the format. Folders are made.
    source : Source
        What it is made of: it has the same sample rate and channels, and if its
        container has them, the same kind of samples.
    subtype : str or None
        libsndfile's name of another sample format, such as "FLOAT".

    Yields
    ------
    Target
        The open file.

    Raises
    ------
    InputError
        If it can't be written, or in no such format.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> source = Source(16000, 2, 0.0, "FLAC", "PCM_24", iter(()))
    >>> with open_target(path, source) as target:
    ...     target.write(np.ones((2, 800), dtype="float32"))
    >>> soundfile.info(path).subtype
    'PCM_24'
    """
    container, subtype = _format_of(path, source, subtype)
    try:
        with (
            replacing(path) as partial,
            soundfile.SoundFile(
                encoded(partial),
                "w",
                source.sample_rate,
                source.channels,
                subtype,
                format=container,
            ) as file,
        ):
            yield Target(file)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path} can't be written ({reason(error)})") from error


def _format_of(path, source, subtype):
    """libsndfile's names of the container and the sample format of a target."""
    extension = Path(path).suffix.lower()
    if extension not in EXTENSIONS:
        raise InputError(
            f"{path} can't be written: its extension is none of "
            + ", ".join(sorted(EXTENSIONS))
        )
    container = extension[1:].upper()
    container = FORMATS.get(container, container)
    if subtype:
        if not soundfile.check_format(container, subtype):
            raise InputError(
                f"{path} can't be written: it can't hold {subtype} samples"
            )
        return container, subtype
    if extension == ".opus":
        return container, "OPUS"
    is_raw = source.subtype.startswith("PCM_") or source.subtype in ("FLOAT", "DOUBLE")
    if is_raw or source.format == container:
        if soundfile.check_format(container, source.subtype):
            return container, source.subtype
    if source.subtype in ("FLOAT", "DOUBLE") and container == "FLAC":
        return container, "PCM_24"
    return container, soundfile.default_subtype(container)
