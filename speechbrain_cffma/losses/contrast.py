"""Perceptual contrast stretching of the clean targets.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.losses.common import cut, mean_power

#: RMS at which waveforms are stretched: -26 dB, about that of VoiceBank-DEMAND.
LEVEL = 0.05

#: Lower edges in Hz of critical bands, and the importance of each band for understanding
#: speech (ANSI S3.5-1997, Table 1). Neighbouring bands of equal importance are merged.
BANDS = [0, 100, 200, 300, 400, 4400, 5300, 6400, 7700]
IMPORTANCE = [0.0, 0.0103, 0.0261, 0.0419, 0.0577, 0.046, 0.0343, 0.0226, 0.011]


class ContrastStretching(nn.Module):
    """Stretches the contrast of clean targets by the importance of each frequency.

    It multiplies the log1p magnitude by 1 to 1 + strength
    (https://arxiv.org/abs/2203.17152, Sec. 2) and scales the result to the level of the
    speech. Weak parts become weaker, and a mask below 1 can still reach the target. As log1p
    depends on the level, all waveforms are stretched at one level.

    Arguments
    ---------
    spectrogram : LogSpectrogram
        The transform and its inverse.
    strength : float
        Strength for the most important bands; 0.4 as published.

    Example
    -------
    >>> from speechbrain_cffma.lobes import LogSpectrogram
    >>> clean = getfixture("speech").unsqueeze(0)
    >>> stretched = ContrastStretching(LogSpectrogram())(clean)
    >>> torch.allclose(stretched.norm(), clean.norm())
    True
    >>> weak, weaker = (wav.abs().quantile(0.25) for wav in (clean, stretched))
    >>> bool(weaker < 0.9 * weak)
    True
    """

    def __init__(self, spectrogram, strength=0.4):
        super().__init__()
        self.spectrogram = spectrogram
        n_fft = spectrogram.n_fft
        frequency = torch.arange(n_fft // 2 + 1) * (SAMPLE_RATE / n_fft)
        band = torch.bucketize(frequency, torch.tensor(BANDS), right=True) - 1
        importance = torch.tensor(IMPORTANCE)[band] / max(IMPORTANCE)
        self.register_buffer("factor", 1 + strength * importance, persistent=False)

    def forward(self, wav: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Stretch waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms [B, S] at 16 kHz.
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            Waveforms [B, S] of the same levels, 0 in the padding.
        """
        wav = cut(wav, lengths)
        level = mean_power(wav, lengths).sqrt().unsqueeze(1)
        normal = wav * (LEVEL / level.clamp(min=1e-10))
        log_magnitude, phase = self.spectrogram(normal, lengths)
        log_magnitude = self.factor * log_magnitude
        stretched = self.spectrogram.inverse(
            log_magnitude, phase, wav.shape[1], lengths
        )
        own_level = mean_power(stretched, lengths).sqrt().unsqueeze(1)
        return stretched * (level / own_level.clamp(min=1e-10))
