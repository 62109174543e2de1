"""Faster layers for the SSL models of transformers, with the same weights and outputs.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.wavlm.modeling_wavlm import WavLMAttention, WavLMFeatureEncoder

from speechbrain_cffma.lobes.attention import attend, relative_to_absolute
from speechbrain_cffma.lobes.layers import (
    mean_over_time,
    statistics_dtype,
    without_autocast,
)

#: Frames (20 ms) in a chunk of a batch: the features of a chunk fit in the CPU's cache.
CHUNK = 100


class FastWavLMAttention(WavLMAttention):
    """WavLM's gated relative-position attention (https://arxiv.org/abs/2110.13900,
    Section III-A), without returning the attention weights.

    The implementation of transformers returns these weights, so it can't use fused
    kernels. It also computes the bucket of a distance for each pair of frames; this class
    does so once for each distance.
    """

    def forward(
        self, hidden_states, attention_mask=None, position_bias=None, index=0, **kwargs
    ):
        """Attend; the arguments are those of `WavLMAttention`.

        Returns
        -------
        (torch.Tensor, None, torch.Tensor)
            The output [B, T, C], no weights, and the position bias [1, H, T, T]. The first
            layer computes the bias for all layers.
        """
        query, key, value = (
            self._split_heads(project(hidden_states))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if position_bias is None:
            position_bias = self._position_bias(hidden_states.shape[1]).to(query.dtype)
        gate = self._gate(self._split_heads(hidden_states))  # [B, H, T, 1]
        bias = gate.to(query.dtype) * position_bias
        if attention_mask is not None:
            valid = attention_mask.bool()[:, None, None]  # [B, 1, 1, T]
            bias = bias.masked_fill(~valid, -torch.inf)
        dropout = self.dropout if self.training else 0.0
        attended = attend(query, key, value, bias, dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None, position_bias

    def _split_heads(self, x):
        """[B, T, C] -> [B, H, T, C / H]"""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _gate(self, x):
        """The gate [B, H, T, 1] by which each frame scales its position bias."""
        gates = self.gru_rel_pos_linear(x).unflatten(3, (2, 4)).sum(-1).sigmoid()
        update, reset = gates.chunk(2, dim=3)
        return update * (reset * self.gru_rel_pos_const - 1.0) + 2.0

    def _position_bias(self, n_frames):
        """The bias of each pair of frames [1, H, T, T], with one lookup per distance."""
        device = self.rel_attn_embed.weight.device
        distances = torch.arange(1 - n_frames, n_frames + 1, device=device)
        bias = self.rel_attn_embed(self._relative_positions_bucket(distances))
        bias = bias.T[None, :, None].expand(1, -1, n_frames, -1)  # [1, H, T, 2T]
        return relative_to_absolute(bias)


class FastFeatureEncoder(WavLMFeatureEncoder):
    """The convolutional feature encoder; on the CPU it computes some frames at a time.

    The outputs of all layers then fit in the cache. It also replaces the encoders of
    wav2vec 2.0 and HuBERT, which are the same.
    """

    def forward(self, input_values, n_valid=None):
        """Encode waveforms [B, S] to features [B, C, T].

        Features [B, C, T] are returned unchanged: a model can then be called with features
        in place of waveforms.

        Arguments
        ---------
        input_values : torch.Tensor
            Waveforms [B, S], or features [B, C, T].
        n_valid : torch.Tensor or None
            Number of valid samples of each waveform [B]; norms over time use only these.

        Returns
        -------
        torch.Tensor
            Features [B, C, T]; padded frames hold no meaningful value.
        """
        if input_values.dim() == 3:
            return input_values
        first, *others = self.conv_layers
        has_norm_over_time = isinstance(first.layer_norm, nn.GroupNorm)
        is_whole = self.gradient_checkpointing or torch.compiler.is_compiling()
        if is_whole or input_values.device.type != "cpu":
            if n_valid is None or not has_norm_over_time:
                return super().forward(input_values)
            return self._whole(input_values, n_valid)
        stride, reach = 1, 1  # in samples: hop between frames and length of a frame
        for layer in self.conv_layers:
            reach += (layer.conv.kernel_size[0] - 1) * stride
            stride *= layer.conv.stride[0]
        overlap = reach - stride
        n_frames = (input_values.shape[1] - overlap) // stride
        if has_norm_over_time:
            first = fold_norm(first, input_values, n_valid)
        chunk = max(1, CHUNK // len(input_values))
        chunks = []
        for begin in range(0, n_frames, chunk):
            end = min(begin + chunk, n_frames)
            x = input_values[:, None, begin * stride : end * stride + overlap]
            for layer in (first, *others):
                x = layer(x)
            chunks.append(x)
        return torch.cat(chunks, dim=2)

    def _whole(self, wav, n_valid):
        """Encode all frames at once; the first layer's norm uses only valid frames."""
        first, *others = self.conv_layers
        norm = first.layer_norm
        x = first.conv(wav[:, None]).mT  # [B, T, C]
        mask = first_frames(first.conv, n_valid, x.shape[1])
        wide = x.to(statistics_dtype(x.dtype))
        centred = wide - mean_over_time(wide, mask)
        variance = mean_over_time(centred.square(), mask)
        x = (centred / (variance + norm.eps).sqrt()).to(x.dtype)
        x = first.activation((x * norm.weight + norm.bias).mT)  # [B, C, T]
        for layer in others:
            x = layer(x)
        return x


