"""Receptive fields drawn over an image: PNG bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fullconv.errors import OptionError
from fullconv.report.charts import CHART_DPI, png_of
from fullconv.report.pictures import FONT, INK, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

LONGEST_SIDE = 6.6
"""Inches of the drawing, without its legend."""

SQUARE = 16
"""Pixels of a square of the neutral picture."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_OUTSIDE, _EDGE = "#f0f2f5", "#8c959f"
_MARGIN = 0.03
_NAME_LENGTH = 40

Segment = tuple[tuple[float, float], tuple[float, float]]
"""((x, y), (x, y))."""


@dataclass(frozen=True)
class UnitField:
    """The field of one unit.

    Attributes:
        name: of its layer.
        unit: (row, column) in the layer's map.
        rows, columns: half-open intervals of the pixels that it reads; they may reach outside the image.
    """

    name: str
    unit: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def centre(self) -> tuple[float, float]:
        """(row, column); pixel i has its centre at coordinate i."""
        return (self.rows[0] + self.rows[1] - 1) / 2, (self.columns[0] + self.columns[1] - 1) / 2

    def outline(self, size: tuple[int, int]) -> tuple[list[Segment], list[Segment]]:
        """Its edges within an image of (H, W), and those beyond its border, in pixel coordinates."""
        (top, bottom), (left, right) = ((a - 0.5, b - 0.5) for a, b in (self.rows, self.columns))
        within: list[Segment] = []
        beyond: list[Segment] = []
        for y in (top, bottom):
            for a, b, inside in _pieces(left, right, size[1]):
                (within if inside and -0.5 <= y <= size[0] - 0.5 else beyond).append(((a, y), (b, y)))
        for x in (left, right):
            for a, b, inside in _pieces(top, bottom, size[0]):
                (within if inside and -0.5 <= x <= size[1] - 0.5 else beyond).append(((x, a), (x, b)))
        return within, beyond


def neutral_picture(size: tuple[int, int]) -> Picture:
    """(H, W, 3) uint8: pale squares of `SQUARE` pixels."""
    rows, columns = (np.arange(n) // SQUARE for n in size)
    odd = (rows[:, None] + columns) % 2
    return np.repeat(np.where(odd, 226, 240).astype(np.uint8)[:, :, None], 3, axis=2)


def fields_png(image: Picture, units: Sequence[UnitField]) -> bytes:
    """The fields of units over an image: solid within it, dashed beyond its border; a cross marks each centre.

    Args:
        image: (H, W, 3) uint8, or grey (H, W, 1).
        units: at least one; they are listed in this order, with the (height x width) of their fields.

    Returns:
        PNG.

    Raises:
        OptionError: no units.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    if not units:
        raise OptionError("no unit to draw; name one, such as conv1:0,0")
    height, width = image.shape[:2]
    top, bottom = _span([unit.rows for unit in units], height)
    left, right = _span([unit.columns for unit in units], width)
    scale = LONGEST_SIDE / max(bottom - top, right - left)
    figure = Figure(
        figsize=((right - left) * scale + 3.2, max((bottom - top) * scale, 0.3 * len(units)) + 0.3),
        dpi=CHART_DPI,
        layout="constrained",
        facecolor="white",
    )
    axes = figure.subplots()
    axes.set_facecolor(_OUTSIDE)
    axes.imshow(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image, interpolation="antialiased", alpha=0.85)
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=_EDGE, linewidth=1))
    handles = [_draw(axes, unit, (height, width), _COLOURS[i % len(_COLOURS)], i) for i, unit in enumerate(units)]
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.tick_params(color=_EDGE, labelcolor=INK, labelsize=8, labelfontfamily=FONT)
    axes.spines[:].set_visible(False)
    legend = axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.01), frameon=False, borderaxespad=0,
        prop={"family": FONT, "size": 9}, labelcolor=INK, handlelength=1.5, labelspacing=0.8,
    )  # fmt: skip
    for line in legend.get_texts():
        line.set_parse_math(False)
    return png_of(figure)


def _draw(axes: Axes, unit: UnitField, size: tuple[int, int], colour: str, number: int) -> Line2D:
    """One field; returns what stands for it in the legend."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import Normal, Stroke

    casing = [Stroke(linewidth=3.4, foreground="white", alpha=0.8), Normal()]
    within, beyond = unit.outline(size)
    order = 10 - number / 100  # small fields, which come first, lie on top
    if beyond:
        axes.add_collection(LineCollection(beyond, colors=colour, linewidths=1.3, linestyles=(0, (4, 3)), zorder=order))
    if within:
        solid = LineCollection(within, colors=colour, linewidths=1.8, capstyle="projecting", zorder=order)
        solid.set_path_effects(casing)
        axes.add_collection(solid)
    row, column = unit.centre
    cross = Line2D([column], [row], marker="+", markersize=8, markeredgewidth=1.6, color=colour, zorder=order + 5)
    cross.set_path_effects(casing)
    axes.add_line(cross)
    height, width = unit.size
    name = unit.name if len(unit.name) <= _NAME_LENGTH else "…" + unit.name[1 - _NAME_LENGTH :]
    label = f"{name}, unit {unit.unit[0]}, {unit.unit[1]}\n{height} x {width} pixels"
    return Line2D([], [], color=colour, linewidth=2.2, label=label)


def _pieces(start: float, stop: float, size: int) -> Iterator[tuple[float, float, bool]]:
    """An edge cut at an image's borders: (from, to, whether between them)."""
    first, last = -0.5, size - 0.5
    for a, b, inside in ((start, min(stop, first), False), (max(start, first), min(stop, last), True),
                         (max(start, last), stop, False)):  # fmt: skip
        if a < b:
            yield a, b, inside


def _span(intervals: Sequence[tuple[int, int]], size: int) -> tuple[float, float]:
    """What is drawn along one axis: the image, all fields, and a margin."""
    first, last = min(0, *(a for a, _ in intervals)) - 0.5, max(size, *(b for _, b in intervals)) - 0.5
    margin = _MARGIN * (last - first)
    return first - margin, last + margin
