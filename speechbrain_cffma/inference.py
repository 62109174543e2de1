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

import math
import warnings
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import avg_pool1d, max_pool1d, pad

from speechbrain_cffma import media
from speechbrain_cffma.audio import MIN_SAMPLES, SAMPLE_RATE
from speechbrain_cffma.errors import InputError

#: What a network can be packed in, beside "auto".
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
#: The lowest and the highest that are taken, in Hz.
SAMPLE_RATES = (8000, 192000)
#: What the last window has at least, in seconds, of a signal that is long enough: with
#: less to hear, what it gives is further from what the whole would give.
SHORTEST = 4.0
#: Width in Hz of the crossover below 8 kHz.
CROSSOVER = 400
#: How far around a peak beyond full scale the gain comes down, in seconds.
LIMITER_REACH = 0.005
#: Full scale of the integer types.
FULL_SCALE = {torch.int16: 2**15, torch.int32: 2**31}


class PeakWarning(UserWarning):
    """Peaks beyond full scale were turned down, for a format that can't hold them."""


class Windows(NamedTuple):
    """How a long signal is cut, in seconds.

    Window k begins `past` seconds before k·hop and ends `fade` + `future` seconds after
    (k+1)·hop. What it gives is used from k·hop on, faded in over `fade` seconds, while
    the window before fades out.

    Arguments
    ---------
    hop : float
        From one window to the next.
    fade : float
        Length of the cross-fade.
    past : float
        Heard before what is used.
    future : float
        Heard behind it.

    Example
    -------
    >>> Windows().latency
    15.5
    >>> Windows(hop=0.5, fade=0.1, past=3.0, future=0.4).latency
    1.0
    """

    hop: float = 14.0
    fade: float = 1.0
    past: float = 0.5
    future: float = 0.5

    @property
    def latency(self):
        """Seconds from a sample's arrival until the one that completes its window."""
        return self.hop + self.fade + self.future


WINDOWS = Windows()


class InferenceMixin:
    """Gives an enhancer `enhance`, `enhance_stream` and `enhance_file`.

    The enhancer, called with a waveform and `suppression`, gives a waveform and its log1p
    magnitude, and has a `spectrogram`. It runs where its parameters are, in eval mode,
    and in float32 unless packed otherwise; its own training mode is left as it was.
    """

    #: The precision that `pack` has fixed the weights in.
    packed = None

    def pack(self, precision="auto"):
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
            precision = "bf16" if has_bf16(_device(self)) else "fp32"
        if precision not in PRECISIONS:
            raise InputError(f"the precision is auto, fp32 or bf16, not {precision}")
        if self.packed is None:
            from speechbrain_cffma.lobes.packed import pack_weights

            pack_weights(self, PRECISIONS[precision])
            self.packed = precision
        elif self.packed != precision:
            raise InputError(
                f"the model is packed in {self.packed} already: load it again to pack "
                f"it in {precision}"
            )
        return self

    def enhance(self, wav, sample_rate=SAMPLE_RATE, **options):
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
        blocks = [*self.enhance_stream([wav], sample_rate, **options), wav[..., :0]]
        if isinstance(wav, torch.Tensor):
            return torch.cat(blocks, dim=-1)
        return np.concatenate(blocks, axis=-1)

    def enhance_stream(
        self,
        blocks,
        sample_rate=SAMPLE_RATE,
        *,
        suppression=None,
        high_band=True,
        batch_size=1,
        windows=WINDOWS,
        limiter=None,
    ):
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

        def enhance_rows(rows):
            return _enhance_rows(self, rows, sample_rate, suppression, high_band)

        return _stream(blocks, enhance_rows, sample_rate, windows, batch_size, limiter)

    def enhance_file(self, source, target, subtype=None, progress=None, **options):
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
        return 1 if _device(self).type == "cpu" else 8


