"""Small runs of train.py, their messages and their results."""

import json

import pytest
import torch
from safetensors.torch import load_file

import train
from helpers.paths import ROOT
from speechbrain_cffma.workers import Outcome

#: Options that make a run of any experiment take seconds.
SMALL_RUN = {
    "number_of_epochs": 2,
    "steps_per_epoch": 4,
    "batch_size": 2,
    "warmup_steps": 2,
    "num_workers": 0,
    "metric_workers": 1,
    "n_examples": 0,
    "device": "cpu",
}
SMALL_NETWORK = {"fused_dim": 32, "dim": 16}
#: Options for few fixed pairs of an experiment that mixes on the fly.
SMALL_MIX = {"n_valid": 2, "n_test": 4}
#: Further options that experiments need with small data.
GIVEN = {
    "default": {
        "noise_folder": "null",
        **dict.fromkeys(("test_noises", "valid_noises", "left_out_noises"), "[]"),
    }
}


def command_line(experiment, **options):
    """Arguments of `train.main`."""
    flags = [f"--{key}={value}" for key, value in options.items()]
    return [str(ROOT / "hparams" / f"{experiment}.yaml"), *flags, "--noprogressbar"]


def map_here(function, arguments, n_jobs, time_limits=None, on_note=None):
    """`workers.parallel_map` in this process, since starting processes takes long."""
    getattr(function, "prepare", lambda: None)()
    for index, its_arguments in enumerate(arguments):
        yield Outcome(index, function(*its_arguments))


def fails(argv, capsys):
    """Run a command that must fail; return the error line from standard error."""
    with pytest.raises(SystemExit) as stop:
        train.main(argv)
    assert stop.value.code == 1
    (line,) = [e for e in capsys.readouterr().err.splitlines() if "error: " in e]
    return line


def si_sdr_of(folder, system="enhanced"):
    """The mean SI-SDR over the test set of a run."""
    summary = json.loads((folder / "test" / "summary.json").read_text())
    return summary["overall"][system]["scores"]["si_sdr"]["mean"]


def assert_same_model(a, b):
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (a, b)]
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
