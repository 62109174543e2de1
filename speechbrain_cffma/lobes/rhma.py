"""Residual hybrid multi-attention, and the general blocks that it consists of.

Authors
 * The speechbrain-cffma developers 2026
"""

from torch import Tensor, nn

from speechbrain_cffma.lobes.attention import RelativeSelfAttention
from speechbrain_cffma.lobes.layers import xavier
from speechbrain_cffma.lobes.scta import SCTA
from speechbrain_cffma.registry import lobe


@lobe
class FeedForward(nn.Module):
    """Position-wise feed-forward network: Linear, SiLU, dropout, Linear, dropout.

    Arguments
    ---------
    dim : int
        Channels C.
    expansion : int
        The hidden layer has `expansion * C` channels.
    dropout : float
        Dropout after each Linear.

    Example
    -------
    >>> import torch
    >>> FeedForward(16)(torch.rand(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, dim, expansion=4, dropout=0.1):
        super().__init__()
        self.dim = dim
        self.expansion = expansion
        self.dropout = dropout
        self.layers = nn.Sequential(
            xavier(nn.Linear(dim, expansion * dim)),
            nn.SiLU(),
            nn.Dropout(dropout),
            xavier(nn.Linear(expansion * dim, dim)),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Transform each frame on its own.

        Arguments
        ---------
        x : torch.Tensor
            Features [B, T, C].
        lengths : torch.Tensor or None
            Not needed; every sub-block takes it.

        Returns
        -------
        torch.Tensor
            Features [B, T, C].
        """
        return self.layers(x)


@lobe
class PostNormBlock(nn.Module):
    """Sub-blocks in a row, each followed by a residual connection and a LayerNorm. A last
    residual connection and LayerNorm span the whole block.

    `x_k = LN(x_{k-1} + sub_block_k(x_{k-1}))`, `out = LN(x_n + x_0)`.

    Arguments
    ---------
    dim : int
        Channels C.
    sub_blocks : list of torch.nn.Module
        Each called as `sub_block(x, lengths)`, [B, T, C] to [B, T, C].

    Example
    -------
    >>> import torch
    >>> block = PostNormBlock(16, [FeedForward(16), SCTA(16)])
    >>> block(torch.rand(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, dim, sub_blocks):
        super().__init__()
        self.dim = dim
        self.sub_blocks = nn.ModuleList(sub_blocks)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in sub_blocks)
        self.output_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Apply the sub-blocks.

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
        block_input = x
        for sub_block, norm in zip(self.sub_blocks, self.norms, strict=True):
            x = norm(x + sub_block(x, lengths))
        return self.output_norm(x + block_input)


@lobe
class PostNormStack(nn.Module):
    """Blocks in a row. With other sub-blocks it makes variants of RHMA.

    Arguments
    ---------
    blocks : list of torch.nn.Module
        Each called as `block(x, lengths)`, [B, T, C] to [B, T, C].

    Example
    -------
    >>> import torch
    >>> sub_blocks = [RelativeSelfAttention(16), FeedForward(16)]
    >>> without_scta = PostNormStack([PostNormBlock(16, sub_blocks)])
    >>> without_scta(torch.rand(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    @classmethod
    def repeated(cls, dim, n_blocks, sub_blocks):
        """Make blocks of the same form, each with its own weights.

        Arguments
        ---------
        dim : int
            Channels C.
        n_blocks : int
            Number of blocks.
        sub_blocks : list of callable
            Functions that make the sub-blocks of a `PostNormBlock` (in YAML: `!name:`).
            Each is called once for each block.

        Returns
        -------
        PostNormStack
            The blocks.

        Example
        -------
        >>> from functools import partial
        >>> makers = [partial(RelativeSelfAttention, 16), partial(FeedForward, 16)]
        >>> len(PostNormStack.repeated(16, n_blocks=3, sub_blocks=makers).blocks)
        3
        """
        return cls(
            PostNormBlock(dim, [make() for make in sub_blocks]) for _ in range(n_blocks)
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Apply the blocks.

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
        for block in self.blocks:
            x = block(x, lengths)
        return x


@lobe
class RHMA(PostNormStack):
    """Residual hybrid multi-attention: self-attention, feed-forward, SCTA, feed-forward
    (https://arxiv.org/abs/2408.06851, Section 2.3).

    Arguments
    ---------
    dim : int
        Channels C.
    n_blocks : int
        Number of blocks.
    n_heads : int
        Heads of the self-attention.
    ffn_expansion : int
        Expansion of the feed-forward networks.
    dropout : float
        Dropout in the self-attention and the feed-forward networks.

    Example
    -------
    >>> import torch
    >>> rhma = RHMA(n_blocks=1)
    >>> rhma(torch.rand(2, 10, 512)).shape
    torch.Size([2, 10, 512])
    >>> sum(parameter.numel() for parameter in rhma.parameters())
    5781263
    """

    def __init__(self, dim=512, n_blocks=2, n_heads=4, ffn_expansion=4, dropout=0.1):
        super().__init__(
            PostNormBlock(
                dim,
                [
                    RelativeSelfAttention(dim, n_heads, dropout),
                    FeedForward(dim, ffn_expansion, dropout),
                    SCTA(dim),
                    FeedForward(dim, ffn_expansion, dropout),
                ],
            )
            for _ in range(n_blocks)
        )
        self.dim = dim
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.ffn_expansion = ffn_expansion
        self.dropout = dropout
