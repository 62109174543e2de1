"""A model as a folder: what is written is what is read, and nothing else runs."""

import json
import sys

import numpy as np
import pytest
import torch

from speechbrain_cffma import audio
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes import (
    CFFMA,
    MSCFF,
    RHMA,
    CFFMAEnhancer,
    FeedForward,
    LogSpectrogram,
    MaskEstimator,
    PostNormBlock,
    PostNormStack,
    RelativeSelfAttention,
    SSLEmbedding,
    load_ssl,
)
from speechbrain_cffma.registry import config_of, from_config


def enhancer_with(ssl_folder, mask_estimator=None, **embedding):
    embedding = SSLEmbedding(load_ssl(ssl_folder), **embedding)
    if mask_estimator is None:
        mask_estimator = CFFMA(ssl_dim=embedding.dim, fused_dim=48, dim=32)
    return CFFMAEnhancer(embedding, LogSpectrogram(), mask_estimator).eval()


@pytest.fixture
def enhancer(ssl_folder):
    return enhancer_with(ssl_folder("wavlm"))


@pytest.fixture
def folder(enhancer, tmp_path):
    return enhancer.save_pretrained(tmp_path / "model")


def enhanced_by(enhancer, speech):
    with torch.no_grad():
        return enhancer(speech.unsqueeze(0))[0]


def edit_config(folder, edit):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def one_line(error):
    return "\n" not in str(error.value)


# --- what is written is what is read ---


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "hubert"])
def test_a_model_enhances_alike_after_save_and_load(
    family, large, ssl_folder, speech, tmp_path
):
    enhancer = enhancer_with(ssl_folder(family, large=large), fine_tune="partial")
    loaded = CFFMAEnhancer.from_pretrained(enhancer.save_pretrained(tmp_path / "m"))
    assert torch.equal(enhanced_by(loaded, speech), enhanced_by(enhancer, speech))


@pytest.mark.parametrize(
    ("family", "large", "adapter"),
    [
        ("wavlm", False, {"add_adapter": True}),
        ("wav2vec2", True, {"adapter_attn_dim": 4}),
    ],
)
def test_an_ssl_model_with_an_adapter_comes_back(
    ssl_folder, tmp_path, family, large, adapter
):
    enhancer = enhancer_with(ssl_folder(family, large, **adapter))
    loaded = CFFMAEnhancer.from_pretrained(enhancer.save_pretrained(tmp_path / "m"))
    assert config_of(loaded) == config_of(enhancer)


def test_the_folder_holds_five_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "custom.py",
        "hyperparams.yaml",
        "model.safetensors",
    ]


def test_a_loaded_model_is_in_eval_mode(folder):
    assert not CFFMAEnhancer.from_pretrained(folder).training


def test_arguments_come_back(ssl_folder, tmp_path):
    enhancer = enhancer_with(
        ssl_folder("wavlm"),
        CFFMA(ssl_dim=32, fused_dim=48, dim=32, n_blocks=1, dilations=(1, 2, 4)),
        fine_tune="entire",
        weighted_sum=False,
    )
    loaded = CFFMAEnhancer.from_pretrained(enhancer.save_pretrained(tmp_path / "m"))
    assert config_of(loaded) == config_of(enhancer)


def test_a_variant_made_of_a_list_of_sub_blocks_comes_back(ssl_folder, tmp_path):
    block = PostNormBlock(32, [RelativeSelfAttention(32), FeedForward(32)])
    variant = MaskEstimator(
        MSCFF(ssl_dim=32, fused_dim=48), PostNormStack([block]), fused_dim=48, dim=32
    )
    enhancer = enhancer_with(ssl_folder("wavlm"), variant)
    loaded = CFFMAEnhancer.from_pretrained(enhancer.save_pretrained(tmp_path / "m"))
    assert len(loaded.mask_estimator.enhancer.blocks[0].sub_blocks) == 2


