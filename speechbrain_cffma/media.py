"""Audio files of any length and format, read and written block by block.

This module holds all knowledge about formats. libsndfile reads and writes audio. PyAV
(`pip install 'speechbrain-cffma[video]'`) reads what libsndfile can't, such as the sound
of videos; it recognizes a format by its content, not by the file's name.

Authors
 * The speechbrain-cffma developers 2026
"""

import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import soundfile

from speechbrain_cffma.errors import InputError, InstallError, reason
from speechbrain_cffma.files import atomic_write
from speechbrain_cffma.wav import FOUR_GIB, with_true_sizes

#: Stands for standard input or output.
STANDARD = Path("-")
#: Names of streams that are open already, even if they lead to a file.
STREAM = re.compile(r"/dev/(std(in|out|err)|fd/\d+)|/proc/[^/]+/fd/\d+")
#: Samples per block. libsndfile's Vorbis writer needs small blocks.
BLOCK = 65536

# --- formats that can be written, all by libsndfile ---

#: libsndfile's name of the container for each file extension.
CONTAINERS = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".rf64": "RF64",
    ".w64": "W64",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aiff": "AIFF",
    ".aif": "AIFF",
    ".aifc": "AIFF",
    ".caf": "CAF",
    ".au": "AU",
    ".snd": "AU",
}
#: Bytes per sample, for formats in which each sample is stored as a number.
SAMPLE_BYTES = {
    "PCM_S8": 1,
    "PCM_U8": 1,
    "ULAW": 1,
    "ALAW": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
}
#: Sample formats with more than 16 bits.
FINE = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_20", "ALAC_24", "ALAC_32"}
#: Codecs that keep the length. Others, such as ADPCM and GSM, pad their last block.
EXACT = {"VORBIS", "OPUS", "MPEG_LAYER_III", "ALAC_16", *FINE, *SAMPLE_BYTES}
#: Sample rates in Hz that a codec accepts; codecs without an entry accept any.
RATES = {
    "OPUS": (8000, 12000, 16000, 24000, 48000),
    "MPEG_LAYER_III": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
#: Maximum number of channels of a container.
CHANNELS = {"MP3": 2, "FLAC": 8}
#: Tags that libsndfile knows.
TAGS = "title artist album date comment genre tracknumber copyright license".split()
#: Maximum bytes of a tag that libsndfile writes; other containers have no tags.
TAG_BYTES = {
    "WAV": 1900,
    "RF64": 1900,
    "AIFF": 1900,
    "CAF": 1900,
    "FLAC": 2**20,
    "OGG": 2**20,
    "MP3": 2**20,
}
#: Containers in which libsndfile garbles non-ASCII letters.
ASCII_TAGS = ("MP3", "AIFF")
#: libsndfile's command that turns an RF64 into a WAV if it fits.
RF64_AUTO_DOWNGRADE = 0x1210

# --- formats that can be read ---

#: Audio that libsndfile reads.
SNDFILE_AUDIO = {*CONTAINERS, ".bwf", ".sph", ".voc"}
#: Audio that only PyAV reads.
AV_AUDIO = set(
    ".aac .ac3 .amr .ape .asf .dts .eac3 .m4a .m4b .m4r .mka .mp2 .mpc .ra .spx .tta "
    ".weba .wma .wv".split()
)
AUDIO = SNDFILE_AUDIO | AV_AUDIO
#: Videos, whose sound PyAV reads.
VIDEO = set(
    ".3g2 .3gp .avi .f4v .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .rm .ts "
    ".vob .webm .wmv".split()
)
#: FFmpeg's readers for these formats. Others would open what a file names: playlists,
#: other hosts.
DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,dtshd,eac3,flac,flv,loas,matroska,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,rm,tak,tta,voc,w64,wav,wtv,wv,xwma"
)
#: libsndfile's names of FFmpeg's sample formats.
AV_SUBTYPES = {"u8": "PCM_U8", "s32": "PCM_24", "flt": "FLOAT", "dbl": "DOUBLE"}


