"""Self-supervised pre-training: what is masked and predicted, and the model it writes."""

import pytest
import torch

import train
from helpers.own_data import dynamic_mix
from helpers.paths import ROOT
from helpers.runs import GIVEN, SMALL_RUN, command_line
from recipes.Pretrain.masked_prediction import MaskedPrediction
from speechbrain_cffma.lobes import load_ssl

pytestmark = pytest.mark.slow


@pytest.fixture
def predictor(tiny_wavlm):
    return MaskedPrediction(tiny_wavlm, n_labels=16).eval()


@pytest.fixture
def clean(speech):
    return speech[:20480].unsqueeze(0)


def seeded(function, *arguments):
    torch.manual_seed(0)
    return function(*arguments)


class TestMaskedPrediction:
    def test_labels_are_of_the_clean_side(self, predictor, clean):
        labels = predictor.labels(clean, 63)
        assert labels.shape == (1, 63)
        assert len(labels.unique()) > 4
        assert torch.equal(labels, predictor.labels(clean, 63))

    def test_labels_do_not_depend_on_the_level(self, predictor, clean):
        same = predictor.labels(clean, 63) == predictor.labels(0.1 * clean, 63)
        assert same.float().mean() > 0.9

    def test_the_model_hears_the_noisy_side(self, predictor, clean):
        noisy = clean + 0.1 * torch.randn_like(clean)
        first, second = (seeded(predictor, heard, clean)[0] for heard in (noisy, clean))
        assert first != second

    def test_the_share_of_masked_frames(self, predictor, clean):
        """A frame is not masked if no mask begins in the 10 frames up to it."""
        _, _, labels = predictor(clean.expand(64, -1), clean.expand(64, -1))
        expected = 1 - (1 - 0.065) ** 10
        assert len(labels) / (64 * 63) == pytest.approx(expected, abs=0.06)

    def test_masked_frames_are_not_heard(self, predictor, clean):
        """With all frames masked, what is said makes no difference."""
        predictor.mask_prob = 1.0
        hidden = []
        predictor.output.register_forward_hook(lambda _, x, y: hidden.append(x[0]))
        predictor(clean, clean)
        predictor(torch.randn_like(clean), clean)
        torch.testing.assert_close(*hidden)

    def test_unmasked_frames_count_by_their_weight(self, predictor, clean):
        losses = {}
        for weight in (0.0, 0.5, 1.0):
            predictor.unmasked_weight = weight
            losses[weight] = seeded(predictor, clean, clean)[0].item()
        assert losses[0.0] < losses[1.0]
        assert losses[0.5] == pytest.approx((losses[0.0] + losses[1.0]) / 2, rel=1e-5)

    def test_a_normalizing_model_hears_soft_and_loud_alike(self, tiny_wavlm, clean):
        tiny_wavlm.normalize_wav = True
        predictor = MaskedPrediction(tiny_wavlm, n_labels=16).eval()
        losses = [seeded(predictor, g * clean, clean)[0].item() for g in (0.1, 1.0)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)

    def test_something_is_masked_in_each_item(self, predictor, clean):
        predictor.mask_prob = 0.0
        loss, _, labels = predictor(clean.expand(3, -1), clean.expand(3, -1))
        assert len(labels) == 3
        assert torch.isfinite(loss)

    def test_it_learns(self, predictor, clean):
        predictor.train()
        optimizer = torch.optim.Adam(predictor.parameters(), lr=0.003)
        losses = []
        for _ in range(80):
            loss, _, _ = predictor(clean.expand(8, -1), clean.expand(8, -1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.fixture
def pretrain(ssl_folder, tmp_path, monkeypatch):
    """`pretrain(**options)`: a small run of hparams/pretrain.yaml in tmp_path / "run"."""
    monkeypatch.chdir(ROOT)

    data = dynamic_mix(tmp_path / "speech")

    def run(*flags, **options):
        given = {
            **GIVEN["default"],
            "manifest_folder": tmp_path / "data",
            "ssl_source": ssl_folder("wavlm"),
            "output_folder": tmp_path / "run",
            **SMALL_RUN,
            **data,
        }
        del given["n_examples"], given["metric_workers"]  # there is no report
        train.main([*command_line("pretrain", **{**given, **options}), *flags])

    return run


def test_a_run_writes_an_ssl_model_that_experiments_load(pretrain, tmp_path, capsys):
    pretrain(number_of_epochs=1)
    assert "masked frames of unseen speech: " in capsys.readouterr().out
    learnt = load_ssl(tmp_path / "run" / "ssl").model
    assert learnt.config.num_hidden_layers == 2
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("*/predictor.ckpt"))
    weights = torch.load(checkpoint)
    for name, value in learnt.state_dict().items():
        assert torch.equal(value, weights[f"ssl.{name}"]), name


def test_what_was_written_can_be_trained_further(pretrain, tmp_path):
    pretrain(number_of_epochs=1)
    again = tmp_path / "again"
    pretrain(number_of_epochs=1, ssl_source=tmp_path / "run/ssl", output_folder=again)
    assert load_ssl(again / "ssl").model.masked_spec_embed is not None


def test_a_run_goes_on_where_it_stopped(pretrain, tmp_path):
    pretrain(number_of_epochs=1)
    pretrain()
    log = (tmp_path / "run" / "train_log.txt").read_text()
    assert log.count("epoch: 1,") == log.count("epoch: 2,") == 1


def test_without_a_checkpoint_there_is_nothing_to_test(pretrain, capsys):
    with pytest.raises(SystemExit):
        pretrain("--test_only")
    assert "train first" in capsys.readouterr().err
