"""What a GPU needs, on a pretended one: fake tensors have devices, shapes and strides, no data.

A torch that is built for CUDA asks the driver before it computes gradients, so that
there is no backward pass on a pretended GPU: it runs on the device "meta", which takes
the same ways as a GPU. Tests marked `cuda` need a real one: make test-gpu.
"""

import contextlib
import copy
from types import SimpleNamespace
from unittest import mock

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from test_variants import VARIANTS, enhancer_of
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from speechbrain_cffma.brain import EnhancementBrain
from speechbrain_cffma.inference import _at_samples, has_bf16
from speechbrain_cffma.lobes import (
    CFFMA,
    CFFMAEnhancer,
    LogSpectrogram,
    RelativeSelfAttention,
    SSLEmbedding,
    load_ssl,
)
from speechbrain_cffma.lobes.attention import attend, relative_to_absolute
from speechbrain_cffma.losses import MultiResolutionLoss

#: Frames T of the network; from 257 on, and for those that are 1 more than a multiple
#: of 8, an unaligned bias would be read where it lies.
N_FRAMES = [129, 201, 257, 401, 801, 1001, 1601, 2001]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: What copies from the device to the host, or asks it for a value.
SYNCHRONISING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}

each_precision = pytest.mark.parametrize("precision", PRECISIONS)
all_models = pytest.mark.parametrize(
    ("family", "large"),
    [(f, large) for f in ("wavlm", "wav2vec2", "hubert") for large in (False, True)],
)


def check_bias(query, bias):
    """Refuse a bias that the memory-efficient kernel of CUDA would read unaligned.

    PyTorch copies it unless each stride but the last is a multiple of 8 and the last is
    1; what is not copied has to begin at a multiple of 16 bytes (`preprocess_mask` and
    `pad_bias` in its attention.cpp, `attn_bias_ptr` in its kernel_forward.h).
    """
    if bias is None or bias.dtype == torch.bool:
        return
    assert bias.device == query.device
    if bias.dtype != query.dtype:
        return  # autocast copies it
    *strides, last = bias.stride()
    is_read_in_place = last == 1 and all(stride % 8 == 0 for stride in strides)
    first_byte = bias.storage_offset() * bias.element_size()
    assert not is_read_in_place or first_byte % 16 == 0, (bias.shape, first_byte)


class NoWaiting(TorchDispatchMode):
    """Refuses operations for which the host would wait for the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        reads_device = bool(args) and getattr(args[0], "is_cuda", False)
        assert not (reads_device and function in SYNCHRONISING), function
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default:
            assert not (reads_device and out.device.type == "cpu"), function
        return out


@contextlib.contextmanager
def pretended_gpu():
    """Fake tensors, autocast and GradScaler as on a GPU; attention checks its bias."""
    attention, seen = F.scaled_dot_product_attention, []

    def spy(query, key, value, attn_mask=None, *args, **options):
        check_bias(query, attn_mask)
        seen.append(attn_mask)
        return attention(query, key, value, attn_mask, *args, **options)

    with (
        mock.patch.object(F, "scaled_dot_product_attention", spy),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        mock.patch("torch.cuda.is_bf16_supported", lambda *args, **options: True),
        FakeTensorMode(),
    ):
        yield SimpleNamespace(biases=seen)


def pretend(module):
    """Put a module, made outside of `pretended_gpu`, onto the GPU inside."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                if isinstance(tensor, torch.nn.Parameter):
                    fake = torch.nn.Parameter(fake, tensor.requires_grad)
                tensors[name] = fake
    return module


def run(enhancer, precision, n_samples=20480, lengths=None, training=False):
    """Enhance a fake batch."""
    enhancer.train(training)
    noisy = torch.empty(2, n_samples, device="cuda")
    if lengths is not None:
        lengths = torch.empty(2, device="cuda")
    dtype = PRECISIONS[precision]
    with (
        torch.set_grad_enabled(training),
        torch.autocast("cuda", dtype, enabled=dtype != torch.float32),
        NoWaiting(),
    ):
        enhanced, log_magnitude = enhancer(noisy, lengths)
    for out in (enhanced, log_magnitude):
        assert (out.dtype, out.device.type) == (torch.float32, "cuda")


