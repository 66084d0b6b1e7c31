"""torchvision's classifiers, re-implemented layer by layer from reference 2.6, with random weights of sane scale.

The oracle of the reader of torchvision's files and of the trunks: nothing of fullconv is used; layers are called and
numbered as in the files; pooling rounds down unless the reference says otherwise; normalisation is torchvision's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB values of 0..1."""

INCEPTION = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels that enter, then of 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5 and the pool's projection (reference 2.4)."""


class Net(nn.Module):
    """Takes (N, 3, H, W) of 0..255 in RGB, normalises it by torchvision's rule, gives logits (N, K)."""

    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD

    def forward(self, image: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, dtype=torch.float64).reshape(1, 3, 1, 1) for v in (self.mean, self.std))
        return self.logits(((image.double() / 255 - mean) / std).to(self.last().weight.dtype))

    def logits(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def last(self) -> nn.Linear:
        """The last layer."""
        return [layer for name, layer in self.named_modules() if isinstance(layer, nn.Linear) and "aux" not in name][-1]


class FeaturesAndClassifier(Net):
    """AlexNet and VGG: their layers are numbered in two rows."""

    def __init__(self, features: list[nn.Module], size: int, classifier: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(size)
        self.classifier = nn.Sequential(*classifier)

    def logits(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.avgpool(self.features(x)).flatten(1)))


def alexnet(width: float, classes: int) -> Net:
    a, b, c, d, hidden = (_thin(n, width) for n in (64, 192, 384, 256, 4096))
    features = [
        nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(b, c, 3, padding=1), nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
        nn.Conv2d(d, d, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    ]  # fmt: skip
    classifier = [
        nn.Dropout(), nn.Linear(d * 6 * 6, hidden), nn.ReLU(),
        nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, classes),
    ]  # fmt: skip
    return FeaturesAndClassifier(features, 6, classifier)


def vgg16(width: float, classes: int, batch_norm: bool = False) -> Net:
    features: list[nn.Module] = []
    channels, hidden = 3, _thin(4096, width)
    for out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if not out:
            features.append(nn.MaxPool2d(2, 2))
            continue
        features.append(nn.Conv2d(channels, _thin(out, width), 3, padding=1))
        channels = _thin(out, width)
        features += [nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [nn.ReLU()]
    classifier = [
        nn.Linear(channels * 7 * 7, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, classes),
    ]  # fmt: skip
    return FeaturesAndClassifier(features, 7, classifier)


def vgg16_bn(width: float, classes: int) -> Net:
    return vgg16(width, classes, batch_norm=True)


class BasicConv2d(nn.Module):
    """A convolution without bias, batch norm with TensorFlow's epsilon, ReLU."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(channels, one, 1)
        self.branch2 = nn.Sequential(BasicConv2d(channels, reduce3, 1), BasicConv2d(reduce3, three, 3, padding=1))
        # 3x3 where the paper has 5x5: the published weights are so
        self.branch3 = nn.Sequential(BasicConv2d(channels, reduce5, 1), BasicConv2d(reduce5, five, 3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), BasicConv2d(channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), dim=1)


class Auxiliary(nn.Module):
    """A head that only training uses; it is in the file all the same."""

    def __init__(self, channels: int, width: float, classes: int) -> None:
        super().__init__()
        between = _thin(128, width)
        self.conv = BasicConv2d(channels, between, 1)
        self.fc1 = nn.Linear(between * 4 * 4, _thin(1024, width))
        self.fc2 = nn.Linear(_thin(1024, width), classes)


class GoogLeNet(Net):
    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        a, b = _thin(64, width), _thin(192, width)
        self.conv1 = BasicConv2d(3, a, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(a, a, 1)
        self.conv3 = BasicConv2d(a, b, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        for module, channels in INCEPTION.items():
            setattr(self, f"inception{module}", Inception(*(_thin(n, width) for n in channels)))
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.aux1 = Auxiliary(_thin(512, width), width, classes)
        self.aux2 = Auxiliary(_thin(528, width), width, classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(_thin(1024, width), classes)

    def logits(self, x: Tensor) -> Tensor:
        x = torch.stack([x[:, c] * (STD[c] / 0.5) + (MEAN[c] - 0.5) / 0.5 for c in range(3)], dim=1)  # transform_input
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        for module in INCEPTION:
            if module in ("4a", "5a"):
                x = (self.maxpool3 if module == "4a" else self.maxpool4)(x)
            x = getattr(self, f"inception{module}")(x)
        return cast(Tensor, self.fc(self.dropout(self.avgpool(x).flatten(1))))

    def last(self) -> nn.Linear:
        return self.fc


class BasicBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _projection(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x)))


class ResNet(Net):
    def __init__(self, blocks: Sequence[int], bottleneck: bool, width: float, classes: int) -> None:
        super().__init__()
        block, expansion = (Bottleneck, 4) if bottleneck else (BasicBlock, 1)
        channels = _thin(64, width)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for number, (count, full) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), 1):
            layer = []
            for index in range(count):
                layer.append(block(channels, _thin(full, width), 2 if number > 1 and index == 0 else 1))
                channels = expansion * _thin(full, width)
            setattr(self, f"layer{number}", nn.Sequential(*layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def logits(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for number in (1, 2, 3, 4):
            x = getattr(self, f"layer{number}")(x)
        return cast(Tensor, self.fc(self.avgpool(x).flatten(1)))


def _projection(channels: int, out: int, stride: int) -> nn.Sequential | None:
    """What fits a block's input to its output, where their shapes differ."""
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))


