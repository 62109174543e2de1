"""Training by `train.py`: what a run writes, how it resumes, how it fails."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import train
from helpers.paths import ROOT
from helpers.runs import assert_same_model, fails, si_sdr_of
from helpers.started import trained
from speechbrain_cffma import audio
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.inference import device
from speechbrain_cffma.lobes import BLSTM, CFFMAEnhancer, Concatenation
from speechbrain_cffma.metric_table import DEFAULT
from speechbrain_cffma.metrics import score
from speechbrain_cffma.training import base
from speechbrain_cffma.training.brain import EnhancementBrain

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(autouse=True)
def quick(quick_runs):
    """Runs in processes of their own, such as `finished`, are as users have them."""


def run(argv, script=ROOT / "train.py"):
    """Run in a process of its own; return its exit code and standard error."""
    command = [sys.executable, str(script), *map(str, argv)]
    # No pipes: workers of a killed process would hold them open.
    with tempfile.TemporaryFile("w+") as error:
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=error, cwd=ROOT
        )
        error.seek(0)
        return done.returncode, error.read()


# --- what a run writes ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory, arguments):
    """The output folder of one run with default bookkeeping."""
    folder = tmp_path_factory.mktemp("run") / "out"
    code, error = run(arguments(folder, n_examples=2))
    assert code == 0, error
    return folder


def test_the_scores_hold_a_row_for_each_test_utterance_and_system(finished):
    with open(finished / "test" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["system"] for row in rows] == ["noisy"] * 4 + ["enhanced"] * 4
    assert all(float(row["si_sdr"]) for row in rows)


def test_the_summary_compares_noisy_and_enhanced_overall_and_per_snr(finished):
    summary = json.loads((finished / "test" / "summary.json").read_text())
    assert summary["reference"] == "noisy"
    scores = summary["overall"]["enhanced"]["scores"]
    assert list(scores) == ["pesq", "csig", "cbak", "covl", "ssnr", "stoi", "si_sdr"]
    assert set(summary["snr"]) == {"0", "5", "10", "15"}
    for snr, group in summary["snr"].items():
        mean = group["noisy"]["scores"]["si_sdr"]["mean"]
        assert mean == pytest.approx(float(snr), abs=1)


def test_the_scores_are_those_of_the_enhanced_files(finished):
    test = finished / "test"
    row = read_manifest(finished / "manifests" / "test.csv")[0]
    scores = json.loads((test / "summary.json").read_text())
    with open(test / "scores.csv", newline="") as file:
        by_name = {(r["system"], r["ID"]): r for r in csv.DictReader(file)}
    clean = audio.read(row["clean_wav"])
    enhanced = audio.read(test / "enhanced" / f"{row['ID']}.wav")
    expected = score(clean, enhanced, ["pesq", "si_sdr"])
    found = by_name["enhanced", row["ID"]]
    assert scores["settings"]["scale"] == "int16"
    for name in ("pesq", "si_sdr"):
        assert float(found[name]) == pytest.approx(expected[name], abs=1e-6)


def test_the_enhanced_files_are_those_of_the_model(finished):
    row = read_manifest(finished / "manifests" / "test.csv")[0]
    enhancer = CFFMAEnhancer.from_pretrained(finished / "model").eval()
    noisy = torch.from_numpy(audio.read(row["noisy_wav"])).unsqueeze(0)
    with torch.no_grad():
        expected = enhancer(noisy)[0][0].numpy()
    path = finished / "test" / "enhanced" / f"{row['ID']}.wav"
    np.testing.assert_allclose(audio.read(path), expected, atol=1.1 / 2**15)


def test_the_report_is_a_page(finished):
    html = (finished / "test" / "report.html").read_text(encoding="utf-8")
    assert html.count("<audio") >= 6


def test_examples_are_written_with_a_figure_each(finished):
    examples = finished / "test" / "examples"
    assert len(list(examples.glob("*.png"))) == 2


def test_the_ssl_layer_weights_are_drawn(finished):
    assert (finished / "test" / "ssl_layer_weights.png").stat().st_size > 1000


def test_logs_for_people_and_tensorboard(finished):
    log = (finished / "train_log.txt").read_text()
    assert "epoch: 2" in log
    assert "valid pesq" in log
    assert list((finished / "tensorboard").iterdir())


def test_the_model_folder_is_the_best_checkpoint(finished):
    model = CFFMAEnhancer.from_pretrained(finished / "model")
    checkpoints = list((finished / "checkpoints").glob("CKPT*/CKPT.yaml"))

    def pesq(path):
        (line,) = [e for e in path.read_text().splitlines() if e.startswith("pesq")]
        return float(line.split()[1])

    best = torch.load(max(checkpoints, key=pesq).parent / "enhancer.ckpt")
    weights = model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in best.items())


def test_the_resolved_hyperparameters_are_kept(finished):
    text = (finished / "hyperparams.yaml").read_text()
    assert "fused_dim: 32" in text
    assert "!ref" not in text


def test_evaluating_alone_gives_the_same_scores(finished, arguments, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "out")
    shutil.rmtree(copy / "test")
    train.main([*arguments(copy), "--test_only"])
    assert si_sdr_of(copy) == pytest.approx(si_sdr_of(finished), abs=1e-6)


def test_training_a_finished_run_again_changes_nothing(finished, arguments, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "out")
    train.main(arguments(copy))
    assert_same_model(finished, copy)


# --- options ---


def test_training_learns(arguments, tmp_path):
    train.main(
        arguments(tmp_path, number_of_epochs=1, steps_per_epoch=60, lr=0.01, dropout=0)
    )
    assert si_sdr_of(tmp_path) > si_sdr_of(tmp_path, "noisy") + 0.5


@pytest.mark.usefixtures("no_report")
def test_bf16_accumulation_scheduler_and_clipping(arguments, tmp_path):
    train.main(
        arguments(
            tmp_path,
            precision="bf16",
            grad_accumulation_factor=2,
            lr_schedule="cosine",
            max_grad_norm=0.1,
        )
    )
    log = (tmp_path / "train_log.txt").read_text()
    # 8 batches are 4 steps; a cosine ends at 0.
    assert "step: 4" in log
    assert "lr_head: 0" in log


@pytest.mark.usefixtures("no_report")
def test_clipping_bounds_the_norm_over_all_parameters(arguments, tmp_path, monkeypatch):

    norms = []
    step = torch.optim.Adam.step

    def recorded(self, *args, **kwargs):
        norms.append([p.grad for g in self.param_groups for p in g["params"]])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    first = EnhancementBrain.optimizers_step
    totals = []

    def counted(self):
        norms.clear()
        first(self)
        grads = [g.norm() for part in norms for g in part if g is not None]
        totals.append((len(norms), float(torch.stack(grads).norm())))

    monkeypatch.setattr(EnhancementBrain, "optimizers_step", counted)
    monkeypatch.setattr(EnhancementBrain, "zero_grad", lambda self, **_: None)
    train.main(arguments(tmp_path, number_of_epochs=1, max_grad_norm=0.01))
    assert all(n == 2 and norm <= 0.0101 for n, norm in totals)
    assert max(norm for _, norm in totals) > 0.0099


def test_the_spectrogram_alone_trains_without_an_ssl_model(arguments, tmp_path):
    options = {"variant": "input_spectrogram", "ssl_source": "nobody/no-such-model"}
    train.main(arguments(tmp_path, number_of_epochs=1, steps_per_epoch=2, **options))
    assert "step: 2" in (tmp_path / "train_log.txt").read_text()
    assert not (tmp_path / "test" / "ssl_layer_weights.png").exists()
    enhancer = CFFMAEnhancer.from_pretrained(tmp_path / "model")
    assert list(enhancer.embedding.parameters()) == []


@pytest.mark.usefixtures("no_report")
def test_two_variants_train_together(arguments, tmp_path):
    variant = "[fusion_concatenation, blstm]"
    train.main(
        arguments(tmp_path, variant=variant, number_of_epochs=1, steps_per_epoch=2)
    )
    assert "step: 2" in (tmp_path / "train_log.txt").read_text()
    estimator = CFFMAEnhancer.from_pretrained(tmp_path / "model").mask_estimator
    assert isinstance(estimator.fusion, Concatenation)
    assert isinstance(estimator.enhancer, BLSTM)


@pytest.mark.usefixtures("no_report")
def test_early_stop(arguments, tmp_path, monkeypatch):
    scores = iter([2.0, 1.9, 1.8, 1.7])
    monkeypatch.setattr(
        "speechbrain_cffma.training.brain.mean_scores",
        lambda *_: {"pesq": next(scores)},
    )
    train.main(
        arguments(
            tmp_path, number_of_epochs=4, early_stop_patience=2, steps_per_epoch=1
        )
    )
    log = (tmp_path / "train_log.txt").read_text()
    assert "epoch: 3" in log
    assert "epoch: 4" not in log


def test_without_pesq_the_best_is_chosen_by_si_sdr(
    arguments, tmp_path, monkeypatch, caplog
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: n != "pesq" and find_spec(n, *a)
    )
    monkeypatch.setattr("speechbrain_cffma.training.brain.DEFAULT", DEFAULT)
    train.main(arguments(tmp_path, number_of_epochs=1))
    summary = json.loads((tmp_path / "test" / "summary.json").read_text())
    assert list(summary["overall"]["enhanced"]["scores"]) == ["ssnr", "stoi", "si_sdr"]
    assert "pesq is not installed" in (tmp_path / "log.txt").read_text() + caplog.text


def scores_of_checkpoints(folder):
    """PESQ of each checkpoint that has one."""
    metas = [p.read_text() for p in folder.glob("checkpoints/*/CKPT.yaml")]
    found = [re.search(r"^pesq: ([0-9.]+)$", meta, re.MULTILINE) for meta in metas]
    return [float(match[1]) for match in found if match]


@pytest.fixture
def trained_without_pesq(arguments, tmp_path, monkeypatch):
    """Arguments of a run of two epochs where the package is not installed."""
    find_spec = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.util, "find_spec", lambda n, *a: n != "pesq" and find_spec(n, *a)
        )
        train.main(arguments(tmp_path))
    assert not scores_of_checkpoints(tmp_path)
    return tmp_path


def test_a_checkpoint_without_the_metric_is_scored_before_one_is_chosen(
    trained_without_pesq, arguments, capsys
):
    train.main([*arguments(trained_without_pesq), "--test_only"])
    assert scores_of_checkpoints(trained_without_pesq)
    assert "PESQ" in capsys.readouterr().out


@pytest.mark.usefixtures("no_report")
def test_a_run_goes_on_where_the_metric_can_be_computed(
    trained_without_pesq, arguments, tmp_path
):
    train.main(arguments(tmp_path, number_of_epochs=3))
    # Those of before and the new one compete by one metric.
    n_checkpoints = len(list(tmp_path.glob("checkpoints/*")))
    assert len(scores_of_checkpoints(tmp_path)) == n_checkpoints


def test_the_metric_that_chooses_is_a_key(arguments, tmp_path):
    train.main(arguments(tmp_path, best_metric="stoi"))
    assert "STOI" in (tmp_path / "model" / "README.md").read_text()
    assert "best_metric: stoi" in (tmp_path / "hyperparams.yaml").read_text()


def test_weights_that_fit_no_term_are_one_line(arguments, tmp_path, capsys):
    error = fails(arguments(tmp_path, loss_weights="{pesq: 0.1}"), capsys)
    assert "loss_weights must give a weight to each of log1p" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lr": -1}, "Invalid learning rate"), ({"lr_schedule": "steep"}, "steep is not")],
)
def test_options_that_an_optimiser_refuses_are_one_line(
    arguments, tmp_path, capsys, options, message
):
    error = fails(arguments(tmp_path, **options), capsys)
    assert "the optimisers can't be made: " in error
    assert message in error


def test_another_metric_can_not_choose(arguments, tmp_path, capsys):
    error = fails(arguments(tmp_path, best_metric="dnsmos_ovrl"), capsys)
    assert "best_metric must be one of pesq, stoi, si_sdr, not dnsmos_ovrl" in error


def test_debug_runs_two_batches_of_each_and_replaces_no_model(
    finished, arguments, tmp_path, capsys
):
    folder = shutil.copytree(finished, tmp_path / "out")
    model = (folder / "model" / "model.safetensors").read_bytes()
    train.main([*arguments(folder), "--debug"])
    assert (folder / "model" / "model.safetensors").read_bytes() == model
    with open(folder / "debug" / "test" / "scores.csv", newline="") as file:
        systems = [row["system"] for row in csv.DictReader(file)]
    assert systems == ["noisy"] * 2 + ["enhanced"] * 2


def test_what_is_no_module_is_one_line(arguments, tmp_path, capsys):
    error = fails([*arguments(tmp_path), "--enhancer=x"], capsys)
    assert error.startswith("error: enhancer is 'x', not a torch module")


@pytest.mark.parametrize("option", ["precision", "eval_precision"])
def test_half_precision_on_a_cpu_is_one_line(arguments, tmp_path, capsys, option):
    error = fails([*arguments(tmp_path), f"--{option}=fp16"], capsys)
    assert error.startswith("error: The option `--precision` or `--eval_precision`")
    assert "bf16" in error


@pytest.mark.parametrize(
    ("is_native", "given", "expected"),
    [
        (True, {}, "bf16"),
        (False, {}, "fp32"),
        (False, {"precision": "bf16"}, "bf16"),
        (True, {"precision": "fp32"}, "fp32"),
    ],
)
def test_auto_is_bf16_where_the_device_has_it(
    tmp_path, monkeypatch, is_native, given, expected
):
    monkeypatch.setattr(device, "has_bf16", lambda device: is_native)
    hparams = {"precision": "auto", "output_folder": tmp_path}
    brain = base.TrainingBrain({}, hparams=hparams, run_opts={"device": "cpu", **given})
    assert brain.precision == expected


@pytest.mark.usefixtures("no_report")
def test_emulated_bf16_is_said(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "has_bf16", lambda device: False)
    train.main(arguments(tmp_path, number_of_epochs=1, precision="bf16"))
    log = (tmp_path / "log.txt").read_text()
    assert (
        "this CPU has no instructions for bf16 and emulates it: --precision=fp32" in log
    )


@pytest.mark.parametrize("device", ["cuda:99", "mps:99", "gpu", "meta"])
def test_a_device_that_is_not_there_is_one_line(arguments, tmp_path, capsys, device):
    error = fails([*arguments(tmp_path / "out"), f"--device={device}"], capsys)
    assert f"can't run on the device '{device}': try --device cpu" in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_can_not_be_written_is_one_line(arguments, tmp_path, capsys):
    folder = tmp_path / "file" / "run"
    folder.parent.touch()
    error = fails(arguments(folder), capsys)
    assert error == (
        f"error: {folder} can't be written (Not a directory): choose another folder by "
        "--output_folder"
    )


def test_ctrl_c_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(EnhancementBrain, "optimizers_step", interrupted)
    with pytest.raises(SystemExit) as stop:
        train.main(arguments(tmp_path, num_workers=1))
    assert stop.value.code == 130
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == "interrupted: run the same command to continue"


def test_a_second_start_of_the_same_command_is_one_line(arguments, tmp_path, capsys):
    holder = """if True:
        import sys
        from speechbrain_cffma.files import lock
        file = open(sys.argv[1], "a")
        lock(file)
        print("locked", flush=True)
        sys.stdin.read()
        """
    command = [sys.executable, "-c", holder, tmp_path / ".lock"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout.readline() == b"locked\n"
        error = fails(arguments(tmp_path), capsys)
        first.stdin.close()
    assert error.endswith(f"{tmp_path}: another process is already running this")
    assert not (tmp_path / "hyperparams.yaml").exists()


def test_recorded_noise_and_rooms(arguments, tmp_path):
    rng = np.random.default_rng(0)
    for kind, samples in (
        ("noise", rng.standard_normal(48000) * 0.1),
        ("rir", np.exp(-np.arange(4000) / 800) * rng.standard_normal(4000) * 0.1),
    ):
        (tmp_path / kind).mkdir()
        soundfile.write(tmp_path / kind / "a.wav", samples, 16000)
    train.main(
        arguments(
            tmp_path / "out",
            noise_folder=tmp_path / "noise",
            rir_folder=tmp_path / "rir",
            number_of_epochs=1,
        )
    )
    assert (tmp_path / "out" / "test" / "scores.csv").exists()


@pytest.mark.parametrize(
    ("name", "snrs"),
    [("mini_dereverb", set()), ("mini_joint", {"0", "5", "10", "15"})],
)
def test_rooms_are_simulated_with_and_without_noise(name, snrs, arguments, tmp_path):
    _, *flags = arguments(
        tmp_path, number_of_epochs=1, simulated_rooms=3, rt60=[0.2, 0.25]
    )
    train.main([str(ROOT / "hparams" / f"{name}.yaml"), *flags])
    summary = json.loads((tmp_path / "test" / "summary.json").read_text())
    assert set(summary["snr"]) == snrs
    assert si_sdr_of(tmp_path, "noisy") < 10  # clean twice: no bound


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("fine_tune", ["frozen", "partial"])
def test_what_is_frozen_stays_as_it_was(fine_tune, arguments, tmp_path, ssl_folder):
    train.main(arguments(tmp_path, fine_tune=fine_tune, number_of_epochs=1))
    before = load_file(Path(ssl_folder("wavlm")) / "model.safetensors")
    after = CFFMAEnhancer.from_pretrained(tmp_path / "model").embedding.ssl.model
    changed = {
        key for key, value in after.state_dict().items()
        if not torch.equal(value, before[key])
    }  # fmt: skip
    if fine_tune == "frozen":
        assert changed == set()
    else:
        assert changed
        assert not any("feature_extractor" in key for key in changed)


# --- interruption ---


def epochs_of(folder):
    """What the log says of each epoch, the means of the loss and its terms among it."""
    lines = (folder / "train_log.txt").read_text().splitlines()
    assert "train loss_log1p" in lines[0]
    return sorted(set(lines))


@pytest.fixture(scope="module")
def resumable(arguments):
    """Arguments of a run with dropout, accumulation and checkpoints within epochs."""

    def make(folder):
        return arguments(
            folder,
            steps_per_epoch=10,
            grad_accumulation_factor=2,
            ckpt_interval_minutes=0,
            ckpt_interval_steps=3,
            lr_schedule="linear",
        )

    return make


@pytest.fixture(scope="module")
def uninterrupted(resumable, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert trained(resumable(folder)) == [0]
    return folder


@pytest.mark.parametrize(
    "deaths",
    [
        # In mid-epoch, in both epochs (5 optimiser steps each).
        [("step", 4), ("step", 5)],
        # While the first, and a later, checkpoint is being written.
        [("save", 2), ("save", 8)],
    ],
    ids=["in mid-epoch", "while saving"],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    deaths, resumable, uninterrupted, tmp_path
):
    for death in deaths:
        assert trained(resumable(tmp_path), dies=death) == [-9]
    assert trained(resumable(tmp_path)) == [0]
    assert_same_model(uninterrupted, tmp_path)
    assert epochs_of(tmp_path) == epochs_of(uninterrupted)


def test_the_epoch_is_not_lost_where_the_scoring_fails(
    arguments, tmp_path, monkeypatch, capsys
):
    argv = arguments(tmp_path, number_of_epochs=1, steps_per_epoch=1)
    with monkeypatch.context() as patch:
        unscored = {"pesq": None, "stoi": None, "si_sdr": None, "failed": "no memory"}
        patch.setattr("speechbrain_cffma.metrics.scoring.score", lambda *_: unscored)
        line = fails(argv, capsys)
    assert "no validation utterance has a pesq score (no memory)" in line
    assert not scores_of_checkpoints(tmp_path)
    train.main(argv)
    assert len(scores_of_checkpoints(tmp_path)) == 1
    # It was scored, not trained again.
    assert "train loss" not in (tmp_path / "train_log.txt").read_text()


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(
    arguments, tmp_path, capsys
):
    # The warm-up begins at 0: the first step leaves the weights as they are.
    line = fails(
        arguments(tmp_path, lr=1e38, ckpt_interval_minutes=0, ckpt_interval_steps=1),
        capsys,
    )
    assert "the loss is nan in epoch 1, step 3" in line
    assert "en/" in line
    (checkpoint,) = (tmp_path / "checkpoints").glob("CKPT*")
    weights = torch.load(checkpoint / "enhancer.ckpt")
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.usefixtures("no_report")
def test_a_learning_rate_that_a_resumed_run_does_not_take_is_said(arguments, tmp_path):
    train.main(arguments(tmp_path, number_of_epochs=1))
    train.main(arguments(tmp_path, number_of_epochs=2, lr=0.123))
    log = (tmp_path / "log.txt").read_text()
    assert "continues with the initial head learning rate of its checkpoint" in log
    assert "0.123" in log
    assert "ssl learning rate" not in log


def test_two_processes_train_and_evaluate(arguments, tmp_path):
    argv = arguments(tmp_path, number_of_epochs=1, distributed_backend="gloo")
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    code, error = run([*launch, "train.py", *argv], script="-m")
    assert code == 0, error
    assert "epoch: 1" in (tmp_path / "train_log.txt").read_text()
    assert CFFMAEnhancer.from_pretrained(tmp_path / "model")


@pytest.fixture(scope="module")
def train_by(arguments, ssl_folder, tmp_path_factory):
    """`train_by(name, n_processes, n_epochs)`: a run of a global batch of 4 without dropout;
    gives the lines of its epochs and the weights of its last checkpoint."""
    rates = ("hidden", "attention", "activation", "feat_proj")
    ssl = ssl_folder("wavlm", **{f"{part}_dropout": 0.0 for part in rates})
    root = tmp_path_factory.mktemp("processes")

    def train_by(name, n_processes, n_epochs):
        argv = arguments(
            root / name,
            ssl_source=ssl,
            dropout=0.0,
            number_of_epochs=n_epochs,
            batch_size=4 // n_processes,
            lr_schedule="constant_with_warmup",
            distributed_backend="gloo",
        )
        assert trained(argv, n_processes) == [0] * n_processes
        last = max((root / name / "checkpoints").glob("CKPT*"))
        log = (root / name / "train_log.txt").read_text().splitlines()
        curve = [line for line in log if "train loss" in line]
        return curve, torch.load(last / "enhancer.ckpt")

    return train_by


@pytest.fixture(scope="module")
def by_one_process(train_by):
    return train_by("one", 1, 2)


def assert_same_run(one, other):
    (curve, weights), (other_curve, other_weights) = one, other
    assert curve == other_curve
    for name, value in weights.items():
        torch.testing.assert_close(other_weights[name], value, atol=1e-5, rtol=0)


def test_two_processes_follow_the_curve_of_one(train_by, by_one_process):
    assert_same_run(by_one_process, train_by("two", 2, 2))


def test_a_run_goes_on_with_another_number_of_processes(train_by, by_one_process):
    train_by("mixed", 2, 1)
    assert_same_run(by_one_process, train_by("mixed", 1, 2))


# --- bad input: one clear line each ---


def test_an_ssl_source_that_can_not_be_loaded(arguments, tmp_path, capsys):
    line = fails(arguments(tmp_path, ssl_source="nobody/no-such-model"), capsys)
    assert "'nobody/no-such-model' can't be loaded" in line
    assert "--ssl_source=FOLDER" in line


def test_an_override_that_matches_no_key(arguments, tmp_path, capsys):
    line = fails(arguments(tmp_path, fusd_dim=64), capsys)
    assert "no key 'fusd_dim' to override: did you mean --fused_dim?" in line


def test_a_missing_data_folder(arguments, tmp_path, capsys):
    line = fails(arguments(tmp_path, speech_folder=tmp_path / "none"), capsys)
    assert f"the folder {tmp_path / 'none'} does not exist" in line


@pytest.mark.usefixtures("no_report")
def test_a_checkpoint_of_another_variant(arguments, tmp_path, capsys):
    train.main(arguments(tmp_path, number_of_epochs=1))
    # Its weights have the same names and shapes.
    line = fails(arguments(tmp_path, variant="dilated"), capsys)
    assert "mask_estimator.fusion.dilations.1 is 1 there and 2 here" in line
    line = fails(arguments(tmp_path, fused_dim=64), capsys)
    assert "mask_estimator.fusion.fused_dim is 32 there and 64 here" in line


def test_evaluating_without_a_checkpoint(arguments, tmp_path, capsys):
    line = fails([*arguments(tmp_path), "--test_only"], capsys)
    assert "there is no checkpoint" in line


def test_a_wrong_value_of_a_choice(arguments, tmp_path, capsys):
    line = fails(arguments(tmp_path, fine_tune="full"), capsys)
    assert "fine_tune must be frozen, partial or entire" in line


def test_an_error_line_is_all_that_a_user_sees(arguments, tmp_path):
    code, error = run(arguments(tmp_path, speech_folder=tmp_path / "none"))
    assert code == 1
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith("error: ")
