"""Loss sampling: the loss over a random share of the coarse cells, which is what patchwise training comes to.

A loss that is a sum over cells has a gradient that is the sum of the cells' gradients: a whole image is the minibatch
of all patches (the cells' receptive fields), and a minibatch of random patches is the loss over random cells. The cells
that do not count become void in the target, so every loss that knows void can be sampled.

A `Grid` is our own: neighbouring pixels say much the same, and full-size scores and their softmax cost more than the
heads that make them. On every second row and column the loss is a quarter of that.

Source: Long et al. 2015, sections 3.4 and 4.4 (reference 4.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fullconv import geometry
from fullconv.labels import VOID
from fullconv.nets import FCN
from fullconv.nets.fcn import Named
from fullconv.nets.head import Head
from fullconv.training.draws import Draw, generator


@dataclass(frozen=True)
class Grid:
    """The pixels whose scores are computed: every `stride`-th row and column from a start on.

    Images that go through the net together share it, so that their scores are one tensor.

    Attributes:
        start: (row, column), each 0..stride - 1.
        stride: 1 for all pixels; no image has a shorter side.
    """

    start: tuple[int, int] = (0, 0)
    stride: int = 1

    @classmethod
    def drawn(cls, step: int, stride: int, seed: int) -> Grid:
        """For a training step; a pure function of its arguments."""
        if stride == 1:
            return cls()
        row, column = generator("grid", step, seed=seed).integers(0, stride, 2).tolist()
        return cls((row, column), stride)

    def of(self, target: Tensor) -> Tensor:
        """(N, H, W) -> its part on the grid."""
        return target[:, self.start[0] :: self.stride, self.start[1] :: self.stride]


class GridScores(nn.Module):
    """A net's scores on a grid, by task: what is trained. Its parameters are the net's.

    Args:
        compiled: the net is compiled by torch.compile, up to its coarse scores: grids would be one by one.
    """

    def __init__(self, net: FCN, compiled: bool = False) -> None:
        super().__init__()
        self.net = net
        self.coarse = torch.compile(net.coarse) if compiled else net.coarse

    def forward(self, images: Named, grid: Grid) -> dict[str, Tensor]:
        """(N, C, H, W) by input -> (N, K, rows, columns) by task."""
        return {
            task: coarse.upsample()
            if grid.stride == 1
            else coarse.head.grid(coarse.scores, coarse.size, grid.start, grid.stride)
            for task, coarse in self.coarse(images).items()
        }


def sampled(targets: dict[str, Tensor], draws: Sequence[Draw], net: FCN, share: float, seed: int) -> dict[str, Tensor]:
    """The targets with the pixels of all cells void but for a random share; as they are where the share is 1.

    A pixel belongs to the coarse cell whose centre is nearest. All tasks keep the same cells, since the heads of a net
    have one stride.

    Args:
        targets: by task, (N, H, W) uint8 or int64 each.
        draws: of the N images: with the seed they alone determine which cells are kept, so that a resumed run goes on
            as it would have, and a step of images of one size may be shared out in any way.
        net: whose cells they are.
        share: p, 0 < p <= 1; each cell is kept with this probability, independently of the others.
    """
    if share == 1:
        return targets
    first = next(iter(targets.values()))
    size = first.shape[1], first.shape[2]
    shape = cell_shape(net, size)
    head = cast(Head, next(iter(net.heads.values())))
    rows, columns = (axis.to(first.device) for axis in cells(head, size, shape))
    by_cell = torch.from_numpy(kept(draws, shape, share, seed)).to(first.device)
    ignored = ~by_cell.index_select(2, columns).index_select(1, rows)
    return {task: target.masked_fill(ignored, VOID) for task, target in targets.items()}


def kept(draws: Sequence[Draw], shape: tuple[int, int], share: float, seed: int) -> NDArray[np.bool_]:
    """Which cells count: (N, h, w), each with the probability `share`, from a stream of each draw's own."""
    streams = (generator("loss", epoch, index, seed=seed) for epoch, index in draws)
    return np.stack([stream.random(shape) for stream in streams]) < share


def cell_shape(net: FCN, size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the coarse scores of inputs of (H, W): fused maps are cropped to where all of them are."""
    streams = [axes for _, axes in net.paths()]
    height, width = (min(geometry.output_size(axes[axis], side) for axes in streams) for axis, side in enumerate(size))
    return height, width


def cells(head: Head, size: tuple[int, int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The cell of every row of pixels, (H,) int64 of 0..h-1, and of every column, (W,) int64 of 0..w-1.

    It is the one with the nearest centre: of two the later, beyond the outermost centres the outermost.

    Args:
        head: of any task.
        size: (H, W) of the input.
        shape: (h, w), of `cell_shape`.
    """
    stride, kernel = head.output.window.stride, head.output.window.kernel

    def axis(pixels: int, shift: int, last: int) -> Tensor:
        # Cell i has its centre at stride i + (kernel - 1) / 2 - shift; twice that is a whole number.
        doubled = 2 * (torch.arange(pixels) + shift) - (kernel - 1)
        return ((doubled + stride) // (2 * stride)).clamp(0, last)

    rows, columns = (axis(n, s, count - 1) for n, s, count in zip(size, head.output.shift, shape, strict=True))
    return rows, columns
