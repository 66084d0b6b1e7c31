"""Kinds of maps on a net's way: the image, what a stage makes of a map, scores, and scores fused and upsampled.

Source: Long et al. 2015, section 3.3 and 4.2 (score layers, upsampling and skips).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import cast
from weakref import WeakSet

import torch
from torch import Tensor

from fullconv.geometry import inputs
from fullconv.inference.blank import Border, common
from fullconv.inference.maps import Map, Reader
from fullconv.inference.stages import Stage
from fullconv.nets.paths import paths
from fullconv.nets.rectangles import Interval, Rectangle, Size, multiplications, part, size_after, within
from fullconv.nets.upsample import Upsampling

ENDS = 64
"""Chunks of a map that are counted one by one; of more, those at its ends and one within."""

Read = Callable[[Interval, Interval], Tensor]
"""(rows, columns) -> (N, C, h, w), as a trunk takes it."""


class Source(Map):
    """The image, as a function gives it."""

    def __init__(self, size: Size, channels: int, read: Read) -> None:
        super().__init__(size, channels)
        self.read = read

    def make(self, rows: Interval) -> Tensor:
        return self.read(rows, self.held)


class Staged(Map):
    """What a stage makes of a map; where no image changes it, it is taken from a border."""

    def __init__(self, stage: Stage, source: Map, border: Border | None = None, batch: int = 1) -> None:
        super().__init__(size_after(stage.layers, source.size), stage.channels)
        self.stage, self.source, self.border, self.batch = stage, Reader(source), border, batch
        self.scored = WeakSet[Scored]()

    def row_numbers(self) -> int:
        """As `Map.row_numbers`; within a stage a finer map may be larger than its output."""
        rows, columns = paths([self.stage.layers])
        finer = prod(window.stride for window in rows[1:]) * prod(window.stride for window in columns[1:])
        return super().row_numbers() * finer

    def multiplications(self) -> int:
        """Chunk by chunk: rows between the layers of a stage may be needed for two of them."""
        count = -(-self.size[0] // self.step)
        if count <= ENDS:
            return sum(map(self._chunk, range(count)))
        # Chunks within the map are alike, but for those that a border's end divides.
        ends = [self._chunk(number) for number in (0, 1, 2, count // 2, count - 3, count - 2, count - 1)]
        return sum(ends) + (count - len(ends)) * ends[3]

    def lasting(self) -> int:
        return 0 if self.border is None else self.border.blank.nbytes

    def _chunk(self, number: int) -> int:
        outputs = (number * self.step, min((number + 1) * self.step, self.size[0])), self.held
        made = outputs if self.border is None else self.border.changing(outputs)
        return multiplications(self.stage.layers, made, self.source.map.size)

    def ask(self, columns: Interval) -> None:
        made = columns if self.border is None else common(columns, self.border.seeing[1])
        self.source.map.want(_some(self._reads(((0, 1), made))[1], self.source.map.size[1]))

    def make(self, rows: Interval) -> Tensor:
        outputs = made = rows, self.held
        if self.border is not None:
            made = self.border.changing(outputs)
            if made[0][0] == made[0][1]:
                return self.border.around(None, outputs).expand(self.batch, -1, -1, -1)
        reads = self._reads(made)
        top, bottom = _some(reads[0], self.source.map.size[0])
        held = (top, bottom), self.source.map.held
        y = self.stage.run(self.source.rows(top, bottom), held, made, self.source.map.size)
        return y if made == outputs else self.border.around(y, outputs)  # type: ignore[union-attr]  # not without one

    def keep(self, number: int, chunk: Tensor) -> None:
        super().keep(number, chunk)
        for scored in self.scored:
            scored.follow(number, chunk)

    def spans(self) -> list[tuple[Map, int]]:
        rows, _ = paths([self.stage.layers])
        start, stop = inputs(rows, 0, self.step)
        return [(self.source.map, stop - start)]

    def _reads(self, outputs: Rectangle) -> Rectangle:
        return self.stage.reads(outputs, self.source.map.size)


class Scored(Map):
    """Scores of a tap, taken as soon as its rows are made: they are a fraction of its channels, and wait for others."""

    def __init__(self, source: Staged, classes: int, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__(source.size, classes)
        self.source, self.score = source, score
        source.scored.add(self)

    def ask(self, columns: Interval) -> None:
        self.source.want(columns)

    def settle(self, numbers: int, share: float) -> None:  # noqa: ARG002  (its chunks are the tap's)
        self.step = self.source.step

    def multiplications(self) -> int:
        return self.channels * self.source.channels * self.size[0] * (self.held[1] - self.held[0])

    def follow(self, number: int, chunk: Tensor) -> None:
        """Score what the tap has made."""
        top = number * self.step
        rows = top, top + chunk.shape[2]
        self.keep(number, self.score(part(chunk, (rows, self.source.held), (rows, self.held))))

    def make(self, rows: Interval) -> Tensor:
        chunk, number = self.source.rows(*rows), rows[0] // self.step
        if number not in self._chunks:
            self.follow(number, chunk)
        return self._chunks[number]


class Averaged(Map):
    """The mean of maps of one size: late fusion."""

    def __init__(self, sources: Sequence[Map]) -> None:
        super().__init__(sources[0].size, sources[0].channels)
        self.sources = [Reader(source) for source in sources]

    def ask(self, columns: Interval) -> None:
        for source in self.sources:
            source.map.want(columns)

    def spans(self) -> list[tuple[Map, int]]:
        return [(source.map, self.step) for source in self.sources]

    def make(self, rows: Interval) -> Tensor:
        return torch.stack([source.part(rows, self.held) for source in self.sources]).mean(0)


class Fused(Map):
    """Upsampled scores and those of a skip, each cropped to where both are; see `Head`."""

    def __init__(self, layer: Upsampling, coarser: Map, skip: Map, shift: tuple[int, int]) -> None:
        sizes = [
            min(full - max(s, 0), there - max(-s, 0))
            for full, there, s in zip(map(layer.window.output_size, coarser.size), skip.size, shift, strict=True)
        ]
        super().__init__((sizes[0], sizes[1]), coarser.channels)
        self.layer, self.shift, self.coarser, self.skip = layer, shift, Reader(coarser), Reader(skip)

    def ask(self, columns: Interval) -> None:
        upsampled, skipped = self._moved(columns, 1)
        self.coarser.map.want(within(self.layer.window.inputs(*upsampled), self.coarser.map.size[1]))
        self.skip.map.want(skipped)

    def make(self, rows: Interval) -> Tensor:
        (above, below), (left, right) = self._moved(rows, 0), self._moved(self.held, 1)
        y = upsampled(self.layer, self.coarser, above, left)  # first: what it reads makes the skip's rows by the way
        return y + self.skip.part(below, right)

    def spans(self) -> list[tuple[Map, int]]:
        start, stop = self.layer.window.inputs(0, self.step)
        ahead = (stop + self.coarser.map.step) * self.layer.window.stride  # the skip is made by the way, chunk by chunk
        return [(self.coarser.map, stop - start), (self.skip.map, self.step + ahead)]

    def _moved(self, cells: Interval, axis: int) -> tuple[Interval, Interval]:
        """Cells of the sum -> of the upsampled map, of the skip."""
        shift = self.shift[axis]
        up, side = max(shift, 0), max(-shift, 0)
        return (cells[0] + up, cells[1] + up), (cells[0] + side, cells[1] + side)


def upsampled(layer: Upsampling, source: Reader, rows: Interval, columns: Interval) -> Tensor:
    """Rows and columns of the uncropped upsampled map, from what they read of the coarser one."""
    height, width = source.map.size
    down, across = within(layer.window.inputs(*rows), height), within(layer.window.inputs(*columns), width)
    return cast(Tensor, layer(source.part(down, across), *(
        (interval[0] - layer.window.stride * cells[0], interval[1] - layer.window.stride * cells[0])
        for interval, cells in ((rows, down), (columns, across))
    )))  # fmt: skip


def _some(interval: Interval, size: int) -> Interval:
    """At least one cell, which is then not used, where only padding is read."""
    start, stop = interval
    return interval if start < stop else (min(start, size - 1), min(start, size - 1) + 1)
