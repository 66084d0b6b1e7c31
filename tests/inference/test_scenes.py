"""Rasters through an engine, from file to file: the plain net's labels where the raster lies, whatever interrupts."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image
from rasterio import shutil as gdal

import rasters
from fullconv.data.image import read_image
from fullconv.data.windows import RasterReader
from fullconv.errors import DataError, OptionError
from fullconv.inference import chunks, scenes, spool, tiles
from fullconv.inference.engines import Engine, engine
from fullconv.inference.jobs import plan
from fullconv.inference.journal import record_of
from fullconv.inference.labelling import WRITING
from fullconv.inference.model import Model
from fullconv.inference.predict import Outcome, predict, predict_files
from fullconv.inference.raster import confidence_path
from fullconv.inference.reference import Reference
from fullconv.inference.scenes import Scene, is_scene, sources
from fullconv.inference.spool import folder_of
from fullconv.inference.strips import Strips
from fullconv.labels import VOID, LabelSet
from fullconv.nets import InputOptions
from makers import save
from thin_nets import noise, thin

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIZE = (330, 150)
LABELS = LabelSet(("ground", "water", "wood", "town"))
TOLERANCE = 1e-5
"""Of the largest score: float32 sums in two orders."""


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(thin("fcn8s-slim"), LABELS)


@pytest.fixture(scope="module")
def file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    model.save(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A scene with void."""
    return scene(tmp_path / "in" / "scene.tif")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 64 rows, maps some rows at a time, chunks of a few blocks; every part is waited for."""
    monkeypatch.setattr(tiles, "PART_PIXELS", 1)
    monkeypatch.setattr(tiles, "BUDGET", 1 << 13)
    monkeypatch.setattr(chunks, "CHUNK", 2**12)
    monkeypatch.setattr(spool, "SECONDS", 0)


def scene(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """Noise with a rectangle without data."""
    values = rasters.noise(*size)
    values[20:120, 30:90] = 0
    return rasters.write(path, values, nodata=0, tiled=True, blockxsize=32, blockysize=32, compress="deflate")


def read(path: Path) -> NDArray[Any]:
    """(bands, H, W)."""
    with rasterio.open(path) as raster:
        return raster.read()


def require_plain(labels: NDArray[Any], model: Model, values: NDArray[Any], void: NDArray[np.bool_]) -> None:
    """Labels are the plain net's on the whole but where its two highest scores are as good as equal; void is 255."""
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, 2, 0)))[None]
    (name,) = model.net.options.inputs
    (coarse,) = Reference(model.net).coarse({name: x}).values()
    scores = coarse.upsample()[0].numpy()
    second, highest = np.sort(scores, axis=0)[-2:]
    assert labels.shape == values.shape[:2]
    np.testing.assert_array_equal(labels == VOID, void)
    differs = (labels != scores.argmax(0)) & ~void
    assert (highest - second)[differs].max(initial=0) <= 2 * TOLERANCE * np.abs(scores).max()
    assert len(np.unique(labels[~void])) > 2, "scores that say something"


def stop_after(share: float, stop: Callable[[], None]) -> Callable[[float, int, str], None]:
    """A progress that calls `stop` as soon as so much is done."""
    stopped = False

    def progress(done: float, total: int, name: str) -> None:
        nonlocal stopped
        if done >= share and not stopped:
            stopped = True
            stop()

    return progress


def interrupt() -> None:
    raise KeyboardInterrupt


