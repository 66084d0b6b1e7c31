"""Poolings with dilation and stride 1, as filter rarefaction makes them; torch has no such means and pads maxima less.

Source: Long et al. 2015, section 3.2; reference 4.2 (poolings are dilated like filters).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.fields import Fields
from fullconv.geometry import Window

Pair = tuple[int, int]
"""(vertical, horizontal)."""


class DilatedPool(nn.Module):
    """A pooling of stride 1.

    Args:
        kernel_size, padding, dilation: along both axes.

    Raises:
        GeometryError: a kernel or dilation below 1, or a negative padding.

    Shape: (N, C, H, W) -> (N, C, h, w), see `Window.output_size`.
    """

    def __init__(self, kernel_size: Pair, padding: Pair = (0, 0), dilation: Pair = (1, 1)) -> None:
        super().__init__()
        self.kernel_size, self.padding, self.dilation = kernel_size, padding, dilation
        self.rows, self.columns = (
            Window(kernel, 1, pad, rate) for kernel, pad, rate in zip(kernel_size, padding, dilation, strict=True)
        )

    def fields(self, *_: Any) -> tuple[Fields, Fields]:
        """What its units read (see `fullconv.nets.trace`)."""
        return Fields.of(self.rows), Fields.of(self.columns)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, padding={self.padding}, dilation={self.dilation}"


class DilatedMaxPool(DilatedPool):
    """Maximum pooling whose padding may exceed half its kernel."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.padding
        x = F.pad(x, (columns, columns, rows, rows), value=-torch.inf)
        return F.max_pool2d(x, self.kernel_size, 1, 0, self.dilation)


class DilatedAvgPool(DilatedPool):
    """Average pooling; `count_include_pad` and `divisor_override` as in `nn.AvgPool2d`."""

    def __init__(
        self,
        kernel_size: Pair,
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, padding, dilation)
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.kernel_size
        if self.divisor_override or self.count_include_pad:
            return self._sum(x) / (self.divisor_override or rows * columns)
        return self._sum(x) / self._sum(torch.ones_like(x[:1, :1]))

    def _sum(self, x: Tensor) -> Tensor:
        ones = x.new_ones((x.shape[1], 1, *self.kernel_size))
        return F.conv2d(x, ones, None, 1, self.padding, self.dilation, groups=x.shape[1])
