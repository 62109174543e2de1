"""The enhancer, from waveform to waveform: spectrogram, SSL embedding, mask estimator.

Authors
 * The speechbrain-cffma developers 2026
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.hub.folder import PretrainedMixin
from speechbrain_cffma.inference.mixin import InferenceMixin
from speechbrain_cffma.lobes.layers import (
    frame_mask,
    mean_over_time,
    n_valid_samples,
    statistics_dtype,
)
from speechbrain_cffma.lobes.ssl import SSLEmbedding
from speechbrain_cffma.lobes.ssl_models import in_wrapper
from speechbrain_cffma.registry import lobe


@lobe
class CFFMAEnhancer(InferenceMixin, PretrainedMixin, nn.Module):
    """Enhances waveforms: a mask multiplies the log-magnitude spectrogram; the phase stays.

    An optional refiner, which is not part of the published network, then changes magnitude
    and phase.

    SpeechBrain's `WaveformEnhancement` can use it as its `enhance_model`.

    Arguments
    ---------
    embedding : SSLEmbedding
        Called as `embedding(wav, n_frames, lengths)`, gives [B, T, D].
    spectrogram : LogSpectrogram
        The transform and its inverse.
    mask_estimator : MaskEstimator
        Called as `mask_estimator(spectrum, embedding, lengths)`, gives [B, T, F]. A
        refiner needs its `estimate` too.
    level : float or None
        RMS level in dB of full scale that each waveform is scaled to before the network,
        so that loud and soft recordings are enhanced alike; the output has the original
        level. None (as published): waveforms are not scaled.
    suppression : float or None
        Largest attenuation in dB of any time and frequency. None (as published): no limit.
    refiner : Refiner or callable or None
        Called as `refiner(noisy, masked, hidden, mask)` with spectra [B, T, F, 2]. A
        callable that is not a module is called once with n_freqs and dim of the mask
        estimator, and returns the module: in YAML
        `!name:speechbrain_cffma.lobes.Refiner`. None (as published): no refiner.

    Raises
    ------
    InputError
        If the refiner is neither a module nor callable.

    Example
    -------
    >>> from speechbrain_cffma.lobes import CFFMA, LogSpectrogram, SSLEmbedding
    >>> enhancer = CFFMAEnhancer(
    ...     SSLEmbedding(getfixture("tiny_wavlm")),
    ...     LogSpectrogram(),
    ...     CFFMA(ssl_dim=32, fused_dim=64, dim=32),
    ...     level=0.0,
    ... ).eval()
    >>> noisy = torch.randn(2, 16000)
    >>> enhanced, log_magnitude = enhancer(noisy)
    >>> enhanced.shape, log_magnitude.shape
    (torch.Size([2, 16000]), torch.Size([2, 101, 201]))
    >>> torch.allclose(0.01 * enhanced, enhancer(0.01 * noisy)[0], atol=1e-6)
    True
    """

    def __init__(
        self,
        embedding,
        spectrogram,
        mask_estimator,
        level=None,
        suppression=None,
        refiner=None,
    ):
        super().__init__()
        self.embedding = embedding
        self.spectrogram = spectrogram
        self.mask_estimator = mask_estimator
        self.level = level
        self.suppression = suppression
        self.refiner = self._refiner(refiner)

    def _refiner(self, refiner):
        """The module, built with the sizes of the mask estimator if it is not one yet."""
        if refiner is None or isinstance(refiner, nn.Module):
            return refiner
        if not callable(refiner):
            raise InputError(
                f"refiner is {refiner!r}, not a module or a function that returns one; "
                "--variant=refined adds one"
            )
        return refiner(self.mask_estimator.n_freqs, self.mask_estimator.dim)

    def gain(self, noisy: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the gain that scales each waveform to `level`.

        Arguments
        ---------
        noisy : torch.Tensor
            Waveforms [B, S].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            Gains [B, 1]; 1 if `level` is None. Silence counts as -100 dB.
        """
        if self.level is None:
            return noisy.new_ones(len(noisy), 1)
        noisy = noisy.to(statistics_dtype(noisy.dtype)).unsqueeze(2)
        valid = frame_mask(lengths, noisy.shape[1])
        power = mean_over_time(noisy.square(), valid).squeeze(2)
        # Clamped before the square root, whose slope at 0 is infinite.
        return 10 ** (self.level / 20) / power.clamp(min=1e-10).sqrt()

    def forward(
        self,
        noisy: Tensor,
        lengths: Tensor | None = None,
        suppression: float | None = None,
        waveform: bool = True,
    ) -> tuple[Tensor | None, Tensor]:
        """Enhance a batch.

        With `lengths`, the result of an utterance does not depend on its padding.

        Arguments
        ---------
        noisy : torch.Tensor
            Noisy waveforms [B, S] at 16 kHz.
        lengths : torch.Tensor or None
            Relative lengths [B].
        suppression : float or None
            Largest attenuation in dB; None for the enhancer's own, `math.inf` for no limit.
        waveform : bool
            False skips the inverse transform, for losses that use only the magnitude.

        Returns
        -------
        enhanced : torch.Tensor or None
            Enhanced waveforms [B, S] with the dtype of `noisy`, 0 in the padding; None if
            `waveform` is False.
        log_magnitude : torch.Tensor
            Enhanced log1p magnitude [B, T, F]; padded frames hold no meaningful value.

        Raises
        ------
        InputError
            If the input is not [B, S] or is shorter than 25 ms, or if lengths are not [B].
        """
        if noisy.dim() != 2:
            raise InputError(
                f"waveforms must be [batch, samples], not of shape {tuple(noisy.shape)}"
            )
        if lengths is not None and lengths.shape != noisy.shape[:1]:
            raise InputError(
                f"{len(noisy)} waveforms need lengths of shape ({len(noisy)},), not "
                f"{tuple(lengths.shape)}"
            )
        n_samples = noisy.shape[1]
        gain = self.gain(noisy, lengths)
        scaled = gain * noisy
        log_magnitude, phase = self.spectrogram(scaled, lengths)  # [B, T, F]
        masked, phase = self._estimate(scaled, log_magnitude, phase, lengths)
        bound = self.suppression if suppression is None else suppression
        if bound is not None:
            floor = 10 ** (-bound / 20) * log_magnitude.expm1()
            masked = torch.maximum(masked, floor.log1p())
        enhanced = None
        if waveform:
            enhanced = self.spectrogram.inverse(masked, phase, n_samples, lengths)
            if self.level is not None:
                enhanced = enhanced / gain
            enhanced = enhanced.to(noisy.dtype)
        if self.level is not None:
            masked = (masked.expm1() / gain.unsqueeze(2)).log1p()
        return enhanced, masked.to(noisy.dtype)

    def _estimate(self, noisy, log_magnitude, phase, lengths):
        """Estimate the enhanced log1p magnitude [B, T, F] and phase [B, T, F]."""
        dtype = log_magnitude.dtype
        # Under autocast, autocast chooses the types.
        device_type = noisy.device.type
        if not (
            torch.amp.is_autocast_available(device_type)
            and torch.is_autocast_enabled(device_type)
        ):
            dtype = next(self.mask_estimator.parameters()).dtype
        n_frames = log_magnitude.shape[1]
        embedding = self.embedding(noisy.to(dtype), n_frames, lengths)  # [B, T, D]
        if lengths is not None:
            # Recomputed in frames, since T is not exactly proportional to S.
            valid = n_valid_samples(lengths, noisy.shape[1])
            lengths = self.spectrogram.n_frames(valid) / n_frames
        features = (log_magnitude.to(dtype), embedding, lengths)
        if self.refiner is None:
            mask = self.mask_estimator(*features)
            return mask.to(log_magnitude.dtype) * log_magnitude, phase
        mask, hidden = self.mask_estimator.estimate(*features)
        masked = mask.to(log_magnitude.dtype) * log_magnitude
        spectrum = self.refiner(
            torch.view_as_real(log_magnitude.expm1() * phase),
            torch.view_as_real(masked.expm1() * phase),
            hidden,
            frame_mask(lengths, n_frames),
        )
        spectrum = torch.view_as_complex(spectrum)
        magnitude = spectrum.abs() + self.spectrogram.eps
        return magnitude.log1p(), spectrum / magnitude


