"""Data sets: recognise what a path holds and open a split of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fullconv.data import (
    ade20k,
    camvid,
    cityscapes,
    context,
    folder,
    nyud,
    sbd,
    siftflow,
    voc,
    wafermaps,
    yamlfile,
)
from fullconv.data.pairs import listed, require_split
from fullconv.data.sample import Dataset
from fullconv.data.wafer import LENGTHS, Wafer
from fullconv.errors import DataError, printable

WAFER = "wafer"
"""The data set that is generated on the spot."""


class Layout(NamedTuple):
    """An arrangement of files: whether a path has it, which splits it then has, and one of them opened."""

    recognise: Callable[[Path], bool]
    splits: Callable[[Path], tuple[str, ...]]
    open: Callable[[str, Path, str], Dataset]


# In order of recognition: the most particular first; any folder may hold a file of wafer maps too, so they are last.
DATASETS: dict[str, Layout] = {
    "YAML file": Layout(yamlfile.recognise, yamlfile.splits, yamlfile.open_split),
    "SBD": Layout(sbd.recognise, sbd.splits, sbd.open_split),
    "Pascal-Context": Layout(context.recognise, context.splits, context.open_split),
    "NYUDv2": Layout(nyud.recognise, nyud.splits, nyud.open_split),
    "SIFT Flow": Layout(siftflow.recognise, siftflow.splits, siftflow.open_split),
    "Cityscapes": Layout(cityscapes.recognise, cityscapes.splits, cityscapes.open_split),
    "ADE20K": Layout(ade20k.recognise, ade20k.splits, ade20k.open_split),
    "VOCdevkit": Layout(voc.recognise, voc.splits, voc.open_split),
    "CamVid": Layout(camvid.recognise, camvid.splits, camvid.open_split),
    "plain folder": Layout(folder.recognise, folder.splits, folder.open_split),
    "wafer maps": Layout(wafermaps.recognise, wafermaps.splits, wafermaps.open_split),
}

_OWN = ("YAML file", "plain folder")

_EXPECTED = (
    "{train,val,test}/{images,masks}, {images,masks}/{train,val,test}, {images,masks}, the published layout of "
    f"{', '.join(name for name in DATASETS if name not in _OWN)}, or a YAML file that says where images and masks are"
)


def open_dataset(source: str | Path, split: str) -> Dataset:
    """Open one split of a data set.

    Args:
        source: ``"wafer"``, a YAML file, or a folder of a known layout (`DATASETS`).
        split: ``"train"``, ``"val"`` or ``"test"``, or another that the data set has.

    Raises:
        DataError: nothing there, no known layout, no such split, or files that do not fit together.
    """
    if source == WAFER:
        require_split(WAFER, split, available_splits(WAFER))
        return Wafer(split)
    path = Path(source)
    return DATASETS[_recognised(path)].open(str(source), path, split)


def available_splits(source: str | Path) -> tuple[str, ...]:
    """The splits `open_dataset` can open.

    Raises:
        DataError: nothing there, or no known layout.
    """
    if source == WAFER:
        return tuple(LENGTHS)
    path = Path(source)
    return DATASETS[_recognised(path)].splits(path)


def layout_name(source: str | Path) -> str:
    """What `open_dataset` takes it for: a key of `DATASETS`, or ``"wafer"``.

    Raises:
        DataError: nothing there, or no known layout.
    """
    return WAFER if source == WAFER else _recognised(Path(source))


def _recognised(path: Path) -> str:
    name = printable(path)
    if not path.exists():
        raise DataError(f"{name}: no such data set{_nearest(path)}")
    for kind, layout in DATASETS.items():
        if layout.recognise(path):
            return kind
    if not path.is_dir():
        raise DataError(
            f"{name}: is a file; a data set is a folder, a YAML file ending in .yaml, wafer maps in .npz, or {WAFER!r}"
        )
    found = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in path.iterdir())
    holds = f"holds {listed(found)}" if found else "is empty"
    raise DataError(f"{name}: {holds}; expected {_EXPECTED}")


def _nearest(path: Path) -> str:
    """The sibling of the most similar name, as a hint; other choices where there is none."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    nearest = difflib.get_close_matches(path.name, [*siblings, WAFER], n=1, cutoff=0.6)
    if not nearest:
        return f"; name a folder, a YAML file or {WAFER!r}"
    return f"; did you mean {printable(path.with_name(nearest[0]) if nearest[0] in siblings else WAFER)!r}?"
