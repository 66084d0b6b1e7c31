"""Compiled stages: blocks of a trunk as a compiler makes them, each with its own padding, on rectangles of maps.

A compiled block pads every layer as the trunk does. On a rectangle within a map that padding is wrong, but only up to
where its fields reach: it is given all that its outputs depend on, and what the padding has touched is cut off.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.inference.compilers import Compiled, Compiler
from fullconv.inference.samples import Samples
from fullconv.inference.stages import Stage, cut
from fullconv.nets.branches import channels_after
from fullconv.nets.modules import evaluating
from fullconv.nets.packed import flat
from fullconv.nets.paths import paths, windows
from fullconv.nets.rectangles import Rectangle, Size, read_by, within
from fullconv.nets.trunks import Trunk


@dataclass(frozen=True)
class CompiledStage(Stage):
    """A block of a trunk that runs as one.

    Attributes:
        block: `layers`, padded by half their kernels at most; its geometry counts, its weights are the net's own.
        function: the block, compiled.
        excess: zeros around its input, along each axis, which its first layer lacks: in the midst of an image a block
            must not pay for the paper's 100 pixels.
        strides: of its output, along each axis.
    """

    block: nn.Sequential
    function: Compiled
    excess: tuple[int, int]
    strides: tuple[int, int]

    def reads(self, outputs: Rectangle, size: Size) -> Rectangle:
        """As `Stage.reads`, from a whole number of strides on."""
        rows, columns = (
            within((start - e, stop - e), n)
            for (start, stop), e, n in zip(self._canvas(outputs, size), self.excess, size, strict=True)
        )
        return rows, columns

    def run(self, x: Tensor, held: Rectangle, outputs: Rectangle, size: Size) -> Tensor:
        """As `Stage.run`."""
        canvas, pads = self._canvas(outputs, size), []
        for axis, ((start, stop), (first, last)) in enumerate(zip(canvas, held, strict=True)):
            wanted = start - self.excess[axis], stop - self.excess[axis]
            begin, end = within(wanted, size[axis])
            x = x.narrow(2 + axis, min(begin - first, last - first), end - begin)
            pads.append((begin - wanted[0], wanted[1] - end) if begin < end else (stop - start, 0))
        (top, bottom), (left, right) = pads
        if top or bottom or left or right:
            x = F.pad(x, (left, right, top, bottom))
        y = self.function(x)
        for axis, ((start, stop), (origin, _)) in enumerate(zip(outputs, canvas, strict=True)):
            y = y.narrow(2 + axis, start - origin // self.strides[axis], stop - start)
        return y

    def _canvas(self, outputs: Rectangle, size: Size) -> Rectangle:
        """What the block is given for some outputs, on the input with its excess around it."""
        canvas = size[0] + 2 * self.excess[0], size[1] + 2 * self.excess[1]
        rows, columns = (
            (start // stride * stride, stop)
            for (start, stop), stride in zip(read_by(self.block, outputs, canvas), self.strides, strict=True)
        )
        return rows, columns


def compiled_stages(
    trunk: Trunk, strides: Collection[int], channels: int, compiler: Compiler, samples: Sequence[Tensor] = ()
) -> list[Stage]:
    """The blocks of a trunk up to its last tap of `strides`, compiled.

    Args:
        channels: of its input.
        samples: inputs (N, C, H, W) of the trunk, which pass from block to block where the compiler reads them.
    """
    found: list[Stage] = []
    passing = Samples(samples)
    with evaluating(trunk):
        for name, layers, stride in cut(trunk, strides, blocks=True):
            whole = nn.Sequential(*flat(layers))
            block, (down, right) = _without_excess(whole)
            if down or right:
                passing.through(nn.ZeroPad2d((right, right, down, down)))
            function = compiler.compile(block, channels, passing)
            passing.through(block)
            channels = channels_after(block, channels)
            rows, columns = paths([block])
            steps = prod(window.stride for window in rows), prod(window.stride for window in columns)
            found.append(CompiledStage(name, whole, channels, stride, block, function, (down, right), steps))
    return found


def _without_excess(layers: nn.Sequential) -> tuple[nn.Sequential, tuple[int, int]]:
    """A block whose first layer pads by half its kernel at most, and what it padded beyond that."""
    first = layers[0]
    if not isinstance(first, nn.Conv2d):
        return layers, (0, 0)
    down, right = (max(0, window.padding - window.extent // 2) for window in windows(first))
    if not down and not right:
        return layers, (0, 0)
    own = copy.copy(first)  # the weights are shared
    own.padding = tuple(window.padding - e for window, e in zip(windows(first), (down, right), strict=True))
    return nn.Sequential(own, *list(layers)[1:]), (down, right)
