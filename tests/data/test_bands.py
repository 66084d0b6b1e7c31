"""Rasters of many bands: the values that were written, whatever way they were, and one line where there are none."""

from __future__ import annotations

import struct
import sys
import threading
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fullconv.data import bands
from fullconv.data.bands import BandsReader, bands_header, input_kind, input_of, is_raster, size_of
from fullconv.data.image import picture_header
from fullconv.data.mask import MaskReader
from fullconv.data.sample import InputKind
from fullconv.data.scenes import Input
from fullconv.errors import DataError, OptionError
from makers import save
from refusals import refusal

SIZE = (40, 50)
TYPES = ["uint8", "uint16", "int16", "float32"]
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"compress": "deflate", "interleave": "pixel"},
    {"compress": "lzw", "tiled": True, "blockxsize": 32, "blockysize": 16, "interleave": "band"},
    {"compress": "deflate", "predictor": 2, "blockysize": 3, "BIGTIFF": "YES", "ENDIANNESS": "BIG"},
]


def values_of(kind: str, count: int, size: tuple[int, int] = SIZE) -> NDArray[Any]:
    """(H, W, C) over the whole range of a type."""
    rng = np.random.default_rng(count)
    if kind == "float32":
        return rng.normal(0, 1e4, (*size, count)).astype(np.float32)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, (*size, count), dtype=kind, endpoint=True)


def write(path: Path, values: NDArray[Any], names: tuple[str, ...] = (), **options: Any) -> Path:
    """A TIFF of (H, W, C) values, by GDAL."""
    height, width, count = values.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)
    shape = {"height": height, "width": width, "count": count, "dtype": values.dtype, "transform": place}
    with rasterio.open(path, "w", driver="GTiff", **shape, **options) as raster:
        raster.write(np.moveaxis(values, 2, 0))
        for band, name in enumerate(names, 1):
            raster.set_band_description(band, name)
    return path


def outcome(path: Path) -> str:
    """The message of the DataError; "" where five bands can be read. Any other exception goes through."""
    try:
        return "" if every(5).read(path).shape[2] == 5 else "not five bands"
    except DataError as error:
        return str(error)


def every(count: int) -> BandsReader:
    return BandsReader(tuple(range(1, count + 1)))


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize(("kind", "count"), list(product(TYPES, (1, 2, 5, 10))))
def test_the_values_written(tmp_path: Path, kind: str, count: int, options: dict[str, Any]) -> None:
    if kind == "float32" and "predictor" in options:
        options = options | {"predictor": 3}
    written = values_of(kind, count)
    path = write(tmp_path / "a b, ü!#?&.tif", written, **options)
    found = every(count).read(path)
    assert found.dtype == (np.float32 if kind == "int16" else kind)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, written)
    header = bands_header(path)
    assert (header.count, header.size, header.kind, header.names) == (count, SIZE, np.dtype(kind), ("",) * count)


@pytest.mark.parametrize("kind", [*TYPES, "int8", "uint32", "int64", "float16", "float64", ">u2", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_number(tmp_path: Path, kind: str, order: str) -> None:
    written = np.arange(60, dtype=kind).reshape(4, 3, 5)
    np.save(tmp_path / "a.npy", np.asarray(written, order="F" if order == "F" else "C"))
    found = every(5).read(tmp_path / "a.npy")
    assert found.dtype == {">u2": "uint16", "uint8": "uint8", "uint16": "uint16"}.get(kind, "float32")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, written)
    header = bands_header(tmp_path / "a.npy")
    assert (header.count, header.size, header.kind, header.names) == (5, (4, 3), np.dtype(kind), ("",) * 5)


def test_arrays_of_one_plane(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.uint16).reshape(4, 3))
    assert BandsReader((1,)).read(tmp_path / "a.npy")[:, :, 0].tolist() == np.arange(12).reshape(4, 3).tolist()
    assert bands_header(tmp_path / "a.npy").count == 1


@pytest.mark.parametrize("suffix", ["tif", "npy"])
@given(chosen=st.lists(st.integers(1, 6), min_size=1, max_size=6, unique=True))
@settings(max_examples=15)
def test_bands_come_in_the_order_asked_for(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, chosen: list[int]
) -> None:
    written = values_of("uint16", 6, (3, 4))
    path = tmp_path_factory.mktemp("bands") / f"a.{suffix}"
    np.save(path, written) if suffix == "npy" else write(path, written)
    found = BandsReader(tuple(chosen)).read(path)
    for place, band in enumerate(chosen):
        np.testing.assert_array_equal(found[:, :, place], written[:, :, band - 1])


