"""AlexNet (Krizhevsky et al. 2012) in three published variants, convolutionalised as in Long et al. 2015, section 4.1.

All have an 11x11 convolution of stride 4, overlapping 3x3 poolings of stride 2 and a 6x6 fc6.
"""

from __future__ import annotations

from torch import nn

from fullconv.nets.trunks.response_norm import ResponseNorm
from fullconv.nets.trunks.trunk import Trunk, scaled

HIDDEN = 4096

GROUPED = ((96, 11, 1), (256, 5, 2), (384, 3, 1), (384, 3, 2), (256, 3, 2))
"""Channels, kernel and groups of conv1 ... conv5 in CaffeNet and BVLC AlexNet (reference 1.2)."""

ONE_WEIRD_TRICK = ((64, 11, 1), (192, 5, 1), (384, 3, 1), (256, 3, 1), (256, 3, 1))
"""The same in torchvision's AlexNet (Krizhevsky 2014; reference 2.6)."""


def alexnet(channels: int, padding: int | None, dropout: float, width: float, norm_first: bool = False) -> Trunk:
    """CaffeNet, the trunk of FCN-AlexNet: grouped convolutions; pooling, then local response normalisation.

    Args:
        channels: of the input.
        padding: of conv1 (100 in the paper, 0 in the classifier), poolings and fc6 then have none; None: units lie
            on every 32nd pixel from the first, and the net takes every size.
        dropout: element-wise, after fc6 and fc7.
        width: factor on all channel numbers; those of the convolutions stay even, for the groups.
        norm_first: normalisation, then pooling: BVLC AlexNet, whose weights have the same names and shapes.
    """
    layers: dict[str, nn.Module] = {}
    for number, (full_width, kernel, groups) in enumerate(GROUPED, 1):
        channels = _convolution(layers, number, channels, 2 * scaled(full_width // 2, width), kernel, groups, padding)
        if number <= 2:
            pool, norm = _pooling(padding), ResponseNorm()
            tail = {f"pool{number}": pool, f"norm{number}": norm}
            layers |= dict(reversed(tail.items())) if norm_first else tail
    layers["pool5"] = _pooling(padding)
    for number in (6, 7):
        channels = _fully_connected(layers, number, channels, scaled(HIDDEN, width), padding)
        layers[f"drop{number}"] = nn.Dropout(dropout)
    return Trunk(layers, {32: "drop7", 16: "relu5", 8: "relu2", 4: "relu1"})


def alexnet_owt(channels: int, padding: int | None, dropout: float, width: float) -> Trunk:
    """torchvision's variant: no groups, no normalisation, other widths, dropout before fc6 and fc7."""
    layers: dict[str, nn.Module] = {}
    for number, (full_width, kernel, groups) in enumerate(ONE_WEIRD_TRICK, 1):
        channels = _convolution(layers, number, channels, scaled(full_width, width), kernel, groups, padding)
        if number in (1, 2, 5):
            layers[f"pool{number}"] = _pooling(padding)
    for number in (6, 7):
        layers[f"drop{number}"] = nn.Dropout(dropout)
        channels = _fully_connected(layers, number, channels, scaled(HIDDEN, width), padding)
    return Trunk(layers, {32: "relu7", 16: "relu5", 8: "relu2", 4: "relu1"})


def _convolution(
    layers: dict[str, nn.Module], number: int, channels: int, out: int, kernel: int, groups: int, padding: int | None
) -> int:
    """Add a convolution and its ReLU; returns its channels."""
    first = number == 1
    pad = padding if first and padding is not None else kernel // 2
    layers[f"conv{number}"] = nn.Conv2d(channels, out, kernel, 4 if first else 1, pad, groups=groups)
    layers[f"relu{number}"] = nn.ReLU(inplace=True)
    return out


def _pooling(padding: int | None) -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, padding=1) if padding is None else nn.MaxPool2d(3, 2, ceil_mode=True)


def _fully_connected(layers: dict[str, nn.Module], number: int, channels: int, out: int, padding: int | None) -> int:
    # The even 6x6 window cannot keep its size: padded by 3 it gives one unit more, half a stride to either side.
    kernel, pad = (6, 0 if padding is not None else 3) if number == 6 else (1, 0)
    layers[f"fc{number}"] = nn.Conv2d(channels, out, kernel, padding=pad)
    layers[f"relu{number}"] = nn.ReLU(inplace=True)
    return out
