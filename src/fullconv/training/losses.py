"""Pixel-wise losses in which void pixels do not count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fullconv.errors import unknown_name
from fullconv.labels import VOID

REDUCTIONS = ("mean", "sum")
CLASS_WEIGHTS = ("none", "sqrt")


def cross_entropy(
    scores: Tensor, target: Tensor, reduction: str = "mean", weights: Tensor | None = None, share: float = 1.0
) -> Tensor:
    """Softmax cross-entropy over the pixels that are not void.

    Args:
        scores: (N, K, H, W) float.
        target: (N, H, W) uint8 or int64, class numbers and 255 for void.
        reduction: "mean" over valid pixels (weighted by class, if weights are given); "sum" over the pixels,
            divided by N: the reference nets' unnormalised loss (Shelhamer et al. 2016, section 4; N was 1).
        weights: (K,) factors on the loss of each class.
        share: of the pixels that `sampling.sampled` left. A sum is divided by it, so that it stays the same in
            expectation; a mean has no need of that.

    Returns:
        A scalar; 0 with zero gradient where every pixel is void.

    >>> round(cross_entropy(torch.zeros(1, 21, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)).item(), 4)  # ln 21
    3.0445
    """
    if reduction not in REDUCTIONS:
        raise unknown_name("loss reduction", reduction, REDUCTIONS)
    target = target.long()
    total = F.cross_entropy(scores, target, weight=weights, ignore_index=VOID, reduction="sum")
    if reduction == "sum":
        return total / (scores.shape[0] * share)
    if weights is None:
        return total / (target != VOID).sum().clamp(min=1)
    # Counted by class rather than gathered by pixel: a seventh to a tenth of the time.
    pixels = torch.bincount(target.flatten(), minlength=VOID + 1)[: len(weights)]
    return total / (weights * pixels).sum().clamp(min=torch.finfo(weights.dtype).tiny)


def class_weights(pixels: Sequence[int], kind: str) -> tuple[float, ...] | None:
    """Loss factors from the classes' pixel counts.

    "sqrt": 1 / sqrt(share), scaled to a mean of 1 over the pixels and clipped to 0.4 .. 3, so that rare classes count
    more without drowning the common ones; a class without pixels gets 1. "none": no factors.

    >>> class_weights([900, 100], "sqrt")
    (0.833..., 2.5)
    """
    if kind not in CLASS_WEIGHTS:
        raise unknown_name("class weights", kind, CLASS_WEIGHTS)
    total = sum(pixels)
    if kind == "none" or not total:
        return None
    factors = [(total / count) ** 0.5 if count else None for count in pixels]
    mean = sum(count * f for count, f in zip(pixels, factors, strict=True) if f) / total
    return tuple(1.0 if f is None else min(max(f / mean, 0.4), 3.0) for f in factors)
