"""Values of annotation files that nobody has checked: each knows where it stands, and is read as what is expected."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fullconv.data.text import brief, read_text
from fullconv.errors import DataError, one_line, printable

MAX_BYTES = 2**30
"""The largest annotation file; COCO's own instances of 118,000 images take 448 MiB."""

FARTHEST = 1e9
"""Coordinates beyond this many pixels are no picture's, and would cost the rasteriser its exactness."""

Points = NDArray[np.float64]
"""(N, 2): x to the right and y down, in pixels; (0, 0) is the upper left corner of the image, no centre."""


@dataclass(frozen=True)
class Entry:
    """A value, the file that holds it and the keys that lead to it; all methods raise DataError."""

    value: Any
    file: Path
    keys: tuple[str | int, ...] = ()

    @property
    def where(self) -> str:
        """``FILE: key[2].key``, for messages."""
        trail = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys).removeprefix(".")
        return printable(f"{self.file}: {trail}" if trail else f"{self.file}")

    def refuse(self, expected: str) -> NoReturn:
        """Raise the DataError that names the value and what was expected."""
        raise DataError(f"{self.where} is {brief(self.value)}, expected {expected}; correct it or export it again")

    def __getitem__(self, key: str) -> Entry:
        """The value of a key of this object; missing ones are refused."""
        found = self.get(key)
        if found is None:
            raise DataError(f"{self.where} has no {key!r}; correct it or export it again")
        return found

    def get(self, key: str) -> Entry | None:
        """The value of a key of this object; None where it is missing or null."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        found = self.value.get(key)
        return None if found is None else Entry(found, self.file, (*self.keys, key))

    def items(self) -> Iterator[Entry]:
        """The values of this list."""
        if not isinstance(self.value, list):
            self.refuse("a list")
        return (Entry(value, self.file, (*self.keys, index)) for index, value in enumerate(self.value))

    def each(self, key: str) -> Iterator[Entry]:
        """The values of the list at a key; none where it is missing."""
        found = self.get(key)
        return iter(()) if found is None else found.items()

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.refuse("text")
        return self.value

    def label(self) -> str:
        """A class name: one line, blanks around it removed; it may be empty."""
        name = self.text().strip()
        if not plain(name):
            self.refuse("a class name of one line")
        return name

    def number(self, low: float = -FARTHEST, high: float = FARTHEST) -> float:
        if type(self.value) not in (int, float) or not low <= self.value <= high:  # nan is in no range
            self.refuse(f"a number of {low:g} to {high:g}")
        return float(self.value)

    def parsed(self) -> Entry:
        """The number that a text, such as an XML attribute, spells."""
        try:
            return Entry(float(self.text()), self.file, self.keys)
        except ValueError:
            self.refuse("a number")

    def whole(self, low: int, high: int) -> int:
        """A whole number; 3.0 is one too, as JSON does not tell them apart."""
        if type(self.value) is float and math.isfinite(self.value) and self.value == int(self.value):
            return Entry(int(self.value), self.file, self.keys).whole(low, high)
        if type(self.value) is not int or not low <= self.value <= high:
            self.refuse(f"a whole number of {low} to {high}")
        return int(self.value)

    def numbers(self, low: float = -FARTHEST, high: float = FARTHEST) -> NDArray[np.float64]:
        """(N,) of a list of numbers."""
        if not isinstance(self.value, list):
            self.refuse("a list of numbers")
        if any(type(value) not in (int, float) or not low <= value <= high for value in self.value):
            for item in self.items():
                item.number(low, high)
        return np.array(self.value, np.float64)

    def wholes(self, low: int, high: int) -> NDArray[np.int64]:
        """(N,) of a list of whole numbers."""
        values = self.numbers(low, high)
        if (values != np.floor(values)).any():
            self.refuse("a list of whole numbers")
        return values.astype(np.int64)

    def points(self) -> Points:
        """(N, 2) of a list of [x, y]."""
        if not isinstance(self.value, list):
            self.refuse("a list of [x, y]")
        flat: list[Any] = []
        for pair in self.value:
            if not isinstance(pair, list) or len(pair) != 2:
                self.refuse("a list of [x, y]")
            flat += pair
        return Entry(flat, self.file, self.keys).numbers().reshape(-1, 2)


def plain(name: str) -> bool:
    """Whether a name can be a line of a text file: no control characters, line ends or halves of characters.

    >>> plain("Straße 1"), plain("a\\tb")
    (True, False)
    """
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def read_json(path: Path) -> Entry:
    """What a JSON file holds.

    Raises:
        DataError: not to be read, larger than `MAX_BYTES`, or not JSON.
    """
    text = read_text(path, MAX_BYTES)
    try:
        return Entry(json.loads(text, parse_constant=_refuse_constant), path)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)}: is not valid JSON ({one_line(error)}); export it again") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
