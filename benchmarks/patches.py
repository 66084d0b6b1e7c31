"""AlexNet over an image of 500x500: one convolutional pass against its 100 patches (Long et al. 2015, section 3.1).

    python benchmarks/patches.py --runs 5

The paper's example (reference 8.5), on the CPU at hand, float32, random weights: 10x10 vectors of 1000 logits from
one pass, against the classifier on the 100 patches of 227x227 that the cells stand for, in batches of several sizes
and one by one; forward, and forward with backward to all weights. All take turns within one run, since machines
drift. First it is checked that both compute the same: to rounding without padding, and else how far they do.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv import geometry
from fullconv.nets.classifier import Classifier
from measure import Action, commit, take_turns

IMAGE, PATCH, STRIDE, CELLS = 500, 227, 32, 10

BATCHED, ONE_BY_ONE = "patches in batches", "patches one by one"

PAPER_MS = {
    "forward": {"one pass": 22, BATCHED: 1.2 * CELLS**2, ONE_BY_ONE: 5.4 * CELLS**2},
    "forward and backward": {"one pass": 22 + 37, BATCHED: (1.2 + 2.4) * CELLS**2},
}
"""Milliseconds on the authors' GPU; it gives no backward time of single patches (section 3.1 and its footnote)."""


def classifier() -> Classifier:
    """CaffeNet's layers and 1000 classes, evaluation mode; its activations are of order 1 in every layer."""
    torch.manual_seed(0)
    net = Classifier("alexnet").eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    return net


def picture(size: int) -> Tensor:
    """(1, 3, size, size) float32 of 0..255: coarse structure and noise, so that places differ."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, size // 50 + 1, size // 50 + 1, generator=generator)
    coarse = coarse.repeat_interleave(50, 2).repeat_interleave(50, 3)[:, :, :size, :size]
    return 200 * coarse + 55 * torch.rand(1, 3, size, size, generator=generator)


def patches_of(image: Tensor, size: int, cells: int) -> Tensor:
    """(cells * cells, 3, size, size): every window, 32 pixels apart, row by row.

    What the last ones read beyond the image is filled with its last pixels: its pooling rounds up.
    """
    beyond = max(0, STRIDE * (cells - 1) + size - image.shape[3])
    image = F.pad(image, (0, beyond, 0, beyond), mode="replicate")
    windows = image.unfold(2, size, STRIDE).unfold(3, size, STRIDE)[:, :, :cells, :cells]
    return windows[0].permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def in_batches(net: nn.Module, patches: Tensor, size: int) -> Tensor:
    """Logits (cells, cells, K)."""
    cells = round(len(patches) ** 0.5)
    logits = torch.cat([net(batch).flatten(1) for batch in torch.split(patches, size)])
    return logits.reshape(cells, cells, -1)


def in_one_pass(net: Classifier, image: Tensor) -> Tensor:
    """Logits (cells, cells, K)."""
    return cast(Tensor, net(image))[0].permute(1, 2, 0)


def without_padding(net: Classifier) -> Classifier:
    """A copy whose convolutions read nothing beyond their map."""
    bare = copy.deepcopy(net)
    for layer in bare.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding = (0, 0)
    return bare


def check(net: Classifier) -> None:
    """Stop where one pass and patches differ for another reason than padding; print by how much they differ for it."""
    bare = without_padding(net)
    size, cells = geometry.receptive_field(bare.paths()[0]).size, 3
    image = picture(size + STRIDE * (cells - 1))
    parts = in_batches(bare, patches_of(image, size, cells), cells)
    worst = ((in_one_pass(bare, image) - parts).abs().max() / parts.std()).item()
    if worst > 1e-4:
        raise SystemExit(f"without padding one pass and patches differ by {worst:.1e} deviations; expected rounding")
    print(
        f"The net without padding, {cells}x{cells} windows of {size}x{size}: one pass and patches differ by up to "
        f"{worst:.0e} of the logits' standard deviation."
    )
    image = picture(IMAGE)
    parts = in_batches(net, patches_of(image, PATCH, CELLS), CELLS)
    inside = slice(CELLS - 1)  # the last row and column of cells reach beyond the image
    whole, parts = in_one_pass(net, image)[inside, inside], parts[inside, inside]
    difference = (whole - parts) / parts.std()
    same = (whole.argmax(-1) == parts.argmax(-1)).float().mean().item()
    print(
        f"The net as published, the {CELLS - 1}x{CELLS - 1} windows of {PATCH}x{PATCH} inside {IMAGE}x{IMAGE}: by "
        f"{difference.square().mean().sqrt().item():.2f} (root mean square) and up to "
        f"{difference.abs().max().item():.2f}; the first class is the same in {same:.0%}.\n"
        "conv2 ... conv5 are padded: a patch has zeros where the image goes on, and random weights do not forgive it. "
        f"The other {2 * CELLS - 1} cells\nreach {STRIDE * (CELLS - 1) + PATCH - IMAGE} pixels beyond the image.\n"
    )


def actions(net: Classifier, batches: Sequence[int], backward: bool) -> dict[str, Action]:
    """What is timed."""
    image = picture(IMAGE)
    patches = patches_of(image, PATCH, CELLS)

    def step(inputs: Sequence[Tensor]) -> None:
        if not backward:
            for batch in inputs:
                net(batch)
            return
        net.zero_grad(set_to_none=True)
        for batch in inputs:
            net(batch).square().sum().backward()  # a gradient that depends on the logits, as a loss's does

    found: dict[str, Action] = {"one pass": partial(step, [image])}
    found |= {f"{BATCHED} of {size}": partial(step, torch.split(patches, size)) for size in batches}
    return found | {ONE_BY_ONE: partial(step, torch.split(patches, 1))}


def table(title: str, seconds: dict[str, list[float]]) -> None:
    """Rows of a markdown table; the best size of batch has the paper's ratio beside its own."""
    medians = {name: statistics.median(runs) * 1e3 for name, runs in seconds.items()}
    best = min((name for name in medians if name.startswith(BATCHED)), key=medians.__getitem__)
    paper = PAPER_MS[title]
    print(f"| {title} | median ms | spread | ms a patch | times one pass | paper: ms | times one pass |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in seconds.items():
        published = paper.get(BATCHED if name == best else name)
        theirs = "| |" if published is None else f"{published:.0f} | {published / paper['one pass']:.1f} |"
        shown = f"**{name}**" if name == best else name
        print(
            f"| {shown} | {medians[name]:.0f} | {min(runs) * 1e3:.0f} ... {max(runs) * 1e3:.0f} | "
            f"{medians[name] / CELLS**2:.2f} | {medians[name] / medians['one pass']:.1f} | {theirs}"
        )
    print(flush=True)


def main() -> None:
    """Print what was measured where, the check, and the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=[5, 10, 25, 50, 100])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = classifier()
    print(
        f"{args.runs} runs in turns, {args.threads} threads, commit {commit()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}\n"
    )
    with torch.inference_mode():
        check(net)
        table("forward", take_turns(actions(net, args.batches, backward=False), args.runs))
    table("forward and backward", take_turns(actions(net, args.batches, backward=True), args.runs))
    print('The paper: "more than 5 times faster" in batches, "nearly 25 times" one by one.')


if __name__ == "__main__":
    main()
