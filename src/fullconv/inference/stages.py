"""Stages: a trunk cut into parts that run one after the other, each ready for inference in one precision."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fullconv.nets.branches import channels_after
from fullconv.nets.packed import packed
from fullconv.nets.paths import POINTWISE, paths
from fullconv.nets.rectangles import Rectangle, Size, on_rectangle, read_by, size_after, whole
from fullconv.nets.trunks import Trunk


@dataclass(frozen=True)
class Stage:
    """Layers of a trunk: a convolution or a block, and what follows it up to the next.

    Attributes:
        name: of its last layer.
        layers: packed.
        channels: of its output.
        stride: of the tap that its output is, if it is one.
    """

    name: str
    layers: nn.Sequential
    channels: int
    stride: int | None

    def reads(self, outputs: Rectangle, size: Size) -> Rectangle:
        """The part of its input, of `size`, that it must be given for some outputs."""
        return read_by(self.layers, outputs, size)

    def run(self, x: Tensor, held: Rectangle, outputs: Rectangle, size: Size) -> Tensor:
        """Some outputs, from a rectangle of the input; see `on_rectangle`."""
        if held == whole(size) and outputs == whole(size_after(self.layers, size)):
            return cast(Tensor, self.layers(x))  # small images take as long to cut as to compute
        return on_rectangle(self.layers, x, held, outputs, size)


def stages_of(trunk: Trunk, strides: Collection[int], kind: torch.dtype) -> list[Stage]:
    """The stages of a trunk in evaluation mode up to its last tap of `strides`.

    Args:
        kind: that is computed in, float32 or bfloat16.

    Raises:
        OptionError: as `packed`.
    """
    found, channels = [], 0
    for name, layers, stride in cut(trunk, strides):
        channels = channels_after(nn.Sequential(*layers), channels)
        found.append(Stage(name, packed(layers, kind), channels, stride))
    return found


def cut(
    trunk: Trunk, strides: Collection[int], blocks: bool = False
) -> Iterator[tuple[str, Sequence[nn.Module], int | None]]:
    """A trunk's parts up to its last tap of `strides`: (name, layers, stride of the tap at the end).

    A pooling stays with what comes before it, so that no map of the finer stride is kept.

    Args:
        blocks: parts end where the stride changes, or with a tap; else with every convolution or branched layer.
    """
    taps = {trunk.taps[stride]: stride for stride in strides}
    left, last, layers = len(taps), "", list[nn.Module]()
    for name, layer, stride in _layers(trunk, taps):
        begins = not isinstance(layer, (*POINTWISE, nn.MaxPool2d))
        if layers and begins and (not blocks or max((window.stride for window in paths(layers)[0]), default=1) > 1):
            yield last, layers, None
            layers = []
        layers.append(layer)
        last = name
        if stride is not None:
            yield name, layers, stride
            layers, left = [], left - 1
            if not left:
                return


def _layers(trunk: Trunk, taps: dict[str, int]) -> Iterator[tuple[str, nn.Module, int | None]]:
    """(name, layer, stride of the tap behind it); what `nn.Sequential` holds, one by one."""
    for name, child in trunk.named_children():
        parts = list(child.named_children()) if isinstance(child, nn.Sequential) else [("", child)]
        for number, (inner, layer) in enumerate(parts, 1):
            yield f"{name}.{inner}".rstrip("."), layer, taps.get(name) if number == len(parts) else None
