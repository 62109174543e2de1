"""Multi-head self-attention with relative positions, and what other attentions share with it.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.layers import frame_mask, xavier


def relative_sinusoids(n_frames, dim, device=None):
    """Sinusoids of the distances T - 1, …, 0, …, -(T - 1).

    Sine and cosine alternate; the sine is odd, so that past and future differ
    (SpeechBrain's `RelPosEncXL` takes the same sine for both).

    Arguments
    ---------
    n_frames : int
        Number of frames T.
    dim : int
        Channels C (even).
    device : torch.device or None
        Where to put the result.

    Returns
    -------
    torch.Tensor
        [2T - 1, C]

    Example
    -------
    >>> table = relative_sinusoids(3, 4)
    >>> table.shape
    torch.Size([5, 4])
    >>> table[2].tolist()  # distance 0
    [0.0, 1.0, 0.0, 1.0]
    """
    distances = torch.arange(
        n_frames - 1, -n_frames, -1, device=device, dtype=torch.float32
    )
    frequencies = torch.exp(
        torch.arange(0, dim, 2, device=device, dtype=torch.float32)
        * (-math.log(10000.0) / dim)
    )
    angles = distances.unsqueeze(1) * frequencies  # [2T - 1, C / 2]
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def relative_to_absolute(scores):
    """Scores over distances to scores over frames (Transformer-XL, Appendix B).

    Row i needs the distances i - j, that is the columns from T - 1 - i on. One column of
    padding and a change of rows and columns shift each row by one more element than the
    row before.

    Arguments
    ---------
    scores : torch.Tensor
        For the distances T - 1, …, -(T - 1) [B, H, T, 2T - 1].

    Returns
    -------
    torch.Tensor
        For the frames j [B, H, T, T].

    Example
    -------
    >>> distances = torch.tensor([2, 1, 0, -1, -2]).expand(1, 1, 3, 5)
    >>> relative_to_absolute(distances)[0, 0].tolist()
    [[0, -1, -2], [1, 0, -1], [2, 1, 0]]
    """
    *_, n_frames, n_distances = scores.shape
    shifted = F.pad(scores, (1, 0)).flatten(2)
    shifted = shifted.unflatten(2, (n_distances + 1, n_frames))[:, :, 1:]
    shifted = shifted.flatten(2).unflatten(2, (n_frames, n_distances))
    return shifted[..., :n_frames]


def add_positions(x):
    """Add to each frame the sinusoids of its number.

    Arguments
    ---------
    x : torch.Tensor
        Features [B, T, C], C even.

    Returns
    -------
    torch.Tensor
        Features [B, T, C].

    Example
    -------
    >>> add_positions(torch.zeros(1, 2, 2))[0, 0].tolist()
    [0.0, 1.0]
    """
    n_frames, dim = x.shape[1:]
    distances_to_first = relative_sinusoids(n_frames, dim, x.device)[:n_frames]
    return x + distances_to_first.flip(0)


def check_heads(dim, n_heads):
    """Refuse channels that can't be split into heads or hold no sinusoids.

    Arguments
    ---------
    dim : int
        Channels C.
    n_heads : int
        Number of heads.

    Raises
    ------
    InputError
        If the heads don't divide the channels, or these are odd.
    """
    if dim % n_heads or dim % 2:
        raise InputError(
            f"{dim} channels must be even, and a multiple of {n_heads} heads"
        )


class RelativeSelfAttention(nn.Module):
    """Multi-head self-attention with Transformer-XL's relative positions.

    The score of frame i for frame j is
    `((q_i + u) · k_j + (q_i + v) · W r_{i-j}) / sqrt(dim / n_heads)`
    with sinusoids r and learnt biases u and v
    (https://arxiv.org/abs/1901.02860, Section 3.3).

    Arguments
    ---------
    dim : int
        Channels C.
    n_heads : int
        Number of heads.
    dropout : float
        Dropout on the attention weights and on the output.

    Raises
    ------
    InputError
        If the heads don't divide the channels, or these are odd.

    Example
    -------
    >>> attention = RelativeSelfAttention(512)
    >>> attention(torch.rand(2, 10, 512)).shape
    torch.Size([2, 10, 512])
    >>> sum(parameter.numel() for parameter in attention.parameters())
    1313792
    """

    def __init__(self, dim, n_heads=4, dropout=0.1):
        super().__init__()
        check_heads(dim, n_heads)
        self.dim = dim
        self.n_heads = n_heads
        self.dropout = dropout
        head_dim = dim // n_heads
        self.query = xavier(nn.Linear(dim, dim))
        self.key = xavier(nn.Linear(dim, dim))
        self.value = xavier(nn.Linear(dim, dim))
        self.position = xavier(nn.Linear(dim, dim, bias=False))
        self.output = xavier(nn.Linear(dim, dim))
        self.content_bias = nn.Parameter(torch.empty(n_heads, head_dim))
        self.position_bias = nn.Parameter(torch.empty(n_heads, head_dim))
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.position_bias)
        self.output_dropout = nn.Dropout(dropout)

    def forward(self, x, lengths=None):
        """Attend over all valid frames.

        Arguments
        ---------
        x : torch.Tensor
            Features [B, T, C].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            Features [B, T, C].
        """
        n_frames = x.shape[1]
        query = self._split_heads(self.query(x))  # [B, H, T, C / H]
        key = self._split_heads(self.key(x))
        value = self._split_heads(self.value(x))
        sinusoids = relative_sinusoids(n_frames, self.dim, x.device)
        position = self._split_heads(self.position(sinusoids).unsqueeze(0))

        scale = 1 / math.sqrt(self.dim // self.n_heads)
        bias = (query + self.position_bias.unsqueeze(1)) @ position.mT * scale
        bias = relative_to_absolute(bias)  # [B, H, T, T]
        mask = frame_mask(lengths, n_frames)
        if mask is not None:
            bias = bias.masked_fill(~mask.view(-1, 1, 1, n_frames), -torch.inf)

        attended = F.scaled_dot_product_attention(
            query + self.content_bias.unsqueeze(1).to(query.dtype),
            key,
            value,
            attn_mask=bias.to(query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
            scale=scale,
        )
        attended = attended.transpose(1, 2).flatten(2)  # [B, T, C]
        return self.output_dropout(self.output(attended))

    def _split_heads(self, x):
        """[B, T, C] -> [B, H, T, C / H]"""
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
