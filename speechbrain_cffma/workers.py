"""Calls in worker processes. If a process dies, only its current call is lost.

The pools of Python and joblib abandon all calls when one process is killed.

Authors
 * The speechbrain-cffma developers 2026
"""

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any, NamedTuple

from speechbrain_cffma.errors import CFFMAError, reason

#: Each process uses one thread; more would compete for the same cores.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: Windows can't wait for more.
MAX_WORKERS = 60 if sys.platform == "win32" else sys.maxsize
#: Seconds that a process has to end in after SIGTERM.
GRACE = 5
INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
#: The exit code of a call that cleans up when it gets SIGTERM, as shells give it.
EXIT_BY_SIGTERM = 128 + signal.SIGTERM
#: The C library, loaded before any fork; None where processes can't follow their parent.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


class Outcome(NamedTuple):
    """The outcome of a call.

    Arguments
    ---------
    index : int
        Position of the call in the list.
    result : object
        The returned value; None if the process died.
    crash : str
        Why the process died or was stopped; "" if the call returned.
    """

    index: int
    result: Any = None
    crash: str = ""


class _Note(NamedTuple):
    """What a call tells before it ends."""

    value: Any


#: In a worker process, the connection to its caller.
_caller: Any = None


def tell(value):
    """Send a value from a call to the caller of `parallel_map`, before the call ends.

    Elsewhere it does nothing.

    Arguments
    ---------
    value : object
        Any value that can be pickled.

    Example
    -------
    >>> tell("half of it is done")
    """
    if _caller is not None:
        _caller.send(_Note(value))


def parallel_map(function, arguments, n_jobs, time_limits=None, on_note=None):
    """Call a function many times in worker processes.

    Close the generator (`contextlib.closing`) to stop the workers early. A terminal sends
    Ctrl-C to all processes; the workers ignore it, and the caller handles it. If a process
    doesn't start, the others do its work.

    Arguments
    ---------
    function : callable
        A function from an importable module. It should not raise: an exception ends its
        process as a crash does. If it has a method `prepare`, each process calls that
        once before the first call. If that raises a `CFFMAError`, the process counts as
        one that doesn't start.
    arguments : list of tuple
        The arguments of each call.
    n_jobs : int
        Number of processes, at least 1.
    time_limits : list of float or None
        Time limit of each call in seconds. A process that exceeds it is killed, and its
        call counts as crashed. None sets no limit.
    on_note : callable or None
        Called as `on_note(index, value)` when a call sends a value by `tell`.

    Yields
    ------
    Outcome
        The outcome of each call, in the order in which the calls end.

    Raises
    ------
    CFFMAError
        If no process starts.

    Example
    -------
    >>> import math
    >>> sorted(parallel_map(math.sqrt, [(4.0,), (9.0,)], n_jobs=2))
    [Outcome(index=0, result=2.0, crash=''), Outcome(index=1, result=3.0, crash='')]
    """
    if n_jobs < 1:
        raise ValueError(f"the number of processes is {n_jobs}: it must be at least 1")
    waiting = list(enumerate(arguments))[::-1]
    n_jobs = min(n_jobs, len(waiting), MAX_WORKERS)
    limits = time_limits or [math.inf] * len(waiting)
    workers = {}  # by connection
    has_started, fault = False, ""
    try:
        while n_left := len(waiting) + sum(
            w.index is not None for w in workers.values()
        ):
            if refusal := _start(workers, min(n_jobs, n_left), function):
                n_jobs, fault = len(workers), refusal
            if not workers:
                if not has_started:
                    raise CFFMAError(fault)
                yield from (Outcome(index, crash=fault) for index, _ in waiting[::-1])
                return
            ready = wait(list(workers), _until_the_first_is_late(workers.values()))
            late = [
                c
                for c, w in workers.items()
                if c not in ready and w.seconds_left() <= 0
            ]
            for connection in (*ready, *late):
                worker = workers[connection]
                outcome = worker.give_up() if connection in late else worker.outcome()
                if isinstance(outcome, _Note):
                    if on_note:
                        on_note(worker.index, outcome.value)
                    continue
                has_started |= worker.is_ready
                if outcome and outcome.crash:
                    del workers[connection]
                    if not worker.is_ready:  # Nor would another one start.
                        n_jobs, fault = n_jobs - 1, outcome.crash
                elif waiting:
                    index, its_arguments = waiting.pop()
                    worker.call(index, its_arguments, limits[index])
                if outcome and outcome.index is not None:
                    yield outcome
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.close()


_kept = {}  # processes that wait for the next call of `call_apart`, by its function


