"""Normalise: pictures as their files hold them -> what a trunk takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullconv.fields import Fields
from fullconv.nets.options import InputOptions


class Normalise(nn.Module):
    """(N, C, H, W) of 0..255, uint8 or float -> (x - mean) / std, float32, in the channel order of the trunk.

    Where the options say so, log(max(x, 1)) is x: depth is 0 where the sensor saw nothing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, options: InputOptions) -> None:
        super().__init__()
        self.reverse, self.log = options.order == "bgr", options.log
        # Not part of the state: the options hold them, and a file's weights must not be able to disagree.
        self.register_buffer("mean", torch.tensor(options.mean)[:, None, None], persistent=False)
        # Divided on the processor: on a device without memory torch would load its compiler, which takes a second.
        scale = (1 / torch.tensor(options.std, device="cpu")).tolist()
        self.register_buffer("scale", torch.tensor(scale)[:, None, None], persistent=False)

    def fields(self, *_: Tensor) -> tuple[Fields, Fields]:
        """Every pixel by itself (see `fullconv.nets.trace`)."""
        return Fields(), Fields()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.mean.dtype)  # float64 images too must meet the weights' type
        if self.log:
            x = x.clamp(min=1).log()
        x = (x - self.mean) * self.scale
        return x.flip(1) if self.reverse else x
