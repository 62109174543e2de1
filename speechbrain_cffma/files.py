"""Files that are there whole or not at all.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
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
    >>> with replacing(path) as partial:
    ...     _ = partial.write_text("all of it")
    >>> path.read_text()
    'all of it'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
