"""The losses against plain loops over pixels, and against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullconv.errors import OptionError
from fullconv.labels import VOID
from fullconv.training import losses, overlap
from fullconv.training.losses import REDUCTIONS, TERMS, LossOptions, TaskLoss, class_weights, parse_terms

PIXELWISE = ("cross-entropy", "focal", "ohem")
seeds = st.integers(0, 10_000)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@dataclass(frozen=True)
class Pixel:
    """A valid pixel: the probabilities of all classes, its class, its weight."""

    p: list[float]
    label: int
    weight: float

    @property
    def cost(self) -> float:
        return -math.log(self.p[self.label])


def pixels_of(scores: Tensor, target: Tensor, weights: Tensor | None) -> list[Pixel]:
    """The valid pixels of an image, (K, H, W) and (H, W), in Python's floats."""
    result = []
    for y in range(target.shape[0]):
        for x in range(target.shape[1]):
            label = int(target[y, x])
            if label != VOID:
                values = scores[:, y, x].tolist()
                powers = [math.exp(value) for value in values]
                weight = 1.0 if weights is None else float(weights[label])
                result.append(Pixel([power / sum(powers) for power in powers], label, weight))
    return result


def jaccard_loss(wrong: Sequence[int], truth: Sequence[int]) -> float:
    """1 - intersection over union of one class, when these pixels are labelled wrongly."""
    found = [1 - t if i in wrong else t for i, t in enumerate(truth)]
    union = sum(1 for f, t in zip(found, truth, strict=True) if f or t)
    return 1 - sum(1 for f, t in zip(found, truth, strict=True) if f and t) / union


def lovasz_extension(errors: Sequence[float], truth: Sequence[int]) -> float:
    """By definition: the set function's increments along the order of the errors."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    sets = [order[:count] for count in range(len(order) + 1)]
    return sum(
        errors[i] * (jaccard_loss(after, truth) - jaccard_loss(before, truth))
        for i, (before, after) in zip(order, pairwise(sets), strict=True)
    )


def region(term: str, pixels: list[Pixel]) -> float:
    """Dice or Lovász of an image."""
    values = []
    for k in sorted({pixel.label for pixel in pixels}):
        truth, p = [int(pixel.label == k) for pixel in pixels], [pixel.p[k] for pixel in pixels]
        if term == "dice":
            both = sum(a * b for a, b in zip(p, truth, strict=True))
            values.append(1 - 2 * both / (sum(p) + sum(truth)))
        else:
            values.append(lovasz_extension([abs(t - q) for t, q in zip(truth, p, strict=True)], truth))
    return sum(values) / len(values)


def plain(
    term: str, options: LossOptions, scores: Tensor, target: Tensor, weights: Tensor | None, share: float = 1
) -> float:
    """A term of a whole step, as written in a textbook."""
    images = [pixels_of(*each, weights) for each in zip(scores, target, strict=True)]
    shown = [pixels for pixels in images if pixels]
    if term in {"dice", "lovasz"}:
        return sum(region(term, pixels) for pixels in shown) / max(1, len(shown))
    sums, counts = [], []
    for pixels in images:
        costs, count = [pixel.weight * pixel.cost for pixel in pixels], sum(pixel.weight for pixel in pixels)
        if term == "focal":
            costs = [(1 - pixel.p[pixel.label]) ** options.focal_gamma * pixel.weight * pixel.cost for pixel in pixels]
        if term == "ohem":
            costs = sorted(costs, reverse=True)[: math.ceil(options.ohem_share * len(costs))]
            count = len(costs)
        sums.append(sum(costs))
        counts.append(count)
    if options.reduction == "sum":
        return sum(sums) / (len(images) * share)
    if options.reduction == "mean":
        return sum(sums) / sum(counts) if sum(counts) else 0.0
    means = [total / count for total, count in zip(sums, counts, strict=True) if count]
    return sum(means) / max(1, len(means))


@dataclass(frozen=True)
class Case:
    scores: Tensor
    target: Tensor
    weights: Tensor | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Some images, of which some pixels or all are void."""
    generator = torch.Generator().manual_seed(draw(seeds))
    images, classes, size = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(sizes)
    target = torch.randint(classes, (images, *size), generator=generator)
    void = torch.tensor([draw(st.sampled_from([0.0, 0.3, 1.0])) for _ in range(images)])
    target[torch.rand(images, *size, generator=generator) < void[:, None, None]] = VOID
    weights = 0.1 + torch.rand(classes, generator=generator) if draw(st.booleans()) else None
    scores = 4 * torch.randn(images, classes, *size, generator=generator)
    return Case(scores, target.to(draw(st.sampled_from([torch.uint8, torch.int64]))), weights)


