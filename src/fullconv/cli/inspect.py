"""`fullconv inspect`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fullconv.cli.options import Json
from fullconv.cli.show import print_json
from fullconv.errors import OptionError


def inspect(
    net: Annotated[str, typer.Argument(metavar="NET-or-MODEL", help="A net's name or a model file.")],
    size: Annotated[str, typer.Option(help="Input size, HxW.")] = "500x500",
    classes: Annotated[int, typer.Option(help="Where a net is named.")] = 21,
    padding: Annotated[str, typer.Option(help="same or paper, where a net is named.")] = "same",
    json_: Json = False,
) -> None:
    """Layers, sizes, parameters, receptive fields, strides and crops of a net."""
    from fullconv.inspect import inspect_net, named_net

    report = inspect_net(named_net(net, classes, padding), _size(size))
    if json_:
        print_json(report.to_json())
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(*report.tables(), sep="\n")


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and 0 < int(height) <= 100_000 and 0 < int(width) <= 100_000):
        raise OptionError(f"size {text!r}; expected HxW in pixels, such as 480x360")
    return int(height), int(width)
