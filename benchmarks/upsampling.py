"""The choices of upsampling: learned numbers, time, and mean IU after the same training.

    python benchmarks/upsampling.py --runs 10 --steps 300
    python benchmarks/upsampling.py --data ../shared/data/camvid --minutes 15 --seeds 0 1 2

A row a net and choice. Times are of one batch of noise and take turns within one run, since machines drift; trainings
start from the same seeds and have equal steps, or equal minutes, one after the other.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

import fullconv
from fullconv.nets import FCN, build, parameter_count
from fullconv.nets.options import UPSAMPLINGS
from fullconv.nets.precision import inference
from measure import commit

CLASSES = 11
"""Of the nets that are timed."""


def forward(net: FCN, x: Tensor) -> None:
    """Scores of the input's size."""
    with inference(net):
        net(x)


def training_step(net: FCN, x: Tensor, target: Tensor) -> None:
    """A forward and a backward pass."""
    net.train()
    net.zero_grad()
    scores = net(x)
    if isinstance(scores, Tensor):
        torch.autograd.backward(F.cross_entropy(scores, target))


def take_turns(actions: Mapping[str, Callable[[], None]], runs: int) -> dict[str, str]:
    """Median and spread of every action's milliseconds, as cells of a table, after one run that does not count."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for run in range(runs + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if run:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: f"{statistics.median(each):.1f} | {min(each):.1f} ... {max(each):.1f}" for name, each in times.items()
    }


def mean_ius(net: str, upsampling: str, args: argparse.Namespace) -> list[float]:
    """Of the best model on val, a training a seed."""
    found = []
    for seed in args.seeds:
        with TemporaryDirectory() as folder:
            trained = fullconv.train(
                args.data, net, out=Path(folder) / "run", seed=seed, net_options={"upsampling": upsampling},
                steps=None if args.minutes else args.steps, minutes=args.minutes,
            )  # fmt: skip
        if trained.scores is not None:
            found.append(trained.scores.mean_iu)
    return found


def shown(ius: list[float]) -> str:
    """Mean and standard deviation, as far as there are any."""
    if not ius:
        return "-"
    return f"{statistics.mean(ius):.4f}" + (f" ± {statistics.stdev(ius):.4f}" if len(ius) > 1 else "")


def main() -> None:
    """Print what was measured where, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=["fcn8s-slim", "fcn32s-slim"])
    parser.add_argument("--upsampling", nargs="+", choices=UPSAMPLINGS, default=list(UPSAMPLINGS))
    parser.add_argument("--runs", type=int, default=10, help="passes that are timed")
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--data", default="wafer", help="what to train on")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=300, help="of every training; 0: none is run")
    length.add_argument("--minutes", type=float, help="of every training, instead of equal steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, args.size, args.size)
    target = torch.randint(0, CLASSES, shape, generator=generator)
    x = torch.randint(0, 256, (args.batch, 3, *shape[1:]), dtype=torch.uint8, generator=generator)
    training = f"{args.minutes:g} minutes" if args.minutes else f"{args.steps} steps"
    print(
        f"{args.batch} images of {args.size}x{args.size}, {CLASSES} classes, {args.runs} runs in turns, float32; "
        f"trained on {args.data} for {training} from seeds {', '.join(map(str, args.seeds))}; {args.threads} threads, "
        f"commit {commit()}, torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}\n"
    )
    print("| net | upsampling | learned numbers | forward ms | spread | forward and backward ms | spread | mean IU |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.nets:
        nets = {kind: build(name, CLASSES, upsampling=kind) for kind in args.upsampling}
        once = take_turns({kind: partial(forward, net, x) for kind, net in nets.items()}, args.runs)
        both = take_turns({kind: partial(training_step, net, x, target) for kind, net in nets.items()}, args.runs)
        for kind, net in nets.items():
            count = sum(parameter_count(head.get_submodule("upscore")) for head in net.heads.values())
            ius = mean_ius(name, kind, args) if args.steps or args.minutes else []
            print(f"| {name} | {kind} | {count:,} | {once[kind]} | {both[kind]} | {shown(ius)} |", flush=True)


if __name__ == "__main__":
    main()
