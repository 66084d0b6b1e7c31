"""One run, from what was asked for to its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, cast

import torch

from fullconv.data import WAFER
from fullconv.errors import OptionError, printable
from fullconv.inference.evaluate import require_fit
from fullconv.machine import cores, local_processes
from fullconv.nets import NetOptions
from fullconv.nets.precision import resolve
from fullconv.training import processes
from fullconv.training.context import Run, Trained
from fullconv.training.draws import Share
from fullconv.training.heartbeats import watched
from fullconv.training.interrupt import interruptible
from fullconv.training.loop import Trainer
from fullconv.training.machine import (
    LARGEST_TRIAL,
    chosen_threads,
    chosen_workers,
    fitting_batch,
    surroundings,
)
from fullconv.training.options import Asked, RunOptions, choose_recipe, resolve_options
from fullconv.training.progress import Listener, Tick
from fullconv.training.run import RunFolder
from fullconv.training.splits import SPLITS, Data, Splits, open_splits
from fullconv.training.start import choose_net, named_inputs, read_donors, require_trainable, with_scales
from fullconv.weights.donor import Donor
from fullconv.weights.transplant import adopted

NET = "fcn4s-slim"
"""Where none is named."""

AUTO = "auto"
"""A batch found by trial."""


@dataclass(frozen=True)
class Call:
    """A call of `train`: what was asked for, and by whom.

    Attributes:
        asked: the options that were given.
        data, out, command: as for `train`.
        tell: the listener.
        start: when the minutes began.
        record: more for run.yaml.
        holder: of `out`, which the run takes over.
    """

    asked: Asked
    data: Data | None
    out: Path | None
    tell: Listener
    command: str
    start: float
    record: Mapping[str, Any] = field(default_factory=dict)
    holder: RunFolder | None = None


def train_once(call: Call, base: RunOptions | None = None, resume: bool = False) -> Trained:
    """One run.

    Args:
        base: options that are repeated, as far as `call.asked` does not replace them.
        resume: go on in `call.out`.

    Raises:
        FullconvError: as `train`; where one of several processes has to raise it, all do.
    """
    accelerator = processes.join()
    device = accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), watched():
        out = Path(processes.text_of_main(str(call.out or free_folder(call, base))))
        opened = processes.agreed(lambda: _open(call, out, base, resume))
        options = opened.before or _resolved(call.asked, opened, base, device)
        folder = held(call, base, opened.folder)
        with _released(folder), _threads(options.threads):
            now = {
                "fingerprint": opened.splits.fingerprint(),
                "command": call.command,
                "processes": processes.count(),
                **surroundings(),
            }
            run = Run(
                folder,
                opened.splits,
                options,
                accelerator,
                call.tell,
                call.start,
                opened.donors,
                opened.saved or {**now, **call.record},
                [*_changes(opened.saved, now), *_doubts(options)],
            )
            trainer = Trainer(run, resume)
            with interruptible(trainer):
                return trainer.run()


def held(call: Call, base: RunOptions | None, found: RunFolder) -> RunFolder:
    """The run's folder, held by the main process; where nobody chose its name, another run may have taken that.

    Raises:
        OptionError: the folder is the data's, or another run has it.
    """
    data = call.data if call.data is not None else base.data if base else None

    def hold() -> RunFolder:
        folder = found
        if isinstance(data, str | Path) and data != WAFER and folder.path.resolve() == Path(data).resolve():
            raise OptionError(f"{printable(folder.path)} is the data's own folder; choose another --out")
        while processes.is_main():
            try:
                folder.hold(call.holder)
                break
            except OptionError:
                if call.out is not None:
                    raise
                folder = RunFolder(free_folder(call, base))
        return folder

    folder = processes.agreed(hold)
    path = Path(processes.text_of_main(str(folder.path)))
    return folder if path == folder.path else RunFolder(path)


@contextmanager
def _released(folder: RunFolder) -> Iterator[None]:
    """Others may have it when this is done."""
    try:
        yield
    finally:
        folder.release()


@dataclass(frozen=True)
class _Opened:
    """What was found before anything is decided.

    Attributes:
        folder: of the run, in which nothing was written.
        source: the data's name.
        splits: checked.
        net: fitted to the data; None where a run goes on.
        donors: of its first weights.
        before: the options of the run that goes on.
        saved: its run.yaml.
    """

    folder: RunFolder
    source: str
    splits: Splits
    net: NetOptions | None
    donors: list[Donor]
    before: RunOptions | None = None
    saved: Mapping[str, Any] = field(default_factory=dict)


def _changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was when a run began that goes on: versions and machine, which its bits depend on."""
    return [
        f"begun with {name} {saved[name]}, gone on with {value}"
        for name, value in now.items()
        if name != "command" and name in saved and saved[name] != value
    ]


def _doubts(options: RunOptions) -> list[str]:
    """What is allowed, but hardly meant."""
    doubts = []
    if options.name != "scratch" and not options.init:
        doubts.append(f"the recipe {options.name} is for first weights, and there are none: give them with --init")
    if options.threads > cores():
        doubts.append(f"{options.threads} threads on {cores()} processors wait for each other; fewer are faster")
    return doubts


def free_folder(call: Call, base: RunOptions | None) -> Path:
    """A run folder that is not there yet, by data and net."""
    net = call.asked.net or (base.net if base else NET)
    name = Path(_source(call, base)).resolve().stem or "data"
    return RunFolder.free("runs", f"{name}-{Path(net).stem if isinstance(net, str) else net.trunk}")


