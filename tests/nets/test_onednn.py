"""Gradients of convolutions on a processor against float64, in memory that was left full of NaN."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullconv.nets import build
from fullconv.nets.onednn import _is_unwritten
from fullconv.nets.precision import has_bfloat16, learning

CPU = torch.device("cpu")

# (channels, size, kernel, stride, padding, dilation)
FAULTS = {
    "a strided output one cell wide": (256, (1, 1), 3, 2, 1, 1),
    "taps on padding alone": (128, (2, 6), 7, 1, 3, 1),
    "a gap of the stride": (16, (9, 2), (7, 5), 3, (3, 2), 1),
    "dilated, 24 channels": (24, (6, 40), 3, 1, 2, 2),
}


def gradient(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Of the weights, for the sum of the outputs, once NaN was freed where it may be written."""
    conv.zero_grad()
    left = [torch.full((conv.weight.numel(),), torch.nan, dtype=torch.bfloat16) for _ in range(8)]
    del left
    with learning(CPU, "bfloat16"):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    torch.autograd.backward(y.float().sum())
    assert conv.weight.grad is not None
    return conv.weight.grad


@pytest.mark.skipif(not has_bfloat16(CPU), reason="this processor does not compute in bfloat16")
@pytest.mark.parametrize("fault", FAULTS)
def test_no_part_of_a_gradient_is_left_unwritten(fault: str) -> None:
    channels, size, kernel, stride, padding, dilation = FAULTS[fault]
    conv = nn.Conv2d(channels, 64, kernel, stride, padding, dilation).to(memory_format=torch.channels_last)  # type: ignore[arg-type, call-overload]
    x = torch.randint(-2, 3, (2, channels, *size)).float().contiguous(memory_format=torch.channels_last)
    weight = conv.weight.detach().double().requires_grad_()
    exact = F.conv2d(x.double(), weight, stride=conv.stride, padding=conv.padding, dilation=conv.dilation)  # type: ignore[arg-type]
    torch.autograd.backward(exact.sum())
    assert weight.grad is not None
    for _ in range(5):  # small whole numbers: every sum is exact, in bfloat16 too
        assert torch.equal(gradient(x, conv).double(), weight.grad)


@settings(max_examples=200)
@given(
    size=st.integers(1, 12), kernel=st.integers(1, 7), stride=st.integers(1, 4), pad=st.integers(0, 3),
    dilation=st.integers(1, 3),
)  # fmt: skip
def test_which_taps_meet_padding_alone(size: int, kernel: int, stride: int, pad: int, dilation: int) -> None:
    outputs = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    if outputs < 1:
        return
    inside = range(size)
    expected = any(
        all(stride * o - pad + dilation * tap not in inside for o in range(outputs)) for tap in range(kernel)
    )
    # A column of width 1 without kernel, so that the rows alone decide.
    x, weight = torch.empty(1, 16, size, 1), torch.empty(16, 16, kernel, 1)
    assert _is_unwritten(x, weight, (stride, 1), (pad, 0), (dilation, 1)) == expected


def test_strided_1x1_convolutions_stay_in_their_memory() -> None:
    """In a process of its own: without the remedy it ends by a signal."""
    code = """
import torch
from fullconv.nets.precision import learning
conv = torch.nn.Conv2d(8, 16, 1, stride=2).to(memory_format=torch.channels_last)
x = torch.randn(2, 8, 72, 72).contiguous(memory_format=torch.channels_last)
for precision in ("float32", "bfloat16") * 3:
    with learning(torch.device("cpu"), precision):
        y = conv(x)
    y.float().sum().backward()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


def double(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """One convolution, as functions of a user's own may call it."""
    return [
        F.conv2d(x, weight, bias, 2),
        F.conv2d(x, weight, bias, (2, 2)),
        F.conv2d(x, weight, bias=bias, stride=2),
        F.conv2d(input=x, weight=weight, bias=bias, stride=[2, 2], padding="valid", dilation=1, groups=1),
        F.conv2d(x[0], weight, bias, stride=2)[None],
    ]


@pytest.mark.parametrize("kernel", [1, 3])
def test_functions_give_arguments_as_they_like(kernel: int) -> None:
    x, weight, bias = torch.randn(1, 5, 11, 8), torch.randn(7, 5, kernel, kernel), torch.randn(7)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), 2)
    met: list[str] = []

    class Met(torch.overrides.TorchFunctionMode):
        """What is computed in the end."""

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.conv2d:
                met.append(str(args[3]))
            return func(*args, **(kwargs or {}))

    with Met(), learning(CPU, "float32"):
        found = double(x, weight, bias)
    assert len(found) == len(met) == 5
    assert set(met) == {"(1, 1)" if kernel == 1 else "(2, 2)"}, "a strided 1x1 convolution has no stride any more"
    for each in found:
        torch.testing.assert_close(each.double(), expected, rtol=1e-5, atol=1e-5)  # float32 sums of up to 45


@pytest.mark.parametrize("padding", [0, 1, "valid"])
@pytest.mark.parametrize("stride", [(2, 2), (3, 1)])
def test_strided_1x1_convolutions_are_what_they_were(stride: tuple[int, int], padding: int | str) -> None:
    conv = nn.Conv2d(5, 7, 1, stride, padding).double()
    x = torch.randn(2, 5, 11, 8, dtype=torch.float64)
    expected = conv(x)
    with learning(CPU, "float32"):
        torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-14)  # sums of five, in any order


def test_ordinary_convolutions_are_left_alone() -> None:
    net = build("fcn8s-slim", 3, width=0.1).eval()
    x = torch.randint(0, 256, (2, 3, 64, 64))
    with learning(CPU, "float32"):
        found = net(x.float())
    assert torch.equal(found, net(x.float()))  # type: ignore[arg-type]
