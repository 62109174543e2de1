"""Checks of the keys of an experiment's data: numbers, shares and ranges.

Authors
 * The speechbrain-cffma developers 2026
"""

import math

from speechbrain_cffma.errors import InputError, quoted


def check_number(key, value, low=-math.inf, high=math.inf, whole=False):
    """Check that a value is a number within limits.

    Arguments
    ---------
    key : str
        Name of the key, for the message.
    value : int or float
        The value.
    low : float
        The least value.
    high : float
        The greatest value.
    whole : bool
        Whether the number must be whole.

    Raises
    ------
    InputError
        If it is no such number.

    Example
    -------
    >>> check_number("n_valid", 32, low=1, whole=True)
    >>> check_number("silence_share", 2, 0, 1)
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: silence_share is 2: it must be a number from 0 to 1
    """
    kinds = int if whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and low <= value <= high):
        raise InputError(
            f"{key} is {quoted(value)}: it must be {_said(low, high, whole)}"
        )


def check_shares(**shares):
    """Check that values are shares, which are numbers from 0 to 1.

    Arguments
    ---------
    **shares : float
        The values by their keys.

    Raises
    ------
    InputError
        If one is no share.

    Example
    -------
    >>> check_shares(clean_share=0.1, noise_share=0)
    """
    for key, value in shares.items():
        check_number(key, value, 0, 1)


def check_range(key, value, low=-math.inf, high=math.inf):
    """Check that a value is a range: two numbers in ascending order, or twice the same.

    Arguments
    ---------
    key : str
        Name of the key, for the message.
    value : sequence of (int or float)
        The range.
    low : float
        The least value of its start.
    high : float
        The greatest value of its end.

    Raises
    ------
    InputError
        If it is no such range.

    Example
    -------
    >>> check_range("snr", [-5, 20])
    >>> check_range("snr", [20, -5])
    Traceback (most recent call last):
    ...
    speechbrain_cffma.errors.InputError: snr is [20, -5]: its first number must not exceed its second
    """
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise InputError(
            f"{key} is {quoted(value)}: it must be a list of two numbers, the least and "
            "the greatest"
        )
    for place, number in zip(("start", "end"), value, strict=True):
        check_number(f"the {place} of {key}", number, low, high)
    if value[0] > value[1]:
        raise InputError(
            f"{key} is {quoted(value)}: its first number must not exceed its second"
        )


def _said(low, high, whole):
    """What a number must be, in words."""
    number = "a whole number" if whole else "a number"
    if math.isfinite(low) and math.isfinite(high):
        return f"{number} from {low:g} to {high:g}"
    return f"{number} of {low:g} or more" if math.isfinite(low) else number
