"""`fullconv convert`."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullconv.cli.options import Json, Upsampling
from fullconv.cli.show import print_json
from fullconv.errors import printable, shape_text

if TYPE_CHECKING:
    from rich.table import Table

    from fullconv.weights.convert import Conformance
    from fullconv.weights.plan import Entry


def convert(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help=".caffemodel, torchvision .pth or model file; one for each trunk."),
    ],
    net: Annotated[str, typer.Option(help="What it becomes, such as voc-fcn8s or fcn32s-vgg16.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file to write, MODEL.safetensors.")],
    classes: Annotated[int | None, typer.Option(help="Default: the net's or the file's own.")] = None,
    padding: Annotated[str | None, typer.Option(help="same or paper; default: the net's.")] = None,
    upsampling: Upsampling = None,
    json_: Json = False,
) -> None:
    """Make a model of published weights, and report what became of every layer."""
    from fullconv.weights.convert import convert as run

    report = run(files, net, out, classes=classes, padding=padding, upsampling=upsampling)
    if json_:
        print_json({"model": str(out), **report.to_json()})
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(_layers(report))
    for line in _facts(report):
        typer.echo(line)
    typer.echo(f"Model   {out}")


def _layers(report: Conformance) -> Table:
    """A line a layer: its weight's shapes there and here, and what became of it."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("layer", "in the file", "shape there", "shape here", "parameters", "what"):
        table.add_column(column, justify="right" if column == "parameters" else "left", overflow="fold")
    layers: dict[str, list[Entry]] = {}
    for entry in report.entries:
        layers.setdefault(entry.key.rpartition(".")[0], []).append(entry)
    for name, entries in layers.items():
        first = entries[0]
        count = sum(prod(e.shape) for e in entries if e.key.endswith(("weight", "bias")))
        whats = list(dict.fromkeys(e.how for e in entries if not e.key.endswith("num_batches_tracked")))
        shapes = [shape_text(first.source_shape) if first.source else "", shape_text(first.shape)]
        table.add_row(name, escape(first.source), *shapes, f"{count:,}", escape("; ".join(whats)))
    for checked in report.checked:
        shape = shape_text(checked.shape) if checked.shape else ""
        table.add_row(checked.module, checked.name, shape, "", "", checked.how)
    return table


def _facts(report: Conformance) -> list[str]:
    lines = [f"{report.parameters:,} parameters"]
    for source in report.sources:
        lines.append(f"{printable(source.file)}: {source.kind}, sha256 {source.sha256[:16]}...")
    lines.append(report.verdict)
    if report.dropped:
        shown = ", ".join(report.dropped[:12])
        more = f" and {len(report.dropped) - 12} more" if len(report.dropped) > 12 else ""
        lines.append(f"In the files and not used: {shown}{more}")
    if report.zero:
        layers = dict.fromkeys(key.rpartition(".")[0] for key in report.zero)
        lines.append(f"Zero, to be trained (fullconv train --init): {', '.join(layers)}")
    if report.known_scores:
        scores = ", ".join(f"{name} {100 * value:.1f}" for name, value in report.known_scores.items())
        lines.append(f"The published {report.net} scores on {report.scored_on}: {scores}")
    return lines
