"""YAML files that describe a data set, and every refusal of what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullconv.data.check import check
from fullconv.data.sample import SEMANTIC
from fullconv.data.yamlfile import open_split, recognise, splits
from fullconv.labels import VOID, LabelSet
from makers import COUNTS, make_folder, make_yaml, save, save_scene, scene
from refusals import refusal


def described(root: Path, text: str, split: str = "train", counts: dict[str, int] | None = None) -> str:
    """The refusal of a YAML file made of `text` alone; it begins with the file's path, which is left out."""
    path = make_yaml(root, counts=counts or {"train": 2})
    path.write_text(text, "utf-8")
    found = refusal(open_split, str(path), path, split)
    assert found.startswith(f"{path}: ")
    return found.removeprefix(f"{path}: ")


def test_yaml(tmp_path: Path) -> None:
    path = make_yaml(tmp_path / "some data")
    assert recognise(path)
    assert not recognise(tmp_path / "no.yaml")
    assert not recognise(path.parent)
    assert splits(path) == ("train", "val", "test")
    seed = 0
    for split, count in COUNTS.items():
        dataset = open_split("named", path, split)
        assert (dataset.source, dataset.split, len(dataset)) == ("named", split, count)
        for index in range(count):
            np.testing.assert_array_equal(dataset[index].masks[SEMANTIC], scene(seed)[1])
            seed += 1
    assert dataset.labels[SEMANTIC] == LabelSet(("ground", "a", "b"))
    assert refusal(open_split, "named", path, "other") == "named: has no split 'other'; its splits: train, val, test"


def test_yaml_holds_out_a_missing_val(tmp_path: Path) -> None:
    path = make_yaml(tmp_path, counts={"train": 11})
    assert splits(path) == ("train", "val")
    assert [len(open_split("x", path, split)) for split in ("train", "val")] == [10, 1]


@pytest.mark.parametrize("absolute", [False, True])
def test_yaml_path_is_relative_to_the_file(tmp_path: Path, absolute: bool) -> None:
    make_folder(tmp_path / "ä data", "{kind}/{split}/{name}", {"train": 2, "val": 1})
    (tmp_path / "conf").mkdir()
    root = tmp_path / "ä data" if absolute else "../ä data"
    path = tmp_path / "conf" / "a.yml"
    path.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: {{1: b, 0: a, 2: c}}\n", "utf-8")
    dataset = open_split("x", path, "val")
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
    assert open_split("x", path, "train").scenes[0].mask.parent == tmp_path / masks


def test_yaml_prefers_the_masks_beside_the_images(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train: a/images/train\nmasks_dir: labels\nnames: [a, b, c]\n")
    for folder in ("labels", "labels/train", "a/labels/train"):  # each is looked in before the one above
        for name in "pq":
            save_scene(tmp_path / "a" / "images" / "train" / f"{name}.png", tmp_path / folder / f"{name}.png", 1)
        assert open_split("x", path, "train").scenes[0].mask.parent == tmp_path / folder


def test_yaml_label_mapping(tmp_path: Path) -> None:
    path = make_yaml(tmp_path, "label_mapping: {1: 2, 2: 255, 255: 1}", {"train": 2, "val": 1})
    expected = np.array([0, 2, 255] + [0] * 252 + [1], np.uint8)[scene(2)[1]]
    np.testing.assert_array_equal(open_split("x", path, "val")[0].masks[SEMANTIC], expected)


def test_yaml_colors(tmp_path: Path) -> None:
    text = "colors: {ground: [0, 0, 0], a: '#ff0080', b: ['#010203', [4, 5, 6]], void: [[9, 9, 9], '#FfFfFf']}"
    path = make_yaml(tmp_path, text, {"train": 2, "val": 1})
    rgb = np.array([[[0, 0, 0], [255, 0, 128], [1, 2, 3]], [[4, 5, 6], [9, 9, 9], [255, 255, 255]]], np.uint8)
    save(tmp_path / "annotations" / "val" / "2.png", rgb)
    save(tmp_path / "images" / "val" / "2.jpg", rgb)
    dataset = open_split("x", path, "val")
    assert dataset[0].masks[SEMANTIC].tolist() == [[0, 1, 2], [2, VOID, VOID]]
    assert dataset.labels[SEMANTIC].colours == ((0, 0, 0), (255, 0, 128), (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: images/train\nname: [a]", "unknown key 'name'; did you mean 'names'? Choices: colors, label_mapping"),
        ("train: images/train\n7: [a]", "unknown key '7'. Choices: colors"),
        ("- a\n- b", "holds ['a', 'b'], expected the keys path, train, val, test, masks_dir, names"),
        ("", "holds None, expected the keys"),
        ("train: [a", "is not valid YAML (ParserError: while parsing a flow sequence"),
        ("train: 2001-99-99", "is not valid YAML (ValueError: month must be in 1..12"),
        (
            "train: !!python/object/apply:os.system [ls]",
            "is not valid YAML (ConstructorError: could not determine a constructor",
        ),
        ("a: " + "[" * 5000, "is not valid YAML (RecursionError: maximum recursion depth exceeded"),
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
    assert "a.yaml: cannot be read (Is a directory); check the path" in refusal(splits, tmp_path / "a.yaml")


def test_aliases_that_multiply_cost_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "unknown key 'a0'" in described(tmp_path, "\n".join(lines))


def test_steel(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "steel.yaml"
    root = shared_data / "steel"
    path.write_text(f"path: {root}\ntrain: images/training\nmasks_dir: annotations\nnames: [ground, a, b, c]\n")
    train, val = (open_split("x", path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (360, 40)
    checked = check(val)
    assert checked.problems == ()
    assert checked.sizes == ((200, 200),) * 40
    assert (checked.pixels[SEMANTIC] > 0).all()
