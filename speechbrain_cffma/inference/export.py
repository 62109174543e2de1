"""Export a trained network as an ONNX file, for programs without torch.

The graph computes the mask from the noisy waveform and its log1p magnitude. ONNX lacks
the Fourier transform and its inverse, so the program must compute them;
examples/enhance_onnx.py does so in NumPy.

Authors
 * The speechbrain-cffma developers 2026
"""

import copy
import logging
import math
import warnings
from contextlib import contextmanager

import torch
from torch import nn

from speechbrain_cffma import __version__
from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.errors import InputError, InstallError, one_line, reason
from speechbrain_cffma.files import atomic_write
from speechbrain_cffma.hub.card import read_card
from speechbrain_cffma.inference.bands import min_samples

#: The largest difference between the masks of PyTorch and onnxruntime.
TOLERANCE = 1e-4
#: Batch sizes and seconds for this comparison: from a short input, which is zero-padded,
#: to a window of `enhance_file`.
CHECKS = ((1, 0.01), (3, 0.7), (1, 2.57), (2, 16.0))
#: Version of the operators; onnxruntime 1.18 and later support it.
OPSET = 20
#: Maximum size of the weights: one file holds 2 GiB with the graph.
MAX_WEIGHT_BYTES = 2_000_000_000
#: The axes of variable length of each input.
DYNAMIC_AXES = {
    "noisy": {0: "batch", 1: "samples"},
    "log_magnitude": {0: "batch", 1: "frames"},
    "phase": {0: "batch", 1: "frames"},
}


def export_onnx(enhancer, path):
    """Write a network as an ONNX file, and check that onnxruntime computes the same.

    The inputs are `noisy` [batch, samples] and `log_magnitude` [batch, frames, freqs], as
    computed by `LogSpectrogram`. The output is `mask` [batch, frames, freqs]. A network
    with a refiner has a further input `phase` [batch, frames, freqs, 2] (real and
    imaginary part), and its output is the enhanced `spectrum` [batch, frames, freqs, 2].
    Batch size and length are variable. A network without an SSL model has the same
    inputs.

    The file's metadata describes the transforms: sample_rate, min_samples (shorter
    waveforms must be zero-padded to it), n_fft, hop_length, win_length (of a periodic
    Hamming window) and eps. If the network has them, it also has level (RMS level in dB
    that a waveform must be scaled to) and suppression (maximum attenuation in dB).
    version is the version of this package, and license is given if the model's card
    names one.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The network; it is not changed.
    path : str or Path
        The file. It appears after the check.

    Returns
    -------
    float
        The largest difference between the masks of PyTorch and onnxruntime. With a
        refiner, the largest difference between the spectra, relative to the largest bin.

    Raises
    ------
    InputError
        If the network can't be exported, the file can't be written, or the difference
        exceeds 1e-4.
    InstallError
        If a package is missing.

    Example
    -------
    >>> from speechbrain_cffma.lobes import CFFMAEnhancer, LogSpectrogram, MaskEstimator
    >>> from speechbrain_cffma.lobes import FeedForward, NoEmbedding, SpectrogramOnly
    >>> estimator = MaskEstimator(SpectrogramOnly(201), FeedForward(8), 201, 201, 8)
    >>> enhancer = CFFMAEnhancer(NoEmbedding(), LogSpectrogram(), estimator)
    >>> export_onnx(enhancer, getfixture("tmp_path") / "model.onnx") < 1e-4
    True
    """
    onnx, onnxruntime, scanned_lstm = _packages()
    enhancer = copy.deepcopy(enhancer).cpu().float().eval()
    network = _Network(enhancer)
    n_bytes = sum(weight.nbytes for weight in network.parameters())
    if n_bytes > MAX_WEIGHT_BYTES:
        raise InputError(
            f"{path} can't be written: weights of {n_bytes / 1e9:.1f} GB do not fit into "
            f"one ONNX file (at most {MAX_WEIGHT_BYTES / 1e9:.1f} GB): use a smaller SSL "
            "model"
        )
    try:
        with atomic_write(path) as partial:
            with _quiet(), scanned_lstm():
                program = _program(network, enhancer.spectrogram)
            metadata = _metadata(enhancer)
            program.model.metadata_props.update(metadata)
            onnx.save_model(program.model_proto, partial, format="protobuf")
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors
            # From bytes, since onnxruntime accepts only UTF-8 paths.
            session = onnxruntime.InferenceSession(partial.read_bytes(), options)
            difference = _largest_difference(network, enhancer.spectrogram, session)
            # `not <=` also catches NaN.
            if not difference <= TOLERANCE:
                raise InputError(
                    f"{path} is not written: the outputs of onnxruntime and PyTorch differ "
                    f"by {difference:.1e}, more than {TOLERANCE:.0e}"
                )
    except OSError as error:
        raise InputError(f"{path} can't be written ({reason(error)})") from error
    return difference


