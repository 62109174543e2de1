"""Train and compare variants of an experiment with several seeds.

    python sweep.py hparams/sweeps/ablation.yaml [--jobs N] [--key=value ...]
    python sweep.py hparams/sweeps/ablation.yaml --engine ray [--address HOST:PORT] ...

Any key of the experiment can be overridden for all runs; output_folder and seeds override
those of the sweep. After an interruption, the same command continues.

Authors
 * The speechbrain-cffma developers 2026
"""

import argparse
import signal
import sys
from contextlib import contextmanager
from functools import partial

from speechbrain_cffma.errors import InputError, exits_in_one_line
from speechbrain_cffma.training.overrides import run_options, split_overrides


@exits_in_one_line
def main(argv=None):
    """Start the runs that have not finished, then write the table of all finished runs.

    Arguments
    ---------
    argv : list of str or None
        Command line; None: that of the process.
    """
    parser = _parser()
    names = {name.replace("_", "-") for name in vars(parser.parse_args([""]))}
    names.add("help")
    rest, overrides = split_overrides(sys.argv[1:] if argv is None else argv, names)
    options = parser.parse_args(rest)
    from speechbrain_cffma.versions import check_torch_pair

    check_torch_pair()
    from speechbrain_cffma.training.comparison import write_comparison
    from speechbrain_cffma.training.sweep import failures_of, prepare, read_sweep

    if given := sorted(run_options() & set(overrides)):
        raise InputError(f"sweep.py has no option --{given[0]}: see --help")
    _check_engine(options)
    sweep = read_sweep(options.sweep, overrides)
    waiting = [run for run in sweep.runs if not run.is_finished()]
    if options.print_commands:
        print("\n".join(run.command() for run in waiting))
        return
    # If a scheduler stops the sweep, its runs are stopped as well, as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.prepare_only:
        prepare(waiting)
        return
    failures = {}
    if waiting and not options.report_only:
        with _engine(options, sweep) as run_each:
            prepare(waiting)
            failures = failures_of(waiting, run_each(waiting))
    print(write_comparison(sweep))
    if failures:
        for index, reason in failures.items():
            run = waiting[index]
            print(f"{run.variant}, seed {run.seed}, failed: {reason}", file=sys.stderr)
        raise SystemExit(1)


def _check_engine(options):
    """Check that the options belong to the engine."""
    others = ("devices",) if options.engine == "ray" else ("address", "cpus", "gpus")
    for name in others:
        if getattr(options, name) not in (None, []):
            instead = "is replaced by --gpus with" if name == "devices" else "needs"
            raise InputError(f"--{name} {instead} --engine ray")


@contextmanager
def _engine(options, sweep):
    """What runs the runs: a function of their list, see `failures_of`."""
    if options.engine == "local":
        from speechbrain_cffma.training.runner import run_here

        n_jobs = options.jobs or max(1, len(options.devices))
        yield partial(run_here, n_jobs=n_jobs, devices=options.devices)
        return
    from speechbrain_cffma.cluster.runs import on_cluster

    with on_cluster(sweep, options.address) as run_on_cluster:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # not Ray's
        resources = {"n_cpus": options.cpus or 1, "n_gpus": options.gpus}
        yield partial(run_on_cluster, n_jobs=options.jobs, **resources)


def _parser():
    parser = argparse.ArgumentParser(
        description="Train and compare variants of an experiment with several seeds. Runs "
        "that have finished are not repeated; interrupted runs are resumed.",
        epilog="--key=value overrides a key of the experiment in all runs; --output_folder "
        "and --seeds override those of the sweep.",
        allow_abbrev=False,
    )
    parser.add_argument("sweep", help="a YAML such as hparams/sweeps/ablation.yaml")
    parser.add_argument(
        "--jobs",
        type=_at_least_1,
        help="number of runs at the same time (default: 1, or one per device; with "
        "--engine ray as many as the cluster has resources for)",
    )
    parser.add_argument(
        "--devices",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        help="distribute the runs over these devices, such as cuda:0,cuda:1",
    )
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray: run on a Ray cluster (extra ray), from a folder that all nodes share",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="head node of the cluster (default: RAY_ADDRESS, or a cluster on this "
        "computer for as long as the sweep runs)",
    )
    parser.add_argument(
        "--cpus", type=_at_least_1, metavar="N", help="CPUs per run (default: 1)"
    )
    parser.add_argument(
        "--gpus",
        type=_share,
        metavar="G",
        help="GPU per run, from 0 to 1 (default: 1 if the cluster has GPUs)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--print-commands",
        action="store_true",
        help="print a command for each unfinished run, without starting it",
    )
    what.add_argument(
        "--prepare-only",
        action="store_true",
        help="prepare the data and stop, for commands that start elsewhere in parallel",
    )
    what.add_argument(
        "--report-only",
        action="store_true",
        help="write the table of finished runs and stop",
    )
    return parser


def _at_least_1(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def _share(text):
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError("from 0 to 1, since a run uses one GPU")
    return float(text)


if __name__ == "__main__":
    main()
