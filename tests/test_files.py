"""Atomic files: all or nothing, however the writing ends."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from fullconv.files import atomic, sync_folder


def listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folders" / "map.png"
    with atomic(target) as temporary:
        temporary.write_bytes(b"part")
        assert not target.exists()
        assert temporary.parent == target.parent  # else the rename could cross disks
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")
    assert target.read_bytes() == b"part"
    assert listed(target.parent) == ["map.png"]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "map.png"
    target.write_bytes(b"old")
    with atomic(str(target)) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failed_write_leaves_the_older_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "map.png"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic(target) as temporary:
            temporary.write_bytes(b"hal")
            raise error

    with pytest.raises(type(error)):
        write()
    assert target.read_bytes() == b"old"
    assert listed(tmp_path) == ["map.png"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    target = tmp_path / "map.png"
    target.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(os if function == "fsync" else Path, function, fail)
    with pytest.raises(OSError, match="Input/output error"), atomic(target) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"old"
    assert listed(tmp_path) == ["map.png"]


@pytest.mark.parametrize("durable", [True, False])
def test_only_durable_files_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with atomic(tmp_path / "map.png", durable) as temporary:
        temporary.write_bytes(b"new")
        assert not synced
    once = 2 if os.name == "posix" else 1  # the file, and the folder's names
    assert len(synced) == durable * once
    assert (tmp_path / "map.png").read_bytes() == b"new"
    with atomic(tmp_path / "state.pt") as temporary:
        temporary.write_bytes(b"new")
    assert len(synced) == durable * once + once, "durable unless told otherwise"


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX")
def test_the_file_is_synced_before_its_name_and_its_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[bool, list[str]]] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: told.append((stat.S_ISDIR(os.fstat(number).st_mode), listed(tmp_path)))
    )
    with atomic(tmp_path / "map.png") as temporary:
        temporary.write_bytes(b"new")
    assert told == [(False, [temporary.name]), (True, ["map.png"])]


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_share_that_cannot_sync_folders_is_no_error_but_a_failing_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)
    nowhere = tmp_path / "never opened"
    with monkeypatch.context() as windows:  # pytest itself must not take it for Windows
        windows.setattr(os, "name", "nt")
        sync_folder(nowhere)


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "map.png"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), atomic(target):
        pass
    assert target.read_bytes() == b"old"
    assert listed(tmp_path) == ["map.png"]


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path: Path) -> None:
    """Whatever the writing library thinks (safetensors: nobody but the owner)."""
    (tmp_path / "ordinary").touch()
    with atomic(tmp_path / "map.png") as temporary:
        temporary.touch(0o600)
    assert (tmp_path / "map.png").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_two_writers_of_one_target_do_not_meet(tmp_path: Path) -> None:
    target = tmp_path / "map.png"
    with atomic(target) as one, atomic(target) as two:
        assert one != two
        one.write_bytes(b"one")
        two.write_bytes(b"two")
    assert target.read_bytes() == b"one"
    assert listed(tmp_path) == ["map.png"]
