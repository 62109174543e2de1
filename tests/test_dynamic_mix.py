"""The recipe DynamicMix: splits, fixed pairs, and folders of one's own."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.paths import ROOT
from recipes.DynamicMix import prepare
from recipes.DynamicMix.prepare import make_small_wavlm, prepare_dynamic_mix
from speechbrain_cffma import audio
from speechbrain_cffma.data.datasets import RecordedPairs, TrainingCrops
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.data.mixing import DynamicMixer, reverberate, rms
from speechbrain_cffma.data.noises import TEST_KINDS
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.training.experiment import load_experiment, read_experiment

pytestmark = pytest.mark.slow

BUNDLED = Path(prepare.__file__).parent / "speech"
SPEAKERS = ("en", "it", "ru")
FILES_A_SPEAKER = 8
#: Quick: few pairs, one process.
QUICK = {
    "test_speakers": ["ru"],
    "test_noise_folder": None,
    "held_out_share": 0.2,
    "n_valid": 4,
    "n_test": 16,
    "n_jobs": 1,
}


#: The first pairs that version 0.1.0 prepared of these, with some samples.
PAIRS = {
    "valid": [
        ("000_it-forhelp", 0.27072, 0.17038, -0.04559),
        ("001_en-confbridge-conf-end", 0.02917, 0.01392, 0.00898),
        ("002_en-confbridge-unmuted", -0.12607, -0.10321, -0.1019),
    ],
    "test": [
        ("000_ru-dir-welcome", 0.11633, 0.09933, -0.13223),
        ("001_ru-confbridge-dec-talk-vol-out", -0.03409, -0.01553, -0.08514),
        ("002_ru-conf-now-unmuted", 0.26172, 0.05728, 0.0383),
    ],
}


@pytest.fixture(scope="module")
def speech_folder(tmp_path_factory):
    """A few short files of three speakers."""
    folder = tmp_path_factory.mktemp("speech")
    for speaker in SPEAKERS:
        (folder / speaker).mkdir()
        paths = sorted((BUNDLED / speaker).iterdir(), key=lambda p: p.stat().st_size)
        for path in paths[10 : 10 + FILES_A_SPEAKER]:
            shutil.copy(path, folder / speaker)
    return folder


@pytest.fixture(scope="module")
def prepared(speech_folder, tmp_path_factory):
    """A prepared folder; leave it as it is."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare_dynamic_mix(speech_folder, folder, **QUICK)
    return folder


def rows(folder, name):
    return read_manifest(folder / f"{name}.csv")


def utterances(folder, name):
    """The names of the speech files that a split is made of."""
    if name == "train":
        return {row["ID"].replace("/", "-") for row in rows(folder, name)}
    return {row["ID"].partition("_")[2] for row in rows(folder, name)}


def contents(folder):
    """The samples in the files of a folder, by their relative path."""
    return {
        path.relative_to(folder): audio.read(path).tobytes()
        for path in folder.rglob("*.wav")
    }


def write_noise(path, seconds=2.0, seed=0, sample_rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, int(seconds * sample_rate))
    soundfile.write(path, samples, sample_rate)
    return samples


def write_room(path):
    rir = np.zeros(4000)
    rir[[100, 1700]] = 0.8, 0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, rir, 16000, "FLOAT")


