"""Images in strips and tiles against the same images in one piece: scores and labels of every kind of net.

    python benchmarks/tiles.py --trials 40

For each net and padding, images of noise of random sizes, cut into bands of random widths and read some random number
of rows at a time, within random memory; the reference is the plain net on the whole image. Thin nets with random
weights, float32. A label may differ only where the reference's two highest scores are as good as equal: no further
apart than twice what the scores of the image differ by. Ends with an error where one differs elsewhere, or a score by
more than 1e-4 of the largest.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullconv.inference.reference import Reference
from fullconv.inference.staged import StagedNet
from fullconv.inference.strips import BUDGET, Strips
from fullconv.nets import FCN, NETS, build
from fullconv.nets.options import PADDINGS
from fullconv.nets.rectangles import Interval, Size
from fullconv.nets.trunks import TRUNKS
from measure import about

TASK, CLASSES = "semantic", 5

TOLERANCE = 1e-4
"""Of the largest score: float32 sums of some hundred layers, in two orders."""

BUDGETS = (1, 1 << 12, 1 << 16, 1 << 20, BUDGET)
"""Bytes of a chunk of rows."""


@dataclass
class Found:
    """What some trials have shown.

    Attributes:
        scores: largest difference relative to the largest score.
        pixels: labels that were compared.
        labels: those that differ.
        ties: of these, those where the reference's two highest scores are equal.
        beyond: of these, those where the scores are further apart than rounding explains.
    """

    scores: float = 0.0
    pixels: int = 0
    labels: int = 0
    ties: int = 0
    beyond: int = 0

    def add(self, other: Found) -> None:
        """Count another's trials too."""
        self.scores = max(self.scores, other.scores)
        self.pixels += other.pixels
        self.labels += other.labels
        self.ties += other.ties
        self.beyond += other.beyond

    @property
    def failed(self) -> bool:
        """Whether there is more than rounding."""
        return not self.scores <= TOLERANCE or self.beyond > 0

    def __str__(self) -> str:
        return f"{self.scores:.1e} | {self.pixels:,} | {self.labels} | {self.ties} | {self.beyond}"


def random_net(name: str, padding: str, width: float, seed: int) -> FCN:
    """Weights, statistics and score layers at random, in evaluation mode."""
    torch.manual_seed(seed)
    net = build(name, CLASSES, padding=padding, width=width)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 2)
                layer.bias.normal_()
        for parameter in net.heads.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return net.eval()


def bands(width: int) -> Iterator[Interval]:
    """Of one random width, from left to right; all columns in half of the cases."""
    step = width if random.random() < 0.5 else random.randint(1 + width // 8, width)
    for left in range(0, width, step):
        yield left, min(left + step, width)


def in_strips(cut: StagedNet, x: Tensor, columns: Interval) -> tuple[Tensor, Tensor]:
    """Scores and labels of a band, some rows at a time."""
    size = x.shape[2], x.shape[3]

    def strips() -> Strips:
        return Strips(
            cut, size, lambda rows, columns: {"image": x[:, :, slice(*rows), slice(*columns)]}, columns=columns,
            budget=budget,
        )  # fmt: skip

    budget, step = random.choice(BUDGETS), random.choice((1, 7, 50, size[0]))
    step = max(step, -(-size[0] // 60))
    tops = [(top, min(top + step, size[0])) for top in range(0, size[0], step)]
    one, other = strips(), strips()
    return torch.cat([one.scores(TASK, rows) for rows in tops], 2), torch.cat(
        [other.labels(TASK, rows) for rows in tops], 1
    )


def trial(net: FCN, cut: StagedNet, size: Size) -> Found:
    """One image of noise, whole and in strips."""
    x = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    coarse = Reference(net).coarse({"image": x})[TASK]
    expected, labels = coarse.upsample(), coarse.labels()
    found = [in_strips(cut, x, columns) for columns in bands(size[1])]
    scores, given = torch.cat([each for each, _ in found], 3), torch.cat([each for _, each in found], 2)
    off = float((scores - expected).abs().max())
    highest, second = expected.topk(2, dim=1).values.unbind(1)
    apart = (highest - second)[given != labels]
    return Found(
        off / float(expected.abs().max()), labels.numel(), len(apart), int((apart == 0).sum()),
        int((apart > 2 * off).sum()),
    )  # fmt: skip


def main() -> int:
    """Print the table; 1 where something differs by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trunks", nargs="+", choices=TRUNKS, default=list(TRUNKS))
    parser.add_argument("--trials", type=int, default=40, help="images of each net")
    parser.add_argument("--size", type=int, default=400, help="pixels of a side, at most")
    parser.add_argument("--width", type=float, default=1 / 8, help="factor on the channels of the trunks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start, total = time.perf_counter(), Found()
    print(
        f"{args.trials} images of up to {args.size}x{args.size} a net, width {args.width:g}, seed {args.seed}, "
        f"{about(args.threads)}\n"
    )
    print("| trunk | padding | nets | largest difference | pixels | labels that differ | ties | beyond rounding |")
    print("|---|---|---|---|---|---|---|---|")
    for trunk in args.trunks:
        names = [name for name, net in NETS.items() if net.trunk == trunk and name.startswith("fcn")]
        for padding in PADDINGS:
            found = Found()
            for name in names:
                random.seed(f"{name} {padding} {args.seed}")
                net = random_net(name, padding, args.width, args.seed)
                cut = StagedNet.of(net)
                for _ in range(args.trials):
                    found.add(trial(net, cut, (random.randint(1, args.size), random.randint(1, args.size))))
            heads = ", ".join(name.removeprefix("fcn").split("-")[0] for name in names)
            print(f"| {trunk} | {padding} | {heads} | {found} |", flush=True)
            total.add(found)
    print(f"| all | | | {total} |\n\n{time.perf_counter() - start:.0f} s")
    return int(total.failed)


if __name__ == "__main__":
    sys.exit(main())
