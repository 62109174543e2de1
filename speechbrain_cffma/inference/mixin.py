"""Use of a trained network: arrays, streams and files of any rate, type and length.

There is one mechanism. A signal is cut into windows that overlap (`Windows`); each
goes through the network alone, as a whole file would, and neighbours are cross-faded.
A signal of one window is processed as a whole.

The network sees 0 to 8 kHz, at 16 kHz. At other sample rates this band is resampled,
and what is left over, which at higher rates is all above 8 kHz, is kept with the gain
that the mask gives to the top of the band.

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
from speechbrain_cffma.inference.device import PRECISIONS, device_of, has_bf16
from speechbrain_cffma.inference.limiter import PeakLimiter, PeakWarning
from speechbrain_cffma.inference.windows import WINDOWS, Windows, stream

if TYPE_CHECKING:
    from torch.nn import Module
    from typing_extensions import Self
else:
    Module = object

#: A signal, of the kind in which it was given.
Samples = TypeVar("Samples", np.ndarray, torch.Tensor)
#: The lowest and the highest that are taken, in Hz.
SAMPLE_RATES = (8000, 192000)


class InferenceMixin(Module):
    """Gives an enhancer `enhance`, `enhance_stream` and `enhance_file`.

    The enhancer, called with a waveform and `suppression`, gives a waveform and its log1p
    magnitude, and has a `spectrogram`. It runs where its parameters are, in eval mode,
    and in float32 unless packed otherwise; its own training mode is left as it was.
    """

    #: The precision that `pack` has fixed the weights in.
    packed: str | None = None

    def pack(self, precision: str = "auto") -> "Self":
        """Fix the weights for faster inference, in place.

        Those of linear layers and convolutions are converted once rather than for each
        window, on x86 processors into the layout that their matrix products read. A
        packed model can't be trained, saved, moved or copied any more.

        Arguments
        ---------
        precision : str
            "fp32"; "bf16" for the network in mixed precision; "auto" for bf16 where the
            device computes in it, and fp32 where it would be emulated.

        Returns
        -------
        torch.nn.Module
            The model itself.

        Raises
        ------
        InputError
            If there is no such precision, or it is packed in another already.

        Example
        -------
        >>> enhancer = getfixture("tiny_enhancer").pack("fp32")
        >>> enhancer.enhance(np.zeros(16000, dtype="float32")).shape
        (16000,)
        """
        if precision == "auto":
            precision = "bf16" if has_bf16(device_of(self)) else "fp32"
        if precision not in PRECISIONS:
            raise InputError(f"the precision is auto, fp32 or bf16, not {precision}")
        if self.packed is None:
            from speechbrain_cffma.inference.packed import pack_weights

            pack_weights(self, PRECISIONS[precision])
            self.packed = precision
        elif self.packed != precision:
            raise InputError(
                f"the model is packed in {self.packed} already: load it again to pack "
                f"it in {precision}"
            )
        return self

    def enhance(
        self, wav: Samples, sample_rate: int = SAMPLE_RATE, **options: Any
    ) -> Samples:
        """Enhance a waveform, each channel by itself.

        Arguments
        ---------
        wav : np.ndarray or torch.Tensor
            Samples [S], [C, S] or [B, C, S]: float16, float32 or float64, full scale
            1.0, or int16 or int32.
        sample_rate : int
            In Hz, 8000 to 192000.
        **options
            Those of `enhance_stream`. `batch_size` is 1 on the CPU and 8 elsewhere
            unless it is given.

        Returns
        -------
        np.ndarray or torch.Tensor
            Of the same kind, type, shape and sample rate. What integers can't hold is
            never clipped: a peak beyond full scale is turned down, with 5 ms around it
            and a `PeakWarning`.

        Raises
        ------
        InputError
            If the samples are of another type or shape or not finite.

        Example
        -------
        >>> enhancer = getfixture("tiny_enhancer")
        >>> enhancer.enhance(np.zeros((2, 44100), dtype="int16"), 44100).shape
        (2, 44100)
        """
        wav = wav if isinstance(wav, torch.Tensor) else np.asarray(wav)
        if wav.ndim > 1 and wav.shape[-2] > max(64, wav.shape[-1]):
            raise InputError(
                f"a waveform is [channels, samples], not {tuple(wav.shape)}: transpose it"
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
        """Enhance a signal that comes in blocks.

        A sample comes out `windows.latency` seconds after it went in, or earlier: when
        its window is complete. `enhance` and `enhance_file` give the same samples.

        Arguments
        ---------
        blocks : iterable of np.ndarray or torch.Tensor
            Consecutive blocks of any sizes, as `enhance` takes them.
        sample_rate : int
            In Hz, 8000 to 192000.
        suppression : float or None
            Upper bound in dB on what each time and frequency is attenuated by; 0 gives
            the input back, `math.inf` is no bound. None for the network's own.
        high_band : bool
            Above 16 kHz, whether to keep what lies over 8 kHz, with the gain of the
            band's top 1 kHz; else it is cut.
        batch_size : int
            Windows and channels that go through the network together. To fill a
            batch, windows wait: each but the first adds `windows.hop` to the latency.
        windows : Windows
            How the signal is cut.
        limiter : PeakLimiter or None
            What keeps floats within full scale; None lets them be. Integers have one.

        Yields
        ------
        np.ndarray or torch.Tensor
            Blocks of the same kind, type and channels; a window's length each.

        Raises
        ------
        InputError
            If an option or a block can't be used; a sample that is not finite is named.

        Example
        -------
        >>> enhancer = getfixture("tiny_enhancer")
        >>> blocks = (torch.randn(1000) for _ in range(32))
        >>> stream = enhancer.enhance_stream(blocks, windows=Windows(hop=0.5, fade=0.1))
        >>> [len(block) for block in stream]
        [8000, 8000, 16000]
        """
        # Options are checked now, the blocks as they come.
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
        """Enhance a file, reading and writing as it goes: memory does not grow with length.

        Sample rate, channels and levels are kept, and the tags and the sample format
        where the target's container has them. ADPCM and the like become 16-bit, since
        they would change the length. The target appears when it is complete. Where its
        format has a full scale (all but float), nothing is clipped: a peak beyond it is
        turned down, with 5 ms around it.

        Arguments
        ---------
        source : str or Path
            What libsndfile reads; with the package av also other audio and the sound of
            a video. "-" is standard input.
        target : str or Path
            Its extension gives the format, one of `media.CONTAINERS`: WAV (beyond 4 GiB
            RF64), FLAC, OGG, Opus, MP3, AIFF, CAF and others. "-" is standard output.
        subtype : str or None
            Another sample format, by libsndfile's name, such as "FLOAT" or "PCM_24".
        progress : callable or None
            Called as `progress(seconds)` with what has been written since the last call.
        **options
            Those of `enhance_stream`. `batch_size` is 1 on the CPU and 8 elsewhere
            unless it is given.

        Returns
        -------
        float
            By how many dB the highest peak was turned down; if it is not 0, there is a
            `PeakWarning` too.

        Raises
        ------
        InputError
            If a file can't be read, written or used, with its name.

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
                    raise InputError("it holds no samples")
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
            f"a sample rate of {sample_rate} Hz can't be used: {lowest} to {highest} Hz can"
        )
    if suppression is not None and not suppression >= 0:
        raise InputError(f"suppression is a number of dB from 0 on, not {suppression}")
    if batch_size < 1:
        raise InputError(f"a batch has at least one window, not {batch_size}")
    if not windows.hop >= 0.1 or min(windows) < 0 or windows.fade > windows.hop:
        raise InputError(
            f"windows need a hop of at least 0.1 s, and a fade no longer: {windows}"
        )
