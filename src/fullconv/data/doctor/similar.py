"""Images that look alike: perceptual hashes of an image and of its mirrored and rotated copies.

The hash is the usual one of the discrete cosine transform: 32 x 32 grey pixels, the 8 x 8 lowest frequencies, one bit
each: above the median or not. It hardly changes with size, compression, brightness or contrast. Two images are called
alike if few bits differ and their 32 x 32 pixels correlate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32
_LOW = 8
_BITS = 12
"""Bits of 64 that may differ: copies of another quality or brightness differ in 12 at most, unrelated images in 32."""

_CORRELATION = 0.93
"""Of the pixels of images that are alike, at least: copies of another size, quality, brightness or contrast have 0.97
and more, a crop of 95 % a side 0.93."""

_FLAT = 4.0
"""Deviation of grey, of 255, below which an image looks like nothing in particular."""

_BLOCK = 64
"""Images compared with all others at once: a bound on memory."""

Thumb = NDArray[np.uint8]

COPY = "a copy"

TURNS: tuple[tuple[str, Callable[[Thumb], Thumb]], ...] = (
    (COPY, lambda a: a),
    ("mirrored left to right", lambda a: a[:, ::-1]),
    ("mirrored top to bottom", lambda a: a[::-1]),
    ("turned by 180 degrees", lambda a: a[::-1, ::-1]),
    ("mirrored along a diagonal", lambda a: a.T),
    ("turned by 90 degrees", np.rot90),
    ("turned by 270 degrees", lambda a: np.rot90(a, 3)),
    ("mirrored along a diagonal", lambda a: a[::-1, ::-1].T),
)


@dataclass(frozen=True, eq=False)
class Look:
    """What an image looks like from afar.

    Attributes:
        thumb: (32, 32) uint8 grey.
        hash: 64 bits.
    """

    thumb: Thumb
    hash: int


EMPTY = Look(np.zeros((SIDE, SIDE), np.uint8), 0)


@dataclass(frozen=True)
class Resemblance:
    """Two images that look alike: their numbers, and what the second is of the first."""

    first: int
    second: int
    how: str


def look_of(grey: NDArray[np.uint8]) -> Look:
    """The look of an (H, W) uint8 image."""
    thumb = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return Look(thumb, perceptual_hash(thumb))


def perceptual_hash(thumb: Thumb) -> int:
    """The 64 bits of a (32, 32) thumbnail."""
    basis = _cosines()
    low = basis @ thumb.astype(np.float64) @ basis.T
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def resemblances(first: Sequence[Look], second: Sequence[Look]) -> list[Resemblance]:
    """For every image of `first` that has one, an image of `second` that looks like it: one as it is before one that is
    mirrored or turned, the first of several. One is enough: where all look alike, the pairs would be millions."""
    ours = np.array([look.hash for look in first], np.uint64)
    flat = np.array([look.thumb.std() < _FLAT for look in second], np.bool_)
    found: dict[int, Resemblance] = {}
    for turn, (how, turned) in enumerate(TURNS):
        thumbs = [turned(look.thumb) for look in second]
        hashes = [look.hash if turn == 0 else perceptual_hash(thumbs[i]) for i, look in enumerate(second)]
        theirs = np.array(hashes, np.uint64)
        for start in range(0, len(ours), _BLOCK):
            near = (np.bitwise_count(ours[start : start + _BLOCK, None] ^ theirs) <= _BITS) & ~flat
            near[[index - start for index in found if start <= index < start + _BLOCK]] = False
            rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
            for part in (columns[i : i + _BLOCK] for i in range(0, len(columns), _BLOCK)):
                some = _normalised([first[start + row].thumb for row in rows.tolist()])
                alike = some @ _normalised([thumbs[column] for column in part.tolist()]).T >= _CORRELATION
                alike &= near[np.ix_(rows, part)]
                for row in np.flatnonzero(alike.any(1)):
                    index = start + int(rows[row])
                    found.setdefault(index, Resemblance(index, int(part[alike[row].argmax()]), how))
    return [found[index] for index in sorted(found)]


def _normalised(thumbs: Sequence[Thumb]) -> NDArray[np.float32]:
    """(n, 1024): rows whose products are correlations; zeros for a thumbnail of one value."""
    rows = np.stack([thumb.ravel() for thumb in thumbs]).astype(np.float32)
    rows -= rows.mean(1, keepdims=True)
    scaled: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-6))
    return scaled


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    """(8, 32): the lowest rows of the discrete cosine transform of type II."""
    k, n = np.arange(_LOW)[:, None], np.arange(SIDE)[None, :]
    return np.cos(np.pi * k * (2 * n + 1) / (2 * SIDE))
