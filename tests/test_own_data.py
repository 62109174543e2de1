"""Data of one's own: paired folders of any form, and trained models to start from."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from scipy.signal import resample_poly

import train
from helpers.networks import enhancer_of, perturbed
from helpers.own_data import FLAT, SAMPLES, write_pairs
from helpers.paths import ROOT
from helpers.runs import SMALL_RUN, assert_same_model, command_line, fails, si_sdr_of
from helpers.voicebank import write_tree
from recipes.PairedFolders.prepare import prepare_paired_folders
from speechbrain_cffma import audio, cli, lobes
from speechbrain_cffma.data import pairs
from speechbrain_cffma.data import prepared as prepared_data
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes import CFFMAEnhancer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def for_testing(folders):
    return {f"test_{option}": folder for option, folder in folders.items()}


def prepared(folder, **options):
    """The rows of train, valid and test."""
    prepare_paired_folders(folder, n_jobs=1, **options)
    return [read_manifest(folder / f"{p}.csv") for p in ("train", "valid", "test")]


def ids(parts):
    return [{row["ID"] for row in part} for part in parts]


def error_of(folder, **options):
    """The message of the InputError of preparing, which is one line."""
    with pytest.raises(InputError) as caught:
        prepared(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


#: Names in fewer subfolders than ten, and in ten.
FEW_SPEAKERS = [f"p{i % 4}/{i:02d}.wav" for i in range(20)]
SPEAKERS = [f"p{i % 10}/{i:02d}.wav" for i in range(30)]


# --- What is held out


@pytest.mark.parametrize("names", [FLAT, FEW_SPEAKERS], ids=["flat", "few speakers"])
def test_a_share_of_the_files_is_held_out(tmp_path, names):
    train, valid, test = ids(prepared(tmp_path / "out", **write_pairs(tmp_path, names)))
    assert (len(train), len(valid), len(test)) == (16, 2, 2)
    assert len(train | valid | test) == 20


def test_whole_subfolders_are_held_out_where_they_are_many(tmp_path):
    parts = prepared(tmp_path / "out", **write_pairs(tmp_path, SPEAKERS))
    speakers = [{row["speaker"] for row in part} for part in parts]
    assert [len(part) for part in speakers] == [8, 1, 1]
    assert len(set.union(*speakers)) == 10
    assert [len(part) for part in parts] == [24, 3, 3]


def test_the_choice_depends_on_the_seed_alone(tmp_path):
    folders = write_pairs(tmp_path / "here", FLAT)
    first = ids(prepared(tmp_path / "1", **folders))
    moved = shutil.move(tmp_path / "here", tmp_path / "there")
    folders = {option: moved / path.name for option, path in folders.items()}
    assert ids(prepared(tmp_path / "2", **folders)) == first
    assert ids(prepared(tmp_path / "3", **folders, seed=5)) != first


def test_all_noisy_twins_of_a_clean_file_are_in_the_same_part(tmp_path):
    names = [f"{noise}/{i}_{noise}.wav" for i in range(10) for noise in ("bus", "cafe")]
    clean = [f"{i}.wav" for i in range(10) for _ in range(2)]
    folders = write_pairs(tmp_path, names, clean)
    parts = prepared(tmp_path / "out", **folders, pair_by=r"\d+")
    assert [len(part) for part in parts] == [16, 2, 2]
    clean = [{Path(row["clean_wav"]).stem for row in part} for part in parts]
    assert sum(map(len, clean)) == len(set.union(*clean)) == 10


def test_so_are_those_of_links_to_a_clean_file(tmp_path):
    names = [f"{i}_{snr}.wav" for i in range(4) for snr in (0, 10, 20)]
    folders = write_pairs(tmp_path, names)
    for name in names:
        if not name.endswith("_0.wav"):
            link = folders["clean_folder"] / name
            link.unlink()
            link.symlink_to(name.partition("_")[0] + "_0.wav")
            shutil.copy(link, folders["noisy_folder"] / name)
    parts = ids(prepared(tmp_path / "out", held_out_share=0.25, **folders))
    clean = [{name.partition("_")[0] for name in part} for part in parts]
    assert sum(map(len, clean)) == len(set.union(*clean)) == 4


def test_folders_for_testing_are_for_testing_alone(tmp_path):
    folders = write_pairs(tmp_path / "a", FLAT)
    tested = for_testing(write_pairs(tmp_path / "b", ["x.wav", "y.wav"]))
    train, valid, test = ids(prepared(tmp_path / "out", **folders, **tested))
    assert (len(train), len(valid)) == (18, 2)
    assert test == {"x", "y"}


def test_a_test_file_among_those_for_training_is_an_error(tmp_path):
    folders = write_pairs(tmp_path, [*FLAT, "test/x.wav"])
    tested = {f"test_{option}": path / "test" for option, path in folders.items()}
    message = error_of(tmp_path / "out", **folders, **tested)
    assert "2 test files are also used for training" in message
    assert str(tmp_path / "noisy" / "test" / "x.wav") in message


def test_without_folders_for_training_all_is_for_testing(tmp_path):
    tested = for_testing(write_pairs(tmp_path, ["x.wav"]))
    assert ids(prepared(tmp_path / "out", **tested)) == [set(), set(), {"x"}]


def test_files_that_come_later_are_prepared(tmp_path):
    tested = for_testing(write_pairs(tmp_path, ["x.wav"]))
    prepared(tmp_path / "out", **tested)
    write_pairs(tmp_path, ["x.wav", "y.wav"])
    assert ids(prepared(tmp_path / "out", **tested))[2] == {"x", "y"}


def test_a_file_that_changes_meanwhile_is_prepared_anew(tmp_path, monkeypatch):
    tested = for_testing(write_pairs(tmp_path, ["x.wav"]))
    prepare_files = pairs.prepare_files

    def changing(paths, *arguments, **options):
        files = prepare_files(paths, *arguments, **options)
        for path in paths:
            soundfile.write(path, audio.read(path)[: SAMPLES // 2], 16000)
        return files

    monkeypatch.setattr(pairs, "prepare_files", changing)
    prepared(tmp_path / "out", **tested)
    monkeypatch.undo()
    test = prepared(tmp_path / "out", **tested)[2]
    assert [row["duration"] for row in test] == [SAMPLES / 2 / 16000]


def test_each_folder_is_searched_once(tmp_path, monkeypatch):
    find_audio, searched = prepared_data.find_audio, []

    def counted(folder, **options):
        searched.append(folder)
        return find_audio(folder, **options)

    monkeypatch.setattr(prepared_data, "find_audio", counted)
    tested = for_testing(write_pairs(tmp_path, ["x.wav"]))
    prepared(tmp_path / "out", **tested)
    assert searched == list(tested.values())


# --- What the files may be


def test_names_may_hold_any_bytes(tmp_path):
    names = [os.fsdecode(name) for name in (b"caf\xe9.wav", b"a\nb\x1b[31m.wav")]
    folders = write_pairs(tmp_path, ["ü.wav", *names])
    rows = prepared(tmp_path / "out", **for_testing(folders))[2]
    stems = ["ü", *(name.removesuffix(".wav") for name in names)]
    assert {row["ID"] for row in rows} == set(stems)
    assert all(len(audio.read(row["noisy_wav"])) == SAMPLES for row in rows)


def test_any_rate_and_format_is_converted_and_channels_are_averaged(tmp_path):
    folders = write_pairs(tmp_path, ["a.wav", "b.wav"])
    expected = {}
    for name, rate, suffix, subtype in (
        ("a", 44100, "flac", "PCM_16"),
        ("b", 48000, "mp3", None),
    ):
        for side, folder in zip(("noisy", "clean"), folders.values(), strict=True):
            samples = audio.read(folder / f"{name}.wav")
            expected[name, side] = samples
            (folder / f"{name}.wav").unlink()
            up = resample_poly(samples, rate // 100, 160)
            stereo = np.stack([1.5 * up, 0.5 * up], axis=1)
            soundfile.write(folder / f"{name}.{suffix}", stereo, rate, subtype)
    for row in prepared(tmp_path / "out", **for_testing(folders))[2]:
        for side in ("noisy", "clean"):
            info = soundfile.info(row[f"{side}_wav"])
            assert (info.samplerate, info.channels) == (16000, 1)
            samples = expected[row["ID"], side]
            difference = audio.read(row[f"{side}_wav"])[: len(samples)] - samples
            assert np.square(samples).sum() > 20 * np.square(difference).sum()


def test_extensions_of_twins_may_differ(tmp_path):
    names = ["p1/a.wav", "p1/b.wav"]
    folders = write_pairs(tmp_path, names, ["p1/a.flac", "p1/b.aiff"])
    assert ids(prepared(tmp_path / "out", **for_testing(folders)))[2] == {
        "p1/a",
        "p1/b",
    }


# --- SNR and noise


def conditions_of(folder, **options):
    return {
        row["ID"]: (row["snr"], row["noise"]) for row in prepared(folder, **options)[2]
    }


def test_conditions_are_those_of_the_names(tmp_path):
    tested = for_testing(write_pairs(tmp_path, ["a_cafe_5dB.wav", "b.wav"]))
    found = conditions_of(tmp_path / "out", **tested)
    assert found == {"a_cafe_5dB": (5, "cafe"), "b": (None, "")}


def test_conditions_may_be_in_a_csv(tmp_path):
    tested = for_testing(write_pairs(tmp_path, ["a_cafe_5dB.wav"]))
    (tmp_path / "conditions.csv").write_text("ID,snr,noise\na_cafe_5dB,7,bar\n")
    tested["metadata"] = tmp_path / "conditions.csv"
    assert conditions_of(tmp_path / "out", **tested) == {"a_cafe_5dB": (7, "bar")}


def write_dns(folder):
    """The synthetic test set of the DNS Challenge, without reverberation."""
    snrs = {158: 15, 15: 0, 1: -5}
    noisy = [
        f"clnsp1_train_69005_1_snr{snr}_tl-21_fileid_{i}.wav" for i, snr in snrs.items()
    ]
    part = folder / "test_set" / "synthetic" / "no_reverb"
    folders = write_pairs(part, noisy, [f"clean_fileid_{i}.wav" for i in snrs])
    return {**for_testing(folders), "pair_by": r"fileid_\d+"}


def test_the_dns_challenge(tmp_path):
    rows = prepared(tmp_path / "out", **write_dns(tmp_path))[2]
    assert {(row["snr"], row["noise"]) for row in rows} == {(15, ""), (0, ""), (-5, "")}
    for row in rows:
        clean = Path(row["clean_wav"]).stem
        assert row["ID"].endswith(clean.removeprefix("clean_")), row


def test_the_test_set_of_voicebank(tmp_path):
    tree = write_tree(tmp_path / "vbd", 48000)
    tested = {
        "test_noisy_folder": tree / "noisy_testset_wav",
        "test_clean_folder": tree / "clean_testset_wav",
        "metadata": tree / "log_testset.txt",
    }
    assert conditions_of(tmp_path / "out", **tested) == {
        "p232_001": (17.5, "bus"),
        "p232_002": (12.5, "cafe"),
        "p257_001": (7.5, "living"),
        "p257_002": (2.5, "psquare"),
    }


def test_the_command_evaluates_pairs_of_other_names(tmp_path, capsys, scored_here):
    folders = write_dns(tmp_path)
    arguments = [
        f"--clean={folders['test_clean_folder']}",
        f"--noisy={folders['test_noisy_folder']}",
        r"--pair-by=fileid_\d+",
        "--metrics=si_sdr",
        "--n-jobs=1",
        f"--output={tmp_path / 'report'}",
    ]
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", *arguments])
    assert not stop.value.code, capsys.readouterr().err
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert set(summary["snr"]) == {"-5", "0", "15"}
    scores = summary["overall"]["noisy"]["scores"]
    assert scores["si_sdr"]["mean"] == pytest.approx(5, abs=1)


# --- Errors of the data


def test_a_folder_without_the_other_is_an_error(tmp_path):
    folders = write_pairs(tmp_path, ["a.wav"])
    message = error_of(tmp_path / "out", noisy_folder=folders["noisy_folder"])
    assert message.startswith("--clean_folder is missing")
    message = error_of(tmp_path / "out", test_clean_folder=folders["clean_folder"])
    assert message.startswith("--test_noisy_folder is missing")


def test_no_folders_at_all_are_an_error_that_says_what_to_give(tmp_path):
    message = error_of(tmp_path / "out")
    assert "--noisy_folder and --clean_folder" in message
    assert "--test_noisy_folder and --test_clean_folder" in message


def test_too_few_files_are_an_error(tmp_path):
    folders = write_pairs(tmp_path, ["a.wav", "b.wav"])
    message = error_of(tmp_path / "out", **folders)
    assert "2 clean files are too few: none is left for train" in message


def test_faulty_test_files_are_an_error(tmp_path):
    folders = write_pairs(tmp_path, ["a.wav", "b.wav"])
    soundfile.write(folders["noisy_folder"] / "a.wav", np.zeros(SAMPLES), 16000)
    message = error_of(tmp_path / "out", **for_testing(folders))
    assert "1 of 2 test files" in message
    assert "a.wav: silent" in message


# --- A trained model to start from


@pytest.fixture(scope="module")
def own_pairs(tmp_path_factory):
    """The options of 20 pairs."""
    return write_pairs(tmp_path_factory.mktemp("own"), FLAT)


@pytest.fixture(scope="module")
def pretrained(ssl_folder, tmp_path_factory):
    """A model folder of a network unlike that of network/cffma.yaml."""
    torch.manual_seed(0)
    source = ssl_folder("wavlm")
    enhancer = perturbed(enhancer_of("null", ssl_source=source, fused_dim=32, dim=16))
    return enhancer.save_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture
def arguments(own_pairs, pretrained, tmp_path, quick_runs):
    """`arguments(**options)`: the command line of a run of seconds from that model."""

    def make(output_folder=tmp_path, **options):
        options = {
            **own_pairs,
            "pretrained": pretrained,
            "n_examples": 0,
            **options,
        }
        return command_line(
            "own_pairs", output_folder=output_folder, **SMALL_RUN | options
        )

    return make


def weights_of(folder):
    return load_file(Path(folder) / "model.safetensors")


def changed(folder, pretrained):
    """The names of the weights that a run has changed."""
    before, after = weights_of(pretrained), weights_of(folder / "model")
    assert before.keys() == after.keys()
    return {key for key in before if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("how", ["--test_only", "number_of_epochs"])
def test_without_a_step_it_is_the_model_itself(
    how, arguments, pretrained, tmp_path, capsys
):
    train.main([*arguments(), how] if how[0] == "-" else arguments(**{how: 0}))
    assert f"model: {pretrained}" in capsys.readouterr().out
    enhancer = CFFMAEnhancer.from_pretrained(pretrained)
    for row in read_manifest(tmp_path / "manifests" / "test.csv"):
        noisy = torch.from_numpy(audio.read(row["noisy_wav"])).unsqueeze(0)
        with torch.no_grad():
            expected = enhancer(noisy)[0][0].numpy()
        enhanced = audio.read(tmp_path / "test" / "enhanced" / f"{row['ID']}.wav")
        np.testing.assert_allclose(enhanced, expected, atol=1.1 / 2**15)
    assert (tmp_path / "test" / "report.html").exists()


@pytest.mark.usefixtures("no_report")
def test_its_network_replaces_that_of_the_experiment(arguments, monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("an SSL model was loaded")

    monkeypatch.setattr(lobes, "load_ssl", refuse)
    train.main(arguments(number_of_epochs=1, steps_per_epoch=1))
    estimator = CFFMAEnhancer.from_pretrained(tmp_path / "model").mask_estimator
    assert (estimator.fused_dim, estimator.dim) == (32, 16)


@pytest.mark.usefixtures("no_report")
def test_training_starts_from_its_weights(arguments, pretrained, tmp_path):
    train.main(arguments(number_of_epochs=1, lr=0, lr_ssl=0))
    assert changed(tmp_path, pretrained) == set()


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("fine_tune", ["frozen", "partial", "entire"])
def test_what_learns_of_its_ssl_model_can_be_chosen(
    fine_tune, arguments, pretrained, tmp_path
):
    train.main(arguments(number_of_epochs=1, fine_tune=fine_tune))
    names = changed(tmp_path, pretrained)
    assert any(name.startswith("mask_estimator.") for name in names)
    ssl = [name for name in names if name.startswith("embedding.ssl.")]
    assert bool(ssl) == (fine_tune != "frozen")
    encoder = [name for name in ssl if ".feature_extractor." in name]
    assert bool(encoder) == (fine_tune == "entire")
    model = CFFMAEnhancer.from_pretrained(tmp_path / "model")
    assert model.embedding.fine_tune == fine_tune


def test_training_further_improves_it(arguments, tmp_path):
    train.main(arguments(tmp_path / "before", number_of_epochs=0))
    options = {"number_of_epochs": 1, "steps_per_epoch": 40, "lr": 0.01}
    train.main(arguments(tmp_path / "after", **options))
    assert si_sdr_of(tmp_path / "after") > si_sdr_of(tmp_path / "before") + 0.5


@pytest.mark.usefixtures("no_report")
def test_a_resumed_run_ends_as_one_that_never_stopped(arguments, tmp_path):
    options = {"lr_schedule": "constant"}
    train.main(arguments(tmp_path / "whole", **options))
    train.main(arguments(tmp_path / "parts", number_of_epochs=1, **options))
    train.main(arguments(tmp_path / "parts", **options))
    assert_same_model(tmp_path / "whole", tmp_path / "parts")


def test_testing_a_run_that_began_from_it_tests_the_run(arguments, tmp_path, capsys):
    train.main(arguments(number_of_epochs=1, lr=0.01))
    score = si_sdr_of(tmp_path)
    train.main([*arguments(), "--test_only"])
    assert f"model: {tmp_path / 'model'}" in capsys.readouterr().out
    assert si_sdr_of(tmp_path) == pytest.approx(score, abs=1e-6)


def test_testing_needs_no_folders_for_training(pretrained, tmp_path, quick_runs):
    tested = write_dns(tmp_path)
    options = {**tested, "pretrained": pretrained, "output_folder": tmp_path / "out"}
    options |= SMALL_RUN
    train.main([*command_line("own_pairs", **options), "--test_only"])
    enhanced = {p.name for p in (tmp_path / "out" / "test" / "enhanced").iterdir()}
    assert enhanced == {p.name for p in tested["test_noisy_folder"].iterdir()}
    summary = json.loads((tmp_path / "out" / "test" / "summary.json").read_text())
    assert set(summary["snr"]) == {"-5", "0", "15"}


@pytest.mark.usefixtures("no_report")
def test_a_model_of_the_spectrogram_alone_can_be_trained_further(arguments, tmp_path):
    enhancer = enhancer_of("input_spectrogram", fused_dim=32, dim=16)
    folder = enhancer.save_pretrained(tmp_path / "spectrogram")
    train.main(arguments(tmp_path / "out", pretrained=folder, number_of_epochs=1))
    assert "mask_estimator.output_layer.weight" in changed(tmp_path / "out", folder)


def test_training_without_data_for_it_is_an_error(pretrained, tmp_path, capsys):
    tested = for_testing(write_pairs(tmp_path, ["x.wav"]))
    options = {**tested, "pretrained": pretrained, "output_folder": tmp_path / "out"}
    line = fails(command_line("own_pairs", **SMALL_RUN, **options), capsys)
    assert "train.csv has no rows" in line
    assert "--test_only" in line


def test_a_folder_that_is_no_model_is_an_error(arguments, tmp_path, capsys):
    line = fails(arguments(pretrained=tmp_path), capsys)
    assert f"{tmp_path} is not a model folder" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_blocks": 3}, "--n_blocks can't be combined with --pretrained"),
        ({"ssl_source": "x"}, "--ssl_source can't be combined with --pretrained"),
        (
            {"variant": "dilated"},
            "--variant=dilated can't be combined with --pretrained",
        ),
        ({"variant": "pretrained"}, "did you mean --pretrained=...?"),
        ({"fine_tune": "all"}, "fine_tune must be frozen, partial or entire"),
    ],
)
def test_an_option_that_contradicts_it_is_an_error(arguments, capsys, options, message):
    assert message in fails(arguments(**options), capsys)


@pytest.mark.usefixtures("no_report")
def test_checkpoints_of_another_network_are_an_error(
    arguments, ssl_folder, tmp_path, capsys
):
    train.main(arguments(number_of_epochs=1))
    source = ssl_folder("wavlm")
    other = enhancer_of("null", ssl_source=source, fused_dim=48, dim=16)
    folder = other.save_pretrained(tmp_path / "other")
    line = fails(arguments(pretrained=folder), capsys)
    assert "mask_estimator.fusion.fused_dim is 32 there and 48 here" in line
