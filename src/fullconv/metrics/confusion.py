"""The paper's four numbers, from one confusion matrix over a whole data set.

``n[i, j]`` counts the pixels of true class i that were predicted as j; ``t[i]`` is the sum of row i.

| pixel accuracy | sum of n[i, i] / sum of t[i] |
| mean accuracy | mean of n[i, i] / t[i] |
| mean IU | mean of n[i, i] / (t[i] + sum over j of n[j, i] - n[i, i]) |
| frequency-weighted IU | sum of t[i] * IU[i] / sum of t[i] |

Source: Long et al. 2015, section 5, with absent classes as in the authors' scorer (reference 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import DataError, OptionError, unknown_name
from fullconv.metrics.maps import as_bytes, check_classes, check_maps, described, no_class

Counts = NDArray[np.int64]
Absent = Literal["predicted", "excluded"]

_BLOCK = 1 << 20
"""Pixels counted at once: bincount widens its input to 8 bytes a pixel, which a large raster should not pay."""


def check_absent(rule: str) -> None:
    """Raise OptionError unless it is a rule for absent classes."""
    if rule not in get_args(Absent):
        raise unknown_name("rule for absent classes", rule, get_args(Absent))


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says; fractions of 0..1, nan where there is nothing to divide by.

    Attributes:
        pixel_accuracy, mean_accuracy, mean_iu, fw_iu: the four numbers; nan where no pixel was counted.
        iu: one a class; nan where the class is absent from truth and prediction, 0 where it is only predicted.
        accuracy: one a class; nan where the class is absent from the truth.
        pixels: true pixels of each class.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    fw_iu: float
    iu: tuple[float, ...]
    accuracy: tuple[float, ...]
    pixels: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the attributes' names as keys; nan becomes None, which JSON can hold."""
        return {
            "pixel_accuracy": _number(self.pixel_accuracy),
            "mean_accuracy": _number(self.mean_accuracy),
            "mean_iu": _number(self.mean_iu),
            "fw_iu": _number(self.fw_iu),
            "iu": [_number(value) for value in self.iu],
            "accuracy": [_number(value) for value in self.accuracy],
            "pixels": list(self.pixels),
        }


class ConfusionMatrix:
    """Counts pixels by true class (rows) and predicted class (columns), exactly, in int64.

    Args:
        classes: K, 1 to 255.

    Raises:
        OptionError: K out of range.

    >>> matrix = ConfusionMatrix(2)
    >>> matrix.update(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]]))
    >>> matrix.counts.tolist()
    [[1, 1], [0, 1]]
    >>> matrix.scores().mean_iu
    0.5
    """

    def __init__(self, classes: int) -> None:
        check_classes(classes)
        self.classes = classes
        self._counts: Counts = np.zeros((classes, classes), dtype=np.int64)

    @classmethod
    def from_counts(cls, counts: NDArray[Any]) -> ConfusionMatrix:
        """The matrix that holds these counts, such as the sum over processes.

        Args:
            counts: (K, K) integers >= 0; copied.

        Raises:
            DataError: another shape, type or sign.
        """
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.dtype.kind not in "iu":
            raise DataError(f"counts are {described(counts)}; expected (K, K) integers, rows truth, columns prediction")
        if counts.size and counts.min() < 0:
            raise DataError(f"counts hold {counts.min()}; expected pixel counts of 0 or more")
        matrix = cls(counts.shape[0])
        matrix._counts = counts.astype(np.int64)
        return matrix

    @property
    def counts(self) -> Counts:
        """A read-only view, (K, K) int64: it follows later updates; copy it to keep a moment."""
        view = self._counts.view()
        view.flags.writeable = False
        return view

    def update(self, truth: NDArray[Any], prediction: NDArray[Any]) -> None:
        """Count the pixels of one image or of a batch.

        Args:
            truth: (H, W) or (N, H, W) integers; values outside 0..K-1, such as void, do not count.
            prediction: integers of the same shape; 0..K-1 wherever the truth counts.

        Raises:
            DataError: not integers, different shapes, or a prediction of no class; nothing is counted then.
        """
        check_maps(truth, prediction)
        # Every pair of bytes is counted and the valid corner taken: no mask and no copy of the valid pixels is
        # needed, and wrong predictions show in the columns beyond K.
        pairs: Counts = np.zeros(1 << 16, dtype=np.int64)
        rows, columns = as_bytes(truth).reshape(-1), as_bytes(prediction).reshape(-1)
        for start in range(0, rows.size, _BLOCK):
            index = rows[start : start + _BLOCK].astype(np.uint16)
            index <<= 8
            index |= columns[start : start + _BLOCK]
            pairs += np.bincount(index, minlength=pairs.size)
        valid = pairs.reshape(256, 256)[: self.classes]
        if valid[:, self.classes :].any():
            raise no_class(truth, prediction, self.classes)
        self._counts += valid[:, : self.classes]

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """The matrix of both data sets together.

        Raises:
            OptionError: different numbers of classes.
        """
        if self.classes != other.classes:
            raise OptionError(f"cannot add matrices of {self.classes} and {other.classes} classes; expected one number")
        return ConfusionMatrix.from_counts(self._counts + other._counts)

    def with_counts(self, counts: Counts) -> ConfusionMatrix:
        """A matrix of the same classes with other counts, as `from_counts`."""
        return ConfusionMatrix.from_counts(counts)

    def normalised(self) -> NDArray[np.float64]:
        """(K, K) float64: what the pixels of each true class were predicted as; rows sum to 1.

        The row of a class without true pixels is nan.
        """
        return _divided(self._counts, np.broadcast_to(self._counts.sum(axis=1, keepdims=True), self._counts.shape))

    def scores(self, absent: Absent = "predicted") -> Scores:
        """The four numbers and the classes' own.

        Args:
            absent: which classes without a true pixel enter mean IU. ``"predicted"``: those that were predicted
                somewhere, with IU 0 (the authors' scorer). ``"excluded"``: none (the paper's SIFT Flow numbers).
                Mean accuracy and frequency-weighted IU leave them out in both.

        Raises:
            OptionError: another word for `absent`.
        """
        return scores_of(np.diagonal(self._counts), self._counts.sum(axis=1), self._counts.sum(axis=0), absent)


def scores_of(right: Counts, true: Counts, predicted: Counts, absent: Absent = "predicted") -> Scores:
    """The four numbers from what they rest on; where predictions may be void they are in no column of a matrix.

    Args:
        right: (K,) pixels of each true class that were predicted as it: the diagonal.
        true: (K,) pixels of each true class: the rows' sums.
        predicted: (K,) pixels predicted as each class where the truth counts: the columns' sums.
        absent: as `ConfusionMatrix.scores`.

    Raises:
        OptionError: another word for `absent`.
    """
    check_absent(absent)
    union = true + predicted - right
    accuracy = _divided(right, true)
    iu = _divided(right, union)
    total = int(true.sum())
    occurs = true > 0
    return Scores(
        pixel_accuracy=int(right.sum()) / total if total else math.nan,
        mean_accuracy=_mean(accuracy[occurs]),
        mean_iu=_mean(iu[union > 0 if absent == "predicted" else occurs]),
        fw_iu=math.fsum(true[occurs] * iu[occurs]) / total if total else math.nan,
        iu=tuple(iu.tolist()),
        accuracy=tuple(accuracy.tolist()),
        pixels=tuple(true.tolist()),
    )


def _divided(above: Counts, below: Counts) -> NDArray[np.float64]:
    """above / below, nan where below is 0."""
    out = np.full(above.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _mean(values: NDArray[np.float64]) -> float:
    return math.fsum(values) / values.size if values.size else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
