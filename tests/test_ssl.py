"""The SSL embedding: families and sizes of models, fine-tuning, alignment, refusals."""

import json
import shutil

import pytest
import speechbrain as sb
import torch
from safetensors.torch import load_file, save_file
from speechbrain.integrations.huggingface.wavlm import WavLM
from torch.nn import functional as F

from helpers.numpy_reference import n_ssl_frames
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes import SSLEmbedding, load_ssl
from speechbrain_cffma.lobes.ssl_models import wrapper_class

all_models = pytest.mark.parametrize(
    ("family", "large"),
    [
        pytest.param(family, large, id=f"{family}-{'large' if large else 'base'}")
        for family in ("wavlm", "wav2vec2", "hubert")
        for large in (False, True)
    ],
)
all_families = pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])


@pytest.fixture
def embedding_of(ssl_folder):
    """`embedding_of(family, large=False, **arguments)`: embedding of a tiny model."""

    def make(family, large=False, **arguments):
        return SSLEmbedding(load_ssl(ssl_folder(family, large)), **arguments)

    return make


def modes(module):
    """The training modes that the parts of a module are in."""
    return {part.training for part in module.modules()}


# --- Output


@all_models
def test_embedding_has_a_frame_for_each_of_the_stft(
    embedding_of, speech, family, large
):
    embedding = embedding_of(family, large)
    out = embedding(speech[:40960].view(2, 20480), n_frames=129)
    assert out.shape == (2, 129, 32)
    assert out.isfinite().all()


@all_models
def test_layers_used_are_those_of_the_published_code(embedding_of, family, large):
    """WavLM: the transformer's input and both layers; the others: both layers."""
    n_layers = 3 if family == "wavlm" else 2
    embedding = embedding_of(family, large)
    assert len(embedding.norms) == len(embedding.layer_weights()) == n_layers


def test_first_hidden_state_of_wavlm_is_the_transformers_input(tiny_wavlm, speech):
    seen = []
    tiny_wavlm.model.encoder.layers[0].register_forward_pre_hook(
        lambda layer, inputs: seen.append(inputs[0].clone())
    )
    hidden_states = tiny_wavlm.eval()(speech[:20480].unsqueeze(0))
    assert torch.equal(hidden_states[0], seen[0])


@all_families
def test_the_last_layers_are_the_ones_used(embedding_of, speech, family):
    """With all the weight on the last layer, the result is its LayerNorm."""
    embedding = embedding_of(family).eval()
    with torch.no_grad():
        embedding.weights[-1] = 100
    wav = speech[:20480].unsqueeze(0)
    expected = F.layer_norm(embedding.ssl(wav)[-1], (32,))
    assert (embedding(wav, n_frames=129)[:, :126:2] - expected).abs().max() < 1e-5


@all_families
def test_all_layers_have_the_same_weight_at_first(embedding_of, family):
    weights = embedding_of(family).layer_weights()
    assert weights.sum().item() == pytest.approx(1)
    assert weights.max() == weights.min()


def test_layer_weights_stay_positive_and_of_sum_1(tiny_wavlm):
    embedding = SSLEmbedding(tiny_wavlm)
    with torch.no_grad():
        embedding.weights.copy_(torch.tensor([-3.0, 0.0, 2.0]))
    weights = embedding.layer_weights()
    assert weights.sum().item() == pytest.approx(1)
    assert 0 < weights[0] < weights[1] < weights[2]


@all_models
def test_without_weighted_sum_it_is_the_layer_norm_of_the_last_hidden_state(
    embedding_of, speech, family, large
):
    embedding = embedding_of(family, large, weighted_sum=False).eval()
    scale, bias = torch.rand(32), torch.rand(32)
    embedding.norms[0].load_state_dict({"weight": scale, "bias": bias})
    wav = speech[:20480].unsqueeze(0)
    expected = F.layer_norm(embedding.ssl(wav)[-1], (32,), scale, bias)
    out = embedding(wav, n_frames=129)
    assert torch.equal(out[:, 0:126:2], expected)
    assert len(embedding.norms) == 1
    assert embedding.layer_weights().tolist() == [1.0]


def never_used(large=False):
    """The parameters of an SSL model that its hidden states don't depend on."""
    final_norm = {f"encoder.layer_norm.{name}" for name in ("weight", "bias")}
    return {"masked_spec_embed"} | (final_norm if large else set())


