"""Embeddings of self-supervised speech (SSL) models, aligned to the frames of an STFT.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.fast_ssl import make_fast
from speechbrain_cffma.lobes.layers import (
    Count,
    frame_mask,
    n_valid_samples,
    standardise,
)
from speechbrain_cffma.lobes.ssl_network import SSL
from speechbrain_cffma.registry import lobe


def n_ssl_frames(config: Any, n_samples: Count) -> Count:
    """Number of frames that the feature encoder of an SSL model gives for a waveform.

    Arguments
    ---------
    config : SSLConfig or transformers.PretrainedConfig
        The model's configuration.
    n_samples : int or torch.Tensor
        Number of samples.

    Returns
    -------
    int or torch.Tensor
        Number of frames; below 1 if the waveform is too short.

    Example
    -------
    >>> from speechbrain_cffma.lobes.ssl_network import SSLConfig
    >>> n_ssl_frames(SSLConfig("wavlm"), 20480)
    63
    """
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


@lobe
class SSLEmbedding(nn.Module):
    """Weighted sum of the hidden states of an SSL model, aligned to the frames of an STFT.

    Each layer has a LayerNorm and a weight; the weights are a softmax over one learnt
    scalar per layer (all equal at first). As in the published code, WavLM contributes the
    transformer's input and the outputs of all layers, wav2vec 2.0 and HuBERT only the
    outputs. Each SSL frame (20 ms) is repeated for the STFT frames (10 ms) that it covers,
    the last one until the utterance ends. With `lengths`, padding does not change the
    embedding. Layer drop is switched off, since it changes the number of layers.

    Arguments
    ---------
    ssl : torch.nn.Module
        SpeechBrain's `WavLM`, `Wav2Vec2` or `HuBERT` with `output_all_hiddens=True`, or
        the `SSL` of a model folder.
    fine_tune : str
        What is trained. "frozen": nothing of the SSL model; "partial": all but its
        convolutional feature encoder; "entire": all. Frozen parts stay in eval mode, also
        after `train()`.
    weighted_sum : bool
        False uses only the last layer.
    hop_length : int
        Samples between two STFT frames.

    Raises
    ------
    InputError
        If `fine_tune` is unknown, if `ssl` does not return all hidden states, or if `ssl`
        was made with freeze=True and `fine_tune` is not "frozen".

    Example
    -------
    >>> ssl = getfixture("tiny_wavlm")
    >>> embedding = SSLEmbedding(ssl, fine_tune="frozen")
    >>> embedding(torch.randn(2, 20480), n_frames=129).shape
    torch.Size([2, 129, 32])
    >>> embedding.layer_weights()
    tensor([0.3333, 0.3333, 0.3333])
    """

    def __init__(self, ssl, fine_tune="frozen", weighted_sum=True, hop_length=160):
        super().__init__()
        if not getattr(ssl, "output_all_hiddens", False):
            raise InputError(
                "SSLEmbedding needs an SSL wrapper made with output_all_hiddens=True"
            )
        self.ssl = ssl
        self.weighted_sum = weighted_sum
        self.hop_length = hop_length

        if not isinstance(ssl, SSL):
            make_fast(ssl.model)
        config = ssl.model.config
        config.layerdrop = 0.0
        self.dim = config.hidden_size
        self.first_layer = 0 if config.model_type == "wavlm" else 1
        n_layers = config.num_hidden_layers + 1 - self.first_layer
        if not weighted_sum:
            self.first_layer, n_layers = config.num_hidden_layers, 1
        self.norms = nn.ModuleList(nn.LayerNorm(self.dim) for _ in range(n_layers))
        self.weights = nn.Parameter(torch.ones(n_layers)) if weighted_sum else None

        self.set_fine_tune(fine_tune)

    def set_fine_tune(self, fine_tune: str) -> None:
        """Choose which part of the SSL model is trained from now on.

        Arguments
        ---------
        fine_tune : str
            "frozen", "partial" or "entire"; see the class.

        Raises
        ------
        InputError
            If it is none of these, or if the SSL wrapper was made with freeze=True.
        """
        if fine_tune not in ("frozen", "partial", "entire"):
            raise InputError(
                f"fine_tune must be frozen, partial or entire, not {fine_tune!r}"
            )
        if self.ssl.freeze and fine_tune != "frozen":
            raise InputError(
                f"fine_tune={fine_tune} needs an SSL wrapper made with freeze=False"
            )
        self.fine_tune = fine_tune
        self.ssl.requires_grad_(True)  # whatever was frozen before
        self.frozen_part().requires_grad_(False)
        for parameter in self._never_used():
            parameter.requires_grad_(False)
        self.train(self.training)

    def frozen_part(self) -> nn.Module:
        """The part of the SSL model that is not trained.

        Returns
        -------
        torch.nn.Module
            The whole model, its feature encoder, or an empty module.
        """
        if self.fine_tune == "frozen":
            return self.ssl
        if self.fine_tune == "partial":
            return self.ssl.model.feature_extractor
        return nn.Identity()

    def _never_used(self):
        """Parameters that don't affect the hidden states. They are frozen, since DDP
        waits for the gradient of each trained parameter."""
        model, config = self.ssl.model, self.ssl.model.config
        masks_time = config.apply_spec_augment and config.mask_time_prob > 0
        if not masks_time and hasattr(model, "masked_spec_embed"):
            yield model.masked_spec_embed
        if config.do_stable_layer_norm:
            yield from model.encoder.layer_norm.parameters()
        if getattr(model, "adapter", None) is not None:  # after the last layer
            yield from model.adapter.parameters()

    def train(self, mode: bool = True) -> "SSLEmbedding":
        """Set training mode; frozen parts stay in eval mode (no dropout)."""
        super().train(mode)
        self.frozen_part().eval()
        return self

    def ssl_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters of the SSL model, for an optimiser with its own learning rate.

        Returns
        -------
        iterable of torch.nn.Parameter
            All parameters, frozen or not.
        """
        return self.ssl.parameters()

    def layer_weights(self) -> Tensor:
        """The learnt weight of each layer in the sum.

        Returns
        -------
        torch.Tensor
            Non-negative weights [layers] that sum to 1, the lowest layer first.
        """
        if self.weights is None:
            return torch.ones(1)
        return torch.softmax(self.weights.detach(), dim=0)

    def forward(
        self, wav: Tensor, n_frames: int, lengths: Tensor | None = None
    ) -> Tensor:
        """Embed waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms [B, S] at 16 kHz.
        n_frames : int
            Frames T of the STFT.
        lengths : torch.Tensor or None
            Relative lengths [B] of the waveforms.

        Returns
        -------
        torch.Tensor
            Embedding [B, T, D].

        Raises
        ------
        InputError
            If the waveform is shorter than one frame of the SSL model (25 ms).
        """
        n_samples = wav.shape[1]
        if n_ssl_frames(self.ssl.model.config, n_samples) < 1:
            raise InputError(
                f"a waveform of {n_samples} samples is too short for the SSL model: "
                "it needs at least 25 ms (400 samples at 16 kHz)"
            )
        hidden_states = self._hidden_states(wav, lengths)[self.first_layer :]
        if self.weights is None:
            summed = self.norms[0](hidden_states[0])
        else:
            weights = torch.softmax(self.weights, dim=0)
            summed = sum(
                weight * norm(hidden)
                for weight, norm, hidden in zip(
                    weights, self.norms, hidden_states, strict=True
                )
            )  # [B, T_ssl, D]
        return self._align(summed, n_samples, n_frames, lengths)

    def _hidden_states(self, wav, lengths):
        """Hidden states of all layers, which don't depend on the padding.

        SpeechBrain's wrapper normalises the waveform including its padding, and a base
        model does so for the output of its first convolution. Here both leave it out.
        """
        if lengths is None:
            return self.ssl(wav, lengths)
        n_valid = n_valid_samples(lengths, wav.shape[1])
        valid = frame_mask(lengths, wav.shape[1])  # [B, S, 1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.ssl.freeze):
            if self.ssl.normalize_wav:
                wav = standardise(wav.unsqueeze(2), valid).squeeze(2).to(wav.dtype)
            valid = valid.squeeze(2)
            wav = wav.masked_fill(~valid, 0.0)
            features = self.ssl.model.feature_extractor(wav, n_valid)
            hidden_states = self.ssl.model(
                features, attention_mask=valid, output_hidden_states=True
            ).hidden_states
            if self.ssl.output_norm:
                frames = n_ssl_frames(self.ssl.model.config, n_valid)
                mask = frame_mask(frames / features.shape[2], features.shape[2])
                hidden_states = [
                    standardise(h, mask).to(h.dtype) for h in hidden_states
                ]
        return hidden_states

    def _align(self, summed, n_samples, n_frames, lengths):
        """Repeat SSL frames for the STFT frames, the last one until the utterance ends."""
        config = self.ssl.model.config
        stride = math.prod(config.conv_stride)
        frames = torch.arange(n_frames, device=summed.device)
        index = (frames * self.hop_length // stride).unsqueeze(0)  # [1, T]
        if lengths is None:
            index = index.clamp(max=summed.shape[1] - 1)
        else:
            n_valid = n_valid_samples(lengths, n_samples)
            last = (n_ssl_frames(config, n_valid) - 1).clamp(min=0)
            index = torch.minimum(index, last.unsqueeze(1))  # [B, T]
        index = index.expand(summed.shape[0], -1).unsqueeze(2)
        return summed.gather(1, index.expand(-1, -1, self.dim))


@lobe
class NoEmbedding(nn.Module):
    """Replaces `SSLEmbedding` in networks that use only the spectrogram: no channels.

    Example
    -------
    >>> NoEmbedding()(torch.randn(2, 20480), n_frames=129).shape
    torch.Size([2, 129, 0])
    """

    dim = 0
    first_layer = 0

    def set_fine_tune(self, fine_tune: str) -> None:
        """Do nothing, since there is no SSL model.

        Arguments
        ---------
        fine_tune : str
            Not used.
        """

    def frozen_part(self) -> nn.Module:
        """An empty module, since there is no SSL model.

        Returns
        -------
        torch.nn.Module
            A module without parameters.
        """
        return nn.Identity()

    def ssl_parameters(self) -> Iterable[nn.Parameter]:
        """No parameters, since there is no SSL model.

        Returns
        -------
        iterable of torch.nn.Parameter
            Empty.
        """
        return ()

    def layer_weights(self) -> Tensor:
        """No weights, since there are no layers.

        Returns
        -------
        torch.Tensor
            An empty tensor [0].
        """
        return torch.ones(0)

    def forward(
        self, wav: Tensor, n_frames: int, lengths: Tensor | None = None
    ) -> Tensor:
        """Return features without channels.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms [B, S].
        n_frames : int
            Frames T of the STFT.
        lengths : torch.Tensor or None
            Not used.

        Returns
        -------
        torch.Tensor
            [B, T, 0]
        """
        return wav.new_zeros(wav.shape[0], n_frames, 0)
