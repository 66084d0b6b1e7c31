"""Losses of semantic segmentation in which void pixels do not count.

A loss is a sum of terms; a term is a sum over images of something of that image alone, over a normaliser that the
targets alone determine. So a step's images may be shared out in any way, over parts or processes: the parts' amounts
add up to the normalisers of the whole, and with those the parts' values add up to the value of the whole.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fullconv.errors import OptionError, unknown_name
from fullconv.labels import VOID
from fullconv.training.overlap import dice, lovasz

REDUCTIONS = ("mean", "image", "sum")
TERMS = ("cross-entropy", "focal", "ohem", "dice", "lovasz")
CLASS_WEIGHTS = ("none", "sqrt", "median", "inverse")

PIXELWISE = frozenset({"cross-entropy", "focal"})
"""The terms that are a (weighted) mean over all valid pixels where the reduction is "mean"."""

LONGEST = 200
"""Characters of the terms' text."""

BLOCK = 1 << 20
"""Scores that a processor works on at a time, 4 MiB of float32: they stay in its cache from one pass to the next."""


def parse_terms(text: str) -> dict[str, float]:
    """Terms of `TERMS` with a factor each, 1 where none is given.

    Raises:
        OptionError: no term, an unknown or repeated one, a factor that is no number > 0, or a text longer than 200.

    >>> parse_terms("cross-entropy + 0.5*lovasz")
    {'cross-entropy': 1.0, 'lovasz': 0.5}
    """
    if len(text) > LONGEST:
        raise OptionError(f"loss terms of {len(text)} characters; expected at most {LONGEST}")
    terms: dict[str, float] = {}
    for part in text.split("+"):
        factor, star, name = part.rpartition("*")
        name = name.strip()
        if not name:
            raise OptionError(f"loss terms {text!r}: a term is empty; expected such as 'cross-entropy+0.5*lovasz'")
        if name not in TERMS:
            raise unknown_name("loss term", name, TERMS)
        if name in terms:
            raise OptionError(f"loss term {name} is given twice; add up its factors")
        terms[name] = _factor(name, factor.strip() if star else 1.0)
    return terms


def _factor(name: str, value: object) -> float:
    try:
        factor = float(value)  # type: ignore[arg-type]  # whatever it is
    except (TypeError, ValueError):
        factor = math.nan
    if not 0 < factor < math.inf:
        raise OptionError(f"factor {str(value)[:80]!r} of the loss term {name}; expected a number > 0")
    return factor


def class_weights(pixels: Sequence[int], kind: str | Sequence[float]) -> tuple[float, ...] | None:
    """Loss factors from the classes' pixel counts; None: no factors, as where there are no pixels.

    Args:
        pixels: (K,), of each class in the training set. A class's share is its pixels over those of all classes.
        kind: a sequence of K factors is taken as it is; else a class without pixels gets 1, and the others

            - "none": no factors;
            - "sqrt": 1 / sqrt(share), scaled to a mean of 1 over the pixels and clipped to 0.4 .. 3, so that rare
              classes count more without drowning the common ones;
            - "median": the median of the shares over the share, > 0 .. half of all pixels (median frequency balancing,
              Eigen and Fergus 2015, section 4.3.3). The paper's frequency counts only images that show the class; this
              one counts all, as `fullconv doctor` shows it. The median is that of the classes with pixels;
            - "inverse": 1 / share, scaled to a mean of 1 over the pixels: 1 / P .. all pixels / P for P classes with
              pixels.

    Raises:
        OptionError: an unknown kind; factors that are not K finite numbers >= 0, one of them > 0.

    >>> class_weights([900, 100], "sqrt"), class_weights([900, 100], "inverse")
    ((0.833..., 2.5), (0.555..., 5.0))
    >>> class_weights([800, 150, 50], "median")
    (0.1875, 1.0, 3.0)
    """
    if not isinstance(kind, str):
        return _given_weights(kind, len(pixels))
    if kind not in CLASS_WEIGHTS:
        raise unknown_name("class weights", kind, CLASS_WEIGHTS)
    present = [count for count in pixels if count]
    if kind == "none" or not present:
        return None
    if kind == "median":
        middle = statistics.median(present)
        return tuple(middle / count if count else 1.0 for count in pixels)
    total = sum(present)
    if kind == "inverse":
        return tuple(total / (len(present) * count) if count else 1.0 for count in pixels)
    mean = sum(count * (total / count) ** 0.5 for count in present) / total
    return tuple(min(max((total / count) ** 0.5 / mean, 0.4), 3.0) if count else 1.0 for count in pixels)


