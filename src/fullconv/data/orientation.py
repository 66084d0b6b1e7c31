"""Which way up a picture is meant to be seen: EXIF's orientation, undone for pictures and for arrays.

Source: CIPA DC-008 (EXIF 2.32), tag 274. It numbers where row 0 and column 0 of what is stored belong: 1 top, left;
2 top, right; 3 bottom, right; 4 bottom, left; 5 left, top; 6 right, top; 7 right, bottom; 8 left, bottom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from PIL import ExifTags, Image

_Turn = Callable[[NDArray[Any]], NDArray[Any]]

_TURNS: dict[int, tuple[Image.Transpose, _Turn]] = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, lambda a: a[:, ::-1]),
    3: (Image.Transpose.ROTATE_180, lambda a: a[::-1, ::-1]),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, lambda a: a[::-1]),
    5: (Image.Transpose.TRANSPOSE, lambda a: a.swapaxes(0, 1)),
    6: (Image.Transpose.ROTATE_270, lambda a: a[::-1].swapaxes(0, 1)),
    7: (Image.Transpose.TRANSVERSE, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
    8: (Image.Transpose.ROTATE_90, lambda a: a[:, ::-1].swapaxes(0, 1)),
}
"""By orientation, what makes a picture and an array upright; 1 and what is no orientation need nothing."""


def orientation_of(picture: Image.Image) -> int:
    """As EXIF numbers it, 1 = upright; also where it cannot be told."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # metadata may be damaged in any way, and the pixels are good
        return 1
    return orientation if isinstance(orientation, int) else 1


def upright(picture: Image.Image) -> Image.Image:
    """The decoded picture, rotated and mirrored as its EXIF orientation says; the given one is not changed."""
    turn = _TURNS.get(orientation_of(picture))
    return picture if turn is None else picture.transpose(turn[0])


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array of (H, W, ...) turned upright, as `upright` turns a picture of this EXIF orientation; a view.

    >>> import numpy as np
    >>> turned(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    return _TURNS[orientation][1](values) if orientation in _TURNS else values


def swaps_sides(orientation: int) -> bool:
    """Whether what is stored as (H, W) is (W, H) when upright."""
    return orientation in (5, 6, 7, 8)
