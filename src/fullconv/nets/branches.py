"""Branches: layers beside each other, as in GoogLeNet's inception modules and ResNet's residual blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Branches(nn.ModuleDict):
    """Branches of the same input, concatenated along the channels.

    All layers are held by name in one dictionary, so that their weights are called as in the published files.

    Args:
        branches: the layers of each branch by name, in order; an empty branch passes its input on.

    Shape: (N, C, H, W) -> (N, sum of the branches' channels, h, w).
    """

    def __init__(self, *branches: Mapping[str, nn.Module]) -> None:
        super().__init__({name: layer for branch in branches for name, layer in branch.items()})
        self.names = [list(branch) for branch in branches]

    @property
    def branches(self) -> list[list[tuple[str, nn.Module]]]:
        """The (name, layer) pairs of each branch."""
        return [[(name, self[name]) for name in names] for names in self.names]

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self._run(x))

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        """The branches' outputs made one."""
        return torch.cat(list(outputs), dim=1)

    def channels(self, outputs: Sequence[int]) -> int:
        """Channels of the joined output, from those of the branches."""
        return sum(outputs)

    def _run(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for branch in self.branches:
            y = x
            for _, layer in branch:
                y = layer(y)
            outputs.append(y)
        return outputs


class Residual(Branches):
    """Branches added, with a ReLU on the sum (He et al. 2016)."""

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        total = outputs[0]
        for other in outputs[1:]:
            total = total + other
        return torch.relu_(total)

    def channels(self, outputs: Sequence[int]) -> int:
        return outputs[0]


def channels_after(layer: nn.Module, channels: int) -> int:
    """C of a layer's output for C of its input."""
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels
    if isinstance(layer, Branches):
        ends = []
        for branch in layer.branches:
            at = channels
            for _, each in branch:
                at = channels_after(each, at)
            ends.append(at)
        return layer.channels(ends)
    if isinstance(layer, nn.Sequential):
        for each in layer:
            channels = channels_after(each, channels)
    return channels
