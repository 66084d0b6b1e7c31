"""Windows of rasters are what rasterio reads of them; what cannot be read is told in one line."""

from __future__ import annotations

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib import util
from itertools import product
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import rasters
from fullconv.data import windows
from fullconv.data.bands import BandsReader
from fullconv.data.image import read_image
from fullconv.data.windows import RasterReader
from fullconv.errors import DataError, GeometryError, OptionError
from refusals import refusal

KINDS = ["uint8", "uint16", "int16", "float32", "float64", "int32"]


def whole(path: Path, bands: tuple[int, ...] = ()) -> NDArray[Any]:
    with RasterReader(path, bands) as reader:
        values = reader.read((0, reader.size[0]), (0, reader.size[1]))
        assert (values.shape, values.dtype) == ((*reader.size, reader.count), reader.dtype)
        assert values.flags.c_contiguous
        return values


def void(path: Path, bands: tuple[int, ...] = ()) -> NDArray[np.bool_]:
    with RasterReader(path, bands) as reader:
        found = reader.window((0, reader.size[0]), (0, reader.size[1])).void
        return np.zeros(reader.size, bool) if found is None else found


def opening(path: Path, bands: tuple[int, ...] = ()) -> str:
    return refusal(RasterReader, path, bands)


@given(top=st.integers(0, 40), rows=st.integers(1, 41), left=st.integers(0, 60), columns=st.integers(1, 61))
@settings(max_examples=25)
def test_a_window_is_that_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, top: int, rows: int, left: int, columns: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "window.tif"
    values = rasters.noise(41, 61, 4, "uint16")
    if not path.exists():
        rasters.write(path, values, tiled=True, blockxsize=16, blockysize=32, compress="deflate")
    spans = (top, min(top + rows, 41)), (left, min(left + columns, 61))
    with RasterReader(path, (3, 1)) as reader:
        found = reader.read(*spans)
        assert reader.window(*spans).void is None
    np.testing.assert_array_equal(found, values[slice(*spans[0]), slice(*spans[1])][:, :, [2, 0]])


@pytest.mark.parametrize(("kind", "nodata"), list(product(KINDS, (None, 7))))
def test_bands_are_those_of_the_reader_of_wholes(tmp_path: Path, kind: str, nodata: float | None) -> None:
    values = rasters.noise(33, 21, 5).astype(kind)
    values[:4] = 7
    values[4:6, :, 1] = 7
    if kind.startswith("float"):
        values[10, :9, 2], values[11, :, :] = np.inf, np.nan
    path = rasters.write(tmp_path / "a.tif", values, nodata=nodata)
    np.testing.assert_array_equal(whole(path, (2, 5, 3)), BandsReader((2, 5, 3)).read(path))
    lost = np.all(~np.isfinite(values[:, :, [1, 4, 2]]) | (values[:, :, [1, 4, 2]] == nodata), axis=2)
    np.testing.assert_array_equal(void(path, (2, 5, 3)), lost)
    assert lost[:4].all() == (nodata is not None)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float64"])
def test_the_type_is_what_a_net_takes(tmp_path: Path, kind: str) -> None:
    path = rasters.write(tmp_path / "a.tif", rasters.noise(3, 4, 2).astype(kind), nodata=9)
    with RasterReader(path, (1, 2)) as reader:
        assert (reader.size, reader.count) == ((3, 4), 2)
        assert reader.dtype == (np.float32 if kind == "float64" else kind)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P"])
def test_pictures_are_as_they_are_read_elsewhere(tmp_path: Path, suffix: str, mode: str) -> None:
    if suffix == "jpg" and mode not in ("RGB", "L"):
        return
    path = tmp_path / f"a.{suffix}"
    picture = Image.fromarray(rasters.noise(37, 29, 3)).convert(mode)
    picture.save(path, **({"subsampling": 0} if suffix == "jpg" else {}))  # decoders differ in making up colours
    with Image.open(path) as image:  # Pillow as the oracle; alpha is dropped without blending
        shown = image.convert("RGBA").convert("RGB") if "A" in mode else image.convert("RGB")
        # Two JPEG decoders may differ by a rounding.
        np.testing.assert_allclose(whole(path).astype(int), np.asarray(shown).astype(int), atol=suffix == "jpg")
        alpha = np.asarray(image.getchannel("A")) if "A" in mode else None
    np.testing.assert_array_equal(void(path), np.zeros((37, 29), bool) if alpha is None else alpha == 0)


