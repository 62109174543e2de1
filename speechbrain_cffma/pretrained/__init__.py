"""A trained model as a folder, here or on the HuggingFace hub.

config.json names the lobes and their arguments, model.safetensors holds the weights.
Only lobes of a fixed registry are built, so that loading a stranger's folder executes
nothing of it. README.md is the model's card.

Two more files are for SpeechBrain's own interfaces: hyperparams.yaml for
`WaveformEnhancement.from_hparams`, and custom.py for `foreign_class`. They do execute:
HyperPyYAML whatever the YAML names, and `foreign_class` the Python file. Use these
routes for folders that you trust.

Authors
 * The speechbrain-cffma developers 2026
"""

import functools
import hashlib
import inspect
import json
import os
import tempfile
from pathlib import Path

from speechbrain.utils.parameter_transfer import Pretrainer

from speechbrain_cffma.errors import InputError, one_line, quoted
from speechbrain_cffma.files import replacing
from speechbrain_cffma.model_card import model_card
from speechbrain_cffma.pretrained import checks

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
HYPERPARAMS_FILE = "hyperparams.yaml"
INTERFACE_FILE = "custom.py"
#: The name of the model that comes with the package, in a folder beside this file.
DEFAULT_MODEL = "default"
#: A longer card is none.
MAX_CARD_BYTES = 1 << 20
#: No network nests its lobes deeper.
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
#: Which lobes an argument may be; in a list, it is a list of such.
ROLES = {
    "embedding": ("NoEmbedding", "SSLEmbedding"),
    "ssl": ("SSL",),
    "spectrogram": ("LogSpectrogram",),
    "mask_estimator": ("CFFMA", "MaskEstimator"),
    "fusion": FUSIONS,
    "enhancer": SEQUENCE_LOBES,
    "gates": [("ConvGate", "OpenGate")],
    "blocks": [SEQUENCE_LOBES],
    "sub_blocks": [SEQUENCE_LOBES],
}
#: What to do about a configuration and weights that do not fit.
OF_ONE_MODEL = f"get {CONFIG_FILE} and {WEIGHTS_FILE} again, both of one model"
#: What torch and Python raise of parts that don't fit one another.
MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # fmt: skip

HYPERPARAMS = """\
# Loads this model with SpeechBrain's stock interface:
#   WaveformEnhancement.from_hparams(source="this folder or its hub id")
# The same as config.json; without SpeechBrain's YAML: CFFMAEnhancer.from_pretrained(...)
sample_rate: 16000
enhance_model: !apply:speechbrain_cffma.pretrained.from_config
    config: {config}
modules:
    enhance_model: !ref <enhance_model>
pretrainer: !new:speechbrain_cffma.pretrained.WeightsPretrainer
    model: !ref <enhance_model>
    sha256: {sha256}
"""

INTERFACE = """\
# What SpeechBrain loads by foreign_class(source="this folder or its hub id").
from speechbrain_cffma.interface import EnhancerInterface as CustomInterface  # noqa: F401
"""


