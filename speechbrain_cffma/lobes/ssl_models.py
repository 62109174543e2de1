"""SSL models of transformers in SpeechBrain's wrappers: checked, built, loaded.

A model of a stranger's folder is built of nothing but the values of its configuration
that shape the encoder, and each of them is checked before.

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
from speechbrain_cffma.registry import MISFITS, config_of, foreign

#: What configures a head, which no wrapper has, and may be anything.
HEADS = re.compile(
    r"vocab_size|.*_token_id|(num_)?ctc_.*|(tdnn|xvector|classifier|diversity)_.*|"
    r".*codevector.*|contrastive_.*|num_negatives|use_weighted_layer_sum|"
    r"final_dropout|feat_quantizer_dropout"
)
#: Those that transformers documents for these models, and SiLU by both of its names.
#: Others have weights of their own, or overflow in the seven layers of an encoder.
ACTIVATIONS = ("gelu", "gelu_new", "relu", "selu", "silu", "swish")
CHOICES = {
    "feat_extract_norm": ("group", "layer"),
    "hidden_act": ACTIVATIONS,
    "feat_extract_activation": ACTIVATIONS,
}
#: What tensors are called in files of other releases, or with a head.
RENAMED = (
    (r"^(wavlm|wav2vec2|hubert)\.", ""),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
#: A configuration of transformers may list thousands of labels.
MAX_CONFIG_BYTES = 1 << 20


def wrapper_class(model_type):
    """SpeechBrain's wrapper for a kind of HuggingFace model.

    Arguments
    ---------
    model_type : str
        The `model_type` of the model's config.json.

    Returns
    -------
    type
        `WavLM`, `Wav2Vec2` or `HuBERT` of `speechbrain.integrations.huggingface`.

    Raises
    ------
    InputError
        If it is another kind.

    Example
    -------
    >>> wrapper_class("wavlm").__name__
    'WavLM'
    """
    from speechbrain.integrations.huggingface.hubert import HuBERT
    from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
    from speechbrain.integrations.huggingface.wavlm import WavLM

    wrappers = {"wavlm": WavLM, "wav2vec2": Wav2Vec2, "hubert": HuBERT}
    if not isinstance(model_type, str) or model_type not in wrappers:
        raise InputError(
            f"an SSL model of type {quoted(model_type)} is not supported: "
            f"use one of {', '.join(wrappers)}"
        )
    return wrappers[model_type]


def wrap_ssl(config, normalize_wav, make_model=None):
    """SpeechBrain's wrapper around a model that is made here.

    The wrapper's own loading asks the hub for a list of files even for a model that
    is in the cache, needs weights, and takes random ones for those that lack.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        The model's configuration.
    normalize_wav : bool
        Whether the model hears waveforms of mean 0 and variance 1.
    make_model : callable or None
        `make_model(config)` gives the transformers model; None for one with new weights.

    Returns
    -------
    torch.nn.Module
        The wrapper, set to return all hidden states.
    """
    from transformers import Wav2Vec2FeatureExtractor

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
    # Once it is loaded, it is one as any other.
    wrapper.__class__ = wrapper_class(config.model_type)
    return wrapper


def load_ssl(source: str, save_path: str = "pretrained_models") -> torch.nn.Module:
    """Load a WavLM, wav2vec 2.0 or HuBERT model into SpeechBrain's wrapper for it.

    Arguments
    ---------
    source : str
        A hub id, such as "microsoft/wavlm-base-plus", or a local folder with
        config.json, preprocessor_config.json and model.safetensors or pytorch_model.bin.
    save_path : str
        Folder that downloaded models are kept in.

    Returns
    -------
    torch.nn.Module
        SpeechBrain's wrapper, set to return all hidden states.

    Raises
    ------
    InputError
        If it can't be loaded or lacks weights, with what to do when offline.

    Example
    -------
    >>> load_ssl("no/such-model-folder")
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: ...
    """
    from transformers import AutoModel

    source, save_path = str(source), str(save_path)

    def load(config):
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
    # Whatever a hub, a network or a damaged file may raise, the remedy is the same.
    except Exception as error:
        raise InputError(
            f"the SSL model {source!r} can't be loaded. If this machine is offline, download "
            "it elsewhere (config.json, preprocessor_config.json and the weights) and name "
            f"that folder, on the command line by --ssl_source=FOLDER. [{one_line(error)}]"
        ) from error


def _checked_configuration(source, save_path):
    """The configuration, compared with the shapes of the weights, and `normalize_wav`."""
    from transformers import AutoModel
    from transformers.utils import cached_file

    def fetch(name):
        return Path(cached_file(source, name, cache_dir=save_path))

    config = checks.read_json(fetch("config.json"), MAX_CONFIG_BYTES)
    shapes = _shapes(fetch)
    config = ssl_configuration("", config, shapes)
    if shapes is not None:
        with torch.device("meta"):
            encoder = AutoModel.from_config(config)
        names = set(encoder.state_dict())  # what a head has does not matter
        shapes = {name: shape for name, shape in shapes.items() if name in names}
        checks.check_shapes(shapes, encoder, optional=["masked_spec_embed"])
    preprocessor = checks.read_json(fetch("preprocessor_config.json"), MAX_CONFIG_BYTES)
    normalize_wav = preprocessor.get("do_normalize", True)
    checks.check_value("do_normalize", normalize_wav, True)
    return config, normalize_wav


def _shapes(fetch):
    """The shapes of the weights, by their names in the encoder; None of several files."""
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
    """The configuration of an SSL model, of whose values each is checked.

    What all configurations of transformers have in common (labels, what a call
    returns), or a head has, is no part of the encoder and stays at its default.

    Arguments
    ---------
    key : str
        The whole path of the mapping.
    config : dict
        The mapping, with `model_type`.
    shapes : dict or None
        The shapes of the weights by name, with which numbers of layers are compared.

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

    if not isinstance(config, dict):
        raise InputError(f"{key} is {quoted(config)}: it must be a mapping")
    prefix = f"{key}." if key else ""
    model_type = config.get("model_type")
    try:
        wrapper_class(model_type)
    except InputError as error:
        raise InputError(f"{prefix}model_type: {error}") from error
    kind = CONFIG_MAPPING[model_type]
    defaults = {name: getattr(kind, name) for name in encoder_fields(kind)}
    own = {name: config[name] for name in defaults if name in config}
    for name, value in own.items():
        _check_field(f"{prefix}{name}", value, defaults[name])
        if isinstance(defaults[name], float):
            own[name] = float(value)  # some may be no whole numbers
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
    return kind(**own)


