"""Unpooling: a max pooling undone with its own indices (Zeiler and Fergus 2014, section 2.1), as a step of upsampling.

What the pooling threw away, where in its window the maximum was, comes back from the trunk and places the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from fullconv.geometry import Crop, Layer, Window
from fullconv.nets.trunks.trunk import Features, Pooled, Pooling
from fullconv.nets.upsample import BilinearUpsampling, bilinear_kernel

SMOOTHING = Window(3, padding=1)
"""The convolution behind the unpooling; 3 cells wide, it reaches a value from every place of a 2x2 window."""


def unpool(x: Tensor, pooled: Pooled) -> Tensor:
    """Values of a pooling's output (N, C, h, w) -> (N, C, H, W): each where its maximum was, zero elsewhere.

    As `F.max_unpool2d`, but where windows overlap and share a maximum, their values are added. So it is the backward
    pass of max pooling for overlapping windows too, of which `max_unpool2d` keeps any one value and hands its
    gradient to all.
    """
    planes = x.new_zeros(*x.shape[:2], pooled.size[0] * pooled.size[1])
    return planes.scatter_add(2, pooled.indices.flatten(2), x.flatten(2)).view(*x.shape[:2], *pooled.size)


class Unpooling(nn.Module):
    """Scores at the stride of a pooling's output -> at that of its input, on its very grid.

    Aligned to the pooling's output; a 1x1 convolution from the K maps to the pooling's channels C; unpooled; a 3x3
    convolution from C to K. Several trunks have convolutions of their own, and their results are averaged, as scores.

    Args:
        maps: K.
        poolings: by trunk; their geometry is one.
        aligning: (window, offset): upsampling by 1 to the grid of the pooling's output, a kernel of 2 where the scores
            lie half a cell beside it; cell i there lies on cell i + offset, (vertical, horizontal), of the upsampled.

    Attributes:
        window: the transposed convolution whose outputs read the same cells as the unpooled ones.
    """

    def __init__(self, maps: int, poolings: Mapping[str, Pooling], aligning: tuple[Window, tuple[int, int]]) -> None:
        super().__init__()
        pooling = next(iter(poolings.values()))
        self.pooling = pooling.name
        self.window = replace(pooling.window, ceil=False, transposed=True)
        self.align, self.offset = BilinearUpsampling(maps, aligning[0]), aligning[1]
        self.expand = nn.ModuleDict({name: nn.Conv2d(maps, each.channels, 1) for name, each in poolings.items()})
        self.reduce = nn.ModuleDict(
            {name: nn.Conv2d(each.channels, maps, 3, padding=SMOOTHING.padding) for name, each in poolings.items()}
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Every channel carries one class, in turn, and every class is the mean of its channels, smoothed bilinearly.

        So it starts as an upsampling of each class by itself, as the learned ones do, whose mean is that of the scores:
        a quarter of the unpooled cells hold a value, the smoothing sums to 4. Random weights would mix the classes, and
        hand the score layers, which start at zero, a mixture of the classes' gradients. With fewer channels than
        classes, some classes share one and start as their mean.
        """
        taps = bilinear_kernel(SMOOTHING.kernel)
        for expand, reduce in zip(self.expand.values(), self.reduce.values(), strict=True):
            into, back = cast(nn.Conv2d, expand), cast(nn.Conv2d, reduce)
            channels, maps = into.out_channels, into.in_channels
            turns = min(channels, maps)
            own = (torch.arange(channels)[:, None] % turns == torch.arange(maps) % turns).float()
            into.weight.copy_((own / own.sum(1, keepdim=True))[:, :, None, None])
            back.weight.copy_((own / own.sum(0)).T[:, :, None, None] * (taps[:, None] * taps))
            for layer in (into, back):
                nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, x: Tensor, features: Mapping[str, Features]) -> Tensor:
        """Scores (N, K, h, w) of any size -> (N, K, H, W) of the size of the pooling's input, float32."""
        outputs = []
        for trunk, expand in self.expand.items():
            pooled = features[trunk].pooled[self.pooling]
            (top, left), (height, width) = self.offset, pooled.indices.shape[2:]
            aligned = self.align(x, (top, top + height), (left, left + width))
            spread = expand(aligned.to(cast(nn.Conv2d, expand).weight.dtype))
            outputs.append(self.reduce[trunk](unpool(spread, pooled)).float())
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(0)

    def layers(self) -> tuple[list[Layer], list[Layer]]:
        """The (vertical, horizontal) geometry from the scores to their aligned form, and on to the output."""
        vertical, horizontal = (
            # A crop that begins before the map adds cells to it, as padding does.
            [self.align.window, Crop(start) if start >= 0 else Window(padding=-start), *self.unpooled()]
            for start in self.offset
        )
        return vertical, horizontal

    def unpooled(self) -> list[Layer]:
        """The geometry from the pooling's output to that of this layer, along both axes."""
        return [self.window, SMOOTHING]

    def extra_repr(self) -> str:
        return f"{self.align.maps}, pooling={self.pooling!r}"
