"""Training end to end on tiny data: it learns, goes on where it stopped, keeps its time, and says what is wrong."""

from __future__ import annotations

import csv
import html
import math
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim import Optimizer

from fullconv.data.augment import Augmentation, augment
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.errors import DataError, ModelFileError, OptionError, TrainingError
from fullconv.inference.evaluate import evaluate
from fullconv.inference.model import Model
from fullconv.labels import VOID, LabelSet
from fullconv.machine import cores
from fullconv.nets import FCN, build
from fullconv.training import processes
from fullconv.training.context import Trained
from fullconv.training.draws import Batches
from fullconv.training.learner import Learner, StepLoss
from fullconv.training.loop import Trainer
from fullconv.training.losses import TaskLoss
from fullconv.training.once import Call, held
from fullconv.training.options import Asked, RunOptions
from fullconv.training.progress import Tick
from fullconv.training.recipes import RECIPES
from fullconv.training.run import RunFolder
from fullconv.training.sampling import kept
from fullconv.training.state import Place, save_state
from fullconv.training.trackers import Trackers
from fullconv.training.train import train
from fullconv.weights import modelfile
from fullconv.weights.modelfile import ModelFile, read_header, read_model, write_model
from inmemory import LABELS, InMemory, one, some
from makers import make_folder

NET = "fcn1s-slim"
SMALL = {"width": 0.1}
COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)], np.uint8)


def fit(out: Path, steps: int | None = 3, **changes: object) -> Trained:
    """A few steps on four small scenes."""
    fixed = {"net": NET, "net_options": SMALL, "precision": "float32", "steps": steps, "threads": 1}
    # A resumed run keeps its options.
    values = {"data": (some("train", 4), some("val", 2))} | ({} if changes.get("resume") else fixed) | changes
    return train(out=out, **values)  # type: ignore[arg-type]


def stop_after(steps: int, number: int = signal.SIGINT) -> Callable[[Tick], None]:
    """A listener that presses Ctrl-C when so many steps are done."""
    done = 0

    def listen(tick: Tick) -> None:
        nonlocal done
        done += tick.phase == "train"
        if done == steps and tick.phase == "train":
            signal.raise_signal(number)

    return listen


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def measured(out: Path) -> list[dict[str, str]]:
    """The rows without what the clock says."""
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_s")} for row in rows(out)]


class Killed(BaseException):
    """What no part of the loop expects, in place of SIGKILL; test_kills.py has real ones."""


def die_after(steps: int) -> Callable[[Tick], None]:
    """A listener that ends the run when so many steps are done, before their last one is in a state."""
    done = 0

    def listen(tick: Tick) -> None:
        nonlocal done
        done += tick.phase == "train"
        if done == steps:
            raise Killed

    return listen


def always_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state after every step, however long it takes."""
    monkeypatch.setattr("fullconv.training.loop.STATE_SECONDS", 0.0)
    monkeypatch.setattr(Trainer, "saving", property(lambda self: 0.0, lambda self, value: None), raising=False)


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every step's loss, as it is computed."""
    seen: list[float] = []

    step = Learner.step

    def note(*args: Any) -> StepLoss:
        loss = step(*args)
        seen.append(loss.total)
        return loss

    monkeypatch.setattr(Learner, "step", note)
    return seen


def targets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TaskLoss, Tensor]]:
    """Every loss that is computed from now on, and the masks it is of."""
    seen: list[tuple[TaskLoss, Tensor]] = []
    call = TaskLoss.__call__

    def note(loss: TaskLoss, scores: Tensor, target: Tensor, amounts: Tensor) -> Tensor:
        seen.append((loss, target))
        return call(loss, scores, target, amounts)

    monkeypatch.setattr(TaskLoss, "__call__", note)
    return seen


def blocks(seed: int) -> Sample:
    """Blocks of 8 pixels, each class in its own colour."""
    mask = np.random.default_rng(seed).integers(0, 3, (4, 4), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return Sample(f"blocks{seed}", {IMAGE: COLOURS[mask]}, {SEMANTIC: mask})


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that anything should learn."""
    data = InMemory([blocks(s) for s in range(8)]), InMemory([blocks(s) for s in range(90, 93)], "val")
    out = tmp_path_factory.mktemp("run") / "learned"
    options = {"lr": 0.03, "batch": 4, "precision": "float32", "threads": 1, "net_options": SMALL}
    return train(data, NET, out=out, steps=120, command="fullconv <train>", **options)  # type: ignore[arg-type]


def test_it_learns(learned: Trained) -> None:
    assert learned.scores is not None
    assert learned.scores.mean_iu > 0.9
    assert (learned.steps, learned.stopped) == (120, False)
    measured = [float(row["loss"]) for row in rows(learned.path) if row["loss"]]
    assert measured[0] > 0.3 > measured[-1]


def test_the_best_model_scores_what_the_run_says(learned: Trained) -> None:
    assert learned.model == learned.path / "best.safetensors"
    model = Model.load(learned.model)
    data = InMemory([blocks(s) for s in range(90, 93)], "val")
    again = evaluate(model, data, precision=model.training["precision"]).scores
    assert again == learned.scores
    assert model.metrics["val"] == again.to_json()
    assert model.labels == LABELS
    assert model.training["recipe"]["lr"] == 0.03
    every = [float(row["val_mean_iu"]) for row in rows(learned.path) if row["val_mean_iu"]]
    assert again.mean_iu == pytest.approx(max(every), abs=1e-5)
    assert len(every) == 10


class Page(HTMLParser):
    """Texts and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_file_of_the_run_folder_is_there_and_readable(learned: Trained) -> None:
    path = learned.path
    names = {p.name for p in path.iterdir()}
    assert names == {
        "run.yaml", "best.safetensors", "last.safetensors", "state", "metrics.csv", "class_iu.csv", "events",
        "curves.png", "class_iu.png", "confusion.png", "previews", "report.html",
    }  # fmt: skip
    options = yaml.safe_load((path / "run.yaml").read_text())
    assert (options["seed"], options["steps"], options["command"]) == (0, 120, "fullconv <train>")
    assert options["torch"] == str(torch.__version__)
    Model.load(path / "last.safetensors")
    for picture in (
        *(path / f"{name}.png" for name in ("curves", "class_iu", "confusion")),
        *sorted((path / "previews").iterdir()),
    ):
        with Image.open(picture) as image:
            image.load()
            assert min(image.size) >= 100
    assert [p.stem for p in sorted((path / "previews").iterdir())] == ["blocks90", "blocks91", "blocks92"]
    page = Page((path / "report.html").read_text(encoding="utf-8"))
    assert "fullconv <train>" in page.text
    assert "blocks91" in page.text
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses), "it asks nothing of the network"
    assert not list(path.rglob(".*")), "no temporary file"


