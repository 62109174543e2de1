"""The refiner: a small U-Net over time and frequency after the published network.

The published head has separate weights for each frequency. The refiner shares its weights
along frequency: what it learns about one harmonic or formant applies to all others.

Authors
 * The speechbrain-cffma developers 2026
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.layers import zero_padding
from speechbrain_cffma.registry import lobe

#: Frequencies that the first convolution merges into one band.
STRIDE = 4
#: Channels of each band that come from the mask estimator's hidden features.
HIDDEN_CHANNELS = 8
#: Channels at full resolution in frequency.
FULL_CHANNELS = 16
#: Width of a residual block's inner layer, as a multiple of its channels.
EXPANSION = 2
#: Exponent that compresses magnitudes, similar to loudness.
COMPRESSION = 0.3


class ResidualBlock(nn.Module):
    """A depthwise convolution over time and frequency, then two linear layers over channels.

    A ConvNeXt block (https://arxiv.org/abs/2201.03545, Fig. 4) with 3x3 filters. Its
    normalisation is over the channels alone, so neither padding nor batch size changes the
    result.

    Arguments
    ---------
    channels : int
        Channels C.

    Example
    -------
    >>> ResidualBlock(4)(torch.rand(2, 4, 10, 7)).shape
    torch.Size([2, 4, 10, 7])
    """

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, EXPANSION * channels)
        self.reduce = nn.Linear(EXPANSION * channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve, and add the result to the input.

        Arguments
        ---------
        x : torch.Tensor
            Features [B, C, T, F], 0 in the padding.
        mask : torch.Tensor or None
            True at valid frames [B, 1, T, 1]; None: there is no padding.

        Returns
        -------
        torch.Tensor
            Features [B, C, T, F], 0 in the padding.
        """
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.reduce(F.relu(self.expand(y))).permute(0, 3, 1, 2)
        return x + zero_padding(y, mask)


@lobe
class Refiner(nn.Module):
    """Refines magnitude and phase of a masked spectrum by filters over neighbouring frames.

    A U-Net of residual blocks takes the noisy spectrum, the masked spectrum and the
    hidden features of the mask estimator. For each time and frequency it predicts a
    complex filter of `n_taps` frames, as deep filtering does
    (https://arxiv.org/abs/2110.05588, Eq. 1). The filtered spectrum is added to the masked
    one. A new refiner changes nothing: its last layer is initialised with zeros.

    Arguments
    ---------
    n_freqs : int
        Frequencies F of the spectrum.
    hidden_dim : int
        Channels D of the hidden features.
    channels : sequence of int
        Channels of each level; a level has half as many bands and half as many frames as
        the level above it.
    depths : sequence of int
        Number of residual blocks in each level of the encoder. The decoder has one block
        for each level.
    n_taps : int
        Length of the filter in frames (odd, so that it is centred).

    Raises
    ------
    InputError
        If channels and depths are empty or not equally many, or if n_taps is even.

    Example
    -------
    >>> refiner = Refiner(n_freqs=201, hidden_dim=16, channels=(8, 12), depths=(1, 2))
    >>> noisy, masked = torch.randn(2, 2, 50, 201, 2)
    >>> refined = refiner(noisy, masked, torch.randn(2, 50, 16))
    >>> torch.equal(refined, masked)
    True
    """

    def __init__(
        self,
        n_freqs: int = 201,
        hidden_dim: int = 512,
        channels: Sequence[int] = (32, 64, 96),
        depths: Sequence[int] = (2, 3, 4),
        n_taps: int = 5,
    ):
        super().__init__()
        if not channels or len(channels) != len(depths) or n_taps % 2 == 0:
            raise InputError(
                "Refiner needs equally many channels and depths, at least one, and an odd "
                f"n_taps, not {channels}, {depths} and {n_taps}"
            )
        self.n_freqs = n_freqs
        self.hidden_dim = hidden_dim
        self.channels = tuple(channels)
        self.depths = tuple(depths)
        self.n_taps = n_taps

        n_bands = -(-n_freqs // STRIDE)
        first = channels[0]
        self.full = nn.Conv2d(5, FULL_CHANNELS, 3, padding=1)
        self.bands = nn.Conv2d(5, first, (3, 7), stride=(1, STRIDE), padding=(1, 3))
        self.hidden = nn.Linear(hidden_dim, HIDDEN_CHANNELS * n_bands)
        self.join = nn.Conv2d(first + HIDDEN_CHANNELS, first, 1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(ResidualBlock(c) for _ in range(n))
            for c, n in zip(channels, depths, strict=True)
        )
        steps = list(zip(channels[:-1], channels[1:], strict=True))
        self.down = nn.ModuleList(
            nn.Conv2d(upper, lower, 3, stride=2, padding=1) for upper, lower in steps
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(lower, upper, 4, stride=2, padding=1)
            for upper, lower in steps
        )
        self.decoder = nn.ModuleList(ResidualBlock(upper) for upper, _ in steps)
        self.spread = nn.ConvTranspose2d(
            first, FULL_CHANNELS, (1, 2 * STRIDE), (1, STRIDE), (0, STRIDE // 2)
        )
        self.filter = nn.Conv2d(FULL_CHANNELS, 2 * n_taps, 1)
        for weight in self.filter.parameters():
            nn.init.zeros_(weight)

    def forward(
        self, noisy: Tensor, masked: Tensor, hidden: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Refine a spectrum.

        Arguments
        ---------
        noisy : torch.Tensor
            Noisy spectrum, real and imaginary part [B, T, F, 2].
        masked : torch.Tensor
            Masked spectrum [B, T, F, 2].
        hidden : torch.Tensor
            Hidden features of the mask estimator [B, T, D].
        mask : torch.Tensor or None
            Mask from `frame_mask` [B, T, 1]; None: there is no padding.

        Returns
        -------
        torch.Tensor
            Refined spectrum [B, T, F, 2] with the dtype of `masked`.
        """
        if mask is not None:
            mask = mask.unsqueeze(1)  # [B, 1, T, 1]
            masked = zero_padding(masked, mask.transpose(1, 2))
        x = zero_padding(_features(noisy, masked), mask)
        x = x.to(self.filter.weight.dtype)
        y = self._unet(x, hidden, mask)
        y = F.relu(self.spread(y)[..., : self.n_freqs] + self.full(x))
        # The sum over the taps reads one tap after the other.
        taps = self.filter(y).to(masked.dtype).contiguous()
        return masked + _filtered(masked, taps)

    def _unet(self, x, hidden, mask):
        y = self.bands(x)
        n_bands = y.shape[3]
        hidden = self.hidden(hidden).unflatten(2, (HIDDEN_CHANNELS, n_bands))
        # The blocks are fastest with the channels last in memory, which `cat` undoes unless
        # they are the last dimension.
        y = torch.cat([y.permute(0, 2, 3, 1), hidden.transpose(2, 3)], dim=3)
        y = self.join(y.permute(0, 3, 1, 2))
        levels = []
        for level, blocks in enumerate(self.encoder):
            if level:
                y = self.down[level - 1](y)
                if mask is not None:
                    mask = mask[:, :, ::2]
            y = zero_padding(y, mask)
            for block in blocks:
                y = block(y, mask)
            levels.append((y, mask))
        for (upper, mask), up, block in zip(
            levels[-2::-1], self.up[::-1], self.decoder[::-1], strict=True
        ):
            y = up(y)[..., : upper.shape[2], : upper.shape[3]] + upper
            y = block(zero_padding(y, mask), mask)
        return y


def _features(noisy, masked):
    """Compressed noisy spectrum, both compressed magnitudes and the mask [B, 5, T, F]."""
    # The constant keeps the gradient finite: the slope of the root is infinite at 0.
    magnitude = (noisy.square().sum(3) + 1e-12).sqrt()
    masked = (masked.square().sum(3) + 1e-12).sqrt()
    scale = (magnitude + 1e-4) ** (COMPRESSION - 1)
    features = [
        *(noisy * scale.unsqueeze(3)).unbind(3),
        magnitude * scale,
        (masked + 1e-4) ** COMPRESSION,
        masked / magnitude,
    ]
    return torch.stack(features, dim=1).contiguous(memory_format=torch.channels_last)


def _filtered(spectrum, taps):
    """Filter a spectrum [B, T, F, 2] over time by complex taps [B, 2 K, T, F]."""
    real, imag = taps.chunk(2, dim=1)
    n_taps, n_frames = real.shape[1], spectrum.shape[1]
    padded = F.pad(spectrum, (0, 0, 0, 0, n_taps // 2, n_taps // 2))
    total_real = total_imag = 0
    for k in range(n_taps):
        x, y = padded[:, k : k + n_frames].unbind(3)
        total_real = total_real + real[:, k] * x - imag[:, k] * y
        total_imag = total_imag + real[:, k] * y + imag[:, k] * x
    return torch.stack([total_real, total_imag], dim=3)
