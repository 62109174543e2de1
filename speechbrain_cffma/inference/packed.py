"""Weights prepared for fast inference, in the layout that the CPU's kernels read.

Authors
 * The speechbrain-cffma developers 2026
"""

import torch
from torch import nn

from speechbrain_cffma.errors import InputError

#: Modules that read their layers' weights directly, rather than calling the layers.
OPAQUE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


class PackedLinear(nn.Module):
    """A linear layer whose weight is stored in oneDNN's own layout.

    A plain linear layer converts its weight to this layout at each call. A packed layer
    can't be trained, saved or moved.

    Arguments
    ---------
    linear : torch.nn.Linear
        The layer, on the CPU. Its type, float32 or bfloat16, is that of the product.

    Example
    -------
    >>> linear = nn.Linear(16, 4)
    >>> x = torch.randn(2, 10, 16)
    >>> torch.allclose(PackedLinear(linear)(x), linear(x), atol=1e-6)
    True
    """

    #: The layout is optimal for this many rows and works for any number.
    ROWS = 512

    def __init__(self, linear):
        super().__init__()
        weight = linear.weight.detach()
        self.dtype = weight.dtype
        self.bias = linear.bias
        self.packed_weight = torch.ops.mkldnn._reorder_linear_weight(weight, self.ROWS)

    def forward(self, x):
        """Multiply [..., in_features] to [..., out_features]."""
        return torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self.packed_weight, self.bias, "none", [], ""
        )

    def _refuse(self, *args, **kwargs):
        raise InputError(
            "a packed model can't be moved, copied or saved: do it before pack()"
        )

    _apply = _save_to_state_dict = _load_from_state_dict = _refuse
    __deepcopy__ = __reduce_ex__ = _refuse


def pack_weights(model, dtype):
    """Prepare a model's linear layers and convolutions for inference, in place.

    Arguments
    ---------
    model : torch.nn.Module
        The model. Its other parts become float32. After packing in bfloat16 it must be
        called under autocast.
    dtype : torch.dtype
        Type in which these layers are stored and computed.

    Example
    -------
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> x = torch.randn(3, 8)
    >>> before = model(x)
    >>> pack_weights(model, torch.float32)
    >>> torch.allclose(model(x), before, atol=1e-6)
    True
    """
    model.float().requires_grad_(False)
    for parent in [m for m in model.modules() if not isinstance(m, OPAQUE)]:
        for name, module in parent.named_children():
            if type(module) is nn.Linear:
                module.to(dtype)
                if can_pack(module.weight):
                    setattr(parent, name, PackedLinear(module))
            elif hasattr(module, "fixed"):  # a convolution with an inference form
                setattr(parent, name, module.fixed().to(dtype))
            elif isinstance(module, nn.Conv1d):
                module.to(dtype)
            elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.to(dtype, memory_format=torch.channels_last)


def can_pack(weight):
    """Whether oneDNN's layout can be used: on x86 CPUs, for bfloat16 only with AVX-512.

    Arguments
    ---------
    weight : torch.Tensor
        Weight of a linear layer.

    Returns
    -------
    bool
        Whether it can be packed.

    Example
    -------
    >>> can_pack(torch.empty(2, 2, device="meta"))
    False
    """
    is_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    if weight.device.type != "cpu" or not is_x86:
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.backends.mkldnn.is_available()
