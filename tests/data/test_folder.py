"""Plain folders and YAML files: layouts, splits, classes, and every message of what does not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.folder import (
    held_out,
    open_split,
    open_yaml,
    recognise,
    recognise_yaml,
    splits,
    yaml_splits,
)
from fullconv.data.pairs import check
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.errors import DataError
from fullconv.labels import VOID, LabelSet
from makers import COUNTS, make_folder, make_yaml, save, save_scene, scene

LAYOUTS = ["{split}/{kind}/{name}", "{kind}/{split}/{name}"]


def message(function: Callable[..., object], *args: object) -> str:
    with pytest.raises(DataError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def opened(root: Path, split: str = "train") -> str:
    return message(open_split, str(root), root, split)


def described(root: Path, text: str, split: str = "train", counts: dict[str, int] | None = None) -> str:
    """The refusal of a YAML file made of `text` alone; it begins with the file's path, which is left out."""
    path = make_yaml(root, counts=counts or {"train": 2})
    path.write_text(text, "utf-8")
    found = message(open_yaml, str(path), path, split)
    assert found.startswith(f"{path}: ")
    return found.removeprefix(f"{path}: ")


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
    assert opened(root).endswith("holds one image, and val is held out of train; add images, or a val split of its own")


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


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png", scene(0)[0])
        save(tmp_path / "masks" / f"{name}.png", np.where(scene(0)[1] == 1, 255, 0).astype(np.uint8))
    expected = "the masks hold only 0 and 255, and 255 is void; for two classes run `fullconv doctor DATA --fix OUT`"
    assert expected in opened(tmp_path)
    (tmp_path / "classes.txt").write_text("ground\nscratch\n")
    assert "label_mapping: {0: 0, 255: 1}" in check(open_split("x", tmp_path, "train")).problems[0]


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
    assert "0000.png: holds something unknown" in opened(root)


def test_yaml(tmp_path: Path) -> None:
    path = make_yaml(tmp_path / "some data")
    assert recognise_yaml(path)
    assert not recognise_yaml(tmp_path / "no.yaml")
    assert not recognise_yaml(path.parent)
    assert yaml_splits(path) == ("train", "val", "test")
    seed = 0
    for split, count in COUNTS.items():
        dataset = open_yaml("named", path, split)
        assert (dataset.source, dataset.split, len(dataset)) == ("named", split, count)
        for index in range(count):
            np.testing.assert_array_equal(dataset[index].masks[SEMANTIC], scene(seed)[1])
            seed += 1
    assert dataset.labels[SEMANTIC] == LabelSet(("ground", "a", "b"))
    assert message(open_yaml, "named", path, "other") == "named: has no split 'other'; its splits: train, val, test"


def test_yaml_holds_out_a_missing_val(tmp_path: Path) -> None:
    path = make_yaml(tmp_path, counts={"train": 11})
    assert yaml_splits(path) == ("train", "val")
    assert [len(open_yaml("x", path, split)) for split in ("train", "val")] == [10, 1]


@pytest.mark.parametrize("absolute", [False, True])
def test_yaml_path_is_relative_to_the_file(tmp_path: Path, absolute: bool) -> None:
    make_folder(tmp_path / "ä data", "{kind}/{split}/{name}", {"train": 2, "val": 1})
    (tmp_path / "conf").mkdir()
    root = tmp_path / "ä data" if absolute else "../ä data"
    path = tmp_path / "conf" / "a.yml"
    path.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: {{1: b, 0: a, 2: c}}\n", "utf-8")
    dataset = open_yaml("x", path, "val")
    assert dataset.names == ("0002",)
    assert dataset.labels[SEMANTIC].names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/train", "labels/train"),  # `images` replaced
        ("a/images/b/train", "a/labels/b/train"),
        ("images/images/train", "images/labels/train"),  # the last `images`
        ("train", "labels/train"),  # the last part of the split's path
        ("photos/train", "labels/train"),
        ("train", "labels"),  # the folder itself
        ("images", "labels"),
    ],
)
def test_where_yaml_finds_masks(tmp_path: Path, images: str, masks: str) -> None:
    for name in "ab":
        save_scene(tmp_path / images / f"{name}.png", tmp_path / masks / f"{name}.png", 1)
    path = tmp_path / "a.yaml"
    path.write_text(f"train: {images}\nmasks_dir: labels\nnames: [a, b, c]\n")
    assert open_yaml("x", path, "train").pairs[0].mask.parent == tmp_path / masks


