"""What makes the network fast does not change what it computes."""

import copy

import pytest
import torch
from straightforward import Straightforward
from torch._dynamo.testing import CompileCounter
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from speechbrain_cffma.lobes import (
    CFFMA,
    CFFMAEnhancer,
    LogSpectrogram,
    SSLEmbedding,
    fast_ssl,
    load_ssl,
)
from speechbrain_cffma.lobes.fast_ssl import FastWavLMAttention, fold_norm, make_fast

pytestmark = pytest.mark.slow


def perturbed(module):
    """Biases and gates other than their first values."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module


@pytest.fixture(params=["wavlm", "wavlm-large", "wav2vec2", "hubert"])
def enhancer(request, ssl_folder):
    family, _, size = request.param.partition("-")
    ssl = load_ssl(ssl_folder(family, large=bool(size), num_hidden_layers=3))
    head = CFFMA(ssl_dim=32, fused_dim=48, dim=32, n_heads=2, dropout=0.0)
    embedding = SSLEmbedding(ssl, fine_tune="entire")
    return perturbed(CFFMAEnhancer(embedding, LogSpectrogram(), head)).eval()


@pytest.mark.parametrize("n_samples", [400, 20480, 47777])
def test_it_enhances_as_the_straightforward_form_does(enhancer, speech, n_samples):
    noisy = speech[:n_samples].expand(2, -1)
    with torch.no_grad():
        enhanced, log_magnitude = enhancer(noisy)
        expected, expected_magnitude = Straightforward(enhancer)(noisy)
    torch.testing.assert_close(enhanced, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_magnitude, expected_magnitude, atol=1e-5, rtol=0)


def test_its_gradients_are_those_of_the_straightforward_form(
    enhancer, speech, monkeypatch
):
    monkeypatch.setattr(fast_ssl, "CHUNK", 20)  # of 63
    reference = Straightforward(enhancer)
    for network in (enhancer, reference):
        _, log_magnitude = network(speech[None, :20480])
        log_magnitude.square().mean().backward()
    ours = dict(enhancer.named_parameters())
    for name, theirs in reference.enhancer.named_parameters():
        if theirs.grad is None:
            assert ours[name].grad is None or not ours[name].grad.any(), name
        else:
            torch.testing.assert_close(
                ours[name].grad, theirs.grad, atol=1e-5, rtol=1e-3, msg=name
            )


class TestFastFeatureEncoder:
    @pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])
    @pytest.mark.parametrize("large", [False, True])
    def test_it_gives_the_features_of_transformers(
        self, ssl_folder, speech, monkeypatch, family, large
    ):
        monkeypatch.setattr(fast_ssl, "CHUNK", 20)
        model = load_ssl(ssl_folder(family, large=large)).model.eval()
        fast = copy.deepcopy(model)
        make_fast(fast)
        for batch in (1, 3):
            for n_frames in (1, 6, 7, 19, 20, 21, 40):
                for more in (0, 319):
                    wav = speech[: 80 + 320 * n_frames + more].expand(batch, -1)
                    with torch.no_grad():
                        expected = model.feature_extractor(wav)
                        features = fast.feature_extractor(wav)
                    assert features.shape[2] == n_frames
                    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(("offset", "gain"), [(0, 1), (10, 0.1)])
    def test_where_a_kernel_leaves_little_it_is_as_exact_as_the_layer(
        self, ssl_folder, speech, offset, gain
    ):
        model = load_ssl(ssl_folder("wavlm", conv_dim=[512, *6 * [16]])).model.eval()
        layer = model.feature_extractor.conv_layers[0]
        with torch.no_grad():  # what kernels pass, they pass without its mean
            layer.conv.weight -= layer.conv.weight.mean(2, keepdim=True)
            wav = offset + gain * speech[None, None]
            exact = copy.deepcopy(layer).double()(wav.double())
            folded = fold_norm(layer, wav[:, 0])(wav)
            errors = [(x - exact).abs().max() for x in (folded, layer(wav))]
        assert errors[0] < 2 * errors[1]

    def test_checkpointed_gradients_are_the_same(self, tiny_wavlm, speech):
        model = tiny_wavlm.model.train()
        make_fast(model)
        gradients = []
        for _ in range(2):
            model.zero_grad()
            model.feature_extractor(speech[None]).square().mean().backward()
            gradients.append([p.grad for p in model.feature_extractor.parameters()])
            model.gradient_checkpointing_enable()
        for plain, checkpointed in zip(*gradients, strict=True):
            torch.testing.assert_close(plain, checkpointed, atol=1e-5, rtol=1e-3)


class TestFastWavLMAttention:
    @pytest.mark.parametrize("large", [False, True])
    def test_padding_is_not_attended_to(self, ssl_folder, large):
        model = load_ssl(ssl_folder("wavlm", large=large)).model.eval()
        wav, mask = torch.randn(2, 8000), torch.ones(2, 8000, dtype=torch.long)
        mask[0, 5000:] = 0
        with torch.no_grad():
            expected = model(wav, attention_mask=mask).last_hidden_state
            make_fast(model)
            hidden = model(wav, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(hidden[0, :15], expected[0, :15], atol=1e-5, rtol=0)
        torch.testing.assert_close(hidden[1], expected[1], atol=1e-5, rtol=0)

    def test_dropout_acts_in_training_only(self, tiny_wavlm):
        model = tiny_wavlm.model
        make_fast(model)
        for layer in model.encoder.layers:
            layer.attention.dropout = 0.5
        attention = model.encoder.layers[0].attention
        x = torch.randn(1, 20, 32)
        assert torch.equal(attention.eval()(x)[0], attention(x)[0])
        assert not torch.equal(attention.train()(x)[0], attention(x)[0])

    def test_an_embedding_takes_it_for_any_wavlm(self, tiny_wavlm):
        assert type(tiny_wavlm.model.encoder.layers[0].attention) is WavLMAttention
        SSLEmbedding(tiny_wavlm)
        layers = tiny_wavlm.model.encoder.layers
        assert all(type(f.attention) is FastWavLMAttention for f in layers)


def test_compiled_it_is_not_compiled_anew_for_each_length(tiny_enhancer, speech):
    counter = CompileCounter()
    compiled = torch.compile(tiny_enhancer, dynamic=True, backend=counter)
    n_graphs = []
    with torch.no_grad():
        for n_samples in (20480, 33000, 24001, 47777, 43200, 28800, 18000):
            noisy = speech[None, :n_samples]
            enhanced, _ = compiled(noisy)
            expected, _ = tiny_enhancer(noisy)
            torch.testing.assert_close(enhanced, expected, atol=1e-5, rtol=0)
            n_graphs.append(counter.frame_count)
    # Some ranges of lengths have a graph of their own.
    assert n_graphs[0]
    assert n_graphs[3:] == 4 * [n_graphs[2]]
