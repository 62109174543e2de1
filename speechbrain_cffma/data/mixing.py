"""Mix speech, noise and rooms.

Authors
 * The speechbrain-cffma developers 2026
"""

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.signal import fftconvolve, istft, resample_poly, stft

from speechbrain_cffma import audio
from speechbrain_cffma.data.augmentations import (
    SPEED_STEPS,
    augment,
    check_augmentations,
)
from speechbrain_cffma.data.datasets import group_by_speaker, random_start, read_crop
from speechbrain_cffma.data.keys import check_number, check_range, check_shares
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.data.noises import babble, shape_spectrum, training_noise
from speechbrain_cffma.errors import InputError

#: Range of the number of voices in babble of the training speech.
CROWD = (3, 30)
#: Range of the level of one noise relative to a second noise, in dB.
SECOND_NOISE = (-10.0, 10.0)
#: Share of the frames that are taken for pauses when the noise of a recording is estimated.
PAUSES = 0.1
#: Range of the length of digital silence at an end of a pair, in seconds.
SILENCE = (0.05, 0.5)
#: Limits of the keys snr, speed, equalizer and level.
SNRS = (-100, 100)
SPEEDS = (0.1, 10)
MAX_SPREAD = 40
LEVELS = (-100, 100)
#: Bins whose power is less than this multiple of the noise are attenuated fully.
FLOOR_FACTOR = 6.0


def rms(samples):
    """Root mean square.

    Arguments
    ---------
    samples : np.ndarray
        Samples [S].

    Returns
    -------
    float
        The RMS; 0 for silence.

    Example
    -------
    >>> rms(np.array([3.0, -3.0]))
    3.0
    """
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def add_noise(speech, noise, snr):
    """Add noise at a signal-to-noise ratio, measured over the whole length.

    Arguments
    ---------
    speech : np.ndarray
        Samples [S].
    noise : np.ndarray
        Samples [S] at any level.
    snr : float
        Signal-to-noise ratio in dB. Speech softer than -60 dB of full scale counts as
        -60 dB, so that silent speech does not remove the noise.

    Returns
    -------
    np.ndarray
        The mixture [S], float32.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> speech, noise = rng.standard_normal((2, 16000))
    >>> added = add_noise(speech, noise, snr=6.0) - speech
    >>> round(float(20 * np.log10(rms(speech) / rms(added))), 2)
    6.0
    """
    level = max(rms(speech), 1e-3) * 10 ** (-snr / 20)
    scaled = noise * (level / max(rms(noise), 1e-9))
    return (speech + scaled).astype(np.float32)


def reverberate(speech, rir):
    """Put speech into a room. Its direct sound keeps its time and level.

    Arguments
    ---------
    speech : np.ndarray
        Dry samples [S].
    rir : np.ndarray
        Room impulse response [R]. Its largest sample counts as the direct sound.

    Returns
    -------
    np.ndarray
        Reverberant samples [S], float32.

    Example
    -------
    >>> reverberate(np.array([1.0, 0, 0, 0]), np.array([0, 0.5, 0, 0.25])).tolist()
    [1.0, 0.0, 0.5, 0.0]
    """
    direct = int(np.abs(rir).argmax())
    wet = fftconvolve(speech, rir[direct:] / rir[direct])[: len(speech)]
    return np.round(wet, 12).astype(np.float32)


def random_equalizer(rng, spread):
    """A random smooth gain over frequency, which imitates other microphones and voices.

    The idea to train on filtered speech and noise is from https://arxiv.org/abs/1709.08243,
    Section IV.

    Arguments
    ---------
    rng : np.random.Generator
        Source of randomness.
    spread : float
        Standard deviation in dB of the gains, which are drawn independently for each octave.

    Returns
    -------
    callable
        Maps frequencies in Hz [K] to gains [K], for `noises.shape_spectrum`.

    Example
    -------
    >>> gain = random_equalizer(np.random.default_rng(0), spread=5.0)
    >>> gains = gain(np.arange(8001))
    >>> gains.shape, bool((gains > 0).all())
    ((8001,), True)
    >>> bool(np.abs(np.diff(20 * np.log10(gains[500:]))).max() < 0.1)
    True
    """
    octaves = 2.0 ** np.arange(-7, 1) * audio.SAMPLE_RATE / 2
    decibels = rng.normal(0, spread, len(octaves))

    def gain(frequencies):
        places = np.log2(np.maximum(frequencies, 1))
        return 10 ** (np.interp(places, np.log2(octaves), decibels) / 20)

    return gain


