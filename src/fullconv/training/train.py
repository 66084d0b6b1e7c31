"""`train`: from a data set's name to a run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from fullconv.errors import OptionError
from fullconv.inference.evaluate import require_fit
from fullconv.nets import NetOptions
from fullconv.nets.precision import resolve
from fullconv.training.loop import Listener, Run, Tick, Trained, Trainer, interruptible
from fullconv.training.run import RunFolder
from fullconv.training.setup import (
    SPLITS,
    Data,
    RunOptions,
    choose_net,
    named_inputs,
    open_splits,
    read_donors,
    resolve_options,
)
from fullconv.weights.donor import Donor
from fullconv.weights.modelfile import MODEL_SUFFIX
from fullconv.weights.transplant import adopted


def train(
    data: Data,
    net: str | NetOptions | None = None,
    *,
    out: str | Path | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    recipe: str | None = None,
    init: str | Path | Sequence[str | Path] = (),
    resume: bool = False,
    seed: int | None = None,
    precision: str | None = None,
    net_options: Mapping[str, Any] | None = None,
    inputs: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    listener: Listener | None = None,
    command: str = "",
    **overrides: Any,
) -> Trained:
    """Train a net and write its run folder.

    Args:
        data: a data set (see `open_dataset`), or the train and val `Dataset`s.
        net: a name of `NETS` (default "fcn8s-slim"); options; or a model file, whose net is trained on: it gets the
            data's classes, and its weights unless `init` names others.
        out: the run folder; default ``runs/DATA-NET``, numbered where there is one.
        minutes, epochs, steps: the length, at most one of them; default: the recipe's steps. Minutes are those of the
            whole call: the schedule is planned so that they are used and kept.
        recipe: a name of `RECIPES` (default "scratch").
        init: a model file, .caffemodel or torchvision classifier that the first weights come from, or several: see
            `fullconv.weights.transplant`.
        resume: go on with the run in `out`, on the same data and with its options; no others may be given.
        seed: of everything random (default 0); the caller's own generators are left as they were.
        precision: "float32", "bfloat16" or "auto" (default: bfloat16 where the processor computes in it). Weights, sums
            and scores are float32 in any case.
        net_options: of `build`, such as ``{"padding": "paper"}``.
        inputs: names of the data's inputs that the net takes; default: those of a published net or a model, else all.
        splits: the names of the two that are trained and scored on; default: train and val.
        listener: called with a `Tick` many times a second.
        command: as typed, for the report.
        overrides: single values of the recipe, such as ``lr=1e-3`` or ``crop=(320, 320)``.

    Raises:
        DataError: the data cannot be learned from; the first ten problems are listed.
        OptionError: options that do not fit together.
        TrainingError: the loss became infinite or no number.
    """
    start = time.monotonic()
    files = [init] if isinstance(init, str | Path) else list(init or ())
    chosen = {
        "net": net, "minutes": minutes, "epochs": epochs, "steps": steps, "recipe": recipe, "seed": seed,
        "init": files or None, "precision": precision, "inputs": inputs, "splits": splits, **(net_options or {}),
        **overrides,
    }  # fmt: skip
    given = [name for name, value in chosen.items() if value is not None]
    if resume and given:
        raise OptionError(f"a resumed run keeps its options; leave out {', '.join(given)}, or start a new run")
    if resume and out is None:
        raise OptionError("--resume needs the run's folder; add --out RUN")
    net = net or "fcn8s-slim"
    if isinstance(net, str) and net.endswith(MODEL_SUFFIX) and not resume:
        files = files or [net]
    source = data[0].source if isinstance(data, tuple) else str(data)
    if out is None:
        name = Path(source).resolve().stem or "data"
        out = RunFolder.free("runs", f"{name}-{Path(net).stem if isinstance(net, str) else net.trunk}")
    folder = RunFolder(out, resume)
    tell = listener or (lambda _: None)
    accelerator = Accelerator(log_with="tensorboard", project_dir=str(folder.path))
    if accelerator.num_processes > 1:
        raise OptionError(
            f"{accelerator.num_processes} processes; this version trains in one: start it without a launcher"
        )
    donors: list[Donor] = []
    saved = folder.read_options() if resume else {}
    before = RunOptions.from_yaml(saved) if resume else None
    wanted = list(before.net.inputs) if before else inputs or named_inputs(net)
    names = before.splits if before else _two(splits)
    opened = open_splits(data, lambda _, done, total: tell(Tick("check", done / total)), wanted, names)
    if before:
        options = before
        require_fit(options.net, opened.train.dataset)
        if saved.get("fingerprint") != opened.fingerprint():
            raise OptionError(f"the data is not what {folder.path} was started on (names, sizes or labels differ)")
    else:
        chosen_net = choose_net(net, opened.train.dataset, net_options or {}, opened.train.moments)
        donors = read_donors(chosen_net, files)
        options = resolve_options(
            source,
            opened,
            adopted(chosen_net, donors),
            recipe=recipe or "scratch",
            seed=seed or 0,
            minutes=minutes,
            epochs=epochs,
            steps=steps,
            precision=resolve(precision or "auto", accelerator.device),
            init=files,
            overrides=overrides,
            names=names,
        )
    with torch.random.fork_rng():
        trainer = Trainer(Run(folder, opened, options, accelerator, tell, start, command, donors), resume)
        with interruptible(trainer):
            return trainer.run()


def _two(splits: Sequence[str] | None) -> tuple[str, str]:
    """The names of the splits that are trained and scored on."""
    if splits is None:
        return SPLITS
    if isinstance(splits, str) or len(splits) != 2:
        raise OptionError(f"splits {splits!r}; expected the names of two, such as trainaug and val2012")
    return splits[0], splits[1]
