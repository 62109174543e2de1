"""Run the runs of a sweep as Ray tasks, with the resources that they ask for.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
import time
from contextlib import closing, contextmanager
from functools import partial

from speechbrain_cffma.cluster.calls import call_each
from speechbrain_cffma.cluster.connection import (
    PACKAGES,
    Conditions,
    check_files,
    check_folder,
    check_versions,
    connected,
    import_ray,
)
from speechbrain_cffma.errors import CFFMAError, InputError, reason
from speechbrain_cffma.files import of_project
from speechbrain_cffma.training.runner import start
from speechbrain_cffma.workers import ONE_THREAD, end_with_parent

#: A run goes on from its last checkpoint, so that lost workers cost it little. But one that
#: always exhausts the memory has to end.
LIVES = 5
#: Seconds that a run waits for its lock, which the file system holds for a node that is
#: lost, and processes that a run has started hold for some seconds.
PATIENCE = 120


@contextmanager
def on_cluster(sweep, address=None):
    """Connect to a cluster on whose nodes the runs of a sweep can work.

    Arguments
    ---------
    sweep : Sweep
        The sweep, in a folder that all nodes see, as they see the working directory.
    address : str or None
        See `connection.connected`.

    Yields
    ------
    callable
        `run_on_cluster`, which also checks nodes that join later.

    Raises
    ------
    InputError
        If there is no cluster, or a node does not see a folder.
    InstallError
        If Ray is not installed, or a node has other versions.

    Example
    -------
    >>> with on_cluster(sweep) as run_on_cluster:  # doctest: +SKIP
    ...     failures_of(sweep.runs, run_on_cluster(sweep.runs))
    {}
    """
    with connected(address):
        versions = check_versions((*PACKAGES, "transformers"))
        experiments = {run.arguments[0] for run in sweep.runs}
        check_files([os.getcwd(), of_project("train.py"), *sorted(experiments)])
        check_folder(sweep.folder)
        conditions = Conditions(versions, os.path.abspath(sweep.folder))
        yield partial(run_on_cluster, conditions=conditions)


def run_on_cluster(runs, n_jobs=None, n_cpus=1, n_gpus=None, conditions=None):
    """Run the runs; one that fails does not stop the others.

    Arguments
    ---------
    runs : list of Run
        The runs, whose data have been prepared.
    n_jobs : int or None
        Number of runs at the same time; None for all that the cluster has resources for.
    n_cpus : int
        CPUs for each run, which computes with as many threads.
    n_gpus : float or None
        The share of a GPU for each run; None for one GPU if the cluster has any.
    conditions : Conditions or None
        What must hold on the node of each run.

    Yields
    ------
    index : int
        Index of a run that has ended.
    reason : str
        Why it has failed, or "".

    Raises
    ------
    InputError
        If no node has the resources.

    Example
    -------
    >>> list(run_on_cluster(sweep.runs, n_cpus=2))  # doctest: +SKIP
    [(0, ''), (1, '')]
    """
    if n_gpus is None:
        n_gpus = 1 if import_ray().cluster_resources().get("GPU") else 0
    calls = [(run, os.getcwd(), n_cpus, PATIENCE) for run in runs]
    outcomes = call_each(
        _train,
        calls,
        n_at_once=n_jobs or len(runs),
        lives=LIVES,
        conditions=conditions,
        num_cpus=n_cpus,
        num_gpus=n_gpus,
    )
    with closing(outcomes):
        for outcome in outcomes:
            yield outcome.index, outcome.crash or outcome.result


def _train(run, folder, n_threads, patience):
    """Run a run in this folder; return the reason why it failed, or ""."""
    try:
        os.chdir(folder)
        # Ray's launcher starts nodes with one thread, whatever a task asks for.
        os.environ.update(dict.fromkeys(ONE_THREAD, str(n_threads)))
        process = _start(run, n_threads, time.monotonic() + patience)
        return run.failure(process.wait())
    except CFFMAError as error:
        return str(error)
    except OSError as error:
        return ": ".join(filter(None, [error.filename, reason(error)]))


def _start(run, n_threads, deadline):
    """Start a run as soon as its lock is free."""
    while True:
        try:
            # It ends with this worker, so that its repetition elsewhere is the only one.
            return start(run, n_threads, preexec_fn=end_with_parent)
        except InputError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
