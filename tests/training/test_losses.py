"""The loss against a plain loop over pixels, and against numbers worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullconv.errors import OptionError
from fullconv.labels import VOID
from fullconv.training.losses import class_weights, cross_entropy


def plain(scores: Tensor, target: Tensor, reduction: str, weights: Tensor | None) -> float:
    """Pixel by pixel, in Python's floats, as written in a textbook."""
    total, count = 0.0, 0.0
    images, classes, height, width = scores.shape
    for n in range(images):
        for y in range(height):
            for x in range(width):
                label = int(target[n, y, x])
                if label == VOID:
                    continue
                weight = 1.0 if weights is None else float(weights[label])
                powers = [math.exp(float(scores[n, k, y, x])) for k in range(classes)]
                total -= weight * math.log(powers[label] / sum(powers))
                count += weight
    if reduction == "sum":
        return total / images
    return total / count if count else 0.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 3),
    classes=st.integers(1, 5),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    void=st.sampled_from([0.0, 0.3, 1.0]),
    reduction=st.sampled_from(["mean", "sum"]),
    weighted=st.booleans(),
)
def test_equals_a_loop_over_pixels(
    seed: int, images: int, classes: int, size: tuple[int, int], void: float, reduction: str, weighted: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 5 * torch.randn(images, classes, *size, generator=generator)
    target = torch.randint(classes, (images, *size), generator=generator)
    target[torch.rand(images, *size, generator=generator) < void] = VOID
    weights = 0.1 + torch.rand(classes, generator=generator) if weighted else None
    expected = plain(scores, target, reduction, weights)
    for kind in (torch.uint8, torch.int64):
        loss = cross_entropy(scores, target.to(kind), reduction, weights)
        assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_large_target_is_counted_exactly() -> None:
    """Against the sum of each pixel's own weight, in double precision."""
    target = torch.randint(5, (2, 200, 300))
    target[:, :7] = VOID
    weights = torch.tensor([0.4, 1.0, 3.0, 0.7, 2.2])
    scores = torch.randn(2, 5, 200, 300)
    mean, total = (cross_entropy(scores, target, kind, weights).item() for kind in ("mean", "sum"))
    assert mean == pytest.approx(2 * total / weights.double()[target[target != VOID]].sum().item(), rel=1e-6)


@pytest.mark.parametrize("classes", [21, 60, 40, 33, 3])
def test_zero_scores_cost_ln_k_a_valid_pixel(classes: int) -> None:
    target = torch.randint(classes, (2, 5, 7))
    target[:, 0] = VOID
    scores = torch.zeros(2, classes, 5, 7)
    assert cross_entropy(scores, target).item() == pytest.approx(math.log(classes))
    # Summed it is valid_pixels * ln K (reference 5.2), here 28 of each image.
    assert cross_entropy(scores, target, "sum").item() == pytest.approx(28 * math.log(classes))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_void_alone_gives_nothing(reduction: str, weights: Tensor | None) -> None:
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(scores, torch.full((2, 4, 4), VOID, dtype=torch.uint8), reduction, weights)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_the_gradient_is_softmax_minus_truth_and_zero_at_void() -> None:
    scores = torch.randn(1, 3, 1, 3, requires_grad=True)
    target = torch.tensor([[[2, VOID, 0]]], dtype=torch.uint8)
    torch.autograd.backward(cross_entropy(scores, target, "sum"))
    expected = torch.softmax(scores.detach(), 1)
    expected[0, 2, 0, 0] -= 1
    expected[0, 0, 0, 2] -= 1
    expected[:, :, :, 1] = 0
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, expected)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0])])
def test_a_share_scales_a_sum_and_no_mean(weights: Tensor | None) -> None:
    scores, target = torch.randn(3, 2, 4, 5), torch.randint(2, (3, 4, 5))
    plain, shared = (
        [cross_entropy(scores, target, kind, weights, share).item() for kind in ("sum", "mean")] for share in (1, 0.25)
    )
    assert shared == [4 * plain[0], plain[1]]


def test_an_unknown_reduction_is_named() -> None:
    with pytest.raises(OptionError, match=r"unknown loss reduction 'maen'; did you mean 'mean'\? Choices: mean, sum"):
        cross_entropy(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1), "maen")


def test_class_weights_by_hand() -> None:
    # Shares 9/16, 4/16, 3/16 -> 4/3, 2, 4/sqrt 3; their mean over the pixels is 3/4 + 1/2 + sqrt(3)/4 = 1.6830.
    mean = 0.75 + 0.5 + math.sqrt(3) / 4
    assert class_weights([9, 4, 3], "sqrt") == pytest.approx((4 / 3 / mean, 2 / mean, 4 / math.sqrt(3) / mean))
    assert class_weights([5, 5], "sqrt") == pytest.approx((1, 1))


def test_class_weights_are_clipped_and_absent_classes_get_one() -> None:
    # Shares of almost 1 and 10^-6 -> factors 1 and 1000, 1.001 in the mean: the rare class stops at 3.
    assert class_weights([1_000_000, 1], "sqrt") == pytest.approx((1 / 1.001, 3.0), rel=1e-5)
    # Shares 1/2 and 250 times 1/500 -> sqrt 2 and sqrt 500, 11.9 in the mean: 0.12 for the common class, raised to 0.4.
    assert class_weights([10_000, *[40] * 250], "sqrt") == pytest.approx((0.4, *[500**0.5 / 11.8875] * 250), rel=1e-4)
    # Shares 9/25 and 16/25 -> 5/3 and 5/4, 7/5 in the mean.
    assert class_weights([9, 0, 16], "sqrt") == pytest.approx((25 / 21, 1.0, 25 / 28))


@pytest.mark.parametrize(("pixels", "kind"), [([3, 4], "none"), ([0, 0], "sqrt"), ([], "sqrt")])
def test_no_class_weights(pixels: list[int], kind: str) -> None:
    assert class_weights(pixels, kind) is None


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_rarer_classes_never_weigh_less(pixels: list[int]) -> None:
    factors = class_weights(pixels, "sqrt")
    if factors is None:
        assert not any(pixels)
        return
    present = sorted((count, factor) for count, factor in zip(pixels, factors, strict=True) if count)
    assert all(a[1] >= b[1] for a, b in pairwise(present))
    assert all(0.4 <= factor <= 3 for factor in factors)


def test_an_unknown_kind_of_class_weights_is_named() -> None:
    with pytest.raises(OptionError, match=r"unknown class weights 'square'.*Choices: none, sqrt"):
        class_weights([1, 2], "square")
