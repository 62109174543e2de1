"""Packing fixes the weights for inference; what the network computes stays."""

import copy
import pickle

import pytest
import torch

from helpers.signals import ratio_db
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.inference import packed
from speechbrain_cffma.inference.packed import PackedLinear


@pytest.fixture
def noisy(speech):
    return speech + 0.02 * torch.randn_like(speech)


def n_packed(enhancer):
    return sum(isinstance(module, PackedLinear) for module in enhancer.modules())


class TestFloat32:
    def test_gives_the_same_for_a_batch(self, tiny_enhancer, noisy):
        expected = tiny_enhancer.enhance(noisy)
        batch = tiny_enhancer.pack("fp32").enhance(noisy.expand(3, -1), batch_size=3)
        for enhanced in batch:
            torch.testing.assert_close(enhanced, expected, atol=1e-5, rtol=0)


class TestBfloat16:
    @pytest.mark.parametrize("is_x86", [True, False])
    def test_is_close_to_float32(self, tiny_enhancer, noisy, monkeypatch, is_x86):
        if not is_x86:
            monkeypatch.setattr(packed, "can_pack", lambda weight: False)
        full = tiny_enhancer.enhance(noisy).numpy()
        half = tiny_enhancer.pack("bf16").enhance(noisy).numpy()
        assert (half != full).any()
        assert ratio_db(full, half - full) > 20

    def test_takes_half_the_memory(self, tiny_enhancer):
        linear = tiny_enhancer.mask_estimator.fusion.fuse
        conv = tiny_enhancer.mask_estimator.fusion.bottleneck
        n_bytes = linear.weight.nbytes + conv.weight.nbytes
        tiny_enhancer.pack("bf16")
        linear = tiny_enhancer.mask_estimator.fusion.fuse
        is_packed = isinstance(linear, PackedLinear)  # not before AVX-512
        weight = linear.packed_weight if is_packed else linear.weight
        assert weight.nbytes + conv.weight.nbytes == n_bytes / 2


class TestModel:
    def test_all_linear_layers_are_packed_where_the_processor_is_x86(
        self, tiny_enhancer
    ):
        n_linear = sum(type(m) is torch.nn.Linear for m in tiny_enhancer.modules())
        assert n_packed(tiny_enhancer.pack()) == n_linear > 20

    def test_elsewhere_none_is(self, tiny_enhancer, noisy, monkeypatch):
        monkeypatch.setattr(packed, "can_pack", lambda weight: False)
        expected = tiny_enhancer.enhance(noisy)
        assert n_packed(tiny_enhancer.pack("fp32")) == 0
        assert torch.equal(tiny_enhancer.enhance(noisy), expected)

    def test_a_copy_of_before_stays_as_it_was(self, tiny_enhancer, noisy):
        original = copy.deepcopy(tiny_enhancer)
        expected = original.enhance(noisy)
        tiny_enhancer.pack("bf16")
        assert torch.equal(original.enhance(noisy), expected)

    def test_nothing_learns_any_more(self, tiny_enhancer):
        assert not any(p.requires_grad for p in tiny_enhancer.pack().parameters())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_one_of_another_type_is_packed_too(self, tiny_enhancer, noisy, dtype):
        expected = tiny_enhancer.to(dtype).float().enhance(noisy)
        packed = tiny_enhancer.to(dtype).pack("fp32").enhance(noisy)
        torch.testing.assert_close(packed, expected, atol=1e-5, rtol=0)

    def test_once_is_enough(self, tiny_enhancer, noisy):
        expected = tiny_enhancer.pack("fp32").enhance(noisy)
        assert torch.equal(tiny_enhancer.pack("fp32").enhance(noisy), expected)

    def test_in_another_precision_is_refused(self, tiny_enhancer):
        tiny_enhancer.pack("fp32")
        with pytest.raises(
            InputError, match="is already packed in fp32: load it again"
        ):
            tiny_enhancer.pack("bf16")

    def test_an_unknown_precision_is_refused(self, tiny_enhancer):
        with pytest.raises(InputError, match="auto, fp32 or bf16, not fp16"):
            tiny_enhancer.pack("fp16")

    @pytest.mark.parametrize(
        "attempt",
        [
            lambda enhancer: enhancer.to("meta"),
            lambda enhancer: enhancer.double(),
            copy.deepcopy,
            pickle.dumps,
            lambda enhancer: enhancer.state_dict(),
            lambda enhancer: enhancer.load_state_dict({}),
        ],
    )
    def test_it_can_t_be_moved_copied_or_saved(self, tiny_enhancer, attempt):
        tiny_enhancer.pack()
        with pytest.raises(InputError, match="can't be moved, copied or saved"):
            attempt(tiny_enhancer)

    def test_it_can_t_be_written_as_a_folder(
        self, tiny_enhancer, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(packed, "can_pack", lambda weight: False)
        with pytest.raises(InputError, match="save it before pack"):
            tiny_enhancer.pack("bf16").save_pretrained(tmp_path / "model")
        assert not (tmp_path / "model").exists()
