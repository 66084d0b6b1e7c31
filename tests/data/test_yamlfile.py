"""YAML files that describe a data set, and every refusal of what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.bands import bands_header
from fullconv.data.check import check
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind
from fullconv.data.yamlfile import describe, open_split, recognise, splits
from fullconv.errors import DataError
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
        ("train: images/train\nname: [a]", "unknown key 'name'; did you mean 'names'? Choices: bands, colors"),
        ("train: images/train\n7: [a]", "unknown key '7'. Choices: bands, colors"),
        (
            "- a\n- b",
            "holds ['a', 'b'], expected the keys path, train, val, test, masks_dir, image_suffix",
        ),
        ("", "holds None, expected the keys"),
        ("train: [a", "is not valid YAML (ParserError: while parsing a flow sequence"),
        ("train: 2001-99-99", "is not valid YAML (ValueError: month must be in 1..12"),
        (
            "train: !!python/object/apply:os.system [ls]",
            "is not valid YAML (ConstructorError: could not determine a constructor",
        ),
        ("a: " + "[" * 5000, "is not valid YAML (RecursionError: maximum recursion depth exceeded"),
        ("names: [a]", "names no split; add train: FOLDER (and val, test)"),
        ("train: 7", "train is 7, expected the path of a folder, or a list of such"),
        ("train: ''", "train is '', expected the path of a folder, or a list of such"),
        ("train: []", "train is [], expected the path of a folder, or a list of such"),
        ("train: [images/train, 7]", "train is ['images/train', 7], expected the path of a folder, or a list of such"),
        ("train: [images/train, [images/train]]", "expected the path of a folder, or a list of such"),
        (
            "train: [images/train, images/train]",
            "train names a folder twice, or one that lies in another; name it once",
        ),
        ("train: [images/train, nowhere]\nmasks_dir: annotations\nnames: [a]", "there is no folder"),
        ("train: images/train\npath: [a]", "path is ['a'], expected the path of a folder"),
        ("train: nowhere\nnames: [a]", "there is no folder"),
        ("train: images/train\nnames: [a]\nmasks_dir: no", "masks_dir is False, expected the path of a folder"),
        ("train: images/train\nnames: [a]\nmasks_dir: nowhere", "no masks for images/train: there is no folder"),
    ],
)
def test_yaml_refusals(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in described(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("names: a", "names is 'a', expected a list, such as [background, scratch]"),
        ("names: []", "names is [], expected a list"),
        ("path: .", "has no names; add names: [CLASS, CLASS], the classes in the order"),
        ("names: {0: a, 2: b}", "names has the numbers [0, 2], expected 0..1 once each"),
        ("names: [yes, no]", "the class name True is not text; put it in quotes"),
        ("names: [a, a]", "class name 'a' is given twice; give every class its own name"),
        ("names: [a, b]\nlabel_mapping: {7: 2}", "label_mapping maps 7 to 2; expected classes 0..1 or 255 = void"),
        ("names: [a, b]\nlabel_mapping: {7: b}", "label_mapping is {7: 'b'}, expected whole numbers"),
        ("names: [a, b]\nlabel_mapping: {7: true}", "label_mapping is {7: True}, expected whole numbers"),
        ("names: [a, b]\nlabel_mapping: [1]", "label_mapping is [1], expected whole numbers, such as {0: 0, 255: 1}"),
        ("names: [a, b]\nlabel_mapping: {0-9: 1, 5: 0}", "label_mapping gives 5 to 1 and 0; give it once"),
        ("names: [a, b]\nlabel_mapping: {0-9: 1, 9-12: 0}", "label_mapping gives 9 to 1 and 0; give it once"),
        (
            "names: [a, b]\nlabel_mapping: {9-0: 1}",
            "label_mapping has the key '9-0', expected a value such as 7",
        ),
        (
            "names: [a, b]\nlabel_mapping: {0-65536: 1}",
            "label_mapping has the key '0-65536', expected a value",
        ),
        (
            "names: [a, b]\nlabel_mapping: {-1: 1}",
            "label_mapping has the key -1, expected a value such as 7 or",
        ),
        ("names: [a, b]\nlabel_mapping: {65536: 1}", "label_mapping has the key 65536, expected a value such as 7"),
        ("names: [a, b]\nlabel_mapping: {1.5: 1}", "label_mapping has the key 1.5, expected a value such as 7"),
        ("names: [a, b]\nlabel_mapping: {true: 1}", "label_mapping has the key True, expected a value such as 7"),
        ("names: [a, b]\nlabel_mapping: {a: 1}", "label_mapping has the key 'a', expected a value such as 7"),
        ("names: [a, b]\nlabel_mapping: {1 - 2: 1}", "label_mapping has the key '1 - 2', expected a value such as 7"),
        ("names: [a, b]\nlabel_mapping: {0-9: 2}", "label_mapping maps 0 to 2; expected classes 0..1 or 255 = void"),
        ("names: [a]\nimage_suffix: 7", "image_suffix is 7, expected text"),
        ("names: [a]\nmask_suffix: ''", "mask_suffix is '', expected text"),
        ("names: [a]\nbands: 0", "bands is [0], expected different numbers from 1 on, such as [4, 3, 2]"),
        ("names: [a]\nbands: [1, 1]", "bands is [1, 1], expected different numbers from 1 on"),
        ("names: [a]\nbands: [1025]", "bands is [1025], expected different numbers from 1 on"),
        ("names: [a]\nbands: [true]", "bands is [True], expected different numbers from 1 on"),
        ("names: [a]\nbands: 1-4", "bands is '1-4', expected different numbers from 1 on"),
        ("names: [a]\npreview: [3, '2', 1]", "preview is [3, '2', 1], expected different numbers from 1 on"),
        ("names: [a]\npreview: [1, 2]", "preview names 2 bands, expected three (red, green, blue) or one"),
        (
            "names: [a]\nbands: [1, 2, 3]\npreview: [4]",
            "preview names bands that bands does not; expected some of",
        ),
        ("names: [a]\ntile: 15", "tile is 15, expected a number of pixels, 16 or more, such as 256"),
        ("names: [a]\ntile: 65537", "tile is 65537, expected a number of pixels"),
        ("names: [a]\ntile: 256.0", "tile is 256.0, expected a number of pixels"),
        ("names: [a]\ntile: true", "tile is True, expected a number of pixels"),
        ("names: [a]\ntile: [128, 128]", "tile is [128, 128], expected a number of pixels"),
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


def test_several_folders_of_images(tmp_path: Path) -> None:
    for seed, name in enumerate(("Tile 1/{}/0", "Tile 1/{}/1", "deep/Tile 3/{}/0", "{}/v/0", "{}/w/0")):
        save_scene(tmp_path / f"{name.format('images')}.jpg", tmp_path / f"{name.format('masks')}.png", seed)
    path = tmp_path / "a.yaml"
    path.write_text(
        "train: [Tile 1/images, deep/Tile 3/images]\nval: [images/v, images/w]\nnames: [a, b, c]\n", "utf-8"
    )
    train, val = (open_split("x", path, split) for split in ("train", "val"))
    assert train.names == ("Tile 1/images/0", "Tile 1/images/1", "deep/Tile 3/images/0")
    assert val.names == ("v/0", "w/0")
    for index in range(5):
        sample = train[index] if index < 3 else val[index - 3]
        np.testing.assert_array_equal(sample.masks[SEMANTIC], scene(index)[1])


def test_folders_named_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The YAML file by a relative path; folders below it, elsewhere, and absolute."""
    places = ("data/images", "far/images", "other/images")
    for seed, place in enumerate(places):
        save_scene(tmp_path / place / "0.jpg", tmp_path / place.replace("images", "masks") / "0.png", seed)
    monkeypatch.chdir(tmp_path / "data")
    Path("a.yaml").write_text(
        f"train: [images, ../far/images, {tmp_path / 'other' / 'images'}]\nval: images\nnames: [a, b, c]\n", "utf-8"
    )
    dataset = open_split("x", Path("a.yaml"), "train")
    assert dataset.names == tuple(f"{place}/0" for place in places)
    for index in range(3):
        np.testing.assert_array_equal(dataset[index].masks[SEMANTIC], scene(index)[1])


