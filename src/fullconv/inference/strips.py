"""Strips: an image of any height through a net, some rows at a time.

Source: Long et al. 2015, section 3 (fully convolutional nets operate on an input of any size).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from fullconv.inference.map_kinds import upsampled
from fullconv.inference.maps import Images, Maps, Reader
from fullconv.nets import FCN
from fullconv.nets.head import Head
from fullconv.nets.rectangles import Interval, Rectangle, Size, within
from fullconv.nets.upsample import Upsampling

BUDGET = 1 << 24
"""Bytes of a chunk of rows: large enough for the calls to be worth it, and small enough for malloc to keep what is let
go. What has more than 32 MiB goes back to the system at once, and the next chunk is faulted in page by page."""


class Cut(Protocol):
    """A net that can be run on parts of an image."""

    @property
    def net(self) -> FCN: ...

    @property
    def heads(self) -> Mapping[str, Head]:
        """By task."""
        ...

    def maps(self, size: Size, images: Images, batch: int = 1, tasks: Sequence[str] | None = None) -> Maps:
        """The maps from images of a size to the coarse scores of tasks, by default of all.

        Raises:
            GeometryError: too little padding for the size.
        """
        ...

    def multiplications(self, size: Size) -> int:
        """Of an image in one piece, up to its coarse scores."""
        ...

    @property
    def weights(self) -> int:
        """Bytes of the net's weights and of those made ready from them."""
        ...


class Strips:
    """One image, or several of one size, on their way through a net.

    Rows are asked for from the top down; what lies far above the last that were is gone, and would be made again.

    Args:
        cut: the net.
        size: (H, W).
        images: reads a rectangle of the inputs.
        columns: of the output that will be asked for; default: all.
        rows: that will be asked for at once; default: all.
        batch: N.
        budget: bytes of a chunk of rows of one map, about.
        tasks: that will be asked for, all of them down to the same row; default: all. Scores that nobody asks for would
            be kept.

    Raises:
        GeometryError: too little padding for the size.
    """

    def __init__(
        self, cut: Cut, size: Size, images: Images, *, columns: Interval | None = None, rows: int | None = None,
        batch: int = 1, budget: int = BUDGET, tasks: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.heads, self.size, self.columns = cut.heads, size, columns or (0, size[1])
        self.maps = cut.maps(size, images, batch, tasks)
        self.coarse = {task: Reader(each) for task, each in self.maps.coarse.items()}
        for task, reader in self.coarse.items():
            self.heads[task].check_covers(reader.map.size, size)
            reader.map.want(self._cells(task, (0, 1))[1])
        self.maps.settle(budget, 1.0 if rows is None else min(1.0, rows / size[0]))

    def coarse_scores(self, task: str) -> Tensor:
        """The coarse scores (N, K, h, w) float32 of the whole image."""
        reader = self.coarse[task]
        return reader.rows(0, reader.map.size[0])

    @torch.inference_mode()
    def scores(self, task: str, rows: Interval) -> Tensor:
        """Scores (N, K, h, w) float32 of some rows of the image."""
        down, across = self._uncropped(task, rows)
        return upsampled(self._output(task), self.coarse[task], down, across)

    @torch.inference_mode()
    def labels(self, task: str, rows: Interval) -> Tensor:
        """Labels (N, h, w) uint8 of some rows of the image."""
        layer, cells = self._output(task), self._cells(task, rows)
        down, across = (
            (start - layer.window.stride * first, stop - layer.window.stride * first)
            for (start, stop), (first, _) in zip(self._uncropped(task, rows), cells, strict=True)
        )
        return torch.stack([layer.labels(one, down, across) for one in self.coarse[task].part(*cells)])

    def _cells(self, task: str, rows: Interval) -> Rectangle:
        """The coarse cells that some rows read."""
        window, (height, width) = self._output(task).window, self.coarse[task].map.size
        down, across = self._uncropped(task, rows)
        return within(window.inputs(*down), height), within(window.inputs(*across), width)

    def _uncropped(self, task: str, rows: Interval) -> Rectangle:
        """Rows of the image, and the columns asked for, on the uncropped upsampled map."""
        (top, bottom), (left, right), (down, across) = rows, self.columns, self.heads[task].output.shift
        return (top + down, bottom + down), (left + across, right + across)

    def _output(self, task: str) -> Upsampling:
        return cast(Upsampling, self.heads[task].upscore["output"])
