"""Training from other nets' weights: the paper's stages, runs that are repeated, and score layers alone."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from caffe_nets import caffe_net
from caffe_writer import write_caffemodel
from fullconv.data.sample import IMAGE, SEMANTIC, Sample
from fullconv.errors import DataError, OptionError
from fullconv.inference.model import Model
from fullconv.nets import build
from fullconv.training import stages as module
from fullconv.training.context import Trained
from fullconv.training.once import Call
from fullconv.training.options import RunOptions
from fullconv.training.progress import Tick
from fullconv.training.recipes import RECIPES, Fit, fitted
from fullconv.training.run import RunFolder
from fullconv.training.stages import Plan, read_config
from fullconv.training.train import train
from fullconv.weights.modelfile import read_header
from inmemory import InMemory, some
from makers import make_folder

COLOURS = np.array([(230, 30, 30), (30, 230, 30), (30, 30, 230)], np.uint8)


def blocks(seed: int) -> Sample:
    """Blocks of 32 pixels, each class in its own colour."""
    mask = np.random.default_rng(seed).integers(0, 3, (3, 4), dtype=np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    return Sample(f"blocks{seed}", {IMAGE: COLOURS[mask]}, {SEMANTIC: mask})


DATA = (InMemory([blocks(s) for s in range(8)]), InMemory([blocks(s) for s in range(90, 92)], "val"))
TINY = (some("train", 4), some("val", 1))
NET = "fcn8s-slim"
SMALL: dict[str, Any] = {"net_options": {"width": 0.05}, "batch": 2, "precision": "float32", "threads": 1}
STAGES = (32, 16, 8)
FOLDERS = ("32s", "16s", ".")


def fit(out: Path, net: str, steps: int, **changes: Any) -> tuple[Trained, list[float]]:
    """A run, and the losses that it told."""
    losses: list[float] = []
    options = {
        "net_options": {"width": 1 / 8}, "batch": 4, "lr": 1e-4, "precision": "float32", "threads": 1, **changes,
    }  # fmt: skip
    done = train(
        DATA, net, out=out, steps=steps, **options,
        listener=lambda tick: losses.append(tick.loss) if tick.phase == "train" and tick.loss is not None else None,
    )  # fmt: skip
    return done, losses


def options_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((folder / "run.yaml").read_text("utf-8"))
    return value


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def seconds_of(folder: Path) -> float:
    """As the last model of a stage has them."""
    with safe_open(folder / "last.safetensors", "pt") as file:
        return float(json.loads(file.metadata()["fullconv"])["training"]["seconds"])


def equal(first: Path, second: Path) -> bool:
    """The last weights of two runs, bit for bit."""
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stages of four steps, never stopped."""
    out = tmp_path_factory.mktemp("staged") / "run"
    texts: list[str] = []
    options = {
        "steps": 4,
        "workers": 2,
        "lr": 1e-2,
        "seed": 3,
        "listener": lambda tick: texts.append(tick.text),
        **SMALL,
    }
    done = train(TINY, NET, out=out, stages=STAGES, **options)  # type: ignore[arg-type]
    told = [text for text in texts if text and "\n" not in text and "same padding" not in text]
    ius = [read_header(out / name / "best.safetensors")["metrics"]["val"]["mean_iu"] for name in ("32s", "16s")]
    assert told == [
        "stage 1 of 3: 32s", f"mean IU of 32s on val: {ius[0]:.3f}",
        "stage 2 of 3: 16s", f"mean IU of 16s on val: {ius[1]:.3f}",
        "stage 3 of 3: 8s",
    ]  # fmt: skip
    assert (done.path, done.model, done.steps, done.stopped) == (out, out / "best.safetensors", 12, False)
    assert done.seconds > sum(seconds_of(out / name) for name in FOLDERS), "a stage's end is after its last model"
    return out


PLAN = Plan((32, 16, 8), "fcn8s-vgg16", 10.0)


def test_names_and_folders_of_stages() -> None:
    run = Path("runs/a")
    assert [PLAN.folder(run, index) for index in range(3)] == [run / "32s", run / "16s", run]
    assert [PLAN.name(index) for index in range(3)] == ["fcn32s-vgg16", "fcn16s-vgg16", "fcn8s-vgg16"]
    published = Plan((32, 16, 8), "pascalcontext-fcn8s")
    assert [published.name(index) for index in range(3)] == [f"pascalcontext-fcn{s}s" for s in (32, 16, 8)]
    assert Plan((16, 1), "fcn1s-slim").name(0) == "fcn16s-slim"
    assert Plan((32, 8)).name(0) is None