class TestSplits:
    def test_test_speakers_are_in_the_test_alone(self, prepared):
        speakers = {
            name: {row["speaker"] for row in rows(prepared, name)}
            for name in ("train", "valid", "test")
        }
        assert speakers["test"] == {"ru"}
        assert speakers["train"] == {"en", "it"}
        assert speakers["valid"] <= {"en", "it"}

    @pytest.mark.parametrize("test_speakers", [["ru"], []], ids=["speakers", "share"])
    def test_no_file_is_in_two_of_them(self, speech_folder, tmp_path, test_speakers):
        arguments = {**QUICK, "test_speakers": test_speakers, "n_valid": 12}
        prepare_dynamic_mix(speech_folder, tmp_path, **arguments)
        train, valid, test = (
            utterances(tmp_path, name) for name in ("train", "valid", "test")
        )
        assert not train & valid
        assert not train & test
        assert not valid & test
        assert len(train | valid | test) == len(SPEAKERS) * FILES_A_SPEAKER

    def test_files_are_held_out_by_their_share(self, prepared):
        rest = 2 * FILES_A_SPEAKER
        assert len(rows(prepared, "train")) == rest - round(0.2 * rest)

    def test_several_speakers_can_be_held_out(self, speech_folder, tmp_path):
        arguments = {**QUICK, "test_speakers": ["it", "ru"]}
        prepare_dynamic_mix(speech_folder, tmp_path, **arguments)
        assert {row["speaker"] for row in rows(tmp_path, "test")} == {"it", "ru"}
        assert {row["speaker"] for row in rows(tmp_path, "train")} == {"en"}

    @pytest.mark.parametrize(
        ("given", "speaker"), [("ru", "ru"), ([1272], "1272")], ids=["text", "number"]
    )
    def test_a_speaker_may_be_given_as_yaml_reads_it(
        self, speech_folder, tmp_path, given, speaker
    ):
        shutil.copytree(speech_folder, tmp_path / "speech")
        if speaker != "ru":
            (tmp_path / "speech" / "ru").rename(tmp_path / "speech" / speaker)
        arguments = {**QUICK, "test_speakers": given}
        prepare_dynamic_mix(tmp_path / "speech", tmp_path / "out", **arguments)
        assert {row["speaker"] for row in rows(tmp_path / "out", "test")} == {speaker}

    @pytest.mark.parametrize("test_speakers", [None, []])
    def test_speech_without_subfolders_is_split_by_files(
        self, speech_folder, tmp_path, test_speakers
    ):
        arguments = {**QUICK, "test_speakers": test_speakers}
        prepare_dynamic_mix(speech_folder / "en", tmp_path, **arguments)
        assert len(rows(tmp_path, "train")) == FILES_A_SPEAKER - 2 * 2
        assert {row["speaker"] for row in rows(tmp_path, "test")} == {""}


class TestFixedPairs:
    def test_there_are_as_many_as_asked_for(self, prepared):
        assert len(rows(prepared, "valid")) == 4
        assert len(rows(prepared, "test")) == 16

    @pytest.mark.parametrize("name", ["valid", "test"])
    def test_their_signal_to_noise_ratio_is_that_of_the_manifest(self, prepared, name):
        for row in rows(prepared, name):
            noisy, clean = audio.read(row["noisy_wav"]), audio.read(row["clean_wav"])
            measured = 20 * np.log10(rms(clean) / rms(noisy - clean))
            assert measured == pytest.approx(row["snr"], abs=0.1)

    def test_every_test_noise_comes_at_every_signal_to_noise_ratio(self, prepared):
        conditions = {(row["noise"], row["snr"]) for row in rows(prepared, "test")}
        assert conditions == {
            (kind.__name__, snr) for kind in TEST_KINDS for snr in (0, 5, 10, 15)
        }

    def test_the_clean_side_is_the_speech_itself(self, prepared, speech_folder):
        for row in rows(prepared, "test"):
            name = row["ID"].partition("-")[2]
            source = audio.read(speech_folder / "ru" / f"{name}.opus")
            np.testing.assert_allclose(audio.read(row["clean_wav"]), source, atol=1e-4)
            assert row["duration"] == pytest.approx(len(source) / 16000)

    def test_the_same_seed_gives_the_same_bits(self, prepared, speech_folder, tmp_path):
        prepare_dynamic_mix(speech_folder, tmp_path, **QUICK)
        assert contents(tmp_path) == contents(prepared)

    def test_the_pairs_of_0_1_0_stay_the_same(self, prepared):
        for split, expected in PAIRS.items():
            for row, (name, *samples) in zip(
                rows(prepared, split), expected, strict=False
            ):
                assert row["ID"] == name
                noisy = audio.read(row["noisy_wav"])[4000::4000][:3]
                np.testing.assert_allclose(noisy, samples, atol=1e-4)

    def test_another_seed_gives_other_pairs(self, prepared, speech_folder, tmp_path):
        prepare_dynamic_mix(speech_folder, tmp_path, **QUICK, seed=1)
        assert utterances(tmp_path, "train") != utterances(prepared, "train")
        assert contents(tmp_path / "test") != contents(prepared / "test")