def _given_weights(weights: Sequence[float], classes: int) -> tuple[float, ...]:
    if len(weights) != classes:
        raise OptionError(f"{len(weights)} class weights for {classes} classes; give one a class, in their order")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise OptionError(f"class weight {str(weight)[:80]!r}; expected a finite number >= 0")
    if not any(weights):
        raise OptionError("class weights are all 0; expected one > 0 at least: nothing would be learned")
    return tuple(map(float, weights))


@dataclass(frozen=True)
class LossOptions:
    """What a loss is.

    Attributes:
        terms: names of `TERMS` with a factor > 0 each.
        reduction: of "cross-entropy", "focal" and "ohem"; each pixel counts by the weight of its class.

            - "mean": over the valid pixels of the step;
            - "image": over those of each image, then over the images that have any;
            - "sum": over the pixels, divided by the number of images: the reference nets' unnormalised loss (Shelhamer
              et al. 2016, section 4; Caffe's normaliser, reference 5.4).

        focal_gamma: 0..10, the exponent of "focal", (1 - p)^gamma times the cross-entropy (Lin et al. 2017, section 3).
        ohem_share: 0 < s <= 1: "ohem" is the cross-entropy of the ceil(s V) of an image's V valid pixels in which it is
            largest, and its mean is over their number (Shrivastava et al. 2016; of pixels: Wu et al. 2016).

    "dice" is the soft Dice loss (Milletari et al. 2016, section 3) and "lovasz" the Lovász-softmax loss (Berman et al.
    2018, section 3.1), of each image over the classes that are present in its truth, then the mean over the images that
    have valid pixels, whatever the reduction.

    Raises:
        OptionError: an unknown name, or a value out of range.
    """

    terms: Mapping[str, float]
    reduction: str = "mean"
    focal_gamma: float = 2.0
    ohem_share: float = 0.25

    def __post_init__(self) -> None:
        if not self.terms:
            raise OptionError(f"no loss term; expected one at least of {', '.join(TERMS)}")
        for name, factor in self.terms.items():
            if name not in TERMS:
                raise unknown_name("loss term", name, TERMS)
            _factor(name, factor)
        if self.reduction not in REDUCTIONS:
            raise unknown_name("loss reduction", self.reduction, REDUCTIONS)
        if not 0 <= self.focal_gamma <= 10:
            raise OptionError(f"focal_gamma {self.focal_gamma}; expected 0..10")
        if not 0 < self.ohem_share <= 1:
            raise OptionError(f"ohem_share {self.ohem_share}; expected 0 < share <= 1")