def _source(call: Call, base: RunOptions | None) -> str:
    """The data's name."""
    if call.data is None:
        return base.data if base else ""
    return call.data[0].source if isinstance(call.data, tuple) else str(call.data)


def _open(call: Call, out: Path, base: RunOptions | None, resume: bool) -> _Opened:
    """Open folder, data and files; nothing is written."""
    folder, asked = RunFolder(out, resume), call.asked
    saved = folder.read_options() if resume else {}
    before = RunOptions.from_yaml(saved) if resume else None
    known = before or base
    data = call.data if call.data is not None else known.data if known else None
    if data is None:
        raise OptionError("no data; name a folder, a YAML file or 'wafer' with --data")
    net = asked.net or (known.net if known else NET)
    wanted = list(before.net.inputs) if before else asked.inputs or named_inputs(net)
    names = before.splits if before else asked.splits or (base.splits if base else SPLITS)
    if before and call.data is None and data != WAFER and not Path(str(data)).exists():
        raise OptionError(
            f"{data}, the data of {folder.path}, is not here; go on in the folder where the run was started, or name "
            "the data with --data"
        )
    splits = open_splits(data, lambda _, done, total: call.tell(Tick("check", done / total)), wanted, names)
    if before:
        require_fit(before.net, splits.train.dataset)
        if saved.get("fingerprint") != splits.fingerprint():
            raise OptionError(
                f"the data is not what {folder.path} was started on (names, sizes or labels differ); restore it, or "
                f"start a new run from these weights with --init {folder.last}"
            )
        return _Opened(folder, str(known.data if known else data), splits, None, [], before, saved)
    chosen = choose_net(net, splits.train.dataset, asked.net_options, splits.train.moments)
    init = asked.init if asked.init is not None else base.init if base else ()
    donors = read_donors(chosen, init)
    return _Opened(folder, _source(call, base), splits, adopted(chosen, donors), donors)


def _resolved(asked: Asked, opened: _Opened, base: RunOptions | None, device: torch.device) -> RunOptions:
    """The options of a new run."""
    automatic = (batch := asked.overrides.get("batch")) == AUTO
    if isinstance(batch, str) and not automatic:
        raise OptionError(f"batch {batch!r}; expected a whole number, or {AUTO}")
    if automatic and "accumulate" in asked.overrides:
        raise OptionError("batch auto chooses the parts too; leave out accumulate")
    given = {key: value for key, value in asked.overrides.items() if not (automatic and key == "batch")}
    precision = _precision(asked, base, device)
    options = processes.agreed(lambda: _decided(replace(asked, overrides=given), opened, base, device, precision))
    if not automatic:
        return options
    size = _size(options, opened.splits)
    with _threads(options.threads):
        least = -(-options.recipe.batch // processes.count())
        most = max(least, min(LARGEST_TRIAL, len(opened.splits.train.dataset) // 4 // processes.count()))
        stride = options.recipe.loss_stride
        batch, parts = processes.agreed(
            lambda: fitting_batch(options.net, size, precision, device, least, most, stride)
        )
    batch, parts = processes.least(batch), -processes.least(-parts)  # what goes in parts is the least of all
    given["batch"] = batch * processes.count()
    given["accumulate"] = parts * processes.count() if parts > 1 else 1
    return processes.agreed(lambda: _decided(replace(asked, overrides=given), opened, base, device, precision))


def _precision(asked: Asked, base: RunOptions | None, device: torch.device) -> str:
    """Of all processes: "bfloat16" where every one of them takes it."""
    wanted = asked.precision or (base.precision if base else "auto")
    own = processes.agreed(lambda: resolve(wanted, device))
    return "bfloat16" if processes.least(own == "bfloat16") else "float32"


def _decided(
    asked: Asked, opened: _Opened, base: RunOptions | None, device: torch.device, precision: str
) -> RunOptions:
    """Every option, by this machine, net and data."""
    net, local = cast(NetOptions, opened.net), local_processes()
    name, recipe = choose_recipe(asked, base, net, opened.splits)
    options = resolve_options(
        opened.source,
        opened.splits,
        with_scales(net, recipe.skip_scales),
        asked,
        (name, recipe),
        precision=precision,
        threads=chosen_threads(asked.threads if base is None or asked.threads is not None else base.threads, local),
        workers=chosen_workers(asked.workers, device, local),
        base=base,
    )
    shared = Share(recipe.accumulate, processes.rank(), processes.count())
    least = shared.least(recipe.batch)
    together = least if recipe.accumulate > 1 else recipe.batch  # batch norm goes over all processes
    smallest = recipe.augmentation.crop or min(opened.splits.train.sizes, key=max)
    require_trainable(options.net, together, smallest)
    side = min(recipe.augmentation.crop or map(min, opened.splits.train.sizes))
    if recipe.loss_stride > side:
        raise OptionError(f"loss_stride {recipe.loss_stride}; expected at most {side}, the shortest side of an image")
    return options


def _size(options: RunOptions, splits: Splits) -> tuple[int, int]:
    """(H, W) of the largest training images or of their crops."""
    return options.recipe.augmentation.crop or max(splits.train.sizes, key=prod)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads; the caller's number is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
