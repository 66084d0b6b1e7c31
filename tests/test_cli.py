"""The command line as people and machines meet it: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import fullconv
from command import Result, Run, one_line
from fullconv.cli import main
from fullconv.errors import DataError, OptionError
from fullconv.inference.evaluate import evaluate
from fullconv.inference.model import Model
from fullconv.inspect import inspect_net, named_net
from fullconv.weights.modelfile import read_header
from makers import make_folder

NET = ("--net", "fcn1s-slim")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_folder(tmp_path_factory.mktemp("data") / "data")
    (root / "classes.txt").write_text("ground\nroad\ncar\n")
    return root


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    """A model of a few steps."""
    trained = fullconv.train(data, "fcn1s-slim", out=data.parent / "run", steps=30, lr=0.02, net_options={"width": 0.1})
    return trained.model


def test_version_help_and_nothing(run: Run) -> None:
    assert run("--version") == Result(0, f"fullconv {fullconv.__version__}\n", "")
    for args in (["--help"], ["-h"]):
        shown = run(*args)
        assert shown.code == 0
        for verb in ("demo", "train", "evaluate", "predict", "inspect"):
            assert verb in shown.out
            assert run(verb, "--help").code == 0
    nothing = run()
    assert nothing.code == 2
    assert "Usage" in nothing.out + nothing.err


def test_train_says_scores_model_and_report(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("train", "--data", data, *NET, "--out", tmp_path / "r", "--steps", "2", "--batch", "2",
                 "--crop", "16x24", "--lr", "0.01", "--reduction", "sum", "--optimizer", "sgd", "--seed", "5",
                 "--precision", "float32", "--padding", "paper", "--upsampling", "learned",
                 "--loss-share", "0.25", "--loss", "focal",
                 "--class-weights", "1,2,0.5", "--set", "weight_decay=0.5", "--set", "scale=0.5,2")  # fmt: skip
    assert result.code == 0, result.err
    for expected in ("ground", "road", "car", "mean IU", str(tmp_path / "r" / "best.safetensors"), "report.html"):
        assert expected in result.out, expected
    record = read_header(tmp_path / "r" / "last.safetensors")
    options = record["training"]
    assert (options["seed"], options["steps"], options["precision"]) == (5, 2, "float32")
    assert (record["net"]["padding"], record["net"]["upsampling"]) == ("paper", "learned")
    recipe = options["recipe"]
    assert (recipe["batch"], recipe["lr"], recipe["reduction"], recipe["optimizer"]) == (2, 0.01, "sum", "sgd")
    assert (recipe["loss_share"], recipe["loss"], recipe["class_weights"]) == (0.25, "focal", [1, 2, 0.5])
    assert (recipe["weight_decay"], recipe["augmentation"]["scale"]) == (0.5, [0.5, 2])
    assert recipe["augmentation"]["crop"] == [16, 24]
    typed = yaml.safe_load((tmp_path / "r" / "run.yaml").read_text())["command"]
    assert typed.startswith(f"fullconv train --data {data} --net fcn1s-slim")


def test_train_for_machines(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("train", "--data", data, *NET, "--out", tmp_path / "r", "--epochs", "1", "--json")
    assert (result.code, result.err) == (0, "")
    value = json.loads(result.out)
    assert (value["steps"], value["stopped"]) == (2, False)
    assert Path(value["model"]).is_file()
    assert set(value["scores"]) >= {"pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu", "iu", "accuracy", "pixels"}


def test_evaluate_prints_what_python_says(run: Run, data: Path, model: Path) -> None:
    scores = evaluate(model, data, "train").scores
    printed = run("evaluate", model, "--data", data, "--split", "train")
    assert printed.code == 0
    for name, iu, pixels in zip(("ground", "road", "car"), scores.iu, scores.pixels, strict=True):
        (line,) = [line for line in printed.out.splitlines() if line.startswith(name)]
        assert line.split()[1] == f"{100 * iu:.1f}"
        assert line.split()[-1] == f"{pixels:,}"
    assert f"mean IU {100 * scores.mean_iu:.1f}" in printed.out
    machine = run("evaluate", model, "--data", data, "--split", "train", "--json")
    assert (machine.code, machine.err) == (0, "")
    assert json.loads(machine.out) == {"split": "train", "classes": ["ground", "road", "car"], **scores.to_json()}


def test_predict_counts_what_it_wrote(run: Run, data: Path, model: Path, tmp_path: Path) -> None:
    images = data / "train" / "images"
    result = run("predict", model, images, "-o", tmp_path / "out", "--overlay", "--scores")
    assert result == Result(0, f"4 labelled in {tmp_path / 'out'}\n", "")
    assert len(list((tmp_path / "out").glob("0*"))) == 12
    single = run("predict", model, images / "0000.png", "-o", tmp_path / "one.png")
    assert single == Result(0, f"1 labelled: {tmp_path / 'one.png'}\n", "")
    with Image.open(tmp_path / "one.png") as mask:
        assert np.array_equal(np.asarray(mask), Model.load(model).predict(images / "0000.png").labels)
    machine = run("predict", model, str(images / "000[12].png"), "-o", tmp_path / "j", "--json")
    assert json.loads(machine.out) == {
        "written": [str(tmp_path / "j" / f"000{i}.png") for i in (1, 2)],
        "kept": [],
        "failures": [],
        "notes": [],
    }


def test_predict_names_bad_files_and_exits_1(run: Run, data: Path, model: Path, tmp_path: Path) -> None:
    images = tmp_path / "in"
    shutil.copytree(data / "train" / "images", images)
    (images / "0001.png").write_bytes(b"")
    (images / "0002.png").write_bytes(b"no picture")
    result = run("predict", model, images, "-o", tmp_path / "out")
    assert result.code == 1
    assert result.out == f"2 labelled in {tmp_path / 'out'}, 2 failed\n"
    lines = result.err.splitlines()
    assert [str(images / f"000{i}.png") in line for i, line in enumerate(lines, 1)] == [True, True]
    assert sorted(path.name for path in (tmp_path / "out").glob("0*")) == ["0000.png", "0003.png"]
    machine = run("predict", model, images, "-o", tmp_path / "out2", "--json")
    assert machine.code == 1
    assert [failure["image"] for failure in json.loads(machine.out)["failures"]] == [
        str(images / "0001.png"), str(images / "0002.png"),
    ]  # fmt: skip
    alone = run("predict", model, images / "0001.png", "-o", tmp_path / "mask.png")
    assert (alone.code, alone.out) == (1, "0 labelled, 1 failed\n")
    (tmp_path / "file").write_text("")
    blocked = run("predict", model, images, "-o", tmp_path / "file")
    assert "file is a file; masks go into a folder" in one_line(blocked, 1)


def test_inspect_prints_what_python_says(run: Run, model: Path) -> None:
    report = inspect_net(named_net("fcn8s-vgg16", 21, "paper"), (500, 500))
    machine = run("inspect", "fcn8s-vgg16", "--padding", "paper", "--json")
    assert machine.code == 0
    assert json.loads(machine.out) == json.loads(json.dumps(report.to_json()))
    shown = run("inspect", "fcn8s-vgg16", "--padding", "paper")
    for expected in ("conv1_1", "fc6", "404", f"{report.parameters:,}", "31 of the upsampled", "468 x 468"):
        assert expected in shown.out, expected
    assert "1s on slim1" in run("inspect", model, "--size", "56x53").out


def test_broken_data_is_named_in_one_line(run: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cases: list[tuple[Path, str]] = [(tmp_path / "missing", "missing: no such data set")]
    (tmp_path / "empty").mkdir()
    cases.append((tmp_path / "empty", "empty: is empty; expected"))
    (tmp_path / "file.txt").write_text("")
    cases.append((tmp_path / "file.txt", "file.txt: is a file; a data set is a folder"))
    lonely = tmp_path / "lonely"
    shutil.copytree(data, lonely)
    (lonely / "train" / "masks" / "0001.png").unlink()
    cases.append((lonely, "1 images without mask (0001)"))
    for path, expected in cases:
        result = run("train", "--data", path, *NET, "--out", out)
        assert result.code == 1
        assert expected in one_line(result)
    assert not out.exists()


def bomb(path: Path) -> None:
    """A PNG of a hundred bytes that says it is 60000 x 60000."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, body, b"IEND")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def rewrite(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array.astype(np.uint8)).save(path)


