"""The lobes in a stock SpeechBrain recipe that names them and knows nothing else of them."""

import math
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_cffma.lobes import SCTA

RECIPE = Path(__file__).with_name("stock_recipe.yaml")


class StockBrain(sb.Brain):
    """What a recipe for a spectral mask holds."""

    def compute_forward(self, batch, stage):
        noisy, _ = batch
        spectrum, _ = self.modules.spectrogram(noisy)
        embedding = self.modules.embedding(noisy, spectrum.shape[1])
        return self.modules.mask_estimator(spectrum, embedding) * spectrum

    def compute_objectives(self, predictions, batch, stage):
        _, clean = batch
        target, _ = self.modules.spectrogram(clean)
        return sb.nnet.losses.l1_loss(predictions, target)


@pytest.fixture(params=["published", "without_scta"])
def recipe(request, ssl_folder, tmp_path):
    """The recipe as loaded, and its variant by one line of YAML."""
    overrides = {
        "ssl_source": ssl_folder("wavlm"),
        "save_folder": str(tmp_path),
        "mask_estimator": f"!ref <{request.param}>",
    }
    overrides = "\n".join(f"{key}: {value}" for key, value in overrides.items())
    with open(RECIPE) as file:
        return load_hyperpyyaml(file, overrides)


@pytest.fixture
def pairs(speech):
    """Two batches of real speech with noise, and without."""
    clean = speech[:16000].view(4, 4000)
    data = torch.utils.data.TensorDataset(clean + 0.1 * torch.randn(4, 4000), clean)
    return torch.utils.data.DataLoader(data, batch_size=2)


def test_two_training_steps_change_the_parameters(recipe, pairs):
    brain = StockBrain(recipe["modules"], recipe["opt_class"], recipe)
    before = {name: p.detach().clone() for name, p in brain.modules.named_parameters()}
    brain.fit(range(1), pairs, progressbar=False)
    assert brain.optimizer_step == 2
    assert math.isfinite(brain.evaluate(pairs, progressbar=False))
    changed = {
        name
        for name, parameter in brain.modules.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert changed == {
        name
        for name in before
        if ".feature_extractor." not in name and not name.endswith("masked_spec_embed")
    }


def test_training_lowers_the_loss(recipe, pairs):
    brain = StockBrain(recipe["modules"], recipe["opt_class"], recipe)
    first = brain.evaluate(pairs, progressbar=False)
    brain.fit(range(5), pairs, progressbar=False)
    assert brain.evaluate(pairs, progressbar=False) < 0.95 * first


def test_variant_has_the_parts_that_its_yaml_names(recipe):
    n_scta = sum(isinstance(part, SCTA) for part in recipe["mask_estimator"].modules())
    expected = 2 if recipe["mask_estimator"] is recipe["published"] else 0
    assert n_scta == expected