def test_yaml_prefers_the_masks_beside_the_images(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train: a/images/train\nmasks_dir: labels\nnames: [a, b, c]\n")
    for folder in ("labels", "labels/train", "a/labels/train"):  # each is looked in before the one above
        for name in "pq":
            save_scene(tmp_path / "a" / "images" / "train" / f"{name}.png", tmp_path / folder / f"{name}.png", 1)
        assert open_yaml("x", path, "train").pairs[0].mask.parent == tmp_path / folder


def test_yaml_label_mapping(tmp_path: Path) -> None:
    path = make_yaml(tmp_path, "label_mapping: {1: 2, 2: 255, 255: 1}", {"train": 2, "val": 1})
    expected = np.array([0, 2, 255] + [0] * 252 + [1], np.uint8)[scene(2)[1]]
    np.testing.assert_array_equal(open_yaml("x", path, "val")[0].masks[SEMANTIC], expected)


def test_yaml_colors(tmp_path: Path) -> None:
    text = "colors: {ground: [0, 0, 0], a: '#ff0080', b: ['#010203', [4, 5, 6]], void: [[9, 9, 9], '#FfFfFf']}"
    path = make_yaml(tmp_path, text, {"train": 2, "val": 1})
    rgb = np.array([[[0, 0, 0], [255, 0, 128], [1, 2, 3]], [[4, 5, 6], [9, 9, 9], [255, 255, 255]]], np.uint8)
    save(tmp_path / "annotations" / "val" / "2.png", rgb)
    save(tmp_path / "images" / "val" / "2.jpg", rgb)
    dataset = open_yaml("x", path, "val")
    assert dataset[0].masks[SEMANTIC].tolist() == [[0, 1, 2], [2, VOID, VOID]]
    assert dataset.labels[SEMANTIC].colours == ((0, 0, 0), (255, 0, 128), (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: images/train\nname: [a]", "unknown key 'name'; did you mean 'names'? Choices: colors, label_mapping"),
        ("train: images/train\n7: [a]", "unknown key '7'. Choices: colors"),
        ("- a\n- b", "holds ['a', 'b'], expected the keys path, train, val, test, masks_dir, names"),
        ("", "holds None, expected the keys"),
        ("train: [a", "is not valid YAML (while parsing a flow sequence"),
        ("train: 2001-99-99", "is not valid YAML (month must be in 1..12"),
        ("train: !!python/object/apply:os.system [ls]", "is not valid YAML (could not determine a constructor"),
        ("a: " + "[" * 5000, "is not valid YAML (maximum recursion depth exceeded"),
        ("names: [a]", "names no split; add train: FOLDER (and val, test)"),
        ("train: 7", "train is 7, expected the path of a folder"),
        ("train: ''", "train is '', expected the path of a folder"),
        ("train: images/train\npath: [a]", "path is ['a'], expected the path of a folder"),
        ("train: nowhere\nnames: [a]", "there is no folder"),
        ("train: images/train\nnames: [a]\nmasks_dir: no", "masks_dir is False, expected the path of a folder"),
        ("train: images/train\nnames: [a]\nmasks_dir: nowhere", "no masks for images/train; looked in"),
    ],
)
def test_yaml_refusals(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in described(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("names: a", "names is 'a', expected a list, such as [background, scratch]"),
        ("names: []", "names is [], expected a list"),
        ("path: .", "names is None, expected a list"),
        ("names: {0: a, 2: b}", "names has the numbers [0, 2], expected 0..1 once each"),
        ("names: [yes, no]", "the class name True is not text; put it in quotes"),
        ("names: [a, a]", "class name 'a' is given twice; give every class its own name"),
        ("names: [a, b]\nlabel_mapping: {7: 2}", "label_mapping maps 7 to 2; expected classes 0..1 or 255 = void"),
        ("names: [a, b]\nlabel_mapping: {7: b}", "label_mapping is {7: 'b'}, expected whole numbers"),
        ("names: [a, b]\nlabel_mapping: {7: true}", "label_mapping is {7: True}, expected whole numbers"),
        ("names: [a, b]\nlabel_mapping: [1]", "label_mapping is [1], expected whole numbers, such as {0: 0, 255: 1}"),
        ("names: [a, b]\ncolors: [1]", "colors is [1], expected {class name: [r, g, b] or '#rrggbb', ...}"),
        ("names: [road, b]\ncolors: {raod: [1, 2, 3]}", "colors: unknown class 'raod'; did you mean 'road'?"),
        ("names: [a]\ncolors: {a: [1, 2]}", "the colour of 'a' is [1, 2], expected [r, g, b] of 0..255 or '#rrggbb'"),
        ("names: [a]\ncolors: {a: [1, 2, 256]}", "the colour of 'a' is [1, 2, 256], expected"),
        ("names: [a]\ncolors: {a: '#12345'}", "the colour of 'a' is '#12345', expected"),
        ("names: [a]\ncolors: {a: []}", "the colour of 'a' is [], expected"),
        ("names: [a]\ncolors: {a: red}", "the colour of 'a' is 'red', expected"),
        (
            "names: [a, b]\ncolors: {a: '#000000', b: [0, 0, 0]}",
            "colors gives [0, 0, 0] to 'a' and 'b'; give it to one",
        ),
        ("names: [a, b]\ncolors: {a: '#000000'}", "colors has no colour for b; give every class its own"),
    ],
)
def test_yaml_class_refusals(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in described(tmp_path, f"train: images/train\nmasks_dir: annotations\n{text}")


def test_long_values_are_cut(tmp_path: Path) -> None:
    found = described(tmp_path, f"train: images/train\nmasks_dir: annotations\nnames: {'x' * 500}")
    assert "..." in found
    assert len(found) < 200


def test_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    assert "a.yaml: cannot be read (Is a directory); check the path" in message(yaml_splits, tmp_path / "a.yaml")


def test_aliases_that_multiply_cost_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "unknown key 'a0'" in described(tmp_path, "\n".join(lines))


def test_steel(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "steel.yaml"
    root = shared_data / "steel"
    path.write_text(f"path: {root}\ntrain: images/training\nmasks_dir: annotations\nnames: [ground, a, b, c]\n")
    train, val = (open_yaml("x", path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (360, 40)
    checked = check(val)
    assert checked.problems == ()
    assert checked.sizes == ((200, 200),) * 40
    assert (checked.pixels[SEMANTIC] > 0).all()