def test_tensorboard_reads_the_events(learned: Trained) -> None:
    events = EventAccumulator(str(learned.path / "events")).Reload()
    assert {"loss", "lr", "images_per_s", "val_mean_iu"} <= set(events.Tags()["scalars"])
    logged = [(event.step, event.value) for event in events.Scalars("val_mean_iu")]
    written = [(int(row["step"]), float(row["val_mean_iu"])) for row in rows(learned.path) if row["val_mean_iu"]]
    assert logged == [(step, pytest.approx(value, rel=1e-4)) for step, value in written]


def test_metrics_follow_the_schedule(learned: Trained) -> None:
    table = rows(learned.path)
    steps = [int(row["step"]) for row in table]
    assert steps == sorted(steps)
    assert steps[-1] == 120
    seconds = [float(row["seconds"]) for row in table]
    assert seconds == sorted(seconds)
    assert all(float(row["epoch"]) == pytest.approx(int(row["step"]) * 4 / 8) for row in table)
    rates = [float(row["lr"]) for row in table if row["lr"]]
    top = rates.index(max(rates))
    assert rates == [*sorted(rates[:top]), *sorted(rates[top:], reverse=True)]
    assert rates[0] == 0
    assert 0.0299 < rates[top] <= 0.03
    assert [int(row["step"]) for row in table if row["lr"]] == list(range(1, 121)), "each one, up to 500"
    assert rates[-1] < 1e-4


def test_listeners_hear_every_phase(tmp_path: Path) -> None:
    ticks: list[Tick] = []
    fit(tmp_path / "r", steps=4, listener=ticks.append)
    assert list(dict.fromkeys(tick.phase for tick in ticks)) == ["check", "begin", "train", "evaluate", "report"]
    trained = [tick for tick in ticks if tick.phase == "train"]
    assert [tick.done for tick in trained] == [0.25, 0.5, 0.75, 1]
    assert all(tick.loss is not None and tick.loss > 0 for tick in trained)
    assert trained[-1].seconds_left == 0
    assert trained[0].mean_iu is None
    assert trained[-1].mean_iu is not None
    assert all(0 <= tick.done <= 1 for tick in ticks)
    assert ticks[-1] == Tick("report", 1.0)


def caffe(net: FCN, data: InMemory, order: list[int], lr: float) -> dict[str, Tensor]:
    """Reference 5.4 by hand: V <- momentum V + lr m (g + decay d w); w <- w - V; biases have m = 2, d = 0."""
    net.train()
    parameters = dict(net.named_parameters())
    velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for index in order:
        sample = data[index]
        image = torch.from_numpy(sample.inputs[IMAGE]).permute(2, 0, 1)[None]
        mask = torch.from_numpy(sample.masks[SEMANTIC]).long()
        scores = net(image)
        assert isinstance(scores, Tensor)
        log = torch.log_softmax(scores[0], 0)
        loss = -sum(
            log[mask[y, x], y, x] for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x] != VOID
        )
        gradients = torch.autograd.grad(loss, list(parameters.values()))  # type: ignore[arg-type]
        for (name, w), g in zip(parameters.items(), gradients, strict=True):
            is_weight, is_bias = w.ndim > 1, name.endswith("bias")
            decayed = g + 0.0005 * w.detach() if is_weight else g
            velocity[name] = 0.99 * velocity[name] + lr * (2 if is_bias else 1) * decayed
            with torch.no_grad():
                w.sub_(velocity[name])
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def test_heavy_steps_are_the_reference_solvers(tmp_path: Path) -> None:
    lr = 1e-4  # the recipe's 1e-10 is for a trained trunk; here the changes must be visible
    data = InMemory([one(0, (44, 76))]), InMemory([one(1)], "val")
    options = {**SMALL, "dropout": 0.0, "upsampling": "learned"}
    run = fit(tmp_path / "r", data=data, recipe="heavy", lr=lr, net_options=options, net="fcn8s-slim")
    torch.manual_seed(0)
    net = build("fcn8s-slim", 3, **options)  # type: ignore[arg-type]
    first = {name: value.clone() for name, value in net.state_dict().items()}
    expected = caffe(net, data[0], [0] * run.steps, lr)
    found = load_file(tmp_path / "r" / "last.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        change = (value - first[name]).abs().max().item()
        # Sums in another order, passed on through three steps with batch norm.
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-3 * change, msg=name)
    changed = [name for name in expected if not torch.equal(first[name], expected[name])]
    assert len(changed) > 0.9 * len(expected), "the rate is high enough to see"
    assert run.steps == 3


@pytest.mark.parametrize(("optimizer", "share"), [("muon", 1.0), ("adamw", 1.0), ("sgd", 1.0), ("muon", 0.5)])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    tmp_path: Path, losses: list[float], optimizer: str, share: float
) -> None:
    data = make_folder(tmp_path / "d", counts={"train": 5, "val": 2})
    options = {
        "data": data, "net_options": {**SMALL, "dropout": 0.5}, "seed": 3, "lr": 0.02, "optimizer": optimizer,
        "crop": (8, 8), "scale": (0.7, 1.5), "jitter": 0.3, "loss_share": share,
    }  # fmt: skip
    fit(tmp_path / "whole", 12, **options)
    whole = losses.copy()
    losses.clear()
    stopped = fit(tmp_path / "parts", 12, **options, listener=stop_after(5))
    assert (stopped.stopped, stopped.steps) == (True, 5)
    Model.load(stopped.model)  # usable
    assert (stopped.path / "report.html").exists()
    torch.manual_seed(99)  # whatever the next process does first
    again = fit(tmp_path / "parts", None, resume=True, data=data)
    assert (again.stopped, again.steps) == (False, 12)
    assert losses == whole
    assert len(whole) == 12
    expected, found = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert measured(tmp_path / "parts") == measured(tmp_path / "whole")
    curves = [(tmp_path / name / "class_iu.csv").read_bytes() for name in ("parts", "whole")]
    assert curves[0] == curves[1]


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    fit(tmp_path / "r")
    before = load_file(tmp_path / "r" / "last.safetensors")
    again = fit(tmp_path / "r", None, resume=True)
    assert again.steps == 3
    after = load_file(tmp_path / "r" / "last.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_state_is_there_only_with_the_model_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill right behind the last state must not leave an older model as the run's last."""
    always_save(monkeypatch)
    steps = []

    def save(folder: Path, net: nn.Module, optimizer: Optimizer, place: Place) -> Path:
        if place.step:
            saved = load_file(tmp_path / "r" / "last.safetensors")
            assert all(torch.equal(saved[name], tensor) for name, tensor in net.state_dict().items())
            steps.append(place.step)
        return save_state(folder, net, optimizer, place)

    monkeypatch.setattr("fullconv.training.loop.save_state", save)
    fit(tmp_path / "r", 4)
    assert steps == [1, 2, 3, 4]


def test_of_several_processes_all_read_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path / "r", 4, listener=stop_after(2))
    told = processes.text_of_main
    monkeypatch.setattr(processes, "text_of_main", lambda text: "1" if text == "2" else told(text))
    expected = "^read the state of step 2, the first process that of step 1; .*state must be one$"
    with pytest.raises(TrainingError, match=expected):
        fit(tmp_path / "r", None, resume=True)


