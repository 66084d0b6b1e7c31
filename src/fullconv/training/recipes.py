"""Recipes: what a training run does where its user says nothing; and how a recipe becomes a run's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import sqrt
from typing import Any

from fullconv.data.augment import Augmentation
from fullconv.errors import OptionError, unknown_name
from fullconv.training.losses import CLASS_WEIGHTS, REDUCTIONS

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "fixed")


@dataclass(frozen=True)
class Recipe:
    """Everything about a run that is not the net, the data or the time.

    Attributes:
        optimizer: "adamw", or "sgd" with `momentum`.
        lr: at its highest.
        weight_decay: of weights; biases and batch norm are never decayed.
        bias_lr: factor on the learning rate of biases (2 in the paper, section 4.3).
        schedule: "cosine" (to zero, after `warmup`) or "fixed".
        warmup: share of the run in which the rate rises linearly from 0.
        reduction: of the loss, "mean" or "sum" (see `losses.cross_entropy`).
        class_weights: "none" or "sqrt" (see `losses.class_weights`).
        loss_share: p, 0.001..1: each coarse cell counts in the loss with this probability (see `sampling`).
        batch: images a step.
        augmentation: crop, scale, flip, jitter.
        steps: length of the run where neither steps, epochs nor minutes are given.
        clip: largest norm of the gradient, 0 for none.
        fixed: only the score layers learn (FCN-32s-fixed, Long et al. 2015, table 2).
    """

    optimizer: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.02
    bias_lr: float = 1.0
    schedule: str = "cosine"
    warmup: float = 0.03
    reduction: str = "mean"
    class_weights: str = "sqrt"
    loss_share: float = 1.0
    batch: int = 8
    augmentation: Augmentation = Augmentation()  # noqa: RUF009  (frozen)
    steps: int = 4000
    clip: float = 5.0
    fixed: bool = False

    def __post_init__(self) -> None:
        for kind, name, choices in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("loss reduction", self.reduction, REDUCTIONS),
            ("class weights", self.class_weights, CLASS_WEIGHTS),
        ):
            if name not in choices:
                raise unknown_name(kind, name, choices)
        if not isinstance(self.fixed, bool):
            raise OptionError(f"fixed {self.fixed!r}; expected true or false")
        for name in ("batch", "steps"):
            if not isinstance(getattr(self, name), int):
                raise OptionError(f"{name} {getattr(self, name)!r}; expected a whole number")
        for name, low, high in (
            ("lr", 0, 100), ("momentum", 0, 1), ("weight_decay", 0, 100), ("bias_lr", 0, 100), ("warmup", 0, 1),
            ("loss_share", 0.001, 1), ("batch", 1, 65536), ("steps", 1, 10**9), ("clip", 0, 1e9),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise OptionError(f"{name} {getattr(self, name)}; expected {low}..{high}")

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for run.yaml."""
        return asdict(self)


RECIPES = {
    # Our own, for random weights: scale and crop from the data (see `fitted`).
    "scratch": Recipe(),
    # Shelhamer et al. 2016, section 4, and the released solvers (reference 5.2, 5.3): one whole image a step, summed
    # loss, heavy momentum, doubled bias rate. The rate is that of the 32s nets, for pretrained trunks.
    "heavy": Recipe(
        optimizer="sgd",
        lr=1e-10,
        momentum=0.99,
        weight_decay=5e-4,
        bias_lr=2.0,
        schedule="fixed",
        warmup=0.0,
        reduction="sum",
        class_weights="none",
        batch=1,
        steps=100_000,
        clip=0.0,
    ),
}

CROP = 288
"""Side of a training crop for photographs: nine cells at stride 32."""

LARGEST_BATCH = 16
"""Of the `scratch` recipe: small images are many in a step, but steps are what a short run lacks."""

BATCH_PIXELS = 8 * CROP * CROP
"""Pixels in a step of the `scratch` recipe."""


def fitted(name: str, sizes: Sequence[tuple[int, int]], overrides: Mapping[str, Any]) -> Recipe:
    """A recipe with its open choices made from the data, and single values replaced.

    `scratch` crops images to at most 288 pixels a side, at scales of 0.7 to 1.5 and with colour jitter, if most are
    larger than 128; smaller images (chips, wafer maps) are whole and unscaled. The batch holds about as many pixels
    as 8 crops of 288, at most 16 images and a quarter of all; the learning rate follows its square root.

    A `loss_share` of p divides a recipe's batch by p, so that a step's loss has as many cells as without it
    (Long et al. 2015, section 4.4), and the learning rate follows the square root of batch times p.

    A crop or batch that is given is taken as it is, whatever the share, and the rest follows it: who says ``batch=8``
    gets steps of 8 images.

    Args:
        name: a key of `RECIPES`.
        sizes: (H, W) of every training image.
        overrides: fields of `Recipe`, and of `Augmentation`.

    Raises:
        OptionError: an unknown name, or a value out of range.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    recipe = RECIPES[name]
    recipe = _overridden(recipe, overrides)
    if name == "scratch":
        heights, widths = sorted(h for h, _ in sizes), sorted(w for _, w in sizes)
        typical = heights[len(heights) // 2], widths[len(widths) // 2]
        crop = overrides.get("crop", (min(CROP, _multiple(typical[0])), min(CROP, _multiple(typical[1]))))
        if crop is not None and max(typical) > 128:
            augmentation = Augmentation(crop, (0.7, 1.5), flip=True, jitter=0.3)
            shown = crop
        else:
            augmentation = Augmentation(flip=True)
            shown = typical
        most = max(2, min(BATCH_PIXELS // (shown[0] * shown[1]), LARGEST_BATCH, len(sizes) // 4))
        recipe = replace(recipe, augmentation=augmentation, batch=most)
    recipe = replace(recipe, batch=overrides.get("batch", max(1, round(recipe.batch / recipe.loss_share))))
    if name == "scratch":
        recipe = replace(recipe, lr=recipe.lr * sqrt(recipe.batch * recipe.loss_share / 8))
    return _overridden(recipe, overrides)


def _overridden(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    own = {f.name for f in fields(Recipe)} - {"augmentation"}
    augmentation = {f.name for f in fields(Augmentation)}
    for key in overrides:
        if key not in own | augmentation:
            raise unknown_name("training option", key, own | augmentation)
    try:
        changed = replace(recipe.augmentation, **{k: v for k, v in overrides.items() if k in augmentation})
        return replace(recipe, augmentation=changed, **{k: v for k, v in overrides.items() if k in own})
    except TypeError as error:
        raise OptionError(
            f"a training option is of a wrong type ({error}); crop is (H, W), scale (low, high)"
        ) from error


def _multiple(size: int, of: int = 32) -> int:
    return max(of, -(-size // of) * of)
