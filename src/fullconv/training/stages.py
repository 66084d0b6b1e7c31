"""Stages: 32s, 16s, 8s in turn, each net from the weights of the one before; and runs that are repeated.

The folder of the last stage is the run's; those before it are in it, by stride: ``RUN/32s``, ``RUN/16s``.

Source: Long et al. 2015, section 4.2; Shelhamer et al. 2016, section 4.3 (reference 5.1).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch

from fullconv.data.text import brief, read_yaml
from fullconv.errors import OptionError, printable, unknown_name
from fullconv.nets import FCN, NETS, build
from fullconv.training import processes
from fullconv.training.context import Trained
from fullconv.training.heartbeats import watched
from fullconv.training.once import NET, Call, free_folder, held, train_once
from fullconv.training.options import Asked, RunOptions
from fullconv.training.progress import Tick
from fullconv.training.recipes import SOLVERS
from fullconv.training.run import RunFolder, how_far

FIRST_SHARE = 3
"""Of the time, for one of each further stage: three days and one in the paper (section 4.3)."""

KEY = "stages"
"""Of run.yaml."""


@dataclass(frozen=True)
class Plan:
    """The stages of a run.

    Attributes:
        strides: of the nets, coarsest first.
        net: the name of the last one, where it has one.
        minutes: of all stages together.
        first: the first stage's options, as run.yaml holds them; none in its own.
    """

    strides: tuple[int, ...]
    net: str | None = None
    minutes: float | None = None
    first: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        right = all(isinstance(stride, int) and not isinstance(stride, bool) for stride in self.strides)
        if not right or len(self.strides) < 2 or any(finer >= coarser for coarser, finer in pairwise(self.strides)):
            raise OptionError(f"stages {self.strides}; expected two strides or more, coarsest first, such as 32,16,8")

    @classmethod
    def from_yaml(cls, value: Mapping[str, Any]) -> Plan:
        """Inverse of `to_yaml`; OptionError for anything else."""
        try:
            plan = cls(tuple(value["strides"]), value.get("net"), value.get("minutes"), value.get("first"))
            _ = plan.name(0), plan.minutes_of(0)  # which values of other types do not give
            return plan
        except (KeyError, TypeError, AttributeError) as error:
            raise OptionError(f"run.yaml has stages that cannot be read ({error}); start a new run") from error

    def to_yaml(self) -> dict[str, Any]:
        """Plain values for run.yaml."""
        return {"strides": list(self.strides), "net": self.net, "minutes": self.minutes, "first": self.first}

    def folder(self, run: Path, index: int) -> Path:
        """Of a stage."""
        return run if index == len(self.strides) - 1 else run / f"{self.strides[index]}s"

    def name(self, index: int) -> str | None:
        """Of a stage's net, where the last one has a name: the one with another stride in it."""
        return None if self.net is None else re.sub(r"fcn\d+s", f"fcn{self.strides[index]}s", self.net, count=1)

    def minutes_of(self, index: int) -> float | None:
        """A stage's share of the time."""
        if self.minutes is None:
            return None
        return self.minutes * (1 if index else FIRST_SHARE) / (FIRST_SHARE + len(self.strides) - 1)

    def options(self, first: RunOptions, index: int, init: Path) -> RunOptions:
        """A further stage's options.

        Args:
            init: the model of the stage before.
        """
        names = self.name(0), self.name(index)
        factor = first.recipe.stage_lr**index
        if first.name == "heavy" and names[0] in SOLVERS and names[1] in SOLVERS:
            factor = SOLVERS[names[1]].lr / SOLVERS[names[0]].lr
        return replace(
            first,
            net=replace(first.net, stride=self.strides[index], scales={}),
            recipe=replace(first.recipe, lr=first.recipe.lr * factor),
            minutes=self.minutes_of(index),
            init=(str(init),),
        )


def train_in_stages(call: Call, stages: Sequence[int] | None, config: str | Path | None, resume: bool) -> Trained:
    """One run, or several in turn.

    Args:
        call: what was asked for.
        stages: strides, coarsest first; None: one run, or those of `config` or of the run that is resumed.
        config: a run.yaml, or its folder.
        resume: go on in `call.out`.
    """
    if resume and call.out is not None:
        return _resume(call, call.out)
    base, saved = (None, None) if config is None else read_config(config)
    if stages is None and saved is None:
        return train_once(call, base)
    plan, asked = _planned(call.asked, stages, base, saved), call.asked
    first = plan.name(0)
    repeated = base.net if base is not None and asked.net is None else None
    asked = replace(asked, net=None if repeated else first, minutes=plan.minutes_of(0))
    if base is not None:
        base = replace(base, net=replace(base.net, stride=plan.strides[0], scales={}))
    with torch.device("meta"):  # no stage should be the first to say, days later, that its net cannot be
        net = repeated or build(cast(str, first), **asked.net_options).options
        for stride in plan.strides:
            FCN(replace(net, stride=stride, scales={}))
    with _holding(replace(call, asked=replace(asked, net=plan.net)), base) as run:
        return _train(replace(call, asked=asked), plan, 0, run, base)


