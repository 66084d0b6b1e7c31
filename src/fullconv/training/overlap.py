"""Losses of how much prediction and truth overlap, of each image by itself: soft Dice and Lovász-softmax.

Sources: Milletari et al. 2016, section 3; Berman et al. 2018, section 3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fullconv.labels import VOID


def dice(p: Tensor, target: Tensor) -> Tensor:
    """1 - the mean of 2 sum(p t) / (sum p + sum t) over the classes present, (N,); 0 of an image that is all void.

    Args:
        p: (N, K, H, W), probabilities.
        target: (N, H, W).
    """
    classes = torch.arange(p.shape[1], dtype=target.dtype, device=p.device)[:, None]
    # As floats: products with bool are slow.
    truth = (target.flatten(1)[:, None] == classes).to(p.dtype)
    valid = (target != VOID).flatten(1)[:, None].to(p.dtype)
    p, pixels = p.flatten(2), truth.sum(2)
    present = pixels > 0
    ratio = 2 * (p * truth).sum(2) / ((p * valid).sum(2) + pixels + ~present)
    return ((1 - ratio) * present).sum(1) / present.sum(1).clamp(min=1)


def lovasz(p: Tensor, target: Tensor) -> Tensor:
    """The mean of the Jaccard loss's Lovász extension over the classes present, (N,); 0 of an image that is all void.

    With the errors |t - p| sorted, largest first, the extension is the sum of each error times what its pixel adds to
    the Jaccard loss of the pixels before it (Berman et al. 2018, equations 8 and 9). The order does not change with p
    but at ties, so these increments are the gradient with respect to the errors.

    Args:
        p: (N, K, H, W), probabilities.
        target: (N, H, W).
    """
    slopes = torch.zeros_like(p).flatten(2)  # of the errors' sums with respect to p
    fixed = p.new_zeros(len(p))
    for n, (image, every) in enumerate(zip(p.detach().flatten(2), target.flatten(1), strict=True)):
        pixels = (every != VOID).nonzero()[:, 0]
        labels = every[pixels]
        present = labels.unique().tolist()
        for k in present:  # one at a time: it stays in the cache, and needs little memory
            own = labels == k
            order = _descending((image[k].index_select(0, pixels) - own.to(p.dtype)).abs())
            own = own.index_select(0, order)
            truth = own.to(p.dtype)
            increments = _increments(own, truth) / len(present)
            # An error is p, and 1 - p at the class's own pixels.
            slopes[n, k].scatter_(0, pixels.index_select(0, order), increments * (1 - 2 * truth))
            fixed[n] += (increments * truth).sum()
    return (slopes * p.flatten(2)).sum((1, 2)) + fixed


def _descending(errors: Tensor) -> Tensor:
    """The order of numbers >= 0, (V,), from the largest to the smallest in float32: (V,) int64."""
    if errors.device.type != "cpu":
        return errors.argsort(descending=True)
    # Floats >= 0 are in the order of their bits. NumPy sorts whole numbers with the index in the lower half fifteen
    # times faster than torch sorts floats.
    keys = np.left_shift(~errors.float().numpy().view(np.int32), 32, dtype=np.int64) | np.arange(len(errors))
    keys.sort()
    return torch.from_numpy(keys & 0xFFFFFFFF)


def _increments(own: Tensor, truth: Tensor) -> Tensor:
    """What each pixel adds to 1 - intersection / union as one after the other becomes wrong: (V,).

    Args:
        own: (V,) bool, whether a pixel is of the class; one at least is.
        truth: the same as numbers.
    """
    missed = own.cumsum(0)
    others = torch.arange(1, len(own) + 1, device=own.device) - missed
    left, union = (missed[-1] - missed).to(truth.dtype), (missed[-1] + others).to(truth.dtype)
    extra = 1 - truth
    # A missed pixel takes one from the intersection, one too many adds one to the union. Written out, since the
    # difference of two neighbouring ratios would be little but rounding in a large image.
    return (truth + extra * left / (union - extra)) / union
