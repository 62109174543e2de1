"""ONNX files: what they compute and hold, when none is written, and a program without torch."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch

from helpers.networks import VARIANTS, enhancer_of, perturbed
from speechbrain_cffma import __version__
from speechbrain_cffma.audio import find_audio, read
from speechbrain_cffma.errors import InputError, InstallError
from speechbrain_cffma.inference import export
from speechbrain_cffma.inference.export import export_onnx
from speechbrain_cffma.inference.windows import WINDOWS
from speechbrain_cffma.lobes import (
    CFFMA,
    CFFMAEnhancer,
    LogSpectrogram,
    MaskEstimator,
    NoEmbedding,
    PostNormStack,
    SpectrogramOnly,
    SSLEmbedding,
    load_ssl,
)

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

REPOSITORY = Path(__file__).parents[1]
EXAMPLE = REPOSITORY / "examples" / "enhance_onnx.py"
#: Batches and samples, shorter and longer than what is traced (2 and 16000).
SHAPES = [(1, 400), (3, 5000), (2, 16000), (1, 47777), (3, 160000)]
#: An SSL model whose export takes seconds: it has all kinds of layers, but few.
FEW_LAYERS = {
    "num_hidden_layers": 1,
    "conv_dim": [16, 16],
    "conv_kernel": [16, 25],
    "conv_stride": [16, 20],
}
#: SSL models of all families and of both sizes, and heads that together have all lobes
#: of the variants.
NETWORKS = {
    ("wavlm", "large"): "[without_embedding_gate, last_layer]",
    ("wav2vec2", "base"): "[fusion_cross_attention, transformer]",
    ("hubert", "base"): "[input_ssl, without_channel_attention]",
    ("hubert", "large"): "[fusion_concatenation, blstm]",
    (None, None): "input_spectrogram",
}


class Exported(NamedTuple):
    enhancer: CFFMAEnhancer
    path: Path
    #: What the command printed.
    shown: str


@pytest.fixture(scope="module")
def exported(ssl_folder, tmp_path_factory):
    """A tiny WavLM network with a model card, exported by the command."""
    folder = tmp_path_factory.mktemp("exported")
    # The second layer takes the relative positions from the first.
    ssl = load_ssl(ssl_folder("wavlm", **{**FEW_LAYERS, "num_hidden_layers": 2}))
    enhancer = perturbed(
        CFFMAEnhancer(
            SSLEmbedding(ssl),
            LogSpectrogram(),
            CFFMA(ssl_dim=32, fused_dim=48, dim=32, n_blocks=1),
        )
    )
    model = enhancer.save_pretrained(folder / "model")
    (model / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A model")
    path = folder / "new" / "model.onnx"
    command = ["export", f"--model={model}", "-o", path, "--format=onnx"]
    shown = subprocess.run(
        [sys.executable, "-m", "speechbrain_cffma", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
    ).stdout
    return Exported(enhancer, path, shown)


@pytest.fixture
def few_checks(monkeypatch):
    """For what a test compares itself, or that is not about the check."""
    monkeypatch.setattr(export, "CHECKS", ((1, 0.1),))


def small_enhancer(fusion=None, spectrogram=None, **options):
    """A network of the spectrogram alone, almost without layers."""
    spectrogram = spectrogram or LogSpectrogram()
    n_freqs = spectrogram.n_fft // 2 + 1
    fusion = fusion or SpectrogramOnly(n_freqs)
    estimator = MaskEstimator(fusion, PostNormStack([]), n_freqs, n_freqs, 8)
    return perturbed(CFFMAEnhancer(NoEmbedding(), spectrogram, estimator, **options))


def differences(enhancer, path, shapes):
    """The largest between the masks of both runtimes, for each shape of random noise."""
    session = onnxruntime.InferenceSession(path)
    for batch, n_samples in shapes:
        noisy = torch.randn(batch, n_samples)
        log_magnitude, _ = enhancer.spectrogram(noisy)
        with torch.no_grad():
            embedding = enhancer.embedding(noisy, log_magnitude.shape[1])
            expected = enhancer.mask_estimator(log_magnitude, embedding).numpy()
        inputs = {"noisy": noisy.numpy(), "log_magnitude": log_magnitude.numpy()}
        (mask,) = session.run(["mask"], inputs)
        assert mask.shape == expected.shape
        assert expected.std() > 0.01
        yield np.abs(mask - expected).max()


# --- The mask


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_are_those_of_pytorch_for_any_batch_and_length(exported, shape):
    assert max(differences(exported.enhancer, exported.path, [shape])) < 1e-4


@pytest.fixture
def network(ssl_folder):
    """`network("wavlm", "base", "last_layer")`: a small one."""

    def make(family, size, variant):
        # The variant of the spectrogram alone is without an SSL model.
        source = family and ssl_folder(family, size == "large", **FEW_LAYERS)
        sizes = {"fused_dim": 32, "dim": 16, "n_blocks": 1, "n_heads": 2}
        return enhancer_of(variant, ssl_source=source, **sizes)

    return make


@pytest.mark.parametrize(("family", "size"), NETWORKS)
def test_so_are_those_of_each_ssl_model_and_head(
    network, tmp_path, few_checks, family, size
):
    enhancer = perturbed(network(family, size, NETWORKS[family, size]))
    export_onnx(enhancer, tmp_path / "model.onnx")
    shapes = SHAPES[1:4]
    assert max(differences(enhancer, tmp_path / "model.onnx", shapes)) < 1e-4


def test_these_heads_have_all_lobes_of_the_variants(network):
    def parts(variant):
        return map(type, network("wavlm", "base", variant).mask_estimator.modules())

    exported = {part for name in ("null", *NETWORKS.values()) for part in parts(name)}
    assert exported >= {part for name in VARIANTS for part in parts(name)}


# --- The file


def test_inputs_output_and_operators(exported):
    session = onnxruntime.InferenceSession(exported.path)
    ends = [*session.get_inputs(), *session.get_outputs()]
    assert {end.name: end.shape for end in ends} == {
        "noisy": ["batch", "samples"],
        "log_magnitude": ["batch", "frames", 201],
        "mask": ["batch", "frames", 201],
    }
    (operators,) = onnx.load(exported.path).opset_import
    assert (operators.domain, operators.version) == ("", 20)


def test_metadata_tells_how_to_transform(exported):
    session = onnxruntime.InferenceSession(exported.path)
    assert session.get_modelmeta().custom_metadata_map == {
        "sample_rate": "16000",
        "min_samples": "400",
        "n_fft": "400",
        "hop_length": "160",
        "win_length": "400",
        "eps": "1e-06",
        "version": __version__,
        "license": "cc-by-4.0",
    }


def test_it_is_one_file_with_all_weights(exported):
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]
    n_bytes = sum(p.nbytes for p in exported.enhancer.parameters())
    assert exported.path.stat().st_size > n_bytes


def test_the_command_says_the_difference_and_nothing_else(exported):
    (line,) = exported.shown.splitlines()
    assert re.search(r"model.onnx: \d+\.\d MB, masks within \d\.\de-\d\d of", line)


def test_the_network_stays_as_it_is(tmp_path, few_checks):
    enhancer = small_enhancer().train()
    weights = [parameter.clone() for parameter in enhancer.parameters()]
    export_onnx(enhancer, tmp_path / "model.onnx")
    assert all(module.training for module in enhancer.modules())
    assert all(map(torch.equal, weights, enhancer.parameters()))


def test_without_a_card_there_is_no_licence(tmp_path, few_checks):
    path = tmp_path / "model.onnx"
    export_onnx(small_enhancer(), path)
    session = onnxruntime.InferenceSession(path)
    assert "license" not in session.get_modelmeta().custom_metadata_map


# --- No file


class Drifting(SpectrogramOnly):
    """Computes something else when it is exported."""

    drift = 1.0

    def forward(self, spectrum, embedding, lengths=None):
        return spectrum + self.drift * torch.compiler.is_exporting()


class Branching(SpectrogramOnly):
    """Computes what depends on its input in a way that no graph can hold."""

    def forward(self, spectrum, embedding, lengths=None):
        return spectrum if spectrum.sum().item() > 0 else -spectrum


@pytest.mark.parametrize("drift", [1.0, float("nan")])
def test_a_mask_that_differs_is_refused(tmp_path, few_checks, drift):
    path = tmp_path / "model.onnx"
    path.write_text("of before")
    fusion = Drifting(201)
    fusion.drift = drift
    with pytest.raises(
        InputError, match="not written: the outputs of onnxruntime and PyTorch"
    ):
        export_onnx(small_enhancer(fusion), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "of before"


def test_a_network_that_can_t_be_exported_is_refused(tmp_path):
    with pytest.raises(InputError, match="can't be exported") as caught:
        export_onnx(small_enhancer(Branching(201)), tmp_path / "model.onnx")
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_one_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_WEIGHT_BYTES", 1000)
    with pytest.raises(InputError, match="do not fit into one ONNX file"):
        export_onnx(small_enhancer(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_can_t_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="model.onnx can't be written"):
        export_onnx(small_enhancer(), tmp_path / "file" / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InstallError, match=rf"{package} is.*speechbrain-cffma\[onnx\]"):
        export_onnx(small_enhancer(), tmp_path / "model.onnx")


# --- A program without torch


def run_example(*arguments):
    """Run it where torch and this package can't be imported."""
    script = (
        "import runpy, sys\n"
        "for name in ('torch', 'speechbrain', 'transformers', 'speechbrain_cffma'):\n"
        "    sys.modules[name] = None\n"
        "del sys.argv[0]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", script, EXAMPLE, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def enhance(exported):
    """`enhance(source, target)` by the example."""
    return lambda source, target: run_example(exported.path, source, target)


@pytest.fixture(scope="module")
def long_speech():
    """40 s of real speech [S]."""
    folder = REPOSITORY / "recipes" / "DynamicMix" / "speech" / "en"
    speech, paths = np.zeros(0, dtype=np.float32), iter(find_audio(folder))
    while len(speech) < 40 * 16000:
        speech = np.concatenate([speech, read(next(paths))])
    return speech[: 40 * 16000]


@pytest.mark.parametrize("n_samples", [100, 5001, 16 * 16000, 16 * 16000 + 1, 613333])
def test_the_example_gives_the_samples_of_enhance_file(
    exported, enhance, long_speech, tmp_path, n_samples
):
    mono = long_speech[:n_samples]
    noisy, ours, theirs = (tmp_path / f"{name}.wav" for name in ("noisy", "a", "b"))
    soundfile.write(noisy, np.stack([mono, 0.1 * mono[::-1]], 1), 16000, "FLOAT")
    shown = enhance(noisy, ours)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")
    exported.enhancer.enhance_file(noisy, theirs)
    (ours, _), (theirs, _) = (soundfile.read(path) for path in (ours, theirs))
    assert ours.shape == theirs.shape == (n_samples, 2)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(theirs).max() > 1e-5


def test_the_example_knows_the_windows():
    example = runpy.run_path(EXAMPLE)
    windows = (*(example[name] for name in ("HOP", "FADE")), *[example["MARGIN"]] * 2)
    assert windows == WINDOWS


def test_the_example_takes_other_transforms(speech, tmp_path, few_checks):
    path = tmp_path / "model.onnx"
    enhancer = small_enhancer(spectrogram=LogSpectrogram(512, 128, 400))
    export_onnx(enhancer, path)
    enhanced = runpy.run_path(EXAMPLE)["Enhancer"](path).enhance(speech[None].numpy())
    np.testing.assert_allclose(enhanced[0], enhancer.enhance(speech), atol=1e-5)


def test_the_example_keeps_to_level_and_suppression(speech, tmp_path, few_checks):
    path = tmp_path / "model.onnx"
    enhancer = small_enhancer(level=0.0, suppression=3.0)
    export_onnx(enhancer, path)
    program = runpy.run_path(EXAMPLE)["Enhancer"](path)
    for wav in (speech, 0.01 * speech, speech[:100], 0 * speech):
        enhanced = program.enhance(wav[None].numpy())
        np.testing.assert_allclose(enhanced[0], enhancer.enhance(wav), atol=1e-5)


def test_the_example_keeps_the_sample_format(enhance, speech, tmp_path):
    soundfile.write(tmp_path / "a.wav", speech.numpy(), 16000, "PCM_24")
    assert enhance(tmp_path / "a.wav", tmp_path / "b.flac").returncode == 0
    assert soundfile.info(tmp_path / "b.flac").subtype == "PCM_24"


def test_the_example_asks_for_the_model_s_sample_rate(enhance, speech, tmp_path):
    soundfile.write(tmp_path / "a.wav", speech.numpy(), 44100)
    shown = enhance(tmp_path / "a.wav", tmp_path / "b.wav")
    (line,) = shown.stderr.splitlines()
    assert shown.returncode == 1
    assert "is at 44100 Hz and the model at 16000" in line
    assert "-ar 16000" in line
    assert not (tmp_path / "b.wav").exists()


def test_the_example_names_a_file_that_is_no_audio(enhance, tmp_path):
    (tmp_path / "a.wav").write_text("no sound")
    shown = enhance(tmp_path / "a.wav", tmp_path / "b.wav")
    (line,) = shown.stderr.splitlines()
    assert shown.returncode == 1
    assert "a.wav" in line


@pytest.mark.parametrize("samples", [[], [0.1, float("nan")]])
def test_the_example_refuses_what_can_not_be_enhanced(enhance, tmp_path, samples):
    soundfile.write(tmp_path / "noisy.wav", np.array(samples), 16000, "FLOAT")
    shown = enhance(tmp_path / "noisy.wav", tmp_path / "enhanced.wav").stderr
    assert "noisy.wav has no samples, or samples that are not finite" in shown
    assert not (tmp_path / "enhanced.wav").exists()


def test_the_example_names_what_is_no_model(tmp_path):
    (tmp_path / "model.onnx").write_text("no graph")
    shown = run_example(tmp_path / "model.onnx", "a.wav", "b.wav")
    (line,) = shown.stderr.splitlines()
    assert shown.returncode == 1
    assert "model.onnx is not a model from cffma export" in line


def test_the_example_says_how_it_is_called():
    assert "usage: python enhance_onnx.py model.onnx" in run_example().stderr