def check_backward(enhancer, precision, lengths=None):
    """Gradients of all that learns, in the precision, on the device "meta"."""
    options = {"device": "meta", "dtype": PRECISIONS[precision]}
    enhancer = enhancer.to(**options).train()
    if lengths is not None:
        lengths = torch.empty(2, device="meta")
    enhanced, log_magnitude = enhancer(torch.empty(2, 20480, **options), lengths)
    (enhanced.sum() + log_magnitude.sum()).backward()
    learning = [p for p in enhancer.parameters() if p.requires_grad]
    for parameter in learning:
        gradient = parameter.grad
        assert (gradient.dtype, gradient.device.type) == (options["dtype"], "meta")
    assert learning


@pytest.fixture
def enhancer_with(ssl_folder):
    """`enhancer_with(family, large)`: a tiny network in which all of the SSL model learns."""

    def make(family="wavlm", large=False):
        embedding = SSLEmbedding(load_ssl(ssl_folder(family, large)), "entire")
        head = CFFMA(ssl_dim=32, fused_dim=48, dim=32)
        return CFFMAEnhancer(embedding, LogSpectrogram(), head, level=-20.0)

    return make


# --- The bias of attention


@each_precision
@pytest.mark.parametrize("n_frames", N_FRAMES)
def test_the_bias_of_relative_positions_is_aligned(n_frames, precision):
    attention = RelativeSelfAttention(32).to(PRECISIONS[precision])
    with pretended_gpu() as gpu:
        pretend(attention)
        x = torch.empty(2, n_frames, 32, device="cuda", dtype=PRECISIONS[precision])
        attention(x)
        attention(x, torch.ones(2, device="cuda"))
    assert len(gpu.biases) >= 2


@each_precision
@pytest.mark.parametrize("n_frames", N_FRAMES)
def test_a_view_given_as_bias_is_aligned(n_frames, precision):
    options = {"device": "cuda", "dtype": PRECISIONS[precision]}
    with pretended_gpu() as gpu:
        query, key, value = (torch.empty(2, 4, n_frames, 8, **options) for _ in "qkv")
        scores = torch.empty(1, 4, n_frames, 2 * n_frames, **options)
        attend(query, key, value, relative_to_absolute(scores))
    assert len(gpu.biases) == 1


def test_the_check_refuses_the_view_itself():
    """What would be read: from an odd element on, where no stride makes PyTorch copy it."""
    with pretended_gpu():
        query = torch.empty(1, 4, 256, 8, device="cuda")
        scores = torch.empty(1, 4, 256, 256 + 257, device="cuda")
        bias = relative_to_absolute(scores)
        assert bias.storage_offset() == 255
        with pytest.raises(AssertionError):
            check_bias(query, bias)


# --- The network


@all_models
@each_precision
def test_each_ssl_model_runs(enhancer_with, family, large, precision):
    enhancer = enhancer_with(family, large)
    with pretended_gpu() as gpu:
        pretend(enhancer)
        for training in (False, True):
            run(enhancer, precision, training=training)
            run(enhancer, precision, lengths=True, training=training)
    assert gpu.biases


@all_models
@each_precision
def test_each_ssl_model_learns(enhancer_with, family, large, precision):
    check_backward(enhancer_with(family, large), precision)
    if family == "wavlm":  # transformers asks the others' masks for their values
        check_backward(enhancer_with(family, large), precision, lengths=True)


@pytest.mark.parametrize("seconds", [4, 8, 16])
def test_a_window_of_whole_seconds_runs(enhancer_with, seconds):
    enhancer = enhancer_with()
    with pretended_gpu() as gpu:
        run(pretend(enhancer), "fp16", n_samples=16000 * seconds)
    assert len(gpu.biases) > 2


