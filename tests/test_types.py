"""Types: a lobe computes in that of its parameters, the enhancer gives that of its input."""

import pytest
import torch

from helpers.networks import (
    DIM,
    FUSED_DIM,
    FUSING_LOBES,
    N_FREQS,
    SEQUENCE_LOBES,
    SSL_DIM,
    perturbed,
    small_enhancer,
)
from speechbrain_cffma import lobes
from speechbrain_cffma.lobes import (
    CFFMAEnhancer,
    Concatenation,
    ConvGate,
    EmbeddingOnly,
    FeedForward,
    GatedFusion,
    LogSpectrogram,
    MaskEstimator,
    NoEmbedding,
    OpenGate,
    PostNormBlock,
    PostNormStack,
    SpectrogramOnly,
    SSLEmbedding,
    load_ssl,
)
from speechbrain_cffma.lobes.layers import mean_over_time, n_valid_samples

pytestmark = pytest.mark.slow

#: Largest difference of a mask to that of float32.
TOLERANCES = {torch.float64: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
each_type = pytest.mark.parametrize("dtype", TOLERANCES)


def gated_fusion():
    half = FUSED_DIM // 2
    gates = [OpenGate(), ConvGate(half, SSL_DIM, 5), ConvGate(half, FUSED_DIM, 7)]
    return GatedFusion(N_FREQS, SSL_DIM, FUSED_DIM, gates)


def stack():
    return PostNormStack([PostNormBlock(DIM, [FeedForward(DIM)])])


def concatenating_estimator():
    fusion = Concatenation(N_FREQS, SSL_DIM)
    return MaskEstimator(fusion, stack(), N_FREQS, fusion.fused_dim, DIM)


#: Lobes of one input [B, T, DIM], and of a spectrum and an embedding.
SEQUENCES = SEQUENCE_LOBES | {"stack": stack}
GATES = {"conv_gate": lambda: ConvGate(DIM, 4, kernel_size=3), "open_gate": OpenGate}
FUSIONS = FUSING_LOBES | {
    "gated_fusion": gated_fusion,
    "concatenation": lambda: Concatenation(N_FREQS, SSL_DIM),
    "spectrogram_only": lambda: SpectrogramOnly(N_FREQS),
    "embedding_only": lambda: EmbeddingOnly(SSL_DIM),
    "mask_estimator": concatenating_estimator,
}
ALL_LOBES = SEQUENCES | GATES | FUSIONS
each_lobe = pytest.mark.parametrize("name", ALL_LOBES)
with_or_without_lengths = pytest.mark.parametrize("lengths", [None, (1.0, 0.6)])


def lobe_and_inputs(name, n_frames, lengths):
    """A lobe in eval mode, its random inputs [2, T, C], and its options."""
    lobe = perturbed(ALL_LOBES[name]())
    channels = (N_FREQS, SSL_DIM) if name in FUSIONS else (DIM,)
    options = {}
    if lengths is not None and name not in GATES:
        options = {"lengths": torch.tensor(lengths)}
    return lobe, [torch.randn(2, n_frames, n) for n in channels], options


def test_no_lobe_is_left_out():
    """Those that are not in `ALL_LOBES` have tests of their own below."""
    made = {part for make in ALL_LOBES.values() for part in make().modules()}
    tested = {type(part).__name__ for part in made}
    tested |= {"SSLEmbedding", "NoEmbedding", "LogSpectrogram", "CFFMAEnhancer"}
    tested |= {"Refiner"}  # tests/test_refiner.py
    public = {name for name in lobes.__all__ if isinstance(getattr(lobes, name), type)}
    assert public <= tested


@each_type
@with_or_without_lengths
@each_lobe
def test_a_lobe_computes_in_the_type_of_its_parameters(name, lengths, dtype):
    lobe, inputs, options = lobe_and_inputs(name, 20, lengths)
    expected = lobe(*inputs, **options)
    out = lobe.to(dtype)(*[x.to(dtype) for x in inputs], **options)
    assert out.dtype == dtype
    scale = expected.abs().max().clamp(min=1)
    assert (out - expected).abs().max() < TOLERANCES[dtype] * scale


@each_type
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])
@with_or_without_lengths
@torch.no_grad()
def test_an_embedding_is_of_the_type_of_its_parameters(
    ssl_folder, speech, family, large, lengths, dtype
):
    embedding = SSLEmbedding(load_ssl(ssl_folder(family, large))).eval().to(dtype)
    wav = speech[:16000].view(2, 8000).to(dtype)
    lengths = None if lengths is None else torch.tensor(lengths)
    out = embedding(wav, 51, lengths)
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_no_embedding_is_of_the_type_of_the_waveform():
    wav = torch.zeros(2, 8000, dtype=torch.float16)
    assert NoEmbedding()(wav, 51).dtype == torch.float16


