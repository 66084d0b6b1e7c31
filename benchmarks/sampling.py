"""The paper's sampling experiment in small (Long et al. 2015, section 4.4): does patchwise training pay?

    python benchmarks/sampling.py --steps 600 --seeds 0 1 2

Trains on whole images, then on a random half and quarter of the score cells with two and four times the images a step,
in processes of their own, one after the other. The curves are means over the seeds: by step, and by the seconds that
the steps on whole images take, which say something only where nothing else runs meanwhile. Options that are not listed
are those of `fullconv train`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from measure import about

SHARES = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Point:
    """An evaluation.

    Attributes:
        step: it came after.
        seconds: spent in steps until then, without the look at the data and the evaluations, which cost all alike.
        loss: mean of the steps since the last evaluation.
    """

    step: int
    seconds: float
    loss: float
    mean_iu: float


def train(out: Path, share: float, arguments: list[str]) -> list[Point]:
    """Train in a process of its own; returns the evaluations."""
    command = [sys.executable, "-m", "fullconv", "train", "--loss-share", str(share), "--out", str(out), "--json"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    batch = yaml.safe_load((out / "run.yaml").read_text())["recipe"]["batch"]
    with (out / "metrics.csv").open(newline="") as file:
        return curve(list(csv.DictReader(file)), batch)


def curve(rows: list[dict[str, str]], batch: int) -> list[Point]:
    """The evaluations of a metrics.csv."""
    points: list[Point] = []
    total, seconds, step, last = 0.0, 0.0, 0, 0
    for line in rows:
        if line["loss"]:  # a mean over the steps since the last such line
            steps = int(line["step"]) - step
            total += float(line["loss"]) * steps
            seconds += steps * batch / float(line["images_per_s"])
            step += steps
        if line["val_mean_iu"]:
            points.append(Point(step, seconds, total / max(step - last, 1), float(line["val_mean_iu"])))
            total, last = 0.0, step
    return points


def at(points: list[Point], seconds: float) -> float | None:
    """Mean IU of the last evaluation until then."""
    return next((point.mean_iu for point in reversed(points) if point.seconds <= seconds), None)


def mean(values: list[float | None]) -> str:
    """Of all, where all are there."""
    present = [value for value in values if value is not None]
    return f"{statistics.mean(present):.4f}" if len(present) == len(values) else "-"


def row(*cells: object) -> str:
    """Of a markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def header(*cells: str) -> str:
    """Of a markdown table."""
    return row(*cells) + "\n" + "|---" * len(cells) + "|"


def main() -> None:
    """Print a row a run, then the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="wafer")
    parser.add_argument("--net", default="fcn1s-slim")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args, more = parser.parse_known_args()
    curves: dict[float, list[list[Point]]] = {share: [] for share in SHARES}
    print(about())
    print(header("seed", "cells", "seconds", "ms a step", "loss", "mean IU"))
    with TemporaryDirectory() as folder:
        for seed in args.seeds:
            for share in SHARES:
                out = Path(folder) / f"{seed}-{share}"
                options = ["--data", args.data, "--net", args.net, "--steps", str(args.steps), "--seed", str(seed)]
                curves[share].append(train(out, share, [*options, *more]))
                last = curves[share][-1][-1]
                times = f"{last.seconds:.1f}", f"{1000 * last.seconds / last.step:.0f}"
                print(row(seed, f"{share:.0%}", *times, f"{last.loss:.4f}", f"{last.mean_iu:.4f}"), flush=True)

    names = [f"{share:.0%}" for share in SHARES]
    print("\n" + header("steps", *(f"loss, {name}" for name in names), *(f"mean IU, {name}" for name in names)))
    every = range(len(curves[1.0][0]))
    for number in every:
        points = [[run[number] for run in runs] for runs in curves.values()]
        losses = [mean([point.loss for point in group]) for group in points]
        ius = [mean([point.mean_iu for point in group]) for group in points]
        print(row(points[0][0].step, *losses, *ius))

    print("\n" + header("seconds", *(f"mean IU, {name}" for name in names)))
    for number in every:
        # Every seed at the moment of its own evaluation of whole images.
        moments = [run[number].seconds for run in curves[1.0]]
        ius = [mean([at(*pair) for pair in zip(runs, moments, strict=True)]) for runs in curves.values()]
        print(row(f"{statistics.mean(moments):.1f}", *ius))


if __name__ == "__main__":
    main()
