"""Model folders of strangers: whatever they say, one line or a model that works."""

import copy
import json
import math
import random
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes import CFFMA, CFFMAEnhancer, LogSpectrogram, SSLEmbedding
from speechbrain_cffma.lobes.ssl import load_ssl
from speechbrain_cffma.pretrained import from_config

REMOVED = object()
CHANGES = (-3, 10**9, 10**400, "text", [], [1, 2], {}, None, True, math.nan, 0, 0.5, REMOVED)  # fmt: skip


@pytest.fixture(scope="module", params=["wavlm", "wav2vec2", "hubert"])
def folder(request, ssl_folder, tmp_path_factory):
    embedding = SSLEmbedding(load_ssl(ssl_folder(request.param)))
    head = CFFMA(ssl_dim=embedding.dim, fused_dim=48, dim=32)
    enhancer = CFFMAEnhancer(embedding, LogSpectrogram(), head)
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


def refusal(folder):
    with pytest.raises(InputError) as error:
        CFFMAEnhancer.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_each_value_of_a_configuration_is_refused_by_name_or_works(copied, speech):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    rng = random.Random(0)
    for leaf in list(leaves(config))[1:]:
        for value in rng.sample(CHANGES, 3):
            path.write_text(json.dumps(changed(config, leaf, value)))
            try:
                enhancer = CFFMAEnhancer.from_pretrained(copied)
            except InputError as error:
                said = str(error)
                assert "\n" not in said and str(copied) in said, (leaf, value)
                key = next(k for k in reversed(leaf) if isinstance(k, str))
                assert key in said or "another architecture" in said, (leaf, said)
            else:
                with torch.inference_mode():
                    wav, *_ = enhancer(speech[None, :4000])
                    assert wav.isfinite().all(), (leaf, value)


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


def test_a_configuration_of_a_gigabyte_is_not_read(copied):
    with open(copied / "config.json", "r+b") as file:
        file.truncate(1 << 30)
    assert "larger than 1 MiB" in refusal(copied)


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
    assert f"{BIAS} is of type I32" in refusal(copied)


def test_a_tensor_too_many_or_too_few_is_named(copied):
    edit_weights(copied, lambda w: {**w, "extra": torch.ones(1)})
    assert "extra is unknown" in refusal(copied)
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
