"""A differentiable loss modelled on PESQ, the standard measure of speech quality.

Authors
 * The speechbrain-cffma developers 2026
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.lobes.layers import n_valid_samples, without_autocast
from speechbrain_cffma.losses.common import cut, mean_of_active

WINDOW = 512  # samples, 32 ms
HOP = WINDOW // 2
#: Edges in Hz of Zwicker's critical bands, one Bark each.
CRITICAL_BANDS = [0, 100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720]
CRITICAL_BANDS += [2000, 2320, 2700, 3150, 3700, 4400, 5300, 6400, 7700, 9500]
#: Threshold of hearing: points in Bark and their values in dB.
THRESHOLD_BARK = [0.3, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 17, 18, 19.5, 20.5, 21]
THRESHOLD_DB = [64, 36.5, 20, 9.9, 3.3, -0.8, -3.4, -5.9, -5.9, -4.4, -3.1, -2.8, -3.1]
THRESHOLD_DB += [-4.4, -3.7, -2.8]
#: Both waveforms are scaled to this power in the telephone band.
LEVEL = 1e7
#: Calibration: a 1 kHz tone at 40 dB has a power of 10^4 and a loudness of one sone.
POWER, SONE = 6.910853e-6, 0.1866055


class PESQLoss(nn.Module):
    """Points on the raw PESQ scale that a waveform loses against its clean reference.

    It is the wideband model of ITU-T P.862 and P.862.2, differentiable, batched and in
    float32. Its steps are level alignment, input filter, Hann frames, Bark bands,
    compensation for slow filtering and gain, Zwicker's loudness, symmetric disturbance D
    and asymmetric disturbance A, and aggregation over split seconds. The loss is
    0.1 D + 0.0309 A; the raw score is 4.5 minus the loss.

    Use it for training, not for measuring: it does not search for a delay, does not weight
    long files by time, and interpolates Bark bands and the threshold of hearing from
    Zwicker's tables. Report scores of the package pesq, which training does not need.

    Items with a silent reference are left out. The levels of the waveforms don't matter.

    Example
    -------
    >>> loss = PESQLoss()
    >>> clean = getfixture("speech").unsqueeze(0)
    >>> noise = 0.01 * torch.randn_like(clean)
    >>> round(loss(clean, clean).item(), 3)
    0.0
    >>> bool(loss(clean + noise, clean) < loss(clean + 5 * noise, clean))
    True
    """

    def __init__(self):
        super().__init__()
        edges, in_hz = _bark_bands()
        width, centre = np.diff(edges), (edges[1:] + edges[:-1]) / 2
        frequency = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
        bands = _band_matrix(frequency, in_hz, width)
        threshold = 10 ** (np.interp(centre, THRESHOLD_BARK, THRESHOLD_DB) / 10)
        # Zwicker's 0.23, more at the lowest bands.
        exponent = 0.23 * np.clip(6 / (centre + 2), 1, 2) ** 0.15
        constants = {
            "window": _hann(),
            "telephone": (frequency >= 350) & (frequency <= 3250),
            "bands": POWER * _input_filter(frequency)[:, None] * bands,
            "width": width,
            "threshold": threshold,
            "exponent": exponent,
        }
        for name, value in constants.items():
            value = torch.tensor(value, dtype=torch.float32)
            self.register_buffer(name, value, persistent=False)

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
            The loss, a scalar; 0 if all references are silent.
        """
        clean = cut(clean.float(), lengths)
        return mean_of_active(self.lost(enhanced, clean, lengths), clean, lengths)

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
            Points lost by each item [B], at least 0.
        """
        with without_autocast(clean):
            enhanced, clean = (cut(x.float(), lengths) for x in (enhanced, clean))
            with torch.no_grad():
                spectra = self._power(clean)
                level = self._level(spectra, clean, lengths).clamp(min=1e-2)
                reference = LEVEL / level * (spectra @ self.bands)  # [B, T, N]
                first, last = _speech_frames(clean, level)
            spectra = self._power(enhanced)
            # Limits the gain of near silence to 60 dB more than that of the reference.
            own_level = self._level(spectra, enhanced, lengths)
            own_level = torch.maximum(own_level, 1e-6 * level)
            degraded = LEVEL / own_level * (spectra @ self.bands)
            n_frames = _n_samples(clean, lengths) / HOP
            symmetric, asymmetric = self._disturbances(reference, degraded, n_frames)
            lost = 0.1 * _aggregate(symmetric, first, last)
            return lost + 0.0309 * _aggregate(asymmetric, first, last)

    def _power(self, wav):
        """Power spectra [B, T, F] on the scale of 16-bit samples."""
        wav = F.pad(wav, (0, WINDOW + -wav.shape[1] % HOP)) * 2**15
        frames = wav.unfold(1, WINDOW, HOP) * self.window
        spectrum = torch.view_as_real(torch.fft.rfft(frames))
        return spectrum.square().sum(-1)

    def _level(self, spectra, wav, lengths):
        """Mean power [B, 1, 1] in the telephone band."""
        # The squared windows of all frames add up to 3 / 4.
        energy = (spectra @ self.telephone).sum(1) * 2 / WINDOW / 0.75
        return energy[:, None, None] / _n_samples(wav, lengths)

    def _disturbances(self, reference, degraded, n_frames):
        """Symmetric and asymmetric disturbance [B, T] from powers in bands [B, T, N]."""
        reference = reference * self._slow_filter(reference, degraded, n_frames)
        power = self._audible(reference)  # [B, T]
        degraded = degraded * _slow_gain(power, self._audible(degraded))
        loudness, target = self._loudness(degraded), self._loudness(reference)
        # Masking: differences below a quarter of the softer loudness are inaudible.
        masked = 0.25 * torch.minimum(loudness, target)
        disturbance = ((loudness - target).abs() - masked).relu() * self.width
        # Additions disturb more than omissions.
        ratio = ((degraded + 50) / (reference + 50)) ** 1.2
        factor = torch.where(ratio < 3, 0.0, ratio.clamp(max=12))
        symmetric = _root(disturbance.square().sum(2) * self.width.sum(), 2)
        asymmetric = (disturbance * factor).sum(2)
        # Disturbances in soft frames count a little more.
        weight = ((power + 1e5) / 1e7) ** -0.04
        return [(d * weight).clamp(max=45) for d in (symmetric, asymmetric)]

    def _audible(self, power, factor=1.0):
        """Total power [B, T] of the bands that exceed the threshold by a factor."""
        return torch.where(power > factor * self.threshold, power, 0.0).sum(2)

    def _slow_filter(self, reference, degraded, n_frames):
        """Gain [B, 1, N] of each band from reference to degraded, over the whole signal."""
        speaks = self._audible(reference, 100.0).unsqueeze(2) >= 1e7

        def mean(power):
            heard = speaks & (power > 100 * self.threshold)
            return torch.where(heard, power, 0.0).sum(1, keepdim=True) / n_frames

        ratio = (mean(degraded) + 1000) / (mean(reference) + 1000)
        return ratio.clamp(0.01, 100)

    def _loudness(self, power):
        """Zwicker's loudness in sone per Bark, 0 below the threshold."""
        above = (power / self.threshold).clamp(min=1)
        grown = (0.5 + 0.5 * above) ** self.exponent - 1
        return SONE * (2 * self.threshold) ** self.exponent * grown


