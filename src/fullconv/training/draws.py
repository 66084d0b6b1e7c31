"""The order in which samples are drawn: a pure function of (seed, place), so that a run can stop anywhere and go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import OptionError

Draw = tuple[int, int]
"""(epoch, or with replacement the draw's number; index of the sample): no two draws of a run are equal."""

USES = ("order", "augmentation", "loss", "dropout", "replacement", "grid")
"""Of random numbers; each has streams of its own, by its position here."""

BLOCK = 1024
"""Draws with replacement that one generator makes."""


def generator(use: str, *place: int, seed: int) -> np.random.Generator:
    """The generator of one use at one place, such as an epoch and a sample; no two share a stream.

    The seed comes last: it alone may need several words of the seed sequence.
    """
    return np.random.default_rng([USES.index(use), *place, seed])


def order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The permutation of 0..length-1 of an epoch."""
    return generator("order", epoch, seed=seed).permutation(length)


def replaced(seed: int, block: int, length: int) -> NDArray[np.int64]:
    """The samples of `BLOCK` draws in a row, each one of all (reference 5.5)."""
    return generator("replacement", block, seed=seed).integers(0, length, BLOCK)


@dataclass(frozen=True)
class Share:
    """Which of a step's images a process takes, and in which parts.

    The step's draws are dealt out to `accumulate` parts, or, where that is 1, to the processes: so a part, or the step,
    is the same however many processes share it (but for batch norm, which sees all parts that run at the same time).

    Attributes:
        accumulate: parts of a step, a multiple of `processes` or 1.
        rank, processes: of this process.
    """

    accumulate: int = 1
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if self.accumulate > 1 and self.accumulate % self.processes:
            raise OptionError(
                f"{self.accumulate} parts of a step for {self.processes} processes; give a multiple of "
                f"{self.processes} with --accumulate"
            )

    def least(self, batch: int) -> int:
        """Images in the smallest part of a step.

        Raises:
            OptionError: a part or process would have none.
        """
        count = self._count
        if batch < count:
            raise OptionError(
                f"{batch} images a step for {count} {'processes' if self.accumulate == 1 else 'parts'}; give at least "
                f"{count} with --batch"
            )
        return batch // count

    @property
    def _count(self) -> int:
        return self.processes if self.accumulate == 1 else self.accumulate

    def parts(self, draws: list[Draw]) -> list[list[Draw]]:
        """This process's parts of a step, in order."""
        count = self._count
        return [draws[part::count] for part in range(self.rank, count, self.processes)]


@dataclass(frozen=True)
class Batches:
    """The draws of every step, over all processes.

    Args:
        length: samples in the data set.
        batch: draws in a step.
        seed: of the order.
        start: the first step.
        replacement: each draw is one of all samples; otherwise epoch after epoch, without a short batch between them.
    """

    length: int
    batch: int
    seed: int
    start: int = 0
    replacement: bool = False

    def __iter__(self) -> Iterator[list[Draw]]:
        """Endless; a step's list of draws at a time."""
        size = BLOCK if self.replacement else self.length
        current, indices = -1, np.empty(0, np.int64)
        step = self.start
        while True:
            draws: list[Draw] = []
            for position in range(step * self.batch, (step + 1) * self.batch):
                if position // size != current:
                    current = position // size
                    indices = (replaced if self.replacement else order)(self.seed, current, self.length)
                # A sample may come twice in a block: its place makes the draw its own.
                draws.append((position if self.replacement else current, int(indices[position % size])))
            yield draws
            step += 1
