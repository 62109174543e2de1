"""Mixing: the level of noise, rooms, and what a mixer draws from."""

import numpy as np
import pytest
import soundfile

from speechbrain_cffma import audio
from speechbrain_cffma.data import manifest, mixing
from speechbrain_cffma.data.mixing import (
    DynamicMixer,
    add_noise,
    at_level,
    random_equalizer,
    reduce_floor,
    reverberate,
    rms,
    silence_an_end,
)
from speechbrain_cffma.data.noises import shape_spectrum
from speechbrain_cffma.errors import InputError

N = 16000


@pytest.fixture
def write_manifest(tmp_path):
    """`write_manifest(key, signals, name)`: a manifest of WAV files of these signals."""

    def write(key, signals, name="given"):
        rows = []
        for i, samples in enumerate(signals):
            path = tmp_path / f"{key}_{name}_{i}.wav"
            soundfile.write(path, samples, 16000, "FLOAT")
            rows.append({"ID": i, "duration": len(samples) / 16000, key: path})
        manifest.write_manifest(tmp_path / f"{key}_{name}.csv", rows)
        return tmp_path / f"{key}_{name}.csv"

    return write


@pytest.fixture
def speech_csv(write_manifest, speech):
    """Two utterances of 1.5 s."""
    return write_manifest("clean_wav", np.split(speech.numpy(), 2))


