"""A pretended GPU for tests: fake tensors have a device, a dtype and strides but no data."""

import contextlib
import heapq
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
#: The host waits for the results of these operations, or for the sizes of the results.
READING = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


@contextlib.contextmanager
def pretended():
    """Use fake tensors, and replace the functions of PyTorch that need a real device.

    Yields
    ------
    list
        The biases of all attentions; each has been checked.
    """
    attention, biases = F.scaled_dot_product_attention, []

    def checked(query, key, value, attn_mask=None, *args, **options):
        check_bias(query, attn_mask)
        biases.append(attn_mask)
        return attention(query, key, value, attn_mask, *args, **options)

    with (
        mock.patch.object(F, "scaled_dot_product_attention", checked),
        mock.patch(
            "torch.cuda.amp.common.amp_definitely_not_available", return_value=False
        ),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch("torch.cuda.set_device"),
        mock.patch("torch.Tensor.backward", backward),
        FakeTensorMode(),
    ):
        yield biases


def pretend(module):
    """Put a module that was made outside `pretended` onto the pretended device."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                if isinstance(tensor, torch.nn.Parameter):
                    fake = torch.nn.Parameter(fake, tensor.requires_grad)
                tensors[name] = fake
    return module


def check_bias(query, bias):
    """Refuse a bias that is not aligned for fused kernels.

    The kernels read 16 bytes at a time, row by row: see `attn_bias_ptr` in PyTorch's
    kernel_forward.h. PyTorch copies a bias whose strides don't fit, but only for the
    memory-efficient kernel, and without checking its first element (`preprocess_mask` in
    attention.cpp).
    """
    if bias is None or bias.dtype == torch.bool:
        return  # PyTorch makes a new bias from it
    assert bias.device == query.device
    if bias.dtype != query.dtype:
        return  # autocast copies it
    first_byte = bias.storage_offset() * bias.element_size()
    assert first_byte % 16 == 0, f"{tuple(bias.shape)} begins at byte {first_byte}"
    assert bias.stride(-1) == 1, bias.stride()


@torch.no_grad()
def backward(loss, *args, **options):
    """`loss.backward()` without PyTorch's engine, which would ask the driver for streams.

    It calls the same nodes in the same order.
    """
    waiting = {loss.grad_fn: {0: torch.ones_like(loss)}}
    queue = [(*rank(loss.grad_fn), loss.grad_fn)]
    while queue:
        *_, node = heapq.heappop(queue)
        gradients = waiting.pop(node)
        if hasattr(node, "variable"):
            leaf, gradient = node.variable, gradients[0]
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
            continue
        outs = node(*(gradients.get(i) for i in range(len(node._input_metadata))))
        outs = outs if isinstance(outs, tuple) else (outs,)
        for out, (following, index) in zip(outs, node.next_functions, strict=True):
            if following is None or out is None:
                continue
            out = like(out, following._input_metadata[index])
            if following not in waiting:
                waiting[following] = {}
                heapq.heappush(queue, (*rank(following), following))
            sums = waiting[following]
            sums[index] = sums[index] + out if index in sums else out


def rank(node):
    """Sort key of nodes: leaves come last, other nodes in reverse order of computation."""
    return hasattr(node, "variable"), -node._sequence_nr(), id(node)


def like(gradient, expected):
    """Convert a gradient to the expected dtype, and to the shape before broadcasting."""
    if gradient.shape != (shape := tuple(expected.shape)):
        gradient = gradient.sum_to_size(shape)
    if gradient.dtype != expected.dtype:
        gradient = gradient.to(expected.dtype)
    return gradient


class NoWaiting(TorchDispatchMode):
    """Refuses operations that make the host wait for the device.

    Arguments
    ---------
    host_has_tensors : bool
        Whether the host may make tensors other than single numbers.
    """

    def __init__(self, host_has_tensors=False):
        super().__init__()
        self.host_has_tensors = host_has_tensors

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ins = tensors_in((args, kwargs))
        on_device = any(map(is_on_device, ins))
        assert not (on_device and function in READING), function
        assert not (function in INDEXING and selects(args)), function
        out = function(*args, **kwargs)
        outs = tensors_in(out)
        if on_device:
            hosted = [x for x in ins if not is_on_device(x) and x.dim()]
            assert all(map(is_on_device, outs)), f"{function} copies to the host"
            assert not hosted, f"{function} copies to the device"
        elif any(map(is_on_device, outs)) and ins:
            assert kwargs.get("non_blocking"), f"{function} copies and waits"
        else:
            made = [x for x in outs if not is_on_device(x) and x.dim()]
            assert self.host_has_tensors or not made, f"{function} on the host"
        return out


def selects(args):
    """Whether an index is a boolean mask, whose true values the host must count."""
    _, indices, *values = args
    if not any(i is not None and i.dtype == torch.bool for i in indices):
        return False
    # Filling in a single number needs no count.
    return not (values and values[0].dim() == 0)


def tensors_in(tree):
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def is_on_device(tensor):
    return tensor.device.type != "cpu"
