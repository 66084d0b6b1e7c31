"""VRTs: what GDAL makes of them, and what they are not let do."""

from __future__ import annotations

import shutil
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio import shutil as gdal

import rasters
from fullconv.data import vrt
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
    path = rasters.write(tmp_path / "a b,ü!#?&.tif", values, nodata=3)
    place = tmp_path / "a.vrt"
    gdal.copy(str(path), str(place), driver="VRT")
    if not relative:
        text = place.read_text("utf-8").replace('relativeToVRT="1">', f'relativeToVRT="0">{tmp_path}/')
        place.write_text(text, "utf-8")
    with RasterReader(place) as reader, RasterReader(path) as plain:
        np.testing.assert_array_equal(reader.read((3, 40), (5, 40)), values[3:40, 5:40])
        assert reader.georeference == plain.georeference
        assert reader.nodata == 3
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
