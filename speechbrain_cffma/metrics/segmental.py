"""Measures of short frames: segmental SNR, log-likelihood ratio, weighted spectral slope.

They are parts of the composite measures of Hu & Loizou, "Evaluation of Objective Quality
Measures for Speech Enhancement", IEEE TASLP 16(1), 229-238, 2008. They follow Loizou's
definitions: Hann frames of 30 ms that overlap by three quarters. They need 37.5 ms.

Arguments
---------
scale : str
    See `composite`. Only WSS depends on it, since its band energies have an absolute floor.

Authors
 * The speechbrain-cffma developers 2026
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy.fft import rfft

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.metric_table import SCALES
from speechbrain_cffma.metrics.signals import FRAME, MetricError, pair

#: Floor of WSS's band energies. Loizou's code, made for 16-bit samples, divides by 32768
#: and floors at 1e-10; for samples of full scale 1 that floor is 90 dB higher.
BAND_FLOOR = 1e-10 * 32768**2

#: LLR and WSS average over this share of the frames, the least distorted ones.
KEPT = 0.95
#: Frames computed at a time. This limits the memory, and is faster than all at once.
BLOCK = 256
EPS = np.finfo(np.float64).eps

#: Centre and width in Hz of Klatt's 25 critical bands.
BANDS = np.array(
    [
        (50.0, 70.0),
        (120.0, 70.0),
        (190.0, 70.0),
        (260.0, 70.0),
        (330.0, 70.0),
        (400.0, 70.0),
        (470.0, 70.0),
        (540.0, 77.3724),
        (617.372, 86.0056),
        (703.378, 95.3398),
        (798.717, 105.411),
        (904.128, 116.256),
        (1020.38, 127.914),
        (1148.30, 140.423),
        (1288.72, 153.823),
        (1442.54, 168.154),
        (1610.70, 183.457),
        (1794.16, 199.776),
        (1993.93, 217.153),
        (2211.08, 235.631),
        (2446.71, 255.255),
        (2701.97, 276.072),
        (2978.04, 298.126),
        (3276.17, 321.465),
        (3597.63, 346.136),
    ]
)


def ssnr(
    clean: np.ndarray,
    enhanced: np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
) -> float:
    """Segmental signal-to-noise ratio: the mean of the frames' SNRs in dB, each clamped to
    [-10, 35].

    Returns
    -------
    float
        In dB, -10 to 35.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(ssnr(clean, 1.1 * clean), 3)
    20.0
    """
    return segmental_measures(clean, enhanced, sample_rate, scale, ("ssnr",))["ssnr"]


def llr(
    clean: np.ndarray,
    enhanced: np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
) -> float:
    """Log-likelihood ratio of the frames' all-pole models, averaged over the lowest 95 %.

    A frame's ratio is ln(a_e R a_e' / a_c R a_c'), with the coefficients a_e of the
    enhanced and a_c of the clean signal, and the autocorrelation R of the clean signal.
    The models have order 16, or order 10 at sample rates below 10 kHz. A frame of digital
    silence counts as very soft white noise.

    Returns
    -------
    float
        From 0 (equal models) upwards.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> round(llr(clean, 0.5 * clean), 6)
    0.0
    """
    return segmental_measures(clean, enhanced, sample_rate, scale, ("llr",))["llr"]


def wss(
    clean: np.ndarray,
    enhanced: np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
) -> float:
    """Weighted spectral slope distance (Klatt, ICASSP 1982), averaged over the lowest 95 %
    of the frames.

    A frame's distance is the squared difference of the slopes between 25 critical bands,
    weighted towards spectral peaks.

    Returns
    -------
    float
        From 0 upwards, in dB squared.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> wss(clean, clean)
    0.0
    """
    return segmental_measures(clean, enhanced, sample_rate, scale, ("wss",))["wss"]


def segmental_measures(
    clean: np.ndarray,
    enhanced: np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    scale: str = "int16",
    names: Sequence[str] = ("ssnr", "llr", "wss"),
) -> dict[str, float]:
    """Compute several measures on the same frames, which is faster than one by one.

    Arguments
    ---------
    names : sequence of str
        Some of ssnr, llr and wss.

    Returns
    -------
    dict
        A float for each name.

    Raises
    ------
    MetricError
        Also if the signals are shorter than 37.5 ms.
    ValueError
        If the scale is unknown.

    Example
    -------
    >>> clean = getfixture("speech").numpy()
    >>> {name: round(value, 6) for name, value in segmental_measures(clean, clean).items()}
    {'ssnr': 35.0, 'llr': 0.0, 'wss': 0.0}
    """
    if scale not in SCALES:
        raise ValueError(f"the scale must be one of {', '.join(SCALES)}, not {scale!r}")
    label = "/".join(name.upper() for name in names)
    clean, enhanced = pair(label, clean, enhanced, sample_rate)
    clean, enhanced = frames = [
        _frames(label, samples, sample_rate) for samples in (clean, enhanced)
    ]
    length = clean.shape[1]
    window = SCALES[scale] * _window(length)
    n_fft = 1 << (2 * length - 1).bit_length()
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, len(clean), BLOCK):
        block = [window * part[start : start + BLOCK] for part in frames]  # [T, N]
        if "ssnr" in names:
            values["ssnr"].append(_segmental_snr(*block))
        if {"llr", "wss"}.isdisjoint(names):
            continue
        clean_power, power = (_power(part, n_fft) for part in block)  # [T, F]
        if "llr" in names:
            order = 10 if sample_rate < 10000 else 16
            values["llr"].append(_log_likelihood_ratio(clean_power, power, order))
        if "wss" in names:
            values["wss"].append(
                _spectral_slope_distance(clean_power, power, sample_rate)
            )
    means: dict[str, Callable] = {
        "ssnr": np.mean,
        "llr": _mean_of_lowest,
        "wss": _mean_of_lowest,
    }
    return {name: float(means[name](np.concatenate(values[name]))) for name in names}


# --- frames ---


def _frames(label, samples, sample_rate):
    """A view of all frames [T, N] but the last one, which Loizou's code leaves out too."""
    if sample_rate < 8000:
        raise MetricError(f"{label}: needs 8000 Hz or more, not {sample_rate}")
    peak = np.abs(samples).max()
    if peak > 128:
        raise MetricError(
            f"{label}: the samples reach {peak:.0f}, but full scale is 1: divide 16-bit "
            "samples by 32768"
        )
    length = int(FRAME * sample_rate + 0.5)
    hop = length // 4
    n_frames = (len(samples) - length) // hop
    if n_frames < 1:
        raise MetricError(
            f"{label}: {len(samples)} samples are too short, {length + hop} are needed"
        )
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)
    return frames[::hop][:n_frames]