def _planned(asked: Asked, stages: Sequence[int] | None, base: RunOptions | None, saved: Plan | None) -> Plan:
    """The stages that are asked for, or those of the run that is repeated.

    Args:
        base, saved: of `read_config`.
    """
    named = asked.net or (saved.net if saved else None if base else NET)
    if named is not None and (not isinstance(named, str) or named not in NETS):
        raise OptionError(
            f"stages of {brief(named)}; name a net, such as fcn8s-vgg16, and give the file of its first weights with "
            "--init"
        )
    minutes = asked.minutes
    if (asked.minutes, asked.epochs, asked.steps) == (None, None, None):
        minutes = saved.minutes if saved else base.minutes if base else None
    plan = Plan(tuple(stages or (saved.strides if saved else ())), named, minutes)
    plan = replace(plan, net=plan.name(len(plan.strides) - 1))
    if asked.net is not None and asked.net != plan.net:
        raise OptionError(f"the last of the stages {plan.strides} is {plan.net}, not {asked.net}; change one of both")
    if (first := plan.name(0)) is not None and first not in NETS:
        raise unknown_name("net for the first stage,", first, NETS)
    return plan


def read_config(path: str | Path) -> tuple[RunOptions, Plan | None]:
    """The options of the run that a run.yaml is of, of its first stage where it has several; and its stages.

    Args:
        path: a run.yaml, or its folder.

    Raises:
        DataError: a file that cannot be read.
        OptionError: one that is no run's.
    """
    file = Path(path) / "run.yaml" if Path(path).is_dir() else Path(path)
    value = read_yaml(file)
    if not isinstance(value, dict):
        raise OptionError(f"{printable(file)} holds no options of a run; expected what a run folder's run.yaml holds")
    plan = Plan.from_yaml(value[KEY]) if value.get(KEY) else None
    return RunOptions.from_yaml(plan.first if plan and plan.first else value, printable(file)), plan


def _resume(call: Call, out: Path) -> Trained:
    """Go on with the last stage that began; a run of one is its own."""
    begun = [path for path in (out, *sorted(out.glob("*s"), key=_stride)) if (path / "run.yaml").is_file()]
    folder = begun[0] if begun else out
    value = RunFolder(folder, resume=True).read_options()
    if not value.get(KEY):
        return train_once(call, resume=True)
    plan = Plan.from_yaml(value[KEY])
    places = [plan.folder(out, index) for index in range(len(plan.strides))]
    stride = RunOptions.from_yaml(value).net.stride
    if folder not in places or plan.strides[places.index(folder)] != stride:  # a stage's own folder, or a stray one
        raise OptionError(
            f"{printable(folder)} is not the folder of a run in stages {plan.strides}, but at most of one stage; give "
            "the run's own, which holds it, with --out"
        )
    before = [how_far(place) for place in places[: places.index(folder)]]
    with _holding(call, going_on=(out / "run.yaml").is_file()) as run:
        done = _train(call, plan, len(before), run, resume=True)
    return replace(
        done,
        steps=done.steps + sum(int(each.get("steps_done", 0)) for each in before),
        seconds=done.seconds + sum(each.get("seconds", 0) for each in before),
    )


@contextmanager
def _holding(call: Call, base: RunOptions | None = None, going_on: bool = False) -> Iterator[RunFolder]:
    """The folder of all stages: no other run gets it before the last one's end.

    Args:
        base: as for `train_once`.
        going_on: the last stage has begun.
    """
    processes.join()
    with watched():
        out = Path(processes.text_of_main(str(call.out or free_folder(call, base))))
        folder = held(call, base, processes.agreed(lambda: RunFolder(out, going_on)))
    try:
        yield folder
    finally:
        folder.release()


def _train(
    call: Call, plan: Plan, index: int, run: RunFolder, base: RunOptions | None = None, resume: bool = False
) -> Trained:
    """The stages from one on; their steps, seconds and warnings are told together.

    Args:
        run: of `_holding`.
        base: as for `train_once`, for the first stage.
        resume: this stage has begun.
    """
    folder, count = plan.folder(run.path, index), len(plan.strides)
    last = index == count - 1
    call.tell(Tick("begin", index / count, text=f"stage {index + 1} of {count}: {plan.strides[index]}s"))
    own = replace(call, out=folder, record={KEY: plan.to_yaml()}, holder=run if last else None)
    done = train_once(own, base, resume)
    if done.stopped or last:
        return replace(done, path=run.path, finished=done.finished and last)
    if done.scores is not None:
        told = f"mean IU of {plan.strides[index]}s on val: {done.scores.mean_iu:.3f}"
        call.tell(Tick("begin", (index + 1) / count, text=told))
    options = RunFolder(folder, resume=True).read_options()
    first = plan.first or {key: value for key, value in options.items() if key != KEY}
    plan = replace(plan, first=first)
    following = plan.options(RunOptions.from_yaml(first), index + 1, done.model)
    again = Asked(threads=following.threads, workers=following.workers)  # workers a run does not take from another
    call = replace(call, asked=again, start=time.monotonic())
    rest = _train(call, plan, index + 1, run, following)
    return replace(
        rest,
        steps=done.steps + rest.steps,
        seconds=done.seconds + rest.seconds,
        warnings=(*done.warnings, *rest.warnings),
    )


def _stride(path: Path) -> int:
    """Of a stage's folder; stages that began later have smaller ones."""
    digits = path.name.removesuffix("s")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 7 else 1 << 20