def test_the_first_stage_has_three_times_the_time_of_each_other() -> None:
    """Three days for 32s, one more for each further stage (reference 5.1)."""
    assert [PLAN.minutes_of(index) for index in range(3)] == [pytest.approx(m) for m in (6, 2, 2)]
    two = Plan((32, 8), None, 10.0)
    assert [two.minutes_of(index) for index in range(2)] == [7.5, 2.5]
    assert Plan((32, 8)).minutes_of(0) is None


def test_a_plan_survives_run_yaml() -> None:
    for plan in (PLAN, replace(PLAN, first={"seed": 1}), Plan((16, 8))):
        text = yaml.safe_dump(plan.to_yaml())
        assert Plan.from_yaml(yaml.safe_load(text)) == plan


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"strides": 32},
        [32, 16],
        {"strides": None},
        {"net": "fcn8s-slim", "minutes": 3},
        {"strides": [32, 16], "net": 3},
        {"strides": [32, 16], "minutes": "x"},
    ],
)
def test_stages_that_cannot_be_read_are_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^run.yaml has stages that cannot be read \(.*\); start a new run$"):
        Plan.from_yaml(value)


@pytest.mark.parametrize("strides", [(), (32,), (16, 32), (32, 16, 16), (32, "16"), (32.0, 16), (True, 0)])
def test_strides_that_are_no_stages_are_refused(strides: tuple[Any, ...], tmp_path: Path) -> None:
    message = "^stages .*; expected two strides or more, coarsest first, such as 32,16,8$"
    with pytest.raises(OptionError, match=message):
        Plan(strides)
    with pytest.raises(OptionError, match=message):
        train(TINY, NET, out=tmp_path / "run", stages=strides, steps=1)


# Reference 5.3: the rates of the released solvers, a stage each.
RATES = {
    "voc-fcn8s": (1e-10, 1e-12, 1e-14),
    "pascalcontext-fcn8s": (1e-10, 1e-12, 1e-14),
    "siftflow-fcn8s": (1e-10, 1e-12, 1e-12),
    "fcn8s-vgg16": (1e-10, 1e-12, 1e-14),  # 5.1: /100 at each step
}


@pytest.mark.parametrize("net", RATES)
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_rate_falls_as_in_the_released_solvers(net: str, factor: float) -> None:
    plan = Plan((32, 16, 8), net)
    options = build("fcn32s-vgg16", 3, width=0.05).options
    recipe = fitted("heavy", Fit([(12, 16)], plan.name(0), "vgg16"), {})
    first = RunOptions("x", options, replace(recipe, lr=factor * recipe.lr), "heavy", 5, 100, None, "float32")
    for index, rate in enumerate(RATES[net]):
        if index == 0:
            assert recipe.lr == rate
            continue
        following = plan.options(first, index, Path("runs/a/32s/best.safetensors"))
        assert following.recipe.lr == pytest.approx(factor * rate, rel=1e-12)
        assert (following.net.stride, following.init) == (plan.strides[index], ("runs/a/32s/best.safetensors",))
        assert replace(following, net=first.net, init=(), recipe=first.recipe) == first
        assert replace(following.recipe, lr=first.recipe.lr) == first.recipe


@pytest.mark.parametrize(("recipe", "factor"), [("scratch", 0.1), ("finetune", 0.1), ("accumulated", 0.01)])
def test_the_rate_of_other_recipes_falls_by_their_factor(recipe: str, factor: float) -> None:
    """Though the net is a published one: its solver is that of "heavy"."""
    net = build("fcn32s-slim", 3, width=0.05).options
    first = RunOptions("x", net, RECIPES[recipe], recipe, 0, None, 6.0, "float32")
    for index in (1, 2):
        following = Plan((32, 16, 8), "siftflow-fcn8s", 10.0).options(first, index, Path("a"))
        assert following.recipe.lr == pytest.approx(RECIPES[recipe].lr * factor**index)
        assert following.minutes == pytest.approx(2)


