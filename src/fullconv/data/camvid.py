"""CamVid as published with SegNet: ``train``, ``trainannot``, ``val``, ``valannot``, ``test``, ``testannot``.

Masks are grey (0..10, 11 = void) or RGB in the colours below, black = void. Without ``val`` a tenth of ``train`` is
held out. Source: reference 7.6.
"""

from __future__ import annotations

from pathlib import Path

from fullconv.data.folder import SPLITS, Folders, pairs_of, splits_of
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import require_split
from fullconv.data.sample import SEMANTIC
from fullconv.data.scenes import FileDataset, Task
from fullconv.labels import VOID, LabelSet

CAMVID_LABELS = LabelSet(
    (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)

CAMVID_READER = MaskReader(
    classes=len(CAMVID_LABELS),
    label_mapping={len(CAMVID_LABELS): VOID},
    colors={**{colour: i for i, colour in enumerate(CAMVID_LABELS.colours)}, (0, 0, 0): VOID},
)


def recognise(path: Path) -> bool:
    """Whether a folder holds a split of images with its ``annot`` folder."""
    return bool(folders_of(path))


def splits(path: Path) -> tuple[str, ...]:
    """The splits whose images and masks are both there, and the held-out one."""
    return splits_of(folders_of(path))


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """One split.

    Raises:
        DataError: no such split, images and masks that do not pair.
    """
    folders = folders_of(path)
    require_split(source, split, splits_of(folders))
    return FileDataset(source, split, pairs_of(source, folders, split), {SEMANTIC: Task(CAMVID_LABELS, CAMVID_READER)})


def folders_of(path: Path) -> Folders:
    """The folders of its splits."""
    folders = {split: (path / split, path / f"{split}annot") for split in SPLITS}
    return {split: [pair] for split, pair in folders.items() if all(folder.is_dir() for folder in pair)}