@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_what_is_not_finite_becomes_0(tmp_path: Path, suffix: str) -> None:
    written = np.array([[[np.nan, 1.5], [np.inf, -2]], [[-np.inf, 3], [1e300, 4]]])
    path = tmp_path / f"a.{suffix}"
    np.save(path, written) if suffix == "npy" else write(path, written)
    found = every(2).read(path)
    assert found.dtype == np.float32
    assert found.tolist() == [[[0, 1.5], [0, -2]], [[0, 3], [0, 4]]]


@pytest.mark.parametrize(
    ("kind", "nodata"),
    [
        ("int16", -9999), ("uint16", 65535), ("uint8", 255), ("int32", -(2**31)), ("float32", -9999), ("float64", 1e20),
        ("float32", float(np.finfo(np.float32).min)), ("float32", float("nan")), ("float64", -1.7976931348623157e308),
        ("float32", float("inf")),
    ],
)  # fmt: skip
def test_what_is_missing_in_a_scene_becomes_0(tmp_path: Path, kind: str, nodata: float) -> None:
    written = np.full((3, 4, 2), 7, kind)
    written[0, 1, 0] = written[2, 3] = np.array(nodata).astype(kind)
    expected = np.full((3, 4, 2), 7)
    expected[0, 1, 0] = expected[2, 3] = 0
    for options in LAYOUTS[:3]:
        found = every(2).read(write(tmp_path / "a.tif", written, nodata=nodata, **options))
        assert found.dtype == (kind if kind in ("uint8", "uint16") else "float32")
        np.testing.assert_array_equal(found, expected)


def test_a_rounded_nodata_is_the_lowest_float(tmp_path: Path) -> None:
    """As many tools write it, with fewer digits than tell it from the numbers beside it."""
    lowest = float(np.finfo(np.float32).min)
    written = np.array([[[lowest], [3]]], np.float32)
    content = write(tmp_path / "a.tif", written, nodata=lowest).read_bytes()
    assert content.count(b"-3.4028234663852886e+38\0") == 1
    (tmp_path / "a.tif").write_bytes(content.replace(b"-3.4028234663852886e+38", b"-3.4028235e+38".ljust(23)))
    assert every(1).read(tmp_path / "a.tif").tolist() == [[[0], [3]]]


@pytest.mark.parametrize(("kind", "nodata"), [("uint16", b"-9999"), ("uint8", b"1e300"), ("float32", b"-1e300")])
def test_a_nodata_that_no_number_is(tmp_path: Path, kind: str, nodata: bytes) -> None:
    written = np.array([[[1], [2]]], kind)
    content = write(tmp_path / "a.tif", written, nodata=111).read_bytes()
    assert content.count(b"111\0") == 1
    entry = content.index(struct.pack("<HHI", 42113, 2, 4))
    longer = struct.pack("<HHII", 42113, 2, len(nodata) + 1, len(content))
    (tmp_path / "a.tif").write_bytes(content[:entry] + longer + content[entry + 12 :] + nodata + b"\0")
    assert every(1).read(tmp_path / "a.tif").tolist() == [[[1], [2]]]


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("room", [1, 64, 50 * 5 * 7, 50 * 5 * 17, 2**22])
def test_parts_make_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(bands, "_PART", room)
    written = values_of("int16", 5)
    np.testing.assert_array_equal(every(5).read(write(tmp_path / "a.tif", written, **options)), written)
    np.save(tmp_path / "a.npy", written)
    np.testing.assert_array_equal(every(5).read(tmp_path / "a.npy"), written)


@pytest.mark.parametrize(("kind", "copies"), [("uint16", 1), ("float32", 1), ("int16", 2)])
@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_memory_is_that_of_the_result(tmp_path: Path, suffix: str, kind: str, copies: int) -> None:
    written = np.zeros((2048, 4096, 5), kind)
    path = tmp_path / f"a.{suffix}"
    np.save(path, written) if suffix == "npy" else write(path, written, SPARSE_OK=True, tiled=True)
    size = written.nbytes * copies
    del written
    tracemalloc.start()
    found = every(5).read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.nbytes == size
    assert peak < size + 2**22 * 16, "and sixteen bytes for each value of one part"


