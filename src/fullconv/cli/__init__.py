"""The command line: parse, call, print. Exit code 0, 1 (failed, one clear line) or 2 (usage)."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from fullconv import __version__
from fullconv.cli.benchmark import benchmark
from fullconv.cli.compare import compare
from fullconv.cli.convert import convert
from fullconv.cli.demo import demo
from fullconv.cli.doctor import doctor
from fullconv.cli.evaluate import evaluate
from fullconv.cli.fetch import fetch
from fullconv.cli.heatmap import heatmap
from fullconv.cli.import_ import import_
from fullconv.cli.inspect import inspect
from fullconv.cli.predict import predict
from fullconv.cli.train import train
from fullconv.cli.upper_bound import upper_bound
from fullconv.errors import FullconvError, OptionError

INTERRUPTED = 130
"""Exit code after Ctrl-C, where that did not end a run as it should end."""

app = typer.Typer(
    name="fullconv",
    help="Fully convolutional networks: train on images and masks, score, and label images of any size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (demo, doctor, train, evaluate, compare, predict, heatmap, inspect, benchmark, fetch, convert):
    app.command()(verb)
app.command("import")(import_)
app.command("upper-bound")(upper_bound)


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


def main() -> None:
    """Run the command line; the console script."""
    # Threads that wait for work must not spin: beside any other busy process that makes each step ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in sys.argv
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:
            typer.echo("fullconv: interrupted", err=True)
        sys.exit(code)
    except FullconvError as error:
        if debug:
            raise
        typer.echo(f"fullconv: {error}", err=True)
        sys.exit(2 if isinstance(error, OptionError) else 1)
    except Exception as error:
        if usage := _usage(error):
            typer.echo(usage, err=True)
            sys.exit(2)
        if debug:
            raise
        typer.echo(f"fullconv: {_one_line(error)}", err=True)
        sys.exit(1)


def _usage(error: Exception) -> str | None:
    """What is wrong with the words of the command, for an error of typer's (which has no public base); else None."""
    if not hasattr(error, "format_message"):
        return None
    message = str(error.format_message())
    if "\n" in message:  # no words at all: it is the help
        return message
    context = getattr(error, "ctx", None)
    return f"fullconv: {message.rstrip('.')}; see {context.command_path if context else 'fullconv'} --help"


def _one_line(error: Exception) -> str:
    """What went wrong, for an error that is not ours."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "out of memory; use smaller images, a smaller batch or a machine with more"
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or text}; check path, rights and disk"
    return f"internal error ({type(error).__name__}: {text[:200]}); please report it, with the output of --debug"
