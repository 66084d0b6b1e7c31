"""GoogLeNet (Szegedy et al. 2015), without its last average pooling, as FCN-GoogLeNet in Long et al. 2015, section 4.1.

Layers are called as in the BVLC model, a slash being a level: ``conv1/7x7_s2`` is ``conv1.7x7_s2``.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from fullconv.nets.branches import Branches
from fullconv.nets.trunks.response_norm import ResponseNorm
from fullconv.nets.trunks.trunk import Trunk, scaled

INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5 and pool_proj (reference 2.4)."""

EPSILON = 1e-3
"""Of the batch norm in torchvision's files, which came from TensorFlow."""


def googlenet(channels: int, padding: int | None, dropout: float, width: float, batch_norm: bool = False) -> Trunk:
    """conv1 ... inception_5b; ReLU after every convolution, local response normalisation after pool1 and conv2.

    Args:
        channels: of the input.
        padding: of conv1 (3 in the classifier), poolings then have none; None: units lie on every 32nd pixel from the
            first, and the net takes every size.
        dropout: element-wise, at the end, where the classifier has it.
        width: factor on all channel numbers.
        batch_norm: torchvision's variant: batch norm for biases and response normalisation, 3x3 for the 5x5
            convolutions, and a 2x2 fourth pooling (reference 2.6).
    """

    def convolution(name: str, out: int, kernel: int, stride: int = 1, pad: int | None = None) -> dict[str, nn.Module]:
        nonlocal channels
        layer = nn.Conv2d(channels, out, kernel, stride, kernel // 2 if pad is None else pad, bias=not batch_norm)
        channels = out
        layers: dict[str, nn.Module] = {name: layer}
        if batch_norm:
            layers[f"bn_{name}"] = nn.BatchNorm2d(out, EPSILON)
        return layers | {f"relu_{name}": nn.ReLU(inplace=True)}

    def pooling(kernel: int = 3) -> nn.MaxPool2d:
        if padding is None and kernel == 3:
            return nn.MaxPool2d(3, 2, padding=1)
        return nn.MaxPool2d(kernel, 2, ceil_mode=True)

    def inception(*full_widths: int) -> Branches:
        nonlocal channels
        one, reduce3, three, reduce5, five, projection = (scaled(c, width) for c in full_widths)
        entering, branches = channels, []
        for before, *convolutions in (
            ({}, ("1x1", one, 1)),
            ({}, ("3x3_reduce", reduce3, 1), ("3x3", three, 3)),
            ({}, ("5x5_reduce", reduce5, 1), ("5x5", five, 3 if batch_norm else 5)),
            ({"pool": nn.MaxPool2d(3, 1, 1)}, ("pool_proj", projection, 1)),
        ):
            channels = entering
            branch: dict[str, nn.Module] = dict(before)
            for name, out, kernel in convolutions:
                branch |= convolution(name, out, kernel)
            branches.append(branch)
        channels = one + three + five + projection
        return Branches(*branches)

    def norm(number: int) -> dict[str, nn.Module]:
        return {} if batch_norm else {f"norm{number}": ResponseNorm()}

    conv1 = convolution("7x7_s2", scaled(64, width), 7, 2, padding)
    conv2 = convolution("3x3_reduce", scaled(64, width), 1) | convolution("3x3", scaled(192, width), 3)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Sequential(OrderedDict(conv1)),
        "pool1": pooling(),
        **norm(1),
        "conv2": nn.Sequential(OrderedDict(conv2)),
        **norm(2),
        "pool2": pooling(),
    }
    for name, widths in INCEPTION.items():
        if name in ("4a", "5a"):
            layers[f"pool{int(name[0]) - 1}"] = pooling(2 if batch_norm and name == "5a" else 3)
        layers[f"inception_{name}"] = inception(*widths)
    layers["drop"] = nn.Dropout(dropout)
    return Trunk(layers, {32: "drop", 16: "inception_4e", 8: "inception_3b", 4: "conv2", 2: "conv1"})