def test_half_precision_halves_the_file_and_computes_in_full(folder, enhancer, speech):
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    loaded = CFFMAEnhancer.from_pretrained(enhancer.save_pretrained(folder, half=True))
    assert weights.stat().st_size < 0.6 * size
    difference = enhanced_by(loaded, speech) - enhanced_by(enhancer, speech)
    assert next(loaded.parameters()).dtype == torch.float32
    assert difference.abs().max() < 1e-2


def test_an_existing_folder_is_replaced(folder, enhancer, speech):
    with torch.no_grad():
        enhancer.mask_estimator.output_layer.bias.add_(1.0)
    enhancer.save_pretrained(folder)
    loaded = CFFMAEnhancer.from_pretrained(folder)
    assert torch.equal(enhanced_by(loaded, speech), enhanced_by(enhancer, speech))


def test_other_files_in_the_folder_stay(folder, enhancer):
    (folder / "mine.txt").write_text("mine")
    enhancer.save_pretrained(folder)
    assert (folder / "mine.txt").read_text() == "mine"


def test_the_configuration_names_no_folder_of_the_machine(folder, ssl_folder):
    assert ssl_folder("wavlm") not in (folder / "config.json").read_text()


# --- SpeechBrain's interface ---


def test_waveform_enhancement_loads_the_folder_from_elsewhere(
    folder, enhancer, speech, tmp_path, monkeypatch
):
    from speechbrain.inference.enhancement import WaveformEnhancement

    monkeypatch.chdir(tmp_path)
    stock = WaveformEnhancement.from_hparams(source=str(folder), savedir="fetched")
    enhanced = stock.enhance_batch(speech.unsqueeze(0))
    assert torch.allclose(enhanced, enhanced_by(enhancer, speech), atol=1e-6)


