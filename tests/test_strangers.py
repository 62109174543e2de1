"""Model folders of strangers: whatever they say, one line or a model that works."""

import copy
import json
import math
import random
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.hub import folder as hub_folder
from speechbrain_cffma.lobes import (
    CFFMA,
    SCTA,
    CFFMAEnhancer,
    Concatenation,
    GatedFusion,
    LogSpectrogram,
    MaskEstimator,
    OpenGate,
    PostNormBlock,
    PostNormStack,
    Refiner,
    SpectrogramOnly,
    SSLEmbedding,
    load_ssl,
)
from speechbrain_cffma.lobes.ssl_models import ssl_configuration
from speechbrain_cffma.registry import ROLES, config_of, from_config

pytestmark = pytest.mark.slow

REMOVED = object()
CHANGES = (
    *(-3, 10**9, 10**400, 0, 0.5, True, math.nan, math.inf),
    *("text", "\x1b[2Jtext", "x" * 5000, None, [], [1, 2], [1] * 500, {}, {"lobe": "SCTA"}),
    REMOVED,
)  # fmt: skip
each_family = pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])


@pytest.fixture(scope="module")
def folder(ssl_folder, tmp_path_factory):
    embedding = SSLEmbedding(load_ssl(ssl_folder("wavlm", num_hidden_layers=1)))
    head = CFFMA(ssl_dim=embedding.dim, fused_dim=32, dim=16, n_blocks=1)
    refiner = Refiner(201, 16, channels=(4, 6), depths=(1, 1))
    enhancer = CFFMAEnhancer(embedding, LogSpectrogram(), head, refiner=refiner)
    return enhancer.save_pretrained(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture
def copied(folder, tmp_path):
    """A folder whose weights are the same file and whose checksum is not asked for."""
    config = json.loads((folder / "config.json").read_text())
    del config["weights_sha256"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()
    )
    return tmp_path


def leaves(value, path=()):
    if isinstance(value, dict | list):
        yield path
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, (*path, key))
    else:
        yield path


def changed(config, path, value):
    config = copy.deepcopy(config)
    *above, last = path
    parent = config
    for key in above:
        parent = parent[key]
    if value is REMOVED:
        del parent[last]
    else:
        parent[last] = value
    return config


def is_a_line_about(said, folder):
    return "\n" not in said and said.isprintable() and str(folder) in said


def refusal(folder, load=CFFMAEnhancer.from_pretrained):
    with pytest.raises(InputError) as error:
        load(folder)
    assert is_a_line_about(str(error.value), folder)
    return str(error.value)


def last_name(path):
    return next(key for key in reversed(path) if isinstance(key, str))


def test_each_value_of_a_configuration_is_refused_by_name_or_works(copied, speech):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    rng = random.Random(0)
    for leaf in list(leaves(config))[1:]:
        for value in rng.sample(CHANGES, 2):
            path.write_text(json.dumps(changed(config, leaf, value)))
            try:
                enhancer = CFFMAEnhancer.from_pretrained(copied)
            except InputError as error:
                said = str(error)
                assert is_a_line_about(said, copied), (leaf, value)
                assert last_name(leaf) in said or "another architecture" in said, said
            else:
                with torch.inference_mode():
                    wav, *_ = enhancer(speech[None, :4000])
                    assert wav.isfinite().all(), (leaf, value)


def test_a_refusal_takes_no_memory(copied):
    """Of a number that would take gigabytes, in each place."""
    config = json.loads((copied / "config.json").read_text())
    numbers = [
        leaf
        for leaf in leaves(config)
        if isinstance(value_at(config, leaf), int) and last_name(leaf) in LARGE
    ]
    assert {last_name(leaf) for leaf in numbers} == LARGE
    before = peak_memory()
    for leaf in numbers:
        text = json.dumps(changed(config, leaf, 10**6))
        (copied / "config.json").write_text(text)
        refusal(copied)
    assert peak_memory() - before < 200


