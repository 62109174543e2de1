"""A limiter for formats with a full scale.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

#: The gain is lowered this many seconds before and after a peak beyond full scale.
LIMITER_REACH = 0.005


class PeakWarning(UserWarning):
    """Peaks beyond full scale were turned down, since the format can't store them."""


class PeakLimiter:
    """Smoothly turns down peaks beyond full scale and the 5 ms around them.

    Each window is limited before it is joined to the next one. A cross-fade of two
    signals within full scale stays within full scale.

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
        # An excess of one 16-bit step is inaudible, so it is not reported.
        return 20 * math.log10(self._peak) if self._peak > 1 + 2**-15 else 0.0

    def __call__(self, wav, sample_rate):
        """Limit waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Samples [B, S], full scale 1.0.
        sample_rate : int
            Sample rate in Hz.

        Returns
        -------
        torch.Tensor
            Samples [B, S] from -1 to 1.
        """
        # Not at the top: who hands out files to workers needs `PeakWarning`, but no torch.
        from torch.nn.functional import avg_pool1d, max_pool1d

        peak = wav.abs().max().item()
        if peak <= 1:
            return wav
        self._peak = max(self._peak, peak)
        reach = round(LIMITER_REACH * sample_rate)
        gain = 1 / wav.abs().clamp(min=1)
        # The minimum of the gain around each sample, and then its moving average, never
        # exceed the gain that the sample needs.
        lowest = -max_pool1d(-gain, 2 * reach + 1, stride=1, padding=reach)
        smooth = avg_pool1d(
            lowest, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
        )
        return (wav * smooth).clamp(-1, 1)
