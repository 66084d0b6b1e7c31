"""`fullconv fetch`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullconv.cli.options import Json
from fullconv.cli.show import print_json

if TYPE_CHECKING:
    from fullconv.weights.published import PublishedWeights


def fetch(
    name: Annotated[str | None, typer.Argument(help="Of the published weights; none: list them.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A file or a folder; default: the cache.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the published weights.")] = False,
    json_: Json = False,
) -> None:
    """Fetch published weights: resumed where a transfer broke, checked by their digest."""
    from fullconv.weights.fetch import fetch as run
    from fullconv.weights.published import PUBLISHED

    if name is None or list_:
        if json_:
            print_json({"weights": [{"name": key, **asdict(each)} for key, each in PUBLISHED.items()]})
        else:
            _show_table(PUBLISHED)
        return
    with _transfer_bar(name, json_) as progress:
        fetched = run(name, out, progress)
    published = PUBLISHED[name]
    command = published.next_command(fetched.path)
    if json_:
        print_json(
            {"name": name, **asdict(published), **asdict(fetched), "path": str(fetched.path), "next": command}
            | {"published_digest": published.digest}
        )
        return
    typer.echo(f"File     {fetched.path} ({fetched.bytes:,} bytes{', there already' if fetched.kept else ''})")
    typer.echo(f"Digest   {_digest(fetched.digest, published.digest)}; sha256 {fetched.sha256}")
    typer.echo(f"Licence  {published.licence}")
    if published.scores:
        typer.echo(f"Scores   {_scores(published.scores)} on {published.scored_on}")
    typer.echo(f"Next     {command}")


def _show_table(published: Mapping[str, PublishedWeights]) -> None:
    """A line a file; the licences, of which many are the same, below."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "net", "known score", "digest", "licence"):
        table.add_column(column, no_wrap=True)
    licences = list(dict.fromkeys(each.licence for each in published.values()))
    for name, each in published.items():
        best = next((key for key in ("mean IU", "top-1") if key in each.scores), None)
        score = _scores({best: each.scores[best]}) if best else "-"
        digest = each.digest.partition(":")[0] if each.digest else "none known"
        table.add_row(name, each.net, score, digest, str(licences.index(each.licence) + 1))
    Console(width=None if sys.stdout.isatty() else 100, highlight=False).print(table)
    typer.echo("\nLicences, as far as they are known:")
    for number, licence in enumerate(licences, 1):
        typer.echo(f"{number}  {licence}")
    typer.echo("\nNext: fullconv fetch NAME; --json lists addresses, digests and all scores.")


def _digest(state: str, published: str | None) -> str:
    """What the check was worth."""
    if published is None:
        return f"{state}, so the file could not be checked"
    kind, _, digits = published.partition(":")
    return f"{state} the published {kind}" + (f" ({len(digits)} digits of it)" if kind == "sha256" else "")


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items())


@contextmanager
def _transfer_bar(name: str, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Bytes, speed and time left on standard error, gone when done; nothing for machines."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:

        def show(done: int, total: int | None) -> None:
            if not bar.task_ids:  # begun where the part ends, so that what was there does not count as speed
                bar.add_task(name, completed=done, total=total)
            bar.update(bar.task_ids[0], completed=done, total=total)

        yield show