def smooth() -> Image.Image:
    y, x = np.mgrid[:96, :96]
    return Image.fromarray(np.stack([2 * x + 20, 2 * y + 20, x + y], axis=2).astype(np.uint8))


@pytest.mark.parametrize(("name", "apart"), [("coarse.jpg", 2), ("cmyk.jpg", 0), ("cmyk.tif", 0), ("ycc.tif", 1)])
def test_other_colours(tmp_path: Path, name: str, apart: int) -> None:
    """Of coarse chroma on smooth colours: what lies between is filled in, and decoders differ in that."""
    path = tmp_path / name
    mode = {"coarse": "RGB", "cmyk": "CMYK", "ycc": "YCbCr"}[path.stem]
    smooth().convert(mode).save(path, **({"subsampling": 2, "quality": 95} if mode == "RGB" else {}))
    np.testing.assert_allclose(whole(path).astype(int), read_image(path).astype(int), atol=apart)


def test_coarse_chroma_in_a_tiff(tmp_path: Path) -> None:
    path = rasters.write(tmp_path / "a.tif", np.asarray(smooth()), photometric="YCBCR", compress="JPEG")
    np.testing.assert_allclose(whole(path).astype(int), read_image(path).astype(int), atol=4)


def test_cielab_is_refused(tmp_path: Path) -> None:
    """Of which GDAL would make other colours than Pillow."""
    path = rasters.write(tmp_path / "a.tif", np.asarray(smooth()), photometric="CIELAB")
    assert opening(path).endswith("holds CIELAB colours, and this net takes red, green and blue; export it as RGB")


@pytest.mark.parametrize("wide", [37, 8])
def test_one_bit_is_black_and_white(tmp_path: Path, wide: int) -> None:
    for suffix, save in (("tif", {"compression": "group4"}), ("png", {})):
        picture = Image.fromarray(rasters.noise(19, wide, 3)).convert("1")
        picture.save(tmp_path / f"a.{suffix}", **save)
        np.testing.assert_array_equal(whole(tmp_path / f"a.{suffix}"), np.asarray(picture.convert("RGB")))


def test_white_is_zero(tmp_path: Path) -> None:
    values = rasters.noise(5, 4, 1)
    path = rasters.write(tmp_path / "a.tif", values, photometric="MINISWHITE")
    np.testing.assert_array_equal(whole(path), np.repeat(255 - values, 3, axis=2))


def test_colours_are_found_wherever_they_are(tmp_path: Path) -> None:
    values = rasters.noise(6, 5, 5)
    path = rasters.write(tmp_path / "a.tif", values, photometric="MINISBLACK")
    kinds = rasterio.enums.ColorInterp
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [kinds.blue, kinds.undefined, kinds.green, kinds.red, kinds.undefined]
    np.testing.assert_array_equal(whole(path), values[:, :, [3, 2, 0]])


def test_three_bands_of_no_name_are_colours(tmp_path: Path) -> None:
    values = rasters.noise(6, 5, 3)
    np.testing.assert_array_equal(whole(rasters.write(tmp_path / "a.tif", values, photometric="MINISBLACK")), values)


