"""Boundary F: how well predicted class boundaries lie on the true ones.

Source: Csurka, Larlus and Perronnin 2013, "What is a good evaluation measure for semantic segmentation?".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import DataError, OptionError
from fullconv.metrics.confusion import Counts
from fullconv.metrics.maps import Map, check_classes, checked_images, described

Mask = NDArray[np.bool_]

_UNIT = 1 << 32
"""Sums of F are whole multiples of 1 / _UNIT: an int64 holds 2 ** 31 images, and sums in any order are equal."""


@dataclass(frozen=True)
class Tolerance:
    """A distance in pixels, or as a share of the image's diagonal.

    >>> Tolerance.of("0.75%").pixels((300, 400)), Tolerance.of(2).pixels((300, 400))
    (3.75, 2.0)
    """

    value: float
    relative: bool

    @classmethod
    def of(cls, value: float | str) -> Tolerance:
        """From pixels (2, "2") or percent of the diagonal ("0.75%").

        Raises:
            OptionError: no number above 0, or a share of more than 100 %.
        """
        text = str(value).strip()
        relative = text.endswith("%")
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = math.nan
        if not 0 < number <= (100 if relative else 1e6):
            raise OptionError(
                f"boundary tolerance {text[:80]!r}; expected pixels above 0, such as 2, or a share of the image's "
                "diagonal, such as 0.75%"
            )
        return cls(number / 100 if relative else number, relative)

    def pixels(self, size: tuple[int, int]) -> float:
        """In an image of (H, W)."""
        return self.value * math.hypot(*size) if self.relative else self.value

    def __str__(self) -> str:
        return f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"


@dataclass(frozen=True)
class BoundaryScores:
    """Fractions of 0..1.

    Attributes:
        mean: over the classes that have a number; nan where none has.
        f: one a class; nan where it has a boundary in no image.
        images: in which the class has a boundary, in truth or prediction.
    """

    mean: float
    f: tuple[float, ...]
    images: tuple[int, ...]


class BoundaryF:
    """The F1 of boundary precision and recall, per class, over a data set.

    In one image, a boundary pixel of class c is a pixel of c with another class above, below, left or right of it;
    the image's own edge is no boundary. Precision is the share of predicted boundary pixels of c that lie within the
    tolerance (Euclidean, between centres) of a true one; recall the share of true ones that lie so near to a predicted
    one; F = 2PR / (P + R), and 0 if only one of the two maps has a boundary of c. A class's number is the mean over
    the images in which it has a boundary in truth or prediction; the mean of the classes' numbers is the data set's.

    Void (the source has no rule for it): truth is continued into void from the nearest labelled pixel. Where that
    draws a class boundary no further from a labelled pixel than the tolerance (along the void outlines that VOC has),
    the boundary and the void within the tolerance of it are taken as labelled. All other void counts nowhere, and
    neither in truth nor in prediction is a border with it a class boundary. VOC's outlines are 5 pixels wide, so that
    a tolerance below 3 pixels finds few boundaries there.

    Args:
        classes: K, 1 to 255.
        tolerance: pixels, or a share of the image's diagonal such as "0.75%" (the source's).

    Raises:
        OptionError: K or the tolerance out of range.

    >>> boundary = BoundaryF(2, tolerance=1)
    >>> boundary.update(np.array([[0, 0, 0, 1, 1, 1]]), np.array([[0, 0, 1, 1, 1, 1]]))
    >>> boundary.scores().f
    (1.0, 1.0)
    """

    def __init__(self, classes: int, tolerance: float | str = "0.75%") -> None:
        check_classes(classes)
        self.classes = classes
        self.tolerance = Tolerance.of(tolerance)
        self._sums: Counts = np.zeros((2, classes), np.int64)

    @property
    def counts(self) -> Counts:
        """(2, K) int64: the sum of F over images in units of 2 ** -32, and the number of images; a copy."""
        return self._sums.copy()

    def with_counts(self, counts: Counts) -> BoundaryF:
        """The same measure with other counts, such as the sum over processes.

        Raises:
            DataError: another shape, type or sign.
        """
        if counts.shape != self._sums.shape or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise DataError(
                f"boundary counts are {described(counts)}; expected {self._sums.shape} integers of 0 or more, as "
                "another BoundaryF of these classes has them"
            )
        other = BoundaryF(self.classes, str(self.tolerance))
        other._sums = counts.astype(np.int64)
        return other

    def update(self, truth: NDArray[Any], prediction: NDArray[Any]) -> None:
        """Add one image or each image of a batch.

        Args:
            truth: (H, W) or (N, H, W) integers; values outside 0..K-1 are void.
            prediction: integers of the same shape; 0..K-1 wherever the truth counts.

        Raises:
            DataError: not integers, different shapes, or a prediction of no class; nothing is counted then.
        """
        for true, predicted in checked_images(truth, prediction, self.classes):
            height, width = true.shape
            reach = self.tolerance.pixels((height, width))
            settled, known = _settled(true, true < self.classes, reach)
            known &= predicted < self.classes
            true_border, predicted_border = borders(settled, known), borders(predicted, known)
            for label in np.union1d(settled[true_border], predicted[predicted_border]):
                own, found = true_border & (settled == label), predicted_border & (predicted == label)
                self._sums[:, label] += round(_f(own, found, reach) * _UNIT), 1

    def __add__(self, other: BoundaryF) -> BoundaryF:
        """Of both data sets together.

        Raises:
            OptionError: other classes or tolerance.
        """
        if (self.classes, self.tolerance) != (other.classes, other.tolerance):
            raise OptionError(
                f"cannot add boundary scores of {self.classes} classes, tolerance {self.tolerance}, and "
                f"{other.classes} classes, tolerance {other.tolerance}; expected the same"
            )
        return self.with_counts(self._sums + other._sums)

    def scores(self) -> BoundaryScores:
        """Per class and their mean."""
        total, images = self._sums.tolist()
        f = [each / count / _UNIT if count else math.nan for each, count in zip(total, images, strict=True)]
        found = [value for value in f if not math.isnan(value)]
        return BoundaryScores(math.fsum(found) / len(found) if found else math.nan, tuple(f), tuple(images))

    def to_json(self) -> dict[str, Any]:
        """Tolerance and scores; nan becomes None."""
        scores = self.scores()
        return {
            "tolerance": str(self.tolerance),
            "mean_f": None if math.isnan(scores.mean) else scores.mean,
            "f": [None if math.isnan(value) else value for value in scores.f],
            "images": list(scores.images),
        }


def borders(labels: Map, known: Mask | None = None) -> Mask:
    """(H, W) bool: pixels with another label above, below, left or right; both pixels of a pair must be known."""
    found = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        differ = labels[before] != labels[after]
        if known is not None:
            differ &= known[before] & known[after]
        found[before] |= differ
        found[after] |= differ
    return found


def distance_to(pixels: Mask) -> NDArray[np.float64]:
    """(H, W): the Euclidean distance of every pixel's centre to the nearest of some; infinite if there are none."""
    from scipy.ndimage import distance_transform_edt

    if not pixels.any():
        return np.full(pixels.shape, np.inf)
    return np.asarray(distance_transform_edt(~pixels), np.float64)