def _slow_gain(reference, degraded):
    """Gain [B, T, 1] that compensates slow level changes, from frame powers [B, T]."""
    gain = (reference + 5e3) / (degraded + 5e3)
    # y[t] = 0.2 y[t - 1] + 0.8 x[t]; further terms are below the precision of float32.
    n_terms = 12
    kernel = 0.8 * 0.2 ** torch.arange(n_terms - 1, -1, -1, device=gain.device)
    history = gain[:, :1].expand(-1, n_terms - 1)
    smooth = torch.cat([history, gain], 1).unfold(1, n_terms, 1) @ kernel
    return smooth.clamp(3e-4, 5).unsqueeze(2)


def _n_samples(wav, lengths):
    """Number of samples of each item without padding [B, 1, 1]."""
    if lengths is None:
        return wav.shape[1]
    return n_valid_samples(lengths, wav.shape[1])[:, None, None]


def _hann():
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def _bark_bands():
    """Edges of the 48 bands in Bark and in Hz; bands are 0.32 to 0.59 Bark wide.

    The band below the first one, around 0 Hz, is not used.
    """
    index = np.arange(49) + 0.5
    edges = index * (0.314308 + index * (0.00212414 + index * 9.6024e-6))
    return edges, np.interp(edges, np.arange(len(CRITICAL_BANDS)), CRITICAL_BANDS)


def _band_matrix(frequency, edges, width):
    """Matrix [F, N] that maps powers at frequencies to powers per Bark in bands."""
    half = frequency[1] / 2
    upper = np.minimum(frequency[:, None] + half, edges[1:])
    lower = np.maximum(frequency[:, None] - half, edges[:-1])
    overlap = np.clip(upper - lower, 0, None)
    overlap[[0, -1]] = 0  # neither 0 Hz nor the highest frequency counts
    return overlap / overlap.sum(0).clip(min=1) * np.diff(edges) / width


def _input_filter(frequency):
    """Power response of P.862.2's input filter, a high-pass of second order."""
    delay = np.exp(-2j * np.pi * frequency / SAMPLE_RATE)
    response = 2.740826 * (1 - delay) ** 2
    return np.abs(response / (1 - 1.9444777 * delay + 0.94597794 * delay**2)) ** 2


def _speech_frames(clean, level):
    """First and last frame [B, 1] of the speech, without silence at both ends."""
    floor = 100 * (level.squeeze(2) / LEVEL).sqrt() / 2**15
    loud = F.avg_pool1d(clean.abs().unsqueeze(1), 5, 1).squeeze(1) >= floor
    loud = loud.int()
    first = loud.argmax(1, keepdim=True) // HOP
    last = (clean.shape[1] - loud.flip(1).argmax(1, keepdim=True)) // HOP - 1
    return first, torch.maximum(last, first)


def _aggregate(disturbance, first, last):
    """Norm [B] of frame disturbances [B, T]; the largest dominate."""
    n_frames = disturbance.shape[1]
    place = first + torch.arange(n_frames, device=first.device)
    disturbance = disturbance.gather(1, place.clamp(max=n_frames - 1))
    disturbance = disturbance.masked_fill(place > last, 0.0)
    # Split seconds: 20 frames that overlap by half.
    parts = F.pad(disturbance, (0, 20)).unfold(1, 20, 10)
    parts = _root((parts**6).mean(2), 6)
    counts = (place <= last)[:, ::10]
    parts = parts[:, : counts.shape[1]] * counts
    return _root(parts.square().sum(1) / counts.sum(1), 2)


def _root(x, degree):
    """The root, clamped because its slope at 0 is infinite."""
    return x.clamp(min=1e-30 if degree > 2 else 1e-12) ** (1 / degree)