class TestRecordings:
    @pytest.fixture
    def noise_folder(self, tmp_path):
        """Two recordings, one in a subfolder at 8 kHz."""
        write_noise(tmp_path / "noise" / "fan.wav")
        write_noise(tmp_path / "noise" / "street" / "car.wav", sample_rate=8000)
        return tmp_path / "noise"

    def test_noises_and_rooms_of_one_s_own_are_listed_for_training(
        self, speech_folder, noise_folder, tmp_path
    ):
        write_room(tmp_path / "rir" / "room.wav")
        folder = tmp_path / "out"
        prepare_dynamic_mix(
            speech_folder, folder, noise_folder, tmp_path / "rir", **QUICK
        )
        noises, rirs = rows(folder, "noise"), rows(folder, "rir")
        assert [(row["noise"], row["duration"]) for row in noises] == [
            ("fan", 2.0),
            ("street/car", 2.0),
        ]
        assert [row["duration"] for row in rirs] == [0.25]
        assert all(
            soundfile.info(row["noise_wav"]).samplerate == 16000 for row in noises
        )

    def test_without_them_their_lists_are_empty(self, prepared):
        assert rows(prepared, "noise") == rows(prepared, "rir") == []

    def test_half_of_the_fixed_pairs_are_in_rooms(self, speech_folder, tmp_path):
        write_room(tmp_path / "rir" / "room.wav")
        arguments = {**QUICK, "n_test": 40}
        prepare_dynamic_mix(
            speech_folder, tmp_path / "out", rir_folder=tmp_path / "rir", **arguments
        )
        echoing = []
        for row in rows(tmp_path / "out", "test"):
            noisy, clean = audio.read(row["noisy_wav"]), audio.read(row["clean_wav"])
            echo = clean[:-1600] @ (noisy - clean)[1600:] / (clean @ clean)
            echoing.append(echo > 0.3)  # 0.5 / 0.8 in the room
        assert 0.3 < np.mean(echoing) < 0.7

    def test_recordings_for_the_test_are_kept_from_training(
        self, speech_folder, noise_folder, tmp_path
    ):
        folder = tmp_path / "out"
        arguments = {**QUICK, "test_noise_folder": noise_folder, "n_test": 24}
        prepare_dynamic_mix(speech_folder, folder, **arguments)
        kinds = {row["noise"] for row in rows(folder, "test")}
        assert kinds == {"fan", "street/car", *(kind.__name__ for kind in TEST_KINDS)}
        assert rows(folder, "noise") == []

    def test_recordings_can_be_held_out_by_their_names(
        self, speech_folder, noise_folder, tmp_path
    ):
        folder = tmp_path / "out"
        arguments = {**QUICK, "test_noises": ["street/car"], "n_test": 8}
        prepare_dynamic_mix(speech_folder, folder, noise_folder, **arguments)
        assert {row["noise"] for row in rows(folder, "test")} == {"street/car"}
        assert [row["noise"] for row in rows(folder, "noise")] == ["fan"]

    def test_equal_names_in_training_and_test_are_not_confused(
        self, speech_folder, tmp_path
    ):
        for use, seconds in (("train", 1.0), ("test", 1.5)):
            write_noise(tmp_path / use / "fan.wav", seconds, sample_rate=8000)
        folder = tmp_path / "out"
        arguments = {**QUICK, "test_noise_folder": tmp_path / "test"}
        prepare_dynamic_mix(speech_folder, folder, tmp_path / "train", **arguments)
        (row,) = rows(folder, "noise")
        assert len(audio.read(row["noise_wav"])) == 16000

    def test_the_bundled_ambience_is_for_testing(self):
        assert len(audio.find_audio(prepare.AMBIENCE_FOLDER)) == 7

    def test_the_manifests_serve_training(self, speech_folder, noise_folder, tmp_path):
        folder = tmp_path / "out"
        prepare_dynamic_mix(speech_folder, folder, noise_folder, **QUICK)
        mixer = DynamicMixer(
            folder / "train.csv", folder / "noise.csv", folder / "rir.csv"
        )
        item = TrainingCrops(folder / "train.csv", mixer, 20480)[1, 0, 0]
        assert item["noisy"].shape == item["clean"].shape == (20480,)
        recorded = TrainingCrops(folder / "valid.csv", RecordedPairs(), 8000)
        assert recorded[1, 0, 0]["noisy"].shape == (8000,)


