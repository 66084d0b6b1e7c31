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
    """For every image of `first` the images of `second` that look like it, mirrored and turned ones included."""
    theirs = [np.array([_turned_hash(look, turn) for look in second], np.uint64) for turn in range(len(TURNS))]
    ours = np.array([look.hash for look in first], np.uint64)
    flat_second = np.array([look.thumb.std() < _FLAT for look in second])
    found: dict[tuple[int, int], Resemblance] = {}
    for turn, hashes in enumerate(theirs):
        for start in range(0, len(ours), _BLOCK):
            distance = np.bitwise_count(ours[start : start + _BLOCK, None] ^ hashes)
            for row, column in np.argwhere((distance <= _BITS) & ~flat_second):
                pair = start + int(row), int(column)
                turned = TURNS[turn][1](second[pair[1]].thumb)
                if pair not in found and _correlation(first[pair[0]].thumb, turned) >= _CORRELATION:
                    found[pair] = Resemblance(*pair, TURNS[turn][0])
    return [found[pair] for pair in sorted(found)]


def _turned_hash(look: Look, turn: int) -> int:
    return look.hash if turn == 0 else perceptual_hash(TURNS[turn][1](look.thumb))


def _correlation(a: Thumb, b: Thumb) -> float:
    x, y = a.astype(np.float64) - a.mean(), b.astype(np.float64) - b.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale else 0.0


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float64]:
    """(8, 32): the lowest rows of the discrete cosine transform of type II."""
    k, n = np.arange(_LOW)[:, None], np.arange(SIDE)[None, :]
    return np.cos(np.pi * k * (2 * n + 1) / (2 * SIDE))
