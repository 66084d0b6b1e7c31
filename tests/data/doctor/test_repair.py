"""The repaired copy: what it refuses, what it leaves behind, and what it does to single scenes."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import makers
from broken_data import make_broken, make_clean, original, scene
from fullconv.data import available_splits, open_dataset
from fullconv.data.doctor import examine, repair
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.errors import DataError, OptionError
from makers import make_folder, make_nyud, make_voc, make_yaml, save


def tree(root: Path) -> dict[str, str]:
    """Digests of all files, and the folders."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in root.rglob("*")
    }


def test_the_source_is_never_changed(tmp_path: Path) -> None:
    make_broken(tmp_path / "data")
    before = tree(tmp_path / "data")
    repair(examine(tmp_path / "data"), tmp_path / "fixed")
    assert tree(tmp_path / "data") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "fixed"]


def test_a_clean_data_set_is_copied_byte_for_byte(tmp_path: Path) -> None:
    make_clean(tmp_path / "data")
    result = repair(examine(tmp_path / "data"), tmp_path / "fixed")
    assert (result.written, result.changed, result.dropped, result.left) == (44, {}, {}, [])
    for split in ("train", "val", "test"):
        assert tree(tmp_path / "fixed" / split / "images") == tree(tmp_path / "data" / split / "images")
        for path in (tmp_path / "data" / split / "masks").iterdir():
            copy = tmp_path / "fixed" / split / "masks" / path.name
            np.testing.assert_array_equal(np.asarray(Image.open(copy)), np.asarray(Image.open(path)))


def test_folders_that_it_does_not_write_to(tmp_path: Path) -> None:
    found = examine(make_folder(tmp_path / "data"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match="full exists and is not an empty folder; name a new one"):
        repair(found, tmp_path / "full")
    for inside in ("data/fixed", "data/train/images/fixed"):
        with pytest.raises(OptionError, match=r"fixed lies in the data set; name a folder beside it"):
            repair(found, tmp_path / inside)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(OptionError, match="lies in the data set"):
        repair(found, tmp_path / "link" / "fixed")
    yaml = examine(make_yaml(tmp_path / "y"))
    with pytest.raises(OptionError, match="lies in the data set"):
        repair(yaml, tmp_path / "y/images/train/fixed")
    assert repair(yaml, tmp_path / "y" / "fixed").written == 7, "beside the YAML file's folders"
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert repair(found, tmp_path / "empty").written == 7


@pytest.mark.parametrize("make", [make_nyud, lambda _: "wafer"])
def test_data_that_is_repaired_by_hand(tmp_path: Path, make: Callable[[Path], Path | str]) -> None:
    found = examine(make(tmp_path / "data"))
    with pytest.raises(
        OptionError, match="data sets of one picture and one mask file a scene can be repaired, others by"
    ):
        repair(found, tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()


def test_half_an_examination_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="data: only some of its masks were looked at; examine it without fast"):
        repair(examine(make_folder(tmp_path / "data"), fast=True), tmp_path / "fixed")


def test_nothing_can_be_used(tmp_path: Path) -> None:
    make_folder(tmp_path / "data")
    for path in tmp_path.rglob("images/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image and mask can be used; nothing was written"):
        repair(examine(tmp_path / "data"), tmp_path / "fixed")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("where", ["progress", "copy", "mask"])
def test_an_interrupt_or_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str
) -> None:
    found = examine(make_folder(tmp_path / "data"))
    calls = []

    def fail(*args: object, **options: object) -> None:
        calls.append(args)
        if where == "mask" or len(calls) > 2:
            raise error

    if where == "copy":
        monkeypatch.setattr(shutil, "copyfile", fail)
    elif where == "mask":
        monkeypatch.setattr(Image.Image, "save", lambda self, *a, **k: fail())
    with pytest.raises(DataError if isinstance(error, OSError) else KeyboardInterrupt, match="cannot be written|^$"):
        repair(found, tmp_path / "fixed", fail if where == "progress" else None)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    assert repair(found, tmp_path / "fixed").written == 7


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_turned_as_the_stored_image_is(tmp_path: Path, orientation: int) -> None:
    root = make_clean(tmp_path / "data")
    image, mask = original("train", 5)
    upright = Image.fromarray(image)
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation

    def lying(picture: Image.Image) -> Image.Image:
        return picture.transpose(stored[orientation]) if orientation in stored else picture

    (root / "train/images/05.png").unlink()
    lying(upright).save(root / "train/images/05.png", exif=exif)
    lying(Image.fromarray(mask)).save(root / "train/masks/05.png")
    found = examine(root)
    swapped = orientation in (5, 6, 7, 8)
    assert [(f.kind, f.names) for f in found.errors] == [("sides swapped", ("train/05",))] * swapped
    result = repair(found, tmp_path / "fixed")
    assert result.changed == ({"mask turned as its image is": ["train/05"]} if swapped else {})
    sample = open_dataset(tmp_path / "fixed", "train")[5]
    np.testing.assert_array_equal(sample.inputs[IMAGE], image)
    if swapped or orientation == 1:  # a mirrored or rotated mask of the same shape cannot be told from a right one
        np.testing.assert_array_equal(sample.masks[SEMANTIC], mask)


