"""A run that version 0.1.0 began goes on: its names, its keys, its checkpoint.

`run_of_0.1.0` is a run of commit 310f12f, stopped in its second epoch:

    python train.py hparams/own_mix.yaml --speech_folder=SPEECH --output_folder=RUN \\
        --variant=input_spectrogram --fused_dim=8 --dim=4 --number_of_epochs=2 \\
        --steps_per_epoch=3 --batch_size=2 --warmup_steps=2 --num_workers=0 \\
        --metric_workers=1 --n_examples=0 --device=cpu --n_valid=2 --n_test=4 \\
        --simulated_rooms=2 --rt60='[0.2, 0.25]' --crop_samples=8000

`end.safetensors` are the weights with which 0.1.0 ended the same run.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from helpers.own_data import dynamic_mix
from helpers.paths import ROOT

pytestmark = pytest.mark.slow

STORED = Path(__file__).parent / "run_of_0.1.0"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The stored run, in a folder of its own and with its data."""
    monkeypatch.chdir(ROOT)
    dynamic_mix(tmp_path / "speech")
    folder = shutil.copytree(STORED, tmp_path / "run")
    path = folder / "hyperparams.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("SPEECH", str(tmp_path / "speech")).replace("RUN", str(folder))
    path.write_text(text, encoding="utf-8")
    return folder


def test_it_ends_as_version_0_1_0_would_have_ended_it(run, scored_here):
    train.main([str(run / "hyperparams.yaml"), "--device=cpu", "--noprogressbar"])
    expected = load_file(run / "end.safetensors")
    (path,) = run.glob("checkpoints/*/enhancer.ckpt")
    weights = torch.load(path, weights_only=True)
    assert weights.keys() == expected.keys()
    # 0 on the machine that made the end; other processors round otherwise. Crops by
    # another seed make it 2e-4.
    differences = [(weights[name] - expected[name]).abs().mean() for name in expected]
    assert max(differences) < 1e-6
    first, second, _ = (run / "train_log.txt").read_text().splitlines()
    assert first.startswith("epoch: 1, step: 3")
    assert second.startswith(
        "epoch: 2, step: 6, lr_head: 1.00e-04 - train loss: 1.61e-01"
    )
