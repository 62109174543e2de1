"""The command `cffma`. What a verb needs is imported when it runs: help is at once.

Authors
 * The speechbrain-cffma developers 2026
"""

import os

import click

from speechbrain_cffma import __version__
from speechbrain_cffma.errors import (
    InputError,
    exits_in_one_line,
    interruptible,
    printable,
)
from speechbrain_cffma.metric_table import DEFAULT, SCALES, TABLE


class UserPath(click.Path):
    """A path in which `~` is the home folder: after a `=`, shells leave it."""

    def convert(self, value, param, ctx):
        """See `click.Path`."""
        return super().convert(os.path.expanduser(value), param, ctx)


FOLDER = UserPath(exists=True, file_okay=False)


def _further_metrics():
    """The metrics that are not scored by default, by the extra that they need."""
    names = {}
    for name, row in TABLE.items():
        if name not in DEFAULT:
            extra = f"with the extra {row.extra} " if row.extra != "train" else ""
            names.setdefault(extra, []).append(name)
    return "; ".join(extra + ", ".join(group) for extra, group in names.items())


@exits_in_one_line
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
    """Speech enhancement: enhance recordings, evaluate any system, export models."""


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
    type=UserPath(file_okay=False),
    help="Where the report goes.",
)
@click.option(
    "--metrics",
    default=",".join(DEFAULT),
    show_default=True,
    help=f"Also: {_further_metrics()}.",
)
@click.option(
    "--scale",
    type=click.Choice(list(SCALES)),
    default="int16",
    show_default=True,
    help=f"Scale of the samples for {', '.join(n for n, r in TABLE.items() if r.has_scale)}: "
    "int16 as in Loizou's MATLAB code, unit as in most Python ports.",
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
    type=UserPath(exists=True, dir_okay=False),
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

    from speechbrain_cffma.evaluation import tables
    from speechbrain_cffma.evaluation.report import write_report
    from speechbrain_cffma.evaluation.scores import failures, scoring_settings
    from speechbrain_cffma.evaluation.systems import evaluate as score_systems

    systems = _systems(noisy, [*enhanced, *further])
    metrics = [name.strip() for name in metrics.split(",") if name.strip()]
    settings = scoring_settings(metrics, **how)
    with interruptible():
        rows = score_systems(
            clean,
            systems,
            output,
            settings,
            metadata,
            n_jobs or -1,
            overwrite,
            pair_by,
        )
        summary = write_report(output, rows, settings)
    # Not by click, which writes UTF-8 to a terminal that shows ASCII alone.
    print(tables.text(summary, settings["metrics"]))
    notes = [*failures(rows), f"report: {Path(output) / 'report.html'}"]
    click.echo("\n" + "\n".join(notes), err=True)


_model_option = click.option(
    "--model",
    default="default",
    metavar="FOLDER_OR_ID",
    callback=lambda _context, _option, value: os.path.expanduser(value),
    help="A trained model: its folder, or its id on the HuggingFace hub.  [default: the "
    "one that comes with the package]",
)


def _model_options(verb):
    """The options of a verb that runs a model."""
    for option in (
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16"]),
            default="auto",
            show_default=True,
            help="bf16 is mixed precision; auto takes it where the device has it.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="Such as cpu or cuda:1; auto takes a GPU if there is one.",
        ),
        _model_option,
    ):
        verb = option(verb)
    return verb


def _load_enhancer(model, device, precision):
    """A trained model, on its device, for inference."""
    from speechbrain_cffma.inference.device import device_named
    from speechbrain_cffma.lobes import CFFMAEnhancer

    device = device_named(device)
    return CFFMAEnhancer.from_pretrained(model).to(device).pack(precision)


