"""Poolings with dilation, as filter rarefaction makes them; torch's cannot be, or not with padding to match.

Source: Long et al. 2015, section 3.2; reference 4.2 (poolings are dilated like filters).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.fields import Fields
from fullconv.geometry import Window

Windows = tuple[Window, Window]
"""(vertical, horizontal)."""


class DilatedPool(nn.Module):
    """A pooling by any windows; sizes are rounded down.

    Args:
        windows: kernel, stride, padding and dilation along both axes.

    Shape: (N, C, H, W) -> (N, C, h, w), see `Window.output_size`.
    """

    def __init__(self, windows: Windows) -> None:
        super().__init__()
        self.windows = windows

    def fields(self, *_: Any) -> tuple[Fields, Fields]:
        """What its units read (see `fullconv.nets.trace`)."""
        rows, columns = self.windows
        return Fields.of(rows), Fields.of(columns)

    def extra_repr(self) -> str:
        parts = ("kernel", "stride", "padding", "dilation")
        return ", ".join(f"{part}={self._pair(part)}" for part in parts)

    def _pair(self, name: str) -> tuple[int, int]:
        rows, columns = self.windows
        return getattr(rows, name), getattr(columns, name)


class DilatedMaxPool(DilatedPool):
    """Maximum pooling whose padding may exceed half its kernel."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self._pair("padding")
        x = F.pad(x, (columns, columns, rows, rows), value=-torch.inf)
        return F.max_pool2d(x, self._pair("kernel"), self._pair("stride"), 0, self._pair("dilation"))


class DilatedAvgPool(DilatedPool):
    """Average pooling; `count_include_pad` and `divisor_override` as in `nn.AvgPool2d`."""

    def __init__(self, windows: Windows, count_include_pad: bool = True, divisor_override: int | None = None) -> None:
        super().__init__(windows)
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self._pair("kernel")
        if self.divisor_override or self.count_include_pad:
            return self._sum(x) / (self.divisor_override or rows * columns)
        return self._sum(x) / self._sum(torch.ones_like(x[:1, :1]))

    def _sum(self, x: Tensor) -> Tensor:
        ones = x.new_ones((x.shape[1], 1, *self._pair("kernel")))
        stride, padding, dilation = self._pair("stride"), self._pair("padding"), self._pair("dilation")
        return F.conv2d(x, ones, None, stride, padding, dilation, groups=x.shape[1])
