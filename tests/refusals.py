"""What the user reads when data cannot be used."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fullconv.errors import DataError


def refusal(function: Callable[..., object], *args: object) -> str:
    """The message of the DataError that the call must raise, which must be one line."""
    with pytest.raises(DataError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)
