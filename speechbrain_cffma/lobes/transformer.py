"""A plain Transformer encoder, for comparison with RHMA.

Authors
 * The speechbrain-cffma developers 2026
"""

from torch import Tensor, nn

from speechbrain_cffma.lobes.attention import add_positions, check_heads
from speechbrain_cffma.lobes.layers import frame_mask, xavier
from speechbrain_cffma.registry import lobe


@lobe
class TransformerStack(nn.Module):
    """Transformer encoder layers as published: post-norm, ReLU, absolute positions.

    It adds sinusoids of the frame numbers once, before the first layer
    (https://arxiv.org/abs/1706.03762, Sections 3.1 and 3.5).

    Arguments
    ---------
    dim : int
        Channels C.
    n_layers : int
        Number of layers.
    n_heads : int
        Heads of the self-attention.
    ffn_expansion : int
        Expansion of the feed-forward networks.
    dropout : float
        Dropout on the attention weights, in the feed-forward networks and before
        each residual connection.

    Raises
    ------
    InputError
        If dim is odd or not a multiple of n_heads.

    Example
    -------
    >>> import torch
    >>> stack = TransformerStack(512, n_layers=1)
    >>> stack(torch.rand(2, 10, 512)).shape
    torch.Size([2, 10, 512])
    >>> sum(parameter.numel() for parameter in stack.parameters())
    3152384
    """

    def __init__(self, dim, n_layers=2, n_heads=4, ffn_expansion=4, dropout=0.1):
        super().__init__()
        check_heads(dim, n_heads)
        self.dim = dim
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.ffn_expansion = ffn_expansion
        self.dropout = dropout
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, n_heads, ffn_expansion * dim, dropout, batch_first=True
            )
            for _ in range(n_layers)
        )
        for part in self.modules():
            if isinstance(part, nn.Linear):
                xavier(part)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Apply the layers.

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
        mask = frame_mask(lengths, x.shape[1])
        padding = None if mask is None else ~mask.squeeze(2)
        x = add_positions(x, self.layers[0].norm1.weight.dtype)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=padding)
        return x
