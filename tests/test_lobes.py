"""The head of the network: sizes, equations, padding, initialisation, gradients."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers import numpy_reference as reference
from helpers.networks import (
    DIM,
    FUSED_DIM,
    FUSING_LOBES,
    LONG,
    N_FREQS,
    RELATIVE_LENGTHS,
    SEQUENCE_LOBES,
    SHORT,
    SSL_DIM,
    is_cancelled,
    padded_with_noise,
    perturbed,
    small_cffma,
    small_enhancer,
)
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes import (
    BLSTM,
    CFFMA,
    MSCFF,
    RHMA,
    SCTA,
    CFFMAEnhancer,
    ConvGate,
    CrossAttentionFusion,
    FeedForward,
    GatedFusion,
    LogSpectrogram,
    MaskEstimator,
    NoEmbedding,
    OpenGate,
    PostNormStack,
    RelativeSelfAttention,
    SelectiveTimeAttention,
    SpectrogramOnly,
    SSLEmbedding,
    TransformerStack,
    load_ssl,
)

FAMILIES = ["wavlm", "wav2vec2", "hubert"]


LOBES = {**SEQUENCE_LOBES, **FUSING_LOBES}


def inputs_of(name, n_frames):
    """Random inputs of a lobe for one utterance, [1, T, C] each."""
    channels = (N_FREQS, SSL_DIM) if name in FUSING_LOBES else (DIM,)
    return [torch.randn(1, n_frames, n) for n in channels]


def n_parameters(*modules):
    return sum(
        parameter.numel() for module in modules for parameter in module.parameters()
    )


def assert_equal(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        actual.detach().numpy(), expected, rtol=tolerance, atol=tolerance
    )


@pytest.fixture(scope="module")
def published():
    """The head at the published sizes, as initialised."""
    torch.manual_seed(0)
    return CFFMA()


# --- Sizes


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("fusion", 6_753_130),
        ("input_layer", 492_032),
        ("enhancer.blocks.0", 5_781_263),
        ("enhancer.blocks.1", 5_781_263),
        ("enhancer.blocks.0.sub_blocks.0", 1_313_792),
        ("enhancer.blocks.0.sub_blocks.1", 2_099_712),
        ("enhancer.blocks.0.sub_blocks.2", 262_927),
        ("enhancer.blocks.0.sub_blocks.3", 2_099_712),
        ("output_layer", 103_113),
        ("", 18_910_801),
    ],
)
def test_published_number_of_parameters(published, part, expected):
    assert n_parameters(published.get_submodule(part)) == expected


def test_published_number_of_parameters_of_the_layer_norms_of_a_block(published):
    block = published.enhancer.blocks[0]
    assert n_parameters(block.norms, block.output_norm) == 5_120


def test_published_number_of_parameters_of_the_layer_weights(tiny_wavlm):
    from transformers import WavLMConfig, WavLMModel

    with torch.device("meta"):
        tiny_wavlm.model = WavLMModel(WavLMConfig())  # the size of WavLM base
        embedding = SSLEmbedding(tiny_wavlm)
    assert n_parameters(embedding.norms) + embedding.weights.numel() == 19_981


# --- Initialisation


def layers_of(module):
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv1d))
    ]


def test_every_bias_of_the_head_is_zero_at_first(published):
    biases = {name: layer.bias for name, layer in layers_of(published)}
    without = {name for name, bias in biases.items() if bias is None}
    assert without == {
        "fusion.bottleneck",
        "enhancer.blocks.0.sub_blocks.0.position",
        "enhancer.blocks.1.sub_blocks.0.position",
    }
    learnt = [name for name in biases if name not in without and biases[name].any()]
    assert learnt == []


def test_every_large_weight_of_the_head_is_xavier_normal_at_first(published):
    checked = 0
    for name, layer in layers_of(published):
        weight = layer.weight
        taps = weight[0, 0].numel()
        std = math.sqrt(2 / (taps * (weight.shape[0] + weight.shape[1])))
        if weight.numel() < 10_000:
            continue
        checked += 1
        assert weight.std().item() == pytest.approx(std, rel=0.05), name
        # Of a normal distribution 4.55 % lie beyond two standard deviations, of a
        # uniform one none.
        beyond = (weight.abs() > 2 * std).float().mean().item()
        assert beyond == pytest.approx(0.0455, rel=0.15), name
    assert checked == 5 + 2 * 11 + 2


def test_position_biases_are_xavier_uniform_at_first(published):
    attention = published.enhancer.blocks[0].sub_blocks[0]
    bound = math.sqrt(6 / (4 + 128))
    for bias in (attention.content_bias, attention.position_bias):
        assert 0.95 * bound < bias.abs().max().item() <= bound


# --- Equations


@pytest.mark.parametrize("n_samples", [201, 400, 16000, 20480, 20559])
def test_log_spectrogram_equals_its_equations(speech, n_samples):
    wav = speech[8000 : 8000 + n_samples]
    log_magnitude, phase = LogSpectrogram()(wav.unsqueeze(0))
    expected, expected_phase = reference.log_spectrogram(wav.numpy())
    assert_equal(log_magnitude[0], expected)
    # Where there is next to no magnitude, the phase is the rounding's.
    loud = torch.from_numpy(expected > 0.1)
    assert loud.sum() > 100
    assert_equal(phase[0][loud], expected_phase[loud.numpy()], tolerance=1e-4)


def test_inverse_spectrogram_equals_its_equations(speech):
    spectrogram = LogSpectrogram()
    log_magnitude, phase = spectrogram(speech[:8123].unsqueeze(0))
    log_magnitude = log_magnitude * torch.rand_like(log_magnitude)  # as by a mask
    expected = reference.inverse_log_spectrogram(
        log_magnitude[0].double().numpy(), phase[0].numpy(), 8123
    )
    assert_equal(spectrogram.inverse(log_magnitude, phase, 8123)[0], expected)


REFERENCES = {
    "attention": reference.relative_self_attention,
    "feed_forward": reference.feed_forward,
    "channel_attention": reference.channel_attention,
    "time_attention": reference.time_attention,
    "scta": reference.scta,
    "blstm": reference.blstm,
    "transformer": reference.transformer,
    "mscff": reference.mscff,
    "cross_attention": reference.cross_attention,
    "cffma": reference.mask,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_lobe_equals_its_equations(name):
    lobe = perturbed(LOBES[name]())
    utterances = [inputs_of(name, SHORT) for _ in range(2)]
    out = lobe(*(torch.cat(batch) for batch in zip(*utterances, strict=True)))
    weights = reference.weights_of(lobe)
    for row, utterance in zip(out, utterances, strict=True):
        inputs = [x[0].double().numpy() for x in utterance]
        assert_equal(row, REFERENCES[name](weights, *inputs))


def test_rhma_block_equals_its_equations():
    block = perturbed(RHMA(DIM, n_blocks=1, n_heads=3).blocks[0])
    x = torch.randn(1, SHORT, DIM)
    expected = reference.rhma_block(reference.weights_of(block), x[0].double().numpy())
    assert_equal(block(x)[0], expected)


def test_share_of_the_separate_gains_equals_its_equations():
    lobe = perturbed(SCTA(DIM, share=0.2))
    x = torch.randn(1, SHORT, DIM)
    expected = reference.scta(reference.weights_of(lobe), x[0].double().numpy(), 0.2)
    assert_equal(lobe(x)[0], expected)


def test_mscff_of_other_kernels_and_dilations_equals_its_equations():
    dilations = (4, 2, 3)
    lobe = perturbed(MSCFF(N_FREQS, SSL_DIM, FUSED_DIM, (5, 3, 5), dilations))
    inputs = inputs_of("mscff", LONG)
    expected = reference.mscff(
        reference.weights_of(lobe),
        *(x[0].double().numpy() for x in inputs),
        dilations=dilations,
    )
    assert_equal(lobe(*inputs)[0], expected)


@pytest.mark.parametrize("n_open", [[0], [1], [2], [0, 1, 2]])
def test_mscff_with_open_gates_equals_its_equations_without_them(n_open):
    gates = [
        OpenGate() if n in n_open else ConvGate(FUSED_DIM // 2, out_channels, 3)
        for n, out_channels in enumerate((N_FREQS, SSL_DIM, FUSED_DIM))
    ]
    lobe = perturbed(GatedFusion(N_FREQS, SSL_DIM, FUSED_DIM, gates))
    inputs = inputs_of("mscff", SHORT)
    expected = reference.mscff(
        reference.weights_of(lobe), *(x[0].double().numpy() for x in inputs)
    )
    assert_equal(lobe(*inputs)[0], expected)


@pytest.mark.parametrize("n_samples", [400, 16000, 20480, 20799])
def test_ssl_embedding_of_given_hidden_states_equals_its_equations(
    tiny_wavlm, n_samples
):
    embedding = perturbed(SSLEmbedding(tiny_wavlm))
    hidden_states = torch.randn(3, 2, reference.n_ssl_frames(n_samples), 32)
    embedding.ssl.forward = lambda wav, lengths: hidden_states
    n_frames = LogSpectrogram().n_frames(n_samples)
    out = embedding(torch.zeros(2, n_samples), n_frames)
    assert out.shape == (2, n_frames, 32)
    weights = reference.weights_of(embedding)
    for row in range(2):
        states = hidden_states[:, row].double().numpy()
        assert_equal(out[row], reference.ssl_embedding(weights, states, n_frames))


def test_enhanced_waveform_is_the_masked_log_magnitude_with_the_noisy_phase(
    tiny_wavlm, speech
):
    enhancer = CFFMAEnhancer(
        SSLEmbedding(tiny_wavlm),
        LogSpectrogram(),
        perturbed(CFFMA(ssl_dim=32, fused_dim=16, dim=8, n_blocks=1, n_heads=2)),
    ).eval()
    wav = speech[:20480]
    with torch.no_grad():
        enhanced, log_magnitude = enhancer(wav.unsqueeze(0))
        embedding = enhancer.embedding(wav.unsqueeze(0), n_frames=129)
    spectrum, phase = reference.log_spectrogram(wav.numpy())
    weights = reference.weights_of(enhancer.mask_estimator)
    mask = reference.mask(weights, spectrum, embedding[0].double().numpy(), n_blocks=1)
    assert_equal(log_magnitude[0], mask * spectrum)
    expected = reference.inverse_log_spectrogram(mask * spectrum, phase, 20480)
    assert_equal(enhanced[0], expected)


# --- Spectrogram


@pytest.mark.parametrize("n_samples", [201, 400, 12345, 16000, 16159, 48000])
def test_spectrogram_and_back_gives_the_waveform(speech, n_samples):
    spectrogram = LogSpectrogram()
    wav = speech[-n_samples:].unsqueeze(0)
    restored = spectrogram.inverse(*spectrogram(wav), length=n_samples)
    assert restored.shape == wav.shape
    assert (restored - wav).abs().max() < 1e-5


def test_the_inverse_is_silent_where_no_frame_reaches(speech):
    spectrogram = LogSpectrogram()
    transformed = spectrogram(speech[:16000].unsqueeze(0))
    restored = spectrogram.inverse(*transformed, length=17000)
    assert (restored[0, :16000] - speech[:16000]).abs().max() < 1e-5
    assert not restored[0, 16200:].any()


def test_the_inverse_and_its_gradient_are_those_of_torch_bit_by_bit(speech):
    """So that a training goes on as it would have with `torch.istft`."""
    spectrogram = LogSpectrogram()
    log_magnitude, phase = spectrogram(speech[:16000].view(2, 8000))
    log_magnitude = (0.5 * log_magnitude).requires_grad_()
    spectrum = (log_magnitude.expm1() - spectrogram.eps) * phase
    window = torch.hamming_window(400)
    expected = torch.istft(spectrum.mT, 400, 160, window=window, length=8000)
    restored = spectrogram.inverse(log_magnitude, phase, 8000)
    assert torch.equal(restored, expected)
    upstream = torch.randn(2, 8000)
    (expected,) = torch.autograd.grad(expected, log_magnitude, upstream)
    (gradient,) = torch.autograd.grad(restored, log_magnitude, upstream)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("sizes", [(400, 401, 400), (400, 160, 512), (400, 0, 400)])
def test_a_transform_of_impossible_sizes_is_refused(sizes):
    with pytest.raises(InputError, match="hop_length <= win_length <= n_fft"):
        LogSpectrogram(*sizes)


def test_20480_samples_give_129_frames_of_201_frequencies(speech):
    spectrogram = LogSpectrogram()
    log_magnitude, phase = spectrogram(speech[:20480].unsqueeze(0))
    assert log_magnitude.shape == phase.shape == (1, 129, 201)
    assert spectrogram.n_frames(20480) == 129


def test_phase_has_magnitude_1_where_there_is_sound(speech):
    log_magnitude, phase = LogSpectrogram()(speech.unsqueeze(0))
    sound = log_magnitude > 0.02
    assert sound.float().mean() > 0.1
    assert (phase[sound].abs() - 1).abs().max() < 1e-4


def test_phase_of_silence_is_finite():
    _, phase = LogSpectrogram()(torch.zeros(1, 1600))
    assert phase.abs().max() == 0


def test_window_moves_with_the_module_and_is_no_weight():
    spectrogram = LogSpectrogram()
    assert spectrogram.to("meta").window.device.type == "meta"
    assert spectrogram.state_dict() == {}


def test_window_of_the_spectrogram_is_periodic():
    assert_equal(LogSpectrogram().window, reference.hamming(400), tolerance=1e-6)


def test_spectrogram_is_of_full_precision_under_autocast(speech):
    spectrogram = LogSpectrogram()
    wav = speech[:16000].unsqueeze(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_magnitude, phase = spectrogram(wav)
        restored = spectrogram.inverse(log_magnitude, phase, 16000)
    assert (restored - wav).abs().max() < 1e-5


def test_200_samples_are_too_short_for_the_reflect_padding():
    with pytest.raises(InputError, match="200 samples is too short"):
        LogSpectrogram()(torch.zeros(1, 200))


# --- Padding


def batch_of(name):
    """Inputs of a lobe for a short utterance, and for a batch of it and a longer one."""
    short, long = inputs_of(name, SHORT), inputs_of(name, LONG)
    batch = [padded_with_noise(*pair) for pair in zip(short, long, strict=True)]
    return short, batch


@pytest.mark.parametrize("name", LOBES)
def test_padding_does_not_change_an_utterance(name):
    lobe = perturbed(LOBES[name]())
    short, batch = batch_of(name)
    out = lobe(*batch, lengths=RELATIVE_LENGTHS)
    assert (out[:1, :SHORT] - lobe(*short)).abs().max() < 1e-5


@pytest.mark.parametrize("name", [name for name in LOBES if name != "feed_forward"])
def test_padding_changes_an_utterance_if_its_length_is_not_given(name):
    lobe = perturbed(LOBES[name]())
    short, batch = batch_of(name)
    assert (lobe(*batch)[:1, :SHORT] - lobe(*short)).abs().max() > 1e-3


@pytest.mark.parametrize("name", LOBES)
def test_lengths_of_1_change_nothing(name):
    lobe = perturbed(LOBES[name]())
    inputs = inputs_of(name, LONG)
    out = lobe(*inputs, lengths=torch.ones(1))
    assert (out - lobe(*inputs)).abs().max() < 1e-5


def padded_batch(speech):
    """A batch [3, S] of one utterance, whole and cut, with noise behind its end, and its
    relative lengths."""
    speech = 0.05 * speech / speech.square().mean().sqrt()
    n_valid = [round(length * len(speech)) for length in (1.0, 0.73, 0.31)]
    batch = torch.randn(3, len(speech))
    for row, n in zip(batch, n_valid, strict=True):
        row[:n] = speech[:n]
    return batch, torch.tensor(n_valid) / len(speech), n_valid


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_utterance_is_enhanced_in_a_padded_batch_as_it_is_alone(
    ssl_folder, speech, family, large, packed
):
    enhancer = small_enhancer(load_ssl(ssl_folder(family, large)), level=-20.0)
    if packed:
        enhancer.pack("fp32")
    batch, lengths, n_valid = padded_batch(speech[:32001])
    enhanced, log_magnitude = enhancer(batch, lengths)
    for index, n in enumerate(n_valid):
        alone, its_log_magnitude = enhancer(batch[index : index + 1, :n])
        assert (enhanced[index, :n] - alone).abs().max() < 1e-6
        n_frames = its_log_magnitude.shape[1]
        difference = log_magnitude[index, :n_frames] - its_log_magnitude
        assert difference.abs().max() < 1e-4
        assert not enhanced[index, n:].any()


@pytest.mark.parametrize("large", [False, True])
@torch.no_grad()
def test_without_lengths_padding_changes_an_utterance(ssl_folder, speech, large):
    enhancer = small_enhancer(load_ssl(ssl_folder("wavlm", large)))
    batch, _, n_valid = padded_batch(speech[:32000])
    alone, _ = enhancer(batch[1:2, : n_valid[1]])
    enhanced, _ = enhancer(batch)
    assert (enhanced[1, : n_valid[1]] - alone).abs().max() > 1e-4


@torch.no_grad()
def test_a_device_that_computes_all_frames_at_once_pads_alike(ssl_folder, speech):
    """As GPUs do; gradient checkpointing takes the same way on a CPU."""
    enhancer = small_enhancer(load_ssl(ssl_folder("wavlm")))
    batch, lengths, n_valid = padded_batch(speech[:32000])
    by_parts, _ = enhancer(batch, lengths)
    enhancer.embedding.ssl.model.feature_extractor.gradient_checkpointing = True
    at_once, _ = enhancer(batch, lengths)
    assert (at_once - by_parts).abs().max() < 1e-6


@torch.no_grad()
def test_a_wrapper_that_normalises_its_output_pads_alike(ssl_folder, speech):
    ssl = load_ssl(ssl_folder("wavlm"))
    ssl.output_norm = True
    enhancer = small_enhancer(ssl)
    batch, lengths, n_valid = padded_batch(speech[:32000])
    alone, _ = enhancer(batch[1:2, : n_valid[1]])
    enhanced, _ = enhancer(batch, lengths)
    assert (enhanced[1, : n_valid[1]] - alone).abs().max() < 1e-6


@pytest.mark.parametrize("large", [False, True])
def test_a_padded_batch_gives_the_gradients_of_its_utterances(
    ssl_folder, speech, large
):
    enhancer = small_enhancer(load_ssl(ssl_folder("wavlm", large)))
    batch, lengths, n_valid = padded_batch(speech[:16000])

    def gradients(*runs):
        enhancer.zero_grad()
        sum(enhancer(*run)[0].square().sum() for run in runs).backward()
        parameters = enhancer.named_parameters()
        return {name: p.grad for name, p in parameters if p.requires_grad}

    together = gradients((batch, lengths))
    one_by_one = gradients(*((batch[i : i + 1, :n],) for i, n in enumerate(n_valid)))
    scale = max(gradient.abs().max() for gradient in one_by_one.values())
    for name, gradient in one_by_one.items():
        assert (together[name] - gradient).abs().max() < 1e-3 * scale, name


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("n_valid", [0, 100])
def test_an_utterance_that_is_too_short_spoils_no_gradient(ssl_folder, large, n_valid):
    """In a batch whose padding is garbage, and where all that is given is used."""
    enhancer = small_enhancer(load_ssl(ssl_folder("wavlm", large)), level=-20.0)
    noisy = torch.randn(2, 8000, requires_grad=True)
    enhanced, log_magnitude = enhancer(noisy, torch.tensor([1.0, n_valid / 8000]))
    (enhanced.square().sum() + log_magnitude.square().sum()).backward()
    learning = [p for p in enhancer.parameters() if p.requires_grad]
    assert all(leaf.grad.isfinite().all() for leaf in (noisy, *learning))


def test_a_silent_input_has_a_finite_gradient(ssl_folder):
    enhancer = small_enhancer(load_ssl(ssl_folder("wavlm")), level=0.0)
    noisy = torch.zeros(1, 8000, requires_grad=True)
    enhanced, log_magnitude = enhancer(noisy)
    (enhanced.sum() + log_magnitude.sum()).backward()
    assert noisy.grad.isfinite().all()


@pytest.fixture
def level_enhancer():
    """A network that hears all at a root mean square of 1."""
    head = MaskEstimator(SpectrogramOnly(201), FeedForward(8), 201, 201, 8)
    return CFFMAEnhancer(NoEmbedding(), LogSpectrogram(), head, level=0.0).eval()


@pytest.mark.parametrize("gain", [0.001, 1.0, 30.0])
def test_with_a_level_loud_and_soft_are_enhanced_alike(level_enhancer, speech, gain):
    with torch.no_grad():
        expected, expected_magnitude = level_enhancer(speech.unsqueeze(0))
        enhanced, log_magnitude = level_enhancer(gain * speech.unsqueeze(0))
    torch.testing.assert_close(enhanced / gain, expected, atol=1e-5, rtol=1e-4)
    magnitude = log_magnitude.double().expm1() / gain
    torch.testing.assert_close(
        magnitude, expected_magnitude.double().expm1(), atol=1e-3, rtol=1e-3
    )


def test_the_level_is_that_of_the_utterance_without_its_padding(level_enhancer, speech):
    batch = torch.stack([speech, speech.flip(0)])
    batch[0, 20480:] = 7.0
    gains = level_enhancer.gain(batch, torch.tensor([20480 / len(speech), 1.0]))
    scaled = (gains * batch)[0, :20480]
    assert scaled.square().mean().sqrt().item() == pytest.approx(1.0, abs=1e-4)


def test_silence_stays_silence_at_any_level(level_enhancer):
    enhanced, log_magnitude = level_enhancer(torch.zeros(1, 16000))
    assert enhanced.abs().max() < 1e-9
    assert log_magnitude.abs().max() < 1e-9


@pytest.mark.parametrize(
    ("own", "asked", "expected"), [(12, None, 12), (12, 6, 6), (None, 20, 20)]
)
def test_the_bound_on_suppression_is_the_network_s_or_the_call_s(
    speech, own, asked, expected
):
    head = MaskEstimator(SpectrogramOnly(201), FeedForward(8), 201, 201, 8)
    torch.nn.init.constant_(head.output_layer.bias, -20.0)  # a mask of nearly 0
    enhancer = CFFMAEnhancer(NoEmbedding(), LogSpectrogram(), head, suppression=own)
    with torch.no_grad():
        enhanced, _ = enhancer(speech.unsqueeze(0), suppression=asked)
        nothing, _ = enhancer(speech.unsqueeze(0), suppression=math.inf)
    gain = 10 ** (-expected / 20)
    torch.testing.assert_close(enhanced[0], gain * speech, atol=1e-5, rtol=1e-3)
    assert nothing.abs().max() < 1e-4


# --- Behaviour


def test_mask_lies_between_0_and_1_and_uses_the_range():
    estimator = perturbed(small_cffma())
    with torch.no_grad():
        estimator.output_layer.weight.mul_(10)
    mask = estimator(*inputs_of("cffma", LONG))
    assert mask.shape == (1, LONG, N_FREQS)
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert mask.min() < 0.01
    assert mask.max() > 0.99


@pytest.mark.parametrize(
    ("gate", "kernel_size", "dilation"),
    [(0, 3, 1), (0, 3, 4), (1, 5, 1), (1, 5, 2), (2, 7, 1), (2, 5, 3)],
)
def test_a_gate_of_mscff_sees_the_frames_of_its_kernel(gate, kernel_size, dilation):
    class NoNorm(nn.Module):
        """The normalisation would spread each frame over all."""

        def forward(self, x, mask=None):
            return x

    kernel_sizes, dilations = [1, 1, 1], [1, 1, 1]
    kernel_sizes[gate], dilations[gate] = kernel_size, dilation
    fusion = MSCFF(N_FREQS, SSL_DIM, FUSED_DIM, kernel_sizes, dilations)
    fusion.norm = NoNorm()
    spectrum, embedding = inputs_of("mscff", 31)
    changed = spectrum.clone()
    changed[:, 15] += 1
    difference = fusion(changed, embedding) - fusion(spectrum, embedding)
    reach = kernel_size // 2
    expected = [15 + tap * dilation for tap in range(-reach, reach + 1)]
    assert difference.abs().sum(dim=2)[0].nonzero().flatten().tolist() == expected


def test_attention_tells_past_from_future():
    attention = perturbed(RelativeSelfAttention(DIM, n_heads=3))
    x = torch.randn(1, SHORT, DIM)
    assert (attention(x.flip(1)).flip(1) - attention(x)).abs().max() > 1e-2


def test_attention_without_positions_does_not_tell_past_from_future():
    attention = perturbed(RelativeSelfAttention(DIM, n_heads=3))
    with torch.no_grad():
        attention.position.weight.zero_()
    x = torch.randn(1, SHORT, DIM)
    assert (attention(x.flip(1)).flip(1) - attention(x)).abs().max() < 1e-5


def test_attention_of_one_frame_is_its_value():
    attention = perturbed(RelativeSelfAttention(DIM, n_heads=3))
    x = torch.randn(1, 1, DIM)
    expected = attention.output(attention.value(x))
    assert (attention(x) - expected).abs().max() < 1e-6


def test_repeated_blocks_have_sub_blocks_of_their_own():
    makers = [lambda: FeedForward(DIM), SelectiveTimeAttention]
    stack = PostNormStack.repeated(DIM, n_blocks=3, sub_blocks=makers)
    parts = [part for block in stack.blocks for part in block.sub_blocks]
    assert [type(part) for part in parts] == 3 * [FeedForward, SelectiveTimeAttention]
    assert len(set(parts)) == 6


@pytest.mark.parametrize("n_layers", [1, 2])
def test_dropout_of_the_blstm_acts_between_its_layers(n_layers, recwarn):
    blstm = BLSTM(DIM, n_layers, dropout=0.5)
    x = torch.randn(1, SHORT, DIM)
    assert torch.equal(blstm.train()(x), blstm(x)) == (n_layers == 1)
    assert not recwarn.list


def test_cross_attention_finds_the_frames_of_its_own_time():
    """It would not notice an embedding in another order if it had no positions."""
    fusion = perturbed(CrossAttentionFusion(N_FREQS, SSL_DIM, DIM, n_heads=3))
    spectrum, embedding = inputs_of("cross_attention", SHORT)
    difference = fusion(spectrum, embedding.flip(1)) - fusion(spectrum, embedding)
    assert difference.abs().max() > 1e-2


@pytest.mark.parametrize(
    "name",
    ["attention", "feed_forward", "rhma", "transformer", "cross_attention", "cffma"],
)
def test_dropout_acts_in_training_only(name):
    lobe = LOBES[name]()
    inputs = inputs_of(name, SHORT)
    assert not torch.equal(lobe.train()(*inputs), lobe(*inputs))
    assert torch.equal(lobe.eval()(*inputs), lobe(*inputs))


def test_mask_is_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mask = small_cffma()(*inputs_of("cffma", SHORT))
    assert mask.dtype == torch.float32


def test_the_parts_can_be_replaced():
    """The mask estimator takes any fusion and any enhancer of the documented form."""

    class Concatenation(nn.Module):
        def forward(self, spectrum, embedding, lengths):
            return torch.cat([spectrum, embedding], dim=-1)

    fused_dim = N_FREQS + SSL_DIM
    estimator = MaskEstimator(
        Concatenation(), FeedForward(DIM), N_FREQS, fused_dim, DIM
    )
    assert estimator(*inputs_of("cffma", SHORT)).shape == (1, SHORT, N_FREQS)


@pytest.mark.parametrize(("dim", "n_heads"), [(12, 5), (15, 5)])
@pytest.mark.parametrize(
    "lobe",
    [
        RelativeSelfAttention,
        lambda dim, n_heads: TransformerStack(dim, n_heads=n_heads),
        lambda dim, n_heads: CrossAttentionFusion(N_FREQS, SSL_DIM, dim, n_heads),
    ],
    ids=["relative", "transformer", "cross"],
)
def test_channels_that_are_odd_or_no_multiple_of_the_heads_are_refused(
    lobe, dim, n_heads
):
    with pytest.raises(InputError, match=f"{dim} channels must be even, and a multi"):
        lobe(dim, n_heads)


@pytest.mark.parametrize(
    "arguments",
    [{"kernel_sizes": (3, 5)}, {"kernel_sizes": (3, 4, 7)}, {"dilations": (1, 2)}],
)
def test_kernels_that_are_even_or_not_three_are_refused(arguments):
    with pytest.raises(InputError, match="three odd kernel_sizes"):
        MSCFF(**arguments)


def test_the_window_keeps_its_precision_when_the_module_is_converted():
    window = LogSpectrogram().bfloat16().window
    assert torch.equal(window, torch.hamming_window(400))


def test_an_utterance_of_no_frames_gives_finite_features():
    x, lengths = torch.randn(2, 20, 16), torch.tensor([0.01, 1.0])
    assert SCTA(16)(x, lengths).isfinite().all()


@pytest.mark.parametrize("name", ["mscff", "cross_attention"])
@pytest.mark.parametrize(
    ("spectrum", "embedding"),
    [((1, 5, N_FREQS + 1), (1, 5, SSL_DIM)), ((1, 5, N_FREQS), (1, 6, SSL_DIM))],
    ids=["channels", "frames"],
)
def test_features_that_do_not_fit_a_fusion_are_refused(name, spectrum, embedding):
    with pytest.raises(InputError, match="got a spectrogram of shape"):
        LOBES[name]()(torch.rand(spectrum), torch.rand(embedding))


def test_waveforms_without_a_batch_dimension_are_refused(tiny_wavlm):
    enhancer = CFFMAEnhancer(
        SSLEmbedding(tiny_wavlm), LogSpectrogram(), CFFMA(ssl_dim=32, dim=8)
    )
    with pytest.raises(InputError, match=r"not of shape \(16000,\)"):
        enhancer(torch.zeros(16000))


# --- Gradients


def gradients(ssl, fine_tune, speech):
    """Greatest gradient of each parameter (None: none) after one step of the training loss."""
    enhancer = CFFMAEnhancer(
        SSLEmbedding(ssl, fine_tune=fine_tune),
        LogSpectrogram(),
        CFFMA(ssl_dim=32, fused_dim=32, dim=16, n_blocks=2, n_heads=2),
    )
    clean = speech[:20480].unsqueeze(0)
    noisy = clean + 0.1 * torch.randn_like(clean)
    target, _ = enhancer.spectrogram(clean)
    _, log_magnitude = enhancer(noisy)
    (log_magnitude - target).abs().mean().backward()
    return {
        name: None if parameter.grad is None else parameter.grad.abs().max().item()
        for name, parameter in enhancer.named_parameters()
    }


def is_unused(name, large):
    """Without a gradient by design: SpecAugment's vector, since it is off; the last
    LayerNorm of a large model, which comes behind the last hidden state."""
    return name.endswith("masked_spec_embed") or (
        large and name.startswith("embedding.ssl.model.encoder.layer_norm.")
    )


def is_frozen(name, fine_tune):
    prefix = {
        "frozen": "embedding.ssl.",
        "partial": "embedding.ssl.model.feature_extractor.",
        "entire": "nothing",
    }
    return name.startswith(prefix[fine_tune])


@pytest.mark.parametrize("fine_tune", ["frozen", "partial", "entire"])
@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_that_should_learn_learns_and_nothing_else(
    ssl_folder, speech, family, large, fine_tune
):
    found = gradients(load_ssl(ssl_folder(family, large)), fine_tune, speech)
    without = {name for name in found if found[name] is None}
    assert without == {
        name for name in found if is_frozen(name, fine_tune) or is_unused(name, large)
    }
    learning = {name: size for name, size in found.items() if name not in without}
    negligible = {name for name, size in learning.items() if size < 1e-9}
    assert negligible == {name for name in learning if is_cancelled(name)}
