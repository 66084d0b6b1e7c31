"""Label maps as metrics take them: checked, and as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID

Map = NDArray[np.uint8]


def check_classes(classes: int) -> None:
    """Raise OptionError unless a byte can hold so many classes and void."""
    if not 1 <= classes <= VOID:
        raise OptionError(f"{classes} classes; expected 1 to {VOID} (labels are 8 bits and {VOID} is void)")


def check_maps(truth: NDArray[Any], prediction: NDArray[Any]) -> None:
    """Raise DataError unless both are (H, W) or (N, H, W) integers of one shape."""
    for name, array in (("truth", truth), ("prediction", prediction)):
        if array.dtype.kind not in "iu" or array.ndim not in (2, 3):
            raise DataError(f"{name} is {described(array)}; expected (H, W) or (N, H, W) integer class numbers")
    if truth.shape != prediction.shape:
        raise DataError(
            f"truth is {truth.shape} and prediction {prediction.shape}; expected one shape: "
            "predict at the mask's own size"
        )


def no_class(truth: NDArray[Any], prediction: NDArray[Any], classes: int) -> DataError:
    """The error for predictions of no class where the truth counts, of which there must be one."""
    strange = prediction[(truth >= 0) & (truth < classes) & ~((prediction >= 0) & (prediction < classes))]
    return DataError(
        f"prediction holds {strange[0]} where the truth counts; expected 0 to {classes - 1}: "
        "take the argmax over exactly these classes' scores"
    )


def checked_images(truth: NDArray[Any], prediction: NDArray[Any], classes: int) -> Iterator[tuple[Map, Map]]:
    """The images of a batch, or the one image: (truth, prediction), (H, W) uint8 each.

    Raises:
        DataError: not integers, different shapes, or a prediction of no class where the truth counts; before the
            first image comes.
    """
    check_maps(truth, prediction)
    if not truth.size:
        return
    trues, predictions = (as_bytes(labels).reshape(-1, *labels.shape[-2:]) for labels in (truth, prediction))
    if ((trues < classes) & (predictions >= classes)).any():
        raise no_class(truth, prediction, classes)
    yield from zip(trues, predictions, strict=True)


def as_bytes(labels: NDArray[Any]) -> Map:
    """The same labels as uint8; what a byte cannot hold becomes 255, which is no class of any metric."""
    if labels.dtype == np.uint8:
        return labels
    return np.where((labels >= 0) & (labels < VOID), labels, VOID).astype(np.uint8)


def described(array: NDArray[Any]) -> str:
    """Type and shape for a message."""
    return f"{array.dtype} of shape {array.shape}"
