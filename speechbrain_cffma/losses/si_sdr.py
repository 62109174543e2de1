"""A loss for the scale-invariant signal-to-distortion ratio (SI-SDR).

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn

from speechbrain_cffma.losses.common import cut, mean_of_active

#: Share of the reference's power below which a waveform counts as silent.
EPS = 1e-6


class SISDRLoss(nn.Module):
    """-log10 of the SI-SDR ratio (https://arxiv.org/abs/1811.02508, Eq. 4).

    That is -0.1 times SI-SDR in dB. The ratio r has a soft cap, `1 / (1 / r + 1 / cap)`,
    so that almost perfect examples don't dominate the batch
    (https://arxiv.org/abs/2006.12701, Sec. 2). Items with a silent reference are left out.

    Arguments
    ---------
    cap : float
        Upper bound on the ratio; 1000 is 30 dB.

    Example
    -------
    >>> clean = torch.tensor([[1.0, 0.0, -1.0, 0.0]])
    >>> noise = torch.tensor([[0.0, 0.1, 0.0, 0.1]])
    >>> round(SISDRLoss(cap=1e5)(5 * (clean + noise), clean).item(), 2)
    -2.0
    >>> round(SISDRLoss()(clean, clean).item(), 2)
    -3.0
    """

    def __init__(self, cap=1000.0):
        super().__init__()
        self.cap = cap

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
            The loss, a scalar; 0 if all references are silent.
        """
        enhanced, clean = (cut(x.float(), lengths) for x in (enhanced, clean))
        power = clean.square().sum(1, keepdim=True).clamp(min=1e-20)
        unit = clean / power.sqrt()
        # The ratio does not depend on the level, so the level needs no gradient.
        level = enhanced.detach().square().sum(1, keepdim=True)
        enhanced = enhanced / torch.maximum(level, EPS * power).sqrt()
        target = (enhanced * unit).sum(1, keepdim=True) * unit
        kept = target.square().sum(1)
        distortion = (enhanced - target).square().sum(1)
        ratio = (kept + EPS) / (distortion + kept / self.cap + EPS)
        return mean_of_active(-torch.log10(ratio), clean, lengths)
