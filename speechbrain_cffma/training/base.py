"""The Brain on which the training of enhancers and of SSL models is based.

Authors
 * The speechbrain-cffma developers 2026
"""

import logging
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import infer_device
from torch import nn
from transformers import get_scheduler

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.inference.device import has_bf16, native_precision

logger = logging.getLogger(__name__)


class TrainingBrain(sb.Brain):
    """A Brain whose resumed runs give the same result as uninterrupted ones, on a CPU
    bitwise.

    With several processes, each has its share of the training batches and of the
    utterances for evaluation. Logged values are means over all processes.

    Subclasses implement `optimizers()` and write into `self.output_folder`. With
    `--debug` it is the subfolder `debug/` of the hparams' output_folder. The Brain uses
    these hparams: seed, output_folder, epoch_counter, lr_schedule, warmup_steps and
    number_of_epochs; see hparams/run.yaml. If `precision` is "auto" there, the Brain trains
    in bf16 where the device has instructions for it, and in fp32 elsewhere.

    Arguments
    ---------
    modules, opt_class, hparams, run_opts, checkpointer
        Arguments of `speechbrain.Brain`.
    command : str
        The command of the run, for the model card.

    Raises
    ------
    InputError
        If the options do not fit each other or the device.
    """

    def __init__(
        self,
        modules=None,
        opt_class=None,
        hparams=None,
        run_opts=None,
        checkpointer=None,
        command="",
    ):
        for name, module in _by_name(modules).items():
            if not isinstance(module, nn.Module):
                raise InputError(
                    f"{name} is {module!r}, not a torch module: give one by !new: or !ref "
                    "in a YAML file"
                )
        if hparams.get("precision") == "auto":
            device = torch.device(_device_of(run_opts) or infer_device())
            hparams = {**hparams, "precision": native_precision(device)}
        try:
            super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        except ValueError as error:  # options that don't fit, such as fp16 on a CPU
            raise InputError(" ".join(str(error).split())) from error
        device = torch.device(self.device)
        if device.type == "cpu" and self.precision == "bf16" and not has_bf16(device):
            logger.warning(
                "this CPU has no instructions for bf16 and emulates it: --precision=fp32 "
                "is many times faster"
            )
        self.command = command
        # A debug run of two batches must not replace the models of a real run.
        folder = Path(self.hparams.output_folder)
        self.output_folder = folder / "debug" if self.debug else folder
        self.schedulers = {}
        self.n_batches = {}

    def optimizers(self):
        """Make the optimisers.

        Returns
        -------
        dict
            Optimisers by name; each name ends in "optimizer".
        """
        raise NotImplementedError

    def on_fit_batch_start(self, batch, should_step):
        """Seed the step by (seed, epoch, step), so that a resumed run has the same dropout."""
        state = (self.hparams.seed, self.hparams.epoch_counter.current, self.step)
        seed = np.random.SeedSequence((*state, self._rank())).generate_state(1)[0]
        torch.manual_seed(int(seed))
        self.batch_ids = batch.id

    def check_loss_isfinite(self, loss):
        """Stop if the loss is NaN or Inf; existing checkpoints stay.

        Raises
        ------
        InputError
            If the loss is not finite. The message has the epoch, the step and the IDs of
            the batch.
        """
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} in epoch {self.hparams.epoch_counter.current}, "
                f"step {self.step}; the batch holds {', '.join(self.batch_ids)}. The last "
                "checkpoint is kept: check these files, or lower the learning rate"
            )

    def init_optimizers(self):
        """Make the optimisers, each with a learning-rate schedule.

        Raises
        ------
        InputError
            If the schedule is unknown, or an optimiser refuses its options.
        """
        n_steps = self.steps_per_epoch // self.grad_accumulation_factor
        try:
            self.optimizers_dict = self.optimizers()
            self.schedulers = {
                name.replace("optimizer", "schedule"): get_scheduler(
                    self.hparams.lr_schedule,
                    optimizer,
                    num_warmup_steps=self.hparams.warmup_steps,
                    num_training_steps=n_steps * self.hparams.number_of_epochs,
                )
                for name, optimizer in self.optimizers_dict.items()
            }
        except ValueError as error:  # such as a negative learning rate
            raise InputError(
                f"the optimisers can't be made: {error}; check the learning rates and the "
                "options of the optimisers"
            ) from error
        self.asked_rates = {k: s.base_lrs[0] for k, s in self.schedulers.items()}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverables(self.optimizers_dict)
            self.checkpointer.add_recoverables(self.schedulers)

    def on_fit_start(self):
        """Resume; warn if the checkpoint's learning rates differ from those of the YAML."""
        super().on_fit_start()
        for name, schedule in self.schedulers.items():
            kept, asked = schedule.base_lrs[0], self.asked_rates[name]
            if kept != asked:
                logger.warning(
                    "the run continues with the initial %s of its checkpoint, %g; to train "
                    "with %g, give another output_folder",
                    name.removesuffix("_schedule") + " learning rate",
                    kept,
                    asked,
                )

    def optimizers_step(self):
        """Clip the gradient over all parameters, and step all optimisers."""
        optimizers = self.optimizers_dict.values()
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)
        trainable = [p for p in self.modules.parameters() if p.requires_grad]
        torch.nn.utils.clip_grad_norm_(trainable, self.max_grad_norm)
        for optimizer in optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.zero_grad(set_to_none=True)
        for schedule in self.schedulers.values():
            schedule.step()
        self.optimizer_step += 1

    def _should_save_intra_epoch_ckpt(self, *args):
        """Save only after a step of the optimisers: checkpoints hold no gradients."""
        return self.step % self.grad_accumulation_factor == 0 and (
            super()._should_save_intra_epoch_ckpt(*args)
        )

    def fit(self, epoch_counter, train_loader, valid_loader):
        """Train; see `speechbrain.Brain.fit`.

        Arguments
        ---------
        epoch_counter : iterable
            Counter of the epochs.
        train_loader : torch.utils.data.DataLoader
            Loader from `datasets.training_loader`.
        valid_loader : torch.utils.data.DataLoader
            Loader from `datasets.evaluation_loader`.
        """
        self.steps_per_epoch = len(train_loader)
        self.n_batches[sb.Stage.TRAIN] = len(train_loader)
        self.n_batches[sb.Stage.VALID] = len(valid_loader)
        self.batch_sampler = train_loader.batch_sampler
        super().fit(epoch_counter, train_loader, valid_loader)

    def evaluate(self, test_loader):
        """Evaluate the best checkpoint; see `speechbrain.Brain.evaluate`.

        Arguments
        ---------
        test_loader : torch.utils.data.DataLoader
            Loader from `datasets.evaluation_loader`.
        """
        self.n_batches[sb.Stage.TEST] = len(test_loader)
        return super().evaluate(test_loader)

    def mean_over_processes(self, stage, loss):
        """The mean of a stage's loss over the batches of all processes.

        Arguments
        ---------
        stage : speechbrain.Stage
            The stage.
        loss : float
            The mean over the batches of this process.

        Returns
        -------
        float
            The mean over all processes, the same in each process.
        """
        shares = gather((loss, self.n_batches[stage]))
        return sum(mean * n for mean, n in shares) / sum(n for _, n in shares)

    def on_stage_start(self, stage, epoch=None):
        """Continue an interrupted epoch where it stopped."""
        if stage == sb.Stage.TRAIN:
            self.batch_sampler.set_epoch(epoch, first_batch=self.step)

    def _rank(self):
        return getattr(self, "rank", 0)


