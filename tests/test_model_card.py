"""The card of a model: what a run says of itself, and that nothing is invented."""

import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from speechbrain.nnet.losses import l1_loss

import train
from helpers.own_data import FLAT, write_pairs
from helpers.paths import ROOT
from helpers.runs import SMALL_RUN, command_line
from recipes.DynamicMix.prepare import if_only_bundled
from speechbrain_cffma.data.datasets import RecordedPairs
from speechbrain_cffma.data.manifest import write_manifest
from speechbrain_cffma.data.mixing import DynamicMixer
from speechbrain_cffma.hub.card import model_card
from speechbrain_cffma.lobes import CFFMAEnhancer, LogSpectrogram, NoEmbedding
from speechbrain_cffma.losses import ContrastStretching
from speechbrain_cffma.training.experiment import load_experiment, read_experiment
from speechbrain_cffma.training.provenance import describe_training, shareable_command

pytestmark = pytest.mark.slow

SHORT = {"number_of_epochs": 1, "steps_per_epoch": 2}
SAID = {"license": "cc-by-4.0", "training_data": "what we recorded"}


@pytest.fixture(scope="module", autouse=True)
def in_the_repository():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, arguments):
    """The output folder of a run whose data and licence were given."""
    folder = tmp_path_factory.mktemp("run")
    train.main(arguments(folder, **SHORT, **SAID))
    return folder


@pytest.fixture(scope="module")
def card(run_folder):
    return ModelCard.load(run_folder / "model" / "README.md")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Options for 20 pairs of one's own."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), FLAT)


@pytest.fixture(scope="module")
def fine_tuned_folder(run_folder, pairs, tmp_path_factory):
    """A run on pairs of one's own that started from that model."""
    folder = tmp_path_factory.mktemp("fine_tuned")
    options = {**SMALL_RUN, **SHORT, **pairs, "pretrained": run_folder / "model"}
    train.main(command_line("own_pairs", **options, output_folder=folder))
    return folder


@pytest.fixture(scope="module")
def fine_tuned(fine_tuned_folder):
    return ModelCard.load(fine_tuned_folder / "model" / "README.md")


def section(card, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card.text, re.M | re.S)[1]


def plain_card(enhancer):
    return ModelCard(model_card(enhancer))


# --- the card of a run


def test_the_metadata_tell_what_kind_of_model_it_is(card):
    assert card.data.library_name == "speechbrain"
    assert card.data.pipeline_tag == "audio-to-audio"
    assert card.data.license == "cc-by-4.0"
    assert {"speech-enhancement", "wavlm"} < set(card.data.tags)


def test_the_metadata_hold_the_scores_of_the_enhanced_files(card, run_folder):
    summary = json.loads((run_folder / "test" / "summary.json").read_text())
    scores = summary["overall"]["enhanced"]["scores"]
    found = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert card.data.model_name == "mini"
    assert list(found) == card.data.metrics == list(scores)
    for name, value in found.items():
        assert value == pytest.approx(scores[name]["mean"], abs=0.006)


def test_the_table_compares_noisy_and_enhanced_with_intervals(card):
    (row,) = [line for line in card.text.splitlines() if line.startswith("| SI-SDR")]
    interval = r"-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]"
    difference = r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]"
    assert re.fullmatch(
        rf"\| SI-SDR \(dB\) ↑ \| {interval} \| {interval} \| {difference} \|", row
    )
    assert "with the sample scale int16" in section(card, "Results")


def test_the_data_are_described_with_their_extent(card):
    training = section(card, "Training")
    assert re.search(r"what we recorded \(2\d files, [\d.]+ min\)", training)
    assert "mixed on the fly with synthetic noise at -5 to 20 dB" in training
    results = section(card, "Results")
    assert re.search(r"held-out speech.*\(4 files, .* SNR 0 to 15 dB\)", results)


def test_the_run_is_described_with_the_command_that_repeats_it(card):
    training = section(card, "Training")
    assert "2 steps, epoch 1" in training
    assert "seed 1234" in training
    assert "- **Loss:** log1p 1.\n" in training
    command = re.search(r"```bash\n(.*)\n```", training)[1]
    assert command.startswith("python train.py hparams/mini.yaml --output_folder=PATH")
    assert "--number_of_epochs=1" in command


def test_the_network_is_described(card):
    network = section(card, "Network")
    assert "WavLM, 2 layers with 32 channels" in network
    assert "MSCFF, then RHMA" in network


