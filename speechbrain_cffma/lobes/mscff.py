"""Multi-scale cross-domain feature fusion of a spectrogram and an SSL embedding.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.layers import (
    GlobalLayerNorm,
    TimeConv1d,
    check_features,
    frame_mask,
    xavier,
    zero_padding,
)
from speechbrain_cffma.registry import lobe


@lobe
class ConvGate(TimeConv1d):
    """A gate between 0 and 1 for each channel and frame: a convolution and a sigmoid.

    Arguments
    ---------
    in_channels : int
        Channels of the features from which the gate is computed.
    out_channels : int
        Channels of the features that the gate multiplies.
    kernel_size : int
        Length of the kernel in frames (odd, so that it is centred).
    dilation : int
        Distance between the kernel's taps in frames.

    Example
    -------
    >>> gate = ConvGate(8, 4, kernel_size=3)(torch.rand(2, 10, 8))
    >>> gate.shape
    torch.Size([2, 10, 4])
    >>> bool(((gate > 0) & (gate < 1)).all())
    True
    """

    def __init__(self, in_channels, out_channels, kernel_size, dilation=1):
        super().__init__(in_channels, out_channels, kernel_size, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the gate [B, T, out_channels] from [B, T, in_channels]."""
        return torch.sigmoid(super().forward(x))


@lobe
class OpenGate(nn.Module):
    """A gate that is always open, for ablations that remove a gate.

    Example
    -------
    >>> OpenGate()(torch.rand(2, 10, 8))
    tensor(1.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return a scalar 1 for any features [B, T, C]."""
        return x.new_ones(())


@lobe
class GatedFusion(nn.Module):
    """Fuses spectrogram S and SSL embedding L by three gates of any kind.

    With X = [S, L]: `u = Linear(X)`, `h = gLN(PReLU(Conv1d(u)))`,
    `out = ReLU(Linear([S * gate_1(h), L * gate_2(h)]) + u * gate_3(h))`. Both `Linear`
    are the same layer.

    Arguments
    ---------
    n_freqs : int
        Channels F of the spectrogram.
    ssl_dim : int
        Channels D of the SSL embedding.
    fused_dim : int
        Channels U of the output.
    gates : iterable of torch.nn.Module
        The gates for S, L and u, each called with h [B, T, U // 2].

    Example
    -------
    >>> gates = [OpenGate(), ConvGate(32, 48, 5), ConvGate(32, 64, 7)]
    >>> fusion = GatedFusion(201, 48, 64, gates)
    >>> fusion(torch.rand(2, 50, 201), torch.rand(2, 50, 48)).shape
    torch.Size([2, 50, 64])
    """

    def __init__(self, n_freqs, ssl_dim, fused_dim, gates):
        super().__init__()
        self.n_freqs = n_freqs
        self.ssl_dim = ssl_dim
        self.fused_dim = fused_dim
        bottleneck_dim = fused_dim // 2
        self.fuse = xavier(nn.Linear(n_freqs + ssl_dim, fused_dim))
        self.bottleneck = TimeConv1d(
            fused_dim, bottleneck_dim, kernel_size=1, bias=False
        )
        self.activation = nn.PReLU()
        self.norm = GlobalLayerNorm(bottleneck_dim)
        self.spectrum_gate, self.embedding_gate, self.fused_gate = gates

    @property
    def gates(self) -> list[nn.Module]:
        """The gates for S, L and u."""
        return [self.spectrum_gate, self.embedding_gate, self.fused_gate]

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
        fused = self.fuse(torch.cat([spectrum, embedding], dim=-1))  # [B, T, U]
        hidden = self.norm(self.activation(self.bottleneck(fused)), mask)
        hidden = zero_padding(hidden, mask)  # [B, T, U / 2]
        gated = torch.cat(
            [
                spectrum * self.spectrum_gate(hidden),
                embedding * self.embedding_gate(hidden),
            ],
            dim=-1,
        )  # [B, T, F + D]
        return torch.relu(self.fuse(gated) + fused * self.fused_gate(hidden))


@lobe
class MSCFF(GatedFusion):
    """Fuses spectrogram S and SSL embedding L by three convolutional gates of different
    time scales (https://arxiv.org/abs/2408.06851, Section 2.2).

    With X = [S, L]: `u = Linear(X)`, `h = gLN(PReLU(Conv1d(u)))`,
    `g_i = sigmoid(Conv1d_i(h))`, `out = ReLU(Linear([S * g_1, L * g_2]) + u * g_3)`.
    Both `Linear` are the same layer.

    Arguments
    ---------
    n_freqs : int
        Channels F of the spectrogram.
    ssl_dim : int
        Channels D of the SSL embedding.
    fused_dim : int
        Channels U of the output.
    kernel_sizes : sequence of int
        Kernel sizes (odd, in frames) of the gates for S, L and u.
    dilations : sequence of int
        Dilations of the gates. The default is taken from the authors' published code;
        the paper mentions dilated convolutions but does not give the factors.

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
        kernel_sizes, dilations = tuple(kernel_sizes), tuple(dilations)
        if not len(kernel_sizes) == len(dilations) == 3 or not all(
            kernel_size % 2 for kernel_size in kernel_sizes
        ):
            raise InputError(
                "MSCFF needs three odd kernel_sizes and three dilations, not "
                f"{kernel_sizes} and {dilations}"
            )
        gates = (
            ConvGate(fused_dim // 2, out_channels, kernel_size, dilation)
            for out_channels, kernel_size, dilation in zip(
                (n_freqs, ssl_dim, fused_dim), kernel_sizes, dilations, strict=True
            )
        )
        super().__init__(n_freqs, ssl_dim, fused_dim, gates)
        self.kernel_sizes = kernel_sizes
        self.dilations = dilations
