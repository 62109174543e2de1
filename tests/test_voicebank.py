"""Preparation of VoiceBank-DEMAND, on trees in exactly the published form."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.paths import ROOT
from helpers.voicebank import TEST, TRAIN, write_tree
from recipes.VoiceBank import prepare
from speechbrain_cffma.audio import read
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.training.experiment import load_experiment, read_experiment

FOLDERS = [
    "noisy_trainset_28spk_wav",
    "clean_trainset_28spk_wav",
    "noisy_testset_wav",
    "clean_testset_wav",
]


@pytest.fixture
def tree(tmp_path):
    """The data set at 16 kHz."""
    return write_tree(tmp_path / "vbd")


@pytest.fixture(params=[48000, 16000], ids=["48kHz", "16kHz"])
def any_tree(tmp_path, request):
    """The data set at the published sample rate, and at that of training."""
    return write_tree(tmp_path / "vbd", request.param)


def prepared(folder, **options):
    """Prepare; the manifests of train, valid and test as {ID: row}."""
    manifests = folder.parent / "manifests"
    prepare.prepare_voicebank(folder, manifests, n_jobs=1, **options)
    return [
        {row["ID"]: row for row in read_manifest(manifests / f"{part}.csv")}
        for part in ("train", "valid", "test")
    ]


def rows(folder, **options):
    """All rows of the manifests, as {ID: row}."""
    train, valid, test = prepared(folder, **options)
    return {**train, **valid, **test}


def error_of(folder, **options):
    """The message of the InputError of preparing, which is one line."""
    with pytest.raises(InputError) as caught:
        prepared(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# --- Manifests


def test_speakers_p226_and_p287_are_held_out_for_validation(any_tree):
    train, valid, test = prepared(any_tree)
    assert list(train) == ["p225_001", "p225_002", "p227_001"]
    assert list(valid) == ["p226_001", "p287_001"]
    assert list(test) == list(TEST)


def test_other_validation_speakers_can_be_chosen(tree):
    _, valid, _ = prepared(tree, valid_speakers=["p225"])
    assert list(valid) == ["p225_001", "p225_002"]


def test_speaker_is_the_beginning_of_the_name(tree):
    assert all(row["speaker"] == name[:4] for name, row in rows(tree).items())


def test_noise_and_snr_are_those_of_the_logs(any_tree):
    found = {name: (r["noise"], r["snr"]) for name, r in rows(any_tree).items()}
    assert found == {**TRAIN, **TEST}


def test_duration_is_that_of_the_files(any_tree):
    for row in rows(any_tree).values():
        for side in ("noisy_wav", "clean_wav"):
            assert soundfile.info(row[side]).duration == row["duration"]


def test_files_are_mono_at_16_khz(any_tree):
    for row in rows(any_tree).values():
        for side in ("noisy_wav", "clean_wav"):
            info = soundfile.info(row[side])
            assert (info.samplerate, info.channels) == (16000, 1)


def test_files_at_16_khz_are_used_in_place(tree):
    for name, row in rows(tree).items():
        split = "testset" if name in TEST else "trainset_28spk"
        for side in ("noisy", "clean"):
            assert row[f"{side}_wav"] == str(tree / f"{side}_{split}_wav/{name}.wav")
    assert not (tree / "16k").exists()


def test_files_at_48_khz_are_copied_into_16k(tmp_path):
    tree = write_tree(tmp_path / "vbd", 48000)
    for name, row in rows(tree).items():
        split = "testset" if name in TEST else "trainset_28spk"
        for side in ("noisy", "clean"):
            path = tree / "16k" / f"{side}_{split}_wav/{name}.wav"
            assert row[f"{side}_wav"] == str(path)


def test_copies_sound_like_their_sources(tmp_path):
    source = read(write_tree(tmp_path / "16" / "vbd") / FOLDERS[1] / "p225_001.wav")
    row = rows(write_tree(tmp_path / "48" / "vbd", 48000))["p225_001"]
    difference = read(row["clean_wav"]) - source
    assert 10 * np.log10((source**2).mean() / (difference**2).mean()) > 30


def test_relative_data_folder_gives_absolute_paths(tree, monkeypatch):
    monkeypatch.chdir(tree.parent)
    prepare.prepare_voicebank("vbd", "manifests", n_jobs=1)
    for row in read_manifest("manifests/test.csv"):
        assert Path(row["clean_wav"]).is_absolute()


def test_data_folder_may_begin_with_the_home_folder(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree.parent))
    prepare.prepare_voicebank("~/vbd", tree.parent / "manifests", n_jobs=1)
    assert len(read_manifest(tree.parent / "manifests" / "test.csv")) == 4


# --- What the folders may look like


def test_folder_names_may_end_in_16k(tmp_path):
    tree = write_tree(tmp_path / "vbd", suffix="_16k")
    assert len(rows(tree)) == 9


def test_folders_may_lie_in_folders_of_the_same_name(tree):
    for name in FOLDERS:
        (tree / name).rename(tree / "inner")
        (tree / name).mkdir()
        (tree / "inner").rename(tree / name / name)
    assert set(rows(tree)) == {*TRAIN, *TEST}


def test_logs_may_lie_in_a_folder(tree):
    (tree / "logfiles").mkdir()
    for name in ("log_trainset_28spk.txt", "log_testset.txt"):
        (tree / name).rename(tree / "logfiles" / name)
    assert rows(tree)["p232_001"]["snr"] == 17.5


def test_lines_of_a_log_of_another_form_are_passed_over(tree):
    log = tree / "log_testset.txt"
    log.write_text("utterance noise snr\n\n" + log.read_text())
    assert rows(tree)["p232_001"]["snr"] == 17.5


def test_copies_suffice_when_the_48_khz_folders_are_deleted(tmp_path):
    tree = write_tree(tmp_path / "vbd", 48000)
    before = rows(tree)
    for name in FOLDERS:
        shutil.rmtree(tree / name)
    (tmp_path / "manifests" / "prepared.json").unlink()
    assert rows(tree) == before


def test_copies_go_beside_the_manifests_if_the_data_are_read_only(
    tmp_path, monkeypatch
):
    tree = write_tree(tmp_path / "vbd", 48000)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tree)
    for row in rows(tree).values():
        assert row["clean_wav"].startswith(str(tmp_path / "manifests" / "16k"))


def test_copies_of_read_only_data_are_used(tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "vbd", 48000)
    before = rows(tree)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tree)
    (tmp_path / "manifests" / "prepared.json").unlink()
    assert rows(tree) == before


# --- Running again, and downloading


def test_second_run_does_nothing(any_tree, monkeypatch):
    before = prepared(any_tree)
    monkeypatch.delattr(prepare, "prepare_pairs")
    assert prepared(any_tree) == before


def test_logs_that_are_added_later_are_read(tree):
    (tree / "log_testset.txt").rename(tree.parent / "log")
    assert rows(tree)["p232_001"]["snr"] is None
    (tree.parent / "log").rename(tree / "log_testset.txt")
    assert rows(tree)["p232_001"]["snr"] == 17.5


def test_data_are_downloaded_if_told(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "download_voicebank", write_tree)
    assert len(rows(tmp_path / "vbd", download=True)) == 9


@pytest.mark.parametrize("name", ["vbd_wavlm", "vbd_wav2vec2"])
def test_experiments_prepare_the_data_folder_they_are_told(tree, name):
    manifests = tree.parent / "manifests"
    overrides = {"data_folder": str(tree), "manifest_folder": str(manifests)}
    experiment = read_experiment(ROOT / "hparams" / f"{name}.yaml", overrides)
    load_experiment(experiment, only="prepare")()
    assert len(read_manifest(manifests / "test.csv")) == len(TEST)


# --- Warnings


def test_missing_log_is_a_warning_and_the_snr_unknown(tree, caplog):
    (tree / "log_testset.txt").unlink()
    row = rows(tree)["p232_001"]
    assert (row["snr"], row["noise"]) == (None, "")
    [warning] = [text for text in warnings(caplog) if "SNR" in text]
    assert "4 of 4 test pairs" in warning
    assert "log_testset.txt" in warning


def test_utterance_without_a_log_line_is_a_warning(tree, caplog):
    (tree / "log_testset.txt").write_text("p232_001 bus 17.5\n")
    assert rows(tree)["p232_002"]["snr"] is None
    [warning] = [text for text in warnings(caplog) if "SNR" in text]
    assert "3 of 4 test pairs" in warning


def test_other_number_of_pairs_is_a_warning(tree, caplog):
    prepared(tree)
    assert [text.split(str(tree))[1] for text in warnings(caplog)] == [
        " has 5 pairs; the published one has 11572",
        " has 4 pairs; the published one has 824",
    ]


def test_published_number_of_pairs_is_no_warning(tree, caplog, monkeypatch):
    monkeypatch.setattr(prepare, "N_PAIRS", {"train": 5, "test": 4})
    prepared(tree)
    assert warnings(caplog) == []


# --- Faulty data


def test_missing_folders_are_named_with_both_ways_to_get_them(tree):
    shutil.rmtree(tree / "clean_trainset_28spk_wav")
    shutil.rmtree(tree / "noisy_testset_wav")
    message = error_of(tree)
    assert (
        "missing or empty are clean_trainset_28spk_wav, noisy_testset_wav." in message
    )
    assert "--data_folder" in message
    assert "--download" in message
    assert "5.3 GB" in message


def test_missing_data_folder_is_named(tmp_path):
    message = error_of(tmp_path / "none")
    assert str(tmp_path / "none") in message
    assert all(name in message for name in FOLDERS)


def test_empty_folder_is_named(tree):
    shutil.rmtree(tree / "clean_testset_wav")
    (tree / "clean_testset_wav").mkdir()
    assert "missing or empty are clean_testset_wav." in error_of(tree)


def test_folder_without_audio_is_named(tree):
    shutil.rmtree(tree / "clean_testset_wav")
    (tree / "clean_testset_wav").mkdir()
    (tree / "clean_testset_wav" / "read_me.txt").touch()
    assert f"{tree / 'clean_testset_wav'} has no audio files" in error_of(tree)


def test_noisy_files_without_clean_twin_are_all_named(tree):
    for name in ("p232_001", "p257_001"):
        (tree / "clean_testset_wav" / f"{name}.wav").unlink()
    message = error_of(tree)
    assert "2 of 4 noisy files" in message
    assert "p232_001, p257_001" in message


def test_twins_of_different_length_are_named(tree):
    path = tree / "clean_testset_wav" / "p232_001.wav"
    soundfile.write(path, read(path)[:-1], 16000)
    message = error_of(tree)
    assert "1 pairs differ" in message
    assert "p232_001" in message
    assert "8000 samples" in message
    assert "7999 samples" in message


def test_twins_of_different_sample_rate_are_named(tree):
    path = tree / "clean_testset_wav" / "p232_001.wav"
    soundfile.write(path, np.repeat(read(path), 3), 48000)
    message = error_of(tree)
    assert "16000 Hz" in message
    assert "48000 Hz" in message
    assert "p232_001" in message


def test_held_out_speakers_that_are_missing_are_named(tree):
    message = error_of(tree, valid_speakers=["p300", "p301"])
    assert "has no pairs for valid" in message
    assert "p300, p301" in message


def test_no_speaker_left_for_training_is_an_error(tree):
    message = error_of(tree, valid_speakers=["p225", "p226", "p227", "p287"])
    assert "has no pairs for train" in message


def unreadable(paths):
    paths[0].write_bytes(b"no audio")


def silent(paths):
    for path in paths:
        soundfile.write(path, np.zeros(8000), 16000)


def nan(paths):
    for path in paths:
        soundfile.write(path, np.full(8000, np.nan), 16000, "FLOAT")


def short(paths):
    for path in paths:
        soundfile.write(path, np.full(399, 0.1), 16000)


faults = pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (unreadable, "unreadable"),
        (silent, "silent"),
        (nan, "holds NaN or Inf"),
        (short, "shorter than 25 ms (399 samples)"),
    ],
)


@faults
def test_faulty_test_file_is_an_error(tree, spoil, reason):
    path = tree / "noisy_testset_wav" / "p232_002.wav"
    spoil([path, tree / "clean_testset_wav" / "p232_002.wav"])
    message = error_of(tree)
    assert "1 of 4 test files" in message
    assert f"{path}: {reason}" in message


def test_faulty_validation_file_is_an_error(tree):
    silent([tree / "clean_trainset_28spk_wav" / "p226_001.wav"])
    assert "1 of 2 valid files" in error_of(tree)


@pytest.fixture
def many(tmp_path):
    """101 short training files, besides those for validation."""
    train = {f"p225_{i:03d}": ("babble", 5.0) for i in range(101)}
    return write_tree(
        tmp_path / "vbd", train={**train, "p226_001": ("ssn", 0.0)}, seconds=0.1
    )


@faults
def test_few_faulty_training_files_are_skipped(many, caplog, spoil, reason):
    paths = [many / name / "p225_050.wav" for name in FOLDERS[:2]]
    spoil(paths)
    train, _, _ = prepared(many)
    assert len(train) == 100
    assert "p225_050" not in train
    [warning] = [text for text in warnings(caplog) if "skipping" in text]
    assert "1 of 101 training files" in warning
    assert f"{paths[0]}: {reason}" in warning


def test_many_faulty_training_files_are_an_error(many):
    for name in ("p225_050", "p225_051"):
        silent([many / "clean_trainset_28spk_wav" / f"{name}.wav"])
    message = error_of(many)
    assert "2 of 101 train files" in message
    assert "p225_050" in message
    assert "p225_051" in message
