"""LabelSet: the classes of one task, their colours, and the void value."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import OptionError

VOID = 255
"""The mask value of pixels that count neither in the loss nor in the metrics."""

Colour = tuple[int, int, int]


def voc_colour(label: int) -> Colour:
    """The PASCAL VOC palette: the bits of the label, spread over R, G, B from the highest bit down.

    Source: the VOC devkit's colour map (reference 7.1).

    >>> voc_colour(1), voc_colour(20), voc_colour(255)
    ((128, 0, 0), (0, 64, 128), (224, 224, 192))
    """
    channels = [0, 0, 0]
    for n in range(8):
        for channel in range(3):
            channels[channel] |= (label >> channel & 1) << (7 - n)
        label >>= 3
    return channels[0], channels[1], channels[2]


@dataclass(frozen=True)
class LabelSet:
    """Names and colours of classes 0..K-1; void is always 255.

    Args:
        names: one name a class, in the order of the class numbers; 1 to 255 of them, all different.
        colours: one (R, G, B) of 0..255 a class; default: the VOC palette.

    Raises:
        OptionError: no or too many classes, a name given twice, a colour missing or out of range.

    >>> LabelSet(("background", "scratch")).colours
    ((0, 0, 0), (128, 0, 0))
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = field(default=())

    def __post_init__(self) -> None:
        names = tuple(str(name) for name in self.names)
        if not 1 <= len(names) <= VOID:
            raise OptionError(f"{len(names)} classes; expected 1 to {VOID} (a mask is 8 bits and {VOID} is void)")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise OptionError(f"class name {twice[0]!r} is given twice; give every class its own name")
        colours = tuple(_colour(c) for c in self.colours) or tuple(voc_colour(i) for i in range(len(names)))
        if len(colours) != len(names):
            raise OptionError(f"{len(colours)} colours for {len(names)} classes; give one colour a class, or none")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "colours", colours)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def numbered(cls, count: int) -> LabelSet:
        """Classes named by their numbers.

        >>> LabelSet.numbered(3).names
        ('0', '1', '2')
        """
        return cls(tuple(str(i) for i in range(count)))

    @property
    def named(self) -> bool:
        """Whether the classes have names, other than their numbers."""
        return self.names != tuple(str(i) for i in range(len(self)))

    def palette(self) -> NDArray[np.uint8]:
        """The colour table of a palette PNG: (256, 3) uint8, void and unused values in VOC colours."""
        table = _voc_table().copy()
        table[: len(self)] = self.colours
        return table

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` inverts."""
        return {"names": list(self.names), "colours": [list(c) for c in self.colours]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LabelSet:
        """Inverse of `to_json`.

        Raises:
            OptionError: keys or types other than `to_json` writes.
        """
        names, colours = value.get("names"), value.get("colours", [])
        if not isinstance(names, Sequence) or isinstance(names, str) or not isinstance(colours, Sequence):
            raise OptionError("labels must be an object with the lists 'names' and 'colours'")
        return cls(tuple(str(name) for name in names), tuple(_colour(c) for c in colours))


@functools.cache
def _voc_table() -> NDArray[np.uint8]:
    return np.array([voc_colour(label) for label in range(256)], dtype=np.uint8)


def _colour(value: Any) -> Colour:
    """Three integers of 0..255, or OptionError."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        r, g, b = value
        if all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in (r, g, b)):
            return r, g, b
    raise OptionError(f"colour {value!r} is not three integers of 0..255, such as (128, 0, 0)")
