"""Reading rasters of any size by windows: GeoTIFF, PNG, JPEG and VRT through GDAL, as a net takes its input.

Rows count from the top, columns from the left, both half-open: rows (0, 2) are the first two.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fullconv.data.channels import Void, colours, measured
from fullconv.data.gdal import cause, environment
from fullconv.data.georeference import georeference_of
from fullconv.data.image import format_of, opened
from fullconv.data.sample import Values
from fullconv.data.stored import stored_orientation
from fullconv.data.vrt import FORMATS, checked_vrt, is_vrt
from fullconv.errors import DataError, GeometryError, OptionError, one_line, printable

if TYPE_CHECKING:
    from rasterio.io import DatasetReader, MemoryFile

Span = tuple[int, int]
"""Half-open: first row or column, and the one after the last."""

MAX_BLOCK = 2**28
"""Bytes of the largest block (tile or strip) that is decoded: none can be read in part."""

LARGEST = 2**40
"""Pixels of the largest raster."""

LOOKED = 1.0
"""Seconds between looks at the files while windows are read: a VRT may have ten thousand."""

_DRIVERS = {"TIFF": "GTiff", "PNG": "PNG", "JPEG": "JPEG", "VRT": "VRT"}
_INTERLACED = 28  # the byte that says so: PNG, section 11.2.1
_TILED = "make tiles of it: gdal_translate -of COG IN OUT"


@dataclass(frozen=True)
class Window:
    """What a raster holds in a window.

    Attributes:
        values: (h, w, C) uint8, uint16 or float32 (finite).
        void: (h, w) bool, pixels without data; None where there are none.
    """

    values: Values
    void: Void


class RasterReader:
    """A raster open for reading by windows; threads may share it.

    Args:
        path: of a GeoTIFF (COG, BigTIFF), PNG, JPEG or VRT, told by its first bytes. No file beside it is looked at,
            but a VRT's sources.
        bands: numbers of the bands that are read, counted from 1; values are as `fullconv.data.bands` gives them.
            Default: RGB, with palettes expanded, grey repeated and alpha dropped.

    Attributes:
        size: (H, W).
        count: C of what `read` gives.
        dtype: of what `read` gives: uint8, uint16 or float32.
        georeference: where it lies.
        files: all that are read, resolved.
        stamps: (bytes, time of change in ns) of each of them when they were opened.
        block: (rows, columns) of the blocks that the file is decoded by.
        sequential: rows can only be decoded from the top.

    Raises:
        DataError: no such file, not one of these kinds, damaged, too few bands, no colours where RGB is read, or
            blocks too large for decoding in parts; one line.
        OptionError: rasterio is not installed.
    """

    def __init__(self, path: str | Path, bands: Sequence[int] = ()) -> None:
        self.path = Path(path).absolute()
        self._name = printable(path)
        self._lock = threading.Lock()
        self._nested: list[MemoryFile] = []
        self._link: TemporaryDirectory[str] | None = None
        if find_spec("rasterio") is None:
            raise OptionError(f"{self._name}: rasters need rasterio; pip install 'fullconv[geo]'")
        if self.path.parts[1:2] and self.path.parts[1].startswith("vsi"):
            raise DataError(f"{self._name}: lies in a folder that GDAL takes for one of its own; move the file")
        try:
            name, kind, self.files, pictures = self._checked()
            self._stamps = [(file, _stamp(file)) for file in self.files]
            self.stamps = tuple((0, 0) if stamp is None else stamp[:2] for _, stamp in self._stamps)
            self._looked = time.monotonic()
            for file, each in pictures.items():
                shown = printable(file)
                with closing(_open(shown, str(file), each)) as source, _described(shown):
                    _require_readable(shown, source)
            self._dataset = _open(self._name, name, kind)
            self._describe(tuple(bands))
        except BaseException:
            self.close()
            raise

    def read(self, rows: Span, columns: Span) -> Values:
        """The values in a window; see `window`."""
        return self.window(rows, columns).values

    def window(self, rows: Span, columns: Span) -> Window:
        """What is in a window, C-contiguous. Values that are not finite, and in chosen bands the nodata value, are 0.
        Void are pixels whose read bands all hold the nodata value or numbers that are not finite, and those that the
        file's mask or alpha says are transparent.

        Raises:
            GeometryError: the window is empty or not inside the raster.
            DataError: the file is damaged there, or has changed since it was opened, which is looked for every
                `LOOKED` seconds; one line.
        """
        for span, length, what in ((rows, self.size[0], "rows"), (columns, self.size[1], "columns")):
            if not 0 <= span[0] < span[1] <= length:
                raise GeometryError(f"{self._name}: {what} {list(span)} are asked for, expected some of [0, {length})")
        if time.monotonic() - self._looked >= LOOKED:
            self.require_unchanged()
        mask = None
        try:
            with self._lock, environment():
                raw: NDArray[Any] = self._dataset.read(self._channels.bands, window=(rows, columns))
                if self._masked:
                    mask = self._dataset.read_masks(self._channels.bands[0], window=(rows, columns))
        except Exception as error:  # GDAL's drivers fail in many ways
            self.require_unchanged()
            raise DataError(
                f"{self._name}: cannot be read in rows {list(rows)}, columns {list(columns)} "
                f"({one_line(cause(error))}); the file is damaged there: copy or export it again"
            ) from error
        values, void = self._channels.values(raw)
        if mask is not None:
            void = mask == 0 if void is None else void | (mask == 0)
        return Window(values, void)

    def require_unchanged(self) -> None:
        """Raise DataError where a file has changed or vanished since it was opened."""
        self._looked = time.monotonic()
        for file, stamp in self._stamps:
            found = _stamp(file)
            if found is None:
                raise DataError(f"{printable(file)}: has vanished while it was read; put it back")
            if found != stamp:
                raise DataError(f"{printable(file)}: was changed while it was read; leave it alone until all is done")

    def close(self) -> None:
        """Close the file."""
        dataset: DatasetReader | None = getattr(self, "_dataset", None)
        if dataset is not None:
            with self._lock:
                dataset.close()
        for nested in self._nested:
            nested.close()
        self._nested = []
        if self._link is not None:
            self._link.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _checked(self) -> tuple[str, str, tuple[Path, ...], Mapping[Path, str]]:
        """What GDAL is to open, of which format, the files that this reads, and those of them that are sources and
        their formats."""
        with opened(self.path) as (stream, head):
            kind = format_of(head)
            stream.seek(0)
            start = stream.read(1024)
            turned = stored_orientation(stream, kind) if kind in FORMATS else 1
        if 2 <= turned <= 8:
            raise DataError(f"{self._name}: is to be turned (orientation {turned}), expected it upright; save it so")
        if kind in FORMATS:
            return self._named(), kind, (self.path.resolve(),), {}
        if not is_vrt(start):
            raise DataError(f"{self._name}: is no raster, expected a GeoTIFF, PNG, JPEG or VRT; convert it to GeoTIFF")
        vrt = checked_vrt(self.path, self._keep)
        return self._keep(vrt.text), "VRT", vrt.files, vrt.pictures

    def _named(self) -> str:
        """A name by which GDAL can open the file, which needs UTF-8."""
        try:
            str(self.path).encode()
        except UnicodeEncodeError:
            self._link = TemporaryDirectory()
            link = Path(self._link.name) / "raster"
            link.symlink_to(self.path.absolute())
            return str(link)
        return str(self.path)

    def _keep(self, text: bytes) -> str:
        """The name of a VRT in GDAL's memory."""
        from rasterio.io import MemoryFile

        with environment():
            self._nested.append(MemoryFile(text, ext=".vrt"))
        return str(self._nested[-1].name)

    def _describe(self, bands: tuple[int, ...]) -> None:
        from rasterio._err import CPLE_BaseError

        with _described(self._name):
            dataset = self._dataset
            with suppress(CPLE_BaseError):  # damaged EXIF counts as none; GDAL complains of it once
                _ = dataset.colorinterp
            self.size = dataset.height, dataset.width
            _require_readable(self._name, dataset)
            self.georeference = georeference_of(dataset)
            self.block: Span = dataset.block_shapes[0]
            self.sequential = dataset.driver in ("PNG", "JPEG")
            self._channels = measured(self._name, dataset, bands) if bands else colours(self._name, dataset)
            first = self._channels.bands[0] - 1
            kind = dataset.dtypes[first]
            self._masked = any(flag.name in ("per_dataset", "alpha") for flag in dataset.mask_flag_enums[first])
        self.count = len(bands) or 3
        self.dtype = np.dtype(np.uint8 if not bands else kind if kind in ("uint8", "uint16") else np.float32)


