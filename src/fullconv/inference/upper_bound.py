"""The upper bound on mean IU at a stride: truth, down- and up-sampled by it, scored against itself.

Source: Long et al. 2015; figures in reference 8.5. How the paper samples is not stated. Of ten ways (docs/log.md),
on 180 images of VOC2012 (train and val), this one came closest to its numbers over all factors:

| factor | 128 | 64 | 32 | 16 | 8 | 4 | mean difference |
| the paper (a subset of VOC2011 val) | 50.9 | 73.3 | 86.1 | 92.8 | 96.4 | 98.5 | |
| majority with void, bilinear (this file) | 53.4 | 72.1 | 85.2 | 93.3 | 96.1 | 98.3 | 0.9 |
| majority without void, bilinear | 53.8 | 72.7 | 85.9 | 94.4 | 98.8 | 99.9 | 1.5 |
| majority without void, nearest | 54.5 | 71.5 | 84.3 | 93.3 | 98.2 | 99.9 | 1.8 |
| shares, bilinear | 55.2 | 79.1 | 91.3 | 97.4 | 99.7 | 100.0 | 4.1 |
| nearest at the cells' centres, nearest | 52.5 | 67.7 | 81.0 | 90.4 | 95.2 | 97.5 | 2.8 |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.data import open_dataset
from fullconv.data.sample import Array, Dataset
from fullconv.data.scenes import FileDataset
from fullconv.errors import OptionError
from fullconv.inference.batches import THREADS, ahead
from fullconv.labels import VOID
from fullconv.metrics import Scores
from fullconv.metrics.confusion import Counts, scores_of

FACTORS = (2, 4, 8, 16, 32, 64, 128)

SHARE = 0.95
"""Of 1: what the bound should reach at a stride that is fine enough."""

_COARSEST = 4096


@dataclass(frozen=True)
class Bounds:
    """The best scores that a net of each stride can have.

    Attributes:
        scores: by task, then by factor in ascending order.
    """

    scores: Mapping[str, Mapping[int, Scores]]

    def stride(self, task: str, share: float = SHARE) -> int:
        """The coarsest factor whose bound on mean IU is at least `share`; 1 where none is."""
        return max((factor for factor, each in self.scores[task].items() if each.mean_iu >= share), default=1)

    def class_strides(self, task: str, share: float = SHARE) -> tuple[int | None, ...]:
        """For each class the coarsest factor whose bound on its IU is at least `share`; None: the class is absent."""
        factors = self.scores[task]
        pixels = next(iter(factors.values())).pixels
        return tuple(
            max((factor for factor, each in factors.items() if each.iu[label] >= share), default=1) if count else None
            for label, count in enumerate(pixels)
        )


def upper_bound(
    data: Dataset | str | Path,
    split: str = "val",
    factors: Sequence[int] = FACTORS,
    progress: Callable[[int, int], None] | None = None,
) -> Bounds:
    """Score masks, down- and up-sampled, against themselves.

    Args:
        data: a `Dataset`, or what `open_dataset` takes.
        split: of the data set, where `data` is a name.
        factors: whole numbers from 1 to 4096.
        progress: called with (images done, images in all) after every image.

    Raises:
        DataError: a file cannot be used.
        OptionError: factors out of range.
    """
    wanted = sorted(set(factors))
    if not wanted or not 1 <= wanted[0] <= wanted[-1] <= _COARSEST:
        raise OptionError(
            f"factors {', '.join(map(str, wanted)) or 'none'}; expected whole numbers from 1 to {_COARSEST}, "
            "such as 8,16,32"
        )
    if isinstance(data, str | Path):
        data = open_dataset(data, split)
    classes = {task: len(labels) for task, labels in data.labels.items()}
    totals = {task: np.zeros((len(wanted), 3, count), np.int64) for task, count in classes.items()}

    def one(dataset: Dataset, index: int) -> dict[str, Counts]:
        masks = dataset.masks(index) if isinstance(dataset, FileDataset) else dataset[index].masks
        return {
            task: np.stack([_counts(masks[task], resampled(masks[task], factor), count) for factor in wanted])
            for task, count in classes.items()
        }

    for done, counts in enumerate(ahead(partial(one, data), range(len(data)), depth=2 * THREADS), 1):
        for task, each in counts.items():
            totals[task] += each
        if progress is not None:
            progress(done, len(data))
    return Bounds(
        {
            task: {factor: scores_of(*counts) for factor, counts in zip(wanted, total, strict=True)}
            for task, total in totals.items()
        }
    )


def resampled(mask: Array, factor: int) -> Array:
    """A mask down- and up-sampled.

    Down: of every cell of factor x factor pixels the label that most pixels have, void among them; where the factor
    does not divide the size, the last cells are of the pixels that are left. Up: each label's map of ones and zeros
    is interpolated bilinearly between the cells' centres (pixel y lies at (y + 0.5) / factor - 0.5 cells; beyond the
    outer centres the outer cells' values hold) and the highest wins. Of equals the lowest label wins. Weights are
    whole numbers: the result is exact.

    Args:
        mask: (H, W) uint8: class numbers, 255 = void.
        factor: 1 to 4096.

    Returns:
        (H, W) uint8; void where void had most.
    """
    height, width = mask.shape
    down = (height + factor - 1) // factor, (width + factor - 1) // factor
    labels = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    place = np.zeros(256, np.int64)  # of a label among those that occur
    place[labels] = np.arange(labels.size)
    cells = (np.arange(height) // factor * down[1])[:, None] + np.arange(width) // factor
    votes = np.bincount((cells * labels.size + place[mask]).ravel(), minlength=down[0] * down[1] * labels.size)
    majority = labels[votes.reshape(*down, labels.size).argmax(axis=2)]

    result = np.full(mask.shape, labels[0], np.uint8)
    best = np.zeros(mask.shape, np.int32)
    for label in labels:
        ones = (majority == label).astype(np.int32)
        if not ones.any():
            continue
        score = _interpolated(_interpolated(ones, factor, height).T, factor, width).T
        higher = score > best
        result[higher] = label
        np.maximum(best, score, out=best)
    return result


def _interpolated(cells: NDArray[np.int32], factor: int, length: int) -> NDArray[np.int32]:
    """(h, n) -> (length, n): linear between the rows' centres, times 2 * factor."""
    cell, phase = np.divmod(np.arange(length), factor)
    offset = 2 * phase + 1 - factor  # from the own cell's centre, in half pixels
    other = np.clip(cell + np.sign(offset), 0, len(cells) - 1)
    weight = np.abs(offset).astype(np.int32)[:, None]
    result: NDArray[np.int32] = cells[cell] * (2 * factor - weight) + cells[other] * weight
    return result


def _counts(truth: Array, prediction: Array, classes: int) -> NDArray[Any]:
    """(3, K) int64: pixels right, true and predicted, where the truth is a class; void predicted there is wrong."""
    valid = truth != VOID
    chosen = (truth[(truth == prediction) & valid], truth[valid], prediction[valid])
    return np.stack([np.bincount(labels, minlength=VOID + 1)[:classes] for labels in chosen])
