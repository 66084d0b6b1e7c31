"""Layers on rectangles against torch's own layers on the whole map, cut; exact, since all sums are of small numbers."""

from __future__ import annotations

from math import prod
from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fullconv.errors import GeometryError
from fullconv.nets.branches import Branches, Residual
from fullconv.nets.packed import packed
from fullconv.nets.rectangles import (
    Rectangle,
    Size,
    multiplications,
    on_rectangle,
    part,
    read_by,
    size_after,
    whole,
    within,
)
from fullconv.nets.trunks.response_norm import ResponseNorm

CHANNELS = 4
pair = st.tuples


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    kernel = draw(pair(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.just((1, 1)) | pair(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.sampled_from([(0, 0), (1, 1), (2, 1), (0, 3), (9, 9)]))
    # oneDNN ends the process where a strided and dilated kernel slides over a map one cell wide; no net here has one.
    dilation = draw(pair(st.integers(1, 2), st.integers(1, 2))) if stride == (1, 1) else (1, 1)
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, dilation, groups=draw(st.sampled_from([1, 2, 4])))


@st.composite
def poolings(draw: st.DrawFn) -> nn.Module:
    kernel = draw(pair(st.integers(2, 4), st.integers(1, 4)))
    stride = draw(st.sampled_from([None, 1, 2, (2, 3)]))
    padding = draw(pair(*(st.integers(0, each // 2) for each in kernel)))
    return nn.MaxPool2d(kernel, stride, padding, draw(st.sampled_from([1, 1, 2])), ceil_mode=draw(st.booleans()))


@st.composite
def branches(draw: st.DrawFn) -> nn.Module:
    """Beside each other, on one grid: an inception module, or a residual block with or without a projection."""
    stride = draw(st.sampled_from([1, 1, 2]))

    def same(kernel: int, step: int = 1) -> nn.Module:
        return nn.Conv2d(CHANNELS, CHANNELS, kernel, step, kernel // 2)

    deep = {"a": same(1), "b": nn.ReLU(), "c": same(draw(st.sampled_from([1, 3, 5])), stride)}
    other = {"d": same(3, stride), "e": nn.ReLU()}
    if draw(st.booleans()):
        shortcut = {} if stride == 1 and draw(st.booleans()) else {"d": same(1, stride)}
        return Residual(deep, shortcut)
    pooled = {"f": nn.MaxPool2d(3, stride, 1, ceil_mode=stride == 1), "g": same(1)}
    return nn.Sequential(Branches(deep, other, pooled), nn.Conv2d(3 * CHANNELS, CHANNELS, 1))


one_layer = convolutions() | poolings() | branches() | st.builds(nn.ReLU) | st.builds(nn.Identity)


@st.composite
def cases(draw: st.DrawFn, layers: st.SearchStrategy[nn.Module]) -> tuple[nn.Sequential, Tensor]:
    """Up to four layers, one within another, with small whole numbers as weights, and an image that fits them."""
    found = draw(st.lists(layers, min_size=1, max_size=4))
    net = nn.Sequential(*found[:1], nn.Sequential(*found[1:]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    for parameter in net.parameters():
        parameter.data = torch.randint(-1, 2, parameter.shape, generator=generator).float()
    size = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    try:
        assume(prod(size_after(net, size)) <= 40**2)
    except GeometryError:
        assume(False)
    return net, torch.randint(-3, 4, (2, CHANNELS, *size), generator=generator).float()


def some(draw: st.DrawFn, size: Size) -> Rectangle:
    (top, left), (h, w) = [draw(st.integers(0, n - 1)) for n in size], size
    return (top, draw(st.integers(top + 1, h))), (left, draw(st.integers(left + 1, w)))


def sliced(x: Tensor, rectangle: Rectangle) -> Tensor:
    rows, columns = rectangle
    return x[:, :, slice(*rows), slice(*columns)]


def full(net: nn.Module, x: Tensor) -> Tensor:
    """By torch's own layers."""
    with torch.inference_mode():
        y: Tensor = net(x)
    return y


class TestOnRectangle:
    @settings(max_examples=300)
    @given(st.data(), cases(one_layer))
    def test_is_that_part_of_the_whole(self, data: st.DataObject, case: tuple[nn.Sequential, Tensor]) -> None:
        net, x = case
        expected = full(net, x)
        assume(bool(expected.isfinite().all()))  # a dilated pooling may meet padding alone
        assert expected.abs().max() < 2**24, "sums are no longer exact"
        size = x.shape[2], x.shape[3]
        assert size_after(net, size) == expected.shape[2:]
        outputs = some(data.draw, (expected.shape[2], expected.shape[3]))
        reads = read_by(net, outputs, size)
        assert all(0 <= start <= stop <= n for (start, stop), n in zip(reads, size, strict=True))
        held = tuple(
            (data.draw(st.integers(0, start)), data.draw(st.integers(stop, n)))
            for (start, stop), n in zip(reads, size, strict=True)
        )
        given = sliced(x, (held[0], held[1])).clone()
        with torch.inference_mode():
            found = on_rectangle(packed([net], torch.float32), given, (held[0], held[1]), outputs, size)
        assert torch.equal(found, sliced(expected, outputs))

    @pytest.mark.parametrize(
        "outputs", [((0, 2), (0, 3)), ((21, 24), (20, 24)), ((0, 1), (10, 13)), ((0, 24), (23, 24))]
    )
    def test_of_padding_alone(self, outputs: Rectangle) -> None:
        """Nothing is read, by two layers each padded beyond its kernel, and nothing need be held."""
        layers = nn.Sequential(nn.Conv2d(2, 3, 3, padding=6), nn.Conv2d(3, 2, 3, padding=5))
        for parameter in layers.parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape).float()
        x = torch.randint(-3, 4, (1, 2, 6, 6)).float()
        expected = full(layers, x)
        assert expected.shape == (1, 2, 24, 24)
        rows, columns = read_by(layers, outputs, (6, 6))
        assert rows[0] == rows[1] or columns[0] == columns[1]
        nothing = sliced(x, (rows, columns))
        with torch.inference_mode():
            found = on_rectangle(packed(layers, torch.float32), nothing, (rows, columns), outputs, (6, 6))
        assert torch.equal(found, sliced(expected, outputs))

    def test_response_norm_is_of_each_cell(self) -> None:
        layers = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), ResponseNorm())
        x = 100 * torch.randn(1, 2, 9, 11)  # so large that the norm counts
        outputs = ((2, 5), (0, 7))
        reads = read_by(layers, outputs, (9, 11))
        with torch.inference_mode():
            found = on_rectangle(packed(layers, torch.float32), sliced(x, reads), reads, outputs, (9, 11))
        torch.testing.assert_close(found, sliced(full(layers, x), outputs), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (nn.AvgPool2d(2), "AvgPool2d is not known on a part of a map; expected packed convolutions"),
            (nn.Conv2d(1, 1, 2), "Conv2d is not known on a part of a map; expected packed convolutions"),
            (nn.Softmax(dim=1), "the geometry of Softmax is not known"),
        ],
        ids=["average pooling", "not packed", "softmax"],
    )
    def test_layers_that_are_not_known(self, layer: nn.Module, message: str) -> None:
        with pytest.raises(GeometryError, match=message) as caught:
            on_rectangle(layer, torch.zeros(1, 1, 4, 4), whole((4, 4)), ((0, 1), (0, 1)), (4, 4))
        assert "\n" not in str(caught.value)


class TestReadBy:
    @settings(max_examples=60)
    @given(st.data(), cases(convolutions()))
    def test_is_what_a_gradient_reaches(self, data: st.DataObject, case: tuple[nn.Sequential, Tensor]) -> None:
        """Positive weights: nothing cancels. Strides may leave cells unread, at the edges of what is read too."""
        net, x = case
        for parameter in net.parameters():
            parameter.data = torch.ones_like(parameter)
        x = x.double().requires_grad_()
        y = net.double()(x)
        outputs = some(data.draw, (y.shape[2], y.shape[3]))
        torch.autograd.backward(sliced(y, outputs).sum())
        assert x.grad is not None
        seen = x.grad[0].sum(0).nonzero()
        for axis, (start, stop) in enumerate(read_by(net, outputs, (x.shape[2], x.shape[3]))):
            if len(seen):
                lowest, highest = int(seen[:, axis].min()), int(seen[:, axis].max())
                assert start <= lowest
                assert highest < stop
                if all(layer.stride == (1, 1) and layer.dilation == (1, 1) for layer in _convolutions(net)):
                    assert (start, stop) == (lowest, highest + 1)

    def test_pointwise_layers_read_what_they_give(self) -> None:
        assert read_by(nn.ReLU(), ((1, 3), (0, 2)), (5, 5)) == ((1, 3), (0, 2))
        assert size_after(nn.Dropout(), (5, 7)) == (5, 7)


class TestMultiplications:
    @settings(max_examples=100)
    @given(st.data(), cases(one_layer))
    def test_are_those_of_the_convolutions_that_run(
        self, data: st.DataObject, case: tuple[nn.Sequential, Tensor]
    ) -> None:
        """torch counts two operations for each; its counter does not know oneDNN's own convolutions."""
        net, x = case
        size = x.shape[2], x.shape[3]
        outputs = some(data.draw, size_after(net, size))
        with mock.patch.object(torch._C, "_has_mkldnn", False):
            ready = packed([net], torch.float32)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            on_rectangle(ready, x, whole(size), outputs, size)
        assert 2 * len(x) * multiplications(ready, outputs, size) == counter.get_total_flops()

    def test_of_all_outputs_are_those_of_the_plain_layers(self) -> None:
        net = nn.Sequential(
            nn.Conv2d(4, 8, (3, 5), padding=(1, 2)), nn.ReLU(), nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(8, 8, 3, 1, 2, 2, groups=4),
            Branches({"a": nn.Conv2d(8, 2, 1), "b": nn.Conv2d(2, 6, 3, padding=1)}, {"c": nn.Conv2d(8, 2, 1)}),
        )  # fmt: skip
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            net(torch.zeros(1, 4, 15, 12))
        ready = packed(net, torch.float32)
        assert 2 * multiplications(ready, whole(size_after(ready, (15, 12))), (15, 12)) == counter.get_total_flops()


@given(st.integers(-9, 20), st.integers(0, 12), st.integers(1, 9))
def test_within_are_the_cells_that_exist(start: int, length: int, size: int) -> None:
    first, last = within((start, start + length), size)
    assert 0 <= first <= last <= size
    assert list(range(first, last)) == [cell for cell in range(start, start + length) if 0 <= cell < size]
    if first == last and length:
        assert first == (0 if start < 0 else size)


def test_a_part_is_a_view() -> None:
    x = torch.arange(24.0).view(1, 1, 4, 6)
    found = part(x, ((10, 14), (20, 26)), ((11, 13), (22, 25)))
    assert torch.equal(found, x[:, :, 1:3, 2:5])
    assert found.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def _convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
