"""Plain folders: layouts, splits, classes, and every message of what does not fit."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from fullconv.data import yamlfile
from fullconv.data.check import check
from fullconv.data.folder import declared_labels, held_out, open_split, recognise, splits, write_classes
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.labels import LabelSet
from makers import COUNTS, make_folder, save, scene
from refusals import refusal

LAYOUTS = ["{split}/{kind}/{name}", "{kind}/{split}/{name}"]


def opened(root: Path, split: str = "train") -> str:
    return refusal(open_split, str(root), root, split)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_split_folders(tmp_path: Path, layout: str) -> None:
    root = make_folder(tmp_path / "some data, größe", layout)
    assert recognise(root)
    assert splits(root) == ("train", "val", "test")
    seed = 0
    for split, count in COUNTS.items():
        dataset = open_split("named", root, split)
        assert (dataset.source, dataset.split, len(dataset)) == ("named", split, count)
        for index in range(count):
            image, mask = scene(seed)
            np.testing.assert_array_equal(dataset[index].inputs[IMAGE], image)
            np.testing.assert_array_equal(dataset[index].masks[SEMANTIC], mask)
            seed += 1


def test_no_split_folders_hold_out_a_tenth(tmp_path: Path) -> None:
    root = make_folder(tmp_path, "{kind}/{name}", {"any": 20})
    assert splits(root) == ("train", "val")
    train, val = (open_split("x", root, split).names for split in ("train", "val"))
    ranked = sorted((f"{i:04}" for i in range(20)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert sorted(val) == sorted(ranked[:2])
    assert sorted([*train, *val]) == [f"{i:04}" for i in range(20)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_val_is_held_out_of_train(tmp_path: Path, layout: str) -> None:
    root = make_folder(tmp_path, layout, {"train": 5, "test": 1})
    assert splits(root) == ("train", "val", "test")
    train, val = (set(open_split("x", root, split).names) for split in ("train", "val"))
    assert (len(train), len(val)) == (4, 1)
    assert not train & val
    assert open_split("x", root, "test").names == ("0005",)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 1), (14, 1), (16, 2), (100, 10)])
def test_held_out_is_a_tenth_and_at_least_one(count: int, expected: int) -> None:
    names = [str(i) for i in range(count)]
    assert len(held_out(names)) == expected
    assert held_out(reversed(names)) == held_out(names)


def test_one_image_cannot_be_split(tmp_path: Path) -> None:
    root = make_folder(tmp_path, "{kind}/{name}", {"any": 1})
    assert opened(root).endswith(
        "holds one image, and val is held out of train; add images, or a val split of its own, or cut it with "
        "tile: 128 in a YAML file"
    )


def test_a_split_without_masks_is_no_split(tmp_path: Path) -> None:
    root = make_folder(tmp_path, counts={"train": 2, "val": 1})
    save(root / "test" / "images" / "0.png", scene(0)[0])
    assert splits(root) == ("train", "val")
    assert opened(root, "test") == f"{root}: has no split 'test'; its splits: train, val"


def test_images_alone(tmp_path: Path) -> None:
    save(tmp_path / "a" / "train" / "images" / "0.png", scene(0)[0])
    assert recognise(tmp_path / "a")
    expected = f"{tmp_path / 'a'}: no masks; expected them in {tmp_path / 'a' / 'train' / 'masks'}"
    assert opened(tmp_path / "a") == expected
    save(tmp_path / "b" / "images" / "0.png", scene(0)[0])
    assert not recognise(tmp_path / "b")
    (tmp_path / "b" / "masks").mkdir()
    assert recognise(tmp_path / "b")
    assert opened(tmp_path / "b") == f"{tmp_path / 'b'}: no masks; expected them in {tmp_path / 'b' / 'masks'}"


def test_what_does_not_pair(tmp_path: Path) -> None:
    root = make_folder(tmp_path, "{kind}/{name}", {"any": 3})
    (root / "masks" / "0001.png").rename(root / "masks" / "0001_mask.png")
    assert "1 images without mask (0001) and 1 masks without image (0001_mask)" in opened(root)


def test_classes_are_told_from_the_masks_of_all_splits(tmp_path: Path) -> None:
    root = make_folder(tmp_path, counts={"train": 2, "val": 1})
    save(root / "val" / "masks" / "0002.png", np.full((12, 16), 4, np.uint8))
    dataset = open_split("x", root, "train")
    assert dataset.labels[SEMANTIC] == LabelSet.numbered(5)
    assert check(dataset).problems == ()
    save(root / "val" / "masks" / "0002.png", np.full((12, 16), 5, np.uint8))  # the scan is not remembered wrongly
    assert len(open_split("x", root, "train").labels[SEMANTIC]) == 6


def test_colours_come_from_the_first_palette(tmp_path: Path) -> None:
    labels = LabelSet(("0", "1", "2"), ((10, 20, 30), (40, 50, 60), (70, 80, 90)))
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", scene(0)[0])
        save(tmp_path / "masks" / f"{name}.png", scene(0)[1], labels)
    assert open_split("x", tmp_path, "train").labels[SEMANTIC] == labels
    ramp = LabelSet(labels.names, tuple((i, i, i) for i in range(3)))  # grey: hardly to be told apart
    one_colour = LabelSet(labels.names, ((7, 7, 7),) * 3)
    for unusable in (ramp, one_colour):
        save(tmp_path / "masks" / "a.png", scene(len(unusable))[1], unusable)
        assert open_split("x", tmp_path, "train").labels[SEMANTIC] == LabelSet.numbered(3)


def test_class_names_from_classes_txt(tmp_path: Path) -> None:
    root = make_folder(tmp_path, counts={"train": 2})
    (root / "classes.txt").write_bytes("\ufeffground\r\n ring \r\n\r\nKratzer ß\r\n".encode())
    dataset = open_split("x", root, "train")
    assert dataset.labels[SEMANTIC] == LabelSet(("ground", "ring", "Kratzer ß"))
    (root / "classes.txt").write_text("a\na\n")
    assert opened(root) == f"{root / 'classes.txt'}: class name 'a' is given twice; give every class its own name"
    (root / "classes.txt").write_bytes(b"\xff\xfe")
    assert "classes.txt: is not UTF-8 text (invalid start byte); save it as UTF-8" in opened(root)
    (root / "classes.txt").write_bytes(b"a" * (2**20 + 1))
    assert "classes.txt: is larger than 1 MiB; expected a short text" in opened(root)


def test_named_classes_have_the_colours_of_the_first_palette(tmp_path: Path) -> None:
    labels = LabelSet(("ground", "ring", "Kratzer ß"), ((10, 20, 30), (40, 50, 60), (70, 80, 90)))
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", scene(0)[0])
        save(tmp_path / "masks" / f"{name}.png", scene(0)[1], labels)
    write_classes(tmp_path, labels)
    assert (tmp_path / "classes.txt").read_bytes() == "ground\nring\nKratzer ß\n".encode()
    assert open_split("x", tmp_path, "val").labels[SEMANTIC] == labels
    assert declared_labels(tmp_path) == LabelSet(labels.names)
    save(tmp_path / "masks" / "a.png", scene(0)[1])
    assert open_split("x", tmp_path, "train").labels[SEMANTIC] == LabelSet(labels.names)


@pytest.mark.parametrize("layout", [*LAYOUTS, "{kind}/{name}"])
@pytest.mark.parametrize("name", ["data", "a: b, #1 'ü' \"{x}\"\n\\n"])
def test_masks_of_0_and_255(tmp_path: Path, layout: str, name: str) -> None:
    root = make_folder(tmp_path / name, layout, {"train": 2, "val": 1})
    binary = scene(0)[1] == 1
    for path in root.glob("**/masks/**/*.png"):
        save(path, np.where(binary, 255, 0).astype(np.uint8))
    found = opened(root)
    told, line = found.split(" instead: ")
    assert told.endswith("hold only 0 and 255, and 255 is void; if it marks a class, open a YAML file of this one line")
    (tmp_path / "elsewhere").mkdir()
    copied = tmp_path / "elsewhere" / "data.yaml"
    copied.write_text(line, "utf-8")
    for split in ("train", "val"):
        checked = check(yamlfile.open_split("x", copied, split))
        assert checked.problems == ()
        assert checked.pixels[SEMANTIC][1] == len(checked.sizes) * binary.sum() > 0
    (root / "classes.txt").write_text("ground\nscratch\n")
    assert "label_mapping: {0: 0, 255: 1}" in check(open_split("x", root, "train")).problems[0]


def test_the_line_for_masks_of_0_and_255(tmp_path: Path) -> None:
    root = make_folder(tmp_path, counts={"train": 1, "test": 1})
    for path in root.glob("*/masks/*.png"):
        save(path, np.full((12, 16), 255, np.uint8))
    assert opened(root).endswith(
        f' instead: {{path: "{tmp_path}", train: train/images, test: test/images, masks_dir: masks, '
        "names: [background, foreground], label_mapping: {0: 0, 255: 1}}"
    )


def test_values_that_number_no_classes(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png", scene(0)[0])
        save(tmp_path / "masks" / f"{name}.png", np.where(scene(0)[1] == 1, 128, 0).astype(np.uint8))
    assert "the masks hold the values 0, 128, not class numbers 0, 1, 2 ...; name the classes" in opened(tmp_path)


def test_unreadable_masks_are_left_to_the_check(tmp_path: Path) -> None:
    root = make_folder(tmp_path, counts={"train": 3, "val": 1})
    (root / "train" / "masks" / "0000.png").write_bytes(b"damaged")
    checked = check(open_split("x", root, "train"))
    assert len(checked.problems) == 1
    for path in root.glob("*/masks/*.png"):
        path.write_bytes(b"damaged")
    assert re.search(r"000\d\.png: holds something unknown", opened(root))