@lru_cache
def _window(length):
    """A Hann window [N] without its zeros, which lie just outside."""
    return 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, length + 1) / (length + 1)))


def _power(frames, n_fft):
    spectrum = rfft(frames, n_fft)
    return spectrum.real**2 + spectrum.imag**2


def _mean_of_lowest(distances):
    """The mean of the lowest 95 %; their number is rounded half to even."""
    n_kept = round(KEPT * len(distances))
    return np.sort(distances)[:n_kept].mean()


# --- segmental SNR ---


def _segmental_snr(clean, enhanced):
    """Frames [T, N] to dB [T]."""
    noise = clean - enhanced
    signal_energy, noise_energy = (
        np.einsum("tn,tn->t", part, part) for part in (clean, noise)
    )
    ratio = 10 * np.log10(signal_energy / (noise_energy + EPS) + EPS)
    return ratio.clip(-10, 35)


# --- log-likelihood ratio ---


def _log_likelihood_ratio(clean, enhanced, order):
    """Power spectra [T, F] to distances [T]."""
    clean, enhanced = (_autocorrelation(power, order) for power in (clean, enhanced))
    _, clean_error = _linear_prediction(clean)
    coefficients, _ = _linear_prediction(enhanced)
    # a R a' = sum over lags of R times the autocorrelation of a.
    error = clean[0] * (coefficients**2).sum(axis=0)
    for lag in range(1, order + 1):
        products = (coefficients[lag:] * coefficients[:-lag]).sum(axis=0)
        error += 2 * clean[lag] * products
    # The ratio is at least 1, since the clean coefficients have the least error; only
    # rounding can make it smaller.
    return np.log(np.maximum(error / clean_error, 1))