def test_all_skips_have_their_factors_at_their_stage(tmp_path: Path) -> None:
    done = train(TINY, NET, out=tmp_path / "run", stages=(16, 8), steps=1, recipe="atonce", lr=1e-9, **SMALL)
    scales = [options_of(folder)["net"]["scales"] for folder in (done.path / "16s", done.path)]
    assert scales == [{16: 0.01}, {16: 0.01, 8: 0.0001}]


def test_each_stage_learns_on(tmp_path: Path) -> None:
    """32s -> 16s -> 8s: each starts where the last one ended, and puts its zero skip to use."""
    steps = 30
    done, losses = fit(tmp_path / "run", "fcn8s-vgg16", steps, stages=STAGES)
    assert losses[0] == pytest.approx(math.log(3), abs=1e-3)  # scores of zero
    assert len(losses) == 3 * steps
    for index, name in enumerate(FOLDERS):
        first, last = losses[steps * index], losses[steps * index + steps - 1]
        if index:
            assert first < losses[steps * index - 1] + 0.05, "not from the beginning"
        assert last < math.log(3) - 0.05
        net = Model.load(done.path / name / "best.safetensors").net
        assert net.options.stride == STAGES[index]
        layers = net.get_submodule("heads.semantic.score.image")
        assert sorted(int(stride) for stride, _ in layers.named_children()) == sorted(STAGES[: index + 1])
        assert all(layer.get_parameter("weight").abs().max() > 0 for layer in layers.children())


def test_stages_lie_in_the_runs_folder_and_say_what_they_are(staged: Path) -> None:
    assert sorted(str(path.relative_to(staged)) for path in staged.rglob("run.yaml")) == [
        "16s/run.yaml", "32s/run.yaml", "run.yaml",
    ]  # fmt: skip
    saved = [options_of(staged / name) for name in FOLDERS]
    assert [each["net"]["stride"] for each in saved] == [32, 16, 8]
    assert [each["recipe"]["lr"] for each in saved] == [pytest.approx(lr) for lr in (1e-2, 1e-3, 1e-4)]
    assert [each["init"] for each in saved] == [
        [], [str(staged / "32s/best.safetensors")], [str(staged / "16s/best.safetensors")],
    ]  # fmt: skip
    for each in saved:
        assert (each["steps"], each["seed"], each["net"]["width"]) == (4, 3, 0.05)
        assert (each["threads"], each["workers"], each["name"]) == (1, 2, "scratch"), "of all stages"
        assert each["stages"]["strides"] == [32, 16, 8]
    report = (staged / "report.html").read_text("utf-8")
    assert "2 weights zero: heads.semantic.score.image.8.weight, heads.semantic.score.image.8.bias" in report


def test_weights_are_handed_over_and_new_skips_are_zero(tmp_path: Path) -> None:
    """At a rate of 0 nothing but batch norm's statistics changes."""
    run = train(
        TINY,
        "fcn16s-slim",
        out=tmp_path / "run",
        stages=STAGES[:2],
        steps=1,
        lr=0.0,
        init=first_model(tmp_path),
        **SMALL,
    )
    before = weights(tmp_path / "first")
    for name, stride in (("32s", 32), (".", 16)):
        after = weights(run.path / name)
        skip = {key for key in after if f".score.image.{stride}." in key} if stride < 32 else set()
        assert after.keys() == before.keys() | skip
        assert all(after[key].abs().max() == 0 for key in skip)
        kept = [key for key in before if "running" not in key and "tracked" not in key]
        assert all(torch.equal(after[key], before[key]) for key in kept)
        before = after
    assert before["heads.semantic.score.image.32.weight"].abs().max() > 0


def first_model(folder: Path) -> Path:
    """A 32s model with score weights."""
    return train(TINY, "fcn32s-slim", out=folder / "first", steps=1, lr=1e-2, warmup=0.0, **SMALL).model


def press_ctrl_c(at: int) -> Callable[[Tick], None]:
    """A listener that does so when so many steps of all stages are done."""
    done = 0

    def listen(tick: Tick) -> None:
        nonlocal done
        done += tick.phase == "train"
        if done == at and tick.phase == "train":
            signal.raise_signal(signal.SIGINT)

    return listen


