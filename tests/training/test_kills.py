"""A run that is killed, wherever, and goes on until it is done, ends with the bits of the run that never was.

Real processes and real SIGKILLs; benchmarks/kills.py does the same at scale.
"""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fullconv.nets import build
from fullconv.weights.modelfile import ModelFile, write_model
from inmemory import LABELS
from makers import make_folder

DRIVER = r"""
import json, os, random, select, signal, sys, time
import torch
from fullconv.cli import main
from fullconv.training import loop, state, validation

# By one letter each, which is what the pipe carries.
MOMENTS = {"t": (loop.Learner, "step"), "v": (validation, "evaluate_net"), "s": (loop, "save_state"),
           "n": (state, "_digest"), "m": (loop, "write_model"), "r": (loop, "write_summary")}

def announced(pipe, word, function, held):
    left = held
    def call(*args, **options):
        nonlocal left
        os.write(pipe, word.encode())
        left -= 1
        if left == 0:
            signal.pause()
        return function(*args, **options)
    return call

def child(pipe, words, errors, moment, held):
    # A process of its own from here on: the command, with states as often as there are steps.
    loop.STATE_SECONDS = 0.0
    loop.Trainer.saving = property(lambda self: 0.0, lambda self, value: None)
    for word, (place, name) in MOMENTS.items():
        setattr(place, name, announced(pipe, word, getattr(place, name), held if word == moment else 0))
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    sys.argv = ["fullconv", *words]
    main()

def go(words, moment="", count=0, delay=0.0):
    # Run the command; kill it so long after the count-th such moment, or, without delay, held there. Its exit code.
    said, pipe = os.pipe()
    errors = os.open(sys.argv[1] + "/errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            child(pipe, words, errors, moment, 0 if delay else count)
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            os._exit(code)
    os.close(pipe)
    os.close(errors)
    while (word := os.read(said, 1)):
        count -= word == moment.encode()
        if moment and count == 0:
            time.sleep(delay)
            os.kill(process, signal.SIGKILL)
            break
    os.close(said)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

torch.set_num_threads(1)
plan = json.load(sys.stdin)
print(json.dumps([go(**each) for each in plan]))
"""


def drive(folder: Path, plan: list[dict[str, Any]]) -> list[int]:
    """Run commands one after the other, in processes that are killed as planned; returns their exit codes."""
    words = [sys.executable, "-c", DRIVER, str(folder)]
    done = subprocess.run(words, input=json.dumps(plan), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    errors = (folder / "errors").read_text("utf-8")
    codes: list[int] = json.loads(done.stdout)
    assert set(codes) <= {0, -signal.SIGKILL}, errors
    return codes


def measured(out: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what the clock says."""
    with (out / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_s")} for row in table]


def require_equal(found: Path, expected: Path) -> None:
    """Both models, bit for bit, and both tables."""
    for name in ("last.safetensors", "best.safetensors"):
        one, other = load_file(found / name), load_file(expected / name)
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == [], name
    assert measured(found) == measured(expected)
    assert (found / "class_iu.csv").read_bytes() == (expected / "class_iu.csv").read_bytes()
    assert (found / "report.html").is_file()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command that needs every kind of random number: bfloat16, dropout, augmentation, two loading threads."""
    folder = tmp_path_factory.mktemp("kills")
    data = make_folder(folder / "data", counts={"train": 6, "val": 3})
    torch.manual_seed(2)
    write_model(
        folder / "net.safetensors", ModelFile(build("fcn8s-slim", 3, width=0.1, dropout=0.5), {"semantic": LABELS})
    )
    text = (
        "train --steps 30 --precision bfloat16 --threads 1 --workers 2 --lr 0.02 --seed 4 --batch 4 --crop 16 "
        "--set scale=0.7,1.5 --set jitter=0.3 --set loss_stride=2 --loss cross-entropy+0.3*lovasz --json"
    )
    return [*text.split(), "--data", str(data), "--net", str(folder / "net.safetensors")]


@dataclass(frozen=True)
class Runs:
    """Runs of one command in folders of their own, killed and gone on with to the end.

    Attributes:
        folder: of them; "whole" was never killed.
        states: that there were when each was killed for the last time, by the run's name.
        cut: the name of the state that was cut short.
        errors: what all of them wrote to stderr.
    """

    folder: Path
    states: dict[str, list[str]]
    cut: str
    errors: str


@pytest.fixture(scope="module")
def runs(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two processes import torch and fork all others, one after the other: a start costs seconds."""
    folder = tmp_path_factory.mktemp("runs")
    rng = random.Random(7)

    def start(name: str) -> dict[str, Any]:
        return {"words": [*words, "--out", str(folder / name)]}

    def go_on(name: str) -> dict[str, Any]:
        data = words[words.index("--data") + 1]
        return {"words": ["train", "--json", "--resume", "--out", str(folder / name), "--data", data]}

    first = [
        start("whole"),
        # In steps, while val is scored, and at the end, each somewhere in what happens then.
        start("random") | {"moment": "t", "count": rng.randint(5, 9), "delay": rng.uniform(0, 0.02)},
        go_on("random") | {"moment": "v", "count": rng.randint(1, 2), "delay": rng.uniform(0, 0.01)},
        go_on("random") | {"moment": "t", "count": rng.randint(1, 5), "delay": rng.uniform(0, 0.02)},
        go_on("random") | {"moment": "r", "count": 1},
        # A state is written, then digested and named; then the last model is written.
        start("unnamed") | {"moment": "n", "count": 10},
        start("model") | {"moment": "m", "count": 9},
        start("cut") | {"moment": "t", "count": 12},
    ]
    assert drive(folder, first) == [0, *[-signal.SIGKILL] * 7]
    killed = ("random", "unnamed", "model", "cut")
    found = {name: sorted((folder / name / "state").iterdir()) for name in killed}
    newest = found["cut"][-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert drive(folder, [go_on(name) for name in killed]) == [0] * 4
    names = {name: [path.name for path in paths] for name, paths in found.items()}
    return Runs(folder, names, newest.name, (folder / "errors").read_text("utf-8"))


def test_the_kills_came_where_they_should(runs: Runs) -> None:
    steps = {
        name: [int(n.split("-")[1]) for n in names if n.startswith("state")] for name, names in runs.states.items()
    }
    assert steps["random"][-1] == 30, "killed at last when only the report was missing"
    assert steps["unnamed"] == [7, 8]
    assert any(not name.startswith("state") for name in runs.states["unnamed"]), "the ninth has no name yet"
    assert steps["cut"] == [10, 11]
    assert len(steps["model"]) == 2
    assert 0 < steps["model"][0] < 10


@pytest.mark.parametrize("name", ["random", "unnamed", "model", "cut"])
def test_kills_change_no_bit(runs: Runs, name: str) -> None:
    require_equal(runs.folder / name, runs.folder / "whole")


def test_a_state_cut_short_by_a_kill_is_passed_over(runs: Runs) -> None:
    assert f"fullconv: {runs.cut} is damaged (its digest differs: cut short, or changed); went on from" in runs.errors


def test_nothing_of_a_killed_process_stays_among_the_states(runs: Runs) -> None:
    for run in ("whole", "random", "unnamed", "model", "cut"):
        names = sorted(path.name for path in (runs.folder / run / "state").iterdir())
        assert [name.split("-")[1] for name in names] == ["000000029", "000000030"], run
