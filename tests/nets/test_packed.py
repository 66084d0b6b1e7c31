"""Packed convolutions against torch's plain layers in evaluation mode."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullconv.errors import OptionError
from fullconv.geometry import Window
from fullconv.nets.branches import Branches, Residual
from fullconv.nets.packed import PackedConvolution, packed
from fullconv.nets.paths import Windowed, windows

FLOAT32 = torch.float32


@pytest.fixture(params=["oneDNN", "without oneDNN"])
def onednn(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether weights are laid out for the processor."""
    there = request.param == "oneDNN"
    with mock.patch.object(torch._C, "_has_mkldnn", there):
        yield there


def lively(net: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and weights of batch norms that scale and move, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.normal_(0, 1, generator=generator)
            layer.running_var.uniform_(0.2, 3, generator=generator)
            if layer.affine:
                layer.weight.data.normal_(1, 0.5, generator=generator)
                layer.bias.data.normal_(generator=generator)
    return net.eval()


def inception() -> Branches:
    return Branches(
        {"one": nn.Conv2d(8, 3, 1), "relu1": nn.ReLU(True)},
        {
            "two": nn.Conv2d(8, 2, 1, bias=False), "bn2": nn.BatchNorm2d(2), "relu2": nn.ReLU(),
            "conv": nn.Conv2d(2, 5, 3, padding=1),
        },
        {"pool": nn.MaxPool2d(3, 1, 1), "projection": nn.Conv2d(8, 1, 1)},
    )  # fmt: skip


def block() -> Residual:
    path = nn.Sequential(nn.Conv2d(9, 9, 3, padding=1, bias=False), nn.BatchNorm2d(9), nn.ReLU(inplace=True))
    return Residual({"path": path, "conv2": nn.Conv2d(9, 9, 3, padding=1), "bn2": nn.BatchNorm2d(9)}, {})


@st.composite
def rows_of_layers(draw: st.DrawFn) -> nn.Sequential:
    """Up to three convolutions, each with or without bias, batch norm (affine or not), ReLU, dropout and pooling."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, channels]))
        out = groups * draw(st.integers(1, 4 if groups == 1 else 2))
        kernel, padding = (draw(st.integers(1, 3)), draw(st.integers(1, 3))), draw(st.sampled_from([1, (2, 0), 1]))
        layers.append(
            nn.Conv2d(channels, out, kernel, draw(st.sampled_from([1, 1, 2])), padding, 1, groups, draw(st.booleans()))
        )
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(out, affine=draw(st.booleans())))
        layers += draw(
            st.sampled_from(
                [[], [nn.ReLU()], [nn.Dropout(0.5), nn.ReLU(inplace=True)], [nn.Identity(), nn.Dropout2d()]]
            )
        )
        layers += draw(st.sampled_from([[], [nn.MaxPool2d(2, 2, ceil_mode=True)], [nn.ReLU(), nn.MaxPool2d(3, 1, 1)]]))
        channels = out
    return nn.Sequential(*layers)


def both(net: nn.Module, x: Tensor, kind: torch.dtype = FLOAT32) -> tuple[Tensor, Tensor]:
    """What the plain layers make of an image in float64, and the packed ones in float32."""
    with torch.inference_mode():
        return copy.deepcopy(net).double()(x.double()), packed([net], kind)(x)


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-6) -> bool:
    """Relative to the largest number."""
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


class TestPacked:
    @settings(max_examples=100)
    @given(rows_of_layers(), st.integers(64, 80), st.integers(64, 80), st.integers(0, 9), st.booleans())
    def test_is_the_same_function(self, net: nn.Sequential, height: int, width: int, seed: int, there: bool) -> None:
        lively(net, seed)
        x = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
        with mock.patch.object(torch._C, "_has_mkldnn", there):
            expected, found = both(net, x)
        assert found.shape == expected.shape
        assert close(found, expected)

    def test_branches_within_branches(self, onednn: bool) -> None:
        net = lively(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(inception()), block(), nn.Conv2d(9, 4, 1)))
        expected, found = both(net, torch.randn(2, 3, 13, 17))
        assert close(found, expected)

    def test_nothing_but_convolutions_and_poolings_is_left(self) -> None:
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Dropout(), nn.BatchNorm2d(4), nn.Identity(), nn.ReLU(), nn.Dropout2d(),
            nn.Sequential(nn.MaxPool2d(2), nn.Sequential(nn.Conv2d(4, 4, 3)), nn.ReLU()),
        ).eval()  # fmt: skip
        first, pool, last = packed([net], FLOAT32)
        assert isinstance(first, PackedConvolution)
        assert isinstance(pool, nn.MaxPool2d)
        assert isinstance(last, PackedConvolution)
        assert first.relu
        assert last.relu

    def test_a_second_relu_is_kept(self) -> None:
        assert len(packed([nn.Conv2d(1, 1, 1), nn.ReLU(), nn.ReLU()], FLOAT32)) == 2

    @pytest.mark.parametrize("channels", [8, 64])
    def test_bfloat16_is_as_close_as_autocast(self, onednn: bool, channels: int) -> None:
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, channels, 3),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(channels, 8, 3),
        ]
        net = lively(nn.Sequential(*layers))
        x = torch.randn(2, 3, 21, 30)
        exact, found = both(net, x, torch.bfloat16)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            autocast = net(x).double()
        assert found.dtype == torch.bfloat16
        assert not close(found.double(), exact, 1e-5), "not rounded at all"
        off = (found.double() - exact).abs().max()
        assert off <= 1.5 * (autocast - exact).abs().max()  # the batch norm is rounded with the weights, not by itself
        assert close(found.double(), autocast, 2e-2)  # bfloat16 has 8 bits; two layers

    @pytest.mark.parametrize("kind", [FLOAT32, torch.bfloat16])
    def test_the_weights_are_copies(self, onednn: bool, kind: torch.dtype) -> None:
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(True)).eval()
        before = {key: value.clone() for key, value in net.state_dict().items()}
        ready, x = packed([net], kind), torch.randn(1, 3, 9, 9)
        with torch.inference_mode():
            expected = ready(x)
        for key, value in net.state_dict().items():
            assert torch.equal(value, before[key])
        with torch.no_grad():
            for value in net.state_dict().values():
                value.add_(1)
        with torch.inference_mode():
            assert torch.equal(ready(x), expected)

    def test_batch_norm_without_running_statistics(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
        message = "batch norm without running statistics depends on the whole image; train it with them"
        with pytest.raises(OptionError, match=message):
            packed([net], FLOAT32)


class TestPackedConvolution:
    def test_other_padding_than_its_own(self, onednn: bool) -> None:
        layer = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 4), groups=2)
        (ready,) = packed([layer], FLOAT32)
        x = torch.randn(1, 4, 10, 12)
        with torch.inference_mode():
            assert close(
                ready.padded(x, (0, 3)), nn.functional.conv2d(x, layer.weight, layer.bias, (2, 1), (0, 3), 1, 2)
            )
            assert close(ready(x), layer(x))

    def test_any_type_goes_in(self, onednn: bool) -> None:
        (ready,) = packed([nn.Conv2d(2, 2, 3)], FLOAT32)
        x = torch.randint(0, 5, (1, 2, 6, 6))
        with torch.inference_mode():
            expected = ready(x.float())
            for kind in (torch.uint8, torch.float64, torch.bfloat16):
                assert torch.equal(ready(x.to(kind)), expected)

    def test_tells_its_window(self) -> None:
        (ready,) = packed([nn.Conv2d(6, 8, (3, 5), (1, 2), (4, 0), groups=2), nn.ReLU()], FLOAT32)
        assert isinstance(ready, Windowed)
        assert windows(ready) == (Window(3, padding=4), Window(5, 2))
        assert (ready.channels, ready.multiplications) == (8, 8 * 3 * 3 * 5)
        assert "8, Window(kernel=3" in repr(ready)
        assert "relu=True, torch.float32" in repr(ready)
