"""torch layers -> windows, checked against the sizes the layers really give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from fullconv.errors import GeometryError
from fullconv.geometry import Window, output_size
from fullconv.nets.paths import POINTWISE, paths, windows

pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))
small = st.tuples(st.integers(0, 2), st.integers(0, 2))


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    kernel, stride, padding, dilation = draw(pairs), draw(pairs), draw(small), draw(pairs)
    kind = draw(st.sampled_from([nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d]))
    if kind is nn.Conv2d:
        return nn.Conv2d(1, 1, kernel, stride, padding, dilation)
    if kind is nn.ConvTranspose2d:
        assume(all(s > 0 for s in stride))
        return nn.ConvTranspose2d(1, 1, kernel, stride, padding, dilation=dilation)
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    ceil = draw(st.booleans())
    if kind is nn.MaxPool2d:
        return nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    return nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil)


@settings(deadline=None)
@given(layers(), st.integers(1, 30), st.integers(1, 30))
def test_sizes_are_those_of_the_layer(layer: nn.Module, height: int, width: int) -> None:
    vertical, horizontal = windows(layer)
    try:
        with torch.no_grad():
            shape = tuple(layer(torch.zeros(1, 1, height, width)).shape[2:])
    except RuntimeError:
        shape = (0, 0)
    if min(shape) < 1:
        with pytest.raises(GeometryError, match="too small"):
            vertical.output_size(height), horizontal.output_size(width)
    else:
        assert (vertical.output_size(height), horizontal.output_size(width)) == shape


def test_both_axes_keep_their_own_numbers() -> None:
    convolution = nn.Conv2d(1, 1, (3, 5), (1, 2), (4, 6), (7, 8))
    assert windows(convolution) == (Window(3, 1, 4, 7), Window(5, 2, 6, 8))
    deconvolution = nn.ConvTranspose2d(1, 1, (4, 6), (2, 3), (1, 0))
    assert windows(deconvolution) == (Window(4, 2, 1, transposed=True), Window(6, 3, transposed=True))
    pooling = nn.MaxPool2d((2, 3), None, (1, 0), (1, 2), ceil_mode=True)
    assert windows(pooling) == (Window(2, 2, 1, 1, ceil=True), Window(3, 3, 0, 2, ceil=True))
    assert windows(nn.AvgPool2d(3, 2)) == (Window(3, 2), Window(3, 2))


def test_paths_leave_pointwise_layers_out() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=100), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.LocalResponseNorm(5),
        nn.Conv2d(4, 4, 1), nn.Identity(), nn.Dropout2d(), nn.MaxPool2d(2, 2, ceil_mode=True),
    )  # fmt: skip
    vertical, horizontal = paths(layers)
    assert vertical == horizontal == [Window(3, padding=100), Window(2, 2, ceil=True)]
    for size in (1, 2, 37):
        assert output_size(vertical, size) == layers.eval()(torch.zeros(1, 3, size, size)).shape[2]
    assert all(windows(layer) == (Window(), Window()) for layer in layers if isinstance(layer, POINTWISE))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(1, 1, 3, padding="same"), "give the padding as a number, and no output padding"),
        (nn.ConvTranspose2d(1, 1, 3, 2, output_padding=1), "give the padding as a number, and no output padding"),
        (nn.Linear(2, 2), "the geometry of Linear is not known"),
        (nn.Softmax(dim=1), "the geometry of Softmax is not known"),
    ],
    ids=["same", "output padding", "linear", "softmax"],
)
def test_layers_without_a_window(layer: nn.Module, message: str) -> None:
    with pytest.raises(GeometryError, match=message) as caught:
        windows(layer)
    assert "\n" not in str(caught.value)
