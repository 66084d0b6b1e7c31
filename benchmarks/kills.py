"""Does a run that is killed anywhere, and gone on with, end with the bits of one that never was?

    python benchmarks/kills.py --kills 30

Short runs of several nets as processes of their own (`fullconv train`), with a state after every step. Each is killed
by SIGKILL a few times: at random moments (seeded) of the start, of training, of an evaluation, of writing a state or a
model, and of the report. Each time it goes on with --resume, or, where there was no state yet, as the message says:
anew. Then its models and tables are compared with those of the same run, undisturbed. Exits with 1 if any differs.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from fullconv.labels import LabelSet
from fullconv.nets import build
from fullconv.weights.modelfile import ModelFile, write_model
from measure import about

CHILD = """
import os, sys
import fullconv.training.loop as loop
import fullconv.training.state as state
import fullconv.training.validation as validation
from fullconv.cli import main

pipe = int(sys.argv[1])

def announced(word, function):
    def call(*args, **options):
        os.write(pipe, word.encode())
        return function(*args, **options)
    return call

loop.STATE_SECONDS = 0.0
loop.Trainer.saving = property(lambda self: 0.0, lambda self, value: None)
for word, place, name in (
    ("t", loop.Learner, "step"), ("v", validation, "evaluate_net"), ("s", loop, "save_state"), ("n", state, "_digest"),
    ("m", loop, "write_model"), ("r", loop, "write_summary"),
):
    setattr(place, name, announced(word, getattr(place, name)))
sys.argv = ["fullconv", *sys.argv[2:]]
main()
"""
"""`fullconv train`, with a state after every step; it says by a letter on a pipe what it does next."""

MOMENTS = {"start": "", "step": "t", "evaluation": "v", "state": "s", "name": "n", "model": "m", "report": "r"}
"""A kill comes within one of these: the last four are short, and a moment after they began."""

SPANS = {"start": 4.0, "step": 0.2, "evaluation": 0.1, "state": 0.02, "name": 0.005, "model": 0.02, "report": 1.0}
"""Seconds in which it comes, at random, after the moment began."""

CLOCK = ("seconds", "images_per_s")


@dataclass(frozen=True)
class Kind:
    """A kind of run: a net and its options, and those of the command."""

    net: str
    options: dict[str, Any]
    words: str

    def model(self, folder: Path) -> Path:
        """The file of the net, which the run starts from: the command alone has no --width."""
        path = folder / f"{self.net}.safetensors"
        if not path.exists():
            torch.manual_seed(1)
            write_model(path, ModelFile(build(self.net, 3, **self.options), {"semantic": LabelSet.numbered(3)}))
        return path


KINDS = (
    Kind(
        "fcn8s-slim",
        {"width": 0.25, "dropout": 0.5},
        "--precision bfloat16 --steps 24 --batch 4 --crop 64 --set scale=0.7,1.5 --set jitter=0.3 --lr 0.01",
    ),
    Kind("fcn8s-vgg16", {"width": 1 / 8}, "--precision float32 --steps 16 --recipe heavy --lr 1e-8"),
    Kind(
        "fcn16s-resnet18",
        {"width": 0.25},
        "--precision bfloat16 --steps 16 --batch 4 --crop 64 --loss cross-entropy+0.5*lovasz --optimizer sgd --lr 0.01",
    ),
)


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        kills: moments at which it was killed.
        steps: that it went on from each time; -1: from nothing.
        different: what was not equal in the end.
    """

    name: str
    kills: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def make_data(root: Path) -> Path:
    """Pictures of 80 x 96 with blocks of three classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for index in range(count):
            mask = rng.integers(0, 3, (5, 6), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
            image = (80 * mask[..., None] + rng.integers(0, 60, (80, 96, 3))).astype(np.uint8)
            for kind, array in (("images", image), ("masks", mask)):
                path = root / split / kind / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return root


def go(words: Sequence[str], moment: str = "", count: int = 0, delay: float = 0.0) -> int:
    """Run the command, killed so long after the count-th moment of its kind; returns its exit code."""
    said, pipe = os.pipe()
    command = [sys.executable, "-c", CHILD, str(pipe), "train", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[pipe]) as process:
        os.close(pipe)
        letter = MOMENTS[moment].encode() if moment else b""
        if moment == "start":
            time.sleep(delay)
            process.kill()
        while word := os.read(said, 1):
            count -= word == letter
            if letter and count == 0:
                time.sleep(delay)
                process.kill()
                break
        os.close(said)
        _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run failed: {errors.decode()[-2000:]}")
    return process.returncode


def newest(out: Path) -> int:
    """Step of the newest state; -1 without one."""
    return max((int(path.name.split("-")[1]) for path in out.glob("state/state-*.safetensors")), default=-1)


def start(out: Path, kind: Kind, data: Path) -> list[str]:
    """The words that start a run, or go on with it where there is a state."""
    if newest(out) >= 0:
        return ["--resume", "--out", str(out), "--data", str(data), "--json"]
    shutil.rmtree(out, ignore_errors=True)  # as the message says
    words = ["--data", str(data), "--net", str(kind.model(data.parent)), "--out", str(out), "--json"]
    return [*words, "--threads", "1", "--workers", "2", *kind.words.split()]


def table(path: Path) -> list[dict[str, str]]:
    """A CSV file without what the clock says."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


