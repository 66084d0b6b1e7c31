"""`fullconv inspect`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fullconv.cli.options import Json
from fullconv.cli.show import print_json
from fullconv.errors import OptionError


def inspect(
    net: Annotated[str | None, typer.Argument(metavar="[NET-or-MODEL]", help="A net's name or a model file.")] = None,
    size: Annotated[str, typer.Option(help="Input size, HxW.")] = "500x500",
    classes: Annotated[int | None, typer.Option(help="Where a net is named; default: its own, or 21.")] = None,
    padding: Annotated[str | None, typer.Option(help="same or paper, where a net is named; default: its own.")] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's table 1 beside ours, computed and timed.")
    ] = False,
    json_: Json = False,
) -> None:
    """Layers, sizes, parameters, receptive fields, strides and crops of a net."""
    from fullconv.inspect import Inspection, inspect_net, named_net
    from fullconv.paper import Table1, table_1

    if paper == (net is not None) or (paper and (classes is not None or padding is not None)):
        raise OptionError("name a net or a model file, such as fcn8s-vgg16; or give --paper, with no more than --size")
    report: Inspection | Table1
    report = table_1(_size(size)) if net is None else inspect_net(named_net(net, classes, padding), _size(size))
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
