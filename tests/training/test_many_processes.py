"""A run of two and three processes against the run of one, from the data to the run folder, in real processes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fullconv.data.sample import SEMANTIC
from fullconv.inference.evaluate import evaluate
from fullconv.nets import build
from fullconv.training.train import train
from fullconv.weights.modelfile import ModelFile, write_model
from inmemory import LABELS, some
from makers import make_folder
from spawned import Ended, processes

STEPS = 8
EXACT = {
    "net": "fcn8s-slim", "net_options": {"width": 0.1, "dropout": 0.5}, "batch": 4, "steps": STEPS, "lr": 0.01,
    "recipe": "scratch", "optimizer": "sgd", "seed": 3, "crop": (40, 48), "scale": (0.7, 1.5), "jitter": 0.3,
    "loss_share": 0.8, "class_weights": "median", "loss": "cross-entropy+0.3*dice", "precision": "float32",
    "threads": 1, "workers": 1,
}  # fmt: skip
"""Batch norm, dropout, augmentation, sampling, weights, two terms; 4 images for 3 processes."""

PARTS = {
    "net": "fcn32s-vgg16", "net_options": {"width": 1 / 16}, "batch": 5, "steps": 3, "recipe": "accumulated",
    "lr": 1e-3, "precision": "float32", "threads": 1, "workers": 1,
}  # fmt: skip
"""Of a net without batch norm, whose parts of a step add up: uneven ones."""

START = f"""
import json, os, signal, sys, time
os.environ.update(
    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
    MASTER_ADDR="localhost", MASTER_PORT="29500",  # the group is there already; accelerate looks at them
)
from fullconv.errors import DataError, FullconvError
from fullconv.inference.evaluate import evaluate
from fullconv.training import heartbeats, loading, loop
from fullconv.training.train import train
from inmemory import some

EXACT, PARTS, files = {EXACT!r}, {PARTS!r}, str(folder.parent / "data")
EXACT["init"] = str(folder.parent / "model.safetensors")
data = some("train", 7, (44, 52)), some("val", 5, (44, 52))
loop.STATE_SECONDS = 0.0
loop.Trainer.saving = property(lambda self: 0.0, lambda self, value: None)  # a state after every step

def after(steps, act):
    done = 0
    def listen(tick):
        nonlocal done
        done += tick.phase == "train"
        if tick.phase == "train" and done == steps:
            act()
    return listen

def refused(data=data, **options):
    try:
        train(data, **options)
    except FullconvError as error:
        return f"{{type(error).__name__}}: {{error}}"

found = {{}}
"""

TWO = """
found["whole"] = train(data, out=folder / "whole", **EXACT).steps
found["matrix"] = evaluate(folder.parent / "model.safetensors", data[1]).matrix.counts.tolist()
# Ctrl-C reaches one process; all end after the step.
press = after(4, lambda: signal.raise_signal(signal.SIGINT)) if rank == 1 else None
stopped = train(data, out=folder / "stopped", listener=press, **EXACT)
found["stopped"] = [stopped.steps, stopped.stopped]
found["again"] = train(data, out=folder / "stopped", resume=True).steps
def late(tick):
    if tick.phase == "report" and not found.setdefault("pressed", 0):  # in the main process alone
        found["pressed"] = 1
        signal.raise_signal(signal.SIGINT)
done = train(data, out=folder / "parts", accumulate=4, listener=late, **PARTS)
found["late"] = [done.stopped, done.finished]
found["too small"] = refused(out=folder / "small", **EXACT | {"batch": 1})
found["uneven"] = refused(out=folder / "uneven", accumulate=3, **PARTS)
found["no data"] = refused(files, out=folder / "none", **EXACT | {"splits": ("train", "val" if rank == 0 else "valid")})
print(json.dumps(found), flush=True)
heartbeats.SILENT_SECONDS = 6.0
kill = after(5, lambda: os.kill(os.getpid(), signal.SIGKILL)) if rank == 1 else None
train(data, out=folder / "killed", listener=kill, **EXACT)
"""

AGAIN = """
found["killed"] = train(data, out=folder.parent / "two" / "killed", resume=True).steps
heartbeats.SILENT_SECONDS = 3.0
write = loop.save_state
def slowly(path, *rest):
    time.sleep(2.0 * (path.name == loop.FAILED))  # longer than the others would wait for one that has ended
    return write(path, *rest)
loop.save_state = slowly
found["not finite"] = refused(out=folder / "failed", **EXACT | {"lr": 100.0, "weight_decay": 100.0, "steps": 50})
loop.save_state = write
print(json.dumps(found), flush=True)
heartbeats.SILENT_SECONDS = 6.0
draw, draws = loading.Loader._sample, []
def unreadable(self, each):
    draws.append(each)
    if rank == 1 and len(draws) > 12:
        raise DataError("images/0003.png: is damaged")
    return draw(self, each)
loading.Loader._sample = unreadable
try:
    train(data, out=folder / "damaged", **EXACT)