def compare(found: Path, expected: Path) -> list[str]:
    """Names of what differs."""
    different = []
    for name in ("last", "best"):
        one, other = (load_file(run / f"{name}.safetensors") for run in (found, expected))
        different += [f"{name}: {key}" for key in one.keys() ^ other.keys()]
        different += [f"{name}: {key}" for key in one.keys() & other.keys() if not torch.equal(one[key], other[key])]
    different += [name for name in ("metrics.csv", "class_iu.csv") if table(found / name) != table(expected / name)]
    return different + [name for name in ("report.html",) if not (found / name).is_file()]


def kill_and_compare(kind: Kind, data: Path, folder: Path, kills: int, seed: int) -> Outcome:
    """One run and its undisturbed twin."""
    rng = random.Random(seed)
    whole, out = folder / f"whole-{kind.net}", folder / f"{kind.net}-{seed}"
    if not (whole / "report.html").exists():  # the twin of several
        go(start(whole, kind, data))
    outcome = Outcome(f"{kind.net}, run {seed}")
    moments = rng.sample([name for name in MOMENTS if name != "report"], k=min(kills, 6))
    if kills > 2:  # the end of a run comes but once
        moments[-1] = "report"
    for moment in moments:
        delay = rng.uniform(0, SPANS[moment])
        count = 1 if moment in {"start", "report"} else rng.randint(1, 4)
        if go(start(out, kind, data), moment, count, delay) == 0:
            break  # it was done before the kill came
        outcome.kills.append(f"{moment}+{delay:.3f}s")
        outcome.steps.append(newest(out))
    go(start(out, kind, data))
    outcome.different = compare(out, whole)
    shutil.rmtree(out)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="at least so many")
    parser.add_argument("--each", type=int, default=5, help="a run")
    arguments = parser.parse_args()
    outcomes: list[Outcome] = []
    begun = time.monotonic()
    with TemporaryDirectory() as place:
        folder = Path(place)
        data = make_data(folder / "data")
        print(f"{about()}\n{'run':24s}  equal  killed -> went on from step")
        while (done := sum(len(outcome.kills) for outcome in outcomes)) < arguments.kills:
            number = len(outcomes)
            kills = min(arguments.each, arguments.kills - done)
            outcome = kill_and_compare(KINDS[number % len(KINDS)], data, folder, kills, number)
            outcomes.append(outcome)
            shown = ", ".join(f"{k} -> {s}" for k, s in zip(outcome.kills, outcome.steps, strict=True))
            print(f"{outcome.name:24s}  {'no ' if outcome.different else 'yes'}    {shown}", flush=True)
            for name in outcome.different[:10]:
                print(f"    differs: {name}")
    wrong = sum(bool(outcome.different) for outcome in outcomes)
    print(f"{done} kills, {len(outcomes)} runs, {wrong} of them different; {time.monotonic() - begun:.0f} s")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
