"""`fullconv convert`, and `fullconv inspect` of the paper's nets: what they print, and their exit codes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from caffe_nets import caffe_net
from caffe_writer import Layers, write_caffemodel
from command import Result, Run, one_line
from fullconv.inference.model import Model
from fullconv.paper import Column, Count, Published, Table1
from fullconv.weights.published import PUBLISHED, PublishedWeights

NET = "voc-fcn-googlenet"
"""The smallest of the paper's nets, 24 MB at the full width that the command line makes."""


@pytest.fixture(scope="module")
def layers() -> Layers:
    return caffe_net(NET, (32, 32)).layers


@pytest.fixture(scope="module")
def released(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caffe") / "released.caffemodel"
    write_caffemodel(path, layers)
    return path


@pytest.fixture(scope="module")
def classifier(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its trunk and fourteen layers more, one of a name that could play with a terminal."""
    path = tmp_path_factory.mktemp("caffe") / "classifier.caffemodel"
    trunk = [layer for layer in layers if layer[0] not in ("score_fr", "upscore")]
    extra = [f"extra{number}" for number in range(12)] + ["loss3/classifier", "odd\n\x1b[31m"]
    blobs = [np.ones((2, 3), np.float32), np.ones(2, np.float32)]
    write_caffemodel(path, [*trunk, *((name, "InnerProduct", blobs) for name in extra)])
    return path


def test_convert_prints_layers_facts_and_the_model(run: Run, released: Path, tmp_path: Path) -> None:
    result = run("convert", released, "--net", NET, "-o", tmp_path / "m.safetensors")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].split() == ["layer", "in", "the", "file", "shape", "there", "shape", "here", "parameters", "what"]
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("trunks.", "heads."))}
    assert len(rows) == 3 + 9 * 6 + 2
    assert rows["trunks.image.conv1.7x7_s2"] == ["conv1/7x7_s2", "64x3x7x7", "64x3x7x7", "9,472", "copied"]
    assert rows["trunks.image.inception_5b.pool_proj"] == [
        "inception_5b/pool_proj", "128x832x1x1", "128x832x1x1", "106,624", "copied",
    ]  # fmt: skip
    assert rows["heads.semantic.score.image.32"] == ["score_fr", "21x1024x1x1", "21x1024x1x1", "21,525", "copied"]
    upscore = ["upscore", "21x21x63x63", "bilinear,", "as", "computed"]
    assert rows["heads.semantic.upscore.output"] == upscore
    total = sum(int(words[3].replace(",", "")) for words in rows.values() if words != upscore)
    assert total == 5_995_077  # reference 1.3
    assert "5,995,077 parameters" in result.out
    sha256 = hashlib.sha256(released.read_bytes()).hexdigest()
    assert f"released.caffemodel: Caffe model, sha256 {sha256[:16]}...\n" in result.out
    assert lines[-1] == f"Model   {tmp_path / 'm.safetensors'}"
    for absent in ("not used", "Zero", "scores on", "is the published"):
        assert absent not in result.out
    model = Model.load(tmp_path / "m.safetensors")
    assert model.training["converted_from"][0]["sha256"] == sha256
    assert model.predict(np.zeros((20, 30, 3), np.uint8)).labels.shape == (20, 30)


def test_convert_for_machines(run: Run, released: Path, tmp_path: Path) -> None:
    result = run("convert", released, "--net", NET, "-o", tmp_path / "m.safetensors", "--json")
    assert (result.code, result.err) == (0, "")
    value = json.loads(result.out)
    assert (value["model"], value["net"], value["parameters"]) == (str(tmp_path / "m.safetensors"), NET, 5_995_077)
    assert (value["zero"], value["dropped"], value["known_scores"]) == ([], [], {})
    assert [source["file"] for source in value["sources"]] == ["released.caffemodel"]
    assert len(value["entries"]) == 2 * (3 + 9 * 6 + 1)
    first = {"key": "trunks.image.conv1.7x7_s2.weight", "shape": [64, 3, 7, 7], "how": "copied"}
    assert first.items() <= value["entries"][0].items()
    assert [each["name"] for each in value["checked"]] == ["upscore"]
    assert Path(value["model"]).exists()


def test_a_published_file_is_named_with_its_scores(
    run: Run, released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = f"sha1:{hashlib.sha1(released.read_bytes()).hexdigest()}"
    scores = {"pixel accuracy": 0.9, "mean IU": 0.425}
    known = PublishedWeights("", NET, digest, "", "", "seg11valid (736 images)", scores)
    monkeypatch.setitem(PUBLISHED, NET, known)
    result = run("convert", released, "--net", NET, "-o", tmp_path / "m.safetensors")
    assert result.code == 0
    assert f" is the published {NET}\n" in result.out
    expected = f"The published {NET} scores on seg11valid (736 images): pixel accuracy 90.0, mean IU 42.5\n"
    assert expected in result.out


def test_a_classifier_says_what_is_left_to_train(run: Run, classifier: Path, tmp_path: Path) -> None:
    result = run("convert", classifier, "--net", "fcn32s-googlenet", "-o", tmp_path / "m.safetensors", "--classes", "5",
                 "--padding", "paper", "--upsampling", "learned-all")  # fmt: skip
    assert (result.code, result.err) == (0, "")
    unused = ", ".join(f"extra{number} (InnerProduct)" for number in range(12))
    assert f"In the files and not used: {unused} and 2 more\n" in result.out
    assert "Zero, to be trained (fullconv train --init): heads.semantic.score.image.32" in result.out
    assert "\x1b" not in result.out
    (row,) = [line.split() for line in result.out.splitlines() if line.startswith("heads.semantic.upscore.output")]
    assert row == ["heads.semantic.upscore.output", "5x5x63x63", "99,225", "bilinear"]
    options = Model.load(tmp_path / "m.safetensors").net.options
    assert (dict(options.classes), options.padding, options.upsampling) == ({"semantic": 5}, "paper", "learned-all")
    shown = run("convert", classifier, "--net", "fcn32s-googlenet", "-o", tmp_path / "m.safetensors", "--json")
    assert json.loads(shown.out)["dropped"][-1] == "odd\\n\\x1b[31m (InnerProduct)"


def test_what_cannot_work_exits_2(run: Run, released: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    (tmp_path / "weights.onnx").write_bytes(b"?")
    for args, expected in (
        (("convert", released, "--net", "voc-fcn-google", "-o", out), "did you mean 'voc-fcn-googlenet'?"),
        (("convert", released, "--net", NET, "-o", out, "--padding", "papier"), "did you mean 'paper'?"),
        (("convert", released, "--net", NET, "-o", out, "--classes", "0"), "has 0 classes; expected 1 to 255"),
        (("convert", released, "--net", "fcn8s-resnet18", "-o", out), "Caffe models are known for the trunks"),
        (("convert", tmp_path / "weights.onnx", "--net", NET, "-o", out), "weights.onnx: weights are read from"),
    ):
        result = run(*args)
        assert result.code == 2, args
        assert expected in one_line(result)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.onnx"]


@pytest.mark.parametrize(
    ("missing", "args"),
    [("--net", ["f.caffemodel", "-o", "m"]), ("--out", ["f.caffemodel", "--net", NET]), ("FILE", ["--net", NET])],
)
def test_usage(run: Run, missing: str, args: list[str]) -> None:
    result = run("convert", *args)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith("; see fullconv convert --help\n")
    assert result.err.count("\n") == 1
    assert missing in result.err


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_files_that_cannot_be_converted_exit_1(
    json_: tuple[str, ...], run: Run, released: Path, classifier: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.caffemodel"
    damaged.write_bytes(released.read_bytes()[:-1000])
    nan = tmp_path / "nan.caffemodel"
    write_caffemodel(nan, [("conv1_1", "Convolution", [np.full((64, 3, 3, 3), np.nan, "f4"), np.ones(64, "f4")])])
    (tmp_path / "file").write_text("in the way of a folder")
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "m.safetensors"
    for path, net, target, expected in (
        (damaged, NET, out, f"{damaged} is damaged at byte "),
        (tmp_path / "none.caffemodel", NET, out, "none.caffemodel does not exist"),
        (released, "voc-fcn8s", out, "none of its layers is one of vgg16"),
        (nan, "voc-fcn8s", out, "conv1_1 holds values that are not finite"),
        (classifier, NET, tmp_path / "file" / "m.safetensors", "file"),
    ):
        result = run("convert", path, "--net", net, "-o", target, *json_)
        assert result.code == 1, path
        assert expected in one_line(result)
    assert sorted(tmp_path.iterdir()) == before


TABLE = Table1(
    (37, 53),
    [Column("n", Published("FCN-X", 22, "6M", 907, 32, 0.059), 21, 5_000_000, 715, 906, 7, 31, 0.123)],
    [Count("voc-fcn-x", 5_995_077, 5_995_078, None, 7_745_406)],
)


def test_inspect_paper(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a table of ours; the real one takes seconds and is the business of the tests of `fullconv.paper`."""
    sizes = []

    def table(size: tuple[int, int]) -> Table1:
        sizes.append(size)
        return TABLE

    monkeypatch.setattr("fullconv.paper.table_1", table)
    shown = run("inspect", "--paper", "--size", "37x53")
    assert (shown.code, shown.err) == (0, "")
    for expected in ("FCN-X", "907", "715", "906", "5,995,077", "5,995,078", "7,745,406", "123", "37 x 53"):
        assert expected in shown.out, expected
    machine = run("inspect", "--paper", "--json")
    assert json.loads(machine.out) == json.loads(json.dumps(TABLE.to_json()))
    assert sizes == [(37, 53), (500, 500)]  # the paper's


@pytest.mark.parametrize("args", [(), ("--json",), ("--paper", "voc-fcn8s"), ("voc-fcn8s", "--paper", "--json")])
def test_inspect_takes_a_net_or_paper(args: tuple[str, ...], run: Run) -> None:
    result = run("inspect", *args)
    assert result.code == 2
    names = "name a net, a model file or FILE.py:NAME, such as fcn8s-vgg16"
    assert one_line(result) == f"{names}; or give --paper, with no more than --size"


def rows(result: Result) -> dict[str, list[str]]:
    assert (result.code, result.err) == (0, "")
    return {line.split("  ")[0].strip(): line.split() for line in result.out.splitlines() if line}


def test_inspect_voc_fcn8s(run: Run) -> None:
    """Reference 1.2, 1.3, 3.2 and 3.4."""
    shown = run("inspect", "voc-fcn8s")
    table = rows(shown)
    assert table["conv1_1"][:8] == ["conv1_1", "Conv2d", "64", "x", "698", "x", "698", "1,792"]
    assert table["fc6"][2:9] == ["4096", "x", "16", "x", "16", "102,764,544", "404"]
    assert table["score 8s"][2:9] == ["Conv2d", "21", "x", "88", "x", "88", "5,397"]
    crops = {name: words[4:6] + words[7:] for name, words in table.items() if " -> " in name}
    assert crops == {
        "32s -> 16s": ["4", "2", "5", "of", "the", "skip"],
        "16s -> 8s": ["4", "2", "9", "of", "the", "skip"],
        "8s -> input": ["16", "8", "31", "of", "the", "upsampled"],
    }
    assert "parameters 134,362,751" in shown.out


def test_inspect_two_trunks(run: Run) -> None:
    shown = run("inspect", "nyud-fcn32s-color-hha")
    table = rows(shown)
    for trunk in ("color", "hha"):
        assert table[f"{trunk}.fc6"][2:9] == ["4096", "x", "16", "x", "16", "102,764,544", "404"]
        assert table[f"score 32s {trunk}"][4:10] == ["40", "x", "16", "x", "16", "163,880"]
    assert table["32s -> input"][4:6] + table["32s -> input"][7:8] == ["64", "32", "19"]
    # VGG-16 without fc8, and 40 scores of 4096 features, twice (reference 1.3).
    assert f"parameters {2 * (134_260_544 + 40 * 4097):,}" in shown.out


def test_inspect_googlenet_for_machines(run: Run) -> None:
    result = run("inspect", "fcn16s-googlenet", "--json")
    assert (result.code, result.err) == (0, "")
    value = json.loads(result.out)
    # Reference 2.4: all convolutions, and scores of inception_5b and 4e.
    assert value["parameters"] == 5_973_552 + 21 * (1024 + 1) + 21 * (832 + 1)
    layers = {layer["name"]: layer for layer in value["layers"]}
    # Reference 3.5, along the widest branches.
    fields = {"conv1.7x7_s2": 7, "pool1": 11, "conv2.3x3": 19, "pool2": 27, "inception_3a": 59, "inception_3b": 91}
    fields |= {"pool3": 107, "inception_4e": 427, "pool4": 459, "inception_5a": 587, "inception_5b": 715}
    assert {name: layers[name]["field"] for name in fields} == fields
    assert layers["inception_4e"]["size"][0] == 832
    assert [layer["name"] for layer in value["layers"] if layer["tap"]] == ["inception_4e", "drop"]
    assert (value["net"]["trunk"], value["net"]["stride"], value["net"]["padding"]) == ("googlenet", 16, "same")
