"""From draws to batches: samples augmented and stacked, ahead of the net."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fullconv.data.augment import Augmentation, augment, margin
from fullconv.data.sample import Array, Dataset, Sample, Values
from fullconv.labels import VOID
from fullconv.training.draws import Draw, Share, generator


@dataclass(frozen=True)
class Batch:
    """Samples that go through the net together: a step's, or a part of it.

    Attributes:
        draws: of the samples.
        names: of the samples.
        inputs: by input name, (H, W, C) each.
        masks: by task name, (H, W) uint8 each; all of one H and W.
    """

    draws: Sequence[Draw]
    names: list[str]
    inputs: Mapping[str, list[Values]]
    masks: Mapping[str, list[Array]]


@dataclass(frozen=True)
class Loader:
    """Loads this process's parts of a step: a pure function of the step's draws.

    Args:
        data: the training data.
        sizes: (H, W) of every sample.
        augmentation: of each sample.
        seed: of the run.
        share: what this process takes.
    """

    data: Dataset
    sizes: Sequence[tuple[int, int]]
    augmentation: Augmentation
    seed: int
    share: Share = Share()  # noqa: RUF009  (frozen)

    def __call__(self, draws: list[Draw]) -> list[Batch]:
        """Batches of augmented samples.

        Samples of several sizes are filled to the largest of the part, or of the step where the processes share it:
        pictures grey, measured values by their mean, masks void.
        """
        parts = self.share.parts(draws)
        if self.share.accumulate > 1:
            return [self._load(part, part) for part in parts]
        return [self._load(part, draws) for part in parts]

    def _load(self, draws: Sequence[Draw], together: Sequence[Draw]) -> Batch:
        height, width = self.augmentation.crop or (
            max(self.sizes[index][axis] for _, index in together) for axis in (0, 1)
        )
        size = height, width
        samples = [self._sample(draw) for draw in draws]
        return Batch(
            draws,
            [s.name for s in samples],
            {
                name: [_filled(s.inputs[name], size, partial(margin, kind=kind)) for s in samples]
                for name, kind in self.data.inputs.items()
            },
            {task: [_filled(s.masks[task], size, lambda _: VOID) for s in samples] for task in self.data.labels},
        )

    def _sample(self, draw: Draw) -> Sample:
        epoch, index = draw
        stream = generator("augmentation", epoch, index, seed=self.seed)
        return augment(self.data[index], self.augmentation, stream, self.data.inputs)


def _filled(array: Values, size: tuple[int, int], value: Callable[[Values], Values | int]) -> Values:
    """(H, W[, C]) -> `size`, with a value at the bottom and right."""
    if array.shape[:2] == size:
        return array
    result = np.full((*size, *array.shape[2:]), value(array), dtype=array.dtype)
    result[: array.shape[0], : array.shape[1]] = array
    return result