class TestSeveralFolders:
    def test_their_files_are_used_together(self, speech_folder, tmp_path):
        for part in ("speech", "noise", "rir"):
            (tmp_path / part).mkdir()
        shutil.copytree(speech_folder / "it", tmp_path / "speech" / "anna")
        write_noise(tmp_path / "noise" / "fan.wav")
        write_noise(tmp_path / "more" / "car.wav")
        write_room(tmp_path / "rir" / "hall.wav")
        write_room(tmp_path / "more_rooms" / "bath.wav")
        folder = tmp_path / "out"
        prepare_dynamic_mix(
            [speech_folder, tmp_path / "speech"],
            folder,
            [tmp_path / "noise", tmp_path / "more"],
            [tmp_path / "rir", tmp_path / "more_rooms"],
            **QUICK,
        )
        speakers = {row["speaker"] for row in rows(folder, "train")}
        assert speakers == {"en", "it", "anna"}
        assert [row["noise"] for row in rows(folder, "noise")] == ["fan", "car"]
        assert [row["ID"] for row in rows(folder, "rir")] == ["hall", "bath"]

    def test_they_can_be_given_on_the_command_line(self, monkeypatch):
        monkeypatch.chdir(ROOT)
        folders = {"speech_folder": "[a/b, c d/e]", "noise_folder": "[f, g]"}
        experiment = read_experiment("hparams/own_mix.yaml", folders)
        prepare = load_experiment(experiment, only="prepare")
        assert prepare.keywords["speech_folder"] == ["a/b", "c d/e"]
        assert prepare.keywords["noise_folder"] == ["f", "g"]

    def test_files_of_the_same_name_are_an_error_that_names_both(
        self, speech_folder, tmp_path
    ):
        for part in ("noise", "more"):
            write_noise(tmp_path / part / "fan.wav")
        both = [tmp_path / "noise", tmp_path / "more"]
        with pytest.raises(InputError, match="noise/fan.wav and .*more/fan.wav have"):
            prepare_dynamic_mix(speech_folder, tmp_path / "out", both, **QUICK)


class TestChosenForValidation:
    #: A small everything: see `chosen`.
    NOISES = ("bus", "cafe", "fan", "road", "tram")
    ARGUMENTS = {
        **QUICK,
        "test_noises": ["bus"],
        "valid_noises": ["cafe", "fan"],
        "left_out_noises": ["tram"],
        "simulated_rooms": 3,
        "simulated_share": 0.5,
        "rt60": (0.2, 0.25),
        "reverberant_share": 1.0,
        "n_valid": 16,
        "n_test": 4,
        "by_speaker": True,
    }

    @pytest.fixture(scope="class")
    def chosen(self, speech_folder, tmp_path_factory):
        """A folder prepared with speech, noises and rooms for validation alone."""
        folder = tmp_path_factory.mktemp("chosen")
        speech = shutil.copytree(speech_folder, folder / "speech")
        valid = speech / "valid"  # in the folder of the training speech
        for speaker, count in (("ann", 6), ("bob", 2)):
            (valid / speaker).mkdir(parents=True)
            for path in sorted((speech / "it").iterdir())[:count]:
                path.rename(valid / speaker / path.name)
        for noise in self.NOISES:
            write_noise(folder / "noise" / f"{noise}.wav")
        write_room(folder / "rir" / "hall.wav")
        write_room(folder / "valid_rir" / "bath.wav")
        prepare_dynamic_mix(
            speech,
            folder / "out",
            folder / "noise",
            folder / "rir",
            valid_speech_folder=valid,
            valid_rir_folder=folder / "valid_rir",
            **self.ARGUMENTS,
        )
        return folder / "out"

    def test_training_has_all_other_speech(self, chosen):
        speakers = [row["speaker"] for row in rows(chosen, "train")]
        assert sorted(speakers) == ["en"] * FILES_A_SPEAKER

    def test_its_speakers_take_turns(self, chosen):
        speakers = [row["speaker"] for row in rows(chosen, "valid")]
        assert all(
            sorted(two) == ["ann", "bob"] for two in np.reshape(speakers, (8, 2))
        )
        files = Counter(row["ID"].partition("_")[2] for row in rows(chosen, "valid"))
        assert sorted(files.values()) == [1, 1, 1, 1, 2, 2, 4, 4]

    def test_each_of_its_noises_comes_at_each_snr(self, chosen):
        conditions = Counter((r["noise"], r["snr"]) for r in rows(chosen, "valid"))
        assert len(conditions) == 8
        assert set(conditions.values()) == {2}
        assert {noise for noise, _ in conditions} == {"cafe", "fan"}

    def test_training_has_neither_its_noises_nor_those_left_out(self, chosen):
        assert [row["noise"] for row in rows(chosen, "noise")] == ["road"]
        assert {row["noise"] for row in rows(chosen, "test")} == {"bus"}

    def test_its_rooms_are_its_own(self, chosen):
        rir = audio.read(chosen.parent / "valid_rir" / "bath.wav")
        row = next(row for row in rows(chosen, "valid") if row["snr"] == 15)
        noisy, clean = audio.read(row["noisy_wav"]), audio.read(row["clean_wav"])
        wet = reverberate(clean, rir)
        snr = 20 * np.log10(rms(wet) / rms(noisy - wet))
        assert snr == pytest.approx(15, abs=0.1)

    def test_training_has_recorded_and_simulated_rooms(self, chosen):
        assert [row["ID"] for row in rows(chosen, "rir")] == ["hall"]
        assert len(rows(chosen, "simulated_rir")) == 3

    def test_a_noise_has_one_use(self, speech_folder, tmp_path):
        write_noise(tmp_path / "noise" / "fan.wav")
        both = {"test_noises": ["fan"], "valid_noises": "fan"}
        with pytest.raises(InputError, match="test_noises: .* fan .* another use"):
            prepare_dynamic_mix(
                speech_folder, tmp_path / "out", tmp_path / "noise", **QUICK, **both
            )