def peak_memory():
    """In MB."""
    resource = pytest.importorskip("resource", reason="Windows has none")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


#: What a network grows with.
LARGE = {
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "conv_dim",
    "conv_kernel",
}
LARGE |= {"fused_dim", "dim", "n_blocks", "kernel_sizes", "num_conv_pos_embeddings"}


def value_at(config, path):
    for key in path:
        config = config[key]
    return config


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_lobe_where_another_is_needed_is_refused_by_the_key(copied, role):
    config = json.loads((copied / "config.json").read_text())
    whole = config_of(CFFMAEnhancer.from_pretrained(copied))
    whole["mask_estimator"] = PARTS_OF_ALL_ROLES
    config["model"] = whole
    path = next(p for p in leaves(config) if p and p[-1] == role)
    is_list = isinstance(value_at(config, path), list)
    for wrong in (
        {"lobe": "CFFMAEnhancer"},
        {"lobe": "load_ssl"},
        {"lobe": ["RHMA"]},
        3,
    ):
        for value in ([wrong], wrong):
            text = json.dumps(changed(config, path, value))
            (copied / "config.json").write_text(text)
            said = refusal(copied)
            if isinstance(value, list) == is_list:
                assert f"{'.'.join(map(str, path))}{'.0' * is_list} is" in said
            assert role in said
            assert "must be" in said


PARTS_OF_ALL_ROLES = config_of(
    MaskEstimator(
        GatedFusion(201, 32, 16, [OpenGate(), OpenGate(), OpenGate()]),
        PostNormStack([PostNormBlock(16, [SCTA(16)])]),
        fused_dim=16,
        dim=16,
    )
)


@pytest.mark.parametrize(
    ("fusion", "said"),
    [
        (Concatenation(201, 31), "an embedding of"),
        (SpectrogramOnly(200), "RuntimeError"),
    ],
)
def test_lobes_that_do_not_fit_one_another_are_refused(copied, fusion, said):
    """Weights that fit the configuration are no proof that the network works."""
    enhancer = CFFMAEnhancer.from_pretrained(copied)
    enhancer.mask_estimator = MaskEstimator(fusion, SCTA(8), 201, fusion.fused_dim, 8)
    enhancer.save_pretrained(copied)
    assert "lobes do not fit together" in refusal(copied)
    assert said in refusal(copied)


def test_a_spectrogram_of_many_values_is_tried_out_without_memory(copied, monkeypatch):
    """A small file may ask for frames of 65536 values, 16 samples apart."""
    devices, forward = [], CFFMAEnhancer.forward

    def watched(self, noisy):
        devices.append(noisy.device.type)
        return forward(self, noisy)

    monkeypatch.setattr(CFFMAEnhancer, "forward", watched)
    CFFMAEnhancer.from_pretrained(copied)
    monkeypatch.setattr(hub_folder, "MAX_TRIED", 0)
    CFFMAEnhancer.from_pretrained(copied)
    assert devices == ["cpu", "meta"]


@each_family
def test_each_value_of_an_ssl_configuration_is_refused_by_name_or_taken(family):
    config = CONFIG_MAPPING[family]().to_dict()
    rng = random.Random(0)
    for leaf in list(leaves(config))[1:]:
        for value in rng.sample(CHANGES, 5):
            try:
                ssl_configuration("ssl", changed(config, leaf, value))
            except InputError as error:
                said = str(error)
            else:
                continue
            assert last_name(leaf) in said, (leaf, value)
            assert said.isprintable()


@pytest.mark.parametrize("name", ["relu2", "prelu", "xielu", "Gelu"])
@pytest.mark.parametrize("key", ["hidden_act", "feat_extract_activation"])
def test_an_activation_that_no_ssl_model_has(key, name):
    """The square of a ReLU seven times in a row is infinite."""
    with pytest.raises(InputError, match=f"ssl.{key} is '{name}': use one of gelu"):
        ssl_configuration("ssl", {"model_type": "wavlm", key: name})


