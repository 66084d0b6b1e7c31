"""Drawings of receptive fields, by hand computation."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fullconv.errors import OptionError
from fullconv.report.fields import SQUARE, UnitField, fields_png, neutral_picture

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)  # the first two colours of Okabe and Ito that are used


def drawn(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=2).sum())


def test_size_and_centre_by_hand() -> None:
    unit = UnitField("conv", (0, 1), (-3, 4), (1, 3))
    assert unit.size == (7, 2)
    assert unit.centre == (0.0, 1.5)


def test_the_outline_is_cut_at_the_border_by_hand() -> None:
    # Rows -3..3 and columns 1..2 of an image of 10 x 10, whose border lies at -0.5 and 9.5.
    within, beyond = UnitField("conv", (0, 0), (-3, 4), (1, 3)).outline((10, 10))
    assert within == [((0.5, 3.5), (2.5, 3.5)), ((0.5, -0.5), (0.5, 3.5)), ((2.5, -0.5), (2.5, 3.5))]
    assert beyond == [((0.5, -3.5), (2.5, -3.5)), ((0.5, -3.5), (0.5, -0.5)), ((2.5, -3.5), (2.5, -0.5))]


places = st.tuples(st.integers(-30, 30), st.integers(1, 60)).map(lambda each: (each[0], each[0] + each[1]))


@given(places, places, st.integers(1, 20), st.integers(1, 20))
def test_the_outline_is_whole(rows: tuple[int, int], columns: tuple[int, int], height: int, width: int) -> None:
    unit = UnitField("conv", (0, 0), rows, columns)
    within, beyond = unit.outline((height, width))
    lengths = [abs(x1 - x0) + abs(y1 - y0) for (x0, y0), (x1, y1) in (*within, *beyond)]
    assert sum(lengths) == 2 * sum(unit.size)
    assert min(lengths) > 0
    for parts, expected in ((within, True), (beyond, False)):
        for (x0, y0), (x1, y1) in parts:
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            assert (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5) == expected


def test_the_neutral_picture() -> None:
    picture = neutral_picture((40, 20))
    assert (picture.shape, picture.dtype) == ((40, 20, 3), np.uint8)
    for row, column in ((0, 0), (15, 15), (16, 16), (39, 0)):
        assert (picture[row, column] == 240).all()
    for row, column in ((0, SQUARE), (16, 15), (39, 19)):
        assert (picture[row, column] == 226).all()


def test_every_unit_is_drawn_in_its_colour() -> None:
    image = np.full((60, 80, 3), 128, np.uint8)
    units = [UnitField("conv", (4, 4), (10, 20), (30, 45)), UnitField("pool", (0, 0), (-10, 30), (-20, 40))]
    both, first = drawn(fields_png(image, units)), drawn(fields_png(image, units[:1]))
    assert count(first, ORANGE) == 0
    assert count(first, BLUE) > 100
    assert count(both, BLUE) > 100
    assert count(both, ORANGE) > 100


def test_within_is_solid_and_beyond_is_dashed() -> None:
    """Along the upper edge of a field that is half outside: all of the colour inside, gaps outside."""
    image = np.full((100, 100, 3), 128, np.uint8)
    picture = drawn(fields_png(image, [UnitField("conv", (0, 0), (20, 80), (-50, 50))]))
    coloured = (picture == BLUE).all(axis=2)
    legend = 2 * picture.shape[1] // 3
    upper = coloured[: picture.shape[0] // 2, :legend].sum(axis=1).argmax()
    edge = np.flatnonzero(coloured[upper, :legend])
    middle = (edge[0] + edge[-1]) // 2
    left, right = edge[edge < middle - 8], edge[edge > middle + 8]
    assert (np.diff(right) == 1).all()
    assert (np.diff(left) > 1).sum() > 5


def test_equal_drawings_are_equal_bytes_and_any_name_is_drawn() -> None:
    grey = np.full((5, 400, 1), 9, np.uint8)
    units = [UnitField(name, (0, 0), (0, 3), (0, 3)) for name in (r"a$\frac$c_{d}", "x" * 200, "b")]
    assert fields_png(grey, units) == fields_png(grey, units)
    wide = drawn(fields_png(grey, units))
    assert wide.shape[1] < 2500, "a long name is shortened"


def test_nothing_to_draw() -> None:
    with pytest.raises(OptionError, match="no unit to draw; name one, such as conv1:0,0"):
        fields_png(np.zeros((5, 5, 3), np.uint8), [])
