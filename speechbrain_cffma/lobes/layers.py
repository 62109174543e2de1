"""Common parts of the lobes: initialisation, checks, padding masks and layers.

Authors
 * The speechbrain-cffma developers 2026
"""

import functools
import sys
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from speechbrain_cffma.errors import InputError

#: A number of samples or frames: an int for one signal, a tensor for a batch.
Count = TypeVar("Count", int, Tensor)


def xavier(layer):
    """Initialise a layer as BSS-CFFMA does: Xavier-normal weights, zero bias.

    Arguments
    ---------
    layer : torch.nn.Linear or torch.nn.Conv1d
        The layer to initialise in place.

    Returns
    -------
    torch.nn.Module
        The same layer.

    Example
    -------
    >>> xavier(nn.Linear(4, 2)).bias.tolist()
    [0.0, 0.0]
    """
    # A meta layer has no memory yet: its weights will be loaded.
    if not layer.weight.is_meta:
        nn.init.xavier_normal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layer


def check_features(fusion, log_magnitude, embedding):
    """Check that features have the shapes that a fusion expects.

    Arguments
    ---------
    fusion : torch.nn.Module
        A fusion with the attributes n_freqs and ssl_dim.
    log_magnitude : torch.Tensor
        Log-magnitude spectrogram, expected to be [B, T, n_freqs].
    embedding : torch.Tensor
        SSL embedding, expected to be [B, T, ssl_dim].

    Raises
    ------
    InputError
        If the channels or frames of the two do not fit.

    Example
    -------
    >>> from speechbrain_cffma.lobes import MSCFF
    >>> check_features(MSCFF(201, 32, 64), torch.rand(1, 9, 201), torch.rand(1, 9, 32))
    """
    expected = (*log_magnitude.shape[:2], fusion.n_freqs, fusion.ssl_dim)
    found = (*embedding.shape[:2], log_magnitude.shape[2], embedding.shape[2])
    if expected != found:
        raise InputError(
            f"{type(fusion).__name__}(n_freqs={fusion.n_freqs}, ssl_dim={fusion.ssl_dim}) "
            f"got a spectrogram of shape {tuple(log_magnitude.shape)} and an embedding of "
            f"shape {tuple(embedding.shape)}: they must be [B, T, n_freqs] and "
            "[B, T, ssl_dim]"
        )


def n_valid_samples(lengths, n_samples):
    """Number of samples of each utterance in a padded batch.

    Arguments
    ---------
    lengths : torch.Tensor
        Relative lengths [B], 1.0 = all samples.
    n_samples : int
        Number of samples S of the padded batch.

    Returns
    -------
    torch.Tensor
        Number of samples [B], int64.

    Example
    -------
    >>> n_valid_samples(torch.tensor([1.0, 0.5]), 16000).tolist()
    [16000, 8000]
    """
    # Half precision can't represent such large numbers.
    lengths = lengths.to(statistics_dtype(lengths.dtype))
    return (lengths * n_samples).round().long()


def frame_mask(lengths, n_frames):
    """Mark which frames are valid and which are padding.

    Arguments
    ---------
    lengths : torch.Tensor or None
        Relative lengths [B], 1.0 = all frames. None: there is no padding.
    n_frames : int
        Number of frames T.

    Returns
    -------
    torch.Tensor or None
        Boolean mask [B, T, 1], True at valid frames (at least one in each utterance);
        None if lengths is None.

    Example
    -------
    >>> frame_mask(torch.tensor([1.0, 0.5]), 4).squeeze(-1).int().tolist()
    [[1, 1, 1, 1], [1, 1, 0, 0]]
    """
    if lengths is None:
        return None
    n_valid = n_valid_samples(lengths, n_frames).clamp(min=1).unsqueeze(1)
    frames = torch.arange(n_frames, device=lengths.device)
    return (frames < n_valid).unsqueeze(-1)


