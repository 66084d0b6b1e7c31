"""Hostile values: what is not expected is refused in one line that names the file and the entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fullconv.data.annotations.entry import Entry, read_json
from fullconv.data.text import read_text
from refusals import refusal

FILE = Path("a.json")
FIX = "; correct it or export it again"


def entry(value: Any) -> Entry:
    return Entry(value, FILE, ("shapes", 3, "points"))


def test_where() -> None:
    assert entry(1).where == "a.json: shapes[3].points"
    assert Entry(1, Path("a\nb.json")).where == "a\\nb.json"
    assert Entry({"a": [{"b": 7}]}, FILE)["a"].value == [{"b": 7}]
    assert [item["b"].where for item in Entry({"a": [{"b": 7}]}, FILE).each("a")] == ["a.json: a[0].b"]


def test_what_is_missing() -> None:
    whole = Entry({"a": None}, FILE)
    assert whole.get("a") is None
    assert list(whole.each("a")) == []
    assert refusal(whole.__getitem__, "a") == "a.json has no 'a'" + FIX
    assert refusal(entry([]).get, "a") == "a.json: shapes[3].points is [], expected an object" + FIX
    assert refusal(entry({}).items) == "a.json: shapes[3].points is {}, expected a list" + FIX


@pytest.mark.parametrize("value", ["1", None, True, float("nan"), float("inf"), 1e10, 10**4000, [1]])
def test_no_number(value: Any) -> None:
    assert refusal(entry(value).number).endswith(", expected a number of -1e+09 to 1e+09" + FIX)
    assert ", expected a " in refusal(entry([1, value]).numbers)
    assert ", expected a " in refusal(entry([[0, value]]).points)


def test_numbers() -> None:
    assert entry(2).number() == 2.0
    assert entry([1, 2.5]).numbers().tolist() == [1, 2.5]
    assert refusal(entry([1, "2"]).numbers).startswith("a.json: shapes[3].points[1] is '2', expected a number")
    assert refusal(entry("12").numbers).startswith("a.json: shapes[3].points is '12', expected a list of numbers")
    assert entry([3.0, 4]).wholes(0, 9).tolist() == [3, 4]
    assert refusal(entry([3.5]).wholes, 0, 9).startswith("a.json: shapes[3].points is [3.5], expected a list of whole")


@pytest.mark.parametrize("value", [2.5, "2", False, -1, 10, float("nan"), float("inf"), None])
def test_no_whole_number(value: Any) -> None:
    assert refusal(entry(value).whole, 0, 9).endswith(", expected a whole number of 0 to 9" + FIX)


def test_whole_numbers() -> None:
    assert entry(3.0).whole(0, 9) == 3
    assert entry("7").parsed().whole(0, 9) == 7
    assert refusal(entry("7x").parsed).endswith(" is '7x', expected a number" + FIX)


@pytest.mark.parametrize("value", [{}, [1, 2], [[1, 2, 3]], [[1]], [{"x": 1, "y": 2}]])
def test_no_points(value: Any) -> None:
    assert refusal(entry(value).points).endswith(", expected a list of [x, y]" + FIX)


def test_points() -> None:
    assert entry([[1, 2], [3, 4.5]]).points().tolist() == [[1, 2], [3, 4.5]]
    assert entry([]).points().shape == (0, 2)


def test_labels() -> None:
    assert entry(" a b ").label() == "a b"
    assert refusal(entry("a\nb").label).endswith("is 'a\\nb', expected a class name of one line" + FIX)
    for strange in ("a\u2028b", "a\0b", "\ud800", "a\x85b"):
        assert refusal(entry(strange).label).endswith("expected a class name of one line" + FIX)
    assert entry("\u3000\u6a5f\u3000\u68b0\u200d").label() == "\u6a5f\u3000\u68b0\u200d"
    assert refusal(entry(7).label).endswith(" is 7, expected text" + FIX)


def test_long_values_are_shortened() -> None:
    assert refusal(entry("x" * 1000).number) == (
        f"a.json: shapes[3].points is '{'x' * 56}..., expected a number of -1e+09 to 1e+09{FIX}"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSONDecodeError: Expecting property name"),
        ("[NaN]", "ValueError: NaN is no JSON"),
        ("[-Infinity]", "ValueError: -Infinity is no JSON"),
        ("[" * 10**5, "RecursionError: "),
        ("1" * 5000, "ValueError: Exceeds the limit"),
    ],
)
def test_no_json(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    message = refusal(read_json, path)
    assert message.startswith(f"{path}: is not valid JSON ({reason}")
    assert message.endswith("); export it again")


def test_larger_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * 2**21)
    assert len(read_text(path, 2**21)) == 2**21
    path.write_bytes(b"a" * (2**21 + 1))
    assert refusal(read_text, path, 2**21) == f"{path}: is larger than 2 MiB; expected a smaller file; split it"


def test_json_beyond_a_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["' + "a" * 2**21 + '"]')
    assert len(read_json(path).value[0]) == 2**21
