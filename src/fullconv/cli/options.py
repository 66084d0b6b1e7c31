"""Arguments and options that several verbs share."""

from __future__ import annotations

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
        raise OptionError(f"{option} {text[:80]!r}; expected HxW in pixels, such as 480x360")
    return int(height), int(width)


Upsampling = Annotated[
    str | None,
    typer.Option(help="bilinear (default), interpolation, learned, learned-all, stacked or unpooling."),
]
