"""A differentiable loss modelled on STOI, the standard measure of intelligibility.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.lobes.layers import n_valid_samples, without_autocast
from speechbrain_cffma.losses.common import cut, mean_of_active, mean_power

#: STOI's frames of 25.6 ms at half-overlap, here without its resampling to 10 kHz.
WINDOW, HOP, N_FFT = 410, 205, 1024
#: One-third octave bands and the centre of the lowest in Hz.
N_BANDS, LOWEST = 15, 150.0
#: Frames and samples of a segment (384 ms).
SEGMENT = 30
SEGMENT_SAMPLES = WINDOW + (SEGMENT - 1) * HOP
#: Frames of the reference this many dB below its loudest one count as silent.
RANGE = 40.0
#: A band of a frame is clipped where its noise exceeds the reference by so many dB.
CLIP = 15.0
#: Floor of the power in a band relative to the mean: the slope of the root is infinite at 0.
EPS = 1e-8


class STOILoss(nn.Module):
    """1 minus the short-time objective intelligibility of a waveform.

    STOI (https://doi.org/10.1109/TASL.2011.2114881, Section II) compares the envelopes of
    one-third octave bands in segments of 384 ms by their correlation. Two simplifications
    keep it fast and differentiable: the bands are computed at 16 kHz instead of 10 kHz, and
    a segment counts by its share of frames with speech instead of silent frames being cut
    out.

    Use it for training, and report scores of the package pystoi. Items with a silent
    reference and items shorter than a segment are left out. The levels of the waveforms
    don't matter.

    Example
    -------
    >>> loss = STOILoss()
    >>> clean = getfixture("speech").unsqueeze(0)
    >>> noise = 0.01 * torch.randn_like(clean)
    >>> round(loss(clean, clean).item(), 3)
    0.0
    >>> bool(loss(clean + noise, clean) < loss(clean + 5 * noise, clean))
    True
    """

    def __init__(self):
        super().__init__()
        frequencies = torch.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT
        centres = LOWEST * 2 ** (torch.arange(N_BANDS) / 3)
        lower, upper = centres * 2 ** (-1 / 6), centres * 2 ** (1 / 6)
        bands = (frequencies[:, None] >= lower) & (frequencies[:, None] < upper)
        self.register_buffer("bands", bands.float(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(
        self, enhanced: Tensor, clean: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Compare waveforms.

        Arguments
        ---------
        enhanced : torch.Tensor
            Waveforms [B, S] at 16 kHz.
        clean : torch.Tensor
            Waveforms [B, S].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            The loss, a scalar; 0 if no item counts.
        """
        clean = cut(clean.float(), lengths)
        lost = self.lost(enhanced, clean, lengths)
        if lengths is not None:
            short = n_valid_samples(lengths, clean.shape[1]) < SEGMENT_SAMPLES
            clean = clean.masked_fill(short.unsqueeze(1), 0.0)  # left out like silence
        return mean_of_active(lost, clean, lengths)

    def lost(self, enhanced, clean, lengths=None):
        """The loss of each item of a batch.

        Arguments
        ---------
        enhanced : torch.Tensor
            Waveforms [B, S] at 16 kHz.
        clean : torch.Tensor
            Waveforms [B, S].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            1 - STOI of each item [B]; 0 for items shorter than a segment.
        """
        if clean.shape[1] < SEGMENT_SAMPLES:
            return enhanced.sum(1) * 0.0
        with without_autocast(clean):
            enhanced, clean = (cut(x.float(), lengths) for x in (enhanced, clean))
            with torch.no_grad():
                power = self._power(clean)
                weights = _share_of_speech(power, clean, lengths)  # [B, M]
                reference = self._segments(power, clean, lengths)  # [B, 15, M, 30]
            degraded = self._segments(self._power(enhanced), enhanced, lengths)
            scale = _norm(reference) / _norm(degraded)
            degraded = torch.minimum(
                degraded * scale, (1 + 10 ** (CLIP / 20)) * reference
            )
            similar = (_centred(degraded) * _centred(reference)).sum(3).mean(1)
            total = weights.sum(1)
            lost = 1 - (weights * similar).sum(1) / total.clamp(min=1e-6)
            return torch.where(total > 0, lost, 0.0)

    def _power(self, wav):
        """Power spectra of the frames [B, T, F]."""
        frames = wav.unfold(1, WINDOW, HOP) * self.window
        return torch.view_as_real(torch.fft.rfft(frames, N_FFT)).square().sum(-1)

    def _segments(self, power, wav, lengths):
        """Envelopes of the bands in overlapping segments [B, 15, M, 30]."""
        level = mean_power(wav.detach(), lengths).clamp(min=1e-12)
        power = power @ self.bands / level[:, None, None]
        return (power + EPS).sqrt().transpose(1, 2).unfold(2, SEGMENT, 1)


def _share_of_speech(power, clean, lengths):
    """Share of frames with speech in each segment [B, M]; 0 if it reaches into the
    padding."""
    energy = power.sum(2)
    loudest = energy.amax(1, keepdim=True)
    active = (energy > loudest * 10 ** (-RANGE / 10)).float()
    share = active.unfold(1, SEGMENT, 1).mean(2)
    if lengths is None:
        return share
    ends = SEGMENT_SAMPLES + HOP * torch.arange(share.shape[1], device=share.device)
    return share * (ends <= n_valid_samples(lengths, clean.shape[1]).unsqueeze(1))


def _norm(x):
    return x.square().sum(3, keepdim=True).sqrt()


def _centred(x):
    """Segments without their mean, with a norm of 1."""
    x = x - x.mean(3, keepdim=True)
    return x / (x.square().sum(3, keepdim=True) + EPS).sqrt()
