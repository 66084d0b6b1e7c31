"""Trackers: TensorBoard's events, read back by TensorBoard, and what the others are told."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fullconv.nets import build
from fullconv.training import trackers as module
from fullconv.training.options import TRACKERS, RunOptions
from fullconv.training.recipe import Recipe
from fullconv.training.trackers import EVENTS, Trackers

OPTIONS = RunOptions("data", build("fcn8s-slim", 3, width=0.1).options, Recipe(), "scratch", 0, 9, None, "float32")


def read(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """(step, value) by name, as TensorBoard shows them."""
    found = EventAccumulator(str(folder / EVENTS)).Reload()
    names = found.Tags()["scalars"]
    return {name: [(event.step, pytest.approx(event.value)) for event in found.Scalars(name)] for name in names}


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    trackers = Trackers(tmp_path, OPTIONS, 0)
    trackers.log({"loss": 1.5, "lr": 1e-3}, 1)
    trackers.log({"loss": nan, "lr": inf}, 2)  # a class that val does not have, for example
    trackers.log({"loss": -0.25}, 3)
    trackers.finish()
    assert read(tmp_path) == {"loss": [(1, 1.5), (3, -0.25)], "lr": [(1, 1e-3)]}


def test_what_a_process_logged_that_was_killed_before_its_first_state_is_not_shown(tmp_path: Path) -> None:
    for value in (1.0, 5.0):
        again = Trackers(tmp_path, OPTIONS, 0)
        again.log({"loss": value}, 1)
        again.finish()
    assert read(tmp_path)["loss"] == [(1, 5)]


def test_what_a_killed_process_logged_too_much_is_not_shown(tmp_path: Path) -> None:
    killed = Trackers(tmp_path, OPTIONS, 0)
    for step in range(1, 7):
        killed.log({"loss": float(step)}, step)
    killed.finish()
    resumed = Trackers(tmp_path, OPTIONS, 4)  # the last state is that of step 4
    for step in range(5, 8):
        resumed.log({"loss": 10.0 * step}, step)
    resumed.finish()
    assert read(tmp_path)["loss"] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50), (6, 60), (7, 70)]


class Recorder:
    """Takes the place of W&B or MLflow."""

    told: list[tuple[Any, ...]]

    def __init__(self, project: str, **name: str) -> None:
        self.told.append(("made", project, name))

    def start(self) -> None:
        self.told.append(("start",))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(("options", values))

    def log(self, values: dict[str, float], step: int) -> None:
        self.told.append(("log", values, step))

    def finish(self) -> None:
        self.told.append(("finish",))


@pytest.mark.parametrize(("name", "word"), [("wandb", "name"), ("mlflow", "run_name")])
def test_other_trackers_are_told_all(name: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(module, "LOGGER_TYPE_TO_CLASS", {name: type("Own", (Recorder,), {"told": told})})
    options = RunOptions(**{**vars(OPTIONS), "trackers": (name,)})
    trackers = Trackers(tmp_path / "my run", options, 0)
    trackers.log({"loss": 2.0, "lr": nan}, 1)
    trackers.finish()
    assert told == [
        ("made", "fullconv", {word: "my run"}),
        ("start",),
        ("options", options.to_yaml()),
        ("log", {"loss": 2.0}, 1),
        ("finish",),
    ]
    assert read(tmp_path / "my run") == {"loss": [(1, 2.0)]}


def test_accelerate_knows_every_tracker() -> None:
    assert set(TRACKERS) < set(LOGGER_TYPE_TO_CLASS)
