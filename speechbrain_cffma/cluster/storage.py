"""Files on this computer and in object stores (`s3://`), by the same calls.

Outputs appear when they are complete: a local file is renamed, an object is uploaded.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from speechbrain_cffma.errors import InputError, one_line, reason
from speechbrain_cffma.files import atomic_write

#: What an object store's answer means. The others are shown as they are.
REMEDIES = {
    "ACCESS_DENIED": "no permission: check the credentials and the bucket's policy",
    "INVALID_ACCESS_KEY_ID": "the credentials are unknown: check AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the credentials are wrong: check AWS_SECRET_ACCESS_KEY",
    "NO_SUCH_BUCKET": "there is no such bucket",
}


def is_remote(path):
    """Whether a path is the URI of an object store.

    Arguments
    ---------
    path : str or Path
        Any path.

    Returns
    -------
    bool
        Whether it is one.

    Example
    -------
    >>> is_remote("s3://corpus/a.wav"), is_remote("corpus/a.wav")
    (True, False)
    """
    return "://" in str(path)


def join(folder, name):
    """Join a folder, here or remote, and a relative path.

    Arguments
    ---------
    folder : str
        Folder or URI.
    name : str
        Relative path.

    Returns
    -------
    str
        The path or URI.

    Example
    -------
    >>> join("s3://corpus/", "a/b.wav"), join("corpus", "a.wav")
    ('s3://corpus/a/b.wav', 'corpus/a.wav')
    """
    return (
        f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder, name))
    )


@contextmanager
def _says(path, verb):
    """Turn errors of a store or of the system into one line that names the path."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = str(error)
        why = next((line for code, line in REMEDIES.items() if code in text), None)
        if why is None:
            is_known = isinstance(error, OSError) and error.strerror
            why = reason(error) if is_known else one_line(error)
        raise InputError(f"{path} can't be {verb} ({why})") from error


def _opened(path):
    """The file system of a path, and the path in it."""
    from pyarrow import fs

    if not is_remote(path):
        return fs.LocalFileSystem(), str(path)
    return fs.FileSystem.from_uri(str(path))


def changed(path):
    """When a file was last changed.

    Arguments
    ---------
    path : str
        Path or URI.

    Returns
    -------
    float or None
        Seconds since 1970; None if it is missing.

    Raises
    ------
    InputError
        If the store refuses.

    Example
    -------
    >>> changed("no/such.wav")
    """
    if not is_remote(path):
        try:
            return os.stat(path).st_mtime
        except OSError:
            return None
    with _says(path, "read"):
        store, name = _opened(path)
        time = store.get_file_info(name).mtime
    return time.timestamp() if time else None


def listing(folder, is_result=False):
    """List the files of a folder or prefix with its subfolders.

    Arguments
    ---------
    folder : str
        Folder or URI. A URI of one object lists that object.
    is_result : bool
        Whether it is a folder of results: it may be missing, and begin with an underscore.

    Returns
    -------
    list of (str, str)
        Sorted pairs: the path or URI, and the path relative to the folder.

    Raises
    ------
    InputError
        If it can't be read.

    Example
    -------
    >>> getfixture("pyarrow")
    >>> folder = getfixture("tmp_path")
    >>> (folder / "a.tar").touch()
    >>> [name for _, name in listing(str(folder))]
    ['a.tar']
    """
    with _says(folder, "read"):
        from pyarrow import fs

        store, root = _opened(folder)
        root = root.rstrip("/")
        if store.get_file_info(root).type == fs.FileType.File:
            return [(str(folder), PurePosixPath(root).name)]
        selector = fs.FileSelector(root, allow_not_found=is_result, recursive=True)
        found = store.get_file_info(selector)
    names = sorted(
        info.path[len(root) + 1 :] for info in found if info.type == fs.FileType.File
    )
    return [
        (join(str(folder), name), name)
        for name in names
        if is_result or not any(part.startswith((".", "_")) for part in name.split("/"))
    ]


@contextmanager
def local_copy(path):
    """Give a file a place on this computer, for programs that need one.

    Arguments
    ---------
    path : str
        Path or URI.

    Yields
    ------
    Path
        The file itself, or a temporary copy with the same extension.

    Raises
    ------
    InputError
        If it can't be read.

    Example
    -------
    >>> with local_copy("a.wav") as path:
    ...     path.name
    'a.wav'
    """
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy").with_suffix(PurePosixPath(path).suffix)
        with _says(path, "read"):
            store, name = _opened(path)
            with store.open_input_stream(name) as source, open(copy, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        yield copy


@contextmanager
def open_seekable(path):
    """Open a file for reading any part of it, without a copy.

    Arguments
    ---------
    path : str
        Path or URI.

    Yields
    ------
    pyarrow.NativeFile
        The file.

    Raises
    ------
    InputError
        If it can't be opened.
    """
    with _says(path, "read"):
        store, name = _opened(path)
        file = store.open_input_file(name)
    with file:
        yield file


@contextmanager
def whole(path):
    """Write a file that appears when it is complete.

    Arguments
    ---------
    path : str
        Path or URI. Missing folders are created.

    Yields
    ------
    Path
        A temporary file to write, with the same extension if the path is remote.

    Raises
    ------
    InputError
        If it can't be written.

    Example
    -------
    >>> target = getfixture("tmp_path") / "a.txt"
    >>> with whole(str(target)) as partial:
    ...     _ = partial.write_text("all of it")
    >>> target.read_text()
    'all of it'
    """
    if not is_remote(path):
        try:
            with atomic_write(path) as partial:
                yield partial
        except OSError as error:
            if error.errno is None:  # from a reader of what is to be written
                raise
            raise InputError(f"{path} can't be written ({reason(error)})") from error
        return
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder, "partial").with_suffix(PurePosixPath(path).suffix)
        yield partial
        with _says(path, "written"):
            store, name = _opened(path)
            with open(partial, "rb") as source, store.open_output_stream(name) as out:
                shutil.copyfileobj(source, out, 1 << 20)


def write_json(path, value):
    """Write a small JSON file as a whole.

    Arguments
    ---------
    path : str
        Path or URI.
    value : object
        Its content.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "a.json")
    >>> write_json(path, {"job": "a"})
    >>> read_json(path)
    {'job': 'a'}
    """
    with whole(path) as partial:
        partial.write_text(json.dumps(value), encoding="utf-8")


def read_json(path):
    """Read a small JSON file.

    Arguments
    ---------
    path : str
        Path or URI.

    Returns
    -------
    object or None
        Its content; None if it is missing or no JSON.
    """
    if changed(path) is None:
        return None
    with local_copy(path) as copy:
        try:
            return json.loads(copy.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def remove(path):
    """Remove a file; nothing happens if it is missing.

    Arguments
    ---------
    path : str
        Path or URI.
    """
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
    elif changed(path) is not None:
        with _says(path, "removed"):
            store, name = _opened(path)
            store.delete_file(name)
