"""Errors that a user can act on: one line that says what is wrong and what to do.

Authors
 * The speechbrain-cffma developers 2026
"""

import functools
import os
import signal
import sys
import threading
from contextlib import contextmanager


class CFFMAError(Exception):
    """Base of the errors below. Commands print it as one line, without a traceback."""


class InputError(CFFMAError, ValueError):
    """Data, an option or a model folder from the user that can't be used."""


class InstallError(CFFMAError, ImportError):
    """A package that is missing or incompatible with another one."""


def one_line(error):
    """Format another library's error as one line of limited length.

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


def why_failed(error, name):
    """Say in one line why something failed.

    Arguments
    ---------
    error : Exception
        What was raised.
    name : str or Path
        What failed, such as a file: errors of other packages may not name it.

    Returns
    -------
    str
        The message of our own error, or the name and the other error.

    Example
    -------
    >>> why_failed(InputError("a.wav is empty"), "a.wav")
    'a.wav is empty'
    >>> why_failed(OSError("no answer"), "a.wav")
    'a.wav: OSError: no answer'
    """
    return str(error) if isinstance(error, CFFMAError) else f"{name}: {one_line(error)}"


def reason(error):
    """Tell why a file can't be read or written.

    Arguments
    ---------
    error : Exception
        An error from the operating system, libsndfile or PyAV.

    Returns
    -------
    str
        Its message without the file's name, since our messages begin with the name.

    Example
    -------
    >>> reason(FileNotFoundError(2, "No such file or directory", "a.wav"))
    'No such file or directory'
    """
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None)
    return text or str(error)


def printable(text):
    """Escape control characters and undecodable bytes, which file names may hold.

    Arguments
    ---------
    text : str
        Any text.

    Returns
    -------
    str
        The text with such characters escaped as in a Python literal.

    Example
    -------
    >>> printable("Grüße" + chr(27) + "[2J")
    'Grüße\\\\x1b[2J'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def quoted(value):
    """Format a value from a file for a message.

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
    """The original message of an error that a DataLoader worker wrapped in a traceback."""
    if "Original Traceback" not in message:
        return message
    last = message.strip().splitlines()[-1]
    return last.partition("Error: ")[2] or last


@contextmanager
def interruptible():
    """On Ctrl-C or SIGTERM, print one line and exit with code 130.

    Use it for commands that continue where they stopped when run again.

    Example
    -------
    >>> with interruptible():
    ...     raise KeyboardInterrupt
    Traceback (most recent call last):
    ...
    SystemExit: 130
    """
    # Other threads can't set it, nor get it.
    is_main = threading.current_thread() is threading.main_thread()
    if is_main:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: run the same command to continue", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def exits_in_one_line(main):
    """Decorate the main function of a command, so that expected errors print one line.

    Arguments
    ---------
    main : callable
        The command's function.

    Returns
    -------
    callable
        The decorated function. On a `CFFMAError`, an error from the operating system or
        a missing package it prints one line to standard error and exits with code 1; on
        Ctrl-C it exits with code 130. Characters that the terminal can't show are
        printed as `?`.

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
        if hasattr(sys.stdout, "reconfigure"):  # not if it is closed or replaced
            sys.stdout.reconfigure(errors="replace")
        if sys.stderr is None:  # `2>&-`: progress bars and child processes need one
            sys.stderr = open(os.devnull, "w", encoding="utf-8")
            os.set_inheritable(sys.stderr.fileno(), True)
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