def config_of(value):
    """Describe a lobe by its name and arguments, in what JSON can hold.

    Each lobe keeps its arguments as attributes of the same names.

    Arguments
    ---------
    value : torch.nn.Module or list or int or float or str or bool or None
        A lobe, an SSL model in SpeechBrain's wrapper, or an argument of a lobe.

    Returns
    -------
    dict or list or int or float or str or bool or None
        `from_config` makes an equal lobe of it, with new weights.

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
    if hasattr(value, "output_all_hiddens"):
        return _ssl_config(value)
    name = type(value).__name__
    if _registry().get(name) is not type(value):
        raise InputError(
            f"a model with {name} can't be saved as a folder: it is none of "
            f"{', '.join(sorted(_registry()))}"
        )
    arguments = {n: config_of(getattr(value, n)) for n in _arguments(type(value))}
    return {"lobe": name, **arguments}


def from_config(config, shapes=None):
    """Build the lobe that a configuration describes, with new weights.

    Arguments
    ---------
    config : dict or list or int or float or str or bool or None
        What `config_of` returns.
    shapes : dict or None
        The shapes of the weights that are to be loaded, by name: then the number of
        blocks and layers is compared with them before anything is built.

    Returns
    -------
    torch.nn.Module or list or int or float or str or bool or None
        The lobe or argument.

    Raises
    ------
    InputError
        If it names a lobe or argument that there isn't, or a value that does not fit.

    Example
    -------
    >>> from_config({"lobe": "SCTA", "dim": 16}).dim
    16
    >>> from_config({"lobe": "SCTA", "dim": "16"})
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: model.dim is '16': it must be a whole number
    """
    return _build(config, "model", shapes)


def _build(config, key, shapes):
    """`from_config` of a part; `key` is its path. All is checked from the top down."""
    if isinstance(config, list):
        return [_build(item, f"{key}.{i}", shapes) for i, item in enumerate(config)]
    if not isinstance(config, dict):
        return config
    if key.count(".") > MAX_DEPTH:
        raise InputError(f"{key[:80]} is nested too deeply")
    arguments = dict(config)
    name = arguments.pop("lobe", None)
    if name == "SSL":
        return _ssl_from_config(key, arguments, shapes)
    lobe = _registry().get(name) if isinstance(name, str) else None
    if lobe is None:
        raise InputError(
            f"{key}.lobe names the lobe {quoted(name)}, which there isn't: "
            f"{', '.join(sorted(_registry()))}"
        )
    _check_arguments(lobe, key, arguments, shapes)
    parts = {n: _build(v, f"{key}.{n}", shapes) for n, v in arguments.items()}
    try:
        return lobe(**parts)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    except MISFITS as error:
        raise InputError(
            f"{key}: no {name} can be built of these arguments [{one_line(error)}]"
        ) from error


def _check_arguments(lobe, key, arguments, shapes):
    """Names, types, ranges and counts of what a lobe's constructor is to be given."""
    from torch import nn

    parameters = inspect.signature(lobe).parameters
    unknown = sorted(set(arguments) - set(_arguments(lobe)))
    if unknown:
        raise InputError(
            f"{key} gives {lobe.__name__} an unknown argument: {quoted(unknown[0])}"
        )
    for name in _arguments(lobe):
        path, default = f"{key}.{name}", parameters[name].default
        if name not in arguments:
            if default is inspect.Parameter.empty:
                raise InputError(f"{path} is missing")
            continue
        value = arguments[name]
        # A convolution keeps its sizes as tuples of one.
        if issubclass(lobe, nn.Conv1d) and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if name in ROLES:
            _check_role(path, value, ROLES[name])
        else:
            # What has no default is a size.
            is_size = default is inspect.Parameter.empty
            checks.check_value(path, value, 1 if is_size else default)
        if name in checks.PARTS:
            number = len(value) if isinstance(value, list) else value
            checks.check_count(path, number, shapes)


def _check_role(key, value, names):
    """An argument that is a lobe, or some: whether it is such as is needed there."""
    if isinstance(names, list):
        if not isinstance(value, list):
            raise InputError(f"{key} is {quoted(value)}: it must be a list of lobes")
        for index, part in enumerate(value):
            _check_role(f"{key}.{index}", part, names[0])
        return
    name = value.get("lobe") if isinstance(value, dict) else None
    if name not in names:
        said = quoted(value if name is None else name)
        raise InputError(f"{key} is {said}: it must be a lobe, {' or '.join(names)}")


