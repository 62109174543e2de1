"""Multi-scale cross-domain feature fusion of a spectrogram and an SSL embedding.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import nn

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.layers import (
    GlobalLayerNorm,
    TimeConv1d,
    frame_mask,
    xavier,
    zero_padding,
)


class MSCFF(nn.Module):
    """Fuses spectrogram S and SSL embedding L with three gates of different time scales.

    With X = [S, L], after https://arxiv.org/abs/2408.06851, Section 2.2:

    `u = Linear(X)`, `h = gLN(PReLU(Conv1d(u)))`, `g_i = sigmoid(Conv1d_i(h))`,
    `out = ReLU(Linear([S * g_1, L * g_2]) + u * g_3)`, with one Linear in both places.

    Arguments
    ---------
    n_freqs : int
        Channels F of the spectrogram.
    ssl_dim : int
        Channels D of the SSL embedding.
    fused_dim : int
        Channels U of the output.
    kernel_sizes : sequence of int
        Kernel sizes (odd, in frames) of the gates of S, of L and of u.
    dilations : sequence of int
        Their dilations. The default is that of the authors' published code; the
        paper's text speaks of dilated convolutions without giving the factors.

    Raises
    ------
    InputError
        If there are not three odd kernel sizes and three dilations.

    Example
    -------
    >>> fusion = MSCFF()
    >>> fusion(torch.rand(2, 50, 201), torch.rand(2, 50, 768)).shape
    torch.Size([2, 50, 960])
    >>> sum(parameter.numel() for parameter in fusion.parameters())
    6753130
    """

    def __init__(
        self,
        n_freqs=201,
        ssl_dim=768,
        fused_dim=960,
        kernel_sizes=(3, 5, 7),
        dilations=(1, 1, 1),
    ):
        super().__init__()
        self.n_freqs = n_freqs
        self.ssl_dim = ssl_dim
        self.fused_dim = fused_dim
        self.kernel_sizes = tuple(kernel_sizes)
        self.dilations = tuple(dilations)
        if not len(self.kernel_sizes) == len(self.dilations) == 3 or not all(
            kernel_size % 2 for kernel_size in self.kernel_sizes
        ):
            raise InputError(
                "MSCFF needs three odd kernel_sizes and three dilations, not "
                f"{self.kernel_sizes} and {self.dilations}"
            )

        bottleneck_dim = fused_dim // 2
        self.fuse = xavier(nn.Linear(n_freqs + ssl_dim, fused_dim))
        self.bottleneck = TimeConv1d(
            fused_dim, bottleneck_dim, kernel_size=1, bias=False
        )
        self.activation = nn.PReLU()
        self.norm = GlobalLayerNorm(bottleneck_dim)
        self.spectrum_gate, self.embedding_gate, self.fused_gate = (
            TimeConv1d(bottleneck_dim, out_channels, kernel_size, dilation)
            for out_channels, kernel_size, dilation in zip(
                (n_freqs, ssl_dim, fused_dim),
                self.kernel_sizes,
                self.dilations,
                strict=True,
            )
        )

    def forward(self, spectrum, embedding, lengths=None):
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
        self._check_shapes(spectrum, embedding)
        mask = frame_mask(lengths, spectrum.shape[1])
        fused = self.fuse(torch.cat([spectrum, embedding], dim=-1))  # [B, T, U]
        hidden = self.norm(self.activation(self.bottleneck(fused)), mask)
        hidden = zero_padding(hidden, mask)  # [B, T, U / 2]
        gated = torch.cat(
            [
                spectrum * torch.sigmoid(self.spectrum_gate(hidden)),
                embedding * torch.sigmoid(self.embedding_gate(hidden)),
            ],
            dim=-1,
        )  # [B, T, F + D]
        return torch.relu(
            self.fuse(gated) + fused * torch.sigmoid(self.fused_gate(hidden))
        )

    def _check_shapes(self, spectrum, embedding):
        expected = (*spectrum.shape[:2], self.n_freqs, self.ssl_dim)
        found = (*embedding.shape[:2], spectrum.shape[2], embedding.shape[2])
        if expected != found:
            raise InputError(
                f"MSCFF(n_freqs={self.n_freqs}, ssl_dim={self.ssl_dim}) got a spectrum of "
                f"shape {tuple(spectrum.shape)} and an embedding of {tuple(embedding.shape)}"
            )
