"""Checks of downloaded files before a model is built: JSON, headers and single values.

A value must have the type of its default. Ranges are in a table here.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
import re

from speechbrain_cffma.errors import InputError, one_line, quoted

#: Limits: a model's config.json has about 10 kB, the header of its weights 100 kB.
MAX_CONFIG_BYTES = 64 << 10
MAX_HEADER_BYTES = 1 << 20
MAX_NUMBER = 1 << 20
MAX_ITEMS = 100
#: I64 is the type of a batch norm's counter.
WEIGHT_TYPES = ("F16", "BF16", "F32", "F64", "I64")

#: Minimum and maximum by the name of the key; other keys have 1 and MAX_NUMBER.
RANGES = (
    (r"level", (-200, 200)),
    (r"suppression", (0, 200)),
    (r"share|.*(dropout|layerdrop|_prob)", (0, 1)),
    (r"dilations?", (1, 1024)),
    (r"hop_length", (16, 1 << 16)),
    (r"n_fft|win_length", (1, 1 << 16)),
    (r"depths", (1, 16)),
    (r"n_taps", (1, 99)),
    (r"n_blocks|n_layers|num_.*_layers", (1, 100)),
    (r"layer_norm_eps", (1e-12, 1)),
    (r"initializer_range|mask_.*_min_masks", (0, MAX_NUMBER)),
)

#: For each key that gives a number of parts: how the names of their tensors begin.
PARTS = {
    "n_blocks": r"blocks\.(\d+)\.",
    "blocks": r"blocks\.(\d+)\.",
    "sub_blocks": r"sub_blocks\.(\d+)\.",
    "depths": r"encoder\.(\d+)\.\d+\.norm",
    "n_layers": r"layers\.(?:weight_ih_l)?(\d+)",
    "num_hidden_layers": r"encoder\.layers\.(\d+)\.",
    "num_adapter_layers": r"adapter\.layers\.(\d+)\.",
    "conv_dim": r"feature_extractor\.conv_layers\.(\d+)\.",
}


def read_json(path, max_bytes=MAX_CONFIG_BYTES):
    """Read a configuration. Large files, duplicate keys and non-mappings are refused.

    Arguments
    ---------
    path : Path
        The file.
    max_bytes : int
        Maximum size; larger files are refused.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    InputError
        If the file can't be read or is not a configuration.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ValueError(f"it is larger than {max_bytes >> 10} KiB")
        config = json.loads(content, object_pairs_hook=_without_duplicates)
        if not isinstance(config, dict):
            raise TypeError("it is not a JSON object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path.name} is not a model's configuration [{one_line(error)}]"
        ) from error
    return config


def _without_duplicates(pairs):
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {quoted(twice)} occurs twice")
    return mapping


def read_header(path):
    """Read the shapes of the tensors in a safetensors file, but not their values.

    Arguments
    ---------
    path : Path
        The file.

    Returns
    -------
    dict
        Shape (tuple) by name.

    Raises
    ------
    InputError
        If the file is missing or damaged, or holds types other than `WEIGHT_TYPES`.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path.name} is missing")
    try:
        with open(path, "rb") as file:
            if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
                raise ValueError(f"its header exceeds {MAX_HEADER_BYTES >> 10} KiB")
        with safe_open(path, "pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            types = {key: part.get_dtype() for key, part in slices.items()}
            shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{path.name} is truncated or altered [{one_line(error)}]"
        ) from error
    for key, kind in types.items():
        if kind not in WEIGHT_TYPES:
            raise InputError(
                f"{path.name}: {quoted(key)} has type {kind}: it must be one of "
                f"{', '.join(WEIGHT_TYPES)}"
            )
    return shapes


def check_value(key, value, default):
    """Check that a value has the type of its default and is in range.

    Arguments
    ---------
    key : str
        The value's full path.
    value : bool or int or float or str or list or dict or None
        The value in the configuration.
    default : bool or int or float or str or tuple or None
        The default, which gives the type. None stands for an optional number.

    Raises
    ------
    InputError
        If the type or the range is wrong.

    Example
    -------
    >>> check_value("model.fusion.kernel_sizes", [3, 5, "7"], (3, 5, 7))
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: model.fusion.kernel_sizes.2 is '7': it must be a whole number
    >>> check_value("model.mask_estimator.dropout", 7, 0.1)
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: model.mask_estimator.dropout is 7: it must be from 0 to 1
    """
    if default is None and value is None:
        return
    kind, said = {
        bool: (bool, "true or false"),
        int: (int, "a whole number"),
        str: (str, "text"),
        tuple: (list, "a list"),
    }.get(type(default), ((int, float), "a number"))
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise InputError(f"{key} is {quoted(value)}: it must be {said}")
    if kind is list:
        if not 1 <= len(value) <= MAX_ITEMS:
            raise InputError(
                f"{key} has {len(value)} values: it must have 1 to {MAX_ITEMS}"
            )
        for index, item in enumerate(value):
            check_value(f"{key}.{index}", item, default[0])
    elif said.endswith("number"):
        name = re.search(r"([^.]*)(\.\d+)?$", key)[1]
        bounds = (pair for names, pair in RANGES if re.fullmatch(names, name))
        low, high = next(bounds, (1, MAX_NUMBER))
        if not low <= value <= high:
            raise InputError(
                f"{key} is {quoted(value)}: it must be from {low} to {high}"
            )


def check_count(key, number, shapes):
    """Compare a configured number of blocks or layers with the tensors of the weights.

    Arguments
    ---------
    key : str
        The full path of the key that gives the number.
    number : int
        The configured number.
    shapes : dict or None
        The shapes that `read_header` returns; None if there are no weights.

    Raises
    ------
    InputError
        If the weights have another number of parts.

    Example
    -------
    >>> check_count("model.n_blocks", 2, {"blocks.0.norm.weight": (8,)})
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: model.n_blocks is 2, but the weights are of another architecture: they have 1
    """
    if shapes is None:
        return
    path, _, name = key.rpartition(".")
    place = re.sub(r"^model\.?", "", re.sub(r"\.config$", ".model", path))
    place = f"{place}." if place else ""
    names = [n[len(place) :] for n in shapes if n.startswith(place)]
    found = [re.search(rf"(?:^|\.){PARTS[name]}", n) for n in names]
    held = len({match[1] for match in found if match})
    if number != held:
        raise InputError(
            f"{key} is {number}, but the weights are of another architecture: "
            f"they have {held}"
        )


def check_shapes(shapes, model, optional=()):
    """Compare the tensors of a file with those of a model.

    Arguments
    ---------
    shapes : dict
        The shapes that `read_header` returns.
    model : torch.nn.Module
        The model.
    optional : sequence of str
        Tensors that may be missing.

    Raises
    ------
    InputError
        If a tensor is missing, unknown or has another shape.

    Example
    -------
    >>> import torch
    >>> check_shapes({"weight": (8, 4)}, torch.nn.Linear(4, 4, bias=False))
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: the weights are of another architecture: weight has shape (8, 4) instead of (4, 4)
    """
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    present = {*shapes, *optional}
    faults = [f"{k} is missing" for k in expected if k not in present]
    faults += [f"{quoted(key)} is unknown" for key in shapes if key not in expected]
    faults += [
        f"{key} has shape {shapes[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    ]
    if faults:
        more = f", and {len(faults) - 1} more" if faults[1:] else ""
        raise InputError(f"the weights are of another architecture: {faults[0]}{more}")