class PeakLimiter:
    """Turns peaks beyond full scale down, and the 5 ms around them, smoothly.

    Each window is limited before it is joined to the next: a cross-fade of two signals
    within full scale is within it too.

    Example
    -------
    >>> limiter = PeakLimiter()
    >>> wav = torch.tensor([[0.5] * 400 + [2.0] + [0.5] * 400])
    >>> limited = limiter(wav, 16000)
    >>> limited[0, [0, 400, 800]].tolist()
    [0.5, 1.0, 0.5]
    >>> round(limiter.excess, 1)
    6.0
    """

    def __init__(self):
        self._peak = 1.0

    @property
    def excess(self):
        """The highest peak so far, in dB beyond full scale; 0 if there was none."""
        # The last step of 16 bits is neither heard nor worth a word.
        return 20 * math.log10(self._peak) if self._peak > 1 + 2**-15 else 0.0

    def __call__(self, wav, sample_rate):
        """Limit waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Samples [B, S], full scale 1.0.
        sample_rate : int
            In Hz.

        Returns
        -------
        torch.Tensor
            Samples [B, S] from -1 to 1.
        """
        peak = wav.abs().max().item()
        if peak <= 1:
            return wav
        self._peak = max(self._peak, peak)
        reach = round(LIMITER_REACH * sample_rate)
        gain = 1 / wav.abs().clamp(min=1)
        # The lowest gain around each sample, and the mean of that, is nowhere above
        # what its own sample needs.
        lowest = -max_pool1d(-gain, 2 * reach + 1, stride=1, padding=reach)
        smooth = avg_pool1d(
            lowest, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
        )
        return (wav * smooth).clamp(-1, 1)


# --- a signal as a stream of windows ---


class _InSamples(NamedTuple):
    """`Windows` in samples."""

    hop: int
    fade: int
    past: int
    future: int
    #: 20 ms: windows begin at its multiples, where the frames of a whole file do.
    frame: float
    #: Of the last window, in a signal that has it.
    shortest: int


class _Window(NamedTuple):
    """A part of a signal, or what the network makes of it."""

    #: Samples [rows, n].
    samples: torch.Tensor
    #: Where the part that is used begins.
    lead: int
    is_last: bool


def _in_samples(windows, sample_rate):
    lengths = [round(seconds * sample_rate) for seconds in windows]
    shortest = min(round(SHORTEST * sample_rate), sum(lengths))
    return _InSamples(*lengths, sample_rate / 50, shortest)


def _stream(blocks, enhance_rows, sample_rate, windows, batch_size, limiter):
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return
    form = _Form(first)
    is_integer = form.dtype in FULL_SCALE
    limiter = limiter or (PeakLimiter() if is_integer else None)
    windows = _in_samples(windows, sample_rate)
    rows = map(form.rows, chain([first], blocks))
    enhanced = _enhance_windows(_cut(rows, windows), enhance_rows, batch_size)
    if limiter:
        enhanced = (
            window._replace(samples=limiter(window.samples, sample_rate))
            for window in enhanced
        )
    yield from map(form.restore, _join(enhanced, windows))
    if is_integer and limiter.excess:
        warnings.warn(
            f"peaks up to {limiter.excess:.1f} dB beyond full scale were turned down; "
            "floats keep them",
            PeakWarning,
            stacklevel=3,
        )


class _Form:
    """How samples come in, so that they go out alike.

    Arguments
    ---------
    block : np.ndarray or torch.Tensor
        The first block.
    """

    def __init__(self, block):
        self.is_tensor = isinstance(block, torch.Tensor)
        block = self._tensor(block)
        self.dtype, self.device, self.shape = (
            block.dtype,
            block.device,
            block.shape[:-1],
        )
        self.n_samples = 0
        if not (self.dtype in FULL_SCALE or self.dtype.is_floating_point):
            raise InputError(
                f"samples of type {self.dtype} can't be enhanced: use floats, int16 or int32"
            )
        if not 1 <= block.dim() <= 3 or 0 in self.shape:
            raise InputError(
                "a waveform is [samples], [channels, samples] or [batch, channels, "
                f"samples], not of shape {tuple(block.shape)}"
            )

    def rows(self, block):
        """Checked samples [rows, n], float32 in [-1, 1], on the CPU."""
        block = self._tensor(block)
        if (block.dtype, block.shape[:-1]) != (self.dtype, self.shape):
            raise InputError(
                f"a block of {block.dtype} {tuple(block.shape)} does not go on with "
                f"{self.dtype} {(*self.shape, '...')}"
            )
        samples = block.detach().cpu().float() / FULL_SCALE.get(self.dtype, 1)
        faults = (~torch.isfinite(samples)).nonzero()
        if len(faults):
            *row, sample = faults[0].tolist()
            names = ("item", "channel")[2 - len(row) :]
            place = "".join(f", {n} {i}" for n, i in zip(names, row, strict=True))
            value = samples[tuple(faults[0])].item()
            raise InputError(f"sample {self.n_samples + sample}{place} is {value}")
        self.n_samples += block.shape[-1]
        return samples.reshape(math.prod(self.shape), block.shape[-1])

    def restore(self, rows):
        """Samples [rows, n] in the form in which they came."""
        samples = rows.reshape(*self.shape, rows.shape[1])
        if self.dtype in FULL_SCALE:
            scale = FULL_SCALE[self.dtype]
            samples = (samples.double() * scale).round().clamp(-scale, scale - 1)
        samples = samples.to(self.device, self.dtype)
        return samples if self.is_tensor else samples.numpy()

    def _tensor(self, block):
        if self.is_tensor:
            return block
        block = np.asarray(block)
        native = block.dtype.newbyteorder("=")
        try:
            return torch.tensor(np.array(block, dtype=native, order="C"))
        except TypeError as error:
            raise InputError(
                f"samples of type {block.dtype} can't be enhanced"
            ) from error


