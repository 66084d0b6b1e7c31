"""Upsampling coarse scores: the bilinear kernel, transposed convolutions fixed or learned, and scores -> labels.

Source: Long et al. 2015, section 3.3 ("upsampling is backwards strided convolution").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.geometry import Window

Interval = tuple[int, int]
"""Half-open [start, stop)."""

LABEL_BLOCK = 1 << 20
"""Scores held at a time while labels are taken: 4 MiB of float32, which stay in the processor's cache."""


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

    def extra_repr(self) -> str:
        return f"{self.maps}, kernel_size={self.window.kernel}, stride={self.window.stride}"


class BilinearUpsampling(Upsampling):
    """Fixed bilinear weights, each map for itself: two small banded matrix products instead of a K x K kernel.

    Equal to the dense transposed convolution whose K x K kernel holds the bilinear taps on its diagonal (reference
    pitfall 3), borders included, where the missing neighbour counts as zero.
    """

    def forward(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
        # Autocast would round the weights and the sum to bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if self.window.kernel == 1:
                return x[:, :, slice(*rows), slice(*columns)]
            (top, bottom), (left, right) = self._cells(rows, x.shape[2]), self._cells(columns, x.shape[3])
            down = self._matrix(rows, (top, bottom)).to(x.device)
            across = self._matrix(columns, (left, right)).to(x.device)
            return down @ (x[:, :, top:bottom, left:right].contiguous() @ across.T)

    def _cells(self, interval: Interval, size: int) -> Interval:
        first, last = self.window.inputs(*interval)
        first = min(max(first, 0), size - 1)
        return first, max(min(last, size), first + 1)

    def _matrix(self, outputs: Interval, cells: Interval) -> Tensor:
        """(outputs, cells): entry (y, i) is the tap that carries cell i to output y."""
        taps = bilinear_kernel(self.window.kernel)
        index = torch.arange(*outputs)[:, None] - self.window.stride * torch.arange(*cells)[None, :]
        inside = (index >= 0) & (index < self.window.kernel)
        return torch.where(inside, taps[index.clamp(0, self.window.kernel - 1)], 0.0)


class LearnedUpsampling(Upsampling):
    """A dense transposed convolution, K x K x k x k without bias, that starts as the bilinear one."""

    def __init__(self, maps: int, window: Window) -> None:
        super().__init__(maps, window)
        taps = bilinear_kernel(window.kernel)
        weight = torch.zeros(maps, maps, window.kernel, window.kernel)
        weight[range(maps), range(maps)] = taps[:, None] * taps[None, :]
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
        (top, bottom), (left, right) = self.window.inputs(*rows), self.window.inputs(*columns)
        # Cells beyond the map are zero, so a rectangle that reaches beyond it reads padding like any other.
        pad = (max(-left, 0), max(right - x.shape[3], 0), max(-top, 0), max(bottom - x.shape[2], 0))
        cells = F.pad(x, pad)[:, :, top + pad[2] : bottom + pad[2], left + pad[0] : right + pad[0]]
        stride = self.window.stride
        with torch.autocast(x.device.type, enabled=False):
            y = F.conv_transpose2d(cells.float(), self.weight, stride=stride)
        y0, x0 = rows[0] - stride * top, columns[0] - stride * left
        return y[:, :, y0 : y0 + rows[1] - rows[0], x0 : x0 + columns[1] - columns[0]]


def labels_from_coarse(
    coarse: Tensor, upsampling: Upsampling, offset: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Coarse scores (N, K, h, w) -> labels (N, H, W) uint8, without the (N, K, H, W) scores ever existing at once.

    Args:
        upsampling: the last one.
        offset: its crop, (rows, columns).
        size: (H, W).
    """
    height, width = size
    labels = torch.empty((coarse.shape[0], height, width), dtype=torch.uint8, device=coarse.device)
    stride = upsampling.window.stride
    # Whole coarse cells: a cell's rows read the same scores.
    step = stride * max(1, LABEL_BLOCK // (coarse.shape[1] * width * stride))
    columns = (offset[1], offset[1] + width)
    for index in range(coarse.shape[0]):
        for top in range(0, height, step):
            bottom = min(top + step, height)
            block = upsampling(coarse[index : index + 1], (top + offset[0], bottom + offset[0]), columns)
            # `max` gives the first of equal maxima too, and is ten times faster than `argmax` along this axis.
            labels[index, top:bottom] = block[0].max(0).indices
    return labels
