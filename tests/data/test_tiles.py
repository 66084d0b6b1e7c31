"""Tiles: together exactly the image, each exactly its part."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.data import tiles
from fullconv.data.check import check
from fullconv.data.folder import hold_out
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.data.tiles import Tile, TiledDataset, tile_name, tiles_of
from fullconv.errors import DataError
from inmemory import InMemory, one, some
from refusals import refusal

sizes = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=3)


class Counted(InMemory):
    """Counts how often each sample is read."""

    def __init__(self, samples: list[Sample]) -> None:
        super().__init__(samples)
        self.reads = [0] * len(samples)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        time.sleep(0.001)  # others may ask meanwhile
        return super().__getitem__(index)


@given(sizes, st.integers(1, 100))
def test_tiles_are_a_partition(images: list[tuple[int, int]], side: int) -> None:
    seen = [np.zeros(size, np.int64) for size in images]
    for tile in tiles_of(images, side):
        height, width = tile.bottom - tile.top, tile.right - tile.left
        assert min(height, width) > 0
        for length, whole in zip((height, width), images[tile.index], strict=True):
            # n = round(whole / side) parts: between 2/3 and 3/2 of the side, rounded to pixels either way.
            assert length == whole < 1.5 * side + 1 or 2 * side / 3 - 1 < length < 3 * side / 2 + 1
        seen[tile.index][tile.top : tile.bottom, tile.left : tile.right] += 1
    assert all((count == 1).all() for count in seen)


@given(st.integers(1, 2000), st.integers(1, 300))
def test_the_parts_are_the_nearest_number_and_equal_to_a_pixel(whole: int, side: int) -> None:
    heights = [tile.bottom - tile.top for tile in tiles_of([(whole, 1)], side)]
    assert max(heights) - min(heights) <= 1
    assert all(abs(whole / side - len(heights)) <= abs(whole / side - n) for n in range(1, len(heights) + 3))


def test_tiles_by_hand() -> None:
    assert tiles_of([(10, 10), (7, 25)], 10) == [
        Tile(0, 0, 10, 0, 10),
        Tile(1, 0, 7, 0, 12),
        Tile(1, 0, 7, 12, 25),
    ]
    assert tile_name("a/b", Tile(3, 0, 10, 12000, 12100)) == "a/b_y0000_x12000"


@settings(max_examples=30)
@given(sizes, st.integers(5, 100))
def test_each_is_its_part_of_every_input_and_task(images: list[tuple[int, int]], side: int) -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            f"s{index}",
            {
                IMAGE: rng.integers(0, 256, (*size, 3), np.uint8),
                "radar": rng.normal(size=(*size, 2)).astype(np.float32),
            },
            {SEMANTIC: rng.integers(0, 3, size, np.uint8)},
        )
        for index, size in enumerate(images)
    ]
    whole = InMemory(samples, "val", inputs={IMAGE: InputKind(), "radar": InputKind(2, (1, 2))})
    tiles = tiles_of(images, side)
    tiled = TiledDataset(whole, tiles)
    assert (tiled.source, tiled.split, tiled.labels, tiled.inputs) == ("arrays", "val", whole.labels, whole.inputs)
    assert len(tiled) == len(tiled.names) == len(set(tiled.names)) == len(tiles)
    for index in (*range(len(tiles)), -1):
        tile, part = tiles[index], tiled[index]
        rows, columns = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
        assert part.name == tiled.names[index]
        for name, array in samples[tile.index].inputs.items():
            np.testing.assert_array_equal(part.inputs[name], array[rows, columns])
            assert part.inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(part.masks[SEMANTIC], samples[tile.index].masks[SEMANTIC][rows, columns])


def test_an_image_is_read_once_for_all_its_tiles_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    each = 64 * 64 * 4
    monkeypatch.setattr(tiles, "_KEPT_BYTES", 2 * each)
    whole = Counted([one(seed, (64, 64)) for seed in range(4)])
    tiled = TiledDataset(whole, tiles_of([(64, 64)] * 4, 16))
    for index in range(len(tiled)):
        assert all(array.base is None for array in (*tiled[index].inputs.values(), *tiled[index].masks.values()))
    assert whole.reads == [1] * 4
    tiled[0]
    assert whole.reads == [2, 1, 1, 1], "of the first, nothing was kept"
    again = Counted(list(whole.samples))
    shared = TiledDataset(again, tiled.tiles)
    with ThreadPoolExecutor(4) as pool:
        assert [sample.name for sample in pool.map(shared.__getitem__, range(16))] == shared.names[:16]
    assert again.reads == [1, 0, 0, 0], "threads that want it at once wait for one of them"


@pytest.mark.parametrize(
    ("room", "asked", "reads"),
    [
        (0, (0, 0, 1, 1, 0), [2, 1, 0]),  # the newest in any case
        (2, (0, 1, 2, 1, 2, 0), [2, 1, 1]),
        (2, (0, 1, 0, 2, 0, 1), [1, 2, 1]),  # what is in use stays
        (2.9, (0, 1, 2, 2, 1, 0), [2, 1, 1]),
        (3, (0, 1, 2, 0, 1, 2), [1, 1, 1]),
    ],
)
def test_what_is_held_is_bounded_by_bytes(
    room: float, asked: tuple[int, ...], reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_KEPT_BYTES", room * 64 * 64 * 4)
    whole = Counted([one(seed, (64, 64)) for seed in range(3)])
    tiled = TiledDataset(whole, tiles_of([(64, 64)] * 3, 64))
    for index in asked:
        tiled[index]
    assert whole.reads == reads


def test_small_images_stay_whatever_their_order() -> None:
    whole = Counted([one(seed, (64, 64)) for seed in range(20)])
    tiled = TiledDataset(whole, tiles_of([(64, 64)] * 20, 16))
    for index in np.random.default_rng(0).permutation(len(tiled)).tolist():
        assert tiled[index].name == tiled.names[index]
    assert whole.reads == [1] * 20


def test_several_images_are_read_at_once() -> None:
    barrier = threading.Barrier(4, timeout=30)

    class Meeting(InMemory):
        def __getitem__(self, index: int) -> Sample:
            barrier.wait()  # passes only where four are read at once
            return super().__getitem__(index)

    tiled = TiledDataset(Meeting([one(seed, (64, 64)) for seed in range(4)]), tiles_of([(64, 64)] * 4, 64))
    with ThreadPoolExecutor(4) as pool:
        assert [sample.name for sample in pool.map(tiled.__getitem__, range(4))] == tiled.names


def test_a_check_counts_every_pixel_once() -> None:
    whole = some("train", 3, (50, 70))
    checked, expected = check(TiledDataset(whole, tiles_of([(50, 70)] * 3, 16))), check(whole)
    assert checked.pixels[SEMANTIC].tolist() == expected.pixels[SEMANTIC].tolist()
    assert checked.void == expected.void
    assert checked.sizes[0] == (16, 17)


def test_fingerprint_is_of_the_data_and_the_tiles() -> None:
    whole = some("train", 2, (50, 70))
    tiles = tiles_of([(50, 70)] * 2, 16)
    others = InMemory([replace(one(9, (50, 70)), name=name) for name in whole.names])
    prints = [
        TiledDataset(whole, tiles).fingerprint(),
        TiledDataset(whole, tiles[1:]).fingerprint(),
        TiledDataset(whole, tiles_of([(50, 70)] * 2, 30)).fingerprint(),
        TiledDataset(others, tiles).fingerprint(),
        whole.fingerprint(),
    ]
    assert len(set(prints)) == 5
    assert TiledDataset(some("train", 2, (50, 70)), tiles).fingerprint() == prints[0]


def test_names_that_are_no_text_have_a_fingerprint() -> None:
    whole = InMemory([Sample("\udcff", one(0).inputs, one(0).masks)])
    whole.fingerprint = lambda: "0"  # type: ignore[method-assign]
    assert len(TiledDataset(whole, tiles_of([(12, 16)], 16)).fingerprint()) == 64


def test_an_image_alone_is_held_out_by_tiles() -> None:
    tiles = tiles_of([(100, 100)], 10)
    names = [tile_name("s", tile) for tile in tiles]
    train, val = (hold_out("data", tiles, names, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (90, 10)
    assert {*train, *val} == set(tiles)


def test_what_the_data_behind_raises_comes_through() -> None:
    class Broken(InMemory):
        def __getitem__(self, index: int) -> Sample:
            raise DataError("s0: is damaged")

    tiled = TiledDataset(Broken([one(0)]), tiles_of([(12, 16)], 16))
    assert refusal(tiled.__getitem__, 0) == "s0: is damaged"
    with pytest.raises(IndexError):
        tiled[1]
