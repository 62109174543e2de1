"""Embedding of a self-supervised speech model: all its layers, on the frames of an STFT.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.layers import (
    Count,
    frame_mask,
    n_valid_samples,
    standardise,
)
from speechbrain_cffma.registry import lobe


def n_ssl_frames(config: Any, n_samples: Count) -> Count:
    """Number of frames that an SSL model's feature encoder makes of a waveform.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        The model's configuration.
    n_samples : int or torch.Tensor
        Number of samples.

    Returns
    -------
    int or torch.Tensor
        Number of frames; below 1 if the waveform is too short.

    Example
    -------
    >>> from transformers import WavLMConfig
    >>> n_ssl_frames(WavLMConfig(), 20480)
    63
    """
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


@lobe
class SSLEmbedding(nn.Module):
    """Hidden states of an SSL model, normalised, summed with learnt weights and aligned to an STFT.

    One LayerNorm per layer, then a sum weighted by a softmax over one scalar per
    layer (all equal at first). WavLM gives the transformer's input and all layers'
    outputs, wav2vec 2.0 and HuBERT the layers' outputs only, as in the published code.
    SSL frames (20 ms) are repeated to the STFT's (10 ms), and each utterance's last
    frame to its end. With `lengths`, each utterance is embedded as it would be alone.
    Layer drop is switched off: it changes the number of layers.

    Arguments
    ---------
    ssl : torch.nn.Module
        SpeechBrain's `WavLM`, `Wav2Vec2` or `HuBERT` with `output_all_hiddens=True`.
    fine_tune : str
        "frozen": nothing of the SSL model learns; "partial": all but its
        convolutional feature encoder; "entire": everything that is used. What is
        frozen stays in eval mode whatever `train()` says.
    weighted_sum : bool
        False takes the last layer alone.
    hop_length : int
        Samples between two STFT frames.

    Raises
    ------
    InputError
        If `fine_tune` or `ssl` is none of those above, or they contradict each other.

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
                "SSLEmbedding needs an SSL wrapper with output_all_hiddens=True"
            )
        self.ssl = ssl
        self.weighted_sum = weighted_sum
        self.hop_length = hop_length

        from speechbrain_cffma.lobes.fast_ssl import make_fast

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
        """Choose what of the SSL model learns from now on.

        Arguments
        ---------
        fine_tune : str
            "frozen", "partial" or "entire", see above.

        Raises
        ------
        InputError
            If it is none of these, or the SSL model was made to be frozen.
        """
        if fine_tune not in ("frozen", "partial", "entire"):
            raise InputError(
                f"fine_tune must be frozen, partial or entire, not {fine_tune!r}"
            )
        if self.ssl.freeze and fine_tune != "frozen":
            raise InputError(
                f"an SSL wrapper made with freeze=True can't be fine-tuned: {fine_tune}"
            )
        self.fine_tune = fine_tune
        self.ssl.requires_grad_(True)  # whatever was frozen before
        self.frozen_part().requires_grad_(False)
        for parameter in self._never_used():
            parameter.requires_grad_(False)
        self.train(self.training)

    def frozen_part(self) -> nn.Module:
        """The part of the SSL model that does not learn.

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
        """Parameters that hidden states don't depend on: plain DDP would wait for their
        gradients."""
        model, config = self.ssl.model, self.ssl.model.config
        masks_time = config.apply_spec_augment and config.mask_time_prob > 0
        if not masks_time and hasattr(model, "masked_spec_embed"):
            yield model.masked_spec_embed
        if config.do_stable_layer_norm:
            yield from model.encoder.layer_norm.parameters()
        if getattr(model, "adapter", None) is not None:  # behind the last layer
            yield from model.adapter.parameters()

    def train(self, mode: bool = True) -> "SSLEmbedding":
        """Set training mode; what is frozen stays in eval mode (no dropout)."""
        super().train(mode)
        self.frozen_part().eval()
        return self

    def ssl_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters of the SSL model, which learn at a rate of their own.

        Returns
        -------
        iterable of torch.nn.Parameter
            All of them, frozen or not.
        """
        return self.ssl.parameters()

    def layer_weights(self) -> Tensor:
        """What was learnt: the share of each layer in the sum.

        Returns
        -------
        torch.Tensor
            Non-negative weights [layers] of sum 1, the lowest layer first.
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
        """What the wrapper returns, with `lengths` as for each utterance alone.

        The wrapper itself normalises the waveform, and a base model its first
        convolution, over the padding as well.
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
        """Repeat SSL frames to STFT frames, and each utterance's last one to the end."""
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
    """Stands in for `SSLEmbedding` in a network of the spectrogram alone: no channels.

    Example
    -------
    >>> NoEmbedding()(torch.randn(2, 20480), n_frames=129).shape
    torch.Size([2, 129, 0])
    """

    dim = 0
    first_layer = 0

    def set_fine_tune(self, fine_tune: str) -> None:
        """Nothing to choose: there is no SSL model.

        Arguments
        ---------
        fine_tune : str
            Not needed.
        """

    def frozen_part(self) -> nn.Module:
        """None: there is no SSL model.

        Returns
        -------
        torch.nn.Module
            An empty one.
        """
        return nn.Identity()

    def ssl_parameters(self) -> Iterable[nn.Parameter]:
        """None: there is no SSL model.

        Returns
        -------
        iterable of torch.nn.Parameter
            Empty.
        """
        return ()

    def layer_weights(self) -> Tensor:
        """None: there are no layers.

        Returns
        -------
        torch.Tensor
            Empty [0].
        """
        return torch.ones(0)

    def forward(
        self, wav: Tensor, n_frames: int, lengths: Tensor | None = None
    ) -> Tensor:
        """Give features of no channels.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms [B, S].
        n_frames : int
            Frames T of the STFT.
        lengths : torch.Tensor or None
            Not needed.

        Returns
        -------
        torch.Tensor
            [B, T, 0]
        """
        return wav.new_zeros(wav.shape[0], n_frames, 0)