@pytest.mark.parametrize(
    ("which", "spoil", "expected"),
    [
        ("masks", lambda p: rewrite(p, np.zeros((9, 16))), "0001.png: is 9 x 16 (H x W), its image"),
        ("masks", lambda p: rewrite(p, np.full((12, 16), 7)), "0001.png: holds value 7 (192 pixels); classes are 0..2"),
        (
            "masks",
            lambda p: rewrite(p, np.eye(12, 16)[:, :, None] * (0, 9, 5)),
            "0001.png: is an RGB mask, and the data set has no",
        ),
        ("images", lambda p: p.write_bytes(p.read_bytes()[:150]), "0001.png: cannot be decoded"),
        ("images", lambda p: p.write_bytes(b""), "0001.png: is empty (0 bytes)"),
        ("images", bomb, "0001.png: is 60000 x 60000 pixels (H x W), at most"),
        ("images", lambda p: p.write_bytes(b"GIF89a" + bytes(20)), "0001.png: holds a GIF, expected a JPEG, PNG"),
    ],
)
def test_a_broken_file_is_named_before_the_first_step(
    run: Run, data: Path, tmp_path: Path, which: str, spoil: Callable[[Path], None], expected: str
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)
    spoil(root / "train" / which / "0001.png")
    result = run("train", "--data", root, *NET, "--out", tmp_path / "run")
    assert result.code == 1
    assert "Traceback" not in result.err
    head, line, hint = result.err.splitlines()
    assert head == f"fullconv: {root} (train): 1 problem in 4 samples:"
    assert expected in line
    assert hint == f"see all, and repair what can be, with: fullconv doctor {root} --fix FIXED"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--net", "fcn8s-slm"], "unknown net 'fcn8s-slm'; did you mean 'fcn8s-slim'? Choices: fcn16s-alexnet"),
        (["--recipe", "hevy"], "unknown recipe 'hevy'; did you mean 'heavy'?"),
        (["--optimizer", "adam"], "unknown optimizer 'adam'; did you mean 'adamw'?"),
        (["--reduction", "average"], "unknown loss reduction 'average'"),
        (["--loss", "entropy"], "unknown loss term 'entropy'"),
        (["--set", "weight_decay"], "--set 'weight_decay'; expected NAME=VALUE"),
        (["--set", "lr=1"], "--set lr; it has an option of its own: --lr"),
        (["--set", "resume=1"], "unknown name for --set, 'resume'"),
        (["--stages", "8,16"], "expected two strides or more, coarsest first"),
        (["--track", "wandb"], "pip install wandb"),
        (["--precision", "float16"], "unknown precision 'float16'; did you mean 'bfloat16'?"),
        (["--padding", "none"], "unknown padding 'none'"),
        (["--upsampling", "bilinaer"], "unknown upsampling 'bilinaer'; did you mean 'bilinear'?"),
        (["--steps", "0"], "0 steps; expected at least 1"),
        (["--minutes", "0"], "0 minutes; expected a number above 0"),
        (["--minutes", "nan"], "nan minutes; expected a number above 0"),
        (["--minutes", "1", "--steps", "4"], "three ways to give one length; choose one"),
        (["--lr", "-1"], "lr -1.0; expected 0..100"),
        (["--batch", "0"], "batch 0; expected 1..65536"),
        (["--loss-share", "0"], "loss_share 0.0; expected 0.001..1"),
        (["--batch", "1"], "leaves batch norm one value"),
        (["--crop", "0"], "crop (0, 0); expected (H, W) of at least 1 x 1"),
        (["--crop", "16x"], "crop '16x'; expected HxW in pixels"),
        (["--seed", "-3"], "seed -3; expected 0 or"),
        (["--resume"], "a resumed run keeps its options; leave out net"),
    ],
)
def test_options_that_cannot_work_exit_2(run: Run, data: Path, tmp_path: Path, args: list[str], expected: str) -> None:
    result = run("train", "--data", data, *NET, "--out", tmp_path / "run", *args)
    assert result.code == 2
    assert expected in one_line(result)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["evaluate", "none.safetensors", "--data", "wafer"], 1, "none.safetensors does not exist; expected a"),
        (["evaluate", "MODEL", "--data", "DATA", "--split", "tset"], 1, "has no split 'tset'; its splits: train, val"),
        (["evaluate", "MODEL", "--data", "wafer"], 2, "the model's classes are ground, road, car; the data's are"),
        (["evaluate", "DATA", "--data", "DATA"], 1, "is a folder; expected a .safetensors model file"),
        (["predict", "MODEL", "none.png"], 1, "none.png does not exist and matches no file"),
        (["predict", "MODEL", "DATA", "-o", "x.png"], 2, "x.png is one file for"),
        (["predict", "DATA/classes.txt", "DATA"], 1, "is no safetensors file"),
        (["train", "--data", "DATA", "--resume"], 2, "--resume needs the run's folder; add --out RUN"),
        (["train", "--data", "DATA", "--init", "none.safetensors"], 1, "none.safetensors does not exist"),
        (["train", "--data", "DATA", "--out", "DATA/classes.txt"], 2, "cannot be made a folder"),
        (["inspect", "fcn8s-vgg"], 2, "unknown net 'fcn8s-vgg'; did you mean 'fcn8s-vgg16'?"),
        (["inspect", "fcn8s-slim", "--size", "500"], 2, "size '500'; expected HxW in pixels, such as 360x480"),
        (["inspect", "fcn8s-slim", "--size", "0x5"], 2, "size '0x5'; expected HxW"),
        (["inspect", "fcn8s-slim", "--size", "²x5"], 2, "size '²x5'; expected HxW"),
        (["inspect", "fcn8s-slim", "--classes", "0"], 2, "classes"),
    ],
)
def test_every_verbs_errors_are_one_line(
    run: Run, data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    args: list[str], code: int, expected: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = run(*(arg.replace("MODEL", str(model)).replace("DATA", str(data)) for arg in args))
    assert result.code == code
    assert expected in one_line(result)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "no data; name a folder, a YAML file or 'wafer' with --data"),
        (["train", "--data", "x", "--stpes", "4"], "No such option"),
        (["train", "--data", "x", "--steps", "many"], "unable to parse string as an integer"),
        (["predict"], "Missing argument 'MODEL'"),
    ],
)
def test_usage_errors_exit_2(run: Run, args: list[str], expected: str) -> None:
    result = run(*args)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert expected in " ".join(result.err.replace("│", " ").split())


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for args, error in ((["inspect", "nothing"], OptionError), (["train", "--data", "nowhere"], DataError)):
        monkeypatch.setattr(sys, "argv", ["fullconv", "--debug", *args])
        with pytest.raises(error):
            main()


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (PermissionError(13, "Permission denied", "/x/y.png"), 1, "/x/y.png: Permission denied; check path, rights"),
        (OSError("odd"), 1, "a file: odd; check path, rights and disk"),
        (MemoryError(), 1, "out of memory; use smaller images, a smaller batch"),
    ],
)
def test_what_goes_wrong_elsewhere(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, expected: str
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("fullconv.inspect.named_net", fail)
    result = run("inspect", "fcn8s-slim")
    assert result.code == code
    assert expected in one_line(result)
    monkeypatch.setattr(sys, "argv", ["fullconv", "--debug", "inspect", "fcn8s-slim"])
    with pytest.raises(type(error)):
        main()


def test_ctrl_c_outside_training_ends_quietly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullconv.inspect.named_net", lambda *args: signal.raise_signal(signal.SIGINT))
    assert run("inspect", "fcn8s-slim") == Result(130, "", "fullconv: interrupted\n")


def test_the_demos_words(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fullconv import demo

    for name in ("TRAIN", "VAL", "TEST"):
        monkeypatch.setattr(demo, name, 12)
    result = run("demo", "--out", tmp_path / "r", "--minutes", "0.001")
    assert result.code == 0, result.err
    for expected in ("12 newly generated wafer maps", "scratch", "mean IU", "report.html", "predictions"):
        assert expected in result.out, expected
    again = run("demo", "--out", tmp_path / "r", "--minutes", "0.001")
    assert again.code == 2
    assert "holds a run already" in one_line(again)
    machine = run("demo", "--out", tmp_path / "r2", "--minutes", "0.001", "--json")
    assert json.loads(machine.out)["run"] == str(tmp_path / "r2")


def test_ctrl_c_ends_with_a_model_and_says_how_to_go_on(run: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    options = ["--data", str(data), *NET, "--out", str(out), "--steps", "1000000"]
    command = [sys.executable, "-m", "fullconv", "train", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            deadline = time.monotonic() + 90
            rows = out / "metrics.csv"
            while not (rows.exists() and rows.read_text().count("\n") >= 2) and process.poll() is None:
                assert time.monotonic() < deadline, "no row of metrics in time"
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    (line,) = [line for line in printed.splitlines() if line.startswith("Stopped after")]
    said, _, again = line.partition("; go on with: ")
    steps = int(said.split()[2])
    assert steps > 0
    assert Model.load(out / "best.safetensors").predict(np.zeros((5, 4, 3), np.uint8)).labels.shape == (5, 4)
    assert (out / "report.html").exists()
    # The line is typed as it stands; the run is made to end two steps later.
    record = yaml.safe_load((out / "run.yaml").read_text())
    (out / "run.yaml").write_text(yaml.safe_dump({**record, "steps": steps + 2}))
    verb, *args = shlex.split(again)
    assert verb == "fullconv"
    result = run(*args, "--json")
    assert json.loads(result.out)["steps"] == steps + 2
