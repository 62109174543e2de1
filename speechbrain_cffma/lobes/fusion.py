"""Fusions for comparison with MSCFF: one input alone, concatenation, cross-attention.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn

from speechbrain_cffma.lobes.attention import add_positions, check_heads
from speechbrain_cffma.lobes.layers import check_features, frame_mask, xavier
from speechbrain_cffma.registry import lobe


@lobe
class SpectrogramOnly(nn.Module):
    """Uses only the spectrogram and ignores the SSL embedding.

    Arguments
    ---------
    n_freqs : int
        Channels F of the spectrogram and of the output.

    Example
    -------
    >>> fusion = SpectrogramOnly(201)
    >>> fusion(torch.rand(2, 50, 201), torch.rand(2, 50, 0)).shape
    torch.Size([2, 50, 201])
    """

    def __init__(self, n_freqs):
        super().__init__()
        self.n_freqs = n_freqs
        self.fused_dim = n_freqs

    def forward(
        self, spectrum: Tensor, embedding: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Return the spectrogram.

        Arguments
        ---------
        spectrum : torch.Tensor
            Log-magnitude spectrogram [B, T, F].
        embedding : torch.Tensor
            Not used.
        lengths : torch.Tensor or None
            Not needed; every fusion takes it.

        Returns
        -------
        torch.Tensor
            The spectrogram [B, T, F].
        """
        return spectrum


@lobe
class EmbeddingOnly(nn.Module):
    """Uses only the SSL embedding to estimate the mask, and ignores the spectrogram.

    Arguments
    ---------
    ssl_dim : int
        Channels D of the SSL embedding and of the output.

    Example
    -------
    >>> fusion = EmbeddingOnly(768)
    >>> fusion(torch.rand(2, 50, 201), torch.rand(2, 50, 768)).shape
    torch.Size([2, 50, 768])
    """

    def __init__(self, ssl_dim):
        super().__init__()
        self.ssl_dim = ssl_dim
        self.fused_dim = ssl_dim

    def forward(
        self, spectrum: Tensor, embedding: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Return the embedding.

        Arguments
        ---------
        spectrum : torch.Tensor
            Not used.
        embedding : torch.Tensor
            SSL embedding [B, T, D].
        lengths : torch.Tensor or None
            Not needed; every fusion takes it.

        Returns
        -------
        torch.Tensor
            The embedding [B, T, D].
        """
        return embedding


@lobe
class Concatenation(nn.Module):
    """Concatenates both inputs; the first Linear of the mask estimator mixes them.

    Arguments
    ---------
    n_freqs : int
        Channels F of the spectrogram.
    ssl_dim : int
        Channels D of the SSL embedding.

    Example
    -------
    >>> fusion = Concatenation(201, 768)
    >>> fusion.fused_dim
    969
    >>> fusion(torch.rand(2, 50, 201), torch.rand(2, 50, 768)).shape
    torch.Size([2, 50, 969])
    """

    def __init__(self, n_freqs, ssl_dim):
        super().__init__()
        self.n_freqs = n_freqs
        self.ssl_dim = ssl_dim
        self.fused_dim = n_freqs + ssl_dim

    def forward(
        self, spectrum: Tensor, embedding: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Concatenate two feature sequences of the same frame rate.

        Arguments
        ---------
        spectrum : torch.Tensor
            Log-magnitude spectrogram [B, T, F].
        embedding : torch.Tensor
            SSL embedding [B, T, D].
        lengths : torch.Tensor or None
            Not needed; every fusion takes it.

        Returns
        -------
        torch.Tensor
            [B, T, F + D]

        Raises
        ------
        InputError
            If the channels or frames of the two do not fit.
        """
        check_features(self, spectrum, embedding)
        return torch.cat([spectrum, embedding], dim=-1)


@lobe
class CrossAttentionFusion(nn.Module):
    """Each frame of the spectrogram attends to all frames of the embedding.

    `s = Linear(S)`, `l = Linear(L) + P`,
    `out = LN(s + MultiHeadAttention(query=s + P, key=l, value=l))`.

    P are sinusoids of the frame numbers (https://arxiv.org/abs/1706.03762, Section 3.5).
    They let a frame find the same time in the other sequence.

    Arguments
    ---------
    n_freqs : int
        Channels F of the spectrogram.
    ssl_dim : int
        Channels D of the SSL embedding.
    fused_dim : int
        Channels U of the output.
    n_heads : int
        Number of heads.
    dropout : float
        Dropout on the attention weights.

    Raises
    ------
    InputError
        If U is odd or not a multiple of n_heads.

    Example
    -------
    >>> fusion = CrossAttentionFusion(201, 768, 960)
    >>> fusion(torch.rand(2, 50, 201), torch.rand(2, 50, 768)).shape
    torch.Size([2, 50, 960])
    """

    def __init__(self, n_freqs, ssl_dim, fused_dim, n_heads=4, dropout=0.1):
        super().__init__()
        check_heads(fused_dim, n_heads)
        self.n_freqs = n_freqs
        self.ssl_dim = ssl_dim
        self.fused_dim = fused_dim
        self.n_heads = n_heads
        self.dropout = dropout
        self.spectrum_layer = xavier(nn.Linear(n_freqs, fused_dim))
        self.embedding_layer = xavier(nn.Linear(ssl_dim, fused_dim))
        self.attention = nn.MultiheadAttention(
            fused_dim, n_heads, dropout, batch_first=True
        )
        xavier(self.attention.out_proj)
        self.norm = nn.LayerNorm(fused_dim)

    def forward(
        self, spectrum: Tensor, embedding: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Fuse two feature sequences of the same frame rate.

        Arguments
        ---------
        spectrum : torch.Tensor
            Log-magnitude spectrogram [B, T, F].
        embedding : torch.Tensor
            SSL embedding [B, T, D].
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            Fused features [B, T, U].

        Raises
        ------
        InputError
            If the channels or frames of the two do not fit.
        """
        check_features(self, spectrum, embedding)
        mask = frame_mask(lengths, spectrum.shape[1])
        projected = self.spectrum_layer(spectrum)  # [B, T, U]
        dtype = self.norm.weight.dtype
        queries = add_positions(projected, dtype)
        keys = add_positions(self.embedding_layer(embedding), dtype)
        attended, _ = self.attention(
            queries,
            keys,
            keys,
            key_padding_mask=None if mask is None else ~mask.squeeze(2),
            need_weights=False,
        )
        return self.norm(projected + attended)
