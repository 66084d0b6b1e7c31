"""What every tool's export comes down to: images with shapes or colour masks; and shapes -> mask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fullconv.data.annotations.painted import Painted
from fullconv.data.annotations.regions import Covered, Region
from fullconv.data.sample import Array
from fullconv.errors import DataError
from fullconv.labels import VOID, Colour


@dataclass(frozen=True)
class Shape:
    """A labelled region.

    Attributes:
        label: its class's name; "" where the tool has none.
        region: its pixels.
        where: the file and entry, for messages.
        z: shapes of a higher one lie over others; of equal ones, the later lies over the earlier.
        void: its pixels count for no class, whatever its label.
    """

    label: str
    region: Region
    where: str
    z: int = 0
    void: bool = False

    def cover(self, size: tuple[int, int]) -> tuple[int, int, Covered]:
        """`Region.cover`; the DataError names the shape."""
        try:
            return self.region.cover(size)
        except DataError as error:
            raise DataError(f"{self.where}: {error}; correct it or export it again") from error


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and what a tool says of it.

    Attributes:
        name: what the tool calls it, for messages.
        path: of the image; of the LabelMe file that embeds it; None if there is no such file.
        shapes: in the tool's order, the later over the earlier.
        split: ``"train"``, ``"val"``, ``"test"``, or None.
        size: (H, W) that the tool states, if it does.
        where: the file and entry, for messages.
        embedded: the name of the image where `path` is a LabelMe file that holds it.
        painted: a mask in colours instead of shapes.
    """

    name: str
    path: Path | None
    shapes: tuple[Shape, ...]
    where: str
    split: str | None = None
    size: tuple[int, int] | None = None
    embedded: str = ""
    painted: Painted | None = None

    @property
    def annotated(self) -> bool:
        return bool(self.shapes) or self.painted is not None


@dataclass(frozen=True)
class Export:
    """What a tool exported.

    Attributes:
        labels: the tool's classes in its order, with their colours where it has them.
        images: in the tool's order.
        by_area: the tool knows no order of shapes, so that small ones lie over large ones.
        notes: what was left out, one line each.
    """

    labels: Mapping[str, Colour | None]
    images: Sequence[AnnotatedImage]
    by_area: bool = False
    notes: Sequence[str] = field(default=())


def draw(
    shapes: Sequence[Shape], size: tuple[int, int], values: Mapping[str, int], background: int, by_area: bool
) -> tuple[Array, int]:
    """The mask of an image.

    Args:
        shapes: in the tool's order.
        size: (H, W).
        values: by label, the class or 255.
        background: the value of pixels that no shape covers.
        by_area: small shapes lie over large ones (pixels inside of the image), whatever their order.

    Returns:
        (H, W) uint8, and how many shapes cover no pixel.

    Raises:
        DataError: a shape that does not fit the image.
    """
    heights = [shape.z for shape in shapes]
    if by_area:
        # Covered twice rather than kept: hundreds of bitmaps of a large image would not fit in memory.
        heights = [-int(np.count_nonzero(shape.cover(size)[2])) for shape in shapes]
    mask = np.full(size, background, np.uint8)
    empty = 0
    for index in sorted(range(len(shapes)), key=heights.__getitem__):
        shape = shapes[index]
        top, left, inside = shape.cover(size)
        mask[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = (
            VOID if shape.void else values[shape.label]
        )
        empty += not inside.any()
    return mask, empty


def skipped(kinds: Mapping[str, int]) -> list[str]:
    """The note, if any, of what was left out by kind.

    >>> skipped({"polyline": 2, "points": 1})
    ['3 annotations without area are left out: 1 points, 2 polyline']
    """
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return [f"{sum(kinds.values())} annotations without area are left out: {counts}"] if kinds else []


def split_of_path(path: Path, root: Path) -> str | None:
    """The split that one of the folders between a file and the root speaks of.

    >>> split_of_path(Path("train/export/val/a.json"), Path("train/export"))
    'val'
    """
    return split_of_name(path.relative_to(root).as_posix()) if path.is_relative_to(root) else None


def split_of_name(name: str) -> str | None:
    """The split that one of the folders in an image's name speaks of, on whatever machine it was given.

    >>> split_of_name("train2017/a.jpg"), split_of_name("val\\\\a.jpg"), split_of_name("train.jpg")
    ('train', 'val', None)
    """
    return next((split for split in map(split_of, re.split(r"[/\\]", name)[:-1]) if split), None)


def split_of(text: str) -> str | None:
    """The split that a file's or folder's name speaks of.

    >>> split_of("instances_train2017"), split_of("Validation"), split_of("default")
    ('train', 'val', None)
    """
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _SPLITS:
            return _SPLITS[word]
    return None


_SPLITS = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
