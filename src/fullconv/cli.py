"""The command line: parse, call, print. Exit code 0, 1 (failed, one clear line) or 2 (usage)."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fullconv import __version__
from fullconv.errors import FullconvError, OptionError

if TYPE_CHECKING:
    from rich.progress import Progress

    from fullconv.metrics import Scores
    from fullconv.training.loop import Tick, Trained

app = typer.Typer(
    name="fullconv",
    help="Fully convolutional networks: train on images and masks, score, and label images of any size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where the processor has it.")]
ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, such as runs/NAME/best.safetensors.")]
DataSource = Annotated[str, typer.Option("--data", help="A folder, a YAML file, or 'wafer' (generated on the spot).")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fullconv {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of every verb."""


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="The run folder; default runs/demo, numbered where there is one.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time for training, on this machine.")] = 2.0,
    json_: Json = False,
) -> None:
    """Generated wafer maps: train, evaluate on new ones, predict, report."""
    from fullconv.demo import run_demo

    with _progress(json_) as bar:
        result = run_demo(out, minutes, _training_bar(bar))
    if json_:
        _print_json({"run": str(result.trained.path), "scores": result.scores.to_json()})
        return
    _print_scores(result.scores, result.labels.names, f"{result.images} newly generated wafer maps")
    typer.echo(f"Model        {result.trained.model}")
    typer.echo(f"Predictions  {result.predictions}")
    typer.echo(f"Report       {result.trained.path / 'report.html'}")


