"""Stacked upsampling against transposed convolutions and PReLUs written one after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_oracle import surgery
from fullconv.errors import GeometryError
from fullconv.geometry import Window, alignment, output_size, upsampling
from fullconv.nets import upsample
from fullconv.nets.stacked import StackedUpsampling
from fullconv.nets.upsample import BilinearUpsampling, Interval

MAPS = 3


def up(kernel: int, stride: int) -> Window:
    return Window(kernel, stride, transposed=True)


def stack(window: Window, seed: int = 0) -> StackedUpsampling:
    """With weights of quarters and slopes of powers of 2: sums of small whole numbers are exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    layer = StackedUpsampling(MAPS, window)
    with torch.no_grad():
        for each in layer.layers:
            each.weight.copy_(torch.randint(-2, 3, each.weight.shape, generator=generator) / 4)
        for each in layer.activations:
            each.weight.copy_(2.0 ** torch.randint(-2, 2, (MAPS,), generator=generator))
    return layer


def plain(layer: StackedUpsampling, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
    """All of every map in float64, on a margin of zeros, of which the rectangle is a slice."""
    x = x.double()
    for number, each in enumerate(layer.layers):
        if number:
            x = F.prelu(x, layer.activations[number - 1].weight.double())
        x = F.conv_transpose2d(x, each.weight.double(), stride=2)
    margin = 40
    whole = F.pad(x, [margin] * 4)
    return whole[:, :, rows[0] + margin : rows[1] + margin, columns[0] + margin : columns[1] + margin]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, StackedUpsampling, Interval, Interval]:
    """Scores, a stack of 0 to 3 layers, and a rectangle that may reach beyond the upsampled map."""
    factor = 1 << draw(st.integers(0, 3))
    layer = stack(up(2 * factor - draw(st.integers(0, 1)), factor), draw(st.integers(0, 9)))
    shape = [draw(st.integers(1, 2)), MAPS, draw(st.integers(1, 4)), draw(st.integers(1, 4))]
    x = torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))).float()
    starts = [draw(st.integers(-9, layer.window.output_size(n) + 6)) for n in shape[2:]]
    rows, columns = ((start, start + draw(st.integers(1, 30))) for start in starts)
    return x, layer, rows, columns


@given(cases())
def test_layers_and_slopes_one_after_the_other(case: tuple[Tensor, StackedUpsampling, Interval, Interval]) -> None:
    """Bit for bit, in any rectangle: every sum is exact."""
    x, layer, rows, columns = case
    y, expected = layer(x, rows, columns), plain(layer, x, rows, columns)
    assert y.dtype == torch.float32
    assert y.shape == expected.shape
    assert torch.equal(y.double(), expected)


