"""Pairs of files."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.mask import MaskReader
from fullconv.data.pairs import ImageMaskPairs, Pair, listed, pair_by_stem, require_split
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.errors import DataError
from fullconv.labels import LabelSet
from makers import CLASSES, make_folder, save, save_scene, scene

LABELS = LabelSet.numbered(CLASSES)


def some_pairs(root: Path, count: int = 5) -> ImageMaskPairs:
    make_folder(root, "{kind}/{name}", {"train": count})
    pairs = pair_by_stem(str(root), root / "images", root / "masks")
    return ImageMaskPairs(str(root), "train", pairs, LABELS, MaskReader(CLASSES))


def test_samples_are_the_files(tmp_path: Path) -> None:
    dataset = some_pairs(tmp_path / "a folder, ünïcode")
    assert len(dataset) == 5
    assert dataset.names == ("0000", "0001", "0002", "0003", "0004")
    assert dataset.channels == {IMAGE: 3}
    assert dataset.labels == {SEMANTIC: LABELS}
    for index in (0, 3, -1):
        image, mask = scene(range(5)[index])
        found = dataset[index]
        np.testing.assert_array_equal(found.inputs[IMAGE], image)
        np.testing.assert_array_equal(found.masks[SEMANTIC], mask)
        assert found.name == dataset.names[index]
        assert found.size == mask.shape


def test_sizes_that_differ(tmp_path: Path) -> None:
    dataset = some_pairs(tmp_path, 1)
    save(dataset.pairs[0].mask, np.zeros((16, 12), np.uint8))
    with pytest.raises(DataError) as caught:
        dataset[0]
    assert "0000.png: is 16 x 12 (H x W), its image" in str(caught.value)
    assert str(caught.value).endswith(
        "is 12 x 16; the sides are swapped: only one of the two says in its EXIF that it is rotated; save both upright"
    )
    save(dataset.pairs[0].mask, np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match=r"is 6 x 8 .* is 12 x 16; make a mask of the image's size"):
        dataset[0]


def test_fingerprint_is_of_names_sizes_and_labels(tmp_path: Path) -> None:
    dataset = some_pairs(tmp_path / "a")
    first = dataset.fingerprint()
    assert len(first) == 64
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # with new modification times
    pairs = pair_by_stem("b", tmp_path / "b" / "images", tmp_path / "b" / "masks")
    copy = ImageMaskPairs("b", "train", pairs, LABELS, MaskReader(CLASSES))
    assert copy.fingerprint() == first
    others = [
        ImageMaskPairs("b", "train", pairs[1:], LABELS, MaskReader(CLASSES)),
        ImageMaskPairs("b", "train", pairs, LabelSet(("x", "y", "z")), MaskReader(CLASSES)),
        ImageMaskPairs("b", "train", pairs, LABELS, MaskReader(CLASSES, {1: 255})),
        ImageMaskPairs("b", "train", pairs, LABELS, MaskReader(CLASSES, colors={(1, 2, 3): 0})),
        ImageMaskPairs("b", "train", [Pair("x", pairs[0].image, pairs[0].mask), *pairs[1:]], LABELS, copy.reader),
    ]
    with pairs[2].mask.open("ab") as stream:
        stream.write(b"x")
    digests = {first, copy.fingerprint(), *(other.fingerprint() for other in others)}
    assert len(digests) == 2 + len(others)
    pairs[0].image.unlink()
    with pytest.raises(DataError, match=r"0000\.png: no such file; check the path"):
        copy.fingerprint()


def test_pairs_by_relative_stem(tmp_path: Path) -> None:
    for name in ("b/0001", "a/0001", "c.d"):
        save_scene(tmp_path / "images" / f"{name}.JPG", tmp_path / "masks" / f"{name}.png", 0)
    for ignored in ("images/.hidden.png", "images/notes.txt", "masks/.git/x.png", "masks/Thumbs.db"):
        (tmp_path / ignored).parent.mkdir(exist_ok=True)
        (tmp_path / ignored).touch()
    pairs = pair_by_stem("data", tmp_path / "images", tmp_path / "masks")
    assert [pair.name for pair in pairs] == ["a/0001", "b/0001", "c.d"]
    assert pairs[0] == Pair("a/0001", tmp_path / "images/a/0001.JPG", tmp_path / "masks/a/0001.png")


def test_accents_stored_in_two_ways_pair(tmp_path: Path) -> None:
    composed, split = unicodedata.normalize("NFC", "mütze"), unicodedata.normalize("NFD", "mütze")
    assert composed != split
    save_scene(tmp_path / "images" / f"{composed}.png", tmp_path / "masks" / f"{split}.png", 0)
    assert len(pair_by_stem("data", tmp_path / "images", tmp_path / "masks")) == 1


def test_what_does_not_pair_is_listed(tmp_path: Path) -> None:
    for index in range(12):
        save_scene(tmp_path / "images" / f"{index:02}.png", tmp_path / "elsewhere" / "x.png", 0)
    save(tmp_path / "masks" / "lost.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError) as caught:
        pair_by_stem("data", tmp_path / "images", tmp_path / "masks")
    assert str(caught.value) == (
        "data: 12 images without mask (00, 01, 02, 03, 04, 05, 06, 07, 08, 09, and 2 more) and 1 masks without image "
        f"(lost); masks lie in {tmp_path / 'masks'} under their image's name, such as 0001.jpg and 0001.png: add or "
        "remove files"
    )


def test_one_name_twice(tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        Image.new("RGB", (2, 2)).save(tmp_path / f"a.{suffix}")
    with pytest.raises(DataError, match=r"^data: .*a\.jpg and a\.png share the name 'a'; rename or remove one$"):
        pair_by_stem("data", tmp_path, tmp_path)


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"holds no pictures; expected files ending in \.jpg, \.jpeg, \.png"):
        pair_by_stem("data", tmp_path, tmp_path)


def test_listed_is_one_printable_line() -> None:
    assert listed(["a", "b\nc", os.fsdecode(b"\xff")]) == r"a, b\nc, \udcff"
    assert listed(str(i) for i in range(11)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 1 more"


def test_require_split() -> None:
    require_split("data", "val", ["train", "val"])
    with pytest.raises(DataError, match=r"^data: has no split 'test'; its splits: train, val$"):
        require_split("data", "test", ["train", "val"])
    with pytest.raises(DataError, match=r"its splits: none$"):
        require_split("data", "test", [])