class Source(NamedTuple):
    """A file that is open for reading.

    Arguments
    ---------
    sample_rate : int
        Sample rate in Hz.
    channels : int
        Number of channels C.
    seconds : float
        Length according to the header; 0 if the header has none.
    format : str
        libsndfile's name of the container; "" if PyAV reads it.
    subtype : str
        libsndfile's name of the sample format.
    blocks : iterator of np.ndarray
        Its samples as blocks [C, n], float32 in [-1, 1].
    tags : mapping
        The `TAGS` that it has.
    name : str
        Its name in messages.
    """

    sample_rate: int
    channels: int
    seconds: float
    format: str
    subtype: str
    blocks: Iterator[np.ndarray]
    tags: MappingProxyType = MappingProxyType({})
    name: str = ""


@contextmanager
def open_source(path, start=0, n_samples=sys.maxsize):
    """Open a file for reading.

    If a video's sound begins late, silence is put before it, so that both stay in sync.

    Arguments
    ---------
    path : str or Path
        An audio file, a video or a named pipe; "-" is standard input.
    start : int
        First sample to read.
    n_samples : int
        Maximum number of samples.

    Yields
    ------
    Source
        The open file.

    Raises
    ------
    InputError
        If the file can't be read or has no sound.
    InstallError
        If the file needs PyAV, and PyAV is not installed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros((800, 2)), 16000)
    >>> with open_source(path) as source:
    ...     source.seconds, [block.shape for block in source.blocks]
    (0.05, [(2, 800)])
    """
    name = called(path, "standard input")
    with ExitStack() as stack:
        file = stack.enter_context(_seekable(path, name))
        try:
            sound = stack.enter_context(_open_by_sndfile(file))
        except soundfile.LibsndfileError as error:
            container = stack.enter_context(_open_by_av(file, name, reason(error)))
            source = _av_source(container, name, start, n_samples)
        except OSError as error:
            raise InputError(f"{name} can't be read ({reason(error)})") from error
        else:
            source = _sndfile_source(sound, name, start, n_samples)
        yield source


@contextmanager
def _seekable(path, name):
    """Open a file; data from a pipe is copied to a temporary file."""
    is_standard = Path(path) == STANDARD
    if is_standard and sys.stdin is None:
        raise InputError(f"{name} can't be read: it is closed")
    with ExitStack() as stack:
        try:
            place = sys.stdin.fileno() if is_standard else path
            file = open(place, "rb", buffering=0, closefd=not is_standard)
            stack.enter_context(file)
            if not file.seekable():
                kept = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, kept)
                kept.flush()
                # Unbuffered, since libsndfile begins at the position of the descriptor.
                file = open(kept.fileno(), "rb", buffering=0, closefd=False)
        except OSError as error:
            raise InputError(f"{name} can't be read ({reason(error)})") from error
        yield file


def _open_by_sndfile(file):
    whole = with_true_sizes(file)
    # By its descriptor: Ctrl-C is lost in Python methods that libsndfile calls.
    is_as_it_was = whole is file
    return _Reader(file.fileno() if is_as_it_was else whole, closefd=False)


class _Reader(soundfile.SoundFile):
    """A file that is read sequentially.

    soundfile would seek after each block, which fails in a FLAC of unknown length.
    """

    def seekable(self):
        return False


def _sndfile_source(sound, name, start, n_samples):
    if start:
        try:
            sound.seek(min(start, sound.frames))
        except soundfile.LibsndfileError as error:
            raise InputError(f"{name} has no sample {start}") from error
    rate = sound.samplerate
    # The header of a FLAC that was never closed gives the largest possible number.
    frames = 0 if sound.frames == sys.maxsize else sound.frames
    return Source(
        rate,
        sound.channels,
        frames / rate,
        sound.format,
        sound.subtype,
        _sndfile_blocks(sound, n_samples),
        _tags(sound.copy_metadata()),
        name,
    )


