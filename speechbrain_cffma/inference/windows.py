"""Enhance a signal of any length as a stream of overlapping windows.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
import warnings
from itertools import chain
from typing import NamedTuple

import torch

from speechbrain_cffma.inference.form import FULL_SCALE, Form
from speechbrain_cffma.inference.limiter import PeakLimiter, PeakWarning

#: Minimum length of the last window in seconds, if the signal is long enough. With less
#: context its output would differ more from that of the whole signal.
SHORTEST = 4.0


class _Lengths(NamedTuple):
    hop: float
    fade: float
    past: float
    future: float


class Windows(_Lengths):
    """How a long signal is cut into windows; all lengths are in seconds.

    Window k begins `left_context` seconds before k·hop and ends `fade` + `lookahead`
    seconds after (k+1)·hop. Its output is used from k·hop on. It is faded in over `fade`
    seconds while the previous window is faded out.

    Arguments
    ---------
    hop : float
        Distance from one window to the next.
    fade : float
        Length of the cross-fade.
    left_context : float
        Input before the part of the output that is used.
    lookahead : float
        Input after that part.
    past, future : float or None
        The names of `left_context` and `lookahead` in version 0.1.0.

    Example
    -------
    >>> Windows().latency
    15.5
    >>> Windows(hop=0.5, fade=0.1, left_context=3.0, lookahead=0.4).latency
    1.0
    """

    __slots__ = ()

    def __new__(
        cls,
        hop: float = 14.0,
        fade: float = 1.0,
        left_context: float = 0.5,
        lookahead: float = 0.5,
        *,
        past: float | None = None,
        future: float | None = None,
    ) -> "Windows":
        """Accept the lengths by their current or their former names."""
        past = left_context if past is None else past
        future = lookahead if future is None else future
        return super().__new__(cls, hop, fade, past, future)

    @property
    def left_context(self) -> float:
        """What the network hears before the part that is used, in seconds."""
        return self.past

    @property
    def lookahead(self) -> float:
        """What it hears after that part, in seconds."""
        return self.future

    @property
    def latency(self) -> float:
        """Maximum time in seconds from a sample's input to its output."""
        return self.hop + self.fade + self.lookahead


WINDOWS = Windows()


# --- a signal as a stream of windows ---


class _InSamples(NamedTuple):
    """`Windows` in samples."""

    hop: int
    fade: int
    past: int
    future: int
    #: 20 ms. The last window begins at a multiple, as the frames of the whole file do.
    frame: float
    #: Minimum length of the last window, if the signal is long enough.
    shortest: int


class _Window(NamedTuple):
    """A window of a signal, noisy or enhanced."""

    #: Samples [rows, n].
    samples: torch.Tensor
    #: Where the used part begins.
    lead: int
    is_last: bool


def _in_samples(windows, sample_rate):
    lengths = [round(seconds * sample_rate) for seconds in windows]
    shortest = min(round(SHORTEST * sample_rate), sum(lengths))
    return _InSamples(*lengths, sample_rate / 50, shortest)


def stream(blocks, enhance_rows, sample_rate, windows, batch_size, limiter):
    """Enhance a signal window by window; see `InferenceMixin.enhance_stream`.

    Arguments
    ---------
    blocks : iterable of (np.ndarray or torch.Tensor)
        Consecutive blocks of the signal, samples last.
    enhance_rows : callable
        Enhances waveforms [B, S], float32 on the CPU, each in a single pass.
    sample_rate : int
        Sample rate in Hz.
    windows : Windows
        How the signal is cut.
    batch_size : int
        Number of windows per batch.
    limiter : PeakLimiter or None
        The limiter. With None, integer samples get a new limiter, and floats none.

    Yields
    ------
    np.ndarray or torch.Tensor
        Enhanced blocks in the form of the input.
    """
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        return
    form = Form(first)
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
            "use float samples to keep them",
            PeakWarning,
            stacklevel=3,
        )


def _cut(blocks, windows):
    """Cut consecutive blocks [rows, n] of a signal into windows.

    If the last window would be too short, it begins earlier.
    """
    hop, fade, past, future, frame, shortest = windows
    ahead = hop + fade + future
    held, begin, end = [], 0, 0  # blocks from sample `begin` to sample `end`
    used_from = 0
    for block in blocks:
        held.append(block)
        end += block.shape[1]
        # A window that ends with the signal is the last one, so wait for one more sample.
        while end > used_from + ahead:
            signal = held[0] if len(held) == 1 else torch.cat(held, dim=1)
            first = max(0, used_from - past)
            samples = signal[:, first - begin : used_from + ahead - begin]
            yield _Window(samples, used_from - first, is_last=False)
            used_from += hop
            # The last window may begin one frame before the current one.
            keep = max(begin, first - math.ceil(frame))
            held, begin = [signal[:, keep - begin :]], keep
    if end:
        first = max(0, min(used_from - past, end - shortest))
        first = round(first // frame * frame)
        samples = torch.cat(held, dim=1)[:, first - begin :]
        yield _Window(samples, used_from - first, is_last=True)


def _enhance_windows(windows, enhance_rows, batch_size):
    """Enhance windows of equal length in batches."""

    def enhanced():
        # Concatenated outside inference mode, so that the result is a normal tensor.
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
    """Cross-fade enhanced windows into consecutive blocks [rows, n]."""
    hop, fade = lengths.hop, lengths.fade
    fade_in = torch.sin(torch.linspace(0, math.pi / 2, fade + 2)[1:-1]) ** 2
    fading = None  # end of the previous window, which fades out
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
