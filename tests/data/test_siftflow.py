"""SIFT Flow: two tasks at once (reference 7.5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullconv.data.folder import held_out
from fullconv.data.sample import SEMANTIC
from fullconv.data.siftflow import open_split, recognise, splits
from fullconv.errors import DataError
from fullconv.labels import VOID
from fullconv.nets import published_labels
from makers import make_siftflow, save_list, scene


def test_layout(tmp_path: Path) -> None:
    root = make_siftflow(tmp_path / "s ü")
    assert recognise(root)
    assert splits(root) == ("train", "val", "trainval", "test")
    dataset = open_split("x", root, "test")
    assert dataset.names == ("coast_test0", "coast_test1")
    drawn = scene(101, classes=33)[1]
    masks = dataset[1].masks
    np.testing.assert_array_equal(masks[SEMANTIC], drawn)
    # The maker draws geometric label (semantic label counted from 1) % 3 + 1, and -1 where the semantic one is void.
    geometric = np.where(drawn == VOID, VOID, (drawn.astype(int) + 1) % 3)
    np.testing.assert_array_equal(masks["geometric"], geometric)
    assert set(np.unique(geometric)) == {0, 1, 2, VOID}


def test_tasks_of_the_published_nets(tmp_path: Path) -> None:
    dataset = open_split("x", make_siftflow(tmp_path), "test")
    theirs = published_labels("siftflow-fcn8s")
    assert {task: labels.names for task, labels in dataset.labels.items()} == {t: v.names for t, v in theirs.items()}
    assert [len(labels) for labels in dataset.labels.values()] == [33, 3]
    assert dataset.absent == {SEMANTIC: "excluded", "geometric": "predicted"}


def test_val_is_held_out_of_trainval(tmp_path: Path) -> None:
    root = make_siftflow(tmp_path)
    train, val, every = (set(open_split("x", root, split).names) for split in ("train", "val", "trainval"))
    assert len(every) == 10
    assert val == held_out(every)
    assert train == every - val


def test_the_images_without_annotation(tmp_path: Path) -> None:
    root = make_siftflow(tmp_path)
    save_list(root / "test.txt", ["highway_bost181", "coast_test0", "street_urb506"])
    assert open_split("x", root, "test").names == ("coast_test0",)
    save_list(root / "test.txt", ["coast_test0", "highway_bost182"])
    with pytest.raises(
        DataError, match=r"^x: 3 files of test\.txt are missing \(spatial_.*/highway_bost182\.jpg, spat"
    ):
        open_split("x", root, "test")


def test_lists_are_needed(tmp_path: Path) -> None:
    root = make_siftflow(tmp_path)
    (root / "trainval.txt").unlink()
    assert splits(root) == ("test",)
    with pytest.raises(DataError, match=r"^x: has no split 'train'; its splits: test$"):
        open_split("x", root, "train")
    (root / "test.txt").unlink()
    with pytest.raises(DataError, match=r"has no trainval\.txt or test\.txt .* data/sift-flow of the paper's code"):
        splits(root)
    assert not recognise(tmp_path / "Images")