def test_scenes_that_lie_nowhere_are_read_without_a_remark(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1, 2]], np.uint8)).save(tmp_path / "a.tif")
    assert every(1).read(tmp_path / "a.tif").tolist() == [[[1], [2]]]
    assert bands_header(tmp_path / "a.tif").size == (1, 2)


def test_files_beside_it_are_not_looked_at(tmp_path: Path) -> None:
    written = values_of("uint8", 2)
    path = write(tmp_path / "a.tif", written)
    about = '<PAMRasterBand band="1"><Description>foreign</Description></PAMRasterBand>'
    (tmp_path / "a.tif.aux.xml").write_text(f"<PAMDataset>{about}</PAMDataset>")
    for name in ("a.tif.ovr", "a.tif.msk", "a.ovr", "a.IMD", "a.tfw"):
        (tmp_path / name).write_bytes(b"foreign")
    with rasterio.open(path) as raster:
        assert raster.descriptions[0] == "foreign", "who looks finds it"
    assert bands_header(path).names == ("", "")
    np.testing.assert_array_equal(every(2).read(path), written)


def test_the_largest_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path / "a.tif", values_of("uint16", 5)), tmp_path / "a.npy"
    np.save(paths[1], values_of("uint16", 5))
    monkeypatch.setattr(bands, "MAX_BYTES", 40 * 50 * 5 * 2)
    for path in paths:
        every(5).read(path)
    monkeypatch.setattr(bands, "MAX_BYTES", 40 * 50 * 5 * 2 - 1)
    for path in paths:
        expected = f"{path}: is 40 x 50 pixels (H x W), at most 1999 in all are decoded; crop or tile the picture"
        assert expected in refusal(every(5).read, path)
    signed = write(tmp_path / "b.tif", values_of("int16", 5))
    assert "at most 999 in all" in refusal(every(5).read, signed), "as float32 they take twice as much"
    assert BandsReader((2, 3)).read(paths[0]).shape == (40, 50, 2), "only the bands that are read count"


def test_a_header_that_lies_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1, 5), np.uint8))
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {**header, "shape": (2**20, 2**20, 5)})
    assert "a.npy: cannot be decoded (ValueError: mmap length is greater than file size)" in refusal(
        every(5).read, path
    )
    assert not is_raster(path)
    thin = write(tmp_path / "a.tif", np.zeros((1, 1, 5), np.uint8), SPARSE_OK=True)
    huge = thin.read_bytes()
    for tag in (256, 257):  # width and height
        place = huge.index(tag.to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little"))
        huge = huge[: place + 8] + (60_000).to_bytes(2, "little") + huge[place + 10 :]
    thin.write_bytes(huge)
    assert "is 60000 x 60000 pixels (H x W), at most 107374182 in all are decoded" in refusal(every(5).read, thin)


@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_a_band_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    np.save(path, values_of("uint8", 5)) if suffix == "npy" else write(path, values_of("uint8", 5))
    assert refusal(BandsReader((1, 6)).read, path) == (
        f"{path}: has 5 bands, and band 6 is asked for; all images of a data set need the same bands"
    )


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (
            np.zeros(5, np.uint8),
            "holds uint8 of shape (5,), expected numbers of shape (H, W, C); put the channels last",
        ),
        (np.zeros((2, 3, 4, 5)), "holds float64 of shape (2, 3, 4, 5), expected numbers"),
        (np.zeros((0, 3, 5)), "holds float64 of shape (0, 3, 5), expected numbers"),
        (np.zeros((2, 3, 5), bool), "holds bool of shape (2, 3, 5), expected numbers"),
        (np.zeros((2, 3, 5), complex), "holds complex128 of shape (2, 3, 5), expected numbers"),
        (np.array([["a"]]), "holds <U1 of shape (1, 1), expected numbers"),
        (np.array([[{}]]), "cannot be decoded (ValueError: Array can't be memory-mapped: Python objects in dtype.)"),
    ],
)
def test_arrays_that_are_no_rasters(tmp_path: Path, array: NDArray[Any], expected: str) -> None:
    np.save(tmp_path / "a.npy", array)
    assert expected in refusal(every(5).read, tmp_path / "a.npy")
    assert expected in refusal(bands_header, tmp_path / "a.npy")


def test_numbers_that_are_not_real(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((2, 3, 2), np.complex64))
    expected = f"{path}: holds complex64 numbers, expected whole or real ones; convert it"
    assert refusal(every(2).read, path) == expected


