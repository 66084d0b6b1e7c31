"""Chunks: windows are the reader's own, read ahead, within bounds."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import rasters
from fullconv.data.windows import RasterReader, Span, Window
from fullconv.errors import DataError
from fullconv.inference import chunks
from fullconv.inference.chunks import Chunks

SIZE = (150, 130)
VALUES = rasters.noise(*SIZE, 3)
VALUES[20:60, 30:100] = 0


def whole(reader: RasterReader, parts: list[Any]) -> Chunks:
    return Chunks(reader, [(part.rows, part.columns) for part in parts])


def cut(values: NDArray[Any], rows: Span, columns: Span) -> NDArray[Any]:
    return values[slice(*rows), slice(*columns)]


class Counted(RasterReader):
    """Counts what is read, by threads."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.windows: list[tuple[Span, Span]] = []
        self.threads: set[int] = set()

    def window(self, rows: Span, columns: Span) -> Window:
        self.windows.append((rows, columns))
        self.threads.add(threading.get_ident())
        return super().window(rows, columns)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same values in tiles, in strips, and in a file that is decoded from the top."""
    folder = tmp_path_factory.mktemp("chunks")
    Image.fromarray(VALUES).save(folder / "png.png")
    return {
        "tiles": rasters.write(folder / "tiles.tif", VALUES, nodata=0, tiled=True, blockxsize=16, blockysize=32),
        "strips": rasters.write(folder / "strips.tif", VALUES, nodata=0, blockysize=7, compress="deflate"),
        "png": folder / "png.png",
    }


@pytest.mark.parametrize("name", ["tiles", "strips", "png"])
@given(
    corners=st.lists(
        st.tuples(st.integers(0, 149), st.integers(0, 129), st.integers(1, 90), st.integers(1, 90)), max_size=6
    ),
    room=st.integers(0, 200_000),
    size=st.integers(1, 20_000),
)
@settings(max_examples=25)
def test_windows_are_the_readers(
    files: dict[str, Path], name: str, corners: list[tuple[int, int, int, int]], room: int, size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "ROOM", room)
        patch.setattr(chunks, "CHUNK", size)
        with RasterReader(files[name]) as reader, whole(reader, rasters.tiles(*SIZE, 40, 50)) as cached:
            for top, left, height, width in corners:
                rows, columns = (top, min(top + height, 150)), (left, min(left + width, 130))
                values, void = cached.read(rows, columns), cached.void(rows, columns)
                np.testing.assert_array_equal(values, cut(VALUES, rows, columns))
                assert (values.dtype, values.flags.c_contiguous, values.flags.writeable) == (np.uint8, True, True)
                lost = (VALUES == 0).all(axis=2) & (name != "png")
                np.testing.assert_array_equal(void, cut(lost, rows, columns))


@pytest.mark.parametrize("name", ["tiles", "strips", "png"])
def test_every_pixel_is_decoded_once_and_elsewhere(
    files: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 5000)
    parts = rasters.tiles(*SIZE, 40, 50)
    with Counted(files[name]) as reader, whole(reader, parts) as cached:
        for part in parts:
            (top, bottom), (left, right) = part.rows, part.columns
            cached.read((max(top - 6, 0), min(bottom + 6, 150)), (max(left - 6, 0), min(right + 6, 130)))
            cached.void(part.rows, part.columns)
        area = sum((rows[1] - rows[0]) * (columns[1] - columns[0]) for rows, columns in reader.windows)
        assert area == 150 * 130
        assert len(reader.windows) > 4 or name == "png"  # GDAL decodes small ones whole
        assert threading.get_ident() not in reader.threads
        assert len(reader.threads) == 1


@pytest.mark.parametrize("sequential", [True, False])
def test_what_is_decoded_from_the_top_is_kept(
    tmp_path: Path, sequential: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 9000)
    monkeypatch.setattr(chunks, "ROOM", 0)
    path = tmp_path / "a.jpg"
    Image.fromarray(rasters.noise(300, 200)).save(path)
    if not sequential:
        with RasterReader(path) as reader:
            values = reader.read((0, 300), (0, 200))
        path = rasters.write(tmp_path / "a.tif", values, blockysize=1)
    parts = rasters.tiles(300, 200, 40, 50)
    with Counted(path) as reader, whole(reader, parts) as cached:
        assert (reader.block, reader.sequential) == ((1, 200), sequential)
        for index, part in enumerate(parts):
            cached.read((max(part.rows[0] - 6, 0), min(part.rows[1] + 6, 300)), part.columns)
            behind = parts[max(0, index - 4)]  # the answer comes later
            cached.void(behind.rows, behind.columns)
        tops = [rows[0] for rows, _ in reader.windows]
        assert (tops == sorted(set(tops))) == sequential


@pytest.mark.parametrize(
    ("high", "window", "room", "ahead"),
    [
        (32, (32, 32), 2**28, [(0, 1), (0, 2), (0, 3), (0, 4)]),
        (32, (38, 38), 2**28, [(0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4)]),  # they come with a margin too
        (64, (64, 64), 2**28, [(0, 2), (0, 3), (1, 2), (1, 3), (0, 4), (1, 4)]),  # the last are narrow
        (32, (32, 32), 6 * 32 * 32 * 4, [(0, 1), (0, 2)]),  # half of the room
    ],
)
def test_the_next_parts_are_read_ahead(
    files: dict[str, Path],
    high: int,
    window: tuple[int, int],
    room: int,
    ahead: list[chunks.Place],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 5000)
    monkeypatch.setattr(chunks, "ROOM", room)
    with Counted(files["tiles"]) as reader, whole(reader, rasters.tiles(*SIZE, high, high)) as cached:
        cached.read((0, window[0]), (0, window[1]))
        cached._pool.submit(int).result()  # all that was begun before is done
        needed = -(-window[0] // 32) * -(-window[1] // 32)
        assert [(rows[0] // 32, columns[0] // 32) for rows, columns in reader.windows[needed:]] == ahead


def test_no_more_is_kept_than_there_is_room(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 3000)
    monkeypatch.setattr(chunks, "ROOM", 20_000)
    parts = rasters.tiles(*SIZE, 30, 30)
    with RasterReader(files["tiles"]) as reader, whole(reader, parts) as cached:
        for part in parts:
            cached.read(part.rows, part.columns)
            assert cached._bytes <= 20_000
            assert cached._bytes == sum(map(cached._weight, cached._kept))


def test_an_error_of_the_thread_is_the_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 4000)
    path = rasters.write(tmp_path / "a.tif", rasters.noise(200, 64), compress="deflate", blockysize=8)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    parts = rasters.tiles(200, 64, 20, 64)
    with RasterReader(path) as reader, whole(reader, parts) as cached:
        cached.read(parts[0].rows, parts[0].columns)
        with pytest.raises(DataError, match="is damaged there"):
            [cached.read(part.rows, part.columns) for part in parts]


@pytest.mark.parametrize(("name", "shape"), [("tiles", (32, 32)), ("strips", (7, 130)), ("png", (150, 130))])
def test_chunks_are_whole_blocks(
    files: dict[str, Path], name: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 5000)
    with RasterReader(files[name]) as reader, whole(reader, []) as cached:
        assert cached._shape == shape


def test_room_follows_the_parts(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 500)
    with RasterReader(files["tiles"]) as reader:
        small, large = chunks.room(reader, (10, 10)), chunks.room(reader, (20, 20))
        assert small < large < 150 * 130 * 4 < chunks.ROOM
        assert chunks.room(reader, (1000, 130)) == 150 * 130 * 4, "never more than the image"
        assert chunks.held(reader, (10, 10)) > small
        assert Chunks(reader, [((0, 10), (0, 10)), ((10, 20), (0, 5))])._room == small


def test_chunks_across_wide_parts_are_flat(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 20_000)
    with RasterReader(files["tiles"]) as reader:
        assert chunks._shape(reader, 10) == (64, 64)
        assert chunks._shape(reader, 130) == (32, 64)
