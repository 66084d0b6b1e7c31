"""VRTs: what GDAL makes of them, and what they are not let do."""

from __future__ import annotations

import io
import os
import shutil
import struct
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rasterio import shutil as gdal

import rasters
from fullconv.data import vrt, windows
from fullconv.data.windows import RasterReader
from refusals import refusal

SOURCE = (
    '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
)


def text_of(inside: str, *, band: str = 'dataType="Byte"', root: str = "") -> str:
    return (
        f'<VRTDataset rasterXSize="30" rasterYSize="20"{root}><VRTRasterBand {band} band="1">{inside}</VRTRasterBand>'
        "</VRTDataset>"
    )


def source(name: str, relative: int = 1) -> str:
    return SOURCE.replace("a.tif", name).replace('VRT="1"', f'VRT="{relative}"')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a.tif, and one outside it."""
    for name in ("in/a.tif", "out/a.tif"):
        rasters.write(tmp_path / name, rasters.noise(20, 30, 1))
    return tmp_path / "in"


def refused(folder: Path, text: str) -> str:
    (folder / "a.vrt").write_text(text, "utf-8")
    message = refusal(RasterReader, folder / "a.vrt")
    assert str(folder) in message
    return message


def read(path: Path) -> NDArray[Any]:
    with RasterReader(path, (1,)) as reader:
        return reader.read((0, reader.size[0]), (0, reader.size[1]))


@pytest.mark.parametrize("relative", [True, False])
def test_what_gdal_writes_is_read(tmp_path: Path, relative: bool) -> None:
    values = rasters.noise(50, 40, 3)
    values[10:12] = 3
    path = rasters.write(tmp_path / "a b,ü!#?&.tif", values, nodata=3)
    place = tmp_path / "a.vrt"
    gdal.copy(str(path), str(place), driver="VRT")
    if not relative:
        text = place.read_text("utf-8").replace('relativeToVRT="1">', f'relativeToVRT="0">{tmp_path}/')
        place.write_text(text, "utf-8")
    with RasterReader(place) as reader, RasterReader(path) as plain:
        found = reader.window((3, 40), (5, 40))
        np.testing.assert_array_equal(found.values, values[3:40, 5:40])
        assert found.void is not None
        np.testing.assert_array_equal(found.void, (values[3:40, 5:40] == 3).all(axis=2))
        assert reader.georeference == plain.georeference
        assert reader.files == (place.resolve(), path.resolve())


def test_nested_ones(folder: Path) -> None:
    values = rasters.noise(20, 30, 1)
    (folder / "deep").mkdir()
    shutil.copy(folder / "a.tif", folder / "deep" / "a.tif")
    (folder / "deep" / "b.vrt").write_text(text_of(SOURCE))
    (folder / "c.vrt").write_text("\ufeff" + text_of(source("deep/b.vrt") + source("deep/b.vrt")), "utf-8")
    np.testing.assert_array_equal(read(folder / "c.vrt"), values)


def test_the_source_is_the_one_that_was_checked(folder: Path) -> None:
    """An absolute name and one in GDAL's own notation are told apart before GDAL sees them."""
    (folder / "DERIVED_SUBDATASET:AMPLITUDE:a.tif").write_bytes((folder / "a.tif").read_bytes())
    (folder / "b.vrt").write_text(text_of(source("DERIVED_SUBDATASET:AMPLITUDE:a.tif")))
    np.testing.assert_array_equal(read(folder / "b.vrt"), rasters.noise(20, 30, 1))


@pytest.mark.parametrize(
    "name",
    [
        "../out/a.tif", "deep/../../out/a.tif", "/etc/passwd", "/vsicurl/http://localhost:1/a.tif",
        "/vsizip/a.zip/a.tif", "/vsimem/a.tif", "link.tif", "linked/a.tif", ".", "..", "", "~/../../out/a.tif",
    ],
)  # fmt: skip
@pytest.mark.parametrize("relative", [0, 1])
def test_sources_outside_the_folder(folder: Path, name: str, relative: int) -> None:
    (folder / "deep").mkdir()
    (folder / "link.tif").symlink_to(folder.parent / "out" / "a.tif")
    (folder / "linked").symlink_to(folder.parent / "out")
    message = refused(folder, text_of(source(name, relative)))
    assert "not below the VRT's own folder" in message or "is no path relative to the VRT" in message


