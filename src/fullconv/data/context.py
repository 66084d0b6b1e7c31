"""Pascal-Context: labels of whole scenes for VOC2010, ``trainval/ID.mat`` with 459 names (reference 7.3).

Images and split lists are those of a VOC2010 in or beside the folder; only ids that have a label map are taken. The 459
names become the 59 of the usual task and a background, which is every other name; there is no void.
"""

from __future__ import annotations

from pathlib import Path

from fullconv.classes import PASCAL_CONTEXT
from fullconv.data import voc
from fullconv.data.matfile import MatReader
from fullconv.data.pairs import require_split
from fullconv.data.sample import SEMANTIC
from fullconv.data.scenes import FileDataset, Scene, Task
from fullconv.data.text import read_text
from fullconv.data.voc import read_ids, require_files
from fullconv.errors import DataError, printable
from fullconv.labels import LabelSet

CONTEXT_LABELS = LabelSet(PASCAL_CONTEXT)

NUMBERS = (
    2, 23, 25, 31, 34, 45, 59, 65, 72, 98, 397, 113, 207, 258, 284, 308, 347, 368, 416, 427, 9, 18, 22, 33, 44, 46, 68,
    80, 85, 104, 115, 144, 158, 159, 162, 187, 189, 220, 232, 259, 260, 105, 296, 355, 295, 324, 326, 349, 354, 360,
    366, 19, 415, 420, 424, 440, 445, 454, 458,
)  # fmt: skip
"""Of classes 1..59 among the 459 names."""

OTHER_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
"""Classes that have another name among the 459."""

_COUNT = 459
_CLASS_OF = {number: label for label, number in enumerate(NUMBERS, 1)}
_READER = MatReader("LabelMap", tuple(_CLASS_OF.get(number, 0) for number in range(_COUNT + 1)))


def recognise(path: Path) -> bool:
    """Whether a folder holds ``trainval`` with MATLAB files."""
    return next((path / "trainval").glob("*.mat"), None) is not None


def splits(path: Path) -> tuple[str, ...]:
    """Those of train, val and trainval that VOC2010 lists."""
    lists = _lists(_voc2010(path))
    return tuple(split for split in ("train", "val", "trainval") if (lists / f"{split}.txt").is_file())


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """The label maps of a split; ``labels.txt`` and ``59_labels.txt``, where they are, must say what is known of them.

    Raises:
        DataError: no such split, no VOC2010, images that are missing, lists of names other than the published ones.
    """
    voc2010 = _voc2010(path)
    require_split(source, split, splits(path))
    names = (OTHER_NAMES.get(name, name) for name in PASCAL_CONTEXT[1:])
    _check(path / "labels.txt", dict(zip(NUMBERS, names, strict=True)))
    _check(path / "59_labels.txt", dict(enumerate(PASCAL_CONTEXT[1:], 1)))
    maps = {file.stem: file for file in (path / "trainval").glob("*.mat")}
    file = _lists(voc2010) / f"{split}.txt"
    scenes = [Scene.of(n, voc2010 / "JPEGImages" / f"{n}.jpg", maps[n]) for n in read_ids(file) if n in maps]
    if not scenes:
        raise DataError(f"{printable(source)}: trainval holds no label map of {file.name}; unpack the data set again")
    require_files(source, file.name, scenes)
    return FileDataset(source, split, scenes, {SEMANTIC: Task(CONTEXT_LABELS, _READER)})


def _voc2010(path: Path) -> Path:
    """In the folder, beside it, or in ``pascal`` beside it, as the paper's code has it."""
    parent = path.absolute().parent
    for folder in (path, parent, parent / "pascal"):
        found = voc.years(folder, "Main").get("VOC2010")
        if found is not None:
            return found
    raise DataError(
        f"{printable(path)}: no VOC2010 with ImageSets/Main in or beside it, which has the images; unpack "
        "VOCtrainval_03-May-2010.tar there"
    )


def _lists(voc2010: Path) -> Path:
    return voc2010 / "ImageSets" / "Main"


def _check(path: Path, expected: dict[int, str]) -> None:
    """A list of lines such as ``2: aeroplane``, where there is one, must have these names at these numbers."""
    if not path.is_file():
        return
    rows = (line.partition(":") for line in read_text(path).splitlines())
    names = {number.strip(): name.replace(" ", "") for number, _, name in rows}
    for number, name in expected.items():
        found = names.get(str(number), "")
        if found != name:
            raise DataError(
                f"{printable(path)}: has {printable(found)[:80]!r} as number {number}, expected {name!r} (lines such "
                f"as '{number}: {name}'); take the list that was published with the label maps, or remove it"
            )
