"""A loss of compressed spectra over several sizes of the STFT.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechbrain_cffma.losses.common import cut, mean_over_items, mean_power

#: Floor, 60 dB below the level: the slope of the compression is infinite at 0, so
#: inaudible bins would dominate the gradient.
EPS = 1e-3


class MultiResolutionLoss(nn.Module):
    """Distance between the compressed spectra of two waveforms, for several STFT sizes.

    It is the mean squared distance of |X|^power and, weighted by `phase_weight`, of
    |X|^power·X/|X|, which includes the phase. The compression gives quiet parts, where
    noise is most audible, a weight comparable to loud ones. Noise covers more of the
    spectrum than speech, so a symmetric loss would favour removing speech over keeping
    noise. Therefore magnitudes that are too low count more than those that are too high
    (https://arxiv.org/abs/2106.02896). Both waveforms are divided by the level of the
    louder one, so soft and loud crops count alike (https://arxiv.org/abs/2008.06412).

    Arguments
    ---------
    n_ffts : sequence of int
        Sizes of the Fourier transforms and their windows; the hop is a quarter of a size.
    power : float
        Exponent of the compression.
    phase_weight : float
        Weight of the distance that includes the phase, from 0 to 1. The distance of
        magnitudes has the weight 1 - phase_weight.
    asymmetry : float
        Magnitudes that are too low count 1 + asymmetry times as much.

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
        """|X|^power [B, F, T], and |X|^power·X/|X| as real and imaginary part
        [B, F, T, 2]."""
        missing = max(
            0, n_fft - wav.shape[1]
        )  # The STFT can't mirror less than half a window.
        spectrum = torch.stft(
            F.pad(wav, (0, missing)),
            n_fft,
            n_fft // 4,
            window=torch.hann_window(n_fft, device=wav.device),
            normalized=True,
            return_complex=True,
        )
        magnitude = (spectrum.real.square() + spectrum.imag.square() + EPS**2).sqrt()
        compressed = magnitude**self.power
        return compressed, torch.view_as_real(spectrum * (compressed / magnitude))