def _cut(blocks, windows):
    """Cut the signal that the blocks [rows, n] make up into windows.

    The last one reaches back further where it would hear too little.
    """
    hop, fade, past, future, frame, shortest = windows
    ahead = hop + fade + future
    held, begin, end = [], 0, 0  # blocks from sample `begin` to sample `end`
    used_from = 0
    for block in blocks:
        held.append(block)
        end += block.shape[1]
        # A window that ends with the signal is the last: wait for one sample more.
        while end > used_from + ahead:
            signal = held[0] if len(held) == 1 else torch.cat(held, dim=1)
            first = max(0, used_from - past)
            samples = signal[:, first - begin : used_from + ahead - begin]
            yield _Window(samples, used_from - first, is_last=False)
            used_from += hop
            # The last window may begin a frame before the one that was cut now.
            keep = max(begin, first - math.ceil(frame))
            held, begin = [signal[:, keep - begin :]], keep
    if end:
        first = max(0, min(used_from - past, end - shortest))
        first = round(first // frame * frame)
        samples = torch.cat(held, dim=1)[:, first - begin :]
        yield _Window(samples, used_from - first, is_last=True)


def _enhance_windows(windows, enhance_rows, batch_size):
    """Put windows of one length through the network together, once a batch is full."""

    def enhanced():
        # Joined outside of inference mode, they are tensors as any others.
        rows = torch.cat([window.samples for window in group])
        rows = torch.cat([enhance_rows(part) for part in rows.split(batch_size)])
        for window, samples in zip(group, rows.chunk(len(group)), strict=True):
            yield window._replace(samples=samples)

    group = []
    for window in windows:
        if group and group[0].samples.shape != window.samples.shape:
            yield from enhanced()
            group = []
        group.append(window)
        if (len(group) + 1) * len(window.samples) > batch_size:
            yield from enhanced()
            group = []
    if group:
        yield from enhanced()


def _join(windows, lengths):
    """Cross-fade enhanced windows to consecutive blocks [rows, n]."""
    hop, fade = lengths.hop, lengths.fade
    fade_in = torch.sin(torch.linspace(0, math.pi / 2, fade + 2)[1:-1]) ** 2
    fading = None  # the beginning of what comes next, as the window before has it
    for samples, lead, is_last in windows:
        samples = samples[:, lead:]
        if fading is not None:
            joint = fading * (1 - fade_in) + samples[:, :fade] * fade_in
            samples = torch.cat([joint, samples[:, fade:]], dim=1)
        if is_last:
            yield samples
        else:
            yield samples[:, :hop]
            fading = samples[:, hop : hop + fade]


# --- one window ---


def min_samples(spectrogram):
    """The shortest waveform at 16 kHz that both transform and SSL model take.

    Arguments
    ---------
    spectrogram : LogSpectrogram
        The transform.

    Returns
    -------
    int
        Number of samples; shorter waveforms are filled up with zeros.

    Example
    -------
    >>> from speechbrain_cffma.lobes import LogSpectrogram
    >>> min_samples(LogSpectrogram(n_fft=512, win_length=512))
    512
    """
    return max(MIN_SAMPLES, spectrogram.n_fft)


def has_bf16(device):
    """Whether a device computes in bfloat16, rather than through float32.

    Arguments
    ---------
    device : torch.device
        A CPU, a GPU or another.

    Returns
    -------
    bool
        On the CPU, whether it has the instructions of AVX-512 or AMX for it.

    Example
    -------
    >>> has_bf16(torch.device("meta"))
    False
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is of the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False  # torch before 2.11 does not tell
    features = torch.cpu.get_capabilities()
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16"))


def _enhance_rows(model, rows, sample_rate, suppression, high_band):
    """Enhance waveforms [B, S] as wholes; float32 on the CPU, as they come."""
    with for_inference(model):
        noisy = rows.to(_device(model))
        low = _resample(noisy, sample_rate, SAMPLE_RATE)
        n_low = low.shape[1]
        low = pad(low, (0, max(0, min_samples(model.spectrogram) - n_low)))
        enhanced, log_magnitude = model(low, suppression=suppression)
        if sample_rate != SAMPLE_RATE:
            enhanced = _resample(enhanced[:, :n_low], SAMPLE_RATE, sample_rate)
            enhanced = enhanced[:, : rows.shape[1]]
            if high_band or sample_rate < SAMPLE_RATE:
                known = _resample(low[:, :n_low], SAMPLE_RATE, sample_rate)
                rest = noisy - known[:, : rows.shape[1]]
                log_noisy, _ = model.spectrogram(low)  # [B, T, F]
                top = _top_bins(model.spectrogram, sample_rate)
                enhanced_top, noisy_top = (
                    magnitude[..., top].expm1().sum(2)
                    for magnitude in (log_magnitude, log_noisy)
                )
                gain = enhanced_top / noisy_top
                hop = model.spectrogram.hop_length / SAMPLE_RATE * sample_rate
                enhanced = enhanced + rest * _at_samples(gain, hop, rows.shape[1])
        return enhanced[:, : rows.shape[1]].cpu()


def _resample(wav, old, new):
    """Change the sample rate of [B, S] in the frequency domain, without aliasing.

    Any pair of whole rates is exact, also where a filter bank for their ratio would
    not fit into memory.
    """
    if old == new:
        return wav
    # Whole seconds have a whole number of samples at both rates. Zeros behind keep
    # the end from ringing into the beginning.
    seconds = math.ceil(wav.shape[1] / old + 0.1)
    edge = min(old, new) / 2
    spectrum = torch.fft.rfft(wav, n=seconds * old)[:, : int(seconds * edge) + 1]
    if new < old:
        frequencies = torch.arange(spectrum.shape[1], device=wav.device) / seconds
        slope = ((edge - frequencies) / CROSSOVER).clamp(0, 1)
        spectrum = spectrum * torch.sin(math.pi / 2 * slope) ** 2
    n_samples = math.ceil(wav.shape[1] * new / old)
    return torch.fft.irfft(spectrum, n=seconds * new)[:, :n_samples] * (new / old)


def _top_bins(spectrogram, sample_rate):
    """The bins of the top 1 kHz of what both the signal and the network have."""
    bins_per_hz = spectrogram.n_fft / SAMPLE_RATE
    last = int(min(sample_rate, SAMPLE_RATE) / 2 * bins_per_hz)
    return slice(last - round(1000 * bins_per_hz), last + 1)


def _at_samples(gain, hop, n_samples):
    """Smooth gains [B, T] over 5 frames, and draw lines between them: [B, n_samples]."""
    gain = avg_pool1d(gain, 5, stride=1, padding=2, count_include_pad=False)
    # On the CPU, since not every device has float64.
    position = torch.arange(n_samples, dtype=torch.float64) / hop
    left = position.long().clamp(max=gain.shape[1] - 2)
    share = (position - left).clamp(max=1).float().to(gain.device)
    left = left.to(gain.device)
    return gain[:, left] * (1 - share) + gain[:, left + 1] * share


def _device(model):
    return next(model.parameters()).device


@contextmanager
def for_inference(model):
    """Call a model as `enhance` does: in eval mode, without gradients, as it is packed.

    Arguments
    ---------
    model : InferenceMixin
        The enhancer. Afterwards each module has its own mode again.

    Yields
    ------
    None

    Example
    -------
    >>> enhancer = getfixture("tiny_enhancer").train()
    >>> with for_inference(enhancer):
    ...     enhancer.training
    False
    >>> enhancer.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    is_mixed = model.packed == "bf16"
    try:
        with (
            torch.inference_mode(),
            torch.autocast(_device(model).type, torch.bfloat16, is_mixed),
        ):
            yield
    finally:
        for module, training in modes:
            module.training = training


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
