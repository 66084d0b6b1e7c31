"""The convolutions and poolings that equal what classifiers do to a whole map.

Source: Long et al. 2015, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor, nn


def equal_windows(size: int, cells: int) -> tuple[int, int] | None:
    """(kernel, stride) of the fixed pooling that an adaptive one of `size` inputs to `cells` is, if it is one.

    >>> equal_windows(13, 6), equal_windows(8, 3), equal_windows(7, 1)
    ((3, 2), None, (7, 1))
    """
    starts = [i * size // cells for i in range(cells)]
    kernels = {ceil((i + 1) * size / cells) - start for i, start in enumerate(starts)}
    strides = {b - a for a, b in pairwise(starts)} or {1}
    return (kernels.pop(), strides.pop()) if len(kernels) == len(strides) == 1 else None


def pooling(average: bool, kernel: Sequence[int], stride: Sequence[int]) -> nn.Module:
    """Average or max pooling by (rows, columns)."""
    size, step = (kernel[0], kernel[1]), (stride[0], stride[1])
    return nn.AvgPool2d(size, step) if average else nn.MaxPool2d(size, step)


def pooling_like(name: str, kernel: tuple[int, int]) -> nn.Module:
    """The pooling of stride 1 that a reduction over the whole map is."""
    if name == "amax":
        return nn.MaxPool2d(kernel, 1)
    return nn.AvgPool2d(kernel, 1, divisor_override=1 if name == "sum" else None)


def unequal_average(channels: int, size: tuple[int, int], cells: tuple[int, int]) -> nn.Module:
    """Averages over windows of unequal size, as one convolution over the map that gives a channel for each.

    Channel (c, i, j) of the output is the mean of channel c over window (i, j).
    """
    axes = []
    for n, m in zip(size, cells, strict=True):
        windows = torch.zeros(m, n, dtype=torch.float64)
        for cell in range(m):
            start, stop = cell * n // m, ceil((cell + 1) * n / m)
            windows[cell, start:stop] = 1 / (stop - start)
        axes.append(windows)
    kernels = torch.einsum("ih,jw->ijhw", *axes).reshape(-1, 1, *size)
    layer = nn.Conv2d(channels, channels * len(kernels), size, groups=channels, bias=False)
    layer.weight = nn.Parameter(kernels.repeat(channels, 1, 1, 1), requires_grad=False)
    return layer


def convolution(weight: Tensor, bias: Tensor | None, channels: int, size: tuple[int, int], order: str) -> nn.Conv2d:
    """A fully connected layer on a C x h x w map, as the convolution that it is (reference 2.3); it shares the weights.

    Args:
        weight, bias: (K, C h w) and (K,).
        channels, size: C and (h, w).
        order: in which the flattened map has its dimensions, "chw" in torch.
    """
    sizes = dict(zip("chw", (channels, *size), strict=True))
    kernel = weight.detach().view(len(weight), *(sizes[dim] for dim in order))
    kernel = kernel.permute(0, *(1 + order.index(dim) for dim in "chw"))
    layer = nn.Conv2d(channels, len(weight), size, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(kernel, weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), bias.requires_grad)
    return layer