@pytest.mark.parametrize(
    ("count", "bits", "options"),
    [
        (1, 16, {}), (1, 12, {"nbits": 12}), (1, 16, {"photometric": "MINISWHITE"}), (3, 16, {"photometric": "RGB"}),
        (4, 16, {"photometric": "RGB", "alpha": "yes"}), (4, 16, {"photometric": "RGB", "alpha": "no"}),
    ],
)  # fmt: skip
def test_16_bits_are_as_a_picture_of_them_is_read(
    tmp_path: Path, count: int, bits: int, options: dict[str, Any]
) -> None:
    values = rasters.noise(37, 29, count, "uint16") >> (16 - bits)
    values[3:6] = 0
    values[..., 3:] = 9  # opaque
    path = rasters.write(tmp_path / "a.tif", values, nodata=0, **options)
    assert whole(path).dtype == np.uint8
    np.testing.assert_array_equal(whole(path), read_image(path))
    np.testing.assert_array_equal(void(path), (values[..., :3] == 0).all(axis=2))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("mode", ["I;16", "LA;16", "RGB;16"])
def test_16_bit_pngs_too(tmp_path: Path, mode: str) -> None:
    values = rasters.noise(37, 29, {"I;16": 1, "LA;16": 2, "RGB;16": 3}[mode], "uint16")
    path = tmp_path / "a.png"
    shape = {"height": 37, "width": 29, "count": values.shape[2], "dtype": "uint16", "driver": "PNG"}
    with rasterio.open(path, "w", **shape) as raster:
        raster.write(np.moveaxis(values, 2, 0))
    np.testing.assert_array_equal(whole(path), read_image(path))


def test_masks_and_nodata_are_void(tmp_path: Path) -> None:
    values, valid = rasters.noise(20, 30, 3), np.ones((20, 30), bool)
    valid[3:9, 5:20] = False
    np.testing.assert_array_equal(void(rasters.write(tmp_path / "mask.tif", values, mask=valid)), ~valid)
    values[:5] = 0
    values[10, :, 1] = 0
    path = rasters.write(tmp_path / "nodata.tif", values, nodata=0)
    np.testing.assert_array_equal(void(path), (values == 0).all(axis=2))


def test_files_beside_it_are_not_looked_at(tmp_path: Path) -> None:
    values = rasters.noise(40, 40, 3)
    path = rasters.write(tmp_path / "a.tif", values)
    rasters.write(tmp_path / "a.tif.msk", np.zeros((40, 40, 1), np.uint8))
    for name in ("a.tif", "b.png"):
        (tmp_path / f"{name}.aux.xml").write_text(
            '<PAMDataset><PAMRasterBand band="1"><NoDataValue>3</NoDataValue></PAMRasterBand></PAMDataset>'
        )
    Image.fromarray(values).save(tmp_path / "b.png")
    (tmp_path / "b.pgw").write_text("1\n0\n0\n-1\n5\n6\n")
    with RasterReader(path) as reader, RasterReader(tmp_path / "b.png") as other:
        assert reader.window((0, 40), (0, 40)).void is other.window((0, 40), (0, 40)).void is None
        assert other.georeference.transform is None
    with rasterio.open(path) as raster:  # they would be, otherwise
        assert raster.nodata == 3


def test_what_is_no_raster(tmp_path: Path) -> None:
    assert "no such file" in opening(tmp_path / "none.tif")
    assert "is a folder" in opening(tmp_path)
    (tmp_path / "empty.tif").touch()
    assert "is empty" in opening(tmp_path / "empty.tif")
    (tmp_path / "text.tif").write_text("no raster")
    assert opening(tmp_path / "text.tif").endswith("expected a GeoTIFF, PNG, JPEG or VRT; convert it to GeoTIFF")
    Image.new("RGB", (3, 3)).save(tmp_path / "a.bmp")
    assert "is no raster" in opening(tmp_path / "a.bmp")
    (tmp_path / "short.tif").write_bytes(rasters.write(tmp_path / "a.tif", rasters.noise(9, 9)).read_bytes()[:200])
    assert "cannot be opened" in opening(tmp_path / "short.tif")
    assert "takes for one of its own" in opening(Path("/vsimem/a.tif"))
    assert "takes for one of its own" in opening(Path("/vsicurl/http://localhost/a.tif"))


