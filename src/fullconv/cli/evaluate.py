"""`fullconv evaluate`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fullconv.cli.options import DataSource, Json, ModelPath, Precision, whole_numbers
from fullconv.cli.show import class_names, percent, print_json, print_scores, progress_bar
from fullconv.errors import OptionError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from fullconv.inference.evaluate import Evaluation
    from fullconv.metrics import Absent, ConfusionMatrix, Scores


def evaluate(
    model: ModelPath,
    data: DataSource,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    precision: Precision = "float32",
    absent: Annotated[
        str | None,
        typer.Option(
            help="Classes without a true pixel in mean IU: predicted (those predicted count 0) or excluded. "
            "Default: the data set's own rule, mostly predicted."
        ),
    ] = None,
    boundary: Annotated[
        str | None,
        typer.Option(metavar="TOLERANCE", help="Boundary F within so many pixels, or within 0.75% of the diagonal."),
    ] = None,
    trimap: Annotated[
        str | None,
        typer.Option(metavar="WIDTHS", help="Mean IU within so many pixels of a class boundary, such as 1,2,4,8,16."),
    ] = None,
    worst: Annotated[int | None, typer.Option(help="List so many images of lowest mean IU.")] = None,
    confusion: Annotated[
        Path | None, typer.Option(help="Write the confusion matrix, each row 100 %: PATH.png or PATH.csv.")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="The published results on this data set beside it.")] = False,
    json_: Json = False,
) -> None:
    """Score a model: pixel accuracy, mean accuracy, mean IU, f.w. IU, per class, at native resolution."""
    from fullconv.inference.evaluate import evaluate as run
    from fullconv.paper_results import published

    names = class_names(model)
    if worst is not None and worst < 1:
        raise OptionError(f"--worst {worst}; expected 1 or more images")
    if confusion is not None and confusion.suffix.lower() not in (".png", ".csv"):
        raise OptionError(f"--confusion {printable(confusion)}; expected a name that ends in .png or .csv")
    semantic = _scored_by_paper(names)
    tables = {task: published(names[task]) for task in semantic} if paper else {}
    with progress_bar(json_) as bar:
        line = bar.add_task("scoring", total=None, facts="")
        result = run(
            model,
            data,
            split,
            precision=precision,
            absent=cast("Absent | None", absent),
            boundary=boundary,
            trimap=whole_numbers("--trimap", trimap, "widths in pixels, such as 1,2,4,8,16")
            if trimap is not None
            else (),
            progress=lambda done, total: bar.update(line, completed=done, total=total),
        )
    files = {} if confusion is None else _write_confusion(confusion, result.matrices, names)
    scores = result.by_task()
    if json_:
        tasks = {
            task: {
                "classes": names[task],
                **each.to_json(),
                **({"absent": result.rule(task)} if absent or result.rule(task) != "predicted" else {}),
                **_asked_json(result, task, worst),
                **({"confusion": _confusion_json(files[task], result.matrices[task])} if task in files else {}),
                **({"paper": _paper_json(tables[task])} if task in tables else {}),
            }
            for task, each in scores.items()
        }
        # The first task's numbers stand on top, so that the ordinary case need not know that there are tasks.
        print_json({"split": split, **next(iter(tasks.values())), **({"tasks": tasks} if len(tasks) > 1 else {})})
        return
    within = f"{boundary}" if boundary is None or boundary.endswith("%") else f"{boundary} pixels"
    for task, each in scores.items():
        f = result.boundary[task].scores() if task in result.boundary else None
        notes = {
            "classes without a true pixel are left out of mean IU": result.rule(task) == "excluded",
            f"boundary F {percent(f.mean) if f else None} (within {within})": f is not None,
        }
        print_scores(
            each,
            names[task],
            f"{data}, {split}" + (f", {task}" if len(scores) > 1 else ""),
            f.f if f else None,
            "; ".join(note for note, told in notes.items() if told),
        )
        _print_asked(result, task, worst)
        if task in files:
            typer.echo(f"Confusion matrix  {files[task]}")
        if task in tables:
            _print_paper(tables[task], each, split, _geometric(scores, names))


def _scored_by_paper(names: Mapping[str, Sequence[str]]) -> list[str]:
    """Tasks with a table of their own: SIFT Flow's geometric classes are a column of the semantic one's."""
    from fullconv.classes import SIFTFLOW_GEOMETRY

    return [task for task in names if tuple(names[task]) != SIFTFLOW_GEOMETRY or len(names) == 1]


def _geometric(scores: Mapping[str, Scores], names: Mapping[str, Sequence[str]]) -> float | None:
    beside = scores.keys() - set(_scored_by_paper(names))
    return scores[beside.pop()].pixel_accuracy if beside else None


def _asked_json(result: Evaluation, task: str, worst: int | None) -> dict[str, Any]:
    """What was measured beside the four numbers."""
    asked: dict[str, Any] = {}
    if task in result.boundary:
        asked["boundary"] = result.boundary[task].to_json()
    if task in result.trimap:
        asked["trimap"] = result.trimap[task].to_json(result.rule(task))
    if worst is not None:
        asked["worst"] = [
            {"name": image.name, "mean_iu": image.mean_iu, "error": image.error} for image in result.worst(worst, task)
        ]
    return asked


def _print_asked(result: Evaluation, task: str, worst: int | None) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    if task in result.trimap:
        table = _table("near boundaries", "mean IU", "pixel accuracy", "pixels")
        for width, scores in result.trimap[task].scores(result.rule(task)).items():
            cells = (percent(scores.mean_iu), percent(scores.pixel_accuracy), f"{sum(scores.pixels):,}")
            table.add_row(f"within {width} pixel{'s' * (width > 1)}", *cells)
        console.print(table)
    if worst is not None:
        table = _table("worst images", "mean IU %", "wrong %")
        for image in result.worst(worst, task):
            table.add_row(escape(printable(image.name)), percent(image.mean_iu), percent(image.error))
        console.print(table)


def _write_confusion(
    path: Path, matrices: Mapping[str, ConfusionMatrix], names: Mapping[str, Sequence[str]]
) -> dict[str, Path]:
    """One file a task; of several tasks the names carry the task's."""
    from fullconv.files import atomic
    from fullconv.labels import LabelSet
    from fullconv.report.charts import confusion_png

    files = {}
    for task, matrix in matrices.items():
        file = path if len(matrices) == 1 else path.with_name(f"{path.stem}-{task}{path.suffix}")
        if path.suffix.lower() == ".png":
            content = confusion_png(matrix.counts, LabelSet(tuple(names[task])))
        else:
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(["truth / prediction", *names[task]])
            for name, row in zip(names[task], matrix.normalised().tolist(), strict=True):
                writer.writerow([name, *("" if math.isnan(value) else value for value in row)])
            content = text.getvalue().encode()
        with atomic(file, durable=False) as temporary:
            temporary.write_bytes(content)
        files[task] = file
    return files