class TestSimulatedRooms:
    #: Few and small rooms, nothing else.
    ROOMS = {
        **QUICK,
        "simulated_rooms": 5,
        "rt60": (0.2, 0.25),
        "reverberant_share": 1.0,
        "with_noise": False,
    }

    @pytest.fixture(scope="class")
    def in_rooms(self, speech_folder, tmp_path_factory):
        """A folder prepared with simulated rooms and no noise; leave it as it is."""
        folder = tmp_path_factory.mktemp("in_rooms")
        prepare_dynamic_mix(speech_folder, folder, **self.ROOMS)
        return folder

    @staticmethod
    def rooms_of(folder, split, rooms):
        """The names of the rooms that each pair of a split is in, among some."""
        rirs = {path.name: audio.read(path) for path in audio.find_audio(rooms)}
        found = []
        for row in rows(folder, split):
            noisy, clean = audio.read(row["noisy_wav"]), audio.read(row["clean_wav"])
            found += [
                name
                for name, rir in rirs.items()
                if np.abs(reverberate(clean, rir) - noisy).max() < 2e-3
            ]
        return found

    def test_there_are_a_quarter_as_many_for_the_test(self, in_rooms):
        assert len(rows(in_rooms, "rir")) == 5
        assert len(audio.find_audio(in_rooms / "test_rooms")) == 2

    def test_pairs_are_in_rooms_of_their_split_alone(self, in_rooms):
        for split, own, other in (
            ("valid", "rooms", "test_rooms"),
            ("test", "test_rooms", "rooms"),
        ):
            found = self.rooms_of(in_rooms, split, in_rooms / own)
            assert len(found) == len(rows(in_rooms, split))
            assert len(set(found)) > 1
            assert self.rooms_of(in_rooms, split, in_rooms / other) == []

    def test_pairs_without_noise_have_no_snr(self, in_rooms):
        for split in ("valid", "test"):
            conditions = {(row["snr"], row["noise"]) for row in rows(in_rooms, split)}
            assert conditions == {(None, "")}

    def test_with_noise_their_speech_is_in_a_room_too(self, speech_folder, tmp_path):
        arguments = {**self.ROOMS, "with_noise": True}
        prepare_dynamic_mix(speech_folder, tmp_path, **arguments)
        assert {row["snr"] for row in rows(tmp_path, "test")} == {0, 5, 10, 15}
        for row in rows(tmp_path, "test"):
            if row["snr"] == 15:
                noisy, clean = (audio.read(row[f"{k}_wav"]) for k in ("noisy", "clean"))
                assert rms(noisy - clean) > 1.3 * rms(clean) * 10 ** (-15 / 20)

    def test_rooms_of_one_s_own_are_used_instead(self, speech_folder, tmp_path):
        for name in ("rir", "test_rir"):
            write_room(tmp_path / name / f"{name}.wav")
        folder = tmp_path / "out"
        prepare_dynamic_mix(
            speech_folder, folder, rir_folder=tmp_path / "rir", **self.ROOMS
        )
        assert [row["ID"] for row in rows(folder, "rir")] == ["rir"]
        found = self.rooms_of(folder, "test", tmp_path / "rir")
        assert set(found) == {"rir.wav"}
        assert not (folder / "rooms").exists()

    def test_test_rooms_of_one_s_own_are_for_the_test(self, speech_folder, tmp_path):
        write_room(tmp_path / "test_rir" / "mine.wav")
        folder = tmp_path / "out"
        arguments = {**self.ROOMS, "test_rir_folder": tmp_path / "test_rir"}
        prepare_dynamic_mix(speech_folder, folder, **arguments)
        found = self.rooms_of(folder, "test", tmp_path / "test_rir")
        assert len(found) == len(rows(folder, "test"))
        assert "mine" not in {row["ID"] for row in rows(folder, "rir")}

    def test_preparing_fewer_leaves_none_of_the_former(self, speech_folder, tmp_path):
        prepare_dynamic_mix(speech_folder, tmp_path, **self.ROOMS)
        arguments = {**self.ROOMS, "simulated_rooms": 2}
        prepare_dynamic_mix(speech_folder, tmp_path, **arguments)
        assert len(rows(tmp_path, "rir")) == 2


