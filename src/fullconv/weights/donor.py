"""Donor: the weights of a file, of whatever kind, by the names that they have in our nets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from fullconv.labels import LabelSet
from fullconv.nets import InputOptions

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Given:
    """One weight of a donor.

    Attributes:
        tensor: in the shape that our nets hold it in.
        name: in the file.
        shape: in the file.
    """

    tensor: Tensor
    name: str
    shape: Shape


@dataclass(frozen=True)
class Checked:
    """A layer of a file that says what we compute: found to say the same, and not taken over.

    Attributes:
        name, shape: in the file.
        module: of the net.
        how: what it was found to be.
    """

    name: str
    shape: Shape
    module: str
    how: str


@dataclass(frozen=True, eq=False)
class Donor:
    """What a file gives.

    Attributes:
        path: of the file.
        kind: "fullconv model", "Caffe model" or "torchvision classifier".
        trunk: a name of `TRUNKS`.
        weights: by state key of an `FCN`, "trunks.image.conv1_1.weight"; class counts may differ from the target's.
        inputs: normalisations that the weights expect, by input name; empty where the file does not say.
        labels: class names by task, where the file says.
        scales: factors on the skips, by stride (see `NetOptions.scales`).
        checked: upsampling that is bilinear, and factors on skips.
        unused: what else the file holds, a line each.
    """

    path: Path
    kind: str
    trunk: str
    weights: Mapping[str, Given]
    inputs: Mapping[str, InputOptions] = field(default_factory=dict)
    labels: Mapping[str, LabelSet] = field(default_factory=dict)
    scales: Mapping[int, float] = field(default_factory=dict)
    checked: tuple[Checked, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def trunks(self) -> list[str]:
        """Names of its trunks."""
        return list(dict.fromkeys(key.split(".")[1] for key in self.weights if key.startswith("trunks.")))
