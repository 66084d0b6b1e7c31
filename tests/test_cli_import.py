"""`fullconv import`: what it prints, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fullconv.cli.import_ import import_
from fullconv.errors import DataError, OptionError
from makers import save


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """One image of 4 x 5: a row of `a`, a row of `b[/]`, a row of void."""
    save(tmp_path / "in" / "0.png", np.zeros((4, 5, 3), np.uint8))
    shapes = [
        {"label": label, "shape_type": "rectangle", "points": [[0, row], [5, row + 1]]}
        for row, label in enumerate(["a", "b[/]", "__ignore__"])
    ]
    (tmp_path / "in" / "0.json").write_text(json.dumps({"shapes": shapes, "imagePath": "0.png"}))
    return tmp_path / "in"


def run(*words: object) -> tuple[str, BaseException | None]:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("import")(import_)
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.output, result.exception


def test_it_prints_classes_notes_and_what_to_do_next(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text, error = run(source, "-o", out)
    assert error is None
    lines = [line.split() for line in text.splitlines()]
    assert lines[:5] == [
        ["class", "images", "pixels", "share"],
        ["background", "1", "5", "25", "%"],
        ["a", "1", "5", "25", "%"],
        ["b[/]", "1", "5", "25", "%"],
        ["void", "(255)", "1", "5", "25", "%"],
    ]
    assert "Note     read as labelme\n" in text
    assert f"Data     {out}: 1 images, 3 shapes\n" in text
    assert text.endswith(f"Next     fullconv doctor {out}, then fullconv train --data {out}\n")


def test_json(source: Path, tmp_path: Path) -> None:
    text, _ = run(source, "-o", tmp_path / "out", "--json", "--classes", "b[/],a", "--background", "void")
    assert json.loads(text) == {
        "path": str(tmp_path / "out"),
        "classes": ["b[/]", "a"],
        "images": 1,
        "shapes": 3,
        "pixels": [5, 5],
        "void": 10,
        "notes": ["read as labelme", "label '__ignore__' becomes void (255)"],
    }


def test_classes_of_a_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("__ignore__\n_background_\na\n")
    text, _ = run(source, "-o", tmp_path / "out", "--json", "--classes", tmp_path / "names", "--others", "background")
    assert json.loads(text)["classes"] == ["background", "a"]
    assert run(source, "-o", tmp_path / "new", "--classes", "b[/]," * 5000 + "a")[1] is None


def test_errors(source: Path, tmp_path: Path) -> None:
    assert isinstance(run(source, "-o", source)[1], OptionError)
    assert isinstance(run(tmp_path / "no", "-o", tmp_path / "out")[1], DataError)
    assert isinstance(run(source, "-o", tmp_path / "out", "--images", tmp_path / "no")[1], OptionError)
    assert isinstance(run(source, "-o", tmp_path / "out", "--format", "coco")[1], DataError)


@pytest.mark.parametrize("option", [["--order", "area"], ["--empty"], ["--boxes"], ["--format", "labelme"]])
def test_options_reach_the_import(source: Path, tmp_path: Path, option: list[str]) -> None:
    assert run(source, "-o", tmp_path / "out", *option)[1] is None
