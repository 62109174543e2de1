"""Atomic writing of files, file names, and locks.

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

#: How CSV files are opened. They hold file names, which may contain any bytes.
CSV = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


@contextmanager
def atomic_write(path):
    """Write a file under a temporary name and rename it when it is complete.

    Arguments
    ---------
    path : str or Path
        The file. Missing folders are created, and an existing file is replaced.

    Yields
    ------
    Path
        The temporary file, hidden and in the same folder. It is removed on an error.

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
    # Short, so that the file system accepts it wherever it accepts the final name.
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder):
    """Remove the temporary files of `atomic_write` that killed processes have left.

    Arguments
    ---------
    folder : str or Path
        A folder into which no process writes now; it may be missing.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / ".0123456789abcdef.part").touch()
    >>> remove_partials(folder)
    >>> list(folder.iterdir())
    []
    """
    for path in Path(folder).glob(".????????????????.part"):
        path.unlink(missing_ok=True)


def fitting(name, n_bytes=255):
    """Shorten a file name to the length that the file system allows.

    Arguments
    ---------
    name : str
        The name with its extension.
    n_bytes : int
        Maximum length in bytes.

    Returns
    -------
    str
        The name. If it is too long, the end of its stem is cut off.

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
    """Return a file's size and time of change, which tell whether it has changed.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    (int, int) or None
        Size in bytes and time of change in ns; None if the file is missing or a broken
        link.

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


def lock(file, shared_with_children=False, exclusive=True):
    """Lock a file until this process closes it or ends in any way.

    Arguments
    ---------
    file : file object
        The file, open for writing.
    shared_with_children : bool
        Whether processes that inherit the open file hold the lock too.
    exclusive : bool
        False: several processes may hold such a lock at the same time, but none an
        exclusive one beside them.

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
        logger.warning(
            "this system has no file locks: run only one process in %s", file.name
        )
        return
    take = fcntl.flock if shared_with_children else fcntl.lockf
    try:
        take(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        # The error numbers that systems use when another process holds the lock.
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError("another process is already running this") from error
        logger.warning("can't lock %s (%s): run only one process", file.name, error)


def of_project(path):
    """Find a file of the project from any working directory.

    Arguments
    ---------
    path : str
        A path, which may be relative to the project's folder.

    Returns
    -------
    str
        The path in the project's folder if it exists only there; else the path as given.

    Example
    -------
    >>> of_project("no/such/file")
    'no/such/file'
    """
    in_project = Path(__file__).parents[1] / path
    is_only_there = not Path(path).exists() and in_project.exists()
    return str(in_project) if is_only_there else path
