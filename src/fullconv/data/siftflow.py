"""SIFT Flow: outdoor scenes with 33 semantic and 3 geometric classes at once (reference 7.5).

``Images``, ``SemanticLabels`` and ``GeoLabels``, each with the folder ``spatial_envelope_...``; lists ``trainval.txt``
and ``test.txt`` of names without suffix, 2,486 and 200 in the paper's code. `train` and `val` are parts of trainval, a
tenth held out. Three semantic classes have no true pixel in test; mean IU is taken over the others.
"""

from __future__ import annotations

from pathlib import Path

from fullconv.classes import SIFTFLOW, SIFTFLOW_GEOMETRY
from fullconv.data.folder import hold_out
from fullconv.data.matfile import MatReader
from fullconv.data.pairs import require_split
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.data.scenes import FileDataset, Scene, Task
from fullconv.data.voc import read_ids, require_files
from fullconv.errors import DataError, printable
from fullconv.labels import LabelSet

GEOMETRIC = "geometric"

TASKS = {
    SEMANTIC: Task(LabelSet(SIFTFLOW), MatReader.from_one("S", len(SIFTFLOW)), absent="excluded"),
    GEOMETRIC: Task(LabelSet(SIFTFLOW_GEOMETRY), MatReader.from_one("S", len(SIFTFLOW_GEOMETRY), lowest=-1)),
}

UNANNOTATED = frozenset(("highway_bost181", "street_urb506"))
"""Images whose label maps are empty; lists of the whole data set name them."""

_FOLDERS = {SEMANTIC: "SemanticLabels", GEOMETRIC: "GeoLabels"}
_SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
_SPLITS = {"train": "trainval", "val": "trainval", "trainval": "trainval", "test": "test"}
"""The list of each split."""


def recognise(path: Path) -> bool:
    """Whether a folder holds Images, SemanticLabels and GeoLabels with the scenes' folder."""
    return all((path / folder / _SCENES).is_dir() for folder in ("Images", *_FOLDERS.values()))


def splits(path: Path) -> tuple[str, ...]:
    """Those that have a list."""
    found = tuple(split for split, name in _SPLITS.items() if (path / f"{name}.txt").is_file())
    if not found:
        raise DataError(
            f"{printable(path)}: has no trainval.txt or test.txt (a name a line, such as coast_natu975); they are in "
            "the folder data/sift-flow of the paper's code"
        )
    return found


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """One split, with the tasks semantic and geometric.

    Raises:
        DataError: no such split, a list that cannot be read, files that are missing.
    """
    require_split(source, split, splits(path))
    file = path / f"{_SPLITS[split]}.txt"
    names = [name for name in read_ids(file) if name not in UNANNOTATED]
    scenes = [
        Scene(
            name,
            {IMAGE: path / "Images" / _SCENES / f"{name}.jpg"},
            {task: path / folder / _SCENES / f"{name}.mat" for task, folder in _FOLDERS.items()},
        )
        for name in names
    ]
    require_files(source, file.name, scenes)
    chosen = hold_out(source, scenes, names, split) if split in ("train", "val") else scenes
    return FileDataset(source, split, chosen, TASKS)
