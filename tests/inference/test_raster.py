"""Rasters labelled part by part: the labels of the whole, whatever happened in between."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio import shutil as gdal

import rasters
from fullconv.data.windows import RasterReader
from fullconv.errors import DataError, GeometryError, OptionError
from fullconv.inference import chunks, raster, spool
from fullconv.inference.raster import Answer, Compute, Part, Read, confidence_path, label_raster
from fullconv.inference.spool import Spool, folder_of
from fullconv.labels import LabelSet
from rasters import confidences_of, labels_of, threshold, tiles

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIZE = (230, 170)
NAMES = LabelSet(("ground", "water", "wood"))
PARTS = tiles(*SIZE, 64, 60)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A scene with void."""
    values = rasters.noise(*SIZE, 3)
    values[30:100, 20:90] = 0
    return rasters.write(
        tmp_path / "scene.tif", values, nodata=0, tiled=True, blockxsize=32, blockysize=32, compress="deflate"
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a size that makes several of the tests' rasters; every part is waited for."""
    monkeypatch.setattr(chunks, "CHUNK", 2**14)
    monkeypatch.setattr(spool, "SECONDS", 0)


def label(
    path: Path,
    out: Path,
    parts: list[Part] = PARTS,
    compute: Compute | None = None,
    *,
    bands: tuple[int, ...] = (),
    confidence: bool = False,
    **options: Any,
) -> Path:
    with RasterReader(path, bands) as reader:
        compute = compute or threshold(parts, reader.size, 3, confidence=confidence)
        label_raster(reader, out, parts, compute, NAMES, classes=3, confidence=confidence, **options)
    return out


def read(path: Path) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as written:
        return written.read()


def expected(path: Path) -> np.ndarray[Any, Any]:
    """The labels of the whole, by numpy."""
    with rasterio.open(path) as whole:
        values = np.moveaxis(whole.read(), 0, 2)
    return np.where((values == 0).all(axis=2), np.uint8(255), labels_of(values, 3))


def stopped(compute: Compute, after: int, error: BaseException | Callable[[], None]) -> Compute:
    """The same until `after` parts are answered, however many were before."""

    def broken(given: Read, first: int) -> Iterator[Answer]:
        answers = compute(given, first)
        for index in range(first, len(PARTS)):
            if isinstance(error, BaseException):
                if index >= after:
                    raise error
            elif index == after:
                error()
            yield next(answers)

    return broken


def normal(confidence: bool = False) -> Compute:
    return threshold(PARTS, SIZE, 3, confidence=confidence)


@pytest.mark.parametrize("tile", [(64, 60), (230, 170), (50, 170), (230, 9), (17, 23)])
def test_labels_are_those_of_the_whole(source: Path, tmp_path: Path, tile: tuple[int, int]) -> None:
    out = label(source, tmp_path / "new" / "labels.tif", tiles(*SIZE, *tile))
    np.testing.assert_array_equal(read(out)[0], expected(source))
    assert [path.name for path in out.parent.iterdir()] == ["labels.tif"]
    with rasterio.open(source) as was, rasterio.open(out) as written:
        assert (written.crs, written.transform) == (was.crs, was.transform)
        assert written.nodata == 255
        assert written.tags()["CLASS_1"] == "water"


def test_confidences_too(source: Path, tmp_path: Path) -> None:
    out = label(source, tmp_path / "labels.tif", confidence=True)
    labels = read(out)[0]
    found = read(confidence_path(out))
    np.testing.assert_array_equal(labels, expected(source))
    np.testing.assert_array_equal(found, np.where(labels == 255, 0, confidences_of(labels, 3)))
    assert (labels == 255).any()


@pytest.mark.parametrize("kind", ["png", "jpg", "vrt", "palette.tif", "big.tif"])
def test_other_files(source: Path, tmp_path: Path, kind: str) -> None:
    values = np.moveaxis(read(source), 0, 2)
    path = tmp_path / f"a.{kind}"
    if kind == "vrt":
        gdal.copy(str(source), str(path), driver="VRT")
    elif kind == "big.tif":
        rasters.write(path, values, BIGTIFF="YES")
    else:
        picture = Image.fromarray(values)
        (picture.quantize(50) if kind == "palette.tif" else picture).save(path)
    with RasterReader(path) as reader:
        seen = reader.window((0, SIZE[0]), (0, SIZE[1]))
    out = label(path, tmp_path / "labels.tif")
    void = np.zeros(SIZE, bool) if seen.void is None else seen.void
    np.testing.assert_array_equal(read(out)[0], np.where(void, 255, labels_of(seen.values, 3)))
    assert void.any() == (kind == "vrt")


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_bands(tmp_path: Path, kind: str) -> None:
    values = rasters.noise(*SIZE, 7, "uint16" if kind == "uint16" else "uint8").astype(kind)
    path = rasters.write(tmp_path / "a.tif", values, interleave="band")
    out = label(path, tmp_path / "labels.tif", bands=(6, 1, 3))
    np.testing.assert_array_equal(read(out)[0], labels_of(values[:, :, [5, 0, 2]], 3))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (513, 3)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = rasters.write(tmp_path / "a.tif", rasters.noise(*size))
    out = label(path, tmp_path / "labels.tif", tiles(*size, 100, 100))
    np.testing.assert_array_equal(read(out)[0], expected(path))


@pytest.mark.parametrize("confidence", [False, True])
def test_interrupted_anywhere_the_file_is_the_same(source: Path, tmp_path: Path, confidence: bool) -> None:
    whole = label(source, tmp_path / "whole.tif", confidence=confidence)
    out, chance, begun = tmp_path / "labels.tif", random.Random(0), []
    for _ in range(6):
        compute = normal(confidence)

        def counted(given: Read, first: int, compute: Compute = compute) -> Iterator[Answer]:
            begun.append(first)
            return compute(given, first)

        after = chance.randrange(begun[-1] if begun else 0, len(PARTS))
        with pytest.raises(ZeroDivisionError):
            label(source, out, PARTS, stopped(counted, after, ZeroDivisionError()), confidence=confidence, resume=True)
        assert not out.exists()
    label(source, out, confidence=confidence, resume=True)
    assert begun == sorted(begun)
    assert begun[-1] > 0
    assert out.read_bytes() == whole.read_bytes()
    if confidence:
        assert confidence_path(out).read_bytes() == confidence_path(whole).read_bytes()
    assert not folder_of(out).exists()


def test_killed_it_goes_on(source: Path, tmp_path: Path) -> None:
    """Three processes are killed at once, without a word, and a fourth ends."""
    whole, out = label(source, tmp_path / "whole.tif", confidence=True), tmp_path / "labels.tif"
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
import rasters
from fullconv.data.windows import RasterReader
from fullconv.inference import chunks, spool
from fullconv.inference.raster import label_raster
from fullconv.labels import LabelSet
spool.SECONDS, chunks.CHUNK = 0, 2**14
parts = rasters.tiles(230, 170, 64, 60)
label = rasters.threshold(parts, (230, 170), 3, confidence=True)
for after in (3, 5, 9, 99):
    child = os.fork()
    if child == 0:
        def compute(read, first):
            os.write(1, f"{{first}} ".encode())
            for index, answer in enumerate(label(read, first), first):
                if index == after:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield answer
        with RasterReader({str(source)!r}) as reader:
            names = LabelSet(("ground", "water", "wood"))
            label_raster(reader, {str(out)!r}, parts, compute, names, classes=3, confidence=True, resume=True)
        os._exit(0)
    os.write(1, f"{{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}} ".encode())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    first, *words = map(int, done.stdout.split())
    assert first == 0
    assert words[0::2] == [-signal.SIGKILL] * 3 + [0], done.stderr
    assert 0 < words[1] <= words[3] <= words[5] <= 9
    assert out.read_bytes() == whole.read_bytes()
    assert confidence_path(out).read_bytes() == confidence_path(whole).read_bytes()


def test_interrupted_while_the_file_is_made(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = label(source, tmp_path / "whole.tif"), tmp_path / "labels.tif"
    monkeypatch.setattr(spool, "SECONDS", 1e9)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(raster, "labels_cog", killed)
        with pytest.raises(KeyboardInterrupt):
            label(source, out)
    label(source, out, PARTS, stopped(normal(), 0, ZeroDivisionError()), resume=True)  # nothing is computed
    assert out.read_bytes() == whole.read_bytes()


def test_what_is_resumed_is_the_same(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.tif"

    def attempt(identity: Mapping[str, str], parts: list[Part] = PARTS, **options: Any) -> None:
        label(source, out, parts, stopped(normal(), 5, ZeroDivisionError()), identity=identity, resume=True, **options)

    with pytest.raises(ZeroDivisionError):
        attempt({"model": "a"})
    with pytest.raises(OptionError, match="was begun with model 'a', found 'b'; label it as it was begun"):
        attempt({"model": "b"})
    with pytest.raises(OptionError, match="was begun with parts"):
        attempt({"model": "a"}, tiles(*SIZE, 64, 61))
    with pytest.raises(OptionError, match="was begun with confidence '0', found '3'"):
        attempt({"model": "a"}, confidence=True)
    with pytest.raises(OptionError, match="was begun with raster '230 x 170 x 3 uint8'"):
        attempt({"model": "a"}, bands=(1, 2))
    label(source, out, identity={"model": "b"})  # without resume
    assert out.exists()


def test_an_old_file_stays_until_the_new_one_is_there(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.tif"
    out.write_text("old")
    with pytest.raises(ZeroDivisionError):
        label(source, out, PARTS, stopped(normal(), 3, ZeroDivisionError()))
    assert out.read_text() == "old"
    label(source, out, resume=True)
    assert read(out).shape == (1, *SIZE)


def test_ctrl_c_keeps_what_is_done(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SECONDS", 1e9)
    out, seen = tmp_path / "labels.tif", []
    with pytest.raises(KeyboardInterrupt):
        label(source, out, PARTS, stopped(normal(), 8, KeyboardInterrupt()))

    def watched(given: Read, first: int) -> Iterator[Answer]:
        seen.append(first)
        return normal()(given, first)

    label(source, out, PARTS, watched, resume=True)
    assert 8 - raster.WRITTEN_AHEAD - 1 <= seen[0] <= 8


def test_progress_in_pixels(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    out, total = tmp_path / "labels.tif", SIZE[0] * SIZE[1]
    with pytest.raises(ZeroDivisionError):
        label(source, out, PARTS, stopped(normal(), 5, ZeroDivisionError()))
    label(source, out, resume=True, progress=lambda *pixels: told.append(pixels))
    assert told[0][0] in np.cumsum([part.pixels for part in PARTS[:5]])
    assert told[-1] == (total, total)
    assert told == sorted(told)


def test_classes_are_counted(source: Path, tmp_path: Path) -> None:
    """Through a stop, and told before what would be gone on from is removed."""
    out, told = tmp_path / "labels.tif", []
    with pytest.raises(ZeroDivisionError):
        label(source, out, PARTS, stopped(normal(), 5, ZeroDivisionError()))

    def finished(size: tuple[int, int], counts: list[int]) -> None:
        told.append((size, counts))
        assert out.exists()
        assert (folder_of(out) / spool.JOURNAL).exists()

    label(source, out, resume=True, finished=finished)
    assert told == [(SIZE, [int((expected(source) == number).sum()) for number in range(3)])]


def test_the_writer_has_stopped_when_what_is_done_is_counted(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, overlaps = threading.Event(), []
    write, sync = Spool.write, Spool.sync

    def slow(self: Spool, *args: Any) -> None:
        writing.set()
        time.sleep(0.02)
        write(self, *args)
        writing.clear()

    def counted(self: Spool) -> None:
        overlaps.append(writing.is_set())
        sync(self)

    def interrupt(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr(spool, "SECONDS", 1e9)
    monkeypatch.setattr(Spool, "write", slow)
    monkeypatch.setattr(Spool, "sync", counted)
    with pytest.raises(KeyboardInterrupt):
        label(source, tmp_path / "labels.tif", progress=interrupt)
    assert overlaps == [False]


def test_sources_that_changed_are_another_identity(source: Path, tmp_path: Path) -> None:
    vrt, out = tmp_path / "a.vrt", tmp_path / "labels.tif"
    gdal.copy(str(source), str(vrt), driver="VRT")
    with pytest.raises(ZeroDivisionError):
        label(vrt, out, PARTS, stopped(normal(), 5, ZeroDivisionError()))
    os.utime(source, ns=(1, 1))
    with pytest.raises(OptionError, match="was begun with files '.*', found '.*'; label it as it was begun"):
        label(vrt, out, resume=True)
    told: list[str] = []
    label(vrt, out, resume=True, anew=told.append)
    assert [text.split()[0] for text in told] == ["files"]
    np.testing.assert_array_equal(read(out)[0], expected(source))


def test_no_part_of_a_changed_file_counts(source: Path, tmp_path: Path) -> None:
    """Even where the change is younger than the last look at the file."""
    stat = source.stat()

    def change() -> None:
        os.utime(source, ns=(1, 1))

    with pytest.raises(DataError, match="was changed while it was read.*; [0-4] of 12 parts are kept"):
        label(source, tmp_path / "labels.tif", PARTS, stopped(normal(), 4, change))
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    label(source, tmp_path / "labels.tif", resume=True)
    np.testing.assert_array_equal(read(tmp_path / "labels.tif")[0], expected(source))


@pytest.mark.parametrize("change", ["gone", "cut"])
def test_an_input_that_vanishes(source: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "AHEAD", 0)
    kept, out = tmp_path / "kept", tmp_path / "labels.tif"

    def vanish() -> None:
        shutil.copy2(source, kept)
        source.unlink() if change == "gone" else os.truncate(source, 5000)

    with pytest.raises(DataError) as caught:
        label(source, out, PARTS, stopped(normal(), 6, vanish))
    message = str(caught.value)
    assert f"scene.tif: {'has vanished' if change == 'gone' else 'was changed'} while it was read" in message
    assert message.endswith("of 12 parts are kept, and --resume goes on with them")
    assert "\n" not in message
    kept.replace(source)
    label(source, out, resume=True)
    np.testing.assert_array_equal(read(out)[0], expected(source))


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    path = tmp_path / "little"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=65536", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no disk can be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk(little: Path, tmp_path: Path) -> None:
    source = rasters.write(tmp_path / "a.tif", rasters.noise(400, 400))
    parts = tiles(400, 400, 50, 400)
    out = little / "labels.tif"
    with pytest.raises(DataError) as caught:
        label(source, out, parts)
    message = str(caught.value)
    assert message.startswith(f"{out}: cannot be written (OSError: [Errno 28] No space left on device)")
    assert "free space on the disk; 3 of 8 parts are kept, and --resume goes on with them" in message
    assert "\n" not in message
    subprocess.run(["mount", "-o", "remount,size=1000000", str(little)], check=True)
    label(source, out, parts, resume=True)
    np.testing.assert_array_equal(read(out)[0], expected(source))


def test_a_disk_too_full_for_the_finished_file(little: Path, tmp_path: Path) -> None:
    source = rasters.write(tmp_path / "a.tif", rasters.noise(400, 400))
    parts, out = tiles(400, 400, 100, 400), little / "labels.tif"
    subprocess.run(["mount", "-o", "remount,size=200000", str(little)], check=True)
    with pytest.raises(DataError) as caught:
        label(source, out, parts)
    message = str(caught.value)
    assert "free space on the disk; 4 of 4 parts are kept, and --resume goes on with them" in message
    assert not out.exists()
    subprocess.run(["mount", "-o", "remount,size=1000000", str(little)], check=True)
    label(source, out, parts, resume=True)
    np.testing.assert_array_equal(read(out)[0], expected(source))


def test_memory_does_not_grow_with_the_raster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 2**17)
    monkeypatch.setattr(chunks, "ROOM", 2**21)
    monkeypatch.setattr(spool, "SECONDS", 9)
    peaks = []
    for height in (300, 1000, 4000):
        values = np.zeros((height, 1000, 3), np.uint8)
        path = rasters.write(tmp_path / "a.tif", values, compress="deflate", tiled=True, blockxsize=128, blockysize=128)
        del values
        parts = tiles(height, 1000, 250, 250)
        tracemalloc.start()
        label(path, tmp_path / "labels.tif", parts)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1] < 12e6, peaks


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (PARTS[1:], "the parts cover 35260 pixels, expected 39100: they must tile the raster"),
        ([*PARTS, PARTS[0]], "the parts cover"),
        ([Part((0, 231), (0, 170))], "is empty or not inside the raster of 230 x 170 pixels"),
        ([Part((0, 0), (0, 170))], "is empty or not inside"),
        ([], "the parts cover 0 pixels"),
    ],
)
def test_parts_that_do_not_tile(source: Path, tmp_path: Path, parts: list[Part], said: str) -> None:
    with pytest.raises(GeometryError, match=said):
        label(source, tmp_path / "labels.tif", parts)
    assert not folder_of(tmp_path / "labels.tif").exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((np.zeros((64, 61), np.uint8), None), r"labels uint8 of shape \(64, 61\), expected uint8 of \(64, 60\)"),
        ((np.zeros((64, 60), np.int64), None), r"labels int64 of shape \(64, 60\)"),
        ((np.zeros((64, 60), np.uint8), None), "confidences none, expected uint8"),
        ((np.zeros((64, 60), np.uint8), np.zeros((2, 64, 60), np.uint8)), r"confidences uint8 of shape \(2, 64, 60\)"),
        (None, "fewer answers than parts, expected 12"),
    ],
)
def test_answers_of_another_shape(source: Path, tmp_path: Path, answer: Answer | None, said: str) -> None:
    with pytest.raises(GeometryError, match=said):
        label(source, tmp_path / "a.tif", PARTS, lambda *_: iter([answer] if answer else []), confidence=True)


def test_targets_that_cannot_be(source: Path, tmp_path: Path) -> None:
    for out, said in (
        (tmp_path / "labels.png", "a raster's labels are a GeoTIFF; end its name in .tif"),
        (source, "would replace the raster that is labelled; choose another --out"),
    ):
        with pytest.raises(OptionError, match=said):
            label(source, out)
    clash = source.rename(tmp_path / "a_confidence.tif")
    with pytest.raises(OptionError, match="would replace the raster"):
        label(clash, tmp_path / "a.tif")
    with RasterReader(clash) as reader, pytest.raises(OptionError, match="3 class names for 2 classes"):
        label_raster(reader, tmp_path / "b.tif", PARTS, normal(), NAMES, classes=2)
    (tmp_path / "c.tif").mkdir()
    (tmp_path / "d_confidence.tif").mkdir()
    for name, place, confidence in (("c.tif", "c.tif", False), ("d.tif", "d_confidence.tif", True)):
        with pytest.raises(OptionError, match=f"{place} is a folder, expected a file's place; choose another --out"):
            label(clash, tmp_path / name, compute=lambda *_: iter(()), confidence=confidence)
    label(clash, tmp_path / "d.tif")
    odd = tmp_path / os.fsdecode(b"\xff") / "e.tif"
    with pytest.raises(OptionError, match=r"e.tif is no name in UTF-8, as GDAL needs; choose another --out"):
        label(clash, odd, compute=lambda *_: iter(()))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written \(.*; no part was done"):
        label(clash, tmp_path / "file" / "b.tif")


def test_a_real_scene(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = shared_data / "cog" / "cog_cmap.tif"
    with rasterio.open(path) as whole:
        window = (2000, 2900), (1000, 2100)
        source = tmp_path / "a.tif"
        profile = whole.profile | {"width": 1100, "height": 900}
        with rasterio.open(source, "w", **profile) as part:
            part.write(whole.read(window=window))
            part.write_colormap(1, whole.colormap(1))
    out = label(source, tmp_path / "labels.tif", tiles(900, 1100, 400, 400))
    with rasterio.open(source) as was, rasterio.open(out) as written:
        numbers, table = was.read(1), np.array([was.colormap(1)[n][:3] for n in range(256)], np.uint8)
        np.testing.assert_array_equal(written.read(1), np.where(numbers == 0, 255, labels_of(table[numbers], 3)))
        assert (written.crs, written.transform) == (was.crs, was.transform)
