"""Regions that tools draw -> pixels: polygons, ellipses, bitmaps and run lengths."""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from fullconv.data.annotations.entry import Points
from fullconv.data.annotations.polygon import fill
from fullconv.errors import DataError, one_line

Covered = NDArray[np.bool_]


class Region(Protocol):
    """A part of an image."""

    def cover(self, size: tuple[int, int]) -> tuple[int, int, Covered]:
        """Its pixels in an image of (H, W): top, left and (h, w) bool, all inside of the image.

        Raises:
            DataError: it does not fit an image of that size; the message begins with what is wrong.
        """
        ...


@dataclass(frozen=True, eq=False)
class Polygon:
    """Parts that are joined; each is one or more rings, inside by the even-odd rule, so that holes are rings too.

    Attributes:
        parts: rings of points in pixels.
        relative: the points are in image widths and heights instead.
    """

    parts: tuple[tuple[Points, ...], ...]
    relative: bool = False

    def cover(self, size: tuple[int, int]) -> tuple[int, int, Covered]:
        scale = size[::-1] if self.relative else (1, 1)
        parts = [[ring * scale for ring in part] for part in self.parts]
        points = np.concatenate([ring for part in parts for ring in part] or [np.empty((0, 2))])
        top, left, height, width = _bounds(points, size)
        inside = np.zeros((height, width), np.bool_)
        for part in parts if inside.size else ():
            inside |= fill(part, (height, width), top, left)
        return top, left, inside


@dataclass(frozen=True)
class Ellipse:
    """Centre (x, y) and radii (along its own x and y) in pixels, turned clockwise by `angle` degrees."""

    centre: tuple[float, float]
    radii: tuple[float, float]
    angle: float = 0.0

    def cover(self, size: tuple[int, int]) -> tuple[int, int, Covered]:
        reach = max(self.radii)
        box = np.array([[c - reach for c in self.centre], [c + reach for c in self.centre]])
        top, left, height, width = _bounds(box, size)
        if min(self.radii) <= 0:
            return top, left, np.zeros((height, width), np.bool_)
        x = np.arange(left, left + width)[None, :] + 0.5 - self.centre[0]
        y = np.arange(top, top + height)[:, None] + 0.5 - self.centre[1]
        cos, sin = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        along, across = (x * cos + y * sin) / self.radii[0], (y * cos - x * sin) / self.radii[1]
        return top, left, along**2 + across**2 <= 1


def rectangle(
    x: float, y: float, width: float, height: float, angle: float = 0.0, about_centre: bool = True
) -> Polygon:
    """A rectangle, turned clockwise by `angle` degrees about its centre or its upper left corner."""
    corners = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    if angle:
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        pivot = np.array([width / 2, height / 2]) if about_centre else np.zeros(2)
        corners = (corners - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    return Polygon(((corners + np.array([x, y]),),))


@dataclass(frozen=True)
class Bitmap:
    """A PNG whose pixels that are not 0 (or not transparent, where it has an alpha channel) are the region.

    Attributes:
        data: the PNG, or its zlib stream, in base64.
        top, left: of its upper left pixel.
        compressed: it is a zlib stream.
        size: (H, W) that the file states, if it does.
    """

    data: str
    top: int
    left: int
    compressed: bool = False
    size: tuple[int, int] | None = None

    def cover(self, size: tuple[int, int]) -> tuple[int, int, Covered]:
        try:
            content = base64.b64decode(self.data, validate=True)
            if self.compressed:
                # Grey and alpha of 16 bits fit in; a bomb does not.
                content = zlib.decompressobj().decompress(content, 8 * size[0] * size[1] + 2**16)
            picture = PngImagePlugin.PngImageFile(io.BytesIO(content))
            found = picture.height, picture.width
            if found[0] > size[0] or found[1] > size[1]:
                raise DataError(f"its bitmap is {_by(found)}, larger than the image, {_by(size)}")
            if self.size is not None and found != self.size:
                raise DataError(f"its bitmap is {_by(found)}, its points say {_by(self.size)}")
            picture.load()
            values = np.asarray(picture)
        except DataError:
            raise
        except (binascii.Error, zlib.error) as error:
            raise DataError(f"its bitmap is damaged ({one_line(error)})") from error
        except Exception as error:  # a hostile PNG makes decoders raise almost anything
            raise DataError(f"its bitmap cannot be decoded ({one_line(error)})") from error
        if values.ndim == 3:
            values = values[:, :, -1] if picture.mode in ("LA", "RGBA") else values.max(2)
        return _cut(self.top, self.left, values > 0, size)


@dataclass(frozen=True, eq=False)
class Runs:
    """Lengths of runs, outside and inside by turns, the first outside.

    Attributes:
        lengths: (N,) int64, none negative.
        size: (H, W) of the box that they fill.
        top, left: of that box.
        order: ``"C"`` goes along rows, ``"F"`` along columns.
        whole: the box is the image, whose size it must have.
    """

    lengths: NDArray[np.int64]
    size: tuple[int, int]
    top: int = 0
    left: int = 0
    order: Literal["C", "F"] = "C"
    whole: bool = False

    def cover(self, size: tuple[int, int]) -> tuple[int, int, Covered]:
        height, width = self.size
        if (self.whole and self.size != size) or height > size[0] or width > size[1]:
            raise DataError(f"its run lengths are for {_by(self.size)} pixels, the image is {_by(size)}")
        # Each is bounded before they are added, so that the sum cannot wrap round.
        if (self.lengths.size and self.lengths.max() > height * width) or self.lengths.sum() != height * width:
            raise DataError(f"its run lengths do not add up to {_by(self.size)} pixels")
        inside = np.repeat(np.arange(len(self.lengths)) % 2 == 1, self.lengths)
        return _cut(self.top, self.left, inside.reshape(self.size, order=self.order), size)


def coco_lengths(text: str) -> NDArray[np.int64]:
    """The run lengths of COCO's compressed RLE.

    Each length takes characters of 48 + 6 bits: five of value, the lowest first, and one that says that more follow;
    the last value bit is the sign. From the fourth length on, what is stored is the difference to the length two
    before. Source: the COCO API's maskApi.c.

    Raises:
        DataError: not such a text.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise DataError("its counts are no compressed run lengths of COCO")
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    characters = ends - starts + 1
    if characters.max() > 8:  # 40 bits: far beyond any image
        raise DataError("its counts are no compressed run lengths of COCO")
    place = np.arange(codes.size) - np.repeat(starts, characters)
    values = np.add.reduceat((codes & 31) << 5 * place, starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << 5 * characters, 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0:
        raise DataError("its counts hold a negative run length")
    return values


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} (H x W)"


def _bounds(points: Points, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the pixels around the points, inside of the image."""
    if len(points) == 0:
        return 0, 0, 0, 0
    low = np.clip(np.floor(points.min(0)), 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(points.max(0)), 0, size[::-1]).astype(int)
    return int(low[1]), int(low[0]), int(high[1] - low[1]), int(high[0] - low[0])


def crop(inside: Covered, top: int = 0, left: int = 0) -> tuple[int, int, Covered]:
    """A bitmap at a place, without the empty rows and columns around it."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if rows.size == 0:
        return 0, 0, np.zeros((0, 0), np.bool_)
    inside = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return top + int(rows[0]), left + int(columns[0]), inside


def _cut(top: int, left: int, inside: Covered, size: tuple[int, int]) -> tuple[int, int, Covered]:
    """What of a bitmap lies inside of the image."""
    inside = inside[max(0, -top) : max(0, size[0] - top), max(0, -left) : max(0, size[1] - left)]
    return crop(inside, max(0, top), max(0, left))
