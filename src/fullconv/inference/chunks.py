"""A raster's windows cut from chunks, which a thread reads ahead of their use and which are kept while room lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import isqrt
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fullconv.data.sample import Values
from fullconv.data.windows import RasterReader, Span, Window

CHUNK = 2**23
"""Bytes of a chunk, where the file's blocks are smaller."""

ROOM = 2**28
"""Bytes of the chunks that are kept."""

AHEAD = 4
"""Chunks of `CHUNK` bytes, and parts, that are read ahead."""

SEARCHED = 256
"""Parts among which the one is looked for about which a window lies; a window elsewhere is read, but not ahead."""

Rectangle = tuple[Span, Span]
"""Rows and columns."""

Place = tuple[int, int]
"""Of a chunk, in a grid of chunks: row and column."""


class Chunks:
    """Windows of a raster, for one thread that reads them part after part.

    Memory is bounded by `room`, and by the chunks of one window.

    Args:
        reader: stays open.
        parts: of the raster, in the order in which windows about them will be read.
    """

    def __init__(self, reader: RasterReader, parts: Sequence[Rectangle]) -> None:
        self._reader = reader
        self._parts = parts
        self._at = 0
        self._margin = 0
        self._pixel = _pixel(reader)
        tallest = max((bottom - top for (top, bottom), _ in parts), default=1)
        widest = max((right - left for _, (left, right) in parts), default=1)
        self._shape = _shape(reader, widest)
        self._room = room(reader, (tallest, widest))
        self._kept: dict[Place, Future[Window]] = {}
        self._bytes = 0
        self._pool = ThreadPoolExecutor(1, "fullconv-reader")

    def read(self, rows: Span, columns: Span) -> Values:
        """As `RasterReader.read`."""
        self._follow(rows, columns)
        found = np.empty((rows[1] - rows[0], columns[1] - columns[0], self._reader.count), self._reader.dtype)
        for window, into, out_of in self._cut(rows, columns, ahead=True):
            found[into] = window.values[out_of]
        return found

    def void(self, rows: Span, columns: Span) -> NDArray[np.bool_]:
        """As `RasterReader.void`."""
        found = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), bool)
        for window, into, out_of in self._cut(rows, columns):
            if window.void is not None:
                found[into] = window.void[out_of]
        return found

    def close(self) -> None:
        """Wait for the thread; what it has not begun is not read."""
        self._pool.shutdown(cancel_futures=True)
        self._kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _cut(
        self, rows: Span, columns: Span, ahead: bool = False
    ) -> Iterator[tuple[Window, tuple[slice, slice], tuple[slice, slice]]]:
        """The chunks of a window: each, its place in the window, and the window's place in it."""
        places = self._places((rows, columns))
        for place in places:
            self._begin(place)
        if ahead:
            self._read_ahead(set(places))
        for place in places:
            (top, bottom), (left, right) = self._rectangle(place)
            y, x = slice(max(rows[0], top), min(rows[1], bottom)), slice(max(columns[0], left), min(columns[1], right))
            into = slice(y.start - rows[0], y.stop - rows[0]), slice(x.start - columns[0], x.stop - columns[0])
            out_of = slice(y.start - top, y.stop - top), slice(x.start - left, x.stop - left)
            yield self._kept[place].result(), into, out_of
        self._make_room(set(places))

    def _follow(self, rows: Span, columns: Span) -> None:
        """Find the part about which a window lies, and how far windows reach beyond their parts."""
        y, x = (rows[0] + rows[1]) // 2, (columns[0] + columns[1]) // 2
        for index in range(self._at, min(self._at + SEARCHED, len(self._parts))):
            (top, bottom), (left, right) = self._parts[index]
            if top <= y < bottom and left <= x < right:
                self._at = index
                beyond = max(top - rows[0], rows[1] - bottom, left - columns[0], columns[1] - right)
                self._margin = max(self._margin, beyond)
                return

    def _read_ahead(self, needed: set[Place]) -> None:
        """Begin the chunks of the next parts; no more than half of the room, lest they drive out what comes before."""
        begun, weight = 0, sum(map(self._weight, needed))
        (height, width), margin = self._reader.size, self._margin
        for (top, bottom), (left, right) in self._parts[self._at + 1 : self._at + 1 + AHEAD]:
            window = (
                (max(top - margin, 0), min(bottom + margin, height)),
                (max(left - margin, 0), min(right + margin, width)),
            )
            for place in self._places(window):
                if place in needed:
                    continue
                needed.add(place)
                weight += self._weight(place)
                more = 0 if place in self._kept else self._weight(place)
                if (begun and begun + more > AHEAD * CHUNK) or weight > self._room // 2:
                    return
                begun += more
                self._begin(place)

    def _begin(self, place: Place) -> None:
        if place not in self._kept:
            self._kept[place] = self._pool.submit(self._reader.window, *self._rectangle(place))
            self._bytes += self._weight(place)

    def _make_room(self, needed: set[Place]) -> None:
        # What was read first goes first, whenever it was used: the answers, which come later, look back.
        for place in list(self._kept):
            if self._bytes <= self._room:
                return
            if place not in needed:
                self._kept.pop(place).cancel()
                self._bytes -= self._weight(place)

    def _places(self, window: Rectangle) -> list[Place]:
        (top, bottom), (left, right) = window
        height, width = self._shape
        rows, columns = range(top // height, -(-bottom // height)), range(left // width, -(-right // width))
        return [(row, column) for row in rows for column in columns]

    def _rectangle(self, place: Place) -> Rectangle:
        spans = [
            (index * length, min((index + 1) * length, size))
            for index, length, size in zip(place, self._shape, self._reader.size, strict=True)
        ]
        return spans[0], spans[1]

    def _weight(self, place: Place) -> int:
        (top, bottom), (left, right) = self._rectangle(place)
        return (bottom - top) * (right - left) * self._pixel


def room(reader: RasterReader, part: Span) -> int:
    """Bytes of the chunks that are kept while parts of (rows, columns) at most are read and answered.

    Of a file that can only be decoded from the top, a row that is no longer there is decoded again from there: the rows
    of four parts are kept, from one that is answered to one that is read next.
    """
    size: Span = reader.size
    (height, width), (high, wide) = size, _shape(reader, part[1])
    if reader.sequential:
        found = max(ROOM, (4 * part[0] + 2 * high) * width * _pixel(reader))
    else:
        found = min(ROOM, 2 * ((part[0] + 2 * high) * (part[1] + 2 * wide) * _pixel(reader) + AHEAD * CHUNK))
    return min(found, height * width * _pixel(reader))


def held(reader: RasterReader, part: Span) -> int:
    """Bytes in memory while parts of (rows, columns) at most are read: `room`, and a chunk while it is decoded."""
    high, wide = _shape(reader, part[1])
    return room(reader, part) + 2 * high * wide * _pixel(reader)


def _pixel(reader: RasterReader) -> int:
    """Bytes of a pixel that is kept: its values, and whether it is void."""
    itemsize: int = reader.dtype.itemsize
    return reader.count * itemsize + 1


def _shape(reader: RasterReader, widest: int) -> tuple[int, int]:
    """(rows, columns) of a chunk: whole blocks of the file, at most about `CHUNK` bytes, and so flat that chunks side
    by side across a part are no more."""
    (height, width), (high, wide), pixel = reader.size, reader.block, _pixel(reader)
    if wide >= width:  # strips: a part of one costs as much as all of it
        rows = max(1, CHUNK // (width * pixel))
        return min(height, max(high, rows // high * high)), width
    side = isqrt(CHUNK // pixel)
    rows = min(side, CHUNK // (widest * pixel))
    return min(height, max(high, rows // high * high)), min(width, max(wide, side // wide * wide))
