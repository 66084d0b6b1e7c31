"""`fullconv train`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullconv.cli.options import DataSource, Json, Upsampling
from fullconv.cli.show import class_names, print_json, print_scores, progress_bar, training_bar

if TYPE_CHECKING:
    from fullconv.training.loop import Trained


def train(
    data: DataSource,
    net: Annotated[
        str | None,
        typer.Option(help="A name (default fcn8s-slim; a wrong one lists them all), or a model to train on."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; default runs/DATA-NET, numbered where there is one.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for everything; it is used and kept.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    recipe: Annotated[str | None, typer.Option(help="scratch (default), or the paper's heavy.")] = None,
    init: Annotated[
        list[Path] | None, typer.Option(help="A model, .caffemodel or torchvision .pth to start from; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of everything random; default 0.")] = None,
    padding: Annotated[str | None, typer.Option(help="same (default) or paper: 100 pixels and crops.")] = None,
    upsampling: Upsampling = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the training crop, in pixels.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    class_weights: Annotated[str | None, typer.Option(help="In the loss: sqrt (of the rarity) or none.")] = None,
    loss: Annotated[str | None, typer.Option(help="mean or sum over the pixels.")] = None,
    loss_share: Annotated[
        float | None, typer.Option(help="Share of the score cells, drawn anew each step, that count in the loss.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd.")] = None,
    fixed: Annotated[bool, typer.Option("--fixed", help="Only the score layers learn (FCN-32s-fixed).")] = False,
    inputs: Annotated[
        str | None, typer.Option(help="Of data with several: those that the net takes, such as color,depth.")
    ] = None,
    splits: Annotated[
        str | None, typer.Option(help="The two that are trained and scored on, such as trainaug,val2012.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto (default), float32 or bfloat16.")] = None,
    json_: Json = False,
) -> None:
    """Train a net and write a run folder with the best model and a report."""
    from fullconv.training.train import train as run

    overrides = {
        "batch": batch, "crop": None if crop is None else (crop, crop), "lr": lr, "reduction": loss,
        "class_weights": class_weights, "loss_share": loss_share, "optimizer": optimizer, "fixed": fixed or None,
    }  # fmt: skip
    net_options = {"padding": padding, "upsampling": upsampling}
    with progress_bar(json_) as bar:
        trained = run(
            data, net, out=out, minutes=minutes, epochs=epochs, steps=steps, recipe=recipe, init=init or (),
            resume=resume, seed=seed, precision=precision, net_options=_given(net_options),
            inputs=inputs.split(",") if inputs else None, splits=splits.split(",") if splits else None,
            listener=training_bar(bar, quiet=json_), command=shlex.join(["fullconv", *sys.argv[1:]]),
            **_given(overrides),
        )  # fmt: skip
    if json_:
        print_json(_trained_json(trained))
        return
    if trained.stopped:
        typer.echo(f"Stopped after {trained.steps} steps; go on with: fullconv train --data {shlex.quote(data)} "
                   f"--out {shlex.quote(str(trained.path))} --resume")  # fmt: skip
    if trained.scores is not None:
        names = next(iter(class_names(trained.model).values()))
        print_scores(trained.scores, names, "val, best model")
    typer.echo(f"Model   {trained.model}")
    typer.echo(f"Report  {trained.path / 'report.html'}")


def _trained_json(trained: Trained) -> dict[str, Any]:
    return {
        "run": str(trained.path),
        "model": str(trained.model),
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "stopped": trained.stopped,
        "scores": None if trained.scores is None else trained.scores.to_json(),
    }


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Those that the user gave."""
    return {key: value for key, value in options.items() if value is not None}
