"""Classifier: a trunk with the layers that its FCN drops, the net that its published weights were trained as."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from fullconv.errors import OptionError, unknown_name
from fullconv.geometry import Window
from fullconv.nets.normalise import Normalise
from fullconv.nets.options import InputOptions
from fullconv.nets.paths import paths
from fullconv.nets.trunks import TRUNKS


class Classifier(nn.Module):
    """An image classifier with its fully connected layers as convolutions (Long et al. 2015, section 3.1).

    Takes (N, 3, H, W) of 0..255 in RGB; gives logits (N, K, h, w), 1 x 1 at the size that it was trained on (224, for
    CaffeNet 227) and one for each window of that size, 32 pixels apart, on larger images.

    Args:
        trunk: a name of `TRUNKS` that was a classifier.
        classes: K.
        inputs: normalisation; default: the trunk's.
        width: factor on the trunk's channels.

    Raises:
        OptionError: a trunk that is unknown, or that never was a classifier.
    """

    def __init__(self, trunk: str, classes: int = 1000, inputs: InputOptions | None = None, width: float = 1.0) -> None:
        super().__init__()
        if trunk not in TRUNKS:
            raise unknown_name("trunk", trunk, TRUNKS)
        kind = TRUNKS[trunk]
        if kind.padding is None:
            known = ", ".join(name for name, each in TRUNKS.items() if each.padding is not None)
            raise OptionError(f"trunk {trunk!r} was never a classifier; choose one of {known}")
        self.normalise = Normalise(inputs or InputOptions(kind.mean, kind.std, kind.order))
        self.trunk = kind.build(3, kind.padding, kind.dropout, width)
        self.pool = nn.AvgPool2d(kind.pool, 1) if kind.pool else nn.Identity()
        self.score = nn.Conv2d(self.trunk.channels(32), classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.score(self.pool(self.trunk(self.normalise(x)))))

    def paths(self) -> tuple[list[Window], list[Window]]:
        """(vertical, horizontal) geometry from the image to a logit."""
        return paths([*self.trunk, self.pool])
