"""Selective channel-time attention.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import Tensor, nn

from speechbrain_cffma.lobes.layers import (
    TimeConv1d,
    frame_mask,
    mean_over_time,
    xavier,
    zero_padding,
)
from speechbrain_cffma.registry import lobe


@lobe
class SelectiveChannelAttention(nn.Module):
    """A gain for each channel, from its maximum and its mean over time.

    A shared MLP maps the maximum to `m` and the mean to `v`. With the share a:
    `gain = a/2 sigmoid(m) + a/2 sigmoid(v) + (1 - a) sigmoid(m + v)`.

    Arguments
    ---------
    dim : int
        Channels C.
    share : float
        The share a of the two separate gains.

    Example
    -------
    >>> SelectiveChannelAttention(16)(torch.rand(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, dim, share=0.5):
        super().__init__()
        self.dim = dim
        self.share = share
        self.mlp = nn.Sequential(
            xavier(nn.Linear(dim, dim // 2)),
            nn.ReLU(),
            xavier(nn.Linear(dim // 2, dim)),
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Weight the channels.

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
        valid = x if mask is None else x.masked_fill(~mask, float("-inf"))
        maximum = self.mlp(valid.amax(dim=1, keepdim=True))  # [B, 1, C]
        mean = self.mlp(mean_over_time(x, mask))
        separate = torch.sigmoid(maximum) + torch.sigmoid(mean)
        return x * (
            self.share / 2 * separate + (1 - self.share) * torch.sigmoid(maximum + mean)
        )


@lobe
class SelectiveTimeAttention(nn.Module):
    """A gain for each frame, from the mean and the maximum over its channels.

    One convolution `c3` is applied to mean and maximum separately, another one, `c5`, to
    both together. With the share a:
    `gain = a/2 sigmoid(c3(mean)) + a/2 sigmoid(c3(max)) + (1 - a) sigmoid(c5([mean, max]))`.

    Arguments
    ---------
    share : float
        The share a of the two separate gains.

    Example
    -------
    >>> SelectiveTimeAttention()(torch.rand(2, 10, 16)).shape
    torch.Size([2, 10, 16])
    """

    def __init__(self, share=0.5):
        super().__init__()
        self.share = share
        self.separate_conv = TimeConv1d(1, 1, kernel_size=3)
        self.joint_conv = TimeConv1d(2, 1, kernel_size=5)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Weight the frames.

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
        mean = zero_padding(x.mean(dim=2, keepdim=True), mask)  # [B, T, 1]
        maximum = zero_padding(x.amax(dim=2, keepdim=True), mask)
        separate = torch.sigmoid(self.separate_conv(mean)) + torch.sigmoid(
            self.separate_conv(maximum)
        )
        joint = torch.sigmoid(self.joint_conv(torch.cat([mean, maximum], dim=2)))
        return x * (self.share / 2 * separate + (1 - self.share) * joint)


@lobe
class SCTA(nn.Module):
    """Selective channel attention, then selective time attention
    (https://arxiv.org/abs/2408.06851, Section 2.3).

    Arguments
    ---------
    dim : int
        Channels C.
    share : float
        The share a of the separate gains, in both attentions.

    Example
    -------
    >>> scta = SCTA(512)
    >>> scta(torch.rand(2, 10, 512)).shape
    torch.Size([2, 10, 512])
    >>> sum(parameter.numel() for parameter in scta.parameters())
    262927
    """

    def __init__(self, dim, share=0.5):
        super().__init__()
        self.dim = dim
        self.share = share
        self.channel_attention = SelectiveChannelAttention(dim, share)
        self.time_attention = SelectiveTimeAttention(share)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Weight channels and frames.

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
        return self.time_attention(self.channel_attention(x, lengths), lengths)
