"""PASCAL VOC segmentation, from a devkit: JPEGImages, SegmentationClass, ImageSets/Segmentation (reference 7.1).

Without ``val.txt`` a tenth of ``train.txt`` is held out.
"""

from __future__ import annotations

import re
from pathlib import Path

from fullconv.classes import VOC
from fullconv.data.folder import hold_out
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import listed, mismatch, require_split
from fullconv.data.sample import SEMANTIC
from fullconv.data.scenes import FileDataset, Scene, Task
from fullconv.data.text import read_text
from fullconv.errors import DataError, printable
from fullconv.labels import LabelSet

VOC_LABELS = LabelSet(VOC)

_ORDER = ("train", "val", "trainval", "test")
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
    names = _ids(file)
    pairs = [Scene.of(n, year / "JPEGImages" / f"{n}.jpg", year / "SegmentationClass" / f"{n}.png") for n in names]
    absent = [pair.name for pair in pairs if not pair.image.is_file()]
    if absent:
        raise DataError(
            f"{printable(source)}: {len(absent)} images of {file.name} are not in JPEGImages ({listed(absent)}); "
            "unpack the data set again"
        )
    unlabelled = [pair.name for pair in pairs if not pair.mask.is_file()]
    if unlabelled:
        raise mismatch(source, unlabelled, [], "SegmentationClass")
    chosen = hold_out(source, pairs, names, split) if held_out else pairs
    return FileDataset(source, split, chosen, {SEMANTIC: Task(VOC_LABELS, MaskReader(len(VOC_LABELS)))})


def _find(path: Path) -> Path | None:
    """The VOC20xx folder that `path` is or contains; of several years the newest."""
    if _lists(path).is_dir() and (path / "SegmentationClass").is_dir():
        return path
    for folder in (path, path / "VOCdevkit"):
        if folder.is_dir():
            years = sorted((f for f in folder.iterdir() if _YEAR.fullmatch(f.name)), reverse=True)
            found = next((year for year in years if _lists(year).is_dir()), None)
            if found is not None:
                return found
    return None


def _year(path: Path) -> Path:
    found = _find(path)
    if found is None:
        raise DataError(
            f"{printable(path)}: no VOC20xx with ImageSets/Segmentation; name the folder VOCdevkit or VOC20xx"
        )
    return found


def _lists(year: Path) -> Path:
    return year / "ImageSets" / "Segmentation"


def _ids(path: Path) -> list[str]:
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{printable(path)}: names no images; expected one id a line, such as 2007_000032")
    for name in names:
        if Path(name).name != name:  # an id is a file's name: "../x" would read outside the data set
            raise DataError(
                f"{printable(path)}: {printable(name)!r} is no image id; expected one a line, such as 2007_000032"
            )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{printable(path)}: lists {listed(twice)} more than once; remove the repetition")
    return names
