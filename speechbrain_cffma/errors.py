"""Errors that a user can act on: one line that names what is wrong and what to do.

Authors
 * The speechbrain-cffma developers 2026
"""

import functools
import sys


class CFFMAError(Exception):
    """Base of the errors below. Commands print it as one line, without a traceback."""


class InputError(CFFMAError, ValueError):
    """Data, options or a model folder from outside that can't be used."""


class InstallError(CFFMAError, ImportError):
    """An installed package that is missing or does not fit another."""


def one_line(error):
    """The message of an error of another library, on one line and of bounded length.

    Arguments
    ---------
    error : BaseException
        Any exception.

    Returns
    -------
    str
        Its class and message, at most 300 characters.

    Example
    -------
    >>> one_line(KeyError("no\\n  such key"))
    "KeyError: 'no\\\\n such key'"
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:297] + "..."


def _without_traceback(message):
    """What an error said before a worker of a DataLoader put its traceback around it."""
    if "Original Traceback" not in message:
        return message
    last = message.strip().splitlines()[-1]
    return last.partition("Error: ")[2] or last


def command(main):
    """Decorate the main function of a command: what a user can mend ends it in one line.

    Arguments
    ---------
    main : callable
        The command's function.

    Returns
    -------
    callable
        The same function; on a `CFFMAError` or a missing package it prints one line
        to standard error and exits with code 1.

    Example
    -------
    >>> @command
    ... def main():
    ...     raise InputError("noisy.wav is silent")
    >>> main()
    Traceback (most recent call last):
    ...
    SystemExit: 1
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except CFFMAError as error:
            message = _without_traceback(str(error))
        except ModuleNotFoundError as error:
            message = (
                f"the package {error.name} is not installed: "
                "pip install 'speechbrain-cffma[train]'"
            )
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1)

    return wrapped
