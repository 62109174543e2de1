"""On a GPU: a pretended one holds what needs none, and `make test-gpu` runs the rest."""

import copy
from types import SimpleNamespace
from unittest import mock

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.networks import VARIANTS, enhancer_of
from helpers.pretended_gpu import NoWaiting, backward, check_bias, pretend, pretended
from speechbrain_cffma.inference import packed as packed_lobes
from speechbrain_cffma.inference.bands import enhance_rows
from speechbrain_cffma.inference.device import has_bf16
from speechbrain_cffma.lobes import (
    CFFMA,
    CFFMAEnhancer,
    LogSpectrogram,
    RelativeSelfAttention,
    SSLEmbedding,
    load_ssl,
)
from speechbrain_cffma.lobes.attention import attend, relative_to_absolute
from speechbrain_cffma.losses import (
    MultiResolutionLoss,
    PESQLoss,
    SISDRLoss,
    STOILoss,
)
from speechbrain_cffma.training.brain import EnhancementBrain

pytestmark = pytest.mark.slow

#: Frames T. From 257 on, and where T - 1 is a multiple of 8, PyTorch would not copy a
#: bias that begins at an odd element.
N_FRAMES = [129, 201, 257, 401, 801, 1001, 1601, 2001]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CROP = 20480
#: A term of each kind.
LOSSES = (MultiResolutionLoss, SISDRLoss, STOILoss, PESQLoss)

each_precision = pytest.mark.parametrize("precision", PRECISIONS)
each_n_frames = pytest.mark.parametrize("n_frames", N_FRAMES)
each_ssl = pytest.mark.parametrize(
    ("family", "large"),
    [(f, large) for f in ("wavlm", "wav2vec2", "hubert") for large in (False, True)],
)
# The kernels of LSTMs take no fake tensors.
each_variant = pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if "blstm" not in v]
)


@pytest.fixture
def enhancer_with(ssl_folder):
    """`enhancer_with(family, large)`: a tiny network that learns entirely."""

    def make(family="wavlm", large=False, suppression=None):
        embedding = SSLEmbedding(load_ssl(ssl_folder(family, large)), "entire")
        head = CFFMA(ssl_dim=32, fused_dim=48, dim=32)
        return CFFMAEnhancer(embedding, LogSpectrogram(), head, -20.0, suppression)

    return make


def autocast(precision):
    dtype = PRECISIONS[precision]
    return torch.autocast("cuda", dtype, enabled=dtype != torch.float32)


def check_network(enhancer, precision):
    """Evaluate and train on fake batches, with and without lengths."""
    noisy = torch.empty(2, CROP, device="cuda")
    for lengths in (None, torch.empty(2, device="cuda")):
        for training in (False, True):
            enhancer.train(training)
            with (
                torch.set_grad_enabled(training),
                autocast(precision),
                NoWaiting(),
            ):
                outputs = enhancer(noisy, lengths)
            assert [x.dtype for x in outputs] == [torch.float32] * 2
            assert [x.device.type for x in outputs] == ["cuda"] * 2
        enhancer.zero_grad()
        with NoWaiting():
            sum(x.sum() for x in outputs).backward()
        for parameter in enhancer.parameters():
            if parameter.requires_grad:
                assert parameter.grad.dtype == torch.float32
                assert parameter.grad.device.type == "cuda"


# --- The pretended GPU


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_its_gradients_are_those_of_pytorch(enhancer_with, speech, precision):
    enhancer = enhancer_with()
    batch = speech[: 2 * CROP].view(2, CROP), torch.tensor([1.0, 0.6])
    gradients = []
    for differentiate in (torch.Tensor.backward, backward):
        torch.manual_seed(0)
        enhancer.zero_grad()
        with torch.autocast("cpu", PRECISIONS[precision], precision != "fp32"):
            enhanced, log_magnitude = enhancer(*batch)
        differentiate(enhanced.square().sum() + log_magnitude.sum())
        gradients.append([p.grad for p in enhancer.parameters() if p.requires_grad])
    for expected, gradient in zip(*gradients, strict=True):
        assert torch.equal(expected, gradient)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().cpu(),
        lambda x: torch.empty(3).copy_(x),
        lambda x: x.copy_(torch.empty(3)),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0], device="cuda"),
        lambda x: x + torch.tensor(1.0, device="cuda"),
        lambda x: x[torch.arange(3)],
        lambda x: x.masked_select(x > 0),
        lambda x: x.index_put_((x > 0,), x),
        lambda x: x + torch.arange(3).to("cuda", non_blocking=True),
    ],
)
def test_what_would_wait_is_refused(wait):
    with pretended(), NoWaiting(), pytest.raises(AssertionError):
        wait(torch.ones(3, device="cuda"))