except FullconvError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
"""

THREE = """
found["whole"] = train(data, out=folder / "whole", **EXACT).steps
found["matrix"] = evaluate(folder.parent / "model.safetensors", data[1]).matrix.counts.tolist()
train(data, out=folder / "parts", accumulate=3, **PARTS)
print(json.dumps(found))
"""

LAUNCHED = """
import atexit, glob, runpy, sys
from pathlib import Path

def threads():
    names = [Path(name).read_text() for name in glob.glob("/proc/self/task/*/comm")]
    print("threads of the group:", sum("gloo" in name for name in names), "of", len(names) > 0, flush=True)

atexit.register(threads)  # before the command's own, so it is called after them
runpy.run_module("fullconv", run_name="__main__", alter_sys=True)
"""
"""The command, and which of its threads are left when nothing but the interpreter's own end is to come."""


@dataclass(frozen=True)
class Runs:
    """All of them, in folders by how many processes they had."""

    folder: Path
    two: list[Ended]
    again: list[Ended]
    three: list[Ended]

    def said(self, ended: list[Ended]) -> list[dict[str, Any]]:
        """What each process found, first in its output."""
        return [json.loads(each.out.partition("\n")[0]) for each in ended]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Three groups of processes, each with many runs: a start costs seconds."""
    root = tmp_path_factory.mktemp("runs")
    make_folder(root / "data", counts={"train": 4, "val": 2})
    torch.manual_seed(4)
    net = build("fcn8s-slim", 3, width=0.1)
    for name, parameter in net.named_parameters():
        if ".score." in name:
            torch.nn.init.normal_(parameter)
    write_model(root / "model.safetensors", ModelFile(net, {SEMANTIC: LABELS}))
    data = some("train", 7, (44, 52)), some("val", 5, (44, 52))
    train(data, out=root / "one", init=root / "model.safetensors", **EXACT)  # type: ignore[arg-type]
    for count in (1, 3, 4):
        train(data, out=root / f"one-parts{count}", accumulate=count, **PARTS)  # type: ignore[arg-type]
    for name in ("two", "again", "three"):
        (root / name).mkdir()
    return Runs(
        root,
        processes(2, root / "two", START + TWO, 120),
        processes(2, root / "again", START + AGAIN, 120),
        processes(3, root / "three", START + THREE, 120),
    )


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(out: Path, *columns: str) -> list[list[float]]:
    """Those columns, where a row has them."""
    return [[float(row[column]) for column in columns] for row in rows(out) if row[columns[0]]]


def require_near(found: Path, expected: Path, tolerance: float) -> None:
    """The last weights, to a share of the largest of each tensor."""
    one, other = (load_file(run / "last.safetensors") for run in (found, expected))
    assert one.keys() == other.keys()
    for name, value in other.items():
        bound = tolerance * value.double().abs().max().item()
        torch.testing.assert_close(one[name], value, rtol=0, atol=bound, msg=f"{found.parent.name}: {name}")


def require_equal(found: Path, expected: Path) -> None:
    """Both models bit for bit, and both tables but for what the clock says."""
    for name in ("last.safetensors", "best.safetensors"):
        one, other = load_file(found / name), load_file(expected / name)
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == [], name
    clock = ("seconds", "images_per_s")
    tables = [[{k: v for k, v in row.items() if k not in clock} for row in rows(run)] for run in (found, expected)]
    assert tables[0] == tables[1]
    assert (found / "class_iu.csv").read_bytes() == (expected / "class_iu.csv").read_bytes()


def test_losses_and_weights_are_those_of_one_process(runs: Runs) -> None:
    """To rounding: sums over pixels and images are taken in another order, 1e-7 each, and batch norm and eight steps
    pass that on, a hundredfold.

    With Lovász or AdamW it would be more: the one's gradient jumps where two errors change places, the other's first
    steps are of one size however small the gradient.
    """
    one = runs.folder / "one"
    columns = ("loss", "loss_cross-entropy", "loss_dice")
    expected = numbers(one, *columns)
    assert len(expected) == STEPS
    for count in ("two", "three"):
        found = numbers(runs.folder / count / "whole", *columns)
        assert len(found) == STEPS
        for step, (own, alone) in enumerate(zip(found, expected, strict=True)):
            assert own == pytest.approx(alone, rel=1e-4), f"{count} processes, step {step}"
        require_near(runs.folder / count / "whole", one, 1e-3)
    assert runs.said(runs.two)[1]["whole"] == STEPS


def test_parts_of_a_step_are_shared_out(runs: Runs) -> None:
    """The sum over parts is the step's, however they are dealt out."""
    whole = runs.folder / "one-parts1"
    for found, expected in (
        (runs.folder / "two" / "parts", runs.folder / "one-parts4"),
        (runs.folder / "three" / "parts", runs.folder / "one-parts3"),
    ):
        for reference in (expected, whole):
            assert numbers(found, "loss") == [pytest.approx(loss, rel=1e-5) for loss in numbers(reference, "loss")]
            require_near(found, reference, 1e-5)
    first = numbers(whole, "loss")
    assert first[0] != first[-1]


