"""Shift-and-stitch and rarefaction against each other, against windows one by one, and against the formula by hand."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, cast
from unittest.mock import Mock, call

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

import torchvision_nets
from classifiers import CLASSES, CLASSIFIERS, images, seeded, windows_of
from fullconv.errors import GeometryError, OptionError
from fullconv.fields import Fields
from fullconv.geometry import Window
from fullconv.nets.dense import interior, rarefy, shift_and_stitch
from fullconv.nets.dense_classifier import DenseClassifier, convolutionalize
from fullconv.nets.dilated_pool import DilatedAvgPool, DilatedMaxPool, DilatedPool
from fullconv.nets.options import InputOptions
from fullconv.nets.trace import trace
from fullconv.nets.wired import Wired

PADDED = pytest.mark.parametrize("name", [name for name, each in CLASSIFIERS.items() if each.padded])
UNPADDED = pytest.mark.parametrize("name", [name for name, each in CLASSIFIERS.items() if not each.padded])


@functools.cache
def dense_of(name: str) -> DenseClassifier:
    """A specimen in float64, which no test changes."""
    specimen = CLASSIFIERS[name]
    return convolutionalize(specimen.build().double(), specimen.size, channels=specimen.channels)


@functools.cache
def rarefied(name: str, stride: int = 1) -> DenseClassifier:
    return cast(DenseClassifier, rarefy(dense_of(name), stride))


def same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-12) -> None:
    """Equal to a fraction of the largest value."""
    assert ours.shape == theirs.shape
    assert ours.numel() > 0
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@torch.no_grad()
def outputs(net: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, net(x))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sequential(*layers: nn.Module) -> nn.Module:
    return seeded(lambda: nn.Sequential(*layers))().double()


class Called(nn.Module):
    """Some layers, and what to do with them."""

    def __init__(self, call: Callable[[Any, Tensor], Any], *layers: nn.Module) -> None:
        super().__init__()
        self.call = call
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Any:
        return self.call(self.layers, x)


def called(call: Callable[[Any, Tensor], Any], *layers: nn.Module) -> nn.Module:
    return seeded(lambda: Called(call, *layers))().double()


# Without padding both are the net on every window.


@UNPADDED
def test_both_are_the_classifier_on_every_window(name: str) -> None:
    specimen, net = CLASSIFIERS[name], dense_of(name)
    x = images(2, specimen.channels, (specimen.size[0] + 5, specimen.size[1] + 2)).double()
    windows = windows_of(specimen.build().double(), x, specimen.size, 1)
    assert windows.shape[2:] == (6, 3)
    stitched, dense = shift_and_stitch(net, x), outputs(rarefied(name), x)
    # A field that is smaller than the input size fits more often.
    assert all(0 <= a - b <= 3 * (name == "odd sizes") for a, b in zip(dense.shape[2:], (6, 3), strict=True))
    same(stitched[:, :, :6, :3], windows)
    same(dense[:, :, :6, :3], windows)
    same(dense, stitched)
    rows, columns = interior(net, x)
    assert dense[:, :, rows, columns].shape == dense.shape


@pytest.mark.parametrize("name", [name for name, each in CLASSIFIERS.items() if not each.padded][::3])
def test_a_part_of_the_strides(name: str) -> None:
    """Every value of the partly rarefied net is one of the dense output."""
    stride = 2
    specimen, net = CLASSIFIERS[name], dense_of(name)
    x = images(1, specimen.channels, (specimen.size[0] + 9, specimen.size[1] + 8)).double()
    partly = rarefied(name, stride)
    assert partly.stride == (stride, stride)
    dense = shift_and_stitch(net, x)[:, :, ::stride, ::stride]
    part = outputs(partly, x)
    assert all(0 <= a - b <= ("rounded up" in name) for a, b in zip(part.shape[2:], dense.shape[2:], strict=True))
    same(part[:, :, : dense.shape[2], : dense.shape[3]], dense)


LARGE = {"alexnet": 99, "resnet": 113, "resnet with bottlenecks": 97, "convnext": 64}
"""Images so large that fields fit in."""


@pytest.mark.parametrize("name", [name for name, each in CLASSIFIERS.items() if each.padded and name != "googlenet"])
def test_padding_is_seen_at_the_border_alone(name: str) -> None:
    specimen, net = CLASSIFIERS[name], dense_of(name)
    side = LARGE.get(name, specimen.size[0] + 9)
    fields = trace(net.net, (1, specimen.channels, side, side + 2)).output.fields()
    side = max(side, *(each.size + 1 for each in fields))
    x = images(1, specimen.channels, (side, side + 2)).double()
    stitched, dense = shift_and_stitch(net, x, pixels=1 << 16), outputs(rarefied(name), x)
    height, width = (n - 2 * each.start - each.size + 1 for n, each in zip(x.shape[2:], fields, strict=True))
    assert stitched.shape == dense.shape == (1, CLASSES, height, width)
    rows, columns = interior(net, x)
    assert (rows.start, rows.stop) == (-fields[0].start, height + fields[0].start)
    assert (columns.start, columns.stop) == (-fields[1].start, width + fields[1].start)
    same(dense[:, :, rows, columns], stitched[:, :, rows, columns])
    if any(each.start for each in fields):
        assert (dense - stitched).abs().max() > 1e-3 * stitched.abs().max()
    # The units of the net itself whose fields end within the image are among them, padded as they are at the start.
    f = net.stride[0]
    stitched = stitched[:, :, : rows.stop : f, : columns.stop : f]
    same(stitched, outputs(net, x)[:, :, : stitched.shape[2], : stitched.shape[3]])


def test_a_deep_net_that_pads_and_rounds_up() -> None:
    """Away from the border each value is that of the net on the image from some pixel on."""
    net, f = dense_of("googlenet"), 16
    rows, _ = trace(net.net, (1, 3, 240, 240)).output.fields()
    first = f * -(rows.start // f)  # of the units whose fields lie within the image
    x = images(1, 3, (first + rows.start + rows.size + 9, first + rows.start + rows.size + 5)).double()
    dense = outputs(rarefied("googlenet"), x)
    for y, z in ((0, 0), (3, 4), (8, 1)):
        own = outputs(net, x[:, :, y:, z:])
        same(dense[:, :, first + y, first + z], own[:, :, first // f, first // f])


def test_a_field_that_does_not_fit_leaves_no_interior() -> None:
    net = sequential(nn.Conv2d(2, 3, 15, padding=14), nn.Conv2d(3, 2, 15, padding=14))
    x = noise(1, 2, 13, 12)
    rows, columns = interior(net, x)
    assert outputs(net, x)[:, :, rows, columns].numel() == 0
    assert (rows.start, rows.stop) == (28, 28)


# Memory, progress, batches.


class Counting(nn.Module):
    """Notes how many images come at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def fields(self, _: Tensor) -> tuple[Fields, Fields]:
        return Fields(), Fields()

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta":  # which has no memory
            self.batches.append(len(x))
        return x.clone()


