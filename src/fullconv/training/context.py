"""What a trainer works with, and what a run came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fullconv.errors import printable
from fullconv.metrics import Scores
from fullconv.training.options import RunOptions
from fullconv.training.progress import Listener
from fullconv.training.run import RunFolder
from fullconv.training.splits import Splits
from fullconv.training.state import Place
from fullconv.weights.donor import Donor


@dataclass(frozen=True)
class Trained:
    """What a run came to.

    Attributes:
        path: the run folder.
        model: its best model file.
        scores: of that model on val; None if it was stopped before the first evaluation.
        steps: done.
        seconds: spent.
        stopped: by Ctrl-C or SIGTERM.
        finished: it came to its end all the same, or without.
        warnings: what its user should know at once, a line each: states that were damaged.
    """

    path: Path
    model: Path
    scores: Scores | None
    steps: int
    seconds: float
    stopped: bool
    finished: bool
    warnings: tuple[str, ...] = ()


def opening(run: Run, place: Place, notes: Sequence[str], resumed: bool = False) -> str:
    """What is trained, on what, how and where, a line; where it goes on; then the notes."""
    options, recipe = run.options, run.options.recipe
    train, val = run.splits.train.dataset, run.splits.val.dataset
    length = f"{options.minutes:g} minutes" if options.minutes is not None else f"{options.steps:,} steps"
    parts = f" in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
    images = f"{options.data}: {len(train)} {train.split} and {len(val)} {val.split} images"
    net = f"{options.net.stride}s on {options.net.trunk}, {options.net.padding} padding"
    how = f"recipe {options.name}, {length} of {recipe.batch} images a step{parts}"
    machine = f"{options.precision}, {options.threads} threads"
    lines = [f"{images}; {net}; {how}; {machine}; {printable(run.folder.path)}"]
    if place.progress >= 1:
        lines.append("this run is finished: nothing is left to do but its report")
    elif place.step:
        lines.append(f"going on from step {place.step:,}, {100 * place.progress:.0f} % of the run")
    elif resumed:
        lines.append("beginning again: the run was ended before its first state, which is written after a minute")
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


@dataclass(frozen=True)
class Run:
    """What a trainer works with.

    Attributes:
        start: when the run's clock began (time.monotonic).
        donors: of the first weights.
        record: more for run.yaml, beside the options: command, versions, ...
        notes: for the report, beside the trainer's.
    """

    folder: RunFolder
    splits: Splits
    options: RunOptions
    accelerator: Accelerator
    tell: Listener
    start: float
    donors: list[Donor]
    record: Mapping[str, Any]
    notes: list[str]
