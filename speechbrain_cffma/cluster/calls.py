"""Calls on the cluster that is connected. If a worker or a node is lost, they are repeated.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
from collections import Counter, deque
from contextlib import closing

from speechbrain_cffma.cluster.connection import import_ray, is_own
from speechbrain_cffma.errors import CFFMAError, InputError, one_line
from speechbrain_cffma.workers import Outcome, call_apart

#: A call or a row that has lost so many workers is not repeated again.
LIVES = 2
#: Calls that Ray may hold at a time. It works on as many as the cluster has CPUs, also if
#: nodes join it or leave.
QUEUE = 1000
#: Seconds that stopped calls have to end.
PATIENCE = 15


def call_each(
    function, arguments, n_at_once=QUEUE, lives=LIVES, conditions=None, **resources
):
    """Call a function many times on the nodes of the cluster.

    Close the generator (`contextlib.closing`) to stop the calls that are not done. Those of
    a connection of `connected` are stopped when it ends.

    Arguments
    ---------
    function : callable
        A function from a module that all nodes have. If it raises, so does the generator.
    arguments : list of tuple
        The arguments of each call.
    n_at_once : int
        Number of calls at a time, at least 1.
    lives : int
        Number of lost workers after which a call counts as crashed.
    conditions : Conditions or None
        What must hold on the node of each call.
    **resources
        Resources of a call, as `num_cpus` and `num_gpus` of `ray.remote`.

    Yields
    ------
    Outcome
        The outcome of each call, in the order in which the calls end.

    Raises
    ------
    InputError
        If no node has the resources.
    CFFMAError
        If the function raises, or the conditions don't hold.

    Example
    -------
    >>> with connected():  # doctest: +SKIP
    ...     list(call_each(math.sqrt, [(4.0,)], num_cpus=1))
    [Outcome(index=0, result=2.0, crash='')]
    """
    ray = import_ray()
    _check_resources(ray, **resources)
    # Ray's own repetitions have no end where a call exhausts the memory.
    task = ray.remote(max_retries=0, **resources)(_checked)
    task = task.options(name=function.__name__)
    waiting, running, losses = deque(range(len(arguments))), {}, Counter()
    try:
        while waiting or running:
            while waiting and len(running) < n_at_once:
                index = waiting.popleft()
                running[task.remote(conditions, function, *arguments[index])] = index
            (done,), _ = ray.wait(list(running))
            index = running.pop(done)
            try:
                yield Outcome(index, ray.get(done))
            except ray.exceptions.RayTaskError as error:
                raise raised(error, "a call failed on the cluster") from error
            except ray.exceptions.RayError as error:
                losses[index] += 1
                if losses[index] < lives:
                    waiting.appendleft(index)
                else:
                    crash = f"its worker was lost {lives} times [{one_line(error)}]"
                    yield Outcome(index, crash=crash)
    finally:
        # Ray ends this process if a call is done just when it is cancelled, or, without
        # force, interrupted twice. So what can be left to the end of the connection is.
        if running and not is_own():
            for call in running:
                ray.cancel(call, force=True)
            ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)


def cluster_map(function, arguments, n_jobs, time_limits=None, conditions=None):
    """`workers.parallel_map` on the cluster: each process is the child of a Ray worker.

    A process that dies or is late costs its call, as on one computer, and leaves the Ray
    worker alive. If Ray's worker or its node is lost, the call is repeated.

    Arguments
    ---------
    function : callable
        See `parallel_map`.
    arguments : list of tuple
        The arguments of each call.
    n_jobs : int
        Number of calls that Ray holds at a time. Each takes a CPU.
    time_limits : list of float or None
        See `parallel_map`.
    conditions : Conditions or None
        See `call_each`.

    Yields
    ------
    Outcome
        The outcome of each call, in the order in which the calls end.

    Example
    -------
    >>> with connected():  # doctest: +SKIP
    ...     list(cluster_map(math.sqrt, [(4.0,)], n_jobs=1))
    [Outcome(index=0, result=2.0, crash='')]
    """
    limits = time_limits or [math.inf] * len(arguments)
    calls = [(function, *call) for call in zip(arguments, limits, strict=True)]
    outcomes = call_each(call_apart, calls, n_jobs, conditions=conditions, num_cpus=1)
    with closing(outcomes):
        for outcome in outcomes:
            if outcome.crash:
                yield outcome
            else:
                yield outcome.result._replace(index=outcome.index)


def _checked(conditions, function, *arguments):
    """Check the node, and call a function there."""
    if conditions:
        conditions.check()
    return function(*arguments)


def _check_resources(ray, num_cpus=1, num_gpus=0):
    """Check that a node has the resources: Ray would wait for one for ever."""
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        if has.get("CPU", 0) >= num_cpus and has.get("GPU", 0) >= num_gpus:
            return
    wanted = f"{num_cpus:g} CPUs" + (f" and {num_gpus:g} GPUs" if num_gpus else "")
    raise InputError(f"no node of the cluster has {wanted}")


def raised(error, what):
    """What a worker has raised: in one line, unless it is meant for the user anyway.

    Arguments
    ---------
    error : ray.exceptions.RayTaskError
        What Ray raises for it here.
    what : str
        What has failed, for the line.

    Returns
    -------
    CFFMAError
        The error to raise.
    """
    if isinstance(error.cause, CFFMAError):
        return error.cause
    return CFFMAError(f"{what} [{one_line(error.cause or error)}]")
