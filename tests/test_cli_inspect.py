"""`fullconv inspect` of the user's own code, and its drawings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fullconv
from command import Run, one_line
from fullconv.cli import main
from fullconv.errors import FullconvError
from fullconv.inference.heatmap import DenseModel
from fullconv.inference.model import Model
from fullconv.nets import build

CODE = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn
from {helper} import block

@dataclass
class Options:  # annotations of dataclasses are looked up in sys.modules
    width: int = 8

class Stem(nn.Sequential):
    def __init__(self, width: int = Options().width) -> None:
        super().__init__(nn.Conv2d(3, width, 7, 2, 3), *block(), nn.AdaptiveAvgPool2d(1))

def build():
    return Stem().train()

def sized(width, depth=3):
    return Stem(width)

def nothing():
    return 3

def fails():
    raise KeyError("a")

def leaves():
    raise SystemExit(3)

module = Stem(4)
number = 3
_hidden = build
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A file with a net, which imports from its own folder."""
    path = tmp_path / "my net" / "net.py"
    path.parent.mkdir()
    helper = f"helper_{abs(hash(tmp_path))}"  # one of its own: modules that were imported stay
    (path.parent / f"{helper}.py").write_text(
        "from torch import nn\ndef block():\n    return [nn.BatchNorm2d(8), nn.MaxPool2d(3, 2, 1)]\n"
    )
    path.write_text(CODE.format(helper=helper))
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.py"
    path.write_text("a = 1\nb = a +\n")
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.load()
        return picture.size


class TestCode:
    def test_the_table(self, run: Run, code: Path) -> None:
        before = list(sys.path)
        result = run("inspect", f"{code}:build", "--size", "64x48")
        assert (result.code, result.err) == (0, "")
        lines = [line.split() for line in result.out.splitlines()]
        assert lines[0] == ["input", "3", "x", "64", "x", "48,", "1,200", "parameters"]
        # By hand: 7 at stride 2 from -3; 7 + 2 * 2 = 11 at stride 4 from -5; 8 * (3 * 49 + 1) and 2 * 8 parameters.
        assert ["0", "Conv2d", "8", "x", "32", "x", "24", "1,184", "7x7", "s2", "p3", "7", "2", "-3", "0"] in lines
        assert ["2", "MaxPool2d", "8", "x", "16", "x", "12", "3x3", "s2", "p1", "11", "4", "-5", "0"] in lines
        assert "3 (AdaptiveAvgPool2d) pools over the whole map" in result.out
        assert "takes statistics of the batch" not in result.out, "it is looked at in evaluation mode"
        assert sys.path == before

    def test_every_way_to_make_a_module(self, run: Run, code: Path) -> None:
        values = [json.loads(run("inspect", f"{code}:{name}", "--json").out) for name in ("build", "Stem", "_hidden")]
        assert values[0] == values[1] == values[2]
        assert values[0]["inputs"] == {"input": [3, 224, 224]}
        assert values[0]["layers"][2]["fields"]["input"]["field"] == [11, 11]
        assert values[0]["obstacles"] == [
            {"name": "3", "kind": "AdaptiveAvgPool2d", "reason": "pools over the whole map"}
        ]

    def test_a_module_that_is_there(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "here.py"
        path.write_text("from torch import nn\nnet = nn.Conv2d(5, 2, 3)\nact = nn.ReLU()\n")
        assert json.loads(run("inspect", f"{path}:net", "--json").out)["inputs"] == {"input": [5, 224, 224]}
        value = json.loads(run("inspect", f"{path}:act", "--channels", "2", "--size", "3x4", "--json").out)
        assert value["inputs"] == {"input": [2, 3, 4]}

    def test_python_says_the_same(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "same.py"
        path.write_text("from torch import nn\nnet = nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2))\n")
        net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.MaxPool2d(2))
        assert run("inspect", f"{path}:net", "--size", "9x8").out.strip() == str(fullconv.receptive_field(net, (9, 8)))

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (
                "biuld",
                "unknown name in CODE: 'biuld'; did you mean 'build'? Choices: Options, Stem, build, fails, leaves",
            ),
            ("sized", "CODE:sized: missing a required argument: 'width'; name a function without required arguments"),
            ("nothing", "CODE:nothing gives int; expected a torch.nn.Module"),
            ("number", "CODE:number gives int; expected a torch.nn.Module"),
        ],
    )
    def test_names_that_make_no_module(self, run: Run, code: Path, name: str, expected: str) -> None:
        assert expected.replace("CODE", str(code)) in one_line(run("inspect", f"{code}:{name}"), 2)

    @pytest.mark.parametrize(
        ("name", "expected"), [("fails", "line 26 raised KeyError: 'a'; correct"), ("leaves", "raised SystemExit: 3")]
    )
    def test_code_that_fails(
        self, run: Run, code: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
    ) -> None:
        before = list(sys.path)
        assert expected in one_line(run("inspect", f"{code}:{name}"), 1)
        assert sys.path == before
        monkeypatch.setattr(sys, "argv", ["fullconv", "--debug", "inspect", f"{code}:{name}"])
        with pytest.raises(FullconvError) as caught:
            main()
        assert isinstance(caught.value.__cause__, KeyError | SystemExit)

    def test_files_that_are_none(self, run: Run, code: Path, broken: Path, tmp_path: Path) -> None:
        none = tmp_path / "none.py"
        assert one_line(run("inspect", f"{none}:build"), 2) == f"{none} does not exist; expected FILE.py:NAME"
        none.mkdir()
        assert one_line(run("inspect", f"{none}:build"), 2) == f"{none} is a folder; expected FILE.py:NAME"
        assert f"{code} is code; add the name of what makes the net, such as {code}:build" in one_line(
            run("inspect", str(code)), 2
        )
        assert f"{broken}, line 2 raised SyntaxError" in one_line(run("inspect", f"{broken}:net"), 1)