def test_images_and_masks_in_one_folder(tmp_path: Path) -> None:
    for seed in range(3):
        save_scene(tmp_path / "all" / f"{seed}_sat.png", tmp_path / "all" / f"{seed}_mask.png", seed)
        save_scene(tmp_path / "plain" / f"{seed}.jpg", tmp_path / "plain" / f"{seed}.png", seed)
    for folder, text in (("all", "image_suffix: _sat\nmask_suffix: _mask\n"), ("plain", "")):
        path = tmp_path / f"{folder}.yaml"
        path.write_text(f"train: {folder}\nval: {folder}\nmasks_dir: {folder}\nnames: [a, b, c]\n{text}")
        dataset = open_split("x", path, "train")
        assert dataset.names == ("0", "1", "2")
        for index in range(3):
            np.testing.assert_array_equal(dataset[index].masks[SEMANTIC], scene(index)[1])


def test_ranges_of_file_values(tmp_path: Path) -> None:
    path = make_yaml(tmp_path, "label_mapping: {0-99: 0, 100-127: 255, 128-255: 1, 300: 2}", {"train": 2, "val": 1})
    values = np.array([[0, 99, 100, 127], [128, 254, 255, 300]], np.uint16)
    save(tmp_path / "annotations" / "val" / "2.png", values)
    save(tmp_path / "images" / "val" / "2.jpg", np.zeros((2, 4, 3), np.uint8))
    found = open_split("x", path, "val")[0].masks[SEMANTIC]
    assert found.tolist() == [[0, 0, VOID, VOID], [1, 1, 1, 2]]


