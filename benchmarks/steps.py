"""Training steps a second, against the plain eager float32 loop: forward, loss, backward, update.

    python benchmarks/steps.py --runs 3

FCN-8s VGG16 (pad 100, 21 classes, 480x360, one and four images a step; SGD with momentum) and slim nets (11
classes, eight crops of 288; AdamW). The plain loop is what one writes with torch alone, of the same layers: float32,
NCHW in memory, dense deconvolutions, cross-entropy of full-size scores; its nets give the scores of ours. Ours is
`Learner.step` as `fullconv train` runs it, in float32 and, where the processor has it, bfloat16; slim nets also with
the loss on every second row and column, and with Muon too, as `scratch` trains them.
The variants of one net take turns within one run, since machines drift.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from fcn8s_vgg16 import load_oracle
from fullconv.nets import FCN, build
from fullconv.nets.head import Head
from fullconv.nets.precision import has_bfloat16
from fullconv.nets.trunks import Trunk
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
    net.train()
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
    """fcn8s-slim or fcn4s-slim as one writes it in plain torch, with the layers and weights of ours.

    The trunk's layers in a row, 1x1 score layers, a dense bilinear deconvolution for every upsampling, crops and sums.
    Takes RGB (N, 3, H, W) of 0..255, gives scores (N, K, H, W); NCHW in memory throughout.
    """

    def __init__(self, net: FCN) -> None:
        super().__init__()
        trunk, head = cast(Trunk, net.trunks["image"]), cast(Head, net.heads["semantic"])
        (options,), classes = net.options.inputs.values(), net.options.classes["semantic"]
        self.mean = torch.tensor(options.mean)[:, None, None]
        self.std = torch.tensor(options.std)[:, None, None]
        self.layers = nn.Sequential(copy.deepcopy(OrderedDict(trunk.named_children())))
        scores = cast(nn.ModuleDict, head.score["image"])
        self.score = nn.ModuleDict({trunk.taps[s]: copy.deepcopy(scores[str(s)]) for s in head.strides})
        deconvolution, finest = load_oracle().deconvolution, head.strides[-1]
        self.upscore = nn.ModuleList([deconvolution(classes, 4, 2) for _ in head.strides[1:]])
        self.upscore_last = deconvolution(classes, 2 * finest - 1, finest)
        self.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        found = []
        for name, layer in self.layers.named_children():
            x = layer(x)
            if name in self.score:
                found.append(self.score[name](x))
        scores = found.pop()
        for deconvolution in self.upscore:
            skip = found.pop()
            height, width = skip.shape[2:]
            scores = deconvolution(scores)[:, :, 1 : 1 + height, 1 : 1 + width] + skip
        start, (height, width) = self.upscore_last.stride[0] // 2, images.shape[2:]
        return cast(Tensor, self.upscore_last(scores)[:, :, start : start + height, start : start + width])


def require_equal(name: str) -> None:
    """Stop unless the plain net's scores are those of ours, random weights in all layers, at an odd size."""
    net = build(name, 11, dropout=0.0)
    for layer in cast(Head, net.heads["semantic"]).score.modules():
        if isinstance(layer, nn.Conv2d):  # which start at zero
            nn.init.normal_(layer.weight, std=0.1)
    images = torch.randint(0, 256, (2, 3, 83, 122)).float()
    plain_net = PlainSlim(net)
    with torch.no_grad():
        expected, found = cast(Tensor, net.train()(images)), plain_net.train()(images)
    difference, scale = float((found - expected).abs().max()), float(expected.std())
    if not (difference < 1e-4 and scale > 0.1):
        raise SystemExit(f"the plain {name} differs by {difference:.1e} from ours, whose scores deviate by {scale:.1e}")


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
        require_equal(name)
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
    parser.add_argument("--nets", nargs="+", default=["fcn8s-vgg16", "fcn8s-slim", "fcn4s-slim"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{about(args.threads)}, {args.runs} runs in turns")
    print("| net, images a step | variant | median s | spread | images/s | times plain |")
    print("|---|---|---|---|---|---|")
    for name, images in [(net, count) for net in args.nets for count in ((1, 4) if net.endswith("vgg16") else (8,))]:
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
