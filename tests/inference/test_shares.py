"""shares.csv, as other programs read it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fullconv.errors import DataError, OptionError
from fullconv.inference.journal import Entry
from fullconv.inference.shares import COLUMNS, NAME, remove_shares, write_shares

NAMES = ("ground", "=1+1", 'a "b", c')


def entry(mask: str, *counts: int) -> Entry:
    return Entry(mask, "", (), 2, 3, counts)


def test_every_image_has_its_line(tmp_path: Path) -> None:
    rows = [(Path("in/b.jpg"), entry("b.png", 1, 2, 3)), (Path("in/a.jpg"), entry("x/a.png", 4, 0, 0))]
    write_shares(tmp_path / NAME, NAMES, rows)
    assert (tmp_path / NAME).read_text("utf-8") == (
        '"image","mask","height","width","ground","=1+1","a ""b"", c"\n'
        '"in/b.jpg","b.png",2,3,0.16666666666666666,0.3333333333333333,0.5\n'
        '"in/a.jpg","x/a.png",2,3,0.6666666666666666,0.0,0.0\n'  # two pixels are void
    )
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_any_name_comes_back_as_text(tmp_path: Path, names: list[str]) -> None:
    write_shares(tmp_path / NAME, ["k"], [(Path(name), entry(f"{name}.png", 6)) for name in names])
    with (tmp_path / NAME).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, strict=True)
    assert header == [*COLUMNS, "k"]
    assert rows == [[str(Path(name)), f"{name}.png", "2", "3", "1.0"] for name in names]


def test_names_that_are_no_utf_8_are_escaped(tmp_path: Path) -> None:
    write_shares(tmp_path / NAME, ["k\ud800"], [(Path("a\udcff"), entry("=HYPERLINK()\r\n.png", 6))])
    assert (tmp_path / NAME).read_bytes().decode("utf-8") == (
        '"image","mask","height","width","k\\ud800"\n"a\\udcff","=HYPERLINK()\r\n.png",2,3,1.0\n'
    )


def test_an_earlier_table_goes_and_nothing_else(tmp_path: Path) -> None:
    table = tmp_path / NAME
    remove_shares(table)
    write_shares(table, NAMES, [])
    remove_shares(table)
    assert not table.exists()
    table.write_text("image,price\n")
    for make in (lambda: None, lambda: table.write_bytes(b""), lambda: (table.unlink(), table.mkdir())):
        make()
        with pytest.raises(OptionError, match=r"shares.csv is no table of shares, and would be replaced"):
            remove_shares(table)
        assert table.exists()


def test_a_table_that_cannot_be_written_or_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"shares.csv: cannot be written \(.*go on with --resume"):
        write_shares(tmp_path / "file" / NAME, NAMES, [(Path("a.jpg"), entry("a.png", 1, 2, 3))])
    with pytest.raises(DataError, match=r"shares.csv: cannot be written \(.*; check the folder and disk$"):
        write_shares(tmp_path / "file" / NAME, NAMES, [])
    write_shares(tmp_path / NAME, NAMES, [])

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DataError, match=r"shares.csv: cannot be replaced \(Permission denied\); check the folder"):
        remove_shares(tmp_path / NAME)
