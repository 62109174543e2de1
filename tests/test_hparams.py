"""Every experiment in hparams/ prepares its data, trains, writes its model and reports."""

import shutil

import pytest
from ruamel.yaml import YAML
from test_own_data import write_pairs
from test_training import (
    ROOT,
    SMALL_MIX,
    SMALL_NETWORK,
    SMALL_RUN,
    SPEECH,
    command_line,
)
from test_voicebank import write_tree as write_voicebank
from test_whamr import write_tree as write_whamr

import train
from speechbrain_cffma.lobes import CFFMAEnhancer

HPARAMS = ROOT / "hparams"
#: Without the pre-training of SSL models, which tests/test_pretraining.py specifies.
EXPERIMENTS = sorted({p.stem for p in HPARAMS.glob("*.yaml")} - {"base", "pretrain"})
#: What experiments must be given beside small data.
GIVEN = {
    "default": {
        "noise_folder": "null",
        **dict.fromkeys(("test_noises", "valid_noises", "left_out_noises"), "[]"),
    }
}


def dynamic_mix(folder):
    """A speech folder of 20 files of two speakers."""
    for speaker, count in (("en", 16), ("ru", 4)):
        (folder / speaker).mkdir(parents=True)
        for path in sorted((SPEECH / speaker).glob("*.opus"))[:count]:
            shutil.copy(path, folder / speaker)
    rooms = {"simulated_rooms": 2, "rt60": [0.2, 0.25]}
    return {"speech_folder": folder, **rooms, **SMALL_MIX}


def paired_folders(folder):
    """20 pairs."""
    return write_pairs(folder, [f"{i:02d}.wav" for i in range(20)])


#: For each folder of recipes/, what writes small data of its form into a folder, and
#: returns the options that an experiment is given for them.
DATA = {
    "DynamicMix": dynamic_mix,
    "PairedFolders": paired_folders,
    "VoiceBank": lambda folder: {"data_folder": write_voicebank(folder)},
    "WHAMR": lambda folder: {
        "data_folder": write_whamr(folder),
        "allow_subset": True,
    },
}


def recipe_of(experiment):
    """The folder of recipes/ that prepares an experiment's data."""
    path = HPARAMS / f"{experiment}.yaml"
    while True:
        tree = YAML().load(path)
        if "prepare" in tree:
            return str(tree["prepare"].tag).split(".")[1]
        path = path.parent / tree["base"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`data(recipe)`: the options for small data, which are written once."""
    options = {}

    def make(recipe):
        if recipe not in DATA:
            pytest.fail(
                f"no small data of the form of recipes/{recipe} are known: add what "
                "writes them to DATA in tests/test_hparams.py"
            )
        if recipe not in options:
            folder = tmp_path_factory.mktemp(recipe) / "data"
            options[recipe] = DATA[recipe](folder)
        return options[recipe]

    return make


@pytest.mark.usefixtures("scored_here")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_trains_and_reports(experiment, data, ssl_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    small_network = {**SMALL_NETWORK, "ssl_source": ssl_folder("wavlm")}
    options = {
        **data(recipe_of(experiment)),
        **GIVEN.get(experiment, {}),
        **SMALL_RUN,
        # The demo has the default model's network.
        **({} if experiment == "demo" else small_network),
        "output_folder": tmp_path,
        "manifest_folder": tmp_path / "manifests",
        "number_of_epochs": 1,
        "steps_per_epoch": 2,
        "n_examples": 0,
    }
    train.main(command_line(experiment, **options))
    assert "step: 2" in (tmp_path / "train_log.txt").read_text()
    assert (tmp_path / "test" / "report.html").exists()
    assert CFFMAEnhancer.from_pretrained(tmp_path / "model")
