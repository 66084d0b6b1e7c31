"""`fullconv train`."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullconv.cli.options import Json, Upsampling, size_of, whole_numbers
from fullconv.cli.show import class_names, print_json, print_scores, progress_bar, training_bar
from fullconv.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from fullconv.training.context import Trained


def train(
    data: Annotated[
        str | None, typer.Option(help="A folder, a YAML file, or 'wafer'; default: that of --config or of the run.")
    ] = None,
    net: Annotated[
        str | None,
        typer.Option(help="A name (default fcn4s-slim; a wrong one lists them all), or a model to train on."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; default runs/DATA-NET, numbered where there is one.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for everything; it is used and kept.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps; without any length the recipe's, 4000 of scratch.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="scratch or, with --init, finetune; the paper's heavy, accumulated, alexnet, atonce, fixed."),
    ] = None,
    stages: Annotated[str | None, typer.Option(help="Strides to train in turn, such as 32,16,8.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A run.yaml, or its folder: repeat that run; other options replace its values.")
    ] = None,
    init: Annotated[
        list[Path] | None, typer.Option(help="A model, .caffemodel or torchvision .pth to start from; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of everything random; default 0.")] = None,
    padding: Annotated[str | None, typer.Option(help="same (default) or paper: 100 pixels and crops.")] = None,
    upsampling: Upsampling = None,
    batch: Annotated[str | None, typer.Option(help="Images a step, or auto: the fastest that fits.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Parts that a step's images go through the net in.")] = None,
    crop: Annotated[str | None, typer.Option(help="Of training images, in pixels: a side, or HxW.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="Terms, such as cross-entropy+0.5*lovasz; also focal, ohem, dice.")
    ] = None,
    reduction: Annotated[str | None, typer.Option(help="Of the loss: mean, image or sum (the paper's).")] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="In the loss: none, sqrt, median, inverse, or numbers such as 1,2.5,0.4.")
    ] = None,
    loss_share: Annotated[
        float | None, typer.Option(help="Share of the score cells, drawn anew each step, that count in the loss.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, muon or sgd.")] = None,
    fixed: Annotated[bool, typer.Option("--fixed", help="Only the score layers learn (FCN-32s-fixed).")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any value of the recipe, as run.yaml has it; may be repeated."
        ),
    ] = None,
    inputs: Annotated[
        str | None, typer.Option(help="Of data with several: those that the net takes, such as color,depth.")
    ] = None,
    splits: Annotated[
        str | None, typer.Option(help="The two that are trained and scored on, such as trainaug,val2012.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto (default), float32 or bfloat16.")] = None,
    threads: Annotated[int | None, typer.Option(help="That compute; default: all processors.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that load data.")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="By torch.compile: a slow start, then faster.")] = False,
    track: Annotated[list[str] | None, typer.Option(help="wandb or mlflow, beside TensorBoard; repeatable.")] = None,
    json_: Json = False,
) -> None:
    """Train a net and write a run folder with the best model and a report."""
    from fullconv.training.recipe import NAMES
    from fullconv.training.train import train as run

    flags = {
        "batch": None if batch is None else _plain(batch), "accumulate": accumulate,
        "crop": None if crop is None else _crop(crop),
        "lr": lr, "loss": loss, "reduction": reduction,
        "class_weights": None if class_weights is None else value_of(class_weights), "loss_share": loss_share,
        "optimizer": optimizer, "fixed": fixed or None,
    }  # fmt: skip
    others = dict(map(_assignment, set_ or ()))
    for name in others:
        if name in {*flags, "steps", "epochs"}:
            raise OptionError(f"--set {name}; it has an option of its own: --{name.replace('_', '-')}")
        if name not in NAMES:
            raise unknown_name("name for --set,", name, NAMES - {*flags, "steps", "epochs"})
    net_options = {"padding": padding, "upsampling": upsampling}
    silent = os.environ.get("RANK", "0") != "0"  # of several processes the first one talks
    quiet = json_ or silent
    with progress_bar(quiet) as bar:
        trained = run(
            data, net, out=out, minutes=minutes, epochs=epochs, steps=steps, recipe=recipe, init=init or (),
            stages=None if stages is None else whole_numbers("--stages", stages, "strides such as 32,16,8"),
            config=config, resume=resume, seed=seed, precision=precision, net_options=_given(net_options),
            inputs=inputs.split(",") if inputs else None, splits=splits.split(",") if splits else None,
            threads=threads, workers=workers, compile=compile_ or None, trackers=track,
            listener=training_bar(bar, quiet=quiet), command=shlex.join(["fullconv", *sys.argv[1:]]),
            started=_process_start(), **others, **_given(flags),
        )  # fmt: skip
    if silent:
        return
    if json_:
        for warning in trained.warnings:  # which else are told when the run begins
            typer.echo(f"fullconv: {warning}", err=True)
        print_json(_trained_json(trained))
        return
    if not trained.finished:
        typer.echo(f"Stopped after {trained.steps} steps; go on with: fullconv train "
                   f"--out {shlex.quote(str(trained.path))} --resume")  # fmt: skip
    if trained.scores is not None:
        names = next(iter(class_names(trained.model).values()))
        print_scores(trained.scores, names, "val, best model")
    typer.echo(f"Model   {trained.model}")
    typer.echo(f"Report  {trained.model.with_name('report.html')}")


def value_of(text: str) -> Any:
    """A value as typed: a number, a word, several with commas, or several by name.

    >>> value_of("0.5"), value_of("median"), value_of("0.5,2"), value_of("semantic=1,geometric=0.5")
    (0.5, 'median', (0.5, 2), {'semantic': 1, 'geometric': 0.5})
    """
    parts = [part.strip() for part in text.split(",")]
    if all("=" in part for part in parts):
        return {name.strip(): _plain(value) for name, _, value in (part.partition("=") for part in parts)}
    return _plain(parts[0]) if len(parts) == 1 else tuple(map(_plain, parts))


def _crop(text: str) -> tuple[int, int]:
    """(H, W) of a side, or of HxW."""
    return (int(text), int(text)) if text.isdecimal() and len(text) < 7 else size_of(text, "crop")


def _plain(text: str) -> bool | int | float | str:
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip()


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise OptionError(f"--set {text!r}; expected NAME=VALUE, such as weight_decay=0.01")
    return name, value_of(value)


def _process_start() -> float:
    """When this process began (time.monotonic): minutes are those of the whole command."""
    import psutil

    age = time.time() - float(psutil.Process().create_time())
    return time.monotonic() - max(0.0, age)


def _trained_json(trained: Trained) -> dict[str, Any]:
    return {
        "run": str(trained.path),
        "model": str(trained.model),
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "stopped": not trained.finished,
        "scores": None if trained.scores is None else trained.scores.to_json(),
    }


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Those that the user gave."""
    return {key: value for key, value in options.items() if value is not None}
