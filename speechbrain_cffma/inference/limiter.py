"""A limiter for formats with a full scale.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

from torch.nn.functional import avg_pool1d, max_pool1d

#: How far around a peak beyond full scale the gain comes down, in seconds.
LIMITER_REACH = 0.005


class PeakWarning(UserWarning):
    """Peaks beyond full scale were turned down, for a format that can't hold them."""


class PeakLimiter:
    """Turns peaks beyond full scale down, and the 5 ms around them, smoothly.

    Each window is limited before it is joined to the next: a cross-fade of two signals
    within full scale is within it too.

    Example
    -------
    >>> limiter = PeakLimiter()
    >>> import torch
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
