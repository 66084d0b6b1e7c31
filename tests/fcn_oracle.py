"""The paper's FCN-32s, 16s and 8s VGG-16, line by line from the tables of the reference nets.

Literal numbers only: pad 100, ceil pooling, dense C x C bilinear deconvolutions, crops 19; 5, 27; 5, 9, 31. Nothing of
fullconv is used, so that the two can disagree. `width` scales all channels but the classes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)


def surgery(channels: int, size: int) -> Tensor:
    """The deconvolution weight of the reference's net surgery: bilinear on the channel diagonal, else zero."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    rows, columns = np.ogrid[:size, :size]
    kernel = (1 - abs(rows - center) / factor) * (1 - abs(columns - center) / factor)
    weight = np.zeros((channels, channels, size, size), np.float32)
    weight[range(channels), range(channels)] = kernel
    return torch.from_numpy(weight)


class Oracle(nn.Module):
    """`stride` 32, 16 or 8. Takes RGB (N, 3, H, W) of 0..255, gives scores (N, C, H, W)."""

    def __init__(self, stride: int, classes: int = 21, width: float = 1.0) -> None:
        super().__init__()
        self.stride = stride
        c64, c128, c256, c512, c4096 = (max(1, round(n * width)) for n in (64, 128, 256, 512, 4096))
        self.conv1_1 = nn.Conv2d(3, c64, 3, padding=100)
        self.conv1_2 = nn.Conv2d(c64, c64, 3, padding=1)
        self.conv2_1 = nn.Conv2d(c64, c128, 3, padding=1)
        self.conv2_2 = nn.Conv2d(c128, c128, 3, padding=1)
        self.conv3_1 = nn.Conv2d(c128, c256, 3, padding=1)
        self.conv3_2 = nn.Conv2d(c256, c256, 3, padding=1)
        self.conv3_3 = nn.Conv2d(c256, c256, 3, padding=1)
        self.conv4_1 = nn.Conv2d(c256, c512, 3, padding=1)
        self.conv4_2 = nn.Conv2d(c512, c512, 3, padding=1)
        self.conv4_3 = nn.Conv2d(c512, c512, 3, padding=1)
        self.conv5_1 = nn.Conv2d(c512, c512, 3, padding=1)
        self.conv5_2 = nn.Conv2d(c512, c512, 3, padding=1)
        self.conv5_3 = nn.Conv2d(c512, c512, 3, padding=1)
        self.fc6 = nn.Conv2d(c512, c4096, 7)
        self.fc7 = nn.Conv2d(c4096, c4096, 1)
        self.score_fr = nn.Conv2d(c4096, classes, 1)
        if stride == 32:
            self.upscore = deconvolution(classes, 64, 32)
        if stride <= 16:
            self.score_pool4 = nn.Conv2d(c512, classes, 1)
            self.upscore2 = deconvolution(classes, 4, 2)
        if stride == 16:
            self.upscore16 = deconvolution(classes, 32, 16)
        if stride == 8:
            self.score_pool3 = nn.Conv2d(c256, classes, 1)
            self.upscore_pool4 = deconvolution(classes, 4, 2)
            self.upscore8 = deconvolution(classes, 16, 8)

    def forward(self, data: Tensor) -> Tensor:
        height, width = data.shape[2:]
        x = data.float().flip(1) - torch.tensor(MEAN_BGR)[:, None, None]
        x = F.relu(self.conv1_1(x))
        x = F.relu(self.conv1_2(x))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = F.relu(self.conv2_1(x))
        x = F.relu(self.conv2_2(x))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = F.relu(self.conv3_1(x))
        x = F.relu(self.conv3_2(x))
        x = F.relu(self.conv3_3(x))
        pool3 = x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = F.relu(self.conv4_1(x))
        x = F.relu(self.conv4_2(x))
        x = F.relu(self.conv4_3(x))
        pool4 = x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = F.relu(self.conv5_1(x))
        x = F.relu(self.conv5_2(x))
        x = F.relu(self.conv5_3(x))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        x = F.relu(self.fc6(x))
        x = F.relu(self.fc7(x))
        score_fr = self.score_fr(x)
        if self.stride == 32:
            return self.upscore(score_fr)[:, :, 19 : 19 + height, 19 : 19 + width]
        upscore2 = self.upscore2(score_fr)
        score_pool4 = self.score_pool4(pool4)
        h, w = upscore2.shape[2:]
        fuse_pool4 = upscore2 + score_pool4[:, :, 5 : 5 + h, 5 : 5 + w]
        if self.stride == 16:
            return self.upscore16(fuse_pool4)[:, :, 27 : 27 + height, 27 : 27 + width]
        upscore_pool4 = self.upscore_pool4(fuse_pool4)
        score_pool3 = self.score_pool3(pool3)
        h, w = upscore_pool4.shape[2:]
        fuse_pool3 = upscore_pool4 + score_pool3[:, :, 9 : 9 + h, 9 : 9 + w]
        return self.upscore8(fuse_pool3)[:, :, 31 : 31 + height, 31 : 31 + width]


def random_oracle(stride: int, classes: int = 21, width: float = 1.0, seed: int = 0) -> Oracle:
    """With random weights and biases, scaled layer by layer so that every convolution gives unit variance.

    Zero or exploding activations would make every comparison (and every timing) meaningless.
    """
    generator = torch.Generator().manual_seed(seed)
    oracle = Oracle(stride, classes, width).eval()
    convolutions = [layer for layer in oracle.modules() if isinstance(layer, nn.Conv2d)]

    def scale(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        deviation = output.std().clamp(min=1e-6)
        for parameter in layer.parameters():
            parameter.div_(deviation)
        return output / deviation

    with torch.no_grad():
        for layer in convolutions:
            layer.weight.normal_(0, layer.weight[0].numel() ** -0.5, generator=generator)
            layer.bias.normal_(0, 0.1, generator=generator)
        hooks = [layer.register_forward_hook(scale) for layer in convolutions]
        oracle(torch.randint(0, 256, (1, 3, 64, 64), generator=generator))
    for hook in hooks:
        hook.remove()
    return oracle


def fullconv_weights(oracle: Oracle) -> dict[str, Tensor]:
    """The oracle's convolution weights under the names of fullconv's net of the same stride."""
    scores = {"score_fr": "32", "score_pool4": "16", "score_pool3": "8"}
    weights = {}
    for name, tensor in oracle.state_dict().items():
        layer, kind = name.split(".")
        if layer in scores:
            weights[f"heads.semantic.score.image.{scores[layer]}.{kind}"] = tensor
        elif not layer.startswith("upscore"):
            weights[f"trunks.image.{name}"] = tensor
    return weights


def deconvolution(classes: int, kernel: int, stride: int) -> nn.ConvTranspose2d:
    """A frozen bilinear deconvolution, C x C x k x k, without bias."""
    layer = nn.ConvTranspose2d(classes, classes, kernel, stride, bias=False)
    layer.weight = nn.Parameter(surgery(classes, kernel), requires_grad=False)
    return layer
