"""Short texts: read whole, or refused in one line."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.data.text import brief, read_text, read_yaml
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


def yaml_file(root: Path, text: str) -> Path:
    path = root / "a.yaml"
    path.write_text(text, "utf-8")
    return path


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.text(st.characters(codec="ascii", min_codepoint=32)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc~ <"), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(VALUES)
def test_json_is_yaml(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    assert read_yaml(yaml_file(tmp_path_factory.mktemp("a"), json.dumps(value))) == value


def test_yaml_that_is_not_read(tmp_path: Path) -> None:
    for text, expected in {
        "a: &a [1]\nb: *a": "line 2 has the alias *a, which is not read; write the value itself",
        "a: {b: 1}\nc:\n  <<: {d: 1}": "line 3 has a merge key <<, which is not read; write the value itself",
        "a: 1\n!!merge x: {d: 1}": "line 2 has a merge key <<, which is not read; write the value itself",
        "a: 100000000000000000000": "line 1 has a number of 21 digits, which is not read; write the value itself",
        "? *x\n: 1": "line 1 has the alias *x, which is not read; write the value itself",
    }.items():
        path = yaml_file(tmp_path, text)
        assert refusal(read_yaml, path) == f"{path}: {expected}"
    assert read_yaml(yaml_file(tmp_path, "a: &a 0x123\n'<<': {b: 99999999999999999999}")) == {
        "a": 0x123,
        "<<": {"b": 99999999999999999999},
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("!!bool x", "KeyError: 'x'"),
        ('!!int ""', "IndexError: string index out of range"),
        ('!!float ""', "IndexError: string index out of range"),
        ("!!timestamp x", "AttributeError: 'NoneType' object has no attribute"),
        ("a: !!python/name:os.system", "ConstructorError: could not determine a constructor"),
        ("2001-99-99", "ValueError: month must be in 1..12"),
        ("[" * 5000, "RecursionError: "),
        ("[a", "ParserError: while parsing a flow sequence"),
        ("--- a\n--- b", "ComposerError: expected a single document"),
        ("a: \0", "ReaderError: unacceptable character #x0000"),
    ],
)
def test_no_yaml(tmp_path: Path, text: str, reason: str) -> None:
    path = yaml_file(tmp_path, text)
    message = refusal(read_yaml, path)
    assert message.startswith(f"{path}: is not valid YAML ({reason}")
    assert message.endswith("); correct it there")


def bombs() -> dict[str, str]:
    """A few hundred bytes that stand for billions of values, and long numbers that take time by the square."""
    doubled = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    doubled += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    merged = ["a0: &a0 {x: 1}"]
    merged += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 10)]
    return {
        "aliases": "\n".join(doubled),
        "merged": "\n".join(merged),
        "nested": "a: " + "{<<: " * 100 + "{" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}" + "}" * 100,
        "sixty": "a: 1" + ":1" * 2**18,
        "hex": "a: 0x" + "f" * 2**19,
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs(tmp_path: Path, name: str) -> None:
    path = yaml_file(tmp_path, bombs()[name])
    start = time.process_time()
    tracemalloc.start()
    try:
        assert "which is not read; write the value itself" in refusal(read_yaml, path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 10


def test_brief() -> None:
    for value in (None, 7, "a", ["a", 1.5], {"b": 1, "a": [2]}, {0: 0, 255: 1}):
        assert brief(value) == (repr(value) if value != {"b": 1, "a": [2]} else "{'a': [2], 'b': 1}")
    assert brief("a\u2028b") == "'a\\u2028b'"
    assert brief("x" * 1000) == "'" + "x" * 56 + "..."
    assert len(brief("x" * 58)) == 60
    shared: list[Any] = ["x"]
    for _ in range(40):
        shared = [shared] * 9
    assert len(brief(shared)) == 60
    large = ["x" * 10**8, list(range(10**6))]
    tracemalloc.start()
    try:
        assert len(brief(large)) == 60
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
