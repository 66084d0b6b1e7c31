"""Recipe: what it holds survives a file, and what it cannot hold is refused."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fullconv.data.augment import Augmentation
from fullconv.errors import OptionError
from fullconv.training.losses import LossOptions
from fullconv.training.recipe import Recipe, overridden
from fullconv.training.recipes import RECIPES

FULL = Recipe(
    optimizer="sgd",
    loss="cross-entropy+0.5*lovasz",
    reduction="image",
    class_weights={"semantic": (0.5, 2.0, 1.0), "geometric": "median"},
    task_weights={"semantic": 1.0, "geometric": 0.25},
    augmentation=Augmentation((32, 48), (0.5, 2.0), flip=True, jitter=0.1, shift=3),
    skip_scales={16: 1e-2, 8: 1e-4},
    batch=6,
    accumulate=3,
)
"""A value of every shape that a field can have."""


@pytest.mark.parametrize("recipe", [*RECIPES.values(), FULL, Recipe(class_weights=(1.0, 2.5))], ids=str)
def test_a_recipe_survives_yaml_and_json(recipe: Recipe) -> None:
    value = recipe.to_json()
    assert Recipe.from_json(value) == recipe
    assert Recipe.from_json(yaml.safe_load(yaml.safe_dump(value))) == recipe
    text = json.dumps(value)  # in which strides become text
    assert Recipe.from_json(json.loads(text)) == recipe
    assert ('"16"' in text) == bool(recipe.skip_scales)


weights = st.one_of(
    st.sampled_from(["none", "sqrt", "median", "inverse"]), st.lists(st.floats(0, 10), min_size=1).map(tuple)
)


@given(
    st.builds(
        Recipe,
        lr=st.floats(0, 100),
        class_weights=st.one_of(weights, st.dictionaries(st.text(min_size=1), weights)),
        task_weights=st.dictionaries(st.text(min_size=1), st.floats(0, 1e5)),
        skip_scales=st.dictionaries(st.integers(1, 32), st.floats(1e-9, 1)),
        batch=st.integers(5, 100),
        accumulate=st.integers(1, 5),
        epochs=st.floats(0, 1e9),
    )
)
def test_any_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_what_a_file_leaves_out_takes_its_default() -> None:
    assert Recipe.from_json({}) == Recipe()
    assert Recipe.from_json({"augmentation": {"crop": [32, 48]}}) == Recipe(augmentation=Augmentation((32, 48)))
    assert Recipe.from_json({"crop": [32, 48], "lr": 1}) == Recipe(lr=1, augmentation=Augmentation((32, 48)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"batchs": 1}, "unknown training option 'batchs'; did you mean 'batch'"),
        ({"augmentation": {"flop": True}}, "unknown training option 'flop'; did you mean 'flip'"),
        ({"augmentation": 3}, "augmentation 3; expected its options by name"),
        ({"augmentation": {"crop": 3}}, r"^crop 3; expected two whole numbers, \(H, W\)$"),
        ({"augmentation": {"crop": [3, 4.5]}}, r"^crop \(3, 4.5\); expected two whole numbers, \(H, W\)$"),
        ({"augmentation": {"scale": [1]}}, r"^scale \(1,\); expected two numbers, \(low, high\)$"),
        ({"augmentation": {"scale": 0.5}}, r"^scale 0.5; expected two numbers, \(low, high\)$"),
        ({"flip": "maybe"}, "^flip 'maybe'; expected true or false$"),
        ({"flip": 1}, "^flip 1; expected true or false$"),
        ({"lr": "fast"}, "^lr 'fast'; expected a number$"),
        ({"lr": True}, "^lr True; expected a number$"),
        ({"lr": None}, "^lr None; expected a number$"),
        ({"loss": 3}, "^loss 3; expected a text$"),
        ({"steps": 1.5}, "^steps 1.5; expected a whole number$"),
        ({"task_weights": 3}, "^task_weights 3; expected values by name$"),
        ({"skip_scales": {"a": 1}}, r"skip_scales {'a': 1}; expected a factor by stride, such as 16=0.01,8="),
        ({"skip_scales": {None: 1}}, "skip_scales .*; expected a factor by stride"),
        ({"skip_scales": {"16": [1]}}, "skip_scales .*; expected a factor by stride"),
        ({"skip_scales": 0.5}, "skip_scales 0.5; expected a factor by stride"),
        ({"steps": 0}, "steps 0; expected 1"),
    ],
)
def test_files_of_any_content_are_refused_in_words(value: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Recipe.from_json(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adam"}, r"unknown optimizer 'adam'; did you mean 'adamw'\? Choices: adamw, muon, sgd"),
        ({"schedule": "step"}, "unknown schedule 'step'.*cosine, fixed"),
        ({"reduction": "avg"}, "unknown loss reduction 'avg'.*image, mean, sum"),
        ({"order": "random"}, "unknown order 'random'.*epochs, replacement"),
        ({"class_weights": "log"}, "unknown class weights 'log'.*inverse, median, none, sqrt"),
        ({"class_weights": {"semantic": "sqr"}}, "unknown class weights 'sqr'; did you mean 'sqrt'"),
        ({"class_weights": 3}, "unknown class weights '3'"),
        ({"class_weights": {"semantic": None}}, "unknown class weights 'None'"),
        ({"task_weights": {"semantic": -1}}, "weight -1 of the task 'semantic'; expected a number of 0 to 1e6"),
        ({"task_weights": {"semantic": float("nan")}}, "weight nan of the task 'semantic'"),
        ({"task_weights": {"semantic": 1e6}}, "weight 1000000.0 of the task 'semantic'"),
        ({"task_weights": {"semantic": True}}, "weight True of the task 'semantic'"),
        ({"task_weights": {"semantic": "1"}}, "weight '1' of the task 'semantic'"),
        ({"fixed": 1}, "fixed 1; expected true or false"),
        ({"lr": -1}, r"lr -1; expected 0\.\.100"),
        ({"lr": float("nan")}, r"lr nan; expected 0\.\.100"),
        ({"momentum": 1.5}, r"momentum 1.5; expected 0\.\.1"),
        ({"weight_decay": -0.1}, "weight_decay -0.1; expected"),
        ({"bias_lr": -2}, "bias_lr -2; expected"),
        ({"head_lr": -2}, "head_lr -2; expected"),
        ({"stage_lr": 101}, "stage_lr 101; expected"),
        ({"warmup": 2}, "warmup 2; expected"),
        ({"loss_share": 0}, r"loss_share 0; expected 0.001\.\.1"),
        ({"loss_share": 1.01}, r"loss_share 1.01; expected 0.001\.\.1"),
        ({"loss_stride": 0}, r"loss_stride 0; expected 1\.\.64"),
        ({"loss_stride": 65}, r"loss_stride 65; expected 1\.\.64"),
        ({"loss_stride": 1.5}, "loss_stride 1.5; expected a whole number"),
        ({"loss_share": float("nan")}, r"loss_share nan; expected 0.001\.\.1"),
        ({"batch": 0}, r"batch 0; expected 1\.\.65536"),
        ({"batch": 2.0}, "batch 2.0; expected a whole number"),
        ({"batch": True}, "batch True; expected a whole number"),
        ({"accumulate": 0}, r"accumulate 0; expected 1\.\.65536"),
        ({"accumulate": 1.5}, "accumulate 1.5; expected a whole number"),
        ({"batch": 4, "accumulate": 5}, "5 parts of 4 images; expected at least an image a part"),
        ({"steps": 0}, "steps 0; expected 1"),
        ({"steps": "9"}, "steps '9'; expected a whole number"),
        ({"epochs": -1}, "epochs -1; expected 0"),
        ({"clip": -1}, "clip -1; expected"),
        ({"loss": "cross-entropy+"}, "a term is empty"),
        ({"loss": "lovas"}, "unknown loss term 'lovas'; did you mean 'lovasz'"),
        ({"focal_gamma": 11}, r"focal_gamma 11; expected 0\.\.10"),
        ({"ohem_share": 0}, "ohem_share 0; expected 0 < share <= 1"),
        ({"scale": (2.0, 1.0)}, r"scale \(2.0, 1.0\); expected 0.1 <= low <= high"),
        ({"scale": (0.5, 1.0)}, "without a crop; give a crop"),
        ({"jitter": 7}, r"jitter 7; expected 0\.\.1"),
        ({"crop": (0, 5)}, r"crop \(0, 5\); expected \(H, W\) of at least 1 x 1"),
        ({"crop": "ab"}, "crop .ab.; expected two whole numbers"),
        ({"loss_share": "half"}, "loss_share .half.; expected a number"),
        ({"learning_rate": 1}, r"unknown training option 'learning_rate'.*Choices: accumulate, batch, bias_lr"),
        ({"augmentation": 1}, "unknown training option 'augmentation'"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        overridden(Recipe(), changes)


def test_every_field_can_be_overridden() -> None:
    own = {f.name: getattr(FULL, f.name) for f in fields(Recipe) if f.name != "augmentation"}
    shown = {f.name: getattr(FULL.augmentation, f.name) for f in fields(Augmentation)}
    assert overridden(RECIPES["heavy"], own | shown) == FULL
    assert overridden(FULL, {}) == FULL


def test_the_loss_of_a_recipe() -> None:
    recipe = Recipe(loss="focal+2*ohem", reduction="sum", focal_gamma=1.5, ohem_share=0.5)
    assert recipe.loss_options() == LossOptions({"focal": 1.0, "ohem": 2.0}, "sum", 1.5, 0.5)


def test_class_weights_are_of_all_tasks_or_by_task() -> None:
    assert [Recipe(class_weights="median").weights_of(task) for task in ("a", "b")] == ["median"] * 2
    assert Recipe(class_weights=(1, 2)).weights_of("a") == (1, 2)
    by_task = Recipe(class_weights={"a": "inverse", "b": (1, 2)})
    assert [by_task.weights_of(task) for task in ("a", "b", "c")] == ["inverse", (1, 2), "none"]
