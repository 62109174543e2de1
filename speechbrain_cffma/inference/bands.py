"""Enhance one window at any sample rate, with or without the band above 8 kHz.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

import torch
from torch.nn.functional import avg_pool1d, pad

from speechbrain_cffma.audio import MIN_SAMPLES, SAMPLE_RATE
from speechbrain_cffma.inference.device import device_of, for_inference

#: Width in Hz of the crossover below 8 kHz.
CROSSOVER = 400


# --- one window ---


def min_samples(spectrogram):
    """Return the minimum length that both the transform and the SSL model accept.

    Arguments
    ---------
    spectrogram : LogSpectrogram
        The transform.

    Returns
    -------
    int
        Number of samples at 16 kHz; shorter waveforms are zero-padded.

    Example
    -------
    >>> from speechbrain_cffma.lobes import LogSpectrogram
    >>> min_samples(LogSpectrogram(n_fft=512, win_length=512))
    512
    """
    return max(MIN_SAMPLES, spectrogram.n_fft)


def enhance_rows(model, rows, sample_rate, suppression, high_band):
    """Enhance waveforms at any sample rate, each in a single pass.

    Arguments
    ---------
    model : InferenceMixin
        The enhancer.
    rows : torch.Tensor
        Waveforms [B, S], float32 on the CPU.
    sample_rate : int
        Sample rate in Hz.
    suppression : float or None
        Maximum attenuation in dB; None for the model's own.
    high_band : bool
        Whether to keep the band above 8 kHz.

    Returns
    -------
    torch.Tensor
        Enhanced waveforms [B, S], float32 on the CPU.
    """
    with for_inference(model):
        noisy = rows.to(device_of(model))
        low = _resample(noisy, sample_rate, SAMPLE_RATE)
        n_low = low.shape[1]
        low = pad(low, (0, max(0, min_samples(model.spectrogram) - n_low)))
        enhanced, log_magnitude = model(low, suppression=suppression)
        if sample_rate != SAMPLE_RATE:
            enhanced = _resample(enhanced[:, :n_low], SAMPLE_RATE, sample_rate)
            enhanced = enhanced[:, : rows.shape[1]]
            if high_band or sample_rate < SAMPLE_RATE:
                known = _resample(low[:, :n_low], SAMPLE_RATE, sample_rate)
                rest = noisy - known[:, : rows.shape[1]]
                log_noisy, _ = model.spectrogram(low)  # [B, T, F]
                top = _top_bins(model.spectrogram, sample_rate)
                enhanced_top, noisy_top = (
                    magnitude[..., top].expm1().sum(2)
                    for magnitude in (log_magnitude, log_noisy)
                )
                gain = enhanced_top / noisy_top
                hop = model.spectrogram.hop_length / SAMPLE_RATE * sample_rate
                enhanced = enhanced + rest * _at_samples(gain, hop, rows.shape[1])
        return enhanced[:, : rows.shape[1]].cpu()


def _resample(wav, old, new):
    """Resample [B, S] in the frequency domain, without aliasing.

    It is exact for any pair of integer rates, even if a polyphase filter for their
    ratio would not fit into memory.
    """
    if old == new:
        return wav
    # Whole seconds have an integer number of samples at both rates. The zeros after the
    # signal keep its end from ringing into its beginning.
    seconds = math.ceil(wav.shape[1] / old + 0.1)
    edge = min(old, new) / 2
    spectrum = torch.fft.rfft(wav, n=seconds * old)[:, : int(seconds * edge) + 1]
    if new < old:
        frequencies = torch.arange(spectrum.shape[1], device=wav.device) / seconds
        slope = ((edge - frequencies) / CROSSOVER).clamp(0, 1)
        spectrum = spectrum * torch.sin(math.pi / 2 * slope) ** 2
    n_samples = math.ceil(wav.shape[1] * new / old)
    return torch.fft.irfft(spectrum, n=seconds * new)[:, :n_samples] * (new / old)


def _top_bins(spectrogram, sample_rate):
    """The bins of the top 1 kHz of the band that signal and network share."""
    bins_per_hz = spectrogram.n_fft / SAMPLE_RATE
    last = int(min(sample_rate, SAMPLE_RATE) / 2 * bins_per_hz)
    return slice(last - round(1000 * bins_per_hz), last + 1)


def _at_samples(gain, hop, n_samples):
    """Smooth gains [B, T] over 5 frames and interpolate them linearly: [B, n_samples]."""
    gain = avg_pool1d(gain, 5, stride=1, padding=2, count_include_pad=False)
    # On the CPU, since not every device has float64.
    position = torch.arange(n_samples, dtype=torch.float64) / hop
    left = position.long().clamp(max=gain.shape[1] - 2)
    share = (position - left).clamp(max=1).float().to(gain.device)
    left = left.to(gain.device)
    return gain[:, left] * (1 - share) + gain[:, left + 1] * share
