"""`fullconv import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullconv.cli.options import Json
from fullconv.cli.show import print_json, progress_bar
from fullconv.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from fullconv.data.annotations import Imported


def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A tool's export: its folder or file, unpacked.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write, new or empty.")],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="coco, labelme, cvat, cvat-masks, yolo, labelstudio, supervisely, datumaro; default: what is there.",
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of the images, if not with SOURCE.")] = None,
    order: Annotated[str, typer.Option(help="What lies on top: tool (its order) or area (the smaller).")] = "tool",
    background: Annotated[
        str, typer.Option(help="What nothing covers becomes background (class 0) or void (255).")
    ] = "background",
    classes: Annotated[
        str | None, typer.Option(help="Order and subset: names with commas, or a text file, one a line.")
    ] = None,
    others: Annotated[str, typer.Option(help="Labels outside of --classes: error, background or void.")] = "error",
    boxes: Annotated[bool, typer.Option("--boxes", help="Fill the boxes of YOLO.")] = False,
    empty: Annotated[bool, typer.Option("--empty", help="Take images without annotations, as background.")] = False,
    json_: Json = False,
) -> None:
    """Make a data set of an annotation tool's export: images, palette masks and classes.txt."""
    from fullconv.data.annotations import import_annotations

    with progress_bar(json_) as bar:
        task = bar.add_task("drawing masks", total=None, facts="")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, facts=f"{done}/{total} images")

        done = import_annotations(
            source,
            out,
            format=format_,
            images=images,
            order=order,
            background=background,
            classes=None if classes is None else _names(classes),
            others=others,
            boxes=boxes,
            empty=empty,
            progress=show,
        )
    if json_:
        pixels = [int(count) for count in done.pixels]
        counted = {"images": done.images, "shapes": done.shapes, "pixels": pixels, "void": done.void}
        print_json({"path": str(out), "classes": list(done.labels.names), **counted, "notes": list(done.notes)})
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 100, highlight=False).print(_classes(done))
    for note in done.notes:
        typer.echo(f"Note     {note}")
    typer.echo(f"Data     {printable(out)}: {done.images:,} images, {done.shapes:,} shapes")
    typer.echo(f"Next     fullconv doctor {printable(out)}, then fullconv train --data {printable(out)}")


def _names(text: str) -> list[str]:
    """Class names with commas between them, or the lines of a file."""
    from fullconv.data.annotations.labels_file import read_names

    try:
        named = Path(text).is_file()
    except OSError:  # names may be longer than a path can be
        named = False
    return read_names(Path(text)) if named else text.split(",")


def _classes(done: Imported) -> Table:
    """A line a class: in how many images, how many pixels, and their share of those that count."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for column in ("images", "pixels", "share"):
        table.add_column(column, justify="right")
    total = max(1, int(done.pixels.sum()) + done.void)
    rows = [*zip(done.labels.names, done.occurrences.tolist(), done.pixels.tolist(), strict=True)]
    if done.void:
        rows.append(("void (255)", done.void_images, done.void))
    for name, images, pixels in rows:
        table.add_row(escape(printable(name)), f"{images:,}", f"{pixels:,}", f"{100 * pixels / total:.3g} %")
    return table
