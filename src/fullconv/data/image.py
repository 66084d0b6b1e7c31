"""Reading pictures that nobody has checked: any file gives an (H, W, 3) uint8 array or a DataError of one line."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL import WebPImagePlugin as WebP

from fullconv.data.orientation import orientation_of, swaps_sides, upright
from fullconv.data.sample import Array
from fullconv.errors import DataError, one_line, printable

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".npy")
"""Suffixes by which pictures are found in a folder; what a file holds is decided by its first bytes."""

MAX_PIXELS = 2**28
"""The largest picture that is decoded whole (16384 x 16384, 0.8 GB as RGB); Pillow's own, lower bounds hold too."""

# The plugins are called by signature rather than through Image.open: no other decoder can be reached, an MPO is
# its first picture, and Pillow's bound on pixels cannot leak as a warning before ours has been checked.
_PLUGINS: dict[str, tuple[tuple[bytes, ...], type[ImageFile.ImageFile]]] = {
    "JPEG": ((b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    "PNG": ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    "TIFF": ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    "WebP": ((b"RIFF",), WebP.WebPImageFile),
    "BMP": ((b"BM",), BmpImagePlugin.BmpImageFile),
}
_NUMPY = b"\x93NUMPY"
NUMPY = "NumPy"
_EXPECTED = "a JPEG, PNG, TIFF, WebP, BMP or .npy file"

_FOREIGN = {b"GIF8": "a GIF", b"\0\0\0\x0cjP": "a JPEG 2000", b"%!PS": "PostScript", b"%PDF": "a PDF", b"<": "markup"}

WIDE_MODES = {"I": "32-bit integers", "F": "32-bit floats"}
"""Pillow's modes of more than 16 bits a value, in words; images cannot be read from them."""

SIGNED = "signed 16-bit integers"
"""What Pillow widens to the first of those."""

_COLOURS = {
    "L": "grey", "LA": "grey with alpha", "La": "grey with alpha", "P": "palette", "PA": "palette with alpha",
    "RGBX": "RGB", "RGBa": "RGBA",
}  # fmt: skip
# Of colour; its letter tells it from BMP's "BGR;16", which is 16 bits a pixel.
_16_BITS = re.compile(";16[BLN]$")

_MAX_PAGES_COUNTED = 1000
_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE = 254, 258  # TIFF 6.0, section 8

# Pillow's remarks on damaged metadata. They go to whoever runs the program, who cannot act on them, and under
# `-W error` they would refuse pictures that are fine.
_REMARKS = re.compile(r"PIL\.(Tiff|Png)ImagePlugin$")


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Array:
    """Read a picture as RGB.

    JPEG (of an MPO the first picture), PNG, TIFF, WebP, BMP, and ``.npy`` holding uint8 of shape (H, W) or
    (H, W, 1 | 3 | 4). Turned upright as EXIF says (damaged EXIF counts as none). Grey, 1-bit, palette, CMYK, YCbCr
    and LAB become RGB by Pillow's formulas, colour profiles are ignored, alpha is dropped without blending, 16-bit
    grey is round(x / 257), 12-bit grey round(x * 255 / 4095), and of 16-bit colour the high byte is kept.

    Returns:
        (H, W, 3) uint8, RGB in 0..255, writable.

    Raises:
        DataError: the file is missing, empty, damaged, of another format, animated or multi-page, of 32-bit values,
            or larger than `max_pixels`; one line, beginning with the path.
    """
    path = Path(path)
    with opened(path) as (stream, head):
        if format_of(head) == NUMPY:
            return _rgb_array(_read_npy(path, max_pixels))
        return _rgb(str(path), load_picture(path, stream, head, max_pixels))


@dataclass(frozen=True)
class PictureHeader:
    """What a picture's header says.

    Attributes:
        size: (H, W) of the picture that `read_image` gives: upright.
        kind: of its pixels, such as "8-bit RGB", "16-bit RGBA", "16-bit grey", "8-bit palette", "8-bit CMYK".
        orientation: as EXIF numbers it; 1 = upright.
    """

    size: tuple[int, int]
    kind: str
    orientation: int


def picture_header(path: Path) -> PictureHeader:
    """The header of a picture; no pixel is decoded, unless of a PNG, whose EXIF may come after them.

    Raises:
        DataError: as `read_image`, for what the header shows; one line.
    """
    with opened(path) as (stream, head):
        if format_of(head) == NUMPY:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            _check_array(printable(path), values, MAX_PIXELS)
            kind = {3: "8-bit RGB", 4: "8-bit RGBA"}.get(values.shape[-1] if values.ndim == 3 else 1, "8-bit grey")
            return PictureHeader((values.shape[0], values.shape[1]), kind, 1)
        stream.seek(0)
        picture = _plugin(printable(path), head)(stream)
        size, kind = (picture.height, picture.width), _kind(picture)
        check_pixels(printable(path), size, MAX_PIXELS)
        orientation = orientation_of(picture)  # last: to find its EXIF, Pillow may decode a PNG
        # Pillow turns TIFFs by itself when it decodes them, and gives the size that they have then.
        swapped = swaps_sides(orientation) and not isinstance(picture, TiffImagePlugin.TiffImageFile)
        return PictureHeader(size[::-1] if swapped else size, kind, orientation)


def as_image(value: str | Path | Image.Image | NDArray[Any]) -> Array:
    """A path, a PIL image (its current frame) or a uint8 array, as RGB; conversions as in `read_image`.

    Args:
        value: an array is (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 in 0..255.

    Returns:
        (H, W, 3) uint8; it may share memory with an (H, W, 3) array given.

    Raises:
        DataError: what `read_image` raises; an array of another shape or type; a value of another type.
    """
    if isinstance(value, str | Path):
        return read_image(value)
    if isinstance(value, np.ndarray):
        _check_array("array", value, MAX_PIXELS)
        return _rgb_array(value)
    if isinstance(value, Image.Image):
        name = printable(getattr(value, "filename", "") or "PIL image")
        check_pixels(name, (value.height, value.width), MAX_PIXELS)
        try:
            value.load()
            turned = upright(value)
            return _rgb(name, turned.copy() if turned is value and value.mode != "RGB" else turned)
        except DataError:
            raise
        except Exception as error:  # a lazily opened file is decoded here, and may fail in any way
            raise _undecodable(name, error) from error
    raise DataError(
        f"an image is a path, a PIL image or a (H, W, 3) uint8 array; found {type(value).__name__}; "
        "turn a tensor into an array with .numpy()"
    )


def find_images(folder: Path) -> Iterator[Path]:
    """The pictures below a folder, told by their suffixes, in upper or lower case; hidden files and folders are not
    looked at.

    A folder's own files come before those of the folders in it, all in the order of their names.
    """
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent, name)


def format_of(head: bytes) -> str | None:
    """``"JPEG"``, ``"PNG"``, ``"TIFF"``, ``"WebP"``, ``"BMP"`` or `NUMPY` by a file's first 16 bytes; else None."""
    if head.startswith(_NUMPY):
        return NUMPY
    for name, (signatures, _) in _PLUGINS.items():
        if head.startswith(signatures) and (name != "WebP" or head[8:12] == b"WEBP"):
            return name
    return None


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], bytes]]:
    """The file and its first 16 bytes; whatever goes wrong inside becomes a DataError that names the file."""
    name = printable(path)
    _hush_remarks()
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{name}: is a folder; name a picture in it")
        if not stat.S_ISREG(mode):
            raise DataError(f"{name}: is not a regular file; expected {_EXPECTED}")
        with path.open("rb") as stream:
            head = stream.read(16)
            if not head:
                raise DataError(f"{name}: is empty (0 bytes); copy or export the picture again")
            yield stream, head
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file; check the path") from error
    except PermissionError as error:
        raise DataError(f"{name}: may not be read (permission denied); change its permissions") from error
    except OSError as error:
        if error.errno is None:  # Pillow's, about the content
            raise _undecodable(name, error) from error
        raise DataError(f"{name}: cannot be read ({one_line(error)}); check the path and the disk") from error
    except Exception as error:  # a hostile file makes decoders raise almost anything
        raise _undecodable(name, error) from error