class TestFoldersWithinFolders:
    @pytest.mark.parametrize("kept", ["test_noise", "valid_speech"])
    def test_what_is_kept_from_training_may_lie_among_it(
        self, speech_folder, tmp_path, kept
    ):
        training = kept.partition("_")[2]
        parent = tmp_path / training
        if training == "speech":
            shutil.copytree(speech_folder, parent)
        write_noise(parent / "own.wav")
        write_noise(parent / "kept" / "other.wav")
        folders = {"speech_folder": speech_folder, f"{training}_folder": parent}
        folders[f"{kept}_folder"] = parent / "kept"
        arguments = {**QUICK, **folders}
        prepare_dynamic_mix(manifest_folder=tmp_path / "out", **arguments)
        split = {"speech": "train", "noise": "noise"}[training]
        names = {row["ID"] for row in rows(tmp_path / "out", split)}
        assert "own" in names
        assert not {name for name in names if "other" in name}


class TestAgain:
    def test_the_same_arguments_do_nothing(self, speech_folder, tmp_path):
        prepare_dynamic_mix(speech_folder, tmp_path, **QUICK)
        before = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*")}
        prepare_dynamic_mix(speech_folder, tmp_path, **QUICK)
        after = {path: os.stat(path).st_mtime_ns for path in tmp_path.rglob("*")}
        assert after == before

    def test_other_arguments_prepare_anew(self, speech_folder, tmp_path):
        prepare_dynamic_mix(speech_folder, tmp_path, **QUICK)
        prepare_dynamic_mix(speech_folder, tmp_path, **{**QUICK, "n_valid": 7})
        assert len(rows(tmp_path, "valid")) == 7

    def test_a_file_that_has_come_since_is_used(self, speech_folder, tmp_path):
        folder = shutil.copytree(speech_folder, tmp_path / "speech")
        prepare_dynamic_mix(folder, tmp_path / "out", **QUICK)
        some = next(folder.rglob("*.opus"))
        shutil.copy(some, some.with_name("new.opus"))
        prepare_dynamic_mix(folder, tmp_path / "out", **QUICK)
        names = set().union(
            *(
                utterances(tmp_path / "out", split)
                for split in ("train", "valid", "test")
            )
        )
        assert any(name.endswith("new") for name in names)

    def test_another_speech_folder_with_the_same_names_is_read_anew(
        self, speech_folder, tmp_path
    ):
        other = tmp_path / "other"
        shutil.copytree(speech_folder, other)
        for path in other.rglob("*.opus"):
            write_noise(path.with_suffix(".flac"), sample_rate=48000)
            path.unlink()
            os.utime(path.with_suffix(".flac"), (0, 0))
        prepare_dynamic_mix(speech_folder, tmp_path / "out", **QUICK)
        prepare_dynamic_mix(other, tmp_path / "out", **QUICK)
        lengths = {
            len(audio.read(row["clean_wav"])) for row in rows(tmp_path / "out", "train")
        }
        assert lengths == {32000}

    def test_a_preparation_that_failed_is_not_taken_for_done(
        self, prepared, speech_folder, tmp_path
    ):
        prepare_dynamic_mix(speech_folder, tmp_path, **QUICK)
        with pytest.raises(InputError):
            prepare_dynamic_mix(speech_folder, tmp_path, tmp_path / "none", **QUICK)
        (tmp_path / "train.csv").unlink()
        prepare_dynamic_mix(speech_folder, tmp_path, **QUICK)
        assert utterances(tmp_path, "train") == utterances(prepared, "train")


