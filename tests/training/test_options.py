"""What a user asked for becomes every option of a run; and run.yaml, of this version and of those before."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fullconv.data.augment import Augmentation
from fullconv.errors import OptionError
from fullconv.nets import build
from fullconv.training.once import Call
from fullconv.training.options import TRACKERS, Asked, RunOptions, choose_recipe, resolve_options
from fullconv.training.recipe import Recipe, overridden
from fullconv.training.recipes import RECIPES, Fit, fitted
from fullconv.training.splits import Splits, open_splits
from fullconv.training.train import train
from inmemory import some

MODULE = build("fcn8s-slim", 3, width=0.1)
NET = MODULE.options


@pytest.fixture(scope="module")
def splits() -> Splits:
    return open_splits((some("train", 20, (20, 40)), some("val", 2)))


def resolve(splits: Splits, base: RunOptions | None = None, /, **asked: Any) -> RunOptions:
    """As a run does it."""
    wanted = Asked(**asked)
    recipe = choose_recipe(wanted, base, NET, splits)
    return resolve_options("arrays", splits, NET, wanted, recipe, precision="float32", threads=3, workers=2, base=base)


def test_nothing_is_given_unless_it_is() -> None:
    assert Asked().given() == []
    assert Asked(net_options={}, overrides={}).given() == []
    asked = Asked(
        net="fcn8s-slim", steps=0, seed=0, compile=False, init=(), trackers=(), threads=1, net_options={"width": 1},
        overrides={"lr": 0.1, "clip": 0},
    )  # fmt: skip
    assert sorted(asked.given()) == sorted(
        ["net", "steps", "seed", "compile", "init", "trackers", "threads", "width", "lr", "clip"]
    )
    others: dict[str, Any] = {
        "minutes": 1, "epochs": 1, "recipe": "x", "precision": "x", "inputs": (), "splits": ("a", "b"), "workers": 1,
    }  # fmt: skip
    for name, value in others.items():
        assert Asked(**{name: value}).given() == [name]


def test_only_a_name_of_the_table_is_the_nets_name() -> None:
    assert Asked(net="voc-fcn8s").name == "voc-fcn8s"
    assert [Asked(net=net).name for net in (None, "m.safetensors", "fcn8s-slm", NET)] == [None] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5, "epochs": 1.0}, "^minutes, epochs and steps are three ways to give one length; choose one$"),
        ({"minutes": 5.0, "epochs": 1.0}, "choose one"),
        ({"minutes": 5.0, "steps": 1}, "choose one"),
        ({"epochs": 0.0}, "^0.0 epochs; expected a finite number above 0$"),
        ({"epochs": float("nan")}, "nan epochs; expected a finite number above 0"),
        ({"epochs": float("inf")}, "inf epochs; expected a finite number above 0"),
        ({"seed": -1}, "seed -1; expected 0 or a positive number"),
        ({"seed": 1 << 63}, "seed 9223372036854775808; expected 0"),
        ({"trackers": ("tensorboard",)}, r"unknown tracker 'tensorboard'\. Choices: mlflow, wandb"),
        ({"trackers": ("wandb", "mlflw")}, r"unknown tracker 'mlflw'; did you mean 'mlflow'"),
    ],
)
def test_what_cannot_be_asked_for_is_named(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "installed")
    with pytest.raises(OptionError, match=message):
        Asked(**changes)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("minutes", "15", "a number"),
        ("minutes", True, "a number"),
        ("epochs", "1", "a number"),
        ("steps", 1.5, "a whole number"),
        ("steps", "9", "a whole number"),
        ("seed", 0.0, "a whole number"),
        ("threads", 2.0, "a whole number"),
        ("workers", True, "a whole number"),
        ("compile", "no", "true or false"),
        ("recipe", 3, "a text"),
        ("precision", 16, "a text"),
        ("net_options", "paper", "values by name"),
        ("inputs", "depth", "a list of texts"),
        ("trackers", "wandb", "a list of texts"),
        ("init", 3, "a list of texts"),
        ("splits", 2, "the names of two, such as trainaug and val2012"),
        ("net", 8, "a name, the path of a model file as a text, or NetOptions"),
        ("net", Path("n.safetensors"), "a name, the path of a model file as a text, or NetOptions"),
    ],
)
def test_values_of_other_kinds_are_refused_in_one_line(name: str, value: Any, expected: str) -> None:
    """By `Asked`, and so by `train`, whose options they are."""
    message = f"^{re.escape(f'{name} {value!r}; expected {expected}')}$"
    with pytest.raises(OptionError, match=message):
        Asked(**{name: value})
    with pytest.raises(OptionError, match=message):
        train("nowhere", **{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": 5}, "data 5; expected a data set's name or path, or the train and val data sets as a tuple of two"),
        ({"data": some("train", 1)}, r"data <inmemory\.InM.*; expected a data set's name or path, or"),
        ({"data": (some("train", 1),)}, r"data \(<inmemory\.InM.*; expected a data set's name or path, or"),
        ({"net": MODULE}, r"net FCN\(.*; expected a name, the path of a model file as a text, or NetOptions"),
        ({"out": 5}, "out 5; expected a path$"),
        ({"config": {"seed": 3}}, r"config \{'seed': 3\}; expected a path$"),
        ({"stages": 32}, r"stages 32; expected strides, coarsest first, such as \(32, 16, 8\)$"),
        ({"resume": "no"}, "resume 'no'; expected true or false$"),
        ({"listener": 3}, "listener 3; expected a function that takes a Tick$"),
        ({"command": None}, "command None; expected a text$"),
        ({"started": "now"}, "started 'now'; expected a number of seconds, of time.monotonic$"),
        ({"init": 0}, "init 0; expected a list of texts$"),
        ({"init": [Path("a.pth"), 3]}, r"init \('a.pth', 3\); expected a list of texts$"),
        ({"inputs": ["image", 3]}, r"inputs \('image', 3\); expected a list of texts$"),
    ],
)
def test_what_else_train_takes_is_checked_too(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}") as caught:
        train(**{"data": "nowhere", **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {}),
        ({"init": "a.pth"}, {"init": ("a.pth",)}),
        ({"init": [Path("a.pth"), "b.pth"]}, {"init": ("a.pth", "b.pth")}),
        ({"init": None, "net_options": None}, {}),
        ({"net": "m.safetensors"}, {"net": "m.safetensors", "init": ("m.safetensors",)}),
        ({"net": "m.safetensors", "init": Path("a.pth")}, {"net": "m.safetensors", "init": ("a.pth",)}),
        ({"inputs": ["a"], "splits": ["x", "y"]}, {"inputs": ("a",), "splits": ("x", "y")}),
        ({"inputs": {"a": 1}.keys(), "trackers": []}, {"inputs": ("a",), "trackers": ()}),
        ({"lr": 0.1, "net_options": {"width": 1}}, {"overrides": {"lr": 0.1}, "net_options": {"width": 1}}),
    ],
)
def test_what_train_takes_is_what_is_asked_for(
    given: dict[str, Any], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Call] = []
    monkeypatch.setattr("fullconv.training.train.train_in_stages", lambda call, *_: calls.append(call))
    train("data", **given)
    assert calls[0].asked == Asked(**asked)


def test_trackers_that_are_not_installed_are_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def find(name: str) -> str | None:
        looked.append(name)
        return "installed" if name == "wandb" else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert Asked(trackers=("wandb",)).trackers == ("wandb",)
    with pytest.raises(
        OptionError, match="^tracker 'mlflow' needs a package that is not installed: pip install mlflow$"
    ):
        Asked(trackers=("wandb", "mlflow"))
    assert looked == ["wandb", "wandb", "mlflow"]
    assert set(TRACKERS) == {"wandb", "mlflow"}


def test_the_recipe_is_scratch_or_with_weights_finetune(splits: Splits) -> None:
    fit = Fit(splits.train.sizes, None, "slim")
    assert choose_recipe(Asked(), None, NET, splits) == ("scratch", fitted("scratch", fit, {}))
    asked = Asked(init=("a.pth",), overrides={"clip": 1.0})
    assert choose_recipe(asked, None, NET, splits) == ("finetune", fitted("finetune", fit, {"clip": 1.0}))
    named = Asked(init=("a.pth",), recipe="heavy")
    assert choose_recipe(named, None, NET, splits) == ("heavy", RECIPES["heavy"])


def test_the_recipe_knows_net_and_trunk(splits: Splits) -> None:
    _, recipe = choose_recipe(Asked(net="voc-fcn8s", recipe="heavy"), None, NET, splits)
    assert recipe.lr == 1e-14
    _, recipe = choose_recipe(Asked(recipe="accumulated"), None, replace(NET, trunk="googlenet"), splits)
    assert recipe.lr == 5e-5


def test_a_repeated_run_keeps_its_recipe_but_for_single_values(splits: Splits) -> None:
    base = resolve(splits, recipe="accumulated", overrides={"lr": 0.5})
    assert choose_recipe(Asked(), base, NET, splits) == ("accumulated", base.recipe)
    name, recipe = choose_recipe(Asked(overrides={"crop": (8, 8), "clip": 2}), base, NET, splits)
    assert (name, recipe) == ("accumulated", replace(base.recipe, clip=2, augmentation=Augmentation((8, 8))))
    # Another recipe is that of a new run.
    assert choose_recipe(Asked(recipe="heavy"), base, NET, splits) == ("heavy", RECIPES["heavy"])
    with pytest.raises(OptionError, match="unknown training option 'lrr'; did you mean 'lr'"):
        choose_recipe(Asked(overrides={"lrr": 1}), base, NET, splits)
    with pytest.raises(OptionError, match="unknown recipe 'heavier'; did you mean 'heavy'"):
        choose_recipe(Asked(recipe="heavier"), base, NET, splits)


def test_the_length_is_that_given_or_the_recipes(splits: Splits) -> None:
    def length(**asked: Any) -> tuple[int | None, float | None]:
        options = resolve(splits, **asked)
        return options.steps, options.minutes

    assert length(steps=7) == (7, None)
    assert length(minutes=1.5) == (None, 1.5)
    assert length() == (RECIPES["scratch"].steps, None)
    assert length(recipe="heavy") == (100_000, None)
    assert length(overrides={"steps": 9}) == (9, None)
    # 20 images in batches of 5: four steps an epoch.
    assert resolve(splits).recipe.batch == 5
    assert length(epochs=2.5) == (10, None)
    assert length(epochs=0.001) == (1, None)
    # In batches of 20, one step an epoch: 175 of them (reference 5.1).
    assert length(recipe="accumulated") == (175, None)
    assert length(recipe="accumulated", overrides={"batch": 5}) == (700, None)
    assert length(recipe="accumulated", steps=3) == (3, None)
    assert length(recipe="accumulated", minutes=3) == (None, 3)
    assert length(recipe="accumulated", epochs=2) == (2, None)


def test_the_length_of_a_repeated_run_is_its_own_or_the_one_given(splits: Splits) -> None:
    steps, minutes = resolve(splits, steps=7), resolve(splits, minutes=1.5)
    cases: list[tuple[RunOptions, dict[str, Any], tuple[int | None, float | None]]] = [
        (steps, {}, (7, None)),
        (steps, {"minutes": 2.0}, (None, 2.0)),
        (steps, {"epochs": 2.5}, (10, None)),
        (minutes, {}, (None, 1.5)),
        (minutes, {"steps": 3}, (3, None)),
        (resolve(splits, recipe="accumulated", epochs=2), {}, (2, None)),
    ]
    for base, asked, expected in cases:
        options = resolve(splits, base, **asked)
        assert (options.steps, options.minutes) == expected


def test_what_is_left_open_takes_its_default_or_that_of_the_repeated_run(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "installed")
    left = resolve(splits)
    assert (left.seed, left.init, left.splits, left.compile, left.trackers) == (0, (), ("train", "val"), False, ())
    assert (left.data, left.net, left.name, left.precision) == ("arrays", NET, "scratch", "float32")
    assert (left.threads, left.workers) == (3, 2)
    asked: dict[str, Any] = {
        "seed": 5, "init": ("a",), "splits": ("trainaug", "val2012"), "compile": True, "trackers": ("wandb",),
    }  # fmt: skip
    base = resolve(splits, **asked)
    for key, value in asked.items():
        assert getattr(base, key) == value
    assert resolve(splits, base) == base
    nothing: dict[str, Any] = {"seed": 0, "init": (), "splits": ("train", "val"), "compile": False, "trackers": ()}
    assert resolve(splits, base, recipe="scratch", **nothing) == left, "what is given counts, zero and none too"


def test_a_fixed_net_needs_weights(splits: Splits) -> None:
    without: list[dict[str, Any]] = [
        {"recipe": "fixed"}, {"overrides": {"fixed": True}}, {"recipe": "fixed", "init": ()},
    ]  # fmt: skip
    for asked in without:
        with pytest.raises(
            OptionError, match="^a fixed net learns its score layers alone; give the trunk's weights with --init FILE$"
        ):
            resolve(splits, **asked)
    base = resolve(splits, recipe="fixed", init=("a",))
    assert resolve(splits, base).init == ("a",)


@pytest.mark.parametrize("recipe", RECIPES)
def test_options_survive_run_yaml(splits: Splits, recipe: str) -> None:
    options = resolve(
        splits,
        recipe=recipe,
        minutes=2.5,
        init=("ü.safetensors", "b.pth"),
        compile=True,
        splits=("a", "b"),
        overrides={"crop": (32, 64), "class_weights": {"semantic": (1.0, 2.0, 0.5)}},
    )
    text = yaml.safe_dump(options.to_yaml())
    assert "&" not in text, "no aliases, which --config refuses"
    assert RunOptions.from_yaml({**yaml.safe_load(text), "torch": "2"}) == options
    one = RunOptions.from_yaml({**yaml.safe_load(text), "init": "ü.safetensors"})  # as before there could be several
    assert one.init == ("ü.safetensors",)
    assert RunOptions.from_yaml({**yaml.safe_load(text), "init": None}).init == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "100"}, "steps '100' in run.yaml; expected a whole number"),
        ({"steps": 1.5}, "steps 1.5 in run.yaml; expected a whole number"),
        ({"minutes": "15m"}, "minutes '15m' in run.yaml; expected a number"),
        ({"seed": True}, "seed True in run.yaml; expected a whole number"),
        ({"seed": None}, "seed None in run.yaml; expected a whole number"),
        ({"threads": "2"}, "threads '2' in run.yaml; expected a whole number"),
        ({"compile": 1}, "compile 1 in run.yaml; expected true or false"),
        ({"precision": 16}, "precision 16 in run.yaml; expected a text"),
        ({"data": ["a"]}, "data ('a',) in run.yaml; expected a text"),
        ({"init": 3}, "init 3 in run.yaml; expected a list of texts"),
        ({"init": 0}, "init 0 in run.yaml; expected a list of texts"),
        ({"init": ["a.pth", 3]}, "init ('a.pth', 3) in run.yaml; expected a list of texts"),
        ({"trackers": "wandb"}, "trackers 'wandb' in run.yaml; expected a list of texts"),
        ({"splits": 3}, "splits 3 in run.yaml; expected the names of two, such as trainaug and val2012"),
        (
            {"splits": ["train"]},
            "splits ('train',) in run.yaml; expected the names of two, such as trainaug and val2012",
        ),
        ({"splits": "ab"}, "splits 'ab' in run.yaml; expected the names of two, such as trainaug and val2012"),
    ],
)
def test_values_of_a_file_are_of_their_types(splits: Splits, changes: dict[str, object], message: str) -> None:
    value = resolve(splits, minutes=2.5).to_yaml()
    assert RunOptions.from_yaml({**value, "minutes": 3}).minutes == 3
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        RunOptions.from_yaml({**value, **changes})


@pytest.mark.parametrize("kind", ["task_weights", "class_weights"])
def test_weights_are_of_tasks_that_there_are(splits: Splits, kind: str) -> None:
    given = {"semantc": 1.0} if kind == "task_weights" else {"semantc": "sqrt"}
    with pytest.raises(OptionError, match=r"^unknown task with a weight, 'semantc'; did you mean 'semantic'\?"):
        resolve(splits, overrides={kind: given})


BEFORE = """
data: /data/my images
net:
  classes: {semantic: 3}
  dropout: 0.5
  fusion: early
  inputs:
    image: {mean: [123.68, 116.779, 103.939], std: [58.395, 57.12, 57.375]}
  padding: same
  scales: {}
  stride: 8
  trunk: slim
  upsampling: bilinear
  width: 0.1
