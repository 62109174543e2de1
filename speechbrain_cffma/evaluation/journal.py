"""The journal of an evaluation, by which an interrupted one goes on.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
import os

from speechbrain_cffma.errors import (
    InputError,
    reason,
)
from speechbrain_cffma.files import atomic_write, state_of

#: A line a finished row, in the output folder.
JOURNAL = "progress.jsonl"


def key_of(pair):
    """The key of a pair: both files as they are now.

    Arguments
    ---------
    pair : dict
        With the paths "clean" and "path".

    Returns
    -------
    str
        Another one, once a file has changed.
    """
    paths = [os.path.abspath(pair[side]) for side in ("clean", "path")]
    return json.dumps([[path, *(state_of(path) or ())] for path in paths])


def read_journal(path, settings):
    """Read the finished rows of an evaluation that was interrupted.

    Arguments
    ---------
    path : Path
        The journal.
    settings : dict
        Rows of other settings do not count.

    Returns
    -------
    dict
        Rows by their keys; none if there is no journal.

    Raises
    ------
    InputError
        If it can't be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path} can't be read ({reason(error)})") from error
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break  # What was being written when the process was killed.
    header, *rows = entries or [settings]
    if not isinstance(header, dict) or not all(_is_row(row) for row in rows):
        raise InputError(f"{path} is damaged: --overwrite scores all files anew")
    if header != settings:
        differing = [name for name in settings if header.get(name) != settings[name]]
        raise InputError(
            f"{path.parent} has scores of other settings ({', '.join(differing)}): choose "
            "another folder, or --overwrite"
        )
    return dict(rows)


def _is_row(entry):
    """Whether a line of the journal is a key and its scores."""
    match entry:
        case [str(), {"failed": str()}]:
            return True
    return False


def open_journal(path, settings, done):
    """Write a journal with the rows that are done, and open it for more.

    Arguments
    ---------
    path : Path
        The journal.
    settings : dict
        Those of the evaluation.
    done : dict
        Rows by their keys.

    Returns
    -------
    file
        For `append`.

    Raises
    ------
    InputError
        If it can't be written.
    """
    try:
        with atomic_write(path) as partial:
            file = open(partial, "w", encoding="utf-8")
            file.write(json.dumps(settings) + "\n")
            for key, row in done.items():
                append(file, key, row)
    except OSError as error:
        raise InputError(f"{path} can't be written ({reason(error)})") from error
    return file


def append(file, key, row):
    """Add a row to a journal.

    Arguments
    ---------
    file : file
        From `open_journal`.
    key : str
        The pair's key.
    row : dict
        Its scores.

    Raises
    ------
    InputError
        If it can't be written.
    """
    try:
        file.write(json.dumps([key, row]) + "\n")
        file.flush()
    except OSError as error:
        raise InputError(f"{file.name} can't be written ({reason(error)})") from error