class TestLabels:
    @pytest.mark.usefixtures("small")
    @pytest.mark.parametrize("tile", ["auto", "off", 64, 100])
    def test_are_the_plain_nets_where_the_raster_lies(
        self, model: Model, source: Path, tmp_path: Path, tile: int | str
    ) -> None:
        outcome = predict(model, source, tmp_path / "out", tile=tile)
        assert (outcome.written, outcome.failures) == ([tmp_path / "out" / "scene.tif"], [])
        values = np.moveaxis(read(source), 0, 2)
        require_plain(read(outcome.written[0])[0], model, values, (values == 0).all(axis=2))
        with rasterio.open(source) as was, rasterio.open(outcome.written[0]) as written:
            assert (written.crs, written.transform) == (was.crs, was.transform)
            assert (written.count, written.dtypes, written.nodata) == (1, ("uint8",), VOID)
            assert written.tags()["CLASS_3"] == "town"

    def test_are_those_of_predict_in_python(self, model: Model, source: Path, tmp_path: Path) -> None:
        values = np.ascontiguousarray(np.moveaxis(read(source), 0, 2))
        (out,) = predict(model, source, tmp_path / "one.tif").written
        expected = np.where((values == 0).all(axis=2), VOID, model.predict(values).labels)
        assert out == tmp_path / "one.tif"
        assert (read(out)[0] != expected).mean() < 1e-3

    @pytest.mark.parametrize("nodata", [None, 7])
    def test_of_several_bands(self, tmp_path: Path, nodata: int | None) -> None:
        """Numbers of 16 bits, in the net's order of bands."""
        inputs = {"ms": InputOptions((30000.0,) * 4, (20000.0,) * 4, bands=(5, 2, 3, 1))}
        model = Model(thin("fcn8s-slim", inputs=inputs))
        values = rasters.noise(120, 90, 6, "uint16")
        values[30:60, 10:50] = 7
        path = rasters.write(tmp_path / "ms.tif", values, nodata=nodata)
        (out,) = predict(model, path, tmp_path / "out").written
        chosen = values[:, :, [4, 1, 2, 0]]
        void = np.zeros((120, 90), bool) if nodata is None else (chosen == nodata).all(axis=2)
        seen = chosen if nodata is None else np.where(chosen == nodata, np.uint16(0), chosen)
        require_plain(read(out)[0], model, seen, void)
        assert (nodata is None) != void.any()

    def test_of_a_vrt(self, model: Model, source: Path, tmp_path: Path) -> None:
        vrt = tmp_path / "in" / "scene.vrt"
        gdal.copy(source, vrt, driver="VRT")
        whole, same = (predict(model, path, tmp_path / path.suffix[1:]).written[0] for path in (source, vrt))
        assert same == tmp_path / "vrt" / "scene.tif"
        np.testing.assert_array_equal(read(same), read(whole))

    def test_of_a_picture_that_is_asked_for_as_a_raster(self, model: Model, tmp_path: Path) -> None:
        values = rasters.noise(60, 70)
        (out,) = predict(model, save(tmp_path / "a.png", values), tmp_path / "a.tif").written
        require_plain(read(out)[0], model, values, np.zeros((60, 70), bool))

    def test_compared_with_the_plain_net(self, model: Model, source: Path, tmp_path: Path) -> None:
        ((image, found),) = predict(model, source, tmp_path / "out", verify=True, tile=100).checks
        assert (image, found.whole, found.pixels) == (source, True, SIZE[0] * SIZE[1])
        assert found.difference <= TOLERANCE


