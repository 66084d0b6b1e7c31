"""Finished files: what rasterio and GDAL's layout say of them, and where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio import shutil as gdal
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

import rasters
from fullconv.data.georeference import Georeference
from fullconv.data.windows import RasterReader
from fullconv.errors import DataError
from fullconv.inference import cog
from fullconv.inference.cog import confidence_cog, labels_cog
from fullconv.labels import LabelSet
from refusals import refusal

NAMES = LabelSet(('a "b" <c> &', "Wälder\n", "\x01\ud800"), ((1, 2, 3), (40, 50, 60), (255, 0, 255)))
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIZE = (1100, 1300)


def numbers(height: int, width: int) -> NDArray[np.uint8]:
    """Labels in patches, some void."""
    rows, columns = np.mgrid[:height, :width]
    labels = ((rows // 37 + columns // 51) % 3).astype(np.uint8)
    labels[5:90, 11:200] = 255
    return labels


def finished(folder: Path, labels: NDArray[np.uint8], place: Georeference | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    labels.tofile(folder / "labels.raw")
    labels_cog(folder / "labels.raw", folder / "labels.tif", labels.shape, NAMES, place or Georeference())
    return folder / "labels.tif"


def test_labels(tmp_path: Path) -> None:
    labels = numbers(*SIZE)
    with rasterio.open(finished(tmp_path, labels)) as raster:
        np.testing.assert_array_equal(raster.read(1), labels)
        np.testing.assert_array_equal(raster.dataset_mask() == 0, labels == 255)
        assert (raster.count, raster.dtypes, raster.nodata) == (1, ("uint8",), 255)
        assert raster.block_shapes == [(512, 512)]
        assert raster.compression.name == "deflate"
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.colorinterp == (ColorInterp.palette,)
        table = [raster.colormap(1)[number] for number in range(256)]
        assert [colour[:3] for colour in table] == [tuple(colour) for colour in NAMES.palette().tolist()]
        assert [colour[3] for colour in table] == [255] * 255 + [0]
        tags = raster.tags()
        assert [tags[f"CLASS_{number}"] for number in range(3)] == ['a "b" <c> &', "Wälder\\n", "\\x01\\ud800"]
        assert raster.overviews(1) == [2, 4]
    with rasterio.open(tmp_path / "labels.tif", overview_level=0) as raster:
        assert set(np.unique(raster.read(1))) == {0, 1, 2, 255}


def test_overviews_show_the_most_frequent_class(tmp_path: Path) -> None:
    labels = np.zeros((1024, 1024), np.uint8)
    labels[::2, ::2] = 2
    labels[1, 1] = labels[1, 0] = 2
    with rasterio.open(finished(tmp_path, labels), overview_level=0) as raster:
        found = raster.read(1)
    assert found[0, 0] == 2
    assert found.sum() == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (513, 2), (512, 512)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    labels = rasters.noise(*size, 1)[:, :, 0]
    with rasterio.open(finished(tmp_path, labels)) as raster:
        np.testing.assert_array_equal(raster.read(1), labels)


@pytest.mark.parametrize("size", [(3, 5), (700, 520)])
def test_confidences(tmp_path: Path, size: tuple[int, int]) -> None:
    values = np.moveaxis(rasters.noise(*size, 3), 2, 0)
    values.tofile(tmp_path / "confidence.raw")
    place = Georeference(transform=rasters.PLACE.to_gdal(), crs=rasterio.CRS.from_epsg(32633).wkt)
    confidence_cog(tmp_path / "confidence.raw", tmp_path / "a.tif", size, NAMES, place)
    with rasterio.open(tmp_path / "a.tif") as raster:
        np.testing.assert_array_equal(raster.read(), values)
        assert raster.descriptions == ('a "b" <c> &', "Wälder\\n", "\\x01\\ud800")
        assert raster.scales == (1 / 255,) * 3
        assert raster.offsets == (0,) * 3
        assert raster.nodata is None
        assert raster.mask_flag_enums == ([rasterio.enums.MaskFlags.all_valid],) * 3
        assert raster.interleaving.name == "pixel"
        assert (raster.crs, raster.transform) == ("EPSG:32633", rasters.PLACE)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", rasters.PLACE),
        ("EPSG:4326", rasterio.Affine(0.01, 0, -180, 0, -0.01, 90)),
        ("EPSG:3857", rasterio.Affine(1.1943285669558765, 0.3, -8843764.172594871, 0.2, -1.1, 4848553.578185286)),
        ("EPSG:2056", rasterio.Affine(2, 0, 0, 0, 2, 0)),
        (None, rasters.PLACE),
        ("EPSG:32633", rasterio.Affine.identity()),
        ("+proj=ortho +lat_0=45 +lon_0=7 +ellps=GRS80", rasters.PLACE),
        ('LOCAL_CS["a & <b>",UNIT["metre",1]]', rasters.PLACE),
    ],
)
@pytest.mark.parametrize("pixel", ["Area", "Point"])
def test_the_place_is_the_sources(tmp_path: Path, crs: str | None, transform: Any, pixel: str) -> None:
    source = rasters.write(tmp_path / "a.tif", rasters.noise(20, 30), crs=crs, transform=transform)
    with rasterio.open(source, "r+") as raster:
        raster.update_tags(AREA_OR_POINT=pixel)
    with RasterReader(source) as reader:
        out = finished(tmp_path / "out", numbers(20, 30), reader.georeference)
    with rasterio.open(source) as was, rasterio.open(out) as raster:
        assert raster.crs == was.crs
        assert raster.transform.almost_equals(was.transform, 1e-12)
        assert [each.tags().get("AREA_OR_POINT", "Area") for each in (was, raster)] == [pixel] * 2


def test_control_points_and_coefficients_are_the_sources(tmp_path: Path) -> None:
    source = tmp_path / "a.tif"
    points = [
        GroundControlPoint(row, column, 7 + column / 9, 50 - row / 7, 3.5) for row in (0, 20) for column in (0, 30.25)
    ]
    with rasterio.open(source, "w", driver="GTiff", height=20, width=30, count=1, dtype="uint8") as raster:
        raster.gcps = points, "EPSG:4326"
    coefficients = " ".join(["0.5"] * 20)
    rpc = {
        "LINE_OFF": "1", "SAMP_OFF": "2", "LAT_OFF": "3", "LONG_OFF": "4", "HEIGHT_OFF": "5", "LINE_SCALE": "6",
        "SAMP_SCALE": "7", "LAT_SCALE": "8", "LONG_SCALE": "9", "HEIGHT_SCALE": "10", "LINE_NUM_COEFF": coefficients,
        "LINE_DEN_COEFF": coefficients, "SAMP_NUM_COEFF": coefficients, "SAMP_DEN_COEFF": coefficients,
    }  # fmt: skip
    with rasterio.open(source, "r+") as raster:
        raster.update_tags(ns="RPC", **rpc)
    with RasterReader(source) as reader:
        out = finished(tmp_path / "out", numbers(20, 30), reader.georeference)
    with rasterio.open(source) as was, rasterio.open(out) as raster:
        found, crs = raster.gcps
        assert crs == was.gcps[1] == "EPSG:4326"
        assert [(p.row, p.col, p.x, p.y, p.z) for p in found] == [(p.row, p.col, p.x, p.y, p.z) for p in points]
        assert raster.rpcs is not None
        assert raster.rpcs.to_dict() == was.rpcs.to_dict()
        assert raster.crs is None


def test_the_same_bytes_again(tmp_path: Path) -> None:
    labels = numbers(*SIZE)
    first = finished(tmp_path / "a", labels).read_bytes()
    (tmp_path / "b").mkdir()
    for name in ("labels.tif", "labels.tif.ovr.tmp"):  # of a kill while GDAL wrote
        (tmp_path / "b" / name).write_bytes(b"old" * 999)
    assert finished(tmp_path / "b", labels).read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["labels.raw", "labels.tif", "labels.vrt"]


def test_what_was_not_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = numbers(*SIZE)
    labels.tofile(tmp_path / "labels.raw")
    arguments = tmp_path / "labels.raw", tmp_path / "labels.tif", SIZE, NAMES, Georeference()
    copy = gdal.copy

    def spoiled(source: str, target: str, **options: Any) -> None:
        copy(source, target, **options)
        content = bytearray(Path(target).read_bytes())
        content[-2000:-1900] = bytes(100)
        Path(target).write_bytes(content)

    def other(source: str, target: str, **options: Any) -> None:
        (tmp_path / "labels.raw").write_bytes(bytes(SIZE[0] * SIZE[1]))
        copy(source, target, **options)
        labels.tofile(tmp_path / "labels.raw")

    for broken, said in ((spoiled, "cannot be written"), (other, "is not what was written")):
        monkeypatch.setattr(gdal, "copy", broken)
        message = refusal(labels_cog, *arguments)
        assert said in message
        assert message.endswith("check the folder and free space on the disk")


def test_the_files_are_read_back_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cog, "_COMPARED", 1)
    labels = numbers(*SIZE)
    finished(tmp_path, labels)
    labels[-1, -1] = 77
    labels.tofile(tmp_path / "labels.raw")
    with pytest.raises(OSError, match=r"the window \(\(1024, 1100\), \(1024, 1300\)\) is not what was written"):
        cog._require_equal(tmp_path / "labels.vrt", tmp_path / "labels.tif", SIZE, 1)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises((DataError, OSError)):
        labels_cog(tmp_path / "labels.raw", tmp_path / "none" / "a.tif", SIZE, NAMES, Georeference())