class RunningMeans:
    """Means of named values, which are summed on their device.

    Adding values does not wait for a GPU; only reading the means does.

    Arguments
    ---------
    sums : dict or None
        Initial sums by name.
    count : int
        Number of values in each of these sums.

    Example
    -------
    >>> means = RunningMeans()
    >>> for value in (1.0, 2.0):
    ...     means.add({"loss": torch.tensor(value)})
    >>> means.read()
    {'loss': 1.5}
    """

    def __init__(self, sums=None, count=0):
        self.sums = dict(sums or {})
        self.count = count

    def add(self, values):
        """Add one value for each name.

        Arguments
        ---------
        values : dict
            Scalar tensors by name, without a gradient.
        """
        for name, value in values.items():
            self.sums[name] = value + self.sums.get(name, 0.0)
        self.count += 1

    def state(self):
        """The state for a checkpoint.

        Returns
        -------
        dict
            Arguments for a new object with this state.
        """
        sums = {name: float(value) for name, value in self.sums.items()}
        return {"sums": sums, "count": self.count}

    def read(self):
        """Read the means.

        Returns
        -------
        dict
            Floats by name.
        """
        sums = self.state()["sums"]
        return {name: value / self.count for name, value in sums.items()}


def gather(value):
    """Collect a value from each process.

    Arguments
    ---------
    value : object
        Anything that can be pickled.

    Returns
    -------
    list
        The values of all processes in order; each process gets the same list.

    Example
    -------
    >>> gather("alone")
    ['alone']
    """
    if not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def _by_name(modules):
    """The modules of a Brain; what is no mapping has the name of the hparam."""
    return dict(modules) if hasattr(modules, "items") else {"modules": modules}


def _device_of(run_opts):
    """The device that the options name, which SpeechBrain takes as a dict, too, or None."""
    if isinstance(run_opts, dict):
        return run_opts.get("device")
    return getattr(run_opts, "device", None)
