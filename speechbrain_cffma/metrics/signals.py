"""Checks of the signals that metrics compare.

Authors
 * The speechbrain-cffma developers 2026
"""

import numpy as np

from speechbrain_cffma.audio import SILENCE

#: Seconds by which the lengths of two signals may differ.
FRAME = 0.03


class MetricError(ValueError):
    """A metric is not defined for these signals; the message has the reason."""


def pair(metric, clean, enhanced, sample_rate):
    """Check two signals, and cut both to the length of the shorter one.

    Arguments
    ---------
    metric : str
        Name of the metric, for the messages.
    clean : np.ndarray
        Samples [S], full scale 1, or signed integers.
    enhanced : np.ndarray
        Samples [S], full scale 1, or signed integers.
    sample_rate : int
        In Hz.

    Returns
    -------
    clean : np.ndarray
        Samples [S]; floats stay as they are, integers are divided by their full scale.
    enhanced : np.ndarray
        Samples [S].

    Raises
    ------
    MetricError
        If either has more than one channel, is silent (below -80 dB of full scale) or
        not finite, or their lengths differ by more than a frame (30 ms).

    Example
    -------
    >>> clean, enhanced = pair("PESQ", np.ones(1000), np.ones(1100), 16000)
    >>> len(clean), len(enhanced)
    (1000, 1000)
    >>> pair("PESQ", np.ones(1000), np.ones(2000), 16000)
    Traceback (most recent call last):
    ...
    speechbrain_cffma.metrics.signals.MetricError: PESQ: the lengths differ by 1000 samples, more than a frame of 480
    """
    names = "the clean signal", "the signal"
    signals = [
        _samples(metric, name, samples)
        for name, samples in zip(names, (clean, enhanced), strict=True)
    ]
    frame = round(FRAME * sample_rate)
    difference = abs(len(signals[0]) - len(signals[1]))
    if difference > frame:
        raise MetricError(
            f"{metric}: the lengths differ by {difference} samples, more than a frame "
            f"of {frame}"
        )
    length = min(map(len, signals))
    return [
        _not_silent(metric, name, samples[:length])
        for name, samples in zip(names, signals, strict=True)
    ]


def single(metric, enhanced):
    """Check a signal that is scored without a clean reference.

    Arguments
    ---------
    metric : str
        Name of the metric, for the messages.
    enhanced : np.ndarray
        Samples [S], full scale 1, or signed integers.

    Returns
    -------
    np.ndarray
        Samples [S]; floats stay as they are, integers are divided by their full scale.

    Raises
    ------
    MetricError
        If it has more than one channel, is silent or not finite.

    Example
    -------
    >>> single("DNSMOS", np.array([0, 16384], dtype=np.int16)).tolist()
    [0.0, 0.5]
    """
    return _not_silent(metric, "the signal", _samples(metric, "the signal", enhanced))


def _not_silent(metric, name, samples):
    if not np.isfinite(samples).all():
        raise MetricError(f"{metric}: {name} holds NaN or Inf")
    if np.abs(samples).max(initial=0) < SILENCE:
        raise MetricError(f"{metric}: {name} is silent")
    return samples


def _samples(metric, name, samples):
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise MetricError(f"{metric}: {name} has the shape {samples.shape}, not [S]")
    if samples.dtype.kind == "i":
        return samples / (np.iinfo(samples.dtype).max + 1)
    if samples.dtype.kind != "f":
        raise MetricError(f"{metric}: {name} holds {samples.dtype}, not samples")
    return samples.astype(np.float32) if samples.dtype == np.float16 else samples
