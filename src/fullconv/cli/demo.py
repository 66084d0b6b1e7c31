"""`fullconv demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fullconv.cli.options import Json
from fullconv.cli.show import print_json, print_scores, progress_bar, training_bar


def demo(
    out: Annotated[
        Path | None, typer.Option(help="The run folder; default runs/demo, numbered where there is one.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time for training.")] = 2.7,
    json_: Json = False,
) -> None:
    """Generated wafer maps: train, evaluate on new ones, predict, report."""
    from fullconv.demo import run_demo

    with progress_bar(json_) as bar:
        result = run_demo(out, minutes, training_bar(bar, quiet=json_))
    if json_:
        print_json({"run": str(result.trained.path), "scores": result.scores.to_json()})
        return
    print_scores(result.scores, result.labels.names, f"{result.images} newly generated wafer maps")
    typer.echo(f"Model        {result.trained.model}")
    typer.echo(f"Predictions  {result.predictions}")
    typer.echo(f"Report       {result.trained.path / 'report.html'}")