def test_other_files(tmp_path: Path) -> None:
    picture = save(tmp_path / "a.png", values_of("uint8", 3))
    for function in (every(3).read, bands_header, lambda path: input_of(path, (1,))):
        expected = f"{picture}: is no TIFF; rasters of chosen bands are TIFF or .npy files"
        assert refusal(function, picture) == expected
        assert "no.tif: no such file" in refusal(function, tmp_path / "no.tif")
        assert "is a folder" in refusal(function, tmp_path)
    (tmp_path / "empty.tif").write_bytes(b"")
    assert "is empty (0 bytes)" in refusal(every(1).read, tmp_path / "empty.tif")
    # What GDAL would open by its name, its content, or through other drivers.
    (tmp_path / "a.vrt").write_text("<VRTDataset rasterXSize='2' rasterYSize='2'></VRTDataset>")
    assert "is no TIFF" in refusal(every(1).read, tmp_path / "a.vrt")


@pytest.mark.parametrize("options", LAYOUTS[:4], ids=str)
def test_damage_is_an_array_or_one_line(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = write(tmp_path / "a.tif", values_of("uint16", 5), **options).read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for case in range(60):
        content = bytearray(whole)
        if case % 2:
            content = content[: rng.integers(16, len(whole))]
        for place in rng.integers(8, min(len(content), 400 if case % 3 else len(content)), 4):
            content[place] = rng.integers(0, 256)
        (tmp_path / "b.tif").write_bytes(content)
        messages.append(outcome(tmp_path / "b.tif"))
    for message in filter(None, messages):
        assert message.startswith(f"{tmp_path / 'b.tif'}: ")
        assert "\n" not in message
    assert any(messages)
    (tmp_path / "b.tif").write_bytes(whole[: len(whole) // 2])
    assert "b.tif: cannot be decoded (" in refusal(every(5).read, tmp_path / "b.tif")


def test_threads_read_at_once(tmp_path: Path) -> None:
    written = [values_of("uint16", 2 + index) for index in range(8)]
    paths = [write(tmp_path / f"{index}.tif", each) for index, each in enumerate(written)]
    found: dict[int, NDArray[Any]] = {}
    workers = [
        threading.Thread(target=lambda index=index: found.update({index: every(2 + index).read(paths[index])}))
        for index in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index in range(8):
        np.testing.assert_array_equal(found[index], written[index])


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        ("uint8", 1, False), ("uint8", 3, False), ("uint8", 4, False), ("uint16", 1, False),
        ("uint8", 2, False), ("uint8", 5, True), ("uint16", 2, True), ("uint16", 3, True), ("int16", 4, True),
        ("float32", 1, True), ("int16", 1, True), ("int8", 1, True), ("int8", 3, True), ("uint32", 1, True),
        ("float32", 3, True), ("uint16", 10, True),
    ],
)  # fmt: skip
def test_what_no_picture_shows(tmp_path: Path, kind: str, count: int, expected: bool) -> None:
    path = write(tmp_path / "a.tif", values_of(kind, count))
    assert is_raster(path) == expected
    assert input_of(path) == (
        Input(BandsReader(every(count).bands), input_kind(bands_header(path))) if expected else Input()
    )


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ((4, 5), "uint8", False), ((4, 5, 1), "uint8", False), ((4, 5, 3), "uint8", False), ((4, 5, 4), "uint8", False),
        ((4, 5, 2), "uint8", True), ((4, 5, 7), "uint8", True), ((4, 5), "uint16", True), ((4, 5, 3), "float32", True),
        ((4, 5, 3), "bool", False), ((4,), "uint8", False),
    ],
)  # fmt: skip
def test_which_arrays_no_picture_shows(tmp_path: Path, shape: tuple[int, ...], kind: str, expected: bool) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, kind))
    assert is_raster(tmp_path / "a.npy") == expected


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA", "I;16", "LAB", "YCbCr"])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_pictures_are_no_rasters(tmp_path: Path, mode: str, suffix: str) -> None:
    if suffix == "png" and mode in ("CMYK", "LAB", "YCbCr"):
        pytest.skip("PNG has no such colours")
    Image.new(mode, (4, 3)).save(tmp_path / f"a.{suffix}")
    assert not is_raster(tmp_path / f"a.{suffix}")


def test_where_it_cannot_be_told_it_is_no_raster(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0damaged")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPYdamaged")
    for name in ("a.tif", "a.npy", "none.tif", "."):
        assert not is_raster(tmp_path / name)


