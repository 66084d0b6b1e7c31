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


def one_line(result: Result, code: int | None = None) -> str:
    """The error's line, without traceback or anything around it; the exit code can be checked too."""
    assert result.code == (code or result.code) != 0
    assert result.out == ""
    assert result.err.startswith("fullconv: ")
    assert result.err.count("\n") == 1
    return result.err.removeprefix("fullconv: ").rstrip("\n")
