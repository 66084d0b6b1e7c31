"""RunOptions: every resolved option of a run, as run.yaml keeps them, and how they are resolved."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from math import inf
from typing import Any, TypeVar

from fullconv.errors import OptionError, unknown_name
from fullconv.kinds import require_kinds, wrong_kind
from fullconv.nets import NETS, NetOptions
from fullconv.training.recipe import Recipe, overridden
from fullconv.training.recipes import Fit, fitted
from fullconv.training.splits import SPLITS, Splits

TRACKERS = {"wandb": "wandb", "mlflow": "mlflow"}
"""Of accelerate's, beside TensorBoard: name -> the package it needs."""


@dataclass(frozen=True)
class RunOptions:
    """Every resolved option of a run; with the data and the versions it determines the result.

    Attributes:
        data: as the user named it.
        net: trunk, head, classes, inputs, ...
        recipe: with all values fixed.
        name: of the recipe.
        seed: of initial weights, order, augmentation, dropout and loss sampling.
        steps, minutes: the length, one of the two.
        precision: of the training's convolutions, "float32" or "bfloat16".
        init: files the weights started from.
        splits: of the data that were trained and scored on.
        threads: that compute, in each process; another number rounds otherwise.
        workers: threads that load data.
        compile: the net is compiled by torch.compile.
        trackers: names of `TRACKERS`.
    """

    data: str
    net: NetOptions
    recipe: Recipe
    name: str
    seed: int
    steps: int | None
    minutes: float | None
    precision: str
    init: tuple[str, ...] = ()
    splits: tuple[str, str] = SPLITS
    threads: int = 1
    workers: int = 1
    compile: bool = False
    trackers: tuple[str, ...] = ()

    def to_yaml(self) -> dict[str, Any]:
        """Plain values for run.yaml."""
        return asdict(self)

    @classmethod
    def from_yaml(cls, value: Mapping[str, Any], file: str = "run.yaml") -> RunOptions:
        """Inverse of `to_yaml`; other keys are ignored, and one that older versions did not know takes its default.

        Args:
            file: the name of the one it was read from, for messages.

        Raises:
            OptionError: a key is missing or of a wrong type.
        """
        try:
            own = {key: value[key] for key in cls.__dataclass_fields__ if key not in ("net", "recipe") and key in value}
            if own.get("init") is None or isinstance(own["init"], str):  # older versions wrote one file, or null
                own["init"] = [own["init"]] if own.get("init") else []
            own = {key: tuple(v) if isinstance(v, list) else v for key, v in own.items()}
            require_kinds(cls, own, f" in {file}")
            needed = [each.name for each in fields(cls) if each.default is MISSING]
            if missing := [name for name in needed if name not in value]:
                raise KeyError(f"no {', '.join(missing)}")
            return cls(net=NetOptions.from_json(value["net"]), recipe=Recipe.from_json(value["recipe"]), **own)
        except OptionError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            why = error.args[0] if error.args else error
            raise OptionError(f"{file} holds no run, or one of another version ({why}); start a new one") from error


@dataclass(frozen=True)
class Asked:
    """What a user asked for, as `train` takes it; None: left open."""

    net: str | NetOptions | None = None
    minutes: float | None = None
    epochs: float | None = None
    steps: int | None = None
    recipe: str | None = None
    init: tuple[str, ...] | None = None
    seed: int | None = None
    precision: str | None = None
    net_options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] | None = None
    splits: tuple[str, str] | None = None
    threads: int | None = None
    workers: int | None = None
    compile: bool | None = None
    trackers: tuple[str, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_kinds(Asked, vars(self))
        if not isinstance(self.net, str | NetOptions | None):
            raise wrong_kind("net", self.net, "a name, the path of a model file as a text, or NetOptions")
        if sum(v is not None for v in (self.minutes, self.epochs, self.steps)) > 1:
            raise OptionError("minutes, epochs and steps are three ways to give one length; choose one")
        if self.epochs is not None and not 0 < self.epochs < inf:
            raise OptionError(f"{self.epochs} epochs; expected a finite number above 0")
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise OptionError(f"seed {self.seed}; expected 0 or a positive number of at most 63 bits")
        for name in self.trackers or ():
            if name not in TRACKERS:
                raise unknown_name("tracker", name, TRACKERS)
            if importlib.util.find_spec(TRACKERS[name]) is None:
                raise OptionError(f"tracker {name!r} needs a package that is not installed: pip install {name}")

    def given(self) -> list[str]:
        """The names of the options that were not left open."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("net_options", "overrides")}
        return [
            *(name for name, value in own.items() if value is not None),
            *self.net_options,
            *self.overrides,
        ]

    @property
    def name(self) -> str | None:
        """Of the net, where it is one of `NETS`."""
        return self.net if isinstance(self.net, str) and self.net in NETS else None


def choose_recipe(asked: Asked, base: RunOptions | None, net: NetOptions, splits: Splits) -> tuple[str, Recipe]:
    """The recipe's name, and the recipe with all values fixed.

    Args:
        base: the run that is repeated with single values replaced, where there is one and no recipe is asked for.
    """
    if base is not None and asked.recipe is None:
        return base.name, overridden(base.recipe, asked.overrides)
    name = asked.recipe or ("finetune" if asked.init else "scratch")
    fit = Fit(splits.train.sizes, asked.name, net.trunk)
    return name, fitted(name, fit, asked.overrides)


def resolve_options(
    data: str,
    splits: Splits,
    net: NetOptions,
    asked: Asked,
    recipe: tuple[str, Recipe],
    *,
    precision: str,
    threads: int,
    workers: int,
    base: RunOptions | None = None,
) -> RunOptions:
    """Everything a user left open, decided.

    Args:
        net: with the normalisation and classes of the data.
        recipe: of `choose_recipe`.
        precision, threads, workers: of this machine.
        base: as for `choose_recipe`.

    Raises:
        OptionError: a fixed net without weights.
    """
    name, chosen = recipe
    init = asked.init if asked.init is not None else base.init if base else ()
    for weighed in (chosen.task_weights, chosen.class_weights):
        for task in weighed if isinstance(weighed, Mapping) else ():
            if task not in net.classes:
                raise unknown_name("task with a weight,", task, net.classes)
    if chosen.fixed and not init:
        raise OptionError("a fixed net learns its score layers alone; give the trunk's weights with --init FILE")
    steps, minutes = asked.steps, asked.minutes
    epochs = asked.epochs
    if steps is None and minutes is None and epochs is None:
        if base is not None:
            steps, minutes = base.steps, base.minutes
        elif chosen.epochs:
            epochs = chosen.epochs
        else:
            steps = chosen.steps
    if epochs is not None:
        steps = max(1, round(epochs * len(splits.train.dataset) / chosen.batch))
    return RunOptions(
        data=data,
        net=net,
        recipe=chosen,
        name=name,
        seed=_first(asked.seed, base.seed if base else 0),
        steps=steps,
        minutes=minutes,
        precision=precision,
        init=init,
        splits=_first(asked.splits, base.splits if base else SPLITS),
        threads=threads,
        workers=workers,
        compile=_first(asked.compile, base.compile if base else False),
        trackers=_first(asked.trackers, base.trackers if base else ()),
    )


T = TypeVar("T")


def _first(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given