class _Network(nn.Module):
    """An enhancer without its transforms."""

    def __init__(self, enhancer):
        super().__init__()
        self.embedding = enhancer.embedding
        self.mask_estimator = enhancer.mask_estimator
        self.refiner = enhancer.refiner
        self.inputs = list(DYNAMIC_AXES)[: 2 if self.refiner is None else 3]
        self.output = "mask" if self.refiner is None else "spectrum"

    def forward(self, noisy, log_magnitude, phase=None):
        """The mask [B, T, F], or the spectrum [B, T, F, 2], from [B, S], [B, T, F] and
        [B, T, F, 2]."""
        embedding = self.embedding(noisy, log_magnitude.shape[1])
        if self.refiner is None:
            return self.mask_estimator(log_magnitude, embedding)
        mask, hidden = self.mask_estimator.estimate(log_magnitude, embedding)
        noisy, masked = (
            magnitude.expm1().unsqueeze(3) * phase
            for magnitude in (log_magnitude, mask * log_magnitude)
        )
        return self.refiner(noisy, masked, hidden)

    def arguments(self, spectrogram, noisy):
        """The arguments of `forward` for waveforms [B, S]."""
        log_magnitude, phase = spectrogram(noisy)
        arguments = (noisy, log_magnitude, torch.view_as_real(phase))
        return arguments[: len(self.inputs)]


def _packages():
    """Import the packages that only the export needs."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx imports it

        # Without it, an LSTM is exported for a single length.
        from torch.export._patches import register_lstm_while_loop_decomposition
    except ModuleNotFoundError as error:
        raise InstallError(
            f"the package {error.name} is not installed: "
            "pip install 'speechbrain-cffma[onnx]'"
        ) from error
    return onnx, onnxruntime, register_lstm_while_loop_decomposition


@contextmanager
def _quiet():
    """Hide the exporter's log messages and warnings; errors are raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _program(network, spectrogram):
    arguments = network.arguments(spectrogram, torch.zeros(2, SAMPLE_RATE))
    try:
        with torch.no_grad():
            return torch.onnx.export(
                network,
                arguments,
                input_names=network.inputs,
                output_names=[network.output],
                dynamic_shapes={name: DYNAMIC_AXES[name] for name in network.inputs},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(
            f"the network can't be exported [{one_line(error.__cause__ or error)}]"
        ) from error


def _metadata(enhancer):
    spectrogram = enhancer.spectrogram
    metadata = {
        "sample_rate": SAMPLE_RATE,
        "min_samples": min_samples(spectrogram),
        "n_fft": spectrogram.n_fft,
        "hop_length": spectrogram.hop_length,
        "win_length": spectrogram.win_length,
        "eps": spectrogram.eps,
        "version": __version__,
    }
    for name in ("level", "suppression"):
        if getattr(enhancer, name) is not None:
            metadata[name] = getattr(enhancer, name)
    _, card = read_card(enhancer.card)
    if card.get("license"):
        metadata["license"] = card["license"]
    return {key: str(value) for key, value in metadata.items()}


def _largest_difference(network, spectrogram, session):
    """The largest difference between PyTorch's and onnxruntime's outputs, over `CHECKS`."""
    differences = []
    for batch, seconds in CHECKS:
        noisy = _noisy_speech(batch, round(seconds * SAMPLE_RATE))
        missing = max(0, min_samples(spectrogram) - noisy.shape[1])
        noisy = nn.functional.pad(noisy, (0, missing))
        arguments = network.arguments(spectrogram, noisy)
        with torch.inference_mode():
            expected = network(*arguments)
        inputs = zip(network.inputs, map(torch.Tensor.numpy, arguments), strict=True)
        (output,) = session.run([network.output], dict(inputs))
        difference = (torch.from_numpy(output) - expected).abs().max()
        # This scales spectra only, since a mask is at most 1.
        differences.append(difference / expected.abs().max().clamp(min=1))
    return torch.stack(differences).max().item()


def _noisy_speech(batch, n_samples):
    """Noise [B, S]; every other item, from the first on, also has voiced syllables."""
    time = torch.arange(n_samples) / SAMPLE_RATE
    harmonics = torch.arange(1, 31).unsqueeze(1)
    voice = (torch.sin(2 * math.pi * 120 * harmonics * time) / harmonics).sum(0)
    syllables = 0.1 * voice * torch.sin(2 * math.pi * 2 * time) ** 2
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, n_samples, generator=generator)
    is_speech = (torch.arange(batch) % 2 == 0).float().unsqueeze(1)
    return is_speech * syllables + 0.1 ** (1 + is_speech) * noise
