"""The run folder: where files go, and what is read back."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from fullconv.data.sample import SEMANTIC
from fullconv.errors import DataError, OptionError, TrainingError
from fullconv.labels import LabelSet
from fullconv.nets import build
from fullconv.training.run import COLUMNS, RunFolder, how_far
from fullconv.training.table import Row
from fullconv.weights.modelfile import KEY, ModelFile, write_model


def test_a_run_folder_makes_nothing_before_it_is_written_to(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []
    folder.write_options({"seed": 3})
    assert [path.name for path in folder.path.iterdir()] == ["run.yaml"]


def test_options_come_back_and_are_readable_yaml(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    options = {"data": "Straße/ü", "lr": 1e-10, "crop": None, "net": {"trunk": "slim"}, "yes": "no"}
    folder.write_options(options)
    assert folder.read_options() == options
    text = folder.options.read_text(encoding="utf-8")
    assert yaml.safe_load(text) == options
    assert "Straße" in text
    assert text.index("lr") < text.index("crop"), "in the order given"
    shared = [1, 2]
    folder.write_options({"a": shared, "b": {"c": shared}})
    assert folder.read_options() == {"a": [1, 2], "b": {"c": [1, 2]}}, "without aliases"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "run.yaml: is not valid YAML"),
        (b"\xff\xfe\x00", "run.yaml: is not UTF-8 text"),
        (b"a: &b [1]\nc: *b", "run.yaml: .*alias"),
        (b"- 1", "holds no options"),
    ],
)
def test_damaged_options_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(DataError, match=f"{message}.*start a new run"):
        RunFolder(tmp_path, resume=True).read_options()


def test_a_run_is_neither_overwritten_nor_invented(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="holds no run to resume; name the folder of one with --out"):
        RunFolder(tmp_path, resume=True)
    RunFolder(tmp_path).write_options({})
    with pytest.raises(OptionError, match="holds a run already; add --resume"):
        RunFolder(tmp_path)
    RunFolder(tmp_path, resume=True)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OptionError, match="cannot be made a folder .*file is a file.*another --out"):
            RunFolder(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OptionError, match="cannot be made a folder .*may not be written to"):
        RunFolder(tmp_path / "locked" / "run")


def test_the_first_free_name(tmp_path: Path) -> None:
    found = []
    for _ in range(3):
        path = RunFolder.free(tmp_path, "wafer")
        path.mkdir()
        found.append(path.name)
    assert found == ["wafer", "wafer-2", "wafer-3"]


@pytest.mark.skipif(os.name != "posix", reason="no locks of this kind")
def test_a_folder_is_held_by_one_and_may_be_handed_over(tmp_path: Path) -> None:
    first, second, third = (RunFolder(tmp_path / "run") for _ in range(3))
    taken = "^another process trains in .*run; choose another --out$"
    first.hold()
    with pytest.raises(OptionError, match=taken):
        second.hold()
    second.hold(first)
    with pytest.raises(OptionError, match=taken):
        third.hold(first)  # it is handed over once
    first.release()
    with pytest.raises(OptionError, match=taken):
        third.hold()
    second.release()
    third.hold()
    third.write_options({})
    third.release()
    with pytest.raises(OptionError, match="holds a run already"):
        first.hold()
    RunFolder(tmp_path / "run", resume=True).hold()  # nor did that one keep it


def test_only_what_a_hold_made_is_gone_after_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for path in ("mine", "runs/new"):
        folder = RunFolder(tmp_path / path)
        folder.hold()
        assert folder.path.is_dir()
        folder.release()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    held = RunFolder(tmp_path / "runs" / "new")
    held.hold()
    other = RunFolder(tmp_path / "runs" / "new")
    if os.name == "posix":
        with pytest.raises(OptionError, match="another process trains in"):
            other.hold()
    other.release()  # as processes do that did not hold it
    assert held.path.is_dir()
    (held.path / "file").write_text("")
    held.release()
    assert (held.path / "file").exists()


def test_metrics_are_a_table_that_any_csv_reader_reads(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.add({"step": 1, "loss": 0.5, "lr": 1e-10})
    folder.add({"step": 2, "val_mean_iu": float("nan"), "loss": None})
    with folder.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["step"], rows[0]["loss"], rows[0]["lr"], rows[0]["val_mean_iu"]) == ("1", "0.5", "1e-10", "")
    assert (rows[1]["step"], rows[1]["loss"], rows[1]["val_mean_iu"]) == ("2", "", "nan")


def test_metrics_come_back_up_to_the_states_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30):
        folder.add({"step": step, "loss": step / 100})
    again = RunFolder(tmp_path)
    again.restore_rows(20)
    assert [(row["step"], row["loss"], row["lr"]) for row in again.rows] == [(10, 0.1, None), (20, 0.2, None)]
    again.add({"step": 25, "loss": 0.1})
    last = RunFolder(tmp_path)
    last.restore_rows(100)
    assert [row["step"] for row in last.rows] == [10, 20, 25]


def test_a_run_that_went_on_has_the_metrics_of_one_that_never_stopped(tmp_path: Path) -> None:
    rows: list[Row] = [{"step": s, "loss": 1 / s, "lr": 1e-10 / s, "val_mean_iu": [None, 1 / s][s % 2]} for s in STEPS]
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    for folder in (one, two):
        folder.add_columns(["loss_lovasz"])
    for row in rows:
        one.add(row)
    for row in rows[:5]:
        two.add(row)
    again = RunFolder(tmp_path / "two")
    again.restore_rows(STEPS[2])
    again.add_columns(["loss_lovasz"])
    for row in rows[3:]:
        again.add(row)
    assert two.metrics.read_bytes() == one.metrics.read_bytes()


def test_what_was_dropped_does_not_come_back_with_a_later_state(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (10, 20, 30):
        folder.add({"step": step})
    again = RunFolder(tmp_path)
    again.restore_rows(5)
    assert [line.split(b",")[0] for line in folder.metrics.read_bytes().splitlines()] == [b"step", b"10", b"20", b"30"]
    again.sync()  # before a state of step 25, with no row in between
    last = RunFolder(tmp_path)
    last.restore_rows(25)
    assert last.rows == []


STEPS = (10, 20, 20, 30, 1000, 12_345_678)


def written(path: Path) -> tuple[bytes, list[Row]]:
    """metrics.csv and its rows, of six lines."""
    folder = RunFolder(path)
    for step in STEPS:
        folder.add({"step": step, "epoch": step / 7, "loss": 0.25, "lr": 1e-10, "val_mean_iu": float(step % 3)})
    content = folder.metrics.read_bytes()
    folder.restore_rows(STEPS[-1])
    return content, folder.rows


TAILS = {
    "nothing": b"",
    "zeros": bytes(4096),
    "no text": b"\xff\xfe\r\n",
    "a quote": b'"',
    "lines": b"\0\r\n\n,,\n1.5\n",
}


@given(data=st.data(), tail=st.sampled_from(list(TAILS)))
def test_any_cut_of_the_metrics_gives_back_a_prefix(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, tail: str
) -> None:
    """As a kill leaves them, or a power cut, with what the file system puts where the lines should have been."""
    path = tmp_path_factory.mktemp("cut")
    content, rows = written(path)
    header = content.index(b"\n") + 1
    cut = data.draw(st.integers(header, len(content)))
    (path / "metrics.csv").write_bytes(content[:cut] + TAILS[tail])
    folder = RunFolder(path)
    folder.restore_rows(STEPS[-1])
    whole = content[header:cut].count(b"\n")
    assert folder.rows == rows[:whole]
    folder.add({"step": 99_999_999})
    again = RunFolder(path)
    again.restore_rows(99_999_999)
    assert [row["step"] for row in again.rows] == [*STEPS[:whole], 99_999_999]


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_a_cut_header_gives_back_nothing(tmp_path: Path, cut: int) -> None:
    content, _ = written(tmp_path)
    (tmp_path / "metrics.csv").write_bytes(content[:cut] + b"\0" * cut)
    folder = RunFolder(tmp_path)
    folder.restore_rows(100)
    assert folder.rows == []
    assert tuple(folder.columns) == COLUMNS


@pytest.mark.parametrize(
    "garbage", ["40,1.5", "40", "", "4\0,,,,,,,,,,", ",,,,,,,,,,", "x,,,,,,,,,,", "1.5,,,,,,,,,,", "nan,,,,,,,,,,"]
)
def test_a_garbled_last_line_is_dropped_and_one_in_the_middle_is_an_error(tmp_path: Path, garbage: str) -> None:
    folder = RunFolder(tmp_path)
    for step in (10, 20):
        folder.add({"step": step})
    with folder.metrics.open("a", newline="") as file:
        file.write(f"{garbage}\r\n{garbage}\r\n")
    again = RunFolder(tmp_path)
    again.restore_rows(50)
    assert [row["step"] for row in again.rows] == [10, 20]
    with folder.metrics.open("a", newline="") as file:
        file.write("40,,,,,,,,,,\r\n")
    again = RunFolder(tmp_path)
    again.restore_rows(30)
    assert [row["step"] for row in again.rows] == [10, 20], "what comes after it does not count"
    with pytest.raises(
        DataError, match=r"metrics.csv cannot be read \(line 4: found .*, expected 11 numbers\); move it"
    ):
        again.restore_rows(40)


def test_a_step_may_have_a_million_and_more(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.add({"step": 12_345_678, "loss": 0.1})
    again = RunFolder(tmp_path)
    again.restore_rows(12_345_678)
    assert [row["step"] for row in again.rows] == [12_345_678]


def test_no_metrics_are_no_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.restore_rows(5)
    folder.sync()
    assert folder.rows == folder.class_rows == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("loss,step\n", r"line 1: found 'loss,step', expected columns, the first of them step"),
        ("step,loss,loss\n1,2,3\n", "expected columns"),
        ("\0\0\0\0\n1,2\n", "expected columns"),
        ('step,"loss\n1,2\n', "unexpected end of data"),
        ("step,loss\n10,1.2e\n20,1\n", r"line 2: found '10,1.2e', expected 2 numbers"),
        ("step,loss\n10,1,2\n20,1\n", r"line 2: found '10,1,2'"),
        ("step,loss\n10,-\n11,x\n20,1\n", r"line 2: found"),
    ],
)
@pytest.mark.parametrize("name", ["metrics.csv", "class_iu.csv"])
def test_damaged_tables_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name} cannot be read \(.*{message}.*\); move it away to go on without it"):
        RunFolder(tmp_path).restore_rows(100)


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.csv").write_text("step\n")

    def fail(_: Path) -> bytes:
        raise OSError("Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataError, match=r"metrics.csv cannot be read \(Input/output error\); move it away"):
        RunFolder(tmp_path).restore_rows(100)


def test_further_losses_follow_the_loss(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.add_columns(["loss_dice", "loss_dice"])
    folder.add_columns(["loss_a,b", "loss_dice"])
    folder.add({"step": 1, "loss": 2, "loss_dice": 3, "loss_a,b": 4, "lr": 5})
    header, row = folder.metrics.read_text().splitlines()
    assert header.startswith('step,epoch,seconds,loss,loss_per_pixel,loss_dice,"loss_a,b",lr,images_per_s,val_pixel_')
    assert row == "1,,,2,,3,4,5,,,,,"
    again = RunFolder(tmp_path)
    again.restore_rows(1)
    assert again.columns == folder.columns
    assert again.rows[0]["loss_a,b"] == 4


@pytest.mark.parametrize("synced", [False, True])
def test_columns_may_come_late(tmp_path: Path, synced: bool) -> None:
    folder = RunFolder(tmp_path)
    folder.add({"step": 1, "lr": 0.5})
    folder.add_columns(["loss_dice"])
    if synced:
        folder.sync()
    folder.add({"step": 2, "loss_dice": 3})
    with folder.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["loss_dice"], row["lr"]) for row in rows] == [("1", "", "0.5"), ("2", "3", "")]


def test_the_metrics_of_older_runs_get_all_columns(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,lr,loss\n10,0.5,1e-05\n20,,\n")
    folder = RunFolder(tmp_path)
    folder.add_columns(["loss_dice"])
    folder.restore_rows(20)
    folder.add({"step": 30, "loss_per_pixel": 0.25, "loss_dice": 7})
    with folder.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == (*COLUMNS[:5], "loss_dice", *COLUMNS[5:])
    assert [(row["step"], row["lr"], row["loss"], row["loss_dice"]) for row in rows] == [
        ("10", "0.5", "1e-05", ""),
        ("20", "", "", ""),
        ("30", "", "", "7"),
    ]


NAN = float("nan")


def test_class_iu_is_a_table_of_its_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.class_names = {"semantic": ("background", "=1+2", 'a, "b"\nc')}
    folder.add_class_iu(10, {"semantic": (0.5, NAN, 1.0)})
    folder.add_class_iu(20, {"semantic": (0.25, 1 / 3, 0.0)})
    with folder.class_iu.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["step", "background", "=1+2", 'a, "b"\nc'],
        ["10", "0.5", "", "1"],
        ["20", "0.25", "0.333333", "0"],
    ]
    first: Row = {"step": 10, "background": 0.5, "=1+2": None, 'a, "b"\nc': 1}
    assert folder.class_rows[0] == first

    again = RunFolder(tmp_path)
    again.restore_rows(15)
    assert again.class_rows == [first]
    again.class_names = folder.class_names
    again.add_class_iu(20, {"semantic": (0.25, 1 / 3, 0.0)})
    with folder.class_iu.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == lines


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ({"a": ("x", "y"), "b": ("x",)}, ["a: x", "a: y", "b: x"]),
        ({"a": ("x", "step")}, ["a: x", "a: step"]),
        ({"a": ("é", "x")}, ["é", "x"]),
    ],
)
def test_columns_of_class_iu_are_never_the_same(
    tmp_path: Path, names: dict[str, list[str]], columns: list[str]
) -> None:
    folder = RunFolder(tmp_path)
    folder.class_names = names
    folder.add_class_iu(1, {task: [0.5] * len(classes) for task, classes in names.items()})
    assert folder.class_rows == [{"step": 1, **dict.fromkeys(columns, 0.5)}]
    assert folder.class_iu.read_text(encoding="utf-8").splitlines()[0] == ",".join(["step", *columns])


def test_as_many_classes_as_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.class_names = {"semantic": ("a", "b")}
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        folder.add_class_iu(1, {"semantic": [0.5]})


def test_sync_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.class_names = {"semantic": ("a",)}
    for step in (1, 2):
        folder.add({"step": step})
        folder.add_class_iu(step, {"semantic": [0.5]})
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").resolve().name))
    folder.add({"step": 3})
    assert synced == []
    folder.sync()
    if Path("/proc/self/fd").is_dir():
        assert synced == ["metrics.csv", "class_iu.csv"]
    assert len(synced) == 2


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
@pytest.mark.parametrize("name", ["metrics.csv", "class_iu.csv"])
def test_a_full_disk_is_named(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    folder.class_names = {"semantic": ("a",)}
    write = {
        "metrics.csv": lambda: folder.add({"step": 1}),
        "class_iu.csv": lambda: folder.add_class_iu(1, {"semantic": [1]}),
    }
    write[name]()
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/full")
    message = rf"{name}: cannot be written \(No space left on device\); free some space and go on with --resume"
    with pytest.raises(TrainingError, match=message):
        write[name]()


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.add({"step": 1})
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"metrics.csv: cannot be written \(No such file or directory\)"):
        folder.add({"step": 2})
    with pytest.raises(TrainingError, match=r"metrics.csv: cannot be written \(No such file or directory\)"):
        folder.sync()


def test_only_a_scored_best_model_has_a_mean_iu(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.best_mean_iu() == -1
    net, labels = build("fcn32s-slim", 2, width=0.1), {SEMANTIC: LabelSet.numbered(2)}
    for metrics, expected in (({}, -1), ({"val": {"mean_iu": 0.25}}, 0.25)):
        write_model(folder.best, ModelFile(net, labels, {}, metrics))
        assert folder.best_mean_iu() == expected


@pytest.mark.parametrize(
    ("training", "known"),
    [
        ({"steps_done": 7, "seconds": 1.5, "progress": 0.25, "seed": 3}, {"steps_done", "seconds", "progress"}),
        ({"steps_done": 0, "seconds": 0, "progress": 1}, {"steps_done", "seconds", "progress"}),
        ({"steps_done": 7}, {"steps_done"}),
        ({"steps_done": True, "seconds": "1", "progress": 1.01}, set()),
        ({"steps_done": -1, "seconds": None, "progress": [1]}, set()),
        ({"steps_done": 1 << 60, "seconds": 1e300, "progress": -0.1}, set()),
        ({}, set()),
        ([], set()),
        (None, set()),
        ("steps_done", set()),
    ],
)
def test_the_last_model_says_how_far_a_run_had_come(tmp_path: Path, training: Any, known: set[str]) -> None:
    header = json.dumps({"format": 1, "training": training})
    save_file({}, tmp_path / "last.safetensors", {KEY: header})
    expected = {key: training[key] for key in known}
    assert how_far(tmp_path) == expected


def test_of_no_last_model_or_a_damaged_one_nothing_is_known(tmp_path: Path) -> None:
    assert how_far(tmp_path) == {}
    last = tmp_path / "last.safetensors"
    net, labels = build("fcn32s-slim", 2, width=0.1), {SEMANTIC: LabelSet.numbered(2)}
    write_model(last, ModelFile(net, labels, {"steps_done": 5}))
    assert how_far(tmp_path) == {"steps_done": 5}
    content = last.read_bytes()
    for damaged in (b"", content[:-1], content[:100], b"\xff" * 100, content.replace(b'"format', b"'format")):
        last.write_bytes(damaged)
        assert how_far(tmp_path) == {}
    last.unlink()
    last.mkdir()
    assert how_far(tmp_path) == {}
    save_file({}, tmp_path / "bare.safetensors")
    (tmp_path / "bare.safetensors").replace(tmp_path / "file")
    last.rmdir()
    (tmp_path / "file").replace(last)
    assert how_far(tmp_path) == {}