def test_scores_of_a_model_are_the_same_counts(runs: Runs) -> None:
    matrix = evaluate(runs.folder / "model.safetensors", some("val", 5, (44, 52))).matrix.counts
    assert (matrix > 0).sum() >= 6, "a model of many errors"
    expected = matrix.tolist()
    found = [each["matrix"] for ended in (runs.two, runs.three) for each in runs.said(ended)]
    assert found == [expected] * 5


def test_val_is_scored_alike(runs: Runs) -> None:
    columns = ("val_mean_iu", "val_pixel_accuracy", "val_mean_accuracy", "val_fw_iu")
    expected = numbers(runs.folder / "one", *columns)
    assert len(expected) >= 5
    for count in ("two", "three"):
        for own, alone in zip(numbers(runs.folder / count / "whole", *columns), expected, strict=True):
            assert own == pytest.approx(alone, abs=1e-3), "a pixel or two of 11440 may lie between two classes"


def test_one_process_writes(runs: Runs) -> None:
    def files(out: Path) -> list[str]:
        return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())

    named = re.compile(r"(?!events/|state/)")
    expected = [name for name in files(runs.folder / "one") if named.match(name)]
    for count in ("two", "three"):
        out = runs.folder / count / "whole"
        assert [name for name in files(out) if named.match(name)] == expected
        assert len(list((out / "events").iterdir())) == 1
        assert len(list((out / "state").iterdir())) == 2
        steps = [row["step"] for row in rows(out) if row["loss"]]
        assert steps == [str(step) for step in range(1, STEPS + 1)], "each once"


def test_a_stopped_run_goes_on_bit_for_bit(runs: Runs) -> None:
    for said in runs.said(runs.two):
        assert said["stopped"] == [5, True], "what one is asked, all agree on after the next step"
        assert said["again"] == STEPS
        assert said["late"] == [True, True], "all know of it, so that no other stage begins"
    require_equal(runs.folder / "two" / "stopped", runs.folder / "two" / "whole")


def test_what_cannot_be_shared_is_refused_by_all_alike(runs: Runs) -> None:
    first, second = runs.said(runs.two)
    host = os.uname().nodename
    assert first["too small"] == second["too small"]
    assert re.fullmatch(
        rf"TrainingError: process 1 of 2 \({re.escape(host)}\): 1 images? a step for 2 processes; "
        "give at least 2 with --batch",
        first["too small"],
    )
    assert first["uneven"] == second["uneven"]
    assert first["uneven"].endswith("3 parts of a step for 2 processes; give a multiple of 2 with --accumulate")
    assert not (runs.folder / "two" / "small").exists()


def test_what_one_process_cannot_read_ends_all(runs: Runs) -> None:
    first, second = runs.said(runs.two)
    assert first["no data"] == second["no data"]
    assert "process 2 of 2" in first["no data"]
    assert "valid" in first["no data"]
    assert not (runs.folder / "two" / "none").exists()
    # And in the midst of training: the one says what it was, the other that it is alone.
    alone, own = runs.again
    assert (alone.code, own.code) == (1, 1)
    assert "DataError: images/0003.png: is damaged" in own.out
    lost = f"process 2 of 2 on {os.uname().nodename} has ended; this process ends: go on with --resume when all are"
    assert lost in alone.err


def test_a_loss_that_is_not_finite_ends_all_in_the_same_words(runs: Runs) -> None:
    first, second = runs.said(runs.again)
    assert first["not finite"] == second["not finite"]
    assert first["not finite"].startswith("TrainingError: weights or averages are infinite or no numbers after step ")
    (state,) = (runs.folder / "again" / "failed" / "failed").iterdir()
    assert first["not finite"].endswith(f"the weights of that step are in {state}")


def test_a_killed_process_ends_the_other_and_the_run_goes_on_bit_for_bit(runs: Runs) -> None:
    alone, killed = runs.two
    assert killed.code == -signal.SIGKILL
    assert alone.code == 1
    assert "go on with --resume when all are back" in alone.err
    assert [said["killed"] for said in runs.said(runs.again)] == [STEPS, STEPS]
    require_equal(runs.folder / "two" / "killed", runs.folder / "two" / "whole")


def test_a_launcher_starts_them(runs: Runs, tmp_path: Path) -> None:
    """The command itself, under torchrun: the first process alone talks, and no thread of the group outlives it."""
    out = tmp_path / "r"
    (tmp_path / "command.py").write_text(LAUNCHED)
    words = f"train --data {runs.folder / 'data'} --net fcn1s-slim --steps 2 --batch 2 --threads 1 --out {out}"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, tmp_path / "command.py", *words.split()],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report ") == 1
    assert done.stdout.count("threads of the group: 0 of True") == 2, done.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    assert re.search(r"processes</t[hd]>\s*<t[hd][^>]*>2<|processes\D{1,80}2", page)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """No run may leave the handlers of signals changed."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before
