"""ADE20K for scene parsing, and the full release by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullconv.classes import ADE20K, ADE20K_COLOURS
from fullconv.data.ade20k import open_split, recognise, splits
from fullconv.data.sample import SEMANTIC
from fullconv.errors import DataError
from fullconv.labels import VOID
from makers import make_ade20k, save, scene

HEAD = "Idx\tRatio\tTrain\tVal\tName\n"


def test_layout(tmp_path: Path) -> None:
    root = make_ade20k(tmp_path / "a ü")
    for path in (root, root.parent):
        assert recognise(path)
        assert splits(path) == ("train", "val")
        dataset = open_split("x", path, "val")
        assert dataset.names == ("ADE_val_00000003", "ADE_val_00000004")
        np.testing.assert_array_equal(dataset[1].masks[SEMANTIC], scene(4, classes=150)[1])
        assert (dataset.labels[SEMANTIC].names, dataset.labels[SEMANTIC].colours) == (ADE20K, ADE20K_COLOURS)
    with pytest.raises(DataError, match=r"^x: has no split 'test'; its splits: train, val$"):
        open_split("x", root, "test")


def test_every_value(tmp_path: Path) -> None:
    root = make_ade20k(tmp_path, {"train": 1})
    save(root / "images" / "training" / "ADE_train_00000000.jpg", np.zeros((1, 151, 3), np.uint8))
    mask = save(root / "annotations" / "training" / "ADE_train_00000000.png", np.arange(151, dtype=np.uint8)[None])
    dataset = open_split("x", root, "train")
    assert dataset[0].masks[SEMANTIC][0].tolist() == [VOID, *range(150)]
    save(mask, np.full((1, 151), 151, np.uint8))
    with pytest.raises(DataError, match="151"):
        dataset[0]


def test_names(tmp_path: Path) -> None:
    assert [ADE20K[i - 1] for i in (1, 2, 9, 13, 45, 59, 65, 90, 124, 131, 142, 150)] == [
        "wall", "building", "windowpane", "person", "chest of drawers", "screen door", "coffee table", "television",
        "trade name", "screen", "crt screen", "flag",
    ]  # fmt: skip
    root = make_ade20k(tmp_path, {"train": 1})
    file = root / "objectInfo150.txt"
    lines = [f"{i}\t0.1\t1\t1\t{name}, another {i}" for i, name in enumerate(ADE20K, 1)]
    file.write_text(HEAD + "\n".join(lines).replace("wall, ", "partition; wall, ") + "\n")
    assert open_split("x", root, "train").labels[SEMANTIC].names == ("partition", *ADE20K[1:])
    file.write_text(HEAD + "\n".join(lines[:149]))
    with pytest.raises(DataError, match=r"objectInfo150\.txt: 150 colours for 149 classes.*; copy the published file"):
        open_split("x", root, "train")


def test_only_by_its_own_marks(tmp_path: Path) -> None:
    root = make_ade20k(tmp_path).rename(tmp_path / "mine")
    assert not recognise(root)
    assert not recognise(root.parent)
    (root / "sceneCategories.txt").touch()
    assert recognise(root)
    assert splits(root) == ("train", "val")


def test_steel_has_the_same_folders(shared_data: Path) -> None:
    assert not recognise(shared_data / "steel")


def test_the_full_release(tmp_path: Path, shared_data: Path) -> None:
    for name in ("dataset", "dataset_with_meta_file"):
        path = shared_data / "annotations" / "datumaro" / "ade20k2017_dataset" / name
        assert recognise(path)
        expected = r"is the full ADE20K.*some 3,000 objects and ours at most 255; get ADEChallengeData2016\.zip"
        with pytest.raises(DataError, match=expected):
            splits(path)
        with pytest.raises(DataError, match=expected):
            open_split("x", path, "train")
    inside = tmp_path / "images" / "validation" / "a" / "abbey"
    save(inside / "ADE_val_1_seg.png", np.zeros((2, 2, 3), np.uint8))
    assert not recognise(tmp_path)
    (inside / "ADE_val_1_atr.txt").touch()
    assert recognise(tmp_path)
