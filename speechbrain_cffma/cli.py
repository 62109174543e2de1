"""The command `cffma`. Each verb imports what it needs when it runs, so help is instant.

Authors
 * The speechbrain-cffma developers 2026
"""

import os

import click

from speechbrain_cffma import __version__
from speechbrain_cffma.errors import (
    CFFMAError,
    InputError,
    exits_in_one_line,
    interruptible,
    one_line,
    printable,
)
from speechbrain_cffma.metric_table import DEFAULT, SCALES, TABLE


class UserPath(click.Path):
    """A path that may begin with `~`: shells do not expand it after a `=`."""

    def convert(self, value, param, ctx):
        """See `click.Path`."""
        return super().convert(os.path.expanduser(value), param, ctx)


FOLDER = UserPath(exists=True, file_okay=False)


def _further_metrics():
    """The metrics that are not scored by default, grouped by the extra they need."""
    names = {}
    for name, row in TABLE.items():
        if name not in DEFAULT:
            extra = f" (extra {row.extra})" if row.extra != "train" else ""
            names.setdefault(extra, []).append(name)
    return "; ".join(", ".join(group) + extra for extra, group in names.items())


@exits_in_one_line
def main(argv=None):
    """Run the command line.

    Arguments
    ---------
    argv : list of str or None
        Its arguments; None for those of the process.

    Example
    -------
    >>> main(["--version"])
    Traceback (most recent call last):
    ...
    SystemExit: 0
    """
    try:
        code = cffma.main(argv, prog_name="cffma", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort as error:  # click's name for Ctrl-C, and for the end of a file
        if isinstance(error.__cause__, EOFError):
            raise CFFMAError(one_line(error.__cause__)) from error
        raise KeyboardInterrupt from error
    raise SystemExit(code or 0)  # None of a verb


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cffma():
    """Speech enhancement: enhance recordings, evaluate any system, export models."""


_address_option = click.option(
    "--address",
    metavar="HOST:PORT",
    help="Head node of the cluster.  [default: RAY_ADDRESS, or a cluster on this "
    "computer for as long as the command runs]",
)


@cffma.command(no_args_is_help=True)
@click.option("--clean", required=True, type=FOLDER, help="Folder of clean speech.")
@click.option(
    "--noisy",
    type=FOLDER,
    help="Folder of noisy speech. It is scored as the first system.",
)
@click.option(
    "--enhanced",
    multiple=True,
    metavar="NAME=DIR",
    help="A system's name and its folder. Further ones may follow, with or without "
    "the option.",
)
@click.argument("further", nargs=-1, metavar="[NAME=DIR]...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=UserPath(file_okay=False),
    help="Folder to write the report to.",
)
@click.option(
    "--metrics",
    default=",".join(DEFAULT),
    show_default=True,
    help=f"Metrics, separated by commas. Further ones: {_further_metrics()}.",
)
@click.option(
    "--scale",
    type=click.Choice(list(SCALES)),
    default="int16",
    show_default=True,
    help="Sample scale for the metrics "
    f"{', '.join(n for n, r in TABLE.items() if r.has_scale)}: int16 as in Loizou's "
    "MATLAB code, unit as in most Python ports.",
)
@click.option(
    "--sample-rate",
    type=click.IntRange(min=8000),
    default=16000,
    show_default=True,
    help="Sample rate in Hz at which to score.",
)
@click.option(
    "--resample",
    is_flag=True,
    help="Resample files that have another sample rate; otherwise they are refused.",
)
@click.option(
    "--metadata",
    type=UserPath(exists=True, dir_okay=False),
    help="SNR and noise type of each file: a CSV with the columns ID, snr and noise, or "
    "a .txt with lines `ID noise snr`. The ID is the path without extension. Without "
    "this option they are read from names such as x_snr5 or x_bus_10dB.",
)
@click.option(
    "--pair-by",
    metavar="REGEX",
    help="The part of a file's name that it shares with its clean reference, such as "
    r"'fileid_\d+'.  [default: the whole path without extension]",
)
@click.option(
    "--n-jobs",
    type=click.IntRange(min=1),
    help="Number of processes.  [default: one per core]",
)
@click.option("--overwrite", is_flag=True, help="Score all files again.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: on a Ray cluster (extra ray), whose nodes see all files under the same "
    "paths. The scores are the same.",
)
@_address_option
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
    engine,
    address,
    **how,
):
    """Score systems against clean speech and compare them.

    Each system is a folder. Its files have the same names and subfolders as their clean
    references; extensions may differ. The report holds the scores of each file
    (scores.csv), means and paired differences to the first system with 95 % bootstrap
    intervals (summary.json), tables for a paper (summary.md), and a page with plots and
    audio players (report.html).

    Finished scores are kept. After Ctrl-C, run the same command again to continue. If
    you add a system, only that one is scored.

    \b
    Examples:
      cffma evaluate --clean clean/ --noisy noisy/ --enhanced mine=out/ -o report/
      cffma evaluate --clean clean/ --noisy noisy/ --enhanced a=a/ b=b/ c=c/ \\
          --metrics pesq,estoi --metadata conditions.csv -o report/
      cffma evaluate --clean clean/ --enhanced mine=out/ -o report/ \\
          --engine ray --address auto
    """
    from pathlib import Path

    from speechbrain_cffma.evaluation import tables
    from speechbrain_cffma.evaluation.report import write_report
    from speechbrain_cffma.evaluation.scores import failures, scoring_settings
    from speechbrain_cffma.evaluation.systems import evaluate as score_systems

    if address and engine != "ray":
        raise InputError("--address needs --engine ray")
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
            engine,
            address,
        )
        summary = write_report(output, rows, settings)
    # Not click.echo, which writes UTF-8 even to a terminal that shows only ASCII.
    print(tables.text(summary, settings["metrics"]))
    notes = [*failures(rows), f"report: {Path(output) / 'report.html'}"]
    click.echo("\n" + "\n".join(notes), err=True)


