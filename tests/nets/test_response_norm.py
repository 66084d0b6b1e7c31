"""Local response normalisation against torch's own, which is Caffe's (reference 9.2), and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fullconv.nets.trunks.response_norm import ResponseNorm


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 17])
def test_values_and_gradients_are_those_of_torch(channels: int) -> None:
    x = torch.randn(2, channels, 3, 4, dtype=torch.float32, generator=torch.Generator().manual_seed(channels)) * 300
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, theirs = ResponseNorm()(one), nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(other)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-6)
    weight = torch.arange(x.numel(), dtype=torch.float32).view_as(x).sin()
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_by_hand() -> None:
    x = torch.tensor([100.0, 200.0, 300.0, 400.0]).view(1, 4, 1, 1)
    # The first channel sees itself and two neighbours: 1 + 2e-5 * (1 + 4 + 9) * 1e4 = 3.8.
    assert ResponseNorm()(x)[0, 0, 0, 0].item() == pytest.approx(100 / 3.8**0.75, rel=1e-6)


def test_bfloat16_sums_in_float32() -> None:
    x = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0)).bfloat16() * 200
    y = ResponseNorm()(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), ResponseNorm()(x.float()), rtol=2**-7, atol=0)
