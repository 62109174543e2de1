"""The variants of hparams/variants: each builds, learns, is saved, and is what its name says."""

import re

import pytest
import torch

from helpers.networks import (
    LONG,
    RELATIVE_LENGTHS,
    SHORT,
    VARIANT_FILES,
    VARIANTS,
    enhancer_of,
    is_cancelled,
    padded_with_noise,
    perturbed,
)
from helpers.paths import HPARAMS
from speechbrain_cffma import lobes
from speechbrain_cffma.lobes import CFFMA, CFFMAEnhancer
from speechbrain_cffma.registry import config_of
from speechbrain_cffma.training.experiment import read_defaults

pytestmark = pytest.mark.slow

each_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture
def build(ssl_folder):
    """`build(variant, family="wavlm", large=False)`: a small one, with a tiny SSL model."""

    def make(variant, family="wavlm", large=False):
        source = ssl_folder(family, large)
        return enhancer_of(variant, ssl_source=source, fused_dim=48, dim=32)

    return make


def n_head_parameters(enhancer):
    """All but those of the SSL model."""
    ssl = set(enhancer.embedding.ssl_parameters())
    return sum(p.numel() for p in enhancer.parameters() if p not in ssl)


# --- Each of them


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "refined"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gives_a_mask(build, speech, variant, precision):
    enhancer = perturbed(build(variant))
    noisy = speech[:20480].unsqueeze(0)
    with (
        torch.no_grad(),
        torch.autocast("cpu", precision, enabled=precision != torch.float32),
    ):
        enhanced, log_magnitude = enhancer(noisy)
        spectrum, _ = enhancer.spectrogram(noisy)
    assert enhanced.shape == noisy.shape
    assert log_magnitude.shape == (1, 129, 201)
    mask = log_magnitude / spectrum
    assert mask.dtype == torch.float32
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert mask.std() > 0.01


@each_variant
def test_packed_it_gives_the_same(build, speech, variant):
    enhancer = perturbed(build(variant))
    expected = enhancer.enhance(speech)
    enhanced = enhancer.pack("fp32").enhance(speech)
    error = (enhanced - expected).abs().max()
    assert error < 1e-5 * expected.abs().max().clamp(min=1)


@each_variant
def test_packed_in_bfloat16_it_works(build, speech, variant):
    enhanced = build(variant).pack("bf16").enhance(speech)
    assert enhanced.shape == speech.shape
    assert enhanced.isfinite().all()


@pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])
@pytest.mark.parametrize("large", [False, True])
def test_packed_any_ssl_model_gives_the_same(build, speech, family, large):
    enhancer = perturbed(build("[]", family, large))
    expected = enhancer.enhance(speech)
    enhanced = enhancer.pack("fp32").enhance(speech)
    error = (enhanced - expected).abs().max()
    assert error < 1e-5 * expected.abs().max().clamp(min=1)


@each_variant
def test_all_that_should_learn_learns(build, speech, variant):
    enhancer = build(variant)
    if enhancer.refiner is not None:
        perturbed(enhancer.refiner.filter)  # zero at first, which lets no gradient pass
    clean = speech[:20480].unsqueeze(0)
    target, _ = enhancer.spectrogram(clean)
    _, log_magnitude = enhancer(clean + 0.1 * torch.randn_like(clean))
    (log_magnitude - target).abs().mean().backward()
    idle = {
        name
        for name, parameter in enhancer.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() == 0
    }
    unused = {name for name in idle if name.endswith("masked_spec_embed")}
    assert {name for name in idle - unused if not is_cancelled(name)} == set()


@each_variant
def test_padding_does_not_change_an_utterance(build, variant):
    enhancer = build(variant)
    estimator = perturbed(enhancer.mask_estimator)
    channels = (201, enhancer.embedding.dim)
    short = [torch.randn(1, SHORT, n) for n in channels]
    long = [torch.randn(1, LONG, n) for n in channels]
    batch = [padded_with_noise(*pair) for pair in zip(short, long, strict=True)]
    with torch.no_grad():
        alone = estimator(*short)
        padded = estimator(*batch, RELATIVE_LENGTHS)[:1, :SHORT]
        without_lengths = estimator(*batch)[:1, :SHORT]
    assert (alone - padded).abs().max() < 1e-5
    assert (alone - without_lengths).abs().max() > 1e-4


@each_variant
def test_enhances_alike_after_save_and_load(build, speech, tmp_path, variant):
    enhancer = perturbed(build(variant))
    loaded = CFFMAEnhancer.from_pretrained(enhancer.save_pretrained(tmp_path / "m"))
    assert config_of(loaded) == config_of(enhancer)
    with torch.no_grad():
        before, after = (e(speech.unsqueeze(0))[0] for e in (enhancer, loaded))
    assert torch.equal(before, after)


@each_variant
def test_is_another_network_than_the_published_one(build, variant):
    assert config_of(build(variant)) != config_of(build("null"))


@pytest.mark.parametrize("path", VARIANT_FILES, ids=lambda path: path.stem)
def test_replaces_keys_that_the_experiments_share(path):
    shared = {"target_transform"} | read_defaults(HPARAMS / "network/cffma.yaml").keys()
    assert read_defaults(path).keys() <= shared
    assert path.read_text().startswith("# ")


# --- The published one


def test_the_published_network_is_the_lobe_of_that_name(build, speech):
    enhancer = perturbed(build("null"))
    published = CFFMA(ssl_dim=32, fused_dim=48, dim=32).eval()
    published.load_state_dict(enhancer.mask_estimator.state_dict())
    spectrum, embedding = torch.rand(1, 50, 201), torch.rand(1, 50, 32)
    with torch.no_grad():
        expected = published(spectrum, embedding)
        assert torch.equal(enhancer.mask_estimator(spectrum, embedding), expected)


