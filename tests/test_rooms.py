"""Simulated rooms: what they are like, and that training and test never share one."""

import numpy as np
import pyroomacoustics
import pytest
import soundfile

from speechbrain_cffma import audio
from speechbrain_cffma.data.mixing import reverberate
from speechbrain_cffma.data.rooms import (
    TEST_LENGTHS,
    TRAIN_LENGTHS,
    simulate_room,
    write_rooms,
)
from speechbrain_cffma.errors import InputError

#: Quick to simulate.
SHORT = (0.2, 0.25)


def room(seed, **options):
    return simulate_room(np.random.default_rng(seed), **{"rt60": SHORT, **options})


def decay_time(rir):
    """RT60 in seconds, from the decay of the energy that is left from -5 to -25 dB."""
    left = np.cumsum(rir[::-1].astype(float) ** 2)[::-1]
    level = 10 * np.log10(left / left[0])
    return 3 * (np.argmax(level < -25) - np.argmax(level < -5)) / 16000


@pytest.fixture
def drawn(monkeypatch):
    """`drawn(lengths)`: size, microphone and speaker of 30 rooms, each [30, 3]."""
    seen = {"size": [], "microphone": [], "speaker": []}

    class Recorded(pyroomacoustics.ShoeBox):
        def __init__(self, size, **options):
            seen["size"].append(size)
            super().__init__(size, **options)

        def add_microphone(self, place):
            seen["microphone"].append(place)
            super().add_microphone(place)

        def add_source(self, place):
            seen["speaker"].append(place)
            super().add_source(place)

    monkeypatch.setattr(pyroomacoustics, "ShoeBox", Recorded)

    def draw(lengths):
        for places in seen.values():
            places.clear()
        for seed in range(30):
            room(seed, lengths=lengths)
        return tuple(np.array(places) for places in seen.values())

    return draw


class TestRoom:
    def test_the_direct_sound_is_the_first_and_largest_sample(self):
        for seed in range(10):
            rir = room(seed)
            assert rir[0] == 1 > np.abs(rir[1:]).max()

    def test_without_reflections_the_direct_sound_is_one_sample(self, monkeypatch):
        monkeypatch.setattr(
            pyroomacoustics, "inverse_sabine", lambda *_, **__: (1.0, 0)
        )
        for seed in range(5):
            assert np.abs(room(seed)[1:]).max() < 0.01

    def test_a_draw_whose_reflections_are_louder_is_drawn_again(self, monkeypatch):
        compute = pyroomacoustics.ShoeBox.compute_rir
        calls = []

        def louder_at_first(self):
            compute(self)
            if not calls:
                self.rir[0][0][1000] = 100.0
            calls.append(self)

        monkeypatch.setattr(pyroomacoustics.ShoeBox, "compute_rir", louder_at_first)
        assert np.abs(room(0)).max() == 1
        assert len(calls) == 2

    @pytest.mark.parametrize("rt60", [0.3, 0.4])
    def test_its_sound_decays_in_the_reverberation_time(self, rt60):
        rirs = [room(seed, rt60=(rt60, rt60)) for seed in range(5)]
        assert all(len(rir) == rt60 * 16000 for rir in rirs)
        assert np.median([decay_time(rir) for rir in rirs]) == pytest.approx(
            rt60, rel=0.2
        )

    def test_reverberation_times_are_drawn_between_their_bounds(self):
        times = [len(room(seed)) / 16000 for seed in range(20)]
        assert SHORT[0] <= min(times) < 0.21
        assert 0.24 < max(times) <= SHORT[1]

    def test_speech_in_it_is_aligned_with_dry_speech(self, speech):
        dry = speech.numpy()
        for seed in range(3):
            wet = reverberate(dry, room(seed))
            lags = np.correlate(wet[4000:20000], dry[4100:19900])
            assert np.abs(lags).argmax() == 100

    def test_speaker_and_microphone_are_apart_and_away_from_the_walls(self, drawn):
        size, microphone, speaker = drawn(TRAIN_LENGTHS)
        for place in (microphone, speaker):
            assert (place >= 0.4).all()
            assert (place <= size - 0.4).all()
        distance = np.linalg.norm(microphone - speaker, axis=1)
        step = 343 / 16000
        assert (0.5 - step <= distance).all()
        assert (distance <= 2 + step).all()
        assert np.ptp(distance) > 0.8

    def test_its_size_is_that_of_a_room(self, drawn):
        (length, width, height), *_ = (places.T for places in drawn(TRAIN_LENGTHS))
        assert (width >= 2.5).all()
        assert (width <= length).all()
        assert (height >= 2.5).all()
        assert (height <= 3.5).all()

    def test_no_room_for_the_test_has_the_size_of_one_for_training(self, drawn):
        lengths = [drawn(bounds)[0][:, 0] for bounds in (TRAIN_LENGTHS, TEST_LENGTHS)]
        metres = [set(np.floor(length).astype(int)) for length in lengths]
        assert metres == [{3, 5, 7}, {4, 6, 8}]

    def test_it_depends_on_the_generator_alone(self):
        first = room(3)
        pyroomacoustics.constants.set("num_threads", 4)
        np.random.seed(1)
        np.testing.assert_array_equal(room(3), first)
        assert len(room(4)) != len(first)

    def test_a_reverberation_time_out_of_reach_is_an_error(self):
        with pytest.raises(InputError, match="RT60 of 0.01 to 0.02 s"):
            room(0, rt60=(0.01, 0.02))


class TestFiles:
    def test_they_are_float_wav_at_16_khz(self, tmp_path):
        write_rooms(tmp_path, 3, rt60=SHORT, n_jobs=1)
        infos = [soundfile.info(path) for path in sorted(tmp_path.iterdir())]
        assert len(infos) == 3
        forms = {(i.format, i.subtype, i.samplerate, i.channels) for i in infos}
        assert forms == {("WAV", "FLOAT", 16000, 1)}

    def test_a_room_depends_on_the_seed_and_its_number_alone(self, tmp_path):
        for name, n_rooms, seed, n_jobs in (
            ("a", 2, 5, 1),
            ("b", 4, 5, 2),
            ("c", 2, 6, 1),
        ):
            write_rooms(tmp_path / name, n_rooms, rt60=SHORT, seed=seed, n_jobs=n_jobs)
        a, b, c = (audio.read(tmp_path / name / "001.wav").tolist() for name in "abc")
        assert a == b != c
        assert a != audio.read(tmp_path / "a" / "000.wav").tolist()