@pytest.mark.parametrize("name", ["lenet", "view", "asymmetric kernels"])
def test_the_bound_of_memory_changes_nothing(name: str) -> None:
    specimen, net, counting = CLASSIFIERS[name], dense_of(name), Counting()
    x = images(2, specimen.channels, (specimen.size[0] + 3, specimen.size[1] + 6)).double()
    whole = shift_and_stitch(net, x)
    down, right = net.stride
    total, canvas = down * right, (x.shape[2] + down - 1) * (x.shape[3] + right - 1)
    for together, pixels in ((1, 1), (3, 2 * 3 * canvas), (total, 1 << 30)):
        counting.batches.clear()
        progress = Mock()
        dense = shift_and_stitch(nn.Sequential(counting, net.net), x, pixels=pixels, progress=progress)
        same(dense, whole, 1e-14)
        done = range(0, total, together)
        assert progress.call_args_list == [call(min(n + together, total), total) for n in done]
        assert counting.batches == [2 * min(together, total - n) for n in done]


def test_images_of_a_batch_do_not_mix() -> None:
    net = dense_of("lenet")
    x = images(3, 1, (30, 33)).double()
    for dense in (shift_and_stitch(net, x), outputs(rarefied("lenet"), x)):
        assert len(dense) == 3
        for number in range(3):
            same(shift_and_stitch(net, x[number : number + 1]), dense[number : number + 1])


def test_nothing_is_learned_from_shifts() -> None:
    assert not shift_and_stitch(dense_of("lenet"), images(1, 1, (28, 28)).double()).requires_grad