def call_apart(function, arguments, time_limit=math.inf):
    """Call a function in a separate process, which is kept for the next call.

    Arguments
    ---------
    function : callable
        As for `parallel_map`.
    arguments : tuple
        Its arguments.
    time_limit : float
        As for `parallel_map`.

    Returns
    -------
    Outcome
        The outcome of the call, with index 0.

    Raises
    ------
    CFFMAError
        If the process doesn't start.

    Example
    -------
    >>> import math
    >>> call_apart(math.sqrt, (4.0,))
    Outcome(index=0, result=2.0, crash='')
    """
    worker = _kept.pop(function, None)
    if worker is None or not worker.process.is_alive():
        with _blank_main():
            worker = _Worker(function)
    try:
        if not worker.is_ready and (fault := worker.outcome()):
            raise CFFMAError(fault.crash)
        worker.call(0, arguments, time_limit)
        outcome: Any = _Note(None)
        while isinstance(outcome, _Note):
            if not worker.connection.poll(_until_the_first_is_late([worker])):
                return worker.give_up()
            outcome = worker.outcome()
    except BaseException:
        worker.process.terminate()
        worker.close()
        raise
    if not outcome.crash:
        _kept[function] = worker
    return outcome


@contextlib.contextmanager
def _blank_main():
    """Let new processes not run the main module of this one, which for Ray imports Ray."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_with_parent():
    """Let Linux kill this process as soon as the thread that started it ends in any way.

    Example
    -------
    >>> process = multiprocessing.Process(target=end_with_parent)
    >>> process.start()
    >>> process.join()
    """
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(workers, n, function):
    """Start workers until there are `n`; return why the system refuses one, or ""."""
    while len(workers) < n:
        try:
            worker = _Worker(function)
        except CFFMAError as error:
            return str(error)
        workers[worker.connection] = worker
    return ""


def _not_started(why):
    return f"a worker process did not start: {why}"


@contextlib.contextmanager
def _interrupts_held():
    """Hold Ctrl-C and SIGTERM back, also from processes that are started meanwhile: they
    would print tracebacks before `_work` is reached."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # Its own start would end the hold.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _until_the_first_is_late(workers):
    """Seconds until the first time limit; None if no call has one."""
    left = min(worker.seconds_left() for worker in workers)
    return None if math.isinf(left) else max(left, 0)


class _Worker:
    """A process and its current call."""

    def __init__(self, function):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        # Set before the process starts: it first imports what the caller's script does.
        own = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update({name: value or "1" for name, value in own.items()})
        try:
            with _interrupts_held():
                self.process.start()
        except BaseException as error:
            if self.process.pid:
                self.process.terminate()
                self.close()
            if isinstance(error, OSError):
                raise CFFMAError(_not_started(reason(error))) from error
            raise
        finally:
            theirs.close()
            for name in (name for name, value in own.items() if value is None):
                del os.environ[name]
        self._send(function)
        self.is_ready = False
        self.index = None
        self.limit = self.deadline = math.inf

    def call(self, index, arguments, limit):
        self.index = index
        self.limit, self.deadline = limit, time.monotonic() + limit
        self._send(arguments)

    def _send(self, value):
        with contextlib.suppress(OSError):  # The process died: `outcome` reports it.
            self.connection.send(value)

    def outcome(self):
        """Receive the outcome of its call, or a note before that; None if it has just
        become ready for a call. Its index is None if the process ended without a call."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            cause = self._cause_of_death()
            return Outcome(
                self.index, crash=cause if self.is_ready else _not_started(cause)
            )
        if not self.is_ready:
            self.is_ready = result is None
            if self.is_ready:
                return None
            self.close()
            return Outcome(None, crash=str(result))
        if isinstance(result, _Note):
            return result
        index, self.index = self.index, None
        self.deadline = math.inf
        return Outcome(index, result)

    def seconds_left(self):
        return self.deadline - time.monotonic()

    def give_up(self):
        """Kill a process that exceeded its time limit; return the outcome of its call."""
        self.process.kill()
        self.close()
        return Outcome(self.index, crash=f"it took longer than {self.limit:.0f} s")

    def close(self):
        """Wait for the end of a process that ends, or is asked to."""
        self.connection.close()  # so that it ends by itself if it missed a SIGTERM
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()

    def _cause_of_death(self):
        self.close()
        code = self.process.exitcode
        by_signal = {-number: number.name for number in signal.Signals}
        by_signal[EXIT_BY_SIGTERM] = signal.SIGTERM.name
        if code in by_signal:
            return f"its process was killed by {by_signal[code]}"
        cause = f"its process ended with exit code {code}"
        if code == 1 and not self.is_ready:
            cause += ". In a script, put the code that runs under "
            cause += "`if __name__ == '__main__':`"
        return cause


def _work(connection):
    global _caller
    _caller = connection
    end_with_parent()  # A call that hangs doesn't outlive a caller that is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    with contextlib.suppress(EOFError, ConnectionError):  # The caller is gone.
        # Sent through the pipe, so that its module is imported after Ctrl-C is ignored.
        function = connection.recv()
        try:
            getattr(function, "prepare", lambda: None)()
        except CFFMAError as error:
            connection.send(error)
            return
        connection.send(None)
        while True:
            connection.send(function(*connection.recv()))
