"""A loss of compressed spectra over several sizes of the STFT.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn

from speechbrain_cffma.losses.common import cut, mean_over_items, mean_power

#: Magnitudes far below it, 60 dB under the level, count alike: the slope of the
#: compression is infinite at 0, so that all would hang on what nobody hears.
EPS = 1e-3


class MultiResolutionLoss(nn.Module):
    """Distance of compressed spectra of two waveforms, over several sizes of the STFT.

    The mean squared distance of |X|^power, and with `phase_weight` that of
    |X|^power·X/|X|, which tells the phase. The compression makes quiet parts, where
    noise is heard most, count beside loud ones. Noise fills more of the spectrum than
    speech, so that by itself this loss would rather lose speech than keep noise: what
    is too quiet counts more than what is too loud (https://arxiv.org/abs/2106.02896).
    Soft crops count as loud ones do: both sides are divided by the level of the louder
    one (https://arxiv.org/abs/2008.06412).

    Arguments
    ---------
    n_ffts : sequence of int
        Sizes of the Fourier transform, which are the windows too; hop a quarter.
    power : float
        Exponent of the compression.
    phase_weight : float
        Weight of the distance that tells the phase, from 0 to 1; the rest is that of
        the other.
    asymmetry : float
        How much more a magnitude that is too low counts than one that is too high.

    Example
    -------
    >>> loss = MultiResolutionLoss()
    >>> clean = getfixture("speech").unsqueeze(0)
    >>> noise = torch.randn_like(clean)
    >>> round(loss(clean, clean).item(), 6)
    0.0
    >>> bool(loss(clean + 0.01 * noise, clean) < loss(clean + 0.1 * noise, clean))
    True
    """

    def __init__(
        self, n_ffts=(256, 512, 1024), power=0.3, phase_weight=0.3, asymmetry=3.0
    ):
        super().__init__()
        self.n_ffts = tuple(n_ffts)
        self.power = power
        self.phase_weight = phase_weight
        self.asymmetry = asymmetry

    def forward(
        self, enhanced: Tensor, clean: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Compare waveforms.

        Arguments
        ---------
        enhanced : torch.Tensor
            Waveforms [B, S].
        clean : torch.Tensor
            Waveforms [B, S].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            The loss, a scalar.
        """
        enhanced, clean = (cut(x.float(), lengths) for x in (enhanced, clean))
        sides = torch.stack([enhanced.detach(), clean])
        level = mean_power(sides, lengths).sqrt().amax(0).clamp(min=1e-4)
        enhanced, clean = (x / level.unsqueeze(1) for x in (enhanced, clean))
        distances = [self._distance(enhanced, clean, n, lengths) for n in self.n_ffts]
        return sum(distances) / len(distances)

    def _distance(self, enhanced, clean, n_fft, lengths):
        enhanced_magnitude, enhanced = self._compressed(enhanced, n_fft)
        with torch.no_grad():
            clean_magnitude, clean = self._compressed(clean, n_fft)
        error = enhanced_magnitude - clean_magnitude
        errors = (1 + self.asymmetry * (error < 0)) * error.square()
        distance = mean_over_items(errors, lengths)
        if not self.phase_weight:
            return distance
        with_phase = mean_over_items((enhanced - clean).square().sum(-1), lengths)
        return (1 - self.phase_weight) * distance + self.phase_weight * with_phase

    def _compressed(self, wav, n_fft):
        """|X|^power [B, F, T], and with the phase of X its two parts [B, F, T, 2]."""
        spectrum = torch.stft(
            wav,
            n_fft,
            n_fft // 4,
            window=torch.hann_window(n_fft, device=wav.device),
            normalized=True,
            return_complex=True,
        )
        magnitude = (spectrum.real.square() + spectrum.imag.square() + EPS**2).sqrt()
        compressed = magnitude**self.power
        return compressed, torch.view_as_real(spectrum * (compressed / magnitude))