def _thin(channels: int, width: float) -> int:
    thin = channels * width
    assert thin == int(thin), "a width that divides all channel numbers leaves nothing to rounding"
    return int(thin)


NETS: dict[str, Callable[[float, int], Net]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "vgg16_bn": vgg16_bn,
    "googlenet": GoogLeNet,
    "resnet18": lambda width, classes: ResNet((2, 2, 2, 2), False, width, classes),
    "resnet34": lambda width, classes: ResNet((3, 4, 6, 3), False, width, classes),
    "resnet50": lambda width, classes: ResNet((3, 4, 6, 3), True, width, classes),
    "resnet101": lambda width, classes: ResNet((3, 4, 23, 3), True, width, classes),
}


def shape_of(name: str, width: float = 1.0, classes: int = 1000) -> Net:
    """A net without memory for its weights."""
    with torch.device("meta"):
        return NETS[name](width, classes)


def random_net(name: str, width: float = 1.0, classes: int = 1000, seed: int = 0) -> Net:
    """A net in evaluation mode whose random weights all matter: the activations of every layer are of order 1.

    The statistics of batch norm lie around those of an image, so that none is negligible; logits have a spread of 1.
    """
    generator = torch.Generator().manual_seed(seed)
    net = shape_of(name, width, classes).to_empty(device="cpu").eval()
    image = random_images(1, generator)
    damped: list[nn.BatchNorm2d] = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = (6 / layer.weight[0].numel()) ** 0.5  # uniform: half the time of normal for VGG's 138 million
            layer.weight.data.uniform_(-bound, bound, generator=generator)
            if layer.bias is not None:
                layer.bias.data.uniform_(-0.3, 0.3, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
            layer.momentum = 1.0  # the statistics become those of the last image
            layer.weight.data.uniform_(0.5, 1.2, generator=generator)
            layer.bias.data.uniform_(-0.3, 0.3, generator=generator)
            layer.train()
        elif isinstance(layer, BasicBlock | Bottleneck):
            damped.append(layer.bn2 if isinstance(layer, BasicBlock) else layer.bn3)
    for layer in damped:  # undamped, blocks in a row amplify rounding a hundredfold
        layer.weight.data *= 0.3
    with torch.no_grad():
        net(image)
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
                layer.momentum = 0.1
                count, mean, variance = (
                    cast(Tensor, t) for t in (layer.num_batches_tracked, layer.running_mean, layer.running_var)
                )
                count += int(torch.randint(1, 10**6, (), generator=generator))
                mean += variance.sqrt() * torch.empty_like(mean).uniform_(-0.3, 0.3, generator=generator)
                variance *= torch.empty_like(variance).uniform_(0.7, 1.4, generator=generator)
                variance += 0.01  # of channels that are constant in a thin net
        last = net.last()
        last.weight /= net(image).std()
    return net


def random_images(count: int, generator: torch.Generator) -> Tensor:
    """(N, 3, 224, 224) uint8, RGB: coarse and fine structure, the channels unlike each other."""
    coarse = torch.randint(0, 160, (count, 3, 14, 14), generator=generator)
    fine = torch.randint(0, 40, (count, 3, 224, 224), generator=generator)
    tint = torch.tensor([55, 25, 0]).reshape(1, 3, 1, 1)
    return (coarse.repeat_interleave(16, 2).repeat_interleave(16, 3) + fine + tint).to(torch.uint8)
