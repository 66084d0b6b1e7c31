"""The spool: what counts is on the disk, and only the same is gone on with."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rasters
from fullconv.errors import OptionError
from fullconv.inference import spool
from fullconv.inference.spool import CONFIDENCE, JOURNAL, LABELS, Spool, discard, folder_of

SIZE = (7, 9)
PARTS = rasters.tiles(*SIZE, 3, 4)
LABELLED = rasters.noise(*SIZE, 1)[:, :, 0]
PROBABLE = np.moveaxis(rasters.noise(*SIZE, 3), 2, 0)
IDENTITY = {"model": "a", "tile": "3"}


def opened(folder: Path, *, planes: int = 0, identity: dict[str, str] = IDENTITY, resume: bool = True) -> Spool:
    return Spool(folder, SIZE, planes, identity, len(PARTS), resume)


def fill(target: Spool, first: int, end: int) -> None:
    for part in PARTS[first:end]:
        window = slice(*part.rows), slice(*part.columns)
        target.write(part.rows, part.columns, LABELLED[window], PROBABLE[:, *window] if target.planes else None)


def begun(folder: Path, count: int, **options: Any) -> Path:
    with opened(folder, **options) as target:
        fill(target, 0, count)
        target.sync()
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The disk is waited for when a test asks for it."""
    monkeypatch.setattr(spool, "SECONDS", 1e9)
    return


@pytest.mark.parametrize("planes", [0, 3])
@pytest.mark.parametrize("at", range(len(PARTS) + 1))
def test_what_is_written_is_there(tmp_path: Path, planes: int, at: int) -> None:
    begun(tmp_path, at, planes=planes)
    with opened(tmp_path, planes=planes) as target:
        assert target.done == at
        fill(target, at, len(PARTS))
        target.sync()
        assert target.done == len(PARTS)
    assert (tmp_path / LABELS).read_bytes() == LABELLED.tobytes()
    assert (tmp_path / CONFIDENCE).exists() == bool(planes)
    if planes:
        assert (tmp_path / CONFIDENCE).read_bytes() == PROBABLE.tobytes()


def test_parts_across_the_raster(tmp_path: Path) -> None:
    with opened(tmp_path) as target:
        for rows in ((0, 5), (5, 7)):
            target.write(rows, (0, 9), LABELLED[slice(*rows)], None)
    assert (tmp_path / LABELS).read_bytes() == LABELLED.tobytes()


def test_without_resume_all_is_discarded(tmp_path: Path) -> None:
    begun(tmp_path, 3)
    for name in ("labels.tif", "labels.vrt", "labels.tif.ovr.tmp", "confidence.raw", ".journal.0123abcd"):
        (tmp_path / name).touch()
    with opened(tmp_path, resume=False) as target:
        assert target.done == 0
        assert (tmp_path / LABELS).read_bytes() == bytes(63)
    assert sorted(path.name for path in tmp_path.iterdir()) == [JOURNAL, LABELS]


@pytest.mark.parametrize("name", ["mine.txt", "labels.txt", "my labels.raw", "journal.txt", ".journal", "old"])
@pytest.mark.parametrize("resume", [True, False])
def test_what_is_not_ours_is_never_removed(tmp_path: Path, name: str, resume: bool) -> None:
    folder = begun(tmp_path / "spool", 3)
    with opened(folder) as target:
        (folder / name).mkdir() if name == "old" else (folder / name).touch()
        target.remove()
    assert [path.name for path in folder.iterdir()] == [name]
    discard(folder)
    with pytest.raises(OptionError, match=f"{name} lies where parts are to be kept, and is none; move it, or choose"):
        opened(folder, resume=resume)
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    begun(tmp_path / "precious", 3)
    link = tmp_path / ".a.tif.partial"
    link.symlink_to("precious")
    for resume in (True, False):
        with pytest.raises(OptionError, match=r"partial is a link, expected a folder of ours; remove it, or choose"):
            opened(link, resume=resume)
    discard(link)
    with opened(tmp_path / "precious") as target:
        assert target.done == 3


