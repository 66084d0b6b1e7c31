"""slim: our own small trunk, batch-normalised, for training from scratch on a few processor cores.

VGG's plan (3x3 convolutions, 2x2 poolings) at half its width and less, with a first stride of 2 in place of a fifth
pooling: few operations are spent on full resolution. Two 3x3 convolutions stand for fc6 and fc7.
"""

from __future__ import annotations

from torch import nn

from fullconv.nets.trunks.trunk import Trunk, scaled

WIDTHS = ((32, 32), (64, 64), (128, 128), (192, 192), (256, 256))
"""Output channels of the convolutions at strides 2, 4, 8, 16 and 32."""

HIDDEN = 256


def slim(channels: int, padding: int | None, dropout: float, width: float, first_stride: int = 2) -> Trunk:
    """conv1_1 ... conv5_2, then fc6 and fc7 (3x3); the taps are the last features of each stride.

    Args:
        channels: of the input.
        padding: of conv1_1 (the paper's 100-pixel pad); None: every convolution keeps its size, fc6 and fc7 too.
        dropout: element-wise, after fc7.
        width: factor on all channel numbers.
        first_stride: of conv1_1; 1 halves every stride, for small images with structures a pixel or two wide.
    """
    layers: dict[str, nn.Module] = {}

    def convolution(name: str, full_width: int, pad: int, stride: int = 1) -> None:
        nonlocal channels
        out = scaled(full_width, width)
        layers[name] = nn.Conv2d(channels, out, 3, stride, pad, bias=False)
        suffix = name.removeprefix("conv").removeprefix("fc")
        layers[f"bn{suffix}"] = nn.BatchNorm2d(out)
        layers[f"relu{suffix}"] = nn.ReLU(inplace=True)
        channels = out

    for block, widths in enumerate(WIDTHS, 1):
        if block > 1:
            layers[f"pool{block - 1}"] = nn.MaxPool2d(2, 2, ceil_mode=True)
        for index, full_width in enumerate(widths, 1):
            first = not layers
            convolution(f"conv{block}_{index}", full_width, padding or 1 if first else 1, first_stride if first else 1)
    for name in ("fc6", "fc7"):
        convolution(name, HIDDEN, 1 if padding is None else 0)
    layers["drop7"] = nn.Dropout(dropout)
    ends = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "drop7")
    return Trunk(layers, {first_stride << level: name for level, name in enumerate(ends)})