def zero_padding(x, mask):
    """Set padded frames to zero.

    Arguments
    ---------
    x : torch.Tensor
        Features [B, T, C].
    mask : torch.Tensor or None
        Mask from `frame_mask`.

    Returns
    -------
    torch.Tensor
        Features [B, T, C].

    Example
    -------
    >>> x = torch.ones(1, 4, 1)
    >>> zero_padding(x, frame_mask(torch.tensor([0.5]), 4)).flatten().tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    return x if mask is None else x.masked_fill(~mask, 0.0)


def mean_over_time(x, mask=None):
    """Mean over the valid frames.

    Arguments
    ---------
    x : torch.Tensor
        Features [B, T, C].
    mask : torch.Tensor or None
        Mask from `frame_mask`.

    Returns
    -------
    torch.Tensor
        [B, 1, C]

    Example
    -------
    >>> x = torch.tensor([[[1.0], [3.0], [100.0], [100.0]]])
    >>> mean_over_time(x, frame_mask(torch.tensor([0.5]), 4)).item()
    2.0
    """
    if mask is None:
        return x.mean(dim=1, keepdim=True)
    # The sum over many frames can exceed the range of float16.
    wide = statistics_dtype(x.dtype)
    total = zero_padding(x, mask).sum(dim=1, keepdim=True, dtype=wide)
    return (total / mask.sum(dim=1, keepdim=True)).to(x.dtype)


def statistics_dtype(dtype):
    """The dtype for sums over many values: at least float32.

    Arguments
    ---------
    dtype : torch.dtype
        Dtype of the values.

    Returns
    -------
    torch.dtype
        float64 for float64, float32 for all others.

    Example
    -------
    >>> statistics_dtype(torch.float16), statistics_dtype(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


def without_autocast(x):
    """Switch autocast off for the device of a tensor.

    Arguments
    ---------
    x : torch.Tensor
        A tensor on the device.

    Returns
    -------
    context manager
        `torch.autocast(enabled=False)`, or an empty context if the device has no autocast.

    Example
    -------
    >>> with torch.autocast("cpu", torch.bfloat16), without_autocast(torch.ones(1)):
    ...     nn.Linear(1, 1)(torch.ones(1)).dtype
    torch.float32
    """
    device_type = x.device.type
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def never_compiled(function):
    """Keep `torch.compile` from compiling a function (a decorator).

    As `torch.compiler.disable`, which imports the compiler at once: this takes as long as
    enhancing a short recording.

    Arguments
    ---------
    function : callable
        The function.

    Returns
    -------
    callable
        A function that calls it.

    Example
    -------
    >>> @never_compiled
    ... def is_compiled():
    ...     return torch.compiler.is_compiling()
    >>> torch.compile(lambda: is_compiled(), backend="eager")()
    False
    """
    disabled = None

    @functools.wraps(function)
    def call(*args, **kwargs):
        nonlocal disabled
        if disabled is None:
            if "torch._dynamo" not in sys.modules:  # so nothing is compiled
                return function(*args, **kwargs)
            disabled = torch.compiler.disable(function)
        return disabled(*args, **kwargs)

    return call


def standardise(x, mask=None, eps=1e-5):
    """Subtract the mean over all channels and valid frames, and divide by their standard
    deviation.

    Arguments
    ---------
    x : torch.Tensor
        Features [B, T, C].
    mask : torch.Tensor or None
        Mask from `frame_mask`.
    eps : float
        Added to the variance.

    Returns
    -------
    torch.Tensor
        Features [B, T, C], in float32 at least; padded frames hold no meaningful value.

    Example
    -------
    >>> x = 5 + torch.randn(2, 10, 8)
    >>> y = standardise(x)
    >>> torch.allclose(y, nn.functional.layer_norm(x, (10, 8)), atol=1e-5)
    True
    """
    x = x.to(statistics_dtype(x.dtype))
    mean = mean_over_time(x, mask).mean(dim=2, keepdim=True)
    variance = mean_over_time((x - mean) ** 2, mask).mean(dim=2, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps)


class TimeConv1d(nn.Conv1d):
    """A 1-D convolution over time for [B, T, C], zero-padded to keep the length.

    Arguments
    ---------
    in_channels : int
        Number of input channels.
    out_channels : int
        Number of output channels.
    kernel_size : int
        Length of the kernel in frames (odd, so that it is centred).
    dilation : int
        Distance between the kernel's taps in frames.
    bias : bool
        Whether to add a bias.

    Example
    -------
    >>> TimeConv1d(8, 4, kernel_size=3)(torch.rand(2, 10, 8)).shape
    torch.Size([2, 10, 4])
    """

    def __init__(self, in_channels, out_channels, kernel_size, dilation=1, bias=True):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            padding="same",
            dilation=dilation,
            bias=bias,
        )
        xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, T, in_channels] to [B, T, out_channels]."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class GlobalLayerNorm(nn.Module):
    """Normalisation over channels and valid frames, with a scale and a bias for each channel.

    Without padding it equals `torch.nn.GroupNorm(1, channels)`
    (gLN of Conv-TasNet, https://arxiv.org/abs/1809.07454, Eq. 10).

    Arguments
    ---------
    channels : int
        Number of channels C.
    eps : float
        Added to the variance.

    Example
    -------
    >>> x = 5 + torch.randn(2, 10, 8)
    >>> y = GlobalLayerNorm(8)(x)
    >>> torch.allclose(y, nn.GroupNorm(1, 8)(x.transpose(1, 2)).transpose(1, 2), atol=1e-5)
    True
    """

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise each utterance.

        Arguments
        ---------
        x : torch.Tensor
            Features [B, T, C].
        mask : torch.Tensor or None
            Mask from `frame_mask`.

        Returns
        -------
        torch.Tensor
            Features [B, T, C]; padded frames hold no meaningful value.
        """
        normalised = standardise(x, mask, self.eps) * self.weight + self.bias
        return normalised.to(self.weight.dtype)
