"""Masks: files of many encodings -> (H, W) uint8 of class numbers and 255 = void; and back to palette PNG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.image import NUMPY, WIDE_MODES, format_of, load_picture, opened
from fullconv.data.sample import Array
from fullconv.errors import DataError, OptionError, one_line, printable
from fullconv.files import atomic
from fullconv.labels import VOID, Colour, LabelSet

COMPRESS_LEVEL = 6
"""zlib's level for masks: a 480 x 360 street mask takes 1.6 ms and 6.2 kB (1: 1.0 ms, 9.7 kB; 9: 10 ms, 5.2 kB)."""

_LOSSY_FORMATS = ("JPEG", "WebP")
# Pillow stretches grey of 2 and 4 bits to 0..255; these factors take it back to the file's numbers.
_STRETCH = {"L;2": 85, "L;4": 17}
_UNKNOWN = 0


@dataclass(frozen=True)
class MaskReader:
    """How the values of mask files become class numbers.

    Attributes:
        classes: K, the number of classes, 1..255; masks hold 0..K-1 and 255 = void.
        label_mapping: file value -> class or 255, for palette and grey masks; values not listed stay as they are.
        colors: RGB -> class or 255, for RGB masks. Palette masks hold class numbers as indices, unless only their
            colours lead to classes (PNG optimisers turn RGB masks into palette masks).

    Raises:
        OptionError: a mapping or colour that leads to no class.
    """

    classes: int
    label_mapping: Mapping[int, int] | None = None
    colors: Mapping[Colour, int] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= VOID:
            raise OptionError(f"{self.classes} classes; expected 1 to {VOID} (a mask is 8 bits and {VOID} is void)")
        for name, table in (("label_mapping", self.label_mapping or {}), ("colors", self.colors or {})):
            for key, target in table.items():
                if not (0 <= target < self.classes or target == VOID):
                    raise OptionError(f"{name} maps {key} to {target}; expected {self._expected}")

    @property
    def _expected(self) -> str:
        return f"classes 0..{self.classes - 1} or {VOID} = void"

    def read(self, path: str | Path) -> Array:
        """Read a mask: palette, grey (whole numbers as they are, of any width) or RGB; PNG, TIFF or BMP.

        Turned upright as EXIF says, as images are; alpha is ignored.

        Returns:
            (H, W) uint8: 0..K-1, and 255 = void.

        Raises:
            DataError: a file that cannot be read or is lossy, a value or colour that is no class; one line.
        """
        path = Path(path)
        return self.labels(printable(path), read_raw(path))

    def labels(self, name: str, raw: RawMask) -> Array:
        """The classes of a mask that has been read; as `read`."""
        if raw.values.ndim == 3:
            return self._from_colours(name, raw.values)
        return self._from_values(name, raw.values, self._palette_table(name, raw))

    def _from_values(self, name: str, values: NDArray[Any], table: NDArray[np.uint16] | None) -> Array:
        """`table` holds class + 1 for each value, 0 where there is none."""
        if table is None:
            table = self._value_table()
        found = np.take(table, values)
        if not found.all():
            wrong, counts = np.unique(values[found == _UNKNOWN], return_counts=True)
            more = f" and {len(wrong) - 1} other such values" if len(wrong) > 1 else ""
            raise DataError(
                f"{name}: holds value {wrong[0]} ({counts[0]} pixels){more}; classes are 0..{self.classes - 1} and "
                f"{VOID} = void; map it in the data set's YAML: label_mapping: {{{wrong[0]}: {VOID}}}, "
                "or name the class"
            )
        return (found - 1).astype(np.uint8)

    def _value_table(self) -> NDArray[np.uint16]:
        return _value_table(self.classes, tuple(sorted((self.label_mapping or {}).items())))

    def _palette_table(self, name: str, raw: RawMask) -> NDArray[np.uint16] | None:
        """Index -> class + 1 by the palette's colours, where those alone lead to classes; else None."""
        palette = raw.palette
        if not self.colors or palette is None:
            return None
        table = np.take(_colour_table(_colour_key(self.colors)), packed(palette))
        used = np.flatnonzero(np.bincount(raw.values.ravel(), minlength=256))
        by_colour, by_index = table[used], self._value_table()[used]
        if not by_colour.all():
            return None
        if not by_index.all():
            return table
        # Which of the two was meant cannot be told, and the wrong one would give plausible labels.
        differ = np.flatnonzero(by_colour != by_index)
        if differ.size:
            index = int(used[differ[0]])
            raise DataError(
                f"{name}: is a palette mask, where index {index} is class {by_index[differ[0]] - 1} by its number and "
                f"class {by_colour[differ[0]] - 1} by its colour {palette[index].tolist()}; save class numbers as "
                "8-bit grey, or colours as RGB"
            )
        return None

    def _from_colours(self, name: str, rgb: Array) -> Array:
        if not self.colors:
            grey = bool((rgb == rgb[:, :, :1]).all())
            fix = (
                "its three channels are equal: save it as 8-bit grey"
                if grey
                else "give each class its colour in the data set's YAML: colors: {NAME: [R, G, B]}"
            )
            raise DataError(f"{name}: is an RGB mask, and the data set has no colours; {fix}")
        numbers = packed(rgb)
        found = np.take(_colour_table(_colour_key(self.colors)), numbers)
        if not found.all():
            wrong, counts = np.unique(numbers[found == _UNKNOWN], return_counts=True)
            colour = unpacked(int(wrong[counts.argmax()]))
            share = 100 * counts.sum() / numbers.size
            raise DataError(
                f"{name}: {counts.sum()} pixels ({share:.3g} %) have the colour of no class, most often {list(colour)} "
                f"({counts.max()} pixels) of {len(wrong)} such colours; give it to a class or to void in the data "
                f"set's YAML: colors: {{void: {list(colour)}}}"
            )
        return (found - 1).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class RawMask:
    """What a mask file holds, before anything is made of it.

    Attributes:
        values: (H, W) whole numbers, uint8 or uint16, or (H, W, 3) uint8 RGB; turned upright.
        palette: (256, 3) uint8 RGB of a palette file, whose indices the values are; else None.
        lossy: its format may change values: a JPEG, WebP, or TIFF with JPEG compression.
    """

    values: NDArray[Any]
    palette: Array | None
    lossy: bool