def test_pictures_in_rgb() -> None:
    inputs = InputOptions((90.0, 100.0, 110.0), (64.0, 64.0, 64.0), "bgr")
    net = convolutionalize(CLASSIFIERS["nn.Flatten"].build().double(), 32, names=list("abcde"), inputs=inputs)
    picture = torch.randint(0, 256, (1, 3, 35, 37), dtype=torch.uint8)
    dense = rarefy(net)
    assert isinstance(dense, DenseClassifier)
    assert (dense.names, dense.inputs, dense.input_size, dense.stride) == (net.names, inputs, (32, 32), (1, 1))
    same(shift_and_stitch(net, picture), outputs(dense, picture))
    same(shift_and_stitch(net, picture)[:, :, ::4, ::4], outputs(net, picture))
    assert interior(net, picture) == (slice(0, 4), slice(0, 6))


# The formula, by hand.


def spread(weights: Tensor, s: int) -> Tensor:
    """f'_ij = f_{i/s, j/s} if s divides both i and j, else 0."""
    wide = weights.new_zeros((*weights.shape[:2], *(s * (k - 1) + 1 for k in weights.shape[2:])))
    wide[:, :, ::s, ::s] = weights
    return wide


def spread_maximum(x: Tensor, kernel: int, s: int) -> Tensor:
    """Of taps s apart, at every position."""
    reach = s * (kernel - 1)
    height, width = x.shape[2] - reach, x.shape[3] - reach
    taps = itertools.product(range(0, reach + 1, s), repeat=2)
    return torch.stack([x[:, :, i : i + height, j : j + width] for i, j in taps]).amax(0)


def test_filters_are_spread_as_the_paper_says() -> None:
    layers = [
        nn.Conv2d(2, 4, 3),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 3, 4),
    ]
    net = sequential(*layers)
    one, two, three = (each for each in net.modules() if isinstance(each, nn.Conv2d))
    x = noise(2, 2, 41, 38)
    with torch.no_grad():
        y = spread_maximum(F.conv2d(x, one.weight, one.bias), 3, 1)
        y = F.conv2d(y, spread(two.weight, 2), two.bias).relu()
        y = F.conv2d(spread_maximum(y, 2, 2), spread(three.weight, 4), three.bias)
    same(outputs(rarefy(net, size=(41, 38)), x), y)
    same(shift_and_stitch(net, x), y)


def dilations(net: nn.Module) -> list[tuple[str, int, int]]:
    """(kind, kernel, dilation) in order."""
    found = []
    for step in cast(Wired, net).steps:
        layer = net.layers[step.target] if step.kind == "layer" else None  # type: ignore[index]  # of a Wired
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, dilation = (v[0] if isinstance(v, tuple) else v for v in (layer.kernel_size, layer.dilation))
            found.append((type(layer).__name__, int(kernel), int(dilation)))
    return found


