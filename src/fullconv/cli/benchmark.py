"""`fullconv benchmark`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from fullconv.cli.options import Json, size_of
from fullconv.cli.show import print_json, progress_bar
from fullconv.errors import OptionError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from fullconv.inference.timings import Row, Timings

COLUMNS = (
    "engine", "precision", "ms", "quartiles", "images/s", "plain = 1", "first call s", "peak GiB", "agreement %",
    "GFLOP", "% of peak",
)  # fmt: skip


def benchmark(
    model: Annotated[str, typer.Argument(metavar="MODEL-or-NET", help="A model file, or a net's name.")],
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="HxW", help="Of the images; default: the crops of the training, or 500x500. Repeatable."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="plain (the net as it is), torch, openvino or compile; default: all installed. Repeatable."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="float32, bfloat16 or int8; default: those that this processor is quick in. Repeatable."),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of images; default: smooth noise.")] = None,
    repeats: Annotated[int, typer.Option(help="Images that each median is of.")] = 7,
    threads: Annotated[int | None, typer.Option(help="Default: all processors that may be used.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="A folder for benchmark.json and benchmark.png.")
    ] = None,
    json_: Json = False,
) -> None:
    """Measure how fast a net labels images here: engines, precisions and sizes in turns, each in its own process.

    Beside the times stand the first call, memory, the share of labels that are the plain net's, and the share of what
    the machine computes at best.
    """
    sizes = [size_of(text, "--size") for text in size or ()]
    if out is not None:
        _require_folder(out)
    from fullconv.inference.benchmark import benchmark as run

    with progress_bar(json_) as bar:
        line = bar.add_task("measuring", total=None, facts="")
        result = run(
            model, sizes, engine or (), precision or (), images=images, repeats=repeats, threads=threads,
            progress=lambda done, total, what: bar.update(line, completed=done, total=total, facts=what),
            tell=None if json_ else lambda note: typer.echo(f"Note: {note}", err=True),
        )  # fmt: skip
    if json_:
        print_json(result.to_json())
    else:
        _print(result)
    if out is not None:  # last, so that a disk that is full by now loses nothing
        _write(result, out)
        if not json_:
            typer.echo(f"\nWritten  {out / 'benchmark.json'}, {out / 'benchmark.png'}")
    if all(row.error for row in result.rows):
        raise typer.Exit(1)


def _require_folder(out: Path) -> None:
    """Raise OptionError, before minutes of measuring, where nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OptionError(
            f"--out {printable(out)}: is no folder that can be written ({error.strerror}); name another, or a new one"
        ) from error


def _write(result: Timings, out: Path) -> None:
    from fullconv.files import atomic
    from fullconv.report.speeds import speeds_png

    value = result.to_json()
    files = {
        "benchmark.json": (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode(),
        "benchmark.png": speeds_png(value),
    }
    for name, content in files.items():
        with atomic(out / name, durable=False) as path:
            path.write_bytes(content)


def _print(result: Timings) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    console.print(f"[bold]{escape(printable(result.model))}[/bold], {_facts(result)}", soft_wrap=True)
    for size in dict.fromkeys(row.size for row in result.rows):
        rows = [row for row in result.rows if row.size == size]
        console.print(_table(result, rows, f"{size[0]} x {size[1]}, plain net {2e-9 * result.plain[size]:,.1f} GFLOP"))
        for row in rows:
            if row.error:
                console.print(f"{row.engine} {row.precision}: {row.error}", markup=False, soft_wrap=True)
    rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in result.peaks.items())
    console.print(f"\npeak, by 3x3 convolutions of 512 channels: {rates or 'not measured'}", soft_wrap=True)


def _facts(result: Timings) -> str:
    from fullconv.inference.timings import machine

    return (
        f"{machine()['processor']}, {result.threads} thread{'s' * (result.threads > 1)}; medians of {result.repeats}, "
        "from uint8 image to labels"
    )


def _table(result: Timings, rows: list[Row], title: str) -> Table:
    from rich.table import Table

    table = Table(title=f"\n{title}", title_justify="left", title_style="", box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right")
    for row in rows:
        table.add_row(row.engine, row.precision, *_cells(result, row))
    return table


def _cells(result: Timings, row: Row) -> list[str]:
    """Numbers of a row; of one that failed, what was found before."""
    quartiles, speedup, share = row.quartiles, result.speedup(row), row.share(result.peaks.get(row.precision))
    return [
        "failed" if row.error else _text(row.median, 1e3, ".1f"),
        "" if quartiles is None else f"{1e3 * quartiles[0]:.1f} ... {1e3 * quartiles[1]:.1f}",
        "" if row.median is None else f"{1 / row.median:,.1f}",
        "" if speedup is None else f"x {speedup:.1f}",
        _text(row.first, 1, ".2f"),
        _text(row.memory, 2**-30, ".2f"),
        _text(row.agreement, 100, ".2f"),
        _text(row.multiplications, 2e-9, ",.1f"),
        _text(share, 100, ".0f"),
    ]


def _text(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else f"{factor * value:{form}}"
