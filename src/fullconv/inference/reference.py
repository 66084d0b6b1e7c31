"""Reference: the net as it is, on the whole image; what every other way to run it is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fullconv.nets import FCN
from fullconv.nets.fcn import CoarseScores
from fullconv.nets.precision import inference


@dataclass(eq=False)
class Reference:
    """A net, run plainly; its mode is left as it was.

    Args:
        net: any.
        precision: "float32", "bfloat16" or "auto".
    """

    net: FCN
    precision: str = "float32"

    def coarse(self, images: Mapping[str, Tensor]) -> dict[str, CoarseScores]:
        """Inputs by name, (N, C, H, W), as `FCN` takes them -> coarse scores by task."""
        with inference(self.net, self.precision):
            return self.net.coarse(images)
