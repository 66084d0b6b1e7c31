"""Image classifiers as people write them, thin, with random weights; and some that no convolution can replace.

The subjects of the tests of convolutionalization, written with torch alone. Names say what is peculiar about each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Specimen:
    """A classifier of (N, channels, *size) that gives logits (N, CLASSES) or (N, CLASSES, 1, 1).

    Attributes:
        build: a new net, evaluation mode, the same weights every time.
        size: (height, width) that it is made for.
        channels: of the input.
        padded: something inside is padded, or pooled over a window that the edge clips, at this size: classified
            where it stands in a larger image, a window has other surroundings than on its own.
    """

    build: Build
    size: tuple[int, int]
    channels: int
    padded: bool


@dataclass(frozen=True)
class Impossible:
    """A classifier that has no fully convolutional form.

    Attributes:
        words: what the refusal must contain, in upper or lower case: the layer and a word of the reason.
    """

    build: Build
    size: tuple[int, int]
    channels: int
    words: tuple[str, ...]


def windows_of(
    classifier: nn.Module, image: Tensor, size: int | tuple[int, int], stride: int | tuple[int, int]
) -> Tensor:
    """Logits (N, K, h, w) of every window of `size` that lies inside the image, each classified on its own.

    h = floor((H - height) / stride) + 1 and likewise w; evaluation mode, restored after.
    """
    height, width = (size, size) if isinstance(size, int) else size
    down, right = (stride, stride) if isinstance(stride, int) else stride
    training = classifier.training
    classifier.eval()
    with torch.no_grad():
        rows = [
            torch.stack(
                [
                    classifier(image[:, :, y : y + height, x : x + width].contiguous()).flatten(1)
                    for x in range(0, image.shape[3] - width + 1, right)
                ],
                dim=-1,
            )
            for y in range(0, image.shape[2] - height + 1, down)
        ]
    classifier.train(training)
    return torch.stack(rows, dim=-2)


def images(count: int, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """(N, channels, *size) float32 of mean 0 and deviation 1, coarse and fine structure, each image with its own tint:
    what pools over all positions must not see the same in each."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, channels, size[0] // 8 + 1, size[1] // 8 + 1, generator=generator)
    coarse = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, : size[0], : size[1]]
    fine = torch.randn(count, channels, *size, generator=generator)
    tint = torch.randn(count, channels, 1, 1, generator=generator)
    return (coarse + fine + tint) / 3**0.5


def seeded(make: Build, seed: int = 0) -> Build:
    """A builder of the same net with weights that keep activations of order 1, and norms that matter."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # the layers' own initial weights are drawn, and thrown away
            net = make().eval()
        generator = torch.Generator().manual_seed(seed)
        for name, values in [*net.named_parameters(), *net.named_buffers()]:
            last = name.rpartition(".")[2]
            if last == "num_batches_tracked":
                continue
            low, high = 0.5, 1.5  # scales and variances
            if values.ndim > 1:
                high = (6 / values[0].numel()) ** 0.5
                low = -high
            elif "bias" in last or last == "running_mean":
                low, high = -0.3, 0.3
            values.data.uniform_(low, high, generator=generator)
        return net

    return build


class Net(nn.Module):
    """A trunk, a step written as an expression, a head: the commonest forward of all."""

    def __init__(self, features: nn.Module, step: Callable[[Tensor], Tensor], *head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.step = step
        self.classifier = nn.Sequential(*head)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.step(self.features(x))))


def unpadded(channels: int = 3) -> nn.Sequential:
    """Stride 4, 12 channels; 32 -> 6, 28 -> 5."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
    )  # fmt: skip


def padded(channels: int = 3) -> nn.Sequential:
    """Stride 4, 12 channels; a quarter of the size, rounded down."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
        nn.Conv2d(8, 12, 3, padding="same"), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
    )  # fmt: skip


def linear(channels: int = 12) -> nn.Linear:
    return nn.Linear(channels, CLASSES)


def linears(channels: int, hidden: int = 24) -> list[nn.Module]:
    """VGG's three."""
    return [
        nn.Linear(channels, hidden), nn.ReLU(True), nn.Dropout(),
        nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(),
        linear(hidden),
    ]  # fmt: skip


def flat(x: Tensor) -> Tensor:
    return torch.flatten(x, 1)