def test_waveform_enhancement_refuses_altered_weights(folder, tmp_path, monkeypatch):
    from speechbrain.inference.enhancement import WaveformEnhancement

    monkeypatch.chdir(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(InputError, match="truncated or altered"):
        WaveformEnhancement.from_hparams(source=str(folder), savedir="fetched")


@pytest.fixture
def interface(folder, tmp_path, monkeypatch):
    """What `foreign_class` makes of the folder, elsewhere."""
    from speechbrain.inference.interfaces import foreign_class

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # it adds to it
    return foreign_class(source=str(folder), run_opts={"device": "cpu"})


def test_foreign_class_enhances_arrays(interface, enhancer, speech):
    noisy = np.stack([speech.numpy(), speech.numpy()[::-1]])
    expected = enhancer.enhance(noisy, 44100)
    np.testing.assert_array_equal(interface.enhance(noisy, 44100), expected)


def test_foreign_class_enhances_files(interface, enhancer, speech, tmp_path):
    audio.write(tmp_path / "noisy.wav", speech.numpy())
    interface.enhance_file(tmp_path / "noisy.wav", tmp_path / "enhanced.wav")
    enhancer.enhance_file(tmp_path / "noisy.wav", tmp_path / "expected.wav")
    enhanced, expected = (tmp_path / f"{n}.wav" for n in ("enhanced", "expected"))
    assert enhanced.read_bytes() == expected.read_bytes()


def test_foreign_class_enhances_streams(interface, enhancer, speech):
    blocks = torch.cat(list(interface.enhance_stream(speech.split(1000))))
    assert torch.equal(blocks, enhancer.enhance(speech))


def test_foreign_class_puts_the_model_where_it_is_asked_to(folder, monkeypatch):
    from speechbrain.inference.interfaces import foreign_class

    monkeypatch.setattr(sys, "path", list(sys.path))
    interface = foreign_class(source=str(folder), run_opts={"device": "meta"})
    assert {p.device.type for p in interface.parameters()} == {"meta"}


# --- nothing else runs ---


def test_from_pretrained_reads_neither_the_yaml_nor_the_python_file(folder, enhancer):
    for name in ("hyperparams.yaml", "custom.py"):
        (folder / name).write_text("raise SystemExit: !apply:os.abort []")
    loaded = CFFMAEnhancer.from_pretrained(folder)
    assert config_of(loaded) == config_of(enhancer)


@pytest.mark.parametrize("name", ["os.system", "Linear", "load_ssl", None])
def test_only_lobes_of_the_registry_are_built(folder, name):
    edit_config(folder, lambda c: c["model"]["spectrogram"].update(lobe=name))
    with pytest.raises(
        InputError, match="spectrogram is .*: it must be a lobe, LogSpectrogram"
    ) as error:
        CFFMAEnhancer.from_pretrained(folder)
    assert one_line(error)


def test_an_unknown_argument_is_refused(folder):
    edit_config(folder, lambda c: c["model"]["spectrogram"].update(nfft=400))
    with pytest.raises(InputError, match="unknown argument: 'nfft'"):
        CFFMAEnhancer.from_pretrained(folder)


def test_an_ssl_model_of_another_kind_is_refused(folder):
    edit_config(
        folder,
        lambda c: c["model"]["embedding"]["ssl"]["config"].update(model_type="bert"),
    )
    with pytest.raises(InputError, match="'bert' is not supported"):
        CFFMAEnhancer.from_pretrained(folder)


def test_a_part_that_is_not_in_the_registry_can_not_be_saved(ssl_folder, tmp_path):
    fusion = MSCFF(ssl_dim=32, fused_dim=32)
    foreign = MaskEstimator(fusion, torch.nn.Identity(), fused_dim=32, dim=32)
    enhancer = enhancer_with(ssl_folder("wavlm"), foreign)
    with pytest.raises(InputError, match="Identity can't be saved"):
        enhancer.save_pretrained(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


# --- folders that are not what they should be ---


def test_a_truncated_file_of_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated or altered") as error:
        CFFMAEnhancer.from_pretrained(folder)
    assert one_line(error)


def test_a_file_of_weights_with_one_bit_changed(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or altered"):
        CFFMAEnhancer.from_pretrained(folder)


def test_weights_of_another_architecture(folder):
    def widen(config):
        config["model"]["mask_estimator"]["fused_dim"] = 64
        del config["weights_sha256"]

    edit_config(folder, widen)
    with pytest.raises(InputError, match="another architecture: .* has shape") as error:
        CFFMAEnhancer.from_pretrained(folder)
    assert one_line(error)


def test_weights_that_lack_a_layer(folder):
    def add_a_block(config):
        config["model"]["mask_estimator"]["n_blocks"] = 3
        del config["weights_sha256"]

    edit_config(folder, add_a_block)
    with pytest.raises(InputError, match="n_blocks is 3, .* another architecture"):
        CFFMAEnhancer.from_pretrained(folder)


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="model.safetensors is missing"):
        CFFMAEnhancer.from_pretrained(folder)


def test_a_folder_without_configuration(tmp_path):
    with pytest.raises(InputError, match="is not a model folder"):
        CFFMAEnhancer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "config.json is not a model's configuration"),
        ("[]", "config.json is not a model's configuration"),
        ("{}", "model is None: it must be a lobe, CFFMAEnhancer"),
        ('{"model": 3}', "model is 3: it must be a lobe, CFFMAEnhancer"),
    ],
)
def test_a_configuration_of_something_else(folder, text, said):
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        CFFMAEnhancer.from_pretrained(folder)
    assert one_line(error)


def test_a_name_that_is_neither_folder_nor_on_the_hub():
    with pytest.raises(InputError, match="neither a local folder nor") as error:
        CFFMAEnhancer.from_pretrained("nobody/no-such-model", local_files_only=True)
    assert one_line(error)


def test_a_folder_of_another_lobe(folder):
    config = config_of(RHMA(dim=16))
    (folder / "config.json").write_text(json.dumps({"model": config}))
    with pytest.raises(
        InputError, match="model is 'RHMA': it must be a lobe, CFFMAEnhancer"
    ):
        CFFMAEnhancer.from_pretrained(folder)


def test_from_config_builds_new_weights():
    config = config_of(FeedForward(8))
    first, second = (from_config(config).layers[0].weight for _ in range(2))
    assert not torch.equal(first, second)
