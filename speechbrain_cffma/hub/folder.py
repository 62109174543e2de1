"""Save and load a trained model as a folder, here or on the HuggingFace hub.

config.json names the lobes and their arguments, and model.safetensors holds the weights.
Only lobes from a fixed registry are built, so loading a downloaded folder executes no
code from it. README.md is the model card.

Two more files are for SpeechBrain's own interfaces: hyperparams.yaml for
`WaveformEnhancement.from_hparams`, and custom.py for `foreign_class`. These interfaces do
execute code: HyperPyYAML calls whatever the YAML names, and `foreign_class` runs the
Python file. Use them only for folders that you trust.

Authors
 * The speechbrain-cffma developers 2026
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from speechbrain_cffma import checks
from speechbrain_cffma.errors import InputError, one_line
from speechbrain_cffma.files import atomic_write
from speechbrain_cffma.hub.weights import (
    CONFIG_FILE,
    OF_ONE_MODEL,
    WEIGHTS_FILE,
    load_weights,
    without_values,
)
from speechbrain_cffma.registry import (
    LOBES,
    MISFITS,
    check_role,
    config_of,
    from_config,
)

if TYPE_CHECKING:
    from torch.nn import Module
    from typing_extensions import Self
else:
    Module = object

CARD_FILE = "README.md"
HYPERPARAMS_FILE = "hyperparams.yaml"
INTERFACE_FILE = "custom.py"
#: The name of the bundled model, a folder in `pretrained`.
DEFAULT_MODEL = "default"
_BUNDLED = Path(__file__).parents[1] / "pretrained" / DEFAULT_MODEL
#: Maximum number of values of a spectrogram on which a loaded model is tried out.
MAX_TRIED = 1 << 20
#: Maximum size of a card.
MAX_CARD_BYTES = 1 << 20

HYPERPARAMS = """\
# Loads this model with SpeechBrain's stock interface:
#   WaveformEnhancement.from_hparams(source="this folder or its hub id")
# It has the same content as config.json. CFFMAEnhancer.from_pretrained(...) loads it
# without this YAML.
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
# SpeechBrain's foreign_class(source="this folder or its hub id") loads this file.
from speechbrain_cffma.interface import EnhancerInterface as CustomInterface  # noqa: F401
"""


def _load(cls, folder):
    """Check a folder, build its model on the meta device, load the weights, and try it."""
    import torch

    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{folder} is not a model folder: it has no {CONFIG_FILE}")
    try:
        config = checks.read_json(folder / CONFIG_FILE)
        shapes = checks.read_header(folder / WEIGHTS_FILE)
        if "weights_sha256" in config:
            checks.check_value("weights_sha256", config["weights_sha256"], "")
        names = [name for name, lobe in LOBES.items() if issubclass(lobe, cls)]
        check_role("model", config.get("model"), tuple(names))
        with without_values():
            model = from_config(config["model"], shapes)
            checks.check_shapes(shapes, model)
        _check_sizes(model)
    except InputError as error:
        raise InputError(f"{folder}: {error}; {OF_ONE_MODEL}") from error
    load_weights(model, folder / WEIGHTS_FILE, config.get("weights_sha256"))
    try:
        with torch.device("cpu"):  # as the weights, whatever the default device
            _fill_buffers(model)
        _try_out(model)
    except InputError as error:
        raise InputError(f"{folder}: {error}; {OF_ONE_MODEL}") from error
    return model


def _check_sizes(model):
    """Check that sizes which the parts of an enhancer have in common are equal."""
    spectrogram = model.spectrogram
    bins = spectrogram.n_fft // 2 + 1
    if model.mask_estimator.n_freqs != bins:
        raise InputError(
            f"model.mask_estimator.n_freqs is {model.mask_estimator.n_freqs}: it must be "
            f"{bins}, since spectrogram.n_fft is {spectrogram.n_fft}"
        )
    hop_length = getattr(model.embedding, "hop_length", spectrogram.hop_length)
    if hop_length != spectrogram.hop_length:
        raise InputError(
            f"model.embedding.hop_length is {hop_length}: it must be "
            f"{spectrogram.hop_length}, as spectrogram.hop_length"
        )


def _try_out(model):
    """Check that the parts of an enhancer fit together, without using much memory."""
    import torch

    spectrogram = model.spectrogram
    n_samples = 1600 + spectrogram.n_fft
    device = "cpu"
    if n_samples / spectrogram.hop_length * spectrogram.n_fft > MAX_TRIED:
        # Without memory, but torch then imports its compiler, which takes long.
        device = "meta"
        with without_values():
            model = from_config(config_of(model))
    try:
        with torch.inference_mode(), torch.device(device):
            model.eval()(torch.zeros(1, n_samples))
    except MISFITS as error:
        raise InputError(
            f"the model's lobes do not fit together [{one_line(error)}]"
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
    """Compute the buffers that are not in the weights, such as an STFT window."""
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            if getattr(module, name).is_meta:
                setattr(module, name, getattr(from_config(config_of(module)), name))


class PretrainedMixin(Module):
    """Adds `from_pretrained`, `save_pretrained` and `push_to_hub` to an enhancer."""

    #: Text of the model card from the folder that the model was loaded from.
    card: str | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = DEFAULT_MODEL,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | None = None,
    ) -> "Self":
        """Load the bundled model, or one from a folder or the HuggingFace hub.

        No code from the model's folder is executed.

        Arguments
        ---------
        source : str or Path
            A folder that `save_pretrained` or a training run wrote, or a hub id. Loading
            a folder needs no network. "default" is the bundled model; for a folder of
            that name write "./default".
        revision : str or None
            Branch, tag or commit on the hub.
        cache_dir : str or Path or None
            Folder for downloads. A model is downloaded again only if the hub has a newer
            commit.
        local_files_only : bool
            Whether to use only earlier downloads.
        token : str or None
            Token for private models.

        Returns
        -------
        torch.nn.Module
            The model in eval mode, on the CPU. Its `card` is the text of its model card,
            or None.

        Raises
        ------
        InputError
            If the model can't be found, or is truncated, altered or of another class.
        """
        folder = folder_of(
            source,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        model = _load(cls, folder)
        model.card = _read_card(folder / CARD_FILE)
        return model.eval()

    def save_pretrained(
        self, folder: str | Path, card: str | None = None, half: bool = False
    ) -> Path:
        """Write the model as a folder, replacing a model that is there.

        Arguments
        ---------
        folder : str or Path
            The folder to write.
        card : str or None
            Text of the model card; None for the card that the model was loaded with, or
            else a card that describes the network and its use.
        half : bool
            Whether to write the weights in half precision, which halves the file. A
            loaded model computes in float32 again.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            If the model is packed (see `InferenceMixin.pack`) or a part is not in the
            registry.
        """
        from safetensors.torch import save

        from speechbrain_cffma.hub.card import model_card

        if self.packed:
            raise InputError("a packed model can't be saved: save it before pack()")
        model_config = config_of(self)
        # Clones, since safetensors refuses tensors that share memory.
        tensors = {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}
        if half:
            tensors = {k: v.half() for k, v in tensors.items()}
        weights = save(
            {key: value.contiguous() for key, value in tensors.items()},
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
            with atomic_write(folder / name) as partial:
                partial.write_bytes(content)
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        revision: str | None = None,
        token: str | None = None,
        commit_message: str = "Add the model",
    ) -> str:
        """Upload the model's folder to the HuggingFace hub, in one commit.

        Arguments
        ---------
        repo_id : str
            Id on the hub, such as "me/my-model". A missing repository is created.
        private : bool
            Whether a new repository is private.
        revision : str or None
            The branch to commit to; None for the main branch. A missing branch is
            created.
        token : str or None
            Token with write permission; None for the token of `hf auth login`.
        commit_message : str
            First line of the commit message.

        Returns
        -------
        str
            The commit's URL.

        Raises
        ------
        InputError
            If the hub can't be reached or the token has no permission.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            files = sorted(self.save_pretrained(folder).iterdir())
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                if revision is not None:
                    api.create_branch(repo_id, branch=revision, exist_ok=True)
                # Not upload_folder, which may split a folder into several commits.
                commit = api.create_commit(
                    repo_id,
                    [CommitOperationAdd(path.name, path) for path in files],
                    commit_message=commit_message,
                    revision=revision,
                )
            # The network and the hub raise many types; the status tells what to do.
            except Exception as error:
                raise InputError(
                    f"the model can't be uploaded to {repo_id!r} on the hub: "
                    f"{_remedy(error)} [{one_line(error)}]"
                ) from error
        return commit.commit_url