@pytest.mark.parametrize("at", [0, 4, len(PARTS)])
def test_classes_are_counted_through_a_stop(tmp_path: Path, at: int) -> None:
    labels = LABELLED % 5
    labels[2:4, :5] = 255
    expected = [int((labels == number).sum()) for number in range(4)]

    def more(first: int, end: int) -> list[int]:
        with Spool(tmp_path, SIZE, 0, IDENTITY, len(PARTS), True, classes=4) as target:
            for part in PARTS[first:end]:
                target.write(part.rows, part.columns, labels[slice(*part.rows), slice(*part.columns)], None)
            target.sync()
            return target.counts

    more(0, at)
    assert more(at, len(PARTS)) == expected


@pytest.mark.parametrize("line", [b"3\n", b"3 1 2 3\n", b"3 1 2 -3 4\n", b"3 1 2  4\n", b"3 60 0 4 0\n", b"3 1 2 3 4"])
def test_counts_that_nobody_wrote_do_not_count(tmp_path: Path, line: bytes) -> None:
    with Spool(tmp_path, SIZE, 0, IDENTITY, len(PARTS), True, classes=4) as target:
        fill(target, 0, 2)
        target.sync()
        counted = target.counts
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(line)
    with Spool(tmp_path, SIZE, 0, IDENTITY, len(PARTS), True, classes=4) as target:
        assert (target.done, target.counts) == (2, counted)


def test_another_identity_may_be_begun_anew(tmp_path: Path) -> None:
    begun(tmp_path, 3)
    told: list[str] = []
    with Spool(tmp_path, SIZE, 0, {"model": "b"}, len(PARTS), True, anew=told.append) as target:
        assert (target.done, told) == (0, ["model 'a', found 'b'"])
    with Spool(tmp_path, SIZE, 0, {"model": "b"}, len(PARTS), True, anew=told.append):
        assert len(told) == 1


def test_a_removal_that_stops_leaves_nothing_to_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path, 3)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with opened(tmp_path) as target:
        monkeypatch.setattr(Path, "iterdir", killed)
        with pytest.raises(KeyboardInterrupt):
            target.remove()
        monkeypatch.undo()
    with opened(tmp_path, identity={"model": "b"}) as target:
        assert target.done == 0


def test_what_a_finished_file_left_is_discarded(tmp_path: Path) -> None:
    folder = begun(tmp_path / "left", 3)
    with opened(folder):
        discard(folder)
        assert (folder / JOURNAL).exists(), "another process is at it"
    discard(folder)
    assert not folder.exists()
    discard(folder)


def test_what_is_not_synced_does_not_count(tmp_path: Path) -> None:
    with opened(tmp_path) as target:
        fill(target, 0, 4)
        assert target.done == 0
    with opened(tmp_path) as target:
        assert target.done == 0


def test_the_disk_is_waited_for_before_the_journal_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, write = os.fsync, spool._write_all
    with opened(tmp_path, planes=3) as target:
        names = {file.fileno(): Path(file.name).name for file in target._files}
        monkeypatch.setattr(os, "fsync", lambda number: (calls.append(f"sync {names[number]}"), sync(number)))
        monkeypatch.setattr(
            spool, "_write_all", lambda file, what: (calls.append(f"write {names[file.fileno()]}"), write(file, what))
        )
        fill(target, 0, 1)
        target.sync()
        ends = ["sync labels.raw", "sync confidence.raw", "write journal", "sync journal"]
        assert calls[-4:] == ends
        assert not set(ends) & set(calls[:-4])
        calls.clear()
        target.sync()
        assert calls == []
        monkeypatch.setattr(spool, "SECONDS", 0)
        fill(target, 1, 2)
        assert calls[-4:] == ends
        assert target.done == 2