def read_raw(path: Path, allow_lossy: bool = False) -> RawMask:
    """Read a mask file as it is.

    Raises:
        DataError: a file that cannot be read, of numbers that are no class numbers, or lossy and not allowed to be.
    """
    name = printable(path)
    with opened(path) as (stream, head):
        kind = format_of(head)
        if kind in _LOSSY_FORMATS and not allow_lossy:
            raise DataError(f"{name}: is a {kind} file, which may change class numbers; save masks as PNG, TIFF or BMP")
        if kind == NUMPY:
            raise DataError(f"{name}: is a .npy file, expected a mask as PNG, TIFF or BMP; save it as PNG")
        picture = load_picture(path, stream, head)
        compressed = "jpeg" in str(picture.info.get("compression", ""))
        if compressed and not allow_lossy:
            raise DataError(
                f"{name}: is a TIFF with JPEG compression, which changes class numbers; "
                "save masks as PNG, or as TIFF with LZW or deflate compression"
            )
        values, palette = _values(name, picture)
        return RawMask(values, palette, compressed or kind in _LOSSY_FORMATS)


def _values(name: str, picture: Image.Image) -> tuple[NDArray[Any], Array | None]:
    mode = picture.mode
    if mode in ("RGB", "RGBA", "RGBX"):
        return np.asarray(picture)[:, :, :3], None
    if mode in ("P", "PA"):
        palette = np.zeros((256, 3), np.uint8)
        stored = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
        palette[: len(stored)] = stored
        return np.asarray(picture if mode == "P" else picture.getchannel(0)), palette
    if mode in ("L", "LA"):
        grey = np.asarray(picture if mode == "L" else picture.getchannel(0))
        stretch = _STRETCH.get(str(picture.info.get("rawmode")), 1)
        return grey // stretch if stretch > 1 else grey, None
    if mode == "1":
        return np.asarray(picture).astype(np.uint8), None
    if mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16), None
    if mode in WIDE_MODES:
        return _whole(name, np.asarray(picture)), None
    raise DataError(f"{name}: holds {mode} colours, expected class numbers or RGB; save it as 8-bit grey")


