"""A data set whose large images are cut into samples, for scenes too few or too large to be learned from whole."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from fullconv.data.sample import Dataset, Sample

NAMES = "utf-8", "surrogateescape"
"""How names of files, which need not be valid Unicode, become bytes."""

_KEPT_BYTES = 2**28
"""Of the whole images held, from which the next tiles may be cut; the one that was read last is held in any case."""


@dataclass(frozen=True)
class Tile:
    """Part of a sample: its number in the data set, and rows [top, bottom) and columns [left, right) of it."""

    index: int
    top: int
    bottom: int
    left: int
    right: int


def tiles_of(sizes: Sequence[tuple[int, int]], side: int) -> list[Tile]:
    """Images cut into equal parts of about `side` pixels each way: the nearest number of parts, at least one.

    Args:
        sizes: (H, W) of every image.

    >>> [(t.top, t.bottom, t.left, t.right) for t in tiles_of([(100, 250)], 128)]
    [(0, 100, 0, 125), (0, 100, 125, 250)]
    """
    tiles = []
    for index, (height, width) in enumerate(sizes):
        rows, columns = max(1, round(height / side)), max(1, round(width / side))
        for row in range(rows):
            for column in range(columns):
                vertical = row * height // rows, (row + 1) * height // rows
                horizontal = column * width // columns, (column + 1) * width // columns
                tiles.append(Tile(index, *vertical, *horizontal))
    return tiles


class TiledDataset:
    """The tiles of a `Dataset`; each is a sample, named by its image and its place, such as ``scene_y0000_x0128``."""

    def __init__(self, dataset: Dataset, tiles: Sequence[Tile]) -> None:
        self.dataset = dataset
        self.tiles = tuple(tiles)
        self.source, self.split = dataset.source, dataset.split
        self.labels, self.inputs, self.absent = dataset.labels, dataset.inputs, dataset.absent
        self.names: Sequence[str] = [tile_name(dataset.names[tile.index], tile) for tile in tiles]
        self._kept: OrderedDict[int, Sample] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        # Threads that ask for tiles of one image should not all decode it; other images they decode at once.
        self._decoding = {tile.index: Lock() for tile in tiles}

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> Sample:
        """The tile's part of its image and masks; raises what the data set behind raises."""
        tile = self.tiles[index]
        whole = self._whole(tile.index)
        part = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
        return Sample(  # copies: a view would keep the whole image in memory
            self.names[index],
            {name: array[part].copy() for name, array in whole.inputs.items()},
            {name: mask[part].copy() for name, mask in whole.masks.items()},
        )

    def _whole(self, index: int) -> Sample:
        """An image with its masks, decoded unless it is held."""
        with self._decoding[index]:
            with self._lock:
                if index in self._kept:
                    self._kept.move_to_end(index)
                    return self._kept[index]
            whole = self.dataset[index]
            with self._lock:
                self._kept[index] = whole
                self._bytes += _bytes(whole)
                while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                    self._bytes -= _bytes(self._kept.popitem(last=False)[1])
            return whole

    def fingerprint(self) -> str:
        """That of the data set behind, with the tiles."""
        return hashlib.sha256("\n".join([self.dataset.fingerprint(), *self.names]).encode(*NAMES)).hexdigest()


def _bytes(sample: Sample) -> int:
    return sum(array.nbytes for array in (*sample.inputs.values(), *sample.masks.values()))


def tile_name(name: str, tile: Tile) -> str:
    """The sample's name: its image's and the tile's first row and column."""
    return f"{name}_y{tile.top:04}_x{tile.left:04}"
