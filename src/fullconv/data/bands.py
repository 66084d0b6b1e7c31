"""Rasters of any number of bands: multispectral scenes, elevation, radar; TIFF through GDAL, or ``.npy``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullconv.data.image import NUMPY, SIGNED, WIDE_MODES, check_pixels, format_of, opened, picture_header
from fullconv.data.sample import InputKind, Values
from fullconv.data.scenes import Input
from fullconv.errors import DataError, OptionError, printable

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MAX_BYTES = 2**29
"""Of the largest raster that is read whole, in its file's numbers or in those it is read as, whichever are wider."""

_PART = 2**22
"""Values that are read at a time."""

_EXACT = (np.uint8, np.uint16)
_NATURAL = ("B04", "B03", "B02")
"""Red, green and blue of Sentinel-2, whose files are the usual ones that name their bands."""


@dataclass(frozen=True)
class BandsReader:
    """Reads chosen bands of a raster.

    Attributes:
        bands: their numbers in the file, counted from 1.
    """

    bands: tuple[int, ...]

    def read(self, path: Path) -> Values:
        """(H, W, C) in the order of `bands`: uint8 and uint16 as they are, other numbers as float32. What is no
        measurement becomes 0: values that are not finite and, of numbers of any kind, the TIFF's own nodata value.

        Raises:
            DataError: a file that is no such raster, is damaged or too large, or lacks a band; one line.
            OptionError: a TIFF, where rasterio is not installed.
        """
        kind = _format(path)
        with opened(path):
            if kind == NUMPY:
                values = _mapped(path)
                self._require(path, values.shape[2])
                chosen = [band - 1 for band in self.bands]
                return self._joined(values.shape[:2], values.dtype, lambda top, end: values[top:end, :, chosen])
            with _raster(path) as raster:
                self._require(path, raster.count)
                size, kind = (raster.height, raster.width), np.dtype(raster.dtypes[0])
                _check_size(path, size, len(self.bands), kind)
                return self._joined(size, kind, partial(_measured, raster, self.bands), raster.block_shapes[0][0])

    def _joined(
        self, size: tuple[int, ...], kind: np.dtype[Any], part: Callable[[int, int], NDArray[Any]], block: int = 1
    ) -> Values:
        """The whole, of (h, W, C) parts of rows [top, end), which hold whole blocks where that is not too much."""
        height, width = size
        values = np.empty((height, width, len(self.bands)), _kept_as(kind))
        rows = max(1, _PART // (width * len(self.bands)))
        rows -= rows % block if rows > block else 0
        for top in range(0, height, rows):
            values[top : top + rows] = _plain(part(top, min(top + rows, height)))
        return values

    def _require(self, path: Path, count: int) -> None:
        if max(self.bands) > count:
            raise DataError(
                f"{printable(path)}: has {count} bands, and band {max(self.bands)} is asked for; "
                "all images of a data set need the same bands"
            )


@dataclass(frozen=True)
class BandsHeader:
    """What a raster's header says.

    Attributes:
        count: its bands.
        size: (H, W).
        kind: of its numbers.
        names: of its bands, "" where they have none.
    """

    count: int
    size: tuple[int, int]
    kind: np.dtype[Any]
    names: tuple[str, ...]


def bands_header(path: Path) -> BandsHeader:
    """The header of a raster; no pixel is read.

    Raises:
        DataError: a file that is no raster.
        OptionError: a TIFF, where rasterio is not installed.
    """
    kind = _format(path)
    with opened(path):
        if kind == NUMPY:
            values = _mapped(path)
            return BandsHeader(values.shape[2], values.shape[:2], values.dtype, ("",) * values.shape[2])
        with _raster(path) as raster:
            names = tuple(name or "" for name in raster.descriptions)
            return BandsHeader(raster.count, (raster.height, raster.width), np.dtype(raster.dtypes[0]), names)


def input_kind(header: BandsHeader, bands: Sequence[int] = (), preview: Sequence[int] = ()) -> InputKind:
    """The input that rasters of this header make.

    Args:
        bands: chosen ones, counted from 1; default: all.
        preview: those to be shown; default: red, green and blue where the bands are named as Sentinel-2's are, else
            the first three, or the first.
    """
    chosen = tuple(bands) or tuple(range(1, header.count + 1))
    named = {header.names[band - 1]: band for band in chosen if band <= header.count}
    natural = tuple(named[name] for name in _NATURAL) if all(name in named for name in _NATURAL) else ()
    shown = tuple(preview) or natural or (chosen[:3] if len(chosen) >= 3 else chosen[:1])
    return InputKind(len(chosen), chosen, shown)


def is_raster(path: Path) -> bool:
    """Whether a file holds what no picture can show: more than four bands, or numbers that are signed, real or beyond
    16 bits; False where it cannot be told."""
    try:
        with opened(path) as (_, head):
            kind = format_of(head)
        if kind not in (NUMPY, "TIFF"):
            return False
        header = bands_header(path)
    except DataError:
        return False
    except OptionError:  # without rasterio: what Pillow can open is a picture, and the rest asks for it
        return not _is_picture(path)
    if kind == NUMPY:
        return header.count not in (1, 3, 4) or header.kind != np.uint8
    # Two bands of bytes are grey with alpha; of other numbers, two measurements.
    wide = header.kind.itemsize > (1 if header.count > 1 else 2)
    return header.count > 4 or header.kind.kind != "u" or wide


def input_of(path: Path, bands: Sequence[int] = (), preview: Sequence[int] = ()) -> Input:
    """How images like this one are read: as pictures, or by bands where bands are asked for or no picture can show it.

    Raises:
        DataError, OptionError: bands of a file that has none.
    """
    if not bands and not preview and not is_raster(path):
        return Input()
    kind = input_kind(bands_header(path), bands, preview)
    if not set(kind.preview) <= set(kind.bands):
        raise DataError(
            f"{printable(path)}: preview names bands {list(kind.preview)}; expected some of {list(kind.bands)}"
        )
    return Input(BandsReader(kind.bands), kind)


def size_of(path: Path, source: Input) -> tuple[int, int]:
    """(H, W) of an image as `source` reads it, from its header."""
    return bands_header(path).size if source.kind.bands else picture_header(path).size


def _is_picture(path: Path) -> bool:
    try:
        return picture_header(path).kind not in (SIGNED, *WIDE_MODES.values())
    except DataError:
        return False


def _format(path: Path) -> str:
    """`NUMPY`, or "TIFF" where that can be read."""
    with opened(path) as (_, head):
        kind = format_of(head)
    if kind not in (NUMPY, "TIFF"):
        raise DataError(f"{printable(path)}: is no TIFF; rasters of chosen bands are TIFF or .npy files")
    if kind == "TIFF" and find_spec("rasterio") is None:
        raise OptionError(f"{printable(path)}: rasters need rasterio; pip install 'fullconv[geo]'")
    return kind


@contextmanager
def _raster(path: Path) -> Iterator[DatasetReader]:
    """The TIFF at `path` open in GDAL: that driver only, and no file beside it is looked at."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    # Where on earth a scene lies does not matter here. A filter as in `fullconv.data.image`: threads read.
    if ("ignore", None, NotGeoreferencedWarning, None, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", CPL_LOG_ERRORS="OFF"),
        rasterio.open(path.absolute(), driver="GTiff") as raster,
    ):
        yield raster


def _mapped(path: Path) -> NDArray[Any]:
    """An array of (H, W) or (H, W, C) as (H, W, C), mapped rather than read: a header that lies allocates nothing."""
    values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim not in (2, 3) or values.dtype.kind not in "uif" or 0 in values.shape:
        raise DataError(
            f"{printable(path)}: holds {values.dtype} of shape {values.shape}, expected numbers of shape (H, W, C); "
            "put the channels last"
        )
    _check_size(path, values.shape[:2], values.shape[-1] if values.ndim == 3 else 1, values.dtype)
    return values.reshape(*values.shape[:2], -1)


def _check_size(path: Path, size: tuple[int, ...], bands: int, kind: np.dtype[Any]) -> None:
    if kind.kind not in "uif":
        raise DataError(f"{printable(path)}: holds {kind} numbers, expected whole or real ones; convert it")
    height, width = size
    check_pixels(printable(path), (height, width), MAX_BYTES // (bands * max(kind.itemsize, _kept_as(kind).itemsize)))


def _kept_as(kind: np.dtype[Any]) -> np.dtype[Any]:
    return kind.newbyteorder("=") if kind.newbyteorder("=") in _EXACT else np.dtype(np.float32)


def _measured(raster: DatasetReader, bands: tuple[int, ...], top: int, end: int) -> NDArray[Any]:
    """(h, W, C) of rows [top, end), with 0 where there is no data."""
    values: NDArray[Any] = raster.read(bands, window=((top, end), (0, raster.width)))
    if raster.nodata is not None:
        values[values == raster.nodata] = 0
    return np.moveaxis(values, 0, 2)


def _plain(values: NDArray[Any]) -> Values:
    if values.dtype.newbyteorder("=") in _EXACT:
        return values
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and becomes 0
        wide = values.astype(np.float32)
    return np.nan_to_num(wide, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
