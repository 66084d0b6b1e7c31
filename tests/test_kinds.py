"""Kinds of values: what each admits, which fields are looked at, and one short line for what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import nan
from typing import Any

import numpy as np
import pytest
from torch import nn

from fullconv.data.augment import Augmentation
from fullconv.errors import OptionError
from fullconv.kinds import KINDS, require_kinds, wrong_kind
from fullconv.training.options import Asked, RunOptions
from fullconv.training.recipe import Recipe


@dataclass(frozen=True)
class Options:
    flag: bool = False
    whole: int = 0
    number: float = 0.0
    text: str = ""
    size: tuple[int, int] = (1, 1)
    range: tuple[float, float] = (0, 1)
    pair: tuple[str, str] = ("a", "b")
    several: tuple[str, ...] = ()
    table: Mapping[str, Any] | None = None
    factors: Mapping[str, float] | None = None
    steps: int | None = None
    crop: tuple[int, int] | None = None
    other: bytes | None = None


VALUES: dict[str, tuple[list[object], list[object], str]] = {
    "flag": ([True, False], [0, 1, "true", None], "true or false"),
    "whole": ([0, -3, 10**30], [1.0, True, "1", None, np.int64(1), (1,)], "a whole number"),
    "number": ([0, 1.5, nan, np.float64(2)], [True, "1.5", None, 1j, [1.5]], "a number"),
    "text": (["", "a"], [0, None, b"a", ["a"]], "a text"),
    "size": ([(1, 2), [1, 2]], [3, (1,), (1, 2, 3), (1, 2.0), (1, True), "12", None], "two whole numbers, (H, W)"),
    "range": ([(1, 2.5), [0.5, 1]], [0.5, (1,), (0, "1"), (0, False), {0: 1, 1: 2}], "two numbers, (low, high)"),
    "pair": ([("a", "b"), ["", "b"]], ["ab", ("a",), ("a", "b", "c"), ("a", 1)],
             "the names of two, such as trainaug and val2012"),
    "several": ([(), ("a",), ["a", "b", "c"]], ["a", ("a", 1), 3, None, {"a": "b"}], "a list of texts"),
    "table": ([{}, {"a": 1}, None], [3, [("a", 1)], "a"], "values by name"),
    "factors": ([{"a": 0.5}, None], [0.5, "a"], "values by name"),
    "steps": ([None, 3], [1.5, "3", False], "a whole number"),
    "crop": ([None, (3, 4)], [(None, 3), 3], "two whole numbers, (H, W)"),
    "other": ([None, b"a", 3, "a"], [], ""),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_what_a_kind_admits_and_what_it_refuses(name: str) -> None:
    right, wrong, expected = VALUES[name]
    for value in right:
        require_kinds(Options, {name: value})
    for value in wrong:
        with pytest.raises(OptionError) as caught:
            require_kinds(Options, {name: value})
        assert str(caught.value) == f"{name} {value!r}; expected {expected}"


def test_every_kind_is_tried_here() -> None:
    assert {str(field.type).removesuffix(" | None") for field in fields(Options)} - {"bytes"} == set(KINDS)
    assert set(VALUES) == {field.name for field in fields(Options)}


def test_every_kind_is_used_and_every_field_of_ours_has_one_or_a_check_of_its_own() -> None:
    found = {
        str(field.type).removesuffix(" | None"): field.name
        for options in (Augmentation, Recipe, Asked, RunOptions)
        for field in fields(options)
    }
    assert set(KINDS) <= set(found)
    assert {found[annotation] for annotation in set(found) - set(KINDS)} == {
        "augmentation", "class_weights", "skip_scales", "net", "recipe",
    }  # fmt: skip


def test_all_values_are_looked_at_and_only_fields() -> None:
    require_kinds(Options, vars(Options()))
    require_kinds(Options, {"flog": 3})
    with pytest.raises(OptionError, match="^whole 1.5; expected a whole number$"):
        require_kinds(Options, {**vars(Options()), "steps": "3", "whole": 1.5})
    with pytest.raises(OptionError, match=r"^steps '3' in run\.yaml; expected a whole number$"):
        require_kinds(Options, {**vars(Options()), "steps": "3"}, " in run.yaml")


def test_a_message_is_one_short_line_whatever_the_value() -> None:
    net = nn.Sequential(*(nn.ReLU() for _ in range(9)))
    for value in (net, "a\nb" * 10**6, list(range(10**6)), {"\x1b[31m": "\u2028"}, np.zeros((9, 9))):
        text = str(wrong_kind("net", value, "a name"))
        assert text.startswith("net ")
        assert text.endswith("; expected a name")
        assert text.isprintable()
        assert len(text) < 150