recipe:
  optimizer: adamw
  lr: 0.001
  momentum: 0.9
  weight_decay: 0.02
  bias_lr: 1.0
  schedule: cosine
  warmup: 0.03
  reduction: mean
  class_weights: sqrt
  loss_share: 1.0
  batch: 5
  augmentation: {crop: [288, 288], scale: [0.7, 1.5], flip: true, jitter: 0.3, shift: 0}
  steps: 4000
  clip: 5.0
  fixed: false
name: scratch
seed: 3
steps: null
minutes: 2.5
precision: bfloat16
init: []
splits: [train, val]
fingerprint: 0123456789abcdef-0123456789abcdef
command: fullconv train --data x
torch: 2.13.0
"""
"""A run.yaml as it was before runs had trackers, terms of the loss, parts of a step ..."""


def test_runs_of_older_versions_can_be_gone_on_with() -> None:
    options = RunOptions.from_yaml(yaml.safe_load(BEFORE))
    assert options.recipe == Recipe(
        lr=0.001, batch=5, augmentation=Augmentation((288, 288), (0.7, 1.5), flip=True, jitter=0.3)
    )
    assert (options.recipe.loss, options.recipe.accumulate, options.recipe.order) == ("cross-entropy", 1, "epochs")
    assert (options.net.trunk, options.net.width, options.net.classes) == ("slim", 0.1, {"semantic": 3})
    assert (options.seed, options.steps, options.minutes, options.precision) == (3, None, 2.5, "bfloat16")
    assert (options.threads, options.workers, options.compile, options.trackers) == (1, 1, False, ())
    older = yaml.safe_load(BEFORE)
    del older["splits"], older["recipe"]["fixed"], older["recipe"]["augmentation"]["shift"]
    assert RunOptions.from_yaml(older) == options


@pytest.mark.parametrize(
    "change",
    [{"recipe": ...}, {"recipe": None}, {"recipe": 3}, {"net": ...}, {"name": ...}, {"seed": ...},
     {"data": ...}, {"precision": ...}],
)  # fmt: skip
def test_run_yaml_of_another_kind_is_refused(change: dict[str, object]) -> None:
    value = {**yaml.safe_load(BEFORE), **change}
    value = {key: v for key, v in value.items() if v is not ...}
    with pytest.raises(OptionError, match="^run.yaml holds no run, or one of another version .*; start a new one$"):
        RunOptions.from_yaml(value)


def test_what_run_yaml_lacks_is_named() -> None:
    value = yaml.safe_load(BEFORE)
    value = {{"seed": "sede", "steps": "stesp"}.get(key, key): each for key, each in value.items()}
    expected = r"^my.yaml holds no run, or one of another version \(no seed, steps\); start a new one$"
    with pytest.raises(OptionError, match=expected):
        RunOptions.from_yaml(value, "my.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"net": None}, "the net's options are incomplete"),
     ({"recipe": {"batchs": 3}}, "unknown training option 'batchs'"), ({"recipe": {"lr": -1}}, "lr -1; expected")],
)  # fmt: skip
def test_values_of_run_yaml_are_checked_as_any(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RunOptions.from_yaml({**yaml.safe_load(BEFORE), **change})


def test_overridden_is_what_a_repeated_run_goes_through(splits: Splits) -> None:
    base = resolve(splits, steps=3)
    again = resolve(splits, RunOptions.from_yaml(yaml.safe_load(yaml.safe_dump(base.to_yaml()))), seed=9)
    assert again == replace(base, seed=9)
    assert resolve(splits, base, overrides={"lr": 0.5}).recipe == overridden(base.recipe, {"lr": 0.5})
