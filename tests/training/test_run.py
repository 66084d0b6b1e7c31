"""The run folder: where files go, and what is read back."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import yaml

from fullconv.errors import DataError, OptionError
from fullconv.training.run import COLUMNS, RunFolder


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


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: [1", "run.yaml cannot be read"), (b"\xff\xfe\x00", "cannot be read"), (b"- 1", "holds no options")],
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
    with folder.metrics.open("a") as file:
        file.write("40,1.5\n")  # cut short by a power failure
    again = RunFolder(tmp_path)
    again.restore_rows(20)
    assert [(row["step"], row["loss"], row["lr"]) for row in again.rows] == [(10, 0.1, None), (20, 0.2, None)]
    again.add({"step": 25, "loss": 0.1})
    last = RunFolder(tmp_path)
    last.restore_rows(100)
    assert [row["step"] for row in last.rows] == [10, 20, 25]


def test_a_step_may_have_a_million_and_more(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.add({"step": 12_345_678, "loss": 0.1})
    again = RunFolder(tmp_path)
    again.restore_rows(12_345_678)
    assert [row["step"] for row in again.rows] == [12_345_678]


def test_no_metrics_are_no_error_and_damaged_ones_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.restore_rows(5)
    assert folder.rows == []
    folder.metrics.write_text("step,loss\n10,1.2e\n")
    with pytest.raises(DataError, match=r"metrics.csv cannot be read \(.*1.2e.*move it away"):
        folder.restore_rows(10)