_model_option = click.option(
    "--model",
    default="default",
    metavar="FOLDER_OR_ID",
    callback=lambda _context, _option, value: os.path.expanduser(value),
    help="A trained model: its folder, or its id on the HuggingFace hub.  [default: the "
    "bundled model]",
)


def _model_options(verb):
    """The options of a verb that runs a model."""
    for option in (
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16"]),
            default="auto",
            show_default=True,
            help="bf16 is mixed precision; auto uses it if the device supports it.",
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="Device, such as cpu or cuda:1; auto uses a GPU if there is one.",
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
    help="Output folder. For a single input also a file: .wav, .flac, .ogg, .opus, .mp3, "
    ".aiff, .caf, .au, .w64; - writes a WAV to standard output.",
)
@_model_options
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Number of 16-second windows per batch.  [default: 1 on the CPU, 8 on a GPU]",
)
@click.option(
    "--suppression",
    type=click.FloatRange(min=0),
    metavar="DB",
    help="Maximum attenuation; inf for no limit.  [default: the model's]",
)
@click.option(
    "--high-band/--no-high-band",
    default=True,
    show_default=True,
    help="At sample rates above 16 kHz: keep the band above 8 kHz, scaled by the gain "
    "just below it.",
)
@click.option(
    "--subtype",
    metavar="NAME",
    help="Sample format, such as PCM_24 or FLOAT.  [default: the input's]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of processes that enhance files at the same time, each on one core.  "
    "[default: one process on all cores, as for a single file; with --engine ray one per "
    "CPU of the cluster, or per GPU]",
)
@click.option(
    "--overwrite", is_flag=True, help="Enhance files again whose output is up to date."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: on a Ray cluster (extra ray). IN and OUT may then be s3:// URIs, and IN "
    "may hold Parquet files and WebDataset shards (.tar).",
)
@_address_option
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(min=0),
    metavar="G",
    help="GPUs per worker, such as 0.5.  [default: 1 if the cluster has GPUs]",
)
@click.option(
    "--max-row-mb",
    type=click.FloatRange(min=0, min_open=True),
    help="Rows of Parquet files and members of shards that are larger fail.  "
    "[default: 512]",
)
@click.option(
    "--take-over", is_flag=True, help="End another job that writes into the output."
)
def enhance(inputs, output, model, device, precision, overwrite, engine, **options):
    """Enhance recordings: files, folders with subfolders, or pipes (- is standard input).

    Recordings may have any length, any sample rate from 8 to 192 kHz and any number of
    channels; each channel is enhanced separately. Sample rate, channels, levels and
    tags are kept. Inputs are all formats that libsndfile reads and, with the package
    av, other audio and the sound of videos. Formats that can't be written become WAV.

    Outputs that are newer than their input are skipped, so after Ctrl-C you can run the
    same command again to continue. If a file fails, the others are still enhanced; the
    failures are listed at the end, and the exit code is 1. A hidden file marks an output
    folder inside an input folder, so that later commands skip it unless they name it.

    \b
    Examples:
      cffma enhance noisy.wav -o enhanced.wav
      cffma enhance talks/ interview.mp3 -o enhanced/ --suppression 10
      cffma enhance talks/ -o enhanced/ --workers 8
      cffma enhance noisy.wav -o enhanced.wav --model results/mini/1234/model
      ffmpeg -i in.mp4 -f wav - | cffma enhance - -o - > out.wav
      cffma enhance s3://corpus/noisy -o s3://corpus/enhanced --engine ray \\
          --address auto --workers 64
    """
    from functools import partial

    from speechbrain_cffma.inference import enhance as enhancing

    for name in ("batch_size", "workers"):  # they have defaults further down
        if options[name] is None:
            del options[name]
    cluster = {name: options.pop(name) for name in CLUSTER_OPTIONS}
    if engine == "ray":
        how = {"model": model, "device": device, "precision": precision}
        _enhance_on_cluster(inputs, output, overwrite, cluster, **how, **options)
        return
    given = [name.replace("_", "-") for name, value in cluster.items() if value]
    if given:
        raise InputError(f"--{given[0]} needs --engine ray")

    with interruptible():
        jobs, failures = enhancing.plan(inputs, output)
        if jobs:
            enhancing.mark_output(inputs, output)
        if jobs and "workers" in options:
            from speechbrain_cffma.hub.folder import folder_of

            model = folder_of(model)  # The hub is asked once, not by each process.
        load_enhancer = partial(_load_enhancer, model, device, precision)
        outcome = enhancing.enhance_all(jobs, load_enhancer, overwrite, **options)
        outcome.failures[:0] = failures
    click.echo("\n".join(map(printable, _summary(outcome))), err=True)
    if outcome.failures:
        raise SystemExit(1)


