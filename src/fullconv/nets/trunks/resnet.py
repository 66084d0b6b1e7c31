"""ResNet (He et al. 2016) without its average pooling, with the layer names of torchvision's files."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from fullconv.nets.branches import Residual
from fullconv.nets.trunks.trunk import Trunk, scaled

WIDTHS = (64, 128, 256, 512)
"""Channels of the 3x3 convolutions in layer1 ... layer4."""

EXPANSION = 4
"""Channels that leave a bottleneck, per channel of its 3x3 convolution."""


@dataclass(frozen=True)
class Depth:
    """Blocks of layer1 ... layer4, and whether they are bottlenecks (1x1, 3x3, 1x1) or pairs of 3x3 convolutions."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool


DEPTHS = {
    18: Depth((2, 2, 2, 2), bottleneck=False),
    34: Depth((3, 4, 6, 3), bottleneck=False),
    50: Depth((3, 4, 6, 3), bottleneck=True),
    101: Depth((3, 4, 23, 3), bottleneck=True),
}


def resnet(channels: int, padding: int | None, dropout: float, width: float, depth: int = 50) -> Trunk:
    """conv1 ... layer4; the taps are the last features of each stride.

    Every window of stride 2 is odd and padded by half of it, so that units lie on every 32nd pixel (reference 2.6).

    Args:
        channels: of the input.
        padding: of conv1; None: 3, as in the classifier.
        dropout: element-wise, at the end; the classifier has none.
        width: factor on all channel numbers.
        depth: 18, 34, 50 or 101; a bottleneck's stride is that of its 3x3 convolution.
    """
    plan = DEPTHS[depth]
    out = scaled(WIDTHS[0], width)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, out, 7, 2, 3 if padding is None else padding, bias=False),
        "bn1": nn.BatchNorm2d(out),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, 2, padding=1),
    }
    channels = out
    for number, (full_width, count) in enumerate(zip(WIDTHS, plan.blocks, strict=True), 1):
        blocks: dict[str, nn.Module] = {}
        for index in range(count):
            stride = 2 if index == 0 and number > 1 else 1
            blocks[str(index)], channels = _block(channels, scaled(full_width, width), stride, plan.bottleneck)
        layers[f"layer{number}"] = nn.Sequential(OrderedDict(blocks))
    layers["drop"] = nn.Dropout(dropout)
    return Trunk(layers, {32: "drop", 16: "layer3", 8: "layer2", 4: "layer1", 2: "relu"})


def _block(channels: int, width: int, stride: int, bottleneck: bool) -> tuple[Residual, int]:
    """A residual block and the channels that leave it."""
    out = width * EXPANSION if bottleneck else width
    plan = ((width, 1, 1), (width, 3, stride), (out, 1, 1)) if bottleneck else ((width, 3, stride), (out, 3, 1))
    body: dict[str, nn.Module] = {}
    entering = channels
    for number, (leaving, kernel, step) in enumerate(plan, 1):
        if number > 1:
            body[f"relu{number - 1}"] = nn.ReLU(inplace=True)
        body[f"conv{number}"] = nn.Conv2d(entering, leaving, kernel, step, kernel // 2, bias=False)
        body[f"bn{number}"] = nn.BatchNorm2d(leaving)
        entering = leaving
    shortcut: dict[str, nn.Module] = {}
    if stride > 1 or channels != out:
        shortcut["downsample"] = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return Residual(body, shortcut), out