def _open(name: str, file: str, kind: str) -> DatasetReader:
    """A file, as GDAL knows it, by the driver of its format alone."""
    import rasterio

    try:
        with environment():
            return rasterio.open(file, driver=_DRIVERS[kind])
    except Exception as error:  # GDAL's drivers fail in many ways
        raise DataError(
            f"{name}: cannot be opened ({one_line(cause(error))}); it is damaged, copy or export it again"
        ) from error


@contextmanager
def _described(name: str) -> Iterator[None]:
    """Whatever GDAL says of a header inside becomes a DataError."""
    try:
        with environment():
            yield
    except DataError:
        raise
    except Exception as error:  # a hostile header
        raise DataError(
            f"{name}: has a header that cannot be used ({one_line(cause(error))}); export it again"
        ) from error


def _require_readable(name: str, dataset: DatasetReader) -> None:
    """Raise DataError for a raster that cannot be decoded in parts."""
    from rasterio.enums import Interleaving

    height, width = dataset.shape
    if height * width > LARGEST:
        raise DataError(f"{name}: is {height} x {width} pixels (H x W), at most {LARGEST} in all; crop it")
    if dataset.driver == "GTiff" and dataset.subdatasets:
        raise DataError(
            f"{name}: holds {len(dataset.subdatasets)} pages, expected one; take one out: "
            "gdal_translate -of COG GTIFF_DIR:1:IN OUT"
        )
    # Where the bands of a pixel lie together, they are decoded together.
    together = dataset.count if dataset.interleaving in (None, Interleaving.pixel) else 1
    pixel = together * max(np.dtype(each).itemsize for each in dataset.dtypes)
    if height * width * pixel > MAX_BLOCK and dataset.driver == "PNG" and _is_interlaced(Path(dataset.name)):
        raise DataError(f"{name}: is interlaced, and too large to be decoded whole; {_TILED}")
    for rows, columns in set(dataset.block_shapes):
        if rows * columns * pixel > MAX_BLOCK:
            raise DataError(
                f"{name}: comes in blocks of {rows} x {columns} pixels (H x W), too large to be decoded in parts; "
                f"{_TILED}"
            )


def _is_interlaced(path: Path) -> bool:
    with opened(path) as (stream, _):
        stream.seek(_INTERLACED)
        return stream.read(1) != b"\0"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from another, or from itself when changed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