@pytest.fixture
def tone_csv(write_manifest):
    """One recorded noise, a tone of 1 kHz."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(3 * N) / 16000)
    return write_manifest("noise_wav", [tone])


@pytest.fixture
def rir_csv(write_manifest):
    """One room: a direct sound after 20 ms and an echo 100 ms later."""
    rir = np.zeros(4000)
    rir[[320, 1920]] = -0.4, 0.2
    return write_manifest("rir_wav", [rir])


def mix(mixer, seed=0, n_samples=N):
    return mixer(mixer.speech[seed % 2], n_samples, np.random.default_rng(seed))


#: For some seeds, samples of the noisy and of the clean side as version 0.1.0 mixed them.
GOLDEN = [
    (
        1,
        [
            0.021504,
            0.019298,
            0.026724,
            0.010166,
            0.002539,
            0.000333,
            0.007759,
            -0.008799,
        ],
    ),
    (
        2,
        [
            -0.00377,
            -0.042119,
            0.026465,
            -0.02531,
            0.005452,
            -0.016182,
            -0.001611,
            -0.017196,
        ],
    ),
    (
        5,
        [
            -0.020539,
            -0.009627,
            -0.046131,
            -0.017591,
            -0.025037,
            0.000128,
            -0.048183,
            -0.018006,
        ],
    ),
]


def is_the_tone(samples):
    power = np.abs(np.fft.rfft(samples)) ** 2
    return power[990:1011].sum() > 0.99 * power.sum()  # bins of 1 Hz


class TestAddNoise:
    @pytest.mark.parametrize("snr", [-5.0, 0.0, 17.5])
    def test_the_ratio_is_exact(self, speech, snr):
        speech = speech.numpy()
        noise = np.random.default_rng(0).standard_normal(len(speech)) * 1e-3
        added = add_noise(speech, noise, snr).astype(np.float64) - speech
        assert 20 * np.log10(rms(speech) / rms(added)) == pytest.approx(snr, abs=1e-3)

    def test_the_noise_keeps_its_form(self, speech):
        speech = speech.numpy()
        noise = np.random.default_rng(0).standard_normal(len(speech))
        added = add_noise(speech, noise, 0) - speech
        assert np.corrcoef(added, noise)[0, 1] == pytest.approx(1, abs=1e-6)

    def test_noise_on_silence_stays_bounded(self):
        noise = np.random.default_rng(0).standard_normal(N)
        assert rms(add_noise(np.zeros(N), noise, snr=0)) == pytest.approx(1e-3)

    def test_silent_noise_leaves_the_speech(self, speech):
        mixture = add_noise(speech.numpy(), np.zeros(len(speech)), snr=0)
        np.testing.assert_array_equal(mixture, speech.numpy())

    def test_the_mixture_is_float32(self, speech):
        assert add_noise(speech.numpy(), np.ones(len(speech)), 0).dtype == np.float32


class TestReduceFloor:
    @pytest.fixture
    def recording(self, speech):
        """Speech with a pause of 0.5 s, in steady noise 35 dB below it."""
        speech = np.concatenate([speech.numpy(), np.zeros(N // 2)])
        noise = np.random.default_rng(0).standard_normal(len(speech))
        return add_noise(speech, noise, snr=35)

    def test_a_pause_gets_softer(self, recording):
        pause = slice(-N // 4, -1000)
        reduced = reduce_floor(recording, 20.0)
        assert rms(reduced[pause]) < 0.2 * rms(recording[pause])

    def test_the_limit_holds(self, recording):
        pause = slice(-N // 4, -1000)
        reduced = reduce_floor(recording, 6.0)
        assert rms(reduced[pause]) == pytest.approx(
            10 ** (-6 / 20) * rms(recording[pause]), rel=0.05
        )

    def test_speech_stays(self, recording):
        reduced = reduce_floor(recording, 20.0)
        assert rms(reduced - recording) < 10 ** (-30 / 20) * rms(recording)

    @pytest.mark.parametrize("n_samples", [1, 400, 513])
    def test_any_length_and_silence(self, n_samples):
        assert not reduce_floor(np.zeros(n_samples), 20.0).any()
        assert len(reduce_floor(np.ones(n_samples), 20.0)) == n_samples


class TestReverberate:
    @pytest.mark.parametrize("direct", [1.0, 0.3, -0.3])
    def test_the_direct_sound_keeps_its_place_and_level(self, speech, direct):
        speech = speech.numpy()
        rir = np.zeros(4000)
        rir[[250, 2250]] = direct, 0.5 * direct
        wet = reverberate(speech, rir)
        np.testing.assert_allclose(wet[:2000], speech[:2000], atol=1e-6)
        np.testing.assert_allclose(
            wet[2000:], speech[2000:] + 0.5 * speech[:-2000], atol=1e-6
        )

    def test_what_comes_before_the_direct_sound_is_left_out(self):
        rir = np.array([0.2, -0.3, 1.0])
        assert reverberate(np.array([1.0, 0, 0]), rir).tolist() == [1, 0, 0]

    @pytest.mark.parametrize("n_samples", [400, 16000])
    def test_the_length_and_type_stay(self, n_samples):
        wet = reverberate(np.ones(n_samples), np.exp(-np.arange(8000) / 1000))
        assert (wet.shape, wet.dtype) == ((n_samples,), np.float32)


class TestAtLevel:
    def test_the_noisy_side_has_it_and_the_clean_side_follows(self, speech):
        clean = speech.numpy()
        noisy, scaled = at_level(2 * clean, clean, -30.0)
        assert 20 * np.log10(rms(noisy)) == pytest.approx(-30, abs=1e-3)
        np.testing.assert_allclose(2 * scaled, noisy, atol=1e-6)

    def test_silence_stays_finite(self):
        noisy, clean = at_level(np.zeros(N), np.zeros(N), -30.0)
        assert rms(noisy) == rms(clean) == 0


class TestEqualizer:
    def test_the_gains_are_those_that_a_tone_gets(self):
        gain_at = random_equalizer(np.random.default_rng(0), spread=5.0)
        for frequency in (50, 440, 3000, 7900):
            tone = np.sin(2 * np.pi * frequency * np.arange(N) / 16000)
            gain = rms(shape_spectrum(tone, gain_at)) / rms(tone)
            assert gain == pytest.approx(gain_at(frequency), rel=1e-4)

    def test_nothing_is_delayed(self, speech):
        gain = random_equalizer(np.random.default_rng(0), spread=5.0)
        equalized = np.fft.rfft(shape_spectrum(speech.numpy(), gain))
        lags = np.fft.irfft(equalized * np.fft.rfft(speech.numpy()).conj())
        assert lags.argmax() == 0

    def test_the_spread_is_that_of_the_gains_in_db(self):
        rng = np.random.default_rng(0)
        at_1_khz = [random_equalizer(rng, 5.0)(1000) for _ in range(400)]
        assert np.std(20 * np.log10(at_1_khz)) == pytest.approx(5.0, rel=0.1)

    def test_a_spread_of_0_changes_nothing(self, speech):
        gain = random_equalizer(np.random.default_rng(0), 0.0)
        equalized = shape_spectrum(speech.numpy(), gain)
        np.testing.assert_allclose(equalized, speech.numpy(), atol=1e-6)


class TestDynamicMixer:
    def test_the_ratio_is_within_its_bounds(self, speech_csv, tone_csv):
        mixer = DynamicMixer(speech_csv, tone_csv, snr=(3.0, 9.0))
        ratios = []
        for seed in range(60):
            noisy, clean = mix(mixer, seed)
            ratios.append(20 * np.log10(rms(clean) / rms(noisy - clean)))
        assert 2.99 < min(ratios) < 4
        assert 8 < max(ratios) < 9.01

    def test_without_recorded_noise_all_is_synthetic(self, speech_csv, monkeypatch):
        made = np.ones(N, np.float32)
        monkeypatch.setattr(mixing, "training_noise", lambda n, rng, speech: made)
        mixer = DynamicMixer(speech_csv, synthetic_share=0.0)
        assert mixer.noise(N, np.random.default_rng(0)) is made

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_recorded_noise_is_used_beside_the_synthetic_share(
        self, speech_csv, tone_csv, monkeypatch, share
    ):
        made = np.ones(N, np.float32)
        monkeypatch.setattr(mixing, "training_noise", lambda n, rng, speech: made)
        mixer = DynamicMixer(speech_csv, tone_csv, synthetic_share=share)
        rng = np.random.default_rng(0)
        noises = [mixer.noise(N, rng) for _ in range(200)]
        assert np.mean([noise is made for noise in noises]) == pytest.approx(
            share, abs=0.08
        )
        assert all(is_the_tone(noise) for noise in noises if noise is not made)

    def test_the_recorded_noise_is_what_is_added(self, speech_csv, tone_csv):
        mixer = DynamicMixer(speech_csv, tone_csv, synthetic_share=0.0)
        noisy, clean = mix(mixer)
        assert is_the_tone(noisy - clean)

    def test_synthetic_noise_of_speech_takes_training_speech(
        self, speech_csv, monkeypatch
    ):
        mixer = DynamicMixer(speech_csv)
        read = []
        read_crop = mixing.read_crop
        monkeypatch.setattr(
            mixing,
            "read_crop",
            lambda path, *a: read.append(path) or read_crop(path, *a),
        )
        rng = np.random.default_rng(0)
        for _ in range(40):
            mixer.noise(N, rng)
        assert set(read) == {row["clean_wav"] for row in mixer.speech}

    def test_rooms_are_put_on_the_speech_and_the_target_stays_dry(
        self, speech_csv, rir_csv
    ):
        mixer = DynamicMixer(
            speech_csv, rir_manifest=rir_csv, snr=(90, 90), reverberant_share=1.0
        )
        noisy, clean = mix(mixer, seed=1)
        dry = DynamicMixer(speech_csv)
        np.testing.assert_array_equal(clean, mix(dry, seed=1)[1])
        echo = -0.5 * clean[:-1600]
        np.testing.assert_allclose(noisy[1600:], clean[1600:] + echo, atol=1e-4)

    def test_a_crop_holds_the_echo_of_what_was_said_before_it(
        self, speech_csv, rir_csv
    ):
        mixer = DynamicMixer(
            speech_csv, rir_manifest=rir_csv, with_noise=False, reverberant_share=1.0
        )
        whole = audio.read(mixer.speech[0]["clean_wav"])
        echo = np.r_[np.zeros(1600), -0.5 * whole[:-1600]]
        windows = np.lib.stride_tricks.sliding_window_view(whole, N)
        starts = set()
        for seed in range(0, 20, 2):
            noisy, clean = mix(mixer, seed)
            start = int((windows[:, :50] == clean[:50]).all(axis=1).argmax())
            expected = (whole + echo)[start : start + N]
            np.testing.assert_allclose(noisy, expected, atol=1e-5)
            starts.add(start)
        assert min(starts) < 1600 < max(starts)

    def test_without_noise_and_rooms_the_pair_is_the_clean_crop_twice(self, speech_csv):
        noisy, clean = mix(DynamicMixer(speech_csv, with_noise=False))
        np.testing.assert_array_equal(noisy, clean)

    def test_its_share_of_pairs_is_in_rooms(self, speech_csv, rir_csv):
        mixer = DynamicMixer(
            speech_csv, rir_manifest=rir_csv, snr=(90, 90), reverberant_share=0.25
        )
        pairs = [mix(mixer, seed) for seed in range(100)]
        wet = [rms(noisy - clean) > 1e-3 * rms(clean) for noisy, clean in pairs]
        assert np.mean(wet) == pytest.approx(0.25, abs=0.1)

    def test_a_generator_of_the_same_seed_gives_the_same_pair(
        self, speech_csv, tone_csv, rir_csv
    ):
        for seed in range(10):
            first, second = (
                mix(DynamicMixer(speech_csv, tone_csv, rir_csv), seed) for _ in range(2)
            )
            np.testing.assert_array_equal(first, second)

    def test_an_empty_manifest_is_like_none(self, speech_csv, tmp_path):
        manifest.write_manifest(tmp_path / "empty.csv", [])
        mixer = DynamicMixer(speech_csv, tmp_path / "empty.csv", tmp_path / "empty.csv")
        np.testing.assert_array_equal(mix(mixer), mix(DynamicMixer(speech_csv)))

    def test_a_share_of_pairs_is_clean_on_both_sides(self, speech_csv, rir_csv):
        mixer = DynamicMixer(speech_csv, rir_manifest=rir_csv, clean_share=0.25)
        pairs = [mix(mixer, seed, 4000) for seed in range(200)]
        same = [np.array_equal(noisy, clean) for noisy, clean in pairs]
        assert np.mean(same) == pytest.approx(0.25, abs=0.08)

    def test_a_share_of_pairs_is_noise_whose_target_is_silence(
        self, speech_csv, tone_csv
    ):
        mixer = DynamicMixer(
            speech_csv, tone_csv, synthetic_share=0.0, noise_share=0.25
        )
        pairs = [mix(mixer, seed) for seed in range(200)]
        silent = [noisy for noisy, clean in pairs if not clean.any()]
        assert len(silent) / 200 == pytest.approx(0.25, abs=0.08)
        assert all(is_the_tone(noisy) for noisy in silent)

    def test_a_share_of_pairs_is_silent_at_an_end_on_both_sides(self, speech_csv):
        plain = DynamicMixer(speech_csv)
        mixer = DynamicMixer(speech_csv, silence_share=0.25)
        starts, ends = [], []
        for seed in range(200):
            before, after = (np.stack(mix(m, seed, 20000)) for m in (plain, mixer))
            np.testing.assert_array_equal(after[:, 8000:12000], before[:, 8000:12000])
            sounding = np.flatnonzero(after.any(axis=0))
            starts.append(sounding[0])
            ends.append(20000 - 1 - sounding[-1])
        for silences in (starts, ends):
            assert np.mean(np.array(silences) >= 800) == pytest.approx(0.125, abs=0.06)
            assert max(silences) <= 8000

    def test_noise_alone_is_as_loud_as_beside_speech(self, speech_csv):
        noise_alone = DynamicMixer(speech_csv, snr=(5.0, 5.0), noise_share=1.0)
        speech_alone = DynamicMixer(speech_csv, with_noise=False)
        for seed in range(4):
            noise, _ = mix(noise_alone, seed)
            speech, _ = mix(speech_alone, seed)
            ratio = 20 * np.log10(rms(speech) / rms(noise))
            assert ratio == pytest.approx(5.0, abs=0.01)

    def test_levels_are_within_their_bounds(self, speech_csv):
        mixer = DynamicMixer(speech_csv, noise_share=0.2, level=(-50.0, -10.0))
        levels = [20 * np.log10(rms(mix(mixer, seed)[0])) for seed in range(60)]
        assert -50.1 < min(levels) < -45
        assert -15 < max(levels) < -9.9

    @pytest.mark.parametrize("speed", [0.9, 1.15])
    def test_the_speed_moves_pitch_and_band(self, write_manifest, speed):
        tone = np.sin(2 * np.pi * 1000 * np.arange(3 * N) / 16000)
        speech_csv = write_manifest("clean_wav", [tone, tone])
        mixer = DynamicMixer(speech_csv, with_noise=False, speed=(speed, speed))
        _, clean = mix(mixer)
        assert len(clean) == N
        peak = np.abs(np.fft.rfft(clean)).argmax() * 16000 / N
        assert peak == pytest.approx(1000 * speed, abs=2)

    def test_at_another_speed_both_sides_keep_together(self, speech_csv, rir_csv):
        mixer = DynamicMixer(
            speech_csv,
            rir_manifest=rir_csv,
            with_noise=False,
            reverberant_share=1.0,
            speed=(1.1, 1.1),
        )
        noisy, clean = mix(mixer)
        lags = np.fft.irfft(
            np.fft.rfft(noisy, 2 * N) * np.fft.rfft(clean, 2 * N).conj()
        )
        assert np.abs(lags).argmax() == 0

    def test_both_sides_are_equalized_alike(self, speech_csv):
        mixer = DynamicMixer(speech_csv, with_noise=False, equalizer=5.0)
        noisy, clean = mix(mixer)
        np.testing.assert_array_equal(noisy, clean)
        flat = mix(DynamicMixer(speech_csv, with_noise=False))[1]
        assert np.abs(noisy - flat).max() > 0.01

    def test_the_ratio_holds_behind_the_equalizers(self, speech_csv, tone_csv):
        mixer = DynamicMixer(
            speech_csv, tone_csv, synthetic_share=0.0, snr=(0, 0), equalizer=5.0
        )
        noisy, clean = mix(mixer)
        assert is_the_tone(noisy - clean)
        assert rms(clean) / rms(noisy - clean) == pytest.approx(1, abs=0.01)

    def test_a_share_of_rooms_is_simulated(self, speech_csv, rir_csv, write_manifest):
        simulated = np.zeros(4000)
        simulated[[0, 800]] = 1, 0.5
        mixer = DynamicMixer(
            speech_csv,
            rir_manifest=rir_csv,
            with_noise=False,
            reverberant_share=1.0,
            simulated_rir_manifest=write_manifest("rir_wav", [simulated], "simulated"),
            simulated_share=0.25,
        )
        echoes = []
        for seed in range(100):
            noisy, clean = mix(mixer, seed)
            echo = (noisy - clean)[1600:]
            echoes.append(np.abs(echo - 0.5 * clean[800:-800]).max() < 1e-4)
        assert np.mean(echoes) == pytest.approx(0.25, abs=0.1)

    def test_without_recorded_rooms_all_are_simulated(self, speech_csv, rir_csv):
        arguments = {"with_noise": False, "reverberant_share": 1.0}
        simulated = DynamicMixer(
            speech_csv, simulated_rir_manifest=rir_csv, **arguments
        )
        rooms = DynamicMixer(speech_csv, rir_manifest=rir_csv, **arguments)
        np.testing.assert_array_equal(mix(simulated), mix(rooms))

    def test_a_share_of_noise_is_two_at_once(self, speech_csv, write_manifest):
        frequencies = np.array([1000, 3000])
        time = np.arange(3 * N) / 16000
        noise_csv = write_manifest(
            "noise_wav", np.sin(2 * np.pi * np.outer(frequencies, time))
        )
        mixer = DynamicMixer(
            speech_csv, noise_csv, synthetic_share=0.0, second_noise_share=0.5
        )
        rng, ratios = np.random.default_rng(0), []
        for _ in range(200):
            levels = np.abs(np.fft.rfft(mixer.noise(N, rng)))[frequencies]
            ratios.append(20 * np.log10(levels[0] / levels[1]))
        both = [ratio for ratio in ratios if abs(ratio) < 10.1]
        # Half of the second ones are the same recording.
        assert len(both) / 200 == pytest.approx(0.25, abs=0.08)
        assert min(both) < -8
        assert max(both) > 8

    def test_a_share_of_noise_is_babble_of_the_speakers(self, speech_csv, tone_csv):
        mixer = DynamicMixer(speech_csv, tone_csv, synthetic_share=0, babble_share=0.25)
        rng = np.random.default_rng(0)
        babble = [not is_the_tone(mixer.noise(N, rng)) for _ in range(100)]
        assert np.mean(babble) == pytest.approx(0.25, abs=0.1)

    def test_voices_of_babble_are_drawn_by_speakers(self, speech, write_manifest):
        path = write_manifest("clean_wav", np.split(speech.numpy(), 6))
        rows = manifest.read_manifest(path)
        for row in rows:
            row["speaker"] = "ben" if row["ID"] == "5" else "anna"
        manifest.write_manifest(path, rows)
        ben = audio.read(rows[5]["clean_wav"])[0]
        rng, shares = np.random.default_rng(0), []
        for by_speaker in (False, True):
            mixer = DynamicMixer(path, by_speaker=by_speaker)
            first = [mixer._speech(8000, rng)[0] for _ in range(200)]
            shares.append(np.mean([sample == ben for sample in first]))
        assert shares == [pytest.approx(1 / 6, abs=0.06), pytest.approx(0.5, abs=0.08)]

    def test_the_noise_of_the_recording_is_taken_from_noisy_pairs_alone(
        self, write_manifest, speech
    ):
        noise = np.random.default_rng(0).standard_normal(speech.numel())
        recording = add_noise(speech.numpy(), noise, snr=35)
        path = write_manifest("clean_wav", [recording, recording])
        mixer, plain = (
            DynamicMixer(path, clean_share=0.5, floor_reduction=reduction)
            for reduction in (20.0, 0.0)
        )
        for seed in range(10):
            (noisy, clean), (same_noisy, original) = mix(mixer, seed), mix(plain, seed)
            np.testing.assert_array_equal(noisy, same_noisy)
            is_clean = np.array_equal(noisy, original)
            assert np.array_equal(clean, original) == is_clean

    def test_augmentations_change_the_noise_alone(self, speech_csv, tone_csv):
        arguments = {"synthetic_share": 0.0, "snr": (0, 0)}
        plain = DynamicMixer(speech_csv, tone_csv, **arguments)
        mixer = DynamicMixer(
            speech_csv, tone_csv, **arguments, noise_augmentations={"speed": 1.0}
        )
        noisy, clean = mix(mixer)
        np.testing.assert_array_equal(clean, mix(plain)[1])
        assert not is_the_tone(noisy - clean)

    def test_what_0_1_0_mixed_stays_the_same(self, speech_csv, tone_csv, rir_csv):
        mixer = DynamicMixer(
            speech_csv,
            tone_csv,
            rir_csv,
            clean_share=0.1,
            noise_share=0.1,
            speed=(0.8, 1.25),
            equalizer=5.0,
            level=(-40.0, -20.0),
        )
        for seed, expected in GOLDEN:
            noisy, clean = mix(mixer, seed)
            measured = [*noisy[2000::4000], *clean[2000::4000]]
            np.testing.assert_allclose(measured, expected, atol=2e-5)

    def test_the_model_card_tells_both_kinds_of_rooms(self, speech_csv, rir_csv):
        mixer = DynamicMixer(
            speech_csv,
            rir_manifest=rir_csv,
            with_noise=False,
            reverberant_share=0.25,
            simulated_rir_manifest=rir_csv,
            simulated_share=0.6,
        )
        assert mixer.describe() == (
            "mixed on the fly with 1 recorded and 1 simulated room impulse responses "
            "(share 0.25, of which 0.6 simulated), with the dry speech as target"
        )

    def test_the_model_card_tells_all_of_it(self, speech_csv):
        mixer = DynamicMixer(
            speech_csv,
            babble_share=0.05,
            second_noise_share=0.2,
            noise_augmentations={"speed": 0.3, "codec": 0.1},
            clean_share=0.06,
            noise_share=0.04,
            speed=(0.9, 1.15),
            equalizer=5.0,
            floor_reduction=20.0,
            level=(-45.0, -15.0),
        )
        assert mixer.describe() == (
            "mixed on the fly with synthetic noise at -5 to 20 dB; 6 % clean on both sides; "
            "4 % noise alone, with silence as target; among the noises 5 % babble of many voices, "
            "20 % two at once, 30 % speed, 10 % codec; speech at 0.9 to 1.15 of its speed; "
            "random equalizers of 5 dB for speech and for noise; the steady noise of targets reduced "
            "by up to 20 dB where the input has noise; at levels of -45 to -15 dB"
        )

    def test_without_noise_the_model_card_tells_of_none(self, speech_csv):
        mixer = DynamicMixer(
            speech_csv,
            with_noise=False,
            clean_share=0.1,
            noise_share=0.5,
            babble_share=0.5,
            equalizer=5.0,
            floor_reduction=20.0,
            level=(0.0, 0.0),
        )
        assert "noise" not in mixer.describe()
        assert mixer.describe().endswith("at a level of 0 dB")


class TestImpossibleKeys:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *((f"{name}_share", 2) for name in ("clean", "noise", "babble", "silence")),
            *((f"{name}_share", -1) for name in ("second_noise", "simulated")),
            *((f"{name}_share", None) for name in ("synthetic", "reverberant")),
            *(("snr", value) for value in ([20, -5], [10], None, ["a", "b"], 5)),
            *(("speed", value) for value in ([1.25, 0.8], [-1, 1], None, [0.01, 1])),
            *(("level", value) for value in (5, [-15, -45], [float("nan"), 0])),
            ("equalizer", -3),
            ("floor_reduction", -5),
        ],
    )
    def test_they_are_named(self, speech_csv, key, value):
        with pytest.raises(InputError, match=rf"\b{key} is .*must") as caught:
            DynamicMixer(speech_csv, **{key: value})
        assert "\n" not in str(caught.value)

    def test_shares_of_the_same_pairs_add_up_to_1_at_most(self, speech_csv):
        with pytest.raises(InputError, match="clean_share and noise_share"):
            DynamicMixer(speech_csv, clean_share=0.8, noise_share=0.8)


def test_half_of_a_short_pair_stays():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noisy, clean = silence_an_end(np.ones(4000), np.ones(4000), rng)
        assert noisy.sum() == clean.sum() >= 2000
