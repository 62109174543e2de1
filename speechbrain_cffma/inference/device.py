"""Where a model computes, and in which precision.

Authors
 * The speechbrain-cffma developers 2026
"""

from contextlib import contextmanager

import torch

from speechbrain_cffma.errors import InputError, one_line


def device_named(name: str) -> torch.device:
    """The device to run on.

    Arguments
    ---------
    name : str
        Such as "cpu" or "cuda:1"; "auto" takes a GPU if there is one.

    Returns
    -------
    torch.device
        A device that works.

    Raises
    ------
    InputError
        If there is no such device.

    Example
    -------
    >>> device_named("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()  # "meta" has no values
    # Torch raises various types for unknown, absent and broken devices.
    except Exception as error:
        raise InputError(
            f"there is no device {name!r} to run on, try --device cpu [{one_line(error)}]"
        ) from error
    return torch.device(name)


#: What a network can be packed in, beside "auto".
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def has_bf16(device):
    """Whether a device computes in bfloat16, rather than through float32.

    Arguments
    ---------
    device : torch.device
        A CPU, a GPU or another.

    Returns
    -------
    bool
        On the CPU, whether it has the instructions of AVX-512 or AMX for it.

    Example
    -------
    >>> has_bf16(torch.device("meta"))
    False
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is of the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False  # torch before 2.11 does not tell
    features = torch.cpu.get_capabilities()
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16"))


def device_of(model):
    """The device that a model's parameters are on.

    Arguments
    ---------
    model : torch.nn.Module
        The model.

    Returns
    -------
    torch.device
        Of its first parameter.

    Example
    -------
    >>> device_of(torch.nn.Linear(1, 1))
    device(type='cpu')
    """
    return next(model.parameters()).device


@contextmanager
def for_inference(model):
    """Call a model as `enhance` does: in eval mode, without gradients, as it is packed.

    Arguments
    ---------
    model : InferenceMixin
        The enhancer. Afterwards each module has its own mode again.

    Yields
    ------
    None

    Example
    -------
    >>> enhancer = getfixture("tiny_enhancer").train()
    >>> with for_inference(enhancer):
    ...     enhancer.training
    False
    >>> enhancer.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    is_mixed = model.packed == "bf16"
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device_of(model).type, torch.bfloat16, is_mixed),
        ):
            yield
    finally:
        for module, training in modes:
            module.training = training
