"""Trunk: a classifier without its last layer, run convolutionally, with taps for the score layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from fullconv.geometry import Window
from fullconv.nets.branches import channels_after
from fullconv.nets.paths import paths


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

    def features(self, x: Tensor, strides: Collection[int]) -> dict[int, Tensor]:
        """The tapped features (N, C, h, w) at each of `strides`, in one pass that ends with the last one needed."""
        wanted = {self.taps[stride]: stride for stride in strides}
        found: dict[int, Tensor] = {}
        for name, layer in self.named_children():
            x = layer(x)
            if name in wanted:
                found[wanted[name]] = x
                if len(found) == len(wanted):
                    break
        return found

    def channels(self, stride: int) -> int:
        """Channels of the tap at `stride`."""
        return channels_after(nn.Sequential(*self._up_to(stride)), 0)

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
