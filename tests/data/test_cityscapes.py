"""Cityscapes: labels to 19 classes, by the data set's own scripts, and real pieces of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullconv.data.cityscapes import CITYSCAPES_LABELS, SCORED, open_split, recognise, splits
from fullconv.data.sample import SEMANTIC
from fullconv.errors import DataError
from fullconv.labels import VOID
from makers import CITYSCAPES_LABELS as VALUES
from makers import COUNTS, make_cityscapes, save, scene


@pytest.mark.parametrize("ending", ["labelIds", "labelTrainIds"])
def test_layout(tmp_path: Path, ending: str) -> None:
    root = make_cityscapes(tmp_path / "c ü", ending=ending)
    assert recognise(root)
    assert splits(root) == ("train", "val", "test")
    for number, (split, count) in enumerate(COUNTS.items()):
        dataset = open_split("x", root, split)
        assert dataset.names == tuple(f"ulm/ulm_{number:06}_{i:06}" for i in range(count))
        image, drawn = scene(100 * number, classes=5)
        np.testing.assert_array_equal(dataset[0].inputs["image"], image)
        expected = np.array(list(VALUES.values()), np.uint8)[np.where(drawn == VOID, 5, drawn)]
        np.testing.assert_array_equal(dataset[0].masks[SEMANTIC], expected)


def test_every_label(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path, {"val": 1})
    mask = root / "gtFine" / "val" / "ulm" / "ulm_000000_000000_gtFine_labelIds.png"
    save(root / "leftImg8bit" / "val" / "ulm" / "ulm_000000_000000_leftImg8bit.png", np.zeros((1, 34, 3), np.uint8))
    save(mask, np.arange(34, dtype=np.uint8)[None])
    found = open_split("x", root, "val")[0].masks[SEMANTIC][0].tolist()
    void = {0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30}
    assert {label for label, number in enumerate(found) if number == VOID} == void
    assert [number for number in found if number != VOID] == list(range(19))
    assert dict(zip(SCORED, CITYSCAPES_LABELS.names, strict=True)) == {
        7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
        20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
        27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
    }  # fmt: skip
    colours = dict(zip(CITYSCAPES_LABELS.names, CITYSCAPES_LABELS.colours, strict=True))
    assert [colours[name] for name in ("road", "sky", "car", "bicycle")] == [
        (128, 64, 128), (70, 130, 180), (0, 0, 142), (119, 11, 32),
    ]  # fmt: skip


def test_test_without_truth(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path, {"test": 2})
    masks = sorted((root / "gtFine" / "test").glob("**/*_labelIds.png"))
    save(masks[0], np.zeros((12, 16), np.uint8))
    assert len(open_split("x", root, "test")) == 2
    assert splits(root) == ("test",)
    save(masks[1], np.zeros((12, 16), np.uint8))
    with pytest.raises(DataError, match=r"^x: the masks of test are void, since its truth is not published; score on"):
        open_split("x", root, "test")
    assert splits(root) == (), "as in the published data, which is not broken"
    masks[0].write_bytes(b"damaged")
    assert splits(root) == ("test",), "what is wrong is told where it is opened"


def test_what_is_missing(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path, {"train": 2})
    assert not recognise(root / "gtFine")
    with pytest.raises(DataError, match=r"^x: has no split 'val'; its splits: train$"):
        open_split("x", root, "val")
    masks = sorted((root / "gtFine" / "train").glob("**/*_labelIds.png"))
    masks[1].unlink()
    with pytest.raises(
        DataError, match=r"^x: 1 files of train are missing \(ulm/ulm_000000_000001_gtFine_labelIds\.png"
    ):
        open_split("x", root, "train")
    masks[0].unlink()
    with pytest.raises(DataError, match=r"^x: 2 files of train are missing"):
        open_split("x", root, "train")
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / "val").mkdir()
    with pytest.raises(DataError, match=r"val: holds no CITY/\*_leftImg8bit\.png; unpack leftImg8bit_trainvaltest"):
        open_split("x", root, "val")


def test_real_pieces(shared_data: Path) -> None:
    root = shared_data / "annotations" / "datumaro" / "cityscapes_dataset" / "train_dataset"
    assert splits(root) == ("train", "val", "test")
    found = {
        split: [np.unique(s.masks[SEMANTIC]).tolist() for s in open_split("x", root, split)] for split in splits(root)
    }
    assert found == {"train": [[11, VOID]], "val": [[VOID]], "test": [[14, VOID], [3, 16, VOID]]}
    without = root.parent / "dataset"  # instances alone
    with pytest.raises(DataError, match=r"missing \(defaultcity/defaultcity_000002_000045_gtFine_labelIds\.png\)"):
        open_split("x", without, "train")
