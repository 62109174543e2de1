"""The journal of an evaluation, from which an interrupted evaluation continues.

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

#: The journal's name in the output folder. Each line holds a finished row.
JOURNAL = "progress.jsonl"


def key_of(pair):
    """The key of a pair in the journal: the paths and the state of both files.

    Arguments
    ---------
    pair : dict
        A pair with the paths "clean" and "path".

    Returns
    -------
    str
        The key. It changes when a file changes.
    """
    paths = [os.path.abspath(pair[side]) for side in ("clean", "path")]
    return json.dumps([[path, *(state_of(path) or ())] for path in paths])


def read_journal(path, settings):
    """Read the finished rows of an interrupted evaluation.

    Arguments
    ---------
    path : Path
        The journal.
    settings : dict
        The settings of this evaluation.

    Returns
    -------
    dict
        Rows by key; empty if there is no journal.

    Raises
    ------
    InputError
        If the journal can't be read, is damaged or has other settings.
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
            break  # The line that was being written when the process was killed.
    header, *rows = entries or [settings]
    if not isinstance(header, dict) or not all(_is_row(row) for row in rows):
        raise InputError(f"{path} is damaged: score all files again by --overwrite")
    if header != settings:
        differing = [name for name in settings if header.get(name) != settings[name]]
        raise InputError(
            f"{path.parent} has scores with other settings ({', '.join(differing)}): choose "
            "another folder, or score all files again by --overwrite"
        )
    return dict(rows)


def _is_row(entry):
    """Whether a line of the journal is a key and its scores."""
    match entry:
        case [str(), {"failed": str()}]:
            return True
    return False


def open_journal(path, settings, done):
    """Write a journal with the finished rows, and open it for further rows.

    Arguments
    ---------
    path : Path
        The journal.
    settings : dict
        The settings of the evaluation.
    done : dict
        Finished rows by key.

    Returns
    -------
    file
        The open journal, for `append`.

    Raises
    ------
    InputError
        If the journal can't be written.
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
        The journal from `open_journal`.
    key : str
        The pair's key.
    row : dict
        The pair's scores.

    Raises
    ------
    InputError
        If the journal can't be written.
    """
    try:
        file.write(json.dumps([key, row]) + "\n")
        file.flush()
    except OSError as error:
        raise InputError(f"{file.name} can't be written ({reason(error)})") from error
