"""The SSL models of model folders compute what those of transformers compute."""

import copy
import re

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from speechbrain_cffma.lobes import CFFMAEnhancer, SSLEmbedding, load_enhancer, load_ssl
from speechbrain_cffma.lobes.ssl_models import wrapper_class
from speechbrain_cffma.lobes.ssl_network import DEFAULTS, SSL, SSLConfig, SSLNetwork

TINY = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
ADAPTER = {"add_adapter": True, "output_hidden_size": 24, "num_adapter_layers": 2}
VARIANTS = {
    **{f"{family}-base": (family, {}) for family in DEFAULTS},
    **{f"{family}-large": (family, LARGE) for family in DEFAULTS},
    "wavlm-adapter": ("wavlm", ADAPTER),
    "wavlm-activations": ("wavlm", {"hidden_act": "gelu_new"}),
    "wavlm-odd": ("wavlm", {"num_conv_pos_embeddings": 15, "num_buckets": 20}),
    "wav2vec2-adapters": ("wav2vec2", {**LARGE, **ADAPTER, "adapter_attn_dim": 8}),
    "wav2vec2-plain": ("wav2vec2", {"mask_time_prob": 0.0}),
    "hubert-batch-norm": ("hubert", {"conv_pos_batch_norm": True}),
    "hubert-no-norm": ("hubert", {"feat_proj_layer_norm": False}),
}
pytestmark = pytest.mark.slow
#: Configuration values of heads, which encoders don't have.
HEADS = re.compile(
    r"vocab_size|.*_token_id|(num_)?ctc_.*|(tdnn|xvector|classifier|diversity)_.*|"
    r".*codevector.*|contrastive_.*|num_negatives|use_weighted_layer_sum|"
    r"final_dropout|feat_quantizer_dropout"
)


@pytest.fixture(params=VARIANTS)
def pair(request):
    """A model of transformers with weights other than the first, and ours with the same.

    In float64: in float32 the rounding of either is 3e-6.
    """
    family, values = VARIANTS[request.param]
    values = {**TINY, **values}
    theirs = AutoModel.from_config(AutoConfig.for_model(family, **values))
    for parameter in theirs.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    ours = SSLNetwork(SSLConfig(family, **values))
    ours.load_state_dict(theirs.state_dict())
    return theirs.double().eval(), ours.double().eval()


@torch.no_grad()
@pytest.mark.parametrize("n_samples", [400, 8000, 47777])
def test_all_hidden_states_are_those_of_transformers(pair, speech, n_samples):
    theirs, ours = pair
    wav = speech[:n_samples].double().expand(2, -1)
    expected = theirs(wav, output_hidden_states=True)
    output = ours(wav)
    assert len(output.hidden_states) == len(expected.hidden_states)
    for hidden, other in zip(output.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(hidden, other, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_padding_is_left_out_as_by_transformers(pair, speech):
    theirs, ours = pair
    wav = speech[:16000].double().view(2, 8000)
    mask = torch.arange(8000) < torch.tensor([[8000], [5000]])
    expected = theirs(wav, attention_mask=mask, output_hidden_states=True)
    output = ours(wav, attention_mask=mask)
    for hidden, other in zip(output.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(hidden[0], other[0], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(hidden[1, :15], other[1, :15], atol=1e-6, rtol=1e-6)


def test_all_gradients_are_those_of_transformers(pair, speech):
    for model in pair:
        wav = speech[None, :8000].double()
        hidden = model(wav, output_hidden_states=True).hidden_states
        sum(state.square().mean() for state in hidden).backward()
    expected = dict(pair[0].named_parameters())
    for name, parameter in pair[1].named_parameters():
        if parameter.grad is None:
            assert expected[name].grad is None, name
        else:
            torch.testing.assert_close(
                parameter.grad, expected[name].grad, atol=1e-6, rtol=1e-6, msg=name
            )


@pytest.mark.parametrize("family", DEFAULTS)
@pytest.mark.parametrize("size", ["base", "large"])
def test_the_published_sizes_have_the_weights_of_transformers(family, size):
    """Names and shapes; the numbers are those of wavlm-large and its like."""
    values = {}
    if size == "large":
        values = {"hidden_size": 1024, "num_hidden_layers": 24, **LARGE}
        values |= {"num_attention_heads": 16, "intermediate_size": 4096}
    with torch.device("meta"):
        theirs = AutoModel.from_config(AutoConfig.for_model(family, **values))
        ours = SSLNetwork(SSLConfig(family, **values))
    shapes = [
        {name: weight.shape for name, weight in model.state_dict().items()}
        for model in (theirs, ours)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("family", DEFAULTS)
def test_the_configuration_is_that_of_transformers_without_heads(family):
    kind = CONFIG_MAPPING[family]
    assert DEFAULTS[family] == {
        name: getattr(kind, name)
        for name in kind.__annotations__
        if name != "model_type" and not HEADS.fullmatch(name)
    }


def test_dropout_acts_in_training_only(speech):
    for family in DEFAULTS:
        network = SSLNetwork(SSLConfig(family, **TINY))
        wav = speech[None, :8000]
        outputs = [network(wav).last_hidden_state for _ in range(2)]
        assert not torch.equal(*outputs)
        network.eval()
        outputs = [network(wav).last_hidden_state for _ in range(2)]
        assert torch.equal(*outputs)


class TestModelFolder:
    @pytest.fixture(params=["wavlm", "wav2vec2", "hubert"])
    def saved(self, request, ssl_folder, tiny_enhancer, tmp_path):
        """An enhancer with SpeechBrain's wrapper, and the folder that it is saved as."""
        enhancer = copy.deepcopy(tiny_enhancer)
        enhancer.embedding = SSLEmbedding(load_ssl(ssl_folder(request.param)))
        return enhancer.eval(), enhancer.save_pretrained(tmp_path / "model")

    @torch.no_grad()
    def test_a_loaded_enhancer_gives_the_same_samples_as_the_saved_one(
        self, saved, speech
    ):
        enhancer, folder = saved
        loaded = CFFMAEnhancer.from_pretrained(folder)
        assert type(loaded.embedding.ssl) is SSL
        assert torch.equal(loaded(speech[None])[0], enhancer(speech[None])[0])

    @torch.no_grad()
    def test_a_copy_gives_the_same_samples(self, saved, speech):
        loaded = CFFMAEnhancer.from_pretrained(saved[1])
        copied = copy.deepcopy(loaded)
        assert torch.equal(copied(speech[None])[0], loaded(speech[None])[0])

    def test_saved_again_it_is_the_same_folder(self, saved, tmp_path):
        _, folder = saved
        again = CFFMAEnhancer.from_pretrained(folder).save_pretrained(tmp_path / "b")
        for file in folder.iterdir():
            assert (again / file.name).read_bytes() == file.read_bytes(), file.name

    @torch.no_grad()
    def test_for_training_it_is_a_model_of_transformers(self, saved, speech):
        enhancer, folder = saved
        trained = load_enhancer(folder, fine_tune="entire").eval()
        ssl = trained.embedding.ssl
        assert type(ssl) is wrapper_class(ssl.model.config.model_type)
        assert type(ssl.model).__module__.startswith("transformers.")
        assert torch.equal(trained(speech[None])[0], enhancer(speech[None])[0])