def test_without_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    monkeypatch.setattr(windows, "find_spec", lambda name: None if name == "rasterio" else found(name))
    with pytest.raises(OptionError, match=r"rasters need rasterio; pip install 'fullconv\[geo\]'"):
        RasterReader(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("kind", "count", "options", "bands", "said"),
    [
        ("uint16", 3, {}, (), "holds uint16 numbers, and this net takes colours of 8 bits; scale it"),
        ("int16", 1, {}, (), "gdal_translate -ot Byte -scale"),
        ("uint16", 3, {"photometric": "RGB", "nbits": 12}, (), "gdal_translate -ot Byte -scale"),
        ("float32", 1, {}, (), "holds float32 numbers"),
        ("uint8", 5, {"photometric": "MINISBLACK"}, (), "has 5 bands (gray, undefined, undefined, undefined, undefin"),
        ("uint8", 2, {"photometric": "MINISBLACK"}, (), "takes red, green and blue"),
        ("uint8", 3, {}, (1, 4), "has 3 bands, and band 4 is asked for"),
        ("uint8", 3, {}, (0,), "band 0 is asked for"),
        ("complex64", 2, {}, (1,), "holds complex64 numbers"),
    ],
)
def test_bands_that_a_net_cannot_take(
    tmp_path: Path, kind: str, count: int, options: dict[str, Any], bands: tuple[int, ...], said: str
) -> None:
    values = rasters.noise(4, 4, count).astype(kind)
    assert said in opening(rasters.write(tmp_path / "a.tif", values, **options), bands)


@pytest.mark.parametrize("window", [((0, 11), (0, 1)), ((3, 3), (0, 1)), ((0, 1), (-1, 1)), ((0, 1), (5, 2))])
def test_windows_outside(tmp_path: Path, window: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with (
        RasterReader(rasters.write(tmp_path / "a.tif", rasters.noise(10, 10))) as reader,
        pytest.raises(GeometryError, match=r"are asked for, expected some of \[0, 10\)"),
    ):
        reader.read(*window)


@pytest.mark.parametrize("compress", ["none", "deflate", "lzw", "jpeg", "zstd"])
def test_damage_is_told_where_it_is(tmp_path: Path, compress: str) -> None:
    path = rasters.write(tmp_path / "a.tif", rasters.noise(200, 64), compress=compress, blockysize=8)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with RasterReader(path) as reader:
        assert reader.read((0, 40), (0, 64)).any()
        with pytest.raises(DataError) as caught:
            reader.read((150, 200), (3, 40))
    assert "cannot be read in rows [150, 200], columns [3, 40] (" in str(caught.value)
    assert str(caught.value).endswith("the file is damaged there: copy or export it again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_cut_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rasters.noise(200, 100)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with RasterReader(path) as reader, pytest.raises(DataError, match="is damaged there"):
        reader.read((150, 200), (0, 100))


def test_files_that_change_or_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "LOOKED", 0)
    path = rasters.write(tmp_path / "a.tif", rasters.noise(20, 20))
    with RasterReader(path) as reader:
        reader.read((0, 20), (0, 20))
        os.utime(path, ns=(1, 1))
        assert "a.tif: was changed while it was read" in refusal(reader.read, (0, 20), (0, 20))
        path.unlink()
        assert "a.tif: has vanished while it was read" in refusal(reader.read, (0, 20), (0, 20))


def test_files_are_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now, looks = rasters.write(tmp_path / "a.tif", rasters.noise(20, 20)), 100.0, 0
    stamp = windows._stamp

    def counted(file: Path) -> tuple[int, int, int] | None:
        nonlocal looks
        looks += 1
        return stamp(file)

    monkeypatch.setattr("fullconv.data.windows.time.monotonic", lambda: now)
    monkeypatch.setattr(windows, "_stamp", counted)
    with RasterReader(path) as reader:
        assert reader.stamps == ((path.stat().st_size, path.stat().st_mtime_ns),)
        looks = 0
        for later, expected in ((0.0, 0), (0.9, 0), (1.0, 1), (1.9, 1), (2.1, 2)):
            now = 100 + later
            reader.read((0, 20), (0, 20))
            assert looks == expected
        os.utime(path, ns=(1, 1))
        reader.read((0, 20), (0, 20))
        assert "a.tif: was changed while it was read" in refusal(reader.require_unchanged)


def test_blocks_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strip = rasters.write(tmp_path / "a.tif", rasters.noise(100, 100), blockysize=100, compress="deflate")
    planes = rasters.write(
        tmp_path / "b.tif", rasters.noise(100, 100), blockysize=100, compress="deflate", interleave="band"
    )
    monkeypatch.setattr(windows, "MAX_BLOCK", 29999)
    assert "comes in blocks of 100 x 100 pixels (H x W), too large to be decoded in parts" in opening(strip)
    assert whole(planes).shape == (100, 100, 3)
    monkeypatch.setattr(windows, "MAX_BLOCK", 30000)
    assert whole(strip).shape == (100, 100, 3)


def test_interlaced_pngs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, row = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1), zlib.compress(b"\0\x07")
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b""))
    assert whole(path).tolist() == [[[7, 7, 7]]]
    monkeypatch.setattr(windows, "MAX_BLOCK", 0)
    assert "is interlaced, and too large to be decoded whole" in opening(path)