def test_values_that_are_said_twice(tmp_path: Path) -> None:
    """Ranges that overlap would let a short file ask for any amount of work."""
    path = make_yaml(tmp_path, "label_mapping: {5-9: 1, 7: 1}")
    with pytest.raises(DataError, match="label_mapping gives 7 to 1 and 1; give it once"):
        describe(path)


@pytest.mark.parametrize("inner", ["images/train/a", "images/train/../train", "./images/train"])
def test_folders_within_each_other(tmp_path: Path, inner: str) -> None:
    make_yaml(tmp_path)
    (tmp_path / "images/train/a").mkdir()
    path = tmp_path / "more.yaml"
    path.write_text(f"train: [images/train, {inner}]\nmasks_dir: annotations\nnames: [ground, a, b]")
    with pytest.raises(DataError, match="train names a folder twice, or one that lies in another; name it once"):
        open_split("x", path, "train")


def raster_yaml(root: Path, text: str, count: int = 1, size: tuple[int, int] = (64, 96)) -> Path:
    """Five bands of uint16 an image, of which each knows its place, and masks of three classes."""
    for seed in range(count):
        rows, columns = np.mgrid[: size[0], : size[1]]
        bands = np.stack([rows, columns, *(np.full(size, 1000 * band + seed) for band in (3, 4, 5))], 2)
        (root / "images").mkdir(exist_ok=True)
        np.save(root / "images" / f"{seed}.npy", bands.astype(np.uint16))
        save(root / "masks" / f"{seed}.png", ((rows + columns) % 3).astype(np.uint8))
    path = root / "data.yaml"
    path.write_text(f"train: images\nnames: [a, b, c]\n{text}")
    return path


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", InputKind(5, (1, 2, 3, 4, 5), (1, 2, 3))),
        ("preview: 4", InputKind(5, (1, 2, 3, 4, 5), (4,))),
        ("preview: [5, 4, 1]", InputKind(5, (1, 2, 3, 4, 5), (5, 4, 1))),
        ("bands: [4, 1]", InputKind(2, (4, 1), (4,))),
        ("bands: 4", InputKind(1, (4,), (4,))),
        ("bands: [4, 1, 3, 2]\npreview: [1, 2, 4]", InputKind(4, (4, 1, 3, 2), (1, 2, 4))),
    ],
)
def test_bands(tmp_path: Path, text: str, kind: InputKind) -> None:
    path = raster_yaml(tmp_path, text, 2)
    dataset = open_split("x", path, "train")
    assert dataset.inputs == {IMAGE: kind}
    whole = np.load(tmp_path / "images" / f"{dataset.names[0]}.npy")
    found = dataset[0].inputs[IMAGE]
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, whole[:, :, [band - 1 for band in kind.bands]])
    assert open_split("x", path, "val").inputs == dataset.inputs


def test_bands_that_the_images_do_not_have(tmp_path: Path) -> None:
    dataset = open_split("x", raster_yaml(tmp_path, "bands: [1, 7]", 2), "train")
    assert "has 5 bands, and band 7 is asked for" in refusal(dataset.__getitem__, 0)
    path = raster_yaml(tmp_path, "preview: 7", 2)
    assert "preview names bands [7]; expected some of [1, 2, 3, 4, 5]" in refusal(open_split, "x", path, "train")
    path = make_yaml(tmp_path / "pictures", "bands: [1, 2]")
    assert "0.jpg: is no TIFF; rasters of chosen bands are TIFF" in refusal(open_split, "x", path, "train")


@pytest.mark.parametrize("tile", [16, 32, 33, 500])
def test_tiles_of_every_image(tmp_path: Path, tile: int) -> None:
    path = raster_yaml(tmp_path, f"tile: {tile}", 3)
    parts = [open_split("x", path, split) for split in ("train", "val")]
    each = max(1, round(64 / tile)) * max(1, round(96 / tile))
    assert [len(dataset) for dataset in parts] == [2 * each, each], "whole images are held out"
    held = {name.partition("_")[0] for name in parts[1].names}
    assert len(held) == 1
    assert not held & {name.partition("_")[0] for name in parts[0].names}
    for dataset in parts:
        for index in range(len(dataset)):
            sample = dataset[index]
            rows, columns = sample.inputs[IMAGE][:, :, 0].astype(int), sample.inputs[IMAGE][:, :, 1]
            assert sample.name.endswith(f"_y{rows[0, 0]:04}_x{columns[0, 0]:04}")
            assert (np.diff(rows[:, 0]) == 1).all()
            np.testing.assert_array_equal(sample.masks[SEMANTIC], (rows + columns) % 3)


