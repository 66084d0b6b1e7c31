"""Which images are labelled, and where their masks go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from rasterio import shutil as gdal

import rasters
from fullconv.errors import OptionError
from fullconv.inference.jobs import Job, left_out, plan
from makers import save


def test_folders_keep_their_structure_and_hidden_files_are_none(tmp_path: Path) -> None:
    for name in ("a.jpg", "x/b.png", "x/y/c.d.bmp", "x/notes.txt", ".trash/e.png", "x/._b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    jobs = plan([tmp_path / "in"], tmp_path / "out")
    assert [job.image.relative_to(tmp_path / "in").as_posix() for job in jobs] == ["a.jpg", "x/b.png", "x/y/c.d.bmp"]
    assert [job.mask.relative_to(tmp_path / "out").as_posix() for job in jobs] == ["a.png", "x/b.png", "x/y/c.d.png"]
    assert all(job.outputs == [job.mask] for job in jobs)


def test_masks_of_an_earlier_call_are_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "predictions/photos/a.png"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_bytes(b"")
    for folder in (".", tmp_path):
        (job,) = plan([folder], "predictions")
        assert (job.image.name, job.mask) == ("a.jpg", Path("predictions/photos/a.png"))
    (job,) = plan(["predictions"], "predictions-2")
    assert job.image == Path("predictions/photos/a.png"), "unless they are asked for"


def test_globs_files_and_folders_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/2.jpg", "b/c/d/3.png", "d/4.png", "[x].png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    jobs = plan(["a/*.png", "b/**/*.png", Path("d"), "[x].png"], "out")
    assert [str(job.image) for job in jobs] == ["a/1.png", "b/c/d/3.png", "d/4.png", "[x].png"]
    assert [str(job.mask) for job in jobs] == ["out/1.png", "out/3.png", "out/4.png", "out/[x].png"]
    assert len(plan(["a/1.png", "./a/1.png", "a/*.png"], "out")) == 1, "a file named twice is labelled once"
    assert plan([str(tmp_path / "a" / "*")], "o")[0] == Job(tmp_path / "a" / "1.png", Path("o/1.png"))


def test_of_a_folder_each_image_has_the_outputs_of_its_kind(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", rasters.noise(4, 5))
    rasters.write(tmp_path / "in" / "b.tif", rasters.noise(4, 5))
    jobs = plan([tmp_path / "in"], tmp_path / "out", overlay=True, scores=True, confidence=True)
    assert [[path.name for path in job.outputs] for job in jobs] == [
        ["a.png", "a_overlay.png", "a_scores.npy"], ["b.tif", "b_confidence.tif"],
    ]  # fmt: skip
    assert list(left_out(jobs)) == [
        "there is no overlay and no .npy of scores of the 1 of 2 images that are rasters",
        "there are no confidences of the 1 of 2 images that are no rasters",
    ]
    assert list(left_out(plan([tmp_path / "in"], tmp_path / "out"))) == []


def test_vrts_are_named_and_not_found(tmp_path: Path) -> None:
    tif = rasters.write(tmp_path / "in" / "b.tif", rasters.noise(4, 5))
    vrt = tif.with_suffix(".vrt")
    gdal.copy(tif, vrt, driver="VRT")
    assert [job.image for job in plan([tmp_path / "in"], tmp_path / "out")] == [tif]
    assert [job.image for job in plan([vrt], tmp_path / "out")] == [vrt]
    assert [job.image for job in plan([str(tmp_path / "in" / "*.vrt")], tmp_path / "out")] == [vrt]


def test_a_vrts_stamp_is_of_all_that_it_reads(tmp_path: Path) -> None:
    tif = rasters.write(tmp_path / "b.tif", rasters.noise(4, 5))
    vrt = tif.with_suffix(".vrt")
    gdal.copy(tif, vrt, driver="VRT")
    (job,) = plan([vrt], tmp_path / "out")
    before = job.stamp()
    os.utime(tif, ns=(1, 1))
    assert len({before, job.stamp()} - {""}) == 2
    tif.unlink()
    assert job.stamp() == ""


def test_images_of_one_name_keep_it_whole(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    masks = [job.mask.name for job in plan([tmp_path], tmp_path / "out")]
    assert masks == ["a.jpg.png", "a.png.png", "b.png"]


@pytest.mark.parametrize(
    ("names", "inputs", "out", "message"),
    [
        (["a.jpg"], ["."], "one.jpg", "one.jpg would be a jpg file; masks are PNG, and of rasters TIFF: name a folder"),
        (["x/a.png", "y/a.png"], ["x/*", "y/*"], "out", "x/a.png and y/a.png would both become out/a.png"),
        (["a.png"], ["."], ".", "a.png, made from a.png, would replace an image; choose another folder"),
        (["a.png"], ["a.png"], "a.png", "would replace an image"),
        (["x/a_overlay.png", "a.jpg"], ["a.jpg", "x"], "y/../x", "would replace an image"),
        (["a.jpg", "b.jpg"], ["."], "mask.png", "mask.png is one file for 2 images; give a folder"),
        # What --overlay and --scores write must not meet anything either.
        (["a.jpg", "a_overlay.jpg"], ["."], "out", "a.jpg and a_overlay.jpg would both become out/a_overlay.png"),
        (["a.jpg", "a_overlay.png"], ["a.jpg", "a_overlay.png"], ".", "a_overlay.png, made from a.jpg, would replace"),
        (["a.jpg", "a_scores.npy"], ["a.jpg", "a_scores.npy"], ".", "a_scores.npy, made from a.jpg, would replace"),
    ],
)
def test_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], inputs: list[str], out: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"")
    with pytest.raises(OptionError, match=message):
        plan(inputs, out, overlay=True, scores=True)