def test_a_run_that_goes_on_scores_its_best_model_for_the_report(tmp_path: Path) -> None:
    first = fit(tmp_path / "r")
    again = fit(tmp_path / "r", None, resume=True)
    assert first.scores is not None
    assert again.scores == first.scores


def test_the_clock_of_the_schedule_starts_with_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three minutes of looking at the data do not shorten the warm-up, and val is not scored at once."""
    clock = Clock({"check": 10, "train": 0.5, "evaluate": 0.5})
    monkeypatch.setattr(time, "monotonic", clock)
    fit(tmp_path / "r", None, minutes=3, listener=clock.listen)
    table = rows(tmp_path / "r")
    first = next(row for row in table if row["val_mean_iu"])
    last = table[-1]
    assert 0.08 < float(first["step"]) / float(last["step"]) < 0.25
    assert next(float(row["lr"]) for row in table if row["lr"]) < 0.001, "it rises from 0"


@pytest.mark.parametrize("phase", ["begin", "train", "report"])
def test_trackers_are_closed_however_a_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    closed: list[Trackers] = []

    def close(trackers: Trackers) -> None:
        closed.append(trackers)

    monkeypatch.setattr(Trackers, "finish", close)

    def fail(tick: Tick) -> None:
        if tick.phase == phase:
            raise ValueError("by the listener")

    with pytest.raises(ValueError, match="by the listener"):
        fit(tmp_path / "r", listener=fail)
    assert len(closed) == 1


def test_it_trains_in_any_thread(tmp_path: Path) -> None:
    """Signals belong to the main thread: others train without listening to them."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fit, tmp_path / "r").result().steps == 3


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    count = 0

    def twice(tick: Tick) -> None:
        nonlocal count
        if tick.phase == "train":
            count += 1
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "r", listener=twice)
    assert count == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_stopped_before_its_first_evaluation_has_the_newest_weights_as_its_model(tmp_path: Path) -> None:
    stopped = fit(tmp_path / "r", 100, listener=stop_after(2), lr=0.01)
    assert stopped.scores is None
    for steps in (2, 4):
        best, last = (load_file(tmp_path / "r" / f"{name}.safetensors") for name in ("best", "last"))
        assert all(torch.equal(best[name], last[name]) for name in best)
        assert read_header(tmp_path / "r" / "best.safetensors")["training"]["steps_done"] == steps
        if steps == 2:
            fit(tmp_path / "r", None, resume=True, listener=stop_after(2))


class Clock:
    """Seconds that pass when the run does something, rather than with this machine's load."""

    def __init__(self, costs: dict[str, float]) -> None:
        self.now, self.costs = 1000.0, costs

    def __call__(self) -> float:
        return self.now

    def listen(self, tick: Tick) -> None:
        self.now += self.costs.get(tick.phase, 0.0)


@pytest.mark.parametrize(
    ("minutes", "costs"),
    [
        (10, {"check": 5, "train": 4, "evaluate": 3, "report": 1}),
        (3, {"check": 1, "train": 0.6, "evaluate": 2, "report": 0.5}),
        (60, {"check": 20, "train": 20, "evaluate": 60, "report": 5}),
    ],
)
def test_minutes_are_used_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, costs: dict[str, float]
) -> None:
    clock = Clock(costs)
    monkeypatch.setattr(time, "monotonic", clock)
    start = clock.now
    run = fit(tmp_path / "r", None, minutes=minutes, listener=clock.listen)
    spent = clock.now - start
    assert 0.95 * minutes * 60 < spent <= minutes * 60 + costs["train"]  # a step cannot be cut in two
    assert run.seconds == pytest.approx(spent, abs=10)
    scoring = [row for row in rows(tmp_path / "r") if row["val_mean_iu"]]
    assert 2 <= len(scoring) <= 11
    assert len(scoring) * 2 * costs["evaluate"] < 0.25 * spent


def test_minutes_go_on_counting_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock({"train": 5.0, "evaluate": 1.0})
    monkeypatch.setattr(time, "monotonic", clock)
    press = stop_after(20)

    def listen(tick: Tick) -> None:
        clock.listen(tick)
        press(tick)

    first = fit(tmp_path / "r", None, minutes=5, listener=listen)
    assert first.stopped
    clock.now += 5000  # the night between
    again = clock.now
    second = fit(tmp_path / "r", None, resume=True, listener=clock.listen)
    assert 240 < second.seconds <= 300 + 5  # a step cannot be cut in two
    assert second.seconds == pytest.approx(100 + clock.now - again, abs=10)
    assert second.steps > first.steps == 20


def test_a_time_too_short_for_a_step_still_ends_with_a_model(tmp_path: Path) -> None:
    run = fit(tmp_path / "r", None, minutes=1e-6)
    assert run.steps == 0
    assert run.scores is not None
    assert (run.path / "report.html").exists()


def test_epochs_are_passes_over_the_images(tmp_path: Path) -> None:
    assert fit(tmp_path / "r", None, epochs=3, batch=2).steps == 6


def test_a_run_folder_is_not_overwritten(tmp_path: Path) -> None:
    fit(tmp_path / "r")
    content = (tmp_path / "r" / "metrics.csv").read_bytes()
    with pytest.raises(OptionError, match="r holds a run already; add --resume to go on with it, or choose"):
        fit(tmp_path / "r")
    assert (tmp_path / "r" / "metrics.csv").read_bytes() == content


def test_a_run_does_not_go_into_its_data(tmp_path: Path) -> None:
    make_folder(tmp_path / "d", counts={"train": 3, "val": 1})
    before = sorted(tmp_path.rglob("*"))
    for stages in (None, (32, 16)):
        options = {"stages": stages, "net": "fcn16s-slim"} if stages else {}
        with pytest.raises(OptionError, match="d is the data's own folder; choose another --out"):
            fit(tmp_path / "d", data=str(tmp_path / "d"), **options)
        assert sorted(tmp_path.rglob("*")) == before


