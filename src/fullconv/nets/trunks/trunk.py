"""Trunk: a classifier without its last layer, run convolutionally, with taps for the score layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.geometry import Layer, Window
from fullconv.nets.branches import channels_after
from fullconv.nets.paths import paths, windows


class Pooled(NamedTuple):
    """Where a max pooling found its maxima: (N, C, h, w) int64, y W + x in its input of `size` (H, W)."""

    indices: Tensor
    size: tuple[int, int]


class Features(dict[int, Tensor]):
    """What a trunk hands to its heads: the tapped features (N, C, h, w) by stride.

    Attributes:
        pooled: of the poolings that were asked for, by their names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pooled: dict[str, Pooled] = {}


@dataclass(frozen=True)
class Pooling:
    """A max pooling of stride 2 among the layers of a trunk.

    Attributes:
        name: of the layer.
        channels: C.
        window: along both axes.
        before: (vertical, horizontal) paths from the trunk's input to that of the pooling.
    """

    name: str
    channels: int
    window: Window
    before: tuple[list[Window], list[Window]]


class AnyTrunk(Protocol):
    """What heads ask of a trunk; see `Trunk`."""

    taps: dict[int, str]

    def features(self, x: Tensor, strides: Collection[int], poolings: Collection[str] = ()) -> Features: ...

    def channels(self, stride: int) -> int: ...

    def poolings(self) -> dict[int, Pooling]: ...

    def paths(self, stride: int) -> tuple[Sequence[Layer], Sequence[Layer]]: ...


class Trunk(nn.Sequential):
    """Named layers in a row; score layers read some of them. The convolutions get fresh weights.

    Args:
        layers: by name, in order; a layer may be a `nn.Sequential` or `Branches` of others.
        taps: stride -> name of the layer whose output is scored at that stride; the last is the trunk's end.
    """

    def __init__(self, layers: Mapping[str, nn.Module], taps: Mapping[int, str]) -> None:
        super().__init__(OrderedDict(layers))
        self.taps = dict(taps)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                _initialise(layer)

    def features(self, x: Tensor, strides: Collection[int], poolings: Collection[str] = ()) -> Features:
        """The features at each of `strides`, in one pass that ends with the last one needed.

        Args:
            poolings: names of those of `poolings` whose indices are wanted too.
        """
        wanted = {self.taps[stride]: stride for stride in strides}
        found = Features()
        for name, layer in self.named_children():
            if name in poolings and isinstance(layer, nn.MaxPool2d):
                height, width = x.shape[2:]
                how = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
                x, indices = F.max_pool2d(x, *how, return_indices=True)
                found.pooled[name] = Pooled(indices, (height, width))
            else:
                x = layer(x)
            if name in wanted:
                found[wanted[name]] = x
                if len(found) == len(wanted):
                    break
        return found

    def channels(self, stride: int) -> int:
        """Channels of the tap at `stride`."""
        return channels_after(nn.Sequential(*self._up_to(stride)), 0)

    def poolings(self) -> dict[int, Pooling]:
        """The max poolings of stride 2 by the stride that they make; those within branches do not count."""
        found: dict[int, Pooling] = {}
        layers = list(self)
        stride = 1
        for number, (name, layer) in enumerate(self.named_children()):
            stride *= prod(window.stride for window in paths([layer])[0])
            if isinstance(layer, nn.MaxPool2d):
                window, horizontal = windows(layer)
                if window == horizontal and window.stride == 2:
                    before = layers[:number]
                    found[stride] = Pooling(name, channels_after(nn.Sequential(*before), 0), window, paths(before))
        return found

    def paths(self, stride: int) -> tuple[list[Window], list[Window]]:
        """(vertical, horizontal) geometry from the input to the tap at `stride`, along the widest branches."""
        return paths(self._up_to(stride))

    def _up_to(self, stride: int) -> list[nn.Module]:
        names = list(self._modules)
        return list(self)[: names.index(self.taps[stride]) + 1]


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least 1."""
    return max(1, round(channels * width))


def _initialise(layer: nn.Conv2d) -> None:
    """Fresh weights for a layer with a ReLU behind it (He et al. 2015), a bias of zero."""
    if layer.weight.is_meta:  # nothing to fill, and torch would load its compiler to find that out
        return
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
