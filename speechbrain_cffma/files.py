"""Files that are there whole or not at all, and locks.

Authors
 * The speechbrain-cffma developers 2026
"""

import errno
import logging
import os
import secrets
from contextlib import contextmanager
from pathlib import Path

from speechbrain_cffma.errors import InputError

logger = logging.getLogger(__name__)

#: How CSV files are opened: the names of files in them may hold any bytes.
CSV = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


@contextmanager
def atomic_write(path):
    """Write a file under a temporary name; it gets its own when all went well.

    Arguments
    ---------
    path : str or Path
        The file; folders are made, a file that is there is replaced.

    Yields
    ------
    Path
        The temporary name, hidden and beside it. It is removed upon an error.

    Example
    -------
    >>> path = getfixture("tmp_path") / "notes.txt"
    >>> with atomic_write(path) as partial:
    ...     _ = partial.write_text("all of it")
    >>> path.read_text()
    'all of it'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Short, so that it fits wherever the name does.
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def fitting(name, n_bytes=255):
    """Cut a file's name that is made of others, so that the system takes it.

    Arguments
    ---------
    name : str
        The name with its extension.
    n_bytes : int
        How long it may be.

    Returns
    -------
    str
        The name; without the end of its stem where it is too long.

    Example
    -------
    >>> fitting("a.wav"), len(fitting("音" * 100 + ".wav").encode())
    ('a.wav', 253)
    """
    if len(os.fsencode(name)) <= n_bytes:
        return name
    stem, suffix = os.path.splitext(name)
    stem = os.fsencode(stem)[: n_bytes - len(os.fsencode(suffix))]
    return stem.decode(errors="ignore") + suffix


def state_of(path):
    """What tells whether a file has changed.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    (int, int) or None
        Its size in bytes and its time of change in ns; None if it can't be found, such
        as behind a broken link.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> _ = path.write_bytes(b"RIFF")
    >>> state_of(path)[0], state_of("no/such.wav")
    (4, None)
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def lock(file, shared_with_children=False):
    """Lock a file until this process ends, however it ends, or closes it.

    Arguments
    ---------
    file : file object
        Open for writing.
    shared_with_children : bool
        Whether processes that inherit the open file hold the lock as well.

    Raises
    ------
    InputError
        If another process holds it.

    Example
    -------
    >>> with open(getfixture("tmp_path") / "lock", "a") as file:
    ...     lock(file)
    """
    try:
        import fcntl
    except ImportError:  # Windows
        logger.warning("this system has no locks: start nothing twice in %s", file.name)
        return
    take = fcntl.flock if shared_with_children else fcntl.lockf
    try:
        take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # What systems say of a lock that another process holds.
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError("another process is already running this") from error
        logger.warning("no lock on %s (%s): start nothing twice", file.name, error)


def of_project(path):
    """A path of what comes with the project, from wherever one is.

    Arguments
    ---------
    path : str
        Relative to the project's folder.

    Returns
    -------
    str
        The same where it is found from here, or is not the project's.

    Example
    -------
    >>> of_project("no/such/file")
    'no/such/file'
    """
    of_ours = Path(__file__).parents[1] / path
    is_ours = not Path(path).exists() and of_ours.exists()
    return str(of_ours) if is_ours else path