class Unpadded(nn.Module):
    """VGG-16 without padding takes 404 pixels, the field of its fc6."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torchvision_nets.random_net("vgg16", 1 / 64, 2)
        for layer in self.net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.net.logits(x)


def test_vgg16_at_full_resolution() -> None:
    classifier = Unpadded().eval()
    net = convolutionalize(classifier, 404)
    full = cast(DenseClassifier, rarefy(net))
    assert net.stride == (32, 32)
    conv, pool = "Conv2d", "MaxPool2d"
    expected = []
    for convolutions, dilation in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 16)):
        expected += [(conv, 3, dilation)] * convolutions + [(pool, 2, dilation)]
    assert dilations(full.net) == [*expected, (conv, 7, 32), (conv, 1, 32), (conv, 1, 32)]
    x = images(1, 3, (406, 405))
    same(outputs(full, x), windows_of(classifier, x, 404, 1), 1e-4)


@functools.cache
def five_poolings() -> tuple[nn.Module, Tensor, Tensor]:
    """A net of stride 32, an image and its dense output."""
    blocks = [[nn.Conv2d(n, n + 1, 3 - n % 2), nn.ReLU(), nn.MaxPool2d(2)] for n in range(1, 6)]
    net = sequential(*itertools.chain(*blocks), nn.Conv2d(6, 2, 2))
    rows, columns = trace(net, (1, 1, 160, 160)).output.fields()
    x = noise(1, 1, rows.size + 65, columns.size + 40)
    return net, x, shift_and_stitch(net, x)


@pytest.mark.parametrize("stride", [32, 16, 8, 4, 2, 1])
def test_strides_are_kept_from_the_input_on(stride: int) -> None:
    """From 32 to 16, 8 and so on, the deepest stride goes first; fields stay."""
    net, x, dense = five_poolings()
    partly = rarefy(net, stride, size=(160, 160))
    before, after = (trace(each, (1, 1, 160, 160)).output.fields() for each in (net, partly))
    for old, new in zip(before, after, strict=True):
        assert (new.size, new.start, new.stride) == (old.size, old.start, stride)
    same(outputs(partly, x), dense[:, :, ::stride, ::stride])
    kept = [
        cast(int, layer.stride[0] if isinstance(layer.stride, tuple) else layer.stride)
        for step in cast(Wired, partly).steps
        if isinstance(layer := cast(Wired, partly).layers[step.target], nn.MaxPool2d)
    ]
    assert kept == [2] * (stride.bit_length() - 1) + [1] * (5 - (stride.bit_length() - 1))


@PADDED
def test_fields_stay(name: str) -> None:
    net = dense_of(name)
    shape = (1, net.channels, 2 * net.input_size[0], 2 * net.input_size[1])
    for old, new in zip(
        trace(net.net, shape).output.fields(), trace(rarefied(name).net, shape).output.fields(), strict=True
    ):
        assert (new.size, new.start, new.stride, new.period) == (old.size, old.start, 1, 1)


# Any nets.


@st.composite
def layers(draw: st.DrawFn) -> tuple[list[nn.Module], bool]:
    """Convolutions and poolings of two axes that may differ, and whether any is padded."""
    found: list[nn.Module] = []
    channels, padded = 2, False
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "max", "average", "pad"]))
        kernel, dilation = draw(pair), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        stride = draw(st.tuples(st.integers(1, 2), st.sampled_from([1, 1, 2, 3])))
        padding = draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 1), (1, 1)]))
        padding = (min(padding[0], kernel[0] // 2), min(padding[1], kernel[1] // 2))
        padded |= any(padding) and kind != "pad"
        if kind == "conv":
            out = draw(st.sampled_from([2, 4]))
            groups = draw(st.sampled_from([1, 2]))
            mode = draw(st.sampled_from(["zeros", "zeros", "replicate"]))
            found.append(nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, draw(st.booleans()), mode))
            channels = out
            found.append(draw(st.sampled_from([nn.ReLU(), nn.BatchNorm2d(out), nn.ReLU(inplace=True), nn.Dropout()])))
        elif kind == "max":
            found.append(nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=draw(st.booleans())))
        elif kind == "average":
            rounding, counting = draw(st.booleans()), draw(st.booleans())
            divisor = draw(st.sampled_from([None, 3]))
            found.append(nn.AvgPool2d(kernel, stride, padding, rounding, counting, divisor))
        else:
            sides = draw(st.tuples(*[st.integers(0, 2)] * 4))
            padded |= any(sides)
            found.append(nn.ConstantPad2d(sides, draw(st.sampled_from([0.0, 0.5]))))
    return found, padded


@settings(max_examples=60)
@given(layers(), st.integers(0, 9), st.integers(0, 9))
def test_any_net(drawn: tuple[list[nn.Module], bool], more: int, seed: int) -> None:
    parts, padded = drawn
    net = seeded(lambda: nn.Sequential(*parts), seed)().double()
    rows, columns = trace(net, (1, 2, 100, 400)).output.fields()
    x = noise(2, 2, rows.size + rows.step + more + 6, columns.size + columns.step + 2 * more + 6, seed=seed)
    stitched = shift_and_stitch(net, x)
    dense = outputs(rarefy(net, size=(100, 400), channels=2), x)
    inside = interior(net, x)
    assert all(n > 0 for n in stitched[:, :, inside[0], inside[1]].shape)
    same(dense[:, :, inside[0], inside[1]], stitched[:, :, inside[0], inside[1]])
    own = outputs(net, x)
    # Where it begins a map is padded alike in every phase that the net has itself.
    some = dense[:, :, : inside[0].stop : rows.step, : inside[1].stop : columns.step]
    same(some, own[:, :, : some.shape[2], : some.shape[3]])
    if not padded:
        assert dense.shape == stitched.shape
        some = stitched[:, :, :: rows.step, :: columns.step]
        same(own[:, :, : some.shape[2], : some.shape[3]], some)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_layers_that_only_pad(mode: str) -> None:
    pad = {"constant": nn.ZeroPad2d, "reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}[mode]
    net = sequential(pad((1, 2, 1, 1)), nn.Conv2d(2, 3, 3, stride=2), nn.Conv2d(3, 2, 3))
    x = noise(1, 2, 24, 27)
    rows, columns = interior(net, x)
    dense, stitched = outputs(rarefy(net), x), shift_and_stitch(net, x)
    same(dense[:, :, rows, columns], stitched[:, :, rows, columns])


def test_less_padding_at_the_end_gives_fewer_units() -> None:
    """As of causal filters: units then begin before the image, and end with it."""
    net = sequential(nn.ZeroPad2d((2, 0, 2, 0)), nn.Conv2d(2, 3, 3), nn.MaxPool2d(2))
    x = noise(1, 2, 13, 16)
    dense, stitched = outputs(rarefy(net), x), shift_and_stitch(net, x)
    assert dense.shape == (1, 3, 12, 15)
    assert stitched.shape == (1, 3, 13, 15)  # not all that are symmetric; the last row reads what was moved in
    rows, columns = interior(net, x)
    assert (rows, columns) == (slice(2, 12), slice(2, 15))
    same(dense[:, :, rows, columns], stitched[:, :, rows, columns])


def test_a_net_that_crops() -> None:
    net = called(lambda own, x: own[0](x[:, :, 2:-1, 1:-2]), nn.Conv2d(2, 3, 4, stride=3))
    x = noise(1, 2, 15, 18)
    rows, columns = interior(net, x)
    assert (rows.start, columns.start) == (0, 0)
    dense, stitched = outputs(rarefy(net), x), shift_and_stitch(net, x)
    height, width = dense.shape[2:]
    same(stitched[:, :, :height, :width], dense)


FUNCTIONS: dict[str, Callable[[Any, Tensor], Any]] = {
    "functions": lambda own, x: F.max_pool2d(F.conv2d(x, own[0].weight, own[0].bias, 2).relu(), 2, 1),
    "by name": lambda own, x: F.conv2d(input=x, weight=own[0].weight, stride=2, groups=1),
    "a convolution after a pooling": lambda own, x: F.conv2d(F.max_pool2d(x, 2), own[0].weight, None, 1, 1, 2),
    "average": lambda own, x: own[0](F.avg_pool2d(x, kernel_size=3, stride=2)),
    "groups": lambda own, x: F.conv2d(F.avg_pool2d(x, 2), own[1].weight, None, 1, 0, 1, 2),
    "valid": lambda own, x: F.conv2d(F.avg_pool2d(x, 2), own[0].weight, padding="valid"),
    "same": lambda own, x: F.conv2d(F.avg_pool2d(x, 2), own[0].weight, padding="same"),
    "same, of an even kernel with gaps": lambda own, x: F.conv2d(F.max_pool2d(x, 2), own[2].weight, None, 1, "same", 2),
    "padded": lambda own, x: own[0](F.pad(F.max_pool2d(x, 2), (1, 1))),
    "channels padded": lambda own, x: F.pad(own[0](F.max_pool2d(x, 2)), (0, 0, 0, 0, 1, 2)),
    "joined": lambda own, x: torch.cat([own[0](F.max_pool2d(x, 2)), own[0](F.avg_pool2d(x, 2))], 1),
    "one layer twice": lambda own, x: own[3](F.max_pool2d(own[3](F.max_pool2d(x, 2)), 2)),
    "channels last": lambda own, x: own[0](own[4](F.max_pool2d(x, 2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
    "indices of a pooling that stays": lambda own, x: own[0](own[5](x)[0]),
    "in place": lambda own, x: torch.relu_(own[0](F.max_pool2d(x, 2))).mul_(2),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_other_ways_to_write_a_net(name: str) -> None:
    parts = [
        nn.Conv2d(2, 3, 3), nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 2), nn.Conv2d(2, 2, 2), nn.Linear(2, 2),
        nn.MaxPool2d(3, 1, return_indices=True),
    ]  # fmt: skip
    net = called(FUNCTIONS[name], *parts)
    x = noise(2, 2, 20, 23)
    rows, columns = interior(net, x)
    dense, stitched = outputs(rarefy(net, channels=2), x), shift_and_stitch(net, x)
    same(dense[:, :, rows, columns], stitched[:, :, rows, columns])
    if name == "one layer twice":
        shared = rarefy(net, channels=2)
        assert len(list(shared.parameters())) == 2


def test_strides_that_differ() -> None:
    net = sequential(nn.Conv2d(2, 3, 3, stride=(2, 1)), nn.MaxPool2d((2, 3), stride=(2, 3)), nn.Conv2d(3, 2, 2))
    x = noise(1, 2, 23, 22)
    dense = shift_and_stitch(net, x)
    same(outputs(rarefy(net), x), dense)
    assert outputs(net, x).shape[2:] == (dense[:, :, ::4].shape[2], dense[:, :, :, ::3].shape[3])
    same(outputs(net, x), dense[:, :, ::4, ::3])


def test_a_rarefied_net_can_be_rarefied() -> None:
    net = dense_of("lenet")
    once = cast(DenseClassifier, rarefy(rarefy(net, 2), 1))
    x = images(1, 1, (31, 33)).double()
    same(outputs(once, x), shift_and_stitch(net, x))


def test_the_stride_that_a_net_has_already() -> None:
    net = dense_of("lenet")
    x = images(1, 1, (40, 33)).double()
    assert torch.equal(outputs(rarefy(net, 4), x), outputs(net, x))


# What is left as it was.


@pytest.mark.parametrize("name", ["lenet", "resnet", "convnext"])
def test_the_net_stays_as_it_was_and_parts_keep_their_modes(name: str) -> None:
    specimen = CLASSIFIERS[name]
    net = convolutionalize(specimen.build(), specimen.size, channels=specimen.channels)
    for part in net.modules():
        part.training = not isinstance(part, nn.BatchNorm2d)  # frozen statistics in a net that learns
    next(net.parameters()).requires_grad = False
    modes, before = [part.training for part in net.modules()], {k: v.clone() for k, v in net.state_dict().items()}
    dense = rarefy(net)
    assert [part.training for part in net.modules()] == modes
    assert dense.training
    assert all(part.training is not isinstance(part, nn.BatchNorm2d) for part in dense.modules())
    learned = [sum(each.numel() for each in part.parameters() if each.requires_grad) for part in (net, dense)]
    assert learned[0] == learned[1] < sum(each.numel() for each in net.parameters())
    for state in dense.state_dict().values():
        state.zero_()
    after = net.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(part.training for part in rarefy(net.eval()).modules())


def test_a_rarefied_net_learns_what_the_net_learns() -> None:
    net = sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.Conv2d(3, 2, 3, bias=False))
    dense = rarefy(net)
    x = noise(1, 2, 14, 15)
    net(x).sum().backward()
    dense(x)[:, :, ::2, ::2].sum().backward()
    for theirs, ours in zip(net.parameters(), dense.parameters(), strict=True):
        assert theirs.grad is not None
        assert ours.grad is not None
        same(ours.grad, theirs.grad)


# Poolings with gaps.


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, Window]:
    number = st.integers(1, 3)
    return tuple(Window(draw(number), 1, draw(st.integers(0, 4)), draw(number)) for _ in range(2))  # type: ignore[return-value]


def naive(x: Tensor, rows: Window, columns: Window, pool: Callable[[list[float], int], float]) -> Tensor:
    """Value by value; `pool` gets what lies in the map, and how many taps there are."""
    height, width = (w.output_size(n) for w, n in zip((rows, columns), x.shape[2:], strict=True))
    made = x.new_empty((*x.shape[:2], height, width))
    for n, c, i, j in itertools.product(*map(range, made.shape)):
        taps = [
            (
                i * rows.stride - rows.padding + a * rows.dilation,
                j * columns.stride - columns.padding + b * columns.dilation,
            )
            for a in range(rows.kernel)
            for b in range(columns.kernel)
        ]
        inside = [float(x[n, c, y, z]) for y, z in taps if 0 <= y < x.shape[2] and 0 <= z < x.shape[3]]
        made[n, c, i, j] = pool(inside, len(taps))
    return made


@settings(max_examples=40)
@given(windows(), st.integers(1, 6), st.integers(1, 6))
def test_pooling_with_gaps(drawn: tuple[Window, Window], height: int, width: int) -> None:
    assume(all(n + 2 * w.padding >= w.extent for n, w in zip((height, width), drawn, strict=True)))
    x = noise(2, 2, height, width)
    rows, columns = drawn
    options = tuple(zip(*((each.kernel, each.padding, each.dilation) for each in drawn), strict=True))
    highest = naive(x, rows, columns, lambda inside, _: max(inside, default=-torch.inf))
    assert torch.equal(DilatedMaxPool(*options)(x), highest)
    ours = DilatedAvgPool(*options)(x)
    torch.testing.assert_close(ours, naive(x, rows, columns, lambda inside, taps: sum(inside) / taps))
    ours = DilatedAvgPool(*options, divisor_override=5)(x)
    torch.testing.assert_close(ours, naive(x, rows, columns, lambda inside, _: sum(inside) / 5))
    ours = DilatedAvgPool(*options, count_include_pad=False)(x)
    theirs = naive(x, rows, columns, lambda inside, _: sum(inside) / len(inside) if inside else torch.nan)
    torch.testing.assert_close(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("options", [(True, None), (False, None), (True, 7), (False, 7)])
def test_pooling_without_gaps_is_that_of_torch(options: tuple[bool, int | None]) -> None:
    x = noise(2, 3, 9, 10)
    theirs = nn.AvgPool2d((3, 2), 1, (1, 1), False, *options)
    same(DilatedAvgPool((3, 2), (1, 1), (1, 1), *options)(x), theirs(x))
    assert torch.equal(DilatedMaxPool((3, 2), (1, 1))(x), F.max_pool2d(x, (3, 2), 1, (1, 1)))


def test_poolings_tell_what_they_are() -> None:
    options = (3, 2), (1, 0), (4, 1)
    assert repr(DilatedMaxPool(*options)) == "DilatedMaxPool(kernel_size=(3, 2), padding=(1, 0), dilation=(4, 1))"
    for pool in (DilatedMaxPool(*options), DilatedAvgPool(*options)):
        assert isinstance(pool, DilatedPool)
        rows, columns = trace(nn.Sequential(pool), (1, 1, 30, 30)).output.fields()
        assert (rows.start, rows.size, rows.stride) == (-1, 9, 1)
        assert (columns.start, columns.size, columns.stride) == (0, 2, 1)


# Refusals.

STRIDED = nn.Conv2d(2, 2, 3, stride=2)

CANNOT = "cannot rarefy: "


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            nn.Sequential(STRIDED, nn.AdaptiveAvgPool2d(1)),
            "rarefaction needs a net of local layers: 1 (AdaptiveAvgPool2d) pools over the whole map",
        ),
        (
            nn.Sequential(STRIDED, nn.Upsample(scale_factor=2)),
            "rarefaction needs a net that only subsamples; leave the upsampling at its end out",
        ),
        (
            Called(lambda own, x: own[0](F.avg_pool2d(x, 2))[:, :, ::2, ::2], STRIDED),
            CANNOT + "getitem (getitem) moves positions by itself, which cannot be dilated; use convolutions",
        ),
        (
            Called(lambda own, x: own[0](x)[:, :, 1:], STRIDED),
            CANNOT + "getitem (getitem) moves positions by itself, which cannot be dilated; use convolutions",
        ),
        (
            nn.Sequential(STRIDED, nn.LPPool2d(2, 2, stride=1)),
            CANNOT + "1 (LPPool2d) cannot be dilated; rarefaction takes convolutions, maximum and average pooling",
        ),
        (
            nn.Sequential(STRIDED, nn.ConvTranspose2d(2, 2, 3)),
            CANNOT + "1 (ConvTranspose2d) cannot be dilated; rarefaction takes convolutions",
        ),
        (
            nn.Sequential(STRIDED, nn.Conv2d(2, 2, 2, padding="same")),
            CANNOT + "1 (Conv2d) pads its two sides differently; give the padding as a number",
        ),
        (
            Called(lambda own, x: own[0](own[1](x)[0]), STRIDED, nn.MaxPool2d(2, return_indices=True)),
            CANNOT + "layers.1 (MaxPool2d) gives the indices of its maxima, which are of the subsampled map",
        ),
        (
            nn.Sequential(STRIDED, nn.ReflectionPad2d(1)),
            CANNOT + "1 (ReflectionPad2d) pads with the map's own values; only constants can be dilated",
        ),
        (
            Called(lambda own, x: own[1](own[0](x).transpose(2, 3)), STRIDED, nn.Conv2d(2, 2, 3)),
            CANNOT + "layers.1 (Conv2d) works on a map that is not (N, C, H, W); permute it before",
        ),
        (
            Called(lambda own, x: own[0](x) + own[1](x), nn.Conv2d(2, 2, 3, 2, 1), nn.MaxPool2d(2)),
            CANNOT + "without their strides, maps that are joined differ in size, for they were padded otherwise (Run",
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_nets_that_cannot_be_rarefied(net: nn.Module, message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        rarefy(net.eval(), channels=2, size=(36, 36))
    assert str(caught.value).startswith(message)


def test_maps_that_were_subsampled_in_different_orders() -> None:
    net = Called(lambda own, x: own[1](own[0](x)) + own[0](own[1](x)), nn.MaxPool2d(2), nn.MaxPool2d(3))
    with pytest.raises(GeometryError) as caught:
        rarefy(net, 2, channels=2, size=(36, 36))
    assert str(caught.value) == CANNOT + (
        "add (add) joins maps that were subsampled in different orders; keep their strides alike"
    )
    same(outputs(rarefy(net, 1, channels=2, size=(36, 36)), x := noise(1, 2, 24, 25)), shift_and_stitch(net, x))


def test_weights_that_are_computed() -> None:
    conv = nn.Conv2d(2, 2, 3)
    prune.l1_unstructured(conv, "weight", 0.5)  # type: ignore[no-untyped-call]  # torch declares no types here
    with pytest.raises(GeometryError, match=r"1 \(Conv2d\) computes its weights anew in every pass; remove that param"):
        rarefy(nn.Sequential(STRIDED, conv))
    same(outputs(rarefy(nn.Sequential(conv, STRIDED), 2), x := noise(1, 2, 9, 9).float()), outputs(
        nn.Sequential(conv, STRIDED), x
    ))  # fmt: skip


@pytest.mark.parametrize("stride", [3, 0, -1, 8, 64])
def test_strides_that_do_not_divide_that_of_the_net(stride: int) -> None:
    with pytest.raises(OptionError) as caught:
        rarefy(dense_of("lenet"), stride)
    assert str(caught.value) == f"stride {stride}; expected a divisor of the net's, 4 (vertical) and 4"


def test_a_stride_that_the_order_of_layers_does_not_allow() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 3, stride=3), nn.MaxPool2d(2))
    with pytest.raises(
        OptionError, match="an output stride of 2 cannot be had from this net's strides: 1 and 1 are next"
    ):
        rarefy(net, 2)
    assert trace(rarefy(net, 3), (1, 2, 60, 60)).output.fields()[0].stride == 3


@pytest.mark.parametrize(
    ("net", "size", "message"),
    [
        (nn.Sequential(STRIDED, nn.Upsample(scale_factor=2)), 20, "shift-and-stitch needs a net that only subsamples"),
        (
            nn.Sequential(STRIDED, nn.InstanceNorm2d(2)), 20,
            "shift-and-stitch needs a net of local layers: 1 (InstanceNorm2d) normalises by statistics of the",
        ),
        (nn.Conv2d(2, 2, 9, padding=4), 8, None),
        (nn.MaxPool2d(3, 2, ceil_mode=True), 2, "2 pixels for a field of 3; use a larger image"),
        (nn.Conv2d(2, 2, 9), 8, "Conv2d cannot be traced at 1x2x8x8 (RuntimeError: "),
        (Called(lambda own, x: (own[0](x), x), STRIDED), 20, "Called returns several values; wrap it so that"),
    ],
)  # fmt: skip
def test_what_shift_and_stitch_refuses(net: nn.Module, size: int, message: str | None) -> None:
    x = torch.zeros(1, 2, size, size)
    if message is None:
        assert shift_and_stitch(net, x).shape[2:] == (size, size)
        return
    with pytest.raises(GeometryError) as caught:
        shift_and_stitch(net, x)
    assert str(caught.value).startswith(message)


def test_what_has_no_interior_is_refused_alike() -> None:
    with pytest.raises(GeometryError, match="a dense output needs a net that only subsamples"):
        interior(nn.Upsample(scale_factor=2), torch.zeros(1, 2, 8, 8))
    with pytest.raises(GeometryError, match="a dense output needs a net of local layers"):
        interior(nn.AdaptiveAvgPool2d(1), torch.zeros(1, 2, 8, 8))


def test_channels_that_nothing_tells() -> None:
    with pytest.raises(OptionError, match="no convolution tells the channels of the input; give channels="):
        rarefy(nn.MaxPool2d(2))


def test_batch_norm_in_training_mode_is_refused() -> None:
    net = nn.Sequential(STRIDED, nn.BatchNorm2d(2)).train()
    for dense in (rarefy, lambda net: shift_and_stitch(net, torch.zeros(1, 2, 9, 9))):
        with pytest.raises(GeometryError, match="takes statistics of the batch in training mode; call eval"):
            dense(net)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 40, 40), "a tensor of shape (3, 40, 40); expected an image (N, C, H, W)"),
        ("photo.jpg", "a str; expected an image (N, C, H, W)"),
        (torch.zeros(1, 3, 40, 40, dtype=torch.uint8), "an image of torch.uint8; expected floating point numbers"),
    ],
)
def test_what_is_no_image(image: Any, message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        shift_and_stitch(nn.Conv2d(3, 2, 3), image)
    assert str(caught.value).startswith(message)
