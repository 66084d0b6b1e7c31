"""Trackers: TensorBoard's events in every run folder, and accelerate's W&B and MLflow where they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, TensorBoardTracker

from fullconv.training.options import RunOptions

PROJECT = "fullconv"
"""By which W&B and MLflow group runs."""

EVENTS = "events"
"""Folder of TensorBoard's, in the run's."""


class Trackers:
    """All of a run's; of several processes the main one has them.

    Args:
        folder: of the run.
        options: of the run; `trackers` names those beside TensorBoard.
        step: that the run begins or goes on from: later events, of a process that was killed, are not shown.
    """

    def __init__(self, folder: Path, options: RunOptions, step: int) -> None:
        others = [LOGGER_TYPE_TO_CLASS[name](PROJECT, **_named(name, folder)) for name in options.trackers]
        self.trackers: list[GeneralTracker] = [TensorBoardTracker(EVENTS, str(folder), purge_step=step + 1), *others]
        for tracker in self.trackers:
            tracker.start()
        for tracker in others:
            tracker.store_init_configuration(options.to_yaml())

    def log(self, values: Mapping[str, float], step: int) -> None:
        """What was measured at a step; what is not finite is left out."""
        finite = {name: value for name, value in values.items() if np.isfinite(value)}
        for tracker in self.trackers:
            tracker.log(finite, step=step)

    def finish(self) -> None:
        """Everything is written."""
        for tracker in self.trackers:
            tracker.finish()


def _named(name: str, folder: Path) -> dict[str, Any]:
    """The run's name, as a tracker calls it."""
    run = folder.resolve().name
    return {"name": run} if name == "wandb" else {"run_name": run}