def test_generated_maps_are_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = Call(Asked(), "wafer", Path("wafer"), lambda tick: None, "", 0.0)
    folder = held(call, None, RunFolder("wafer"))
    assert folder.path == Path("wafer")
    folder.release()


def test_what_resume_needs(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--resume needs the run's folder; add --out RUN"):
        train("wafer", resume=True)
    with pytest.raises(OptionError, match="holds no run to resume"):
        fit(tmp_path / "none", resume=True)
    fit(tmp_path / "r")
    ticks: list[Tick] = []
    other = InMemory([one(0)], labels={SEMANTIC: LabelSet.numbered(4)})
    with pytest.raises(OptionError, match=r"the net has \{'semantic': 3\} .*the data \{'semantic': 4\}"):
        fit(tmp_path / "r", None, resume=True, data=(other, other), listener=ticks.append, command="again")
    assert {tick.phase for tick in ticks} == {"check"}, "before anything is trained or scored"
    assert "again" not in (tmp_path / "r" / "run.yaml").read_text()
    with pytest.raises(OptionError, match="a resumed run keeps its options; leave out minutes, lr, or start a new run"):
        fit(tmp_path / "r", resume=True, minutes=3, lr=0.1)
    with pytest.raises(OptionError, match="the data is not what .*r was started on"):
        fit(tmp_path / "r", resume=True, data=(some("train", 3), some("val", 2)))
    states = sorted((tmp_path / "r" / "state").iterdir())
    assert len(states) == 2, "that of the start too"
    for state in states:
        state.write_bytes(b"x")
    with pytest.raises(ModelFileError, match=rf"holds no whole state: {states[1].name} is damaged .*; start the run"):
        fit(tmp_path / "r", None, resume=True)
    for state in states:
        state.unlink()
    with pytest.raises(ModelFileError, match="the run stopped before its first state; delete .*r and start it anew"):
        fit(tmp_path / "r", None, resume=True)


def test_runs_are_numbered_where_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = make_folder(tmp_path / "roads", counts={"train": 2, "val": 1})
    paths = [train(data, NET, steps=1, net_options=SMALL, precision="float32").path for _ in range(2)]
    assert paths == [Path("runs/roads-fcn1s-slim"), Path("runs/roads-fcn1s-slim-2")]


def test_first_weights_from_a_model_file(tmp_path: Path) -> None:
    torch.manual_seed(8)
    source = build(NET, 3, width=0.1)
    torch.nn.init.normal_(source.get_parameter("heads.semantic.score.image.1.weight"))
    write_model(tmp_path / "m.safetensors", ModelFile(source, {SEMANTIC: LABELS}))
    fit(tmp_path / "r", 1, init=tmp_path / "m.safetensors", lr=0.0)
    found = load_file(tmp_path / "r" / "last.safetensors")
    assert all(torch.equal(found[name], value) for name, value in source.named_parameters())
    assert "m.safetensors" in (tmp_path / "r" / "report.html").read_text()
    # The file may be gone when the run goes on.
    (tmp_path / "m.safetensors").unlink()
    assert fit(tmp_path / "r", None, resume=True).steps == 1


def test_a_loss_that_is_not_finite_names_step_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Decayed by 100 x 100, the weights grow ten thousandfold a step.
    options = {
        "recipe": "heavy",
        "lr": 100.0,
        "weight_decay": 100.0,
        "data": (some("train", 4, (12, 20)), some("val", 1)),
    }
    monkeypatch.setattr("fullconv.training.loop.STATE_SECONDS", 0.0)
    with pytest.raises(TrainingError) as caught:
        fit(tmp_path / "r", 50, **options)
    found = re.fullmatch(
        r"(?:the (?:loss|gradient) is (?:nan|inf) at step (\d+) \(images s\d\)"
        r"|weights or averages are infinite or no numbers after step (\d+)); "
        r"lower the learning rate \(100\) with --lr and start a new run; the weights of that step are in (.*)",
        str(caught.value),
    )
    assert found is not None, caught.value
    step, path = int(found[1] or found[2]), Path(found[3])
    assert path.parent == tmp_path / "r" / "failed"
    assert list(path.parent.iterdir()) == [path]
    assert path.name.startswith(f"state-{step:09}-")
    assert "net.heads.semantic.score.image.1.weight" in load_file(path)
    for good in (tmp_path / "r" / "state").iterdir():
        assert int(good.name.split("-")[1]) < step
        assert all(value.isfinite().all() for value in load_file(good).values())
    assert all(value.isfinite().all() for value in load_file(tmp_path / "r" / "last.safetensors").values()), (
        "no good state is replaced by a broken one"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_end_does_so_after_its_step(tmp_path: Path, number: int) -> None:
    """SIGTERM is what schedulers send."""
    stopped = fit(tmp_path / "r", 9, listener=stop_after(3, number))
    assert (stopped.stopped, stopped.steps) == (True, 3)
    assert (stopped.path / "report.html").exists()
    assert [path.name[6:15] for path in sorted((stopped.path / "state").iterdir())] == ["000000000", "000000003"]
    again = fit(tmp_path / "r", None, resume=True)
    assert (again.stopped, again.steps) == (False, 9)


def test_a_run_stopped_in_its_last_step_is_complete(tmp_path: Path) -> None:
    """It could not be gone on with: nothing would be left to do, but its end was never scored."""
    fit(tmp_path / "whole", 3)
    stopped = fit(tmp_path / "r", 3, listener=stop_after(3))
    assert stopped.scores is not None
    again = fit(tmp_path / "r", None, resume=True)
    assert again.steps == 3
    assert measured(tmp_path / "r") == measured(tmp_path / "whole")


@pytest.mark.parametrize("phase", ["evaluate", "report"])
def test_a_ctrl_c_when_the_last_step_is_done_leaves_nothing_to_go_on_with(tmp_path: Path, phase: str) -> None:
    pressed: list[str] = []

    def press(tick: Tick) -> None:
        if tick.phase == phase and not pressed:
            pressed.append(tick.phase)
            signal.raise_signal(signal.SIGINT)

    done = fit(tmp_path / "r", 1, listener=press)
    assert (done.stopped, done.finished, done.steps, pressed) == (True, True, 1, [phase])
    assert (tmp_path / "r" / "report.html").exists()


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    """Two that begin at once both find it empty; the second must not write into the first's."""
    told: list[str] = []

    def another(tick: Tick) -> None:
        if tick.phase == "train" and not told:
            with pytest.raises(OptionError) as caught:
                fit(tmp_path / "r", None, resume=True)
            told.append(str(caught.value))

    done = fit(tmp_path / "r", 3, listener=another)
    assert told == [f"another process trains in {tmp_path / 'r'}; choose another --out"]
    assert done.steps == 3
    late = RunFolder(tmp_path / "s")
    fit(tmp_path / "s", 1)
    with pytest.raises(OptionError, match="s holds a run already; add --resume to go on with it, or choose another"):
        late.hold()


def test_a_name_that_nobody_chose_is_given_to_one_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that begin at once find the same name free."""
    monkeypatch.chdir(tmp_path)
    first = RunFolder("runs/arrays-fcn1s-slim")
    free = RunFolder.free

    def late(parent: str, name: str) -> Path:
        path = free(parent, name)
        if first._held is None:  # another process is a moment earlier
            first.hold()
        return path

    monkeypatch.setattr(RunFolder, "free", late)
    done = train((some("train", 4), some("val", 2)), NET, steps=1, net_options=SMALL, threads=1)
    assert done.path == Path("runs/arrays-fcn1s-slim-2")
    assert not (first.path / "run.yaml").exists()
    first.release()


def test_a_run_tells_what_it_is(tmp_path: Path) -> None:
    texts: list[str] = []

    def listen(tick: Tick) -> None:
        if tick.text:
            texts.append(tick.text)
        if tick.step == 2 and len(texts) == 1:
            signal.raise_signal(signal.SIGINT)

    fit(tmp_path / "r", 5, listener=listen, batch=4, accumulate=2)
    fit(tmp_path / "r", None, resume=True, listener=listen)
    fit(tmp_path / "r", None, resume=True, listener=listen)
    fit(tmp_path / "s", None, minutes=0.02, listener=listen, recipe="finetune", threads=1024)
    what = "arrays: 4 train and 2 val images; 1s on slim1, same padding; recipe "
    how = f"scratch, 5 steps of 4 images a step in 2 parts; float32, 1 threads; {tmp_path / 'r'}"
    assert [text.splitlines()[0] for text in texts[:3]] == [what + how] * 3
    assert [text.splitlines()[1:2] for text in texts[:3]] == [
        [], ["going on from step 2, 40 % of the run"], ["this run is finished: nothing is left to do but its report"]
    ]  # fmt: skip
    first, *notes = texts[3].splitlines()
    assert first.startswith(f"{what}finetune, 0.02 minutes of ")
    assert notes == [
        "note: the recipe finetune is for first weights, and there are none: give them with --init",
        f"note: 1024 threads on {cores()} processors wait for each other; fewer are faster",
    ]


def test_a_run_that_begins_again_and_one_whose_data_are_elsewhere_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "d", counts={"train": 3, "val": 1})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Killed):
        fit(tmp_path / "r", data="d", listener=die_after(2))
    monkeypatch.chdir(tmp_path / "r")
    with pytest.raises(
        OptionError, match="^d, the data of .*r, is not here; go on in the folder where .* with --data$"
    ):
        fit(tmp_path / "r", None, resume=True, data=None)
    texts: list[str] = []
    fit(tmp_path / "r", None, resume=True, data=tmp_path / "d", listener=lambda tick: texts.append(tick.text))
    (text,) = filter(None, texts)
    assert text.splitlines()[1].startswith("beginning again: the run was ended before its first state")


@pytest.mark.parametrize("after", ["run.yaml", "best.safetensors", "report.html"])
def test_a_full_disk_ends_a_run_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Whatever cannot be written, and however it is: safetensors has an error of its own."""
    states = {"run.yaml": "no state was saved before: free some space and start the run anew"}
    there = "the state of step 0 is intact: free some space and go on with --resume"

    def fail(_: object, path: Path, *__: object) -> None:
        if after.partition(".")[0] in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        true_save(_, path, *__)

    def full(true_write: Callable[..., int]) -> Callable[..., int]:
        def write(path: Path, *args: Any, **options: Any) -> int:
            if after.partition(".")[0] in path.name:
                raise OSError(28, "No space left on device", str(path))
            return true_write(path, *args, **options)

        return write

    true_save = modelfile.save_file
    monkeypatch.setattr(modelfile, "save_file", fail)
    monkeypatch.setattr(Path, "write_text", full(Path.write_text))
    monkeypatch.setattr(Path, "write_bytes", full(Path.write_bytes))
    with pytest.raises(TrainingError) as caught:
        fit(tmp_path / "r", 2)
    expected = f"{tmp_path / 'r'}: cannot be written (No space left on device); {states.get(after, there)}"
    if after == "report.html":
        expected = expected.replace("state of step 0 is", "states of steps 0 and 2 are")
    assert str(caught.value) == expected
    monkeypatch.undo()
    assert fit(tmp_path / "r", *([2] if after == "run.yaml" else [None]), resume=after != "run.yaml").steps == 2


def test_a_resumed_run_keeps_its_command_and_tells_what_has_changed(tmp_path: Path) -> None:
    fit(tmp_path / "r", 4, listener=stop_after(2), command="fullconv train the first")
    path = tmp_path / "r" / "run.yaml"
    path.write_text(re.sub("(?m)^torch: .*$", "torch: 1.0", path.read_text("utf-8")), "utf-8")
    before = path.read_bytes()
    fit(tmp_path / "r", None, resume=True, command="fullconv train --resume")
    assert path.read_bytes() == before
    page = html.unescape((tmp_path / "r" / "report.html").read_text("utf-8"))
    assert "fullconv train the first" in page
    assert "train --resume" not in page
    assert f"begun with torch 1.0, gone on with {torch.__version__}" in page
    assert "begun with python" not in page


def test_the_precision_is_ours_and_not_the_launchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch` sets it from its own configuration, for every Accelerator that says nothing."""
    fit(tmp_path / "plain", 2)
    for precision in ("bf16", "fp16"):
        AcceleratorState._reset_state(True)  # type: ignore[no-untyped-call]
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
        fit(tmp_path / precision, 2)
        assert AcceleratorState().mixed_precision == "no"
        expected, found = (load_file(tmp_path / run / "last.safetensors") for run in ("plain", precision))
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    AcceleratorState._reset_state(True)  # type: ignore[no-untyped-call]
    Accelerator(cpu=True, mixed_precision="bf16")
    with pytest.raises(OptionError, match=r"^accelerate was set up otherwise in this process \(.*\); train in"):
        fit(tmp_path / "other", 2)
    AcceleratorState._reset_state(True)  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of what it does itself
def test_a_compiled_net_learns_the_same_and_says_what_it_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by torch.compile, whose code generator needs a compiler that a machine may not have."""
    compiled: list[Callable[..., object]] = []
    true_compile = torch.compile

    def traced(function: Callable[..., object]) -> object:
        compiled.append(function)
        return true_compile(function, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", traced)
    for name, more in (("plain", {}), ("compiled", {"compile": True})):
        fit(tmp_path / name, 3, loss_stride=2, lr=0.02, net_options={**SMALL, "dropout": 0.5}, **more)
    expected, found = ([row["loss"] for row in rows(tmp_path / name)] for name in ("plain", "compiled"))
    # Sums in another order, float32.
    assert [float(v) for v in found if v] == pytest.approx([float(v) for v in expected if v], rel=1e-4)
    costs = [Page((tmp_path / name / "report.html").read_text("utf-8")).text for name in ("plain", "compiled")]
    assert ["compiling" in text for text in costs] == [False, True]
    assert [function.__name__ for function in compiled] == ["coarse"]


@pytest.mark.parametrize("found", [(10, 1), (12, 3)])
def test_a_batch_by_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: tuple[int, int]) -> None:
    asked: list[tuple[object, ...]] = []

    def trial(*args: object) -> tuple[int, int]:
        asked.append(args[1:])
        return found

    monkeypatch.setattr("fullconv.training.once.fitting_batch", trial)
    data = some("train", 40, (12, 20)), some("val", 2)
    fit(tmp_path / "r", 1, data=data, batch="auto", loss_stride=2)
    recipe = RunOptions.from_yaml(yaml.safe_load((tmp_path / "r" / "run.yaml").read_text())).recipe
    assert (recipe.batch, recipe.accumulate) == found
    assert recipe.lr == pytest.approx(2e-3 * math.sqrt(found[0] / 8))
    assert asked == [((12, 20), "float32", torch.device("cpu"), 10, 10, 2)], "at most a quarter of the images"
    with pytest.raises(OptionError, match="^batch auto chooses the parts too; leave out accumulate$"):
        fit(tmp_path / "s", 1, batch="auto", accumulate=2)


def test_the_generators_of_other_devices_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless told which are used, torch would keep those of all, each with memory of its own, and warn of it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("torch.random._fork_rng_warned_already", False)
    before = torch.get_rng_state()
    fit(tmp_path / "r", 1, data=(some("train", 8, (12, 20)), some("val", 2)), batch="auto")
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_and_scores_come_at_fixed_shares_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: list[float]
) -> None:
    monkeypatch.setattr("fullconv.training.loop.ROWS", 4)
    monkeypatch.setattr("fullconv.training.loop.DISPLAY", 15)
    monkeypatch.setattr("fullconv.training.loop.EVALUATIONS", 2)
    fit(tmp_path / "r", 24, lr=0.02)
    table = rows(tmp_path / "r")
    assert [int(row["step"]) for row in table if row["loss"]] == [6, 12, 15, 18, 24]
    assert [int(row["step"]) for row in table if row["val_mean_iu"]] == [12, 24]
    assert [row["step"] for row in table] == ["6", "12", "12", "15", "18", "24", "24"]
    means = [sum(losses[a:b]) / (b - a) for a, b in pairwise([0, 6, 12, 15, 18, 24])]
    assert [float(row["loss"]) for row in table if row["loss"]] == pytest.approx(means, rel=1e-5)
    assert all(float(row["images_per_s"]) > 0 for row in table if row["loss"])


@pytest.mark.parametrize("steps", [5, 7])
def test_a_run_that_died_goes_on_with_all_that_a_row_had_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr("fullconv.training.loop.ROWS", 3)  # a row in four steps
    monkeypatch.setattr("fullconv.training.loop.EVALUATIONS", 3)
    always_save(monkeypatch)
    fit(tmp_path / "whole", 12, lr=0.02)
    with pytest.raises(Killed):
        fit(tmp_path / "parts", 12, lr=0.02, listener=die_after(steps))
    states = sorted(path.name.split("-")[1] for path in (tmp_path / "parts" / "state").iterdir())
    assert states == [f"{steps - 2:09}", f"{steps - 1:09}"], "the newest two"
    again = fit(tmp_path / "parts", None, resume=True)
    assert again.steps == 12
    assert again.warnings == ()
    assert measured(tmp_path / "parts") == measured(tmp_path / "whole")
    for name in ("last", "best"):
        expected, found = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "parts"))
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_damaged_state_is_passed_over_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    always_save(monkeypatch)
    fit(tmp_path / "whole", 8, lr=0.02)
    with pytest.raises(Killed):
        fit(tmp_path / "parts", 8, lr=0.02, listener=die_after(6))
    newest = max((tmp_path / "parts" / "state").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    monkeypatch.setattr("fullconv.training.loop.STATE_SECONDS", 60.0)
    again = fit(tmp_path / "parts", None, resume=True)
    (warning,) = again.warnings
    assert warning == f"{newest.name} is damaged (its digest differs: cut short, or changed); went on from step 4"
    assert warning in html.unescape((again.path / "report.html").read_text(encoding="utf-8"))
    assert measured(tmp_path / "parts") == measured(tmp_path / "whole")
    expected, found = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    kept_steps = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "parts" / "state").iterdir())
    assert kept_steps == [4, 8], "and not the damaged one as the last but one"


def test_the_ius_of_the_classes_are_those_of_the_scores(learned: Trained) -> None:
    with (learned.path / "class_iu.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    scored = [row for row in rows(learned.path) if row["val_mean_iu"]]
    assert [row["step"] for row in classes] == [row["step"] for row in scored]
    assert all(list(row) == ["step", *LABELS.names] for row in classes)
    for row, whole in zip(classes, scored, strict=True):
        mean = np.mean([float(row[name]) for name in LABELS.names])
        assert mean == pytest.approx(float(whole["val_mean_iu"]), abs=2e-6)  # six digits are written
    best = max(range(10), key=lambda i: float(scored[i]["val_mean_iu"]))
    assert learned.scores is not None
    assert [float(classes[best][name]) for name in LABELS.names] == pytest.approx(learned.scores.iu, rel=1e-5)


def test_a_sum_is_shown_by_pixel_too(tmp_path: Path, losses: list[float]) -> None:
    samples = [one(0), one(1, (20, 24))]
    samples[1].masks[SEMANTIC][5:9] = VOID
    valid = sum(int((sample.masks[SEMANTIC] != VOID).sum()) for sample in samples)
    data = InMemory(samples), some("val", 1)
    fit(tmp_path / "r", 2, data=data, reduction="sum", class_weights="none", batch=2, lr=0.01)
    table = [row for row in rows(tmp_path / "r") if row["loss"]]
    assert [float(row["loss"]) for row in table] == pytest.approx(losses, rel=1e-5)
    # Caffe divides by the two images; pixels of the smaller one's margin are void.
    assert [float(row["loss_per_pixel"]) for row in table] == pytest.approx([2 * x / valid for x in losses], rel=1e-5)
    assert float(table[0]["loss_per_pixel"]) == pytest.approx(np.log(3), rel=1e-5)
    fit(tmp_path / "mean", 1)
    assert {row["loss_per_pixel"] for row in rows(tmp_path / "mean")} == {""}, "a mean is one already"


def test_terms_and_tasks_have_columns(tmp_path: Path) -> None:
    def sample(seed: int) -> Sample:
        scene = one(seed)
        mask = scene.masks[SEMANTIC]
        side = np.where(mask == VOID, VOID, mask > 0).astype(np.uint8)
        return Sample(scene.name, scene.inputs, {"kind": mask, "side": side})

    labels = {"kind": LABELS, "side": LabelSet(("no", "yes"))}
    data = tuple(InMemory([sample(s) for s in range(3)], split, labels) for split in ("train", "val"))
    options = {"loss": "cross-entropy+0.5*dice", "task_weights": {"side": 0.25}, "lr": 0.01}
    fit(tmp_path / "r", 2, data=data, **options)
    columns = ["loss_kind_cross-entropy", "loss_kind_dice", "loss_side_cross-entropy", "loss_side_dice"]
    for row in rows(tmp_path / "r"):
        names = list(row)
        assert names[3 : names.index("lr")] == ["loss", "loss_per_pixel", *columns]
        if row["loss"]:
            each = [float(row[column]) for column in columns]
            assert float(row["loss"]) == pytest.approx(each[0] + 0.5 * each[1] + 0.25 * (each[2] + 0.5 * each[3]), 1e-4)
    with (tmp_path / "r" / "class_iu.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header == ["step", "kind: 0", "kind: 1", "kind: 2", "side: no", "side: yes"]


def test_the_scores_of_every_task_are_told(tmp_path: Path) -> None:
    def sample(seed: int) -> Sample:
        scene = one(seed)
        return Sample(scene.name, scene.inputs, {"kind": scene.masks[SEMANTIC], "side": scene.masks[SEMANTIC] // 255})

    labels = {"kind": LABELS, "side": LabelSet(("no", "yes"))}
    data = tuple(InMemory([sample(s) for s in range(3)], split, labels) for split in ("train", "val"))
    run = fit(tmp_path / "r", 2, data=data)
    scores = evaluate(run.model, data[1], precision="auto").by_task()
    found = {key: [row for row in rows(run.path) if row[key]] for key in ("val_mean_iu", "val_side_mean_iu")}
    best = max(found["val_mean_iu"], key=lambda row: float(row["val_mean_iu"]))
    assert list(best)[-4:] == [f"val_side_{key}" for key in ("pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu")]
    assert float(best["val_side_mean_iu"]) == pytest.approx(scores["side"].mean_iu, 1e-5)
    assert float(best["val_mean_iu"]) == pytest.approx(scores["kind"].mean_iu, 1e-5)
    metrics = read_header(run.model)["metrics"]
    assert {name: each["mean_iu"] for name, each in metrics.items()} == {
        "val": scores["kind"].mean_iu, "val_side": scores["side"].mean_iu
    }  # fmt: skip
    side = f"mean IU {100 * scores['side'].mean_iu:.1f} %, pixel accuracy {100 * scores['side'].pixel_accuracy:.1f} %"
    assert f"<dt>side</dt><dd>{side}</dd>" in (run.path / "report.html").read_text(encoding="utf-8")


def test_the_report_tells_where_the_time_went(learned: Trained) -> None:
    text = Page((learned.path / "report.html").read_text(encoding="utf-8")).text
    shares = []
    for name in ("waiting for data", "scoring val", "saving"):
        found = re.search(rf"{name}\s*([\d.]+) %", text)
        assert found is not None, name
        shares.append(float(found[1]))
    assert 0 < sum(shares) < 100


def test_a_model_that_scored_nothing_is_a_scored_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean IU of 0 is better than none: when the run goes on, an equal one does not replace it."""
    always_save(monkeypatch)
    options = {"data": (InMemory([one(0)]), InMemory([all_of(2)], "val")), "lr": 0.0}
    fit(tmp_path / "whole", 8, **options)
    assert {row["val_mean_iu"] for row in rows(tmp_path / "whole")} == {"", "0"}
    with pytest.raises(Killed):
        fit(tmp_path / "parts", 8, listener=die_after(5), **options)
    fit(tmp_path / "parts", None, resume=True, data=options["data"])
    steps = [read_header(tmp_path / run / "best.safetensors")["training"]["steps_done"] for run in ("whole", "parts")]
    assert steps[0] == steps[1]


def all_of(label: int) -> Sample:
    """An image of one class that a net without training does not see."""
    scene = one(0)
    return Sample("alone", scene.inputs, {SEMANTIC: np.full_like(scene.masks[SEMANTIC], label)})


def test_bad_data_is_found_before_anything_is_written(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "d", counts={"train": 13, "val": 2})
    (data / "classes.txt").write_text("ground\na\nb")
    for number in range(12):
        mask = np.full((12, 16), 9, np.uint8)
        Image.fromarray(mask).save(data / "train" / "masks" / f"{number:04}.png")
    with pytest.raises(DataError) as caught:
        fit(tmp_path / "out" / "r", data=data)
    lines = str(caught.value).splitlines()
    assert "12 problems in 13 samples" in lines[0]
    assert [f"{number:04}.png: holds value 9" in line for number, line in enumerate(lines[1:11])] == [True] * 10
    assert lines[11].strip() == "and 2 more"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"net": "fcn8s"},
        {"precision": "half"},
        {"lrr": 1},
        {"init": "none.safetensors"},
        {"minutes": float("nan")},
        {"threads": 0},
        {"workers": 0},
        {"loss_stride": 13},
        {"loss_stride": 9, "crop": (8, 30)},
    ],
)
def test_options_that_cannot_work_leave_nothing_behind(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises((OptionError, ModelFileError)):
        fit(tmp_path / "r", None, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("void", ["one batch", "train", "val"])
def test_void_alone_is_no_accident(tmp_path: Path, void: str) -> None:
    def blank(sample: Sample) -> Sample:
        return Sample(sample.name, sample.inputs, {SEMANTIC: np.full_like(sample.masks[SEMANTIC], VOID)})

    train_samples, val_samples = [one(0, (12, 20)), one(1, (12, 20))], [one(2)]
    if void == "one batch":
        train_samples[0] = blank(train_samples[0])
    elif void == "train":
        train_samples = [blank(sample) for sample in train_samples]
    else:
        val_samples = [blank(sample) for sample in val_samples]
    run = fit(tmp_path / "r", 4, data=(InMemory(train_samples), InMemory(val_samples, "val")), batch=1)
    assert all(value.isfinite().all() for value in load_file(tmp_path / "r" / "last.safetensors").values())
    assert Model.load(run.model).predict(one(0).inputs[IMAGE]).labels.shape == (12, 16)
    assert (run.path / "report.html").exists()


def test_images_of_several_sizes_share_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = targets(monkeypatch)
    sizes = [(12, 16), (20, 9), (5, 30)]
    data = InMemory([one(i, size) for i, size in enumerate(sizes)]), InMemory([one(7, (13, 8)), one(8, (9, 9))], "val")
    run = fit(tmp_path / "r", 1, data=data, batch=3)
    assert run.scores is not None
    assert run.scores.pixels == tuple(
        sum(int((s.masks[SEMANTIC] == k).sum()) for s in data[1].samples) for k in range(3)
    )
    ((_, target),) = seen
    assert target.shape == (3, 20, 30)
    valid = sum(int((s.masks[SEMANTIC] != VOID).sum()) for s in data[0].samples)
    assert int((target != VOID).sum()) == valid, "the margins are void"


def test_several_inputs_and_tasks(tmp_path: Path) -> None:
    def sample(seed: int) -> Sample:
        scene = one(seed)
        mask = scene.masks[SEMANTIC]
        side = np.where(mask == VOID, VOID, mask > 0).astype(np.uint8)
        depth = np.where(mask == VOID, 0, 50 * mask)[:, :, None].astype(np.uint8)
        return Sample(scene.name, {"colour": scene.inputs[IMAGE], "depth": depth}, {"kind": mask, "side": side})

    labels = {"kind": LABELS, "side": LabelSet(("no", "yes"))}
    inputs = {"colour": InputKind(), "depth": InputKind(1)}
    data = tuple(
        InMemory([sample(s) for s in seeds], split, labels, inputs)
        for seeds, split in ((range(3), "train"), ((7, 8), "val"))
    )
    run = fit(tmp_path / "r", 120, data=data, net_options={**SMALL, "fusion": "late"}, lr=0.03, precision="bfloat16")
    model = Model.load(run.model)
    assert model.label_sets == labels
    evaluation = evaluate(model, data[1])
    assert list(evaluation.matrices) == ["kind", "side"]
    assert evaluation.matrices["side"].scores().pixel_accuracy > 0.9
    for task, prediction in model.predict_tasks(data[1][0].inputs).items():
        assert prediction.scores().dtype == np.float32, task
    weights = load_file(tmp_path / "r" / "last.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_the_data_are_those_of_the_pure_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order and augmentation depend on (seed, epoch, index) alone, not on what was drawn before."""
    seen: list[tuple[str, int]] = []

    def note(sample: Sample, options: Augmentation, rng: np.random.Generator, kinds: object) -> Sample:
        seen.append((sample.name, int(rng.bit_generator.state["state"]["state"] % 10**6)))
        return augment(sample, options, rng)

    monkeypatch.setattr("fullconv.training.loading.augment", note)
    for name, stop in (("a", 6), ("b", 3)):
        fit(tmp_path / name, 6, listener=stop_after(stop), batch=2)
    fit(tmp_path / "b", None, resume=True)
    # A few samples are loaded ahead of the step at which a run ends.
    assert len(set(seen)) <= 12 + 8
    names = [name for name, _ in seen[:12]]
    assert sorted(names) == sorted(["s0", "s1", "s2", "s3"] * 3)
    assert len(set(seen[:12])) == 12, "no two draws share their randomness"


def test_the_loss_is_that_of_the_cells_kept_for_each_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = targets(monkeypatch)

    def sample(seed: int) -> Sample:
        mask = np.full((12, 16), seed % 3, np.uint8)
        return Sample(f"s{seed}", {IMAGE: one(seed).inputs[IMAGE]}, {"kind": mask, "side": mask // 2})

    labels = {"kind": LABELS, "side": LabelSet(("no", "yes"))}
    data = tuple(InMemory([sample(s) for s in range(4)], split, labels) for split in ("train", "val"))
    fit(tmp_path / "r", 3, data=data, loss_share=0.4, batch=3, seed=8, reduction="sum")
    assert len(seen) == 6
    for step, draws in zip(range(3), Batches(4, 3, seed=8), strict=False):
        mask = kept(draws, (12, 16), 0.4, seed=8)  # fcn1s: every pixel is a cell
        for loss, target in seen[2 * step : 2 * step + 2]:
            assert np.array_equal(target != VOID, mask)
            assert (loss.options.reduction, loss.share) == ("sum", 0.4)


def test_a_share_of_one_changes_no_bit(tmp_path: Path, losses: list[float]) -> None:
    found = {}
    for name, share in (("none", {}), ("one", {"loss_share": 1.0}), ("half", {"loss_share": 0.5})):
        fit(tmp_path / name, 4, batch=2, lr=0.02, **share)
        weights = load_file(tmp_path / name / "last.safetensors")
        found[name] = losses.copy(), {key: value.numpy().tobytes() for key, value in weights.items()}
        losses.clear()
    assert found["one"] == found["none"]
    assert found["half"] != found["none"]


def test_options_of_old_and_new_runs_are_recorded(tmp_path: Path) -> None:
    fit(tmp_path / "r", 2, seed=7, loss_share=0.5)
    value = yaml.safe_load((tmp_path / "r" / "run.yaml").read_text())
    options = RunOptions.from_yaml(value)
    assert (options.seed, options.steps, options.data) == (7, 2, "arrays")
    assert (options.recipe.loss_share, options.recipe.batch) == (0.5, 4)  # four images: batches of two, twice as large
    del value["recipe"]["loss_share"]  # as before there was sampling
    assert RunOptions.from_yaml(value).recipe.loss_share == 1
    assert options.recipe.optimizer == RECIPES["scratch"].optimizer
    header = read_header(tmp_path / "r" / "last.safetensors")
    assert header["training"]["seed"] == 7
    assert header["training"]["steps_done"] == 2


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """No test may leave the handlers of signals changed."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_better_model_written_after_the_last_state_is_kept(tmp_path: Path) -> None:
    """As after a crash between the two files: the model file says itself how good it is."""
    fit(tmp_path / "r", 4, listener=stop_after(2))
    best = read_model(tmp_path / "r" / "best.safetensors")
    write_model(tmp_path / "r" / "best.safetensors", replace(best, metrics={"val": {"mean_iu": 2.0}}))
    content = (tmp_path / "r" / "best.safetensors").read_bytes()
    fit(tmp_path / "r", resume=True)
    assert (tmp_path / "r" / "best.safetensors").read_bytes() == content


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(tmp_path / "r", 1)
    assert torch.equal(torch.rand(3), expected)
