"""Recipes: the reference's values, what is fitted to the data, and what is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.data.augment import Augmentation
from fullconv.errors import OptionError
from fullconv.training.recipes import RECIPES, Recipe, fitted

CAMVID = [(360, 480)] * 367
WAFERS = [(56, 53)] * 8000


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("sizes", [CAMVID, WAFERS, [(1, 1)], [(4000, 6000)] * 3, [(375, 500), (500, 333), (64, 64)]])
def test_every_recipe_is_valid_for_any_data(name: str, sizes: list[tuple[int, int]]) -> None:
    recipe = fitted(name, sizes, {})
    assert replace(recipe) == recipe  # made anew, and checked again
    assert recipe.to_json()["augmentation"]["scale"] == recipe.augmentation.scale


def test_heavy_is_the_released_solver() -> None:
    # Reference 5.3: base_lr 1e-10, lr_policy fixed, weight_decay 0.0005, momentum 0.99, iter_size 1, max_iter 100k;
    # 5.4: bias rate doubled; 5.2: summed loss; 5.1: whole images, no augmentation.
    for sizes in (CAMVID, WAFERS):
        heavy = fitted("heavy", sizes, {})
        assert heavy.optimizer == "sgd"
        assert (heavy.lr, heavy.schedule, heavy.warmup) == (1e-10, "fixed", 0)
        assert (heavy.weight_decay, heavy.momentum, heavy.bias_lr) == (0.0005, 0.99, 2)
        assert (heavy.batch, heavy.steps, heavy.reduction, heavy.class_weights) == (1, 100_000, "sum", "none")
        assert heavy.augmentation == Augmentation(None, (1, 1), False, 0)
        assert heavy.clip == 0


def test_photographs_are_cropped_scaled_and_jittered() -> None:
    recipe = fitted("scratch", CAMVID, {})
    assert recipe.augmentation == Augmentation((288, 288), (0.7, 1.5), flip=True, jitter=0.3)
    assert recipe.batch == 8
    assert recipe.lr == RECIPES["scratch"].lr


def test_small_images_are_whole_and_many() -> None:
    recipe = fitted("scratch", WAFERS, {})
    assert recipe.augmentation == Augmentation(None, (1, 1), flip=True, jitter=0)
    assert recipe.batch == 16
    assert recipe.lr == pytest.approx(RECIPES["scratch"].lr * sqrt(2))


def test_crops_are_whole_cells_and_no_larger_than_needed() -> None:
    # 257 needs nine cells of 32, 200 seven; 9 * 7 cells of 32^2 pixels go 10 times into 8 * 288^2.
    recipe = fitted("scratch", [(200, 257)] * 1000, {})
    assert recipe.augmentation.crop == (224, 288)
    assert recipe.batch == 10


@pytest.mark.parametrize(("images", "batch"), [(1, 2), (4, 2), (8, 2), (12, 3), (20, 5), (40, 8)])
def test_few_images_make_small_batches_and_rates(images: int, batch: int) -> None:
    recipe = fitted("scratch", CAMVID[:images], {})
    assert recipe.batch == batch
    assert recipe.lr == pytest.approx(RECIPES["scratch"].lr * sqrt(batch / 8))


def test_one_strange_size_does_not_decide() -> None:
    assert fitted("scratch", [*WAFERS[:100], (4000, 4000)], {}).augmentation.crop is None
    assert fitted("scratch", [*CAMVID[:100], (1, 1)], {}).augmentation.crop == (288, 288)


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=30))
def test_a_step_holds_a_bounded_number_of_typical_pixels(sizes: list[tuple[int, int]]) -> None:
    recipe = fitted("scratch", sizes, {})
    if recipe.augmentation.crop is not None:
        height, width = recipe.augmentation.crop
        assert recipe.batch * height * width <= 8 * 288 * 288
        assert max(height, width) <= 288
        assert height % 32 == width % 32 == 0
    assert 2 <= recipe.batch <= 16


def test_single_values_replace_the_fitted_ones() -> None:
    recipe = fitted("scratch", CAMVID, {"lr": 0.5, "crop": (64, 96), "jitter": 0.0, "optimizer": "sgd", "batch": 3})
    assert (recipe.lr, recipe.optimizer, recipe.batch) == (0.5, "sgd", 3)
    assert recipe.augmentation == Augmentation((64, 96), (0.7, 1.5), flip=True, jitter=0)


@pytest.mark.parametrize(
    ("name", "share", "batch"),
    [("scratch", 1, 8), ("scratch", 0.5, 16), ("scratch", 0.25, 32), ("scratch", 0.3, 27), ("scratch", 0.001, 8000),
     ("heavy", 1, 1), ("heavy", 0.9, 1), ("heavy", 0.5, 2), ("heavy", 0.25, 4)],
)  # fmt: skip
def test_a_share_of_the_loss_makes_up_in_images(name: str, share: float, batch: int) -> None:
    """Long et al. 2015, section 4.4: batches 1/p times as large, and the rate as it was."""
    recipe = fitted(name, CAMVID, {"loss_share": share})
    assert (recipe.loss_share, recipe.batch) == (share, batch)
    expected = fitted(name, CAMVID, {}).lr
    if name == "heavy" or batch * share == 8:
        assert recipe.lr == expected
    else:
        assert recipe.lr == pytest.approx(expected * sqrt(batch * share / 8))
    assert replace(recipe, loss_share=1.0, batch=1, lr=1.0) == replace(fitted(name, CAMVID, {}), batch=1, lr=1.0)


def test_a_given_batch_stays_as_it_is_beside_a_share() -> None:
    recipe = fitted("scratch", CAMVID, {"loss_share": 0.25, "batch": 8})
    assert recipe.batch == 8
    assert recipe.lr == RECIPES["scratch"].lr / 2  # a quarter of the cells
    assert fitted("scratch", CAMVID, {"loss_share": 0.25, "lr": 0.1}).lr == 0.1
    assert fitted("heavy", CAMVID, {"loss_share": 0.25, "batch": 1}).batch == 1


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("scrach", {}, r"unknown recipe 'scrach'; did you mean 'scratch'\? Choices: heavy, scratch"),
        ("scratch", {"learning_rate": 1}, r"unknown training option 'learning_rate'.*Choices: batch, bias_lr"),
        ("scratch", {"batchs": 1}, "did you mean 'batch'"),
        ("scratch", {"augmentation": 1}, "unknown training option 'augmentation'"),
        ("scratch", {"optimizer": "adam"}, r"unknown optimizer 'adam'; did you mean 'adamw'\? Choices: adamw, sgd"),
        ("scratch", {"schedule": "step"}, "unknown schedule 'step'.*cosine, fixed"),
        ("scratch", {"reduction": "avg"}, "unknown loss reduction 'avg'.*mean, sum"),
        ("scratch", {"class_weights": "log"}, "unknown class weights 'log'.*none, sqrt"),
        ("scratch", {"fixed": 1}, "fixed 1; expected true or false"),
        ("scratch", {"lr": -1}, r"lr -1; expected 0\.\.100"),
        ("scratch", {"lr": float("nan")}, r"lr nan; expected 0\.\.100"),
        ("scratch", {"momentum": 1.5}, r"momentum 1.5; expected 0\.\.1"),
        ("scratch", {"weight_decay": -0.1}, "weight_decay -0.1; expected"),
        ("scratch", {"bias_lr": -2}, "bias_lr -2; expected"),
        ("scratch", {"warmup": 2}, "warmup 2; expected"),
        ("scratch", {"loss_share": 0}, r"loss_share 0; expected 0.001\.\.1"),
        ("scratch", {"loss_share": 1.01}, r"loss_share 1.01; expected 0.001\.\.1"),
        ("heavy", {"loss_share": float("nan")}, r"loss_share nan; expected 0.001\.\.1"),
        ("heavy", {"loss_share": "half"}, "a training option is of a wrong type"),
        ("scratch", {"batch": 0}, "batch 0; expected 1"),
        ("scratch", {"steps": 0}, "steps 0; expected 1"),
        ("scratch", {"clip": -1}, "clip -1; expected"),
        ("scratch", {"scale": (2.0, 1.0)}, r"scale \(2.0, 1.0\); expected 0.1 <= low <= high"),
        ("scratch", {"jitter": 7}, r"jitter 7; expected 0\.\.1"),
        ("scratch", {"crop": (0, 5)}, r"crop \(0, 5\); expected at least 1 x 1"),
        ("heavy", {"scale": (0.5, 1.0)}, "without a crop; give a crop"),
    ],
)
def test_what_cannot_be_is_named(name: str, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        fitted(name, CAMVID, overrides)


def test_every_field_can_be_overridden() -> None:
    own = {f.name: getattr(RECIPES["heavy"], f.name) for f in fields(Recipe) if f.name != "augmentation"}
    shown = {f.name: getattr(Augmentation(), f.name) for f in fields(Augmentation)}
    assert fitted("scratch", CAMVID, own | shown) == RECIPES["heavy"]
