"""Multi-head self-attention with relative positions, and functions for other attentions.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.layers import frame_mask, statistics_dtype, xavier
from speechbrain_cffma.registry import lobe

#: Number of query frames in a block: the scores of a block fit in the CPU's cache.
BLOCK = 256


def relative_sinusoids(
    n_frames: int,
    dim: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Sinusoids of the distances T - 1, …, 0, …, -T.

    Sine and cosine alternate. The sine is odd, so past and future differ (SpeechBrain's
    `RelPosEncXL` uses the same sine for both).

    Arguments
    ---------
    n_frames : int
        Number of frames T.
    dim : int
        Channels C (even).
    device : torch.device or None
        Device of the result.
    dtype : torch.dtype
        Dtype of the result; half precision is rounded from float32.

    Returns
    -------
    torch.Tensor
        [2T, C]

    Example
    -------
    >>> table = relative_sinusoids(3, 4)
    >>> table.shape
    torch.Size([6, 4])
    >>> table[2].tolist()  # distance 0
    [0.0, 1.0, 0.0, 1.0]
    """
    arange = partial(torch.arange, device=device, dtype=statistics_dtype(dtype))
    distances = arange(n_frames - 1, -n_frames - 1, -1)
    frequencies = torch.exp(arange(0, dim, 2) * (-math.log(1e4) / dim))
    angles = distances.unsqueeze(1) * frequencies  # [2T, C / 2]
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).to(dtype)


def relative_to_absolute(scores: Tensor) -> Tensor:
    """Convert scores over distances to scores over frames (Transformer-XL, Appendix B).

    The result is a view: the same memory, read as rows that are one element shorter, so
    that each row begins one distance later than the row before.

    Arguments
    ---------
    scores : torch.Tensor
        Scores [B, H, N, N + T] of N consecutive query frames. The first column is the
        distance from the last query to the first of the T frames; each further column is
        the distance minus 1.

    Returns
    -------
    torch.Tensor
        Scores over frames [B, H, N, T].

    Example
    -------
    >>> distances = torch.tensor([2, 1, 0, -1, -2, -3]).expand(1, 1, 3, 6)
    >>> relative_to_absolute(distances)[0, 0].tolist()
    [[0, -1, -2], [1, 0, -1], [2, 1, 0]]
    """
    *_, n_rows, n_distances = scores.shape
    shifted = scores.flatten(2)[..., n_rows - 1 : -1]
    shifted = shifted.unflatten(2, (n_rows, n_distances - 1))
    return shifted[..., : n_distances - n_rows]


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention with a bias: `softmax(q k^T / sqrt(D) + bias) v`.

    Arguments
    ---------
    query : torch.Tensor
        [B, H, N, D]
    key : torch.Tensor
        [B, H, T, D]
    value : torch.Tensor
        [B, H, T, D]
    bias : torch.Tensor
        [B or 1, H, N, T], -inf for keys that are not attended to.
    dropout : float
        Dropout on the attention weights.

    Returns
    -------
    torch.Tensor
        [B, H, N, D]

    Example
    -------
    >>> query, key, value = torch.randn(3, 2, 4, 10, 16)
    >>> bias = torch.zeros(1, 4, 10, 10)
    >>> attended = attend(query, key, value, bias)
    >>> weights = torch.softmax(query @ key.mT / 4, dim=3)
    >>> torch.allclose(attended, weights @ value, atol=1e-6)
    True
    """
    # The CPU's fused kernel does not support a bias with a gradient, and is no faster
    # for bfloat16.
    is_plain = bias.requires_grad or query.dtype == torch.bfloat16
    if query.device.type == "cpu" and is_plain:
        scores = torch.baddbmm(
            bias.to(query.dtype).expand(len(query), -1, -1, -1).flatten(0, 1),
            query.flatten(0, 1),
            key.flatten(0, 1).mT,
            alpha=query.shape[3] ** -0.5,
        )
        weights = F.dropout(torch.softmax(scores, dim=2), dropout)
        return (weights @ value.flatten(0, 1)).unflatten(0, query.shape[:2])
    bias = bias.to(query.dtype)
    if query.device.type != "cpu":
        # GPU kernels need a bias that is aligned to 16 bytes. PyTorch checks the strides,
        # but not the first element of a view such as that of `relative_to_absolute`.
        n_keys = bias.shape[3]
        bias = F.pad(bias, (0, -n_keys % 8))[..., :n_keys]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, dropout_p=dropout
    )


def add_positions(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Add the sinusoids of its number to each frame.

    Arguments
    ---------
    x : torch.Tensor
        Features [B, T, C], C even.
    dtype : torch.dtype
        Dtype of the sinusoids: that of the caller's parameters.

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
    distances_to_first = relative_sinusoids(n_frames, dim, x.device, dtype)[:n_frames]
    return x + distances_to_first.flip(0)


def check_heads(dim: int, n_heads: int) -> None:
    """Check that the channels can be split into heads and hold pairs of sine and cosine.

    Arguments
    ---------
    dim : int
        Channels C.
    n_heads : int
        Number of heads.

    Raises
    ------
    InputError
        If dim is odd or not a multiple of n_heads.

    Example
    -------
    >>> check_heads(512, n_heads=4)
    >>> check_heads(512, n_heads=3)
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: 512 channels must be even, and a multiple of 3 heads
    """
    if dim % n_heads or dim % 2:
        raise InputError(
            f"{dim} channels must be even, and a multiple of {n_heads} heads"
        )


@lobe
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
        If dim is odd or not a multiple of n_heads.

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

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
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
        sinusoids = relative_sinusoids(
            n_frames, self.dim, x.device, self.content_bias.dtype
        )
        position = self._split_heads(self.position(sinusoids).unsqueeze(0))
        scale = 1 / math.sqrt(self.dim // self.n_heads)
        by_content = query + self.content_bias.unsqueeze(1).to(query.dtype)
        by_position = (query + self.position_bias.unsqueeze(1)) * scale
        mask = frame_mask(lengths, n_frames)

        # A compiled graph serves all lengths, so its number of blocks can't vary.
        firsts = [0] if torch.compiler.is_compiling() else range(0, n_frames, BLOCK)
        dropout = self.dropout if self.training else 0.0
        blocks = []
        for first, end in pairwise([*firsts, n_frames]):
            distances = position[:, :, n_frames - end : 2 * n_frames - first]
            bias = by_position[:, :, first:end] @ distances.mT  # [B, H, N, N + T]
            bias = relative_to_absolute(bias)  # [B, H, N, T]
            if mask is not None:
                bias = bias.masked_fill(~mask.view(-1, 1, 1, n_frames), -torch.inf)
            blocks.append(
                attend(by_content[:, :, first:end], key, value, bias, dropout)
            )
        attended = torch.cat(blocks, dim=2).transpose(1, 2).flatten(2)  # [B, T, C]
        return self.output_dropout(self.output(attended))

    def _split_heads(self, x):
        """[B, T, C] -> [B, H, T, C / H]"""
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