def filled(labels: Map, known: Mask) -> Map:
    """(H, W) uint8: pixels that are not known take the label of the nearest known one; all of them, if none is."""
    from scipy.ndimage import distance_transform_edt

    if known.all() or not known.any():
        return labels
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    result: Map = labels[tuple(nearest)]
    return result


def _settled(truth: Map, known: Mask, reach: float) -> tuple[Map, Mask]:
    """Truth continued into void, and where it counts: labelled pixels, and void about a boundary in shallow void."""
    if known.all() or not known.any():
        return truth, known
    full = filled(truth, known)
    shallow = borders(full) & (distance_to(known) <= reach)
    return full, known | (distance_to(shallow) <= reach)


def _f(true: Mask, predicted: Mask, reach: float) -> float:
    """F1 of two sets of boundary pixels, of which one may be empty."""
    if not (true.any() and predicted.any()):
        return 0.0
    # Distances are needed nowhere but on the two sets, which are often small: their box alone is transformed.
    either = true | predicted
    box = tuple(
        slice(int(found[0]), int(found[-1]) + 1) for found in (np.flatnonzero(either.any(axis)) for axis in (1, 0))
    )
    true, predicted = true[box], predicted[box]
    recall = (distance_to(predicted)[true] <= reach).mean()
    precision = (distance_to(true)[predicted] <= reach).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