def folder_of(source, **options):
    """Find the folder of a model, and download the model if it is on the hub.

    Arguments
    ---------
    source : str or Path
        See `from_pretrained`.
    **options
        Its options.

    Returns
    -------
    Path
        The bundled folder, a local one, or one in the cache of downloads.

    Raises
    ------
    InputError
        If there is no such model.

    Example
    -------
    >>> folder_of("default").name
    'default'
    """
    folder = _BUNDLED if source == DEFAULT_MODEL else Path(source)
    # `Path.is_dir` raises for names that can't be.
    return folder if os.path.isdir(folder) else download(str(source), **options)


def download(source, **options):
    """Download a model from the hub into the cache, without its executable files.

    Arguments
    ---------
    source : str
        Id on the hub.
    **options
        The options of `from_pretrained`.

    Returns
    -------
    Path
        The model's folder in the cache.

    Raises
    ------
    InputError
        If the hub doesn't have it or can't be reached.
    """
    from huggingface_hub import snapshot_download

    needed = [CONFIG_FILE, WEIGHTS_FILE]
    try:
        folder = Path(
            snapshot_download(source, allow_patterns=[*needed, CARD_FILE], **options)
        )
    # The network and the hub raise many types; the status tells what to do.
    except Exception as error:
        raise InputError(
            f"{source!r} is neither a local folder nor a model that can be downloaded now: "
            f"{_remedy(error)} [{one_line(error)}]"
        ) from error
    for name in needed:
        if not (folder / name).is_file():
            raise InputError(
                f"{source!r} on the hub has no {name}: choose a model of "
                "speechbrain-cffma that was uploaded completely"
            )
    return folder


def _remedy(error):
    """What a user can do about an error of the hub's client."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return {
        401: "check the name, and log in with `hf auth login` or pass a token",
        403: "use a token that permits it",
    }.get(status, "check the name and the connection")