def test_sides_swapped_that_nothing_explains(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    save(root / "train/masks/05.png", original("train", 5)[1].T)
    result = repair(examine(root), tmp_path / "fixed")
    assert result.dropped == {"the mask's sides are swapped, and nothing says which way to turn it": ["train/05"]}


def test_masks_of_the_image_s_shape_are_scaled_and_others_left_out(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    mask = original("train", 5)[1]  # 72 x 96
    save(root / "train/masks/05.png", mask.repeat(2, 0).repeat(2, 1))
    save(root / "train/masks/06.png", mask[:, :72])
    save(root / "train/masks/07.png", original("train", 7)[1][1::2, 1::2])
    found = examine(root)
    assert found.errors[0].details[1] == "train/06: 72 x 72, its image 72 x 96 (H x W)"
    result = repair(found, tmp_path / "fixed")
    assert result.dropped == {"the mask's shape is not its image's": ["train/06"]}
    assert result.changed == {"mask scaled to its image's size": ["train/05", "train/07"]}
    np.testing.assert_array_equal(open_dataset(tmp_path / "fixed", "train")[5].masks[SEMANTIC], mask)


def test_leaks_are_left_out_of_train_with_all_their_copies(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    for number in (3, 4):
        for kind in ("images", "masks"):
            shutil.copy(root / "val" / kind / "00.png", root / "train" / kind / f"{number:02}.png")
    result = repair(examine(root), tmp_path / "fixed")
    assert result.dropped == {"same image across splits": ["train/03", "train/04"]}
    assert examine(tmp_path / "fixed").findings == []


def test_images_of_another_kind_become_rgb(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    image = original("train", 5)[0]
    (root / "train/images/05.png").unlink()
    Image.fromarray(image).convert("CMYK").save(root / "train/images/05.tif")
    result = repair(examine(root), tmp_path / "fixed")
    assert result.changed == {"image converted to 8-bit RGB": ["train/05"]}
    with Image.open(tmp_path / "fixed/train/images/05.png") as converted:
        assert converted.mode == "RGB"
    assert examine(tmp_path / "fixed").findings == []


def test_files_that_are_gone_by_then_are_left_out_of_the_copy(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    found = examine(root)
    (root / "train/masks/05.png").unlink()
    result = repair(found, tmp_path / "fixed")
    assert list(result.dropped.values()) == [["train/05"]]
    assert "no such file" in next(iter(result.dropped))


def test_nested_scenes_names_with_dots_and_a_held_out_split(tmp_path: Path) -> None:
    for number in range(12):
        image, mask = scene(number)
        save(tmp_path / f"data/images/a/{number}.v2.png", image)
        save(tmp_path / f"data/masks/a/{number}.v2.png", mask)
    found = examine(tmp_path / "data")
    result = repair(found, tmp_path / "fixed")
    assert result.written == 12
    for split in ("train", "val"):
        assert [s.name for s in found.listing.scenes[split]] == list(open_dataset(tmp_path / "fixed", split).names)
    assert open_dataset(tmp_path / "fixed", "val").names == open_dataset(tmp_path / "data", "val").names


def test_published_layouts_become_plain_folders(tmp_path: Path) -> None:
    path = make_voc(tmp_path / "data")
    repair(examine(path), tmp_path / "fixed")
    for split in ("train", "val"):
        before, after = open_dataset(path, split), open_dataset(tmp_path / "fixed", split)
        assert after.names == before.names
        assert after.labels[SEMANTIC].names == before.labels[SEMANTIC].names
        for index in range(len(before)):
            np.testing.assert_array_equal(after[index].masks[SEMANTIC], before[index].masks[SEMANTIC])
            np.testing.assert_array_equal(after[index].inputs[IMAGE], before[index].inputs[IMAGE])


COLOURS = "colors: {ground: [9, 8, 7], a: '#00ff00', b: [1, 2, 3]}"


@pytest.mark.parametrize("text", ["tile: 16", f"tile: 16\n{COLOURS}", "bands: [3, 1]\npreview: 1", f"{COLOURS}"])
def test_what_a_yaml_file_says_beyond_the_folders_is_kept(tmp_path: Path, text: str) -> None:
    path = make_yaml(tmp_path / "data", text)
    for image_path in (tmp_path / "data").rglob("*.jpg"):
        image, mask = makers.scene(int(image_path.stem), size=(30, 50))
        save(tmp_path / "data/annotations" / image_path.parent.name / f"{image_path.stem}.png", mask)
        if "bands" in text:
            image_path.unlink()
            np.save(image_path.with_suffix(".npy"), image.astype(np.uint16) * 9)
        else:
            save(image_path, image)
    result = repair(examine(path), tmp_path / "fixed")
    assert result.data == tmp_path / ("fixed" if text == COLOURS else "fixed/data.yaml")
    assert result.data.exists()
    for split in ("train", "val", "test"):
        before, after = open_dataset(path, split), open_dataset(result.data, split)
        assert len(after) == len(list((tmp_path / "data/images" / split).iterdir())) * (6 if "tile" in text else 1)
        assert (after.names, after.inputs, after.labels) == (before.names, before.inputs, before.labels)
        for index in range(len(before)):
            np.testing.assert_array_equal(after[index].masks[SEMANTIC], before[index].masks[SEMANTIC])
            np.testing.assert_array_equal(after[index].inputs[IMAGE], before[index].inputs[IMAGE])


def test_a_split_that_is_lost_whole_is_not_in_the_yaml_file(tmp_path: Path) -> None:
    path = make_yaml(tmp_path / "data", "tile: 16")
    for image in (tmp_path / "data/images/test").iterdir():
        image.write_bytes(b"")
    result = repair(examine(path), tmp_path / "fixed")
    assert available_splits(result.data) == ("train", "val")


def test_scenes_of_val_that_test_has_are_left_out_of_val(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    for kind in ("images", "masks"):
        shutil.copy(root / "test" / kind / "00.png", root / "val" / kind / "03.png")
    result = repair(examine(root), tmp_path / "fixed")
    assert result.dropped == {"same image across splits": ["val/03"]}


def test_progress_and_the_report(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = repair(examine(make_folder(tmp_path / "data")), tmp_path / "fixed", lambda *args: seen.append(args))
    assert seen == [(i, 7) for i in range(1, 8)]
    assert json.loads((tmp_path / "fixed" / "changes.json").read_text()) == result.to_json()


def test_names_that_cannot_be_printed_are_escaped_in_the_report(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    for kind in ("images", "masks"):
        (root / "train" / kind / "05.png").rename(root / "train" / kind / "a\nb\udcff.png")
    (root / "train/masks/a\nb\udcff.png").write_bytes(b"")
    result = repair(examine(root), tmp_path / "fixed")
    assert result.to_json()["dropped"] == {"the mask cannot be read": ["train/a\\nb\\udcff"]}
    assert json.loads((tmp_path / "fixed" / "changes.json").read_text("utf-8")) == result.to_json()
