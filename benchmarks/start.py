"""From `fullconv predict` to the first mask: a process that begins with nothing, and what its time goes to.

    python benchmarks/start.py --runs 7

Each run is a process of its own that labels one image of noise and ends, in turns with one that imports torch and does
nothing. Files are in the system's cache, as after a first run. A mask is counted as written when it has its name: its
folder's time of change. Weights are random, of --nets at --size, float32 and bfloat16 with the torch engine.

The parts are of further runs, in turns with the others, of a script that calls the same command and looks at the clock:

python      until the first line runs;
torch       importing it;
fullconv    importing the rest: the command line, numpy, PIL, the library;
model       reading and checking the file, building the net;
engine      folding and laying out weights, planning;
net         from pixels to coarse scores;
rest        reading the image, labels, writing, the folder's journal and table, and the end of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fullconv.inference.model import Model
from fullconv.machine import cores
from fullconv.nets import build
from fullconv.nets.unit_scale import unit_scale
from measure import about

CHILD = """
import sys, time
now = time.time
report, launched, begun = sys.argv[1], float(sys.argv[2]), now()
import torch
torch_at = now()
from fullconv.cli import main
from fullconv.inference import engines, labelling, model, predict
parts = {"python": begun - launched, "torch": torch_at - begun, "fullconv": now() - torch_at}

def timed(word, function):
    def call(*args, **options):
        start = now()
        try:
            return function(*args, **options)
        finally:
            parts[word] = parts.get(word, 0.0) + now() - start
    return call

model.Model.load = timed("model", model.Model.load)
predict.choose = timed("engine", predict.choose)
engines.Engine.coarse = timed("net", engines.Engine.coarse)
sys.argv = ["fullconv", *sys.argv[3:]]
try:
    main()
finally:
    import json
    open(report, "w").write(json.dumps(parts))
"""
"""`fullconv`, which writes down what it took."""

WORDS = ("python", "torch", "fullconv", "model", "engine", "net")


def seconds_of(command: Sequence[str | Path], folder: Path | None = None) -> tuple[float, float]:
    """Until a process has ended, and until a file in `folder` has its name."""
    start = time.time()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    ended = time.time()
    masks = [] if folder is None else [each for each in folder.iterdir() if each.suffix == ".png"]
    written = max((each.stat().st_ctime for each in masks), default=ended)
    return ended - start, written - start


def measured(net: str, precision: str, place: Path, args: argparse.Namespace) -> tuple[str, str]:
    """A row of each table."""
    model, image = place / f"{net}.safetensors", place / "image.png"
    arguments: list[str | Path] = ["predict", model, image, "--precision", precision]
    total, written, bare, ended = [], [], [], []
    parts: dict[str, list[float]] = {word: [] for word in (*WORDS, "rest")}
    for run in range(args.runs + 1):
        times: list[tuple[float, float]] = []
        for which in ("command", "parts"):
            with tempfile.TemporaryDirectory(dir=place) as name:
                out, report = Path(name) / "out", Path(name) / "parts.json"
                head: list[str | Path] = (
                    ["-m", "fullconv"] if which == "command" else ["-c", CHILD, report, str(time.time())]
                )
                times.append(seconds_of([*head, *arguments, "--out", out], out))
                found = json.loads(report.read_text()) if report.exists() else {}
        blank, _ = seconds_of(["-c", "import torch"])
        if run:
            ended.append(times[0][0])
            written.append(times[0][1])
            bare.append(blank)
            total.append(times[1][0])
            for word in WORDS:
                parts[word].append(found[word])
            parts["rest"].append(times[1][0] - sum(found[word] for word in WORDS))
    quartiles = statistics.quantiles(written, n=4)
    megabytes = model.stat().st_size / 1e6
    middle = statistics.median
    row = (
        f"| {net} | {precision} | {megabytes:.1f} | {middle(written):.2f} | {quartiles[0]:.2f} ... {quartiles[2]:.2f} "
        f"| {middle(ended):.2f} | {middle(bare):.2f} |"
    )
    costs = " | ".join(f"{middle(parts[word]):.2f}" for word in parts)
    return row, f"| {net} | {precision} | {costs} | {middle(total):.2f} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["fcn8s-slim", "fcn8s-resnet18", "fcn8s-vgg16"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    first, second = [], []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        noise = np.random.default_rng(0).integers(0, 256, (args.size, args.size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / "image.png")
        for net in args.nets:
            Model(unit_scale(build(net, 21)).eval()).save(place / f"{net}.safetensors")
            for precision in args.precisions:
                row, costs = measured(net, precision, place, args)
                first.append(row)
                second.append(costs)
    print(f"One image of {args.size}x{args.size}, medians of {args.runs} in turns, {about(cores())}\n")
    print("| net | precision | file, MB | mask written, s | quartiles | process ended | import torch alone |")
    print("|---|---|---|---|---|---|---|", *first, sep="\n")
    print(f"\n| net | precision | {' | '.join((*WORDS, 'rest'))} | in all, s |")
    print(f"|---|---|{'---|' * 8}", *second, sep="\n")


if __name__ == "__main__":
    main()
