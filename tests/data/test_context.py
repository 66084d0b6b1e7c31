"""Pascal-Context: 459 names to 60 classes (reference 7.3)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fullconv.classes import PASCAL_CONTEXT
from fullconv.data.context import NUMBERS, OTHER_NAMES, open_split, recognise, splits
from fullconv.data.sample import SEMANTIC
from fullconv.errors import DataError
from fullconv.labels import VOID
from makers import CONTEXT_NUMBERS, make_context, save_list, save_mat, scene


def names_459() -> list[str]:
    """As published, of the names that matter."""
    names = [f"thing {number}" for number in range(1, 460)]
    for name, number in zip(PASCAL_CONTEXT[1:], NUMBERS, strict=True):
        names[number - 1] = OTHER_NAMES.get(name, name)
    return [f"{number}: {name}" for number, name in enumerate(names, 1)]


def test_layout(tmp_path: Path) -> None:
    root = make_context(tmp_path / "ü b")
    assert recognise(root)
    assert splits(root) == ("train", "val")
    dataset = open_split("x", root, "val")
    assert dataset.names == ("2010_001000", "2010_001001")  # the id without label map is not taken
    drawn = scene(101, classes=6)[1]
    expected = np.array(list(CONTEXT_NUMBERS.values()), np.uint8)[np.where(drawn == VOID, 6, drawn)]
    np.testing.assert_array_equal(dataset[1].masks[SEMANTIC], expected)


def test_every_number(tmp_path: Path) -> None:
    """The three that have another name, and the reference's order beside the alphabet's."""
    root = make_context(tmp_path)
    for index, first in enumerate((0, 192, 268)):
        numbers = np.arange(first, first + 192, dtype=np.uint16).reshape(12, 16)
        save_mat(root / "trainval" / f"2010_00000{index}.mat", LabelMap=numbers)
    dataset = open_split("x", root, "train")
    low, middle, high = (sample.masks[SEMANTIC].ravel().tolist() for sample in dataset)
    table = [*low, *middle[: 268 - 192], *high]
    names = dataset.labels[SEMANTIC].names
    found = {names[label]: number for number, label in enumerate(table) if label}
    assert list(found) == sorted(names[1:], key=found.__getitem__)
    assert (len(table), len(found)) == (460, 59)
    assert {n: found[n] for n in ("aeroplane", "diningtable", "bedcloth", "clothes", "bag", "curtain", "wood")} == {
        "aeroplane": 2, "diningtable": 397, "bedcloth": 19, "clothes": 80, "bag": 9, "curtain": 105, "wood": 458,
    }  # fmt: skip
    save_mat(root / "trainval" / "2010_000002.mat", LabelMap=np.full((12, 16), 460, np.uint16))
    with pytest.raises(DataError, match=r"LabelMap holds the number 460, expected 0\.\.459"):
        dataset[2]


def test_the_published_lists_are_checked(tmp_path: Path) -> None:
    root = make_context(tmp_path)
    lines = names_459()
    save_list(root / "labels.txt", [line.replace("thing", "some thing") for line in lines])
    save_list(root / "59_labels.txt", [f"{i}: {name}" for i, name in enumerate(PASCAL_CONTEXT) if i])
    assert len(open_split("x", root, "train")) == 3
    save_list(root / "labels.txt", [*lines[:8], "9: sack", *lines[9:]])
    with pytest.raises(
        DataError, match=r"labels\.txt: has 'sack' as number 9, expected 'bag' \(lines such as '9: bag'"
    ):
        open_split("x", root, "train")
    save_list(root / "labels.txt", lines)
    save_list(root / "59_labels.txt", ["1: aeroplane"])
    with pytest.raises(DataError, match=r"59_labels\.txt: has '' as number 2, expected 'bicycle'.*, or remove it"):
        open_split("x", root, "train")


@pytest.mark.parametrize("place", ["pascal-context", "pascal-context/VOCdevkit", "pascal/TrainVal/VOCdevkit", ""])
def test_where_voc2010_may_be(tmp_path: Path, place: str) -> None:
    root = make_context(tmp_path)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    shutil.move(tmp_path / "VOCdevkit" / "VOC2010", tmp_path / place)
    assert len(open_split("x", root, "train")) == 3


def test_what_is_missing(tmp_path: Path) -> None:
    assert not recognise(tmp_path)
    root = make_context(tmp_path)
    voc = tmp_path / "VOCdevkit" / "VOC2010"
    with pytest.raises(DataError, match=r"^x: has no split 'trainval'; its splits: train, val$"):
        open_split("x", root, "trainval")
    (voc / "JPEGImages" / "2010_000001.jpg").unlink()
    with pytest.raises(DataError, match=r"^x: 1 files of train\.txt are missing \(JPEGImages/2010_000001\.jpg\)"):
        open_split("x", root, "train")
    save_list(voc / "ImageSets" / "Main" / "train.txt", ["2010_9"])
    with pytest.raises(DataError, match=r"^x: trainval holds no label map of train\.txt; unpack the data set again"):
        open_split("x", root, "train")
    shutil.rmtree(voc)
    with pytest.raises(
        DataError, match=r"no VOC2010 with ImageSets/Main in or beside it.*VOCtrainval_03-May-2010\.tar"
    ):
        splits(root)
