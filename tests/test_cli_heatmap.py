"""`fullconv heatmap`: what it writes and prints."""

from __future__ import annotations

import inspect as signatures
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fullconv
from command import Run, one_line
from fullconv.cli.heatmap import heatmap
from fullconv.inference.heatmap import DenseModel, heatmaps
from fullconv.inference.model import Model
from fullconv.labels import LabelSet
from fullconv.nets import InputOptions, build
from fullconv.report.heat import OPACITY

NAMES = ("tabby cat", "tiger cat", "[red]dog", "fish")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of random weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 4))
    path = tmp_path_factory.mktemp("model") / "dense.safetensors"
    options = InputOptions((120.0,) * 3, (40.0,) * 3)
    DenseModel(fullconv.convolutionalize(net, 16, names=NAMES, inputs=options)).save(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "my picture.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 52, 3)).astype(np.uint8)).save(path)
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.size


def test_one_class(run: Run, model: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "heat.png"
    result = run("heatmap", model, image, "--class", "TIGER", "-o", out)
    assert (result.code, result.err) == (0, "")
    found = DenseModel.load(model).heatmap(image, "tiger cat")
    row, column = found.position
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0] == ["class", "highest", "row", "column"]
    assert lines[1] == ["tiger", "cat", f"{100 * found.peak:.1f}", "%", str(row), str(column)]
    assert "The highest probability of any window of 16 x 16, and where it begins." in result.out
    assert result.out.endswith(f"Heat map  {out}\n")
    assert min(size_of(out)) > 400
    plain = tmp_path / "plain.png"
    run("heatmap", model, image, "--class", "tiger", "-o", plain, "--opacity", "0")
    assert plain.read_bytes() != out.read_bytes()


def test_the_top_classes(run: Run, model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("heatmap", model, image)
    assert result.code == 0, result.err
    names = [each.name for each in DenseModel.load(model).top(image)]
    assert [line.split("  ")[0] for line in result.out.splitlines()[1:5]] == names, "all four, the most probable first"
    assert (tmp_path / "my picture_heatmap.png").is_file()
    assert result.out.endswith("Heat map  my picture_heatmap.png\n")


def test_for_machines(run: Run, model: Path, image: Path, tmp_path: Path) -> None:
    result = run("heatmap", model, image, "--top", "2", "-o", tmp_path / "a.png", "--json")
    assert (result.code, result.err) == (0, "")
    maps = DenseModel.load(model).top(image, 2)
    assert json.loads(result.out) == {
        "classes": [
            {
                "name": each.name, "peak": each.peak, "row": each.position[0], "column": each.position[1],
                "height": 16, "width": 16,
            }
            for each in maps
        ],
        "picture": str(tmp_path / "a.png"),
    }  # fmt: skip


def test_an_fcn(run: Run, image: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build("fcn1s-slim", 3, width=0.1)
    for name, parameter in net.named_parameters():
        if "score" in name:
            nn.init.normal_(parameter, std=0.5)
    file = tmp_path / "fcn.safetensors"
    model = Model(net, LabelSet(("ground", "road", "car")))
    model.save(file)
    result = run("heatmap", file, image, "--class", "road", "-o", tmp_path / "a.png", "--json")
    assert result.code == 0, result.err
    (found,) = json.loads(result.out)["classes"]
    (expected,) = heatmaps(model, image, "road")
    assert found == {
        "name": "road", "peak": pytest.approx(expected.peak), "row": expected.position[0],
        "column": expected.position[1], "height": 1, "width": 1,
    }  # fmt: skip
    assert "of any pixel, and where it is." in run("heatmap", file, image, "-o", tmp_path / "a.png").out


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["MODEL", "IMAGE", "--class", "cat"], 2, "class 'cat' may be 'tabby cat', 'tiger cat'; give more of the name"),
        (["MODEL", "IMAGE", "--class", "fisch"], 2, "unknown class 'fisch'; did you mean 'fish'? Choices: "),
        (["MODEL", "IMAGE", "--class", "fish", "--top", "2"], 2, "--class names one class and --top counts several"),
        (["MODEL", "IMAGE", "--top", "0"], 2, "0 classes; expected at least 1"),
        (["MODEL", "IMAGE", "--opacity", "1.5"], 2, "opacity 1.5; expected 0 (the image) to 1 (the colours)"),
        (["MODEL", "IMAGE", "-o", "a.jpg"], 2, "a.jpg does not end in .png; heat maps are PNG"),
        (["MODEL", "SMALL", "-o", "SMALL"], 2, "small.png would replace the image; choose another name"),
        (["MODEL", "SMALL"], 1, "small.png: the image is 9 x 30 pixels (H x W), the classifier takes 16 x 16 or more"),
        (["MODEL", "none.png"], 1, "none.png: no such file; check the path"),
        (["MODEL", "MODEL"], 1, "holds something unknown, expected a JPEG"),
        (["none.safetensors", "IMAGE"], 1, "none.safetensors does not exist; expected a"),
        (["IMAGE", "IMAGE"], 1, "is no safetensors file"),
    ],
)
def test_errors_are_one_line(
    run: Run, model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    args: list[str], code: int, expected: str,
) -> None:  # fmt: skip
    small = tmp_path / "small.png"
    Image.fromarray(np.zeros((9, 30, 3), np.uint8)).save(small)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    places = {"MODEL": model, "IMAGE": image, "SMALL": small}
    assert expected in one_line(run("heatmap", *(places.get(arg, arg) for arg in args)), code)
    assert set(tmp_path.iterdir()) == before, "nothing is left behind"


def test_the_default_opacity_is_that_of_python() -> None:
    assert signatures.signature(heatmap).parameters["opacity"].default == OPACITY