@each_family
def test_each_value_of_a_folder_given_as_ssl_source(family, ssl_folder, tmp_path):
    """config.json there is that of transformers."""
    folder = shutil.copytree(ssl_folder(family), tmp_path / "ssl")
    config = json.loads((folder / "config.json").read_text())
    rng = random.Random(0)
    for leaf in [leaf for leaf in leaves(config) if leaf and leaf[-1] in LARGE]:
        for value in rng.sample(CHANGES[:-1], 4):
            (folder / "config.json").write_text(
                json.dumps(changed(config, leaf, value))
            )
            said = refusal(folder, load_ssl)
            assert last_name(leaf) in said or "another architecture" in said, said


@pytest.mark.parametrize("key", ["auto_map", "_name_or_path", "dtype", "id2label"])
def test_what_an_ssl_folder_says_beside_its_encoder_does_not_matter(
    ssl_folder, tmp_path, key
):
    folder = shutil.copytree(ssl_folder("wavlm"), tmp_path / "ssl")
    config = json.loads((folder / "config.json").read_text())
    config[key] = {"AutoConfig": "evil.Config", "\x1b[2J": [None]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit")
    assert load_ssl(folder).model.dtype == torch.float32


def test_ssl_weights_of_half_precision_are_computed_in_float32(ssl_folder, tmp_path):
    folder = shutil.copytree(ssl_folder("wavlm"), tmp_path / "ssl")
    edit_weights(folder, lambda w: {key: value.half() for key, value in w.items()})
    assert load_ssl(folder).model.dtype == torch.float32


def test_ssl_weights_that_are_no_number_are_named(ssl_folder, tmp_path):
    folder = shutil.copytree(ssl_folder("wavlm"), tmp_path / "ssl")
    name = "encoder.layer_norm.bias"
    edit_weights(folder, lambda w: {**w, name: torch.full_like(w[name], math.nan)})
    assert f"{name} holds NaN or infinity" in refusal(folder, load_ssl)


@pytest.mark.parametrize("head", ["", "wavlm."])
@pytest.mark.parametrize("save", [save_file, torch.save])
def test_ssl_weights_of_either_form_are_compared(ssl_folder, tmp_path, head, save):
    folder = shutil.copytree(ssl_folder("wavlm"), tmp_path / "ssl")
    path = folder / "model.safetensors"
    weights = {f"{head}{key}": value for key, value in load_file(path).items()}
    path.unlink()
    name = "model.safetensors" if save is save_file else "pytorch_model.bin"
    save({**weights, "lm_head.weight": torch.ones(9, 9)}, folder / name)
    assert load_ssl(folder).model.config.hidden_size == 32
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] = 10**6
    (folder / "config.json").write_text(json.dumps(config))
    assert "intermediate_dense.weight has shape (64, 32)" in refusal(folder, load_ssl)