def at_level(noisy, clean, level):
    """Scale noisy and clean samples by the same gain, so that the noisy ones have a level.

    Arguments
    ---------
    noisy : np.ndarray
        Samples [S].
    clean : np.ndarray
        Samples [S].
    level : float
        RMS level of the noisy samples, in dB of full scale.

    Returns
    -------
    noisy : np.ndarray
        [S]
    clean : np.ndarray
        [S]

    Example
    -------
    >>> noisy, clean = at_level(np.array([0.5, -0.5]), np.array([0.5, 0.0]), -20.0)
    >>> noisy.round(2).tolist(), clean.round(2).tolist()
    ([0.1, -0.1], [0.1, 0.0])
    """
    gain = np.float32(10 ** (level / 20) / max(rms(noisy), 1e-4))
    return gain * noisy, gain * clean


def reduce_floor(speech, reduction):
    """Attenuate the steady noise of a speech recording, by spectral subtraction.

    The quietest tenth of the frames gives the noise of each frequency.

    Arguments
    ---------
    speech : np.ndarray
        Samples [S] at 16 kHz.
    reduction : float
        Largest attenuation in dB.

    Returns
    -------
    np.ndarray
        Samples [S], float32.

    Example
    -------
    >>> noise = np.random.default_rng(0).standard_normal(16000)
    >>> round(rms(reduce_floor(noise, reduction=20.0)) / rms(noise), 1)
    0.1
    """
    frames = {"nperseg": 512, "noverlap": 384}
    padded = np.pad(speech, (0, max(512 - len(speech), 0)))
    spectrum = stft(padded, **frames)[2]
    power = uniform_filter(np.abs(spectrum) ** 2, (3, 5))  # [F, T]
    floor = FLOOR_FACTOR * np.quantile(power, PAUSES, axis=1, keepdims=True)
    gain = 1 - floor / np.maximum(power, 1e-20)
    gain = np.sqrt(np.clip(gain, 10 ** (-reduction / 10), 1))
    return istft(gain * spectrum, **frames)[1][: len(speech)].astype(np.float32)


