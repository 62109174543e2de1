"""Enhance a corpus on a cluster; this is `cffma enhance --engine ray`.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
from typing import NamedTuple

from tqdm import tqdm

from speechbrain_cffma import media
from speechbrain_cffma.cluster import blocks as planning
from speechbrain_cffma.cluster import connection, job, storage
from speechbrain_cffma.cluster.lease import Lease
from speechbrain_cffma.cluster.rows import Enhance
from speechbrain_cffma.errors import InputError, reason
from speechbrain_cffma.inference.enhance import mark_output

#: Failures that are kept for the summary; all of them are in the results.
SHOWN = 20


class Summary(NamedTuple):
    """What a job has done.

    Arguments
    ---------
    counts : dict
        Number of rows by status: enhanced, skipped, failed.
    limited : int
        Number of rows in which a peak was turned down.
    failures : list of str
        The first `SHOWN` failures, a line each.
    """

    counts: dict
    limited: int
    failures: list


def enhance(
    inputs,
    output,
    *,
    model="default",
    device="auto",
    precision="auto",
    overwrite=False,
    address=None,
    n_workers=None,
    gpus_per_worker=None,
    max_row_mb=512,
    take_over=False,
    **options,
):
    """Enhance a corpus: folders, object stores, Parquet files and WebDataset shards.

    A call that was interrupted continues when it is repeated.

    Arguments
    ---------
    inputs : list of str
        Files, folders and `s3://` URIs.
    output : str
        Folder or URI, which also gets the results: Parquet files in its folder
        `_results`, with the fields of `cluster.blocks.Result`.
    model : str
        See `CFFMAEnhancer.from_pretrained`.
    device : str
        "cpu", "cuda", or "auto": a GPU if the cluster has one.
    precision : str
        "fp32", "bf16", or "auto": bf16 if all nodes have it.
    overwrite : bool
        Whether to enhance again what is newer than its source.
    address : str or None
        See `connection.connected`.
    n_workers : int or None
        Number of workers; None for as many as the cluster has CPUs, or GPUs.
    gpus_per_worker : float or None
        GPUs per worker, which may be a fraction; None for 1 on "cuda" and 0 on "cpu".
    max_row_mb : float
        Rows of Parquet and members of shards that are larger fail.
    take_over : bool
        Whether to end another job that writes into the output.
    **options
        See `Enhance`.

    Returns
    -------
    Summary
        What it has done.

    Raises
    ------
    CFFMAError
        If the work can't begin, or another job has taken over.
    """
    inputs = [_absolute(path) for path in inputs]
    output = _absolute(output)
    if any(media.is_pipe(path) for path in (*inputs, output) if "://" not in path):
        raise InputError("pipes are for one machine: leave out --engine ray")
    if os.path.splitext(output)[1].lower() in media.CONTAINERS:
        raise InputError(f"{output} is one file: with --engine ray choose a folder")
    work, failures = planning.plan(inputs, output, overwrite)
    if not work:
        return _followed([], failures, 0)
    if not storage.is_remote(output):
        _make_folder(output)
        mark_output([path for path in inputs if not storage.is_remote(path)], output)
    with connection.connected(address, n_workers) as ray:
        versions = connection.check_versions()
        if not storage.is_remote(output):
            connection.check_folder(output)
        device, precision, gpus = _resolved(ray, device, precision, gpus_per_worker)
        total = ray.cluster_resources()
        if n_workers is None:
            n_workers = int(total["GPU"] / gpus if gpus else total.get("CPU", 1))
        options |= {"max_row_mb": max_row_mb, "rows_together": 1}
        rows = Enhance(model, device=device, precision=precision, **options)
        with Lease(output, take_over) as lease:
            job.forget_moved(output, work)
            # A node that joins later must see the output: this job's lease in it.
            conditions = connection.Conditions(versions, lease.path)
            resources = {"num_cpus": 1, "num_gpus": gpus}
            answers = job.run(
                work, rows, output, n_workers, lease.check, conditions, **resources
            )
            return _followed(answers, failures, len(work))


def _make_folder(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} can't be written ({reason(error)})") from error


def _absolute(path):
    return path if storage.is_remote(path) or path == "-" else os.path.abspath(path)


def _resolved(ray, device, precision, gpus):
    """Device, precision and GPUs per worker, the same for all workers."""
    n_gpus = ray.cluster_resources().get("GPU", 0)
    if device == "auto":
        device = "cuda" if (n_gpus if gpus is None else gpus) else "cpu"
    if gpus is None:
        gpus = 0 if device == "cpu" else 1
    if gpus > n_gpus:
        raise InputError(
            f"the cluster has {n_gpus:g} GPUs, a worker needs {gpus:g}: "
            "--gpus-per-worker=0 runs on CPUs"
        )
    if device != "cpu" and not gpus:
        raise InputError(f"--device {device} needs --gpus-per-worker above 0")
    if precision == "auto":
        if gpus:
            task = ray.remote(num_gpus=gpus, max_retries=0)(_has_bf16_on)
            is_mixed = ray.get(task.remote(device))
        else:
            is_mixed = all(
                known is True
                for known in connection.on_each_node(_has_bf16_on, device).values()
            )
        precision = "bf16" if is_mixed else "fp32"
    return device, precision, gpus


def _has_bf16_on(device):
    import torch

    from speechbrain_cffma.inference.device import has_bf16

    return has_bf16(torch.device(device))


def _followed(answers, failures, n_blocks):
    """Follow a job to its end, with a progress bar of seconds of audio and speed."""
    counts = {"enhanced": 0, "skipped": 0, "failed": len(failures)}
    shown, limited, n_done = failures[:SHOWN], 0, 0
    form = "{n:.0f} s of audio [{elapsed}{postfix}]"
    with tqdm(bar_format=form) as progress:
        for answer in answers:
            if isinstance(answer, planning.Result):
                seconds = answer.seconds if answer.status == "enhanced" else 0
                progress.update(seconds)
                continue
            n_done += 1
            speed = progress.n / max(progress.format_dict["elapsed"], 1e-3)
            progress.set_postfix_str(
                f"{speed:.1f} x real time, {n_done} of {n_blocks} blocks"
            )
            for result in answer.results:
                counts[result.status] += 1
                limited += result.turned_down > 0
                if result.status == "failed" and len(shown) < SHOWN:
                    shown.append(_line(result))
    return Summary(counts, limited, shown)


def _line(result):
    """A line for a failure; most reasons begin with the file's name."""
    if result.reason.startswith(result.path):
        return result.reason
    return f"{result.path}: {result.reason}"