@pytest.mark.parametrize(("at", "begun"), [(2, ["32s"]), (6, ["16s", "32s"])])
def test_a_run_that_was_stopped_in_any_stage_ends_as_it_would_have(
    at: int, begun: list[str], staged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = {**SMALL, "workers": 2, "lr": 1e-2, "seed": 3}
    stopped = train(TINY, NET, out=out, stages=STAGES, steps=4, listener=press_ctrl_c(at), **options)
    assert stopped.stopped
    assert (stopped.path, stopped.steps) == (out, at)
    assert sorted(str(path.parent.relative_to(out)) for path in out.rglob("run.yaml")) == begun
    done = train(TINY, out=out, resume=True)
    assert (done.path, done.model, done.stopped) == (out, out / "best.safetensors", False)
    assert done.steps == 12, "also those of stages that were done before"
    for name in FOLDERS:
        assert equal(out / name, staged / name)
        one, other = (options_of(run / name) for run in (out, staged))
        assert {**one, "init": 0, "stages": 0} == {**other, "init": 0, "stages": 0}


def test_a_ctrl_c_while_a_stage_writes_its_report_begins_no_other(tmp_path: Path) -> None:
    pressed: list[str] = []

    def press(tick: Tick) -> None:
        if tick.phase == "report" and not pressed:
            pressed.append(tick.phase)
            signal.raise_signal(signal.SIGINT)

    stopped = train(TINY, NET, out=tmp_path / "run", stages=STAGES, steps=1, listener=press, **SMALL)
    assert (stopped.stopped, stopped.finished) == (True, False)
    assert not (tmp_path / "run" / "16s").exists()
    assert stopped.model == tmp_path / "run" / "32s" / "best.safetensors"
    done = train(TINY, out=tmp_path / "run", resume=True)
    assert (done.stopped, done.finished, done.model.parent) == (False, True, tmp_path / "run")


def test_a_run_that_ended_between_two_stages_goes_on_with_the_next(staged: Path, tmp_path: Path) -> None:
    for name in ("32s", "16s"):
        shutil.copytree(staged / name, tmp_path / "run" / name)
    done = train(TINY, out=tmp_path / "run", resume=True)
    assert equal(done.path, staged)
    before = (done.path / "metrics.csv").read_bytes()
    again = train(TINY, out=tmp_path / "run", resume=True)  # nothing is left to do
    assert again.steps == 12
    assert (done.path / "metrics.csv").read_bytes() == before


def test_stages_that_were_done_before_a_resume_count_as_far_as_their_last_models_tell(
    staged: Path, tmp_path: Path
) -> None:
    shutil.copytree(staged, tmp_path / "run")
    (tmp_path / "run" / "32s" / "last.safetensors").write_bytes(b"")  # damage there hinders nothing
    done = train(TINY, out=tmp_path / "run", resume=True)
    assert (done.steps, done.finished) == (8, True)
    header = {"format": 1, "training": {"steps_done": 1000, "seconds": 1e6}}
    save_file({}, tmp_path / "run" / "16s" / "last.safetensors", {"fullconv": json.dumps(header)})
    done = train(TINY, out=tmp_path / "run", resume=True)
    assert done.steps == 1004
    assert 1e6 < done.seconds < 1e6 + 100


def test_the_warnings_of_all_stages_are_told(staged: Path, tmp_path: Path) -> None:
    shutil.copytree(staged / "32s", tmp_path / "run" / "32s")
    *_, newest = sorted((tmp_path / "run" / "32s" / "state").iterdir())
    newest.write_bytes(b"")
    done = train(TINY, out=tmp_path / "run", resume=True)
    (warning,) = done.warnings
    assert warning.startswith(f"{newest.name} is damaged (empty); went on from step ")


def held(path: Path) -> str | None:
    """What another process would be told that wants a folder; from a thread, to which nobody hands it over."""
    told: list[str | None] = []

    def try_it() -> None:
        folder = RunFolder(path, resume=(path / "run.yaml").is_file())
        try:
            folder.hold()
            told.append(None)
        except OptionError as error:
            told.append(str(error))
        folder.release()

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return told[0]


def test_no_other_run_gets_the_folder_before_the_last_stage_is_done(tmp_path: Path) -> None:
    """Nor while the data is read for a stage."""
    out = tmp_path / "run"
    told: list[tuple[str, str | None]] = []

    def listen(tick: Tick) -> None:
        told.append((tick.phase, held(out)))
        if [phase for phase, _ in told].count("train") == 3 and tick.phase == "train":  # in the last stage
            signal.raise_signal(signal.SIGINT)

    stopped = train(TINY, NET, out=out, stages=(32, 8), steps=2, listener=listen, **SMALL)
    assert (stopped.stopped, stopped.steps, held(out)) == (True, 3, None)
    done = train(TINY, out=out, resume=True, listener=listen)
    assert (done.finished, done.steps, held(out)) == (True, 4, None)
    assert {phase for phase, _ in told} >= {"check", "begin", "train", "evaluate", "report"}
    assert {message for _, message in told} == {f"another process trains in {out}; choose another --out"}


def test_stages_do_not_begin_in_a_folder_that_is_held(tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "run")
    other.hold()
    with pytest.raises(OptionError, match=r"^another process trains in .*run; choose another --out$"):
        train(TINY, NET, out=tmp_path / "run", stages=STAGES, steps=1, **SMALL)
    assert list(other.path.iterdir()) == []
    other.release()


def test_staged_runs_that_begin_together_take_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = RunFolder("runs/arrays-fcn16s-slim")
    free = RunFolder.free

    def late(parent: str, name: str) -> Path:
        path = free(parent, name)
        if not first.path.exists():  # another process is a moment earlier
            first.hold()
        return path

    monkeypatch.setattr(RunFolder, "free", late)
    done = train(TINY, "fcn16s-slim", stages=(32, 16), steps=1, **SMALL)
    assert done.path == Path("runs/arrays-fcn16s-slim-2")
    assert (done.path / "32s" / "run.yaml").is_file()
    assert list(first.path.iterdir()) == []
    first.release()


def test_stages_of_data_that_cannot_be_used_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="absent"):
        train("absent", NET, stages=STAGES, steps=1, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_alone_is_no_run_to_go_on_with(staged: Path, tmp_path: Path) -> None:
    shutil.copytree(staged / "32s", tmp_path / "32s")
    shutil.copytree(staged / "32s", tmp_path / "run" / "4s")
    for out, folder in ((tmp_path / "32s", "32s"), (tmp_path / "run", "run/4s")):
        with pytest.raises(
            OptionError, match=rf"^.*{folder} is not the folder of a run in stages \(32, 16, 8\), but .*the run's own"
        ):
            train(TINY, out=out, resume=True)


def test_a_folder_that_is_taken_is_left_alone(staged: Path, tmp_path: Path) -> None:
    shutil.copytree(staged / "32s", tmp_path / "begun" / "32s")
    shutil.copytree(staged / "32s", tmp_path / "single")
    for out in (staged, tmp_path / "begun", tmp_path / "single"):
        files = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        with pytest.raises(OptionError, match="holds a run already; add --resume to go on with it"):
            train(TINY, NET, out=out, stages=STAGES, steps=1, **SMALL)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == files


@pytest.mark.parametrize(
    ("net", "stages", "message"),
    [
        ("fcn8s-slm", STAGES, "^stages of 'fcn8s-slm'; name a net, such as fcn8s-vgg16, and give the file .* --init$"),
        ("m.safetensors", STAGES, "^stages of 'm.safetensors'; name a net"),
        (build(NET, 3, width=0.05).options, STAGES, r"^stages of NetOptions\(.*; name a net"),
        (
            "voc-fcn8s-atonce",
            STAGES,
            "^unknown net for the first stage, 'voc-fcn32s-atonce'; did you mean 'voc-fcn8s",
        ),
        ("fcn4s-slim", (5, 4), "^unknown net for the first stage, 'fcn5s-slim'"),
        (NET, (32, 7, 8), "expected two strides or more, coarsest first"),
        (NET, (32, 20, 8), "^trunk 'slim' has no features of stride 20; choose one of 32s, 16s, 8s, 4s, 2s$"),
        (NET, (32, 16), r"^the last of the stages \(32, 16\) is fcn16s-slim, not fcn8s-slim; change one of both$"),
    ],
)
def test_stages_that_cannot_be_are_named_before_the_first(
    net: Any, stages: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        train(TINY, net, out=tmp_path / "run", stages=stages, steps=1)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, staged: Path) -> list[tuple[Call, RunOptions | None, bool]]:
    """What single runs are called with, which are over at once; they leave the first stage's run.yaml."""
    made: list[tuple[Call, RunOptions | None, bool]] = []

    def once(call: Call, base: RunOptions | None = None, resume: bool = False) -> Trained:
        made.append((call, base, resume))
        assert call.out is not None
        call.out.mkdir(parents=True, exist_ok=True)
        saved = options_of(staged / "32s")
        saved["minutes"], saved["steps"] = call.asked.minutes or (base.minutes if base else None), None
        (call.out / "run.yaml").write_text(yaml.safe_dump({**saved, **call.record}))
        time.sleep(0.01)
        return Trained(call.out, call.out / "best.safetensors", None, 1, 1.0, False, True)

    monkeypatch.setattr(module, "train_once", once)
    return made


def test_the_default_net_and_folder(
    calls: list[tuple[Call, RunOptions | None, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = train("my data", stages=(32, 16), steps=1)
    assert done.path == Path("runs/my data-fcn16s-slim")
    assert [(call.out, call.asked.net) for call, _, _ in calls] == [
        (done.path / "32s", "fcn32s-slim"), (done.path, None),
    ]  # fmt: skip
    assert calls[1][1] is not None
    assert [call.record["stages"]["net"] for call, _, _ in calls] == ["fcn16s-slim"] * 2, "that of the last stage"
    assert calls[1][1].net.stride == 16


def test_the_minutes_are_those_of_all_stages(calls: list[tuple[Call, RunOptions | None, bool]], tmp_path: Path) -> None:
    train(TINY, NET, out=tmp_path / "run", stages=STAGES, minutes=10, started=5.0)
    (first, _, _), (second, two, _), (third, three, _) = calls
    assert first.asked.minutes == 6
    assert first.start == 5.0, "the command's start is the first stage's"
    assert second.asked.given() == third.asked.given() == ["threads", "workers"]
    assert two is not None
    assert three is not None
    assert (two.minutes, three.minutes) == (2, 2)
    assert 5.0 < second.start < third.start <= time.monotonic()
    # Repeated, all of it again; unless another length is given.
    repeats: list[tuple[dict[str, Any], float | None]] = [({}, 6), ({"minutes": 5}, 3), ({"steps": 7}, None)]
    for number, (length, share) in enumerate(repeats):
        del calls[:]
        train(TINY, config=tmp_path / "run", out=tmp_path / f"again{number}", **length)
        assert [call.asked.minutes for call, _, _ in calls] == [share, None, None]
        assert calls[0][0].asked.steps == length.get("steps")


def test_a_repeated_run_is_the_same_bit_for_bit(staged: Path, tmp_path: Path) -> None:
    done = train(TINY, config=staged, out=tmp_path / "run", threads=1)
    for name in FOLDERS:
        assert equal(done.path / name, staged / name)
    saved = options_of(done.path)
    assert (saved["seed"], saved["stages"]["strides"], saved["net"]["width"]) == (3, [32, 16, 8], 0.05)


def test_single_values_of_a_repeated_run_are_replaced(staged: Path, tmp_path: Path) -> None:
    one = train(TINY, config=staged, out=tmp_path / "one", seed=4, lr=1e-3, stages=(32, 16), steps=2, threads=1)
    saved = [options_of(folder) for folder in (one.path / "32s", one.path)]
    assert [each["recipe"]["lr"] for each in saved] == [pytest.approx(lr) for lr in (1e-3, 1e-4)]
    assert [(each["seed"], each["steps"], each["net"]["stride"]) for each in saved] == [(4, 2, 32), (4, 2, 16)]
    assert saved[0]["recipe"] == {**options_of(staged / "32s")["recipe"], "lr": 1e-3}


def test_a_single_run_is_repeated_too(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", counts={"train": 4, "val": 1})
    first = train(folder, NET, out=tmp_path / "a", steps=3, seed=5, lr=1e-2, clip=1.0, **SMALL)
    again = train(config=tmp_path / "a", out=tmp_path / "b", threads=1)  # on its data too
    assert equal(first.path, again.path)
    names = ("data", "net", "recipe", "name", "seed", "steps", "minutes", "precision", "init", "splits", "fingerprint")
    saved = [options_of(run.path) for run in (first, again)]
    assert [saved[0][name] for name in names] == [saved[1][name] for name in names]
    other = train(config=tmp_path / "a" / "run.yaml", out=tmp_path / "c", seed=6, lr=1e-3, threads=1)
    assert not equal(first.path, other.path)
    changed = options_of(other.path)
    assert (changed["seed"], changed["recipe"]["lr"], changed["recipe"]["clip"]) == (6, 1e-3, 1.0)
    # In stages, which it was not.
    staged = train(config=tmp_path / "a", out=tmp_path / "d", stages=(32, 8), steps=1, threads=1)
    assert [options_of(f)["net"]["stride"] for f in (staged.path / "32s", staged.path)] == [32, 8]
    assert options_of(staged.path)["net"]["width"] == 0.05
    with pytest.raises(OptionError, match="^the net has its own padding; leave the options out, or name a net$"):
        train(config=tmp_path / "a", out=tmp_path / "e", net_options={"padding": "same"})


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, DataError, "run.yaml: cannot be read"),
        ("- 1", OptionError, "run.yaml holds no options of a run; expected what a run folder's run.yaml holds$"),
        ("", OptionError, "holds no options of a run"),
        ("path: data\nnames: [a, b]", OptionError, "run.yaml holds no run, or one of another version .no data, net"),
        ("a: [", DataError, "is not valid YAML"),
        ("stages: {net: 3}", OptionError, "run.yaml has stages that cannot be read"),
        ("stages: {strides: [32, 16], first: 3}", OptionError, "holds no run, or one of another version"),
    ],
)
def test_what_is_no_run_cannot_be_repeated(
    text: str | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text)
    for config in (path, tmp_path) if text is not None else (path,):
        with pytest.raises(error, match=message) as caught:
            train(TINY, config=config, out=tmp_path / "run")
        assert "\n" not in str(caught.value)


def test_read_config_knows_the_first_stage(staged: Path) -> None:
    """Whichever stage's folder or run.yaml is named."""
    for path in ("32s", "16s", ".", "16s/run.yaml"):
        options, plan = read_config(staged / path)
        assert plan is not None
        assert (plan.strides, plan.net, options.net.stride, options.init) == (STAGES, NET, 32, ())
        assert options.recipe.lr == 1e-2


def test_options_of_a_resumed_run_are_its_own(staged: Path) -> None:
    with pytest.raises(
        OptionError, match="^a resumed run keeps its options; leave out seed, lr, config, stages, or start a new run$"
    ):
        train(TINY, out=staged, resume=True, seed=0, lr=1, config=staged, stages=STAGES)
    with pytest.raises(OptionError, match="^--resume needs the run's folder; add --out RUN$"):
        train(TINY, resume=True)


@pytest.mark.parametrize("splits", [["train"], "train,val", ("a", "b", "c"), "ab"])
def test_splits_are_two_names(splits: Any) -> None:
    with pytest.raises(OptionError, match="^splits .*; expected the names of two, such as trainaug and val2012$"):
        train(TINY, splits=splits)


def test_a_run_without_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="^no data; name a folder, a YAML file or 'wafer' with --data$"):
        train(out=tmp_path / "run")


def test_a_caffe_classifier_is_a_start(tmp_path: Path) -> None:
    oracle = caffe_net("caffenet", (227, 227), width=1 / 8, seed=1)
    write_caffemodel(tmp_path / "caffenet.caffemodel", oracle.layers)
    done, _ = fit(
        tmp_path / "run",
        "fcn32s-alexnet",
        2,
        init=tmp_path / "caffenet.caffemodel",
        lr=1e-9,
        net_options={"width": 1 / 8},
    )
    conv1 = next(blobs[0] for name, _, blobs in oracle.layers if name == "conv1")
    got = Model.load(done.model).net.get_parameter("trunks.image.conv1.weight")
    torch.testing.assert_close(got, torch.from_numpy(conv1), rtol=0, atol=1e-6)


def test_a_fixed_net_needs_a_trunk(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match="a fixed net learns its score layers alone; give the trunk's weights with --init FILE"
    ):
        fit(tmp_path / "run", NET, 2, fixed=True)


@pytest.mark.parametrize("net", ["fcn16s-vgg16", NET])
def test_only_the_score_layers_of_a_fixed_net_learn(net: str, tmp_path: Path) -> None:
    first, _ = fit(tmp_path / "first", net, 3)
    done, losses = fit(tmp_path / "fixed", net, 30, init=first.model, fixed=True, head_lr=1.0)
    before, after = (Model.load(p).net.state_dict() for p in (first.model, done.path / "last.safetensors"))
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed == {key for key in after if ".score." in key}  # batch norm's statistics too stay as they were
    assert losses[-1] < losses[0]