def _confusion_json(file: Path, matrix: ConfusionMatrix) -> dict[str, Any]:
    rows = [[None if math.isnan(value) else value for value in row] for row in matrix.normalised().tolist()]
    return {"file": str(file), "normalised": rows, "counts": matrix.counts.tolist()}


def _paper_json(name: str) -> dict[str, Any]:
    from fullconv.paper_results import TABLES

    return {"data": name, "unit": "percent", "rows": [row.to_json() for row in TABLES[name].rows]}


def _print_paper(name: str, scores: Scores, split: str, geometric: float | None) -> None:
    """The published rows, this run's last; the classes' IU where one has been published."""
    from rich.console import Console

    from fullconv.paper_results import TABLES

    console = Console(highlight=False)
    rows = TABLES[name].rows
    heads = ["split", "pixel", "mean acc.", "mean IU", "f.w. IU"]
    with_geometric = geometric is not None or any(row.geometric is not None for row in rows)
    table = _table(f"{name}, published", *heads, *(["geometric"] if with_geometric else []), "source")
    for row in rows:
        numbers = [row.pixel, row.mean_accuracy, row.mean_iu, row.fw_iu, *([row.geometric] if with_geometric else [])]
        source = f"{row.source}; {row.note}" if row.note else row.source
        table.add_row(row.net, row.split, *("" if value is None else f"{value:.1f}" for value in numbers), source)
    mine = [scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iu, scores.fw_iu]
    cells = [*map(percent, mine), *(["" if geometric is None else percent(geometric)] if with_geometric else [])]
    table.add_row("this run", split, *cells, "measured now", style="bold reverse")
    console.print(table)
    for row in rows:
        if row.iu:
            classes = _table(f"IU by class, {row.source}", row.net, "this run")
            for label, value in zip(TABLES[name].classes, scores.iu, strict=True):
                classes.add_row(label, f"{row.iu[label]:.1f}", percent(value))
            console.print(classes)


def _table(first: str, *columns: str) -> Table:
    """A plain table whose first column is of names, and columns of numbers to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(f"\n{first}", no_wrap=True)
    for column in columns:
        table.add_column(f"\n{column}", justify="left" if column in ("split", "source") else "right")
    return table