def test_a_mean_over_many_frames_does_not_overflow():
    """Their sum, 80 000, is beyond float16."""
    x = torch.full((1, 2000, 3), 40.0, dtype=torch.float16)
    mean = mean_over_time(x, torch.ones(1, 2000, 1, dtype=torch.bool))
    assert torch.equal(mean, x[:, :1])


def test_lengths_may_be_of_half_precision():
    lengths = torch.tensor([1.0, 0.5], dtype=torch.float16)
    assert n_valid_samples(lengths, 320_000).tolist() == [320_000, 160_000]


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
    expected, _ = enhancer._estimate(noisy, *enhancer.spectrogram(noisy), lengths)
    enhancer = enhancer.to(dtype)
    enhanced, log_magnitude = enhancer(noisy.to(dtype), lengths)
    assert enhanced.dtype == log_magnitude.dtype == dtype
    assert enhanced.isfinite().all()
    # Heard in the type, transformed in float32.
    heard = noisy.to(dtype)
    masked, _ = enhancer._estimate(heard, *enhancer.spectrogram(heard), lengths)
    valid = slice(None, 61)  # frames of both
    error = (masked - expected)[:, valid].abs().max()
    assert error < TOLERANCES[dtype] * expected.abs().max().clamp(min=1)


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


def check_gradients(lobe, inputs, constants=(), **options):
    """Of what a lobe in float64 gives, over its inputs and what learns of it."""
    learning = {n: p for n, p in lobe.named_parameters() if p.requires_grad}

    def function(*leaves):
        given = (*leaves[: len(inputs)], *constants)
        parameters = dict(zip(learning, leaves[len(inputs) :], strict=True))
        return torch.func.functional_call(lobe, parameters, given, options)

    leaves = [x.requires_grad_() for x in inputs] + [*learning.values()]
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@with_or_without_lengths
@each_lobe
def test_gradients_of_a_lobe(name, lengths):
    lobe, inputs, options = lobe_and_inputs(name, 5, lengths)
    check_gradients(lobe.double(), [x.double() for x in inputs], **options)


@with_or_without_lengths
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])
def test_gradients_of_an_embedding(ssl_folder, speech, family, large, lengths):
    """Over what learns: its feature encoder is frozen."""
    embedding = SSLEmbedding(load_ssl(ssl_folder(family, large)), fine_tune="partial")
    wav = speech[8000:10400].view(2, 1200).double()
    lengths = None if lengths is None else torch.tensor(lengths)
    check_gradients(embedding.double().eval(), [], (wav, 8, lengths))


def small_transform():
    return LogSpectrogram(n_fft=32, hop_length=16, win_length=32)


def test_gradients_of_the_whole_network(ssl_folder, speech):
    """Over what learns, for a padded batch."""
    ssl = load_ssl(ssl_folder("wavlm"))
    enhancer = small_enhancer(ssl, level=-20.0, suppression=20.0)
    enhancer.embedding.set_fine_tune("partial")
    wav = speech[8000:10400].view(2, 1200).double()
    check_gradients(enhancer.double(), [], (wav, torch.tensor([1.0, 0.6])))


@with_or_without_lengths
def test_gradients_of_a_network_without_an_ssl_model(speech, lengths):
    """Over its waveform too."""
    fusion = SpectrogramOnly(17)
    head = perturbed(MaskEstimator(fusion, stack(), 17, fusion.fused_dim, DIM))
    enhancer = CFFMAEnhancer(NoEmbedding(), small_transform(), head, level=-20.0)
    wav = speech[8000:8320].view(2, 160).double()
    lengths = None if lengths is None else torch.tensor(lengths)
    check_gradients(enhancer.double().eval(), [wav], (lengths,))


def test_gradients_of_the_transform(speech):
    spectrogram = small_transform().double()

    def there_and_back(wav):
        log_magnitude, phase = spectrogram(wav)
        return spectrogram.inverse(0.7 * log_magnitude, phase, wav.shape[1])

    wav = speech[None, 8000:8160].double().requires_grad_()
    assert torch.autograd.gradcheck(there_and_back, wav, fast_mode=True)
