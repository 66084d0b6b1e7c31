"""`fullconv heatmap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fullconv.cli.options import Json
from fullconv.cli.show import print_json
from fullconv.errors import OptionError, printable


def heatmap(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file: a convolutional classifier or an FCN.")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of any size from the classifier's on.")],
    class_: Annotated[
        str | None, typer.Option("--class", help="Its name, or a part that no other has; default: the top ones.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="How many classes: the most probable anywhere in the image; default 9.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="OUT.png; default: IMAGE_heatmap.png, here.")] = None,
    opacity: Annotated[float, typer.Option(help="Of the highest value, 0..1.")] = 0.7,
    json_: Json = False,
) -> None:
    """Where a class is seen in a picture: its probability at every place, over the picture."""
    if class_ is not None and top is not None:
        raise OptionError("--class names one class and --top counts several; leave one out")
    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity {opacity}; expected 0 (the image) to 1 (the colours)")
    target = Path(f"{image.stem}_heatmap.png") if out is None else out
    if target.resolve() == image.resolve():
        raise OptionError(f"{printable(target)} would replace the image; choose another name")
    from fullconv.inference.heatmap import heatmaps, save_heatmaps
    from fullconv.inference.model import load

    maps = heatmaps(load(model), image, class_, n=9 if top is None else top)
    save_heatmaps(target, maps, opacity)
    if json_:
        found = [
            {
                "name": each.name,
                "peak": each.peak,
                "row": each.position[0],
                "column": each.position[1],
                "height": each.window[0],
                "width": each.window[1],
            }
            for each in maps
        ]
        print_json({"classes": found, "picture": str(target)})
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    height, width = maps[0].window
    cells = "pixel, and where it is" if height == width == 1 else f"window of {height} x {width}, and where it begins"
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold")
    for column in ("highest", "row", "column"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in maps:
        table.add_row(escape(each.name), f"{100 * each.peak:.1f} %", *map(str, each.position))
    Console(highlight=False).print(table)
    typer.echo(f"The highest probability of any {cells}.")
    typer.echo(f"Heat map  {target}")
