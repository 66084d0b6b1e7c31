"""CamVid as published with SegNet: ``train``, ``trainannot``, ``val``, ``valannot``, ``test``, ``testannot``.

Masks are grey (0..10, 11 = void) or RGB in the colours below, black = void. Source: reference 7.6.
"""

from __future__ import annotations

from pathlib import Path

from fullconv.data.mask import MaskReader
from fullconv.data.pairs import ImageMaskPairs, pair_by_stem, require_split
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
    return bool(splits(path))


def splits(path: Path) -> tuple[str, ...]:
    """The splits whose images and masks are both there."""
    return tuple(s for s in ("train", "val", "test") if (path / s).is_dir() and (path / f"{s}annot").is_dir())


def open_split(source: str, path: Path, split: str) -> ImageMaskPairs:
    """One split.

    Raises:
        DataError: no such split, images and masks that do not pair.
    """
    require_split(source, split, splits(path))
    pairs = pair_by_stem(source, path / split, path / f"{split}annot")
    return ImageMaskPairs(source, split, pairs, CAMVID_LABELS, CAMVID_READER)
