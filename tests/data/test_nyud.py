"""NYUDv2: three inputs, 40 classes (reference 7.4)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.check import check
from fullconv.data.nyud import INPUTS, DepthReader, open_split, recognise, splits
from fullconv.data.sample import SEMANTIC, InputKind
from fullconv.errors import DataError
from fullconv.nets import NETS, published_labels
from makers import COUNTS, make_nyud, save, save_list, scene


def test_layout(tmp_path: Path) -> None:
    root = make_nyud(tmp_path / "n")
    assert recognise(root)
    assert splits(root) == ("train", "val", "trainval", "test")
    for number, (split, count) in enumerate(COUNTS.items()):
        dataset = open_split("x", root, split)
        assert dataset.names == tuple(f"img_{5001 + 100 * number + i}" for i in range(count))
        image, mask = scene(5001 + 100 * number, classes=40)
        sample = dataset[0]
        np.testing.assert_array_equal(sample.masks[SEMANTIC], mask)  # void 0 -> 255, classes from 1 -> from 0
        np.testing.assert_array_equal(sample.inputs["color"], image)
        np.testing.assert_array_equal(sample.inputs["hha"], 255 - image)
        np.testing.assert_array_equal(sample.inputs["depth"], 2000 + mask.astype(np.uint16)[:, :, None])
        assert sample.inputs["depth"].dtype == np.uint16
        assert dataset.inputs == {"color": InputKind(), "depth": InputKind(1, log=True), "hha": InputKind(light=False)}


def test_names_of_the_published_nets() -> None:
    for name, net in NETS.items():
        if name.startswith("nyud-"):
            assert set(net.inputs) <= set(INPUTS)
            assert {key: options.channels for key, options in net.inputs.items()} == {
                key: INPUTS[key][1].kind.channels for key in net.inputs
            }
            assert all(options.log == INPUTS[key][1].kind.log for key, options in net.inputs.items())


def test_classes_of_the_published_nets(tmp_path: Path) -> None:
    labels = open_split("x", make_nyud(tmp_path), "val").labels
    theirs = published_labels("nyud-fcn32s-color")
    assert labels[SEMANTIC].names == theirs[SEMANTIC].names
    assert len(labels[SEMANTIC]) == 40


def test_trainval(tmp_path: Path) -> None:
    root = make_nyud(tmp_path)
    train, val = (open_split("x", root, split).names for split in ("train", "val"))
    assert open_split("x", root, "trainval").names == (*train, *val)
    save_list(root / "trainval.txt", ["img_5101", "5001"])
    assert open_split("x", root, "trainval").names == ("img_5101", "img_5001")
    (root / "val.txt").unlink()
    (root / "trainval.txt").unlink()
    assert splits(root) == ("train", "test")


def test_as_far_as_the_folders_are_there(tmp_path: Path) -> None:
    root = make_nyud(tmp_path)
    shutil.rmtree(root / "data" / "hha")
    dataset = open_split("x", root, "test")
    assert list(dataset.inputs) == ["color", "depth"]
    assert check(dataset).problems == ()
    (root / "data" / "depth" / "img_5201.png").unlink()
    with pytest.raises(DataError, match=r"^x: 1 files of test are missing \(depth/img_5201\.png\); unpack"):
        open_split("x", root, "test")
    with pytest.raises(DataError, match=r"^x: has no split 'dev'; its splits: train, val, trainval, test$"):
        open_split("x", root, "dev")


def test_lists_are_needed(tmp_path: Path) -> None:
    root = make_nyud(tmp_path)
    for file in root.glob("*.txt"):
        file.unlink()
    assert recognise(root)
    with pytest.raises(DataError, match=r"has no train\.txt, val\.txt or test\.txt .* data/nyud of the paper's code"):
        splits(root)
    assert not recognise(root / "data")


def test_depth_has_16_bits(tmp_path: Path) -> None:
    path = save(tmp_path / "d.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=r"d\.png: holds L values, expected depth as grey of 16 bits; take the file"):
        DepthReader().read(path)
    values = np.array([[0, 65535, 2551]], np.uint16)
    np.testing.assert_array_equal(DepthReader().read(save(path, values)), values[:, :, None])
