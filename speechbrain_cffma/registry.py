"""The registry of lobes, and their configurations as JSON values.

Authors
 * The speechbrain-cffma developers 2026
"""

import inspect

from speechbrain_cffma import checks
from speechbrain_cffma.errors import InputError, one_line, quoted

#: Maximum depth of nested lobes.
MAX_DEPTH = 16

SEQUENCE_LOBES = (
    "BLSTM",
    "FeedForward",
    "PostNormBlock",
    "PostNormStack",
    "RHMA",
    "RelativeSelfAttention",
    "SCTA",
    "SelectiveChannelAttention",
    "SelectiveTimeAttention",
    "TransformerStack",
)
FUSIONS = (
    "Concatenation",
    "CrossAttentionFusion",
    "EmbeddingOnly",
    "GatedFusion",
    "MSCFF",
    "SpectrogramOnly",
)
#: The lobes that an argument may be. If they are in a list, it must be a list of them.
ROLES = {
    "embedding": ("NoEmbedding", "SSLEmbedding"),
    "ssl": ("SSL",),
    "spectrogram": ("LogSpectrogram",),
    "mask_estimator": ("CFFMA", "MaskEstimator"),
    "refiner": ("Refiner",),
    "fusion": FUSIONS,
    "enhancer": SEQUENCE_LOBES,
    "gates": [("ConvGate", "OpenGate")],
    "blocks": [SEQUENCE_LOBES],
    "sub_blocks": [SEQUENCE_LOBES],
}
#: The lobes that a configuration may name, by name; `lobe` adds to it.
LOBES = {}
#: Parts from other libraries: name -> (is_one, describe, build); `foreign` adds to it.
_FOREIGN = {}
#: Exceptions that torch and Python raise if parts don't fit together.
MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # fmt: skip


def lobe(cls):
    """Register a lobe, so that `config.json` may name it (a decorator).

    Arguments
    ---------
    cls : type
        The lobe. It must keep its arguments as attributes of the same names.

    Returns
    -------
    type
        The lobe itself.

    Example
    -------
    >>> import speechbrain_cffma.lobes
    >>> LOBES["SCTA"].__name__
    'SCTA'
    """
    LOBES[cls.__name__] = cls
    return cls


def foreign(name, is_one, describe, build):
    """Register a part from another library, such as an SSL model.

    Arguments
    ---------
    name : str
        Name of the part in a configuration.
    is_one : callable
        `is_one(module)` returns whether a module is such a part.
    describe : callable
        `describe(module)` returns its configuration.
    build : callable
        `build(key, arguments, shapes)` builds one, as `from_config` does.
    """
    _FOREIGN[name] = (is_one, describe, build)


def config_of(value):
    """Describe a lobe by its name and arguments, as JSON values.

    Each lobe keeps its arguments as attributes of the same names.

    Arguments
    ---------
    value : torch.nn.Module or list or int or float or str or bool or None
        A lobe, an SSL model in SpeechBrain's wrapper, or an argument of a lobe.

    Returns
    -------
    dict or list or int or float or str or bool or None
        The configuration, from which `from_config` builds an equal lobe with new weights.

    Raises
    ------
    InputError
        If a part is not in the registry.

    Example
    -------
    >>> from speechbrain_cffma.lobes import SCTA
    >>> config_of(SCTA(16))
    {'lobe': 'SCTA', 'dim': 16, 'share': 0.5}
    """
    from torch import nn

    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, nn.ModuleList)):
        return [config_of(item) for item in value]
    for is_one, describe, _ in _FOREIGN.values():
        if is_one(value):
            return describe(value)
    name = type(value).__name__
    if LOBES.get(name) is not type(value):
        raise InputError(
            f"a model with {name} can't be saved as a folder: use only "
            f"{', '.join(sorted(LOBES))}"
        )
    arguments = {n: config_of(getattr(value, n)) for n in _arguments(type(value))}
    return {"lobe": name, **arguments}