def _sndfile_blocks(sound, n_samples):
    try:
        while n_samples:
            block = sound.read(min(BLOCK, n_samples), dtype="float32", always_2d=True)
            if not len(block):
                return
            n_samples -= len(block)
            yield block.T
    except soundfile.LibsndfileError as error:
        raise InputError(f"it can't be read to its end ({reason(error)})") from error


def _tags(metadata):
    """The `TAGS` among a file's metadata."""
    tags = {key.lower(): value for key, value in metadata.items()}
    tags.setdefault("tracknumber", tags.get("track", ""))
    return {key: tags[key] for key in TAGS if tags.get(key)}


def _open_by_av(file, name, refusal):
    """Open a file with PyAV; `refusal` is libsndfile's reason for refusing it."""
    is_known = Path(name).suffix.lower() in SNDFILE_AUDIO
    file.seek(0)
    try:
        import av
    except ModuleNotFoundError as error:
        raise (InputError if is_known else InstallError)(
            f"{name} can't be read ({refusal}): to read more formats, "
            "pip install 'speechbrain-cffma[video]'"
        ) from error
    try:
        return av.open(
            file, options={"format_whitelist": DEMUXERS}, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError) as error:
        why = refusal if is_known else reason(error)
        raise InputError(f"{name} can't be read ({why})") from error


def _av_source(container, name, start, n_samples):
    import av

    if not container.streams.audio:
        raise InputError(f"{name} has no sound")
    stream = container.streams.audio[0]
    codec = stream.codec_context
    if codec is None or not (codec.format and stream.rate and stream.channels):
        raise InputError(f"{name} can't be read (its codec is unknown to PyAV)")
    return Source(
        stream.rate,
        stream.channels,
        (container.duration or 0) / av.time_base,
        "",
        _av_subtype(codec),
        _part(_av_blocks(container, stream), start, n_samples),
        _tags({**container.metadata, **stream.metadata}),
        name,
    )


def _av_subtype(codec):
    """The sample format with the resolution of a codec."""
    if not codec.codec.lossless:
        return "PCM_16"
    if codec.name.startswith("pcm_s32"):
        return "PCM_32"
    return AV_SUBTYPES.get(codec.format.name.rstrip("p"), "PCM_16")


def _av_blocks(container, stream):
    import av

    # Planar floats: one array row per channel.
    planar = av.AudioResampler("fltp", stream.layout, stream.rate)
    begin = (container.start_time or 0) / av.time_base
    is_first = True
    try:
        for frame in container.decode(stream):
            if is_first and frame.time is not None:
                yield from _silence(stream, frame.time - begin)
            is_first = False
            for part in planar.resample(frame):
                yield part.to_ndarray()
        # Samples that it still holds if frames differ from the stream's rate (HE-AAC).
        for part in planar.resample(None):
            yield part.to_ndarray()
    # ValueError: the frames change their format. IndexError: another stream begins.
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise InputError(f"it can't be read to its end ({reason(error)})") from error


def _silence(stream, seconds):
    n_samples = round(seconds * stream.rate)
    for begin in range(0, n_samples, BLOCK):
        n = min(BLOCK, n_samples - begin)
        yield np.zeros((stream.channels, n), dtype="float32")


def _part(blocks, start, n_samples):
    """At most `n_samples` samples of blocks [C, n], from sample `start` on."""
    for block in blocks:
        part = block[:, start : start + n_samples]
        start = max(0, start - block.shape[1])
        n_samples -= part.shape[1]
        if part.shape[1]:
            yield part
        if not n_samples:
            return


# --- writing ---


class Target:
    """A file that is open for writing.

    Arguments
    ---------
    file : soundfile.SoundFile
        The file.
    """

    def __init__(self, file):
        self.file = file
        self.has_full_scale = file.subtype not in ("FLOAT", "DOUBLE")
        #: Samples per channel that were written.
        self.n_samples = 0

    def write(self, block):
        """Append samples.

        Arguments
        ---------
        block : np.ndarray
            Samples [C, n], within [-1, 1] if the format has a full scale.
        """
        self.n_samples += block.shape[1]
        for start in range(0, block.shape[1], BLOCK):
            self.file.write(block[:, start : start + BLOCK].T)


