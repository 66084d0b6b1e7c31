"""Plain folders of images and masks.

The layouts, masks paired with images by their relative path without suffix:

    {train,val,test}/{images,masks}    or    {images,masks}/{train,val,test}    or    {images,masks}

A data set with `train` and no `val`, or with no split folders at all, holds out a tenth of `train` as `val`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.bands import input_of
from fullconv.data.image import find_images, load_picture, opened
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import PLAIN, Names, listed, pair_folders, require_split
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.data.scenes import FileDataset, Scene, Task
from fullconv.data.text import read_text
from fullconv.errors import DataError, OptionError, printable
from fullconv.labels import VOID, Colour, LabelSet

SPLITS = ("train", "val", "test")
CLASSES = "classes.txt"
"""The file, in a plain folder, of the classes' names."""

HOLD_OUT = 10
"""One in so many samples of `train` is held out as `val` where a data set has none."""

Folders = Mapping[str, Sequence[tuple[Path, Path]]]
"""By split, the folders of its images, each with that of the masks."""

Item = TypeVar("Item")


def recognise(path: Path) -> bool:
    """Whether a folder has one of the plain layouts."""
    return bool(_split_outside(path)) or all((path / name).is_dir() for name in ("images", "masks"))


def splits(path: Path) -> tuple[str, ...]:
    """The splits of a plain folder, the held-out one included."""
    return splits_of(folders_of(path))


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """One split of a plain folder.

    Class names come from ``classes.txt`` (one a line) in the folder; without it the classes are numbered up to the
    highest value in the masks of all splits. Their colours are those of the first mask, if it has a palette.

    Raises:
        DataError: no such split, images and masks that do not pair, masks from which no classes can be told.
    """
    folders = folders_of(path)
    require_split(source, split, splits_of(folders))
    files = _masks(source, folders)
    labels = declared_labels(path)
    labels = (
        replace(labels, colours=_palette(files, len(labels))) if labels else _inferred(source, path, folders, files)
    )
    scenes = pairs_of(source, folders, split)
    task = Task(labels, MaskReader(len(labels)))
    return FileDataset(source, split, scenes, {SEMANTIC: task}, {IMAGE: input_of(scenes[0].image)})


def held_out(names: Iterable[str]) -> frozenset[str]:
    """A tenth of the names, at least one: those with the smallest SHA-256, so that all machines hold out the same.

    >>> sorted(held_out(f"{i:04}" for i in range(20)))
    ['0004', '0014']
    """
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    return frozenset(ordered[: max(1, round(len(ordered) / HOLD_OUT))])


def splits_of(folders: Folders) -> tuple[str, ...]:
    """The splits that folders make, the held-out one included."""
    return tuple(split for split in SPLITS if split in folders or (split == "val" and "train" in folders))


def pairs_of(source: str, folders: Folders, split: str, names: Names = PLAIN) -> Sequence[Scene]:
    """The pairs of one of `splits_of(folders)`.

    Raises:
        DataError: images and masks that do not pair, too few to hold `val` out.
    """
    if not held_out_of_train(folders, split):
        return pair_folders(source, folders[split], names)
    scenes = pair_folders(source, folders["train"], names)
    return hold_out(source, scenes, [scene.name for scene in scenes], split)


def held_out_of_train(folders: Folders, split: str) -> bool:
    """Whether a split shares the files of `train` with another."""
    return "train" in folders and "val" not in folders and split != "test"


def hold_out(source: str, items: Sequence[Item], names: Sequence[str], split: str) -> Sequence[Item]:
    """What is left as `train`, or taken as `val`, of the samples of a data set that has no `val`.

    Raises:
        DataError: too few samples.
    """
    if len(items) < 2:
        raise DataError(
            f"{printable(source)}: holds one image, and val is held out of train; add images, or a val split of its "
            "own, or cut it with tile: 128 in a YAML file"
        )
    val = held_out(names)
    return tuple(item for item, name in zip(items, names, strict=True) if (name in val) == (split == "val"))


def _split_outside(path: Path) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if (path / split / "images").is_dir())


def folders_of(path: Path) -> Folders:
    """The folders of the splits that have masks.

    Raises:
        DataError: none has.
    """
    outside = _split_outside(path)
    if outside:
        found = {split: (path / split / "images", path / split / "masks") for split in outside}
    else:
        found = {split: (path / "images" / split, path / "masks" / split) for split in SPLITS}
        found = {split: pair for split, pair in found.items() if pair[0].is_dir()}
        found = found or {"train": (path / "images", path / "masks")}
    # A split without masks, such as a test split whose labels are kept back, cannot be trained or scored on.
    usable = {split: [pair] for split, pair in found.items() if pair[1].is_dir()}
    if not usable:
        raise DataError(f"{printable(path)}: no masks; expected them in {listed(str(m) for _, m in found.values())}")
    return usable