def first_frames(conv, n_valid, n_frames):
    """Mark the output frames of a convolution that see only valid samples.

    Arguments
    ---------
    conv : torch.nn.Conv1d
        The first convolution of a feature encoder, without padding.
    n_valid : torch.Tensor
        Number of valid samples of each waveform [B].
    n_frames : int
        Frames T of the batch.

    Returns
    -------
    torch.Tensor
        Boolean mask [B, T, 1].

    Example
    -------
    >>> first_frames(nn.Conv1d(1, 8, 10, 5), torch.tensor([20, 10]), 3).int()[..., 0].tolist()
    [[1, 1, 1], [1, 0, 0]]
    """
    n_valid = (n_valid - conv.kernel_size[0]) // conv.stride[0] + 1
    frames = torch.arange(n_frames, device=n_valid.device)
    return (frames < n_valid.clamp(min=1).unsqueeze(1)).unsqueeze(2)


def fold_norm(layer, wav, n_valid=None):
    """Fold the GroupNorm of a base model's first layer into its kernels.

    The norm is over time, for each channel. Mean and variance of a channel follow from
    mean and covariance of the waveform's segments, so the convolution need not be
    computed to find them.

    Arguments
    ---------
    layer : torch.nn.Module
        First layer of a feature encoder: convolution, GroupNorm and activation.
    wav : torch.Tensor
        Whole waveforms [B, S], over which the norm is computed.
    n_valid : torch.Tensor or None
        Number of valid samples of each waveform [B]; the norm uses only these.

    Returns
    -------
    callable
        Maps any part of the waveforms [B, 1, N] to the layer's output there [B, C, T].

    Example
    -------
    >>> layer = getfixture("tiny_wavlm").model.feature_extractor.conv_layers[0]
    >>> wav = torch.randn(2, 8000)
    >>> torch.allclose(fold_norm(layer, wav)(wav[:, None]), layer(wav[:, None]), atol=1e-5)
    True
    """
    conv, norm = layer.conv, layer.layer_norm
    size, stride = conv.kernel_size[0], conv.stride[0]
    with without_autocast(wav):
        # In float64, since a kernel can cancel most of a loud signal.
        segments = wav.double().unfold(1, size, stride)  # [B, T, K]
        if n_valid is None:
            mean = segments.mean(dim=1, keepdim=True)
            centred = segments - mean
            covariance = centred.mT @ centred / segments.shape[1]  # [B, K, K]
        else:
            mask = first_frames(conv, n_valid, segments.shape[1]).double()
            n_frames = mask.sum(1, keepdim=True)
            mean = mask.mT @ segments / n_frames
            centred = segments - mean
            covariance = centred.mT @ (mask * centred) / n_frames
        kernels = conv.weight.squeeze(1).double()  # [C, K]
        variance = ((kernels @ covariance) * kernels).sum(2, keepdim=True)  # [B, C, 1]
        kernels = norm.weight.unsqueeze(1) * kernels / (variance + norm.eps).sqrt()
        bias = norm.bias.unsqueeze(1) - kernels @ mean.mT  # [B, C, 1]
        kernels, bias = kernels.to(wav.dtype), bias.to(wav.dtype)

    def folded(x):
        segments = x.squeeze(1).unfold(1, size, stride)
        return layer.activation(torch.baddbmm(bias, kernels, segments.mT))

    return folded


class ChannelsLastConv1d(nn.Conv1d):
    """A convolution without stride or dilation. On the CPU it computes with channels last,
    which is faster for many groups.

    Example
    -------
    >>> conv = ChannelsLastConv1d(8, 8, kernel_size=6, padding=3, groups=2)
    >>> x = torch.randn(2, 10, 8).transpose(1, 2)
    >>> torch.allclose(conv(x), nn.Conv1d.forward(conv, x), atol=1e-5)
    True
    """

    def forward(self, x):
        """Convolve [B, C, T]; fastest if the memory has the order [B, T, C]."""
        if x.device.type != "cpu":
            return super().forward(x)
        # PyTorch supports channels last only for 2-D convolutions.
        weight = self.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        padding = (0, *self.padding)
        return F.conv2d(x, weight, self.bias, 1, padding, 1, self.groups).squeeze(2)

    def fixed(self):
        """A copy for inference, whose weight is normalised and reordered once.

        Returns
        -------
        ChannelsLastConv1d
            The convolution with a constant weight.
        """
        conv = nn.utils.skip_init(
            ChannelsLastConv1d,
            self.in_channels,
            self.out_channels,
            self.kernel_size[0],
            padding=self.padding[0],
            groups=self.groups,
        )
        weight = self.weight.detach().mT.contiguous().mT  # channels last
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = self.bias
        return conv


def make_fast(model):
    """Replace the layers of a transformers model by the faster classes above, in place.

    Arguments
    ---------
    model : torch.nn.Module
        A WavLM, wav2vec 2.0 or HuBERT model. Weights and their names stay the same.

    Example
    -------
    >>> model = getfixture("tiny_wavlm").model.eval()
    >>> wav = torch.randn(1, 8000)
    >>> before = model(wav).last_hidden_state
    >>> make_fast(model)
    >>> torch.allclose(model(wav).last_hidden_state, before, atol=1e-5)
    True
    """
    for module in model.modules():
        if type(module) is WavLMAttention:
            module.__class__ = FastWavLMAttention
    model.feature_extractor.__class__ = FastFeatureEncoder
    positions = model.encoder.pos_conv_embed.conv
    if type(positions) is nn.Conv1d:
        positions.__class__ = ChannelsLastConv1d
    elif not isinstance(positions, ChannelsLastConv1d):
        # Weight normalisation made a class for this module: give it the new base.
        own = type(positions)
        positions.__class__ = type(own.__name__, (ChannelsLastConv1d,), dict(vars(own)))
