"""The device and the precision of inference.

Authors
 * The speechbrain-cffma developers 2026
"""

from contextlib import contextmanager

import torch

from speechbrain_cffma.errors import InputError, one_line


def device_named(name: str) -> torch.device:
    """Return the device of a name, and check that it works.

    Arguments
    ---------
    name : str
        A device, such as "cpu" or "cuda:1"; "auto" uses a GPU if there is one.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    InputError
        If the device does not exist or does not work.

    Example
    -------
    >>> device_named("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).item()  # fails on "meta"
    # Torch raises various types for unknown, missing and broken devices.
    except Exception as error:
        raise InputError(
            f"can't run on the device {name!r}: try --device cpu [{one_line(error)}]"
        ) from error
    return torch.device(name)


#: The precisions of packed weights; "auto" chooses one of them.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def has_bf16(device):
    """Whether a device computes in bfloat16 natively, rather than emulating it.

    Arguments
    ---------
    device : torch.device
        Any device.

    Returns
    -------
    bool
        For a CPU, whether it has the AVX-512 or AMX instructions for bfloat16.

    Example
    -------
    >>> has_bf16(torch.device("meta"))
    False
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False  # unknown before torch 2.11
    features = torch.cpu.get_capabilities()
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16"))


def native_precision(device):
    """The fastest precision that a device computes in by itself.

    Arguments
    ---------
    device : torch.device
        Any device.

    Returns
    -------
    str
        "bf16" or "fp32".

    Example
    -------
    >>> native_precision(torch.device("meta"))
    'fp32'
    """
    return "bf16" if has_bf16(device) else "fp32"


def device_of(model):
    """Return the device of a model.

    Arguments
    ---------
    model : torch.nn.Module
        The model.

    Returns
    -------
    torch.device
        The device of its first parameter.

    Example
    -------
    >>> device_of(torch.nn.Linear(1, 1))
    device(type='cpu')
    """
    return next(model.parameters()).device


@contextmanager
def for_inference(model):
    """Run a model in eval mode, without gradients, in the precision that it is packed in.

    Arguments
    ---------
    model : InferenceMixin
        The enhancer. Afterwards each module is put back into its previous mode.

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
