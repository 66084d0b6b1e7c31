"""Sample: one image (or several by name) with its masks; and what every data set offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fullconv.labels import LabelSet

if TYPE_CHECKING:
    from fullconv.metrics import Absent

IMAGE = "image"
"""The input's name where a net has only one."""

SEMANTIC = "semantic"
"""The task's name where a net has only one."""

Array = NDArray[np.uint8]

Values = NDArray[Any]
"""An input, (H, W, C): uint8 where it is a picture; uint16 or float32 too where it was measured."""


@dataclass(frozen=True)
class InputKind:
    """What an input of a data set holds, for the net that is to take it.

    Attributes:
        channels: C.
        bands: the numbers of the channels in their files, counted from 1 as GDAL counts; empty for pictures, which are
            read as RGB.
        preview: those of `bands` that are shown as red, green and blue, or as grey; empty: the first three, or one.
        log: the values are distances, of which a net takes the logarithm.
        light: the values are colours of light, which another lamp would make brighter or paler.
    """

    channels: int = 3
    bands: tuple[int, ...] = ()
    preview: tuple[int, ...] = ()
    log: bool = False
    light: bool = True

    @property
    def measured(self) -> bool:
        """Whether its range is its own: mean and deviation are then taken from the data."""
        return not self.photo or self.channels != 3

    @property
    def photo(self) -> bool:
        """Whether it may be made brighter or paler, and its margins grey."""
        return self.light and not self.bands and not self.log


@dataclass(frozen=True, eq=False)
class Sample:
    """One scene.

    Attributes:
        name: unique in its data set; a relative path without suffix, such as ``"seq1/0001"``.
        inputs: by input name, (H, W, C) uint8, uint16 or float32 (finite), all of one H and W; colour is RGB.
        masks: by task name, (H, W) uint8: class numbers, 255 = void.
    """

    name: str
    inputs: Mapping[str, Values]
    masks: Mapping[str, Array]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the scene."""
        height, width = next(iter(self.inputs.values())).shape[:2]
        return height, width


class Dataset(Protocol):
    """One split of a data set: what training and scoring need to know of it.

    Attributes:
        source: what the user named (a path, ``"wafer"``), for logs and run records.
        split: ``"train"``, ``"val"``, ``"test"``.
        labels: by task name.
        inputs: by input name, what it holds.
        names: the samples' names in order.
        absent: by task, which classes without a true pixel enter mean IU, as `ConfusionMatrix.scores` names the rules;
            "predicted" for tasks that are not there.
    """

    source: str
    split: str
    labels: Mapping[str, LabelSet]
    inputs: Mapping[str, InputKind]
    names: Sequence[str]
    absent: Mapping[str, Absent]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample; raises DataError, with the file's name, where a file cannot be used."""
        ...

    def fingerprint(self) -> str:
        """A digest that changes with the data and is equal for a copy of it, for run records."""
        ...