def value(loss: TaskLoss, scores: Tensor, target: Tensor) -> Tensor:
    return loss(scores, target, loss.amounts(target))


def one(term: str, reduction: str = "mean", weights: Tensor | None = None, **options: float) -> TaskLoss:
    return TaskLoss(LossOptions({term: 1.0}, reduction, **options), weights)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@settings(max_examples=60, deadline=None)
@given(
    case=cases(),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    hard=st.floats(0.01, 1),
    share=st.sampled_from([1.0, 0.25]),
)
def test_equals_a_loop_over_pixels(reduction: str, case: Case, gamma: float, hard: float, share: float) -> None:
    options = LossOptions(dict.fromkeys(TERMS, 1.0), reduction, gamma, hard)
    values = value(TaskLoss(options, case.weights, share), case.scores, case.target)
    assert values.dtype == torch.float32
    expected = [plain(term, options, case.scores, case.target, case.weights, share) for term in TERMS]
    assert values.tolist() == pytest.approx(expected, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@settings(max_examples=30, deadline=None)
@given(case=cases(), data=st.data())
def test_parts_add_up_to_the_whole(reduction: str, case: Case, data: st.DataObject) -> None:
    """Values and gradients, however the images are shared out: one may get none."""
    loss = TaskLoss(LossOptions(dict.fromkeys(TERMS, 0.5), reduction), case.weights, 0.5)
    count = len(case.target)
    owner = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    order = torch.tensor(data.draw(st.permutations(range(count))))
    parts = [order[owner == part] for part in range(4)]
    amounts = torch.stack([loss.amounts(case.target[part]) for part in parts]).sum(0)
    assert amounts.dtype == torch.float64
    torch.testing.assert_close(amounts, loss.amounts(case.target), rtol=1e-12, atol=0)
    whole, split = (case.scores.clone().requires_grad_() for _ in range(2))
    values = value(loss, whole, case.target)
    pieces = [loss(split[part], case.target[part], amounts) for part in parts]
    torch.testing.assert_close(torch.stack(pieces).sum(0), values, rtol=2e-6, atol=1e-7)
    torch.autograd.backward(loss.total(values))
    for piece in pieces:
        torch.autograd.backward(loss.total(piece))
    assert whole.grad is not None
    assert split.grad is not None
    torch.testing.assert_close(split.grad, whole.grad, rtol=1e-5, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(case=cases(), block=st.integers(1, 200))
def test_blocks_change_nothing(case: Case, block: int) -> None:
    loss = TaskLoss(LossOptions(dict.fromkeys(TERMS, 1.0), "image"), case.weights)
    expected = value(loss, case.scores, case.target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "BLOCK", block)
        found = value(loss, case.scores, case.target)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("layout", ["planes", "cut", "channels last"])
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_the_layout_of_scores_changes_nothing(layout: str, case: Case) -> None:
    """Nets cut their scores out of larger ones."""
    loss = TaskLoss(LossOptions(dict.fromkeys(TERMS, 1.0)), case.weights)
    scores = {
        "planes": case.scores,
        "cut": F.pad(case.scores, (1, 2, 3, 0), value=9)[:, :, 3:, 1:-2],
        "channels last": case.scores.contiguous(memory_format=torch.channels_last),
    }[layout]
    torch.testing.assert_close(value(loss, scores, case.target), value(loss, case.scores, case.target))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gradients_are_those_of_the_values(term: str, reduction: str, gamma: float) -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(3, 4, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(4, (3, 3, 4), generator=generator)
    target[0, 1, 1:], target[1] = VOID, VOID
    loss = TaskLoss(
        LossOptions({term: 1.0}, reduction, focal_gamma=gamma), torch.tensor([0.5, 2.0, 1.0, 0.7]), share=0.5
    )
    amounts = loss.amounts(target)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, amounts), [scores])


def test_the_gradient_is_softmax_minus_truth_and_zero_at_void() -> None:
    scores = torch.randn(1, 3, 1, 3, requires_grad=True)
    target = torch.tensor([[[2, VOID, 0]]], dtype=torch.uint8)
    torch.autograd.backward(value(one("cross-entropy", "sum"), scores, target).sum())
    expected = torch.softmax(scores.detach(), 1)
    expected[0, 2, 0, 0] -= 1
    expected[0, 0, 0, 2] -= 1
    expected[:, :, :, 1] = 0
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, expected)