class TestConfidence:
    @pytest.mark.usefixtures("small")
    def test_is_every_classs_probability(self, model: Model, source: Path, tmp_path: Path) -> None:
        outcome = predict(model, source, tmp_path / "out", confidence=True)
        assert outcome.written == [tmp_path / "out" / "scene.tif"]
        labels, found = read(outcome.written[0])[0], read(confidence_path(outcome.written[0])).astype(int)
        with rasterio.open(confidence_path(outcome.written[0])) as raster:
            assert raster.descriptions == LABELS.names
        valid = labels != VOID
        assert found.shape == (4, *SIZE)
        assert (found[:, ~valid] == 0).all()
        assert np.abs(found.sum(0) - 255)[valid].max() <= len(LABELS) // 2, "each is rounded to a step"
        at_label = np.take_along_axis(found, np.where(valid, labels, 0)[None].astype(int), 0)[0]
        assert (at_label == found.max(0))[valid].all()
        x = torch.from_numpy(read(source))[None]
        expected = Reference(model.net).coarse({"image": x})["semantic"].upsample()[0].softmax(0).numpy()
        assert np.abs(found / 255 - expected)[:, valid].max() <= 0.5 / 255 + 1e-4

    def test_changes_no_label(self, model: Model, source: Path, tmp_path: Path) -> None:
        one, other = (predict(model, source, tmp_path / f"{c}.tif", confidence=c).written[0] for c in (False, True))
        assert one.read_bytes() == other.read_bytes()

    @pytest.mark.usefixtures("small")
    def test_holds_the_scores_of_a_few_rows(
        self, model: Model, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []
        scores = Strips.scores

        def watched(self: Strips, task: str, rows: tuple[int, int]) -> torch.Tensor:
            asked.append(rows[1] - rows[0])
            return scores(self, task, rows)

        monkeypatch.setattr(Strips, "scores", watched)
        predict(model, source, tmp_path / "a.tif", confidence=True, tile=150)
        assert asked == [64, 64, 22, 64, 64, 22, 30]


def test_the_plan_is_told_before_it_runs(model: Model, source: Path, tmp_path: Path) -> None:
    scene(source.with_name("two.tif"), (90, 70))
    told: list[str] = []

    def seen(done: float, *_: object) -> None:
        assert len(told) == (1 if done < 1 else 2) or done in (1, 2)

    outcome = predict(model, source.parent, tmp_path / "out", tell=told.append, progress=seen)
    paths = source, source.with_name("two.tif")
    with RasterReader(paths[0]) as one, RasterReader(paths[1]) as two:
        own = Scene(engine(model.net), LABELS)
        plans = [own.runner(reader).plan(reader.size) for reader in (one, two)]
    assert outcome.notes == told == [f"scene.tif: {plans[0]}", f"two.tif: {plans[1]}"]


def test_an_error_of_verifying_leaves_the_labels(
    file: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def fail(*_: object) -> None:
        raise DataError("has vanished")

    monkeypatch.setattr(Scene, "verify", fail)
    outcome = predict(file, source, out, verify=True)
    assert outcome.failures == [(source, f"{source}: labelled, but not verified: has vanished")]
    assert "scene.tif" in (out / "shares.csv").read_text()
    assert predict(file, source, out, resume=True).kept == [out / "scene.tif"]


def test_scores_for_confidences_are_bounded(model: Model) -> None:
    own = Scene(engine(model.net), LabelSet.numbered(150), True)
    assert own._rows(100) == scenes.ROWS
    assert own._rows(6000) == scenes.CELL
    assert own._rows(900) * 900 * 150 * 4 <= scenes.SCORES


def test_the_making_of_the_file_is_told(model: Model, source: Path, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    predict(model, source, tmp_path / "out", progress=lambda done, _, name: told.append((done, name)))
    assert told[-2:] == [(1, WRITING), (1, "scene.tif")]
    assert {name for _, name in told[:-2]} == {"scene.tif"}


class TestUnfit:
    """One image that the options do not fit is named, and the others are done; if none fits, the options are wrong."""

    @pytest.fixture(autouse=True)
    def picky(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plan_of = Engine.plan

        def picky(self: Engine, size: tuple[int, int]) -> tiles.Plan:
            if size == SIZE:
                raise OptionError("0.01 GiB of memory for images of 330 x 150")
            return plan_of(self, size)

        monkeypatch.setattr(Engine, "plan", picky)

    @pytest.mark.parametrize("kind", ["tif", "png"])
    def test_some(self, model: Model, source: Path, tmp_path: Path, kind: str) -> None:
        if kind == "tif":
            scene(source.with_name("two.tif"), (90, 70))
        else:
            save(source.with_name("two.png"), rasters.noise(20, 30))
        outcome = predict(model, source.parent, tmp_path / "out")
        assert outcome.failures == [(source, f"{source}: 0.01 GiB of memory for images of 330 x 150")]
        assert outcome.written == [tmp_path / "out" / f"two.{kind}"]

    @pytest.mark.parametrize("name", ["out", "one.tif"])
    def test_all(self, model: Model, source: Path, tmp_path: Path, name: str) -> None:
        if name == "out":
            scene(source.with_name("two.tif"))
        with pytest.raises(OptionError, match="^0.01 GiB of memory for images of 330 x 150"):
            predict(model, source.parent, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_the_table_of_shares(model: Model, source: Path, tmp_path: Path) -> None:
    """Of a folder with a picture too; what is missing to 1 is void."""
    picture = save(tmp_path / "in" / "a.png", rasters.noise(40, 50))
    outcome = predict(model, tmp_path / "in", tmp_path / "out")
    assert outcome.written == [tmp_path / "out" / "a.png", tmp_path / "out" / "scene.tif"]
    with (tmp_path / "out" / "shares.csv").open(newline="") as table:
        header, first, row = csv.reader(table)
    assert header == ["image", "mask", "height", "width", *LABELS.names]
    assert first[:2] == [str(picture), "a.png"]
    assert row[:4] == [str(source), "scene.tif", "330", "150"]
    labels = read(tmp_path / "out" / "scene.tif")
    assert [float(share) for share in row[4:]] == [float((labels == c).mean()) for c in range(4)]
    assert sum(map(float, row[4:])) == pytest.approx(1 - 100 * 60 / (330 * 150))


@pytest.mark.usefixtures("small")
class TestResume:
    """A call that goes on begins a new pass in the middle; the files are those of a call that was never stopped."""

    def whole(self, file: Path, source: Path, out: Path, **options: Any) -> dict[str, bytes]:
        predict(file, source, out, confidence=True, **options)
        return contents(out)

    @pytest.mark.parametrize("tile", ["auto", 100])
    @pytest.mark.parametrize("share", [0.15, 0.5, 0.8])
    def test_after_an_interrupt(self, file: Path, source: Path, tmp_path: Path, tile: int | str, share: float) -> None:
        expected = self.whole(file, source, tmp_path / "whole", tile=tile)
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            predict(file, source, out, confidence=True, tile=tile, progress=stop_after(share, interrupt))
        partial = folder_of(out / "scene.tif")
        assert partial.is_dir()
        assert not (out / "scene.tif").exists()
        seen: list[float] = []
        outcome = predict(
            file, source, out, confidence=True, tile=tile, resume=True, progress=lambda done, *_: seen.append(done)
        )
        assert outcome.written == [out / "scene.tif"]
        assert 0 < seen[0] < 1, "it went on"
        assert contents(out) == expected
        assert not partial.exists()

    def test_keeps_what_is_finished(self, file: Path, source: Path, tmp_path: Path) -> None:
        expected = self.whole(file, source, tmp_path / "out")
        outcome = predict(file, source, tmp_path / "out", confidence=True, resume=True)
        assert (outcome.written, outcome.kept) == ([], [tmp_path / "out" / "scene.tif"])
        assert contents(tmp_path / "out") == expected

    def test_of_a_single_file(self, file: Path, source: Path, tmp_path: Path) -> None:
        (whole,) = predict(file, source, tmp_path / "whole.tif").written
        with pytest.raises(KeyboardInterrupt):
            predict(file, source, tmp_path / "one.tif", progress=stop_after(0.5, interrupt))
        (one,) = predict(file, source, tmp_path / "one.tif", resume=True).written
        assert one.read_bytes() == whole.read_bytes()

    def test_with_another_model_is_refused(self, file: Path, source: Path, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            predict(file, source, tmp_path / "one.tif", progress=stop_after(0.5, interrupt))
        Model(thin("fcn8s-slim", seed=1), LABELS).save(tmp_path / "other.safetensors")
        with pytest.raises(OptionError, match=r"was begun with model '?\w{10}.*leave --resume out to begin again"):
            predict(tmp_path / "other.safetensors", source, tmp_path / "one.tif", resume=True)

    def test_of_a_folder_keeps_the_finished_ones(self, file: Path, source: Path, tmp_path: Path) -> None:
        scene(source.with_name("two.tif"))
        self.whole(file, source.parent, tmp_path / "whole")
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            predict(file, source.parent, out, confidence=True, progress=stop_after(1.5, interrupt))
        before = (out / "scene.tif").stat().st_ino
        outcome = predict(file, source.parent, out, confidence=True, resume=True)
        assert (outcome.kept, outcome.written) == ([out / "scene.tif"], [out / "two.tif"])
        assert (out / "scene.tif").stat().st_ino == before
        assert everything(out) == everything(tmp_path / "whole")

    def test_of_a_single_file_that_is_finished(self, file: Path, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "one.tif"
        predict(file, source, out)
        before = out.stat().st_ino
        outcome = predict(file, source, out, resume=True)
        assert (outcome.kept, outcome.written, out.stat().st_ino) == ([out], [], before)
        with pytest.raises(OptionError, match=re.escape(f"{out} was labelled with tile auto, not 64; --resume needs")):
            predict(file, source, out, tile=64, resume=True)
        assert out.stat().st_ino == before
        (tmp_path / "..one.tif.labelled.0123abcd.jsonl").write_bytes(b"half")
        assert predict(file, source, out, tile=64).written == [out]
        assert not (tmp_path / "..one.tif.labelled.0123abcd.jsonl").exists()
        os.utime(source, ns=(1, 1))
        assert predict(file, source, out, tile=64, resume=True).written == [out], "another version of the image"
        out.write_bytes(b"edited")
        assert predict(file, source, out, tile=64, resume=True).written == [out]
        assert predict(file, source, out, tile=64, resume=True).kept == [out]
        with pytest.raises(KeyboardInterrupt):
            predict(file, source, out, tile=64, progress=stop_after(0.5, interrupt))
        assert predict(file, source, out, tile=64, resume=True).written == [out], "begun again"

    @pytest.mark.parametrize("name", ["out", "one.tif"])
    def test_after_a_stop_while_the_spool_is_removed(
        self, file: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        out = tmp_path / name
        mask = out if out.suffix else out / "scene.tif"
        with monkeypatch.context() as patch:
            patch.setattr(spool, "_remove", lambda _: interrupt())
            with pytest.raises(KeyboardInterrupt):
                predict(file, source, out)
        assert folder_of(mask).is_dir()
        assert predict(file, source, out, resume=True).kept == [mask]
        assert not folder_of(mask).exists()

    def test_of_a_vrt_whose_source_changed(self, file: Path, source: Path, tmp_path: Path) -> None:
        vrt, out = tmp_path / "in" / "a.vrt", tmp_path / "out"
        gdal.copy(source, vrt, driver="VRT")
        predict(file, vrt, out)
        assert predict(file, vrt, out, resume=True).kept == [out / "a.tif"]
        rasters.write(source, rasters.noise(*SIZE)[::-1], nodata=0)
        assert predict(file, vrt, out, resume=True).written == [out / "a.tif"]
        assert read(out / "a.tif").tobytes() == read(predict(file, source, tmp_path / "o.tif").written[0]).tobytes()

    def test_of_another_identity_is_begun_again_in_a_folder(self, file: Path, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            predict(file, source, out, progress=stop_after(0.5, interrupt))
        os.utime(source, ns=(1, 1))
        outcome = predict(file, source, out, resume=True)
        assert (outcome.written, outcome.failures) == ([out / "scene.tif"], [])
        assert re.fullmatch(r"scene.tif is labelled anew: it was begun with image '\w+', found '\w+'", outcome.notes[1])

    def test_without_identity_nothing_is_gone_on_with(self, model: Model, source: Path, tmp_path: Path) -> None:
        jobs = plan([source], tmp_path / "one.tif")
        with pytest.raises(KeyboardInterrupt):
            predict_files(model, jobs, progress=stop_after(0.5, interrupt))
        seen: list[float] = []
        predict_files(model, jobs, resume=True, progress=lambda done, *_: seen.append(done))
        assert seen[0] == 0
        assert not record_of(jobs[0].mask).path.exists()

    def test_after_the_input_vanished(self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tiles, "BUDGET", 1 << 10)
        monkeypatch.setattr(tiles, "SMALLEST", 1 << 10)
        source = scene(tmp_path / "in" / "tall.tif", (1400, 91))  # more than is read ahead
        expected = self.whole(file, source, tmp_path / "whole")
        away = source.with_name("away")

        def vanish() -> None:
            source.rename(away)

        outcome = predict(file, source, tmp_path / "out", confidence=True, progress=stop_after(0.01, vanish))
        ((image, why),) = outcome.failures
        assert (image, outcome.written) == (source, [])
        assert re.fullmatch(
            r"\S*tall.tif: has vanished while it was read; put it back; \d+ of 22 parts are kept, and --resume goes on "
            "with them", why,
        )  # fmt: skip
        away.rename(source)
        assert predict(file, source, tmp_path / "out", confidence=True, resume=True).failures == []
        assert contents(tmp_path / "out") == expected

    def test_a_damaged_scene_is_named_and_the_others_are_done(self, file: Path, source: Path, tmp_path: Path) -> None:
        bad = scene(tmp_path / "in" / "bad.tif")
        content = bytearray(bad.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        bad.write_bytes(content)
        outcome = predict(file, source.parent, tmp_path / "out")
        assert outcome.written == [tmp_path / "out" / "scene.tif"]
        ((image, why),) = outcome.failures
        assert image == bad
        assert "bad.tif: cannot be read in rows" in why
        assert "\n" not in why


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    """Rasters and the table of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tif", ".csv")}


class TestIsScene:
    def test_a_tiff_that_lies_on_earth(self, tmp_path: Path) -> None:
        values = rasters.noise(20, 30)
        assert is_scene(rasters.write(tmp_path / "placed.tif", values))
        plain = rasters.write(tmp_path / "plain.tif", values, crs=None, transform=None)
        assert not is_scene(plain)
        points = [rasterio.control.GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in ((0, 0), (0, 9), (9, 0))]
        assert is_scene(rasters.write(tmp_path / "points.tif", values, transform=None, gcps=points))
        assert not is_scene(save(tmp_path / "pillow.tif", values))

    def test_16_bits_are_the_picture_that_they_are_without_a_place(self, model: Model, tmp_path: Path) -> None:
        path = rasters.write(tmp_path / "grey.tif", rasters.noise(60, 70, 1, "uint16"))
        assert is_scene(path)
        (out,) = predict(model, path, tmp_path / "out").written
        require_plain(read(out)[0], model, read_image(path), np.zeros((60, 70), bool))

    def test_bands_of_no_colour_are_left_to_who_reads_pictures(self, tmp_path: Path) -> None:
        path = rasters.write(tmp_path / "bands.tif", rasters.noise(20, 30, 5, "uint16"))
        assert not is_scene(path)
        assert is_scene(path, (1, 2))
        assert [job.is_scene for job in plan([path], tmp_path / "out", bands=(1, 2))] == [True]
        assert [job.is_scene for job in plan([path], tmp_path / "out")] == [False]

    def test_sources(self, source: Path, tmp_path: Path) -> None:
        vrt = tmp_path / "in" / "a.vrt"
        gdal.copy(source, vrt, driver="VRT")
        assert sources(vrt) == (vrt, source)
        assert sources(source) == ()
        source.unlink()
        with pytest.raises(DataError, match="no such file"):
            sources(vrt)

    def test_a_tiff_too_large_for_a_picture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = rasters.write(tmp_path / "plain.tif", rasters.noise(20, 30), crs=None, transform=None)
        for most, large in ((600, False), (599, True)):
            monkeypatch.setattr(scenes, "MAX_PIXELS", most)
            assert is_scene(path) == large

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_a_picture_too_large_to_be_decoded_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
    ) -> None:
        path = save(tmp_path / f"a.{suffix}", rasters.noise(20, 30))
        monkeypatch.setattr(scenes, "LARGE", path.stat().st_size - 1)
        for most, large in ((600, False), (599, True)):
            monkeypatch.setattr(scenes, "MAX_PIXELS", most)
            assert is_scene(path) == large
        monkeypatch.setattr(scenes, "LARGE", path.stat().st_size)
        assert not is_scene(path), "a small file of many pixels is a trap"
        monkeypatch.undo()
        assert not is_scene(path)

    def test_a_large_picture_goes_through(self, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        values = rasters.noise(90, 70)
        path = save(tmp_path / "a.png", values)
        monkeypatch.setattr(scenes, "LARGE", 0)
        monkeypatch.setattr(scenes, "MAX_PIXELS", 90 * 70 - 1)
        (out,) = predict(model, path, tmp_path / "out").written
        assert out.name == "a.tif"
        require_plain(read(out)[0], model, values, np.zeros((90, 70), bool))

    def test_a_vrt_by_its_name_and_text(self, source: Path, tmp_path: Path) -> None:
        vrt = tmp_path / "in" / "a.vrt"
        gdal.copy(source, vrt, driver="VRT")
        assert is_scene(vrt)
        assert not is_scene(vrt.rename(vrt.with_suffix(".txt")))
        (tmp_path / "b.vrt").write_text("no VRT, but a text")
        assert not is_scene(tmp_path / "b.vrt")

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "damaged.tif").write_bytes(b"II*\0\10\0\0\0")
        (tmp_path / "empty.tif").write_bytes(b"")
        for path in (tmp_path / "damaged.tif", tmp_path / "empty.tif", tmp_path / "no.tif", tmp_path):
            assert not is_scene(path)

    def test_without_rasterio(
        self, model: Model, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A GeoTIFF is a picture then, as every TIFF."""
        monkeypatch.setattr(scenes, "find_spec", lambda name: None)
        assert not is_scene(source)
        (out,) = predict(model, source, tmp_path / "out").written
        assert out == tmp_path / "out" / "scene.png"
        with Image.open(source) as picture, Image.open(out) as mask:
            np.testing.assert_array_equal(np.asarray(mask), model.predict(np.asarray(picture)).labels)


class TestMistakes:
    def test_what_a_scene_does_not_have(self, source: Path, tmp_path: Path) -> None:
        for option in ("overlay", "scores"):
            with pytest.raises(
                OptionError, match="scene.tif is labelled as a raster, of which there is no overlay and"
            ):
                plan([source], tmp_path / "out", **{option: True})
        with pytest.raises(OptionError, match="a.png is no raster, and confidences are bands of one; scores writes"):
            plan([save(tmp_path / "a.png", rasters.noise(4, 5))], tmp_path / "out", confidence=True)
        with pytest.raises(OptionError, match="scene.tif is no raster, and confidences"):
            plan([source], tmp_path / "a.png", confidence=True)

    @pytest.mark.parametrize("name", ["one.png", "one.tif"])
    def test_one_file_for_several(self, source: Path, tmp_path: Path, name: str) -> None:
        scene(tmp_path / "in" / "other.tif")
        with pytest.raises(OptionError, match=f"{name} is one file for 2 images; give a folder"):
            plan([source.parent], tmp_path / name)

    def test_the_raster_itself_is_no_target(self, model: Model, source: Path, tmp_path: Path) -> None:
        before = source.read_bytes()
        with pytest.raises(OptionError, match="scene.tif.*would replace an image"):
            predict(model, source, source.parent)
        vrt = tmp_path / "in" / "a.vrt"
        gdal.copy(source, vrt, driver="VRT")
        with pytest.raises(OptionError, match=r"scene.tif would replace the raster that is labelled"):
            predict(model, vrt, source)
        assert source.read_bytes() == before

    def test_memory_too_small_names_the_least(self, model: Model, source: Path, tmp_path: Path) -> None:
        with pytest.raises(OptionError) as caught:
            predict(model, source, tmp_path / "out", memory=1 << 20)
        found = re.fullmatch(
            r"0.00 GiB of memory for images of 330 x 150; give at least ([\d.]+)GiB", str(caught.value)
        )
        assert found
        least = int((float(found[1]) + 0.1) * 2**30)  # the process itself may have grown a little
        assert predict(model, source, tmp_path / "out", memory=least).failures == []

    def test_channels_without_bands(self, source: Path, tmp_path: Path) -> None:
        net = thin("fcn8s-slim", channels=4)
        with pytest.raises(
            OptionError, match="the net takes 4 channels and names no bands; rasters are read as RGB, or"
        ):
            predict(Model(net), source, tmp_path / "out")

    def test_too_few_bands_are_the_files_fault(self, source: Path, tmp_path: Path) -> None:
        inputs = {"image": InputOptions((9.0,) * 4, (9.0,) * 4, bands=(1, 2, 3, 4))}
        outcome: Outcome = predict(Model(thin("fcn8s-slim", inputs=inputs)), source, tmp_path / "out")
        ((image, why),) = outcome.failures
        assert image == source
        assert "has 3 bands, and band 4 is asked for" in why

    def test_a_model_in_memory_cannot_be_resumed(self, model: Model, source: Path, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="resume tells models apart by their files"):
            predict(model, source, tmp_path / "one.tif", resume=True)


def test_a_scene_of_ones_own(model: Model, source: Path, tmp_path: Path) -> None:
    """What `predict` makes of each raster."""
    own = Scene(engine(model.net), LABELS)
    seen: list[tuple[int, int]] = []
    ended: list[object] = []
    own.label(
        source, tmp_path / "a.tif", lambda done, total: seen.append((done, total)), lambda *found: ended.append(found)
    )
    labels = read(tmp_path / "a.tif")[0]
    assert ended == [(SIZE, [int((labels == c).sum()) for c in range(4)])]
    assert seen[-1] == (SIZE[0] * SIZE[1],) * 2
    with pytest.raises(DataError, match="no.tif"):
        own.label(tmp_path / "no.tif", tmp_path / "b.tif")


def test_images_are_read_as_the_net_takes_them(model: Model) -> None:
    values = noise(1, 3, 8, 9)[0].permute(1, 2, 0).numpy()

    def part(rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        return np.ascontiguousarray(values[slice(*rows), slice(*columns)])

    (found,) = scenes._images(part, engine(model.net))((2, 5), (1, 9)).values()
    assert found.shape == (1, 3, 3, 8)
    assert torch.equal(found, torch.from_numpy(values).permute(2, 0, 1)[None, :, 2:5, 1:9])
