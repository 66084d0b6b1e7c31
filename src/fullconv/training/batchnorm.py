"""Batch norm over the images of all processes: what one process with the whole batch would compute.

torch's own SyncBatchNorm runs on GPUs only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from fullconv.metrics.reduce import several_processes

AXES = (0, 2, 3)
"""Over which a channel is normalised."""


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm that in training mode normalises over the batches of all processes of the default group.

    In evaluation mode (frozen statistics too), and where there is one process, it is `nn.BatchNorm2d`. All processes
    must call it alike, forward and backward, but their batches may differ in size.

    The gradients of weight and bias are this process's part, whose sum over the processes is the whole batch's:
    DistributedDataParallel's mean times the number of processes. The gradient of the input is of the sum of all
    processes' losses.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name of the parameter in torch)
        """(N, C, H, W) -> the same shape, type and memory format; statistics are float32 or wider.

        Raises:
            ValueError: no 4-D input.
        """
        if not self.training or not several_processes():
            return super().forward(input)
        self._check_input_dim(input)
        count, mean, variance = _moments(input.detach())
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.mul_(1 - share).add_(mean * share)
            self.running_var.mul_(1 - share).add_(unbiased * share)
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        normalised: Tensor = _Normalised.apply(input, weight, bias, count, mean, variance, self.eps)  # type: ignore[no-untyped-call]
        return normalised


def sync_batchnorm(net: nn.Module) -> None:
    """Turn every plain `nn.BatchNorm2d` into a `SyncedBatchNorm`, in place: they stay the same objects."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of all processes' batches: how many values a channel has, () float64; their mean and biased variance, (C,).

    Each process takes the mean of its own, then the squares about it, so that nothing cancels; the parts are put
    together in float64 (Chan et al. 1979), alike in every process.
    """
    wide = x.to(_wide(x.dtype))
    count = x.numel() // x.shape[1]
    own = torch.zeros(1 + 2 * x.shape[1], dtype=torch.float64, device=x.device)
    if count:
        mean = wide.mean(AXES)
        squares = (wide - mean.view(1, -1, 1, 1)).square_().sum(AXES)
        own = torch.cat([own.new_tensor([count]), mean.to(own.dtype), squares.to(own.dtype)])
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own)
    every = torch.stack(parts)
    counts = every[:, :1]
    means, squares = every[:, 1:].chunk(2, dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    variance = (squares + counts * (means - mean).square()).sum(0) / total
    return total, mean.to(wide.dtype), variance.to(wide.dtype)


class _Normalised(torch.autograd.Function):
    """Normalise by given statistics; the gradient knows that they are the batches' own."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, count: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, count, mean, inverse)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        """With x^ the normalised input: dx = weight / sigma (dy - mean(dy) - x^ mean(dy x^)), means over everything."""
        x, weight, count, mean, inverse = ctx.saved_tensors
        dy = given.to(mean.dtype)
        centred = x.to(mean.dtype) - mean.view(1, -1, 1, 1)
        d_bias = dy.sum(AXES)
        d_weight = (dy * centred).sum(AXES) * inverse
        dx = None
        if ctx.needs_input_grad[0]:
            sums = torch.stack([d_bias, d_weight]).double()
            distributed.all_reduce(sums)
            mean_dy, slope = (sums / count).to(mean.dtype)
            scale, slope, mean_dy = (each.view(1, -1, 1, 1) for each in (weight * inverse, slope * inverse, mean_dy))
            dx = ((dy - mean_dy).addcmul_(centred, slope, value=-1) * scale).to(x.dtype)
        return dx, d_weight.to(weight.dtype), d_bias.to(weight.dtype), None, None, None, None
