"""Wafer maps with pixel masks, generated: failing dies in rings, scratches, zones and circles.

Public wafer sets (WM-811K, MixedWM38) label whole maps only. This generator follows the statistics measured on
WM-811K (reference 10.3) and knows which die belongs to which pattern.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from fullconv.data.sample import IMAGE, SEMANTIC, Array, InputKind, Sample
from fullconv.data.wafer_patterns import BACKGROUND, PATTERNS, grid_of, random_failures
from fullconv.errors import DataError, OptionError, unknown_name
from fullconv.labels import LabelSet

if TYPE_CHECKING:
    from fullconv.metrics import Absent

WAFER_LABELS = LabelSet(
    ("background", "ring", "scratch", "local zone", "circle"),
    colours=((40, 44, 52), (64, 156, 255), (255, 213, 64), (76, 199, 116), (235, 87, 87)),
)
OFF_WAFER, PASS, FAIL = range(3)

SIZE = (56, 53)
"""(H, W) in dies."""

LENGTHS = {"train": 20_000, "val": 400, "test": 1000}
"""Default number of maps a split. The position of a split in this table seeds its stream."""

VERSION = 2
"""Part of every seed and fingerprint: raise it with any change of what is generated."""


def _mixture(rng: Generator) -> list[str]:
    """Patterns of one wafer, combined as MixedWM38 does: center or donut, edge-loc or edge-ring, loc, scratch.

    All 36 combinations occur; about one wafer in eight has none.
    """
    middle, edge, inside, across = rng.random(4).tolist()
    names = ["center"] if middle < 0.2 else ["donut"] if middle < 0.4 else []
    names += ["edge-ring"] if edge < 0.2 else ["edge-loc"] if edge < 0.4 else []
    return names + ["loc"] * (inside < 0.35) + ["scratch"] * (across < 0.45)


def _rng(seed: int, split: str, index: int) -> Generator:
    """The stream of one map. The seed comes last: it alone may need several 32-bit words."""
    if split not in LENGTHS:
        raise unknown_name("split", split, LENGTHS)
    if seed < 0:
        raise OptionError(f"seed {seed} is negative; give 0 or more")
    if not 0 <= index < 2**32:
        raise OptionError(f"index {index} is outside 0..{2**32 - 1}; give the number of a map")
    return np.random.default_rng(np.random.SeedSequence([VERSION, list(LENGTHS).index(split), index, seed]))


def generate(
    seed: int,
    index: int,
    *,
    split: str = "train",
    size: tuple[int, int] = SIZE,
    patterns: Sequence[str] | None = None,
) -> tuple[Array, Array]:
    """One wafer map and its mask: a pure function of its arguments.

    Args:
        seed: 0 or more.
        index: 0..2**32 - 1, the number of the map.
        split: "train", "val" or "test"; their streams have nothing in common.
        size: (H, W), 8 or more each; the wafer fills the array as an ellipse.
        patterns: names of `PATTERNS`, later ones painted over earlier ones; default: a random mixture, sometimes none.

    Returns:
        cells: (H, W) uint8, 0 off the wafer, 1 pass, 2 fail.
        mask: (H, W) uint8, classes of `WAFER_LABELS`; background off the wafer. (As void, which it was first, a net
            says anything there, and its predictions and their areas are of no use without the map.)

    Raises:
        OptionError: an unknown split or pattern, a negative seed, an index out of range, a size below 8.
    """
    if min(size) < 8:
        raise OptionError(f"wafer size {size[0]} x {size[1]}; expected at least 8 x 8 dies")
    rng = _rng(seed, split, index)
    grid = grid_of((int(size[0]), int(size[1])))
    names = _mixture(rng) if patterns is None else patterns
    for name in names:
        if name not in PATTERNS:
            raise unknown_name("pattern", name, PATTERNS)
    good = 1 - random_failures(rng, grid, max((PATTERNS[name].lot for name in names), default=1.0))
    mask = np.full(grid.wafer.shape, BACKGROUND, dtype=np.uint8)
    for name in names:
        field = PATTERNS[name].draw(rng, grid)
        good *= 1 - field.rate
        mask[field.footprint & grid.wafer] = PATTERNS[name].label
    cells = np.where(rng.random(good.shape) < good, PASS, FAIL)
    return np.where(grid.wafer, cells, OFF_WAFER).astype(np.uint8), mask


def render(cells: Array) -> Array:
    """A wafer map as an image: (H, W) uint8 of 0, 1, 2 -> (H, W, 3) uint8 grey of 0, 128, 255.

    Raises:
        DataError: not a two-dimensional uint8 array, or another value in it.
    """
    if cells.ndim != 2 or cells.dtype != np.uint8:
        raise DataError(f"a {cells.ndim}-dimensional {cells.dtype} array is no wafer map; expected (H, W) uint8")
    if cells.size and cells.max() > FAIL:
        raise DataError(f"wafer map holds {cells.max()}; expected 0 (off the wafer), 1 (pass) and 2 (fail) only")
    grey = np.array([0, 128, 255], dtype=np.uint8)[cells]
    return np.repeat(grey[:, :, None], 3, axis=2)


class Wafer:
    """Generated wafer maps as a data set (the protocol of `fullconv.data.sample.Dataset`).

    Args:
        split: "train", "val" or "test".
        length: number of maps; default 20,000, 400 and 1000.
        seed: 0 or more; every seed gives other maps.

    Raises:
        OptionError: an unknown split, a length below 1, a negative seed.

    >>> Wafer("val")[12].name
    'wafer-val-000012'
    """

    def __init__(self, split: str = "train", length: int | None = None, seed: int = 0) -> None:
        _rng(seed, split, 0)  # refuses now what would fail at the first map
        if length is not None and length < 1:
            raise OptionError(f"{length} wafer maps asked for; give a length of 1 or more")
        self.source = "wafer"
        self.split = split
        self.seed = seed
        self.labels: Mapping[str, LabelSet] = {SEMANTIC: WAFER_LABELS}
        self.inputs: Mapping[str, InputKind] = {IMAGE: InputKind()}
        self.absent: Mapping[str, Absent] = {}
        count = LENGTHS[split] if length is None else length
        self.names: Sequence[str] = [f"wafer-{split}-{index:06}" for index in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Map number `index`, counted from the end where negative; IndexError beyond the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"wafer map {index} of {len(self)}; give {-len(self)}..{len(self) - 1}")
        index %= len(self)
        cells, mask = generate(self.seed, index, split=self.split)
        return Sample(self.names[index], {IMAGE: render(cells)}, {SEMANTIC: mask})

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the generator, the seed, the split or the length."""
        text = f"wafer {VERSION} {self.seed} {self.split} {len(self)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