def test_rasters_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rasters.write(tmp_path / "a.tif", rasters.noise(10, 10))
    monkeypatch.setattr(windows, "LARGEST", 99)
    assert "is 10 x 10 pixels (H x W), at most 99 in all; crop it" in opening(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "big.tif"])
def test_pictures_to_be_turned(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    for orientation in (1, 6) if suffix.endswith("tif") else (0, 1, 6, 9):
        path = tmp_path / f"{orientation}.{suffix}"
        exif[0x0112] = orientation
        if suffix.endswith("tif"):
            Image.new("RGB", (8, 9)).save(path, tiffinfo={0x0112: orientation}, big_tiff=suffix == "big.tif")
        else:
            Image.new("RGB", (8, 9)).save(path, exif=exif)
        if orientation == 6:
            assert "is to be turned (orientation 6), expected it upright; save it so" in opening(path)
        else:
            assert whole(path).shape == (9, 8, 3)


def test_damaged_exif_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 9)).save(path, exif=b"Exif\0\0" + b"\xff" * 40)
    assert whole(path).shape == (9, 8, 3)


def test_pages(tmp_path: Path) -> None:
    pages = [Image.fromarray(rasters.noise(9, width)) for width in (5, 6, 7)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert "holds 3 pages, expected one; take one out: gdal_translate" in opening(tmp_path / "a.tif")
    path = rasters.write(tmp_path / "b.tif", rasters.noise(600, 600), mask=np.ones((600, 600), bool))
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4])
    assert whole(path).shape == (600, 600, 3)  # overviews and masks are none


def test_threads_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = rasters.noise(64, 64)
    path = rasters.write(tmp_path / "a.tif", values, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    inside, most = 0, 0

    class Slow:
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def read(self, *bands: Any, **window: Any) -> Any:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            sleep(0.001)
            found = self.dataset.read(*bands, **window)
            inside -= 1
            return found

        def close(self) -> None:
            self.dataset.close()

    with RasterReader(path) as reader, ThreadPoolExecutor(4) as pool:
        monkeypatch.setattr(reader, "_dataset", Slow(reader._dataset))
        rows = [(top, top + 16) for top in range(48)]
        for (top, end), found in zip(rows, pool.map(lambda span: reader.read(span, (0, 64)), rows), strict=True):
            np.testing.assert_array_equal(found, values[top:end])
        monkeypatch.undo()
    assert most == 1


def test_the_palette_of_a_map(shared_data: Path) -> None:
    with RasterReader(shared_data / "cog" / "cog_cmap.tif") as reader:
        found = reader.window((3000, 3400), (2000, 2500))
    with rasterio.open(shared_data / "cog" / "cog_cmap.tif") as raster:
        numbers = raster.read(1, window=((3000, 3400), (2000, 2500)))
        table = np.array([raster.colormap(1)[number][:3] for number in range(256)], np.uint8)
    np.testing.assert_array_equal(found.values, table[numbers])
    assert found.void is not None
    np.testing.assert_array_equal(found.void, numbers == 0)