@pytest.mark.parametrize("variant", [v for v in VARIANTS if "blstm" not in v])
def test_each_variant_runs(ssl_folder, variant):
    """Without the BLSTM, whose kernel takes no fake tensors."""
    source = ssl_folder("wavlm")
    enhancer = enhancer_of(variant, ssl_source=source, fused_dim=48, dim=32)
    with pretended_gpu():
        pretend(enhancer)
        for training in (False, True):
            run(enhancer, "bf16", training=training)
            run(enhancer, "bf16", lengths=True, training=training)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if "blstm" not in v])
def test_each_variant_learns(ssl_folder, variant):
    source = ssl_folder("wavlm")
    enhancer = enhancer_of(variant, ssl_source=source, fused_dim=48, dim=32)
    check_backward(enhancer, "bf16")


# --- A training step


class StepOnly(EnhancementBrain):
    """Without the check that the loss is finite, which reads it."""

    def check_loss_isfinite(self, loss):
        assert loss.dtype == torch.float32


def training_brain(enhancer, waveform_loss, precision):
    """A brain whose modules are on the device already."""
    hparams = {
        "seed": 1,
        "epoch_counter": SimpleNamespace(current=1),
        "lr_schedule": "constant_with_warmup",
        "warmup_steps": 2,
        "number_of_epochs": 1,
        "enhancer": enhancer,
        "head_optimizer": lambda p: torch.optim.Adam(p, fused=True),
        "ssl_optimizer": lambda p: torch.optim.Adam(p, fused=True),
        "loss": sb.nnet.losses.mse_loss,
        "waveform_loss": waveform_loss,
        "best_metric": "pesq",
        "output_folder": "out",
    }
    run_opts = {
        "device": "cuda",
        "precision": precision,
        "grad_accumulation_factor": 2,
        "max_grad_norm": 5.0,
    }
    stay = mock.patch.object(torch.nn.Module, "to", lambda self, *args: self)
    with stay, mock.patch("torch.cuda.set_device"):
        brain = StepOnly({"enhancer": enhancer}, None, hparams, run_opts)
    brain.optimizer_step = 0
    brain.steps_per_epoch = 8
    brain.init_optimizers()
    return brain


def one_item():
    """A batch on the host; of one, whose length fake tensors know the value of."""
    return PaddedBatch(
        [{"id": "a", "noisy": torch.empty(20480), "clean": torch.empty(20480)}]
    )


def fill_gradients(brain):
    """In place of the backward pass."""

    def backward(loss):
        for parameter in brain.modules.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    return mock.patch("torch.Tensor.backward", backward)


@each_precision
@pytest.mark.parametrize("waveform_loss", [None, MultiResolutionLoss()])
def test_a_training_step_waits_for_nothing(enhancer_with, waveform_loss, precision):
    inverse = LogSpectrogram.inverse
    enhancer = enhancer_with()
    with (
        pretended_gpu() as gpu,
        mock.patch.object(LogSpectrogram, "inverse", autospec=True) as called,
        mock.patch("torch.manual_seed"),
    ):
        called.side_effect = inverse
        brain = training_brain(pretend(enhancer), waveform_loss, precision)
        assert brain.scaler.is_enabled() == (precision == "fp16")
        brain.modules.train()
        for brain.step in (1, 2, 3, 4):
            batch = one_item()
            brain.on_fit_batch_start(batch, True)
            with brain.training_ctx, NoWaiting():
                outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
                loss = brain.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            assert (loss.dtype, loss.device.type) == (torch.float32, "cuda")
            with fill_gradients(brain):
                brain.scaler.scale(loss / 2).backward()
            if brain.step % 2 == 0:
                with NoWaiting():
                    brain.optimizers_step()
    assert brain.optimizer_step == 2
    assert called.called == (waveform_loss is not None)
    assert gpu.biases