@app.command()
def train(
    data: DataSource,
    net: Annotated[str, typer.Option(help="Such as fcn8s-slim; a wrong name lists them all.")] = "fcn8s-slim",
    out: Annotated[Path | None, typer.Option(help="The run folder; default runs/DATA-NET.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for everything; it is used and kept.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    recipe: Annotated[str, typer.Option(help="scratch, or the paper's heavy.")] = "scratch",
    init: Annotated[Path | None, typer.Option(help="A model file whose weights to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    padding: Annotated[str | None, typer.Option(help="same (default) or paper: 100 pixels and crops.")] = None,
    upsampling: Annotated[str | None, typer.Option(help="bilinear (default), learned or learned-all.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the training crop, in pixels.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    loss: Annotated[str | None, typer.Option(help="mean or sum over the pixels.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd.")] = None,
    precision: Precision = "auto",
    json_: Json = False,
) -> None:
    """Train a net and write a run folder with the best model and a report."""
    from fullconv.training.train import train as run

    overrides = {
        "batch": batch, "crop": None if crop is None else (crop, crop), "lr": lr, "reduction": loss,
        "optimizer": optimizer,
    }  # fmt: skip
    net_options = {"padding": padding, "upsampling": upsampling}
    with _progress(json_) as bar:
        trained = run(
            data, net, out=out, minutes=minutes, epochs=epochs, steps=steps, recipe=recipe, init=init, resume=resume,
            seed=seed, precision=precision, net_options=_given(net_options), listener=_training_bar(bar),
            command=shlex.join(["fullconv", *sys.argv[1:]]), **_given(overrides),
        )  # fmt: skip
    if json_:
        _print_json(_trained_json(trained))
        return
    if trained.stopped:
        typer.echo(f"Stopped after {trained.steps} steps; go on with: fullconv train --data {shlex.quote(data)} "
                   f"--out {shlex.quote(str(trained.path))} --resume")  # fmt: skip
    if trained.scores is not None:
        _print_scores(trained.scores, _names(trained.model), "val, best model")
    typer.echo(f"Model   {trained.model}")
    typer.echo(f"Report  {trained.path / 'report.html'}")


@app.command()
def evaluate(
    model: ModelPath,
    data: DataSource,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    precision: Precision = "float32",
    json_: Json = False,
) -> None:
    """Score a model: pixel accuracy, mean accuracy, mean IU, f.w. IU, per class, at native resolution."""
    from fullconv.inference.evaluate import evaluate as run

    with _progress(json_) as bar:
        task = bar.add_task("scoring", total=None, facts="")
        result = run(
            model,
            data,
            split,
            precision=precision,
            report=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_:
        _print_json({"split": split, **result.scores.to_json()})
        return
    _print_scores(result.scores, _names(model), f"{data}, {split}")


@app.command()
def predict(
    model: ModelPath,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders, globs.")],
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

    with _progress(json_) as bar:
        task = bar.add_task("labelling", total=None, facts="")
        outcome = run(
            model, inputs, out, overlay=overlay, scores=scores, precision=precision,
            report=lambda done, total, _: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    if json_:
        failures = [{"image": str(path), "error": why} for path, why in outcome.failures]
        _print_json({"written": [str(path) for path in outcome.written], "failures": failures})
    else:
        for _, why in outcome.failures:
            typer.echo(why, err=True)
        where = f" in {out}" if len(outcome.written) != 1 else f": {outcome.written[0]}"
        typer.echo(f"{len(outcome.written)} labelled{where}")
    if outcome.failures:
        raise typer.Exit(1)


@app.command()
def inspect(
    net: Annotated[str, typer.Argument(metavar="NET-or-MODEL", help="A net's name or a model file.")],
    size: Annotated[str, typer.Option(help="Input size, HxW.")] = "500x500",
    classes: Annotated[int, typer.Option(help="Where a net is named.")] = 21,
    padding: Annotated[str, typer.Option(help="same or paper, where a net is named.")] = "same",
    json_: Json = False,
) -> None:
    """Layers, sizes, parameters, receptive fields, strides and crops of a net."""
    from fullconv.inspect import inspect_net, named_net

    report = inspect_net(named_net(net, classes, padding), _size(size))
    if json_:
        _print_json(report.to_json())
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(*report.tables(), sep="\n")


def main() -> None:
    """Run the command line; the console script."""
    # Threads that wait for work must not spin: beside any other busy process that makes each step ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in sys.argv
    try:
        app()  # it says itself what is wrong with options (code 2), and ends quietly at Ctrl-C (130)
    except FullconvError as error:
        if debug:
            raise
        typer.echo(f"fullconv: {error}", err=True)
        sys.exit(2 if isinstance(error, OptionError) else 1)
    except OSError as error:
        if debug:
            raise
        typer.echo(
            f"fullconv: {error.filename or 'a file'}: {error.strerror or error}; check path, rights and disk", err=True
        )
        sys.exit(1)
    except MemoryError:
        if debug:
            raise
        typer.echo("fullconv: out of memory; use smaller images, a smaller batch or a machine with more", err=True)
        sys.exit(1)


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """A progress display on standard error, gone when done; nothing for machines."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[facts]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        yield bar


def _training_bar(bar: Progress) -> Callable[[Tick], None]:
    """Shows loss, images/s, time left and the last mean IU."""
    task = bar.add_task("checking the data", total=1.0, facts="")
    names = {
        "check": "checking the data",
        "train": "training",
        "evaluate": "scoring val",
        "report": "writing the report",
    }
    last = {"facts": ""}

    def show(tick: Tick) -> None:
        if tick.phase == "train":
            left = tick.seconds_left or 0
            parts = [
                "" if tick.loss is None else f"loss {tick.loss:.4g}",
                "" if tick.images_per_s is None else f"{tick.images_per_s:.1f} images/s",
                f"{left // 60:.0f}:{left % 60:02.0f} left",
                "" if tick.mean_iu is None else f"mean IU {tick.mean_iu:.3f}",
            ]
            last["facts"] = "  ".join(part for part in parts if part)
        bar.update(task, description=names[tick.phase], completed=tick.done, facts=last["facts"])

    return show


def _print_scores(scores: Scores, names: list[str] | tuple[str, ...], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for column in ("IU", "accuracy", "pixels"):
        table.add_column(column, justify="right")
    for name, iu, accuracy, pixels in zip(names, scores.iu, scores.accuracy, scores.pixels, strict=True):
        table.add_row(name, _percent(iu), _percent(accuracy), f"{pixels:,}")
    console.print(table)
    console.print(
        f"pixel accuracy {_percent(scores.pixel_accuracy)}   mean accuracy {_percent(scores.mean_accuracy)}   "
        f"mean IU {_percent(scores.mean_iu)}   f.w. IU {_percent(scores.fw_iu)}",
        soft_wrap=True,
    )


def _names(model: Path) -> list[str]:
    """Class names of a model's first task."""
    from fullconv.weights.modelfile import read_header

    return [str(name) for name in next(iter(read_header(model)["labels"].values()))["names"]]


def _percent(value: float) -> str:
    return "n/a" if value != value else f"{100 * value:.1f}"  # noqa: PLR0124  (nan alone differs from itself)


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


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


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and 0 < int(height) <= 100_000 and 0 < int(width) <= 100_000):
        raise OptionError(f"size {text!r}; expected HxW in pixels, such as 480x360")
    return int(height), int(width)