def load_picture(path: Path, stream: IO[bytes], head: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the file open at `stream`, its size and pages checked first, and turn it upright.

    Besides DataError this raises whatever Pillow raises; call it inside `opened`. ``info["rawmode"]`` of the result
    holds the layout of the file's values, such as ``"L;4"`` for 4-bit grey, which Pillow stretches to 0..255.
    """
    name = printable(path)
    stream.seek(0)
    plugin = _plugin(name, head)
    picture = plugin(stream)
    check_pixels(name, (picture.height, picture.width), max_pixels)
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and Image.MAX_IMAGE_PIXELS is not None:
        check_pixels(name, (picture.height, picture.width), Image.MAX_IMAGE_PIXELS)  # it warns of more when it decodes
    if plugin is PngImagePlugin.PngImageFile:
        # Decoding does not look at PNG's checksums: a flipped bit would give wrong class numbers and no error.
        picture.verify()
        stream.seek(0)
        picture = plugin(stream)
    pages = _pages(picture)
    if pages > 1:
        count = f"{pages} pages" if pages < _MAX_PAGES_COUNTED else f"{pages} pages or more"
        raise DataError(f"{name}: holds {count} or frames, expected one; save each as a file of its own")
    rawmode = _rawmode(picture)
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and len(rawmode) == 1 < len(picture.getbands()):
        bits = picture.tag_v2.get(_BITS_PER_SAMPLE, (8,))
        if max(bits) > 8:  # Pillow would take every byte of a plane for a value, and give other pixels
            raise DataError(f"{name}: holds {max(bits)}-bit colours in planes of their own; save it as 16-bit PNG")
    picture.load()
    result = upright(picture)
    result.info["rawmode"] = rawmode
    return result


def _rawmode(picture: ImageFile.ImageFile) -> str:
    """The layout of the file's values; "" where Pillow does not say."""
    args = picture.tile[0].args if picture.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _kind(picture: ImageFile.ImageFile) -> str:
    mode, rawmode = picture.mode, _rawmode(picture)
    if mode in WIDE_MODES:
        return _wide(mode, rawmode)
    if mode == "1":
        return "1-bit"
    if mode.startswith("I;16"):
        return "16-bit grey"
    colours = "LA" if rawmode.startswith("LA;") else mode  # Pillow widens 16-bit grey with alpha to RGBA
    return f"{16 if _16_BITS.search(rawmode) else 8}-bit {_COLOURS.get(colours, colours)}"


def _wide(mode: str, rawmode: str) -> str:
    return SIGNED if rawmode.startswith("I;16") else WIDE_MODES[mode]


def check_pixels(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Raise DataError unless (H, W) is 1x1 or more and at most `max_pixels` in all."""
    height, width = size
    if height < 1 or width < 1:
        raise DataError(f"{name}: is {height} x {width} pixels (H x W), expected 1 x 1 or more; export it again")
    if height * width > max_pixels:
        raise DataError(
            f"{name}: is {height} x {width} pixels (H x W), at most {max_pixels} in all are decoded; "
            "crop or tile the picture, or give it as a GeoTIFF"
        )


def _undecodable(name: str, error: Exception) -> DataError:
    return DataError(
        f"{name}: cannot be decoded ({one_line(error)}); it is damaged or of an unusual kind, export it as 8-bit PNG"
    )


@lru_cache(maxsize=2)
def _to_8_bits(highest: int) -> Array:
    """For each 16-bit value x, round(x * 255 / highest): (65536,) uint8."""
    values = (np.arange(65536, dtype=np.int64) * 255 + highest // 2) // highest
    return np.minimum(values, 255).astype(np.uint8)


def _hush_remarks() -> None:
    # A filter rather than catch_warnings, which is not safe in threads; looked for each time, because whoever
    # enters catch_warnings (as pytest does for each test) takes it away. Inserting twice does no harm.
    entry = ("ignore", None, UserWarning, _REMARKS, 0)
    if entry not in warnings.filters:
        warnings.filterwarnings("ignore", category=UserWarning, module=_REMARKS.pattern)


def _plugin(name: str, head: bytes) -> type[ImageFile.ImageFile]:
    kind = format_of(head)
    if kind in _PLUGINS:
        return _PLUGINS[kind][1]
    found = next((kind for start, kind in _FOREIGN.items() if head.startswith(start)), "something unknown")
    raise DataError(f"{name}: holds {found}, expected {_EXPECTED}; convert it to PNG")


def _pages(picture: ImageFile.ImageFile) -> int:
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return int(getattr(picture, "n_frames", 1))
    if not picture.is_animated:
        return 1
    # Pillow's own n_frames walks all pages, and a small file can hold millions of empty ones. Overviews and
    # transparency masks (bits 0 and 2 of NewSubfileType) are no pages of their own.
    pages = 1
    for index in range(1, _MAX_PAGES_COUNTED):
        try:
            picture.seek(index)
        except EOFError:
            break
        kind = picture.tag_v2.get(_NEW_SUBFILE_TYPE, 0)
        pages += not (isinstance(kind, int) and kind & 0b101)
    picture.seek(0)
    return pages


def _read_npy(path: Path, max_pixels: int) -> NDArray[Any]:
    values = np.load(path, mmap_mode="r", allow_pickle=False)  # maps the file: a header that lies allocates nothing
    _check_array(printable(path), values, max_pixels)
    return np.array(values)


def _check_array(name: str, values: NDArray[Any], max_pixels: int) -> None:
    if values.dtype != np.uint8 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3, 4))):
        raise DataError(
            f"{name}: holds {values.dtype} of shape {values.shape}, expected uint8 of shape (H, W) or "
            "(H, W, 1 | 3 | 4); scale it to 0..255 and put the channels last"
        )
    check_pixels(name, (values.shape[0], values.shape[1]), max_pixels)


def _rgb_array(values: NDArray[Any]) -> Array:
    if values.ndim == 2 or values.shape[2] == 1:
        return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(values[:, :, :3])


def _rgb(name: str, picture: Image.Image) -> Array:
    if picture.mode in WIDE_MODES:
        raise DataError(
            f"{printable(name)}: holds {_wide(picture.mode, str(picture.info.get('rawmode', '')))}, whose range is "
            "unknown; convert it to 8 bits"
        )
    if picture.mode.startswith("I;16"):
        rawmode = picture.info.get("rawmode")
        highest = 4095 if rawmode == "I;12" else 65535
        grey = _to_8_bits(highest)[np.asarray(picture)]
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode != "RGB":
        if picture.mode in ("La", "RGBa"):  # alpha is multiplied in: undo that before it is dropped
            picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
        picture.info.pop("transparency", None)  # it would be blended or warned of; alpha is dropped
        picture = picture.convert("RGB")
    return np.array(picture)
