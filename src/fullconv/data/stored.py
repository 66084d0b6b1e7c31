"""Which way up a picture is stored, from its header alone."""

from __future__ import annotations

import struct
from typing import IO

from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin

_PLUGINS = {"JPEG": JpegImagePlugin.JpegImageFile, "PNG": PngImagePlugin.PngImageFile}
_MAX_TAGS = 4096


def stored_orientation(stream: IO[bytes], kind: str) -> int:
    """As EXIF numbers it, 1 = upright; also where it cannot be told. No pixel is decoded: EXIF that comes after them,
    as PNG allows, is not found.

    Args:
        stream: of the file.
        kind: "TIFF", "PNG" or "JPEG".
    """
    stream.seek(0)
    try:
        if kind == "TIFF":
            return _tiff_orientation(stream)
        # The plugins' own `getexif` may decode the picture.
        found = Image.Image.getexif(_PLUGINS[kind](stream)).get(ExifTags.Base.Orientation)
    except Exception:  # metadata may be damaged in any way, and the pixels are good
        return 1
    return found if isinstance(found, int) else 1


def _tiff_orientation(stream: IO[bytes]) -> int:
    """Tag 274 of the first page; TIFF 6.0, section 2, and the BigTIFF design."""
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    (offset,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", head, 8 if big else 4)
    stream.seek(offset)
    count = f"{order}{'Q' if big else 'H'}"
    (tags,) = struct.unpack(count, stream.read(struct.calcsize(count)))
    length = 20 if big else 12
    entries = stream.read(min(tags, _MAX_TAGS) * length)
    for start in range(0, len(entries) - length + 1, length):
        (tag,) = struct.unpack_from(f"{order}H", entries, start)
        if tag == ExifTags.Base.Orientation:
            (value,) = struct.unpack_from(f"{order}H", entries, start + length - (8 if big else 4))
            return int(value)
    return 1
