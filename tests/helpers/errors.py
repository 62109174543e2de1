"""The messages of errors."""

import pytest

from speechbrain_cffma.errors import InputError


def error_of(function, *arguments, **options):
    """The message of the InputError that a call raises, which is one line."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
