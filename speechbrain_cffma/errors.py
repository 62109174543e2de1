"""Errors that a user can act on: one line that names what is wrong and what to do.

Authors
 * The speechbrain-cffma developers 2026
"""

import functools
import sys
from contextlib import contextmanager


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
    text = printable(" ".join(f"{type(error).__name__}: {error}".split()))
    return text if len(text) <= 300 else text[:297] + "..."


def reason(error):
    """Why a file can't be read or written, without its name, which messages begin with.

    Arguments
    ---------
    error : Exception
        Of the system, of libsndfile or of PyAV.

    Returns
    -------
    str
        What it says.

    Example
    -------
    >>> reason(FileNotFoundError(2, "No such file or directory", "a.wav"))
    'No such file or directory'
    """
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None)
    return text or str(error)


def printable(text):
    """Escape what would steer a terminal or can't be encoded, such as in a file's name.

    Arguments
    ---------
    text : str
        Any text.

    Returns
    -------
    str
        The same with escapes as in a Python literal.

    Example
    -------
    >>> printable("Grüße" + chr(27) + "[2J")
    'Grüße\\\\x1b[2J'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def quoted(value):
    """A value from a file, as a message shows it.

    Arguments
    ---------
    value : object
        Any plain value.

    Returns
    -------
    str
        Its literal without control characters, at most 60 characters.

    Example
    -------
    >>> quoted("text"), quoted(list(range(100)))
    ("'text'", '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16...')
    """
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _without_traceback(message):
    """What an error said before a worker of a DataLoader put its traceback around it."""
    if "Original Traceback" not in message:
        return message
    last = message.strip().splitlines()[-1]
    return last.partition("Error: ")[2] or last


@contextmanager
def interruptible():
    """Upon Ctrl-C, end the process in one line and with exit code 130.

    For what goes on where it was when the same command is run again.

    Example
    -------
    >>> with interruptible():
    ...     raise KeyboardInterrupt
    Traceback (most recent call last):
    ...
    SystemExit: 130
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None


def exits_in_one_line(main):
    """Decorate the main function of a command: what a user can mend ends it in one line.

    Arguments
    ---------
    main : callable
        The command's function.

    Returns
    -------
    callable
        The same function; on a `CFFMAError`, an error of the system or a missing package
        it prints one line to standard error and exits with code 1, on Ctrl-C with code
        130. What it prints and the terminal can't show becomes `?`.

    Example
    -------
    >>> @exits_in_one_line
    ... def main():
    ...     raise InputError("noisy.wav is silent")
    >>> main()
    Traceback (most recent call last):
    ...
    SystemExit: 1
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        if hasattr(sys.stdout, "reconfigure"):  # else it is closed, or no terminal
            sys.stdout.reconfigure(errors="replace")
        try:
            with interruptible():
                return main(*args, **kwargs)
        except CFFMAError as error:
            message = _without_traceback(str(error))
        except ModuleNotFoundError as error:
            message = (
                f"the package {error.name} is not installed: "
                "pip install 'speechbrain-cffma[train]'"
            )
        except OSError as error:
            message = ": ".join(filter(None, [error.filename, reason(error)]))
        print(f"error: {printable(message)}", file=sys.stderr)
        raise SystemExit(1)

    return wrapped