@given(cases())
def test_gradients(case: tuple[Tensor, StackedUpsampling, Interval, Interval]) -> None:
    x, layer, rows, columns = case
    upstream = torch.randn(*x.shape[:2], rows[1] - rows[0], columns[1] - columns[0])
    leaf, reference = x.clone().requires_grad_(), x.double().requires_grad_()
    leaves = [leaf, *layer.parameters()]
    mine = torch.autograd.grad((layer(leaf, rows, columns) * upstream).sum(), leaves, allow_unused=True)
    leaves[0] = reference
    theirs = torch.autograd.grad((plain(layer, reference, rows, columns) * upstream).sum(), leaves, allow_unused=True)
    for one, other in zip(mine, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.allclose(one.double(), other.double(), rtol=1e-4, atol=1e-3)


@given(st.integers(0, 5), st.booleans(), st.integers(1, 9))
def test_one_window_has_the_geometry_of_all(count: int, odd: bool, size: int) -> None:
    factor = 1 << count
    layer = StackedUpsampling(1, up(2 * factor - odd, factor))
    path = [each.window for each in layer.layers]
    assert layer.window.output_size(size) == output_size(path, size)
    assert alignment([layer.window], path) == 0
    assert {each.window.kernel for each in layer.layers} <= {3 if odd else 4}
    assert len(layer.activations) == max(count - 1, 0)


@given(st.integers(1, 5), st.integers(0, 120), st.integers(1, 3), st.sampled_from([2, 3, 7]))
def test_one_of_the_two_kernels_always_fits(count: int, padding: int, convolutions: int, kernel: int) -> None:
    """All of kernel 4 lie on the pixels where a kernel of 2 f does, all of kernel 3 where one of 2 f - 1 does."""
    factor = 1 << count
    path = [Window(3, padding=padding)] * convolutions + [Window(kernel, 2)] * count
    window, _ = upsampling(path, [], factor)
    for candidate in (up(2 * factor, factor), up(2 * factor - 1, factor)):
        layer = StackedUpsampling(1, candidate)
        if candidate == window:
            alignment([*path, *(each.window for each in layer.layers)], [])
        else:
            with pytest.raises(GeometryError, match="not a whole number"):
                alignment([*path, layer.window], [])


def test_the_offset_of_vgg() -> None:
    """Units at 32 i + 15.5: five upsamplings by 2 move them by 1.5 * 31 = 46.5, kernel 64 by 31.5."""
    layer = StackedUpsampling(1, up(64, 32))
    assert layer.window == up(94, 32)
    assert alignment([Window(32, 32), layer.window], []) == 31
    assert alignment([Window(32, 32), up(64, 32)], []) == 16


@pytest.mark.parametrize("factor", [2, 4, 8, 32])
def test_starts_as_bilinear(factor: int) -> None:
    """Kernels of 3: the bilinear upsampling itself. Kernels of 4: the reference's surgery, several times."""
    x = torch.randn(2, MAPS, 3, 4)
    odd = up(2 * factor - 1, factor)
    one, other = StackedUpsampling(MAPS, odd).whole(x), BilinearUpsampling(MAPS, odd).whole(x)
    assert torch.allclose(one, other, rtol=0, atol=5e-6)
    expected = x
    for _ in range(factor.bit_length() - 1):
        expected = F.conv_transpose2d(expected, surgery(MAPS, 4), stride=2)
    assert torch.allclose(StackedUpsampling(MAPS, up(2 * factor, factor)).whole(x), expected, rtol=0, atol=5e-6)


def test_learns_what_is_not_linear() -> None:
    layer = stack(up(8, 4))
    x = torch.randint(-4, 5, (1, MAPS, 3, 3)).float()
    assert not torch.equal(layer.whole(-x), -layer.whole(x))
    layer.reset_parameters()
    assert torch.equal(layer.whole(-x), -layer.whole(x))
    for key, value in StackedUpsampling(MAPS, up(8, 4)).state_dict().items():
        assert torch.equal(layer.state_dict()[key], value)


def test_labels_are_the_argmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsample, "LABEL_BLOCK", 3000)
    layer, x = stack(up(16, 8)), torch.randint(-4, 5, (MAPS, 7, 5)).float()
    scores = plain(layer, x[None], (3, 60), (5, 50))[0]
    assert torch.equal(layer.labels(x, (3, 60), (5, 50)), scores.argmax(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_sums_are_float32_in_nets_of_any_type(dtype: torch.dtype) -> None:
    layer, x = stack(up(8, 4)), torch.randint(-4, 5, (1, MAPS, 3, 3)).float()
    plainly = layer.whole(x)
    assert torch.equal(layer.to(dtype).whole(x.to(dtype)), plainly)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.whole(x), plainly)


@pytest.mark.parametrize("factor", [3, 6, 12])
def test_other_factors_are_refused(factor: int) -> None:
    message = f"an upsampling by {factor} is no stack of ones by 2; choose another, such as 'learned'"
    with pytest.raises(GeometryError, match=message):
        StackedUpsampling(1, up(2 * factor, factor))
