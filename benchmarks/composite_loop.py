"""LLR, WSS and segmental SNR, implemented from their equations frame by frame.

Tests and benchmarks compare speechbrain_cffma.metrics.segmental with it. Hu & Loizou,
"Evaluation of Objective Quality Measures for Speech Enhancement", IEEE TASLP 16(1), 2008.
"""

import math

import numpy as np

CENTRES = [50.0, 120.0, 190.0, 260.0, 330.0, 400.0, 470.0, 540.0, 617.372, 703.378]
CENTRES += [798.717, 904.128, 1020.38, 1148.30, 1288.72, 1442.54, 1610.70, 1794.16]
CENTRES += [1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17, 3597.63]
WIDTHS = [70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 77.3724, 86.0056, 95.3398]
WIDTHS += [105.411, 116.256, 127.914, 140.423, 153.823, 168.154, 183.457, 199.776]
WIDTHS += [217.153, 235.631, 255.255, 276.072, 298.126, 321.465, 346.136]


def measures(clean, enhanced, sample_rate, full_scale):
    """The means over frames; samples of full scale 1 are first scaled to `full_scale`."""
    length = round(0.03 * sample_rate)
    hop = length // 4
    window = 0.5 * (
        1 - np.cos(2 * np.pi * np.arange(1, length + 1) / (length + 1))
    )  # [N]
    filters = critical_bands(sample_rate, fft_size(length))
    order = 10 if sample_rate < 10000 else 16
    ratios, likelihoods, slopes = [], [], []
    for index in range(int(len(clean) / hop - length / hop)):
        frame = slice(index * hop, index * hop + length)
        clean_frame = clean[frame] * full_scale * window
        enhanced_frame = enhanced[frame] * full_scale * window
        ratios.append(frame_ssnr(clean_frame, enhanced_frame))
        likelihoods.append(frame_llr(clean_frame, enhanced_frame, order))
        slopes.append(frame_wss(clean_frame / 32768, enhanced_frame / 32768, filters))
    return {
        "ssnr": sum(ratios) / len(ratios),
        "llr": mean_of_lowest(likelihoods),
        "wss": mean_of_lowest(slopes),
    }


def mean_of_lowest(distances):
    kept = sorted(distances)[: round(0.95 * len(distances))]
    return sum(kept) / len(kept)


def frame_ssnr(clean, enhanced):
    eps = 2.0**-52
    ratio = np.sum(clean**2) / (np.sum((clean - enhanced) ** 2) + eps)
    return min(max(10 * math.log10(ratio + eps), -10), 35)


def frame_llr(clean, enhanced, order):
    r_clean = autocorrelation(clean, order)
    a_clean = linear_prediction(r_clean)
    a_enhanced = linear_prediction(autocorrelation(enhanced, order))
    lags = np.abs(np.subtract.outer(np.arange(order + 1), np.arange(order + 1)))
    matrix = r_clean[lags]
    ratio = (a_enhanced @ matrix @ a_enhanced) / (a_clean @ matrix @ a_clean)
    return math.log(ratio)


def autocorrelation(frame, order):
    return np.array(
        [frame[lag:] @ frame[: len(frame) - lag] for lag in range(order + 1)]
    )


def linear_prediction(r):
    """The Levinson-Durbin recursion."""
    a, error = np.array([1.0]), r[0]
    for order in range(1, len(r)):
        reflection = -(a @ r[order:0:-1]) / error
        a = np.append(a, 0.0)
        a = a + reflection * a[::-1]
        error = error * (1 - reflection**2)
    return a


def frame_wss(clean, enhanced, filters):
    clean_slope, clean_weight = slopes_and_weights(clean, filters)
    enhanced_slope, enhanced_weight = slopes_and_weights(enhanced, filters)
    weight = (clean_weight + enhanced_weight) / 2
    return np.sum(weight * (clean_slope - enhanced_slope) ** 2) / np.sum(weight)


def slopes_and_weights(frame, filters):
    n_fft = fft_size(len(frame))
    power = np.abs(np.fft.fft(frame, n_fft)[: n_fft // 2]) ** 2
    energy = np.array(
        [10 * math.log10(max(np.sum(power * band), 1e-10)) for band in filters]
    )
    slope = energy[1:] - energy[:-1]
    weight = np.zeros(24)
    for band in range(24):
        n = band
        if slope[band] > 0:
            while n < 24 and slope[n] > 0:
                n += 1
            peak = energy[n - 1]
        else:
            while n >= 0 and slope[n] <= 0:
                n -= 1
            peak = energy[n + 1]
        of_highest = 20 / (20 + max(energy) - energy[band])
        of_nearest = 1 / (1 + peak - energy[band])
        weight[band] = of_highest * of_nearest
    return slope, weight


def critical_bands(sample_rate, n_fft):
    filters = []
    for centre, width in zip(CENTRES, WIDTHS, strict=True):
        centre_bin = math.floor(centre * n_fft / sample_rate)
        width_bins = width * n_fft / sample_rate
        band = np.zeros(n_fft // 2)
        for n in range(n_fft // 2):
            exponent = -11 * ((n - centre_bin) / width_bins) ** 2
            value = math.exp(exponent + math.log(WIDTHS[0]) - math.log(width))
            band[n] = value if value > math.exp(-30 / (2 * 2.303)) else 0
        filters.append(band)
    return filters


def fft_size(length):
    return 2 ** math.ceil(math.log2(2 * length))