def load_enhancer(
    source: str | Path,
    fine_tune: str = "frozen",
    refiner: Callable[..., nn.Module] | None = None,
) -> CFFMAEnhancer:
    """Load a trained network for further training.

    Arguments
    ---------
    source : str or Path
        A model folder or a hub id, see `CFFMAEnhancer.from_pretrained`.
    fine_tune : str
        Which part of its SSL model is trained: "frozen", "partial" or "entire"; see
        `SSLEmbedding`.
    refiner : Refiner or callable or None
        Refiner to add if the network has none; see `CFFMAEnhancer`.

    Returns
    -------
    CFFMAEnhancer
        The network with its weights, on the CPU.

    Raises
    ------
    InputError
        If the network can't be loaded, or `fine_tune` is unknown.

    Example
    -------
    >>> load_enhancer("no/such-model-folder")
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: ...
    """
    enhancer = CFFMAEnhancer.from_pretrained(source)
    embedding = enhancer.embedding
    if isinstance(embedding, SSLEmbedding):
        # transformers adds what training may use, such as gradient checkpointing.
        embedding.ssl = in_wrapper(embedding.ssl)
    embedding.set_fine_tune(fine_tune)
    if enhancer.refiner is None:
        enhancer.refiner = enhancer._refiner(refiner)
    return enhancer
