"""The table of recipes: what a run does where its user says nothing, and how a recipe is fitted to net and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

from fullconv.data.augment import Augmentation
from fullconv.errors import unknown_name
from fullconv.training.recipe import Recipe, overridden

HEAVY = Recipe(
    optimizer="sgd",
    lr=1e-10,
    momentum=0.99,
    weight_decay=5e-4,
    bias_lr=2.0,
    stage_lr=0.01,
    schedule="fixed",
    warmup=0.0,
    reduction="sum",
    class_weights="none",
    batch=1,
    order="replacement",
    steps=100_000,
    clip=0.0,
)

RECIPES = {
    # Our own, for random weights: scale and crop from the data (see `fitted`).
    "scratch": Recipe(optimizer="muon"),
    # Our own, for a trunk with weights: a rate at which they are not lost, and a higher one for new score layers.
    "finetune": Recipe(lr=2e-4, head_lr=10.0),
    # Shelhamer et al. 2016, section 4, and the released solvers (reference 5.2, 5.3): one whole image a step, summed
    # loss, heavy momentum. The rate is that of the first stage, for a classifier's weights.
    "heavy": HEAVY,
    # The same with all skips at once, their features scaled (Shelhamer et al. 2016, section 4.3; reference 5.3).
    "atonce": replace(HEAVY, steps=300_000, skip_scales={16: 1e-2, 8: 1e-4}),
    # The same where only the score layers learn (Long et al. 2015, table 2, FCN-32s-fixed; reference 5.1).
    "fixed": replace(HEAVY, fixed=True),
    # Long et al. 2015, section 4.3 (reference 5.1): the gradients of 20 whole images, each one's mean loss.
    "accumulated": replace(
        HEAVY, lr=1e-4, momentum=0.9, reduction="image", batch=20, accumulate=20, order="epochs", epochs=175.0
    ),
    # The released FCN-AlexNet (reference 5.3): the same with images drawn at random.
    "alexnet": replace(HEAVY, lr=1e-4, momentum=0.9, reduction="image", batch=20, accumulate=20),
}


@dataclass(frozen=True)
class Solver:
    """What a released solver sets beside the heavy recipe: its learning rate and iterations."""

    lr: float
    steps: int


SOLVERS = {
    "voc-fcn32s": Solver(1e-10, 100_000),
    "voc-fcn16s": Solver(1e-12, 100_000),
    "voc-fcn8s": Solver(1e-14, 100_000),
    "voc-fcn8s-atonce": Solver(1e-10, 300_000),
    "pascalcontext-fcn32s": Solver(1e-10, 300_000),
    "pascalcontext-fcn16s": Solver(1e-12, 300_000),
    "pascalcontext-fcn8s": Solver(1e-14, 300_000),
    "nyud-fcn32s-color": Solver(1e-10, 300_000),
    "nyud-fcn32s-hha": Solver(1e-10, 300_000),
    "nyud-fcn32s-color-d": Solver(1e-10, 300_000),
    "nyud-fcn32s-color-hha": Solver(1e-12, 300_000),
    "siftflow-fcn32s": Solver(1e-10, 300_000),
    "siftflow-fcn16s": Solver(1e-12, 300_000),
    "siftflow-fcn8s": Solver(1e-12, 300_000),
}
"""By published net, for the recipe "heavy" (reference 5.3). voc-fcn-alexnet's is the recipe "alexnet"."""

LINE_SEARCH = {
    "alexnet": {"lr": 1e-3},
    "vgg16": {"lr": 1e-4},
    "googlenet": {"lr": 5e-5, "weight_decay": 2e-4},
}
"""By trunk, for the recipe "accumulated" (Long et al. 2015, section 4.3; reference 5.1)."""

CROP = 288
"""Side of a training crop for photographs: nine cells at stride 32."""

LARGEST_BATCH = 16
"""Of our own recipes: small images are many in a step, but steps are what a short run lacks."""

BATCH_PIXELS = 8 * CROP * CROP
"""Pixels in a step of our own recipes."""

OWN = ("scratch", "finetune")


@dataclass(frozen=True)
class Fit:
    """What a recipe is fitted to.

    Attributes:
        sizes: (H, W) of every training image.
        net: the name it was asked for by, where it has one.
        trunk: its trunk.
    """

    sizes: Sequence[tuple[int, int]]
    net: str | None = None
    trunk: str = ""


def fitted(name: str, fit: Fit, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe with its open choices made from net and data, and single values replaced.

    "heavy" takes rate and length of a published net from its released solver, "accumulated" the rate of the trunk.

    "scratch" and "finetune" crop images to at most 288 pixels a side, at scales of 0.7 to 1.5 and with colour jitter,
    if most are larger than 128, and take the loss on every second row and column; smaller images (chips, wafer maps)
    are whole and unscaled, every pixel counts. The batch holds about as many pixels as 8 crops of 288, at most 16
    images and a quarter of all; the learning rate follows its square root.

    A `loss_share` of p divides a recipe's batch by p, so that a step's loss has as many cells as without it
    (Long et al. 2015, section 4.4), and the learning rate follows the square root of batch times p.

    A crop or batch that is given is taken as it is, whatever the share, and the rest follows it: who says ``batch=8``
    gets steps of 8 images.

    Args:
        name: a key of `RECIPES`.
        overrides: fields of `Recipe`, and of `Augmentation`.

    Raises:
        OptionError: an unknown name, or a value out of range.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    shared = ("batch", "accumulate")  # which follow the others
    recipe = overridden(_for_net(name, fit), {key: v for key, v in overrides.items() if key not in shared})
    if name in OWN:
        recipe = _for_data(recipe, fit.sizes, overrides)
    batch = overrides.get("batch", max(1, round(recipe.batch / recipe.loss_share)))
    parts = overrides.get("accumulate", batch if recipe.accumulate > 1 else 1)  # of one image each, or one of all
    recipe = overridden(replace(recipe, accumulate=1), {"batch": batch})
    recipe = overridden(recipe, {"accumulate": parts})
    if name in OWN:
        recipe = replace(recipe, lr=recipe.lr * sqrt(recipe.batch * recipe.loss_share / 8))
    return overridden(recipe, overrides)


def _for_net(name: str, fit: Fit) -> Recipe:
    """The recipe with what its source says of a net."""
    recipe = RECIPES[name]
    if name == "heavy" and fit.net in SOLVERS:
        solver = SOLVERS[fit.net]
        return replace(recipe, lr=solver.lr, steps=solver.steps)
    if name == "accumulated":
        recipe = overridden(recipe, LINE_SEARCH.get(fit.trunk, {}))
    return recipe


def _for_data(recipe: Recipe, sizes: Sequence[tuple[int, int]], overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with augmentation and batch for images of these sizes."""
    heights, widths = sorted(h for h, _ in sizes), sorted(w for _, w in sizes)
    typical = heights[len(heights) // 2], widths[len(widths) // 2]
    crop = overrides.get("crop", (min(CROP, _multiple(typical[0])), min(CROP, _multiple(typical[1]))))
    if crop is not None and max(typical) > 128:
        augmentation = Augmentation(crop, (0.7, 1.5), flip=True, jitter=0.3)
        shown, step = crop, 2
    else:
        augmentation = Augmentation(flip=True)
        shown, step = typical, 1
    most = max(2, min(BATCH_PIXELS // (shown[0] * shown[1]), LARGEST_BATCH, len(sizes) // 4))
    return replace(recipe, augmentation=augmentation, batch=most, loss_stride=step)


def _multiple(size: int, of: int = 32) -> int:
    return max(of, -(-size // of) * of)
