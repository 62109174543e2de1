"""Augmentations of noise: sound ones, drawn by their probabilities."""

import numpy as np
import pytest

from speechbrain_cffma.data import augmentations
from speechbrain_cffma.data.augmentations import (
    AUGMENTATIONS,
    augment,
    check_augmentations,
)
from speechbrain_cffma.errors import InputError

N = 16000


def white(n_samples=N):
    return 0.1 * np.random.default_rng(9).standard_normal(n_samples).astype(np.float32)


def tone(frequency, n_samples=N):
    time = np.arange(n_samples) / 16000
    return np.sin(2 * np.pi * frequency * time).astype(np.float32)


def changed(name, samples, seed=0):
    return AUGMENTATIONS[name](samples, np.random.default_rng(seed))


@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestEveryAugmentation:
    @pytest.mark.parametrize("n_samples", [400, 401, 20480])
    def test_keeps_length_and_type_and_is_finite(self, name, n_samples):
        for seed in range(8):
            samples = changed(name, white(n_samples), seed)
            assert (samples.shape, samples.dtype) == ((n_samples,), np.float32)
            assert np.isfinite(samples).all()
            assert samples.std() > 1e-4

    def test_leaves_silence_silent(self, name):
        silence = np.zeros(N, np.float32)
        for seed in range(8):
            assert np.abs(changed(name, silence, seed)).max() < 1e-9

    def test_changes_noise_and_not_its_source(self, name):
        noise = white()
        assert not np.array_equal(changed(name, noise), white())
        np.testing.assert_array_equal(noise, white())

    def test_is_the_same_for_the_same_seed(self, name):
        same = (changed(name, white(), seed=3) for _ in range(2))
        np.testing.assert_array_equal(*same)


class TestEach:
    def test_speed_moves_the_pitch_by_0_7_to_1_4(self):
        pitches = []
        for seed in range(30):
            spectrum = np.abs(np.fft.rfft(changed("speed", tone(1000), seed)))
            pitches.append(spectrum.argmax())  # bins of 1 Hz
        assert 695 <= min(pitches) < 800
        assert 1250 < max(pitches) <= 1405

    def test_faster_noise_has_no_jump_where_its_end_is_mirrored(self):
        for seed in range(10):
            steps = np.abs(np.diff(changed("speed", tone(100), seed)))
            assert steps.max() < 2 * np.abs(np.diff(tone(100))).max()

    def test_gain_attenuates_by_at_most_24_db(self):
        gains = [changed("gain", np.ones(N), seed) for seed in range(10)]
        assert 10 ** (-24 / 20) <= np.min(gains) < 0.1
        assert 0.7 < np.max(gains) <= 1

    def test_gain_is_slow_or_fast(self):
        turns = []
        for seed in range(30):
            slope = np.sign(np.diff(changed("gain", np.ones(4 * N), seed)))
            turns.append(np.count_nonzero(np.diff(slope[slope != 0])))
        assert min(turns) <= 3
        assert max(turns) >= 30  # in 4 s

    def test_a_band_ends_between_a_telephone_s_and_the_whole(self):
        kept = []
        for frequency in (5, 1000, 7990):
            of_band = (changed("band", tone(frequency), seed) for seed in range(20))
            kept.append([samples.std() / tone(frequency).std() for samples in of_band])
        low, middle, high = kept
        assert max(low) < 0.01
        assert min(middle) > 0.95
        assert min(high) < 0.05
        assert max(high) > 0.5

    def test_clipping_keeps_what_is_below_its_ceiling(self):
        noise, clipped = white(), changed("clipping", white())
        ceiling = np.abs(clipped).max()
        assert 0.1 <= ceiling / np.abs(noise).max() <= 0.7
        np.testing.assert_array_equal(clipped, np.clip(noise, -ceiling, ceiling))

    @pytest.mark.parametrize("subtype", augmentations.CODECS)
    @pytest.mark.parametrize("level", [1e-3, 1.0, 30.0])
    def test_a_codec_keeps_place_and_level(self, subtype, level, monkeypatch):
        monkeypatch.setattr(augmentations, "CODECS", (subtype,))
        coded = changed("codec", level * tone(440))
        assert coded.std() == pytest.approx(level * tone(440).std(), rel=0.1)
        assert np.corrcoef(coded, tone(440))[0, 1] > 0.95


class TestAugment:
    def test_without_any_the_samples_are_the_same(self):
        noise = white()
        assert augment(noise, {}, np.random.default_rng(0)) is noise

    def test_each_comes_with_its_probability(self):
        rng, n_changed = np.random.default_rng(0), 0
        for _ in range(300):
            n_changed += augment(tone(1), {"reversal": 0.3}, rng)[0] != 0
        assert n_changed / 300 == pytest.approx(0.3, abs=0.08)

    def test_they_compose_in_the_order_given(self):
        both = augment(white(), {"band": 1, "clipping": 1.0}, np.random.default_rng(5))
        rng = np.random.default_rng(5)
        rng.random()
        expected = AUGMENTATIONS["band"](white(), rng)
        rng.random()
        np.testing.assert_array_equal(both, AUGMENTATIONS["clipping"](expected, rng))


class TestErrors:
    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ({"sped": 0.1}, "no augmentation 'sped'"),
            ({"speed": 1.5}, "speed needs a probability from 0 to 1, not 1.5"),
            ({"speed": "often"}, "not 'often'"),
            ([0.3], "probabilities by name"),
        ],
    )
    def test_what_can_t_be_drawn_is_named(self, given, text):
        with pytest.raises(InputError, match=text) as caught:
            check_augmentations(given)
        assert "\n" not in str(caught.value)
