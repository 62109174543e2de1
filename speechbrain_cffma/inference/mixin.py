"""Enhance arrays, streams and files of any sample rate, type and length.

All of them use the same algorithm. A signal is cut into overlapping windows
(`Windows`), the network enhances each window separately, and neighbours are
cross-faded. A signal that fits into one window is processed as a whole.

The network processes 0 to 8 kHz, at a sample rate of 16 kHz. Signals at other sample
rates are resampled for it. This removes a residual; at rates above 16 kHz it is the band
above 8 kHz. The residual is scaled by the mask's gain at the top of the network's band
and added to the output.

Authors
 * The speechbrain-cffma developers 2026
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from speechbrain_cffma import media
from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.inference.bands import enhance_rows
from speechbrain_cffma.inference.device import PRECISIONS, device_of, native_precision
from speechbrain_cffma.inference.limiter import PeakLimiter, PeakWarning
from speechbrain_cffma.inference.windows import WINDOWS, Windows, stream

if TYPE_CHECKING:
    from torch.nn import Module
    from typing_extensions import Self
else:
    Module = object

#: A signal: an array or a tensor; the output is of the same kind as the input.
Samples = TypeVar("Samples", np.ndarray, torch.Tensor)
#: Minimum and maximum sample rate in Hz.
SAMPLE_RATES = (8000, 192000)


class InferenceMixin(Module):
    """Adds `enhance`, `enhance_stream` and `enhance_file` to an enhancer.

    The enhancer must have a `spectrogram`. When it is called with a waveform and
    `suppression`, it must return a waveform and its log1p magnitude. It runs on the
    device of its parameters, in eval mode, and in float32 unless it is packed in another
    precision. Afterwards it is in its previous mode again.
    """

    #: The precision of the packed weights; None if they are not packed.
    packed: str | None = None

    def pack(self, precision: str = "auto") -> "Self":
        """Prepare the weights for faster inference, in place.

        The weights of linear layers and convolutions are converted once rather than for
        each window. On x86 CPUs they are stored in the layout that matrix products read.
        A packed model can no longer be trained, saved, moved or copied.

        Arguments
        ---------
        precision : str
            "fp32"; "bf16" for mixed precision; "auto" for bf16 if the device supports it
            natively, else fp32.

        Returns
        -------
        torch.nn.Module
            The model itself.

        Raises
        ------
        InputError
            If the precision is unknown, or the model is already packed in another one.

        Example
        -------
        >>> enhancer = getfixture("tiny_enhancer").pack("fp32")
        >>> enhancer.enhance(np.zeros(16000, dtype="float32")).shape
        (16000,)
        """
        if precision == "auto":
            precision = native_precision(device_of(self))
        if precision not in PRECISIONS:
            raise InputError(f"precision must be auto, fp32 or bf16, not {precision}")
        if self.packed is None:
            from speechbrain_cffma.inference.packed import pack_weights

            pack_weights(self, PRECISIONS[precision])
            self.packed = precision
        elif self.packed != precision:
            raise InputError(
                f"the model is already packed in {self.packed}: load it again to pack "
                f"it in {precision}"
            )
        return self

    def enhance(
        self, wav: Samples, sample_rate: int = SAMPLE_RATE, **options: Any
    ) -> Samples:
        """Enhance a waveform; each channel is enhanced separately.

        Arguments
        ---------
        wav : np.ndarray or torch.Tensor
            Samples [S], [C, S] or [B, C, S]: float16, float32 or float64, full scale
            1.0, or int16 or int32.
        sample_rate : int
            Sample rate in Hz, 8000 to 192000.
        **options
            The options of `enhance_stream`. The default of `batch_size` is 1 on the CPU
            and 8 on other devices.

        Returns
        -------
        np.ndarray or torch.Tensor
            Enhanced samples of the same kind, type, shape and sample rate. Integers are
            never clipped: peaks beyond full scale and the 5 ms around them are turned
            down, with a `PeakWarning`.

        Raises
        ------
        InputError
            If the samples have another type or shape or are not finite.

        Example
        -------
        >>> enhancer = getfixture("tiny_enhancer")
        >>> enhancer.enhance(np.zeros((2, 44100), dtype="int16"), 44100).shape
        (2, 44100)
        """
        wav = wav if isinstance(wav, torch.Tensor) else np.asarray(wav)
        if wav.ndim > 1 and wav.shape[-2] > max(64, wav.shape[-1]):
            raise InputError(
                "a waveform must have shape [channels, samples], not "
                f"{tuple(wav.shape)}: transpose it"
            )
        options = {"batch_size": self._batch_size(), **options}
        blocks: list[Any] = [
            *self.enhance_stream([wav], sample_rate, **options),
            wav[..., :0],
        ]
        if isinstance(wav, torch.Tensor):
            return torch.cat(blocks, dim=-1)
        return np.concatenate(blocks, axis=-1)

    def enhance_stream(
        self,
        blocks: Iterable[Samples],
        sample_rate: int = SAMPLE_RATE,
        *,
        suppression: float | None = None,
        high_band: bool = True,
        batch_size: int = 1,
        windows: Windows = WINDOWS,
        limiter: PeakLimiter | None = None,
    ) -> Iterator[Samples]:
        """Enhance a signal that arrives in blocks.

        A sample is returned when its window is complete, at most `windows.latency`
        seconds after it arrived. `enhance` and `enhance_file` return the same samples.

        Arguments
        ---------
        blocks : iterable of np.ndarray or torch.Tensor
            Consecutive blocks of any size, in the forms that `enhance` accepts.
        sample_rate : int
            Sample rate in Hz, 8000 to 192000.
        suppression : float or None
            Maximum attenuation in dB of each time-frequency bin; 0 returns the input,
            `math.inf` sets no limit. None for the network's own.
        high_band : bool
            At sample rates above 16 kHz, whether to keep the band above 8 kHz, scaled by
            the mask's gain from 7 to 8 kHz; otherwise it is removed.
        batch_size : int
            Number of windows and channels per batch. Each further window in a batch adds
            `windows.hop` to the latency.
        windows : Windows
            How the signal is cut.
        limiter : PeakLimiter or None
            Keeps float samples within full scale; with None they may exceed it. Integer
            samples are always limited.

        Yields
        ------
        np.ndarray or torch.Tensor
            Enhanced blocks of the same kind, type and channels, `windows.hop` long; the
            last one takes the rest.

        Raises
        ------
        InputError
            If an option or a block can't be used. The message names a sample that is not
            finite.

        Example
        -------
        >>> enhancer = getfixture("tiny_enhancer")
        >>> blocks = (torch.randn(1000) for _ in range(32))
        >>> stream = enhancer.enhance_stream(blocks, windows=Windows(hop=0.5, fade=0.1))
        >>> [len(block) for block in stream]
        [8000, 8000, 16000]
        """
        # Options are checked now, blocks when they arrive.
        _check_options(sample_rate, suppression, batch_size, windows)
        sample_rate = int(sample_rate)

        def enhanced(rows):
            return enhance_rows(self, rows, sample_rate, suppression, high_band)

        return stream(blocks, enhanced, sample_rate, windows, batch_size, limiter)

    def enhance_file(
        self,
        source: str | Path,
        target: str | Path,
        subtype: str | None = None,
        progress: Callable[[float], object] | None = None,
        **options: Any,
    ) -> float:
        """Enhance a file block by block, with a memory use that is independent of length.

        Sample rate, channels and levels are kept. Tags and sample format are kept if the
        target's container supports them. ADPCM and similar codecs become 16-bit, since
        they would change the length. The target appears when it is complete. All formats
        but float have a full scale. In them nothing is clipped: peaks beyond full scale
        and the 5 ms around them are turned down.

        Arguments
        ---------
        source : str or Path
            A file that libsndfile reads; with the package av also other audio or a video.
            "-" is standard input.
        target : str or Path
            The file to write. Its extension gives the format, one of `media.CONTAINERS`:
            WAV (above 4 GiB RF64), FLAC, OGG, Opus, MP3, AIFF, CAF and others. "-" is
            standard output.
        subtype : str or None
            libsndfile's name of a sample format, such as "FLOAT" or "PCM_24"; None for
            the source's.
        progress : callable or None
            Called as `progress(seconds)` with the duration written since the last call.
        **options
            The options of `enhance_stream`. The default of `batch_size` is 1 on the CPU
            and 8 on other devices.

        Returns
        -------
        float
            By how many dB the highest peak was turned down; if it is not 0, a
            `PeakWarning` is given too.

        Raises
        ------
        InputError
            If a file can't be read, written or enhanced. The message names the file.

        Example
        -------
        >>> from speechbrain_cffma import audio
        >>> folder = getfixture("tmp_path")
        >>> audio.write(folder / "noisy.wav", getfixture("speech").numpy())
        >>> enhancer = getfixture("tiny_enhancer")
        >>> enhancer.enhance_file(folder / "noisy.wav", folder / "enhanced.flac")
        0.0
        """
        options = {"batch_size": self._batch_size(), **options}
        with (
            media.open_source(source) as noisy,
            media.open_target(target, noisy, subtype) as enhanced,
        ):
            try:
                limiter = PeakLimiter() if enhanced.has_full_scale else None
                stream = self.enhance_stream(
                    noisy.blocks, noisy.sample_rate, limiter=limiter, **options
                )
                for block in stream:
                    enhanced.write(block)
                    if progress:
                        progress(block.shape[-1] / noisy.sample_rate)
                if not enhanced.n_samples:
                    raise InputError("the file has no samples")
            except InputError as error:
                raise InputError(f"{noisy.name}: {error}") from error
        excess = limiter.excess if limiter else 0.0
        if excess:
            warnings.warn(
                f"{media.called(target)}: peaks up to {excess:.1f} dB beyond full scale were turned "
                'down; write a WAV with subtype="FLOAT" to keep them',
                PeakWarning,
                stacklevel=2,
            )
        return excess

    def _batch_size(self):
        return 1 if device_of(self).type == "cpu" else 8


def _check_options(sample_rate, suppression, batch_size, windows):
    lowest, highest = SAMPLE_RATES
    if sample_rate != int(sample_rate) or not lowest <= sample_rate <= highest:
        raise InputError(
            f"the sample rate is {sample_rate} Hz: it must be a whole number from {lowest} "
            f"to {highest}"
        )
    if suppression is not None and not suppression >= 0:
        raise InputError(f"suppression must be at least 0 dB, not {suppression}")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if not windows.hop >= 0.1 or min(windows) < 0 or windows.fade > windows.hop:
        raise InputError(
            "windows need a hop of at least 0.1 s and a fade that is not longer, not "
            f"{windows}"
        )
