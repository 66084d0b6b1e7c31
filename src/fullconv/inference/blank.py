"""What no image changes: cells of paper padding that see only zeros, computed once per size of image and pasted.

Of the 363 GFLOP of FCN-8s on VGG-16 at 500x500, 31 % are spent on such cells. Their values depend on nothing but their
distance from the borders of their map, and only near those. So a small image of nothing has them all.

Source: Long et al. 2015 (the 100-pixel padding of the reference nets).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from fullconv.geometry import Window
from fullconv.inference.stages import Stage
from fullconv.nets.paths import paths
from fullconv.nets.rectangles import Interval, Rectangle, Size, size_after, whole, within

WORTH = 0.97
"""Share of a map's cells that see the image above which pasting the others does not pay."""

FAR = 1 << 40
"""Cells on either side of an image that is looked at without its borders."""

Blanks = Callable[[Size, Sequence[int]], list[Tensor]]
"""(H, W) of an image of nothing, numbers of stages -> these stages' maps, (1, C, h, w); see `blanks`."""


@dataclass(frozen=True)
class Border:
    """The cells of one map that see no image.

    Attributes:
        blank: (1, C, h, w), the map of a smaller image of nothing.
        seeing: the rectangle of cells that see the image.
        free: along each axis, the cells that neither end of their map reaches: all alike where they see no image.
        missing: cells that `blank` has less than the map, along each axis.
    """

    blank: Tensor
    seeing: Rectangle
    free: Rectangle
    missing: tuple[int, int]

    def changing(self, outputs: Rectangle) -> Rectangle:
        """The part of some outputs that the image changes; empty along both axes where there is none."""
        rows, columns = (common(interval, seen) for interval, seen in zip(outputs, self.seeing, strict=True))
        if rows[0] == rows[1] or columns[0] == columns[1]:
            return (outputs[0][0],) * 2, (outputs[1][0],) * 2
        return rows, columns

    def around(self, y: Tensor | None, outputs: Rectangle) -> Tensor:
        """All of some outputs, from the part of them that the image changes (None: nothing)."""
        (top, bottom), (left, right) = outputs
        if y is None:
            return self._pasted((top, bottom), (left, right))
        (first, last), (begin, end) = self.changing(outputs)
        full = y.new_empty((*y.shape[:2], bottom - top, right - left)).contiguous(memory_format=torch.channels_last)
        full[:, :, first - top : last - top, begin - left : end - left] = y
        for rows, columns in (
            ((top, first), (left, right)), ((last, bottom), (left, right)),
            ((first, last), (left, begin)), ((first, last), (end, right)),
        ):  # fmt: skip
            if rows[0] < rows[1] and columns[0] < columns[1]:
                full[:, :, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = self._pasted(
                    rows, columns
                )
        return full

    def _pasted(self, rows: Interval, columns: Interval) -> Tensor:
        down, across = (self._place(axis, interval) for axis, interval in enumerate((rows, columns)))
        return self.blank.index_select(2, down).index_select(3, across)

    def _place(self, axis: int, interval: Interval) -> Tensor:
        """Where the cells of an interval stand in the smaller map."""
        cells, (low, high) = torch.arange(*interval, device=self.blank.device), self.free[axis]
        far = cells - self.missing[axis]
        return torch.where(cells < low, cells, torch.where(cells >= high, far, low))


@dataclass(frozen=True)
class _Axis:
    """A map along one axis: its cells, those that see the image, those that no border reaches, and their stride."""

    size: int
    seeing: Interval
    free: Interval
    stride: int

    def after(self, path: Sequence[Window]) -> _Axis:
        """The map that a path of layers makes of it."""
        at = self
        for window in path:
            n = window.output_size(at.size)
            seeing, free = window.outputs_of(*at.seeing), window.outputs_within(*at.free)
            at = _Axis(n, within(seeing, n), within(free, n), at.stride * window.stride)
        return at


def borders(stages: Sequence[Stage], size: Size, made: Blanks) -> list[Border | None]:
    """The border of every stage's map for images of `size`; None where all cells, or nearly all, see the image.

    Args:
        stages: of one trunk.
        made: gives the maps of the image of nothing, which is the same for many sizes.

    Raises:
        GeometryError: too little padding for the size.
    """
    at, maps = tuple(_Axis(n, (0, n), (-FAR, FAR), 1) for n in size), []
    for stage in stages:
        at = tuple(axis.after(path) for axis, path in zip(at, paths([stage.layers]), strict=True))
        maps.append(at)
    pasted = [number for number, axes in enumerate(maps) if _pays(axes)]
    found: list[Border | None] = [None] * len(stages)
    if not pasted:
        return found
    less = [_superfluous([maps[number][axis] for number in pasted], size[axis]) for axis in (0, 1)]
    small = size[0] - less[0], size[1] - less[1]
    for number, blank in zip(pasted, made(small, pasted), strict=True):
        rows, columns = maps[number]
        missing = rows.size - blank.shape[2], columns.size - blank.shape[3]
        found[number] = Border(blank, (rows.seeing, columns.seeing), (rows.free, columns.free), missing)
    return found


@torch.inference_mode()
def blanks(
    stages: Sequence[Stage], channels: int, device: torch.device, size: Size, wanted: Sequence[int]
) -> list[Tensor]:
    """What stages make of an image of nothing.

    Args:
        stages: of one trunk.
        channels: of its input.
        size: (H, W) of the image.
        wanted: numbers of stages, ascending.

    Returns:
        Their maps, (1, C, h, w) of the stages' type.
    """
    x, found = torch.zeros(1, channels, *size, device=device).contiguous(memory_format=torch.channels_last), []
    for number, stage in enumerate(stages[: wanted[-1] + 1]):
        after = size_after(stage.layers, size)
        x, size = stage.run(x, whole(size), whole(after), size), after
        if number in wanted:
            found.append(x)
    return found


def _pays(axes: Sequence[_Axis]) -> bool:
    seeing, cells = prod(stop - start for start, stop in (a.seeing for a in axes)), prod(a.size for a in axes)
    return seeing < WORTH * cells


def _superfluous(pasted: Sequence[_Axis], size: int) -> int:
    """Pixels that the image of nothing can be smaller by: whole strides, one free cell of every map being left."""
    room = min((stop - start - 1) * axis.stride for axis in pasted for start, stop in [axis.free])
    stride = max(axis.stride for axis in pasted)
    return max(0, min(room, size - 1)) // stride * stride


def common(one: Interval, other: Interval) -> Interval:
    """What lies in both; empty where nothing does."""
    start = max(one[0], other[0])
    return start, max(start, min(one[1], other[1]))
