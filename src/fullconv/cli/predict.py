"""`fullconv predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fullconv.cli.options import Json, ModelPath, Precision
from fullconv.cli.show import print_json, progress_bar


def predict(
    model: ModelPath,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, folders, globs, .npz of wafer maps.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder; or a .png for a single image.")] = Path(
        "predictions"
    ),
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write NAME_overlay.png.")] = False,
    scores: Annotated[bool, typer.Option("--scores", help="Also write NAME_scores.npy, (K, H, W) float32.")] = False,
    precision: Precision = "float32",
    json_: Json = False,
) -> None:
    """Label images: palette PNG masks of exactly their sizes. Bad files are named, the others done."""
    from fullconv.inference.predict import predict as run

    with progress_bar(json_) as bar:
        task = bar.add_task("labelling", total=None, facts="")
        outcome = run(
            model, inputs, out, overlay=overlay, scores=scores, precision=precision,
            progress=lambda done, total, _: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    if json_:
        failures = [{"image": str(path), "error": why} for path, why in outcome.failures]
        print_json({"written": [str(path) for path in outcome.written], "failures": failures, "notes": outcome.notes})
    else:
        for note in outcome.notes:
            typer.echo(f"Note: {note}", err=True)
        for _, why in outcome.failures:
            typer.echo(why, err=True)
        where = f" in {out}" if len(outcome.written) != 1 else f": {outcome.written[0]}"
        failed = f", {len(outcome.failures)} failed" if outcome.failures else ""
        typer.echo(f"{len(outcome.written)} labelled{where}{failed}")
    if outcome.failures:
        raise typer.Exit(1)
