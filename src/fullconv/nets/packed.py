"""Packed convolutions: for one precision, batch norm and ReLU within them, large weights in the processor's own layout.

oneDNN applies the ReLU to what it has at hand. It lays the weights out anew at every call, which for fc6 takes longer
than the arithmetic: those are laid out once. Others are not, for which layout it wants depends on the size of the map,
and from a layout that it does not want it goes on a hundred times more slowly (seen with 192, 384 and, of kernels of
one cell, 1024 and more channels).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.errors import OptionError
from fullconv.geometry import Window
from fullconv.nets.branches import Branches
from fullconv.nets.paths import Windowed, windows

LARGE = 1 << 22
"""Numbers of the weights that are laid out once, of kernels larger than a cell: fc6's alone."""

TYPICAL = 64
"""Cells along each side of the map that weights are laid out for; other sizes are computed as well."""

FEW = 64
"""Cells up to which a kernel of one cell is a matrix product in float32 too; in bfloat16 it always is. The weights of
fc7 are laid out for a convolution longer than that takes."""


class PackedConvolution(Windowed):
    """A convolution for inference alone.

    Takes (N, C, h, w) of any floating type, gives that of its weights, channels last.

    Args:
        layer: whose geometry it has.
        weight: (K, C / groups, h, w), bias: (K,); they are copied.
        relu: applied to the result.
        kind: float32 or bfloat16, which is computed in.
    """

    def __init__(
        self, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, relu: bool, kind: torch.dtype
    ) -> None:  # fmt: skip
        super().__init__()
        self.geometry, self.relu, self.kind = windows(layer), relu, kind
        self.bias = None if bias is None else bias.to(kind, copy=True)
        self.channels, self.groups = layer.out_channels, layer.groups
        self.stride, self.dilation = layer.stride, layer.dilation
        self.multiplications = weight.numel()
        self.onednn = weight.device.type == "cpu" and _has_onednn(kind)
        extent = max(window.extent for window in self.geometry)
        self.pointwise = (
            self.onednn and extent == self.groups == 1 and all(window.stride == 1 for window in self.geometry)
        )
        if self.onednn and extent > 1 and weight.numel() >= LARGE:
            typical = [1, layer.in_channels, *(TYPICAL + window.extent for window in self.geometry)]
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight.to(kind), (0, 0), self.stride, self.dilation, self.groups, typical
            )
        elif extent > 1:  # from this layout oneDNN gets to its own sooner, for small maps thirty times
            self.weight = weight.to(kind, memory_format=torch.channels_last, copy=True)
        else:
            self.weight = weight.to(kind, copy=True)

    def windows(self) -> tuple[Window, Window]:
        """(vertical, horizontal)."""
        return self.geometry

    def padded(self, x: Tensor, padding: tuple[int, int]) -> Tensor:
        """With other padding than its own: (rows, columns) of zeros on both sides."""
        x = x.to(self.kind)
        few = self.kind == torch.bfloat16 or x.shape[0] * x.shape[2] * x.shape[3] <= FEW
        if self.pointwise and few and not any(padding):
            y = F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
            return torch.relu_(y) if self.relu else y
        if not self.onednn:
            y = F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
            return torch.relu_(y) if self.relu else y
        return cast(
            Tensor,
            torch.ops.mkldnn._convolution_pointwise(
                x.contiguous(memory_format=torch.channels_last), self.weight, self.bias, padding, self.stride,
                self.dilation, self.groups, "relu" if self.relu else "none", [], "",
            ),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.geometry
        return self.padded(x, (rows.padding, columns.padding))

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.geometry[0]}, relu={self.relu}, {self.kind}"


def _has_onednn(kind: torch.dtype) -> bool:
    """Whether oneDNN convolves in a type on this processor."""
    if not torch._C._has_mkldnn:
        return False
    return kind == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def packed(layers: Iterable[nn.Module], kind: torch.dtype) -> nn.Sequential:
    """Layers in evaluation mode -> the same function with packed convolutions; dropout is left out.

    Args:
        layers: in a row; convolutions, batch norms, ReLUs, poolings, and `nn.Sequential` and `Branches` of such.
        kind: float32 or bfloat16, which convolutions compute in.

    Raises:
        OptionError: a batch norm that keeps no statistics.
    """
    waiting = [each for each in flat(layers) if not isinstance(each, nn.Dropout | nn.Dropout2d | nn.Identity)]
    found: list[nn.Module] = []
    while waiting:
        layer = waiting.pop(0)
        if isinstance(layer, nn.Conv2d):
            weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
            if waiting and isinstance(waiting[0], nn.BatchNorm2d):
                weight, bias = _with_norm(weight, bias, cast(nn.BatchNorm2d, waiting.pop(0)))
            relu = bool(waiting) and isinstance(waiting[0], nn.ReLU)
            if relu:
                waiting.pop(0)
            layer = PackedConvolution(layer, weight, bias, relu, kind)
        elif isinstance(layer, Branches):
            layer = _packed_branches(layer, kind)
        found.append(layer)
    return nn.Sequential(*found).eval()


def _packed_branches(layer: Branches, kind: torch.dtype) -> Branches:
    branches = [
        {f"{number}_{place}": each for place, each in enumerate(packed([m for _, m in branch], kind))}
        for number, branch in enumerate(layer.branches)
    ]
    return type(layer)(*branches)


def flat(layers: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Layers in a row, those within an `nn.Sequential` one by one."""
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            yield from flat(layer)
        else:
            yield layer


def _with_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The weights of a convolution with batch norm behind it, by running statistics, in float64.

    Raises:
        OptionError: batch norm without running statistics, which whole images would give.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise OptionError("batch norm without running statistics depends on the whole image; train it with them")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double()
    if bias is not None:
        shift = shift + bias.double()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    offset = shift * scale
    if norm.affine:
        offset = offset + norm.bias.detach().double()
    return (weight.double() * scale[:, None, None, None]).to(weight.dtype), offset.to(weight.dtype)
