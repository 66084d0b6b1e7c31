"""Arguments and options that several verbs share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from fullconv.errors import OptionError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where the processor has it.")]
ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, such as runs/NAME/best.safetensors.")]
DataSource = Annotated[str, typer.Option("--data", help="A folder, a YAML file, or 'wafer' (generated on the spot).")]


def whole_numbers(option: str, text: str, what: str) -> tuple[int, ...]:
    """The whole numbers of a list with commas; their range is checked where they are used."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise OptionError(f"{option} {text[:80]!r}; expected {what}")
    return tuple(int(part) for part in parts)


def size_of(text: str, option: str = "size") -> tuple[int, int]:
    """(H, W) of HxW."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and 0 < int(height) <= 100_000 and 0 < int(width) <= 100_000):
        raise OptionError(f"{option} {text[:80]!r}; expected HxW in pixels, such as 360x480")
    return int(height), int(width)


UNITS = {"": 1, "B": 1, **{f"{unit}{i}B": base**power for i, base in (("", 1000), ("i", 1024))
         for power, unit in enumerate("KMGT", 1)}}  # fmt: skip


def bytes_of(text: str, option: str) -> int:
    """Bytes of a number with a unit: 2GiB, 1.5GB, 800MiB."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?i?B?)", text.strip())
    bytes_ = int(float(found[1]) * UNITS[found[2]]) if found is not None and found[2] in UNITS else 0
    if not bytes_:
        raise OptionError(f"{option} {text[:80]!r}; expected a number of bytes with its unit, such as 2GiB or 800MiB")
    return bytes_


def tile_of(text: str) -> int | str:
    """A tile's rows and columns, or "auto" or "off", which are checked where they are used."""
    if not (text.isascii() and text.isdigit()):
        return text
    if len(text) > 6:
        raise OptionError(f"--tile {text[:80]!r}; expected at most 999999 pixels, or off for the whole image")
    return int(text)


Upsampling = Annotated[
    str | None,
    typer.Option(help="bilinear (default), interpolation, learned, learned-all, stacked or unpooling."),
]
