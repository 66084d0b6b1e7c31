"""What the bands of a raster are to a net: colours, or measurements; and which pixels hold no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullconv.data.sample import Array, Values
from fullconv.errors import DataError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Void = NDArray[np.bool_] | None
"""(h, w) pixels without data; None where there are none."""

_EXACT = ("uint8", "uint16")
_ALPHA = "alpha"


@dataclass(frozen=True)
class Measured:
    """Chosen bands, as `fullconv.data.bands` gives them.

    Attributes:
        bands: their numbers, counted from 1.
        nodata: the value of each that stands for no data, or None.
    """

    bands: tuple[int, ...]
    nodata: tuple[float | None, ...]

    def values(self, raw: NDArray[Any]) -> tuple[Values, Void]:
        """(C, h, w) of any real numbers -> (h, w, C) uint8, uint16 or float32, and the pixels without data in all."""
        raw = np.ascontiguousarray(np.moveaxis(raw, 0, 2))
        lost = _lost(raw, self.nodata)
        if raw.dtype.name in _EXACT:
            values: Values = raw
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is not finite
                values = raw.astype(np.float32)
            if raw.dtype.kind == "f":
                lost = ~np.isfinite(values) if lost is None else lost | ~np.isfinite(values)
        if lost is None:
            return values, None
        values[lost] = 0
        return values, _everywhere(lost)


@dataclass(frozen=True, eq=False)
class Colours:
    """Bands that are shown as colour.

    Attributes:
        bands: red, green and blue; or one of grey or of numbers of colours.
        nodata: the value of each that stands for no data, or None.
        table: (256 | 65536, 3) uint8, the colours of the one band's values; None where `bands` are colours.
    """

    bands: tuple[int, ...]
    nodata: tuple[float | None, ...]
    table: Array | None = None

    def values(self, raw: NDArray[Any]) -> tuple[Values, Void]:
        """(3 | 1, h, w) uint8 or uint16 -> (h, w, 3) uint8 RGB, and the pixels without data in all bands."""
        raw = np.moveaxis(raw, 0, 2)
        lost = _lost(raw, self.nodata)
        rgb: Array
        if self.table is not None:
            rgb = self.table.take(raw[:, :, 0], axis=0)  # a quarter of the time of indexing
        else:  # of 16 bits the high byte, as `fullconv.data.image` takes it
            rgb = np.ascontiguousarray(raw if raw.dtype == np.uint8 else (raw >> 8).astype(np.uint8))
        return rgb, None if lost is None else _everywhere(lost)


def measured(name: str, dataset: DatasetReader, bands: tuple[int, ...]) -> Measured:
    """Chosen bands of an open raster.

    Raises:
        DataError: too few bands; of several types, or of complex numbers.
    """
    if max(bands) > dataset.count or min(bands) < 1:
        wrong = max(bands) if max(bands) > dataset.count else min(bands)
        raise DataError(
            f"{name}: has {dataset.count} bands, and band {wrong} is asked for; the net needs the bands it was trained "
            "with, counted from 1"
        )
    kinds = {dataset.dtypes[band - 1] for band in bands}
    if len(kinds) > 1:
        raise DataError(
            f"{name}: holds {' and '.join(sorted(kinds))}, expected one kind of numbers; gdal_translate -ot Float32"
        )
    kind = np.dtype(dataset.dtypes[bands[0] - 1])
    if kind.kind not in "uif":
        raise DataError(f"{name}: holds {kind} numbers, expected whole or real ones; convert it")
    return Measured(bands, tuple(dataset.nodatavals[band - 1] for band in bands))


def colours(name: str, dataset: DatasetReader) -> Colours:
    """The colours of an open raster: those that `fullconv.data.image` reads of a picture. Where the chroma of a JPEG is
    coarser than its luma, GDAL fills in what lies between otherwise than Pillow: on photos a few levels, on noise 100.

    Raises:
        DataError: neither of 8 bits nor grey or RGB of 16; CIELAB, which GDAL makes other colours of; or bands of which
            it is not told which are red, green and blue.
    """
    if dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CIELAB":
        raise DataError(f"{name}: holds CIELAB colours, and this net takes red, green and blue; export it as RGB")
    bands = _shown(name, dataset)
    for band in bands:
        if dataset.dtypes[band - 1] != "uint8" and not _is_wide(dataset, bands):
            raise DataError(
                f"{name}: holds {dataset.dtypes[band - 1]} numbers, and this net takes colours of 8 bits; scale it as "
                "the training images were: gdal_translate -ot Byte -scale LOWEST HIGHEST 0 255 IN OUT"
            )
    nodata = tuple(dataset.nodatavals[band - 1] for band in bands)
    return Colours(bands, nodata, _table(dataset, bands[0]) if len(bands) == 1 else None)


def _shown(name: str, dataset: DatasetReader) -> tuple[int, ...]:
    kinds = [kind.name for kind in dataset.colorinterp]
    if all(colour in kinds for colour in ("red", "green", "blue")):
        return kinds.index("red") + 1, kinds.index("green") + 1, kinds.index("blue") + 1
    plain = [band for band, kind in enumerate(kinds, 1) if kind != _ALPHA]
    if len(plain) == 1 and kinds[plain[0] - 1] in ("gray", "palette", "undefined"):
        return (plain[0],)
    if len(plain) == 3 and {kinds[band - 1] for band in plain} <= {"gray", "undefined"}:
        return plain[0], plain[1], plain[2]
    raise DataError(
        f"{name}: has {dataset.count} bands ({', '.join(kinds[:8])}), and this net takes red, green and blue; "
        "choose them: gdal_translate -b RED -b GREEN -b BLUE IN OUT"
    )


def _is_wide(dataset: DatasetReader, bands: tuple[int, ...]) -> bool:
    """Whether bands are grey or RGB of 16 bits. Three of no name may be measurements, of any range."""
    if {dataset.dtypes[band - 1] for band in bands} != {"uint16"}:
        return False
    if len(bands) == 1:
        return True
    stretched = "NBITS" not in dataset.tags(bands[0], ns="IMAGE_STRUCTURE")
    return stretched and dataset.colorinterp[bands[0] - 1].name == "red"


def _table(dataset: DatasetReader, band: int) -> Array:
    """The RGB colours of the values of a band of palette numbers or grey."""
    if dataset.dtypes[band - 1] == "uint16":
        return _wide_table(dataset, band)
    grey = np.arange(256)
    if dataset.colorinterp[band - 1].name == "palette":
        table = np.zeros((256, 3), np.uint8)
        for value, colour in dataset.colormap(band).items():
            if value < 256:
                table[value] = colour[:3]
        return table
    tags = dataset.tags(band, ns="IMAGE_STRUCTURE")
    bits = tags.get("NBITS", "8")
    highest = 2 ** int(bits) - 1 if bits in "1234567" else 255  # of 1 to 7 bits, the values are not stretched yet
    grey = np.minimum((grey * 255 + highest // 2) // highest, 255)
    if (tags | dataset.tags(ns="IMAGE_STRUCTURE")).get("MINISWHITE") == "YES":
        grey = 255 - grey
    return np.repeat(grey.astype(np.uint8)[:, None], 3, axis=1)


def _wide_table(dataset: DatasetReader, band: int) -> Array:
    """The colours of 16-bit grey as pictures' are: round(x / 257), of 12 bits round(x * 255 / 4095), and with alpha the
    high byte. Pillow does not look at MINISWHITE there, so neither does this."""
    values = np.arange(65536)
    if dataset.count > 1:
        grey = values >> 8
    else:
        highest = 4095 if dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") == "12" else 65535
        grey = np.minimum((values * 255 + highest // 2) // highest, 255)
    return np.repeat(grey.astype(np.uint8)[:, None], 3, axis=1)


def _lost(values: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_] | None:
    """(h, w, C) -> where a channel holds its nodata value; None where none has one."""
    if all(value is None for value in nodata):
        return None
    lost = np.zeros(values.shape, bool)
    for channel, value in enumerate(nodata):
        if value is not None:
            lost[:, :, channel] = values[:, :, channel] == value
    return lost


def _everywhere(lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
    void: NDArray[np.bool_] = np.all(lost, axis=2)
    return void