class TestChoice:
    """The files of the fixed pairs."""

    def chosen(self, count, by_speaker):
        rows = [
            {"speaker": name, "duration": length + index / 100}
            for name, length in (("anna", 5.0), ("ben", 1.0))
            for index in range(10)
        ]
        return prepare._choose(rows, count, by_speaker, seed=0)

    def test_speakers_take_turns_however_short_their_files_are(self):
        speakers = Counter(row["speaker"] for row in self.chosen(6, by_speaker=True))
        assert speakers == {"anna": 3, "ben": 3}

    def test_they_are_the_longer_half_of_each_speaker(self):
        lengths = {row["duration"] for row in self.chosen(10, by_speaker=True)}
        assert lengths == {n + i / 100 for n in (5, 1) for i in range(5, 10)}

    def test_otherwise_they_are_the_longer_half(self):
        speakers = {row["speaker"] for row in self.chosen(10, by_speaker=False)}
        assert speakers == {"anna"}

    def test_as_many_as_there_are_files_are_all(self):
        assert len({row["duration"] for row in self.chosen(20, by_speaker=True)}) == 20


class TestErrors:
    @staticmethod
    def message(*folders, **arguments):
        with pytest.raises(InputError) as caught:
            prepare_dynamic_mix(*folders, **{**QUICK, **arguments})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(
        "arguments", [{}, {"simulated_rooms": 2, "reverberant_share": 0.5}]
    )
    def test_pairs_without_noise_and_rooms_are_an_error(
        self, speech_folder, tmp_path, arguments
    ):
        text = self.message(speech_folder, tmp_path, with_noise=False, **arguments)
        assert "equal on both sides" in text

    def test_an_unknown_recording_is_named(self, speech_folder, tmp_path):
        write_noise(tmp_path / "noise" / "fan.wav")
        for key in ("test_noises", "valid_noises", "left_out_noises"):
            text = self.message(
                speech_folder,
                tmp_path / "out",
                noise_folder=tmp_path / "noise",
                **{key: ["train"]},
            )
            assert f"the noise folder has no recording train ({key})" in text

    def test_unknown_recordings_of_several_keys_are_one_message(
        self, speech_folder, tmp_path
    ):
        write_noise(tmp_path / "noise" / "fan.wav")
        text = self.message(
            speech_folder,
            tmp_path / "out",
            noise_folder=tmp_path / "noise",
            test_noises=["train", "bus"],
            valid_noises=["cafe"],
        )
        assert "no recording cafe (valid_noises); no bus, train (test_noises)" in text

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("rt60", (0.6, 0.2)),
            ("rt60", (5, 5)),
            ("rt60", None),
            ("n_valid", 0),
            ("n_test", 2.5),
            ("held_out_share", -0.1),
            ("simulated_rooms", -1),
            ("simulated_share", 2),
            ("reverberant_share", None),
        ],
    )
    def test_an_impossible_number_is_named(self, speech_folder, tmp_path, key, value):
        text = self.message(speech_folder, tmp_path, **{key: value})
        assert key in text
        assert "must" in text

    @pytest.mark.parametrize(
        ("training", "kept"),
        [
            ("speech", "valid_speech"),
            ("noise", "test_noise"),
            ("rir", "valid_rir"),
            ("rir", "test_rir"),
        ],
    )
    def test_a_file_for_training_and_for_another_use_is_named(
        self, speech_folder, tmp_path, training, kept
    ):
        parent = tmp_path / "parent"
        write = write_room if "rir" in kept else write_noise
        write(parent / "x" / "a.wav")
        folders = {"speech_folder": speech_folder, f"{training}_folder": parent / "x"}
        text = self.message(
            manifest_folder=tmp_path / "out", **{**folders, f"{kept}_folder": parent}
        )
        assert f"a.wav is in {kept}_folder and in {training}_folder" in text

    def test_an_unknown_speaker_is_named_beside_those_there_are(
        self, speech_folder, tmp_path
    ):
        text = self.message(speech_folder, tmp_path, test_speakers=["ru", "de"])
        assert "no subfolder de" in text
        assert "['en', 'it', 'ru']" in text

    @pytest.mark.parametrize(
        "argument",
        [
            "speech_folder",
            "noise_folder",
            "rir_folder",
            "test_noise_folder",
            "test_rir_folder",
        ],
    )
    def test_a_missing_folder_is_named(self, speech_folder, tmp_path, argument):
        folders = {"speech_folder": speech_folder, argument: tmp_path / "none"}
        text = self.message(manifest_folder=tmp_path / "out", **folders)
        assert f"{tmp_path / 'none'} does not exist" in text

    def test_a_folder_without_audio_is_named(self, tmp_path):
        (tmp_path / "empty").mkdir()
        text = self.message(tmp_path / "empty", tmp_path / "out")
        assert "empty has no audio files" in text

    @pytest.mark.parametrize(
        ("arguments", "split"),
        [
            ({"held_out_share": 0.01}, "valid"),
            ({"test_speakers": SPEAKERS}, "train"),
            ({"test_speakers": [], "held_out_share": 0.5}, "train"),
        ],
    )
    def test_too_few_files_are_an_error_that_names_the_split(
        self, speech_folder, tmp_path, arguments, split
    ):
        text = self.message(speech_folder, tmp_path, **arguments)
        assert "24 speech files are too few" in text
        assert f"none is left for {split}" in text

    def test_a_faulty_file_is_named(self, speech_folder, tmp_path):
        shutil.copytree(speech_folder, tmp_path / "speech")
        (tmp_path / "speech" / "en" / "broken.wav").write_text("not audio")
        text = self.message(tmp_path / "speech", tmp_path / "out")
        assert "1 of 25" in text
        assert "broken.wav: unreadable" in text