def load_weights(model, path, sha256=None):
    """Load a safetensors file into a model; every weight must be there and fit.

    Arguments
    ---------
    model : torch.nn.Module
        The model to load into, in place.
    path : str or Path
        The safetensors file; half precision is converted to the model's.
    sha256 : str or None
        If given, the checksum that the file must have.

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
    import torch
    from safetensors import safe_open

    path = Path(path)
    expected, loaded = model.state_dict(), {}
    try:
        checks.check_shapes(checks.read_header(path), model)
        if sha256 is not None and _sha256(path) != sha256:
            raise InputError(
                f"{path.name} is truncated or altered: its checksum is not that of "
                f"{CONFIG_FILE}"
            )
        with safe_open(path, "pt") as file:
            for key, value in expected.items():
                # A copy: what is read may lie in the file.
                loaded[key] = file.get_tensor(key).to(value.dtype, copy=True)
                if not torch.isfinite(loaded[key]).all():
                    raise InputError(f"{key} holds NaN or infinity")
    except InputError as error:
        raise InputError(f"{path.parent}: {error}; {OF_ONE_MODEL}") from error
    is_meta = any(value.is_meta for value in expected.values())
    model.load_state_dict(loaded, assign=is_meta)


def _load(cls, folder):
    """The model of a folder: checked, built and tried out without memory, then filled."""
    import torch

    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{folder} is not a model folder: it has no {CONFIG_FILE}")
    try:
        config = checks.read_json(folder / CONFIG_FILE)
        shapes = checks.read_header(folder / WEIGHTS_FILE)
        if "weights_sha256" in config:
            checks.check_value("weights_sha256", config["weights_sha256"], "")
        names = [name for name, lobe in _registry().items() if issubclass(lobe, cls)]
        _check_role("model", config.get("model"), tuple(names))
        with torch.device("meta"):
            model = from_config(config["model"], shapes)
            checks.check_shapes(shapes, model)
            _try_out(model)
    except InputError as error:
        raise InputError(f"{folder}: {error}; {OF_ONE_MODEL}") from error
    load_weights(model, folder / WEIGHTS_FILE, config.get("weights_sha256"))
    _fill_buffers(model)
    return model


def _try_out(model):
    """Whether the parts of an enhancer on the meta device fit one another."""
    import torch

    spectrogram = model.spectrogram
    bins = spectrogram.n_fft // 2 + 1
    if model.mask_estimator.n_freqs != bins:
        raise InputError(
            f"model.spectrogram.n_fft is {spectrogram.n_fft}, which gives {bins} "
            f"frequencies: mask_estimator.n_freqs is {model.mask_estimator.n_freqs}"
        )
    hop_length = getattr(model.embedding, "hop_length", spectrogram.hop_length)
    if hop_length != spectrogram.hop_length:
        raise InputError(
            f"model.embedding.hop_length is {hop_length}: spectrogram.hop_length is "
            f"{spectrogram.hop_length}"
        )
    try:
        with torch.inference_mode():
            model.eval()(torch.empty(1, 1600 + spectrogram.n_fft))
    except MISFITS as error:
        raise InputError(
            f"model: its lobes do not fit one another [{one_line(error)}]"
        ) from error


def _read_card(path):
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_CARD_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} can't be read [{one_line(error)}]") from error
    if len(content) > MAX_CARD_BYTES:
        raise InputError(
            f"{path} is larger than {MAX_CARD_BYTES >> 20} MiB: shorten or delete it"
        )
    return content.decode(errors="replace")


def _fill_buffers(model):
    """Compute the buffers that no file holds, such as a window, of a model made on meta."""
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            if getattr(module, name).is_meta:
                setattr(module, name, getattr(from_config(config_of(module)), name))


class WeightsPretrainer(Pretrainer):
    """Finds the weights beside hyperparams.yaml, for SpeechBrain's `from_hparams`.

    SpeechBrain's own takes either `<key>.ckpt` there or a path that is relative to
    the working directory, and loads what fits without a word about the rest.

    Arguments
    ---------
    model : torch.nn.Module
        The model to load into.
    sha256 : str or None
        The checksum that the file must have.
    """

    def __init__(self, model, sha256=None):
        super().__init__(
            loadables={"enhance_model": model},
            custom_hooks={
                "enhance_model": functools.partial(load_weights, sha256=sha256)
            },
        )

    def collect_files(self, default_source=None, **options):
        """Fetch the weights from the folder or hub id given to `from_hparams`."""
        self.add_paths({"enhance_model": f"{default_source}/{WEIGHTS_FILE}"})
        return super().collect_files(default_source, **options)


class PretrainedMixin:
    """Gives an enhancer `from_pretrained`, `save_pretrained` and `push_to_hub`."""

    #: Text of the model card that it was loaded with.
    card = None

    @classmethod
    def from_pretrained(
        cls,
        source=DEFAULT_MODEL,
        revision=None,
        cache_dir=None,
        local_files_only=False,
        token=None,
    ):
        """Load the default model, or one from a folder or the HuggingFace hub, of which nothing is executed.

        Arguments
        ---------
        source : str or Path
            A folder that `save_pretrained` or a training run wrote, or a hub id.
            A folder needs no network. "default" is the model that comes with the
            package; a folder of that name is "./default".
        revision : str or None
            Branch, tag or commit on the hub.
        cache_dir : str or Path or None
            Where downloads are kept. What is there is not fetched again while the
            hub has no other commit.
        local_files_only : bool
            Use downloads of before only.
        token : str or None
            Token for private models.

        Returns
        -------
        torch.nn.Module
            The model in eval mode, on the CPU. Its `card` is the text of its model
            card, if it has one.

        Raises
        ------
        InputError
            If it can't be found, or is truncated, altered or of another kind.
        """
        is_default = source == DEFAULT_MODEL
        folder = Path(__file__).parent / DEFAULT_MODEL if is_default else Path(source)
        if not os.path.isdir(folder):  # `Path.is_dir` raises for names that can't be
            folder = _download(
                str(source),
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                token=token,
            )
        model = _load(cls, folder)
        model.card = _read_card(folder / CARD_FILE)
        return model.eval()

    def save_pretrained(self, folder, card=None, half=False):
        """Write the model as a folder. Its files replace those of a model that is there.

        Arguments
        ---------
        folder : str or Path
            The folder to write.
        card : str or None
            Text of its model card; None for the one that it was loaded with, or else
            one that describes the network and how to use it.
        half : bool
            Write the weights in half precision: half as large a file. What loads it
            computes in float32 again.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            If it is packed, see `InferenceMixin.pack`, or a part is not in the registry.
        """
        from safetensors.torch import save

        if self.packed:
            raise InputError("a packed model can't be saved: save it before pack()")
        model_config = config_of(self)
        # Clones, since safetensors refuses tensors that share memory.
        weights = {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}
        if half:
            weights = {k: v.half() for k, v in weights.items()}
        weights = save(
            {key: value.contiguous() for key, value in weights.items()},
            metadata={"format": "pt"},
        )
        sha256 = hashlib.sha256(weights).hexdigest()
        config = {"model": model_config, "weights_sha256": sha256}
        hyperparams = HYPERPARAMS.format(config=json.dumps(model_config), sha256=sha256)

        folder = Path(folder)
        for name, content in (
            (WEIGHTS_FILE, weights),
            (CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode()),
            (HYPERPARAMS_FILE, hyperparams.encode()),
            (INTERFACE_FILE, INTERFACE.encode()),
            (CARD_FILE, (card or self.card or model_card(self)).encode()),
        ):
            with replacing(folder / name) as partial:
                partial.write_bytes(content)
        return folder

    def push_to_hub(
        self,
        repo_id,
        private=False,
        revision=None,
        token=None,
        commit_message="Add the model",
    ):
        """Upload the model's folder to the HuggingFace hub, in one commit.

        Arguments
        ---------
        repo_id : str
            Such as "me/my-model"; the repository is made if there is none.
        private : bool
            Whether a new repository is private.
        revision : str or None
            The branch to commit to, made if there is none; None for the main one.
        token : str or None
            Token with permission to write; None for that of `hf auth login`.
        commit_message : str
            First line of the commit's message.

        Returns
        -------
        str
            The commit's URL.

        Raises
        ------
        InputError
            If the hub can't be reached or does not permit it.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            files = sorted(self.save_pretrained(folder).iterdir())
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                if revision is not None:
                    api.create_branch(repo_id, branch=revision, exist_ok=True)
                # Not upload_folder, which may make several commits of one folder.
                commit = api.create_commit(
                    repo_id,
                    [CommitOperationAdd(path.name, path) for path in files],
                    commit_message=commit_message,
                    revision=revision,
                )
            # Whatever the network or the hub may raise; the remedy is in its status.
            except Exception as error:
                raise InputError(
                    f"the model can't be uploaded to {repo_id!r} on the hub: "
                    f"{_remedy(error)} [{one_line(error)}]"
                ) from error
        return commit.commit_url


