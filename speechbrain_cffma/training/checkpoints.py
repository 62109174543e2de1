"""Checkpoints that are never incomplete and store the configuration of their network.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
import logging
import math
import shutil
import zipfile

import yaml
from speechbrain.utils.checkpoints import METAFNAME, Checkpointer
from speechbrain.utils.distributed import if_main_process, run_on_main

from speechbrain_cffma.errors import CFFMAError, InputError, one_line, quoted
from speechbrain_cffma.files import atomic_write
from speechbrain_cffma.registry import config_of

logger = logging.getLogger(__name__)

PARTIAL = "partial-"
ARCHITECTURE_FILE = "architecture.json"


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's `Checkpointer`, which writes under a temporary name and then renames.

    SpeechBrain itself writes the meta file first. If the process is killed while it saves,
    the incomplete checkpoint looks complete.

    Arguments
    ---------
    *args : tuple
        Arguments of `Checkpointer`.
    model : torch.nn.Module or None
        The lobe whose configuration is stored with its weights. Loading checks it, since
        the weights may also fit a network that computes something else, such as one with
        other dilations.
    **kwargs : dict
        Arguments of `Checkpointer`.

    Example
    -------
    >>> import torch
    >>> model = torch.nn.Linear(1, 1)
    >>> checkpointer = AtomicCheckpointer(getfixture("tmp_path"), {"model": model})
    >>> checkpointer.save_checkpoint(name="first").path.name
    'CKPT+first'
    """

    def __init__(self, *args, model=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.model = model
        if if_main_process():
            self._remove_partial()

    def save_checkpoint(self, *args, verbosity=logging.INFO, **kwargs):
        """Save; see `Checkpointer.save_checkpoint`.

        Raises
        ------
        InputError
            If the checkpoint can't be written, for example on a full disk.
        """
        try:
            saved = super().save_checkpoint(*args, verbosity=logging.DEBUG, **kwargs)
            if saved is None:  # not the main process
                return None
            if self.model is not None:
                (saved.path / ARCHITECTURE_FILE).write_text(
                    _architecture(self.model), encoding="utf-8"
                )
        except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError
            self._remove_partial()
            raise InputError(
                f"no checkpoint can be written into {self.checkpoints_dir}: is the disk "
                "full? Make room; the same command then continues from the last checkpoint "
                f"[{one_line(error)}]"
            ) from error
        path = saved.path.with_name(saved.path.name.removeprefix(PARTIAL))
        if path.exists():  # saved before under the same name
            shutil.rmtree(path)
        saved.path.rename(path)
        logger.log(verbosity, "saved the checkpoint %s", path)
        paramfiles = {name: path / p.name for name, p in saved.paramfiles.items()}
        return saved._replace(path=path, paramfiles=paramfiles)

    def delete_checkpoints(self, **kwargs):
        """Delete, in the main process; see `Checkpointer.delete_checkpoints`.

        SpeechBrain lists the checkpoints in each process. One that lists them while the
        main process renames a new one finds fewer to delete, and all then wait forever.
        """
        run_on_main(super().delete_checkpoints, kwargs=kwargs)

    def note(self, checkpoint, meta):
        """Add values to the meta file of a checkpoint, by which the best one is chosen.

        Arguments
        ---------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint
            A saved checkpoint.
        meta : dict
            Plain values by name.

        Example
        -------
        >>> import torch
        >>> folder = getfixture("tmp_path")
        >>> checkpointer = AtomicCheckpointer(folder, {"model": torch.nn.Linear(1, 1)})
        >>> checkpointer.note(checkpointer.save_checkpoint(), {"pesq": 2.5})
        >>> checkpointer.find_checkpoint(max_key="pesq").meta["pesq"]
        2.5
        """
        with atomic_write(checkpoint.path / METAFNAME) as partial:
            partial.write_text(
                yaml.safe_dump({**checkpoint.meta, **meta}), encoding="utf-8"
            )

    def load_checkpoint(self, checkpoint):
        """Load; see `Checkpointer.load_checkpoint`.

        Raises
        ------
        InputError
            If the checkpoint is damaged or belongs to another architecture, or if its
            weights are not finite.
        """
        try:
            for path in checkpoint.paramfiles.values():
                _check_intact(path)
            self._check_architecture(checkpoint.path)
            loaded = super().load_checkpoint(checkpoint)
            self._check_finite()
            return loaded
        except CFFMAError:
            raise
        # The loaders of recoverables may raise anything; the remedy is the same.
        except Exception as error:
            raise InputError(
                f"the checkpoint {checkpoint.path} can't be loaded: it is damaged or belongs "
                "to another architecture. Delete this folder to continue from the checkpoint "
                f"before it, or choose another output_folder [{one_line(error)}]"
            ) from error

    @staticmethod
    def _construct_checkpoint_objects(checkpoint_dirs):
        """Refuse a checkpoint with a damaged meta file: skipping it would silently continue
        from an older one."""
        checkpoints = []
        for folder in checkpoint_dirs:
            try:
                checkpoints += Checkpointer._construct_checkpoint_objects([folder])
                time = checkpoints[-1].meta["unixtime"]
                if not math.isfinite(time):
                    raise ValueError(f"unixtime is {time}")
            except (OSError, LookupError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:  # fmt: skip
                raise InputError(
                    f"{folder / METAFNAME} is damaged: delete its folder to continue from "
                    f"the checkpoint before it [{one_line(error)}]"
                ) from error
        return checkpoints

    def _check_architecture(self, folder):
        """Compare the configurations; strict loading checks only names and shapes."""
        path = folder / ARCHITECTURE_FILE
        if self.model is None or not path.exists():
            return
        theirs, ours = (
            _leaves(json.loads(text))
            for text in (path.read_text(encoding="utf-8"), _architecture(self.model))
        )
        for name, value in ours.items():
            # Values that only one side has follow from another value or another release.
            if value != theirs.get(name, value):
                raise InputError(
                    f"the checkpoint {folder} belongs to another network: {name} is "
                    f"{quoted(theirs[name])} there and {value!r} here. Give the options with "
                    "which it was trained, or another output_folder"
                )

    def _check_finite(self):
        for name, weight in self.model.named_parameters() if self.model else ():
            if not weight.isfinite().all():
                raise ValueError(f"{name} holds NaN or Inf")

    def _remove_partial(self):
        for left_over in self.checkpoints_dir.glob(f"{PARTIAL}*"):
            shutil.rmtree(left_over)

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(PARTIAL + path.name)

    def _custom_checkpoint_dirpath(self, name):
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(PARTIAL + path.name)


def _architecture(model):
    return json.dumps(config_of(model), indent=2)


def _leaves(config, name=""):
    """The values of a configuration by dotted names."""
    if isinstance(config, list):
        config = dict(enumerate(config))
    if not isinstance(config, dict):
        return {name: config}
    return {
        leaf: value
        for key, part in config.items()
        for leaf, value in _leaves(part, f"{name}.{key}".lstrip(".")).items()
    }


def _check_intact(path):
    """Check the checksums that torch.save writes; torch.load does not check them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} in {path} is wrong")
