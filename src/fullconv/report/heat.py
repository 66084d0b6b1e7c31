"""Heat maps: values as colours over a picture, and PNG figures of one or several with colour bars."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import DataError, OptionError
from fullconv.report.charts import CHART_DPI, png_of
from fullconv.report.pictures import FONT, INK, Picture

COLOURS = "inferno"
"""From black by red to yellow: lightness rises evenly with the value, so that it reads without colour vision too."""

OPACITY = 0.7
"""Of the highest value."""

SINGLE, SEVERAL = 6.0, 9.0
"""Inches of the longest side of one picture, and of all of several."""


def heat_overlay(
    image: Picture, values: NDArray[np.float32], highest: float = 1.0, opacity: float = OPACITY
) -> Picture:
    """The image with values laid over it, the more opaque the higher they are.

    A value v of 0..`highest` has colour v / highest of `COLOURS` and weight opacity v / highest: where it is 0 the
    image is unchanged.

    Args:
        image: (H, W, 3) or grey (H, W, 1) or (H, W), uint8.
        values: (H, W), 0..highest; lower and higher ones count as those.
        highest: above 0.
        opacity: 0..1; results round half up.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: an image of another type or size than the values'.
        OptionError: opacity or highest out of range.
    """
    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity {opacity}; expected 0 (the image) to 1 (the colours)")
    if not highest > 0:
        raise OptionError(f"highest value {highest}; expected a number above 0")
    planes = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or planes.shape not in {(*values.shape, 1), (*values.shape, 3)}:
        raise DataError(
            f"image is {image.dtype} of shape {image.shape} for values of {values.shape}; expected uint8 RGB or grey "
            "of that height and width"
        )
    share = np.clip(values.astype(np.float32) / np.float32(highest), 0, 1)
    colours = _table()[np.rint(share * 255).astype(np.intp)]
    weight = (share * np.float32(opacity))[..., None]
    blended: Picture = np.floor(planes + weight * (colours - planes) + np.float32(0.5)).astype(np.uint8)
    return blended


def heat_png(panels: Sequence[tuple[str, Picture, float]]) -> bytes:
    """Titled overlays of one size, in rows, each with a colour bar in percent.

    Args:
        panels: (title, (H, W, 3) uint8, highest value) triples, at least one.

    Returns:
        PNG.

    Raises:
        OptionError: no panels.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    if not panels:
        raise OptionError("no heat map to draw; expected at least one")
    height, width = panels[0][1].shape[:2]
    columns = min(len(panels), ceil(sqrt(len(panels) * height / width)))
    rows = ceil(len(panels) / columns)
    scale = (SINGLE if len(panels) == 1 else SEVERAL) / max(rows * height, columns * width)
    figure = Figure(
        figsize=(columns * (width * scale + 0.7), rows * (height * scale + 0.35)),
        dpi=CHART_DPI,
        layout="constrained",
        facecolor="white",
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    magnified = scale * CHART_DPI > 1.5
    for axes, (title, picture, highest) in zip(grid.flat, panels, strict=False):
        axes.imshow(picture, interpolation="nearest" if magnified else "antialiased")
        axes.set_title(title, loc="left", fontsize=9.5, color=INK, family=FONT, parse_math=False)
        ticks = {0.0: "0 %", highest / 2: f"{50 * highest:.2g} %", highest: f"{100 * highest:.3g} %"}
        # Beside the axes themselves, so that it is as high as the picture.
        place = axes.inset_axes((1.02, 0, 0.025, 1))
        bar = figure.colorbar(ScalarMappable(Normalize(0, highest), colormaps[COLOURS]), cax=place, ticks=[*ticks])
        bar.ax.set_yticklabels([*ticks.values()], family=FONT, fontsize=8, color=INK)
        bar.ax.tick_params(length=0)
        bar.outline.set_visible(False)
    return png_of(figure)


@functools.cache
def _table() -> NDArray[np.float32]:
    """(256, 3): the colours."""
    from matplotlib import colormaps

    return np.asarray(np.rint(255 * colormaps[COLOURS](np.arange(256))[:, :3]), dtype=np.float32)
