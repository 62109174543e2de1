"""Faster layers of SSL models, with the weights and the outputs of those of transformers.

`ssl_network` is made of them; `make_fast` puts them into a model of transformers.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_cffma.lobes.attention import attend, relative_to_absolute
from speechbrain_cffma.lobes.layers import (
    mean_over_time,
    statistics_dtype,
    without_autocast,
)

#: Frames (20 ms) in a chunk of a batch: the features of a chunk fit in the CPU's cache.
CHUNK = 100


#: The activations that a configuration may name: those that transformers documents for
#: these models. Others have their own weights, or overflow in the seven layers of an
#: encoder.
ACTIVATIONS = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
}


class FastWavLMAttention(nn.Module):
    """WavLM's gated relative-position attention (https://arxiv.org/abs/2110.13900,
    Section III-A), without returning the attention weights.

    The implementation of transformers returns these weights, so it can't use fused
    kernels. It also computes the bucket of a distance for each pair of frames; this class
    does so once for each distance.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    has_position_bias : bool
        Whether it has the table of position biases, which only the first layer has.
    """

    def __init__(self, config, has_position_bias):
        super().__init__()
        dim = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.num_buckets = config.num_buckets
        self.max_distance = config.max_bucket_distance
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, self.num_heads, 1, 1))
        self.gru_rel_pos_linear = nn.Linear(dim // self.num_heads, 8)
        if has_position_bias:
            self.rel_attn_embed = nn.Embedding(self.num_buckets, self.num_heads)

    def forward(
        self, hidden_states, attention_mask=None, position_bias=None, index=0, **kwargs
    ):
        """Attend; the arguments are those of transformers' `WavLMAttention`.

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
        bias = self.rel_attn_embed(self._bucket(distances))
        bias = bias.T[None, :, None].expand(1, -1, n_frames, -1)  # [1, H, T, 2T]
        return relative_to_absolute(bias)

    def _bucket(self, distances):
        """The bucket of each distance: half of them are for distances above 0. Of each
        half, the first half holds one distance each, and the others grow exponentially up
        to `max_distance`."""
        n_buckets = self.num_buckets // 2
        n_exact = n_buckets // 2
        size = distances.abs()
        # Computed in this order, since rounding decides on the bucket.
        place = torch.log(size.float() / n_exact)
        place = place / math.log(self.max_distance / n_exact) * (n_buckets - n_exact)
        far = (n_exact + place).long().clamp(max=n_buckets - 1)
        return (distances > 0) * n_buckets + torch.where(size < n_exact, size, far)


class ConvLayer(nn.Module):
    """A layer of a feature encoder: a convolution, a norm if it has one, an activation.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    index : int
        Number of the layer. With `feat_extract_norm="group"` only the first has a norm.
    """

    def __init__(self, config, index):
        super().__init__()
        n_out = config.conv_dim[index]
        self.conv = nn.Conv1d(
            config.conv_dim[index - 1] if index else 1,
            n_out,
            config.conv_kernel[index],
            config.conv_stride[index],
            bias=config.conv_bias,
        )
        self.layer_norm = None
        if config.feat_extract_norm == "layer":
            self.layer_norm = nn.LayerNorm(n_out)
        elif index == 0:
            self.layer_norm = nn.GroupNorm(n_out, n_out)
        self.activation = ACTIVATIONS[config.feat_extract_activation]()

    def forward(self, x):
        """Map [B, C, T] to the channels and frames of the next layer."""
        x = self.conv(x)
        if isinstance(self.layer_norm, nn.LayerNorm):
            x = self.layer_norm(x.mT).mT
        elif self.layer_norm is not None:
            x = self.layer_norm(x)
        return self.activation(x)


class FastFeatureEncoder(nn.Module):
    """The convolutional feature encoder; on the CPU it computes some frames at a time.

    The outputs of all layers then fit in the cache. The encoders of WavLM, wav2vec 2.0 and
    HuBERT are the same.

    Arguments
    ---------
    config : SSLConfig
        The configuration.
    """

    #: transformers sets it, if its layers are to be computed again for the gradients.
    gradient_checkpointing = False

    def __init__(self, config):
        super().__init__()
        self.conv_layers = nn.ModuleList(
            ConvLayer(config, index) for index in range(len(config.conv_dim))
        )

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
            return self._whole(input_values, n_valid if has_norm_over_time else None)
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
        """Encode all frames at once. With `n_valid`, the first layer's norm over time uses
        only valid frames."""
        first, *others = self.conv_layers
        x = wav[:, None]
        if n_valid is not None:
            x = self._first_of_valid(x, n_valid)
        else:
            if self.gradient_checkpointing and self.training:
                x.requires_grad_()  # a checkpoint needs an input that has a gradient
            x = first(x)
        for layer in others:
            x = layer(x)
        return x

    def _first_of_valid(self, wav, n_valid):
        """The first layer for [B, 1, S], whose norm over time uses only valid frames."""
        first = self.conv_layers[0]
        norm = first.layer_norm
        x = first.conv(wav).mT  # [B, T, C]
        mask = first_frames(first.conv, n_valid, x.shape[1])
        wide = x.to(statistics_dtype(x.dtype))
        centred = wide - mean_over_time(wide, mask)
        variance = mean_over_time(centred.square(), mask)
        x = (centred / (variance + norm.eps).sqrt()).to(x.dtype)
        return first.activation((x * norm.weight + norm.bias).mT)  # [B, C, T]


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
        conv = ChannelsLastConv1d(
            self.in_channels,
            self.out_channels,
            self.kernel_size[0],
            padding=self.padding[0],
            groups=self.groups,
            device="meta",
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
    if model.config.model_type == "wavlm":
        for layer in model.encoder.layers:
            layer.attention.__class__ = FastWavLMAttention
    model.feature_extractor.__class__ = FastFeatureEncoder
    positions = model.encoder.pos_conv_embed.conv
    if type(positions) is nn.Conv1d:
        positions.__class__ = ChannelsLastConv1d
    elif not isinstance(positions, ChannelsLastConv1d):
        # Weight normalisation made a class for this module: give it the new base.
        own = type(positions)
        positions.__class__ = type(own.__name__, (ChannelsLastConv1d,), dict(vars(own)))
