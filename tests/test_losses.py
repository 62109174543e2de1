"""Losses: nothing between equals, more for more noise, the same at any level."""

import pytest
import torch

from speechbrain_cffma.losses import MultiResolutionLoss


@pytest.fixture
def clean(speech):
    return speech.unsqueeze(0)


@pytest.fixture
def noise(clean):
    return torch.randn_like(clean) * clean.std()


class TestMultiResolutionLoss:
    def test_is_zero_between_equals(self, clean):
        assert MultiResolutionLoss()(clean, clean) < 1e-12

    def test_grows_with_the_noise(self, clean, noise):
        loss = MultiResolutionLoss()
        values = [loss(clean + gain * noise, clean) for gain in (0.01, 0.1, 1.0)]
        assert 0 < values[0] < values[1] < values[2]

    def test_does_not_depend_on_the_level(self, clean, noise):
        loss = MultiResolutionLoss()
        loud = loss(clean + noise, clean)
        soft = loss(0.01 * (clean + noise), 0.01 * clean)
        assert soft == pytest.approx(loud.item(), rel=0.02)

    def test_without_the_phase_a_change_of_sign_costs_nothing(self, clean):
        assert MultiResolutionLoss(phase_weight=0)(-clean, clean) < 1e-6

    def test_with_the_phase_it_does(self, clean):
        assert MultiResolutionLoss(phase_weight=0.3)(-clean, clean) > 0.01

    def test_lost_speech_counts_more_than_kept_noise(self, clean):
        """Of the same distance: a loss that is symmetric takes them for equal."""
        loud = 2 * clean
        even, uneven = (
            [loss(soft, of) for soft, of in ((clean, loud), (loud, clean))]
            for loss in (
                MultiResolutionLoss(phase_weight=0, asymmetry=0),
                MultiResolutionLoss(phase_weight=0, asymmetry=3),
            )
        )
        assert even[0] == pytest.approx(even[1].item(), rel=1e-4)
        assert uneven[0] == pytest.approx(4 * uneven[1].item(), rel=1e-4)

    def test_quiet_noise_counts_more_than_by_its_power(self, clean, noise):
        """As much power between the words as in them is heard more there."""
        loss = MultiResolutionLoss(phase_weight=0)
        level = torch.nn.functional.avg_pool1d(clean.abs(), 1601, 1, 800)
        loud = level > level.median()
        between, within = (noise * place * 0.1 for place in (~loud, loud))
        assert loss(clean + between, clean) > loss(clean + within, clean)

    def test_the_gradient_is_finite_at_silence(self, clean):
        enhanced = torch.zeros_like(clean, requires_grad=True)
        MultiResolutionLoss()(enhanced, torch.zeros_like(clean)).backward()
        assert torch.isfinite(enhanced.grad).all()

    def test_each_item_counts_alike(self, clean, noise):
        loss = MultiResolutionLoss()
        pairs = [(clean + noise, clean), (0.1 * (clean + 0.1 * noise), 0.1 * clean)]
        alone = [loss(*pair).item() for pair in pairs]
        batch = loss(*(torch.cat(side) for side in zip(*pairs, strict=True)))
        assert batch.item() == pytest.approx(sum(alone) / 2, rel=1e-5)
