"""Atomic files: all or nothing, however the writing ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fullconv.files import atomic


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

    monkeypatch.setattr(*((os, "fsync") if function == "fsync" else (Path, "replace")), fail)
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
    assert len(synced) == durable
    assert (tmp_path / "map.png").read_bytes() == b"new"
    with atomic(tmp_path / "state.pt") as temporary:
        temporary.write_bytes(b"new")
    assert len(synced) == durable + 1, "durable unless told otherwise"


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
