"""Masks whose colours are classes: the colours are looked up in the list that came with them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fullconv.data.annotations.entry import Entry
from fullconv.data.image import WIDE_MODES, format_of, load_picture, opened
from fullconv.data.mask import packed
from fullconv.errors import DataError, printable
from fullconv.labels import Colour

_FORMATS = ("PNG", "TIFF", "BMP")


@dataclass(frozen=True)
class Painted:
    """A mask file and the list of its colours.

    Attributes:
        path: of the mask.
        colours: by label; all different.
        source: the file that lists them, for messages.
    """

    path: Path
    colours: Mapping[str, Colour]
    source: Path

    def read(self) -> tuple[NDArray[np.int16], Counter[str]]:
        """(H, W): each pixel's place in `colours`, -1 where there is none; and how many pixels have which other colour.

        Palette masks go by their colours; grey ones too, or, where those lead nowhere, by their value as a place.

        Raises:
            DataError: a file that cannot be read or is lossy.
        """
        with opened(self.path) as (stream, head):
            kind = format_of(head)
            if kind not in _FORMATS:
                raise DataError(
                    f"{printable(self.path)}: is {kind or 'no picture'}, expected a mask as PNG, TIFF or BMP"
                )
            picture = load_picture(self.path, stream, head)
            if picture.mode in WIDE_MODES or picture.mode.startswith("I;16"):
                raise DataError(
                    f"{printable(self.path)}: holds wide values, expected colours of 8 bits; save it as RGB"
                )
            grey = np.asarray(picture) if picture.mode == "L" else None
            rgb = np.asarray(picture.convert("RGBA" if "transparency" in picture.info else "RGB"))[:, :, :3]
        colours = packed(rgb)
        places = _places(colours, packed(np.array(list(self.colours.values()), np.uint8)))
        if grey is not None and (places < 0).any() and grey.max() < len(self.colours):
            places = grey.astype(np.int16)
        values, counts = np.unique(colours[places < 0], return_counts=True)
        unknown = {f"#{value:06X}": int(count) for value, count in zip(values, counts, strict=True)}
        return places, Counter(unknown)


def hex_colour(entry: Entry) -> Colour:
    """``#rrggbb`` -> (R, G, B).

    Raises:
        DataError: another text.
    """
    match = re.fullmatch(r"#([0-9a-fA-F]{6})", entry.text())
    if match is None:
        entry.refuse("a colour such as '#50E3C2'")
    red, green, blue = bytes.fromhex(match[1])
    return red, green, blue


def check_colours(colours: Mapping[str, Colour], source: Path) -> None:
    """Raise DataError unless there are colours, all different."""
    if not colours:
        raise DataError(f"{printable(source)}: lists no classes; export it again")
    owner: dict[Colour, str] = {}
    for label, colour in colours.items():
        if owner.setdefault(colour, label) != label:
            raise DataError(
                f"{printable(source)}: gives {list(colour)} to {owner[colour]!r} and {label!r}; give each its own"
            )


def _places(colours: NDArray[np.uint32], known: NDArray[np.uint32]) -> NDArray[np.int16]:
    order = np.argsort(known)
    keys = known[order]
    found = np.minimum(np.searchsorted(keys, colours), len(keys) - 1)
    return np.where(keys[found] == colours, order[found], -1).astype(np.int16)