def flat_by_unpacked_shape(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c * h * w)


def flat_by_counting(x: Tensor) -> Tensor:
    """As PyTorch's first tutorials did."""
    features = 1
    for size in x.size()[1:]:
        features *= size
    return x.view(-1, features)


class LeNet(nn.Module):
    """LeCun's as in Caffe's example, layers called one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4 * 4, 20)
        self.fc2 = linear(20)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = F.max_pool2d(self.conv2(x).relu(), kernel_size=2, stride=2)
        x = x.view(x.size(0), -1)
        return cast(Tensor, self.fc2(F.relu(self.fc1(x))))


class SharedPool(nn.Module):
    """The beginner's net: one pooling module used twice, the flat size written out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 24)
        self.fc2 = nn.Linear(24, 16)
        self.fc3 = linear(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return cast(Tensor, self.fc3(x))


class FunctionalDropout(nn.Module):
    """The example for MNIST: dropout as a function, log-probabilities at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 8, 3, 1)
        self.drop = nn.Dropout2d(0.25)
        self.fc1 = nn.Linear(8 * 12 * 12, 16)
        self.fc2 = linear(16)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = self.drop(F.max_pool2d(x, 2))
        x = F.relu(self.fc1(x.reshape(x.shape[0], -1)))
        x = F.dropout(x, 0.5, self.training)
        return F.log_softmax(self.fc2(x), dim=1)


class AlexNet(nn.Module):
    """BVLC's order: local response normalisation before pooling, groups, pooling rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 11, stride=4), nn.ReLU(), nn.LocalResponseNorm(5, 0.1), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(8, 12, 5, padding=2, groups=2), nn.ReLU(), nn.LocalResponseNorm(5, 0.1), nn.MaxPool2d(3, 2),
            nn.Conv2d(12, 12, 3, padding=1, groups=2), nn.ReLU(),
        )  # fmt: skip
        self.fc6 = nn.Linear(12 * 5 * 5, 24)
        self.fc8 = linear(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).flatten(start_dim=1)
        return cast(Tensor, self.fc8(F.relu(self.fc6(x))))


