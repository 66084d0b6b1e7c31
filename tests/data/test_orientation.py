"""EXIF's orientations, against the words of its specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.orientation import orientation_of, swaps_sides, turned, upright

# CIPA DC-008, tag 274: the sides of the scene that row 0 and column 0 of what is stored are.
SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip


def stored(scene: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A scene (H, W) as it is stored, pixel by pixel."""
    height, width = scene.shape
    swapped = SIDES[orientation][0] in ("left", "right")
    out = np.zeros((width, height) if swapped else (height, width), np.uint8)
    for row, column in np.ndindex(*out.shape):
        steps = dict(zip(SIDES[orientation], (row, column), strict=True))  # from that side of the scene inwards
        y = steps["top"] if "top" in steps else height - 1 - steps["bottom"]
        x = steps["left"] if "left" in steps else width - 1 - steps["right"]
        out[row, column] = scene[y, x]
    return out


@pytest.mark.parametrize("orientation", SIDES)
@given(height=st.integers(1, 5), width=st.integers(1, 5))
def test_pictures_and_arrays_become_the_scene(orientation: int, height: int, width: int) -> None:
    scene = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    lying = stored(scene, orientation)
    np.testing.assert_array_equal(turned(lying, orientation), scene)
    np.testing.assert_array_equal(turned(np.stack([lying] * 3, -1), orientation), np.stack([scene] * 3, -1))
    picture = Image.fromarray(lying)
    picture.getexif()[274] = orientation
    assert orientation_of(picture) == orientation
    np.testing.assert_array_equal(np.asarray(upright(picture)), scene)
    assert picture.size == lying.shape[::-1], "the given one is not changed"
    assert swaps_sides(orientation) == (SIDES[orientation][0] in ("left", "right"))


@pytest.mark.parametrize("orientation", [0, 9, 77, -6])
def test_what_is_no_orientation_is_upright(orientation: int) -> None:
    scene = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert turned(scene, orientation) is scene
    assert not swaps_sides(orientation)


@pytest.mark.parametrize("value", ["6", (6, 6), b"6", None])
def test_what_is_no_number_is_upright(value: object) -> None:
    picture = Image.new("L", (3, 2))
    picture.getexif()[274] = value
    assert orientation_of(picture) == 1
    assert upright(picture) is picture


def test_damaged_metadata_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(self: Image.Image) -> None:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", damaged)
    assert orientation_of(Image.new("L", (3, 2))) == 1
