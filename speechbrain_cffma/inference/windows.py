"""A signal of any length as a stream of overlapping windows.

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

#: What the last window has at least, in seconds, of a signal that is long enough: with
#: less to hear, what it gives is further from what the whole would give.
SHORTEST = 4.0


class _Lengths(NamedTuple):
    hop: float
    fade: float
    left_context: float
    lookahead: float


class Windows(_Lengths):
    """How a long signal is cut, in seconds.

    Window k begins `left_context` seconds before k·hop and ends `fade` + `lookahead`
    seconds after (k+1)·hop. Its output is used from k·hop on, faded in over `fade`
    seconds, while the window before fades out.

    Arguments
    ---------
    hop : float
        From one window to the next.
    fade : float
        Length of the cross-fade.
    left_context : float
        What the network hears before the part that is used.
    lookahead : float
        What it hears after that part.
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
        """Take the lengths by their names of now or of before."""
        left_context = left_context if past is None else past
        lookahead = lookahead if future is None else future
        return super().__new__(cls, hop, fade, left_context, lookahead)

    @property
    def past(self) -> float:
        """The left context."""
        return self.left_context

    @property
    def future(self) -> float:
        """The lookahead."""
        return self.lookahead

    @property
    def latency(self) -> float:
        """Seconds from a sample's arrival until the one that completes its window."""
        return self.hop + self.fade + self.lookahead


WINDOWS = Windows()


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


def stream(blocks, enhance_rows, sample_rate, windows, batch_size, limiter):
    """Enhance a signal window by window; see `InferenceMixin.enhance_stream`.

    Arguments
    ---------
    blocks : iterable of (np.ndarray or torch.Tensor)
        Consecutive blocks of the signal, samples last.
    enhance_rows : callable
        Enhances waveforms [B, S], float32 on the CPU, as wholes.
    sample_rate : int
        In Hz.
    windows : Windows
        How the signal is cut.
    batch_size : int
        Windows that go through the network together.
    limiter : PeakLimiter or None
        None for one of its own where the samples are integers.

    Yields
    ------
    np.ndarray or torch.Tensor
        Enhanced blocks in the form of those that came.
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
            "floats keep them",
            PeakWarning,
            stacklevel=3,
        )


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
