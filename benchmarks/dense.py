"""Scores for every pixel of an image from nets without padding: shift-and-stitch, filter rarefaction, every window.

    python benchmarks/dense.py --runs 5

The three ways of Long et al. 2015, section 3.2 (reference 4.1 and 4.2), which must agree to rounding: stride^2 passes
over shifted images, one pass with dilated filters, one pass for each window. Random weights, float32, the CPU at hand.
The ways take turns within one run, since machines drift; every peak of memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import fullconv
from measure import Action, commit, peak, take_turns

CLASSES = 10


def lenet() -> nn.Sequential:
    """LeCun's net as in Caffe's example."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(50, 500, 4), nn.ReLU(), nn.Conv2d(500, CLASSES, 1),
    )  # fmt: skip


def vgg() -> nn.Sequential:
    """Three blocks of 3x3 filters, a quarter of VGG-16's widths and less."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5), nn.ReLU(), nn.Conv2d(64, CLASSES, 1),
    )  # fmt: skip


def alexnet() -> nn.Sequential:
    """A filter of 11x11 at stride 4, poolings that overlap, an eighth of AlexNet's widths."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 11, stride=4), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(12, 32, 5), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(32, 48, 3), nn.ReLU(), nn.Conv2d(48, 32, 3), nn.ReLU(),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, CLASSES, 1),
    )  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A net without padding, the side of its receptive field, its stride, and the image that it is run on."""

    build: Callable[[], nn.Sequential]
    channels: int
    field: int
    stride: int
    size: int


SUBJECTS = {
    "LeNet": Subject(lenet, 1, field=28, stride=4, size=128),
    "thin VGG": Subject(vgg, 3, field=60, stride=8, size=160),
    "thin AlexNet": Subject(alexnet, 3, field=163, stride=16, size=200),
}

WINDOWS, SHIFTS, RAREFACTION = "every window", "shift-and-stitch", "rarefaction"
WAYS = (WINDOWS, SHIFTS, RAREFACTION)


def ready(subject: Subject) -> tuple[nn.Sequential, Tensor]:
    """The net, evaluation mode, activations of order 1; an image (1, C, size, size) of mean 0 and deviation 1."""
    torch.manual_seed(0)
    net = subject.build().eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    return net, torch.randn(1, subject.channels, subject.size, subject.size)


def every_window(net: nn.Module, field: int, image: Tensor) -> Tensor:
    """(1, K, H - field + 1, W - field + 1): each window on its own, a row of them in a batch."""
    windows = image[0].unfold(1, field, 1).unfold(2, field, 1)  # (C, h, w, field, field), nothing copied yet
    rows = [net(windows[:, y].transpose(0, 1).contiguous()).flatten(1) for y in range(windows.shape[1])]
    return torch.stack(rows).permute(2, 0, 1)[None]


def way(name: str, net: nn.Module, field: int) -> Callable[[Tensor], Tensor]:
    """From an image to scores; what can be done once, before any image, is done here."""
    if name == WINDOWS:
        return partial(every_window, net, field)
    if name == SHIFTS:
        return partial(fullconv.shift_and_stitch, net)
    rarefied: nn.Module = fullconv.rarefy(net).eval()
    return rarefied


def peak_of(name: str, subject: Subject) -> float:
    """MiB that one image adds to what a process with the net holds."""
    net, image = ready(subject)
    run = way(name, net, subject.field)
    with torch.inference_mode():
        run(image[:, :, : subject.field, : subject.field])  # loads what is loaded once
        before = peak()
        run(image)
        return peak() - before


def measured_peak(name: str, subject: str, threads: int) -> float:
    """`peak_of` in a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads), "--peak-of", name, subject]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(title: str, args: argparse.Namespace) -> None:
    """Print the rows of one net; stop if two ways disagree."""
    subject = SUBJECTS[title]
    net, image = ready(subject)
    ways = {name: way(name, net, subject.field) for name in args.ways}
    with torch.inference_mode():
        scores = {name: run(image) for name, run in ways.items()}
        actions: dict[str, Action] = {name: partial(run, image) for name, run in ways.items()}
        seconds = take_turns(actions, args.runs)
    reference, expected = next(iter(scores.items()))
    side = subject.size - subject.field + 1
    for name, found in scores.items():
        if found.shape != (1, CLASSES, side, side):
            raise SystemExit(f"{title}, {name}: scores {tuple(found.shape)}; expected {(1, CLASSES, side, side)}")
        difference = (found - expected).abs().max().item()
        if difference > 1e-4 * expected.std().item():
            raise SystemExit(f"{title}: {name} and {reference} differ by {difference:.1e}; expected rounding only")
        print(
            f"| {title}: {subject.field}, {subject.stride}, {subject.size}x{subject.size} | {name} | "
            f"{statistics.median(seconds[name]):.3f} | {min(seconds[name]):.3f} ... {max(seconds[name]):.3f} | "
            f"{measured_peak(name, title, args.threads):.0f} | {'-' if name == reference else f'{difference:.0e}'} |",
            flush=True,
        )


def main() -> None:
    """Print what was measured where, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--nets", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="compared with the first")
    parser.add_argument("--peak-of", nargs=2, metavar=("WAY", "NET"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        name, title = args.peak_of
        print(peak_of(name, SUBJECTS[title]))
        return

    print(
        f"{args.runs} runs in turns, {args.threads} threads, commit {commit()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}\n"
    )
    print(f"| net: field, stride, image | way | median s | spread | added MiB | differs from {args.ways[0]} |")
    print("|---|---|---|---|---|---|")
    for title in args.nets:
        measure(title, args)


if __name__ == "__main__":
    main()