# --- Alignment


def counting_embedding(ssl, n_samples, n_utterances):
    """An embedding whose value at each frame is the index of the SSL frame it shows."""
    embedding = SSLEmbedding(ssl, weighted_sum=False)
    counter = torch.arange(n_ssl_frames(n_samples), dtype=torch.float32)
    states = counter.view(1, 1, -1, 1).expand(3, n_utterances, -1, 32)
    embedding._hidden_states = lambda wav, lengths: states
    embedding.norms[0] = torch.nn.Identity()
    return embedding


def test_63_ssl_frames_are_repeated_to_129(tiny_wavlm):
    embedding = counting_embedding(tiny_wavlm, 20480, n_utterances=1)
    shown = embedding(torch.zeros(1, 20480), n_frames=129)[0, :, 0].int().tolist()
    twice = [frame for frame in range(63) for _ in range(2)]
    assert shown == twice + [62, 62, 62]


@pytest.mark.parametrize("n_valid", [400, 8000, 12345, 20479])
def test_last_valid_frame_of_each_utterance_is_repeated_to_the_end(tiny_wavlm, n_valid):
    embedding = counting_embedding(tiny_wavlm, 20480, n_utterances=2)
    lengths = torch.tensor([n_valid / 20480, 1.0])
    shown = embedding(torch.zeros(2, 20480), n_frames=129, lengths=lengths)[..., 0]
    last = (n_valid - 400) // 320
    expected = [min(frame // 2, last) for frame in range(129)]
    assert shown[0].int().tolist() == expected
    assert shown[1, -1] == 62


def test_an_utterance_too_short_for_a_frame_shows_the_first_one(tiny_wavlm):
    embedding = counting_embedding(tiny_wavlm, 20480, n_utterances=2)
    lengths = torch.tensor([100 / 20480, 1.0])
    shown = embedding(torch.zeros(2, 20480), n_frames=129, lengths=lengths)[..., 0]
    assert shown[0].unique().tolist() == [0]


@pytest.mark.parametrize("n_samples", [400, 719, 720, 20480, 20799, 47999])
def test_number_of_ssl_frames_is_that_of_the_model(tiny_wavlm, n_samples):
    n_frames = tiny_wavlm.eval()(torch.randn(1, n_samples)).shape[2]
    assert n_frames == n_ssl_frames(n_samples)


def test_other_hops_are_aligned_by_time(tiny_wavlm):
    embedding = counting_embedding(tiny_wavlm, 20480, n_utterances=1)
    embedding.hop_length = 80  # 5 ms: each SSL frame four times
    shown = embedding(torch.zeros(1, 20480), n_frames=257)[0, :, 0].int().tolist()
    assert shown[:9] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert shown[-6:] == [62] * 6


# --- Training modes


@all_models
def test_layer_drop_is_off(ssl_folder, speech, family, large):
    """It would take layers out of the hidden states, at random."""
    folder = ssl_folder(family, large, layerdrop=0.5)
    embedding = SSLEmbedding(load_ssl(folder), fine_tune="entire").train()
    wav = speech[:4000].unsqueeze(0)
    numbers = {len(embedding.ssl(wav)) for _ in range(12)}
    assert numbers == {3}


def test_layer_drop_would_change_the_number_of_hidden_states(ssl_folder, speech):
    ssl = load_ssl(ssl_folder("wavlm", layerdrop=0.5)).train()
    wav = speech[:4000].unsqueeze(0)
    assert {len(ssl(wav)) for _ in range(24)} == {2, 3}


@all_models
def test_frozen_model_stays_in_eval_mode(embedding_of, speech, family, large):
    embedding = embedding_of(family, large, fine_tune="frozen")
    assert modes(embedding.ssl) == {False}
    embedding.train()
    assert modes(embedding.ssl) == {False}
    assert embedding.training
    assert embedding.norms.training
    wav = speech[:20480].unsqueeze(0)
    assert torch.equal(embedding(wav, 129), embedding(wav, 129))


@all_families
def test_no_graph_is_built_through_what_is_frozen(embedding_of, speech, family):
    """It would cost memory for gradients that nobody wants."""
    wav = speech[:4000].unsqueeze(0)
    frozen = embedding_of(family, fine_tune="frozen").train()
    assert not frozen.ssl(wav).requires_grad
    partial = embedding_of(family, fine_tune="partial").train()
    assert not partial.ssl.model.feature_extractor(wav).requires_grad
    assert partial.ssl(wav).requires_grad


class OneStepBrain(sb.Brain):
    """Pulls the embedding of noise towards zero, and notes the SSL model's modes."""

    def on_fit_start(self):
        super().on_fit_start()
        self.seen = []

    def compute_forward(self, batch, stage):
        self.seen.append((stage, modes(self.modules.embedding.ssl)))
        return self.modules.embedding(batch, n_frames=11)

    def compute_objectives(self, predictions, batch, stage):
        return predictions.square().mean()


def test_frozen_model_stays_in_eval_mode_and_as_it_is_in_brain_fit(tiny_wavlm):
    embedding = SSLEmbedding(tiny_wavlm, fine_tune="frozen")
    before = {name: value.clone() for name, value in tiny_wavlm.state_dict().items()}
    learnt = embedding.norms[0].weight.clone()
    brain = OneStepBrain(
        {"embedding": embedding},
        opt_class=lambda parameters: torch.optim.Adam(parameters, lr=0.1),
        run_opts={"device": "cpu"},
    )
    batches = torch.utils.data.DataLoader(torch.randn(4, 1600), batch_size=2)
    brain.fit(range(2), batches, batches, progressbar=False)
    assert len(brain.seen) == 8
    assert all(found == {False} for _, found in brain.seen)
    after = tiny_wavlm.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(learnt, embedding.norms[0].weight)


@all_models
def test_partial_freezes_the_feature_encoder_alone(embedding_of, family, large):
    embedding = embedding_of(family, large, fine_tune="partial").train()
    model = embedding.ssl.model
    assert modes(model.feature_extractor) == {False}
    assert modes(model.encoder) == modes(model.feature_projection) == {True}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    feature_encoder = {
        f"feature_extractor.{name}"
        for name, _ in model.feature_extractor.named_parameters()
    }
    assert frozen == feature_encoder | never_used(large)


@all_models
def test_entire_trains_everything_that_is_used(embedding_of, family, large):
    embedding = embedding_of(family, large, fine_tune="entire").train()
    assert modes(embedding) == {True}
    parameters = embedding.ssl.model.named_parameters()
    assert {name for name, p in parameters if not p.requires_grad} == never_used(large)


@all_models
@pytest.mark.parametrize("weighted_sum", [True, False])
def test_what_learns_gets_a_gradient(embedding_of, speech, family, large, weighted_sum):
    """Plain DDP waits for one of each parameter that requires it."""
    embedding = embedding_of(
        family, large, fine_tune="entire", weighted_sum=weighted_sum
    ).train()
    embedding(speech[None, :4000], n_frames=26).square().sum().backward()
    learning = [p for p in embedding.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)


@pytest.fixture
def one_process_group():
    """A process group of this process alone, for DDP."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@all_models
def test_plain_ddp_trains_it(embedding_of, speech, one_process_group, family, large):
    """Without find_unused_parameters, a gradient that lacks stops the second step."""
    embedding = embedding_of(family, large, fine_tune="entire").train()
    parallel = torch.nn.parallel.DistributedDataParallel(embedding)
    for _ in range(3):
        parallel(speech[None, :4000], n_frames=26).square().sum().backward()
    learning = [p for p in embedding.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)


def test_plain_ddp_stops_at_what_is_never_used(embedding_of, speech, one_process_group):
    embedding = embedding_of("wavlm", fine_tune="entire").train()
    embedding.ssl.model.masked_spec_embed.requires_grad_(True)
    parallel = torch.nn.parallel.DistributedDataParallel(embedding)
    parallel(speech[None, :4000], n_frames=26).square().sum().backward()
    with pytest.raises(RuntimeError, match="find_unused_parameters"):
        parallel(speech[None, :4000], n_frames=26)


@pytest.mark.parametrize("share", [0.05, 0.0])
def test_a_mask_token_that_is_used_learns(ssl_folder, share):
    ssl = load_ssl(ssl_folder("hubert", mask_time_prob=share, mask_feature_prob=0.1))
    ssl.model.config.apply_spec_augment = True
    SSLEmbedding(ssl, fine_tune="entire")
    assert ssl.model.masked_spec_embed.requires_grad == (share > 0)


@pytest.mark.parametrize("family", ["wavlm", "wav2vec2"])
def test_an_adapter_behind_the_last_layer_is_never_used(ssl_folder, speech, family):
    ssl = load_ssl(ssl_folder(family, add_adapter=True))
    embedding = SSLEmbedding(ssl, fine_tune="entire").train()
    embedding(speech[None, :4000], n_frames=26).square().sum().backward()
    learning = [p for p in embedding.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    assert not any(p.requires_grad for p in ssl.model.adapter.parameters())


@pytest.mark.parametrize("fine_tune", ["frozen", "partial", "entire"])
def test_eval_mode_is_for_the_whole_embedding(embedding_of, fine_tune):
    assert modes(embedding_of("wavlm", fine_tune=fine_tune).train().eval()) == {False}


# --- Refusals


def test_an_unknown_way_of_fine_tuning_is_refused(tiny_wavlm):
    with pytest.raises(InputError, match="frozen, partial or entire, not 'full'"):
        SSLEmbedding(tiny_wavlm, fine_tune="full")


def test_a_wrapper_without_hidden_states_is_refused(ssl_folder, tmp_path):
    ssl = wrapper_class("wavlm")(ssl_folder("wavlm"), str(tmp_path))
    with pytest.raises(InputError, match="output_all_hiddens=True"):
        SSLEmbedding(ssl)


def test_399_samples_are_refused(tiny_wavlm):
    with pytest.raises(
        InputError, match="399 samples is too short.*400 samples at 16 kHz"
    ):
        SSLEmbedding(tiny_wavlm)(torch.zeros(1, 399), n_frames=3)


def test_400_samples_are_one_frame(tiny_wavlm):
    assert SSLEmbedding(tiny_wavlm)(torch.randn(1, 400), n_frames=3).shape == (1, 3, 32)


# --- Loading


@all_families
def test_load_ssl_gives_speechbrains_wrapper_of_the_family(ssl_folder, family):
    ssl = load_ssl(ssl_folder(family))
    assert type(ssl) is wrapper_class(family)
    assert type(ssl).__module__.startswith("speechbrain.integrations.huggingface.")
    assert ssl.output_all_hiddens


def message_of_load_ssl(source):
    with pytest.raises(InputError) as caught:
        load_ssl(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("source", ["no/such-model", "no/such/folder", "nothing"])
def test_a_model_that_is_not_there_is_refused_in_one_line_with_what_to_do(source):
    message = message_of_load_ssl(source)
    assert repr(source) in message
    assert "--ssl_source=FOLDER" in message


@pytest.mark.parametrize("weights", [None, b"", b"not weights"])
def test_a_folder_without_usable_weights_is_refused_in_one_line(
    ssl_folder, tmp_path, weights
):
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(f"{ssl_folder('wavlm')}/{name}", tmp_path)
    if weights is not None:
        (tmp_path / "model.safetensors").write_bytes(weights)
    assert "--ssl_source=FOLDER" in message_of_load_ssl(str(tmp_path))


def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    message = message_of_load_ssl(str(tmp_path))
    assert "'bert' is not supported" in message
    assert "wavlm, wav2vec2, hubert" in message


def test_weights_that_are_missing_are_not_replaced_by_random_ones(ssl_folder, tmp_path):
    folder = shutil.copytree(ssl_folder("wavlm"), tmp_path / "wavlm")
    weights = load_file(folder / "model.safetensors")
    kept = {key: weights[key] for key in weights if key != "encoder.layer_norm.bias"}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="encoder.layer_norm.bias is missing"):
        load_ssl(folder)


def test_fine_tune_decides_what_learns_whatever_was_frozen_before(tiny_wavlm):
    SSLEmbedding(tiny_wavlm, fine_tune="frozen")
    SSLEmbedding(tiny_wavlm, fine_tune="entire")
    parameters = tiny_wavlm.model.named_parameters()
    assert {name for name, p in parameters if not p.requires_grad} == never_used()


def test_a_wrapper_made_frozen_can_not_be_fine_tuned(ssl_folder):
    ssl = WavLM(ssl_folder("wavlm"), "", freeze=True, output_all_hiddens=True)
    with pytest.raises(InputError, match="needs an SSL wrapper made with freeze=False"):
        SSLEmbedding(ssl, fine_tune="partial")
