"""`train`: the public function, from a data set's name to a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fullconv.errors import OptionError
from fullconv.kinds import wrong_kind
from fullconv.nets import NetOptions
from fullconv.training.context import Trained
from fullconv.training.once import Call
from fullconv.training.options import Asked
from fullconv.training.progress import Listener
from fullconv.training.splits import Data
from fullconv.training.stages import train_in_stages
from fullconv.weights.modelfile import MODEL_SUFFIX


def train(
    data: Data | None = None,
    net: str | NetOptions | None = None,
    *,
    out: str | Path | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    recipe: str | None = None,
    stages: Sequence[int] | None = None,
    config: str | Path | None = None,
    init: str | Path | Sequence[str | Path] = (),
    resume: bool = False,
    seed: int | None = None,
    precision: str | None = None,
    net_options: Mapping[str, Any] | None = None,
    inputs: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    threads: int | None = None,
    workers: int | None = None,
    compile: bool | None = None,  # noqa: A002  (torch's word for it)
    trackers: Sequence[str] | None = None,
    listener: Listener | None = None,
    command: str = "",
    started: float | None = None,
    **overrides: Any,
) -> Trained:
    """Train a net and write its run folder.

    Under ``torchrun`` or ``accelerate launch`` every process calls it alike.

    Args:
        data: a data set (see `open_dataset`), or the train and val `Dataset`s; default: that of `config`.
        net: a name of `NETS` (default "fcn4s-slim"); options; or a model file, whose net is trained on: it gets the
            data's classes, and its weights unless `init` names others.
        out: the run folder; default ``runs/DATA-NET``, numbered where there is one.
        minutes, epochs, steps: the length, at most one of them; default: the recipe's. Minutes are those of the
            whole call: the schedule is planned so that they are used and kept.
        recipe: a name of `RECIPES` (default "scratch", with first weights "finetune").
        stages: strides to train in turn, such as (32, 16, 8), each net from the weights of the one before (Long et al.
            2015, section 4.2). Steps and epochs are each stage's, minutes those of all.
        config: a run.yaml, or its folder: the run is repeated; what else is given replaces its single values.
        init: a model file, .caffemodel or torchvision classifier that the first weights come from, or several: see
            `fullconv.weights.transplant`.
        resume: go on with the run in `out`, on the same data and with its options; no others may be given.
        seed: of everything random (default 0); the caller's own generators are left as they were.
        precision: "float32", "bfloat16" or "auto" (default: bfloat16 where the processor computes in it). Weights, sums
            and scores are float32 in any case.
        net_options: of `build`, such as ``{"padding": "paper"}``.
        inputs: names of the data's inputs that the net takes; default: those of a published net or a model, else all.
        splits: the names of the two that are trained and scored on; default: train and val.
        threads: that compute, in each process (default: its share of the processors).
        workers: threads that load data (default: 1 beside a processor, up to 8 beside a GPU).
        compile: by torch.compile, which takes half a minute and more before the first step.
        trackers: "wandb", "mlflow", beside TensorBoard's events.
        listener: called with a `Tick` many times a second.
        command: as typed, for the report.
        started: when the minutes began (time.monotonic); default: now.
        overrides: single values of the recipe, such as ``lr=1e-3``, ``crop=(320, 320)`` or ``batch="auto"``.

    Raises:
        DataError: the data cannot be learned from; the first ten problems are listed.
        OptionError: a value of a wrong kind; options that do not fit together.
        TrainingError: the loss became infinite or no number; another process ended; the disk is full.
    """
    if not (len(data) == 2 if isinstance(data, tuple) else isinstance(data, str | Path | None)):
        raise wrong_kind("data", data, "a data set's name or path, or the train and val data sets as a tuple of two")
    rest: dict[str, tuple[Any, Any, str]] = {  # value, type, what to call it; `Asked` checks all other options
        "out": (out, str | Path | None, "a path"),
        "config": (config, str | Path | None, "a path"),
        "stages": (stages, Sequence | None, "strides, coarsest first, such as (32, 16, 8)"),
        "resume": (resume, bool, "true or false"),
        "listener": (listener, Callable | None, "a function that takes a Tick"),
        "command": (command, str, "a text"),
        "started": (started, int | float | None, "a number of seconds, of time.monotonic"),
    }
    for name, (value, kind, expected) in rest.items():
        if not isinstance(value, kind):
            raise wrong_kind(name, value, expected)
    files = _texts((init,) if isinstance(init, str | Path) else init)
    if files in (None, ()):
        files = (net,) if isinstance(net, str) and net.endswith(MODEL_SUFFIX) else None
    asked = Asked(
        net=net, minutes=minutes, epochs=epochs, steps=steps, recipe=recipe, seed=seed, precision=precision,
        init=files, inputs=_texts(inputs), splits=_texts(splits), threads=threads, workers=workers,
        compile=compile, net_options={} if net_options is None else net_options, trackers=_texts(trackers),
        overrides=overrides,
    )  # fmt: skip
    if resume:
        given = asked.given() + [name for name in ("config", "stages") if rest[name][0] is not None]
        if given:
            raise OptionError(f"a resumed run keeps its options; leave out {', '.join(given)}, or start a new run")
        if out is None:
            raise OptionError("--resume needs the run's folder; add --out RUN")
    start = time.monotonic() if started is None else started
    call = Call(asked, data, None if out is None else Path(out), listener or (lambda _: None), command, start)
    return train_in_stages(call, stages, config, resume)


def _texts(values: Any) -> Any:
    """Several names or paths as `Asked` holds them; it refuses what is none."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return values
    return tuple(str(each) if isinstance(each, Path) else each for each in values)