def _autocorrelation(power, order):
    """Power spectra [T, F] to lags [order + 1, T]; silent frames become white noise."""
    lags = _inverse_transform(power.shape[1], order) @ power.T
    silent = lags[0] < 1e-200
    lags[:, silent] = 0
    lags[0, silent] = 1
    return lags


@lru_cache
def _inverse_transform(n_bins, order):
    """The first lags of the inverse Fourier transform as a matrix [order + 1, F]."""
    angles = np.pi / (n_bins - 1) * np.outer(np.arange(order + 1), np.arange(n_bins))
    matrix = np.cos(angles) / (n_bins - 1)
    matrix[:, [0, -1]] /= 2
    return matrix


def _linear_prediction(lags):
    """The Levinson-Durbin recursion for all frames at once.

    Returns the coefficients [order + 1, T] and the prediction error [T]. If a frame's
    prediction error falls to the rounding error, its order is not raised further.
    """
    coefficients = np.zeros_like(lags)
    coefficients[0] = 1
    error = lags[0].copy()
    floor = 1e-12 * lags[0]
    active = np.ones(lags.shape[1], dtype=bool)
    for order in range(1, len(lags)):
        known = coefficients[:order]
        reflection = -(known * lags[order:0:-1]).sum(axis=0) / error
        next_error = error * (1 - reflection**2)
        active &= next_error > floor
        reflection[~active] = 0
        error = np.where(active, next_error, error)
        known = coefficients[: order + 1]
        coefficients[: order + 1] = known + reflection * known[::-1]
    return coefficients, error


# --- weighted spectral slope ---


def _spectral_slope_distance(clean, enhanced, sample_rate):
    """Power spectra [T, F] to distances [T]."""
    filters = _critical_bands(sample_rate, 2 * (clean.shape[1] - 1))
    slopes, weights = [], []
    for power in (clean, enhanced):
        energy = 10 * np.log10(np.maximum(filters @ power.T, BAND_FLOOR))  # [25, T]
        slope = np.diff(energy, axis=0)
        slopes.append(slope)
        weights.append(_slope_weights(energy, slope))
    weight = weights[0] + weights[1]
    difference = slopes[0] - slopes[1]
    return (weight * difference**2).sum(axis=0) / weight.sum(axis=0)


@lru_cache
def _critical_bands(sample_rate, n_fft):
    """Gaussian filters [25, F], cut where they fall below -28 dB."""
    centre, width = (BANDS / (sample_rate / n_fft)).T[:, :, np.newaxis]
    bins = np.arange(n_fft // 2 + 1)
    filters = width[0] / width * np.exp(-11 * ((bins - np.floor(centre)) / width) ** 2)
    filters[filters <= np.exp(-30 / (2 * 2.303))] = 0
    return filters


def _slope_weights(energy, slope):
    """Band energies [25, T] and slopes [24, T] to weights [24, T]: 1 at the highest peak,
    less for bands below the highest or below the nearest peak."""
    energy, highest = energy[:-1], energy.max(axis=0)
    # On a rising slope the nearest peak lies above, on a falling slope below. On a rising
    # slope Loizou's code takes the last band before the peak, and so do we.
    rising = slope > 0
    peak = energy.copy()
    for band in range(len(slope) - 2, -1, -1):
        climbs_on = rising[band] & rising[band + 1]
        peak[band, climbs_on] = peak[band + 1, climbs_on]
    for band in range(1, len(slope)):
        falls_on = ~rising[band] & ~rising[band - 1]
        peak[band, falls_on] = peak[band - 1, falls_on]
    return 20 / (20 + highest - energy) * (1 / (1 + peak - energy))
