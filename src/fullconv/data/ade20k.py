"""ADE20K for scene parsing: ``{images,annotations}/{training,validation}``, 150 classes.

Masks hold 1..150; 0 is everything else, and void. A folder is known by the name ADEChallengeData2016 or by
``objectInfo150.txt`` or ``sceneCategories.txt`` in it. The full release, whose masks name some 3,000 objects, is
recognised and refused. Source: Zhou et al. 2017, and the files of the SceneParsing benchmark.
"""

from __future__ import annotations

from pathlib import Path

from fullconv.classes import ADE20K, ADE20K_COLOURS
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import pair_by_stem, require_split
from fullconv.data.sample import SEMANTIC
from fullconv.data.scenes import FileDataset, Task
from fullconv.data.text import read_text
from fullconv.errors import DataError, OptionError, printable
from fullconv.labels import VOID, LabelSet

NAME = "ADEChallengeData2016"

_MARKS = ("objectInfo150.txt", "sceneCategories.txt")
_FOLDERS = {"train": "training", "val": "validation"}
_READER = MaskReader(len(ADE20K), {0: VOID, **{value: value - 1 for value in range(1, len(ADE20K) + 1)}})


def recognise(path: Path) -> bool:
    """Whether a folder is ADEChallengeData2016 or holds it, or is the full release."""
    return _find(path) is not None or _is_full(path)


def splits(path: Path) -> tuple[str, ...]:
    """Train and val, as far as images and annotations are both there."""
    root = _root(path)
    return tuple(s for s, f in _FOLDERS.items() if all((root / k / f).is_dir() for k in ("images", "annotations")))


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """One split; the classes' names are those of ``objectInfo150.txt`` where it is there.

    Raises:
        DataError: no such split, images and masks that do not pair, a list that cannot be read; the full release.
    """
    root = _root(path)
    require_split(source, split, splits(path))
    scenes = pair_by_stem(source, root / "images" / _FOLDERS[split], root / "annotations" / _FOLDERS[split])
    file = root / _MARKS[0]
    labels = _named(file) if file.is_file() else LabelSet(ADE20K, ADE20K_COLOURS)
    return FileDataset(source, split, scenes, {SEMANTIC: Task(labels, _READER)})


def _find(path: Path) -> Path | None:
    for folder in (path, path / NAME):
        marked = folder.name == NAME or any((folder / mark).is_file() for mark in _MARKS)
        if marked and all((folder / name).is_dir() for name in ("images", "annotations")):
            return folder
    return None


def _is_full(path: Path) -> bool:
    """Each image of the full release has a ``NAME_seg.png`` and a ``NAME_atr.txt`` beside it."""
    return any(
        file.with_name(f"{file.name.removesuffix('_atr.txt')}_seg.png").is_file()
        for root in (path, path / "images")
        for folder in _FOLDERS.values()
        for file in (root / folder).glob("**/*_atr.txt")
    )


def _root(path: Path) -> Path:
    found = _find(path)
    if found is None:
        raise DataError(
            f"{printable(path)}: is the full ADE20K, whose masks name some 3,000 objects and ours at most {VOID}; get "
            f"{NAME}.zip, the same images with 150 classes"
        )
    return found


def _named(path: Path) -> LabelSet:
    """The first name in the last column of every line but the first."""
    names = [line.split("\t")[-1].split(",")[0].split(";")[0].strip() for line in read_text(path).splitlines()[1:]]
    names = [name for name in names if name]
    try:
        return LabelSet(tuple(names), ADE20K_COLOURS)
    except OptionError as error:
        raise DataError(f"{printable(path)}: {error}; copy the published file again, or remove it") from error