@pytest.mark.parametrize("weighted", [False, True])
@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_the_mean_is_that_of_torch(weighted: bool, case: Case) -> None:
    target = case.target.long()
    if (target == VOID).all():
        return  # torch gives 0 / 0
    weights = case.weights if weighted else None
    expected = F.cross_entropy(case.scores, target, weights, ignore_index=VOID)
    torch.testing.assert_close(value(one("cross-entropy", weights=weights), case.scores, case.target)[0], expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_special_cases_are_the_cross_entropy(reduction: str, case: Case) -> None:
    scores, target = case.scores, case.target
    expected = value(one("cross-entropy", reduction, case.weights), scores, target)
    torch.testing.assert_close(value(one("focal", reduction, case.weights, focal_gamma=0.0), scores, target), expected)
    expected = value(one("cross-entropy", reduction), scores, target)
    torch.testing.assert_close(value(one("ohem", reduction, ohem_share=1.0), scores, target), expected)


@pytest.mark.parametrize("classes", [21, 60, 40, 33, 3])
def test_zero_scores_cost_ln_k_a_valid_pixel(classes: int) -> None:
    target = torch.randint(classes, (2, 5, 7))
    target[:, 0] = VOID
    scores = torch.zeros(2, classes, 5, 7)
    for term in ("cross-entropy", "ohem"):
        for reduction in ("mean", "image"):
            assert value(one(term, reduction), scores, target).item() == pytest.approx(math.log(classes))
    # Summed it is valid_pixels * ln K (reference 5.2), here 28 of each image.
    assert value(one("cross-entropy", "sum"), scores, target).item() == pytest.approx(28 * math.log(classes))
    assert value(one("ohem", "sum"), scores, target).item() == pytest.approx(7 * math.log(classes))
    # (1 - 1/K)^2 of it remains, focused on what is hard.
    expected = (1 - 1 / classes) ** 2 * math.log(classes)
    assert value(one("focal"), scores, target).item() == pytest.approx(expected)


def test_dice_by_hand() -> None:
    # Two classes of zero scores: p is 1/2 everywhere. Three pixels of class 0, one of class 1, one void:
    # 1 - 2 * 1.5 / (2 + 3) = 2/5 and 1 - 2 * 0.5 / (2 + 1) = 2/3; in the second image 1 - 2 * 2 / (2 + 4) twice halves.
    target = torch.tensor([[[0, 0, 0, 1, VOID]], [[1, 1, 1, 1, VOID]], [[VOID] * 5]])
    first, second = (2 / 5 + 2 / 3) / 2, 1 - 2 * 2 / (2 + 4)
    found = value(one("dice"), torch.zeros(3, 2, 1, 5), target).item()
    assert found == pytest.approx((first + second) / 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.floats(0, 0.5), seeds)
def test_hard_predictions_cost_one_minus_iu_or_dice(classes: int, count: int, void: float, seed: int) -> None:
    """With probabilities of 0 and 1 the surrogates are the measures themselves, over the classes that are there."""
    generator = torch.Generator().manual_seed(seed)
    target, found = (torch.randint(classes, (1, 1, count), generator=generator) for _ in range(2))
    target[torch.rand(1, 1, count, generator=generator) < void] = VOID
    scores = 2000.0 * F.one_hot(found, classes).movedim(-1, 1)
    valid = target != VOID
    jaccard, dice = [], []
    for k in sorted(set(target[valid].tolist())):
        a, b = (target == k) & valid, (found == k) & valid
        both = int((a & b).sum())
        jaccard.append(1 - both / int((a | b).sum()))
        dice.append(1 - 2 * both / int(a.sum() + b.sum()))
    for term, expected in (("lovasz", jaccard), ("dice", dice)):
        mean = sum(expected) / max(1, len(expected))
        assert value(one(term), scores, target).item() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("truth", [[1], [1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1]])
def test_the_extension_is_the_largest_over_all_orders(truth: list[int]) -> None:
    """The Jaccard loss is submodular, so its extension is the support function of its base polytope."""
    errors = torch.rand(len(truth), generator=torch.Generator().manual_seed(1)).tolist()
    scores = torch.tensor([[1 - e if t else e for e, t in zip(errors, truth, strict=True)]]).logit()
    # Class 1 has the probability that its score's logistic function gives, class 0 the rest; both count.
    scores = torch.stack([torch.zeros_like(scores), scores], 1)[..., None, :].flatten(2, 3)[:, :, None]
    labels = torch.tensor(truth).view(1, 1, -1)

    def largest(own: list[int]) -> float:
        values: list[float] = []
        for order in permutations(range(len(own))):
            sets = [order[:count] for count in range(len(own) + 1)]
            steps = [jaccard_loss(b, own) - jaccard_loss(a, own) for a, b in pairwise(sets)]
            values.append(sum(errors[i] * step for i, step in zip(order, steps, strict=True)))
        return max(values)

    classes = [largest([int(t == k) for t in truth]) for k in sorted(set(truth))]
    assert value(one("lovasz"), scores, labels).item() == pytest.approx(sum(classes) / len(classes), rel=1e-5)


def test_lovasz_of_a_large_image_keeps_its_precision() -> None:
    """Where neighbouring ratios differ in no bit of float32: against differences in double precision."""
    generator = torch.Generator().manual_seed(0)
    count = 1 << 20
    own = torch.rand(count, generator=generator) < 0.3
    missed = own.double().cumsum(0)
    union = missed[-1] + torch.arange(1, count + 1) - missed
    ratios = torch.cat([torch.zeros(1, dtype=torch.float64), 1 - (missed[-1] - missed) / union])
    torch.testing.assert_close(overlap._increments(own, own.float()).double(), ratios.diff(), rtol=1e-5, atol=1e-15)


@given(st.lists(st.floats(0, 2, width=32), max_size=50))
def test_errors_are_sorted(values: list[float]) -> None:
    errors = torch.tensor(values, dtype=torch.float32)
    order = overlap._descending(errors)
    assert sorted(order.tolist()) == list(range(len(values)))
    assert errors[order].tolist() == sorted(values, reverse=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("images", [0, 2])
def test_void_alone_gives_nothing(term: str, reduction: str, weights: Tensor | None, images: int) -> None:
    scores = torch.randn(images, 3, 4, 4, requires_grad=True)
    loss, target = one(term, reduction, weights), torch.full((images, 4, 4), VOID, dtype=torch.uint8)
    found = value(loss, scores, target)
    torch.autograd.backward(loss.total(found))
    assert found.tolist() == [0]
    per_pixel = loss.per_pixel(found, loss.amounts(target)).item()
    assert math.isnan(per_pixel) if reduction == "image" or term not in losses.PIXELWISE else per_pixel == 0
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros_like(scores))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pixels_of_classes_of_weight_0_do_not_count(reduction: str) -> None:
    scores, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    target[1] = 2
    weights = torch.tensor([1.0, 2.0, 0.0])
    void = target.masked_fill(target == 2, VOID)
    for term in ("cross-entropy", "focal"):
        loss = one(term, reduction, weights)
        torch.testing.assert_close(value(loss, scores, target), value(loss, scores, void))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_0_and_1_leave_all_finite(term: str, gamma: float, dtype: torch.dtype) -> None:
    scores = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1).repeat(1, 1, 1, 4).to(dtype).requires_grad_()
    target = torch.tensor([[[0, 1, 2, VOID]]])
    found = value(one(term, focal_gamma=gamma), scores, target)
    torch.autograd.backward(found.sum())
    assert found.isfinite().all()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    if term == "cross-entropy":
        assert found.item() == pytest.approx(3e4 / 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_scores_and_autocast_are_reckoned_in_float32(dtype: torch.dtype) -> None:
    scores, target = torch.randn(2, 3, 40, 40).to(dtype), torch.randint(3, (2, 40, 40), dtype=torch.uint8)
    loss = TaskLoss(LossOptions(dict.fromkeys(TERMS, 1.0)), torch.tensor([0.3, 1.7, 1.0]))
    expected = value(loss, scores.float(), target)
    assert torch.equal(value(loss, scores, target), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(value(loss, scores.float(), target), expected)
        assert loss.total(expected).item() == pytest.approx(sum(expected.tolist()), rel=1e-6)


def test_amounts_by_hand() -> None:
    target = torch.tensor([[[0, 0, 1, VOID, 1]], [[1, 1, VOID, VOID, VOID]], [[VOID] * 5]], dtype=torch.uint8)
    weights, terms = torch.tensor([0.5, 3.0]), dict.fromkeys(TERMS, 1.0)
    # Weighted 1 + 6 and 6; hard are ceil(0.3 * 4) and ceil(0.3 * 2).
    for reduction, expected in (
        ("mean", [13, 13, 3, 2, 2, 13]),
        ("image", [2, 2, 2, 2, 2, 13]),
        ("sum", [0.75, 0.75, 0.75, 2, 2, 13]),
    ):
        loss = TaskLoss(LossOptions(terms, reduction, ohem_share=0.3), weights, share=0.25)
        assert loss.amounts(target).tolist() == expected
    assert TaskLoss(LossOptions(terms)).amounts(target)[-1].item() == 6


def test_a_large_target_is_counted_exactly() -> None:
    target = torch.randint(5, (2, 300, 400), dtype=torch.uint8)
    target[:, :7] = VOID
    weights = torch.tensor([0.4, 1.0, 3.0, 0.7, 2.2])
    expected = weights.double()[target[target != VOID].long()].sum().item()
    assert one("cross-entropy", weights=weights).amounts(target)[-1].item() == pytest.approx(expected, rel=1e-12)


@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_the_total_and_the_value_per_pixel(case: Case) -> None:
    terms = {"lovasz": 0.5, "focal": 2.0, "ohem": 1.5, "cross-entropy": 0.25}
    mean, summed = (TaskLoss(LossOptions(terms, kind), case.weights, 0.3) for kind in ("mean", "sum"))
    amounts, values = summed.amounts(case.target), value(summed, case.scores, case.target)
    assert summed.total(values).item() == pytest.approx(
        sum(f * v for f, v in zip(terms.values(), values.tolist(), strict=True)), rel=1e-5
    )
    means = value(mean, case.scores, case.target)
    expected = 2 * means[1].item() + 0.25 * means[3].item()
    for number in (values, values.double()):
        assert summed.per_pixel(number, amounts).item() == pytest.approx(expected, rel=1e-5)
    found = mean.per_pixel(means, mean.amounts(case.target)).item()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("term", "reduction"), [("cross-entropy", "image"), ("lovasz", "sum"), ("ohem", "sum")])
def test_what_values_do_not_tell_is_no_number(term: str, reduction: str) -> None:
    loss, scores, target = one(term, reduction), torch.randn(1, 3, 4, 4), torch.randint(3, (1, 4, 4))
    assert loss.per_pixel(value(loss, scores, target), loss.amounts(target)).isnan()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cross-entropy", {"cross-entropy": 1.0}),
        ("cross-entropy+0.5*lovasz", {"cross-entropy": 1.0, "lovasz": 0.5}),
        (" 2 * dice  +  1e-3*focal+ohem ", {"dice": 2.0, "focal": 1e-3, "ohem": 1.0}),
    ],
)
def test_terms_are_read(text: str, expected: dict[str, float]) -> None:
    assert parse_terms(text) == expected
    assert list(parse_terms(text)) == list(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^loss terms '': a term is empty; expected such as 'cross-entropy\+0.5\*lovasz'$"),
        ("dice++focal", r"loss terms 'dice\+\+focal': a term is empty"),
        ("dice+", "a term is empty"),
        ("2*", "a term is empty"),
        ("0.5*lovas", "unknown loss term 'lovas'; did you mean 'lovasz'. Choices: cross-entropy, dice, focal"),
        ("dice-focal", "unknown loss term"),
        ("dice*2", "unknown loss term '2'"),
        ("dice+2*dice", "^loss term dice is given twice; add up its factors$"),
        *[
            (f"{factor}*dice", f"^factor '{shown}' of the loss term dice; expected a number > 0$")
            for factor, shown in (
                ("0", "0"), ("-1", "-1"), ("nan", "nan"), ("inf", "inf"), ("1e999", "1e999"), ("", ""), ("2*3", "2\\*3")
            )
        ],
        ("dice" + " " * 197, "^loss terms of 201 characters; expected at most 200$"),
    ],
)  # fmt: skip
def test_terms_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_terms(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": {}}, "^no loss term; expected one at least of cross-entropy, focal, ohem, dice, lovasz$"),
        ({"terms": {"entropy": 1.0}}, "unknown loss term 'entropy'; did you mean 'cross-entropy'"),
        ({"terms": {"dice": 0.0}}, "^factor '0.0' of the loss term dice; expected a number > 0$"),
        ({"terms": {"dice": None}}, "factor 'None' of the loss term dice"),
        ({"reduction": "maen"}, r"unknown loss reduction 'maen'; did you mean 'mean'\? Choices: image, mean, sum"),
        ({"focal_gamma": -0.1}, r"^focal_gamma -0.1; expected 0\.\.10$"),
        ({"focal_gamma": 11.0}, "focal_gamma 11.0"),
        ({"focal_gamma": math.nan}, "focal_gamma nan"),
        ({"ohem_share": 0.0}, "^ohem_share 0.0; expected 0 < share <= 1$"),
        ({"ohem_share": 1.01}, "ohem_share 1.01"),
        ({"ohem_share": math.nan}, "ohem_share nan"),
    ],
)
def test_options_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        LossOptions(**{"terms": {"dice": 1.0}, **options})  # type: ignore[arg-type]