@pytest.mark.parametrize("name", ["http://localhost:1/a.tif", "NETCDF:a.nc:b", "HDF5:a.tif", "s3://a/b.tif"])
def test_sources_that_are_no_files(folder: Path, name: str) -> None:
    assert "no such file" in refused(folder, text_of(source(name)))
    assert "is no path relative to the VRT (relativeToVRT) nor an absolute one" in refused(
        folder, text_of(source(name, 0))
    )


def test_sources_of_other_formats(folder: Path) -> None:
    for name, content in (("a.bmp", b"BM" + bytes(60)), ("a.xml", b"<GDAL_WMS></GDAL_WMS>"), ("a.txt", b"x")):
        (folder / name).write_bytes(content)
        assert "is no TIFF, PNG, JPEG or VRT, expected one as a VRT's source" in refused(folder, text_of(source(name)))


HEADS = {"a.png": b"\x89PNG\r\n\x1a\n", "a.jpg": b"\xff\xd8\xff", "b.tif": b"II*\0", "c.tif": b"MM\0+"}
LISTS = ("VRTDataset", "GDALTileIndexDataset", "Table_of_Contents")


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("listed", [f"<{name}" for name in LISTS])
@pytest.mark.parametrize("before", [0, 1010])
def test_a_list_of_files_under_a_pictures_head(folder: Path, name: str, listed: str, before: int) -> None:
    """GDAL would take it for what comes later, and read any file that it names."""
    inside = text_of(source(str(folder.parent / "out" / "a.tif"), 0)).replace("<VRTDataset", listed)
    (folder / name).write_bytes(HEADS[name] + b" " * before + inside.encode())
    assert f"that holds {listed}, as no picture does; make a GeoTIFF of it" in refused(folder, text_of(source(name)))
    assert "cannot be opened" in refusal(RasterReader, folder / name)


