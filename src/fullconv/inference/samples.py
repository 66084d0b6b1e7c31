"""Samples: inputs that pass from block to block of a trunk as far as somebody reads them, and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


class Samples:
    """What one block after the other is given.

    Each sample is held once. Layers run when what comes behind them is read, one sample at a time; where nobody reads
    it, because all is known from earlier, they cost no more than their digest.

    Args:
        inputs: (N, C, H, W) of the first block; left as they are.
    """

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        self._held = list(inputs)
        self._sha = hashlib.sha256(digest(("", each) for each in self._held).encode())
        self._passed: list[nn.Module] = []
        self._ran = self._told = 0

    @classmethod
    def of(cls, inputs: Iterable[Tensor]) -> Samples:
        """Samples as they are; tensors as samples that have passed nothing."""
        return inputs if isinstance(inputs, cls) else cls(inputs)

    def through(self, layer: nn.Module) -> None:
        """From now on they are what a layer makes of them; it stays in evaluation mode, with these weights."""
        self._passed.append(layer)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Tensor]:
        """One after the other, as often as wanted."""
        with torch.inference_mode():
            for number, sample in enumerate(self._held):
                for layer in self._passed[self._ran :]:
                    sample = layer(sample.clone())  # noqa: PLW2901  # layers may work in place
                self._held[number] = sample
        self._ran = len(self._passed)
        return iter(self._held)

    @property
    def digest(self) -> str:
        """Of the first block's inputs and of all layers that they passed, which tell what they are; hex."""
        for layer in self._passed[self._told :]:
            self._sha.update(f"{layer} {digest(layer.state_dict().items())}".encode())
        self._told = len(self._passed)
        return self._sha.hexdigest()


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 of tensors by name: names, types, shapes and numbers; hex."""
    found = hashlib.sha256()
    for name, tensor in tensors:
        found.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
