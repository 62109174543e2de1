"""SpeechBrain's interface: what `enhance_batch` does with a padded batch."""

import pytest
import torch

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.interface import EnhancerInterface

LENGTHS = torch.tensor([1.0, 0.73, 0.31])


@pytest.fixture
def interface(tiny_enhancer):
    """As `foreign_class(..., freeze_params=False)` gives it: in training mode."""
    modules = {"enhance_model": tiny_enhancer.train()}
    options = {"run_opts": {"device": "cpu"}, "freeze_params": False}
    return EnhancerInterface(modules, {}, **options)


@pytest.fixture
def batch(speech):
    return speech[:48000].view(3, 16000)


def test_each_utterance_comes_out_as_alone(interface, batch):
    enhanced = interface.enhance_batch(batch, LENGTHS)
    for row, wav, n in zip(enhanced, batch, [16000, 11680, 4960], strict=True):
        alone = interface.enhance(wav[:n])
        torch.testing.assert_close(row[:n], alone, atol=1e-5, rtol=0)


def test_a_model_that_learns_is_heard_without_dropout(interface, batch):
    enhanced = interface.enhance_batch(batch, LENGTHS)
    assert torch.equal(interface.enhance_batch(batch, LENGTHS), enhanced)
    assert interface.mods.enhance_model.training


def test_it_may_be_packed_in_bfloat16(interface, batch):
    expected = interface.enhance_batch(batch, LENGTHS)
    enhanced = interface.pack("bf16").enhance_batch(batch, LENGTHS)
    assert enhanced.dtype == torch.float32
    assert (enhanced - expected).norm() < 0.1 * expected.norm()


def test_numbers_of_samples_are_no_lengths(interface, batch):
    with pytest.raises(InputError, match="lengths must be relative, from 0 to 1, not"):
        interface.enhance_batch(batch, [16000, 11680, 4960])


def test_each_waveform_needs_a_length(interface, batch):
    with pytest.raises(InputError, match="3 waveforms need lengths"):
        interface.enhance_batch(batch, [1.0, 0.5])
