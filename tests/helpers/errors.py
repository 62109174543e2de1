"""Messages of errors."""

import pytest

from speechbrain_cffma.errors import InputError


def error_of(function, *arguments, **options):
    """Return the message of the InputError that a call raises, and check that it is one line."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
