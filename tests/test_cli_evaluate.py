"""`fullconv evaluate` and `fullconv upper-bound`: what they print, write and refuse."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from command import Run, one_line
from fullconv.classes import SIFTFLOW_GEOMETRY
from fullconv.cli.evaluate import _geometric, _print_paper, _scored_by_paper, _write_confusion
from fullconv.cli.upper_bound import upper_bound as upper_bound_verb
from fullconv.data import open_dataset
from fullconv.data.camvid import CAMVID_LABELS
from fullconv.data.sample import SEMANTIC
from fullconv.errors import FullconvError, OptionError
from fullconv.inference.evaluate import Evaluation, evaluate
from fullconv.inference.model import Model
from fullconv.inference.upper_bound import upper_bound
from fullconv.labels import LabelSet
from fullconv.metrics import ConfusionMatrix
from fullconv.nets import build
from fullconv.paper_results import TABLES
from makers import make_camvid, make_folder, make_voc, save


def save_model(path: Path, labels: LabelSet) -> Path:
    """A model that has learned nothing but scores every class somewhere."""
    torch.manual_seed(1)
    net = build("fcn1s-slim", len(labels), width=0.1)
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    Model(net.eval(), labels).save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_folder(tmp_path_factory.mktemp("data") / "data")
    (root / "classes.txt").write_text("ground\nroad\ncar\n")
    return root


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    return save_model(data.parent / "m.safetensors", LabelSet(("ground", "road", "car")))


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("camvid")
    return save_model(root / "m.safetensors", CAMVID_LABELS), make_camvid(root / "camvid")


@pytest.fixture(scope="module")
def everything(data: Path, model: Path) -> Evaluation:
    return evaluate(model, data, "train", absent="excluded", boundary="2%", trimap=(1, 4))


ASKED = ("--split", "train", "--absent", "excluded", "--boundary", "2%", "--trimap", "1,4", "--worst", "2")


def line_of(out: str, start: str) -> list[str]:
    (line,) = [line for line in out.splitlines() if line.startswith(start)]
    return line.removeprefix(start).split()


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def test_what_is_asked_is_printed(run: Run, data: Path, model: Path, everything: Evaluation) -> None:
    result = run("evaluate", model, "--data", data, *ASKED)
    assert result.code == 0, result.err
    boundary, trimap = everything.boundary[SEMANTIC].scores(), everything.trimap[SEMANTIC].scores("excluded")
    scores = everything.scores
    for label, name in enumerate(("ground", "road", "car")):
        found = [percent(scores.iu[label]), percent(scores.accuracy[label]), percent(boundary.f[label])]
        assert line_of(result.out, name) == [*found, f"{scores.pixels[label]:,}"]
    assert f"boundary F {percent(boundary.mean)} (within 2%)" in result.out
    assert "classes without a true pixel are left out of mean IU" in result.out
    for start, width in (("within 1 pixel ", 1), ("within 4 pixels", 4)):
        own = trimap[width]
        assert line_of(result.out, start) == [
            percent(own.mean_iu), percent(own.pixel_accuracy), f"{sum(own.pixels):,}"
        ]  # fmt: skip
    worst = everything.worst(2)
    place = result.out.index("worst images")
    lines = [line.split() for line in result.out[place:].splitlines()[1:3]]
    assert lines == [[image.name, percent(image.mean_iu), percent(image.error)] for image in worst]


def test_nothing_more_is_printed_than_asked(run: Run, data: Path, model: Path) -> None:
    plain = run("evaluate", model, "--data", data).out
    for word in ("BF", "boundar", "worst", "left out", "published", "Confusion"):
        assert word not in plain


def test_json_holds_all_that_is_asked(
    run: Run, data: Path, model: Path, everything: Evaluation, tmp_path: Path
) -> None:
    file = tmp_path / "c.csv"
    result = run("evaluate", model, "--data", data, *ASKED, "--confusion", file, "--json")
    assert (result.code, result.err) == (0, "")
    normalised = everything.matrix.normalised()
    assert not np.isnan(normalised).any()
    assert json.loads(result.out) == {
        "split": "train",
        "classes": ["ground", "road", "car"],
        **everything.scores.to_json(),
        "absent": "excluded",
        "boundary": everything.boundary[SEMANTIC].to_json(),
        "trimap": everything.trimap[SEMANTIC].to_json("excluded"),
        "worst": [{"name": i.name, "mean_iu": i.mean_iu, "error": i.error} for i in everything.worst(2)],
        "confusion": {
            "file": str(file),
            "normalised": normalised.tolist(),
            "counts": everything.matrix.counts.tolist(),
        },
    }
    table = list(csv.reader(file.read_text().splitlines()))
    assert table[0] == ["truth / prediction", "ground", "road", "car"]
    assert [row[0] for row in table[1:]] == ["ground", "road", "car"]
    assert np.array([row[1:] for row in table[1:]], float).tolist() == normalised.tolist()


def test_confusion_of_absent_classes_and_as_a_picture(run: Run, camvid: tuple[Path, Path], tmp_path: Path) -> None:
    model, root = camvid
    mask = open_dataset(root, "test")[0].masks[SEMANTIC]
    absent = sorted(set(range(11)) - set(mask.ravel().tolist()))
    assert absent, "a scene that hides some class"
    result = run("evaluate", model, "--data", root, "--split", "test", "--confusion", tmp_path / "c.csv", "--json")
    rows = list(csv.reader((tmp_path / "c.csv").read_text().splitlines()))[1:]
    for label in absent:
        assert rows[label][1:] == [""] * 11
        assert json.loads(result.out)["confusion"]["normalised"][label] == [None] * 11
    result = run("evaluate", model, "--data", root, "--split", "test", "--confusion", tmp_path / "c.PNG")
    assert f"Confusion matrix  {tmp_path / 'c.PNG'}" in result.out
    content = (tmp_path / "c.PNG").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert min(struct.unpack(">II", content[16:24])) > 100


def test_absent_classes_count_in_bands_as_everywhere(run: Run, camvid: tuple[Path, Path], tmp_path: Path) -> None:
    model, _ = camvid
    root = make_camvid(tmp_path / "camvid", {"train": 1, "val": 1})
    (image,) = (root / "val").iterdir()
    found = Model.load(model).predict(image).labels
    save(root / "valannot" / image.name, np.where(found == found.max(), found.min(), found))
    near = evaluate(model, root, trimap=(2,)).trimap[SEMANTIC]
    assert near.to_json("excluded") != near.to_json(), "the net finds a class that the truth has not"
    for rule in ("excluded", "predicted"):
        value = json.loads(run("evaluate", model, "--data", root, "--trimap", "2", "--absent", rule, "--json").out)
        assert (value["absent"], value["trimap"]) == (rule, near.to_json(rule))


def test_papers_rows_stand_beside_the_runs(run: Run, camvid: tuple[Path, Path]) -> None:
    model, root = camvid
    scores = evaluate(model, root).scores
    shown = run("evaluate", model, "--data", root, "--paper")
    assert shown.code == 0, shown.err
    assert "CamVid, published" in shown.out
    numbers = (scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iu, scores.fw_iu)
    assert line_of(shown.out, "this run") == ["val", *map(percent, numbers), "measured", "now"]
    assert line_of(shown.out, "SegNet")[:3] == ["test", "62.5", "46.4"]
    place = shown.out.index("IU by class, with FC-DenseNet")
    sky = next(line for line in shown.out[place:].splitlines() if line.startswith("sky"))
    assert sky.split() == ["sky", "88.7", percent(scores.iu[0])]
    machine = json.loads(run("evaluate", model, "--data", root, "--paper", "--json").out)["paper"]
    assert machine["data"] == "CamVid"
    assert machine["unit"] == "percent"
    assert [row["net"] for row in machine["rows"]] == [row.net for row in TABLES["CamVid"].rows]


def test_geometric_accuracy_is_a_column_of_sift_flows_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    scores = ConfusionMatrix.from_counts(np.diag(np.arange(1, 34))).scores()
    _print_paper("SIFT Flow", scores, "test", 0.876)
    out = capsys.readouterr().out
    assert "geometric" in out
    assert line_of(out, "this run") == ["test", "100.0", "100.0", "100.0", "100.0", "87.6", "measured", "now"]
    assert line_of(out, "FCN-16s") == ["test", "85.2", "51.7", "39.5", "76.1", "94.3", "CVPR", "table", "5"]


def test_of_several_tasks_each_has_its_file_and_sift_flows_geometry_no_table(tmp_path: Path) -> None:
    matrices = {"semantic": ConfusionMatrix(1), "geometric": ConfusionMatrix.from_counts(np.diag([1, 2, 3]))}
    names = {"semantic": ["all"], "geometric": list(SIFTFLOW_GEOMETRY)}
    files = _write_confusion(tmp_path / "c.csv", matrices, names)
    assert files == {task: tmp_path / f"c-{task}.csv" for task in matrices}
    assert files["semantic"].read_text() == "truth / prediction,all\nall,\n"
    assert files["geometric"].read_text().splitlines()[3] == "vertical,0.0,0.0,1.0"
    assert _scored_by_paper(names) == ["semantic"]
    assert _scored_by_paper({"only": names["geometric"]}) == ["only"]
    scores = {"semantic": matrices["semantic"].scores(), "geometric": matrices["geometric"].scores()}
    assert _geometric(scores, names) == 1.0
    assert _geometric({"semantic": scores["semantic"]}, {"semantic": ["all"]}) is None


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--absent", "never"], "unknown rule for absent classes 'never'"),
        (["--boundary", "0%"], "boundary tolerance '0%'; expected pixels above 0, such as 2, or a share"),
        (["--trimap", "1,x"], "--trimap '1,x'; expected widths in pixels, such as 1,2,4,8,16"),
        (["--trimap", "4,2"], "trimap widths 4, 2; expected pixels from 1, ascending"),
        (["--worst", "0"], "--worst 0; expected 1 or more images"),
        (["--confusion", "c.txt"], "--confusion c.txt; expected a name that ends in .png or .csv"),
        (["--paper"], "no published results for these 3 classes (ground, road, car); there are some for VOC, NYUDv2"),
    ],
)
def test_options_that_cannot_work(run: Run, data: Path, model: Path, args: list[str], expected: str) -> None:
    result = run("evaluate", model, "--data", data, *args)
    assert expected in one_line(result, 2)


def bound(*args: str | Path) -> str:
    """What the verb prints."""
    app = typer.Typer()
    app.command()(upper_bound_verb)
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if isinstance(result.exception, FullconvError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_upper_bound_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    root = make_voc(tmp_path)
    expected = upper_bound(root, "train", (2, 4, 8))
    out = bound(root, "--split", "train", "--factors", "2,4,8", "--share", "0.2")
    by_factor = expected.scores[SEMANTIC]
    stride = expected.stride(SEMANTIC, 0.2)
    mean = [percent(scores.mean_iu) for scores in by_factor.values()]
    assert line_of(out, "mean IU ") == [*mean, str(stride)]
    assert line_of(out, "pixel accuracy ") == [percent(scores.pixel_accuracy) for scores in by_factor.values()]
    strides = expected.class_strides(SEMANTIC, 0.2)
    assert line_of(out, "tvmonitor ") == [
        *(percent(scores.iu[20]) for scores in by_factor.values()), str(strides[20])
    ]  # fmt: skip
    assert stride > 1
    assert f"These masks allow a mean IU of 20.0 up to stride {stride}." in out
    (line,) = [line for line in out.splitlines() if line.startswith("These classes need a finer stride: ")]
    thin = [name for name, own in zip(TABLES["VOC"].classes, strides, strict=True) if own and own < stride]
    assert line == f"These classes need a finer stride: {', '.join(map(repr, thin))}."
    assert "only below stride 2." in bound(root, "--factors", "2,4", "--share", "1")


def test_upper_bound_for_machines(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    expected = upper_bound(root, "val", (2, 8))
    value = json.loads(bound(root, "--factors", "8, 2", "--json"))
    assert value == {
        "split": "val",
        "share": 0.95,
        "classes": list(TABLES["VOC"].classes),
        "stride": expected.stride(SEMANTIC),
        "class_strides": list(expected.class_strides(SEMANTIC)),
        "factors": {str(factor): scores.to_json() for factor, scores in expected.scores[SEMANTIC].items()},
    }


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--factors", "8,x"], "--factors '8,x'; expected whole numbers with commas, such as 8,16,32"),
        (["--factors", "0"], "factors 0; expected whole numbers from 1 to 4096"),
        (["--share", "0"], "--share 0; expected a mean IU above 0, up to 1"),
        (["--share", "95"], "--share 95; expected a mean IU above 0, up to 1"),
    ],
)
def test_upper_bounds_that_cannot_work(tmp_path: Path, args: list[str], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        bound(make_voc(tmp_path), *args)
