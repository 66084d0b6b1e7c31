"""Heat maps as pictures, by hand computation."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib import colormaps
from PIL import Image

from fullconv.errors import DataError, OptionError
from fullconv.report.heat import heat_overlay, heat_png

BRIGHTEST = (252, 255, 164)  # where inferno ends


def size_of(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        return picture.size


@given(hnp.arrays(np.uint8, (3, 4, 3)), st.floats(0, 1), st.floats(0.1, 1))
def test_where_the_value_is_0_the_image_is_unchanged(image: np.ndarray, opacity: float, highest: float) -> None:
    assert (heat_overlay(image, np.zeros((3, 4), np.float32), highest, opacity) == image).all()


def test_the_highest_value_by_hand() -> None:
    image = np.array([[[0, 100, 255], [10, 20, 30]]], np.uint8)
    values = np.array([[0.5, 9.0]], np.float32)
    assert heat_overlay(image, values, 0.5, 1).tolist() == [[list(BRIGHTEST), list(BRIGHTEST)]]
    half = heat_overlay(image, values, 0.5, 0.5)
    # (0 + 252)/2, (100 + 255)/2 = 177.5 up, (255 + 164)/2 = 209.5 up
    assert half[0, 0].tolist() == [126, 178, 210]


@given(
    hnp.arrays(np.uint8, (2, 3, 3)), hnp.arrays(np.float32, (2, 3), elements=st.floats(0, 1, width=32)),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)  # fmt: skip
def test_equals_the_formula_pixel_by_pixel(image: np.ndarray, values: np.ndarray, opacity: float) -> None:
    before = image.copy()
    result = heat_overlay(image, values, 1.0, opacity)
    assert result.dtype == np.uint8
    for place in np.ndindex(values.shape):
        share = float(values[place])
        steps = {round(255 * share - 1e-4), round(255 * share + 1e-4)}  # near a tie float32 may take either
        colours = [[round(255 * c) for c in colormaps["inferno"](step)[:3]] for step in steps]
        blends = [
            [
                int(under) + opacity * share * (over - int(under))
                for under, over in zip(image[place], colour, strict=True)
            ]
            for colour in colours
        ]
        assert any(np.abs(result[place] - blend).max() <= 0.5 + 1e-3 for blend in blends)
    assert (image == before).all()


def test_lightness_rises_with_the_value() -> None:
    """On a black picture every step is lighter than the one before: readable without colour vision."""
    values = np.linspace(0, 1, 32, dtype=np.float32)[None]
    picture = heat_overlay(np.zeros((1, 32, 3), np.uint8), values, 1, 1) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(picture[0]) > 0).all()


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1)])
def test_grey_images(shape: tuple[int, ...]) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(shape)
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)
    rgb = grey.reshape(4, 3, 1).repeat(3, axis=2)
    assert (heat_overlay(grey, values) == heat_overlay(rgb, values)).all()


def test_refusals() -> None:
    image, values = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.float32)
    for opacity in (-0.1, 1.01, math.nan):
        with pytest.raises(OptionError, match=f"opacity {opacity}; expected 0 .* to 1"):
            heat_overlay(image, values, 1, opacity)
    for highest in (0.0, -1.0, math.nan):
        with pytest.raises(OptionError, match=f"highest value {highest}; expected a number above 0"):
            heat_overlay(image, values, highest)
    for other in (image.astype(float), np.zeros((3, 2, 3), np.uint8), np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(DataError, match=r"image is \w+ of shape \(.*\) for values of \(2, 2\); expected uint8 RGB"):
            heat_overlay(other, values)
    with pytest.raises(OptionError, match="no heat map to draw; expected at least one"):
        heat_png([])


def test_figures_of_one_and_of_several() -> None:
    picture = np.zeros((30, 40, 3), np.uint8)
    panels = [(r"a$\frac$c_{d}", picture, 1.0), ("b", picture, 0.1), ("c", picture, 0.5)]
    assert heat_png(panels) == heat_png(panels)
    one, several = size_of(heat_png(panels[:1])), size_of(heat_png(panels * 3))
    assert 800 < max(one) < 1200
    assert 1200 < max(several) < 2000
    assert 1 < several[0] / several[1] < 1.8, "three in a row"
    for shape in ((1, 1), (1, 300), (300, 1)):
        assert max(size_of(heat_png([("a", np.zeros((*shape, 3), np.uint8), 1.0)]))) < 1600


def test_the_bar_goes_from_the_first_colour_to_the_last() -> None:
    grey = np.full((30, 40, 3), 128, np.uint8)
    with Image.open(io.BytesIO(heat_png([("a", grey, 0.25)]))) as png:
        picture = np.asarray(png.convert("RGB"))
    bar = picture[:, [column for column in range(picture.shape[1]) if (picture[:, column] == BRIGHTEST).all(1).any()]]
    assert bar.shape[1] > 5
    top = np.flatnonzero((bar[:, 3] == BRIGHTEST).all(axis=1))[0]
    bottom = np.flatnonzero((bar[:, 3] == (0, 0, 4)).all(axis=1))[-1]  # where inferno begins
    assert bottom - top > 400
