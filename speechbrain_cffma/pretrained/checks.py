"""What a model's configuration may say: types and ranges, and counts against its weights.

Types come from the lobes' defaults and from transformers' configuration classes; only
ranges that neither knows stand in a table here. Nothing is built before all is checked.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
import math
import re

from speechbrain_cffma.errors import InputError, one_line

#: More is no configuration or header of a model: they take kilobytes.
MAX_CONFIG_BYTES = 1 << 20
MAX_HEADER_BYTES = 10 << 20
MAX_DEPTH = 16
MAX_NUMBER = 1 << 24
#: I64 counts the batches of a batch norm.
WEIGHT_TYPES = ("F16", "BF16", "F32", "F64", "I64")

#: Least and largest value by the name of the key, where 1 to MAX_NUMBER is not it.
RANGES = (
    (r"level", (-200, 200)),
    (r"suppression", (0, 200)),
    (r"share|.*(dropout|layerdrop|_prob)", (0, 1)),
    (r"dilations", (1, 1024)),
    (r"n_fft|win_length|hop_length", (1, 1 << 16)),
    (r"layer_norm_eps", (1e-12, 1)),
    (r".*_token_id|mask_.*_min_masks", (-1, MAX_NUMBER)),
    (r"(initializer|diversity|contrastive)_.*", (0, MAX_NUMBER)),
)

#: What the tensors of the parts are called whose number a key gives.
PARTS = {
    "n_blocks": r"blocks\.(\d+)\.",
    "n_layers": r"layers\.(?:weight_ih_l)?(\d+)",
    "num_hidden_layers": r"encoder\.layers\.(\d+)\.",
    "conv_dim": r"feature_extractor\.conv_layers\.(\d+)\.",
}


def read_config(path):
    """Read config.json; what is too large, too deep or ambiguous is refused.

    Arguments
    ---------
    path : Path
        The file.

    Returns
    -------
    dict
        Its content; `model` is a mapping.

    Raises
    ------
    InputError
        If it is missing or something else.
    """
    if not path.is_file():
        raise InputError(f"{path.parent} is not a model folder: it has no {path.name}")
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise ValueError(f"it is larger than {MAX_CONFIG_BYTES >> 20} MiB")
        config = json.loads(path.read_bytes(), object_pairs_hook=_without_duplicates)
        if not isinstance(config["model"], dict):
            raise TypeError("'model' must be a mapping")
        sha256 = config.get("weights_sha256", "")
        if not isinstance(sha256, str):
            raise TypeError("'weights_sha256' must be text")
        _check_leaves(config, "")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not the configuration of a speechbrain-cffma model: get the "
            f"model's folder again [{one_line(error)}]"
        ) from error
    return config


def _without_duplicates(pairs):
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return mapping


def _check_leaves(value, key, depth=0):
    if depth > MAX_DEPTH:
        raise ValueError(f"{key[:80]} is nested too deeply")
    items = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    elif isinstance(value, (int, float)) and not abs(value) < 1 << 31:
        raise ValueError(f"{key} is not a finite number of a sensible size")
    for name, item in items:
        _check_leaves(item, f"{key}.{name}".lstrip("."), depth + 1)


def read_header(path):
    """Shapes of the tensors of a safetensors file, of which nothing else is read.

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
        If it is missing, damaged, or holds something else than floating-point numbers.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is missing: get the model's folder again")
    try:
        with open(path, "rb") as file:
            if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
                raise ValueError(f"its header exceeds {MAX_HEADER_BYTES >> 20} MiB")
        with safe_open(path, "pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            types = {key: part.get_dtype() for key, part in slices.items()}
            shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{path} is truncated or altered: get the model's folder again "
            f"[{one_line(error)}]"
        ) from error
    for key, kind in types.items():
        if kind not in WEIGHT_TYPES:
            raise InputError(
                f"{path}: {key} is of type {kind}; convert it to one of "
                f"{', '.join(WEIGHT_TYPES)}"
            )
    return shapes


def check_number(key, value):
    """Refuse a number outside of the range of its key.

    Arguments
    ---------
    key : str
        The key's whole path.
    value : int or float
        Its value.

    Raises
    ------
    InputError
        If it is outside, or not finite.

    Example
    -------
    >>> check_number("model.mask_estimator.dropout", 0.1)
    >>> check_number("model.mask_estimator.dropout", 7)
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: model.mask_estimator.dropout is 7: it must be 0 to 1
    """
    name = re.sub(r"\.\d+$", "", key).rpartition(".")[2]
    bounds = (low_high for names, low_high in RANGES if re.fullmatch(names, name))
    low, high = next(bounds, (1, MAX_NUMBER))
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{key} is {value}: it must be {low} to {high}")


def check_argument(key, value, default):
    """Refuse a lobe's argument that is of another type than its default, or out of range.

    Arguments
    ---------
    key : str
        The argument's whole path.
    value : bool or int or float or str or list or None
        What the configuration gives.
    default : bool or int or float or str or tuple or None
        The constructor's default; None stands for a number that may be left out.

    Raises
    ------
    InputError
        If it does not fit.

    Example
    -------
    >>> check_argument("model.fusion.kernel_sizes", [3, 5, "7"], (3, 5, 7))
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: model.fusion.kernel_sizes.2 is '7': it must be a whole number
    """
    if default is None and value is None:
        return
    if isinstance(default, tuple) and isinstance(value, list):
        for index, item in enumerate(value):
            check_argument(f"{key}.{index}", item, default[0])
        return
    kind, said = {
        bool: (bool, "true or false"),
        int: (int, "a whole number"),
        str: (str, "text"),
        tuple: (list, "a list"),
    }.get(type(default), ((int, float), "a number"))
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{key} is {_short(value)}: it must be {said}")
    if isinstance(value, (int, float)) and kind is not bool:
        check_number(key, value)


