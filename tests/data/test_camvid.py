"""CamVid in its published layout; class numbers and colours of reference 7.6."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.camvid import CAMVID_LABELS, open_split, recognise, splits
from fullconv.data.check import check
from fullconv.data.folder import held_out
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.errors import DataError
from fullconv.labels import VOID
from makers import COUNTS, make_camvid, save, scene

# SegNet's median-frequency weights (reference 7.6): median(f) / f, where f is a class's share of the pixels of the
# training images that contain it. They witness the classes, their order and the void value from outside. Those files
# were not quite these: the weights differ by up to a fifth, and that of sign symbol by far more.
WEIGHTS = (0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614)
SIGN_SYMBOL = 6


def test_layout(tmp_path: Path) -> None:
    root = make_camvid(tmp_path / "Cam Vid")
    assert recognise(root)
    assert splits(root) == ("train", "val", "test")
    for number, (split, count) in enumerate(COUNTS.items()):
        dataset = open_split("x", root, split)
        assert len(dataset) == count
        image, mask = scene(100 * number, classes=11)
        assert dataset.names[0] == f"{number:04}TP_000000"
        np.testing.assert_array_equal(dataset[0].inputs[IMAGE], image)
        np.testing.assert_array_equal(dataset[0].masks[SEMANTIC], mask)


def test_a_split_needs_its_annotations(tmp_path: Path) -> None:
    root = make_camvid(tmp_path, {"train": 2})
    save(root / "test" / "0.png", scene(0)[0])
    assert splits(root) == ("train", "val")
    with pytest.raises(DataError, match=r"^x: has no split 'test'; its splits: train, val$"):
        open_split("x", root, "test")
    assert not recognise(root / "train")


def test_a_missing_val_is_held_out_of_train(tmp_path: Path) -> None:
    root = make_camvid(tmp_path, {"train": 5, "test": 1})
    assert splits(root) == ("train", "val", "test")
    train, val = (set(open_split("x", root, split).names) for split in ("train", "val"))
    every = {f"0000TP_00000{index}" for index in range(5)}
    assert val == held_out(every)
    assert train == every - val


def test_masks_in_colour(tmp_path: Path) -> None:
    root = make_camvid(tmp_path, {"train": 1, "val": 1})
    labels = np.array([[*range(11), VOID]], np.uint8)
    rgb = np.array([[*CAMVID_LABELS.colours, (0, 0, 0)]], np.uint8)
    save(root / "train" / "0000TP_000000.png", np.zeros((1, 12, 3), np.uint8))
    save(root / "trainannot" / "0000TP_000000.png", rgb)
    np.testing.assert_array_equal(open_split("x", root, "train")[0].masks[SEMANTIC], labels)


def test_names_and_colours_of_the_reference() -> None:
    assert dict(zip(CAMVID_LABELS.names, CAMVID_LABELS.colours, strict=True)) == {
        "sky": (128, 128, 128),
        "building": (128, 0, 0),
        "pole": (192, 192, 128),
        "road": (128, 64, 128),
        "pavement": (60, 40, 222),
        "tree": (128, 128, 0),
        "sign symbol": (192, 128, 128),
        "fence": (64, 64, 128),
        "car": (64, 0, 128),
        "pedestrian": (64, 64, 0),
        "bicyclist": (0, 128, 192),
    }


def test_real_camvid_against_published_weights(shared_data: Path) -> None:
    train = open_split("x", shared_data / "camvid", "train")
    assert (len(train), len(open_split("x", shared_data / "camvid", "val"))) == (367, 101)
    checked = check(train)
    assert checked.problems == ()
    assert set(checked.sizes) == {(360, 480)}
    assert int(checked.pixels[SEMANTIC].sum()) + checked.void[SEMANTIC] == 367 * 360 * 480
    counts = np.zeros((367, 12), np.int64)
    for index, each in enumerate(train.scenes):
        with Image.open(each.mask) as picture:
            counts[index] = np.bincount(np.asarray(picture).ravel(), minlength=12)
    np.testing.assert_array_equal(counts.sum(axis=0), [*checked.pixels[SEMANTIC], checked.void[SEMANTIC]])
    shares = counts.sum(axis=0) / ((counts > 0).sum(axis=0) * 360 * 480)
    weights = np.median(shares[:11]) / shares[:11]
    ours, published = np.delete(weights, SIGN_SYMBOL), np.delete(WEIGHTS, SIGN_SYMBOL)
    assert np.argsort(ours).tolist() == np.argsort(published).tolist()