@cffma.command(no_args_is_help=True)
@click.argument(
    "inputs",
    nargs=-1,
    required=True,
    metavar="IN...",
    type=UserPath(allow_dash=True),
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=UserPath(allow_dash=True),
    help="A folder, or for one file a file: .wav, .flac, .ogg, .opus, .mp3, .aiff, .caf, "
    ".au, .w64; - is standard output, as WAV.",
)
@_model_options
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Windows of 16 s at once.  [default: 1 on the CPU, 8 on a GPU]",
)
@click.option(
    "--suppression",
    type=click.FloatRange(min=0),
    metavar="DB",
    help="Attenuate nothing by more than this; inf for no bound.  [default: the model's]",
)
@click.option(
    "--high-band/--no-high-band",
    default=True,
    show_default=True,
    help="Above 16 kHz: keep what lies over 8 kHz, with the gain of the band below it.",
)
@click.option(
    "--subtype",
    metavar="NAME",
    help="Sample format, such as PCM_24 or FLOAT.  [default: the source's]",
)
@click.option("--overwrite", is_flag=True, help="Also files that are there and newer.")
def enhance(inputs, output, model, device, precision, overwrite, **options):
    """Enhance recordings: files, folders with their trees, or pipes (- is standard input).

    Any length, any sample rate from 8 to 192 kHz, any number of channels, each by
    itself. Sample rate, channels, levels and tags stay as they are. Whatever libsndfile
    reads goes in; with the package av also other audio and the sound of videos. What
    can't be written as what it was becomes WAV.

    Files that are there already, and newer than their source, are not made again: after
    Ctrl-C the same command goes on. A file that fails does not stop the others; they
    are listed at the end, and the exit code is 1. An output folder inside an input
    folder is marked by a hidden file: later commands leave it out unless they name it.

    \b
    Examples:
      cffma enhance noisy.wav -o enhanced.wav
      cffma enhance talks/ interview.mp3 -o enhanced/ --suppression 10
      cffma enhance noisy.wav -o enhanced.wav --model results/mini/1234/model
      ffmpeg -i in.mp4 -f wav - | cffma enhance - -o - > out.wav
    """
    from functools import partial

    from speechbrain_cffma.inference import enhance as enhancing

    if options["batch_size"] is None:
        del options["batch_size"]

    load_enhancer = partial(_load_enhancer, model, device, precision)
    with interruptible():
        jobs, failures = enhancing.plan(inputs, output)
        if jobs:
            enhancing.mark_output(inputs, output)
        outcome = enhancing.enhance_all(jobs, load_enhancer, overwrite, **options)
        outcome.failures[:0] = failures
    click.echo("\n".join(map(printable, _summary(outcome))), err=True)
    if outcome.failures:
        raise SystemExit(1)


@cffma.command()
@_model_options
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 lets others in your network use the page.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port to listen on.  [default: 7860, or the next that is free]",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="Longest recording.",
)
@click.option("--open", "open_page", is_flag=True, help="Open it in the browser.")
def app(model, device, precision, **options):
    """Enhance recordings in the browser: a page on this computer.

    Drop or record speech, hear noisy and enhanced side by side, see both spectrograms
    and the mask, move the suppression, download the result. The page needs no network,
    and recordings are removed when it is closed. It is this computer's alone unless
    --host tells otherwise.

    \b
    Examples:
      cffma app --open
      cffma app --host 0.0.0.0 --port 8000 --max-minutes 60
    """
    from speechbrain_cffma.app.serve import serve

    serve(_load_enhancer(model, device, precision), **options)


@cffma.command(no_args_is_help=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=UserPath(dir_okay=False),
    help="The file, such as model.onnx.",
)
@_model_option
@click.option(
    "--format",
    type=click.Choice(["onnx"]),
    default="onnx",
    show_default=True,
    expose_value=False,
    help="Of the file.",
)
def export(output, model):
    """Write a trained model as a file for other runtimes.

    The ONNX graph goes from the waveform and its log1p magnitude to the mask, for
    batches of any size and length. It is checked against PyTorch, and not written if a
    mask differs by more than 1e-4. The transforms around it are in
    examples/enhance_onnx.py, which enhances recordings without torch.

    \b
    Examples:
      cffma export -o model.onnx
      python examples/enhance_onnx.py model.onnx noisy.wav enhanced.wav
    """
    from pathlib import Path

    from speechbrain_cffma.inference.export import export_onnx
    from speechbrain_cffma.lobes import CFFMAEnhancer

    difference = export_onnx(CFFMAEnhancer.from_pretrained(model), output)
    click.echo(
        f"{output}: {Path(output).stat().st_size / 1e6:.1f} MB, "
        f"masks within {difference:.1e} of PyTorch's",
        err=True,
    )


def _summary(outcome):
    """What became of the files, in lines."""
    yield f"{len(outcome.enhanced)} enhanced"
    if outcome.skipped:
        yield f"{len(outcome.skipped)} skipped, as they are there: --overwrite renews them"
    for target, excess in outcome.limited.items():
        yield f"{target}: peaks up to {excess:.1f} dB beyond full scale were turned down: --subtype FLOAT keeps them"
    if outcome.failures:
        yield f"{len(outcome.failures)} failed:"
        yield from (f"  {reason}" for reason in outcome.failures)


def _systems(noisy, enhanced):
    """Folders by the names of their systems."""
    systems = {"noisy": noisy} if noisy else {}
    for argument in enhanced:
        name, _, folder = argument.partition("=")
        if not name or not folder:
            raise InputError(f"--enhanced {argument} is not of the form NAME=DIR")
        if name in systems:
            raise InputError(f"there are two systems of the name {name}")
        systems[printable(name)] = os.path.expanduser(folder)
    if not systems:
        raise InputError("there is no system to score: give --noisy or --enhanced")
    return systems