@each_precision
def test_fit_batch_accumulates_and_scales(enhancer_with, precision):
    enhancer = enhancer_with()
    with pretended_gpu(), mock.patch("torch.manual_seed"):
        brain = training_brain(pretend(enhancer), None, precision)
        brain.modules.train()
        for brain.step in (1, 2, 3, 4):
            batch = one_item()
            with fill_gradients(brain):
                loss = brain.fit_batch(batch)
            assert loss.device.type == "cpu"
    assert brain.optimizer_step == 2


# --- Inference


def test_support_of_bfloat16_is_asked_of_the_device_that_is_given():
    with (
        mock.patch("torch.cuda.device") as current,
        mock.patch("torch.cuda.is_bf16_supported", return_value=True) as supported,
    ):
        assert has_bf16(torch.device("cuda:1"))
    current.assert_called_once_with(torch.device("cuda:1"))
    supported.assert_called_once_with(including_emulation=False)


def test_gains_are_drawn_between_frames_without_float64_on_the_device():
    """Apple's MPS has none."""

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.device.type == "cuda":
                assert out.dtype != torch.float64, function
            return out

    with pretended_gpu(), NoFloat64():
        gains = _at_samples(torch.empty(2, 101, device="cuda"), 441.0, 44100)
    assert (gains.shape, gains.device.type) == ((2, 44100), "cuda")


# --- On a real GPU


@pytest.fixture
def gpu():
    assert torch.cuda.is_available(), "there is no GPU"
    return torch.device("cuda")


@pytest.mark.cuda
@each_precision
@pytest.mark.parametrize("n_frames", N_FRAMES)
def test_attention_on_a_gpu_equals_that_on_a_cpu(gpu, n_frames, precision):
    attention = RelativeSelfAttention(64).eval()
    x = torch.randn(2, n_frames, 64)
    expected = attention(x)
    dtype = PRECISIONS[precision]
    out = copy.deepcopy(attention).to(gpu, dtype)(x.to(gpu, dtype))
    out.sum().backward()
    tolerance = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1}[precision]
    assert (out.cpu() - expected).abs().max() < tolerance


@pytest.mark.cuda
@all_models
@each_precision
def test_a_training_step_on_a_gpu(gpu, enhancer_with, family, large, precision):
    enhancer = enhancer_with(family, large).to(gpu)
    brain = training_brain(enhancer, MultiResolutionLoss(), precision)
    brain.modules.train()
    before = enhancer.mask_estimator.output_layer.weight.clone()
    for brain.step in (1, 2, 3, 4):
        noisy = torch.randn(2, 20480)
        items = [{"id": i, "noisy": x, "clean": 0.5 * x} for i, x in enumerate(noisy)]
        assert brain.fit_batch(PaddedBatch(items)).isfinite()
    assert (enhancer.mask_estimator.output_layer.weight != before).any()


@pytest.mark.cuda
@pytest.mark.parametrize("seconds", [3, 4, 16, 40])
@pytest.mark.parametrize("packed", [None, "fp32", "bf16"])
def test_a_gpu_enhances_as_a_cpu_does(gpu, seconds, packed):
    noisy = 0.05 * torch.randn(seconds * 16000)
    expected = CFFMAEnhancer.from_pretrained().enhance(noisy)
    enhancer = CFFMAEnhancer.from_pretrained().to(gpu)
    if packed:
        enhancer.pack(packed)
    difference = enhancer.enhance(noisy) - expected
    decibels = 20 * torch.log10(difference.norm() / expected.norm())
    assert decibels < (-25 if packed == "bf16" else -50)


@pytest.mark.cuda
@torch.no_grad()
def test_padding_on_a_gpu_changes_nothing(gpu, enhancer_with):
    enhancer = enhancer_with().to(gpu).eval()
    noisy = 0.05 * torch.randn(2, 32000, device=gpu)
    alone, _ = enhancer(noisy[1:, :20000])
    batch, _ = enhancer(noisy, torch.tensor([1.0, 0.625], device=gpu))
    assert (batch[1:, :20000] - alone).abs().max() < 1e-4
