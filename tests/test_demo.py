"""The demo, made small: every file is there; how well it learns in two minutes is for the benchmark."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv import demo
from fullconv.data.wafer import Wafer
from fullconv.demo import run_demo
from fullconv.inference.evaluate import evaluate
from fullconv.inference.model import Model
from fullconv.training.progress import Tick


def test_it_trains_scores_labels_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, length in (("TRAIN", 8), ("VAL", 3), ("TEST", 12)):
        monkeypatch.setattr(demo, name, length)
    ticks: list[Tick] = []
    start = time.monotonic()
    result = run_demo(tmp_path / "run", 0.05, ticks.append)
    assert time.monotonic() - start < 30, "a real clock: loosely, on a loaded machine"
    assert result.trained.steps > 0
    assert result.trained.path == tmp_path / "run"
    assert {tick.phase for tick in ticks} == {"check", "begin", "train", "evaluate", "report"}

    assert result.images == 12
    assert result.labels.names == ("background", "ring", "scratch", "local zone", "circle")
    assert result.scores == evaluate(Model.load(result.trained.model), Wafer("test", 12)).scores
    test = Wafer("test", 12)
    assert sum(result.scores.pixels) == sum(int((test[i].masks["semantic"] != 255).sum()) for i in range(12))

    assert (tmp_path / "run" / "report.html").exists()
    wafers = sorted(p.name for p in (tmp_path / "run" / "wafers").iterdir())
    assert len(wafers) == 12
    assert result.predictions == tmp_path / "run" / "predictions"
    masks = sorted(p.name for p in result.predictions.glob("*.png"))
    assert masks == sorted([*wafers, *(name.replace(".png", "_overlay.png") for name in wafers)])
    for index in range(12):
        name = f"{test[index].name}.png"
        with Image.open(tmp_path / "run" / "wafers" / name) as picture:
            assert np.array_equal(np.asarray(picture), test[index].inputs["image"])
        with Image.open(result.predictions / name) as mask:
            assert np.asarray(mask).shape == test[index].size
            assert np.asarray(mask).max() < 5


def test_it_is_numbered_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    seen: list[object] = []

    def train(*args: object, out: Path, **options: object) -> None:
        seen.append(out)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train", train)
    with pytest.raises(KeyboardInterrupt):
        run_demo(None, 1.0, lambda tick: None)
    assert seen == [Path("runs/demo-2")]


@pytest.mark.parametrize("split", ["train", "val"])
def test_it_learns_and_is_scored_on_different_maps(split: str) -> None:
    new = {Wafer("test", 5)[i].inputs["image"].tobytes() for i in range(5)}
    assert not new & {Wafer(split, 5)[i].inputs["image"].tobytes() for i in range(5)}