@contextmanager
def open_target(path, source, subtype=None):
    """Open a file for writing. It appears when the block ends without an error.

    A WAV that exceeds the 4 GiB of its header becomes RF64.

    Arguments
    ---------
    path : str or Path
        The file; its extension gives the format. Missing folders are created. It may be
        a named pipe; "-" writes a WAV to standard output.
    source : Source
        The source file. The target gets its sample rate, channels and tags, and its
        sample format if the container supports it.
    subtype : str or None
        libsndfile's name of a sample format, such as "FLOAT"; None for the source's.

    Yields
    ------
    Target
        The open file.

    Raises
    ------
    InputError
        If the file can't be written, or not in this format.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> source = Source(16000, 2, 0.05, "FLAC", "PCM_24", iter(()))
    >>> with open_target(path, source) as target:
    ...     target.write(np.ones((2, 800), dtype="float32"))
    >>> soundfile.info(path).subtype
    'PCM_24'
    """
    name = called(path)
    container, subtype = _format_of(path, name, source, subtype)
    form = (source.sample_rate, source.channels, subtype)
    try:
        with _output(path, name) as output:
            try:
                with soundfile.SoundFile(
                    output.fileno(), "w", *form, format=container, closefd=False
                ) as file:
                    if container == "RF64":
                        _shrink_to_wav(file)
                    for key, value in _tags_for(container, source.tags).items():
                        setattr(file, key, value)
                    target = Target(file)
                    yield target
            except soundfile.LibsndfileError:
                _write_more(output)
                raise
            if target.n_samples and not _has_sample(output, target.n_samples - 1):
                _write_more(output)
                raise InputError(f"{name} can't be written: its end is missing")
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{name} can't be written ({reason(error)})") from error


def called(path, standard="standard output"):
    """Return the name of a file for messages.

    Arguments
    ---------
    path : str or Path
        The file.
    standard : str
        The name of "-".

    Returns
    -------
    str
        The path, or `standard` for "-".

    Example
    -------
    >>> called("a.wav"), called("-")
    ('a.wav', 'standard output')
    """
    return standard if Path(path) == STANDARD else str(path)


def _write_more(output):
    """Write on, to raise the system's error, which libsndfile does not report."""
    output.seek(0, io.SEEK_END)
    for _ in range(2):  # A nearly full disk accepts a part.
        output.write(bytes(BLOCK))


def _has_sample(output, sample):
    """Whether a written file has a sample. Some headers promise more than there is."""
    output.seek(0)
    try:
        with soundfile.SoundFile(output.fileno(), closefd=False) as file:
            if file.frames <= sample or not file.seekable():
                return file.frames > sample
            file.seek(sample)
            return len(file.read(1)) == 1
    except soundfile.LibsndfileError:
        return False


@contextmanager
def _output(path, name):
    """Open a temporary file whose bytes become the output when they are complete."""
    if not is_pipe(path):
        with atomic_write(path) as partial, open(partial, "w+b", buffering=0) as output:
            yield output
        return
    is_standard = Path(path) == STANDARD
    if is_standard and sys.stdout is None:
        raise InputError(f"{name} can't be written: it is closed")
    with tempfile.TemporaryFile(buffering=0) as output:
        yield output
        output.seek(0)
        # Not by sys.stdout: Python would try to write again when it exits.
        place = sys.stdout.fileno() if is_standard else path
        with open(place, "wb", closefd=not is_standard) as pipe:
            shutil.copyfileobj(output, pipe)


def is_pipe(path):
    """Whether a path is standard input or output, a named pipe or a device.

    Such a path can be read only once, and is written in place.

    Arguments
    ---------
    path : str or Path
        Any path.

    Returns
    -------
    bool
        Whether it is one.

    Example
    -------
    >>> is_pipe("-"), is_pipe("/dev/stdout"), is_pipe("a.wav"), is_pipe("/tmp")
    (True, True, False, False)
    """
    if Path(path) == STANDARD or STREAM.fullmatch(str(path)):
        return True
    if os.path.isfile(path):  # Most are: one look at the disk is enough.
        return False
    return os.path.exists(path) and not os.path.isdir(path)


