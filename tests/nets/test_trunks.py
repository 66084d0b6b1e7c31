"""Trunks: fields against gradients, sizes and layers against the tables of the reference."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fullconv import geometry
from fullconv.errors import OptionError
from fullconv.nets import build
from fullconv.nets.branches import Branches, Residual, channels_after
from fullconv.nets.classifier import Classifier
from fullconv.nets.head import crops
from fullconv.nets.trunks import TRUNKS, Trunk

WIDTH = 1 / 64


def linear(layer: nn.Module) -> nn.Module:
    """The same windows without anything that could hide a pixel: means for maxima, positive weights, no ReLU."""
    layer = copy.deepcopy(layer).double().eval()
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MaxPool2d):
                size = (child.kernel_size, child.stride, child.padding)
                parent._modules[name] = nn.AvgPool2d(*size, ceil_mode=child.ceil_mode)
            elif isinstance(child, nn.ReLU | nn.LocalResponseNorm | nn.BatchNorm2d | nn.Dropout):
                parent._modules[name] = nn.Identity()
            elif isinstance(child, nn.Conv2d):
                nn.init.constant_(child.weight, 1 / child.weight[0].numel())
                if child.bias is not None:
                    nn.init.zeros_(child.bias)
    return layer


def seen(gradient: Tensor) -> tuple[int, int]:
    """First row with a gradient, and one past the last."""
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    return int(rows[0]), int(rows[-1]) + 1


@pytest.mark.parametrize("padding", ["same", "paper"])
@pytest.mark.parametrize("name", TRUNKS)
def test_fields_are_those_of_the_gradients(name: str, padding: str) -> None:
    kind = TRUNKS[name]
    trunk = kind.build(1, None if padding == "same" else 100, 0.0, WIDTH)
    plain = linear(trunk)
    assert isinstance(plain, Trunk)
    for stride in trunk.taps:
        field = geometry.receptive_field(trunk.paths(stride)[0])
        side = field.size + 4 * stride
        # A strip is enough for the rows, where the layers without padding leave something of its width.
        across = side if padding == "same" and kind.padding is not None and "resnet" not in name else min(side, 32)
        x = torch.ones(1, 1, side, across, dtype=torch.float64, requires_grad=True)  # residual sums keep their ReLU
        y = plain.features(x, [stride])[stride]
        # The unit whose field is in the middle of the image, clear of all padding.
        unit = round((side / 2 - float(field.centre)) / stride)
        y[0, :, unit, y.shape[3] // 2].sum().backward()
        expected = geometry.inputs(trunk.paths(stride)[0], unit, unit + 1)
        assert expected[0] >= 0
        assert expected[1] <= side
        assert seen(x.grad) == expected
        assert expected[1] - expected[0] == field.size
        assert (expected[0] + expected[1] - 1) / 2 == field.centre + unit * field.stride


@pytest.mark.parametrize(
    ("name", "field"), [("alexnet", 355), ("vgg16", 404), ("googlenet", 907), ("googlenetbn", 571)]
)
def test_fields_of_classifiers(name: str, field: int) -> None:
    """The paper's table 1, and reference 2.6; for GoogLeNet with its average pooling (reference pitfall 1)."""
    classifier = Classifier(name, 2, width=WIDTH)
    path, _ = classifier.paths()
    assert geometry.receptive_field(path).size == field
    plain = linear(classifier)
    x = torch.ones(1, 3, field + 64, field + 64, dtype=torch.float64, requires_grad=True)
    y = plain(x)
    unit = y.shape[2] // 2
    y[0, 0, unit, unit].backward()
    assert seen(x.grad) == geometry.inputs(path, unit, unit + 1)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [  # reference 2.1 and 3.3, 2.2 and 3.2
        ("alexnet", {0: {227: [55, 27, 27, 13, 13, 6, 1], 500: [123, 61, 61, 30, 30, 15, 10]},
                     100: {500: [173, 86, 86, 43, 43, 21, 16], 1: [48, 24, 24, 12, 12, 6, 1]}}),
        ("vgg16", {1: {224: [112, 56, 28, 14, 7, 1]},
                   100: {500: [349, 175, 88, 44, 22, 16], 1: [100, 50, 25, 13, 7, 1]}}),
    ],
)  # fmt: skip
def test_sizes_of_the_reference(name: str, sizes: dict[int, dict[int, list[int]]]) -> None:
    layers = {
        "alexnet": ["conv1", "pool1", "conv2", "pool2", "conv3", "pool5", "fc6"],
        "vgg16": ["pool1", "pool2", "pool3", "pool4", "pool5", "fc6"],
    }[name]
    for padding, by_size in sizes.items():
        trunk = TRUNKS[name].build(3, padding, 0.0, WIDTH)
        for size, expected in by_size.items():
            found: dict[str, int] = {}
            x = torch.zeros(1, 3, size, size)
            with torch.no_grad():
                for child, layer in trunk.named_children():
                    x = layer(x)
                    found[child] = x.shape[2]
            assert [found[child] for child in layers] == expected


