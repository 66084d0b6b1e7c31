"""Maps made from the top down, some rows at a time, and let go as soon as nobody reads them any more.

Who needs rows of a map asks it; the map asks the one it is made of for what it reads, makes whole chunks of rows and
keeps them until every reader has passed. Each row is made once, and memory depends on the width of the image, not on
its height. Chunks begin at multiples of a map's step, whatever was asked first: a stream that begins further down has
the very bits of one that began at the top.

Convention: rows and columns count in the whole map; a map may hold some of its columns alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

from fullconv.nets.rectangles import Interval, Size, part

Images = Callable[[Interval, Interval], Mapping[str, Tensor]]
"""(rows, columns) -> inputs by name, (N, C, h, w), as `FCN` takes them."""


class Map:
    """Rows of a map (N, C, h, w).

    Args:
        size: (H, W) of the whole.
        channels: C.

    Attributes:
        step: rows of a chunk.
        columns: that are made; None as long as nobody wants any.
    """

    def __init__(self, size: Size, channels: int) -> None:
        self.size, self.channels, self.step = size, channels, size[0]
        self.columns: Interval | None = None
        self.readers = WeakSet[Reader]()  # a cycle would keep all chunks until Python looks for cycles
        self._chunks: dict[int, Tensor] = {}

    def want(self, columns: Interval) -> None:
        """Columns that a reader needs: they are made too, and what they read is wanted in turn."""
        if self.columns is None or columns[0] < self.columns[0] or columns[1] > self.columns[1]:
            held = self.columns or columns
            self.columns = min(held[0], columns[0]), max(held[1], columns[1])
            self.ask(self.columns)

    @property
    def held(self) -> Interval:
        """The columns that are made."""
        return self.columns or (0, self.size[1])

    def settle(self, numbers: int, share: float) -> None:
        """Choose the rows of a chunk: about so many numbers of one image in memory, at most a share of the map."""
        self.step = max(1, min(ceil(self.size[0] * share), numbers // self.row_numbers()))

    def row_numbers(self) -> int:
        """Numbers in memory while a row is made, of the largest map on the way to it."""
        return self.channels * (self.held[1] - self.held[0])

    def multiplications(self) -> int:
        """Of all rows, for the columns held."""
        return 0

    def lasting(self) -> int:
        """Bytes that it holds beside its rows."""
        return 0

    def spans(self) -> list[tuple[Map, int]]:
        """The maps that this one is made of, and the rows of each that a chunk reads."""
        return []

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows [start, stop), at least one, of all columns held."""
        step, pieces = self.step, []
        for number in range(start // step, (stop - 1) // step + 1):
            top = number * step
            bottom = min(top + step, self.size[0])
            if number not in self._chunks:
                self.keep(number, self.make((top, bottom)))
            chunk = self._chunks[number]
            first, last = max(start, top) - top, min(stop, bottom) - top
            pieces.append(chunk if last - first == len(chunk[0, 0]) else chunk[:, :, first:last])
        low = min((reader.at for reader in self.readers), default=start)
        for number in [number for number in self._chunks if (number + 1) * step <= low]:
            del self._chunks[number]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)

    def keep(self, number: int, chunk: Tensor) -> None:
        """Keep the chunk of a number."""
        self._chunks[number] = chunk

    def ask(self, columns: Interval) -> None:
        """Want of the maps that this one is made of what these columns read."""

    def make(self, rows: Interval) -> Tensor:
        """All columns held of some rows."""
        raise NotImplementedError  # abstract


class Reader:
    """One who reads a map from the top down; rows above its last request are not kept for it."""

    def __init__(self, source: Map) -> None:
        self.map, self.at = source, -1
        source.readers.add(self)

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows [start, stop)."""
        self.at = start
        return self.map.rows(start, stop)

    def part(self, rows: Interval, columns: Interval) -> Tensor:
        """The given rows, of some columns."""
        return part(self.rows(*rows), (rows, self.map.held), (rows, columns))


M = TypeVar("M", bound=Map)


class Maps:
    """All maps of one image's way through a net.

    Args:
        width: bytes of a number.
        batch: N.

    Attributes:
        coarse: the coarse scores by task.
        every: all maps, each after those that it is made of.
    """

    def __init__(self, width: int, batch: int) -> None:
        self.width, self.batch = width, batch
        self.coarse: dict[str, Map] = {}
        self.every: list[Map] = []

    def add(self, each: M) -> M:
        """Count a map among them."""
        self.every.append(each)
        return each

    def settle(self, budget: int, share: float = 1.0) -> None:
        """Choose the rows of each map's chunks, once all columns are asked for.

        Args:
            budget: bytes of a chunk, and of what is made on the way to it, about.
            share: of the image's rows that is asked for at once: no chunk is much larger, and what is asked for next
                is not made before.
        """
        for each in self.every:
            each.settle(budget // (self.batch * self.width), share)

    def memory(self) -> int:
        """Bytes held at once, about: of every map the rows that its readers need, and what the largest chunk takes."""
        rows, transient = {each: each.step for each in self.every}, 0
        for each in self.every:
            read = 0
            for source, span in each.spans():
                rows[source] = max(rows[source], min(source.size[0], source.step + span))
                read += span * source.channels * (source.held[1] - source.held[0])
            transient = max(transient, read + 2 * each.step * each.row_numbers())
        held = sum(n * each.channels * (each.held[1] - each.held[0]) for each, n in rows.items())
        return self.batch * self.width * (held + transient) + sum(each.lasting() for each in self.every)

    def multiplications(self) -> int:
        """Of all rows, for the columns asked for; what upsampling takes left out."""
        return self.batch * sum(each.multiplications() for each in self.every)