def from_config(config, shapes=None):
    """Build the lobe that a configuration describes, with new weights.

    Arguments
    ---------
    config : dict or list or int or float or str or bool or None
        The configuration that `config_of` returns.
    shapes : dict or None
        The shapes of the weights to load, by name. If given, the numbers of blocks and
        layers are compared with them before anything is built.

    Returns
    -------
    torch.nn.Module or list or int or float or str or bool or None
        The lobe or argument.

    Raises
    ------
    InputError
        If it names an unknown lobe or argument, or a value has the wrong type or range.

    Example
    -------
    >>> import speechbrain_cffma.lobes
    >>> from_config({"lobe": "SCTA", "dim": 16}).dim
    16
    >>> from_config({"lobe": "SCTA", "dim": "16"})
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: model.dim is '16': it must be a whole number
    """
    return _build(config, "model", shapes)


def _build(config, key, shapes):
    """Build a part whose path is `key`, checking it before its own parts."""
    if isinstance(config, list):
        return [_build(item, f"{key}.{i}", shapes) for i, item in enumerate(config)]
    if not isinstance(config, dict):
        return config
    if key.count(".") > MAX_DEPTH:
        raise InputError(f"{key[:80]} is nested too deeply")
    arguments = dict(config)
    name = arguments.pop("lobe", None)
    if isinstance(name, str) and name in _FOREIGN:
        return _FOREIGN[name][2](key, arguments, shapes)
    lobe = LOBES.get(name) if isinstance(name, str) else None
    if lobe is None:
        raise InputError(
            f"{key}.lobe is {quoted(name)}: it must be one of "
            f"{', '.join(sorted(LOBES))}"
        )
    _check_arguments(lobe, key, arguments, shapes)
    parts = {n: _build(v, f"{key}.{n}", shapes) for n, v in arguments.items()}
    try:
        return lobe(**parts)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    except MISFITS as error:
        raise InputError(
            f"{key}: {name} can't be built from these arguments [{one_line(error)}]"
        ) from error


def _check_arguments(lobe, key, arguments, shapes):
    """Names, types, ranges and counts of what a lobe's constructor is to be given."""
    from torch import nn

    parameters = inspect.signature(lobe).parameters
    unknown = sorted(set(arguments) - set(_arguments(lobe)))
    if unknown:
        raise InputError(
            f"{key}: {lobe.__name__} has an unknown argument: {quoted(unknown[0])}"
        )
    for name in _arguments(lobe):
        path, default = f"{key}.{name}", parameters[name].default
        if name not in arguments:
            if default is inspect.Parameter.empty:
                raise InputError(f"{path} is missing")
            continue
        value = arguments[name]
        # A convolution keeps each size as a tuple of one number.
        if issubclass(lobe, nn.Conv1d) and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None and default is None:
            continue
        if name in ROLES:
            check_role(path, value, ROLES[name])
        else:
            # Arguments without a default are sizes.
            is_size = default is inspect.Parameter.empty
            checks.check_value(path, value, 1 if is_size else default)
        if name in checks.PARTS:
            number = len(value) if isinstance(value, list) else value
            checks.check_count(path, number, shapes)


def check_role(key, value, names):
    """Check that an argument is one of the lobes that it may be.

    Arguments
    ---------
    key : str
        Path of the argument, for the message.
    value : object
        Its configuration.
    names : tuple of str or list
        The lobes that it may be. A list of one tuple asks for a list of such lobes.

    Raises
    ------
    InputError
        If it is something else.
    """
    if isinstance(names, list):
        if not isinstance(value, list):
            raise InputError(f"{key} is {quoted(value)}: it must be a list of lobes")
        for index, part in enumerate(value):
            check_role(f"{key}.{index}", part, names[0])
        return
    name = value.get("lobe") if isinstance(value, dict) else None
    if name not in names:
        said = quoted(value if name is None else name)
        raise InputError(f"{key} is {said}: it must be a lobe, {' or '.join(names)}")


def _arguments(lobe):
    """The argument names of a lobe's own constructor; none if it has only `Module`'s."""
    parameters = inspect.signature(lobe).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