def encoder_fields(kind):
    """The names of what a class of configurations says of its encoder.

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
    >>> encoder_fields(WavLMConfig)[:2]
    ['hidden_size', 'num_hidden_layers']
    """
    return [
        name
        for name in kind.__annotations__
        if name != "model_type" and not HEADS.fullmatch(name)
    ]


def _check_field(key, value, default):
    # Those that may be left out are whole numbers.
    may_be_none = default is None and value is None
    if not may_be_none:
        checks.check_value(key, value, 1 if default is None else default)
    choices = CHOICES.get(key.rpartition(".")[2], (value,))
    if value not in choices:
        raise InputError(f"{key} is {quoted(value)}: use one of {', '.join(choices)}")


def _check_relations(prefix, settings):
    """What one value must be beside another, and no shape of a tensor shows."""
    kernels, strides = settings["conv_kernel"], settings["conv_stride"]
    for name in ("conv_kernel", "conv_stride"):
        if len(settings[name]) != len(settings["conv_dim"]):
            raise InputError(
                f"{prefix}{name} has {len(settings[name])} values: conv_dim has "
                f"{len(settings['conv_dim'])}"
            )
    if any(s > k for s, k in zip(strides, kernels, strict=True)):
        raise InputError(
            f"{prefix}conv_stride is larger than conv_kernel: it skips samples"
        )
    # Attention takes memory by the square of the number of frames.
    if not 80 <= math.prod(strides) <= 16000:
        raise InputError(
            f"{prefix}conv_stride gives a frame for {math.prod(strides)} samples: "
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
    # Where it was loaded from, by which release, and what a call returns are no part
    # of the architecture.
    config = ssl.model.config
    fields = {n: config_of(getattr(config, n)) for n in encoder_fields(type(config))}
    return {
        "lobe": "SSL",
        "config": {"model_type": config.model_type, **fields},
        "normalize_wav": bool(ssl.normalize_wav),
    }


def _ssl_from_config(key, arguments, shapes):
    """SpeechBrain's wrapper around an SSL model of this configuration, with new weights."""
    needed = {"config", "normalize_wav"}
    if wrong := sorted(needed ^ set(arguments)):
        said = "is missing" if wrong[0] in needed else "is an unknown argument"
        raise InputError(f"{key}: {quoted(wrong[0])} {said}")
    checks.check_value(f"{key}.normalize_wav", arguments["normalize_wav"], True)
    config = ssl_configuration(f"{key}.config", arguments["config"], shapes)
    try:
        return wrap_ssl(config, arguments["normalize_wav"])
    except MISFITS as error:
        raise InputError(
            f"{key}.config: no SSL model can be built of it [{one_line(error)}]"
        ) from error


foreign(
    "SSL",
    lambda module: hasattr(module, "output_all_hiddens"),
    _config_of_ssl,
    _ssl_from_config,
)
