"""What any module tells of itself, and its mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fullconv.errors import OptionError


def first_channels(module: nn.Module) -> int:
    """C of a module's input, as its first convolution tells.

    Raises:
        OptionError: it has no convolution.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels:
            return layer.in_channels
    raise OptionError("no convolution tells the channels of the input; give channels=")


def first_weight(module: nn.Module) -> Tensor:
    """The first of floating point, whose type and device count as the module's; an empty one where there is none."""
    return next((each for each in module.parameters() if each.is_floating_point()), torch.empty(0))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, then every part as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
