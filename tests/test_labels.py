"""LabelSet: the VOC palette against published colours, JSON round trips, refusals."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.errors import OptionError
from fullconv.labels import VOID, LabelSet, voc_colour

# As the VOC devkit prints them, class 0 to 20 and void.
VOC_COLOURS = {
    0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128),
    6: (0, 128, 128), 7: (128, 128, 128), 8: (64, 0, 0), 9: (192, 0, 0), 10: (64, 128, 0), 11: (192, 128, 0),
    12: (64, 0, 128), 13: (192, 0, 128), 14: (64, 128, 128), 15: (192, 128, 128), 16: (0, 64, 0), 17: (128, 64, 0),
    18: (0, 192, 0), 19: (128, 192, 0), 20: (0, 64, 128), 255: (224, 224, 192),
}  # fmt: skip

colours = st.tuples(*[st.integers(0, 255)] * 3)
names = st.lists(st.text(min_size=1), min_size=1, max_size=VOID, unique=True)


@st.composite
def label_sets(draw: st.DrawFn) -> LabelSet:
    words = draw(names)
    chosen = draw(st.one_of(st.just([]), st.lists(colours, min_size=len(words), max_size=len(words))))
    return LabelSet(tuple(words), tuple(chosen))


def test_voc_palette_is_the_published_one() -> None:
    assert {label: voc_colour(label) for label in VOC_COLOURS} == VOC_COLOURS
    assert len({voc_colour(label) for label in range(256)}) == 256


def test_default_colours_and_palette() -> None:
    labels = LabelSet(tuple(f"class{i}" for i in range(21)))
    assert labels.colours == tuple(VOC_COLOURS[i] for i in range(21))
    palette = labels.palette()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert tuple(palette[VOID]) == VOC_COLOURS[VOID]


def test_own_colours_fill_the_head_of_the_palette() -> None:
    palette = LabelSet(("road", "sky"), ((1, 2, 3), (4, 5, 6))).palette()
    assert palette[:3].tolist() == [[1, 2, 3], [4, 5, 6], [0, 128, 0]]


def test_palettes_share_nothing() -> None:
    labels = LabelSet.numbered(2)
    labels.palette()[:] = 7
    assert tuple(labels.palette()[VOID]) == VOC_COLOURS[VOID]
    assert tuple(labels.palette()[1]) == VOC_COLOURS[1]


def test_numbered() -> None:
    labels = LabelSet.numbered(255)
    assert len(labels) == 255
    assert labels.names[::127] == ("0", "127", "254")


@given(label_sets())
def test_json_round_trip(labels: LabelSet) -> None:
    assert LabelSet.from_json(labels.to_json()) == labels
    assert len(labels.names) == len(labels.colours) == len(labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "0 classes; expected 1 to 255 (a mask is 8 bits and 255 is void)"),
        ((tuple(map(str, range(256))),), "256 classes; expected 1 to 255"),
        ((("a", "b", "a"),), "class name 'a' is given twice; give every class its own name"),
        ((("a", "b"), ((0, 0, 0),)), "1 colours for 2 classes; give one colour a class, or none"),
        ((("a",), ((0, 0, 256),)), "colour (0, 0, 256) is not three integers of 0..255, such as (128, 0, 0)"),
        ((("a",), ((0, 0, -1),)), "colour (0, 0, -1) is not three integers"),
        ((("a",), ((0, 0),)), "colour (0, 0) is not three integers"),
        ((("a",), ((0, 0, True),)), "colour (0, 0, True) is not three integers"),
        ((("a",), ((0, 0, 1.0),)), "colour (0, 0, 1.0) is not three integers"),
        ((("a",), ("abc",)), "colour 'abc' is not three integers"),
        ((("a",), (7,)), "colour 7 is not three integers"),
    ],
)
def test_refusals(arguments: Any, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        LabelSet(*arguments)


@pytest.mark.parametrize(
    "value", [{}, {"names": "road"}, {"names": 3}, {"names": ["a"], "colours": 3}, {"names": {"a": 1}}]
)
def test_json_of_a_wrong_shape(value: Any) -> None:
    with pytest.raises(OptionError, match="labels must be an object with the lists 'names' and 'colours'"):
        LabelSet.from_json(value)