def declared_labels(path: Path) -> LabelSet | None:
    """The classes that a plain folder's ``classes.txt`` names; None where there is none.

    Raises:
        DataError: a file that is no list of names.
    """
    file = path / CLASSES
    if not file.is_file():
        return None
    names = [line.strip() for line in read_text(file).splitlines()]
    try:
        return LabelSet(tuple(name for name in names if name))
    except OptionError as error:
        raise DataError(f"{printable(file)}: {error}") from error


def write_classes(path: Path, labels: LabelSet) -> None:
    """Write the ``classes.txt`` from which `declared_labels` reads the names; the colours are those of the masks."""
    (path / CLASSES).write_text("".join(f"{name}\n" for name in labels.names), "utf-8")


def _masks(source: str, folders: Folders) -> list[Path]:
    files = [path for pairs in folders.values() for _, masks in pairs for path in find_images(masks)]
    if not files:
        raise DataError(
            f"{printable(source)}: no masks; expected them in "
            f"{listed(str(masks) for pairs in folders.values() for _, masks in pairs)}"
        )
    return files


def _inferred(source: str, path: Path, folders: Folders, files: Sequence[Path]) -> LabelSet:
    stats = [(file, file.stat()) for file in files]
    present, void = _scan(tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))
    count = 1 + max(present, default=0)
    if count == 1 and void:
        two_classes = as_yaml(path, folders, ("background", "foreground"), f"label_mapping: {{0: 0, {VOID}: 1}}")
        raise DataError(
            f"{printable(source)}: the masks hold only 0 and {VOID}, and {VOID} is void; if it marks a class, open a "
            f"YAML file of this one line instead: {two_classes}"
        )
    if 4 * len(present) < count:
        raise DataError(
            f"{printable(source)}: the masks hold the values {listed(map(str, present))}, not class numbers 0, 1, 2 "
            "...; name the classes in classes.txt, or map the values in a YAML file with names and label_mapping"
        )
    return LabelSet(tuple(str(i) for i in range(count)), _palette(files, count))


@lru_cache(maxsize=8)  # each split is opened by itself, and the scan reads the masks of all
def _scan(files: tuple[tuple[Path, int, int], ...]) -> tuple[tuple[int, ...], bool]:
    """The values below 255 in all masks together, in order; and whether any holds 255."""
    errors: list[DataError] = []
    reader = MaskReader(VOID)

    def values(path: Path) -> NDArray[np.bool_]:
        try:
            return np.bincount(reader.read(path).ravel(), minlength=256) > 0
        except DataError as error:  # one bad mask is for `check` to report, with all others like it
            errors.append(error)
            return np.zeros(256, np.bool_)

    with ThreadPoolExecutor(2) as pool:
        occurs = np.zeros(256, np.bool_)
        for found in pool.map(values, (file for file, _, _ in files)):
            occurs |= found
    if not occurs.any():
        raise errors[0]
    return tuple(np.flatnonzero(occurs[:VOID]).tolist()), bool(occurs[VOID])


def as_yaml(path: Path, folders: Folders, names: Sequence[str], keys: str) -> str:
    """The YAML, on one line, that opens a plain folder with these names and further keys, all as YAML has them."""
    root = path.resolve()  # the user may keep the YAML file anywhere
    images = [f"{split}: {folders[split][0][0].relative_to(path).as_posix()}" for split in folders]
    whole = [f"path: {printable(json.dumps(str(root), ensure_ascii=False))}", *images, "masks_dir: masks"]
    whole += [f"names: [{', '.join(names)}]", keys]
    return f"{{{', '.join(whole)}}}"


def _palette(files: Sequence[Path], count: int) -> tuple[Colour, ...]:
    """The colours of the first mask that can be read, if it has a palette of `count` different colours."""
    for path in files:
        try:
            with opened(path) as (stream, head):
                picture = load_picture(path, stream, head)
                return _first_colours(picture, count)
        except DataError:
            continue
    return ()


def _first_colours(picture: Image.Image, count: int) -> tuple[Colour, ...]:
    flat = (picture.getpalette("RGB") or []) if picture.mode == "P" else []
    colours = tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, min(len(flat) - 2, 3 * count), 3))
    ramp = all(colour == (i, i, i) for i, colour in enumerate(colours))  # grey stored as palette: hardly visible
    return colours if len(set(colours)) == count and not ramp else ()
