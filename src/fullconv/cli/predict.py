"""`fullconv predict`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fullconv.cli.options import Json, ModelPath, bytes_of, tile_of
from fullconv.cli.show import print_json, progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress


def predict(
    model: ModelPath,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, rasters, folders, globs, .npz of wafer maps.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="A folder; or a .png (of a raster a .tif) for a single image.")
    ] = Path("predictions"),
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write NAME_overlay.png.")] = False,
    scores: Annotated[bool, typer.Option("--scores", help="Also write NAME_scores.npy, (K, H, W) float32.")] = False,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Of rasters also write NAME_confidence.tif: every class's probability.")
    ] = False,
    engine: Annotated[str, typer.Option(help="torch, openvino, compile, or auto: what suits the processor.")] = "torch",
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, int8 (openvino), or auto: bfloat16 where the processor has it.")
    ] = "float32",
    tile: Annotated[
        str,
        typer.Option(
            metavar="N|auto|off", help="Pixels of a tile, 64 or more; auto: as memory allows; off: the whole image."
        ),
    ] = "auto",
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="That may be used, such as 2GiB; default: half of the machine's."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also run the plain net, on all or on windows, and compare.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a call that stopped was.")] = False,
    json_: Json = False,
) -> None:
    """Label images of any size: palette PNG masks of exactly their sizes, of rasters GeoTIFFs, and shares.csv with each
    class's share of the pixels.

    Bad files are named, the others done.
    """
    from fullconv.inference.predict import predict as run

    try:
        with progress_bar(json_) as bar:
            outcome = run(
                model, inputs, out, overlay=overlay, scores=scores, confidence=confidence, engine=engine,
                precision=precision, tile=tile_of(tile),
                memory=None if memory is None else bytes_of(memory, "--memory"), verify=verify,
                progress=_labelling(bar), resume=resume,
                tell=None if json_ else lambda note: typer.echo(f"Note: {note}", err=True),
            )  # fmt: skip
    except KeyboardInterrupt:
        if out.suffix.lower() != ".png":  # of a single picture nothing is left
            typer.echo("What was labelled is kept; go on with --resume", err=True)
        raise
    if json_:
        failures = [{"image": str(path), "error": why} for path, why in outcome.failures]
        masks = {"written": [str(p) for p in outcome.written], "kept": [str(p) for p in outcome.kept]}
        checks = [{"image": str(image), **asdict(found)} for image, found in outcome.checks]
        more = {"checks": checks} if verify else {}
        print_json({**masks, "failures": failures, "notes": outcome.notes, **more})
    else:
        for _, why in outcome.failures:
            typer.echo(why, err=True)
        for image, found in outcome.checks:
            typer.echo(f"{image.name} {found}")
        where = f" in {out}" if outcome.written or outcome.kept else ""
        if len(outcome.written) == 1 and not outcome.kept:
            where = f": {outcome.written[0]}"
        kept = f", {len(outcome.kept)} kept" if outcome.kept else ""
        failed = f", {len(outcome.failures)} failed" if outcome.failures else ""
        typer.echo(f"{len(outcome.written)} labelled{where}{kept}{failed}")
    if outcome.failures:
        raise typer.Exit(1)


def _labelling(bar: Progress) -> Callable[[float, int, str], None]:
    """Shows how much is done and the time left; what was kept comes first, and counts as done in no time."""
    from fullconv.inference.labelling import WRITING

    task = bar.add_task("labelling", total=None, facts="")

    def show(done: float, total: int, name: str) -> None:
        bar.update(task, completed=done, total=total)
        if name == WRITING:  # of a large raster minutes, of which nothing is known
            bar.update(task, facts=WRITING)
            return
        (shown,) = (each for each in bar.tasks if each.id == task)
        left = shown.time_remaining
        bar.update(task, facts="" if left is None else f"{left // 60:.0f}:{left % 60:02.0f} left")

    return show
