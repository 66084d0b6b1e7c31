"""Short texts: read whole, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.data.text import read_text
from refusals import refusal


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_text_with_and_without_byte_order_mark(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(start + "Kratzer ß\r\n".encode())
    assert read_text(tmp_path / "a.txt") == "Kratzer ß\r\n"


def test_up_to_a_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * 2**20)
    assert len(read_text(path)) == 2**20
    path.write_bytes(b"a" * (2**20 + 1))
    assert refusal(read_text, path) == f"{path}: is larger than 1 MiB; expected a short text"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert refusal(read_text, path) == f"{path}: cannot be read (No such file or directory); check the path"
    assert refusal(read_text, tmp_path) == f"{tmp_path}: cannot be read (Is a directory); check the path"
    path.write_bytes(b"\xff\xfe")
    assert refusal(read_text, path) == f"{path}: is not UTF-8 text (invalid start byte); save it as UTF-8"
