"""Calls whose process, or whose Ray worker, dies. They run in the child of the worker."""

import contextlib
import os
import signal
import time

import numpy as np

from speechbrain_cffma.errors import CFFMAError
from speechbrain_cffma.metrics import intrusive, si_sdr


def call(what):
    """Return `what`; "die" kills its process, "hang" takes an hour."""
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(3600)
    return what


def sleep(seconds):
    """Sleep, and return the id of the process."""
    time.sleep(seconds)
    return os.getpid()


class Starting:
    """`call`, which only the first `times` processes receive; the others end with code 9."""

    def __init__(self, folder, times):
        self.folder, self.times = folder, times

    def __setstate__(self, state):
        self.__dict__ = state
        if not self.is_among_the_first():
            os._exit(9)

    def is_among_the_first(self):
        for place in range(self.times):
            with contextlib.suppress(FileExistsError):
                (self.folder / str(place)).touch(exist_ok=False)
                return True
        return False

    def __call__(self, what):
        # One process must not do it all before the other starts.
        time.sleep(0.5)
        return call(what)


class Prepared(Starting):
    """`call`, for which only the first `times` processes can prepare."""

    def __setstate__(self, state):
        self.__dict__ = state

    def prepare(self):
        if not self.is_among_the_first():
            raise CFFMAError("no memory is left")


def miss_requests(seconds):
    """Work on after SIGTERM, as methods do that libraries in C call."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(seconds)


def lose(folder, times):
    """Kill the process that started this one, at the first calls; return this one's id."""
    marks = list(folder.iterdir())
    if len(marks) < times:
        (folder / str(os.getpid())).touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)
    return os.getpid()


def hold(folder):
    """Note the process in a file for each call, and wait for the file `go`."""
    (folder / f"{os.getpid()}.{time.monotonic_ns()}.pid").touch()
    while not (folder / "go").exists():
        time.sleep(0.05)


def fail(folder):
    """Do what calls must not."""
    raise RuntimeError(f"{folder} is\nfull")


def load(seed):
    """A signal and the same with noise; the SI-SDR of seed 1 kills its process."""
    intrusive.si_sdr = _dies_on_equal
    clean, noise = np.random.default_rng(seed).uniform(-0.1, 0.1, (2, 16000))
    return clean, clean if seed == 1 else clean + noise


def _dies_on_equal(clean, enhanced, sample_rate):
    if (clean == enhanced).all():
        os.kill(os.getpid(), signal.SIGKILL)
    return si_sdr(clean, enhanced, sample_rate)
