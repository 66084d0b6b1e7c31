"""The exception tree and the message for unknown names."""

from __future__ import annotations

import inspect
import pickle
import time

import pytest

from fullconv import errors
from fullconv.errors import FullconvError, OptionError, unknown_name

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
    assert issubclass(errors.DependencyError, ImportError)


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
