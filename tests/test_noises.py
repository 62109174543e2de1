"""Synthetic noises: sound ones, drawn from a seed, those of the test apart."""

import numpy as np
import pytest

from speechbrain_cffma.data import noises

KINDS = (*noises.TRAINING_KINDS, *noises.SPEECH_KINDS, *noises.TEST_KINDS)


@pytest.fixture
def crop(speech):
    """`crop(n_samples, rng)`: a random stretch of speech."""

    def crop(n_samples, rng):
        return np.resize(speech.numpy()[rng.integers(16000) :], n_samples)

    return crop


@pytest.fixture
def make(crop):
    """`make(kind, n_samples, seed)` calls any kind."""

    def make(kind, n_samples, seed=0):
        speech = (crop,) if kind in noises.SPEECH_KINDS else ()
        return kind(n_samples, np.random.default_rng(seed), *speech)

    return make


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
class TestEveryKind:
    @pytest.mark.parametrize("n_samples", [400, 401, 20480, 48000])
    def test_is_sound_for_every_seed(self, make, kind, n_samples):
        for seed in range(25):
            noise = make(kind, n_samples, seed)
            assert (noise.shape, noise.dtype) == ((n_samples,), np.float32)
            assert np.isfinite(noise).all()
            assert noise.std() > 1e-6

    def test_differs_by_seed(self, make, kind):
        assert not np.allclose(make(kind, 8000, seed=1), make(kind, 8000, seed=2))

    def test_is_the_same_for_the_same_seed(self, make, kind):
        np.testing.assert_array_equal(make(kind, 8000, 1), make(kind, 8000, 1))


def test_training_and_test_kinds_are_disjoint():
    training = {*noises.TRAINING_KINDS, *noises.SPEECH_KINDS}
    assert not training & set(noises.TEST_KINDS)


def test_training_noise_draws_every_kind_for_training(monkeypatch):
    plain = [lambda n, rng, i=i: i for i in range(2)]
    spoken = [lambda n, rng, speech, i=i: (i, speech) for i in range(2)]
    monkeypatch.setattr(noises, "TRAINING_KINDS", tuple(plain))
    monkeypatch.setattr(noises, "SPEECH_KINDS", tuple(spoken))
    rng = np.random.default_rng(0)
    drawn = {noises.training_noise(9, rng, "speech") for _ in range(60)}
    assert drawn == {0, 1, (0, "speech"), (1, "speech")}


def test_speech_shaped_noise_has_the_spectrum_of_the_given_speech(speech):
    stretch = speech.numpy()[:20480]
    noise = noises.speech_shaped(
        20480, np.random.default_rng(0), lambda n_samples, rng: stretch[:n_samples]
    )
    spectra = np.abs(np.fft.rfft(noise)), np.abs(np.fft.rfft(stretch))
    np.testing.assert_allclose(*(s[1:-1] for s in spectra), rtol=1e-3, atol=1e-3)
    assert abs(np.corrcoef(noise, stretch)[0, 1]) < 0.1


def test_babble_is_a_sum_of_several_crops_of_the_given_speech(speech):
    taken = []

    def crop(n_samples, rng):
        taken.append(np.roll(speech.numpy(), 4000 * len(taken))[:n_samples])
        return taken[-1]

    babble = noises.babble(20480, np.random.default_rng(0), crop)
    weights, *_ = np.linalg.lstsq(np.transpose(taken), babble, rcond=None)
    assert 4 <= len(taken) <= 9
    assert (weights > 0).all()
    np.testing.assert_allclose(np.transpose(taken) @ weights, babble, atol=1e-3)


def test_shape_spectrum_multiplies_by_the_gain_at_each_frequency():
    time = np.arange(16000) / 16000
    low, high = (np.sin(2 * np.pi * f * time) for f in (500, 3000))
    shaped = noises.shape_spectrum(low + high, lambda f: np.where(f < 1000, 2, 0.5))
    np.testing.assert_allclose(shaped, 2 * low + 0.5 * high, atol=1e-6)
