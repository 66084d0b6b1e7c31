"""NYUDv2 as prepared for the paper: colour, depth and HHA, and 40 classes (reference 7.4).

``data/{images,depth,hha}/img_ID.png``, ``segmentation/img_ID.mat``, and lists ``{train,val,trainval,test}.txt`` of ids,
with or without ``img_``. Train and val are those of the authors of the data, 381 and 414 scenes; `trainval`, on which
the paper's nets were trained, is both, where it has no list of its own; test has 654.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fullconv.classes import NYUD
from fullconv.data.image import load_picture, opened
from fullconv.data.matfile import MatReader
from fullconv.data.pairs import require_split
from fullconv.data.sample import SEMANTIC, InputKind, Values
from fullconv.data.scenes import FileDataset, Input, Scene, Task
from fullconv.data.voc import read_ids, require_files
from fullconv.errors import DataError, printable
from fullconv.labels import LabelSet

NYUD_LABELS = LabelSet(NYUD)

_READER = MatReader.from_one("segmentation", len(NYUD_LABELS))
_SPLITS = ("train", "val", "trainval", "test")
_BOTH = ("train", "val")


@dataclass(frozen=True)
class DepthReader:
    """Reads distances from pictures of 16 bits."""

    def read(self, path: Path) -> Values:
        """(H, W, 1) uint16, millimetres in NYUDv2.

        Raises:
            DataError: a file that cannot be read or holds other numbers; one line.
        """
        with opened(path) as (stream, head):
            picture = load_picture(path, stream, head)
            if not picture.mode.startswith("I;16"):
                raise DataError(
                    f"{printable(path)}: holds {picture.mode} values, expected depth as grey of 16 bits; take the "
                    "file from the data set itself"
                )
            return np.asarray(picture).astype(np.uint16)[:, :, None]


INPUTS = {
    "color": ("images", Input()),
    "depth": ("depth", Input(DepthReader(), InputKind(1, log=True))),
    "hha": ("hha", Input(kind=InputKind(light=False))),
}
"""By the names that the published nets give them: the folder in ``data``, and how its files are read."""


def recognise(path: Path) -> bool:
    """Whether a folder holds ``segmentation`` and ``data/images``."""
    return all((path / name).is_dir() for name in ("segmentation", "data/images"))


def splits(path: Path) -> tuple[str, ...]:
    """Those that have a list, and trainval where train and val have."""
    have = {split for split in _SPLITS if (path / f"{split}.txt").is_file()}
    if have.issuperset(_BOTH):
        have.add("trainval")
    if not have:
        raise DataError(
            f"{printable(path)}: has no train.txt, val.txt or test.txt (an id a line, such as 5449); they are in the "
            "folder data/nyud of the paper's code"
        )
    return tuple(split for split in _SPLITS if split in have)


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """One split, with those of the inputs color, depth and hha whose folders are there.

    Raises:
        DataError: no such split, a list that cannot be read, files that are missing.
    """
    require_split(source, split, splits(path))
    inputs = {name: each for name, each in INPUTS.items() if (path / "data" / each[0]).is_dir()}
    own = (path / f"{split}.txt").is_file()
    ids = [each for part in ((split,) if own else _BOTH) for each in read_ids(path / f"{part}.txt")]
    names = [f"img_{each.removeprefix('img_')}" for each in ids]
    scenes = [
        Scene(
            name,
            {key: path / "data" / folder / f"{name}.png" for key, (folder, _) in inputs.items()},
            {SEMANTIC: path / "segmentation" / f"{name}.mat"},
        )
        for name in names
    ]
    require_files(source, split, scenes)
    tasks = {SEMANTIC: Task(NYUD_LABELS, _READER)}
    return FileDataset(source, split, scenes, tasks, {key: each for key, (_, each) in inputs.items()})
