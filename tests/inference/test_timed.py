"""The process that is timed: what counts, what is written, and that only answers reach standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fullconv.inference import timed
from fullconv.inference.model import Model
from fullconv.inference.timed import LabelTimer, made, peak_memory
from fullconv.nets import build
from fullconv.nets.unit_scale import unit_scale

IMAGES = [{"image": np.full((2, 3, 3), number, np.uint8)} for number in range(3)]
CHATTY = """
from fullconv.inference.timed import serve
class Chatty:
    def start(self):
        print("a library says hello", flush=True)
        return {"seconds": 1}
    def turn(self, number):
        raise ValueError(f"no\\nimage {number}")
serve(lambda request: Chatty())
"""


class Counting:
    """Labels every image with its own number, and counts."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, inputs: object) -> dict[str, np.ndarray]:
        assert isinstance(inputs, dict)
        self.seen.append(int(inputs["image"].max()))
        return {"a": inputs["image"][:, :, 0]}


def test_short_turns_go_once_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    label = Counting()
    timer = LabelTimer(lambda: (label, lambda: 9), IMAGES)
    assert timer.start()["multiplications"] == 9
    assert label.seen == [0]
    timer.turn(4)
    assert label.seen == [0, 1, 1]
    monkeypatch.setattr(timed, "BRIEF", 0.0)
    timer.turn(2)
    assert label.seen == [0, 1, 1, 2]


def test_answers_are_of_all_images(tmp_path: Path) -> None:
    label = Counting()
    timer = LabelTimer(lambda: (label, lambda: 9), IMAGES)
    timer.start()
    timer.answer(str(tmp_path / "labels"))
    found = load_file(tmp_path / "labels")
    assert {key: int(each.max()) for key, each in found.items()} == {"0.a": 0, "1.a": 1, "2.a": 2}


@pytest.mark.parametrize("engine", ["plain", "torch"])
def test_labels_are_those_of_predict(engine: str) -> None:
    net = unit_scale(build("fcn8s-slim", 3, width=0.1)).eval()
    image = np.random.default_rng(0).integers(0, 256, (41, 52, 3), np.uint8)
    label, count = made(net, engine, "float32", (41, 52))
    expected = Model(net).predict(image).labels
    assert len(np.unique(expected)) > 1
    assert (label({"image": image})["semantic"] == expected).mean() > 0.999
    assert count() > 1000


def test_only_answers_reach_standard_output() -> None:
    requests = '{"do": "start"}\n{"do": "turn", "number": 3}\n'
    done = subprocess.run([sys.executable, "-c", CHATTY], input=requests, capture_output=True, text=True, check=True)
    first, second = map(json.loads, done.stdout.splitlines())
    assert first.pop("memory") > 1 << 20
    assert first == {"seconds": 1}
    assert second["error"] == "ValueError: no image 3"
    assert "a library says hello" in done.stderr


def test_the_peak_of_memory_stays_when_memory_is_freed() -> None:
    held = np.ones(1 << 26, np.uint8)
    peak = peak_memory()
    del held
    assert peak is not None
    assert peak > 1 << 26
    assert abs((peak_memory() or 0) - peak) < 1 << 24, "the system counts in lots"