@pytest.mark.parametrize(
    ("journal", "done"),
    [
        (b"2\n", 2), (b"2\n4\n", 4), (b"2\n4", 2), (b"2\n45", 2), (b"2\n99\n", 2), (b"2\n1\n3\n", 2), (b"2\nx\n3\n", 2),
        (b"", 0), (b"\n", 0), (b"-1\n", 0), (b"2\n\xb2\n", 2), (b"2\n" + b"9" * 5000 + b"\n", 2), (b"9" * 50, 0),
        (b"2\n\0\0", 2),
    ],
)  # fmt: skip
def test_journals_that_were_cut(tmp_path: Path, journal: bytes, done: int) -> None:
    begun(tmp_path, len(PARTS))
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n" + journal)
    with opened(tmp_path) as target:
        assert target.done == done
        fill(target, done, done + 1)
        target.sync()
    with opened(tmp_path) as target:
        assert target.done == done + 1


@pytest.mark.parametrize(
    "first", [b"", b"{", b"[1]\n", b"null\n", b'{"model": 3}\n', b'{"model": "a"', b"[" * 9999 + b"\n"]
)
def test_journals_of_no_identity_are_begun_again(tmp_path: Path, first: bytes) -> None:
    begun(tmp_path, 3)
    (tmp_path / JOURNAL).write_bytes(first)
    with opened(tmp_path) as target:
        assert target.done == 0
    assert json.loads((tmp_path / JOURNAL).read_bytes()) == IDENTITY


@pytest.mark.parametrize("damage", ["shorter", "gone"])
def test_labels_that_are_lost_are_begun_again(tmp_path: Path, damage: str) -> None:
    begun(tmp_path, 3)
    (tmp_path / LABELS).unlink()
    if damage == "shorter":
        (tmp_path / LABELS).write_bytes(b"1")
    with opened(tmp_path) as target:
        assert target.done == 0


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({"model": "b", "tile": "4"}, "was begun with model 'a', found 'b'"),
        ({"model": "a", "tile": "4"}, "was begun with tile '3', found '4'"),
        ({"model": "a", "new\n": "1", "tile": "3"}, "was begun with new\\n not given, found '1'"),
        ({"model": "a"}, "was begun with tile '3', found not given"),
    ],
)
def test_another_identity(tmp_path: Path, identity: dict[str, str], said: str) -> None:
    begun(tmp_path, 3)
    with pytest.raises(OptionError) as caught:
        opened(tmp_path, identity=identity)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("label it as it was begun, or leave --resume out to begin again")
    with pytest.raises(OptionError):
        opened(tmp_path, identity=identity, planes=3)
    with opened(tmp_path) as target:  # nothing was lost
        assert target.done == 3


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(OptionError, match="another process writes to"):
        opened(tmp_path, resume=False)
    with opened(tmp_path) as target:
        target.remove()
        target.remove()
    assert not tmp_path.exists()


def test_after_a_failure_no_later_part_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(tmp_path) as target:
        fill(target, 0, 2)
        with monkeypatch.context() as patch:
            patch.setattr(spool, "_write_all", full)
            with pytest.raises(OSError, match="No space left"):
                fill(target, 2, 3)
        with pytest.raises(OSError, match="No space left"):
            fill(target, 3, 4)
        target.sync()
        assert target.done == 2


def test_a_failed_wait_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path) as target:
        fill(target, 0, 2)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            with pytest.raises(OSError, match="Input/output"):
                target.sync()
        for action in (target.sync, lambda: fill(target, 2, 3)):
            with pytest.raises(OSError, match="Input/output"):
                action()
        assert target.done == 0


def test_a_write_may_take_a_part() -> None:
    class Slow:
        content = b""

        def write(self, what: memoryview) -> int:
            self.content += bytes(what[:3])
            return min(3, len(what))

    slow: Any = Slow()
    spool._write_all(slow, b"0123456789")
    assert slow.content == b"0123456789"


def test_the_folder_is_hidden_and_beside_the_target() -> None:
    assert folder_of(Path("a/b.tif")) == Path("a/.b.tif.partial")
