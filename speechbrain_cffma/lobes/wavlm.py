"""WavLM's self-attention on PyTorch's fused kernels.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch.nn import functional as F
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from speechbrain_cffma.lobes.attention import relative_to_absolute


class FusedWavLMAttention(WavLMAttention):
    """WavLM's gated relative-position attention without the weights that nobody reads.

    The transformers implementation asks for the attention weights, which keeps the
    softmax from the fused kernels, and computes the bucket of a distance anew for each
    pair of frames. This gives the same output (https://arxiv.org/abs/2110.13900,
    Section III-A).

    Example
    -------
    >>> model = getfixture("tiny_wavlm").model.eval()
    >>> wav = torch.randn(1, 8000)
    >>> before = model(wav).last_hidden_state
    >>> fuse_attention(model)
    >>> torch.allclose(model(wav).last_hidden_state, before, atol=1e-5)
    True
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
        if position_bias is None:
            position_bias = self._position_bias(hidden_states.shape[1])
        gate = self._gate(self._split_heads(hidden_states))  # [B, H, T, 1]
        bias = gate * position_bias
        if attention_mask is not None:
            valid = attention_mask.bool()[:, None, None]  # [B, 1, 1, T]
            bias = bias.masked_fill(~valid, -torch.inf)
        query, key, value = (
            self._split_heads(project(hidden_states))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias.to(query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        attended = attended.transpose(1, 2).flatten(2)
        return self.out_proj(attended), None, position_bias

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
        distances = torch.arange(1 - n_frames, n_frames, device=device)
        bias = self.rel_attn_embed(self._relative_positions_bucket(distances))
        bias = bias.T[None, :, None].expand(1, -1, n_frames, -1)  # [1, H, T, 2T - 1]
        return relative_to_absolute(bias)


def fuse_attention(model):
    """Put the fused attention into a WavLM of transformers; other models have it.

    Arguments
    ---------
    model : torch.nn.Module
        A transformers model; its weights stay as they are.
    """
    for module in model.modules():
        if type(module) is WavLMAttention:
            module.__class__ = FusedWavLMAttention
