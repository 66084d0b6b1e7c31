"""The order in which samples are drawn: a pure function of (seed, epoch), so that a run can stop anywhere and go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Draw = tuple[int, int]
"""(epoch, index of the sample)."""


USES = ("order", "augmentation", "loss")
"""Of random numbers; each has streams of its own, by its position here."""


def generator(use: str, *place: int, seed: int) -> np.random.Generator:
    """The generator of one use at one place, such as an epoch and a sample; no two share a stream.

    The seed comes last: it alone may need several words of the seed sequence.
    """
    return np.random.default_rng([USES.index(use), *place, seed])


def order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The permutation of 0..length-1 of an epoch."""
    return generator("order", epoch, seed=seed).permutation(length)


@dataclass(frozen=True)
class Batches:
    """The draws of every step: epoch after epoch without a short batch between them.

    Args:
        length: samples in the data set.
        batch: draws in a step, over all processes.
        seed: of the order.
        start: the first step.
        rank, processes: this process takes the draws rank, rank + processes, ... of each step.
    """

    length: int
    batch: int
    seed: int
    start: int = 0
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[Draw]]:
        """Endless; a step's list of draws at a time."""
        step = self.start
        epoch, permutation = -1, order(self.seed, 0, self.length)
        while True:
            draws: list[Draw] = []
            for position in range(step * self.batch + self.rank, (step + 1) * self.batch, self.processes):
                if position // self.length != epoch:
                    epoch = position // self.length
                    permutation = order(self.seed, epoch, self.length)
                draws.append((epoch, int(permutation[position % self.length])))
            yield draws
            step += 1