def test_the_licence_of_the_data_is_that_of_the_weights(card):
    assert "is under `cc-by-4.0`, and so are the weights" in section(card, "Licence")


def test_the_card_names_no_place_of_the_machine(card, run_folder, few_files):
    text = str(card)
    for path in (run_folder, few_files, ROOT):
        assert str(path) not in text
    assert not re.search(r"/(tmp|home|root|var)/", text)


def test_testing_again_writes_the_same_card(
    card,
    run_folder,
    arguments,
    tmp_path,
    scored_here,
):
    copy = shutil.copytree(run_folder, tmp_path / "run")
    path = copy / "model" / "README.md"
    path.unlink()
    train.main([*arguments(copy, **SHORT, **SAID), "--test_only"])
    assert path.read_text() == str(card)


def test_testing_on_other_files_leaves_what_is_said_of_the_training(
    fine_tuned, fine_tuned_folder, run_folder, tmp_path, scored_here
):
    others = write_pairs(tmp_path, ["x.wav", "y.wav", "z.wav"])
    options = {f"test_{name}": folder for name, folder in others.items()}
    options |= {"pretrained": run_folder / "model", **SMALL_RUN}
    copy = shutil.copytree(fine_tuned_folder, tmp_path / "run")
    argv = command_line("own_pairs", **options, output_folder=copy)
    train.main([*argv, "--test_only"])
    again = ModelCard.load(copy / "model" / "README.md")
    assert section(again, "Training") == section(fine_tuned, "Training")
    assert "(3 files," in section(again, "Results")


# --- licences


def test_of_recordings_of_ones_own_no_licence_is_stated(fine_tuned):
    assert fine_tuned.data.license is None
    assert "recordings of the user's own" in section(fine_tuned, "Training")
    assert "**Not stated.**" in section(fine_tuned, "Licence")


def test_the_model_that_it_started_from_stays_in_view(fine_tuned, card):
    started = "- **Started from** mini, whose licence is `cc-by-4.0`."
    assert started in section(fine_tuned, "Training")
    assert "started from apply too: `cc-by-4.0`" in section(fine_tuned, "Licence")
    assert card.text.strip() in fine_tuned.text


@pytest.fixture
def described(tiny_enhancer, tmp_path):
    """`described(card=None, **keys)`: the facts of a run of an enhancer with a card."""
    write_manifest(tmp_path / "train.csv", [])
    keys = {
        **dict.fromkeys(("training_data", "license", "pretrained", "lr", "lr_ssl")),
        **dict.fromkeys(("fine_tune", "lr_schedule", "batch_size", "seed")),
        "experiment": "mine",
        "loss": l1_loss,
        "waveform_loss": None,
        "loss_weights": None,
        "target_transform": None,
        "train_manifest": tmp_path / "train.csv",
        "valid_manifest": tmp_path / "train.csv",
        "pairs": RecordedPairs(),
        "crop_samples": 20480,
        "ssl_source": "microsoft/wavlm-base-plus",
        "enhancer": tiny_enhancer,
    }

    def describe(card=None, **given):
        tiny_enhancer.card = card
        return describe_training(SimpleNamespace(**{**keys, **given}), "")

    return describe


def test_stretched_targets_are_told(described):
    transform = ContrastStretching(LogSpectrogram())
    assert described()["targets"] is None
    assert described(target_transform=transform)["targets"] == "ContrastStretching"
    assert described(target_transform=torch.neg)["targets"] == "neg"


@pytest.mark.parametrize(
    ("own", "of_the_base", "of_both"),
    [
        ("cc-by-4.0", "cc-by-4.0", "cc-by-4.0"),
        ("cc-by-4.0", "cc-by-sa-3.0", "other"),
        (None, "cc-by-4.0", None),
    ],
)
def test_weights_under_two_licences(described, own, of_the_base, of_both):
    card = f"---\nlicense: {of_the_base}\n---\n"
    assert described(card, pretrained="me/base", license=own)["license"] == of_both


@pytest.mark.parametrize(
    "text", ["no metadata", "---\n- a list\n---\n", "---\n: {\n---\n"]
)
def test_a_card_of_someones_own_form_stops_no_run(described, text):
    base = described(text, pretrained="me/base")["base"]
    assert (base["license"], base["text"]) == (None, text.strip())


