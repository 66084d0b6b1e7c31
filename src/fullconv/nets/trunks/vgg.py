"""VGG-16 (Simonyan and Zisserman 2015), convolutionalised as in Long et al. 2015, section 4.1."""

from __future__ import annotations

from torch import nn

from fullconv.nets.trunks.trunk import Trunk, scaled

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the convolutions before each of the five poolings."""

HIDDEN = 4096


def vgg16(channels: int, padding: int | None, dropout: float, width: float, batch_norm: bool = False) -> Trunk:
    """conv1_1 ... pool5, then fc6 (7x7) and fc7 (1x1) as convolutions; layer names are those of the Caffe model.

    Args:
        channels: of the input.
        padding: of conv1_1 (100 in the paper, 1 in the classifier), fc6 then has none; None: every convolution keeps
            its size, fc6 too.
        dropout: element-wise, after fc6 and fc7.
        width: factor on all channel numbers (1 is VGG-16).
        batch_norm: after every convolution up to conv5_3, as torchvision's vgg16_bn.
    """
    layers: dict[str, nn.Module] = {}
    for block, widths in enumerate(WIDTHS, 1):
        for index, full_width in enumerate(widths, 1):
            out = scaled(full_width, width)
            pad = 1 if layers or padding is None else padding
            layers[f"conv{block}_{index}"] = nn.Conv2d(channels, out, 3, padding=pad)
            if batch_norm:
                layers[f"bn{block}_{index}"] = nn.BatchNorm2d(out)
            layers[f"relu{block}_{index}"] = nn.ReLU(inplace=True)
            channels = out
        layers[f"pool{block}"] = nn.MaxPool2d(2, 2, ceil_mode=True)
    for name, kernel in (("6", 7), ("7", 1)):
        out = scaled(HIDDEN, width)
        layers[f"fc{name}"] = nn.Conv2d(channels, out, kernel, padding=kernel // 2 if padding is None else 0)
        layers[f"relu{name}"] = nn.ReLU(inplace=True)
        layers[f"drop{name}"] = nn.Dropout(dropout)
        channels = out
    return Trunk(layers, {32: "drop7", 16: "pool4", 8: "pool3", 4: "pool2", 2: "pool1"})
