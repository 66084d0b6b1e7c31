"""Rasters for tests, written by GDAL; their parts, and a net that is a threshold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from fullconv.inference.raster import Answer, Compute, Part, Read

PLACE = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)


def write(path: Path, values: NDArray[Any], *, mask: NDArray[np.bool_] | None = None, **options: Any) -> Path:
    """A file of (H, W, C) values; `mask` is written inside it, True where there is data."""
    height, width, count = values.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"driver": "GTiff", "transform": PLACE, "crs": "EPSG:32633"} | options
    shape = {"height": height, "width": width, "count": count, "dtype": values.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_PAM_ENABLED=False),
        rasterio.open(path, "w", **shape, **options) as raster,
    ):
        raster.write(np.moveaxis(values, 2, 0))
        if mask is not None:
            raster.write_mask(mask)
    return path


def noise(height: int, width: int, count: int = 3, kind: str = "uint8") -> NDArray[Any]:
    """(H, W, C) over the range of an unsigned type."""
    rng = np.random.default_rng(height * width + count)
    return rng.integers(0, np.iinfo(kind).max, (height, width, count), dtype=kind, endpoint=True)


def tiles(height: int, width: int, high: int, wide: int) -> list[Part]:
    """Parts of a raster, from the top, the last ones smaller."""
    return [
        Part((y, min(y + high, height)), (x, min(x + wide, width)))
        for y, x in product(range(0, height, high), range(0, width, wide))
    ]


def labels_of(values: NDArray[Any], classes: int) -> NDArray[np.uint8]:
    """The labels of (h, w, C): they look at a pixel and at the one above it."""
    above = np.concatenate([values[:1], values[:-1]])
    return ((values[:, :, 0] // 3 + above[:, :, -1]) % classes).astype(np.uint8)


def confidences_of(labels: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """(K, h, w): 200 for the label, and each class's number for others."""
    numbers = np.arange(classes, dtype=np.uint8)[:, None, None]
    return np.where(labels == numbers, np.uint8(200), numbers)


def threshold(
    parts: list[Part], size: tuple[int, int], classes: int, *, confidence: bool = False, margin: int = 5
) -> Compute:
    """A net of that sort: every part is read with a margin, and labelled from that."""

    def compute(read: Read, first: int) -> Iterator[Answer]:
        for part in parts[first:]:
            (top, bottom), (left, right) = part.rows, part.columns
            y, x = max(top - margin, 0), max(left - margin, 0)
            values = read((y, min(bottom + margin, size[0])), (x, min(right + margin, size[1])))
            labels = labels_of(values, classes)[top - y : bottom - y, left - x : right - x]
            yield labels, confidences_of(labels, classes) if confidence else None

    return compute
