"""The refiner behind the mask: what it computes, alone and in an enhancer."""

import copy

import pytest
import torch

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes import (
    CFFMAEnhancer,
    LogSpectrogram,
    Refiner,
    load_enhancer,
)

F, D = 21, 6
SMALL = {"n_freqs": F, "hidden_dim": D, "channels": (4, 6, 8), "depths": (1, 1, 2)}


def trained(refiner):
    """One whose filter is no longer zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in refiner.filter.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return refiner.eval()


def inputs(n_frames=30, batch=2):
    return (
        torch.randn(batch, n_frames, F, 2),
        torch.randn(batch, n_frames, F, 2),
        torch.randn(batch, n_frames, D),
    )


@pytest.fixture
def enhancer(tiny_enhancer):
    """The tiny network of the other tests, with a small trained refiner."""
    enhancer = copy.deepcopy(tiny_enhancer)
    dim = enhancer.mask_estimator.dim
    enhancer.refiner = trained(Refiner(201, dim, channels=(4, 6), depths=(1, 1)))
    return enhancer


def test_a_new_one_changes_nothing():
    noisy, masked, hidden = inputs()
    assert torch.equal(Refiner(**SMALL)(noisy, masked, hidden), masked)


def test_a_filter_of_one_tap_in_the_past_delays():
    refiner = Refiner(**SMALL, n_taps=3)
    with torch.no_grad():
        # Real parts of the taps for the frame before, this one and the next one.
        refiner.filter.bias[:3] = torch.tensor([1.0, -1.0, 0.0])
    noisy, masked, hidden = inputs()
    refined = refiner(noisy, masked, hidden)
    torch.testing.assert_close(refined[:, 1:], masked[:, :-1])
    torch.testing.assert_close(refined[:, 0], torch.zeros_like(refined[:, 0]))


def test_an_imaginary_tap_turns_the_phase():
    refiner = Refiner(**SMALL, n_taps=1)
    with torch.no_grad():
        refiner.filter.bias[:] = torch.tensor([-1.0, 1.0])
    noisy, masked, hidden = inputs()
    refined = torch.view_as_complex(refiner(noisy, masked, hidden))
    torch.testing.assert_close(refined, 1j * torch.view_as_complex(masked))


def test_what_is_learnt_at_one_frequency_holds_for_others():
    refiner = trained(Refiner(**{**SMALL, "n_freqs": 601}))
    torch.nn.init.zeros_(refiner.hidden.bias)  # which the bands do not share
    noisy = torch.zeros(1, 30, 601, 2)
    noisy[:, 10:20, 300:304] = torch.randn(1, 10, 4, 2)
    higher = noisy.roll(16, dims=2)  # by whole bands of all levels
    hidden = torch.zeros(1, 30, D)
    one, other = (refiner(x, x, hidden) for x in (noisy, higher))
    assert one[:, :, 280:330].abs().max() > 0
    torch.testing.assert_close(one[:, :, 280:330], other[:, :, 296:346])


@pytest.mark.parametrize("garbage", [0.0, 7.0, float("nan")])
def test_padded_it_gives_what_it_gives_alone(garbage):
    refiner = trained(Refiner(**SMALL))
    padded = inputs()
    for x in padded:
        x[0, 19:] = garbage
    mask = (torch.arange(30) < torch.tensor([[19], [30]])).unsqueeze(2)
    refined = refiner(*padded, mask)
    alone = refiner(*(x[:1, :19] for x in padded))
    torch.testing.assert_close(refined[:1, :19], alone)
    torch.testing.assert_close(refined[1:], refiner(*(x[1:] for x in padded)))


def test_gradients_reach_all_weights_and_are_finite_in_silence():
    refiner = trained(Refiner(**SMALL)).train()
    noisy, masked, hidden = inputs()
    noisy[0], masked[0] = 0.0, 0.0
    masked.requires_grad_()
    refiner(noisy, masked, hidden).square().sum().backward()
    for name, weight in refiner.named_parameters():
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name
    assert torch.isfinite(masked.grad).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": (), "depths": ()},
        {"channels": (4,), "depths": (1, 1)},
        {"n_taps": 4},
    ],
)
def test_levels_and_taps_that_do_not_fit_are_refused(arguments):
    with pytest.raises(InputError, match="equally many channels and depths"):
        Refiner(**arguments)


class TestInAnEnhancer:
    def test_what_is_no_refiner_is_refused(self, tiny_enhancer):
        e = tiny_enhancer
        with pytest.raises(InputError, match="refiner is 'x', not a module"):
            CFFMAEnhancer(e.embedding, e.spectrogram, e.mask_estimator, refiner="x")

    def test_it_changes_magnitude_and_phase(self, enhancer, tiny_enhancer):
        noisy = torch.randn(1, 8000)
        with torch.no_grad():
            refined, log_magnitude = enhancer(noisy)
            masked, before = tiny_enhancer(noisy)
        assert not torch.allclose(log_magnitude, before, atol=1e-2)
        spectrogram = LogSpectrogram()
        _, noisy_phase = spectrogram(noisy)
        same_phase = spectrogram.inverse(log_magnitude, noisy_phase, 8000)
        assert not torch.allclose(refined, same_phase, atol=1e-2)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_it_computes_in_the_type_of_its_weights(self, enhancer, dtype):
        noisy = torch.randn(1, 8000)
        with torch.no_grad():
            expected, _ = enhancer(noisy)
            enhanced, _ = enhancer.to(dtype)(noisy.to(dtype))
        assert enhanced.dtype == dtype
        error = (enhanced.float() - expected).square().mean() / expected.square().mean()
        assert (
            error
            < {torch.float64: 1e-9, torch.float16: 1e-4, torch.bfloat16: 1e-2}[dtype]
        )

    @pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-10), ("bf16", 1e-2)])
    def test_packed_it_gives_the_same(self, enhancer, precision, most):
        noisy = torch.randn(8000)
        expected = enhancer.enhance(noisy)
        enhancer.pack(precision)
        error = (enhancer.enhance(noisy) - expected).square().mean()
        assert error < most * expected.square().mean()

    def test_a_folder_keeps_it(self, enhancer, tmp_path):
        noisy = torch.randn(8000)
        loaded = CFFMAEnhancer.from_pretrained(enhancer.save_pretrained(tmp_path / "m"))
        assert torch.equal(loaded.enhance(noisy), enhancer.enhance(noisy))
        assert (
            "- **Refiner:** 4 and 6 channels" in (tmp_path / "m/README.md").read_text()
        )

    def test_a_model_without_one_is_given_a_new_one(self, tiny_enhancer, tmp_path):
        folder = tiny_enhancer.save_pretrained(tmp_path / "m")
        loaded = load_enhancer(folder, refiner=Refiner)
        assert loaded.refiner.hidden_dim == tiny_enhancer.mask_estimator.dim
        noisy = torch.randn(8000)
        torch.testing.assert_close(loaded.enhance(noisy), tiny_enhancer.enhance(noisy))

    def test_a_model_keeps_the_one_that_it_has(self, enhancer, tmp_path):
        folder = enhancer.save_pretrained(tmp_path / "m")
        loaded = load_enhancer(folder, refiner=Refiner)
        assert loaded.refiner.channels == (4, 6)
