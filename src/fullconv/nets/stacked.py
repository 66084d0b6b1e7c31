"""Stacked upsampling: learned upsamplings by 2 with nonlinearities between them (Long et al. 2015, section 3.3)."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.errors import GeometryError
from fullconv.geometry import Window
from fullconv.nets.rectangles import Interval
from fullconv.nets.upsample import LearnedUpsampling, Upsampling, cut


class StackedUpsampling(Upsampling):
    """Learned upsamplings by 2, one after the other, with a PReLU a map between two of them.

    "A stack of deconvolution layers and activation functions" can learn what is not linear in the scores (Long et al.
    2015, section 3.3). With slopes of 1 it starts as a stack of bilinear ones: for odd kernels the bilinear upsampling
    itself, for even ones a smoother one.

    Args:
        maps: K.
        window: the bilinear window that fits, of kernel 2f or 2f - 1 for a factor f = 2^n. Its parity decides between
            kernels of 4 and of 3 for all n layers: n of kernel 4 move the grid by f / 2 - 1 more, n of kernel 3 not.

    Raises:
        GeometryError: a factor that is no power of 2.
    """

    def __init__(self, maps: int, window: Window) -> None:
        count = window.stride.bit_length() - 1
        if 1 << count != window.stride:
            raise GeometryError(
                f"an upsampling by {window.stride} is no stack of ones by 2; choose another, such as 'learned'"
            )
        twice = Window(4 - window.kernel % 2, 2, transposed=True)
        # One window has the field and the size of all: s' - 1 = 2 (s - 1) + k - 1, n times.
        super().__init__(maps, Window((twice.kernel - 1) * (window.stride - 1) + 1, window.stride, transposed=True))
        self.layers = nn.ModuleList(LearnedUpsampling(maps, twice) for _ in range(count))
        self.activations = nn.ModuleList(nn.PReLU(maps, init=1.0) for _ in range(count - 1))

    def reset_parameters(self) -> None:
        for layer in (*self.layers, *self.activations):
            cast(LearnedUpsampling | nn.PReLU, layer).reset_parameters()

    def forward(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
        rectangles = [(rows, columns)]  # of every map, from the last to the first
        for layer in reversed(self.layers):
            down, across = (cast(Upsampling, layer).window.inputs(*interval) for interval in rectangles[-1])
            rectangles.append((down, across))
        down, across = rectangles.pop()
        x = cut(cut(x.float(), down, 2), across, 3)
        for number, layer in enumerate(self.layers):
            top, left = down[0], across[0]  # where x lies in its map, beyond which its sums are zero by themselves
            if number:
                x = F.prelu(x, cast(nn.PReLU, self.activations[number - 1]).weight.float())
            down, across = rectangles.pop()
            x = layer(x, (down[0] - 2 * top, down[1] - 2 * top), (across[0] - 2 * left, across[1] - 2 * left))
        return x