def write_mask(path: str | Path, mask: Array, labels: LabelSet) -> None:
    """Write class numbers as a palette PNG in the classes' colours; `MaskReader` and every viewer read it.

    Args:
        path: ends in ``.png``; written under a temporary name in the same folder and renamed.
        mask: (H, W) uint8: class numbers of `labels`, 255 = void.

    Raises:
        DataError: another shape or type, a value that is no class, or a file that cannot be written.
        OptionError: another suffix.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise OptionError(f"{printable(path)}: masks are written as palette PNG; end the name in .png")
    if mask.dtype != np.uint8 or mask.ndim != 2 or mask.size == 0:
        raise DataError(
            f"{printable(path)}: mask is {mask.dtype} of shape {mask.shape}, expected uint8 of shape (H, W)"
        )
    highest = int(mask.max(initial=0, where=mask != VOID))
    if highest >= len(labels):
        raise DataError(
            f"{printable(path)}: mask holds value {highest}; classes are 0..{len(labels) - 1} and {VOID} = void; "
            "give the labels that the mask was made with"
        )
    picture = Image.fromarray(np.ascontiguousarray(mask))
    picture.putpalette(labels.palette().tobytes())
    try:
        with atomic(path, durable=False) as temporary:
            picture.save(temporary, "PNG", compress_level=COMPRESS_LEVEL)
    except OSError as error:
        raise DataError(
            f"{printable(path)}: cannot be written ({one_line(error)}); check the folder and disk"
        ) from error


def _whole(name: str, values: NDArray[Any]) -> NDArray[np.uint16]:
    """Numbers of 32 bits, which some tools write class numbers as."""
    with np.errstate(invalid="ignore"):
        narrow = values.astype(np.uint16)
    if not (narrow == values).all():
        strange = values[narrow != values][0]
        raise DataError(
            f"{name}: holds the value {strange:g}, expected whole class numbers of 0..65535; save it as 8-bit grey"
        )
    return narrow


@lru_cache(maxsize=16)
def _value_table(classes: int, mapping: tuple[tuple[int, int], ...]) -> NDArray[np.uint16]:
    """(65536,): class + 1 of each file value, 0 where there is none."""
    table = np.zeros(65536, np.uint16)
    table[:classes] = np.arange(1, classes + 1)
    table[VOID] = VOID + 1
    for value, target in mapping:
        if 0 <= value < len(table):
            table[value] = target + 1
    return table


@lru_cache(maxsize=4)
def _colour_table(colours: tuple[tuple[Colour, int], ...]) -> NDArray[np.uint16]:
    """(2**24,): class + 1 of each packed colour, 0 where there is none; 32 MB, of which few pages are ever touched."""
    table = np.zeros(2**24, np.uint16)
    for (r, g, b), target in colours:
        table[r << 16 | g << 8 | b] = target + 1
    return table


def _colour_key(colours: Mapping[Colour, int]) -> tuple[tuple[Colour, int], ...]:
    return tuple(sorted(colours.items()))


def packed(rgb: Array) -> NDArray[np.uint32]:
    """(..., 3) uint8 -> R << 16 | G << 8 | B."""
    wide = rgb.astype(np.uint32)
    numbers: NDArray[np.uint32] = wide[..., 0] << np.uint32(16) | wide[..., 1] << np.uint32(8) | wide[..., 2]
    return numbers


def unpacked(number: int) -> Colour:
    """The inverse of `packed`, of one colour.

    >>> unpacked(0x0A0B0C)
    (10, 11, 12)
    """
    return number >> 16, number >> 8 & 255, number & 255
