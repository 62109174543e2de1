"""Check and load the weights of a model folder.

Authors
 * The speechbrain-cffma developers 2026
"""

import hashlib
import math
from contextlib import contextmanager
from pathlib import Path

from speechbrain_cffma import checks
from speechbrain_cffma.errors import InputError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
#: What to do if the configuration and the weights do not fit.
OF_ONE_MODEL = f"get {CONFIG_FILE} and {WEIGHTS_FILE} again, both from the same model"


@contextmanager
def without_values():
    """Build modules whose weights have shapes, but no memory and no values yet.

    They are on the meta device. `torch.nn.init` does nothing, for which torch would import
    its compiler there.

    Yields
    ------
    None

    Example
    -------
    >>> import torch
    >>> with without_values():
    ...     embedding = torch.nn.Embedding(10**6, 10**6)
    >>> embedding.weight.device
    device(type='meta')
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__module__", None) == "torch.nn.init":
                return kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    with torch.device("meta"), Unfilled():
        yield


def load_weights(model, path, sha256=None):
    """Load a safetensors file into a model. Every weight must be present and fit.

    Arguments
    ---------
    model : torch.nn.Module
        The model; its weights are replaced.
    path : str or Path
        The safetensors file. Half precision is converted to the model's precision.
    sha256 : str or None
        The checksum that the file must have; None for no check.

    Raises
    ------
    InputError
        If the file is missing, truncated, altered or of another architecture.

    Example
    -------
    >>> import torch
    >>> from safetensors.torch import save_file
    >>> path = getfixture("tmp_path") / "model.safetensors"
    >>> save_file({"weight": torch.ones(1, 1), "bias": torch.ones(1)}, path)
    >>> model = torch.nn.Linear(1, 1)
    >>> load_weights(model, path)
    >>> model.weight.item()
    1.0
    """
    from safetensors import safe_open

    path = Path(path)
    expected, loaded = model.state_dict(), {}
    try:
        checks.check_shapes(checks.read_header(path), model)
        if sha256 is not None and _sha256(path) != sha256:
            raise InputError(
                f"{path.name} is truncated or altered: its checksum differs from the one "
                f"in {CONFIG_FILE}"
            )
        with safe_open(path, "pt") as file:
            for key, value in expected.items():
                # A copy, since the tensor may be a memory map of the file.
                loaded[key] = file.get_tensor(key).to(value.dtype, copy=True)
                if not _is_finite(loaded[key]):
                    raise InputError(f"{key} holds NaN or infinity")
    except InputError as error:
        raise InputError(f"{path.parent}: {error}; {OF_ONE_MODEL}") from error
    is_meta = any(value.is_meta for value in expected.values())
    model.load_state_dict(loaded, assign=is_meta)


def _is_finite(values):
    """Whether no value is NaN or infinite. Needs no memory, unlike `torch.isfinite`."""
    return values.numel() == 0 or all(map(math.isfinite, values.aminmax()))


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