class TestOptions:
    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            (["CODE:build", "--classes", "3"], "classes and padding are options of named nets"),
            (["CODE:build", "--padding", "same"], "classes and padding are options of named nets"),
            (["fcn8s-slim", "--channels", "3"], "channels are an option for code; leave them out"),
            (["fcn8s-slim", "--unit", "pool1:0,0"], "--image and --unit say what is drawn; add --picture OUT.png"),
            (["fcn8s-slim", "--image", "a.png"], "--image and --unit say what is drawn; add --picture OUT.png"),
            (["fcn8s-slim", "--picture", "a.jpg"], "a.jpg does not end in .png; drawings are PNG"),
            (["fcn8s-slim", "--picture", "IMAGE", "--image", "IMAGE"], "would replace the image; choose another name"),
            (
                ["fcn8s-slim", "--picture", "a.png", "--image", "IMAGE", "--size", "5x5"],
                "the image's size is the input",
            ),
            (["fcn8s-slim", "--picture", "a.png", "--unit", "pool1"], "unit 'pool1'; expected LAYER:ROW,COLUMN"),
            (["fcn8s-slim", "--picture", "a.png", "--unit", "pool1:0,0,0"], "unit 'pool1:0,0,0'; expected LAYER"),
            (["--paper", "--picture", "a.png"], "or give --paper, with no more than --size"),
            ([], "name a net, a model file or FILE.py:NAME, such as fcn8s-vgg16"),
        ],
    )
    def test_that_cannot_work(
        self, run: Run, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], expected: str
    ) -> None:
        image = tmp_path / "image.png"
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(image)
        monkeypatch.chdir(tmp_path)
        before = set(tmp_path.iterdir())
        words = [arg.replace("CODE", str(code)).replace("IMAGE", str(image)) for arg in args]
        assert expected in one_line(run("inspect", *words), 2)
        assert set(tmp_path.iterdir()) == before


class TestPictures:
    def test_of_a_named_net_over_an_image(self, run: Run, tmp_path: Path) -> None:
        image, out = tmp_path / "image.png", tmp_path / "new" / "fields.png"
        Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(image)
        result = run("inspect", "fcn8s-slim", "--picture", out, "--image", image, "--unit", "output:59,89")
        assert result.code == 0, result.err
        assert "input 60 x 90" in result.out
        assert result.out.rstrip().endswith(f"Drawing  {out}")
        assert min(size_of(out)) > 300
        value = json.loads(run("inspect", "fcn8s-slim", "--picture", out, "--image", image, "--json").out)
        assert (value["size"], value["picture"]) == ([60, 90], str(out))

    def test_of_code_and_of_model_files(self, run: Run, code: Path, tmp_path: Path) -> None:
        fcn, dense = tmp_path / "fcn.safetensors", tmp_path / "dense.safetensors"
        Model(build("fcn1s-slim", 3, width=0.1)).save(fcn)
        torch.manual_seed(0)
        classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 49, 5))
        DenseModel(fullconv.convolutionalize(classifier, 16)).save(dense)
        for name in (f"{code}:build", fcn, dense):
            out = tmp_path / "out.png"
            result = run("inspect", name, "--picture", out)
            assert result.code == 0, result.err
            assert min(size_of(out)) > 300
            out.unlink()
        assert "input 3 x 16 x 16" in run("inspect", dense).out
        value = json.loads(run("inspect", dense, "--size", "40x30", "--json").out)
        assert value["layers"][-1]["shape"] == [5, 13, 8]  # (40 - 16) / 2 + 1 and (30 - 16) / 2 + 1
        assert value["layers"][-1]["fields"]["x"]["field"] == [16, 16]
        assert "has its own classes and padding; leave the options out" in one_line(
            run("inspect", dense, "--classes", "3"), 2
        )
