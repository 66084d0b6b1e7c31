"""The states of a run, from which it goes on as if it had never stopped: weights, optimiser, place.

A state is one safetensors file, named by its step and the digest of its bytes; nothing pickled is written or read. The
newest two are kept, and the older one serves where the newer is damaged. All random numbers of a run are pure functions
of its seed and of the place (see `draws`), so that no generator is part of a state.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from fullconv.errors import ModelFileError, TrainingError, one_line, printable, shape_text
from fullconv.files import atomic, sync_folder
from fullconv.weights.modelfile import TYPES, save_tensors

KEPT = 2
"""States that are kept."""

SLOTS = {
    "SGD": ("momentum_buffer",),
    "AdamW": ("step", "exp_avg", "exp_avg_sq"),
    "Muon": ("step", "momentum_buffer"),
}
"""What an optimiser remembers of a parameter, all of it or, before its first step, nothing."""

KEY = "place"
"""Of the file's header; a JSON object."""

MAX_PLACE = 1 << 20
"""Characters of JSON."""

RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "step": (int, 0, 10**9 - 1), "seconds": (float, 0, 1e10), "progress": (float, 0, 1), "begun": (float, 0, 1e10),
    "reserve": (float, 0, 1e10),
    "next_evaluation": (float, 0, 1e10), "loss_sums": (float, -1e300, 1e300), "loss_steps": (int, 0, 10**9 - 1),
}  # fmt: skip
"""Of a place's values in a file: type, lowest, highest."""

_STATE = re.compile(r"state-(\d{9})-([0-9a-f]{16})\.safetensors")
_LEFTOVER = re.compile(r"\.?new\..*|\.tmp.*")  # of `save_state`; of safetensors, which writes a file of its own first

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, 112}  # the last as Windows numbers it


@dataclass
class Place:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        seconds: spent in the run so far, over all its sessions.
        progress: 0..1 of the run, never falling.
        begun: seconds that were over before the first step.
        reserve: seconds kept for the run's end.
        next_evaluation: progress (0..1) at which the next evaluation is due.
        loss_sums: of the steps since the last line of metrics.csv, one a column.
        loss_steps: their number.
    """

    step: int = 0
    seconds: float = 0.0
    progress: float = 0.0
    begun: float = 0.0
    reserve: float = 0.0
    next_evaluation: float = 0.0
    loss_sums: list[float] = field(default_factory=list)
    loss_steps: int = 0

    def reach(self, progress: float) -> None:
        """Go on to `progress`, but never back: a growing reserve makes the same moment an earlier one."""
        self.progress = max(self.progress, progress)


def save_state(folder: Path, net: nn.Module, optimizer: Optimizer, place: Place) -> Path:
    """Write a state; once it is on the disk, whole, all others but the newest before it are deleted.

    Args:
        folder: of the run's states, and of nothing else.

    Returns:
        The file's path.

    Raises:
        TrainingError: the disk is full, or cannot be written; older states stay as they were.
    """
    tensors = _tensors(net, optimizer)
    header = json.dumps({"optimizer": type(optimizer).__name__, **asdict(place)}, allow_nan=False)
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        for left in folder.iterdir():  # by a process that was killed; first, since they may be what fills the disk
            if _LEFTOVER.fullmatch(left.name):
                left.unlink(missing_ok=True)
        with atomic(folder / "new.safetensors") as temporary:
            save_tensors(tensors, temporary, {KEY: header})
        unnamed = folder / "new.safetensors"
        path = folder / f"state-{place.step:09d}-{_digest(unnamed)}.safetensors"
        unnamed.replace(path)
        sync_folder(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    # A later step is of a future that was given up: the run went on from a state before it.
    earlier = [other for other in _states(folder) if _step(other) < place.step]
    for other in _states(folder):
        if other not in (path, *earlier[-KEPT + 1 :]):
            with suppress(OSError):  # the run can go on all the same
                other.unlink()
    return path


def load_state(folder: Path, net: nn.Module, optimizer: Optimizer) -> tuple[Place, list[str]]:
    """Read the newest whole state into net and optimiser, both made as they were for the run.

    Returns:
        Where the run stands, and notes about damaged states that were passed over.

    Raises:
        ModelFileError: there is no state, none that is whole, or one of another net; all stays as it was.
    """
    damaged: list[tuple[Path, str]] = []
    states = _states(folder)
    for path in reversed(states):
        problem = _problem(path)
        if problem is None:
            place = _read(path, net, optimizer)
            return place, [f"{other.name} is damaged ({why}); went on from step {place.step}" for other, why in damaged]
        damaged.append((path, problem))
    shown = printable(folder)
    if damaged:
        raise ModelFileError(
            f"{shown} holds no whole state: {', '.join(f'{path.name} is damaged ({why})' for path, why in damaged)}; "
            "start the run anew"
        )
    raise ModelFileError(
        f"{shown} does not exist or holds no state: the run stopped before its first state; "
        f"delete {printable(folder.parent)} and start it anew"
    )


def forget_later(folder: Path, step: int) -> None:
    """Delete the states after the one that a run goes on from: they are damaged, and would be kept as good ones."""
    for path in _states(folder):
        if _step(path) > step:
            with suppress(OSError):  # it will be passed over again
                path.unlink()


def _states(folder: Path) -> list[Path]:
    """Oldest first; of the same step, too."""
    found = [path for path in folder.glob("state-*.safetensors") if _STATE.fullmatch(path.name) and path.is_file()]
    return sorted(found, key=lambda path: (_step(path), path.stat().st_mtime_ns))


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _problem(path: Path) -> str | None:
    """What is wrong with a state's bytes; None: they are those that were written."""
    try:
        if path.stat().st_size == 0:
            return "empty"
        whole = path.name == f"state-{path.name.split('-')[1]}-{_digest(path)}.safetensors"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if whole else "its digest differs: cut short, or changed"


