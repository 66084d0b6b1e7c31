"""Polygons -> pixels, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fullconv.data.annotations.entry import Points

_CROSSINGS = 2**20
"""Crossings of edges and rows that are worked out at once, which bounds the memory (some 60 MB)."""


def fill(rings: Sequence[Points], size: tuple[int, int], top: int = 0, left: int = 0) -> NDArray[np.bool_]:
    """The pixels whose centres lie inside of the rings by the even-odd rule.

    Convention: x right, y down, in pixels, (0, 0) is the image's upper left corner, so that the centre of pixel
    (row, column) is (column + 0.5, row + 0.5). A centre on a left or upper edge is inside, on a right or lower one
    outside: polygons that share an edge share no pixel and leave none out. What lies outside the window is cut off.

    Args:
        rings: (N, 2) float64 each, closed by themselves; finite, |value| <= 1e9.
        size: (H, W) of the image, or of a window of it.
        top, left: the window's first row and column.

    Returns:
        (H, W) bool.
    """
    height, width = size
    edges = np.concatenate(
        [np.hstack([ring, np.roll(ring, -1, 0)]) for ring in rings if len(ring)] or [np.empty((0, 4))]
    )
    # Each edge goes down, so that its crossings are the same numbers for both polygons that share it.
    down = edges[:, 1] <= edges[:, 3]
    edges = np.where(down[:, None], edges, edges[:, [2, 3, 0, 1]])
    first = np.clip(np.ceil(edges[:, 1] - 0.5), top, top + height).astype(np.int64)
    rows = np.clip(np.ceil(edges[:, 3] - 0.5), top, top + height).astype(np.int64) - first
    edges, first, rows = edges[rows > 0], first[rows > 0], rows[rows > 0]
    toggles = np.zeros((height, width + 1), np.bool_)
    total = np.concatenate([[0], np.cumsum(rows)])
    start = 0
    while start < len(edges):
        stop = max(start + 1, int(np.searchsorted(total, total[start] + _CROSSINGS, "right")) - 1)
        row, column = _crossings(edges[start:stop], first[start:stop], rows[start:stop])
        np.logical_xor.at(toggles, (row - top, np.clip(column - left, 0, width)), True)
        start = stop
    return np.logical_xor.accumulate(toggles[:, :width], axis=1)


def _crossings(
    edges: NDArray[np.float64], first: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row that an edge crosses, and in it the first column whose pixel's centre is not left of the crossing."""
    edge = np.repeat(np.arange(len(edges)), rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    x0, y0, x1, y1 = edges[edge].T
    # Multiplied before it is divided: a crossing at a pixel's centre is then found exactly.
    crossing = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    return row, np.ceil(crossing - 0.5).astype(np.int64)
