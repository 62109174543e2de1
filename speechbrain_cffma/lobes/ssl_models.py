"""Check, build and load SSL models.

A model from an untrusted folder is built only from the configuration values that shape
the encoder. Each value is checked first.

`load_ssl` gives models of the package transformers in SpeechBrain's wrappers, and
`in_wrapper` puts the SSL model of a model folder into one, for training.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
import re
import tempfile
import warnings
from pathlib import Path

import torch

from speechbrain_cffma import checks
from speechbrain_cffma.errors import InputError, one_line, quoted
from speechbrain_cffma.lobes.fast_ssl import ACTIVATIONS, make_fast
from speechbrain_cffma.lobes.ssl_network import DEFAULTS, SSL, SSLConfig
from speechbrain_cffma.registry import MISFITS, config_of, foreign

CHOICES = {
    "feat_extract_norm": ("group", "layer"),
    "hidden_act": tuple(ACTIVATIONS),
    "feat_extract_activation": tuple(ACTIVATIONS),
}
#: Names of tensors in files of other releases or with a head, and their names here.
RENAMED = (
    (r"^(wavlm|wav2vec2|hubert)\.", ""),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
#: Large enough for a configuration of transformers that lists thousands of labels.
MAX_CONFIG_BYTES = 1 << 20


def wrapper_class(model_type):
    """SpeechBrain's wrapper class for a type of SSL model.

    Arguments
    ---------
    model_type : str
        The `model_type` of the model's config.json.

    Returns
    -------
    type
        `WavLM`, `Wav2Vec2` or `HuBERT` of `speechbrain.integrations.huggingface`.

    Example
    -------
    >>> wrapper_class("wavlm").__name__
    'WavLM'
    """
    from speechbrain.integrations.huggingface.hubert import HuBERT
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
    from speechbrain.integrations.huggingface.wavlm import WavLM

    return {"wavlm": WavLM, "wav2vec2": Wav2Vec2, "hubert": HuBERT}[model_type]


def wrap_ssl(config, normalize_wav, make_model=None):
    """Put a model into SpeechBrain's wrapper.

    The wrapper's own loader is not used: it asks the hub for a list of files even if the
    model is in the cache, it needs weights, and it replaces missing weights by random
    ones.

    Arguments
    ---------
    config : SSLConfig
        The model's configuration.
    normalize_wav : bool
        Whether the wrapper normalises waveforms to mean 0 and variance 1.
    make_model : callable or None
        `make_model(config)` returns the transformers model. None: a model with new weights.

    Returns
    -------
    torch.nn.Module
        The wrapper, set to return all hidden states.
    """
    from transformers import Wav2Vec2FeatureExtractor

    config = _in_transformers(config)

    class Wrapper(wrapper_class(config.model_type)):
        def _from_pretrained(self, *args, **kwargs):
            make = make_model or self.auto_class.from_config
            self.model = make(self.config)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # SpeechBrain calls a method that transformers is about to rename.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing_disable")
        config.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=normalize_wav).save_pretrained(folder)
        wrapper = Wrapper(folder, folder, output_all_hiddens=True)
    # A loaded wrapper needs no special class any more.
    wrapper.__class__ = wrapper_class(config.model_type)
    return wrapper


def _in_transformers(config):
    """The configuration as an object of transformers."""
    from transformers import CONFIG_MAPPING

    values = {name: getattr(config, name) for name in DEFAULTS[config.model_type]}
    return CONFIG_MAPPING[config.model_type](**values)


def in_wrapper(ssl):
    """Put an SSL model of a model folder into SpeechBrain's wrapper, for training.

    Arguments
    ---------
    ssl : SSL
        The model.

    Returns
    -------
    torch.nn.Module
        The wrapper, with a model of transformers that takes over the weights.

    Example
    -------
    >>> wrapper = in_wrapper(SSL(SSLConfig("wavlm", num_hidden_layers=1), False))
    >>> type(wrapper).__name__, type(wrapper.model).__name__
    ('WavLM', 'WavLMModel')
    """
    with torch.device("meta"):
        wrapper = wrap_ssl(ssl.model.config, ssl.normalize_wav)
    wrapper.load_state_dict(ssl.state_dict(), assign=True)
    make_fast(wrapper.model)
    return wrapper


def load_ssl(source: str, save_path: str = "pretrained_models") -> torch.nn.Module:
    """Load a WavLM, wav2vec 2.0 or HuBERT model into SpeechBrain's wrapper for it.

    Arguments
    ---------
    source : str
        A hub id, such as "microsoft/wavlm-base-plus", or a local folder with
        config.json, preprocessor_config.json and model.safetensors or pytorch_model.bin.
    save_path : str
        Folder for downloaded models.

    Returns
    -------
    torch.nn.Module
        SpeechBrain's wrapper, set to return all hidden states.

    Raises
    ------
    InputError
        If the model can't be loaded or lacks weights. The message says what to do offline.

    Example
    -------
    >>> load_ssl("no/such-model-folder")
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: ...
    """
    from transformers import AutoModel

    source, save_path = str(source), str(save_path)

    def load(config):  # transformers' own, from `wrap_ssl`
        model, info = AutoModel.from_pretrained(
            source,
            config=config,
            cache_dir=save_path,
            dtype=torch.float32,
            output_loading_info=True,
        )
        missing = sorted(set(info["missing_keys"]) - {"masked_spec_embed"})
        if missing:
            raise ValueError(f"its file has no {missing[0]} ({len(missing)} missing)")
        for name, weight in model.state_dict().items():
            if not torch.isfinite(weight).all():
                raise InputError(f"{name} holds NaN or infinity")
        return model

    try:
        config, normalize_wav = _checked_configuration(source, save_path)
        return wrap_ssl(config, normalize_wav, load)
    except InputError as error:
        raise InputError(
            f"the SSL model {source!r} can't be loaded: {error}; get its files again, or "
            "choose another by --ssl_source=FOLDER"
        ) from error
    # A hub, a network or a damaged file can raise anything; the remedy is the same.
    except Exception as error:
        raise InputError(
            f"the SSL model {source!r} can't be loaded. If this machine is offline, download "
            "it elsewhere (config.json, preprocessor_config.json and the weights) and name "
            f"that folder, on the command line by --ssl_source=FOLDER. [{one_line(error)}]"
        ) from error


def _checked_configuration(source, save_path):
    """The configuration, checked against the shapes of the weights, and `normalize_wav`."""
    from transformers import AutoModel
    from transformers.utils import cached_file

    def fetch(name):
        return Path(cached_file(source, name, cache_dir=save_path))

    config = checks.read_json(fetch("config.json"), MAX_CONFIG_BYTES)
    shapes = _shapes(fetch)
    config = ssl_configuration("", config, shapes)
    if shapes is not None:
        with torch.device("meta"):
            encoder = AutoModel.from_config(_in_transformers(config))
        names = set(encoder.state_dict())  # weights of a head don't matter
        shapes = {name: shape for name, shape in shapes.items() if name in names}
        checks.check_shapes(shapes, encoder, optional=["masked_spec_embed"])
    preprocessor = checks.read_json(fetch("preprocessor_config.json"), MAX_CONFIG_BYTES)
    normalize_wav = preprocessor.get("do_normalize", True)
    checks.check_value("do_normalize", normalize_wav, True)
    return config, normalize_wav


def _shapes(fetch):
    """The shapes of the weights by name; None if they are split into several files."""
    try:
        shapes = checks.read_header(fetch("model.safetensors"))
    except OSError:
        try:
            path = fetch("pytorch_model.bin")
        except OSError:
            return None
        weights = torch.load(path, map_location="meta", weights_only=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for old, new in RENAMED:
        shapes = {re.sub(old, new, name): shape for name, shape in shapes.items()}
    return shapes


def ssl_configuration(key, config, shapes=None):
    """Make the configuration of an SSL model, and check each of its values.

    Values that are not part of the encoder stay at their defaults: those of heads, and
    those that all configurations of transformers have, such as labels.

    Arguments
    ---------
    key : str
        Name of the mapping in error messages, such as "embedding.ssl.config".
    config : dict
        The mapping, with `model_type`.
    shapes : dict or None
        The shapes of the weights by name, to check the numbers of layers.

    Returns
    -------
    SSLConfig
        The configuration.

    Raises
    ------
    InputError
        If a value is not valid.

    Example
    -------
    >>> ssl_configuration("ssl", {"model_type": "wavlm", "hidden_size": "8"})
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: ssl.hidden_size is '8': ...
    """
    if not isinstance(config, dict):
        raise InputError(f"{key} is {quoted(config)}: it must be a mapping")
    prefix = f"{key}." if key else ""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in DEFAULTS:
        raise InputError(
            f"{prefix}model_type: an SSL model of type {quoted(model_type)} is not "
            f"supported: use one of {', '.join(DEFAULTS)}"
        )
    defaults = DEFAULTS[model_type]
    own = {name: config[name] for name in defaults if name in config}
    for name, value in own.items():
        _check_field(f"{prefix}{name}", value, defaults[name])
        if isinstance(defaults[name], float):
            own[name] = float(value)  # a JSON file may hold 1 for 1.0
    settings = {**defaults, **own}
    _check_relations(prefix, settings)
    counts = {
        "num_hidden_layers": settings["num_hidden_layers"],
        "conv_dim": len(settings["conv_dim"]),
    }
    if settings.get("add_adapter"):
        counts["num_adapter_layers"] = settings["num_adapter_layers"]
    for name, number in counts.items():
        checks.check_count(f"{prefix}{name}", number, shapes)
    return SSLConfig(model_type, **own)


def _check_field(key, value, default):
    # All values that may be None are integers otherwise.
    may_be_none = default is None and value is None
    if not may_be_none:
        checks.check_value(key, value, 1 if default is None else default)
    choices = CHOICES.get(key.rpartition(".")[2], (value,))
    if value not in choices:
        raise InputError(f"{key} is {quoted(value)}: use one of {', '.join(choices)}")


def _check_relations(prefix, settings):
    """Check values against each other where the shapes of the weights don't tell."""
    kernels, strides = settings["conv_kernel"], settings["conv_stride"]
    for name in ("conv_kernel", "conv_stride"):
        if len(settings[name]) != len(settings["conv_dim"]):
            raise InputError(
                f"{prefix}{name} has {len(settings[name])} values: conv_dim has "
                f"{len(settings['conv_dim'])}"
            )
    if any(s > k for s, k in zip(strides, kernels, strict=True)):
        raise InputError(
            f"{prefix}conv_stride is larger than conv_kernel: samples would be skipped"
        )
    # The memory of the attention grows with the square of the number of frames.
    if not 80 <= math.prod(strides) <= 16000:
        raise InputError(
            f"{prefix}conv_stride gives one frame for {math.prod(strides)} samples: "
            "it must be 80 to 16000"
        )
    for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
        if settings["hidden_size"] % settings[name]:
            raise InputError(
                f"{prefix}{name} is {settings[name]}: it must divide hidden_size, "
                f"{settings['hidden_size']}"
            )
    if settings.get("max_bucket_distance", 1) <= settings.get("num_buckets", 0) // 4:
        raise InputError(f"{prefix}max_bucket_distance must exceed num_buckets / 4")


def _config_of_ssl(ssl):
    # Only values of the architecture: not the source, the release or the form of outputs.
    config = ssl.model.config
    fields = {n: config_of(getattr(config, n)) for n in DEFAULTS[config.model_type]}
    return {
        "lobe": "SSL",
        "config": {"model_type": config.model_type, **fields},
        "normalize_wav": bool(ssl.normalize_wav),
    }


def _ssl_from_config(key, arguments, shapes):
    """Build an SSL model from a configuration, with new weights."""
    needed = {"config", "normalize_wav"}
    if wrong := sorted(needed ^ set(arguments)):
        problem = "is missing" if wrong[0] in needed else "is an unknown argument"
        raise InputError(f"{key}: {quoted(wrong[0])} {problem}")
    checks.check_value(f"{key}.normalize_wav", arguments["normalize_wav"], True)
    config = ssl_configuration(f"{key}.config", arguments["config"], shapes)
    try:
        return SSL(config, arguments["normalize_wav"])
    except MISFITS as error:
        raise InputError(
            f"{key}.config: no SSL model can be built from it [{one_line(error)}]"
        ) from error


foreign(
    "SSL",
    lambda module: hasattr(module, "output_all_hiddens"),
    _config_of_ssl,
    _ssl_from_config,
)
