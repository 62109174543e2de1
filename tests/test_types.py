"""Types: a lobe computes in that of its parameters, the enhancer gives that of its input."""

import pytest
import torch
from test_lobes import (
    FUSING_LOBES,
    LOBES,
    SEQUENCE_LOBES,
    inputs_of,
    perturbed,
    small_enhancer,
)

from speechbrain_cffma.lobes import LogSpectrogram, SSLEmbedding, load_ssl

#: Largest difference of a mask to that of float32.
TOLERANCES = {torch.float64: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
each_type = pytest.mark.parametrize("dtype", TOLERANCES)


@each_type
@pytest.mark.parametrize("name", LOBES)
def test_a_lobe_computes_in_the_type_of_its_parameters(name, dtype):
    lobe = perturbed(LOBES[name]()).eval()
    inputs = inputs_of(name, 20)
    expected = lobe(*inputs)
    out = lobe.to(dtype)(*[x.to(dtype) for x in inputs])
    assert out.dtype == dtype
    scale = expected.abs().max().clamp(min=1)
    assert (out - expected).abs().max() < TOLERANCES[dtype] * scale


@each_type
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("large", [False, True])
@torch.no_grad()
def test_an_enhancer_gives_the_type_of_its_input(
    ssl_folder, speech, large, with_lengths, dtype
):
    enhancer = small_enhancer(load_ssl(ssl_folder("wavlm", large)), level=-20.0)
    noisy = speech[None, :16000].repeat(2, 1)
    lengths = torch.tensor([1.0, 0.6]) if with_lengths else None
    expected = enhancer._mask(noisy, enhancer.spectrogram(noisy)[0], lengths)
    enhancer = enhancer.to(dtype)
    enhanced, log_magnitude = enhancer(noisy.to(dtype), lengths)
    assert enhanced.dtype == log_magnitude.dtype == dtype
    assert enhanced.isfinite().all()
    # Heard in the type, transformed in float32.
    heard = noisy.to(dtype)
    mask = enhancer._mask(heard, enhancer.spectrogram(heard)[0], lengths)
    valid = slice(None, 61)  # frames of both
    assert (mask - expected)[:, valid].abs().max() < TOLERANCES[dtype]


@each_type
@torch.no_grad()
def test_input_and_network_may_be_of_different_types(ssl_folder, speech, dtype):
    enhancer = small_enhancer(load_ssl(ssl_folder("wavlm")))
    noisy = speech[None, :16000]
    expected, _ = enhancer(noisy)
    for network, wav in ((torch.float32, dtype), (dtype, torch.float32)):
        enhanced, _ = enhancer.to(network)(noisy.to(wav))
        assert enhanced.dtype == wav
        assert (enhanced - expected).abs().max() < TOLERANCES[dtype]


def test_the_transform_of_float64_is_of_full_precision(speech):
    spectrogram = LogSpectrogram().double()
    wav = speech[None, :16000].double()
    log_magnitude, phase = spectrogram(wav)
    assert (log_magnitude.dtype, phase.dtype) == (torch.float64, torch.complex128)
    window = torch.hamming_window(400, dtype=torch.float64)
    spectrum = torch.stft(wav, 400, 160, window=window, return_complex=True).mT
    expected = torch.log1p(spectrum.abs() + 1e-6)
    assert (log_magnitude - expected).abs().max() < 1e-12
    restored = spectrogram.inverse(expected, spectrum / (spectrum.abs() + 1e-6), 16000)
    again = spectrogram.inverse(log_magnitude, phase, 16000)
    assert (restored - again).abs().max() < 1e-12


# --- Gradients, compared with differences of the function (torch.autograd.gradcheck)


def check_gradients(lobe, *inputs):
    """Of what a lobe in float64 gives, over its inputs and what learns of it."""
    learning = [p for p in lobe.parameters() if p.requires_grad]

    def function(*leaves):
        given = leaves[: len(inputs)]
        names = [n for n, p in lobe.named_parameters() if p.requires_grad]
        parameters = dict(zip(names, leaves[len(inputs) :], strict=True))
        return torch.func.functional_call(lobe, parameters, given)

    leaves = [x.requires_grad_() for x in inputs] + learning
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("name", [*SEQUENCE_LOBES, *FUSING_LOBES])
def test_gradients_of_a_lobe(name):
    lobe = perturbed(LOBES[name]()).double().eval()
    check_gradients(lobe, *(x.double() for x in inputs_of(name, 5)))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])
def test_gradients_of_an_embedding(ssl_folder, speech, family, large):
    """Over what learns: its feature encoder is frozen."""
    embedding = SSLEmbedding(load_ssl(ssl_folder(family, large)), fine_tune="partial")
    embedding = embedding.double().eval()
    wav = speech[None, :1200].double()
    learning = {n: p for n, p in embedding.named_parameters() if p.requires_grad}

    def function(*leaves):
        parameters = dict(zip(learning, leaves, strict=True))
        return torch.func.functional_call(embedding, parameters, (wav, 8))

    assert torch.autograd.gradcheck(function, [*learning.values()], fast_mode=True)


def test_gradients_of_the_transform(speech):
    spectrogram = LogSpectrogram(n_fft=32, hop_length=16, win_length=32).double()

    def there_and_back(wav):
        log_magnitude, phase = spectrogram(wav)
        return spectrogram.inverse(0.7 * log_magnitude, phase, wav.shape[1])

    wav = speech[None, 8000:8160].double().requires_grad_()
    assert torch.autograd.gradcheck(there_and_back, wav, fast_mode=True)
