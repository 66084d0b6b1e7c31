"""Layers in a row -> their windows along both axes."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from fullconv.errors import GeometryError
from fullconv.geometry import Window, widest
from fullconv.nets.branches import Branches

POINTWISE = (
    nn.Identity, nn.ReLU, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d, nn.LocalResponseNorm,
)  # fmt: skip
"""Layers that leave sizes and coordinates alone (batch norm only in evaluation mode)."""


class Windowed(nn.Module):
    """A layer that moves one window and tells so itself.

    Attributes:
        channels: of its output.
        multiplications: for one cell of its output.
    """

    channels: int
    multiplications: int

    def windows(self) -> tuple[Window, Window]:
        """(vertical, horizontal)."""
        raise NotImplementedError  # abstract

    def padded(self, x: Tensor, padding: tuple[int, int]) -> Tensor:
        """With other padding than its own: (rows, columns) of zeros on both sides."""
        raise NotImplementedError  # abstract


def windows(layer: nn.Module) -> tuple[Window, Window]:
    """The (vertical, horizontal) windows of a single layer.

    Raises:
        GeometryError: a layer with no window known here, or padding that is no number.
    """
    if isinstance(layer, POINTWISE):
        return Window(), Window()
    if isinstance(layer, Windowed):
        return layer.windows()
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        if isinstance(layer.padding, str) or any(layer.output_padding):
            raise GeometryError(f"{layer}: give the padding as a number, and no output padding")
        transposed = isinstance(layer, nn.ConvTranspose2d)
        vertical, horizontal = (
            Window(layer.kernel_size[i], layer.stride[i], layer.padding[i], layer.dilation[i], transposed=transposed)
            for i in range(2)
        )
        return vertical, horizontal
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        kernel, stride, padding = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding)
        dilation = _pair(layer.dilation) if isinstance(layer, nn.MaxPool2d) else (1, 1)
        vertical, horizontal = (
            Window(kernel[i], stride[i], padding[i], dilation[i], ceil=layer.ceil_mode) for i in range(2)
        )
        return vertical, horizontal
    raise GeometryError(f"the geometry of {type(layer).__name__} is not known")


def paths(layers: Iterable[nn.Module]) -> tuple[list[Window], list[Window]]:
    """The (vertical, horizontal) paths through layers that follow each other, pointwise ones left out.

    Of branches beside each other it is the widest, which reads whatever the others read.

    Raises:
        GeometryError: a layer that is not known, or branches of which none is the widest.
    """
    vertical: list[Window] = []
    horizontal: list[Window] = []
    for layer in layers:
        if isinstance(layer, Branches):
            ends = [paths(each for _, each in branch) for branch in layer.branches]
            rows, columns = list(widest([v for v, _ in ends])), list(widest([h for _, h in ends]))
        elif isinstance(layer, nn.Sequential):
            rows, columns = paths(layer)
        else:
            one, other = windows(layer)
            rows, columns = [one], [other]
        vertical += [window for window in rows if window != Window()]
        horizontal += [window for window in columns if window != Window()]
    return vertical, horizontal


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