#: The options of `--engine ray`.
CLUSTER_OPTIONS = ("address", "gpus_per_worker", "max_row_mb", "take_over")


def _enhance_on_cluster(inputs, output, overwrite, cluster, **options):
    from speechbrain_cffma.cluster.enhance import enhance

    cluster["n_workers"] = options.pop("workers", None)
    cluster["max_row_mb"] = cluster["max_row_mb"] or 512
    with interruptible():
        done = enhance(inputs, output, overwrite=overwrite, **cluster, **options)
    n_failed = done.counts["failed"]
    lines = [f"{done.counts['enhanced']} enhanced"]
    if done.counts["skipped"]:
        lines.append(f"{done.counts['skipped']} skipped: already enhanced")
    if done.limited:
        lines.append(f"{done.limited} with peaks beyond full scale, turned down")
    if n_failed:
        lines.append(f"{n_failed} failed:")
        lines += (f"  {reason}" for reason in done.failures)
    if n_failed > len(done.failures):
        lines.append("  ...")
    lines.append(f"results: {output}/_results")
    click.echo("\n".join(map(printable, lines)), err=True)
    if n_failed:
        raise SystemExit(1)


@cffma.command()
@_model_options
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; with 0.0.0.0 others in your network can use the page.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port to listen on.  [default: 7860, or the next free one]",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="Longest recording that the page accepts.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
def app(model, device, precision, **options):
    """Enhance recordings in the browser, on a page served by this computer.

    Drop or record speech, compare noisy and enhanced by ear, see both spectrograms and
    the mask, adjust the suppression, and download the result. The page works offline,
    and recordings are deleted when you close it. Only this computer can open it unless
    you pass --host.

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
    help="File to write, such as model.onnx.",
)
@_model_option
@click.option(
    "--format",
    type=click.Choice(["onnx"]),
    default="onnx",
    show_default=True,
    expose_value=False,
    help="File format.",
)
def export(output, model):
    """Export a trained model for other runtimes.

    The ONNX graph computes the mask from the waveform and its log1p magnitude, for
    batches of any size and length. The masks are compared with PyTorch's; if they
    differ by more than 1e-4, no file is written. examples/enhance_onnx.py adds the
    Fourier transforms and enhances recordings without torch.

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
    """Lines that tell how many files were enhanced, skipped, limited or failed."""
    yield f"{len(outcome.enhanced)} enhanced"
    if outcome.skipped:
        yield f"{len(outcome.skipped)} skipped: already enhanced (--overwrite enhances them again)"
    for target, excess in outcome.limited.items():
        yield f"{target}: peaks up to {excess:.1f} dB beyond full scale were turned down (--subtype FLOAT keeps them)"
    if outcome.failures:
        yield f"{len(outcome.failures)} failed:"
        yield from (f"  {reason}" for reason in outcome.failures)


def _systems(noisy, enhanced):
    """The folder of each system, by its name."""
    systems = {"noisy": noisy} if noisy else {}
    for argument in enhanced:
        name, _, folder = argument.partition("=")
        if not name or not folder:
            raise InputError(f"--enhanced {argument}: write it as NAME=DIR")
        if name in systems:
            raise InputError(f"two systems are named {name}: rename one")
        systems[printable(name)] = os.path.expanduser(folder)
    if not systems:
        raise InputError("no system to score: pass --noisy or --enhanced")
    return systems
