"""Convolutions on a processor whose gradients oneDNN gets wrong, computed another way.

Two faults of the version that torch 2.13 brings (oneDNN 3.12), both in the gradient of the weights:

- In bfloat16 a part of it is never written where a position of the kernel meets padding alone, where a strided output
  is one cell wide, or where a dilated kernel has a number of input channels that is no multiple of 16: it is whatever
  was in that memory, NaN or, worse, a number. Those are computed in float32.
- Of a strided 1x1 convolution it is written past the end of its memory where the input has fewer than 16 channels,
  which ends the process or spoils something else. Those are computed of every s-th row and column, without a stride.

Nets meet the first at small images: ResNets at 12x16, a VGG's fc6 at 32x160.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]

LANES = 16
"""Numbers of float32 in a vector: kernels take channels in so many."""


class SoundGradients(TorchFunctionMode):
    """Within it, convolutions that would meet one of the faults are computed another way; others are left alone."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.conv2d:
            return func(*args, **(kwargs or {}))
        x, weight, bias, stride, padding, dilation, groups = _arguments(*args, **(kwargs or {}))
        pads = _padding(weight, padding, dilation)
        if max(stride) > 1 and weight.shape[2:] == (1, 1):
            if max(pads):
                x = F.pad(x, (pads[1], pads[1], pads[0], pads[0]))
            x, stride, padding, pads = x[..., :: stride[0], :: stride[1]], (1, 1), (0, 0), (0, 0)
        if torch.is_autocast_enabled("cpu") and _is_unwritten(x, weight, stride, pads, dilation):
            with torch.autocast("cpu", enabled=False):
                full = func(
                    x.float(), weight.float(), bias if bias is None else bias.float(), stride, padding, dilation, groups
                )
            return full.to(torch.bfloat16)
        return func(x, weight, bias, stride, padding, dilation, groups)


def _arguments(
    input: Tensor,  # noqa: A002  (torch's word, which may come by name)
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None, Pair, Pair | str, Pair, int]:
    """Those of `torch.conv2d`, in order: modules give all by position, functions of a user's own as they like."""
    pads = padding if isinstance(padding, str) else _pair(padding)
    return input, weight, bias, _pair(stride), pads, _pair(dilation), groups


def _pair(value: int | Sequence[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _padding(weight: Tensor, padding: Sequence[int] | str, dilation: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of zeros before the input (torch puts no fewer after it)."""
    if not isinstance(padding, str):
        return padding[0], padding[1]
    if padding == "valid":
        return 0, 0
    rows, columns = (d * (k - 1) // 2 for k, d in zip(weight.shape[2:], dilation, strict=True))
    return rows, columns


def _is_unwritten(
    x: Tensor, weight: Tensor, stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int]
) -> bool:
    if max(dilation) > 1 and weight.shape[1] % LANES:
        return True
    for axis in (0, 1):
        size, k, s, p, d = x.shape[axis - 2], weight.shape[2 + axis], stride[axis], pads[axis], dilation[axis]
        outputs = (size + 2 * p - d * (k - 1) - 1) // s + 1
        if axis == 1 and s > 1 and outputs == 1:
            return True
        for tap in range(k):
            # Output o reads s o - p + d tap there: of the outputs that exist, some o must fall on the input.
            first, last = -(-(p - d * tap) // s), (size - 1 + p - d * tap) // s
            if max(first, 0) > min(last, outputs - 1):
                return True
    return False
