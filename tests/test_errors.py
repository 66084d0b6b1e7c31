"""The exception tree and the message for unknown names."""

from __future__ import annotations

import inspect
import os
import pickle
import time
from pathlib import Path

import pytest

from fullconv import errors
from fullconv.errors import FullconvError, OptionError, one_line, printable, unknown_name

TREE = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, Exception) and value is not FullconvError
]


@pytest.mark.parametrize("error", TREE)
def test_every_error_hangs_on_the_one_tree(error: type[Exception]) -> None:
    assert issubclass(error, FullconvError)
    assert f"── {error.__name__} " in (errors.__doc__ or ""), "the picture of the tree lacks it"


def test_errors_are_what_other_programs_catch_too() -> None:
    for error in (errors.OptionError, errors.GeometryError, errors.DataError, errors.ModelFileError):
        assert issubclass(error, ValueError)
    assert issubclass(errors.TrainingError, RuntimeError)


@pytest.mark.parametrize("error", TREE)
def test_errors_cross_processes(error: type[Exception]) -> None:
    """Worker processes hand them over pickled."""
    copy = pickle.loads(pickle.dumps(error("what was found; what was expected")))
    assert type(copy) is error
    assert str(copy) == "what was found; what was expected"


def test_unknown_name_gives_the_nearest_choice_and_all() -> None:
    error = unknown_name("net", "fcn8-vgg16", ["fcn32s-vgg16", "fcn8s-vgg16", "fcn8s-slim"])
    assert isinstance(error, OptionError)
    assert str(error) == (
        "unknown net 'fcn8-vgg16'; did you mean 'fcn8s-vgg16'? Choices: fcn32s-vgg16, fcn8s-slim, fcn8s-vgg16"
    )


@pytest.mark.parametrize("name", ["zzz", "", None, 7])
def test_unknown_name_without_a_near_choice(name: object) -> None:
    assert str(unknown_name("padding", name, {"same": 1, "paper": 2})) == (
        f"unknown padding {str(name)!r}. Choices: paper, same"
    )


def test_unknown_name_stays_one_short_line() -> None:
    """Names also come from files: one of 10 MB must neither fill the screen nor take seconds to compare."""
    start = time.perf_counter()
    message = str(unknown_name("trunk", "vgg16\n" * 2_000_000, ["slim", "vgg16"]))
    assert time.perf_counter() - start < 2
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mütze 缺陷.png", "mütze 缺陷.png"),
        ("a\nb\t\x1b[0m", r"a\nb\t\x1b[0m"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
        (Path("a/b"), str(Path("a/b"))),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: object, expected: str) -> None:
    assert printable(text) == expected
    printable(text).encode("utf-8")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad\n  value"), "ValueError: bad value"),
        (KeyError(), "KeyError"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (RuntimeError("\x1b[31m" + "x" * 1000), "RuntimeError: " + r"\x1b[31m" + "x" * 192),
    ],
)
def test_an_exception_is_one_short_line(error: Exception, expected: str) -> None:
    assert one_line(error) == expected


def test_the_limit_of_a_line() -> None:
    assert one_line(ValueError("abcdef"), limit=3) == "ValueError: abc"