class Inception(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.b1 = nn.Conv2d(channels, 4, 1)
        self.b2 = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(True), nn.Conv2d(4, 6, 3, padding=1))
        self.b3 = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(True), nn.Conv2d(2, 4, 5, padding=2))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), nn.Conv2d(channels, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], 1))


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.lrn = nn.LocalResponseNorm(5)
        self.a3, self.b3, self.a4 = Inception(8), Inception(16), Inception(16)
        self.avgpool = nn.AvgPool2d(4, stride=1)
        self.dropout = nn.Dropout(0.4)
        self.fc = linear(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lrn(self.maxpool(F.relu(self.conv1(x))))
        x = self.maxpool(self.lrn(F.relu(self.conv2(x))))
        x = self.a4(self.maxpool(self.b3(self.a3(x))))
        x = self.dropout(torch.flatten(self.avgpool(x), 1))
        return cast(Tensor, self.fc(x))


class Basic(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return cast(Tensor, self.relu(out))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        inner = width // 2
        self.convs = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.downsample = _projection(channels, width, stride) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.convs(x) + self.downsample(x))


def _projection(channels: int, width: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class ResNet(nn.Module):
    def __init__(self, block: type[Basic] | type[Bottleneck]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = nn.Sequential(block(8, 8, 1), block(8, 8, 1))
        self.layer2 = nn.Sequential(block(8, 16, 2), block(16, 16, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = linear(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        x = torch.flatten(x, 1)
        return cast(Tensor, self.fc(x))


class DenseNet(nn.Module):
    """Normalisation before convolution, features joined, pooled by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(2))
        self.transition = nn.AvgPool2d(2, 2)
        self.classifier = linear(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat((x, conv(F.relu(norm(x)))), dim=1)
        x = F.relu(self.norms[2](self.transition(x)), inplace=True)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return cast(Tensor, self.classifier(torch.flatten(x, 1)))


class Fire(nn.Module):
    """SqueezeNet's module."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 4, 1)
        self.expand1x1 = nn.Conv2d(4, 6, 1)
        self.expand3x3 = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class InvertedResidual(nn.Module):
    """MobileNet v2's block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
            nn.Conv2d(16, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.conv(x))


class ConvNeXtBlock(nn.Module):
    """A block that works channels last between its depthwise convolution and its sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 2 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(2 * channels, channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(self.norm(y))))
        return cast(Tensor, x + y.permute(0, 3, 1, 2))


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = nn.Sequential(ConvNeXtBlock(8), ConvNeXtBlock(8))
        self.down = nn.Conv2d(8, 16, 2, stride=2)
        self.norm = nn.LayerNorm(16, eps=1e-6)
        self.head = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Dropout(0.1), linear(16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.blocks(self.stem(x)))
        return cast(Tensor, self.head(self.norm(x.mean([-2, -1]))))


class AverageAndMaximum(nn.Module):
    """Both poolings side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.average, self.maximum = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.maximum(x), self.average(x)], 1)


def grouped_and_dilated() -> nn.Sequential:
    """32 -> 28 -> 24 -> 12 -> 8."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, dilation=2), nn.ReLU(),
        nn.Conv2d(8, 8, 5, groups=8, bias=False), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.LeakyReLU(0.1),
        nn.AvgPool2d(2), nn.Conv2d(16, 12, 3, dilation=2, groups=4), nn.SiLU(),
        nn.Flatten(), linear(12 * 8 * 8),
    )  # fmt: skip


def asymmetric() -> nn.Sequential:
    """40x32 -> 20x26 -> 14x26 -> 7x13 (stride 4x2) -> 1x1."""
    return nn.Sequential(
        nn.Conv2d(3, 8, (2, 7), stride=(2, 1)), nn.ReLU(), nn.Conv2d(8, 8, (7, 1)), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 7 * 13, 16), nn.ReLU(), linear(16),
    )  # fmt: skip


def pooled_up() -> nn.Sequential:
    """Pooling that rounds up, 3/2: its last window is whole at 29 (27 -> 13), and clipped at 30 (28 -> 14)."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))


def fully_convolutional() -> nn.Sequential:
    """A convolution as large as the map of 6x6 where others flatten."""
    return nn.Sequential(*unpadded(), nn.Conv2d(12, 16, 6), nn.ReLU(), nn.Dropout2d(), nn.Conv2d(16, CLASSES, 1))


def squeezenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(8), Fire(12), nn.Dropout(0.5), nn.Conv2d(12, CLASSES, 1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(),
    )  # fmt: skip


def network_in_network() -> nn.Sequential:
    return nn.Sequential(
        *unpadded(), nn.Conv2d(12, 12, 1), nn.PReLU(12), nn.Conv2d(12, CLASSES, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip


CLASSIFIERS: dict[str, Specimen] = {
    # How maps become vectors.
    "nn.Flatten": Specimen(
        seeded(lambda: nn.Sequential(*unpadded(), nn.Flatten(), linear(12 * 6 * 6))), (32, 32), 3, padded=False
    ),
    "view": Specimen(
        seeded(lambda: Net(padded(), lambda x: x.view(x.size(0), -1), *linears(12 * 7 * 7))), (28, 28), 3, padded=True
    ),
    "view of a written size": Specimen(seeded(SharedPool), (32, 32), 3, padded=False),
    "torch.flatten": Specimen(
        seeded(lambda: Net(unpadded(), flat, nn.Linear(12 * 6 * 6, 24), nn.ReLU(), linear(24))),
        (32, 32), 3, padded=False,
    ),
    "reshape, functional dropout, log_softmax": Specimen(seeded(FunctionalDropout), (28, 28), 1, padded=False),
    "unpacked shape": Specimen(
        seeded(lambda: Net(unpadded(1), flat_by_unpacked_shape, *linears(12 * 5 * 5))), (28, 28), 1, padded=False
    ),
    "counted shape": Specimen(
        seeded(lambda: Net(unpadded(), flat_by_counting, nn.Linear(12 * 6 * 6, 24), nn.Tanh(), linear(24))),
        (32, 32), 3, padded=False,
    ),
    "channels last before flatten": Specimen(
        seeded(lambda: Net(unpadded(), lambda x: x.permute(0, 2, 3, 1).flatten(1), *linears(12 * 6 * 6))),
        (32, 32), 3, padded=False,
    ),
    "odd sizes": Specimen(
        seeded(lambda: Net(unpadded(), flat, *linears(12 * 7 * 11))), (37, 53), 3, padded=False
    ),
    # How maps are pooled.
    "adaptive average 1": Specimen(
        seeded(lambda: nn.Sequential(*unpadded(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear())),
        (32, 32), 3, padded=False,
    ),
    "adaptive average 6 of 12": Specimen(
        seeded(lambda: Net(padded(), nn.AdaptiveAvgPool2d(6), nn.Flatten(), *linears(12 * 6 * 6))),
        (48, 48), 3, padded=True,
    ),
    "adaptive average 7 of 7": Specimen(
        seeded(lambda: nn.Sequential(*padded(), nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), *linears(12 * 7 * 7))),
        (28, 28), 3, padded=True,
    ),
    "adaptive average 6 of 13": Specimen(
        seeded(lambda: nn.Sequential(*unpadded(), nn.AdaptiveAvgPool2d((6, 6)), nn.Flatten(), linear(12 * 6 * 6))),
        (60, 60), 3, padded=False,
    ),
    "adaptive average 3 of 8, unequal": Specimen(
        seeded(lambda: nn.Sequential(*unpadded(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), *linears(12 * 3 * 3))),
        (40, 40), 3, padded=False,
    ),
    "adaptive average of rows alone": Specimen(
        seeded(lambda: Net(unpadded(), nn.AdaptiveAvgPool2d((1, None)), nn.Flatten(), linear(12 * 6))),
        (40, 32), 3, padded=False,
    ),
    "adaptive maximum": Specimen(
        seeded(lambda: nn.Sequential(*unpadded(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), linear())),
        (32, 32), 3, padded=False,
    ),
    "average and maximum": Specimen(
        seeded(lambda: nn.Sequential(*unpadded(), AverageAndMaximum(), nn.Flatten(), linear(24))),
        (32, 32), 3, padded=False,
    ),
    "average 7": Specimen(
        seeded(lambda: nn.Sequential(*padded(), nn.AvgPool2d(7), nn.Flatten(), linear())), (28, 28), 3, padded=True
    ),
    "average over the size found": Specimen(
        seeded(lambda: Net(unpadded(), lambda x: F.avg_pool2d(x, x.size()[2:]).view(x.size(0), -1), linear())),
        (32, 36), 3, padded=False,
    ),
    "mean of a list": Specimen(
        seeded(lambda: Net(nn.Sequential(*padded(), InvertedResidual(12)), lambda x: x.mean([2, 3]), linear())),
        (32, 32), 3, padded=True,
    ),
    "mean of a tuple": Specimen(
        seeded(lambda: Net(unpadded(), lambda x: x.mean(dim=(-2, -1)), linear())), (32, 32), 3, padded=False
    ),
    "mean kept as a map": Specimen(
        seeded(
            lambda: Net(
                unpadded(), lambda x: torch.mean(x, (2, 3), keepdim=True), nn.Conv2d(12, CLASSES, 1), nn.Flatten()
            )
        ),
        (32, 32), 3, padded=False,
    ),
    "pooling rounded up, windows whole": Specimen(
        seeded(lambda: Net(pooled_up(), flat, linear(8 * 13 * 13))), (29, 29), 3, padded=False
    ),
    "pooling rounded up, windows clipped": Specimen(
        seeded(lambda: Net(pooled_up(), flat, linear(8 * 14 * 14))), (30, 30), 3, padded=True
    ),
    # What follows.
    "batch norm of vectors": Specimen(
        seeded(
            lambda: Net(
                unpadded(), flat,
                nn.Linear(12 * 6 * 6, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(), linear(24),
            )
        ),
        (32, 32), 3, padded=False,
    ),
    "softmax": Specimen(
        seeded(lambda: nn.Sequential(*unpadded(), nn.Flatten(), linear(12 * 6 * 6), nn.Softmax(dim=-1))),
        (32, 32), 3, padded=False,
    ),
    # Already convolutional.
    "1x1 maps": Specimen(seeded(fully_convolutional), (32, 32), 3, padded=False),
    "1x1 maps, first position": Specimen(
        seeded(lambda: Net(fully_convolutional(), lambda x: x[:, :, 0, 0])), (32, 32), 3, padded=False
    ),
    "1x1 maps, squeezed": Specimen(
        seeded(lambda: Net(fully_convolutional(), lambda x: x.squeeze(-1).squeeze(-1))), (32, 32), 3, padded=False
    ),
    "network in network": Specimen(seeded(network_in_network), (32, 32), 3, padded=False),
    # Whole nets.
    "lenet": Specimen(seeded(LeNet), (28, 28), 1, padded=False),
    "groups and dilation": Specimen(seeded(grouped_and_dilated), (32, 32), 3, padded=False),
    "asymmetric kernels": Specimen(seeded(asymmetric), (40, 32), 3, padded=False),
    "alexnet": Specimen(seeded(AlexNet), (99, 99), 3, padded=True),
    "googlenet": Specimen(seeded(GoogLeNet), (64, 64), 3, padded=True),
    "resnet": Specimen(seeded(lambda: ResNet(Basic)), (64, 64), 3, padded=True),
    "resnet with bottlenecks": Specimen(seeded(lambda: ResNet(Bottleneck)), (64, 48), 3, padded=True),
    "densenet": Specimen(seeded(DenseNet), (32, 32), 3, padded=True),
    "squeezenet": Specimen(seeded(squeezenet, seed=4), (33, 33), 3, padded=True),
    "convnext": Specimen(seeded(ConvNeXt), (32, 32), 3, padded=True),
}  # fmt: skip


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x * self.excite(self.squeeze(x)))


class Attention(nn.Module):
    """Every position attends to every other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(q.transpose(1, 2) @ k / 4, dim=-1)
        return cast(Tensor, x + (v @ weights.transpose(1, 2)).view(x.shape))


class Embedding(nn.Module):
    """A learned number for every place of the map."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, channels, height, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


class RowsInTurn(nn.Module):
    """A recurrent net reads the map from top to bottom."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reader = nn.LSTM(channels * width, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.reader(x.permute(0, 2, 1, 3).flatten(2))
        return cast(Tensor, states[:, -1])


def brighter_half(x: Tensor) -> Tensor:
    """What is done depends on the image."""
    if x.sum() > 0:
        x = -x
    return x.flatten(1)


def between(name: str, make: Build) -> Build:
    """A layer of that name, which keeps shapes, after the trunk (6x6 at 32x32), before a linear.

    Pooled by the maximum: the mean of what instance norm gives is no function of the image.
    """
    return seeded(
        lambda: nn.Sequential(
            OrderedDict(
                {
                    "trunk": unpadded(),
                    name: make(),
                    "pool": nn.AdaptiveMaxPool2d(1),
                    "flat": nn.Flatten(),
                    "fc": linear(),
                }
            )
        )
    )


IMPOSSIBLE: dict[str, Impossible] = {
    "squeeze and excitation": Impossible(
        between("gate", lambda: Gate(12)), (32, 32), 3, ("gate", "whole map")
    ),
    "instance norm": Impossible(
        between("scaling", lambda: nn.InstanceNorm2d(12, affine=True)), (32, 32), 3,
        ("scaling", "InstanceNorm2d", "statistics"),
    ),
    "group norm": Impossible(
        between("scaling", lambda: nn.GroupNorm(3, 12)), (32, 32), 3, ("scaling", "GroupNorm", "statistics")
    ),
    "self-attention": Impossible(
        between("attention", lambda: Attention(12)), (32, 32), 3, ("attention", "position")
    ),
    "position embedding": Impossible(
        between("embedding", lambda: Embedding(12, 6, 6)), (32, 32), 3, ("embedding", "map")
    ),
    "linear along the width": Impossible(
        between("across", lambda: nn.Linear(6, 6)), (32, 32), 3, ("across", "Linear", "position")
    ),
    "adaptive maximum 3 of 8, unequal": Impossible(
        seeded(lambda: Net(unpadded(), nn.AdaptiveMaxPool2d(3), nn.Flatten(), linear(12 * 3 * 3))),
        (40, 40), 3, ("step", "AdaptiveMaxPool2d", "window"),
    ),
    "lstm over rows": Impossible(
        seeded(lambda: nn.Sequential(*unpadded(), RowsInTurn(12, 6), linear(8))), (32, 32), 3, ("flatten", "7")
    ),
    "control flow": Impossible(
        seeded(lambda: Net(unpadded(), brighter_half, linear(12 * 6 * 6))), (32, 32), 3, ("control flow", "data")
    ),
}  # fmt: skip