def test_nor_in_a_comment_of_a_whole_jpeg(folder: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(rasters.noise(20, 30)).save(content, "JPEG")
    inside = text_of(source(str(folder.parent / "out" / "a.tif"), 0)).encode().ljust(300)
    whole = content.getvalue()
    (folder / "a.jpg").write_bytes(whole[:2] + b"\xff\xfe" + struct.pack(">H", len(inside) + 2) + inside + whole[2:])
    assert "a.jpg: is a JPEG that holds <VRTDataset" in refused(folder, text_of(source("a.jpg")))
    (folder / "plain.jpg").write_bytes(whole)
    (folder / "b.vrt").write_text(text_of(source("plain.jpg")))
    for path in (folder / "plain.jpg", folder / "a.jpg"):  # opened by itself it is a picture
        np.testing.assert_array_equal(read(folder / "b.vrt"), read(path))


@pytest.mark.parametrize("name", HEADS)
def test_sources_are_whole_pictures(folder: Path, name: str) -> None:
    (folder / name).write_bytes(HEADS[name] + bytes(100))
    assert f"{name}: cannot be opened" in refused(folder, text_of(source(name)))


def test_sources_are_decoded_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they must be when they are opened by themselves; the VRT's own blocks say nothing of them."""
    rasters.write(folder / "b.tif", rasters.noise(400, 600, 1), blockysize=400, compress="deflate")
    rasters.write(folder / "c.tif", rasters.noise(400, 600, 1), blockysize=8, compress="deflate")
    (folder / "deep.vrt").write_text(text_of(source("b.tif")))
    monkeypatch.setattr(windows, "MAX_BLOCK", 2**17)
    for name in ("b.tif", "deep.vrt"):
        message = refused(folder, text_of(SOURCE + source(name)))
        assert "b.tif: comes in blocks of 400 x 600 pixels (H x W), too large to be decoded in parts" in message
    (folder / "d.vrt").write_text(text_of(source("c.tif")))
    np.testing.assert_array_equal(read(folder / "d.vrt"), read(folder / "c.tif")[:20, :30])


def rectangles(given: str, made: str, how: str = ' resampling="average"') -> str:
    """A source of given "width height" that becomes so many pixels."""
    sides = [
        '<{} xOff="0" yOff="0" xSize="{}" ySize="{}"/>'.format(tag, *text.split())
        for tag, text in (("SrcRect", given), ("DstRect", made))
    ]
    return SOURCE.replace("<SimpleSource", f"<SimpleSource{how}").replace(
        "</SimpleSource>", "".join(sides) + "</SimpleSource>"
    )


@pytest.mark.parametrize(
    ("given", "made", "said"),
    [
        ("60000 60000", "64 64", "resamples (average) 3600000000 pixels of a source to 4096, expected"),
        ("30 20", "7.4 5", "resamples (average) 600 pixels of a source to 37, expected at most 16 to one; make a"),
        ("30 20", "0 5", "600 pixels of a source to 0"), ("0 20", "30 20", "0 pixels of a source to 600"),
        ("30 20", "1_000 5", "to nan"), ("x 20", "30 20", "nan pixels"), ("-30 -20", "30 20", "nan pixels"),
        ("30 20", "inf 5", "to nan"),
    ],
)  # fmt: skip
def test_sources_that_are_made_much_smaller(folder: Path, given: str, made: str, said: str) -> None:
    """GDAL holds all of them at once."""
    assert said in refused(folder, text_of(rectangles(given, made)))
    assert said in refused(folder, text_of(rectangles(given, made).replace("SimpleSource", "ComplexSource")))


def test_sources_that_are_resampled(folder: Path) -> None:
    for made, how in (("30 20", ""), ("3 2", ""), ("3 2", ' resampling="nearest"'), ("7.5 5", ' resampling="average"')):
        (folder / "b.vrt").write_text(text_of(rectangles("30 20", made, how)))
        assert read(folder / "b.vrt").any()
    assert "nan pixels of a source" in refused(
        folder, text_of(SOURCE.replace("Source>", 'Source resampling="cubic">', 1))
    )
    assert "is a VRT inside another and resamples a source (average)" in refused(folder, text_of(source("b.vrt")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (text_of(rectangles("30 20", "1 1", ' Resampling="average"')), "has Resampling, expected resampling"),
        (text_of(SOURCE, band='dataType="Byte" SUBCLASS="VRTRawRasterBand"'), "has SUBCLASS, expected subClass"),
        (text_of(rectangles("30 20", "30 20").replace("xSize", 'XSIZE="1" xSize')), "has XSIZE, expected xSize"),
    ],
)  # fmt: skip
def test_names_that_gdal_reads_in_any_case(folder: Path, text: str, said: str) -> None:
    assert f"{said}; make the VRT again" in refused(folder, text)


def test_folders_whose_names_are_not_utf8(folder: Path) -> None:
    """XML could name no file there, and GDAL would read black."""
    odd = folder / os.fsdecode(b"\xff")
    odd.mkdir()
    (odd / "a.tif").write_bytes((folder / "a.tif").read_bytes())
    (odd / "b.vrt").write_text(text_of(SOURCE))
    message = refusal(RasterReader, odd / "b.vrt")
    assert "source 'a.tif' is no file's path (UnicodeEncodeError" in message
    with RasterReader(odd / "a.tif", (1,)) as reader, RasterReader(folder / "a.tif", (1,)) as plain:
        np.testing.assert_array_equal(reader.read((0, 20), (0, 30)), plain.read((0, 20), (0, 30)))
        assert reader.georeference == plain.georeference
        link = Path(reader._dataset.name)
        assert link.is_symlink()
    assert not link.is_symlink()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (text_of(SOURCE, band='subClass="VRTDerivedRasterBand"'), "is of the kind VRTDerivedRasterBand"),
        (text_of(SOURCE, band='dataType="Byte" subClass="VRTRawRasterBand"'), "is of the kind VRTRawRasterBand"),
        (text_of(SOURCE, band='dataType="Byte" subClass="VRTWarpedRasterBand"'), "is of the kind"),
        (text_of(SOURCE, root=' subClass="VRTWarpedDataset"'), "is of the kind VRTWarpedDataset"),
        (text_of(SOURCE, root=' subClass="VRTProcessedDataset"'), "is of the kind VRTProcessedDataset"),
        (text_of("<PixelFunctionType>x</PixelFunctionType>" + SOURCE), "holds <PixelFunctionType>"),
        (text_of("<PixelFunctionCode>import os</PixelFunctionCode>" + SOURCE), "holds <PixelFunctionCode>"),
        (text_of("<PixelFunctionLanguage>Python</PixelFunctionLanguage>" + SOURCE), "holds <PixelFunctionLanguage>"),
        (text_of(SOURCE.replace("<SourceBand>", "<OpenOptions></OpenOptions><SourceBand>")), "holds <OpenOptions>"),
        (text_of(SOURCE).replace("</VRTDataset>", "<GDALWarpOptions/></VRTDataset>"), "holds <GDALWarpOptions>"),
        (text_of(SOURCE.replace("SimpleSource", "ArraySource")), "holds <ArraySource>"),
        (text_of(SOURCE.replace("SimpleSource", "KernelFilteredSource")), "holds <KernelFilteredSource>"),
        (text_of("<SimpleSource><SourceBand>1</SourceBand></SimpleSource>"), "names no file, or several"),
        (text_of(SOURCE.replace("<SourceBand>", "<SourceFilename>b</SourceFilename><SourceBand>")), "several"),
        ("<VRTDataset><Group/></VRTDataset>", "holds <Group>"),
        ("<VRTDataset", "is no raster"),
        ("<VRTDataset >", "is not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + text_of("&b;"), "is no raster"),
        ("<VRTDataset ><!DOCTYPE a></VRTDataset>", "is not valid XML"),
        (text_of("&b;"), "is not valid XML"),
        ("<VRTDataset />", "cannot be opened"),
        (text_of(SOURCE, band='dataType="CFloat32"'), "holds complex64"),
    ],
)  # fmt: skip
def test_what_is_refused(folder: Path, text: str, said: str) -> None:
    assert said in refused(folder, text)