def check_count(key, number, shapes):
    """Compare a number of blocks or layers with the tensors of the file.

    Arguments
    ---------
    key : str
        The whole path of the key that gives the number.
    number : int
        How many parts there are to be.
    shapes : dict
        What `read_header` returns.

    Raises
    ------
    InputError
        If there are as many others.

    Example
    -------
    >>> check_count("model.n_blocks", 2, {"blocks.0.norm.weight": (8,)})
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: model.n_blocks asks for 2, and the weights are another architecture: they hold 1
    """
    path, _, name = key.rpartition(".")
    if name not in PARTS:
        return
    place = re.sub(r"^model\.?", "", re.sub(r"\.config$", ".model", path))
    names = [n[len(place) :] for n in shapes if n.startswith(place)]
    found = [re.search(rf"(?:^|\.){PARTS[name]}", n) for n in names]
    held = 1 + max((int(match[1]) for match in found if match), default=-1)
    if number != held:
        raise InputError(
            f"{key} asks for {number}, and the weights are another architecture: "
            f"they hold {held}"
        )


def ssl_configuration(key, config, shapes=None):
    """The configuration of an SSL model, of whose values each is checked.

    What all configurations of transformers have in common (labels, what a call
    returns) is no part of the architecture and stays at its default.

    Arguments
    ---------
    key : str
        The whole path of the mapping.
    config : dict
        The mapping, with `model_type`.
    shapes : dict or None
        What `read_header` returns.

    Returns
    -------
    transformers.PretrainedConfig
        The configuration.

    Raises
    ------
    InputError
        If a value does not fit.

    Example
    -------
    >>> ssl_configuration("ssl", {"model_type": "wavlm", "hidden_size": "8"})
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: ssl.hidden_size is '8': ...
    """
    from transformers import CONFIG_MAPPING

    from speechbrain_cffma.lobes.ssl import wrapper_class

    if not isinstance(config, dict):
        raise InputError(f"{key} is {_short(config)}: it must be a mapping")
    model_type = config.get("model_type")
    try:
        wrapper_class(model_type if isinstance(model_type, str) else repr(model_type))
    except InputError as error:
        raise InputError(f"{key}.model_type: {error}") from error
    kind = CONFIG_MAPPING[model_type]
    own = {name: config[name] for name in architecture_fields(kind) if name in config}
    for name, value in own.items():
        _check_ssl_value(kind, f"{key}.{name}", name, value)
    settings = {**{n: getattr(kind, n) for n in architecture_fields(kind)}, **own}
    _check_ssl_relations(key, settings)
    if shapes is not None:
        check_count(f"{key}.num_hidden_layers", settings["num_hidden_layers"], shapes)
        check_count(f"{key}.conv_dim", len(settings["conv_dim"]), shapes)
    return kind(**own)


def architecture_fields(kind):
    """The names of what a class of configurations has beside those of all.

    Arguments
    ---------
    kind : type
        A configuration class of transformers.

    Returns
    -------
    list of str
        Names.

    Example
    -------
    >>> from transformers import WavLMConfig
    >>> architecture_fields(WavLMConfig)[:2]
    ['vocab_size', 'hidden_size']
    """
    return [name for name in kind.__annotations__ if name != "model_type"]


def _check_ssl_value(kind, key, name, value):
    """The type by transformers' own validation, the range by the key's name."""
    from transformers.activations import ACT2FN

    lists = isinstance(getattr(kind, name), (tuple, list))
    if lists:
        check_argument(key, value, getattr(kind, name))
    elif not _is_valid(kind, name, value):
        default = getattr(kind, name)
        raise InputError(
            f"{key} is {_short(value)}: it must be such a value as {default!r}"
        )
    choices = {
        "feat_extract_norm": ("group", "layer"),
        "hidden_act": ACT2FN,
        "feat_extract_activation": ACT2FN,
    }.get(name, (value,))
    if value not in choices:
        raise InputError(f"{key} is {value!r}: use one of {', '.join(sorted(choices))}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        check_number(key, value)


def _is_valid(kind, name, value):
    try:
        kind(**{name: value})
    # Whatever transformers raises of a single value, it is that value.
    except Exception:
        return False
    return True


def _check_ssl_relations(key, settings):
    """What one value must be beside another, and no shape of a tensor shows."""
    kernels, strides = settings["conv_kernel"], settings["conv_stride"]
    for name in ("conv_kernel", "conv_stride"):
        if len(settings[name]) != len(settings["conv_dim"]):
            raise InputError(
                f"{key}.{name} has {len(settings[name])} values: conv_dim has "
                f"{len(settings['conv_dim'])}"
            )
    if any(s > k for s, k in zip(strides, kernels, strict=True)):
        raise InputError(
            f"{key}.conv_stride is larger than conv_kernel: it skips samples"
        )
    for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
        if settings["hidden_size"] % settings[name]:
            raise InputError(
                f"{key}.{name} is {settings[name]}: it must divide hidden_size, "
                f"{settings['hidden_size']}"
            )
    if settings.get("max_bucket_distance", 1) <= settings.get("num_buckets", 0) // 4:
        raise InputError(f"{key}.max_bucket_distance must exceed num_buckets / 4")
    if settings.get("add_adapter"):
        raise InputError(f"{key}.add_adapter is true: no enhancer uses an adapter")


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
