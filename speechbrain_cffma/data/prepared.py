"""The mark of prepared data, which tells whether a prepare step must run again.

A process that has prepared data, or has found them prepared, holds a lock until it ends.
No other process can replace the data in the meantime.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from speechbrain_cffma.audio import find_audio
from speechbrain_cffma.data.manifest import logger
from speechbrain_cffma.errors import InputError, printable
from speechbrain_cffma.files import atomic_write, lock, state_of

#: The open lock files of this process, by their folders.
_LOCKS = {}


class Sources(NamedTuple):
    """The files that a prepare step reads, and their states before it reads them.

    Arguments
    ---------
    files : dict
        Lists of the audio files, by folder.
    states : dict
        The state of each file (`files.state_of`), by path.
    """

    files: dict
    states: dict


def find_sources(folders, leave_out=(), others=()):
    """Find the files that a prepare step reads, for `is_prepared` and `mark_prepared`.

    Arguments
    ---------
    folders : iterable of (str or Path)
        Folders of audio files; each is searched once.
    leave_out : iterable of (str or Path)
        Subfolders that are not searched.
    others : iterable of (str or Path)
        Further files, such as metadata.

    Returns
    -------
    Sources
        The files and their states.

    Raises
    ------
    InputError
        The errors of `audio.find_audio`.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.wav").write_bytes(b"RIFF")
    >>> sources = find_sources([folder])
    >>> sources.files[folder] == [folder / "a.wav"]
    True
    >>> sources.states[str(folder / "a.wav")][0]
    4
    """
    files = {
        folder: find_audio(folder, leave_out=leave_out)
        for folder in dict.fromkeys(folders)
    }
    paths = [*chain.from_iterable(files.values()), *others]
    return Sources(files, {str(path): state_of(path) for path in paths})


def is_prepared(save_folder, arguments, states=None):
    """Whether a prepare step has already run with the same arguments and files.

    If not, this function logs which files have changed, and removes the mark: the step is
    about to replace its manifests.

    Arguments
    ---------
    save_folder : str or Path
        Folder of the step's manifests.
    arguments : dict
        Arguments of the step.
    states : dict
        States of the files that the step reads, see `find_sources`.

    Returns
    -------
    bool
        True if `mark_prepared` was called with equal arguments, if no file has been
        changed, added or removed since then, and if the manifests exist.

    Raises
    ------
    InputError
        If another process uses or prepares the data that this step would replace.

    Example
    -------
    >>> from speechbrain_cffma.data.manifest import write_manifest
    >>> folder = getfixture("tmp_path")
    >>> for split in ("train", "valid", "test"):
    ...     write_manifest(folder / f"{split}.csv", [])
    >>> mark_prepared(folder, {"seed": 1})
    >>> is_prepared(folder, {"seed": 1}), is_prepared(folder, {"seed": 2})
    (True, False)
    """
    folder = Path(save_folder)
    manifests = [folder / f"{split}.csv" for split in ("train", "valid", "test")]
    before = prepared_from(folder)
    if before is not None and all(path.is_file() for path in manifests):
        now = _mark(arguments, states)
        if before == now:
            _hold(folder, exclusive=False)
            return True
        _say_changes(folder, _sources_in(before), _sources_in(now))
    _hold(folder, exclusive=True)
    _marker(folder).unlink(missing_ok=True)
    return False


def _say_changes(folder, before, now):
    """Log which files have been changed, added or removed."""
    if before is None:
        logger.info(
            "%s was prepared by an older version, or its %s is damaged: preparing it again",
            folder,
            _marker(folder).name,
        )
        return
    for what, paths in (
        ("changed", [p for p in now if p in before and now[p] != before[p]]),
        ("were added", [p for p in now if p not in before]),
        ("were removed", [p for p in before if p not in now]),
    ):
        if paths:
            logger.warning(
                "%d files %s since %s was prepared; preparing it again: %s",
                len(paths),
                what,
                folder,
                printable(", ".join(paths[:5])) + (" ..." if len(paths) > 5 else ""),
            )


def _sources_in(mark):
    """The states of the files in a mark; None if the mark is damaged or too old."""
    try:
        sources = json.loads(mark)["sources"]
    except (ValueError, LookupError, TypeError):
        return None
    return sources if isinstance(sources, dict) else None


def prepared_from(save_folder):
    """Read the mark of prepared data.

    Arguments
    ---------
    save_folder : str or Path
        Folder of the manifests.

    Returns
    -------
    str or None
        The arguments of `mark_prepared` and the states of its files as JSON; None if no
        prepare step has finished.

    Example
    -------
    >>> prepared_from(getfixture("tmp_path")) is None
    True
    """
    marker = _marker(save_folder)
    return (
        marker.read_text(encoding="utf-8", errors="replace")
        if marker.is_file()
        else None
    )


def mark_prepared(save_folder, arguments, states=None):
    """Mark the data of a prepare step that has finished.

    Arguments
    ---------
    save_folder : str or Path
        Folder of the step's manifests.
    arguments : dict
        Arguments of the step.
    states : dict
        States of the files before the step read them. If a file changed in the meantime,
        the step will run again.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> mark_prepared(folder, {"seed": 1})
    >>> (folder / "prepared.json").exists()
    True
    """
    with atomic_write(_marker(save_folder)) as partial:
        partial.write_text(_mark(arguments, states), encoding="utf-8")
    _hold(Path(save_folder), exclusive=False)


def _hold(folder, exclusive):
    """Lock a folder until this process ends; exclusively while its data are replaced."""
    folder = folder.resolve()
    try:
        if folder not in _LOCKS or not (folder / ".lock").exists():
            folder.mkdir(parents=True, exist_ok=True)
            _LOCKS[folder] = open(folder / ".lock", "ab")
    except OSError:
        return  # This process can't replace anything here. The step says so if it must.
    try:
        lock(_LOCKS[folder], shared_with_children=True, exclusive=exclusive)
    except InputError as error:
        raise InputError(
            f"another run uses or prepares the data in {folder}, which this run would "
            "replace: wait until it ends, or give another --manifest_folder"
        ) from error


def _marker(save_folder):
    return Path(save_folder) / "prepared.json"


def _mark(arguments, states):
    mark = {"arguments": arguments, "sources": states or {}}
    return json.dumps(mark, default=str, sort_keys=True, indent=2)
