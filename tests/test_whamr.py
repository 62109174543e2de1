"""Preparation of WHAMR! and training on it, on trees in exactly the form of its scripts."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.paths import ROOT
from helpers.whamr import NAMES, RATES, write_tree
from recipes.WHAMR import prepare
from speechbrain_cffma.audio import read
from speechbrain_cffma.data.datasets import RecordedPairs, TrainingCrops
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.data.mixing import rms
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.training.experiment import load_experiment, read_experiment

FOLDERS = [
    "noise",
    "s1_anechoic",
    "s2_anechoic",
    "s1_reverb",
    "s2_reverb",
    "mix_single_anechoic",
    "mix_clean_anechoic",
    "mix_both_anechoic",
    "mix_single_reverb",
    "mix_clean_reverb",
    "mix_both_reverb",
]
TASKS = {
    "denoise": ("mix_single_anechoic", "s1_anechoic"),
    "dereverb": ("s1_reverb", "s1_anechoic"),
    "joint": ("mix_single_reverb", "s1_anechoic"),
}


@pytest.fixture(scope="module")
def whole_tree(tmp_path_factory):
    """Leave it as it is."""
    return write_tree(tmp_path_factory.mktemp("whamr"))


@pytest.fixture
def tree(whole_tree, tmp_path):
    """A copy of the version min at 16 kHz."""
    part = Path("wav16k") / "min"
    shutil.copytree(whole_tree / part, tmp_path / "whamr" / part)
    return tmp_path / "whamr"


def prepared(folder, manifests, task="joint", **options):
    """Prepare; the manifests of train, valid and test as {ID: row}."""
    options = {"allow_subset": True, "n_jobs": 1, **options}
    prepare.prepare_whamr(folder, manifests, task, **options)
    return [
        {row["ID"]: row for row in read_manifest(manifests / f"{part}.csv")}
        for part in ("train", "valid", "test")
    ]


@pytest.fixture
def rows(tmp_path):
    """`rows(folder, ...)`: all rows of the manifests, as {ID: row}."""

    def make(folder, *args, **options):
        train, valid, test = prepared(folder, tmp_path / "manifests", *args, **options)
        return {**train, **valid, **test}

    return make


@pytest.fixture
def error_of(tmp_path):
    """`error_of(folder, ...)`: the InputError of preparing, which is one line."""

    def make(folder, *args, **options):
        with pytest.raises(InputError) as caught:
            prepared(folder, tmp_path / "manifests", *args, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return make


def remove(folder, *names):
    for name in names:
        (folder / f"{name}.wav").unlink()


# --- Manifests


def test_splits_are_those_of_the_data_set(tree, tmp_path):
    train, valid, test = prepared(tree, tmp_path / "manifests")
    assert list(train) == NAMES["tr"]
    assert list(valid) == NAMES["cv"]
    assert list(test) == NAMES["tt"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("version", ["min", "max"])
def test_each_task_has_its_two_folders(whole_tree, rows, task, version):
    noisy, clean = TASKS[task]
    for name, row in rows(whole_tree, task, version=version).items():
        (split,) = (split for split, names in NAMES.items() if name in names)
        top = whole_tree / "wav16k" / version / split
        assert row["noisy_wav"] == str(top / noisy / f"{name}.wav")
        assert row["clean_wav"] == str(top / clean / f"{name}.wav")


def test_duration_is_that_of_the_files(tree, rows):
    for row in rows(tree).values():
        assert soundfile.info(row["noisy_wav"]).duration == row["duration"]


def test_speaker_is_that_of_the_first_utterance(tree, rows):
    assert rows(tree)["440c020a_1.1_443o030b_-1.1"]["speaker"] == "440"


def test_snr_and_noise_are_unknown(tree, rows):
    assert {(r["snr"], r["noise"]) for r in rows(tree).values()} == {(None, "")}


def test_relative_data_folder_gives_absolute_paths(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    for part in prepared("whamr", Path("manifests")):
        assert all(Path(row["clean_wav"]).is_absolute() for row in part.values())


def test_second_run_does_nothing(tree, rows, monkeypatch):
    before = rows(tree)
    monkeypatch.delattr(prepare, "prepare_pairs")
    assert rows(tree) == before


def test_another_task_in_the_same_folder_prepares_anew(tree, rows):
    rows(tree, "joint")
    assert all("s1_reverb" in r["noisy_wav"] for r in rows(tree, "dereverb").values())


# --- 8 kHz


def test_files_at_8_khz_are_converted_to_16_khz_below_16k(whole_tree, rows, tmp_path):
    tree = tmp_path / "whamr"
    shutil.copytree(whole_tree / "wav8k", tree / "wav8k")
    for name, row in rows(tree, "denoise", sample_rate=8000, version="max").items():
        for side in ("noisy_wav", "clean_wav"):
            path = Path(row[side])
            info = soundfile.info(path)
            assert (info.samplerate, info.duration) == (16000, row["duration"])
            assert path.parents[2] == tree / "16k" / "wav8k" / "max"
            assert path.stem == name


def test_converted_files_have_the_band_of_their_sources(whole_tree, rows, tmp_path):
    tree = tmp_path / "whamr"
    shutil.copytree(whole_tree / "wav8k", tree / "wav8k")
    for name, row in rows(tree, "denoise", sample_rate=8000).items():
        source = next((whole_tree / "wav8k" / "min").rglob(f"s1_anechoic/{name}.wav"))
        expected, _ = soundfile.read(source)
        power = np.abs(np.fft.rfft(read(row["clean_wav"]))) ** 2
        middle = len(power) // 2
        assert power[int(1.02 * middle) :].sum() < 1e-4 * power.sum()
        difference = read(row["clean_wav"])[::2] - expected
        assert rms(difference) < 0.03 * rms(expected)


def test_copies_of_a_read_only_data_set_go_to_the_manifests(
    whole_tree, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for row in rows(whole_tree, sample_rate=8000).values():
        assert Path(row["noisy_wav"]).is_relative_to(tmp_path / "manifests" / "16k")


# --- Samples beyond full scale


@pytest.mark.parametrize("sample_rate", [16000, 8000])
def test_what_exceeds_full_scale_is_not_clipped(
    whole_tree, rows, tmp_path, sample_rate
):
    tree = tmp_path / "whamr"
    part = Path(RATES[sample_rate]) / "min"
    shutil.copytree(whole_tree / part, tree / part)
    name = NAMES["tt"][0]
    path = tree / part / "tt" / "mix_single_reverb" / f"{name}.wav"
    tone = 3 * np.sin(2 * np.pi * 440 / sample_rate * np.arange(8000))
    soundfile.write(path, tone, sample_rate, "FLOAT")
    clean = path.parents[1] / "s1_anechoic" / path.name
    soundfile.write(clean, 0.1 * tone, sample_rate, "FLOAT")
    row = rows(tree, sample_rate=sample_rate)[name]
    assert np.abs(read(row["noisy_wav"])).max() == pytest.approx(3, rel=0.01)
    noisy, _ = RecordedPairs()(row, 4000, np.random.default_rng(0))
    assert np.abs(noisy).max() == pytest.approx(3, rel=0.01)


def test_crops_are_the_same_stretch_of_both_sides(tree, rows, tmp_path):
    rows(tree, "denoise")
    crops = TrainingCrops(tmp_path / "manifests" / "train.csv", RecordedPairs(), 4000)
    for position in range(5):
        item = crops[1, position, position]
        noise = (item["noisy"] - item["clean"]).numpy()
        assert rms(noise) < 0.9 * rms(item["noisy"].numpy())


# --- Number of files


def test_the_published_number_is_needed_unless_told_otherwise(tree, error_of):
    message = error_of(tree, allow_subset=False)
    assert "the train set of WHAMR! has 20000 files" in message
    assert "tr/mix_single_reverb and s1_anechoic have 5" in message
    assert "--allow_subset" in message


def test_the_published_number_is_accepted(tree, rows, monkeypatch):
    monkeypatch.setattr(prepare, "N_PAIRS", {"train": 5, "valid": 2, "test": 2})
    assert len(rows(tree, allow_subset=False)) == 9


def test_files_that_only_other_folders_have_are_named(tree, error_of, monkeypatch):
    monkeypatch.setattr(prepare, "N_PAIRS", {"train": 5, "valid": 2, "test": 2})
    for side in TASKS["joint"]:
        remove(tree / "wav16k" / "min" / "cv" / side, NAMES["cv"][1])
    message = error_of(tree, allow_subset=False)
    assert "the valid set of WHAMR! has 2 files" in message
    assert f"have 1 and lack 1 files ({NAMES['cv'][1]})" in message


@pytest.mark.parametrize("side", TASKS["joint"])
def test_files_missing_on_one_side_are_named(tree, error_of, side):
    folder = tree / "wav16k" / "min" / "tt" / side
    remove(folder, NAMES["tt"][1])
    message = error_of(tree)
    assert f"{folder} lacks 1 files ({NAMES['tt'][1]})" in message


def test_files_missing_on_both_sides_are_named_for_each(tree, error_of):
    noisy, clean = (tree / "wav16k" / "min" / "tr" / side for side in TASKS["joint"])
    remove(noisy, NAMES["tr"][0])
    remove(clean, NAMES["tr"][1])
    message = error_of(tree)
    assert f"{noisy} lacks 1 files ({NAMES['tr'][0]})" in message
    assert f"{clean} lacks 1 files ({NAMES['tr'][1]})" in message


def test_many_names_are_abbreviated(tree, error_of):
    folder = tree / "wav16k" / "min" / "tr"
    for i in range(30):
        shutil.copy(
            folder / "s1_anechoic" / f"{NAMES['tr'][0]}.wav",
            folder / "s1_anechoic" / f"more{i:02d}.wav",
        )
    message = error_of(tree)
    assert "lacks 30 files (more00, more01, more02, more03, more04 and 25 more)" in (
        message
    )


# --- Wrong layout, wrong form


def test_the_expected_layout_is_shown(tree, error_of, caplog):
    shutil.rmtree(tree / "wav16k" / "min" / "cv" / "s1_reverb")
    message = error_of(tree, "dereverb")
    assert "missing or empty are wav16k/min/cv/s1_reverb." in message
    (shown,) = (r.getMessage() for r in caplog.records if r.levelno == logging.ERROR)
    lines = [line.split() for line in shown.splitlines()]
    assert ["wav16k/min/"] in lines
    assert [line for line in lines if line[0] in ("tr/", "cv/", "tt/")] == (
        [["tr/"], ["cv/"], ["tt/"]]
    )
    assert ["s1_reverb/", "20000", "WAV", "files"] in lines


def test_an_empty_folder_is_named(tree, error_of):
    shutil.rmtree(tree / "wav16k" / "min" / "tt" / "s1_anechoic")
    (tree / "wav16k" / "min" / "tt" / "s1_anechoic").mkdir()
    assert "missing or empty are wav16k/min/tt/s1_anechoic." in error_of(tree)


def test_a_missing_data_folder_is_named(tmp_path, error_of):
    message = error_of(tmp_path / "none")
    assert str(tmp_path / "none") in message
    assert "--data_folder" in message


def test_a_version_that_is_there_instead_is_named(tree, error_of):
    message = error_of(tree, version="max", sample_rate=8000)
    assert "wav16k/min (--sample_rate=16000 --version=min)" in message


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ({"task": "separate"}, "denoise, dereverb, joint"),
        ({"version": "mid"}, "min, max"),
        ({"sample_rate": 44100}, "16000, 8000"),
    ],
)
def test_an_unknown_option_is_named_beside_those_there_are(
    tree, error_of, option, known
):
    ((name, value),) = option.items()
    message = error_of(tree, **option)
    assert f"has no {name} {value!r}" in message
    assert known in message


def respell(folder, rate, n_channels):
    """Write a file of one split as if at another rate, or with other channels."""
    path = sorted(folder.glob("*.wav"))[0]
    samples = read(path)
    soundfile.write(path, np.stack([samples] * n_channels, axis=1), rate, "FLOAT")
    return path


@pytest.mark.parametrize(("rate", "n_channels"), [(16000, 2), (8000, 1)])
def test_files_of_another_form_are_named(tree, error_of, rate, n_channels):
    path = respell(tree / "wav16k" / "min" / "tr" / "s1_anechoic", rate, n_channels)
    message = error_of(tree)
    assert f"{path} has {n_channels} channels at {rate} Hz" in message


def test_twins_of_different_length_are_named(tree, error_of):
    path = tree / "wav16k" / "min" / "tt" / "s1_reverb" / f"{NAMES['tt'][0]}.wav"
    soundfile.write(path, read(path)[:-1], 16000, "FLOAT")
    message = error_of(tree, "dereverb")
    assert "1 pairs differ" in message
    assert NAMES["tt"][0] in message


def test_a_faulty_file_is_named(tree, error_of):
    path = tree / "wav16k" / "min" / "tt" / "s1_reverb" / f"{NAMES['tt'][0]}.wav"
    path.write_text("no audio")
    assert f"{path}: unreadable" in error_of(tree, "dereverb")


# --- Training


@pytest.mark.parametrize("task", TASKS)
def test_each_experiment_prepares_its_task(whole_tree, tmp_path, task):
    overrides = {"data_folder": str(whole_tree), "manifest_folder": str(tmp_path)}
    overrides["allow_subset"] = True
    path = ROOT / "hparams" / f"whamr_{task}_wavlm.yaml"
    experiment = read_experiment(path, overrides)
    assert f"experiment: whamr_{task}_wavlm" in experiment
    load_experiment(experiment, only="prepare")()
    row = read_manifest(tmp_path / "test.csv")[0]
    folders = (Path(row[key]).parent.name for key in ("noisy_wav", "clean_wav"))
    assert tuple(folders) == TASKS[task]