def test_bands_and_what_is_shown_of_them(tmp_path: Path) -> None:
    names = ("B02", "B03", "B04", "B08", "B11")
    sentinel = bands_header(write(tmp_path / "s.tif", values_of("uint16", 5), names))
    assert sentinel.names == names
    plain = bands_header(write(tmp_path / "p.tif", values_of("uint16", 5)))
    assert input_kind(sentinel) == InputKind(5, (1, 2, 3, 4, 5), (3, 2, 1))
    assert input_kind(plain) == InputKind(5, (1, 2, 3, 4, 5), (1, 2, 3))
    assert input_kind(plain, (5, 4, 2, 1)) == InputKind(4, (5, 4, 2, 1), (5, 4, 2))
    assert input_kind(sentinel, (5, 1, 3, 2)) == InputKind(4, (5, 1, 3, 2), (3, 2, 1))
    assert input_kind(sentinel, (5, 4, 3)) == InputKind(3, (5, 4, 3), (5, 4, 3)), "green and blue are not there"
    assert input_kind(plain, (4, 2)) == InputKind(2, (4, 2), (4,))
    assert input_kind(sentinel, (1, 2, 3), (2,)) == InputKind(3, (1, 2, 3), (2,))
    assert all(input_kind(header).measured for header in (sentinel, plain))
    chosen = input_of(tmp_path / "s.tif", (5, 1), (1,))
    assert chosen == Input(BandsReader((5, 1)), InputKind(2, (5, 1), (1,)))
    assert input_of(tmp_path / "s.tif", (), (5,)).kind == InputKind(5, (1, 2, 3, 4, 5), (5,))


def test_a_preview_of_bands_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", values_of("uint8", 5))
    expected = f"{path}: preview names bands [1, 2, 6]; expected some of [1, 2, 3, 4, 5]"
    assert refusal(input_of, path, (), (1, 2, 6)) == expected


def test_bands_of_a_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", values_of("uint8", 3))
    assert input_of(path, (3, 1)).kind == InputKind(2, (3, 1), (3,))


def test_size_is_that_of_what_is_read(tmp_path: Path) -> None:
    raster = write(tmp_path / "a.tif", values_of("uint16", 5))
    assert size_of(raster, input_of(raster)) == SIZE
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (7, 5)).save(tmp_path / "b.jpg", exif=turned)
    assert size_of(tmp_path / "b.jpg", Input()) == (7, 5) == Input().reader.read(tmp_path / "b.jpg").shape[:2]
    assert picture_header(tmp_path / "b.jpg").size == (7, 5)


def test_without_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = write(tmp_path / "many.tif", values_of("uint16", 5))
    picture = write(tmp_path / "rgb.tif", values_of("uint8", 3))
    heights = [write(tmp_path / f"{kind}.tif", values_of(kind, 1)) for kind in ("int16", "float32")]
    array = tmp_path / "a.npy"
    np.save(array, values_of("uint16", 5))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    for function in (every(5).read, bands_header, input_of):
        with pytest.raises(OptionError) as caught:
            function(raster)
        expected = f"{raster}: rasters need rasterio; pip install 'fullconv[geo]'"
        assert str(caught.value) == expected
    assert input_of(picture) == Input(), "pictures do not need it"
    for path in heights:
        with pytest.raises(OptionError, match="rasters need rasterio"):
            input_of(path)
    assert input_of(array).kind.channels == every(5).read(array).shape[2] == 5


def test_a_real_scene(shared_data: Path) -> None:
    (path,) = (shared_data / "sentinel" / "images").glob("*.tif")
    (mask,) = (shared_data / "sentinel" / "masks").glob("*.tif")
    kind = input_of(path).kind
    with rasterio.open(path) as raster:
        assert (raster.count, raster.dtypes[0]) == (10, "uint16")
        named = [raster.descriptions.index(name) + 1 for name in ("B04", "B03", "B02") if name in raster.descriptions]
        assert kind == InputKind(10, tuple(range(1, 11)), tuple(named) if len(named) == 3 else (1, 2, 3))
        for band in (1, 10):
            found = BandsReader((band,)).read(path)
            np.testing.assert_array_equal(found[:, :, 0], raster.read(band))
    assert found.dtype == np.uint16
    with rasterio.open(mask) as raster:
        assert raster.dtypes == ("float32",)
        expected = raster.read(1)
    np.testing.assert_array_equal(MaskReader(255).read(mask), expected)
    assert expected.shape == size_of(path, input_of(path))