def test_class_weights_by_hand() -> None:
    # Shares 9/16, 4/16, 3/16 -> 4/3, 2, 4/sqrt 3; their mean over the pixels is 3/4 + 1/2 + sqrt(3)/4 = 1.6830.
    mean = 0.75 + 0.5 + math.sqrt(3) / 4
    assert class_weights([9, 4, 3], "sqrt") == pytest.approx((4 / 3 / mean, 2 / mean, 4 / math.sqrt(3) / mean))
    assert class_weights([5, 5], "sqrt") == pytest.approx((1, 1))
    # The median share is 4/16, the mean of two where their number is even; a class without pixels has none.
    assert class_weights([9, 4, 3], "median") == pytest.approx((4 / 9, 1, 4 / 3))
    assert class_weights([9, 0, 3], "median") == pytest.approx((6 / 9, 1, 2))
    # 16/9, 16/4, 16/3: over the pixels their mean is 3, the number of classes.
    assert class_weights([9, 4, 3], "inverse") == pytest.approx((16 / 27, 16 / 12, 16 / 9))
    assert class_weights([9, 0, 3], "inverse") == pytest.approx((12 / 18, 1, 12 / 6))


def test_class_weights_are_clipped_and_absent_classes_get_one() -> None:
    # Shares of almost 1 and 10^-6 -> factors 1 and 1000, 1.001 in the mean: the rare class stops at 3.
    assert class_weights([1_000_000, 1], "sqrt") == pytest.approx((1 / 1.001, 3.0), rel=1e-5)
    # Shares 1/2 and 250 times 1/500 -> sqrt 2 and sqrt 500, 11.9 in the mean: 0.12 for the common class, raised to 0.4.
    assert class_weights([10_000, *[40] * 250], "sqrt") == pytest.approx((0.4, *[500**0.5 / 11.8875] * 250), rel=1e-4)
    # Shares 9/25 and 16/25 -> 5/3 and 5/4, 7/5 in the mean.
    assert class_weights([9, 0, 16], "sqrt") == pytest.approx((25 / 21, 1.0, 25 / 28))


