"""What verbs show: progress, tables, JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from fullconv.metrics import Scores
    from fullconv.training.progress import Tick


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A progress display on standard error, gone when done; nothing for machines."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[facts]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        yield bar


def training_bar(bar: Progress, quiet: bool = False) -> Callable[[Tick], None]:
    """Shows loss, images/s, time left and the last mean IU."""
    task = bar.add_task("checking the data", total=1.0, facts="")
    names = {
        "check": "checking the data",
        "train": "training",
        "evaluate": "scoring",
        "report": "writing the report",
    }
    last = {"facts": "", "mean IU": ""}
    terminal, start = bar.console.is_terminal, time.monotonic()

    def show(tick: Tick) -> None:
        if tick.phase == "begin":
            if not quiet:
                bar.console.print(tick.text, markup=False, highlight=False, soft_wrap=True)
            return
        if tick.phase == "train":
            left = tick.seconds_left or 0
            parts = [
                "" if tick.step is None else f"step {tick.step}",
                "" if tick.loss is None else f"loss {tick.loss:.4g}",
                "" if tick.loss_per_pixel is None else f"({tick.loss_per_pixel:.4g} a pixel)",
                "" if tick.images_per_s is None else f"{tick.images_per_s:.1f} images/s",
                f"{left // 60:.0f}:{left % 60:02.0f} left",
                "" if tick.mean_iu is None else f"mean IU {tick.mean_iu:.3f}",
            ]
            last["facts"] = "  ".join(part for part in parts if part)
            if not terminal and not quiet and parts[-1] != last["mean IU"]:  # a log gets a line an evaluation
                last["mean IU"] = parts[-1]
                typer.echo(f"{time.monotonic() - start:.0f} s  {100 * tick.done:.0f} %  {last['facts']}", err=True)
        bar.update(task, description=names[tick.phase], completed=tick.done, facts=last["facts"])

    return show


def print_scores(
    scores: Scores, names: Sequence[str], title: str, boundary: Sequence[float] | None = None, note: str = ""
) -> None:
    """A line a class, and the four numbers.

    Args:
        boundary: the classes' boundary F.
        note: printed below.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    columns: dict[str, Sequence[str]] = {
        "IU": [percent(value) for value in scores.iu],
        "accuracy": [percent(value) for value in scores.accuracy],
        **({} if boundary is None else {"BF": [percent(value) for value in boundary]}),
        "pixels": [f"{count:,}" for count in scores.pixels],
    }
    for column in columns:
        table.add_column(column, justify="right")
    for name, *cells in zip(names, *columns.values(), strict=True):
        table.add_row(escape(name), *cells)
    console.print(table)
    console.print(
        f"pixel accuracy {percent(scores.pixel_accuracy)}   mean accuracy {percent(scores.mean_accuracy)}   "
        f"mean IU {percent(scores.mean_iu)}   f.w. IU {percent(scores.fw_iu)}",
        soft_wrap=True,
    )
    if note:
        console.print(escape(note), soft_wrap=True)


def class_names(model: Path) -> dict[str, list[str]]:
    """Class names of a model file, by task."""
    from fullconv.weights.modelfile import read_header

    return {task: [str(name) for name in labels["names"]] for task, labels in read_header(model)["labels"].items()}


def percent(value: float) -> str:
    """A fraction for a table."""
    return "n/a" if value != value else f"{100 * value:.1f}"  # noqa: PLR0124  (nan alone differs from itself)


def print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
