"""Train and compare variants of an experiment with several seeds.

    python sweep.py hparams/sweeps/ablation.yaml [--jobs N] [--key=value ...]

Any key of the experiment can be overridden for all runs; output_folder and seeds override
those of the sweep. After an interruption, the same command continues.

Authors
 * The speechbrain-cffma developers 2026
"""

import argparse
import signal
import sys

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
    from speechbrain_cffma.training.sweep import prepare, read_sweep, run_all

    if given := sorted(run_options() & set(overrides)):
        raise InputError(f"sweep.py has no option --{given[0]}: see --help")
    sweep = read_sweep(options.sweep, overrides)
    waiting = [run for run in sweep.runs if not run.is_finished()]
    if options.print_commands:
        print("\n".join(run.command() for run in waiting))
        return
    # If a scheduler stops the sweep, its runs are stopped as well, as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failures = {}
    if not options.report_only:
        prepare(waiting)
    if not (options.report_only or options.prepare_only):
        n_jobs = options.jobs or max(1, len(options.devices))
        failures = run_all(waiting, n_jobs, options.devices)
    if options.prepare_only:
        return
    print(write_comparison(sweep))
    if failures:
        for index, reason in failures.items():
            run = waiting[index]
            print(f"{run.variant}, seed {run.seed}, failed: {reason}", file=sys.stderr)
        raise SystemExit(1)


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
        help="number of runs at the same time (default: 1, or one per device)",
    )
    parser.add_argument(
        "--devices",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        help="distribute the runs over these devices, such as cuda:0,cuda:1",
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


if __name__ == "__main__":
    main()