class TaskLoss:
    """The loss of one task.

    Args:
        options: what it is.
        weights: (K,) float32, factors on the pixels of each class, on the device of the scores; None: all 1. Dice and
            Lovász, in which every class counts alike, do not use them.
        share: of the pixels that `sampling.sampled` left. A sum is divided by it, so that it stays the same in
            expectation; a mean has no need of that.

    >>> loss = TaskLoss(LossOptions({"cross-entropy": 1.0}))
    >>> scores, target = torch.zeros(1, 21, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)
    >>> round(loss.total(loss(scores, target, loss.amounts(target))).item(), 4)  # ln 21
    3.0445
    """

    def __init__(self, options: LossOptions, weights: Tensor | None = None, share: float = 1.0) -> None:
        self.options, self.weights, self.share = options, weights, share

    def amounts(self, target: Tensor) -> Tensor:
        """What these images add to the normaliser of every term, in order, and last their weighted valid pixels.

        Args:
            target: (N, H, W) uint8 or int64, class numbers and 255 for void.

        Returns:
            (T + 1,) float64 for T terms; those of parts add up to those of the whole.
        """
        valid, weighted = self._pixels(target)
        parts = [self._added(term, valid, weighted).sum() for term in self.options.terms]
        return torch.stack([*parts, weighted.sum()])

    def __call__(self, scores: Tensor, target: Tensor, amounts: Tensor) -> Tensor:
        """What these images contribute to every term, whose factor is not applied.

        Args:
            scores: (N, K, H, W) float.
            target: (N, H, W) uint8 or int64, class numbers and 255 for void.
            amounts: of the whole step, of which these images may be a part.

        Returns:
            (T,) float32 (float64 of such scores); 0 with zero gradient where every pixel is void.
        """
        # A graphics processor would rather have few launches.
        step = BLOCK // scores.shape[1:].numel() if scores.device.type == "cpu" else len(scores)
        pieces = (torch.split(tensor, max(1, step)) for tensor in (scores, target))
        sums = torch.stack([self._sums(*piece) for piece in zip(*pieces, strict=True)]).sum(0)
        normalisers = amounts[:-1] + (amounts[:-1] == 0)
        return (sums / normalisers).to(sums.dtype)

    def total(self, values: Tensor) -> Tensor:
        """The loss, a scalar: the sum of factor times value over the terms."""
        return (values * values.new_tensor(list(self.options.terms.values()))).sum()

    def per_pixel(self, values: Tensor, amounts: Tensor) -> Tensor:
        """The loss that the reduction "mean" would have given, a scalar, to be shown beside the paper's sum.

        It is that of the terms "cross-entropy" and "focal", with their factors; nan where there are none, and for the
        reduction "image", whose values do not tell it.

        Args:
            values, amounts: of the whole step.
        """
        pixelwise = [name in PIXELWISE for name in self.options.terms]
        if self.options.reduction == "image" or not any(pixelwise):
            return values.new_tensor(math.nan)
        pixels = amounts[-1] + (amounts[-1] == 0)
        return self.total(values * (amounts[:-1] / pixels * amounts.new_tensor(pixelwise)).to(values.dtype))

    def _pixels(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Valid pixels of each image, and the same weighted by class: (N,) float64 each."""
        valid = (target != VOID).flatten(1).sum(1).double()
        if self.weights is None:
            return valid, valid
        # Counted by class rather than gathered by pixel: less than half of the time.
        values = VOID + 1
        first = values * torch.arange(len(target), device=target.device)[:, None]
        counts = torch.bincount((target.flatten(1) + first).flatten(), minlength=values * len(target))
        return valid, (counts.view(len(target), values)[:, : len(self.weights)] * self.weights.double()).sum(1)

    def _counted(self, term: str, valid: Tensor, weighted: Tensor) -> Tensor:
        """The (weighted) pixels of each image that are in a term."""
        return (self.options.ohem_share * valid).ceil() if term == "ohem" else weighted

    def _added(self, term: str, valid: Tensor, weighted: Tensor) -> Tensor:
        """What each image adds to a term's normaliser: (N,) float64."""
        if term in {"dice", "lovasz"}:
            return (valid > 0).double()
        pixels = self._counted(term, valid, weighted)
        if self.options.reduction == "sum":
            return torch.full_like(pixels, self.share)
        return (pixels > 0).double() if self.options.reduction == "image" else pixels

    def _sums(self, scores: Tensor, target: Tensor) -> Tensor:
        """Of every term, the sum over the images that is to be normalised: (T,)."""
        log_p = F.log_softmax(scores, 1, dtype=torch.promote_types(scores.dtype, torch.float32))
        truth = target.long()
        weights = None if self.weights is None else self.weights.to(log_p)
        sums = []
        for term in self.options.terms:
            if term == "dice":
                sums.append(dice(log_p.exp(), target).sum())
                continue
            if term == "lovasz":
                sums.append(lovasz(log_p.exp(), target).sum())
                continue
            loss = F.nll_loss(log_p, truth, weights, ignore_index=VOID, reduction="none").flatten(1)
            if term == "focal":
                plain = F.nll_loss(log_p, truth, ignore_index=VOID, reduction="none").flatten(1)
                # Kept off 0, where a power below 1 has no slope.
                miss = (-torch.expm1(-plain)).clamp(min=torch.finfo(plain.dtype).tiny)
                loss = miss**self.options.focal_gamma * loss
            if term == "ohem" or self.options.reduction == "image":
                counted = self._counted(term, *self._pixels(target))
                if term == "ohem":
                    loss = loss * _hardest(loss, target, counted)
                if self.options.reduction == "image":
                    loss = loss / (counted + (counted == 0)).to(loss.dtype)[:, None]
            sums.append(loss.sum())
        return torch.stack(sums)


@torch.no_grad()
def _hardest(loss: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Which pixels of each image have the largest loss, (N, H W) bool: as many as `counts`, (N,), says."""
    order = loss.masked_fill(target.flatten(1) == VOID, -1)
    chosen = torch.zeros_like(loss, dtype=torch.bool)
    for row, losses, count in zip(chosen, order, counts.tolist(), strict=True):
        row[losses.topk(int(count), sorted=False).indices] = True
    return chosen
