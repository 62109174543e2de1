"""Synthetic noises: some kinds for training, other kinds only for testing.

All kinds share these arguments and results:

Arguments
---------
n_samples : int
    Number of samples S.
rng : np.random.Generator
    Source of randomness.
speech : callable
    Only for kinds made from speech: `speech(n_samples, rng)` returns a random crop of
    speech.

Returns
-------
np.ndarray
    Samples [S], float32, at any level; `mixing.add_noise` sets the level.

Authors
 * The speechbrain-cffma developers 2026
"""

import numpy as np
from scipy.signal import lfilter

from speechbrain_cffma.audio import SAMPLE_RATE


def shape_spectrum(samples, gain):
    """Filter samples by a gain for each frequency, without changing the phase.

    Arguments
    ---------
    samples : np.ndarray
        Samples [S].
    gain : callable
        Maps frequencies in Hz [K] to gains [K].

    Returns
    -------
    np.ndarray
        Samples [S], float32.

    Example
    -------
    >>> tone = np.sin(np.arange(16000) * 2 * np.pi * 1000 / 16000)
    >>> low_pass = shape_spectrum(tone, lambda frequency: frequency < 500)
    >>> bool(np.abs(low_pass).max() < 1e-3)
    True
    """
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum * gain(frequencies), len(samples)).astype(np.float32)


def slow_curve(n_samples, rng, points_per_second, low=0.0, high=1.0):
    """A random curve that changes slowly, for levels and pitches.

    Arguments
    ---------
    n_samples : int
        Samples S.
    rng : np.random.Generator
        Source of randomness.
    points_per_second : float
        Random values per second; the curve is linear between them.
    low : float
        Lowest value.
    high : float
        Highest value.

    Returns
    -------
    np.ndarray
        [S]

    Example
    -------
    >>> curve = slow_curve(100, np.random.default_rng(0), 4, low=2, high=3)
    >>> bool(curve.min() >= 2), bool(curve.max() <= 3)
    (True, True)
    """
    n_points = int(np.ceil(n_samples / SAMPLE_RATE * points_per_second)) + 2
    points = rng.uniform(low, high, n_points)
    places = np.arange(n_samples) * points_per_second / SAMPLE_RATE
    return np.interp(places, np.arange(n_points), points)


def coloured(n_samples, rng):
    """Noise with a random spectral slope and random bumps, steady or slowly changing.

    Example
    -------
    >>> coloured(16000, np.random.default_rng(0)).shape
    (16000,)
    """
    exponent = rng.uniform(-0.5, 1.2)  # amplitude 1/f^exponent: blue to beyond brown
    centres = rng.uniform(np.log(60), np.log(8000), 6)
    heights = rng.normal(0, 6, 6)  # dB

    def gain(frequencies):
        frequencies = np.maximum(frequencies, 40)
        distance = (np.log(frequencies)[:, None] - centres) / 0.5
        bumps = (heights * np.exp(-0.5 * distance**2)).sum(axis=1)
        return frequencies**-exponent * 10 ** (bumps / 20)

    noise = shape_spectrum(rng.standard_normal(n_samples), gain)
    if rng.random() < 0.5:
        noise = noise * slow_curve(n_samples, rng, rng.uniform(1, 10), 0.2, 1)
    return noise.astype(np.float32)


def hum(n_samples, rng):
    """Mains hum: harmonics of about 50 or 60 Hz over a little noise.

    Example
    -------
    >>> hum(16000, np.random.default_rng(0)).shape
    (16000,)
    """
    fundamental = rng.choice([50, 60]) * rng.uniform(0.99, 1.01)
    harmonics = np.arange(1, rng.integers(4, 40))
    levels = harmonics ** -rng.uniform(0.3, 1.5) * rng.uniform(0.1, 1, len(harmonics))
    phases = rng.uniform(0, 2 * np.pi, len(harmonics))
    time = np.arange(n_samples) / SAMPLE_RATE
    tone = np.zeros(n_samples)
    for harmonic, level, phase in zip(harmonics, levels, phases, strict=True):
        tone += level * np.sin(2 * np.pi * fundamental * harmonic * time + phase)
    return (tone + 0.02 * rng.standard_normal(n_samples)).astype(np.float32)


def clicks(n_samples, rng):
    """Clicks and knocks: decaying resonances at random moments.

    Example
    -------
    >>> clicks(16000, np.random.default_rng(0)).shape
    (16000,)
    """
    rate = rng.uniform(2, 25)  # clicks per second
    pulses = (rng.random(n_samples) < rate / SAMPLE_RATE) * rng.normal(0, 1, n_samples)
    pulses[rng.integers(n_samples)] += 1  # never silent
    frequency = np.exp(rng.uniform(np.log(200), np.log(6000)))
    radius = np.exp(-1 / (rng.uniform(0.0005, 0.02) * SAMPLE_RATE))
    angle = 2 * np.pi * frequency / SAMPLE_RATE
    ringing = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], pulses)
    ringing = ringing / np.abs(ringing).max()
    return (ringing + 0.003 * rng.standard_normal(n_samples)).astype(np.float32)


