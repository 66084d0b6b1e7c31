"""PASCAL VOC segmentation, from a devkit: JPEGImages, SegmentationClass, ImageSets/Segmentation (reference 7.1).

Every list is a split, ``seg11valid.txt`` too. Without ``val.txt`` a tenth of ``train.txt`` is held out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fullconv.classes import VOC
from fullconv.data.folder import hold_out
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import listed, require_split
from fullconv.data.sample import SEMANTIC
from fullconv.data.scenes import FileDataset, Scene, Task
from fullconv.data.text import brief, read_text
from fullconv.errors import DataError, printable
from fullconv.labels import VOID, LabelSet, voc_colour

VOC_LABELS = LabelSet(VOC)

VOC_READER = MaskReader(
    len(VOC_LABELS), colors={**{colour: i for i, colour in enumerate(VOC_LABELS.colours)}, voc_colour(VOID): VOID}
)
"""Palette masks as released, and RGB ones in the same colours, which annotation tools write."""

_ORDER = ("train", "val", "trainval", "test")
_LONGEST = 255 - len(".jpg")
"""Bytes of an id: file systems end names at 255."""

_YEAR = re.compile(r"VOC\d{4}")


def recognise(path: Path) -> bool:
    """Whether a folder is a VOC20xx, a VOCdevkit, or holds a VOCdevkit."""
    return _find(path) is not None


def splits(path: Path) -> tuple[str, ...]:
    """The lists in ImageSets/Segmentation: train, val, trainval, test first, then others such as seg11valid."""
    found = {file.stem for file in _lists(_year(path)).glob("*.txt") if not file.name.startswith(".")}
    if "train" in found:
        found.add("val")  # held out where there is no list
    return tuple(s for s in _ORDER if s in found) + tuple(sorted(found - set(_ORDER)))


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """The images that the split's list names.

    Raises:
        DataError: no such list, a list that cannot be read or names no images, images or masks that are missing.
    """
    year = _year(path)
    require_split(source, split, splits(path))
    held_out = split in ("train", "val") and not (_lists(year) / "val.txt").is_file()
    file = _lists(year) / f"{'train' if held_out else split}.txt"
    names = read_ids(file)
    scenes = require_files(source, file.name, scenes_of(year, names))
    chosen = hold_out(source, scenes, names, split) if held_out else scenes
    return FileDataset(source, split, chosen, {SEMANTIC: Task(VOC_LABELS, VOC_READER)})


def years(folder: Path, lists: str = "Segmentation") -> dict[str, Path]:
    """The VOC20xx folders in a folder and in its VOCdevkit, by name, that have lists of a kind, the newest first.

    The archive of 2011 puts its devkit into a folder ``TrainVal``.
    """
    found = {
        year.name: year
        for inside in ("TrainVal/VOCdevkit", "VOCdevkit", "")
        if (folder / inside).is_dir()
        for year in (folder / inside).iterdir()
        if _YEAR.fullmatch(year.name) and (year / "ImageSets" / lists).is_dir()
    }
    return dict(sorted(found.items(), reverse=True))


def scenes_of(year: Path, names: Iterable[str]) -> list[Scene]:
    """Images of a VOC20xx folder with their masks."""
    return [Scene.of(n, year / "JPEGImages" / f"{n}.jpg", year / "SegmentationClass" / f"{n}.png") for n in names]


def read_ids(path: Path) -> list[str]:
    """A list of image ids, one a line.

    Raises:
        DataError: no such file, no text, no id, one that can be no file's name, or one listed twice.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{printable(path)}: names no images; expected one id a line, such as 2007_000032")
    for name in names:
        # "../x" would read outside the data set.
        if Path(name).name != name or name == ".." or len(name.encode()) > _LONGEST:
            raise DataError(
                f"{printable(path)}: {brief(name)} is no image id; expected one a line, such as 2007_000032"
            )
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{printable(path)}: lists {listed(twice)} more than once; remove the repetition")
    return names


def require_files(source: str, where: str, scenes: Sequence[Scene]) -> Sequence[Scene]:
    """The scenes, whose files are all there.

    Args:
        where: the list or folder that names them.

    Raises:
        DataError: some are missing; the first ten are named.
    """
    missing = [
        f"{path.parent.name}/{path.name}"
        for scene in scenes
        for path in (*scene.images.values(), *scene.masks.values())
        if not path.is_file()
    ]
    if missing:
        raise DataError(
            f"{printable(source)}: {len(missing)} files of {where} are missing ({listed(missing)}); unpack the data "
            "set again"
        )
    return scenes


def _find(path: Path) -> Path | None:
    """The VOC20xx folder that `path` is or contains; of several years the newest."""
    if _lists(path).is_dir() and (path / "SegmentationClass").is_dir():
        return path
    return next(iter(years(path).values()), None)


def _year(path: Path) -> Path:
    found = _find(path)
    if found is None:
        raise DataError(
            f"{printable(path)}: no VOC20xx with ImageSets/Segmentation; name the folder VOCdevkit or VOC20xx"
        )
    return found


def _lists(year: Path) -> Path:
    return year / "ImageSets" / "Segmentation"
