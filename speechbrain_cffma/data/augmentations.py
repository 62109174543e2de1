"""Augmentations of noise, which make many noises from one recording.

`augment` draws some of them by their probabilities. All share these arguments and
results:

Arguments
---------
samples : np.ndarray
    Samples [S].
rng : np.random.Generator
    Source of randomness.

Returns
-------
np.ndarray
    Samples [S], float32.

Authors
 * The speechbrain-cffma developers 2026
"""

import io
from collections.abc import Mapping

import numpy as np
import soundfile
from scipy.signal import resample_poly

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.data.noises import shape_spectrum, slow_curve
from speechbrain_cffma.errors import InputError

#: A speed is a multiple of 1 / SPEED_STEPS.
SPEED_STEPS = 20
#: Range of the speed of noise in such steps: 0.7 to 1.4.
NOISE_SPEEDS = (14, 28)
#: libsndfile's simple codecs, with 2 to 8 bits per sample.
CODECS = ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")


def speed(samples, rng):
    """Play noise faster or slower, which also changes its pitch.

    Returns
    -------
    np.ndarray
        [S]; faster noise is mirrored at its end to keep its length.

    Example
    -------
    >>> speed(np.ones(16000, np.float32), np.random.default_rng(0)).shape
    (16000,)
    """
    slowest, fastest = NOISE_SPEEDS
    steps = int(rng.integers(slowest, fastest + 1))
    changed = resample_poly(samples, SPEED_STEPS, steps).astype(np.float32)
    missing = max(0, len(samples) - len(changed))
    return np.pad(changed, (0, missing), mode="symmetric")[: len(samples)]


def reversal(samples, rng):
    """Play noise backwards.

    Example
    -------
    >>> reversal(np.array([1.0, 2.0, 3.0]), None).tolist()
    [3.0, 2.0, 1.0]
    """
    return samples[::-1]


def gain(samples, rng):
    """Vary the level, slowly like a passing car or fast like a rattle.

    Returns
    -------
    np.ndarray
        [S], attenuated by 0 to 24 dB, with 0.3 to 20 new levels per second.

    Example
    -------
    >>> changed = gain(np.ones(16000), np.random.default_rng(0))
    >>> bool(changed.min() >= 0.06), bool(changed.max() <= 1)
    (True, True)
    """
    rate = _log_uniform(rng, 0.3, 20)
    decibels = slow_curve(len(samples), rng, rate, -24, 0)
    return (samples * 10 ** (decibels / 20)).astype(np.float32)


def band(samples, rng):
    """Limit noise to a band, from nearly the full band to that of a telephone.

    Returns
    -------
    np.ndarray
        [S]; the band begins at 20 to 400 Hz and ends at 2.5 to 8 kHz, with slopes of 24 dB
        per octave.

    Example
    -------
    >>> hum = np.sin(2 * np.pi * 5 * np.arange(16000) / 16000)
    >>> bool(np.abs(band(hum, np.random.default_rng(0))).max() < 0.01)
    True
    """
    low, high = _log_uniform(rng, 20, 400), _log_uniform(rng, 2500, 8000)

    def butterworth(frequencies):
        frequencies = np.maximum(frequencies, 1e-3)
        below, above = (low / frequencies) ** 8, (frequencies / high) ** 8
        return 1 / np.sqrt((1 + below) * (1 + above))

    return shape_spectrum(samples, butterworth)


def clipping(samples, rng):
    """Clip noise as an overdriven microphone does.

    Returns
    -------
    np.ndarray
        [S], clipped at 0.1 to 0.7 of its peak.

    Example
    -------
    >>> clipped = clipping(np.array([0.0, 0.1, -1.0]), np.random.default_rng(0))
    >>> clipped[:2].tolist(), bool(-0.7 <= clipped[2] <= -0.1)
    ([0.0, 0.1], True)
    """
    ceiling = np.abs(samples).max() * rng.uniform(0.1, 0.7)
    return np.clip(samples, -ceiling, ceiling)


def codec(samples, rng):
    """Encode and decode noise by a simple codec: G.711, ADPCM or GSM 06.10.

    Example
    -------
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    >>> coded = codec(tone, np.random.default_rng(0))
    >>> bool(np.corrcoef(tone, coded)[0, 1] > 0.9), bool((coded == tone).all())
    (True, False)
    """
    subtype = CODECS[rng.integers(len(CODECS))]
    peak = max(np.abs(samples).max(), 1e-9)
    coded = io.BytesIO()
    soundfile.write(coded, 0.9 / peak * samples, SAMPLE_RATE, subtype, format="WAV")
    coded.seek(0)
    decoded, _ = soundfile.read(coded, frames=len(samples), dtype="float32")
    return decoded * np.float32(peak / 0.9)


#: All augmentations by name.
AUGMENTATIONS = {
    function.__name__: function
    for function in (speed, reversal, gain, band, clipping, codec)
}


def check_augmentations(probabilities):
    """Check the probabilities for `augment`.

    Arguments
    ---------
    probabilities : dict
        The probability of each augmentation by its name.

    Raises
    ------
    InputError
        If this is no dict, if a name is unknown, or if a probability is not from 0 to 1.

    Example
    -------
    >>> check_augmentations({"speed": 0.5})
    """
    if not isinstance(probabilities, Mapping):
        raise InputError(
            "augmentations of noise must be probabilities by name, such as "
            f"{{speed: 0.3}}, not {probabilities!r}"
        )
    for name, probability in probabilities.items():
        if name not in AUGMENTATIONS:
            raise InputError(
                f"there is no augmentation {name!r} of noise: choose from "
                + ", ".join(AUGMENTATIONS)
            )
        if not (isinstance(probability, (int, float)) and 0 <= probability <= 1):
            raise InputError(
                f"the augmentation {name} needs a probability from 0 to 1, not "
                f"{probability!r}"
            )


def augment(samples, probabilities, rng):
    """Apply randomly drawn augmentations, one after the other.

    Arguments
    ---------
    samples : np.ndarray
        Samples [S].
    probabilities : dict
        The probability of each augmentation by its name in `AUGMENTATIONS`, in the order in
        which they are applied.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    np.ndarray
        [S]

    Example
    -------
    >>> samples = np.array([1.0, 2.0, 3.0])
    >>> augment(samples, {"reversal": 1.0, "clipping": 0.0}, np.random.default_rng(0))
    array([3., 2., 1.])
    """
    for name, probability in probabilities.items():
        if rng.random() < probability:
            samples = AUGMENTATIONS[name](samples, rng)
    return samples


def _log_uniform(rng, low, high):
    return np.exp(rng.uniform(np.log(low), np.log(high)))
