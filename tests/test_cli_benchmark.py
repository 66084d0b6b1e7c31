"""`fullconv benchmark`: what it prints, writes and refuses."""

from __future__ import annotations

import errno
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from command import Run, one_line
from fullconv import inspect
from fullconv.inference import benchmark as module
from fullconv.inference.timings import Row, Timings
from fullconv.nets import FCN, build

SIZE = (30, 40)
HEADS = "engine precision ms quartiles images/s plain = 1 first call s peak GiB agreement % GFLOP % of peak"
QUICK = "torch bfloat16 60.0 55.0 ... 65.0 16.7 x 2.0 2.50 1.50 98.76 0.8"
PLAIN = "plain float32 120.0 120.0 ... 120.0 8.3 x 1.0 1.00 1.00 100.00 1.0 8"
ROWS = (
    Row("torch", "bfloat16", SIZE, (0.05, 0.06, 0.07), 2.5, 3 << 29, 0.9876, 400_000_000),
    Row("plain", "float32", SIZE, (0.12, 0.12, 0.12), 1.0, 1 << 30, 1.0, 500_000_000),
    Row("openvino", "int8", SIZE, error="its process was ended by SIGKILL"),
)


def build_small(name: str, *_: object) -> FCN:
    return build(name, 3, width=0.1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the function is called with, which measures nothing then."""
    found: list[tuple[Any, ...]] = []

    def fake(*given: Any, **options: Any) -> Timings:
        found.append((*given, options))
        options["progress"](1, 2, "30x40")
        if options["tell"]:
            options["tell"]("a note")
        return Timings("m[0]", 2, 3, ROWS, {"float32": 100e9}, {SIZE: 500_000_000}, ("a note",))

    monkeypatch.setattr(module, "benchmark", fake)
    return found


def test_the_table(run: Run, calls: list[tuple[Any, ...]]) -> None:
    result = run("benchmark", "m[0]", "--size", "30x40", "--engine", "torch", "--precision", "bfloat16",
                 "--repeats", "3", "--threads", "2", "--images", "photos")  # fmt: skip
    assert result.code == 0
    assert result.err == "Note: a note\n"
    lines = [line.rstrip() for line in result.out.splitlines() if line.strip()]
    assert lines[0].startswith("m[0], ")
    assert lines[0].endswith("2 threads; medians of 3, from uint8 image to labels")
    assert lines[1] == "30 x 40, plain net 1.0 GFLOP"
    assert [" ".join(line.split()) for line in lines[2:6]] == [HEADS, QUICK, PLAIN, "openvino int8 failed"]
    assert lines[6] == "openvino int8: its process was ended by SIGKILL"
    assert lines[7] == "peak, by 3x3 convolutions of 512 channels: float32 100 GFLOP/s"
    ((name, sizes, engines, precisions, options),) = calls
    assert (name, sizes, engines, precisions) == ("m[0]", [SIZE], ["torch"], ["bfloat16"])
    assert (options["repeats"], options["threads"], options["images"]) == (3, 2, Path("photos"))


def test_for_machines_and_files(run: Run, calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = run("benchmark", "m[0]", "--json", "-o", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    value = json.loads(result.out)
    assert [row["engine"] for row in value["rows"]] == ["torch", "plain", "openvino"]
    assert value["notes"] == ["a note"]
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8")) == value
    with Image.open(tmp_path / "out" / "benchmark.png") as image:
        assert image.format == "PNG"
    assert len(list((tmp_path / "out").iterdir())) == 2
    told = run("benchmark", "m[0]", "-o", tmp_path / "out").out
    assert told.endswith(f"\nWritten  {tmp_path / 'out' / 'benchmark.json'}, {tmp_path / 'out' / 'benchmark.png'}\n")


def test_what_was_measured_is_told_before_it_is_written(
    run: Run, calls: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "benchmark.json")

    monkeypatch.setattr("fullconv.files.atomic", full)
    for words in ((), ("--json",)):
        result = run("benchmark", "m[0]", "-o", tmp_path / "out", *words)
        assert (result.code, "plain" in result.out, "Written" in result.out) == (1, True, False)
        assert "benchmark.json: No space left on device" in result.err.splitlines()[-1]


def test_a_folder_that_takes_no_file_is_told_before_it_is_measured(
    run: Run, calls: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(import_module("fullconv.cli.benchmark"), "TemporaryFile", refused)
    said = one_line(run("benchmark", "m[0]", "-o", tmp_path), 2)
    assert (
        said
        == f"--out {tmp_path}: is no folder that can be written (Read-only file system); name another, or a new one"
    )
    assert calls == []


def test_nothing_but_failures_is_a_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Timings("m", 1, 3, (ROWS[2],), {}, {SIZE: 1}, ())
    monkeypatch.setattr(module, "benchmark", lambda *_, **__: failed)
    result = run("benchmark", "m")
    assert result.code == 1
    assert "peak, by 3x3 convolutions of 512 channels: not measured" in result.out


def test_it_measures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONVOLUTIONS", {"layers": 1, "channels": 8, "side": 8})
    monkeypatch.setattr(module, "build", build_small)
    monkeypatch.setattr(inspect, "build", build_small)
    words = ("--engine", "plain", "--engine", "torch", "--precision", "float32", "--repeats", "2", "--threads", "1")
    result = run("benchmark", "fcn8s-slim", "--size", "20x31", *words, "--json")
    assert (result.code, result.err) == (0, "")
    value = json.loads(result.out)
    assert {(row["engine"], row["error"], len(row["all_ms"])) for row in value["rows"]} == {
        ("plain", None, 2), ("torch", None, 2),
    }  # fmt: skip
    assert value["peak_gflops"]["float32"] > 0
    (note,) = value["notes"]
    assert note.startswith("fcn8s-slim has random weights")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["fcn8s-slimm"], 2, "unknown net 'fcn8s-slimm'; did you mean 'fcn8s-slim'?"),
        (["fcn8s-slim", "--size", "20"], 2, "--size '20'; expected HxW in pixels, such as 360x480"),
        (["fcn8s-slim", "--engine", "cuda"], 2, "unknown engine 'cuda'"),
        (["fcn8s-slim", "--images", "nowhere"], 1, "nowhere is no folder; expected one with images"),
        (
            ["fcn8s-slim", "--out", "a-file"],
            2,
            "--out a-file: is no folder that can be written (File exists); name another",
        ),
    ],
)
def test_what_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    assert one_line(run("benchmark", *words), code).startswith(why)
