"""Run the runs of a sweep on this computer, each in a process with a log and a lock.

Authors
 * The speechbrain-cffma developers 2026
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.files import lock, of_project
from speechbrain_cffma.training.sweep import LOG
from speechbrain_cffma.workers import ONE_THREAD

#: Seconds that a run has to end before it is killed.
PATIENCE = 10


def run_here(runs, n_jobs=1, devices=()):
    """Run several runs at a time; a run that fails does not stop the others.

    Arguments
    ---------
    runs : list of Run
        The runs, whose data have been prepared.
    n_jobs : int
        Number of runs at the same time, at least 1.
    devices : sequence of str
        Devices for the runs in turn, such as cuda:0; empty: SpeechBrain's default.

    Yields
    ------
    index : int
        Index of a run that has ended.
    reason : str
        Why it has failed, or "".
    """
    waiting = list(enumerate(runs))[::-1]
    free = list(range(n_jobs))[::-1]
    running = {}  # slot: index, process
    n_threads = max(1, (os.cpu_count() or 1) // n_jobs)
    try:
        while waiting or running:
            while waiting and free:
                index, run = waiting.pop()
                device = devices[free[-1] % len(devices)] if devices else None
                try:
                    running[free[-1]] = index, start(run, n_threads, device)
                    free.pop()
                except InputError as error:
                    yield index, str(error)
            time.sleep(0.1)
            for slot, (index, process) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    free.append(slot)
                    yield index, runs[index].failure(process.returncode)
    finally:
        stop([process for _, process in running.values()])


def start(run, n_threads, device=None, preexec_fn=None):
    """Start a run in a process of its own, which holds the lock of the run's log.

    Arguments
    ---------
    run : Run
        The run.
    n_threads : int
        Number of threads that it computes with, unless the environment has another one.
    device : str or None
        Its device; None: SpeechBrain's default.
    preexec_fn : callable or None
        See `subprocess.Popen`.

    Returns
    -------
    subprocess.Popen
        The process.

    Raises
    ------
    InputError
        If another process is running it.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    train = of_project("train.py")
    command = [sys.executable, train, *run.arguments, "--noprogressbar"]
    if device:
        command.append(f"--device={device}")
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}  # of the log
    for name in ONE_THREAD:
        environment.setdefault(name, str(n_threads))
    with open(run.folder / LOG, "ab") as log:
        # The process holds the lock: if the sweep is killed and started again, it doesn't
        # start a run that is still going.
        lock(log, shared_with_children=True)
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # On Ctrl-C this process stops all runs.
            preexec_fn=preexec_fn,
        )


def stop(processes):
    """End processes and all their children.

    Arguments
    ---------
    processes : list of subprocess.Popen
        The processes.
    """
    for process in processes:
        _signal(process, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0, end - time.monotonic()))
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process, number):
    with contextlib.suppress(ProcessLookupError):  # It has already ended.
        os.killpg(process.pid, number)
