"""PASCAL VOC in its devkit's layout; classes and palette of reference 7.1."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.check import check
from fullconv.data.folder import held_out
from fullconv.data.sample import SEMANTIC
from fullconv.data.voc import VOC_LABELS, VOC_READER, open_split, read_ids, recognise, splits, years
from fullconv.errors import DataError
from fullconv.labels import VOID
from makers import COUNTS, make_voc, save, scene


def lists(root: Path, year: str = "VOC2012") -> Path:
    return root / "VOCdevkit" / year / "ImageSets" / "Segmentation"


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_layout_named_from_any_level(tmp_path: Path, inside: str) -> None:
    root = make_voc(tmp_path / "pascal ü") / inside
    assert recognise(root)
    assert splits(root) == ("train", "val", "test")
    for number, (split, count) in enumerate(COUNTS.items()):
        dataset = open_split("x", root, split)
        assert dataset.names == tuple(f"2007_{number:03}{i:03}" for i in range(count))
        sample = dataset[count - 1]
        np.testing.assert_array_equal(sample.masks[SEMANTIC], scene(100 * number + count - 1, classes=21)[1])
        assert sample.size == (12, 16)


def test_the_newest_year(tmp_path: Path) -> None:
    for year in ("VOC2012", "VOC2007"):
        make_voc(tmp_path, {"train": 1, "val": 1}, year)
    assert "VOC2012" in str(open_split("x", tmp_path, "train").scenes[0].image)
    assert "VOC2007" in str(open_split("x", tmp_path / "VOCdevkit" / "VOC2007", "train").scenes[0].image)
    (tmp_path / "VOCdevkit" / "VOC2013").mkdir()  # without lists
    assert "VOC2012" in str(open_split("x", tmp_path, "train").scenes[0].image)


def test_any_list_is_a_split(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    (lists(root) / "seg11valid.txt").write_text("\ufeff2007_001001 \r\n\r\n2007_001000\r\n", "utf-8")
    (lists(root) / ".hidden.txt").touch()
    assert splits(root) == ("train", "val", "test", "seg11valid")
    assert open_split("x", root, "seg11valid").names == ("2007_001001", "2007_001000")
    with pytest.raises(DataError, match=r"^x: has no split 'seg12'; its splits: train, val, test, seg11valid$"):
        open_split("x", root, "seg12")


def test_a_missing_val_is_held_out_of_train(tmp_path: Path) -> None:
    root = make_voc(tmp_path, {"train": 5, "test": 1})
    assert splits(root) == ("train", "val", "test")
    train, val = (set(open_split("x", root, split).names) for split in ("train", "val"))
    every = {f"2007_00000{index}" for index in range(5)}
    assert val == held_out(every)
    assert train == every - val
    (lists(root) / "train.txt").write_text("2007_9\n")
    with pytest.raises(DataError, match=r"^x: 2 files of train\.txt are missing \(JPEGImages/2007_9\.jpg, Seg"):
        open_split("x", root, "val")
    (lists(root) / "train.txt").write_text("2007_000000\n")
    with pytest.raises(DataError, match=r"^x: holds one image, and val is held out of train; add images, or a val"):
        open_split("x", root, "train")
    (lists(root) / "train.txt").unlink()
    assert splits(root) == ("test",)


def test_not_voc(tmp_path: Path) -> None:
    assert not recognise(tmp_path)
    assert not recognise(tmp_path / "missing")
    with pytest.raises(DataError, match="no VOC20xx with ImageSets/Segmentation; name the folder VOCdevkit or VOC20xx"):
        splits(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"train\.txt: names no images; expected one id a line"),
        (b"\xff\xfe", r"train\.txt: is not UTF-8 text \(invalid start byte\); save it as UTF-8"),
        (b"2007_000000\n" * 100_000, r"train\.txt: is larger than 1 MiB; expected a short text"),
        (b"../../secret\n", r"train\.txt: '\.\./\.\./secret' is no image id"),
        (b"..\n", r"train\.txt: '\.\.' is no image id"),
        (b"/etc/passwd\n", r"'/etc/passwd' is no image id"),
        (b"a" * 252 + b"\n", r"train\.txt: 'a{56}\.\.\. is no image id; expected one a line"),
        (b"a" * 251 + b"\n", r"^x: 2 files of train\.txt are missing \(JPEGImages/a{251}\.jpg, Seg"),
        ("ü".encode() * 126 + b"\n", r"train\.txt: 'ü{56}\.\.\. is no image id"),
        (b"2007_000000\n2007_000000\n", r"train\.txt: lists 2007_000000 more than once; remove the repetition"),
        (
            b"2007_000000\n2007_9\n",
            r"^x: 2 files of train\.txt are missing \(JPEGImages/2007_9\.jpg, Seg.*; unpack the",
        ),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, content: bytes, expected: str) -> None:
    root = make_voc(tmp_path)
    (lists(root) / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        open_split("x", root, "train")


def test_long_lists_are_counted_once(tmp_path: Path) -> None:
    """A list of 1 MiB of short ids: by the square it took minutes."""
    path = tmp_path / "train.txt"
    names = [f"{i:x}" for i in range(150_000)]
    path.write_text("\n".join([*names, "7", "1f"]))
    start = time.process_time()
    with pytest.raises(DataError, match=r"train\.txt: lists 1f, 7 more than once; remove the repetition"):
        read_ids(path)
    assert time.process_time() - start < 10


def test_images_without_mask(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    (root / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000001.png").unlink()
    with pytest.raises(
        DataError, match=r"^x: 1 files of train\.txt are missing \(SegmentationClass/2007_000001\.png\)"
    ):
        open_split("x", root, "train")


def test_the_folder_of_2011(tmp_path: Path) -> None:
    make_voc(tmp_path / "TrainVal", {"train": 1, "val": 1}, "VOC2011")
    assert recognise(tmp_path)
    assert len(open_split("x", tmp_path, "val")) == 1
    assert list(years(tmp_path)) == ["VOC2011"]
    make_voc(tmp_path, {"train": 1, "val": 1}, "VOC2012")
    (tmp_path / "VOC2010" / "ImageSets" / "Main").mkdir(parents=True)
    assert list(years(tmp_path)) == ["VOC2012", "VOC2011"]
    assert list(years(tmp_path, "Main")) == ["VOC2010"]


def test_masks_in_colour(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    rgb = VOC_LABELS.palette()[scene(0, classes=21)[1]]
    save(root / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000000.png", rgb)
    np.testing.assert_array_equal(open_split("x", root, "train")[0].masks[SEMANTIC], scene(0, classes=21)[1])


def test_a_real_mask_in_colour(shared_data: Path) -> None:
    """Written by an annotation tool: one colour, (0, 128, 0), which is bicycle."""
    root = shared_data / "annotations" / "datumaro" / "voc_dataset" / "voc_dataset1"
    assert np.unique(VOC_READER.read(root / "SegmentationClass" / "2007_000001.png")).tolist() == [2]
    with pytest.raises(DataError, match=r"^x: 1 files of test\.txt are missing \(SegmentationClass/2007_000002\.png\)"):
        open_split("x", root, "test")


def test_classes_and_colours_of_the_reference() -> None:
    assert len(VOC_LABELS) == 21
    assert [VOC_LABELS.names[i] for i in (0, 1, 11, 15, 16, 20)] == [
        "background",
        "aeroplane",
        "diningtable",
        "person",
        "pottedplant",
        "tvmonitor",
    ]
    assert [VOC_LABELS.colours[i] for i in (0, 1, 11, 15, 16, 20)] == [
        (0, 0, 0),
        (128, 0, 0),
        (192, 128, 0),
        (192, 128, 128),
        (0, 64, 0),
        (0, 64, 128),
    ]


def test_real_voc(shared_data: Path) -> None:
    root = shared_data / "voc"
    assert splits(root) == ("train", "val", "trainval")
    dataset = open_split("x", root, "val")
    checked = check(dataset)
    assert (len(dataset), checked.problems) == (60, ())
    assert (checked.pixels[SEMANTIC] > 0).all()
    assert checked.void[SEMANTIC] > 0
    with Image.open(dataset.scenes[0].mask) as picture:  # the palette of the files is that of our labels
        assert picture.mode == "P"
        palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        np.testing.assert_array_equal(palette[[*range(21), VOID]], VOC_LABELS.palette()[[*range(21), VOID]])
        np.testing.assert_array_equal(np.asarray(picture), dataset[0].masks[SEMANTIC])