def test_a_model_folder_that_names_the_lobe_still_loads(build, speech, tmp_path):
    """As training wrote them before the network had variants."""
    enhancer = perturbed(build("null"))
    published = CFFMA(ssl_dim=32, fused_dim=48, dim=32).eval()
    published.load_state_dict(enhancer.mask_estimator.state_dict())
    CFFMAEnhancer(enhancer.embedding, enhancer.spectrogram, published).save_pretrained(
        tmp_path
    )
    loaded = CFFMAEnhancer.from_pretrained(tmp_path)
    with torch.no_grad():
        before, after = (e(speech.unsqueeze(0))[0] for e in (enhancer, loaded))
    assert torch.equal(before, after)


# --- What their names say


ATTENTION, FFN, SCTA = "RelativeSelfAttention", "FeedForward", "SCTA"


@pytest.mark.parametrize(
    ("variant", "sub_blocks"),
    [
        ("null", [ATTENTION, FFN, SCTA, FFN]),
        ("without_mhsa", [FFN, SCTA, FFN]),
        ("without_scta", [ATTENTION, FFN, FFN]),
        ("without_channel_attention", [ATTENTION, FFN, "SelectiveTimeAttention", FFN]),
        ("without_time_attention", [ATTENTION, FFN, "SelectiveChannelAttention", FFN]),
        ("without_ffn", [ATTENTION, SCTA]),
    ],
)
def test_sub_blocks_of_the_enhancer(build, variant, sub_blocks):
    blocks = build(variant).mask_estimator.enhancer.blocks
    assert len(blocks) == 2
    for block in blocks:
        assert [type(part).__name__ for part in block.sub_blocks] == sub_blocks


@pytest.mark.parametrize("gate", ["spectrum", "embedding", "fused"])
def test_the_other_gates_are_those_of_mscff(build, gate):
    def gates_of(variant):
        fusion = build(variant).mask_estimator.fusion
        return {
            name: config_of(getattr(fusion, f"{name}_gate"))
            for name in ("spectrum", "embedding", "fused")
        }

    expected = {**gates_of("null"), gate: {"lobe": "OpenGate"}}
    assert gates_of(f"without_{gate}_gate") == expected


@pytest.mark.parametrize(
    ("variant", "by_spectrum", "by_embedding"),
    [
        ("null", True, True),
        ("input_spectrogram", True, False),
        ("input_ssl", False, True),
        ("fusion_concatenation", True, True),
        ("fusion_cross_attention", True, True),
    ],
)
def test_the_mask_depends_on_its_inputs_alone(
    build, variant, by_spectrum, by_embedding
):
    estimator = perturbed(build(variant).mask_estimator)
    spectrum = torch.rand(1, 50, 201, requires_grad=True)
    embedding = torch.rand(1, 50, 32, requires_grad=True)
    mask = estimator(spectrum, embedding)
    gradients = torch.autograd.grad(
        mask.sum(), (spectrum, embedding), allow_unused=True
    )
    assert [g is not None for g in gradients] == [by_spectrum, by_embedding]


def test_the_spectrogram_alone_loads_no_ssl_model(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an SSL model was loaded")

    monkeypatch.setattr(lobes, "load_ssl", refuse)
    enhancer = enhancer_of("input_spectrogram", fused_dim=48, dim=32)
    assert list(enhancer.embedding.parameters()) == []


def test_the_last_layer_is_embedded_without_weights(build):
    assert build("last_layer").embedding.layer_weights().tolist() == [1]


@pytest.mark.parametrize("variant", ["null", "input_ssl", "fusion_cross_attention"])
@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
@pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])
def test_the_network_takes_the_size_of_any_ssl_model(
    ssl_folder, speech, family, large, variant
):
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}
    source = ssl_folder(family, large, **(sizes if large else {}))
    enhancer = enhancer_of(variant, ssl_source=source, fused_dim=48, dim=32).eval()
    n_layers = (3 if large else 2) + (family == "wavlm")
    assert enhancer.embedding.dim == (48 if large else 32)
    assert len(enhancer.embedding.layer_weights()) == n_layers
    with torch.no_grad():
        assert enhancer(speech.unsqueeze(0))[0].isfinite().all()


# --- Parameters


@pytest.fixture
def wavlm_base(tiny_wavlm, monkeypatch):
    """Experiments get a WavLM base without numbers in it; so does all made beside it."""
    from transformers import WavLMConfig, WavLMModel

    with torch.device("meta"):
        tiny_wavlm.model = WavLMModel(WavLMConfig())
        monkeypatch.setattr(lobes, "load_ssl", lambda source, save_path: tiny_wavlm)
        yield


def rows_of_the_readme():
    text = (HPARAMS / "variants" / "README.md").read_text()
    for cells in re.findall(r"^\| (.*) \| .* \| ([\d,]+) \|$", text, re.MULTILINE):
        names = ", ".join(re.findall(r"`(\w+)`", cells[0]))
        yield names, int(cells[1].replace(",", ""))


README = dict(rows_of_the_readme())


def test_the_readme_lists_all_variants():
    alone = {name for name in README if name and ", " not in name}
    assert alone == {path.stem for path in VARIANT_FILES}


@pytest.mark.parametrize("names", README)
def test_number_of_parameters_is_that_of_the_readme(wavlm_base, names):
    enhancer = enhancer_of(f"[{names}]", experiment="vbd_wavlm")
    assert n_head_parameters(enhancer) == README[names]


def test_published_numbers_of_parameters():
    assert README[""] == 18_930_782
    assert README["fusion_concatenation, blstm"] == 2_949_590  # BSSE-SE
