"""`fullconv compare`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullconv.cli.options import Json
from fullconv.cli.show import percent, print_json
from fullconv.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from fullconv.report.compare import Comparison

_MOST_COLUMNS = 3
"""More runs than these are rows."""

_WIDEST = 26
"""Characters of a run's name or an option's value in a column."""


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as runs/NAME.")],
    report: Annotated[
        Path | None, typer.Option(metavar="PAGE.html", help="Write the comparison, with curves, as one page.")
    ] = None,
    json_: Json = False,
) -> None:
    """Runs side by side: scores, classes, time, and the options in which they differ; means over seeds."""
    from fullconv.compare import compare as read

    found = read(runs)
    if report is not None:
        from fullconv.report.compare import write_comparison

        write_comparison(report, found, shlex.join(["fullconv", *sys.argv[1:]]))
    if json_:
        print_json(found.to_json())
        return
    _print(found)
    if report is not None:
        typer.echo(f"Report    {printable(report)}")


def _print(found: Comparison) -> None:
    from rich.console import Console
    from rich.markup import escape

    from fullconv.report.compare import SCORES

    console = Console(highlight=False)
    names = [run.name for run in found.runs]
    rows: dict[str, list[str]] = {}
    for key, title in SCORES.items():
        rows[title] = _starred(found.scores(key))
    rows["minutes"] = [_number(run.seconds, 60, ".1f") for run in found.runs]
    rows["steps"] = [_number(run.steps, 1, ",.0f") for run in found.runs]
    rows["images/s"] = [_number(run.images_per_s, 1, ".1f") for run in found.runs]
    console.print(_table("run", names, rows, across=len(names) <= _MOST_COLUMNS))
    if any(is_best for _, is_best in found.scores("mean_iu")):
        console.print("* the best")
    differing = found.options(equal=False)
    if len(names) <= _MOST_COLUMNS:
        classes = {name: _starred(found.iu(name)) for name in found.classes}
        if classes:
            console.print(_table("class, IU %", names, classes, across=True))
        if differing:
            options = {name: [f"{_text(value)} " for value in values] for name, values in differing.items()}
            console.print(_table("what differs", names, options, across=True))
    else:
        for option, values in differing.items():
            holders: dict[str, list[str]] = {}
            for name, value in zip(names, values, strict=True):
                holders.setdefault(_text(value), []).append(name)
            told = ", ".join(f"{value} ({', '.join(held)})" for value, held in holders.items())
            console.print(f"{escape(option)}: {escape(told)}", soft_wrap=True)
        console.print("IU of each class: with --report or --json", soft_wrap=True)
    for group in found.groups:
        means = "   ".join(
            f"{title} {percent(group.mean[key])} ± {percent(group.deviation[key])}"
            for key, title in SCORES.items()
            if key in group.mean
        )
        held = escape(", ".join(group.names))
        console.print(f"{len(group.names)} runs that differ in the seed alone ({held}):\n  {means}", soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)


def _table(title: str, runs: Sequence[str], rows: dict[str, list[str]], across: bool) -> Table:
    """One column a run if `across`, else one row a run."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(f"\n{title}", overflow="fold")
    lines: dict[str, Sequence[str]] = dict(rows)
    heads: Sequence[str] = runs
    if not across:
        heads = list(rows)
        lines = dict(zip(runs, zip(*rows.values(), strict=True), strict=True))
    for head in heads:
        table.add_column(f"\n{escape(head)}", justify="right", overflow="fold", max_width=_WIDEST)
    for name, cells in lines.items():
        table.add_row(escape(name), *map(escape, cells))
    return table


def _starred(values: Sequence[tuple[float | None, bool]]) -> list[str]:
    """Percent, the best with a star, and the digits one below the other."""
    return [f"{'n/a' if value is None else percent(value)}{'*' if best else ' '}" for value, best in values]


def _number(value: float | None, unit: float, form: str) -> str:
    return "n/a " if value is None else f"{value / unit:{form}} "


def _text(value: Any) -> str:
    from fullconv.report.compare import short

    return short(value)