@pytest.mark.parametrize(
    ("pixels", "kind"), [([3, 4], "none"), *[(p, k) for p in ([0, 0], []) for k in ("sqrt", "median", "inverse")]]
)
def test_no_class_weights(pixels: list[int], kind: str) -> None:
    assert class_weights(pixels, kind) is None


@pytest.mark.parametrize("kind", ["sqrt", "median", "inverse"])
@given(pixels=st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_rarer_classes_never_weigh_less(kind: str, pixels: list[int]) -> None:
    factors = class_weights(pixels, kind)
    if factors is None:
        assert not any(pixels)
        return
    present = sorted((count, factor) for count, factor in zip(pixels, factors, strict=True) if count)
    assert all(a[1] >= b[1] for a, b in pairwise(present))
    total = sum(pixels)
    low, high = {
        "sqrt": (0.4, 3),
        "median": (0, max(1, total / 2)),
        "inverse": (1 / len(present), total / len(present)),
    }[kind]
    assert all(low * (1 - 1e-12) <= factor <= high * (1 + 1e-12) for _, factor in present)
    if kind == "inverse":
        assert sum(count * factor for count, factor in present) / total == pytest.approx(1)


@pytest.mark.parametrize("weights", [(0.5, 2.0), [1, 0]])
def test_class_weights_that_are_given_are_taken(weights: Sequence[float]) -> None:
    assert class_weights([3, 4], weights) == tuple(map(float, weights))
    assert class_weights([0, 0], weights) == tuple(map(float, weights))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("square", "unknown class weights 'square'.*Choices: inverse, median, none, sqrt"),
        ((1.0, 2.0, 3.0), "^3 class weights for 2 classes; give one a class, in their order$"),
        ((), "^0 class weights for 2 classes"),
        ((1.0, -0.5), "^class weight '-0.5'; expected a finite number >= 0$"),
        ((1.0, math.inf), "class weight 'inf'; expected a finite number >= 0"),
        ((math.nan, 1.0), "class weight 'nan'"),
        (("1", 1.0), "class weight '1'"),
        ((True, 1.0), "class weight 'True'"),
        ((0.0, 0), "^class weights are all 0; expected one > 0 at least: nothing would be learned$"),
    ],
)
def test_class_weights_that_cannot_be(kind: str | Sequence[float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        class_weights([1, 2], kind)
