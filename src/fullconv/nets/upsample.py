"""Upsampling coarse scores: the bilinear kernel, transposed convolutions fixed or learned, and scores -> labels.

Source: Long et al. 2015, section 3.3 ("upsampling is backwards strided convolution").
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.fields import Fields
from fullconv.geometry import Window
from fullconv.nets.rectangles import Interval

LABEL_BLOCK = 1 << 20
"""Scores held at a time while labels are taken: 4 MiB of float32, which stay in the processor's cache."""


ROUNDING = 2.0**-20
"""Of a sum of four products in float32, relative to the largest score: at most 6 roundings of 2**-24 on each side."""


BILINEAR_TOLERANCE = 1e-6
"""Largest difference of a stored deconvolution to the bilinear one that still counts as rounding."""


def bilinear_kernel(size: int) -> Tensor:
    """The 1-D bilinear taps, (size,) float32: 1 - |i - c| / f with f = floor((size + 1) / 2).

    The centre c is f - 1 for an odd size and f - 1/2 for an even one (the reference's surgery; reference 4.3).

    >>> bilinear_kernel(4).tolist()
    [0.25, 0.75, 0.75, 0.25]
    """
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    distance = (torch.arange(size, dtype=torch.float64) - centre).abs()
    return (1 - distance / factor).float()


def dense_bilinear(maps: int, size: int) -> Tensor:
    """The weight of a transposed convolution that upsamples each of K maps bilinearly: (K, K, size, size) float32.

    The taps stand on the channel diagonal, zeros elsewhere, as the reference's surgery fills it (reference pitfall 3).
    """
    taps = bilinear_kernel(size)
    weight = torch.zeros(maps, maps, size, size)
    weight[range(maps), range(maps)] = taps[:, None] * taps[None, :]
    return weight


def from_bilinear(weight: Tensor) -> float:
    """How far the weight of a deconvolution, (K, K, k, k) or (K, 1, k, k), is from the bilinear one, at most."""
    taps = bilinear_kernel(weight.shape[2])
    kernel = taps[:, None] * taps[None, :]
    largest = 0.0
    for row, filters in enumerate(weight):  # a row at a time: all of it may be as large as the net
        own = row if len(filters) > 1 or len(weight) == 1 else 0
        rest = [number for number in range(len(filters)) if number != own]
        differences = [(filters[own] - kernel).abs().max(), *([filters[rest].abs().max()] if rest else [])]
        largest = max(largest, *map(float, differences))
    return largest


