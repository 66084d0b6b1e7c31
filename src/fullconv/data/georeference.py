"""Where a raster lies on earth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


@dataclass(frozen=True)
class Georeference:
    """Where a raster lies on earth, as far as its file says so.

    Attributes:
        crs: as WKT, "" for none; of the transform, or of the control points.
        transform: GDAL's six numbers, of pixel corners: (x, dx/dcolumn, dx/drow, y, dy/dcolumn, dy/drow); or None.
        points: ground control points where there is no transform, (row, column, x, y, z) each.
        rpc: rational polynomial coefficients, by GDAL's names.
        pixel: "Area" or "Point", what a value is said to stand for.
    """

    crs: str = ""
    transform: tuple[float, ...] | None = None
    points: tuple[tuple[float, float, float, float, float], ...] = ()
    rpc: tuple[tuple[str, str], ...] = ()
    pixel: str = "Area"


def georeference_of(dataset: DatasetReader) -> Georeference:
    """That of an open raster; whatever rasterio raises goes through."""
    points, crs = dataset.gcps
    placed = not dataset.transform.is_identity
    if placed or not points:
        points, crs = [], dataset.crs
    return Georeference(
        crs.wkt if crs else "",
        dataset.transform.to_gdal() if placed else None,
        tuple((point.row, point.col, point.x, point.y, point.z or 0.0) for point in points),
        tuple(sorted(dataset.tags(ns="RPC").items())),
        "Point" if dataset.tags().get("AREA_OR_POINT") == "Point" else "Area",
    )
