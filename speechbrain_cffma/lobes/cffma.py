"""The mask estimator of BSS-CFFMA: fusion and enhancer between two linear layers.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn

from speechbrain_cffma.lobes.layers import (
    xavier,
)
from speechbrain_cffma.lobes.mscff import MSCFF
from speechbrain_cffma.lobes.rhma import RHMA
from speechbrain_cffma.registry import lobe


@lobe
class MaskEstimator(nn.Module):
    """Estimates a mask from a spectrogram and an SSL embedding.

    In a row: fusion, Linear, enhancer, Linear, sigmoid.

    Arguments
    ---------
    fusion : torch.nn.Module
        Called as `fusion(spectrum, embedding, lengths)`, gives [B, T, fused_dim].
    enhancer : torch.nn.Module
        Called as `enhancer(x, lengths)`, [B, T, dim] to [B, T, dim].
    n_freqs : int
        Frequencies F of the mask.
    fused_dim : int
        Channels of the fusion's output.
    dim : int
        Channels of the enhancer.

    Example
    -------
    >>> estimator = MaskEstimator(MSCFF(201, 32, 64), RHMA(48), 201, 64, 48)
    >>> mask = estimator(torch.rand(2, 50, 201), torch.rand(2, 50, 32))
    >>> mask.shape
    torch.Size([2, 50, 201])
    >>> bool(((mask >= 0) & (mask <= 1)).all())
    True
    """

    def __init__(self, fusion, enhancer, n_freqs=201, fused_dim=960, dim=512):
        super().__init__()
        self.n_freqs = n_freqs
        self.fused_dim = fused_dim
        self.dim = dim
        self.fusion = fusion
        self.input_layer = xavier(nn.Linear(fused_dim, dim))
        self.enhancer = enhancer
        self.output_layer = xavier(nn.Linear(dim, n_freqs))

    def forward(
        self, spectrum: Tensor, embedding: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Estimate the mask of the log-magnitude spectrogram.

        Arguments
        ---------
        spectrum : torch.Tensor
            Noisy log-magnitude spectrogram [B, T, F].
        embedding : torch.Tensor
            SSL embedding [B, T, D].
        lengths : torch.Tensor or None
            Relative lengths [B], 1.0 = T frames.

        Returns
        -------
        torch.Tensor
            Mask [B, T, F] between 0 and 1.
        """
        return self.estimate(spectrum, embedding, lengths)[0]

    def estimate(
        self, spectrum: Tensor, embedding: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Estimate the mask, and also return the features from which it is computed.

        Arguments
        ---------
        spectrum : torch.Tensor
            Noisy log-magnitude spectrogram [B, T, F].
        embedding : torch.Tensor
            SSL embedding [B, T, D].
        lengths : torch.Tensor or None
            Relative lengths [B], 1.0 = T frames.

        Returns
        -------
        mask : torch.Tensor
            Mask [B, T, F] between 0 and 1.
        hidden : torch.Tensor
            Output of the enhancer [B, T, dim], for a `Refiner`.
        """
        fused = self.fusion(spectrum, embedding, lengths)
        hidden = self.enhancer(self.input_layer(fused), lengths)
        # Under autocast the spectrogram is float32, so the mask is too.
        return torch.sigmoid(self.output_layer(hidden).to(spectrum.dtype)), hidden


@lobe
class CFFMA(MaskEstimator):
    """The published mask estimator: MSCFF and RHMA (https://arxiv.org/abs/2408.06851).

    Arguments
    ---------
    n_freqs : int
        Frequencies F of the spectrogram.
    ssl_dim : int
        Channels D of the SSL embedding (768 for base models, 1024 for large).
    fused_dim : int
        Channels of MSCFF's output.
    dim : int
        Channels of RHMA.
    n_blocks : int
        Blocks of RHMA.
    n_heads : int
        Heads of RHMA's self-attention.
    ffn_expansion : int
        Expansion of RHMA's feed-forward networks.
    dropout : float
        Dropout in RHMA.
    kernel_sizes : sequence of int
        Kernel sizes of MSCFF's gates.
    dilations : sequence of int
        Dilations of MSCFF's gates.

    Example
    -------
    >>> cffma = CFFMA()
    >>> cffma(torch.rand(2, 50, 201), torch.rand(2, 50, 768)).shape
    torch.Size([2, 50, 201])
    >>> sum(parameter.numel() for parameter in cffma.parameters())
    18910801
    """

    def __init__(
        self,
        n_freqs=201,
        ssl_dim=768,
        fused_dim=960,
        dim=512,
        n_blocks=2,
        n_heads=4,
        ffn_expansion=4,
        dropout=0.1,
        kernel_sizes=(3, 5, 7),
        dilations=(1, 1, 1),
    ):
        super().__init__(
            MSCFF(n_freqs, ssl_dim, fused_dim, kernel_sizes, dilations),
            RHMA(dim, n_blocks, n_heads, ffn_expansion, dropout),
            n_freqs,
            fused_dim,
            dim,
        )
        self.ssl_dim = ssl_dim
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.ffn_expansion = ffn_expansion
        self.dropout = dropout
        self.kernel_sizes = tuple(kernel_sizes)
        self.dilations = tuple(dilations)
