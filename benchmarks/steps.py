"""Training steps a second, against the plain eager float32 loop: forward, loss, backward, update.

    python benchmarks/steps.py --runs 3

FCN-8s VGG16 (pad 100, 21 classes, 480x360, one and four images a step; SGD with momentum) and slim nets (11
classes, eight crops of 288; AdamW). The plain loop has the same layers as PyTorch makes them by default: float32,
NCHW in memory, dense deconvolutions, cross-entropy of full-size scores. Ours is `Learner.step` as `fullconv train`
runs it, in float32 and, where the processor has it, bfloat16; slim nets also with the loss on every second row and
column, and with Muon too, as `scratch` trains them.
The variants of one net take turns within one run, since machines drift.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from fcn8s_vgg16 import load_oracle
from fullconv.nets import FCN, build
from fullconv.nets.precision import has_bfloat16
from fullconv.training.learner import Learner
from fullconv.training.loading import Batch
from fullconv.training.options import RunOptions
from fullconv.training.recipe import Recipe
from fullconv.training.recipes import HEAVY
from measure import Action, about, take_turns

CPU = torch.device("cpu")


def batch_of(images: int, size: tuple[int, int], classes: int) -> Batch:
    """Noise, and random labels in blocks of 8."""
    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(images)]
    blocks = [rng.integers(0, classes, (-(-size[0] // 8), -(-size[1] // 8)), dtype=np.uint8) for _ in range(images)]
    masks = [each.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]] for each in blocks]
    draws = [(0, i) for i in range(images)]
    return Batch(draws, [str(i) for _, i in draws], {"image": inputs}, {"semantic": masks})


def ours(net: FCN, recipe: Recipe, precision: str, batch: Batch) -> Action:
    """A step as `fullconv train` takes it."""
    options = RunOptions("noise", net.options, recipe, "benchmark", 0, 1, None, precision)
    pixels = {"semantic": np.ones(net.options.classes["semantic"], np.int64)}
    learner = Learner(net, options, pixels, Accelerator(cpu=True))
    return lambda: learner.step([batch], 0, 1.0)


def plain(net: nn.Module, make_optimizer: Callable[[Any], torch.optim.Optimizer], batch: Batch) -> Action:
    """A step of the loop that everyone writes first."""
    net = net.to(memory_format=torch.contiguous_format).train()  # type: ignore[call-overload]  # torch's stub
    optimizer = make_optimizer(net.parameters())
    images = torch.from_numpy(np.stack(batch.inputs["image"])).permute(0, 3, 1, 2).float().contiguous()
    target = torch.from_numpy(np.stack(batch.masks["semantic"])).long()

    def step() -> None:
        loss = F.cross_entropy(net(images), target, ignore_index=255)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


class PlainSlim(nn.Module):
    """fcn8s-slim's layers, with the upsampling as dense deconvolutions' equal, `F.interpolate`."""

    def __init__(self, net: FCN) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        coarse = next(iter(self.net.coarse(images).values()))
        return F.interpolate(coarse.scores.contiguous(), coarse.size, mode="bilinear", align_corners=False)


def variants(name: str, images: int) -> dict[str, Action]:
    """The steps to compare, by variant."""
    vgg = name.endswith("vgg16")
    size, classes = ((360, 480), 21) if vgg else ((288, 288), 11)
    batch = batch_of(images, size, classes)
    recipe = replace(HEAVY if vgg else Recipe(), batch=images)
    padding = "paper" if vgg else "same"
    found: dict[str, Action] = {}
    if vgg:
        oracle = load_oracle().Oracle(8, classes)
        found["plain"] = plain(oracle, lambda p: torch.optim.SGD(p, 1e-10, momentum=0.99), batch)
    else:
        found["plain"] = plain(PlainSlim(build(name, classes)), lambda p: torch.optim.AdamW(p, 1e-5), batch)
    for precision in ("float32", *(["bfloat16"] if has_bfloat16(CPU) else [])):
        for optimizer, stride in (("sgd", 1),) if vgg else (("adamw", 1), ("adamw", 2), ("muon", 2)):
            chosen = replace(recipe, optimizer=optimizer, loss_stride=stride, lr=1e-10)
            shown = f"fullconv {precision}, {optimizer}" + (", every 2nd row and column" if stride > 1 else "")
            found[shown] = ours(build(name, classes, padding=padding), chosen, precision, batch)
    return found


def main() -> None:
    """A table a net and batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{about(args.threads)}, {args.runs} runs in turns")
    print("| net, images a step | variant | median s | spread | images/s | times plain |")
    print("|---|---|---|---|---|---|")
    for name, images in (("fcn8s-vgg16", 1), ("fcn8s-vgg16", 4), ("fcn8s-slim", 8), ("fcn4s-slim", 8)):
        runs = args.runs if name.endswith("vgg16") else 5 * args.runs
        seconds = take_turns(variants(name, images), runs)
        base = statistics.median(seconds["plain"])
        for variant, each in seconds.items():
            median = statistics.median(each)
            print(
                f"| {name}, {images} | {variant} | {median:.3f} | {min(each):.3f} ... {max(each):.3f} | "
                f"{images / median:.2f} | {base / median:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