def test_a_mask_may_not_leave_the_folder_either(folder: Path) -> None:
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{source("../out/a.tif")}</VRTRasterBand></MaskBand>'
    text = text_of(SOURCE)
    assert "not below" in refused(folder, text.replace("</VRTDataset>", mask + "</VRTDataset>"))
    assert "not below" in refused(folder, text.replace("</VRTRasterBand>", mask + "</VRTRasterBand>"))


def test_what_changes_no_pixel_is_dropped(folder: Path) -> None:
    overview = "<Overview><SourceFilename>/etc/passwd</SourceFilename><SourceBand>1</SourceBand></Overview>"
    (folder / "b.vrt").write_text(text_of(SOURCE + overview + "<UnitType>m</UnitType>"))
    assert b"passwd" not in vrt.checked_vrt(folder / "b.vrt", bytes.decode).text
    np.testing.assert_array_equal(read(folder / "b.vrt"), rasters.noise(20, 30, 1))


def test_how_much_is_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "loop.vrt").write_text(text_of(source("loop.vrt")))
    assert "is a VRT inside 4 others" in refusal(RasterReader, folder / "loop.vrt")
    for level in range(5):
        below = f"{level - 1}.vrt" if level else "a.tif"
        (folder / f"{level}.vrt").write_text(text_of(source(below) * 10))
    assert read(folder / "3.vrt").shape == (20, 30, 1)
    assert "0.vrt: is a VRT inside 4 others" in refusal(RasterReader, folder / "4.vrt")
    monkeypatch.setattr(vrt, "MAX_SOURCES", 999)
    assert "reads more than 999 sources" in refusal(RasterReader, folder / "2.vrt")
    assert read(folder / "1.vrt").shape == (20, 30, 1)
    monkeypatch.setattr(vrt, "MAX_BYTES", 2**20)
    assert "is larger than 1 MiB" in refused(folder, text_of(SOURCE + " " * 2**20))


@pytest.mark.parametrize("before", ["", "\ufeff", ' \n<?xml version="1.0"?>\n', "<!-- a > b -->\n<!-- - -- -->"])
def test_how_they_begin(before: str) -> None:
    assert vrt.is_vrt((before + "<VRTDataset a=").encode())
    assert not vrt.is_vrt((before + "<VRTDatasets>").encode())


def test_no_document_type(folder: Path) -> None:
    (folder / "a.vrt").write_text("<!DOCTYPE VRTDataset []>" + text_of(SOURCE))
    assert "is not valid XML (DTDForbidden" in refusal(vrt.checked_vrt, folder / "a.vrt", bytes.decode)


def test_a_beginning_is_looked_at_in_no_time() -> None:
    started = monotonic()
    assert not vrt.is_vrt(b"<!---->" * 146)
    assert monotonic() - started < 1


def test_sources_that_vanish(folder: Path) -> None:
    (folder / "b.vrt").write_text(text_of(SOURCE))
    with RasterReader(folder / "b.vrt") as reader:
        (folder / "a.tif").unlink()
        assert "a.tif: has vanished while it was read" in refusal(reader.read, (0, 9), (0, 9))
