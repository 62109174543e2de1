"""Every experiment in hparams/ prepares its data, trains, writes its model and reports."""

import pytest

import train
from helpers import voicebank, whamr
from helpers.own_data import dynamic_mix, write_pairs
from helpers.paths import HPARAMS, ROOT
from helpers.runs import GIVEN, SMALL_NETWORK, SMALL_RUN, command_line
from speechbrain_cffma.lobes import CFFMAEnhancer
from speechbrain_cffma.training.experiment import read_defaults

pytestmark = pytest.mark.slow

#: Without the pre-training of SSL models, which tests/test_pretraining.py specifies,
#: and without what all experiments include.
EXPERIMENTS = sorted(
    {p.stem for p in HPARAMS.glob("*.yaml")} - {"pretrain", "run", "enhancement"}
)


def paired_folders(folder):
    """20 pairs."""
    return write_pairs(folder, [f"{i:02d}.wav" for i in range(20)])


#: For each folder of recipes/, what writes small data of its form into a folder, and
#: returns the options that an experiment is given for them.
DATA = {
    "DynamicMix": dynamic_mix,
    "PairedFolders": paired_folders,
    "VoiceBank": lambda folder: {"data_folder": voicebank.write_tree(folder)},
    "WHAMR": lambda folder: {
        "data_folder": whamr.write_tree(folder),
        "allow_subset": True,
    },
}


def recipe_of(experiment):
    """The folder of recipes/ that prepares an experiment's data."""
    tree = read_defaults(HPARAMS / f"{experiment}.yaml")
    step = tree.get("prepare_mix", tree["prepare"])
    return str(step.tag).split(".")[1]


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


@pytest.mark.usefixtures("quick_runs")
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
