"""`fullconv doctor`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullconv.cli.show import print_json, progress_bar
from fullconv.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from fullconv.data.doctor import Diagnosis, Repaired


def doctor(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As of train: a folder or a YAML file.")],
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write a repaired copy there; DATA is never changed.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="PAGE.html", help="Write the findings as one page.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Check a data set before anything is learned from it; exit code 1 if training would not start."""
    from fullconv.data.doctor import examine, repair
    from fullconv.files import require_fresh

    if fix is not None:
        require_fresh(fix)
    with progress_bar(json_) as bar:
        line = bar.add_task("looking at every file", total=None, facts="")
        found = examine(data, progress=lambda done, total: bar.update(line, completed=done, total=total))
        if report is not None:
            from fullconv.report.doctor import write_doctor_page

            write_doctor_page(report, found, shlex.join(["fullconv", *sys.argv[1:]]))
        repaired = None
        if fix is not None:
            line = bar.add_task("writing the copy", total=None, facts="")
            repaired = repair(found, fix, lambda done, total: bar.update(line, completed=done, total=total))
    if json_:
        more = {} if repaired is None else {"fixed": repaired.to_json()}
        print_json({**found.to_json(), **more})
    else:
        _print(found)
        if repaired is not None:
            _print_repaired(repaired)
        if report is not None:
            typer.echo(f"Report    {printable(report)}")
    if found.errors and repaired is None:
        raise typer.Exit(1)


def _print(found: Diagnosis) -> None:
    from collections import Counter

    from rich.console import Console

    from fullconv.report.doctor import span

    listing, console = found.listing, Console(highlight=False)
    splits = ", ".join(f"{split} {len(scenes):,}" for split, scenes in listing.scenes.items()) or "no files"
    held_out = " (val is held out of train)" if listing.held_out else ""
    typer.echo(f"{printable(listing.source)}: {listing.layout}; {splits}{held_out}")
    sizes = Counter(found.sizes()).most_common()
    if sizes:
        shown = ", ".join(f"{h} x {w}" for (h, w), _ in sizes[:3])
        typer.echo(f"Images: {found.usual_kind}, {shown}{f' and {len(sizes) - 3} other sizes' * (len(sizes) > 3)}")
        typer.echo(f"Sides: {span(found.sides())} pixels; width over height: {span(found.aspects())}")
    for task in found.codings:
        _print_classes(console, found, task)
    for finding in found.findings:
        colour = {"error": "red", "warning": "yellow"}[finding.severity]
        console.print(f"\n[{colour}]{finding.severity}[/]  ", end="")
        typer.echo(f"{finding.title}: {finding.count}")
        for each in finding.lines:
            typer.echo(f"    {each}")
        typer.echo(f"  what it does: {finding.consequence}")
        typer.echo(f"  what mends it: {finding.remedy}")
    if not listing.count and not found.findings:
        typer.echo("It has no files of images and masks to look at.")
    elif not found.findings:
        typer.echo("Nothing is wrong with it as far as a program can tell.")


def _print_classes(console: Console, found: Diagnosis, task: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    from fullconv.report.doctor import class_rows

    table = Table(title=task if len(found.codings) > 1 else None, title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for split in found.counts(task):
        table.add_column(f"{escape(split)} %", justify="right")
        table.add_column("images", justify="right", style="dim")
    table.add_column("weight", justify="right")
    for row in class_rows(found, task):
        table.add_row(escape(row["name"]), *(text for pair in row["shares"] for text in pair), row["weight"])
    console.print(table)


def _print_repaired(repaired: Repaired) -> None:
    from fullconv.data.doctor.repair import REPORT

    typer.echo("")
    for change, names in repaired.changed.items():
        typer.echo(f"mended    {change}: {len(names)}")
    for why, names in repaired.dropped.items():
        typer.echo(f"left out  {why}: {len(names)}")
    for title in repaired.left:
        typer.echo(f"left      {title}")
    typer.echo(f"Written   {repaired.written} scenes to {printable(repaired.path)}; {REPORT} there names every change")
    typer.echo(f"Next      fullconv train --data {shlex.quote(printable(repaired.data))}")
