"""Train and evaluate a speech enhancement experiment.

    python train.py hparams/mini.yaml [--key=value ...]

Any key of the YAML can be overridden. The same command resumes an interrupted run.

Authors
 * The speechbrain-cffma developers 2026
"""

import dataclasses
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

from speechbrain_cffma.errors import InputError, exits_in_one_line, one_line, reason


@exits_in_one_line
def main(argv=None):
    """Prepare the data, train, write the best model to a folder and evaluate it.

    Arguments
    ---------
    argv : list of str or None
        Command line; None: that of the process.
    """
    from speechbrain_cffma.versions import check_torch_pair

    check_torch_pair()
    from speechbrain.utils.distributed import ddp_init_group, if_main_process
    from transformers.utils.logging import disable_progress_bar

    from speechbrain_cffma.inference.device import device_named
    from speechbrain_cffma.training.experiment import load_experiment, read_experiment
    from speechbrain_cffma.training.overrides import parse_command_line
    from speechbrain_cffma.training.provenance import shareable_command

    disable_progress_bar()  # while transformers loads weights
    argv = sys.argv[1:] if argv is None else argv
    path, run_opts, overrides = parse_command_line(argv)
    experiment = read_experiment(path, overrides)
    if run_opts.device:  # an error comes before the data are prepared
        device = str(device_named(run_opts.device))
        run_opts = dataclasses.replace(run_opts, device=device)
    try:
        ddp_init_group(run_opts)
    except ValueError as error:
        raise InputError(
            f"{run_opts.distributed_backend} can't join the processes; it may need a GPU "
            "for each: start fewer processes, or train on CPUs by --device=cpu "
            f"--distributed_backend=gloo [{one_line(error)}]"
        ) from error

    output_folder = load_experiment(experiment, only="output_folder")
    with _held(output_folder) if if_main_process() else nullcontext():
        _train(experiment, output_folder, run_opts, shareable_command(argv))


@contextmanager
def _held(output_folder):
    """Make a folder and lock it: no other process trains into it at the same time."""
    from speechbrain_cffma.files import lock

    try:
        Path(output_folder).mkdir(parents=True, exist_ok=True)
        file = open(Path(output_folder) / ".lock", "ab")
    except OSError as error:
        raise InputError(
            f"{output_folder} can't be written ({reason(error)}): choose another "
            "folder by --output_folder"
        ) from error
    with file:
        try:
            lock(file)
        except InputError as error:
            raise InputError(f"{output_folder}: {error}") from error
        yield


def _train(experiment, output_folder, run_opts, command):
    """Prepare, train and evaluate an experiment that has been read."""
    import speechbrain as sb
    import torch
    from speechbrain.utils.distributed import if_main_process, run_on_main

    from speechbrain_cffma.data.datasets import evaluation_loader, training_loader
    from speechbrain_cffma.training.experiment import load_experiment, prepare_data

    sb.create_experiment_directory(output_folder)
    if if_main_process():
        path = Path(output_folder) / "hyperparams.yaml"
        path.write_text(experiment, encoding="utf-8")

    # First: the other objects may read the files that it writes.
    run_on_main(prepare_data, args=[experiment])
    hparams = load_experiment(experiment)

    brain = hparams["brain"](
        modules=hparams["modules"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
        command=command,
    )
    world_size = torch.distributed.get_world_size() if brain.distributed_launch else 1
    share = {
        "rank": getattr(brain, "rank", 0),
        "world_size": world_size,
        "device": brain.device,
    }
    if not brain.test_only:
        train_loader = training_loader(
            hparams["train_data"],
            hparams["batch_size"],
            hparams["steps_per_epoch"],
            hparams["num_workers"],
            **share,
        )
        valid_loader = evaluation_loader(hparams["valid_manifest"], **share)
        brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
    brain.evaluate(evaluation_loader(hparams["test_manifest"], **share))
    if brain.distributed_launch:
        # Together: if one process ends while the main one still computes scores, the run
        # may be aborted.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
