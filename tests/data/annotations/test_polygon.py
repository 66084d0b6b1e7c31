"""The rasteriser against a plain loop in exact arithmetic, and the laws of half-open pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fullconv.data.annotations import polygon
from fullconv.data.annotations.polygon import fill

# Quarters of pixels: crossings at pixel centres, vertices on them and edges along them are then common.
QUARTERS = st.integers(-20, 60).map(lambda n: n / 4)
RINGS = st.lists(st.lists(st.tuples(QUARTERS, QUARTERS), max_size=8), max_size=3)


def inside(rings: list[list[tuple[float, float]]], x: Fraction, y: Fraction) -> bool:
    """Even-odd: crossings of the ray to the left, an edge's upper end counted and its lower not."""
    odd = False
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
            if (y0 <= y) != (y1 <= y):
                crossing = Fraction(x0) + (y - Fraction(y0)) * (Fraction(x1) - Fraction(x0)) / (
                    Fraction(y1) - Fraction(y0)
                )
                odd ^= crossing <= x
    return odd


def plain(rings: list[list[tuple[float, float]]], size: tuple[int, int]) -> NDArray[np.bool_]:
    half = Fraction(1, 2)
    return np.array([[inside(rings, x + half, y + half) for x in range(size[1])] for y in range(size[0])])


def arrays(rings: list[list[tuple[float, float]]]) -> list[NDArray[np.float64]]:
    return [np.array(ring, np.float64).reshape(-1, 2) for ring in rings]


@given(RINGS, st.integers(1, 11), st.integers(1, 11))
def test_it_equals_the_plain_loop(rings: list[list[tuple[float, float]]], height: int, width: int) -> None:
    np.testing.assert_array_equal(fill(arrays(rings), (height, width)), plain(rings, (height, width)))


@given(RINGS, st.integers(0, 4), st.integers(0, 4))
def test_a_window_is_a_part_of_the_whole(rings: list[list[tuple[float, float]]], top: int, left: int) -> None:
    whole = fill(arrays(rings), (9, 9))
    np.testing.assert_array_equal(fill(arrays(rings), (5, 5), top, left), whole[top : top + 5, left : left + 5])


@given(st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15)), min_size=2, max_size=6))
def test_polygons_that_share_a_border_share_no_pixel(border: list[tuple[float, float]]) -> None:
    """A border from the top to the bottom divides the image, whatever its floats."""
    middle = [(5.0, -9.0), *border, (5.0, 19.0)]
    left = fill(arrays([[(-9.0, -9.0), *middle, (-9.0, 19.0)]]), (10, 10))
    right = fill(arrays([[(19.0, 19.0), *reversed(middle), (19.0, -9.0)]]), (10, 10))
    assert (left ^ right).all()


def test_corners_are_half_open() -> None:
    found = fill([np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])], (4, 4))
    np.testing.assert_array_equal(np.argwhere(found), [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_far_points_cost_nothing_and_are_exact() -> None:
    found = fill([np.array([[-1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]])], (6, 6))
    np.testing.assert_array_equal(found, np.tril(np.ones((6, 6), bool), -1))  # centres on the right edge are outside


def test_nothing_to_fill() -> None:
    assert not fill([], (3, 3)).any()
    assert not fill([np.empty((0, 2)), np.array([[1.0, 1.0]]), np.array([[0.0, 0.0], [3.0, 3.0]])], (3, 3)).any()


def test_many_crossings_are_worked_out_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = np.random.default_rng(0).uniform(-5, 45, (200, 2))
    whole = fill([ring], (37, 41))
    for crossings in (1, 100, 1000):
        monkeypatch.setattr(polygon, "_CROSSINGS", crossings)
        np.testing.assert_array_equal(fill([ring], (37, 41)), whole)