class TestSmallWavLM:
    SIZES = {"dim": 16, "n_layers": 1, "conv_dim": 8}

    @pytest.fixture
    def make(self, tmp_path):
        """`make(name, seed)`: the bytes of its weights."""

        def make(name, seed):
            make_small_wavlm(tmp_path / name, seed, **self.SIZES)
            return (tmp_path / name / "model.safetensors").read_bytes()

        return make

    def test_its_weights_depend_on_the_seed(self, make):
        assert make("a", 1) == make("b", 1) != make("c", 2)

    def test_it_is_kept_if_it_is_there(self, make):
        assert make("a", 1) == make("a", 2)


class TestResultsAmongTheData:
    def test_those_of_the_run_itself_are_not_trained_on(self, speech_folder, tmp_path):
        speech = shutil.copytree(speech_folder, tmp_path / "talks")
        out = speech / "results" / "manifests"
        counts = []
        for _ in range(3):
            prepare_dynamic_mix(speech, out, **QUICK)
            counts.append([len(rows(out, n)) for n in ("train", "valid", "test")])
            (out / "prepared.json").unlink()
        assert counts[0] == counts[1] == counts[2]

    def test_a_changed_file_is_prepared_anew(self, speech_folder, tmp_path):
        speech = shutil.copytree(speech_folder, tmp_path / "talks")
        prepare_dynamic_mix(speech, tmp_path / "out", **QUICK)
        row = rows(tmp_path / "out", "train")[0]
        (source,) = speech.glob(f"{row['ID']}.*")
        audio.write(source.with_suffix(".wav"), audio.read(source, n_samples=8000))
        source.unlink()
        prepare_dynamic_mix(speech, tmp_path / "out", **QUICK)
        found = {row["ID"]: row["duration"] for row in rows(tmp_path / "out", "train")}
        assert found[row["ID"]] == 0.5
