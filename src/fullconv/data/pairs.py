"""Data sets of image and mask files; and the look at every sample before anything is learned from it."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from fullconv.data.image import SUFFIXES, read_image, shown
from fullconv.data.mask import MaskReader
from fullconv.data.sample import IMAGE, SEMANTIC, Dataset, Sample
from fullconv.errors import DataError
from fullconv.labels import VOID, LabelSet

LISTED = 10
"""How many file names or problems a message lists."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `name` is unique in the split."""

    name: str
    image: Path
    mask: Path


class ImageMaskPairs:
    """A `Dataset` of image and mask files: inputs ``{"image"}``, masks ``{"semantic"}``."""

    def __init__(self, source: str, split: str, pairs: Sequence[Pair], labels: LabelSet, reader: MaskReader) -> None:
        self.source = source
        self.split = split
        self.pairs = tuple(pairs)
        self.labels: Mapping[str, LabelSet] = {SEMANTIC: labels}
        self.channels: Mapping[str, int] = {IMAGE: 3}
        self.names: Sequence[str] = tuple(pair.name for pair in pairs)
        self.reader = reader

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8.

        Raises:
            DataError: either file cannot be used, or their sizes differ; one line.
        """
        pair = self.pairs[index]
        image, mask = read_image(pair.image), self.reader.read(pair.mask)
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        if (height, width) != (mask_height, mask_width):
            fix = "make a mask of the image's size"
            if (height, width) == (mask_width, mask_height):
                fix = (
                    "the sides are swapped: only one of the two says in its EXIF that it is rotated; save both upright"
                )
            raise DataError(
                f"{shown(pair.mask)}: is {mask_height} x {mask_width} (H x W), its image {shown(pair.image)} is "
                f"{height} x {width}; {fix}"
            )
        return Sample(pair.name, {IMAGE: image}, {SEMANTIC: mask})

    def fingerprint(self) -> str:
        """A digest (64 hex digits) of labels, reader, names and file sizes: equal for a copy of the data set.

        Raises:
            DataError: a file is gone.
        """
        mapping, colours = self.reader.label_mapping or {}, self.reader.colors or {}
        known = [self.labels[SEMANTIC].to_json(), sorted(mapping.items()), sorted(colours.items())]
        digest = hashlib.sha256(json.dumps(known).encode())
        for pair in self.pairs:
            digest.update(
                f"\n{pair.name}\t{_bytes(pair.image)}\t{_bytes(pair.mask)}".encode("utf-8", "surrogateescape")
            )
        return digest.hexdigest()


class CachedDataset:
    """A `Dataset` that serves the samples it holds from memory and the others from `dataset`.

    The arrays are shared by all who ask for a sample: change a copy.
    """

    def __init__(self, dataset: Dataset, kept: Mapping[int, Sample]) -> None:
        self.dataset = dataset
        self.kept = kept
        self.source = dataset.source
        self.split = dataset.split
        self.labels = dataset.labels
        self.channels = dataset.channels
        self.names = dataset.names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        position = index + len(self) if index < 0 else index
        return self.kept[position] if position in self.kept else self.dataset[index]

    def fingerprint(self) -> str:
        """That of the data set behind; ``""`` where it has none."""
        given = getattr(self.dataset, "fingerprint", None)
        return str(given()) if callable(given) else ""


@dataclass(frozen=True, eq=False)
class Checked:
    """What `check` found.

    Attributes:
        dataset: the data set, serving from memory what fitted.
        problems: one line each, naming the sample; empty if every sample can be used.
        pixels: by task, (K,) int64: the pixels of each class in all usable samples, void left out.
        void: by task, the number of void pixels.
        sizes: (H, W) of each usable sample, in order.
    """

    dataset: CachedDataset
    problems: tuple[str, ...]
    pixels: Mapping[str, NDArray[np.int64]]
    void: Mapping[str, int]
    sizes: tuple[tuple[int, int], ...]


def check(
    dataset: Dataset,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
    cache_bytes: int = 0,
) -> Checked:
    """Decode every sample once, in threads, and keep up to `cache_bytes` of them in memory.

    Args:
        dataset: any; an index it raises DataError for becomes a problem, other errors pass through.
        progress: called with (samples done, all samples), in the calling thread.
        threads: default: the number of processors, at most 8.
        cache_bytes: bound on the arrays kept; beside them one sample a thread is in memory.
    """
    state = _Tally(dataset, cache_bytes)
    total = len(dataset)
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        try:
            futures = [pool.submit(state.look, index) for index in range(total)]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if progress is not None:
                    progress(done, total)
        except BaseException:  # an interrupt too must not wait for the rest
            pool.shutdown(cancel_futures=True)
            raise
    found = [state.problems[index] for index in sorted(state.problems)]
    for task, labels in dataset.labels.items():
        if len(labels) > 1 and state.void[task] and state.pixels[task][0] and not state.pixels[task][1:].any():
            found.append(
                f"{shown(dataset.source)} ({dataset.split}): the {task} masks hold only 0 and {VOID} = void, so "
                f"that {labels.names[0]!r} is the one class; if {VOID} marks class 1, set in the data set's YAML "
                f"label_mapping: {{0: 0, {VOID}: 1}}"
            )
    return Checked(
        CachedDataset(dataset, state.kept),
        tuple(found),
        state.pixels,
        state.void,
        tuple(state.sizes[index] for index in sorted(state.sizes)),
    )


def require_usable(checked: Checked) -> None:
    """Raise one DataError with the count and the first ten problems, a line each, if there are any."""
    count = len(checked.problems)
    if not count:
        return
    dataset = checked.dataset
    lines = [
        f"{shown(dataset.source)} ({dataset.split}): {count} problem{'s' * (count > 1)} in {len(dataset)} samples:"
    ]
    lines += [f"  {problem}" for problem in checked.problems[:LISTED]]
    if count > LISTED:
        lines.append(f"  and {count - LISTED} more")
    raise DataError("\n".join(lines))


class _Tally:
    """The sums over all samples; one lock, held only to add."""

    def __init__(self, dataset: Dataset, cache_bytes: int) -> None:
        self.dataset = dataset
        self.free = cache_bytes
        self.kept: dict[int, Sample] = {}
        self.problems: dict[int, str] = {}
        self.pixels = {task: np.zeros(len(labels), np.int64) for task, labels in dataset.labels.items()}
        self.void = dict.fromkeys(dataset.labels, 0)
        self.sizes: dict[int, tuple[int, int]] = {}
        self.lock = Lock()

    def look(self, index: int) -> None:
        name = self.dataset.names[index]
        try:
            sample = self.dataset[index]
            counts = {task: _class_counts(sample, task, labels) for task, labels in self.dataset.labels.items()}
        except DataError as error:
            text = str(error)
            with self.lock:
                self.problems[index] = text if name in text else f"{shown(name)}: {text}"
            return
        size = sum(a.nbytes for a in (*sample.inputs.values(), *sample.masks.values()))
        with self.lock:
            self.sizes[index] = sample.size
            for task, (pixels, void) in counts.items():
                self.pixels[task] += pixels
                self.void[task] += void
            if size <= self.free:
                self.free -= size
                self.kept[index] = sample


def _class_counts(sample: Sample, task: str, labels: LabelSet) -> tuple[NDArray[np.int64], int]:
    """((K,) pixels of each class, void pixels); DataError where the sample breaks the contract of `Dataset`."""
    mask = sample.masks[task]
    if mask.shape != sample.size:
        raise DataError(
            f"{shown(sample.name)}: the {task} mask has shape {mask.shape}, its image is {sample.size} (H, W); "
            "make them the same size"
        )
    counts = np.bincount(mask.ravel(), minlength=VOID + 1)
    beyond = np.flatnonzero(counts[len(labels) : VOID])
    if beyond.size:
        raise DataError(
            f"{shown(sample.name)}: the {task} mask holds value {len(labels) + beyond[0]}; classes are "
            f"0..{len(labels) - 1} and {VOID} = void; map it to a class"
        )
    return counts[: len(labels)].astype(np.int64), int(counts[VOID])


def pair_by_stem(source: str, images: Path, masks: Path) -> tuple[Pair, ...]:
    """Pair the pictures below two folders by their relative path without suffix, in order of names.

    Hidden files and files of other kinds are ignored.

    Raises:
        DataError: no picture, two pictures of one name, an image without mask or a mask without image; one line.
    """
    found, labelled = pictures(source, images), pictures(source, masks)
    if not found:
        raise DataError(f"{shown(images)}: holds no pictures; expected files ending in {', '.join(SUFFIXES)}")
    lonely = [found[key].name for key in found if key not in labelled]
    unused = [labelled[key].name for key in labelled if key not in found]
    if lonely or unused:
        raise mismatch(source, lonely, unused, f"{shown(masks)}")
    return tuple(Pair(picture.name, picture.path, labelled[key].path) for key, picture in sorted(found.items()))


def mismatch(source: str, lonely: Sequence[str], unused: Sequence[str], masks: str) -> DataError:
    """The error for images without mask and masks without image."""
    parts = [
        f"{len(names)} {what} ({listed(names)})"
        for names, what in ((lonely, "images without mask"), (unused, "masks without image"))
        if names
    ]
    return DataError(
        f"{shown(source)}: {' and '.join(parts)}; masks lie in {masks} under their image's name, such as 0001.jpg and "
        "0001.png: add or remove files"
    )


def listed(names: Iterable[str]) -> str:
    """The first ten, and how many more."""
    every = [shown(name) for name in names]
    more = [f"and {len(every) - LISTED} more"] if len(every) > LISTED else []
    return ", ".join(every[:LISTED] + more)


def require_split(source: str, split: str, have: Sequence[str]) -> None:
    """Raise DataError, naming the splits there are, unless `split` is one of them."""
    if split not in have:
        raise DataError(f"{shown(source)}: has no split {split!r}; its splits: {', '.join(have) or 'none'}")


@dataclass(frozen=True)
class Picture:
    """A file that may hold a picture; `name` is its relative path without suffix."""

    name: str
    path: Path


def pictures(source: str, folder: Path) -> dict[str, Picture]:
    """The pictures below a folder by name; the keys are NFC, because file systems store accents in two ways."""
    found: dict[str, Picture] = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            path = Path(parent, file)
            if file.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            name = path.relative_to(folder).with_suffix("").as_posix()
            key = unicodedata.normalize("NFC", name)
            if key in found:
                raise DataError(
                    f"{shown(source)}: {shown(found[key].path)} and {shown(path.name)} share the name "
                    f"{shown(name)!r}; rename or remove one"
                )
            found[key] = Picture(name, path)
    return found


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{shown(path)}: no such file; check the path") from error
