"""From draws to batches: samples augmented and stacked, ahead of the net."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fullconv.data.augment import Augmentation, augment, margin
from fullconv.data.sample import Array, Dataset, Values
from fullconv.labels import VOID
from fullconv.training.draws import Draw, generator


@dataclass(frozen=True)
class Batch:
    """A step's samples.

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


def load_batch(data: Dataset, draws: Sequence[Draw], augmentation: Augmentation, seed: int) -> Batch:
    """The augmented samples of the draws: a pure function of its arguments.

    Samples of several sizes are filled to the largest: pictures grey, measured values by their mean, masks void.
    """
    samples = [
        augment(data[index], augmentation, generator("augmentation", epoch, index, seed=seed), data.inputs)
        for epoch, index in draws
    ]
    size = max(s.size[0] for s in samples), max(s.size[1] for s in samples)
    return Batch(
        draws,
        [s.name for s in samples],
        {
            name: [_filled(s.inputs[name], size, partial(margin, kind=kind)) for s in samples]
            for name, kind in data.inputs.items()
        },
        {task: [_filled(s.masks[task], size, lambda _: VOID) for s in samples] for task in data.labels},
    )


def _filled(array: Values, size: tuple[int, int], value: Callable[[Values], Values | int]) -> Values:
    """(H, W[, C]) -> `size`, with a value at the bottom and right."""
    if array.shape[:2] == size:
        return array
    result = np.full((*size, *array.shape[2:]), value(array), dtype=array.dtype)
    result[: array.shape[0], : array.shape[1]] = array
    return result
