"""`train`: from a data set's name to a run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fullconv.errors import OptionError
from fullconv.inference.evaluate import require_fit
from fullconv.nets import NetOptions
from fullconv.nets.precision import resolve
from fullconv.training.loop import Listener, Run, Tick, Trained, Trainer, interruptible
from fullconv.training.run import RunFolder
from fullconv.training.setup import Data, RunOptions, open_splits, resolve_options


def train(
    data: Data,
    net: str | NetOptions = "fcn8s-slim",
    *,
    out: str | Path | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    recipe: str = "scratch",
    init: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    precision: str = "auto",
    net_options: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    command: str = "",
    **overrides: Any,
) -> Trained:
    """Train a net and write its run folder.

    Args:
        data: a data set (see `open_dataset`), or the train and val `Dataset`s.
        net: a name of `NETS`, or options.
        out: the run folder; default ``runs/DATA-NET``, numbered where there is one.
        minutes, epochs, steps: the length, at most one of them; default: the recipe's steps. Minutes are those of the
            whole call: the schedule is planned so that they are used and kept.
        recipe: a name of `RECIPES`.
        init: a model file whose fitting weights are the first ones.
        resume: go on with the run in `out`, with its options.
        seed: of everything random.
        precision: "float32", "bfloat16" or "auto" (bfloat16 where the processor computes in it). Weights, sums and
            scores are float32 in any case.
        net_options: of `build`, such as ``{"padding": "paper"}``.
        listener: called with a `Tick` many times a second.
        command: as typed, for the report.
        overrides: single values of the recipe, such as ``lr=1e-3`` or ``crop=(320, 320)``.

    Raises:
        DataError: the data cannot be learned from; the first ten problems are listed.
        OptionError: options that do not fit together.
        TrainingError: the loss became infinite or no number.
    """
    start = time.monotonic()
    source = data[0].source if isinstance(data, tuple) else str(data)
    if resume and out is None:
        raise OptionError("--resume needs the run's folder; add --out RUN")
    if out is None:
        out = RunFolder.free(
            "runs", f"{Path(source).resolve().name or 'data'}-{net if isinstance(net, str) else net.trunk}"
        )
    folder = RunFolder(out, resume)
    tell = listener or (lambda _: None)
    splits = open_splits(data, lambda _, i, n: tell(Tick("check", i / n)))
    accelerator = Accelerator(log_with="tensorboard", project_dir=str(folder.path))
    if resume:
        options = RunOptions.from_yaml(folder.read_options())
        require_fit(options.net, splits.train.dataset)
    else:
        options = resolve_options(
            source, splits, net, recipe=recipe, seed=seed, minutes=minutes, epochs=epochs, steps=steps,
            precision=resolve(precision, accelerator.device), init=None if init is None else str(init),
            net_options=net_options or {}, overrides=overrides,
        )  # fmt: skip
    trainer = Trainer(Run(folder, splits, options, accelerator, tell, start, command), resume)
    with interruptible(trainer):
        return trainer.run()
