"""Parameters and multiply-adds of a network.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_cffma.audio import SAMPLE_RATE


def count_parameters(enhancer):
    """Count the parameters of an enhancer.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The enhancer, or any module whose `embedding` has `ssl_parameters`.

    Returns
    -------
    dict
        Number of parameters: head (all except the SSL model), all, and trainable.

    Example
    -------
    >>> from speechbrain_cffma.lobes import CFFMA, CFFMAEnhancer, LogSpectrogram
    >>> from speechbrain_cffma.lobes import SSLEmbedding
    >>> embedding = SSLEmbedding(getfixture("tiny_wavlm"), fine_tune="frozen")
    >>> enhancer = CFFMAEnhancer(embedding, LogSpectrogram(), CFFMA(ssl_dim=32))
    >>> count = count_parameters(enhancer)
    >>> count["trainable"] == count["head"] < count["all"]
    True
    """
    ssl = sum(p.numel() for p in enhancer.embedding.ssl_parameters())
    n_all = sum(p.numel() for p in enhancer.parameters())
    trainable = sum(p.numel() for p in enhancer.parameters() if p.requires_grad)
    return {"head": n_all - ssl, "all": n_all, "trainable": trainable}


def multiply_adds(module, *inputs):
    """Count the multiply-adds of a call on the CPU.

    Matrix products, convolutions, attention and LSTMs are counted. Element-wise
    operations, norms and Fourier transforms are not, since they add little.

    Arguments
    ---------
    module : torch.nn.Module
        A module in eval mode.
    *inputs : torch.Tensor
        The arguments of the call.

    Returns
    -------
    int
        Number of multiply-adds.

    Example
    -------
    >>> multiply_adds(torch.nn.Linear(8, 4), torch.rand(10, 8))
    320
    """
    # With gradients and plain attention, torch calls no fused operations, which its
    # counter does not know.
    with (
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(
            display=False, custom_mapping={torch.ops.aten.mkldnn_rnn_layer: _lstm_flop}
        ) as counter,
    ):
        module(*inputs)
    return counter.get_total_flops() // 2


def multiply_adds_per_audio(enhancer, seconds=10):
    """Count the multiply-adds that enhancing one recording takes.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The enhancer, in eval mode, on the CPU.
    seconds : float
        Length of the recording. The cost of attention grows with its square.

    Returns
    -------
    int
        Number of multiply-adds.

    Example
    -------
    >>> from speechbrain_cffma.lobes import CFFMA, CFFMAEnhancer, LogSpectrogram
    >>> from speechbrain_cffma.lobes import SSLEmbedding
    >>> embedding = SSLEmbedding(getfixture("tiny_wavlm"))
    >>> enhancer = CFFMAEnhancer(embedding, LogSpectrogram(), CFFMA(ssl_dim=32)).eval()
    >>> multiply_adds_per_audio(enhancer, 1) > multiply_adds(
    ...     enhancer.mask_estimator, torch.rand(1, 101, 201), torch.rand(1, 101, 32)
    ... )
    True
    """
    return multiply_adds(enhancer, torch.zeros(1, round(seconds * SAMPLE_RATE)))


def _lstm_flop(x_shape, input_weights_shape, hidden_weights_shape, *_, **__):
    """Operations of one layer and direction; torch's counter has no formula for LSTMs."""
    frames = math.prod(x_shape[:2])
    weights = math.prod(input_weights_shape) + math.prod(hidden_weights_shape)
    return 2 * frames * weights