class Upsampling(nn.Module):
    """A transposed convolution of K maps, evaluated on any rectangle of its output.

    Args:
        maps: K, the number of classes.
        window: its geometry along both axes; transposed, without padding.
    """

    def __init__(self, maps: int, window: Window) -> None:
        super().__init__()
        self.maps = maps
        self.window = window

    def forward(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
        """Coarse scores (N, K, h, w) -> the given rows and columns of the output, float32.

        Rows and columns count in the uncropped output, which has s (h - 1) + k rows; what lies beyond it is zero.
        """
        raise NotImplementedError  # abstract

    def grid(self, x: Tensor, rows: Interval, columns: Interval, stride: int) -> Tensor:
        """Every `stride`-th row and column of a rectangle, from its first: for losses, which need no more."""
        scores: Tensor = self(x, rows, columns)
        return scores[:, :, ::stride, ::stride]

    def whole(self, x: Tensor) -> Tensor:
        """Coarse scores (N, K, h, w) -> the uncropped output, float32."""
        height, width = (self.window.output_size(size) for size in x.shape[2:])
        return self(x, (0, height), (0, width))  # type: ignore[no-any-return]  # as `forward`

    def reset_parameters(self) -> None:
        """Weights as they start, which is never at random; a fixed upsampling has none."""

    @torch.no_grad()
    def labels(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
        """Coarse scores (K, h, w) -> the class of the highest score, (rows, columns) uint8; of equal ones the first.

        Equal to `forward` and argmax, without all scores ever existing at once.
        """
        labels = torch.empty((rows[1] - rows[0], columns[1] - columns[0]), dtype=torch.uint8, device=x.device)
        stride = self.window.stride
        # Whole coarse cells: a cell's rows read the same scores.
        step = stride * max(1, LABEL_BLOCK // (len(x) * labels.shape[1] * stride))
        for top in range(*rows, step):
            bottom = min(top + step, rows[1])
            scores = self(x[None], (top, bottom), columns)[0]
            # `max` gives the first of equal maxima too, and is ten times faster than `argmax` along this axis.
            labels[top - rows[0] : bottom - rows[0]] = scores.max(0).indices
        return labels

    def fields(self, _: Tensor, rows: Interval, columns: Interval) -> tuple[Fields, Fields]:
        """The cells that the outputs read (see `fullconv.nets.trace`)."""
        every = Fields.of(self.window)
        down, right = (every.then(Fields((start,), (start + 1,))) for start, _ in (rows, columns))
        return down, right

    def extra_repr(self) -> str:
        return f"{self.maps}, kernel_size={self.window.kernel}, stride={self.window.stride}"


class BilinearUpsampling(Upsampling):
    """Fixed bilinear weights, each map for itself, one axis after the other.

    Equal to the dense transposed convolution whose K x K kernel holds the bilinear taps on its diagonal (reference
    pitfall 3), borders included, where the missing neighbour counts as zero.
    """

    border = "constant"
    """What `F.pad` puts around the map: zeros."""

    def forward(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
        taps = bilinear_kernel(self.window.kernel).to(x.device)
        y = _Interpolate.apply(  # type: ignore[no-untyped-call]
            x.float(), taps, self.window.stride, (rows, columns), self.border
        )
        return cast(Tensor, y)

    def grid(self, x: Tensor, rows: Interval, columns: Interval, stride: int) -> Tensor:
        """As `Upsampling.grid`; no other rows and columns are computed."""
        taps = bilinear_kernel(self.window.kernel).to(x.device)
        down, across = (
            _matrix(taps, self.window.stride, interval, size, self.border)[::stride]
            for interval, size in zip((rows, columns), x.shape[2:], strict=True)
        )
        with _unrounded(x.device):
            return down @ (x.float() @ across.T)

    @torch.no_grad()
    def labels(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
        """As `Upsampling.labels`; only where neighbouring cells disagree are scores interpolated at all.

        Between four cells that all score class c highest, every weighted mean does too, and so does its rounded value
        where the lead exceeds the rounding of the sums. Most of a label map is such ground.
        """
        stride, taps = self.window.stride, bilinear_kernel(self.window.kernel).to(x.device)
        if len(taps) <= stride:  # one tap an output: nothing is interpolated
            return super().labels(x, rows, columns)
        spans = [(start // stride, (stop - 1) // stride + 1) for start, stop in (rows, columns)]
        # Block b holds the outputs [stride b, stride (b + 1)) and reads the cells b - 1 and b.
        cells = x[None].float()
        for axis, (start, stop) in enumerate(spans, 2):
            cells = cut(cells, (start - 1, stop), axis, self.border)
        cells = cells[0]
        highest, winner = cells.max(0)
        lead = highest - cells.scatter(0, winner[None], -torch.inf).amax(0)
        sure = lead > ROUNDING * cells.abs().max()
        agree = torch.ones_like(winner[1:, 1:], dtype=torch.bool)
        for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
            corner = slice(down, down + len(agree)), slice(across, across + agree.shape[1])
            agree &= sure[corner] & (winner[corner] == winner[1:, 1:])
        mixed = agree.logical_not().nonzero()
        if len(mixed) > agree.numel() // 2:  # noise: picking cells costs more than it saves
            return super().labels(x, rows, columns)
        blocks = winner[1:, 1:, None, None].to(torch.uint8).repeat(1, 1, stride, stride)
        weights = F.pad(taps, (0, 2 * stride - len(taps))).view(2, stride)
        step = max(1, LABEL_BLOCK // (len(x) * stride * stride))
        for start in range(0, len(mixed), step):
            i, j = mixed[start : start + step].T
            # The sums of `_along`, in its order: along the columns, then along the rows. Blocks come last, for speed.
            lower, upper = (
                cells[:, None, row, j + 1] * weights[0, :, None] + cells[:, None, row, j] * weights[1, :, None]
                for row in (i + 1, i)
            )
            scores = lower[:, None] * weights[0, :, None, None] + upper[:, None] * weights[1, :, None, None]
            blocks[i, j] = scores.max(0).indices.permute(2, 0, 1).to(torch.uint8)
        labels = blocks.transpose(1, 2).reshape(len(agree) * stride, -1)
        top, left = rows[0] - spans[0][0] * stride, columns[0] - spans[1][0] * stride
        return labels[top : top + rows[1] - rows[0], left : left + columns[1] - columns[0]]


class Interpolation(BilinearUpsampling):
    """Plain interpolation: as bilinear, but the map's border cells are repeated outwards without end."""

    border = "replicate"


class _Interpolate(torch.autograd.Function):
    """Sums of elementwise products forward: every rectangle has the very bits that it has in the whole, which matrix
    products do not promise. Backward, where a last bit decides nothing, they are twice as fast.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, taps: Tensor, stride: int, rectangle: tuple[Interval, Interval], border: str
    ) -> Tensor:
        ctx.taps, ctx.stride, ctx.rectangle, ctx.border, ctx.size = taps, stride, rectangle, border, x.shape[2:]
        rows, columns = rectangle
        first, last = _cells(taps, stride, rows)
        start = min(max(first, 0), x.shape[2] - 1)
        x = x[:, :, start : max(last, start + 1)]  # columns are summed in rows that are read alone
        rows = rows[0] - stride * start, rows[1] - stride * start
        return _along(_along(x, taps, stride, columns, 3, border), taps, stride, rows, 2, border)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        down, across = (
            _matrix(ctx.taps, ctx.stride, interval, size, ctx.border)
            for interval, size in zip(ctx.rectangle, ctx.size, strict=True)
        )
        with _unrounded(down.device):
            return down.T @ (gradients[0] @ across), None, None, None, None


def _along(x: Tensor, taps: Tensor, stride: int, interval: Interval, axis: int, border: str) -> Tensor:
    """The transposed convolution along one axis: output y is the sum over the cells i of taps[y - stride i] x[i]."""
    reach, (first, last) = _reach(taps, stride), _cells(taps, stride, interval)
    cells = cut(x, (first, last), axis, border).unsqueeze(axis + 1)
    weights = F.pad(taps, (0, reach * stride - len(taps))).view(reach, stride, *[1] * (3 - axis))
    count = last - first - reach + 1
    y = cells.narrow(axis, reach - 1, count) * weights[0]
    for tap in range(1, reach):
        y += cells.narrow(axis, reach - 1 - tap, count) * weights[tap]
    return y.flatten(axis, axis + 1).narrow(axis, interval[0] % stride, interval[1] - interval[0])


def _reach(taps: Tensor, stride: int) -> int:
    """Cells that one output reads."""
    return -(-len(taps) // stride)


def _cells(taps: Tensor, stride: int, interval: Interval) -> Interval:
    """The cells that outputs read, those beyond the map too."""
    return interval[0] // stride + 1 - _reach(taps, stride), (interval[1] - 1) // stride + 1


def _matrix(taps: Tensor, stride: int, interval: Interval, size: int, border: str) -> Tensor:
    """The same as a matrix, (outputs, cells): entry (y, i) sums the taps that carry cell i to output y."""
    reach = _reach(taps, stride)
    outputs = torch.arange(*interval, device=taps.device)[:, None]
    back = torch.arange(reach, device=taps.device)
    weights = F.pad(taps, (0, reach * stride - len(taps)))[outputs % stride + back * stride]
    cells = outputs.div(stride, rounding_mode="floor") - back
    there = cells.clamp(0, size - 1)
    if border == "constant":
        weights = weights * (cells == there)
    return weights.new_zeros(len(outputs), size).scatter_add(1, there, weights)


def cut(x: Tensor, interval: Interval, axis: int, border: str = "constant") -> Tensor:
    """The cells [start, stop) along axis 2 or 3; beyond the map lies its border, as `F.pad` calls it."""
    before, after = max(-interval[0], 0), max(interval[1] - x.shape[axis], 0)
    pads = (before, after, 0, 0) if axis == 3 else (0, 0, before, after)
    x = F.pad(x, pads, border)
    return x.narrow(axis, interval[0] + before, interval[1] - interval[0])


class LearnedUpsampling(Upsampling):
    """A dense transposed convolution, K x K x k x k without bias, that starts as the bilinear one."""

    def __init__(self, maps: int, window: Window) -> None:
        super().__init__(maps, window)
        self.weight = nn.Parameter(dense_bilinear(maps, window.kernel))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.copy_(dense_bilinear(self.maps, self.window.kernel))

    def forward(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
        (top, bottom), (left, right) = self.window.inputs(*rows), self.window.inputs(*columns)
        cells = cut(cut(x, (top, bottom), 2), (left, right), 3)
        stride = self.window.stride
        with _unrounded(x.device):
            y = F.conv_transpose2d(cells.float(), self.weight.float(), stride=stride)
        y0, x0 = rows[0] - stride * top, columns[0] - stride * left
        return y[:, :, y0 : y0 + rows[1] - rows[0], x0 : x0 + columns[1] - columns[0]]


def _unrounded(device: torch.device) -> AbstractContextManager[object]:
    """Without autocast, which would round the weights to bfloat16; the meta device has none to switch off."""
    there = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if there else nullcontext()