def _shrink_to_wav(file):
    """Let libsndfile write an RF64 as a WAV where it fits into one."""
    # soundfile has no call for this command.
    soundfile._snd.sf_command(
        file._file, RF64_AUTO_DOWNGRADE, soundfile._ffi.NULL, soundfile._snd.SF_TRUE
    )


def _tags_for(container, tags):
    """The tags that a container can store."""
    longest = TAG_BYTES.get(container, 0)
    return {
        key: text
        for key, text in tags.items()
        if len(text.encode()) <= longest
        and (text.isascii() or container not in ASCII_TAGS)
    }


# --- the format of a target ---


def container_of(path):
    """Choose the container for a file by its extension.

    Arguments
    ---------
    path : str or Path
        The file. Pipes without an extension get a WAV.

    Returns
    -------
    str
        libsndfile's name of the container, such as "FLAC".

    Raises
    ------
    InputError
        If no container has this extension.

    Example
    -------
    >>> container_of("a.opus"), container_of("-")
    ('OGG', 'WAV')
    """
    extension = Path(path).suffix.lower()
    if not extension and is_pipe(path):
        return "WAV"
    if extension not in CONTAINERS:
        raise InputError(
            f"{path} can't be written: its extension must be one of "
            + ", ".join(sorted(CONTAINERS))
        )
    return CONTAINERS[extension]


def _format_of(path, name, source, subtype):
    """libsndfile's names of the container and the sample format of a target."""
    container = container_of(path)
    if subtype is None:
        is_opus = Path(path).suffix.lower() == ".opus"
        subtype = "OPUS" if is_opus else _subtype_for(container, source.subtype)
    elif not _can_hold(container, subtype):
        raise InputError(
            f"{name} can't be written: {container} can't store {subtype} samples"
        )
    fault = _misfit(container, subtype, source)
    if fault:
        raise InputError(f"{name} can't be written: {fault}")
    if container == "WAV" and subtype in SAMPLE_BYTES:
        # The length in a header may be wrong, so leave a margin.
        n_bytes = _n_bytes(source, subtype)
        container = "WAV" if 0 < n_bytes < FOUR_GIB / 4 else "RF64"
    return container, subtype


def _subtype_for(container, subtype):
    """The sample format of a container that is closest to another one."""
    if subtype in EXACT and _can_hold(container, subtype):
        return subtype
    if subtype in FINE and _can_hold(container, "PCM_24"):
        return "PCM_24"
    return soundfile.default_subtype(container)


def _can_hold(container, subtype):
    # libsndfile wrongly says that it can write MP3 in WAV.
    if subtype == "MPEG_LAYER_III" and container != "MP3":
        return False
    return soundfile.check_format(container, subtype)


def _misfit(container, subtype, source):
    """Why a target can't hold its source, or "" if it can."""
    rates = RATES.get(subtype, [source.sample_rate])
    if source.sample_rate not in rates:
        codec = "Opus" if subtype == "OPUS" else container
        kilohertz = ", ".join(f"{rate / 1000:g}" for rate in rates)
        return (
            f"{codec} supports {kilohertz} kHz, not {source.sample_rate / 1000:g}: "
            "choose .ogg, .flac or .wav"
        )
    most = CHANNELS.get(container, source.channels)
    if source.channels > most:
        return (
            f"{container} supports at most {most} channels, not {source.channels}: "
            "choose .ogg or .wav"
        )
    if container == "AIFF" and _n_bytes(source, subtype) >= FOUR_GIB:
        return "AIFF files end at 4 GiB: choose .wav, .caf or .flac"
    return ""


def _n_bytes(source, subtype):
    n_samples = source.seconds * source.sample_rate * source.channels
    return n_samples * SAMPLE_BYTES.get(subtype, 0)
