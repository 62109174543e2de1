"""The command `cffma`. What a verb needs is imported when it runs: help is at once.

Authors
 * The speechbrain-cffma developers 2026
"""

import sys

import click

from speechbrain_cffma import __version__
from speechbrain_cffma.errors import InputError, command

FOLDER = click.Path(exists=True, file_okay=False)


@command
def main(argv=None):
    """Run the command line.

    Arguments
    ---------
    argv : list of str or None
        Its arguments; None takes the process's own.

    Example
    -------
    >>> main(["--version"])
    Traceback (most recent call last):
    ...
    SystemExit: 0
    """
    cffma.main(argv, prog_name="cffma")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cffma():
    """Speech enhancement: evaluate any system."""


@cffma.command(no_args_is_help=True)
@click.option("--clean", required=True, type=FOLDER, help="Clean speech.")
@click.option("--noisy", type=FOLDER, help="Noisy speech: a system, and the first.")
@click.option(
    "--enhanced",
    multiple=True,
    metavar="NAME=DIR",
    help="A system and its files; several may follow, or the option again.",
)
@click.argument("further", nargs=-1, metavar="[NAME=DIR]...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False),
    help="Where the report goes.",
)
@click.option(
    "--metrics",
    default="pesq,csig,cbak,covl,ssnr,stoi,si_sdr",
    show_default=True,
    help="Also: pesq_nb, estoi, llr, wss; with speechmos, dnsmos_ovrl, dnsmos_sig, "
    "dnsmos_bak, dnsmos_p808.",
)
@click.option(
    "--scale",
    type=click.Choice(["int16", "unit"]),
    default="int16",
    show_default=True,
    help="Scale of the samples for ssnr, llr, wss, csig, cbak and covl: int16 as in "
    "Loizou's MATLAB code, unit as in most Python ports.",
)
@click.option(
    "--sample-rate",
    type=click.IntRange(min=8000),
    default=16000,
    show_default=True,
    help="Sample rate in Hz at which to score.",
)
@click.option("--resample", is_flag=True, help="Convert files of other sample rates.")
@click.option(
    "--metadata",
    type=click.Path(exists=True, dir_okay=False),
    help="CSV with the columns ID, snr, noise; the ID is the path without extension. "
    "Or a .txt with lines `ID noise snr`. Without it, names such as x_snr5 or "
    "x_bus_10dB tell.",
)
@click.option(
    "--pair-by",
    metavar="REGEX",
    help="What names have in common with those of their clean twins, such as "
    r"'fileid_\d+'.  [default: the whole path without extension]",
)
@click.option(
    "--n-jobs", type=click.IntRange(min=1), help="Processes.  [default: one a core]"
)
@click.option("--overwrite", is_flag=True, help="Score all files anew.")
def evaluate(
    clean,
    noisy,
    enhanced,
    further,
    output,
    metrics,
    overwrite,
    metadata,
    pair_by,
    n_jobs,
    **how,
):
    """Score systems against clean speech and compare them.

    Each system is a folder of files named as their clean twins, in the same subfolders;
    extensions may differ. The report has the scores of each file (scores.csv), means
    and paired differences to the first system with 95 % bootstrap intervals
    (summary.json), the tables of a paper (summary.md), and a page to look at and to
    listen to (report.html).

    Finished scores are kept: after Ctrl-C the same command goes on, and a command with
    a further system scores only that.

    \b
    Examples:
      cffma evaluate --clean clean/ --noisy noisy/ --enhanced mine=out/ -o report/
      cffma evaluate --clean clean/ --noisy noisy/ --enhanced a=a/ b=b/ c=c/ \\
          --metrics pesq,estoi --metadata conditions.csv -o report/
    """
    from pathlib import Path

    from speechbrain_cffma import evaluate as evaluation
    from speechbrain_cffma.report import tables, write_report

    systems = _systems(noisy, [*enhanced, *further])
    metrics = [name.strip() for name in metrics.split(",") if name.strip()]
    settings = evaluation.settings_of(metrics, **how)
    try:
        rows = evaluation.evaluate(
            clean,
            systems,
            output,
            settings,
            metadata,
            n_jobs or -1,
            overwrite,
            pair_by,
        )
    except KeyboardInterrupt:
        click.echo("interrupted: the same command goes on from here", err=True)
        raise SystemExit(130) from None
    summary = write_report(output, rows, settings)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    table = tables.text(summary, settings["metrics"])
    click.echo(table.encode(encoding, "replace").decode(encoding))
    notes = [*evaluation.failures(rows), f"report: {Path(output) / 'report.html'}"]
    click.echo("\n" + "\n".join(notes), err=True)


def _systems(noisy, enhanced):
    """Folders by the names of their systems."""
    systems = {"noisy": noisy} if noisy else {}
    for argument in enhanced:
        name, _, folder = argument.partition("=")
        if not name or not folder:
            raise InputError(f"--enhanced {argument} is not of the form NAME=DIR")
        if name in systems:
            raise InputError(f"there are two systems of the name {name}")
        systems[name] = folder
    if not systems:
        raise InputError("there is no system to score: give --noisy or --enhanced")
    return systems
