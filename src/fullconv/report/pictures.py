"""Label maps as pictures: (H, W, 3) uint8 RGB arrays."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID, LabelSet

Picture = NDArray[np.uint8]

CORRECT, WRONG, UNSCORED = (238, 238, 238), (200, 30, 40), (170, 170, 170)
"""Colours of the errors panel; they differ in lightness, so that the panel reads without colour vision too."""

FONT = "DejaVu Sans"
"""Comes with matplotlib: charts look alike on every machine."""

INK = "#24292f"
"""Of letters and axes."""

_GAP = 4
_COMFORTABLE = 256
_NAME_LENGTH = 24


def colour(mask: Picture, labels: LabelSet) -> Picture:
    """The mask in its classes' colours; void and values beyond the classes in VOC colours.

    Args:
        mask: (H, W) uint8.
        labels: names and colours.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: not an (H, W) uint8 array.

    >>> colour(np.array([[1]], np.uint8), LabelSet(("background", "scratch"))).tolist()
    [[[128, 0, 0]]]
    """
    return np.take(labels.palette(), _mask(mask, "mask"), axis=0)


def overlay(image: Picture, mask: Picture, labels: LabelSet, opacity: float = 0.5) -> Picture:
    """The image with its labels laid over it: (1 - opacity) * image + opacity * colour.

    Background (class 0) and void keep the image, as in the authors' pictures (reference 7.1).

    Args:
        image: (H, W, 3) or grey (H, W, 1) or (H, W), uint8.
        mask: (H, W) uint8.
        labels: names and colours.
        opacity: 0..1, kept to 1/256; results round half up.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: an array of another type or size.
        OptionError: opacity out of range.
    """
    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity {opacity}; expected 0 (the image) to 1 (the colours)")
    rgb = _rgb(image, _mask(mask, "mask"))
    # Integers of 1/256 and one table row a label: exact where the weight is 0, and several times as fast as floats.
    weight = np.full((256, 1), round(opacity * 256), dtype=np.uint16)
    weight[[0, VOID]] = 0
    added = labels.palette() * weight + np.uint16(128)
    blended = rgb * (256 - weight)[mask]
    blended += added[mask]
    blended >>= 8
    return blended.astype(np.uint8)


def panels(image: Picture, truth: Picture, prediction: Picture, labels: LabelSet) -> Picture:
    """Image, truth, prediction and errors side by side, small ones magnified by a whole factor.

    The errors panel shows right pixels in `CORRECT`, wrong ones in `WRONG` and void in `UNSCORED`.

    Args:
        image: (H, W, 3) or grey (H, W, 1) or (H, W), uint8.
        truth, prediction: (H, W) uint8.
        labels: names and colours.

    Returns:
        (f H, 4 f W + 12, 3) uint8 with f = max(1, floor(256 / max(H, W))) and white gaps of 4 between panels.

    Raises:
        DataError: an array of another type or size.
    """
    rgb = _rgb(image, _mask(truth, "truth"))
    if _mask(prediction, "prediction").shape != truth.shape:
        raise DataError(f"prediction is {prediction.shape} and truth {truth.shape}; expected one (H, W)")
    errors = np.array([WRONG, CORRECT], dtype=np.uint8)[(prediction == truth).astype(np.intp)]
    errors[truth == VOID] = UNSCORED
    factor = max(1, _COMFORTABLE // max(*truth.shape, 1))
    row = [
        panel.repeat(factor, axis=0).repeat(factor, axis=1)
        for panel in (rgb, colour(truth, labels), colour(prediction, labels), errors)
    ]
    gap = np.full((row[0].shape[0], _GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([part for panel in row for part in (gap, panel)][1:], axis=1)


def _mask(mask: Picture, name: str) -> Picture:
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise DataError(f"{name} is {mask.dtype} of shape {mask.shape}; expected (H, W) uint8 class numbers")
    return mask


def _rgb(image: Picture, mask: Picture) -> Picture:
    """(H, W, 3) of an image that fits the mask; grey becomes three equal channels."""
    planes = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or planes.shape not in {(*mask.shape, 1), (*mask.shape, 3)}:
        raise DataError(
            f"image is {image.dtype} of shape {image.shape} for a mask of {mask.shape}; expected uint8 RGB or grey "
            "of that height and width"
        )
    return np.broadcast_to(planes, (*mask.shape, 3))


@functools.cache
def _glyphs() -> frozenset[int]:
    """The characters that the charts' font can draw."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(FONT)).get_charmap())


def shown_names(labels: LabelSet) -> list[str]:
    """Names for charts: long ones shortened, those in a script that the font lacks as class numbers."""
    shown = []
    for number, name in enumerate(labels.names):
        short = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
        shown.append(short if short.strip() and _glyphs().issuperset(map(ord, short)) else str(number))
    return shown
