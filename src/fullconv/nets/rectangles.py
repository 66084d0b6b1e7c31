"""Rectangles of maps: which part of its input a layer reads for some of its outputs, and those outputs from that part.

A layer on a rectangle gives what it gives there on the whole map: padding is put only where the map really ends, and
inside it the neighbours stand. So an image can be labelled in parts, exactly.

Convention: a rectangle is (rows, columns), half-open intervals of whole cells within a map of `size` (H, W).

Source: Long et al. 2015, section 3 (layers are functions of the relative position of their inputs alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.errors import GeometryError
from fullconv.geometry import Window, output_size
from fullconv.nets.branches import Branches
from fullconv.nets.paths import POINTWISE, Windowed, paths, windows

_PATHS: WeakKeyDictionary[nn.Module, tuple[list[Window], list[Window]]] = WeakKeyDictionary()

Interval = tuple[int, int]
"""Half-open [start, stop)."""

Rectangle = tuple[Interval, Interval]
Size = tuple[int, int]


def whole(size: Size) -> Rectangle:
    """All of a map."""
    return (0, size[0]), (0, size[1])


def size_after(layer: nn.Module, size: Size) -> Size:
    """(H, W) of a layer's output for that of its input; raises GeometryError where none is left."""
    rows, columns = _path(layer)
    return output_size(rows, size[0]), output_size(columns, size[1])


def read_by(layer: nn.Module, outputs: Rectangle, size: Size) -> Rectangle:
    """The part of a map of `size` that a layer reads for `outputs`, without padding; empty where it reads only that."""
    rows, columns = (
        _read_along(path, interval, n) for path, interval, n in zip(_path(layer), outputs, size, strict=True)
    )
    return rows, columns


def on_rectangle(layer: nn.Module, x: Tensor, held: Rectangle, outputs: Rectangle, size: Size) -> Tensor:
    """The `outputs` of a layer, (N, C, h, w), from a part of its input that holds what it reads for them.

    Args:
        layer: packed convolutions, max poolings, pointwise layers, and `nn.Sequential` and `Branches` of them.
        x: (N, C', h', w'), the rectangle `held` of the input.
        size: (H, W) of the whole input.

    Raises:
        GeometryError: a layer that is not known here.
    """
    if isinstance(layer, nn.Sequential):
        return _in_turn(list(layer), x, held, outputs, size)
    if isinstance(layer, Branches):
        return layer.join([_in_turn([each for _, each in branch], x, held, outputs, size) for branch in layer.branches])
    if isinstance(layer, POINTWISE):
        return cast(Tensor, layer(part(x, held, outputs)))
    if any(start == stop for start, stop in outputs):
        return _nothing(layer, x, outputs)
    reads = read_by(layer, outputs, size)
    x = part(x, held, reads)
    pads = [
        _padding(window, interval, read) for window, interval, read in zip(windows(layer), outputs, reads, strict=True)
    ]
    if isinstance(layer, nn.MaxPool2d):
        return _pooled(layer, x, pads)
    # What a layer's own padding can do needs no padded copy of the map.
    own = [before if before == after else 0 for before, after in pads]
    (top, bottom), (left, right) = ((b - o, a - o) for (b, a), o in zip(pads, own, strict=True))
    if top or bottom or left or right:
        x = F.pad(x, (left, right, top, bottom))
    if not isinstance(layer, Windowed):
        raise GeometryError(
            f"{type(layer).__name__} is not known on a part of a map; expected packed convolutions, max poolings and "
            "pointwise layers: run this net in crops"
        )
    return layer.padded(x, (own[0], own[1]))


def multiplications(layer: nn.Module, outputs: Rectangle, size: Size) -> int:
    """Those of the convolutions behind a rectangle of outputs, every cell in between computed once.

    Args:
        size: (H, W) of the whole input.
    """
    if isinstance(layer, nn.Sequential):
        return sum(multiplications(*each) for each in _steps(list(layer), outputs, size))
    if isinstance(layer, Branches):
        branches = [[each for _, each in branch] for branch in layer.branches]
        return sum(multiplications(*each) for branch in branches for each in _steps(branch, outputs, size))
    if isinstance(layer, Windowed):
        return layer.multiplications * prod(stop - start for start, stop in outputs)
    return layer.weight.numel() * prod(stop - start for start, stop in outputs) if isinstance(layer, nn.Conv2d) else 0


def part(x: Tensor, held: Rectangle, wanted: Rectangle) -> Tensor:
    """The rectangle `wanted` of a map of which x is the rectangle `held`; a view."""
    for axis, ((start, stop), (first, _)) in enumerate(zip(wanted, held, strict=True), 2):
        if stop - start != x.shape[axis]:
            x = x.narrow(axis, min(start - first, x.shape[axis]), stop - start)
    return x


def within(interval: Interval, size: int) -> Interval:
    """The cells of an interval that exist, of `size`; empty, at the nearer end, where none does."""
    start = min(max(interval[0], 0), size)
    return start, max(start, min(interval[1], size))


def _path(layer: nn.Module) -> tuple[list[Window], list[Window]]:
    """Its path along both axes, found once: a chunk of rows takes as long to plan as to compute on small maps."""
    found = _PATHS.get(layer)
    if found is None:
        found = _PATHS[layer] = paths([layer])
    return found


def _read_along(path: Sequence[Window], outputs: Interval, size: int) -> Interval:
    sizes = list(accumulate(path, lambda n, window: window.output_size(n), initial=size))
    for window, n in zip(reversed(path), sizes[-2::-1], strict=True):
        outputs = within(window.inputs(*outputs), n)
    return outputs


def _steps(layers: Sequence[nn.Module], outputs: Rectangle, size: Size) -> list[tuple[nn.Module, Rectangle, Size]]:
    """Each of some layers in a row, with its outputs that are needed and the size of its input."""
    sizes = list(accumulate(layers, lambda at, layer: size_after(layer, at), initial=size))
    wanted = [outputs]
    for layer, before in zip(layers[:0:-1], sizes[-2:0:-1], strict=True):
        wanted.append(read_by(layer, wanted[-1], before))
    return list(zip(layers, reversed(wanted), sizes, strict=False))


def _in_turn(layers: Sequence[nn.Module], x: Tensor, held: Rectangle, outputs: Rectangle, size: Size) -> Tensor:
    for layer, wanted, before in _steps(layers, outputs, size):
        x, held = on_rectangle(layer, x, held, wanted, before), wanted
    return part(x, held, outputs)


def _padding(window: Window, outputs: Interval, reads: Interval) -> tuple[int, int]:
    """Cells of padding (before, after) what is read of the map."""
    start, stop = window.inputs(*outputs)
    if reads[0] == reads[1]:
        return stop - start, 0
    return reads[0] - start, stop - reads[1]


def _nothing(layer: nn.Module, x: Tensor, outputs: Rectangle) -> Tensor:
    """No cells, of as many channels as a layer gives: what a later layer reads that reads padding alone."""
    rows, columns = (stop - start for start, stop in outputs)
    return x.new_empty((len(x), layer.channels if isinstance(layer, Windowed) else x.shape[1], rows, columns))


def _pooled(layer: nn.MaxPool2d, x: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
    (top, bottom), (left, right) = pads
    kernel = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * 2
    own = (top, left)
    if pads != [(p, p) for p in own] or any(2 * p > k for p, k in zip(own, kernel, strict=True)):
        x, own = F.pad(x, (left, right, top, bottom), value=-torch.inf), (0, 0)
    return F.max_pool2d(x, layer.kernel_size, layer.stride, own, layer.dilation)