def silence_an_end(noisy, clean, rng):
    """Replace the start or the end of a pair by digital silence of 0.05 to 0.5 s.

    At most half of the pair becomes silent.

    Arguments
    ---------
    noisy : np.ndarray
        Samples [S] at 16 kHz.
    clean : np.ndarray
        Samples [S] at 16 kHz.
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    noisy : np.ndarray
        [S]
    clean : np.ndarray
        [S], silent in the same place.

    Example
    -------
    >>> noisy, clean = silence_an_end(np.ones(9600), np.ones(9600), np.random.default_rng(0))
    >>> bool((noisy == clean).all()), bool(800 <= (noisy == 0).sum() <= 8000)
    (True, True)
    """
    length = int(rng.uniform(*SILENCE) * audio.SAMPLE_RATE)
    length = min(length, len(noisy) // 2)
    silent = slice(length) if rng.random() < 0.5 else slice(-length, None)
    noisy, clean = noisy.copy(), clean.copy()
    noisy[silent] = clean[silent] = 0
    return noisy, clean


class DynamicMixer:
    """Training pairs mixed on the fly: `mixer(row, n_samples, rng) → (noisy, clean)`.

    Arguments
    ---------
    speech_manifest : str or Path
        Training speech, which is also the source of babble and speech-shaped noise.
    noise_manifest : str or Path or None
        Recorded noises; None or an empty manifest: only synthetic noise.
    rir_manifest : str or Path or None
        Room impulse responses; None or an empty manifest: no rooms.
    snr : (float, float)
        Range of the signal-to-noise ratio in dB (uniform).
    synthetic_share : float
        Share of synthetic noise if there is also recorded noise.
    reverberant_share : float
        Share of pairs whose noisy speech is put into a room. The target stays dry.
    with_noise : bool
        False for pairs without noise.
    clean_share : float
        Share of pairs whose input is the clean target, which the network must not change.
    noise_share : float
        Share of pairs with only noise, whose target is silence. The noise has the level
        that it would have with speech.
    speed : (float, float)
        Range of the speed of the speech, in steps of 0.05. It also changes the pitch.
    equalizer : float
        Spread in dB of random equalizers, see `random_equalizer`; each pair has one for
        the speech and one for the noise. 0 for none.
    level : (float, float) or None
        Range of the RMS level of the noisy samples, in dB of full scale; None: unchanged.
    simulated_rir_manifest : str or Path or None
        Simulated rooms, in addition to those of `rir_manifest`; None or an empty manifest
        for none.
    simulated_share : float
        Share of simulated rooms among all reverberant pairs, if there are rooms of both
        kinds.
    babble_share : float
        Share of noises that are babble of 3 to 30 voices of the training speech.
    second_noise_share : float
        Share of noises that are a sum of two, whose levels differ by at most 10 dB.
    noise_augmentations : dict or None
        Probability of each augmentation of the noise, see `augmentations.augment`.
    by_speaker : bool
        Whether the voices of babble and speech-shaped noise are drawn by speaker; False:
        by file.
    floor_reduction : float
        Reduction in dB of the steady noise of the clean target, see `reduce_floor`, in
        pairs with noise. Without it the network learns to leave the noise that the clean
        recordings have themselves. 0 for none.
    silence_share : float
        Share of pairs that begin or end with digital silence on both sides, as cut and
        gated recordings do, see `silence_an_end`. Without it digital silence occurs in clean
        recordings alone, and the network takes it for a sign that there is no noise.

    Raises
    ------
    InputError
        If a share is not from 0 to 1, if clean_share and noise_share add up to more than 1,
        or if another number or range is impossible.

    Example
    -------
    >>> from speechbrain_cffma.data.manifest import write_manifest
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> row = {"ID": "a", "duration": 3.0, "clean_wav": path}
    >>> write_manifest(path.with_suffix(".csv"), [row])
    >>> mixer = DynamicMixer(path.with_suffix(".csv"), snr=(0, 10))
    >>> noisy, clean = mixer(mixer.speech[0], 20480, np.random.default_rng(0))
    >>> noisy.shape, clean.shape
    ((20480,), (20480,))
    """

    def __init__(
        self,
        speech_manifest,
        noise_manifest=None,
        rir_manifest=None,
        snr=(-5.0, 20.0),
        synthetic_share=0.3,
        reverberant_share=0.5,
        with_noise=True,
        clean_share=0.0,
        noise_share=0.0,
        speed=(1.0, 1.0),
        equalizer=0.0,
        level=None,
        simulated_rir_manifest=None,
        simulated_share=0.0,
        babble_share=0.0,
        second_noise_share=0.0,
        noise_augmentations=None,
        by_speaker=False,
        floor_reduction=0.0,
        silence_share=0.0,
    ):
        check_shares(
            synthetic_share=synthetic_share,
            reverberant_share=reverberant_share,
            clean_share=clean_share,
            noise_share=noise_share,
            simulated_share=simulated_share,
            babble_share=babble_share,
            second_noise_share=second_noise_share,
            silence_share=silence_share,
        )
        if clean_share + noise_share > 1:
            raise InputError(
                f"clean_share and noise_share are {clean_share} and {noise_share}: together "
                "they must not exceed 1"
            )
        check_range("snr", snr, *SNRS)
        check_range("speed", speed, *SPEEDS)
        check_number("equalizer", equalizer, low=0, high=MAX_SPREAD)
        check_number("floor_reduction", floor_reduction, low=0)
        if level is not None:
            check_range("level", level, *LEVELS)
        self.noise_augmentations = noise_augmentations or {}
        check_augmentations(self.noise_augmentations)
        self.speech = read_manifest(speech_manifest)
        self.speakers = [range(len(self.speech))]
        if by_speaker:
            self.speakers = group_by_speaker(self.speech)
        self.noises, self.rirs, self.simulated_rirs = (
            read_manifest(path) if path else []
            for path in (noise_manifest, rir_manifest, simulated_rir_manifest)
        )
        if not self.rirs:
            self.rirs, self.simulated_rirs = self.simulated_rirs, []
        self.snr = snr
        self.synthetic_share = synthetic_share
        self.reverberant_share = reverberant_share
        self.with_noise = with_noise
        self.clean_share = clean_share
        self.noise_share = noise_share
        self.speed = [round(bound * SPEED_STEPS) for bound in speed]
        self.equalizer = equalizer
        self.level = level
        self.simulated_share = simulated_share
        self.babble_share = babble_share
        self.second_noise_share = second_noise_share
        self.floor_reduction = floor_reduction
        self.silence_share = silence_share

    def __call__(self, row, n_samples, rng):
        """Mix one pair.

        Arguments
        ---------
        row : dict
            Row of the speech manifest.
        n_samples : int
            Length of the crop in samples.
        rng : np.random.Generator
            Source of randomness.

        Returns
        -------
        noisy : np.ndarray
            [n_samples]
        clean : np.ndarray
            [n_samples]
        """
        noisy, clean = self._speech_pair(row, n_samples, rng)
        if self.equalizer:
            gain = random_equalizer(rng, self.equalizer)
            noisy, clean = (shape_spectrum(wav, gain) for wav in (noisy, clean))
        what = rng.random() if self.clean_share or self.noise_share else 1.0
        if what < self.clean_share:
            noisy = clean
        elif self.with_noise:
            speech, noise = noisy, self.noise(n_samples, rng)
            if self.equalizer:
                noise = shape_spectrum(noise, random_equalizer(rng, self.equalizer))
            noisy = add_noise(speech, noise, rng.uniform(*self.snr))
            if what < self.clean_share + self.noise_share:
                # The noise keeps the level that it has with speech.
                noisy, clean = noisy - speech, np.zeros_like(clean)
            elif self.floor_reduction:
                clean = reduce_floor(clean, self.floor_reduction)
        if self.silence_share and rng.random() < self.silence_share:
            noisy, clean = silence_an_end(noisy, clean, rng)
        if self.level is not None:
            noisy, clean = at_level(noisy, clean, rng.uniform(*self.level))
        return noisy, clean

    def _speech_pair(self, row, n_samples, rng):
        """The speech of a pair, with or without a room, and the dry speech."""
        slowest, fastest = self.speed
        steps = slowest
        if fastest > slowest:
            steps = int(rng.integers(slowest, fastest + 1))
        n_read = -(-n_samples * steps // SPEED_STEPS)
        start = random_start(row["duration"], n_read, rng)
        clean = read_crop(row["clean_wav"], start, n_read)
        noisy = clean
        if self.rirs and rng.random() < self.reverberant_share:
            rirs = self.rirs
            if self.simulated_rirs and rng.random() < self.simulated_share:
                rirs = self.simulated_rirs
            rir = audio.read(rirs[rng.integers(len(rirs))]["rir_wav"])
            # The room's tail of the speech before the crop reaches into the crop.
            before = min(start, len(rir))
            speech = read_crop(row["clean_wav"], start - before, before + n_read)
            noisy = reverberate(speech, rir)[before:]
        if steps == SPEED_STEPS:
            return noisy, clean
        both = resample_poly(np.stack([noisy, clean]), SPEED_STEPS, steps, axis=1)
        return tuple(both[:, :n_samples].astype(np.float32))

    def describe(self):
        """Describe for the model card how the pairs are made.

        Returns
        -------
        str
            Part of a sentence.

        Example
        -------
        >>> from speechbrain_cffma.data.manifest import write_manifest
        >>> path = getfixture("tmp_path") / "train.csv"
        >>> write_manifest(path, [])
        >>> DynamicMixer(path, snr=(0, 10)).describe()
        'mixed on the fly with synthetic noise at 0 to 10 dB'
        """
        parts = []
        if self.with_noise:
            noise = "synthetic noise"
            if self.noises:
                noise += f" (share {self.synthetic_share:g}) and {len(self.noises)} recordings of noise"
            low, high = self.snr
            parts.append(f"{noise} at {low:g} to {high:g} dB")
        if self.rirs:
            rooms, share = f"{len(self.rirs)}", f"{self.reverberant_share:g}"
            if self.simulated_rirs:
                rooms += f" recorded and {len(self.simulated_rirs)} simulated"
                share += f", of which {self.simulated_share:g} simulated"
            parts.append(
                f"{rooms} room impulse responses (share {share}), with the dry speech as target"
            )
        text = f"mixed on the fly with {', and '.join(parts)}"
        if self.clean_share:
            text += f"; {100 * self.clean_share:g} % clean on both sides"
        if self.with_noise:
            text += self._describe_noises()
        if self.speed != [SPEED_STEPS, SPEED_STEPS]:
            slowest, fastest = (steps / SPEED_STEPS for steps in self.speed)
            text += f"; speech at {slowest:g} to {fastest:g} of its speed"
        if self.equalizer:
            noise = " and for noise" if self.with_noise else ""
            text += f"; random equalizers of {self.equalizer:g} dB for speech{noise}"
        if self.floor_reduction and self.with_noise:
            text += (
                f"; the steady noise of targets reduced by up to {self.floor_reduction:g} dB "
                "where the input has noise"
            )
        if self.silence_share:
            text += f"; {100 * self.silence_share:g} % with digital silence at an end"
        if self.level is not None:
            low, high = self.level
            levels = f"levels of {low:g} to" if low < high else "a level of"
            text += f"; at {levels} {high:g} dB"
        return text

    def _describe_noises(self):
        text = ""
        if self.noise_share:
            text += (
                f"; {100 * self.noise_share:g} % noise alone, with silence as target"
            )
        noises = {
            "babble of many voices": self.babble_share,
            "two at once": self.second_noise_share,
            **self.noise_augmentations,
        }
        if any(noises.values()):
            shares = (f"{100 * p:g} % {name}" for name, p in noises.items() if p)
            text += f"; among the noises {', '.join(shares)}"
        return text

    def noise(self, n_samples, rng):
        """Draw recorded or synthetic noise, at any level.

        Arguments
        ---------
        n_samples : int
            Length of the noise in samples.
        rng : np.random.Generator
            Source of randomness.

        Returns
        -------
        np.ndarray
            [n_samples]
        """
        noise = self._one_noise(n_samples, rng)
        if self.second_noise_share and rng.random() < self.second_noise_share:
            second = self._one_noise(n_samples, rng)
            noise = add_noise(noise, second, rng.uniform(*SECOND_NOISE))
        return noise

    def _one_noise(self, n_samples, rng):
        return augment(self._source(n_samples, rng), self.noise_augmentations, rng)

    def _source(self, n_samples, rng):
        """Recorded or synthetic noise before augmentation."""
        if self.babble_share and rng.random() < self.babble_share:
            return babble(n_samples, rng, self._speech, CROWD)
        if not self.noises or rng.random() < self.synthetic_share:
            return training_noise(n_samples, rng, self._speech)
        row = self.noises[rng.integers(len(self.noises))]
        return self.crop(row, "noise_wav", n_samples, rng)

    def _speech(self, n_samples, rng):
        files = self.speakers[rng.integers(len(self.speakers))]
        row = self.speech[files[rng.integers(len(files))]]
        return self.crop(row, "clean_wav", n_samples, rng)

    @staticmethod
    def crop(row, key, n_samples, rng):
        """Read a random crop of a file; a short file is repeated.

        Arguments
        ---------
        row : dict
            Row of a manifest.
        key : str
            The column with the path of the file.
        n_samples : int
            Length of the crop in samples.
        rng : np.random.Generator
            Source of randomness.

        Returns
        -------
        np.ndarray
            [n_samples]
        """
        start = random_start(row["duration"], n_samples, rng)
        return read_crop(row[key], start, n_samples)