@pytest.mark.parametrize(
    ("name", "kernel", "offset"),
    [  # reference pitfall 2, 2.5 (P - 2) and 2.6
        ("fcn32s-alexnet", 63, 18), ("fcn32s-vgg16", 64, 19), ("fcn32s-googlenet", 63, 98),
        ("fcn32s-googlenetbn", 63, 106), ("fcn32s-resnet50", 63, 128),
    ],
)  # fmt: skip
def test_upsampling_and_crops_of_the_reference(name: str, kernel: int, offset: int) -> None:
    head = build(name, 2, padding="paper", width=WIDTH).heads["semantic"]
    ((_, step),) = crops(head)
    assert (step.window.kernel, step.window.stride, step.shift) == (kernel, 32, (offset, offset))


def test_resnet_is_aligned_to_the_pixel() -> None:
    """Reference 2.6: unit i on pixel 32 i, so k = 63 and an offset of 31; k = 64 would be off by half a pixel."""
    for depth in (18, 34, 50, 101):
        net = build(f"fcn32s-resnet{depth}", 2, width=WIDTH)
        field = geometry.receptive_field(net.trunks["image"].paths(32)[0])
        assert (field.stride, field.centre) == (32, 0)
        ((_, step),) = crops(net.heads["semantic"])
        assert (step.window.kernel, step.shift) == (63, (31, 31))


def test_groups_of_alexnet() -> None:
    trunk = TRUNKS["alexnet"].build(3, 100, 0.5, 1 / 8)
    assert [trunk.get_submodule(f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]
    order = [name for name, _ in trunk.named_children()][:8]
    assert order == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    order = [name for name, _ in TRUNKS["alexnet-bvlc"].build(3, 100, 0.5, 1 / 8).named_children()][:8]
    assert order == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]


def test_branches_are_concatenated_or_added() -> None:
    x = torch.randn(1, 2, 5, 5)
    one, two = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 3, padding=1)
    both = Branches({"one": one}, {"two": two, "relu": nn.ReLU()})
    torch.testing.assert_close(both(x), torch.cat([one(x), two(x).relu()], 1))
    assert channels_after(both, 2) == 7
    same = nn.Conv2d(2, 2, 3, padding=1)
    added = Residual({"conv": same}, {})
    torch.testing.assert_close(added(x), (same(x) + x).relu())
    assert channels_after(nn.Sequential(both, Residual({"conv": nn.Conv2d(7, 7, 1)}, {})), 2) == 7
    assert set(both.state_dict()) == {"one.weight", "one.bias", "two.weight", "two.bias"}


def test_a_trunk_that_never_was_a_classifier() -> None:
    message = "trunk 'slim' was never a classifier; choose one of alexnet, alexnet-bvlc, alexnet-owt, vgg16, "
    with pytest.raises(OptionError, match=message):
        Classifier("slim")
    with pytest.raises(OptionError, match="unknown trunk 'vgg17'; did you mean 'vgg16'"):
        Classifier("vgg17")
