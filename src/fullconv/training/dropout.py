"""Dropout whose masks belong to the images: the same in any batch, in any process, and after a resume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fullconv.errors import OptionError, shape_text
from fullconv.training.draws import Draw, generator

LEVELS = 1 << 16
"""Of the numbers that are compared with p on a CPU: 16 random bits each."""


class KeyedDropout(nn.Dropout):
    """Dropout of single elements; in training, the mask of an image is a pure function of its draw.

    Made by `key_dropout`, which tells it the draws too. In evaluation mode, and for p = 0, it is the identity.

    Attributes:
        seed: of the run.
        number: of this layer in its net.
        draws: of the images of the coming batch.
        calls: since they were told, so that a layer used twice has other masks the second time.
    """

    seed: int
    number: int
    draws: Sequence[Draw]
    calls: int

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name of the parameter in torch)
        """Scale what is kept by 1 / (1 - p).

        Args:
            input: (N, ...) of a floating type, the images in the order of the draws. Type and memory format stay.

        Raises:
            OptionError: N is not the number of draws.
        """
        if not self.training or self.p == 0:
            return input
        if len(input) != len(self.draws):
            raise OptionError(
                f"dropout of a batch of {len(input)} (shape {shape_text(input.shape)}), expected the {len(self.draws)} "
                "images whose draws were set; set those of every batch, and keep the images on the first axis"
            )
        # Nets run channels last, so the masks are drawn so: one order for every memory format.
        spatial = input.ndim == 4
        shape = (len(input), *input.shape[2:], input.shape[1]) if spatial else input.shape
        mask = torch.empty(shape, dtype=input.dtype, device=input.device)
        for (epoch, index), image in zip(self.draws, mask, strict=True):
            keep(image, self.p, generator("dropout", epoch, index, self.number, self.calls, seed=self.seed))
        self.calls += 1
        if spatial:
            mask = mask.permute(0, 3, 1, 2)
        return input.mul_(mask) if self.inplace else input * mask


def keep(mask: Tensor, p: float, stream: np.random.Generator) -> None:
    """Fill a mask: 0 with the probability p, else 1 / (1 - p).

    On a CPU numpy draws it, in a quarter of torch's time, with p to 1 / 65536; other devices draw it themselves.

    Args:
        mask: contiguous, of any shape.
        stream: what the mask is a function of (and of the kind of device).
    """
    if mask.device.type == "cpu":
        bits = np.frombuffer(stream.bytes(2 * mask.numel()), dtype="<u2")
        mask.copy_(torch.from_numpy(bits >= round(p * LEVELS)).view(mask.shape))
    else:
        keep_there(mask, p, int(stream.integers(1 << 63)))
    if p < 1:
        mask.mul_(1 / (1 - p))


def keep_there(mask: Tensor, p: float, key: int) -> None:
    """Fill a mask on its own device: 0 with the probability p, else 1."""
    mask.bernoulli_(1 - p, generator=torch.Generator(mask.device).manual_seed(key))


class DropoutKeys:
    """The keyed layers of a net.

    Attributes:
        layers: in the order of the net's modules.
    """

    def __init__(self, layers: Sequence[KeyedDropout]) -> None:
        self.layers = list(layers)

    def set_draws(self, draws: Sequence[Draw]) -> None:
        """Tell every layer what the images of the coming batch are; before each pass in training mode."""
        for layer in self.layers:
            layer.draws, layer.calls = draws, 0

    def keep_uncompiled(self) -> None:
        """Masks are drawn by numpy, which torch.compile would trace."""
        for layer in self.layers:
            layer.forward = torch.compiler.disable(layer.forward)  # type: ignore[method-assign, no-untyped-call]


def key_dropout(net: nn.Module, seed: int) -> DropoutKeys:
    """Turn every plain `nn.Dropout` with p > 0 into a `KeyedDropout`, in place.

    The modules stay the same objects, with their mode, hooks and `inplace`. Other kinds (`nn.Dropout2d`, ...) stay as
    they are, with masks from the process's own generator.

    Args:
        seed: of the run.
    """
    for module in net.modules():
        if type(module) is nn.Dropout and module.p > 0:
            module.__class__ = KeyedDropout  # a copy would be missed where the old one is held
    keys = DropoutKeys([module for module in net.modules() if isinstance(module, KeyedDropout)])
    for number, layer in enumerate(keys.layers):
        layer.seed, layer.number = seed, number
    keys.set_draws([])
    return keys
