"""What one file says of itself: everything `doctor` needs to know, in a few kilobytes a scene."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.doctor.similar import EMPTY, Look, look_of
from fullconv.data.image import picture_header
from fullconv.data.mask import MaskReader, RawMask, packed, read_raw
from fullconv.data.sample import Array, Values
from fullconv.data.scenes import Input, Task
from fullconv.errors import DataError, OptionError, printable
from fullconv.labels import VOID

SOLID = 0.25
"""Share of the pixels of a class that lie inside areas of it, at least; soft edges have next to none."""

KEPT_VALUES = 256
"""Different values or colours of one mask that are counted singly; of more, the most frequent."""

_BLOCK = 2**20
"""Pixels of a mask that are counted at once: what counting needs beside the mask does not grow with it."""


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """An image.

    Attributes:
        problem: why it cannot be read; the other attributes mean nothing then.
        size: (H, W), upright.
        kind: such as "8-bit RGB", "16-bit grey", "10 bands of uint16".
        orientation: of EXIF, 1 = upright.
        digest: of its pixels.
        look: what resembles it looks alike.
        constant: one colour everywhere.
    """

    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    kind: str = ""
    orientation: int = 1
    digest: bytes = b""
    look: Look = EMPTY
    constant: bool = False


@dataclass(frozen=True, eq=False)
class MaskFacts:
    """A mask, as its file holds it.

    Attributes:
        problem: why it cannot be read; the other attributes mean nothing then.
        size: (H, W), upright.
        coloured: it holds RGB colours, not class numbers.
        grey: RGB whose three channels are equal everywhere.
        lossy: of a format that may change values.
        values: (n,) uint32, in order: the numbers it holds, or its colours as R << 16 | G << 8 | B; at most
            `KEPT_VALUES`, the most frequent.
        counts: (n,) int64, their pixels.
        flat: (n,) int64, of these those whose right, lower and diagonal neighbours are equal: edges have few.
        pixels: in all.
        palette: (n, 3) uint8: the colours of `values` in a palette file; else None.
        digest: of its pixels.
    """

    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    coloured: bool = False
    grey: bool = False
    lossy: bool = False
    values: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    flat: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    pixels: int = 0
    palette: Array | None = None
    digest: bytes = b""


def image_facts(path: Path, source: Input) -> ImageFacts:
    """Read an image whole, as training would."""
    try:
        values = source.reader.read(path)
        if source.kind.measured:
            kind, orientation = f"{values.shape[2]} bands of {values.dtype}", 1
        else:
            header = picture_header(path)
            kind, orientation = header.kind, header.orientation
    except (DataError, OptionError) as error:
        return ImageFacts(problem=str(error))
    first = values[0, 0]
    constant = bool((values[0] == first).all() and (values == first).all())  # most differ in their first row
    return ImageFacts(
        None,
        (values.shape[0], values.shape[1]),
        kind,
        orientation,
        _digest(values),
        look_of(_grey(values)),
        constant,
    )


def mask_facts(path: Path, task: Task) -> MaskFacts:
    """Read a mask as it is where its file is a picture; else as its reader does."""
    try:
        if isinstance(task.reader, MaskReader):
            return counted(as_read(printable(path), read_raw(path, allow_lossy=True), task.reader))
        return counted(RawMask(task.reader.read(path), None, lossy=False))
    except (DataError, OptionError) as error:
        return MaskFacts(problem=str(error))


def as_read(name: str, raw: RawMask, reader: MaskReader) -> RawMask:
    """A palette mask of which only the colours lead to classes as the RGB mask that it once was; others as they are.

    Raises:
        DataError: its numbers and its colours lead to different classes.
    """
    if raw.palette is None or not reader.colors:
        return raw
    used = np.flatnonzero(np.bincount(raw.values.ravel(), minlength=256))
    if not all(tuple(colour) in reader.colors for colour in raw.palette[used].tolist()):
        return raw
    if np.isin(used, [*range(reader.classes), VOID, *(reader.label_mapping or {})]).all():
        reader.labels(name, raw)
        return raw
    return replace(raw, values=raw.palette[raw.values], palette=None)


def counted(raw: RawMask) -> MaskFacts:
    """The facts of a mask's values."""
    height, width = raw.values.shape[:2]
    coloured = grey = raw.values.ndim == 3
    every, areas, digest = _Histogram(), _Histogram(), _begun(raw.values)
    rows = max(1, _BLOCK // width)
    for top in range(0, height, rows):
        block = raw.values[top : top + rows + 1]  # with the row below
        grey = grey and bool((block == block[:, :, :1]).all())
        numbers: NDArray[Any] = packed(block) if coloured else block
        # The four neighbours below and to the right: a soft edge is a pixel or two wide and has no such block.
        inner = numbers[:-1, :-1]
        areas.add(inner[(inner == numbers[1:, :-1]) & (inner == numbers[:-1, 1:]) & (inner == numbers[1:, 1:])])
        every.add(numbers[:rows])
        digest.update(np.ascontiguousarray(block[:rows]).data)
    values, counts = every.summed()
    flat_values, flat_counts = areas.summed()
    if len(values) > KEPT_VALUES:
        kept = np.sort(np.argsort(counts, kind="stable")[-KEPT_VALUES:])
        values, counts = values[kept], counts[kept]
    of_each = np.zeros(len(values), np.int64)
    _, here, there = np.intersect1d(values, flat_values, assume_unique=True, return_indices=True)
    of_each[here] = flat_counts[there]
    palette = None if raw.palette is None else raw.palette[values.astype(np.intp)]
    return MaskFacts(
        problem=None,
        size=(height, width),
        coloured=coloured,
        grey=grey,
        lossy=raw.lossy,
        values=values,
        counts=counts,
        flat=of_each,
        pixels=height * width,
        palette=palette,
        digest=digest.digest(),
    )


def summed(masks: Sequence[MaskFacts]) -> tuple[dict[int, int], dict[int, int]]:
    """Pixels, and pixels inside areas, of each value over all masks."""
    counts: dict[int, int] = {}
    flat: dict[int, int] = {}
    for facts in masks:
        for value, count, inside in zip(facts.values.tolist(), facts.counts.tolist(), facts.flat.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + count
            flat[value] = flat.get(value, 0) + inside
    return counts, flat


def _begun(values: NDArray[Any]) -> hashlib.blake2b:
    """The digest of an array whose contents are still to be added."""
    return hashlib.blake2b(repr((values.shape, str(values.dtype))).encode(), digest_size=16)


def _digest(values: NDArray[Any]) -> bytes:
    digest = _begun(values)
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


class _Histogram:
    """How often each number occurs, of blocks of numbers that are added one after the other."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.uint32], NDArray[np.int64]]] = []

    def add(self, numbers: NDArray[Any]) -> None:
        if numbers.dtype == np.uint32:
            values, counts = np.unique(numbers, return_counts=True)
        else:
            full = np.bincount(numbers.ravel(), minlength=1)
            values = np.flatnonzero(full)
            counts = full[values]
        self._parts.append((values.astype(np.uint32), counts.astype(np.int64)))
        # Not after every block: of noise that would sort all colours again and again.
        if sum(len(values) for values, _ in self._parts[1:]) > max(len(self._parts[0][0]), 2**16):
            self._parts = [self.summed()]

    def summed(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The different numbers in order and how often each occurs."""
        values, places = np.unique(np.concatenate([values for values, _ in self._parts]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, places, np.concatenate([counts for _, counts in self._parts]))
        return values, counts


def _grey(values: Values) -> Array:
    """(H, W) uint8: luminance of pictures, the stretched mean of the bands of anything else."""
    if values.dtype == np.uint8 and values.shape[2] == 3:
        return np.asarray(Image.fromarray(values).convert("L"))
    mean = values.mean(2, dtype=np.float32)
    low, high = float(mean.min()), float(mean.max())
    stretched: Array = ((mean - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return stretched