def test_one_image_is_held_out_by_tiles(tmp_path: Path) -> None:
    path = raster_yaml(tmp_path, "tile: 16")
    parts = [open_split("x", path, split) for split in ("train", "val")]
    assert [len(dataset) for dataset in parts] == [22, 2]
    seen = np.zeros((64, 96), int)
    for dataset in parts:
        assert dataset.inputs[IMAGE].channels == 5
        for index in range(len(dataset)):
            image = dataset[index].inputs[IMAGE]
            seen[image[:, :, 0], image[:, :, 1]] += 1
    assert (seen == 1).all(), "train and val together are the image, and share no pixel"
    assert parts[0].fingerprint() != parts[1].fingerprint()


def test_one_image_without_tiles_or_with_one(tmp_path: Path) -> None:
    for text in ("", "tile: 500"):
        found = refusal(open_split, "x", raster_yaml(tmp_path, text), "train")
        assert found.endswith("or a val split of its own, or cut it with tile: 128 in a YAML file")
        assert found.startswith("x: holds one image, and val is held out of train; add images")


def test_tiles_of_pictures_that_lie_on_their_side(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[274] = 6
    picture = Image.fromarray(np.zeros((96, 32, 3), np.uint8))
    (tmp_path / "images").mkdir()
    for name in "ab":
        picture.save(tmp_path / "images" / f"{name}.jpg", exif=turned)
        save(tmp_path / "masks" / f"{name}.png", np.zeros((32, 96), np.uint8))
    (tmp_path / "a.yaml").write_text("train: images\nnames: [a]\ntile: 32\n")
    dataset = open_split("x", tmp_path / "a.yaml", "train")
    assert [name[1:] for name in dataset.names] == ["_y0000_x0000", "_y0000_x0032", "_y0000_x0064"]
    assert dataset[2].size == (32, 32)


def test_a_real_scene_of_ten_bands(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    names = list("abcdefghijkl")
    path.write_text(f"path: {shared_data / 'sentinel'}\ntrain: images\nnames: {names}\ntile: 256\n")
    (image,) = (shared_data / "sentinel" / "images").glob("*.tif")
    height, width = bands_header(image).size
    train, val = (open_split("x", path, split) for split in ("train", "val"))
    assert len(train) + len(val) == round(height / 256) * round(width / 256)
    assert train.inputs[IMAGE].channels == 10
    sample = val[0]
    assert (sample.inputs[IMAGE].dtype, sample.inputs[IMAGE].shape[2]) == (np.uint16, 10)
    assert sample.masks[SEMANTIC].shape == sample.size


def test_long_values_are_cut(tmp_path: Path) -> None:
    found = described(tmp_path, f"train: images/train\nmasks_dir: annotations\nnames: {'x' * 500}")
    assert "..." in found
    assert len(found) < 200


def test_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    assert "a.yaml: cannot be read (Is a directory); check the path" in refusal(splits, tmp_path / "a.yaml")


def test_null_is_the_default(tmp_path: Path) -> None:
    keys = ("path", "val", "test", "image_suffix", "mask_suffix", "label_mapping", "colors", "bands", "preview", "tile")
    text = "train: images/train\nmasks_dir: annotations\nnames: [ground, a, b]\n"
    path = make_yaml(tmp_path)
    path.write_text(text)
    plain = describe(path)
    path.write_text(text + "".join(f"{key}: null\n" for key in keys))
    assert describe(path) == plain


def test_names_too_long_for_files(tmp_path: Path) -> None:
    rest = "masks_dir: annotations\nnames: [a]"
    assert "there is no folder" in described(tmp_path, f"train: {'x' * 300}\n{rest}")
    found = described(tmp_path, f"train: images/train\nnames: [a]\nmasks_dir: {'x' * 300}")
    assert found.startswith("no masks for images/train: there is no folder")


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


def test_names_may_be_those_of_the_colours(tmp_path: Path) -> None:
    path = make_yaml(tmp_path)
    colors = "colors: {b: '#010203', void: '#000000', a: '#040506'}"
    path.write_text(f"train: images/train\nmasks_dir: annotations\n{colors}")
    given = describe(path)
    assert given.labels.names == ("b", "a")
    assert given.reader.colors == {(1, 2, 3): 0, (0, 0, 0): VOID, (4, 5, 6): 1}
