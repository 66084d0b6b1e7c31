"""Thin nets whose scores say something, images of noise, and a reader of their parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.inference.maps import Images
from fullconv.nets import FCN, build
from fullconv.nets.rectangles import Interval
from fullconv.nets.trunks import Trunk


def thin(name: str, classes: int | None = 4, seed: int = 0, width: float = 1 / 8, **options: Any) -> FCN:
    """A net by name, `width` of its channels, in evaluation mode, with random weights, statistics and scores."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return lively(build(name, classes, width=width, **options), seed)


def lively(net: FCN, seed: int = 0) -> FCN:
    """Score layers that score (they start at zero), upsamplings that are not bilinear, batch norms that normalise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.normal_(0, 0.2, generator=generator)
                layer.running_var.uniform_(0.5, 2, generator=generator)
                layer.weight.uniform_(0.5, 2, generator=generator)
                layer.bias.normal_(generator=generator)
        for name, weight in net.heads.named_parameters():
            if name.split(".")[1] == "upscore":
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
            elif weight.ndim > 1:
                weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
    return net.eval()


def positive(net: FCN) -> FCN:
    """No weight cancels another, no ReLU is silent, and nothing comes of nothing: no biases."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.uniform_(0.1, 1, generator=generator).mul_(layer.weight[0].numel() ** -1.0)
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.reset_parameters()
    return net.eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Images (N, C, H, W) uint8."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def reading(images: Tensor | Mapping[str, Tensor]) -> Images:
    """Of their rectangles; a single input is called "image"."""
    given = {"image": images} if isinstance(images, Tensor) else images

    def read(rows: Interval, columns: Interval) -> Mapping[str, Tensor]:
        return {name: each[:, :, slice(*rows), slice(*columns)] for name, each in given.items()}

    return read


def outputs_of(trunk: Trunk, names: list[str], x: Tensor) -> dict[str, Tensor]:
    """Of the layers called so, by the plain trunk."""
    found: dict[str, Tensor] = {}
    hooks = [
        trunk.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: found.update({name: y.clone()}))
        for name in names
    ]
    with torch.inference_mode():
        trunk(x)
    for hook in hooks:
        hook.remove()
    return found
