"""What a folder's journal keeps, through kills, edits and foreign files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.errors import DataError, OptionError
from fullconv.inference import journal as module
from fullconv.inference.journal import (
    NAME,
    Entry,
    Journal,
    difference,
    differing,
    entry_of,
    held,
    record_of,
    stamp,
    unwritable,
)

IDENTITY = {"model": "3fa4", "overlay": False}

entries = st.builds(
    lambda mask, height, width, counts, sizes: Entry(
        mask, "0" * 32, tuple(sizes), height * 16, width * 16, tuple(counts)
    ),
    st.text(st.characters(exclude_categories=())),  # surrogates too: names that are no UTF-8
    st.integers(1, 5), st.integers(1, 5), st.lists(st.integers(0, 50), max_size=5), st.lists(st.integers(0, 9**9)),
)  # fmt: skip


def entry(mask: str = "a.png") -> Entry:
    return Entry(mask, "12ab", (3,), 2, 3, (4, 1))


@given(entries)
def test_a_line_comes_back(value: Entry) -> None:
    line = value.line()
    assert line.count(b"\n") == 1
    assert Entry.read(line) == value


@given(entries, st.data())
def test_a_torn_line_does_not_count(value: Entry, data: st.DataObject) -> None:
    line = value.line()
    assert Entry.read(line[: data.draw(st.integers(0, len(line) - 1))]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"mask": 3}, {"stamp": None}, {"height": "2"}, {"height": 0}, {"width": -1}, {"width": True}, {"width": 3.0},
        {"counts": [4, -1]}, {"counts": [4, 3]}, {"counts": "41"}, {"sizes": [[3]]}, {"sizes": None}, {"more": 1},
    ],
)  # fmt: skip
def test_lines_that_nobody_wrote_do_not_count(change: dict[str, object]) -> None:
    good = json.loads(entry().line())
    assert Entry.read(json.dumps(good).encode() + b"\n") == entry()
    assert Entry.read(json.dumps({**good, **change}).encode() + b"\n") is None


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"3\n", b"\xff\n", b"[" * 60000 + b"\n", b"{}\n"])
def test_nor_do_foreign_ones(line: bytes) -> None:
    assert Entry.read(line) is None


def test_entries_are_added_and_read_back(tmp_path: Path) -> None:
    with held(tmp_path / "new" / "out") as journal:
        assert journal.read() == ({}, {})
        journal.write(IDENTITY, [entry("a.png"), entry("b/c.png")])
        journal.append(entry("d.png"))
        journal.append(later := Entry("a.png", "new", (4,), 1, 1, (1, 0)))
        with journal.path.open("ab") as file:
            file.write(entry("e.png").line()[:-1])
        expected = {"a.png": later, "b/c.png": entry("b/c.png"), "d.png": entry("d.png")}
        assert journal.read() == (IDENTITY, expected)
        journal.write(IDENTITY, ())
        assert journal.read() == (IDENTITY, {})
    assert [path.name for path in (tmp_path / "new" / "out").iterdir()] == [NAME]


def test_a_journal_that_is_no_file_counts_as_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / NAME)  # opening it would wait for ever
    assert Journal(tmp_path).read() == ({}, {})


def test_a_line_without_end_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 100)
    (tmp_path / NAME).write_bytes(b"x" * 10_000 + b"\n" + entry().line())
    assert list(Journal(tmp_path).read()[1]) == ["a.png"]


def test_a_record_of_a_single_raster_lies_beside_it(tmp_path: Path) -> None:
    journal = record_of(tmp_path / "a.tif")
    journal.remove()
    journal.write(IDENTITY, [entry("a.tif")])
    assert [path.name for path in tmp_path.iterdir()] == [".a.tif.labelled.jsonl"]
    assert journal.read() == (IDENTITY, {"a.tif": entry("a.tif")})
    journal.remove()
    assert journal.read() == ({}, {})
    journal.path.mkdir()
    said = "a.tif: its journal .a.tif.labelled.jsonl cannot be written (Is a directory); check the folder and disk"
    for act in (journal.remove, lambda: journal.write(IDENTITY, ())):
        with pytest.raises(DataError) as caught:
            act()
        assert str(caught.value) == f"{tmp_path / said}"


def test_masks_are_named_by_their_place_below_the_folder(tmp_path: Path) -> None:
    assert Journal(tmp_path).name(tmp_path / "x" / "a\nb.png") == "x/a\nb.png"


def test_an_entry_holds_while_image_and_outputs_are_as_they_were(tmp_path: Path) -> None:
    image, mask = tmp_path / "a.jpg", tmp_path / "a.png"
    image.write_bytes(b"image")
    mask.write_bytes(b"mask")
    mark = stamp(image)
    made = entry_of("a.png", mark, [mask], (2, 3), [5, 1])
    assert made == Entry("a.png", mark, (4,), 2, 3, (5, 1))
    assert made.holds(stamp(image), [mask], 2)
    assert not made.holds(stamp(image), [mask], 3), "other classes"
    assert not made.holds(stamp(image), [mask, tmp_path / "a_overlay.png"], 2), "an output that is missing"
    mask.write_bytes(b"")
    assert not made.holds(stamp(image), [mask], 2), "a power cut, or somebody else"
    mask.unlink()
    assert not made.holds(stamp(image), [mask], 2)


def test_stamps_tell_files_and_their_versions_apart(tmp_path: Path) -> None:
    image, twin = tmp_path / "a.jpg", tmp_path / "b.jpg"
    for path in (image, twin):
        path.write_bytes(b"image")
        os.utime(path, ns=(10**18, 10**18))
    seen = {stamp(image), stamp(twin), stamp(image, 0), stamp(image, 1)}
    os.utime(image, ns=(10**18, 10**18 + 1))
    seen.add(stamp(image))
    image.write_bytes(b"image 2")
    os.utime(image, ns=(10**18, 10**18))
    seen.add(stamp(image))
    seen |= {stamp(image, None, [twin]), stamp(image, None, [twin, twin])}
    os.utime(twin)
    seen.add(stamp(image, None, [twin]))
    assert len(seen) == 9
    assert stamp(image, None, [tmp_path / "none.jpg"]) == ""
    (tmp_path / "x").mkdir()
    assert stamp(tmp_path / "x" / ".." / "a.jpg") == stamp(image), "the same file by another path"
    assert stamp(tmp_path / "none.jpg") == ""


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    gone = [".a.0123abcd.png", "..labelled.0123abcd.jsonl", "x/.b.c.0123abcd.png"]
    stay = [".a.0123abcd.jpg", ".z.0123abcd.png", ".a.0123abcz.png", "x/.a.0123abcd.png", ".a.png", "a.0123abcd.png"]
    for name in (*gone, *stay):
        (tmp_path / name).write_bytes(b"")
    Journal(tmp_path).sweep([tmp_path / "a.png", tmp_path / "x" / "b.c.png", tmp_path / "none" / "a.png"])
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(stay)


def test_a_folder_is_one_calls_at_a_time(tmp_path: Path) -> None:
    with (
        held(tmp_path),
        pytest.raises(OptionError, match="another call labels images into .*; choose another folder"),
        held(tmp_path),
    ):
        pass
    with held(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="file is a file; masks go into a folder: name another"),
        held(tmp_path / "file"),
    ):
        pass
    said = r"out: cannot be written \(Not a directory\); check the folder and disk$"
    with pytest.raises(DataError, match=said), held(tmp_path / "file" / "out"):
        pass


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What was not done is not kept, and what never was there has not vanished."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    mend = "check the folder and disk" if code == errno.EROFS else "free some space"
    said = f"{tmp_path}: its journal .labelled.jsonl cannot be written ({os.strerror(code)}); "
    with held(tmp_path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "touch", refused)
            for kept, rest in ((), mend), ([entry()], f"what was done is kept: {mend}, then go on with --resume"):
                with pytest.raises(DataError) as caught:
                    journal.write(IDENTITY, kept)
                assert str(caught.value) == said + rest
        journal.write(IDENTITY, ())
        for rest in (mend, f"what was done is kept: {mend}, then go on with --resume"):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "open", refused)
                with pytest.raises(DataError) as caught:
                    journal.append(entry())
            assert str(caught.value) == said + rest
            journal.append(entry())


def test_a_folder_that_vanishes_is_not_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with held(folder) as journal:
        journal.write(IDENTITY, ())
        journal.require()
        journal.path.unlink()
        folder.rmdir()
        for act in (journal.require, lambda: journal.append(entry())):
            with pytest.raises(DataError, match="out has vanished, or its journal .labelled.jsonl, while images"):
                act()
        assert not folder.exists()
        folder.write_text("")  # now nor can it be made anew
        folder.with_suffix(".link").symlink_to("none/out")
        with pytest.raises(DataError, match="out.link has vanished"):
            Journal(folder.with_suffix(".link")).write(IDENTITY, ())


def test_errors_of_the_disk_name_the_fix(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert str(unwritable(Path("a\n.png"), full)) == (
        "a\\n.png: cannot be written (No space left on device); what was done is kept: free some space, then go on "
        "with --resume"
    )
    gone = OSError(errno.EROFS, "Read-only file system")
    assert "check the folder and disk, then go on with --resume" in str(unwritable(Path("a.png"), gone))


def test_the_first_difference_is_named() -> None:
    assert difference({"model": "3fa4", "overlay": True}, IDENTITY) == "overlay True, not False"
    assert difference({"model": "9c\n" + "x" * 900}, IDENTITY) == "model 9c\\nxxxx, not 3fa4"
    assert difference({"overlay": True}, IDENTITY) == "model unknown, not 3fa4"
    assert difference({**IDENTITY, "tile": 500}, IDENTITY) == "other options"
    assert differing({**IDENTITY, "tile": 500}, IDENTITY) == ("tile", 500, None)
    assert differing(IDENTITY, IDENTITY) is None
