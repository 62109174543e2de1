"""Runs of train.py in processes that die or work together, and start fast."""

import functools
import multiprocessing
import os
import signal
import socket
import traceback

import torch

#: Imports take longer than a small run. Processes are therefore forked from a server that
#: has done the imports and nothing else.
READY = multiprocessing.get_context("forkserver")
READY.set_forkserver_preload(
    ["train", "helpers.started", "speechbrain_cffma.training.brain"]
)


def trained(argv, n_processes=1, dies=None):
    """Run `train.main` in separate processes, as torchrun starts them.

    Arguments
    ---------
    argv : list of str
        The command line.
    n_processes : int
        Number of processes of the run.
    dies : tuple or None
        ("step", n) or ("save", n): the process is killed as by `kill -9`, during the n-th
        optimiser step or the n-th file of a checkpoint.

    Returns
    -------
    list of int
        The exit codes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = {
        "WORLD_SIZE": n_processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    processes = []
    for rank in range(n_processes):
        environment = {**launch, "RANK": rank, "LOCAL_RANK": rank}
        environment = environment if n_processes > 1 else {}
        arguments = (list(map(str, argv)), environment, dies)
        processes.append(READY.Process(target=_train, args=arguments))
        processes[-1].start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _train(argv, environment, dies):
    import train
    from helpers.runs import map_here
    from speechbrain_cffma.metrics import scoring
    from speechbrain_cffma.training.brain import EnhancementBrain

    torch.set_num_threads(1)
    os.environ.update({name: str(value) for name, value in environment.items()})
    scoring.parallel_map = map_here
    EnhancementBrain._end_test = lambda self: None  # Its report is compared nowhere.
    if dies:
        what, n = dies
        owners = {
            "step": (EnhancementBrain, "optimizers_step"),
            "save": (torch, "save"),
        }
        owner, name = owners[what]
        setattr(owner, name, dying(getattr(owner, name), n))
    try:
        train.main(argv)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Python would wait for joblib's workers, which wait for the end of this process.
    os._exit(0)


def dying(function, n):
    """Wrap a function so that its n-th call kills the process before it returns."""
    calls = 0

    @functools.wraps(function)
    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        result = function(*args, **kwargs)
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted
