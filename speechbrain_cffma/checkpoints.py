"""Checkpoints that are either whole or not there.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
import shutil
import zipfile

from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import if_main_process

from speechbrain_cffma.errors import InputError, one_line

logger = logging.getLogger(__name__)

PARTIAL = "partial-"


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's `Checkpointer`, writing under another name and renaming at the end.

    SpeechBrain's own writes the meta file first, so that a process killed while it
    saves leaves a checkpoint that looks whole. Arguments as for `Checkpointer`.

    Example
    -------
    >>> import torch
    >>> model = torch.nn.Linear(1, 1)
    >>> checkpointer = AtomicCheckpointer(getfixture("tmp_path"), {"model": model})
    >>> checkpointer.save_checkpoint(name="first").path.name
    'CKPT+first'
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if if_main_process():
            for left_over in self.checkpoints_dir.glob(f"{PARTIAL}*"):
                shutil.rmtree(left_over)

    def save_checkpoint(self, *args, verbosity=logging.INFO, **kwargs):
        """Save; see `Checkpointer.save_checkpoint`."""
        saved = super().save_checkpoint(*args, verbosity=logging.DEBUG, **kwargs)
        if saved is None:  # not the main process
            return None
        path = saved.path.with_name(saved.path.name.removeprefix(PARTIAL))
        if path.exists():  # saved before under the same name
            shutil.rmtree(path)
        saved.path.rename(path)
        logger.log(verbosity, "saved the checkpoint %s", path)
        paramfiles = {name: path / p.name for name, p in saved.paramfiles.items()}
        return saved._replace(path=path, paramfiles=paramfiles)

    def load_checkpoint(self, checkpoint):
        """Load; see `Checkpointer.load_checkpoint`.

        Raises
        ------
        InputError
            If the checkpoint is truncated, altered or of another architecture.
        """
        try:
            for path in checkpoint.paramfiles.values():
                _check_intact(path)
            return super().load_checkpoint(checkpoint)
        # Each recoverable's own loader raises what it likes; the remedy is the same.
        except Exception as error:
            raise InputError(
                f"the checkpoint {checkpoint.path} can't be loaded: it is damaged or of another "
                "architecture. Delete that folder to go on from the one before, or choose "
                f"another output_folder [{one_line(error)}]"
            ) from error

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(PARTIAL + path.name)

    def _custom_checkpoint_dirpath(self, name):
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(PARTIAL + path.name)


def _check_intact(path):
    """torch.load does not look at the checksums that torch.save writes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} in {path} is wrong")