def test_the_view_of_distances_is_refused():
    with pretended():
        query = torch.empty(1, 4, 256, 8, device="cuda")
        scores = torch.empty(1, 4, 256, 256 + 257, device="cuda")
        bias = relative_to_absolute(scores)
        assert bias.storage_offset() == 255
        with pytest.raises(AssertionError, match="begins at byte 1020"):
            check_bias(query, bias)


# --- The bias of attention


@each_precision
@each_n_frames
def test_the_bias_of_attention_is_aligned(tiny_wavlm, n_frames, precision):
    dtype = PRECISIONS[precision]
    lobe = RelativeSelfAttention(32).to(dtype)
    SSLEmbedding(tiny_wavlm)  # puts ours into the place of WavLM's
    wavlm = tiny_wavlm.model.encoder.layers[0].attention.to(dtype)
    with pretended() as biases:
        pretend(lobe)
        pretend(wavlm)
        x = torch.empty(2, n_frames, 32, device="cuda", dtype=dtype)
        lobe(x)
        lobe(x, torch.ones(2, device="cuda"))
        wavlm(x)
        wavlm(x, torch.ones(2, n_frames, device="cuda"))
    assert len(biases) == 2 * -(-n_frames // 256) + 2


@each_precision
@each_n_frames
def test_any_bias_is_aligned(n_frames, precision):
    options = {"device": "cuda", "dtype": PRECISIONS[precision]}
    with pretended() as biases:
        query, key, value = (torch.empty(2, 4, n_frames, 8, **options) for _ in "qkv")
        scores = torch.empty(1, 4, n_frames, 2 * n_frames, **options)
        attend(query, key, value, relative_to_absolute(scores))
        attend(query, key, value, scores[..., 1 : n_frames + 1])
        attend(query, key, value, scores.mT[..., :n_frames, :].mT)
    assert len(biases) == 3


# --- The network


@each_ssl
def test_each_ssl_model_runs_and_learns(enhancer_with, family, large):
    enhancer = enhancer_with(family, large)
    with pretended() as biases:
        check_network(pretend(enhancer), "fp16")
    assert len(biases) == 4 * 4  # of 2 SSL layers and 2 blocks


@each_variant
def test_each_variant_runs_and_learns(ssl_folder, variant):
    source = ssl_folder("wavlm")
    enhancer = enhancer_of(variant, ssl_source=source, fused_dim=48, dim=32, n_blocks=1)
    with pretended():
        check_network(pretend(enhancer), "bf16")


# --- A training step


class FakeBrain(EnhancementBrain):
    """The check that the loss is finite reads it, and fake tensors have no values."""

    def check_loss_isfinite(self, loss):
        assert (loss.dtype, loss.device.type) == (torch.float32, "cuda")


def training_brain(enhancer, tmp_path, precision, waveform_loss, brain=FakeBrain):
    """A brain as `fit` has it at the first step; its modules are on the device already."""
    hparams = {
        "seed": 1,
        "output_folder": tmp_path,
        "best_metric": "si_sdr",
        "epoch_counter": SimpleNamespace(current=1),
        "lr_schedule": "constant_with_warmup",
        "warmup_steps": 2,
        "number_of_epochs": 1,
        "enhancer": enhancer,
        "head_optimizer": lambda p: torch.optim.Adam(p, lr=1e-4, fused=True),
        "ssl_optimizer": lambda p: torch.optim.Adam(p, lr=1e-5, fused=True),
        "loss": sb.nnet.losses.mse_loss,
        "waveform_loss": waveform_loss,
        "loss_weights": None,
        "target_transform": None,
    }
    run_opts = {
        "device": "cuda",
        "precision": precision,
        "grad_accumulation_factor": 2,
        "max_grad_norm": 5.0,
    }
    with mock.patch.object(torch.nn.Module, "to", autospec=True) as to:
        to.side_effect = lambda self, *args: self
        brain = brain({"enhancer": enhancer}, None, hparams, run_opts)
    moved = [call.args[0] for call in to.call_args_list]
    assert all(loss in moved for loss in (waveform_loss or {}).values())
    assert brain.scaler.is_enabled() == (precision == "fp16")
    brain.optimizer_step = 0
    brain.steps_per_epoch = 8
    brain.init_optimizers()
    brain.zero_grad(set_to_none=True)
    brain.modules.train()
    return brain


def fake_batch(length=1.0):
    """Of one item: fake tensors know single values."""
    batch = PaddedBatch(
        [{"id": "a", "noisy": torch.empty(CROP), "clean": torch.empty(CROP)}]
    )
    batch.noisy = PaddedData(batch.noisy.data, torch.tensor([length]))
    return batch


@each_precision
@pytest.mark.parametrize("length", [1.0, 0.7])
@pytest.mark.parametrize("losses", [(), LOSSES])
def test_a_training_step_waits_for_nothing(
    enhancer_with, tmp_path, precision, length, losses
):
    enhancer = enhancer_with(suppression=20.0)
    losses = {loss.__name__: loss() for loss in losses}
    inverse = LogSpectrogram.inverse
    with (
        pretended(),
        mock.patch.object(LogSpectrogram, "inverse", autospec=True) as inversed,
    ):
        inversed.side_effect = inverse
        losses = {name: pretend(loss) for name, loss in losses.items()}
        brain = training_brain(pretend(enhancer), tmp_path, precision, losses)
        batch = fake_batch(length)
        with brain.training_ctx, NoWaiting(host_has_tensors=True):
            outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
            loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
        assert (loss.dtype, loss.device.type) == (torch.float32, "cuda")
        brain.scaler.scale(loss).backward()
        with NoWaiting():
            brain.optimizers_step()
    assert inversed.called == bool(losses)


@each_precision
def test_fit_batch_accumulates_and_scales(enhancer_with, tmp_path, precision):
    enhancer = enhancer_with()
    with pretended() as biases:
        brain = training_brain(pretend(enhancer), tmp_path, precision, None)
        for brain.step in (1, 2, 3, 4):
            brain.fit_batch(fake_batch())
            gradients = [p.grad for p in enhancer.parameters() if p.requires_grad]
            has_stepped = brain.step % 2 == 0
            assert all((g is None) == has_stepped for g in gradients)
    assert brain.optimizer_step == 2
    assert len(biases) == 4 * 4
    for optimizer in brain.optimizers_dict.values():
        for state in optimizer.state.values():
            assert {x.device.type for x in state.values()} == {"cuda"}


# --- Inference


class NoFloat64(TorchDispatchMode):
    """As on a device that lacks it, such as Apple's MPS."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.device.type != "cpu":
            assert out.dtype not in (torch.float64, torch.complex128), function
        return out


@pytest.mark.parametrize("packed", [None, "fp32", "bf16"])
@pytest.mark.parametrize(("sample_rate", "seconds"), [(16000, 16), (44100, 3)])
def test_a_window_is_enhanced_on_the_device(
    enhancer_with, packed, sample_rate, seconds
):
    enhancer = enhancer_with(suppression=20.0)
    if packed:
        # The layout of weights is for x86 processors alone.
        with mock.patch.object(packed_lobes, "can_pack", return_value=False):
            enhancer.pack(packed)
    with pretended() as biases, NoFloat64():
        pretend(enhancer)
        rows = torch.empty(2, seconds * sample_rate)
        enhanced = enhance_rows(enhancer, rows, sample_rate, None, high_band=True)
    assert (enhanced.shape, enhanced.dtype) == (rows.shape, torch.float32)
    assert enhanced.device.type == "cpu"
    assert biases


def test_support_of_bfloat16_is_asked_of_the_device_that_is_given():
    with (
        mock.patch("torch.cuda.device") as current,
        mock.patch("torch.cuda.is_bf16_supported", return_value=True) as supported,
    ):
        assert has_bf16(torch.device("cuda:1"))
    current.assert_called_once_with(torch.device("cuda:1"))
    supported.assert_called_once_with(including_emulation=False)


# --- On a real GPU


@pytest.fixture
def gpu():
    assert torch.cuda.is_available(), "there is no GPU"
    return torch.device("cuda")


@pytest.mark.cuda
@each_precision
@each_n_frames
def test_attention_on_a_gpu_equals_that_on_a_cpu(gpu, n_frames, precision):
    dtype = PRECISIONS[precision]
    attention = RelativeSelfAttention(64, dropout=0.0)
    on_gpu = copy.deepcopy(attention).to(gpu, dtype)
    x = torch.randn(2, n_frames, 64, requires_grad=True)
    x_on_gpu = x.detach().to(gpu, dtype).requires_grad_()
    tolerance = {"fp32": 2e-3, "fp16": 2e-2, "bf16": 1e-1}[precision]
    with torch.no_grad():  # another kernel than with gradients
        assert relative_error(on_gpu(x_on_gpu), attention(x)) < tolerance
    attention(x).square().mean().backward()
    on_gpu(x_on_gpu).square().mean().backward()
    assert relative_error(x_on_gpu.grad, x.grad) < tolerance
    for ours, expected in zip(on_gpu.parameters(), attention.parameters(), strict=True):
        assert ours.grad.isfinite().all()
        if precision == "fp32" and expected.grad.norm() > 1e-6:
            assert relative_error(ours.grad, expected.grad) < 2e-2


def relative_error(tensor, expected):
    tensor = tensor.detach().float().cpu()
    return ((tensor - expected).norm() / expected.norm()).item()


def losses_on(device):
    """A term of each kind, on a device."""
    return {loss.__name__: loss().to(device) for loss in LOSSES}


@pytest.mark.cuda
@each_ssl
@each_precision
def test_a_training_step_on_a_gpu(
    gpu, enhancer_with, tmp_path, family, large, precision
):
    enhancer = enhancer_with(family, large).to(gpu)
    brain = training_brain(
        enhancer, tmp_path, precision, losses_on(gpu), EnhancementBrain
    )
    before = copy.deepcopy(enhancer.state_dict())
    for brain.step in (1, 2, 3, 4):
        noisy = 0.1 * torch.randn(2, CROP)
        items = [{"id": i, "noisy": x, "clean": 0.5 * x} for i, x in enumerate(noisy)]
        assert brain.fit_batch(PaddedBatch(items)).isfinite()
    after = enhancer.state_dict()
    name = "mask_estimator.output_layer.weight"
    assert (after[name] != before[name]).any()
    assert all(tensor.isfinite().all() for tensor in after.values())


@pytest.mark.cuda
def test_a_training_step_on_a_gpu_waits_for_nothing(gpu, enhancer_with, tmp_path):
    enhancer = enhancer_with().to(gpu)
    brain = training_brain(enhancer, tmp_path, "fp16", losses_on(gpu))
    item = {"id": "a", "noisy": torch.randn(CROP), "clean": torch.randn(CROP)}
    batches = [PaddedBatch([item]) for _ in range(2)]
    # The first makes what is kept: handles of libraries and states of the optimisers.
    for batch, mode in zip(batches, ("default", "error"), strict=True):
        batch.pin_memory()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with brain.training_ctx:
                outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
                loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            brain.scaler.scale(loss).backward()
            brain.optimizers_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.parametrize("seconds", [3, 4, 16, 40])
@pytest.mark.parametrize("packed", [None, "fp32", "bf16"])
def test_a_gpu_enhances_as_a_cpu_does(gpu, speech, seconds, packed):
    noisy = speech.repeat(-(-seconds // 3))[: seconds * 16000]
    noisy = noisy + 0.01 * torch.randn(len(noisy))
    expected = CFFMAEnhancer.from_pretrained().enhance(noisy)
    enhancer = CFFMAEnhancer.from_pretrained().to(gpu)
    if packed:
        enhancer.pack(packed)
    difference = enhancer.enhance(noisy) - expected
    decibels = 20 * torch.log10(difference.norm() / expected.norm())
    assert decibels < (-40 if packed == "bf16" else -50)


@pytest.mark.cuda
@torch.no_grad()
def test_padding_on_a_gpu_changes_nothing(gpu, enhancer_with):
    enhancer = enhancer_with().to(gpu).eval()
    noisy = 0.05 * torch.randn(2, 32000, device=gpu)
    alone, _ = enhancer(noisy[1:, :20000])
    batch, _ = enhancer(noisy, torch.tensor([1.0, 0.625], device=gpu))
    assert (batch[1:, :20000] - alone).abs().max() < 1e-4