def speech_shaped(n_samples, rng, speech):
    """Noise with the long-term spectrum of a stretch of speech and random phases.

    Example
    -------
    >>> speech = getfixture("speech").numpy()
    >>> rng = np.random.default_rng(0)
    >>> speech_shaped(16000, rng, lambda n_samples, rng: speech[:n_samples]).shape
    (16000,)
    """
    magnitude = np.abs(np.fft.rfft(speech(n_samples, rng)))
    phases = rng.uniform(0, 2 * np.pi, len(magnitude))
    noise = np.fft.irfft(magnitude * np.exp(1j * phases), n_samples)
    return noise.astype(np.float32)


def babble(n_samples, rng, speech, voices=(4, 9)):
    """Babble: several people speak at once.

    Arguments
    ---------
    voices : (int, int)
        Smallest and largest number of voices.

    Example
    -------
    >>> speech = getfixture("speech").numpy()
    >>> rng = np.random.default_rng(0)
    >>> babble(16000, rng, lambda n_samples, rng: speech[:n_samples]).shape
    (16000,)
    """
    total = np.zeros(n_samples, np.float32)
    fewest, most = voices
    for _ in range(rng.integers(fewest, most + 1)):
        voice = speech(n_samples, rng)
        rms = np.sqrt(np.mean(voice**2)) + 1e-4
        total += voice / rms * np.float32(rng.uniform(0.3, 1))
    return total


def wind(n_samples, rng):
    """Gusts of wind: low-frequency noise whose level and cutoff change together.

    Example
    -------
    >>> wind(16000, np.random.default_rng(0)).shape
    (16000,)
    """
    white = rng.standard_normal(n_samples)
    calm = shape_spectrum(white, lambda f: 1 / (1 + (f / 120) ** 2))
    gust = shape_spectrum(white, lambda f: 1 / (1 + (f / 700) ** 2))
    strength = slow_curve(n_samples, rng, 1.5) ** 2
    return (calm * (1 - strength) + gust * strength).astype(np.float32)


def siren(n_samples, rng):
    """A siren: a tone with harmonics that sweeps up and down, over street noise.

    Example
    -------
    >>> siren(16000, np.random.default_rng(0)).shape
    (16000,)
    """
    time = np.arange(n_samples) / SAMPLE_RATE
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(0.3, 3) * time)
    pitch = rng.uniform(400, 600) + sweep * rng.uniform(300, 900)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tone = sum(np.sin(k * phase) / k**1.5 for k in range(1, 5))
    street = shape_spectrum(rng.standard_normal(n_samples), lambda f: 1 / (1 + f / 200))
    return (tone + 4 * street).astype(np.float32)


def rain(n_samples, rng):
    """Rain: thousands of drops per second, short bursts of high noise, over a soft rush.

    Example
    -------
    >>> rain(16000, np.random.default_rng(0)).shape
    (16000,)
    """
    hits = rng.random(n_samples) < rng.uniform(500, 3000) / SAMPLE_RATE
    drops = hits * rng.exponential(1, n_samples) * rng.choice([-1, 1], n_samples)
    low = rng.uniform(600, 1500)
    noise = drops + 0.1 * rng.standard_normal(n_samples)
    return shape_spectrum(noise, lambda f: (f / low) / (1 + (f / low) ** 2))


def engine(n_samples, rng):
    """A motor: firing pulses at a varying speed, filtered by a few body resonances.

    Example
    -------
    >>> engine(16000, np.random.default_rng(0)).shape
    (16000,)
    """
    pitch = slow_curve(n_samples, rng, 1, 25, 110)
    cycles = np.cumsum(pitch) / SAMPLE_RATE
    firing = np.diff(np.floor(cycles), prepend=0) * rng.uniform(0.6, 1, n_samples)
    sound = firing + 0.03 * rng.standard_normal(n_samples)
    resonances = rng.uniform(100, 2500, 4)

    def body(frequencies):
        peaks = 1 / (1 + ((frequencies[:, None] - resonances) / 90) ** 2)
        return 0.1 / (1 + frequencies / 500) + peaks.sum(axis=1)

    return shape_spectrum(sound, body)


#: Kinds for training, besides `speech_shaped` and `babble`.
TRAINING_KINDS = (coloured, hum, clicks)
#: Kinds for training that are made from speech.
SPEECH_KINDS = (speech_shaped, babble)
#: Kinds that training never uses.
TEST_KINDS = (wind, siren, rain, engine)


def training_noise(n_samples, rng, speech):
    """A noise of a random kind for training.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> training_noise(16000, rng, lambda n, rng: rng.standard_normal(n)).shape
    (16000,)
    """
    kinds = (*TRAINING_KINDS, *SPEECH_KINDS)
    kind = kinds[rng.integers(len(kinds))]
    if kind in SPEECH_KINDS:
        return kind(n_samples, rng, speech)
    return kind(n_samples, rng)
