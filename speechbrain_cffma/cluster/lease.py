"""A lease, so that one job at a time writes into an output.

A lock of the file system would not do: jobs run on several computers, and object stores
have no locks. The lease is a file with the job's id and the time of its last heartbeat.

Authors
 * The speechbrain-cffma developers 2026
"""

import contextlib
import logging
import os
import secrets
import socket
import threading
import time

from speechbrain_cffma.cluster import storage
from speechbrain_cffma.errors import CFFMAError, InputError

logger = logging.getLogger(__name__)

#: Seconds between heartbeats.
BEAT = 10
#: Seconds of silence after which a job counts as dead.
SILENCE = 60


class Lease:
    """The right to write into an output folder, for as long as the block runs.

    Arguments
    ---------
    folder : str
        The output, a folder or a URI.
    take_over : bool
        Whether to end another job that holds the lease. It stops at its next heartbeat.

    Raises
    ------
    InputError
        If another job holds it.

    Example
    -------
    >>> folder = str(getfixture("tmp_path"))
    >>> with Lease(folder) as lease:
    ...     lease.check()
    """

    def __init__(self, folder, take_over=False):
        self.folder = folder
        self.path = storage.join(folder, "_lease.json")
        self.job = secrets.token_hex(4)
        self.take_over = take_over
        self.over = threading.Event()
        self.successor = None

    def __enter__(self):
        """Take the lease, and keep it by heartbeats."""
        held = self._read()
        if held and not self.take_over and not _is_dead(held):
            age = max(0, time.time() - held["beat"])
            raise InputError(
                f"{self.folder}: job {held['job']} on {held['host']} is writing there "
                f"(last heartbeat {age:.0f} s ago; after {SILENCE} s of silence this "
                "command goes on): choose another output, or pass --take-over"
            )
        self._beat()
        # Of two jobs that start at once, the last to write has it.
        time.sleep(0.2)
        self.check(self._read())
        self.thread = threading.Thread(target=self._keep, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        """Give the lease back."""
        self.over.set()
        self.thread.join()
        if self.successor is None:
            with contextlib.suppress(CFFMAError):
                storage.remove(self.path)

    def check(self, held=None):
        """Check that no other job has taken the lease.

        Arguments
        ---------
        held : dict or None
            The lease as it stands; None for what the last heartbeat has read.

        Raises
        ------
        InputError
            If one has.
        """
        self._note_successor(held)
        if self.successor:
            raise InputError(
                f"{self.folder}: job {self.successor} has taken over; this one stops"
            )

    def _beat(self):
        state = {"job": self.job, "host": socket.gethostname(), "pid": os.getpid()}
        storage.write_json(self.path, {**state, "beat": time.time()})

    def _read(self):
        """The lease as it stands; None if there is none, or if it is broken."""
        held = storage.read_json(self.path)
        is_whole = isinstance(held, dict) and {"job", "host", "pid", "beat"} <= {*held}
        return held if is_whole else None

    def _note_successor(self, held):
        if held and held["job"] != self.job:
            self.successor = held["job"]

    def _keep(self):
        while not self.over.wait(BEAT):
            try:
                held = self._read()
                self._note_successor(held)
                if self.successor:
                    return
                self._beat()
            except CFFMAError as error:  # The store may answer at the next one.
                logger.warning("no heartbeat: %s", error)


def _is_dead(held):
    """Whether the job of a lease has ended without giving it back."""
    if time.time() - held["beat"] > SILENCE:
        return True
    if held["host"] != socket.gethostname():
        return False
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