def test_the_model_that_it_started_from_is_its_base_model(described, tmp_path):
    assert described()["base_model"] == "microsoft/wavlm-base-plus"
    assert described(pretrained="me/base")["base_model"] == "me/base"
    assert described(pretrained=str(tmp_path))["base_model"] is None


def test_an_ssl_model_that_is_not_part_of_the_network_is_none(described):
    without = CFFMAEnhancer(NoEmbedding(), None, None)
    assert described(enhancer=without)["base_model"] is None


@pytest.mark.parametrize(
    ("experiment", "licence"),
    [
        ("mini", "cc-by-sa-3.0"),
        ("mini_joint", "cc-by-sa-3.0"),
        ("vbd_wavlm", "cc-by-4.0"),
        ("vbd_wav2vec2", "cc-by-4.0"),
        ("whamr_joint_wavlm", "other"),
        ("own_pairs", None),
    ],
)
def test_the_experiments_state_the_licence_of_their_data(experiment, licence):
    text = read_experiment(ROOT / "hparams" / f"{experiment}.yaml")
    assert load_experiment(text, only="license") == licence
    has_description = load_experiment(text, only="training_data") is not None
    assert has_description == (licence is not None)


def test_the_licence_of_the_bundled_speech_is_not_that_of_other_speech(tmp_path):
    bundled = ROOT / "recipes" / "DynamicMix" / "speech"
    assert if_only_bundled("cc-by-sa-3.0", [bundled, None]) == "cc-by-sa-3.0"
    for others in (tmp_path, [bundled, tmp_path]):
        assert if_only_bundled("cc-by-sa-3.0", [bundled, others]) is None


# --- parts


def test_a_hub_id_is_kept_in_the_command_and_a_folder_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "wavlm").mkdir()
    command = shareable_command(
        ["a/b/mine.yaml", "--ssl_source=microsoft/wavlm-large", "--test_only"]
        + ["--speech_folder=my", "--rir_folder", "~/rooms", "--pretrained=my/wavlm"]
    )
    assert command == (
        "python train.py hparams/mine.yaml --ssl_source=microsoft/wavlm-large "
        "--speech_folder=PATH --rir_folder PATH --pretrained=PATH"
    )


def test_recorded_noise_and_rooms_are_described(tmp_path):
    for name, rows in (("speech", 1), ("noise", 3), ("rir", 2)):
        manifest = [{"ID": str(i), "duration": 1.0} for i in range(rows)]
        write_manifest(tmp_path / f"{name}.csv", manifest)
    paths = [tmp_path / f"{name}.csv" for name in ("speech", "noise", "rir")]
    assert DynamicMixer(*paths).describe() == (
        "mixed on the fly with synthetic noise (share 0.3) and 3 recordings of noise at "
        "-5 to 20 dB, and 2 room impulse responses (share 0.5), with the dry speech as target"
    )
    assert DynamicMixer(*paths, reverberant_share=1, with_noise=False).describe() == (
        "mixed on the fly with 2 room impulse responses (share 1), with the dry speech as target"
    )


# --- the card of a model of unknown origin


def test_of_a_model_without_a_run_nothing_is_invented(tiny_enhancer):
    card = plain_card(tiny_enhancer)
    titles = re.findall(r"^## (.*)", card.text, re.M)
    assert titles == ["How to use", "Network", "Limits", "Licence"]
    assert card.data.license is None
    assert card.data.eval_results is None


def test_saving_without_a_run_writes_this_card(tiny_enhancer, tmp_path):
    folder = tiny_enhancer.save_pretrained(tmp_path / "m")
    written = (folder / "README.md").read_text()
    assert written == model_card(tiny_enhancer)


def test_loading_and_saving_again_keeps_the_card(run_folder, card, tmp_path):
    loaded = CFFMAEnhancer.from_pretrained(run_folder / "model")
    folder = loaded.save_pretrained(tmp_path / "m")
    assert (folder / "README.md").read_text() == str(card)


def test_the_python_of_the_card_loads_the_model(tiny_enhancer, tmp_path, monkeypatch):
    """Each line that names MODEL, so that none grows stale."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # foreign_class adds to it
    text = model_card(tiny_enhancer)
    folder = tiny_enhancer.save_pretrained(tmp_path / "m")
    imports = re.findall(r"^from .* import .*$", text, re.M)
    loading = re.findall(r"^enhancer = .*\"MODEL\".*$", text, re.M)
    assert (len(imports), len(loading)) == (3, 3)
    for line in loading:
        exec("\n".join([*imports, line.replace("MODEL", str(folder))]), {})
