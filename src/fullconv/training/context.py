"""What a trainer works with, and what a run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fullconv.metrics import Scores
from fullconv.training.options import RunOptions
from fullconv.training.progress import Listener
from fullconv.training.run import RunFolder
from fullconv.training.splits import Splits
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
