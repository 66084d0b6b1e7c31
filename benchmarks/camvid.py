"""CamVid from random weights: train within a time, then score val at native resolution.

    python benchmarks/camvid.py ../shared/data/camvid --minutes 15 --seeds 0

Runs the two commands of the README in processes of their own, one seed after the other, and prints a table. The model
that a run keeps is the best of at most ten on val; the last weights, which nothing was chosen by, are scored beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fullconv.training.stages import read_config
from measure import commit

NET = "fcn4s-slim"

HEADER = """\
| seed | minutes | peak GiB | images/s | mean IU | of the last weights | pixel acc. | mean acc. | f.w. IU |
|---|---|---|---|---|---|---|---|---|"""


def fullconv(*arguments: str) -> dict[str, Any]:
    """The JSON answer of a command."""
    command = [sys.executable, "-m", "fullconv", *arguments, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # errors are shown
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Print a row a seed, and mean and spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--net", default=NET)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args, more = parser.parse_known_args()
    measured = commit()  # now: there may be others before the first run ends
    ius: list[float] = []
    lasts: list[float] = []
    with TemporaryDirectory() as folder:
        for seed in args.seeds:
            out = str(Path(folder) / str(seed))
            start = time.monotonic()
            fullconv(
                "train", "--data", args.data, "--net", args.net, "--minutes", str(args.minutes),
                "--seed", str(seed), "--out", out, *more,
            )  # fmt: skip
            minutes = (time.monotonic() - start) / 60
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of the largest so far; KiB on Linux
            scores, last = (
                fullconv("evaluate", str(Path(out) / name), "--data", args.data, "--split", "val")
                for name in ("best.safetensors", "last.safetensors")
            )
            if not ius:  # the threads are the run's own, which options may have set
                print(f"commit {measured}, torch {torch.__version__}, {read_config(out)[0].threads} threads")
                print(HEADER)
            rows = [line.split(",") for line in (Path(out) / "metrics.csv").read_text().splitlines()]
            rates = [float(row[rows[0].index("images_per_s")] or 0) for row in rows[1:]]
            ius.append(scores["mean_iu"])
            lasts.append(last["mean_iu"])
            print(
                f"| {seed} | {minutes:.2f} | {peak:.2f} | {statistics.median(r for r in rates if r):.1f} | "
                f"{scores['mean_iu']:.4f} | {last['mean_iu']:.4f} | {scores['pixel_accuracy']:.4f} | "
                f"{scores['mean_accuracy']:.4f} | {scores['fw_iu']:.4f} |",
                flush=True,
            )
    if len(ius) > 1:
        for name, values in (("best on val", ius), ("last weights", lasts)):
            print(f"{name}: mean {statistics.mean(values):.4f}, standard deviation {statistics.stdev(values):.4f}")
        per_class = ", ".join(f"{name} {100 * v:.1f}" for name, v in zip(scores["classes"], scores["iu"], strict=True))
        print(f"IU of the last seed's best: {per_class}")


if __name__ == "__main__":
    main()
