"""Commands as tests run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]
"""`run(*words)`, the fixture of conftest.py: the command `fullconv`, in this process."""
