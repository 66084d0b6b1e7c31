"""The table of recipes: the reference's values typed in again, and what is fitted to data and net."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.data.augment import Augmentation
from fullconv.errors import OptionError
from fullconv.nets import NETS
from fullconv.training.recipe import Recipe
from fullconv.training.recipes import RECIPES, SOLVERS, Fit, fitted

CAMVID = [(360, 480)] * 367
WAFERS = [(56, 53)] * 8000

Sizes = list[tuple[int, int]]


def fit(name: str, sizes: Sizes = CAMVID, net: str | None = None, trunk: str = "", **overrides: object) -> Recipe:
    return fitted(name, Fit(sizes, net, trunk), overrides)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("sizes", [CAMVID, WAFERS, [(1, 1)], [(4000, 6000)] * 3, [(375, 500), (500, 333), (64, 64)]])
def test_every_recipe_is_valid_for_any_data(name: str, sizes: Sizes) -> None:
    recipe = fit(name, sizes)
    assert replace(recipe) == recipe  # made anew, and checked again
    assert recipe.to_json()["augmentation"]["scale"] == recipe.augmentation.scale


# Reference 5.3, a line each: net, base_lr, max_iter.
SOLVERS_OF_THE_REFERENCE = """
voc-fcn32s            1e-10  100k
voc-fcn16s            1e-12  100k
voc-fcn8s             1e-14  100k
voc-fcn8s-atonce      1e-10  300k
pascalcontext-fcn32s  1e-10  300k
pascalcontext-fcn16s  1e-12  300k
pascalcontext-fcn8s   1e-14  300k
nyud-fcn32s-color     1e-10  300k
nyud-fcn32s-hha       1e-10  300k
nyud-fcn32s-color-d   1e-10  300k
nyud-fcn32s-color-hha 1e-12  300k
siftflow-fcn32s       1e-10  300k
siftflow-fcn16s       1e-12  300k
siftflow-fcn8s        1e-12  300k
"""
LINES = [line.split() for line in SOLVERS_OF_THE_REFERENCE.split("\n") if line]


@pytest.mark.parametrize(("net", "lr", "steps"), LINES, ids=lambda value: value)
def test_a_published_net_has_its_released_solver(net: str, lr: str, steps: str) -> None:
    """5.3: base_lr, lr_policy fixed, weight_decay 0.0005, momentum 0.99, iter_size 1, max_iter; 5.4: bias rate
    doubled; 5.2: summed loss; 5.1: whole images, no augmentation; 5.5: drawn with replacement."""
    for sizes in (CAMVID, WAFERS):
        recipe = fit("heavy", sizes, net, "vgg16")
        assert recipe.optimizer == "sgd"
        assert (recipe.lr, recipe.steps, recipe.epochs) == (float(lr), int(steps.removesuffix("k")) * 1000, 0)
        assert (recipe.schedule, recipe.warmup, recipe.clip) == ("fixed", 0, 0)
        assert (recipe.weight_decay, recipe.momentum, recipe.bias_lr, recipe.head_lr) == (0.0005, 0.99, 2, 1)
        assert (recipe.batch, recipe.accumulate, recipe.order) == (1, 1, "replacement")
        assert (recipe.loss, recipe.reduction, recipe.class_weights) == ("cross-entropy", "sum", "none")
        assert recipe.augmentation == Augmentation(None, (1, 1), False, 0, 0)
        assert (recipe.loss_share, recipe.fixed, recipe.skip_scales) == (1, False, {})
        assert recipe.stage_lr == 0.01  # 5.1: /100 at each step


def test_no_solver_is_missing_or_of_no_net() -> None:
    assert set(SOLVERS) == {net for net, _, _ in LINES}
    published = {name for name in NETS if name.startswith(("voc-", "pascalcontext-", "nyud-", "siftflow-"))}
    # AlexNet's solver is a recipe of its own; FCN-GoogLeNet was not released.
    assert published - set(SOLVERS) == {"voc-fcn-alexnet", "voc-fcn-googlenet"}


def test_heavy_for_another_net_is_that_of_the_first_stage() -> None:
    for net in (None, "fcn8s-vgg16"):
        assert fit("heavy", net=net) == fit("heavy", net="voc-fcn32s") == RECIPES["heavy"]
    assert fit("heavy", net="voc-fcn8s", lr=1e-9, steps=7) == replace(RECIPES["heavy"], lr=1e-9, steps=7)


def test_atonce_is_heavy_with_scaled_skips() -> None:
    """5.2: 0.01 and 0.0001; 5.3: 1e-10, 300k."""
    assert fit("atonce") == replace(fit("heavy"), steps=300_000, skip_scales={16: 0.01, 8: 0.0001})
    # The published net of that name has the same solver, and its scales itself (see the net).
    own = fit("heavy", net="voc-fcn8s-atonce")
    assert replace(own, skip_scales={16: 0.01, 8: 0.0001}) == fit("atonce")
    assert NETS["voc-fcn8s-atonce"].scales == fit("atonce").skip_scales


def test_fixed_is_heavy_for_the_score_layers_alone() -> None:
    assert fit("fixed") == replace(fit("heavy"), fixed=True)


def test_alexnet_is_the_released_solver() -> None:
    """5.3: base_lr 1e-4, momentum 0.9, iter_size 20 of one image, normalised loss, 100k."""
    recipe = fit("alexnet", net="voc-fcn-alexnet", trunk="alexnet")
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 1e-4, 0.9, 0.0005)
    assert (recipe.batch, recipe.accumulate, recipe.reduction, recipe.steps) == (20, 20, "image", 100_000)
    assert (recipe.order, recipe.schedule, recipe.bias_lr, recipe.epochs) == ("replacement", "fixed", 2, 0)
    assert recipe.augmentation == Augmentation()


@pytest.mark.parametrize(
    ("trunk", "lr", "decay"),
    [("alexnet", 1e-3, 5e-4), ("vgg16", 1e-4, 5e-4), ("googlenet", 5e-5, 2e-4), ("resnet18", 1e-4, 5e-4)],
)
def test_accumulated_is_the_first_papers(trunk: str, lr: float, decay: float) -> None:
    """5.1: momentum 0.9, minibatch of 20 images (accumulated), rate by line search, bias rate doubled, 175 epochs."""
    recipe = fit("accumulated", trunk=trunk)
    assert (recipe.lr, recipe.weight_decay, recipe.momentum, recipe.bias_lr) == (lr, decay, 0.9, 2)
    assert (recipe.batch, recipe.accumulate, recipe.reduction) == (20, 20, "image")
    assert (recipe.order, recipe.epochs, recipe.schedule, recipe.stage_lr) == ("epochs", 175, "fixed", 0.01)
    assert recipe.augmentation == Augmentation()
    given = fit("accumulated", trunk=trunk, lr=0.5, weight_decay=0.25)
    assert (given.lr, given.weight_decay) == (0.5, 0.25)


def test_finetune_is_scratch_at_a_lower_rate_but_for_the_heads() -> None:
    scratch, finetune = fit("scratch"), fit("finetune")
    assert finetune == replace(scratch, optimizer="adamw", lr=scratch.lr / 10, head_lr=10.0)


def test_photographs_are_cropped_scaled_and_jittered() -> None:
    recipe = fit("scratch")
    assert recipe.augmentation == Augmentation((288, 288), (0.7, 1.5), flip=True, jitter=0.3)
    assert (recipe.batch, recipe.accumulate, recipe.loss_stride) == (8, 1, 2)
    assert recipe.lr == RECIPES["scratch"].lr
    assert fit("scratch", loss_stride=1).loss_stride == 1


def test_small_images_are_whole_and_many() -> None:
    recipe = fit("scratch", WAFERS)
    assert recipe.augmentation == Augmentation(None, (1, 1), flip=True, jitter=0)
    assert (recipe.batch, recipe.loss_stride) == (16, 1)
    assert recipe.lr == pytest.approx(RECIPES["scratch"].lr * sqrt(2))


def test_crops_are_whole_cells_and_no_larger_than_needed() -> None:
    # 257 needs nine cells of 32, 200 seven; 9 * 7 cells of 32^2 pixels go 10 times into 8 * 288^2.
    recipe = fit("scratch", [(200, 257)] * 1000)
    assert recipe.augmentation.crop == (224, 288)
    assert recipe.batch == 10


@pytest.mark.parametrize(("images", "batch"), [(1, 2), (4, 2), (8, 2), (12, 3), (20, 5), (40, 8)])
def test_few_images_make_small_batches_and_rates(images: int, batch: int) -> None:
    recipe = fit("scratch", CAMVID[:images])
    assert recipe.batch == batch
    assert recipe.lr == pytest.approx(RECIPES["scratch"].lr * sqrt(batch / 8))


def test_one_strange_size_does_not_decide() -> None:
    assert fit("scratch", [*WAFERS[:100], (4000, 4000)]).augmentation.crop is None
    assert fit("scratch", [*CAMVID[:100], (1, 1)]).augmentation.crop == (288, 288)


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=30))
def test_a_step_holds_a_bounded_number_of_typical_pixels(sizes: Sizes) -> None:
    recipe = fit("scratch", sizes)
    if recipe.augmentation.crop is not None:
        height, width = recipe.augmentation.crop
        assert recipe.batch * height * width <= 8 * 288 * 288
        assert max(height, width) <= 288
        assert height % 32 == width % 32 == 0
    assert 2 <= recipe.batch <= 16


def test_single_values_replace_the_fitted_ones() -> None:
    recipe = fit("scratch", lr=0.5, crop=(64, 96), jitter=0.0, optimizer="sgd", batch=3)
    assert (recipe.lr, recipe.optimizer, recipe.batch) == (0.5, "sgd", 3)
    assert recipe.augmentation == Augmentation((64, 96), (0.7, 1.5), flip=True, jitter=0)


def test_batch_and_rate_follow_a_crop_that_is_given() -> None:
    recipe = fit("scratch", crop=(144, 576))  # as many pixels as 288^2
    assert (recipe.augmentation.crop, recipe.batch, recipe.lr) == ((144, 576), 8, RECIPES["scratch"].lr)
    recipe = fit("scratch", crop=(576, 576))
    assert recipe.batch == 2
    assert recipe.lr == pytest.approx(RECIPES["scratch"].lr / 2)
    whole = fit("scratch", crop=None)
    assert whole.augmentation == Augmentation(None, (1, 1), flip=True)
    assert whole.batch == 3  # 3.8 times 360 x 480 pixels
    # The rate follows a batch that is given, unless it is given too.
    assert fit("scratch", batch=2).lr == pytest.approx(RECIPES["scratch"].lr / 2)
    assert fit("scratch", batch=2, lr=0.1).lr == 0.1


@pytest.mark.parametrize(
    ("name", "share", "batch"),
    [("scratch", 1, 8), ("scratch", 0.5, 16), ("scratch", 0.25, 32), ("scratch", 0.3, 27), ("scratch", 0.001, 8000),
     ("heavy", 1, 1), ("heavy", 0.9, 1), ("heavy", 0.5, 2), ("heavy", 0.25, 4),
     ("accumulated", 0.5, 40), ("alexnet", 0.25, 80)],
)  # fmt: skip
def test_a_share_of_the_loss_makes_up_in_images(name: str, share: float, batch: int) -> None:
    """Long et al. 2015, section 4.4: batches 1/p times as large, and the rate as it was."""
    recipe, whole = fit(name, loss_share=share), fit(name)
    assert (recipe.loss_share, recipe.batch) == (share, batch)
    assert recipe.accumulate == (batch if whole.accumulate > 1 else 1)
    if name == "scratch" and batch * share != 8:
        assert recipe.lr == pytest.approx(whole.lr * sqrt(batch * share / 8))
    else:
        assert recipe.lr == whole.lr
    same = {"loss_share": 1.0, "batch": 1, "accumulate": 1, "lr": 1.0}
    assert replace(recipe, **same) == replace(whole, **same)  # type: ignore[arg-type]


def test_a_given_batch_stays_as_it_is_beside_a_share() -> None:
    recipe = fit("scratch", loss_share=0.25, batch=8)
    assert recipe.batch == 8
    assert recipe.lr == RECIPES["scratch"].lr / 2  # a quarter of the cells
    assert fit("scratch", loss_share=0.25, lr=0.1).lr == 0.1
    assert fit("heavy", loss_share=0.25, batch=1).batch == 1


@pytest.mark.parametrize(
    ("name", "overrides", "batch", "parts"),
    [
        ("accumulated", {"batch": 4}, 4, 4),  # of one image each, as the recipe has it
        ("accumulated", {"accumulate": 2}, 20, 2),
        ("accumulated", {"batch": 6, "accumulate": 3}, 6, 3),
        ("accumulated", {"accumulate": 1}, 20, 1),
        ("accumulated", {"batch": 1}, 1, 1),
        ("alexnet", {"loss_share": 0.5, "accumulate": 5}, 40, 5),
        ("accumulated", {"loss_share": 0.5, "batch": 4}, 4, 4),
        ("scratch", {"accumulate": 4}, 8, 4),
        ("scratch", {"batch": 32, "accumulate": 4}, 32, 4),
        ("heavy", {"batch": 3}, 3, 1),
        ("heavy", {"batch": 3, "accumulate": 3}, 3, 3),
    ],
)
def test_parts_follow_the_batch_unless_they_are_given(
    name: str, overrides: dict[str, Any], batch: int, parts: int
) -> None:
    recipe = fit(name, **overrides)
    assert (recipe.batch, recipe.accumulate) == (batch, parts)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("scrach", {}, r"unknown recipe 'scrach'; did you mean 'scratch'\? Choices: accumulated, alexnet, atonce, fi"),
        ("scratch", {"lrr": 1}, "unknown training option 'lrr'; did you mean 'lr'"),
        ("scratch", {"loss_share": 0}, r"loss_share 0; expected 0.001\.\.1"),
        ("scratch", {"crop": "ab"}, "crop .ab.; expected two whole numbers"),
        ("scratch", {"batch": "many"}, "batch 'many'; expected a whole number"),
        ("accumulated", {"accumulate": 21}, "21 parts of 20 images; expected at least an image a part"),
        ("heavy", {"accumulate": 2}, "2 parts of 1 images"),
        ("heavy", {"scale": (0.5, 1.0)}, "without a crop; give a crop"),
    ],
)
def test_what_cannot_be_is_named(name: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fit(name, **overrides)
