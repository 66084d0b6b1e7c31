"""Cloud-optimised GeoTIFFs of spooled labels and confidences, made by GDAL from the raw files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from fullconv.data.gdal import cause, environment
from fullconv.data.georeference import Georeference
from fullconv.errors import DataError, one_line, printable
from fullconv.labels import VOID, LabelSet

BLOCK = 512
"""Side of the blocks."""

_COMPARED = 2**24
"""Bytes that are compared at a time."""


def labels_cog(raw: Path, out: Path, size: tuple[int, int], label_set: LabelSet, place: Georeference) -> None:
    """The COG of raw labels: one band of class numbers with a colour table, ``CLASS_n`` tags for names, 255 = no data,
    overviews of the most frequent class.

    Args:
        raw: (H, W) uint8, row after row.
        out: a new file in the folder of `raw`, which is the place of temporary files too.
        size: (H, W).

    Raises:
        DataError: the file cannot be written; one line.
    """
    entries = "".join(f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="255"/>' for r, g, b in label_set.palette().tolist())
    described = f"<NoDataValue>{VOID}</NoDataValue><ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable>"
    tags = {f"CLASS_{number}": name for number, name in enumerate(label_set.names)}
    _write(raw, out, size, [described], tags, place, OVERVIEW_RESAMPLING="MODE")


def confidence_cog(raw: Path, out: Path, size: tuple[int, int], label_set: LabelSet, place: Georeference) -> None:
    """The COG of raw confidences: a band a class, named by it, of round(probability x 255), scale 1/255; overviews of
    the mean.

    Args:
        raw: (K, H, W) uint8, plane after plane.
        out, size: see `labels_cog`.

    Raises:
        DataError: the file cannot be written; one line.
    """
    described = [
        f"<Description>{_text(name)}</Description><Offset>0</Offset><Scale>{1 / 255!r}</Scale>"
        f"<ColorInterp>{'Gray' if number == 0 else 'Undefined'}</ColorInterp>"
        for number, name in enumerate(label_set.names)
    ]
    _write(raw, out, size, described, {}, place, OVERVIEW_RESAMPLING="AVERAGE", PREDICTOR="STANDARD")


def _write(
    raw: Path,
    out: Path,
    size: tuple[int, int],
    described: list[str],
    tags: Mapping[str, str],
    place: Georeference,
    **options: str,
) -> None:
    from rasterio import shutil

    table = out.with_suffix(".vrt")
    table.write_text(_vrt(raw.name, size, described, tags, place), "utf-8")
    try:
        with environment():
            # One thread, as many give another order of blocks; IF_SAFER, as the compressed size is not known before.
            shutil.copy(
                str(table.absolute()), str(out.absolute()), driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=BLOCK,
                BIGTIFF="IF_SAFER", NUM_THREADS="1", **options,
            )  # fmt: skip
            _require_equal(table, out, size, len(described))
    except Exception as error:  # GDAL's drivers fail in many ways
        raise DataError(
            f"{printable(out)}: cannot be written ({one_line(cause(error))}); "
            "check the folder and free space on the disk"
        ) from error
    with out.open("rb+") as file:
        os.fsync(file.fileno())


def _require_equal(table: Path, out: Path, size: tuple[int, int], planes: int) -> None:
    """Read the file back: GDAL tells of some errors of the disk nowhere."""
    import rasterio

    height, width = size
    columns = max(1, _COMPARED // (planes * BLOCK**2)) * BLOCK
    with rasterio.open(table.absolute(), driver="VRT") as raw, rasterio.open(out.absolute(), driver="GTiff") as written:
        for top, left in product(range(0, height, BLOCK), range(0, width, columns)):
            window = (top, min(top + BLOCK, height)), (left, min(left + columns, width))
            if not np.array_equal(written.read(window=window), raw.read(window=window)):
                raise OSError(f"the window {window} is not what was written")


def _vrt(raw: str, size: tuple[int, int], described: list[str], tags: Mapping[str, str], place: Georeference) -> str:
    """GDAL's description of a raw file of (planes, H, W) uint8 in the same folder."""
    height, width = size
    lines = [f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">']
    if place.points:
        lines.append(f"<GCPList Projection={quoteattr(_plain(place.crs))}>")
        for number, (row, column, x, y, z) in enumerate(place.points, 1):
            lines.append(f'<GCP Id="{number}" Pixel="{column!r}" Line="{row!r}" X="{x!r}" Y="{y!r}" Z="{z!r}"/>')
        lines.append("</GCPList>")
    elif place.crs:
        lines.append(f"<SRS>{_text(place.crs)}</SRS>")
    if place.transform is not None:
        lines.append(f"<GeoTransform>{', '.join(repr(float(number)) for number in place.transform)}</GeoTransform>")
    lines.append(_metadata(dict(tags) | {"AREA_OR_POINT": place.pixel}))
    if place.rpc:
        lines.append(_metadata(dict(place.rpc), "RPC"))
    for band, text in enumerate(described):
        lines.append(
            f'<VRTRasterBand dataType="Byte" band="{band + 1}" subClass="VRTRawRasterBand">{text}'
            f'<SourceFilename relativeToVRT="1">{_text(raw)}</SourceFilename>'
            f"<ImageOffset>{band * height * width}</ImageOffset><PixelOffset>1</PixelOffset>"
            f"<LineOffset>{width}</LineOffset></VRTRasterBand>"
        )
    return "\n".join([*lines, "</VRTDataset>"])


def _metadata(tags: Mapping[str, str], domain: str = "") -> str:
    items = "".join(f"<MDI key={quoteattr(_plain(key))}>{_text(value)}</MDI>" for key, value in tags.items())
    return f"<Metadata{f' domain={quoteattr(domain)}' if domain else ''}>{items}</Metadata>"


def _text(value: str) -> str:
    return escape(_plain(value))


def _plain(value: str) -> str:
    """Without what XML cannot hold: control characters and halves of characters are written out."""
    return printable(value)