def _registry():
    """The lobes that a configuration may name."""
    from speechbrain_cffma import lobes

    named = {name: getattr(lobes, name) for name in lobes.__all__}
    return {name: lobe for name, lobe in named.items() if inspect.isclass(lobe)}


def _arguments(lobe):
    """The names that its own constructor takes; without one none (`Module` takes any)."""
    parameters = inspect.signature(lobe).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def _ssl_config(ssl):
    from speechbrain_cffma.lobes.ssl_models import encoder_fields

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
    from speechbrain_cffma.lobes.ssl_models import ssl_configuration, wrap_ssl

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


def _download(source, **options):
    """The folder of a model of the hub, in the cache; what it can execute is not fetched."""
    from huggingface_hub import snapshot_download

    needed = [CONFIG_FILE, WEIGHTS_FILE]
    try:
        folder = Path(
            snapshot_download(source, allow_patterns=[*needed, CARD_FILE], **options)
        )
    # Whatever the network or the hub may raise; the remedy is in its status.
    except Exception as error:
        raise InputError(
            f"{source!r} is neither a local folder nor a model that can be downloaded now: "
            f"{_remedy(error)} [{one_line(error)}]"
        ) from error
    for name in needed:
        if not (folder / name).is_file():
            raise InputError(
                f"{source!r} on the hub has no {name}: it is no model of "
                "speechbrain-cffma, or was not uploaded as a whole"
            )
    return folder


def _remedy(error):
    """What to do about an error of the hub's client."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return {
        401: "check the name, and log in by `hf auth login` or give a token",
        403: "the token does not permit it",
    }.get(status, "check the name and the connection")


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
