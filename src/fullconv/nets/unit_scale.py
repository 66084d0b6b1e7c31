"""Random weights that keep every map at unit scale.

Score layers start at zero, and deep nets without norms fade: on such maps neither times nor labels mean anything.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from fullconv.nets.fcn import FCN
from fullconv.nets.modules import evaluating
from fullconv.nets.options import InputOptions

SIDE = 256
"""Pixels of the image that weights are scaled on: some cells at stride 32, too."""

SMALLEST = 1e-6
"""Deviation of a map below which it is not scaled."""

PICTURES = 64.0
"""Deviation of pictures, about, of 0..255: of inputs whose options subtract a mean and say no more."""

Hooked = nn.Conv2d | nn.BatchNorm2d


@torch.no_grad()
def unit_scale(net: FCN, seed: int = 0) -> FCN:
    """Give a net He's normal weights, then scale and shift layer by layer, so that every convolution's output has
    deviation 1 and, where it has a bias, every channel mean 0. Batch norms get the statistics of what they see.

    Without the shift one class would win everywhere.

    Args:
        net: changed in place, and given back; its mode stays.
        seed: of the weights.

    Source: He et al. 2015, section 2.2; Mishkin and Matas 2016.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for layer in net.modules() if isinstance(layer, Hooked)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
    with evaluating(net), ExitStack() as hooks:
        for layer in layers:
            made = (
                layer.register_forward_hook(_scale)
                if isinstance(layer, nn.Conv2d)
                else layer.register_forward_pre_hook(_observe)
            )
            hooks.callback(made.remove)
        net.coarse({name: _noise(each, generator) for name, each in net.options.inputs.items()})
    net.to_channels_last()
    return net


def deviations(options: InputOptions) -> tuple[float, ...]:
    """Of an input's channels, or of their logarithms."""
    says_nothing = set(options.std) == {1.0} and not options.log and not options.bands
    return (PICTURES,) * options.channels if says_nothing else options.std


def _noise(options: InputOptions, generator: torch.Generator) -> Tensor:
    """(1, C, SIDE, SIDE) of the input's mean and deviation, coarse and fine."""
    cells = SIDE // 8
    coarse = torch.randn(1, options.channels, cells, cells, generator=generator)
    fine = torch.randn(1, options.channels, SIDE, SIDE, generator=generator)
    mean, std = (torch.tensor(each)[:, None, None] for each in (options.mean, deviations(options)))
    values = (0.8 * coarse.repeat_interleave(8, 2).repeat_interleave(8, 3) + 0.6 * fine) * std + mean
    return values.exp() if options.log else values


def _scale(layer: nn.Module, _: object, output: Tensor) -> Tensor | None:
    """Changes a convolution, and its output."""
    deviation = output.std()
    if not isinstance(layer, nn.Conv2d) or not deviation > SMALLEST:
        return None
    layer.weight.div_(deviation)
    if layer.bias is None:
        return output / deviation
    mean = output.mean((0, 2, 3))
    layer.bias.sub_(mean).div_(deviation)
    return (output - mean[:, None, None]) / deviation


def _observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Sets a batch norm's statistics."""
    if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
        layer.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        layer.running_var.copy_(inputs[0].var((0, 2, 3)).clamp_(min=SMALLEST))