@pytest.mark.parametrize(
    "text",
    [
        '{"model": {}, "model": {}}',
        '{"model": ' * 100_000,
        '{"model": ' + '{"a": ' * 40 + "1" + "}" * 41,
        '{"model": {"lobe": 3}}',
        '{"model": {"lobe": ["CFFMA"]}}',
        '{"model": {"lobe": "torch.nn.Linear"}}',
        "\x00\xff",
        '{"model": {"a": 1' + "0" * 5000 + "}}",
    ],
)
def test_a_configuration_that_is_none(copied, text):
    (copied / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refusal(copied)


@pytest.mark.parametrize("place", ["argument", "lobe", "tensor", "key"])
def test_nothing_of_a_folder_steers_the_terminal(copied, place):
    evil = "\x1b[2J\x9b\u202e\x07"
    if place == "tensor":
        edit_weights(copied, lambda w: {**w, evil: torch.ones(1)})
    else:
        path = copied / "config.json"
        config = json.loads(path.read_text())
        if place == "argument":
            config["model"]["spectrogram"][evil] = 1
        elif place == "lobe":
            config["model"]["spectrogram"]["lobe"] = evil
        else:
            config["model"]["embedding"]["ssl"][evil] = 1
        path.write_text(json.dumps(config))
    assert "\\x1b[2J" in refusal(copied)


@pytest.mark.parametrize("parts", ["blocks", "sub_blocks"])
def test_thousands_of_lobes_are_not_built(copied, parts):
    config = json.loads((copied / "config.json").read_text())
    stack = config_of(PostNormStack([PostNormBlock(16, [SCTA(16)])]))
    below = stack if parts == "blocks" else stack["blocks"][0]
    below[parts] = [{"lobe": "SelectiveTimeAttention"}] * 1000
    config["model"]["mask_estimator"] = {**PARTS_OF_ALL_ROLES, "enhancer": stack}
    (copied / "config.json").write_text(json.dumps(config))
    assert "locks is 1000, but the weights are" in refusal(copied)


def test_a_configuration_of_a_gigabyte_is_not_read(copied):
    with open(copied / "config.json", "r+b") as file:
        file.truncate(1 << 30)
    assert "larger than 64 KiB" in refusal(copied)


# --- weights ---


def header(**tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(begin, end, shape):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4,
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 50) + b"{}",
        header(a=tensor(0, 8, [2]), b=tensor(4, 12, [2])) + bytes(12),
        header(a=tensor(0, 4 << 40, [1 << 40])) + bytes(16),
        header(a=tensor(0, 8, [3])) + bytes(8),
        header(a=tensor(0, 8, [2])) + bytes(4),
        struct.pack("<Q", 8) + b"\xff" * 8,
    ],
)
def test_a_damaged_file_of_weights(copied, content):
    (copied / "model.safetensors").write_bytes(content)
    assert "truncated or altered" in refusal(copied)


def edit_weights(folder, edit):
    path = folder / "model.safetensors"
    save_file(edit(load_file(path)), path)


BIAS = "mask_estimator.output_layer.bias"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_number_are_named(copied, value):
    edit_weights(copied, lambda w: {**w, BIAS: torch.full_like(w[BIAS], value)})
    assert f"{BIAS} holds NaN or infinity" in refusal(copied)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_weights_of_any_floating_type_are_computed_in_float32(copied, dtype):
    def convert(weights):
        return {
            k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()
        }

    edit_weights(copied, convert)
    stored = load_file(copied / "model.safetensors")
    loaded = CFFMAEnhancer.from_pretrained(copied).state_dict()
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[k], stored[k].float()) for k in stored)


def test_weights_of_whole_numbers_are_refused(copied):
    edit_weights(copied, lambda w: {**w, BIAS: w[BIAS].to(torch.int32)})
    assert f"'{BIAS}' has type I32" in refusal(copied)


def test_a_tensor_too_many_or_too_few_is_named(copied):
    edit_weights(copied, lambda w: {**w, "extra": torch.ones(1)})
    assert "'extra' is unknown" in refusal(copied)
    edit_weights(copied, lambda w: {k: w[k] for k in w if k not in ("extra", BIAS)})
    assert f"{BIAS} is missing" in refusal(copied)


# --- what loading leaves ---


def test_a_loaded_model_is_whole(folder):
    """Nothing stays on the meta device, and nothing lies in the file that was read."""
    enhancer = CFFMAEnhancer.from_pretrained(folder)
    tensors = [*enhancer.parameters(), *enhancer.buffers()]
    assert {t.device.type for t in tensors} == {"cpu"}
    assert torch.equal(enhancer.spectrogram.window, torch.hamming_window(400))


def test_from_config_names_what_is_missing():
    with pytest.raises(InputError, match=r"model.dim is missing"):
        from_config({"lobe": "SCTA"})
