"""Faster kernels for what an SSL model of transformers computes; weights and outputs stay.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from speechbrain_cffma.lobes.attention import attend, relative_to_absolute


class FastWavLMAttention(WavLMAttention):
    """WavLM's gated relative-position attention without the weights that nobody reads.

    The transformers implementation asks for the attention weights, which keeps the
    softmax from the fused kernels, and computes the bucket of a distance anew for each
    pair of frames. This gives the same output (https://arxiv.org/abs/2110.13900,
    Section III-A).
    """

    def forward(
        self, hidden_states, attention_mask=None, position_bias=None, index=0, **kwargs
    ):
        """Attend; the arguments are those of `WavLMAttention`.

        Returns
        -------
        (torch.Tensor, None, torch.Tensor)
            The output [B, T, C], no weights, and the position bias [1, H, T, T], which
            the first layer computes for all.
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
        """What each frame multiplies its position bias by [B, H, T, 1]."""
        gates = self.gru_rel_pos_linear(x).unflatten(3, (2, 4)).sum(-1).sigmoid()
        update, reset = gates.chunk(2, dim=3)
        return update * (reset * self.gru_rel_pos_const - 1.0) + 2.0

    def _position_bias(self, n_frames):
        """The bias of each pair of frames [1, H, T, T], from one lookup a distance."""
        device = self.rel_attn_embed.weight.device
        distances = torch.arange(1 - n_frames, n_frames + 1, device=device)
        bias = self.rel_attn_embed(self._relative_positions_bucket(distances))
        bias = bias.T[None, :, None].expand(1, -1, n_frames, -1)  # [1, H, T, 2T]
        return relative_to_absolute(bias)


class WaveformConv1d(nn.Conv1d):
    """A convolution of one input channel without padding or dilation, on the CPU as a
    matrix product.

    The convolution kernels there are made for many channels.

    Example
    -------
    >>> conv = WaveformConv1d(1, 4, kernel_size=10, stride=5)
    >>> wav = torch.randn(2, 1, 100)
    >>> torch.allclose(conv(wav), nn.Conv1d.forward(conv, wav), atol=1e-5)
    True
    """

    def forward(self, x):
        """Convolve [B, 1, S] to [B, C, T]."""
        if x.device.type != "cpu":
            return super().forward(x)
        segments = x.squeeze(1).unfold(1, *self.kernel_size, *self.stride)  # [B, T, K]
        out = self.weight.squeeze(1) @ segments.mT
        return out if self.bias is None else out + self.bias.unsqueeze(1).to(out.dtype)


class ChannelsLastConv1d(nn.Conv1d):
    """A convolution without stride or dilation, on the CPU with channels last: there
    faster for many groups.

    Example
    -------
    >>> conv = ChannelsLastConv1d(8, 8, kernel_size=6, padding=3, groups=2)
    >>> x = torch.randn(2, 10, 8).transpose(1, 2)
    >>> torch.allclose(conv(x), nn.Conv1d.forward(conv, x), atol=1e-5)
    True
    """

    def forward(self, x):
        """Convolve [B, C, T], best in the memory of [B, T, C]."""
        if x.device.type != "cpu":
            return super().forward(x)
        # Only convolutions over two dimensions know this order.
        weight = self.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        padding = (0, *self.padding)
        return F.conv2d(x, weight, self.bias, 1, padding, 1, self.groups).squeeze(2)


def make_fast(model):
    """Let a transformers model compute with the classes above.

    Arguments
    ---------
    model : torch.nn.Module
        A WavLM, wav2vec 2.0 or HuBERT; its weights, and their names, stay as they are.

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
    model.feature_extractor.conv_layers[0].conv.__class__ = WaveformConv1d
    positions = model.encoder.pos_conv_embed.conv
    if type(positions) is nn.Conv1d:
        positions.__class__ = ChannelsLastConv1d
    elif not isinstance(positions, ChannelsLastConv1d):
        # Weight normalisation has given it a class of its own, which gets another base.
        own = type(positions)
        positions.__class__ = type(own.__name__, (ChannelsLastConv1d,), dict(vars(own)))
