"""Cityscapes: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png``, ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``.

Of the labels that the masks are numbered by, 19 are scored and the rest is void. Where there are no ``labelIds``, the
``labelTrainIds`` are read. The published test split has masks without truth. Source: Cordts et al. 2016, and the labels
of the data set's own scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullconv.classes import CITYSCAPES, CITYSCAPES_COLOURS
from fullconv.data.folder import SPLITS
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import images_by_name, require_split
from fullconv.data.sample import SEMANTIC
from fullconv.data.scenes import FileDataset, Scene, Task
from fullconv.data.voc import require_files
from fullconv.errors import DataError, printable
from fullconv.labels import VOID, LabelSet

CITYSCAPES_LABELS = LabelSet(CITYSCAPES, CITYSCAPES_COLOURS)

SCORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label of each class, among 34 that are numbered from 0 (unlabeled, ego vehicle, ...)."""

_LABELS = 34
_BY_LABEL = MaskReader(
    len(CITYSCAPES), {label: SCORED.index(label) if label in SCORED else VOID for label in range(_LABELS)}
)
# 19 is no label of the data set's scripts; converters write it for what those write 255 for.
_BY_CLASS = MaskReader(len(CITYSCAPES), {len(CITYSCAPES): VOID})
_MASKS = {"_gtFine_labelIds": _BY_LABEL, "_gtFine_labelTrainIds": _BY_CLASS}
_IMAGE = "_leftImg8bit"
_LOOKED_AT = 10
"""Masks without a label in them after which a split is taken to have none."""


def recognise(path: Path) -> bool:
    """Whether a folder holds leftImg8bit and gtFine."""
    return all((path / folder).is_dir() for folder in ("leftImg8bit", "gtFine"))


def splits(path: Path) -> tuple[str, ...]:
    """Those of train, val and test whose images and masks are both there; test only where its masks hold labels."""
    return tuple(split for split in _there(path) if split != "test" or not _is_void(path))


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """One split; the scenes' names begin with their city.

    Raises:
        DataError: no such split, no images, masks that are missing, a test split whose masks are all void.
    """
    require_split(source, split, _there(path))
    scenes, reader = _scenes(source, path, split)
    require_files(source, split, scenes)
    if split == "test" and _all_void(scenes, reader):
        raise DataError(
            f"{printable(source)}: the masks of test are void, since its truth is not published; score on val, and "
            "label test with fullconv predict"
        )
    return FileDataset(source, split, scenes, {SEMANTIC: Task(CITYSCAPES_LABELS, reader)})


def _there(path: Path) -> tuple[str, ...]:
    return tuple(s for s in SPLITS if all((path / folder / s).is_dir() for folder in ("leftImg8bit", "gtFine")))


def _scenes(source: str, path: Path, split: str) -> tuple[list[Scene], MaskReader]:
    """The files that a split should have, and how its masks are read."""
    folder = path / "leftImg8bit" / split
    images = images_by_name(source, folder, _IMAGE, lambda image: image.stem.endswith(_IMAGE))
    if not images:
        raise DataError(f"{printable(folder)}: holds no CITY/*{_IMAGE}.png; unpack leftImg8bit_trainvaltest.zip again")
    truth = path / "gtFine" / split
    first = next(iter(images.values())).name
    there = [ending for ending in _MASKS if (truth / f"{first}{ending}.png").is_file()]
    ending = there[0] if there else next(iter(_MASKS))
    scenes = [Scene.of(image.name, image.path, truth / f"{image.name}{ending}.png") for image in images.values()]
    return scenes, _MASKS[ending]


def _is_void(path: Path) -> bool:
    """Whether the masks of test are void, as published; False where they cannot be read, which `open_split` tells."""
    try:
        return _all_void(*_scenes(str(path), path, "test"))
    except DataError:
        return False


def _all_void(scenes: Sequence[Scene], reader: MaskReader) -> bool:
    return all((reader.read(scene.mask) == VOID).all() for scene in scenes[:_LOOKED_AT])
