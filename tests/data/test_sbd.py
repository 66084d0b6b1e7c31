"""SBD alone and with VOC: which image is in which split, and whose mask it has (reference 5.6 and 7.2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullconv.data.check import check
from fullconv.data.sample import SEMANTIC
from fullconv.data.sbd import open_split, recognise, splits
from fullconv.data.voc import VOC_LABELS
from fullconv.errors import DataError
from makers import SBD_IDS, make_sbd, make_voc, save_list, sbd_mask, scene

# make_voc: train 2007_000000.., val 2007_001000.., test 2007_002000..
IDS = {"train": ("2007_000000", "2007_001000", "2008_000003"), "val": ("2007_001002", "2008_000004")}
"""Two of VOC's val are in SBD, one of them in its train; one of VOC's train is in SBD's train."""

COUNTS = {"train": 2, "val": 4}


@pytest.mark.parametrize("inside", ["", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
def test_alone(tmp_path: Path, inside: str) -> None:
    root = make_sbd(tmp_path / "a b ü") / inside
    assert recognise(root)
    assert splits(root) == ("train", "val")
    for split, names in SBD_IDS.items():
        dataset = open_split("x", root, split)
        assert dataset.names == names
        assert dataset.labels == {SEMANTIC: VOC_LABELS}
        np.testing.assert_array_equal(dataset[1].masks[SEMANTIC], sbd_mask(names[1]))
        assert check(dataset).void == {SEMANTIC: 0}


@pytest.mark.parametrize("devkit", ["", "TrainVal"])
def test_the_papers_combination(tmp_path: Path, devkit: str) -> None:
    root = make_sbd(tmp_path, IDS)
    make_voc(tmp_path / devkit, COUNTS, "VOC2011")
    assert splits(root) == ("train", "val", "seg11valid")
    assert open_split("x", root, "train").names == IDS["train"]
    for split in ("val", "seg11valid"):  # VOC2011's val without SBD's train; SBD's val does not matter
        valid = open_split("x", root, split)
        assert valid.names == ("2007_001001", "2007_001002", "2007_001003")
        np.testing.assert_array_equal(valid[1].masks[SEMANTIC], scene(102, classes=21)[1])
        assert check(valid).void == {SEMANTIC: 3 * 16}
    assert splits(root / "benchmark_RELEASE" / "dataset") == splits(root)


def test_trainaug(tmp_path: Path) -> None:
    root = make_sbd(tmp_path, IDS)
    make_voc(tmp_path, COUNTS, "VOC2012")
    assert splits(root) == ("train", "val", "trainaug", "val2012")
    assert open_split("x", root, "val").names == IDS["val"]
    assert open_split("x", root, "val2012").names == tuple(f"2007_00100{i}" for i in range(4))
    train = open_split("x", root, "trainaug")
    assert train.names == ("2007_000000", "2008_000003", "2008_000004", "2007_000001")
    masks = [sample.masks[SEMANTIC] for sample in train]
    for mask, name in zip(masks, train.names[:3], strict=False):  # SBD's, also of VOC's 2007_000000
        np.testing.assert_array_equal(mask, sbd_mask(name))
    np.testing.assert_array_equal(masks[3], scene(1, classes=21)[1])
    make_voc(tmp_path, COUNTS, "VOC2011")
    assert splits(root) == ("train", "val", "seg11valid", "trainaug", "val2012")


def test_a_list_alone(tmp_path: Path) -> None:
    root = make_sbd(tmp_path, {"val": SBD_IDS["val"]})
    make_voc(tmp_path, COUNTS, "VOC2011")  # without SBD's train nothing can be taken away
    assert splits(root) == ("val",)
    assert open_split("x", root, "val").names == SBD_IDS["val"]


def test_not_sbd(tmp_path: Path) -> None:
    assert not recognise(tmp_path)
    for name in ("img", "cls"):
        (tmp_path / name).mkdir()
    assert not recognise(tmp_path)  # without lists
    with pytest.raises(DataError, match=r"no dataset/\{img,cls,train\.txt\}; name the folder benchmark_RELEASE"):
        splits(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    root = make_sbd(tmp_path)
    dataset = root / "benchmark_RELEASE" / "dataset"
    with pytest.raises(DataError, match=r"^x: has no split 'test'; its splits: train, val$"):
        open_split("x", root, "test")
    (dataset / "cls" / "2008_000002.mat").unlink()
    with pytest.raises(DataError, match=r"^x: 1 files of train are missing \(cls/2008_000002\.mat\); unpack the data"):
        open_split("x", root, "train")
    save_list(dataset / "train.txt", [f"2009_{i:06}" for i in range(11)])
    with pytest.raises(DataError, match=r"^x: 22 files of train are missing \(img/2009_000000\.jpg, .* and 12 more\)"):
        open_split("x", root, "train")
    save_list(dataset / "train.txt", ["../../../etc/passwd"])
    with pytest.raises(DataError, match=r"'\.\./\.\./\.\./etc/passwd' is no image id"):
        open_split("x", root, "train")
