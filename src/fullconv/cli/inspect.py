"""`fullconv inspect`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullconv.cli.options import Json, size_of
from fullconv.cli.show import print_json
from fullconv.cli.user_module import is_code, load_user_module
from fullconv.errors import OptionError, printable

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from fullconv.data.sample import Array
    from fullconv.units import Units

NET_SIZE, CODE_SIZE = "500x500", "224x224"
"""Default input sizes: the paper's, and that of most classifiers."""


def inspect(
    net: Annotated[
        str | None,
        typer.Argument(
            metavar="NET",
            help="A net's name, a model file, or FILE.py:NAME: a module, or what makes one. FILE.py is executed.",
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help=f"Input size, HxW; {NET_SIZE}, for code {CODE_SIZE}.")] = None,
    classes: Annotated[int | None, typer.Option(help="Where a net is named; default: its own, or 21.")] = None,
    padding: Annotated[str | None, typer.Option(help="same or paper, where a net is named; default: its own.")] = None,
    channels: Annotated[int | None, typer.Option(help="Of the input, for code; default: the first layer's.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw receptive fields, OUT.png.")] = None,
    image: Annotated[Path | None, typer.Option(help="What they are drawn over; its size is the input size.")] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER:ROW,COL", help="What is drawn; default: the middle of each stride. Repeatable."),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's table 1 beside ours, computed and timed.")
    ] = False,
    json_: Json = False,
) -> None:
    """Layers, sizes, parameters, receptive fields, strides and crops of a net, or of any module."""
    if paper == (net is not None) or (paper and (classes, padding, channels, picture, image, unit) != (None,) * 6):
        raise OptionError(
            "name a net, a model file or FILE.py:NAME, such as fcn8s-vgg16; or give --paper, with no more than --size"
        )
    if picture is None and (image is not None or unit):
        raise OptionError("--image and --unit say what is drawn; add --picture OUT.png")
    if picture is not None and picture.suffix.lower() != ".png":
        raise OptionError(f"{printable(picture)} does not end in .png; drawings are PNG")
    if picture is not None and image is not None and picture.resolve() == image.resolve():
        raise OptionError(f"{printable(picture)} would replace the image; choose another name")
    if image is not None and size is not None:
        raise OptionError("the image's size is the input size; leave --size or --image out")
    if paper:
        from fullconv.paper import table_1

        table = table_1(size_of(size or NET_SIZE))
        _show(table.to_json(), table.tables(), json_)
        return
    drawn = None if image is None else _read(image)
    given = (drawn.shape[0], drawn.shape[1]) if drawn is not None else None if size is None else size_of(size)
    subject = _subject(str(net), given, classes, padding, channels)
    if picture is None:
        _show(subject.value, subject.tables, json_)
        return
    from rich.markup import escape

    _draw(subject, picture, drawn, unit or [])
    _show({**subject.value, "picture": str(picture)}, [*subject.tables, f"\nDrawing  {escape(str(picture))}"], json_)


@dataclass(frozen=True)
class _Subject:
    """What is inspected, in every form."""

    size: tuple[int, int]
    value: dict[str, Any]
    tables: Sequence[Table | str]
    units: Callable[[], Units]


def _subject(
    name: str, size: tuple[int, int] | None, classes: int | None, padding: str | None, channels: int | None
) -> _Subject:
    if is_code(name):
        if classes is not None or padding is not None:
            raise OptionError("classes and padding are options of named nets; leave them out")
        return _of_module(load_user_module(name), size or size_of(CODE_SIZE), channels)
    if channels is not None:
        raise OptionError("channels are an option for code; leave them out")
    from fullconv.inspect import inspect_net, named_net
    from fullconv.nets import NETS
    from fullconv.units import units_of_net
    from fullconv.weights.classifierfile import KIND, read_classifier
    from fullconv.weights.modelfile import read_header

    if name not in NETS and Path(name).is_file() and read_header(name).get("kind") == KIND:
        if classes is not None or padding is not None:
            raise OptionError("a classifier's file has its own classes and padding; leave the options out")
        dense = read_classifier(name)
        return _of_module(dense.net, size or dense.input_size, dense.channels)
    fcn, size = named_net(name, classes, padding), size or size_of(NET_SIZE)
    report = inspect_net(fcn, size)
    return _Subject(size, report.to_json(), report.tables(), lambda: units_of_net(fcn, size))


def _of_module(module: nn.Module, size: tuple[int, int], channels: int | None) -> _Subject:
    from fullconv.receptive import receptive_field, tables, to_json
    from fullconv.units import units_of_trace

    geometry = receptive_field(module, size, channels)
    return _Subject(size, to_json(geometry), tables(geometry), lambda: units_of_trace(geometry))


def _draw(subject: _Subject, out: Path, image: Array | None, texts: Sequence[str]) -> None:
    from fullconv.files import atomic
    from fullconv.report.fields import fields_png, neutral_picture

    png = fields_png(neutral_picture(subject.size) if image is None else image, subject.units().chosen(texts))
    with atomic(out, durable=False) as path:
        path.write_bytes(png)


def _read(path: Path) -> Array:
    from fullconv.data.image import read_image

    return read_image(path)


def _show(value: dict[str, Any], tables: Sequence[Table | str], json_: bool) -> None:
    if json_:
        print_json(value)
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(*tables, sep="\n")
