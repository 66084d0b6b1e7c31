"""Trimap: mean IU of the pixels near a class boundary, for several widths of the band.

Source: Kohli, Ladicky and Torr 2009 and Kraehenbuehl and Koltun 2011, who score only a narrow band around the
boundaries of accurate truth, and widen it. Chen et al. 2015 take the band about VOC's void outlines for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import OptionError
from fullconv.metrics.boundary import borders, distance_to, filled
from fullconv.metrics.confusion import Absent, ConfusionMatrix, Counts, Scores
from fullconv.metrics.maps import checked_images

WIDTHS = (1, 2, 4, 8, 16)
"""Of the bands, in pixels on each side of the boundary."""


class Trimap:
    """Confusion matrices of the pixels less than a width away from a true class boundary.

    A boundary pixel has another class above, below, left or right of it; the distance is Euclidean, between the
    centres of a pixel and the nearest boundary pixel, so that width 1 takes the boundary pixels themselves, one on
    each side. The boundary is that of the truth whose void has been filled (`filled`): it runs along the middle of
    the void outlines that VOC has, and void within or beside a single class draws none. Void pixels never count.

    Args:
        classes: K, 1 to 255.
        widths: pixels, whole, each larger than the one before.

    Raises:
        OptionError: K or the widths out of range.

    >>> trimap = Trimap(2, widths=(1, 2))
    >>> trimap.update(np.array([[0, 0, 0, 1, 1]]), np.array([[1, 1, 0, 1, 1]]))
    >>> [scores.pixel_accuracy for scores in trimap.scores().values()]
    [1.0, 0.75]
    """

    def __init__(self, classes: int, widths: Sequence[int] = WIDTHS) -> None:
        self.widths = check_widths(widths)
        self.classes = classes
        self._matrices = [ConfusionMatrix(classes) for _ in self.widths]

    @property
    def counts(self) -> Counts:
        """(W, K, K) int64: one confusion matrix a width; a copy."""
        return np.stack([matrix.counts for matrix in self._matrices])

    def with_counts(self, counts: Counts) -> Trimap:
        """The same bands with other counts, such as the sum over processes.

        Raises:
            DataError: as `ConfusionMatrix.from_counts`.
        """
        other = Trimap(self.classes, self.widths)
        other._matrices = [matrix.with_counts(own) for matrix, own in zip(self._matrices, counts, strict=True)]
        return other

    def update(self, truth: NDArray[Any], prediction: NDArray[Any]) -> None:
        """Count the pixels of one image or of a batch.

        Args:
            truth: (H, W) or (N, H, W) integers; values outside 0..K-1 are void.
            prediction: integers of the same shape; 0..K-1 wherever the truth counts.

        Raises:
            DataError: not integers, different shapes, or a prediction of no class; nothing is counted then.
        """
        for true, predicted in checked_images(truth, prediction, self.classes):
            distance = distance_to(borders(filled(true, true < self.classes)))
            near = distance < self.widths[-1]
            distances, trues, predictions = distance[near], true[near], predicted[near]
            for width, matrix in zip(self.widths, self._matrices, strict=True):
                band = distances < width
                matrix.update(trues[band][None], predictions[band][None])

    def __add__(self, other: Trimap) -> Trimap:
        """Of both data sets together.

        Raises:
            OptionError: other classes or widths.
        """
        if (self.classes, self.widths) != (other.classes, other.widths):
            raise OptionError(
                f"cannot add trimaps of {self.classes} classes, widths {self.widths}, and {other.classes} classes, "
                f"widths {other.widths}; expected the same"
            )
        return self.with_counts(self.counts + other.counts)

    def scores(self, absent: Absent = "predicted") -> Mapping[int, Scores]:
        """By width, the scores of its band; nan where no pixel is so near to a boundary.

        Args:
            absent: as `ConfusionMatrix.scores`.

        Raises:
            OptionError: another word for `absent`.
        """
        return {width: matrix.scores(absent) for width, matrix in zip(self.widths, self._matrices, strict=True)}

    def to_json(self, absent: Absent = "predicted") -> dict[str, Any]:
        """By width, `Scores.to_json`."""
        return {str(width): scores.to_json() for width, scores in self.scores(absent).items()}


def check_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """The widths of a trimap.

    Raises:
        OptionError: none, below 1, or not in ascending order.
    """
    found = tuple(widths)
    if not found or found[0] < 1 or any(one >= wider for one, wider in pairwise(found)):
        raise OptionError(
            f"trimap widths {', '.join(map(str, found)) or 'none'}; expected pixels from 1, ascending, such as 1,2,4,8"
        )
    return found