def _tensors(net: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What a state holds, by name."""
    named = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for index, (parameter, slots) in enumerate(_parameters(optimizer)):
        for slot in slots:
            if (value := optimizer.state.get(parameter, {}).get(slot)) is not None:
                named[f"optimizer.{index}.{slot}"] = value
    return named


def _parameters(optimizer: Optimizer) -> list[tuple[Tensor, tuple[str, ...]]]:
    """In the order by which an optimiser numbers them in its state_dict; each with what is remembered of it."""
    own = type(optimizer).__name__
    return [
        (parameter, SLOTS["AdamW" if own == "Muon" and not group["matrices"] else own])
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def _read(path: Path, net: nn.Module, optimizer: Optimizer) -> Place:
    """Fill net and optimiser from a whole file, after all of it was found to fit."""
    fixed = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    memory = [
        {slot: torch.zeros(()) if slot == "step" else parameter for slot in slots}
        for parameter, slots in _parameters(optimizer)
    ]
    state: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(path, "pt") as file, torch.no_grad():
            place = _place((file.metadata() or {}).get(KEY, ""), type(optimizer).__name__)
            if place.step != _step(path):
                raise ValueError(f"found step {place.step} within, expected that of its name")
            names = set(file.keys())
            expected = dict(fixed)
            for index, slots in enumerate(memory):
                if names & (own := {f"optimizer.{index}.{slot}": like for slot, like in slots.items()}).keys():
                    expected |= own
                    state[index] = slots
            _require_fit(file, names, expected)
            for name, tensor in fixed.items():
                tensor.copy_(file.get_tensor(name))
            for index, slots in state.items():
                # In the memory layout of the parameter, as the optimiser made it: kernels go by that.
                state[index] = {
                    slot: torch.empty_like(like).copy_(file.get_tensor(f"optimizer.{index}.{slot}"))
                    for slot, like in slots.items()
                }
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{printable(path)} is of another net, other options or another version ({one_line(error)}); "
            "resume with those it was started with, or start the run anew"
        ) from error
    # The optimiser itself decides on which device it counts its steps.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return place


def _require_fit(file: Any, names: Set[str], expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless a file holds tensors of these names, shapes and types."""
    for name in sorted(names ^ expected.keys()):
        found, wanted = ("no", "one") if name in expected else ("a", "none")
        raise ValueError(f"found {found} tensor {name[:80]!r}, expected {wanted}")
    for name, tensor in expected.items():
        entry = file.get_slice(name)
        shape, kind = tuple(entry.get_shape()), TYPES.get(entry.get_dtype())
        if shape != tensor.shape or kind != tensor.dtype:
            raise ValueError(
                f"found {name!r} as {kind} {shape_text(shape)}, expected {tensor.dtype} {shape_text(tensor.shape)}"
            )


def _place(text: str, optimizer: str) -> Place:
    """The place that a header tells of; ValueError unless every value is of its type and within its range."""
    if len(text) > MAX_PLACE:
        raise ValueError(f"found {len(text)} characters about the place, expected up to {MAX_PLACE}")
    value = json.loads(text)
    if not isinstance(value, dict) or value.keys() != {"optimizer", *RANGES}:
        raise ValueError(f"found the place {text[:40]!r}, expected an object of optimizer, {', '.join(RANGES)}")
    if (found := value.pop("optimizer")) != optimizer:
        raise ValueError(f"found the optimizer {str(found)[:40]!r}, expected {optimizer!r}")
    for name, (kind, lowest, highest) in RANGES.items():
        many = name == "loss_sums"
        if many and not isinstance(value[name], list):
            raise ValueError(f"found {name} {str(value[name])[:40]}, expected a list")
        numbers = value[name] if many else [value[name]]
        # In this order: NaN is in no range, and whole numbers of any length may be compared, but not converted.
        if not all(isinstance(n, kind | int) and not isinstance(n, bool) and lowest <= n <= highest for n in numbers):
            raise ValueError(f"found {name} {str(value[name])[:40]}, expected {lowest:g} to {highest:g}")
        value[name] = [kind(n) for n in numbers] if many else kind(numbers[0])
    return Place(**value)


def unwritable(folder: Path, error: OSError, begun: bool = True) -> TrainingError:
    """What to tell when something of a run cannot be written: also which states there are to go on from.

    Args:
        folder: of the run's states.
        begun: it may be gone on with, if there are any.
    """
    mend = "free some space" if error.errno in _FULL else "check the folder and disk"
    steps = [str(_step(path)) for path in _states(folder)] if begun else []
    if len(steps) > 1:
        kept = f"the states of steps {', '.join(steps[:-1])} and {steps[-1]} are intact: {mend} and go on with --resume"
    elif steps:
        kept = f"the state of step {steps[0]} is intact: {mend} and go on with --resume"
    else:
        kept = f"no state was saved before: {mend} and start the run anew"
    return TrainingError(f"{printable(folder.parent)}: cannot be written ({error.strerror}); {kept}")
