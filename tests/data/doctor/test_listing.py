"""What the folders of every layout hold, complete or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data import available_splits, open_dataset
from fullconv.data.doctor import examine, repair
from fullconv.data.doctor.listing import list_files
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.data.scenes import FileDataset
from fullconv.errors import DataError
from fullconv.labels import VOID, LabelSet
from makers import (
    CITYSCAPES_LABELS,
    make_ade20k,
    make_camvid,
    make_cityscapes,
    make_context,
    make_folder,
    make_nyud,
    make_sbd,
    make_siftflow,
    make_voc,
    make_wafer_maps,
    make_yaml,
    save,
    save_scene,
    scene,
)  # fmt: skip

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "plain folder": make_folder,
    "YAML file": make_yaml,
    "CamVid": make_camvid,
    "VOCdevkit": make_voc,
    "SBD": make_sbd,
    "Pascal-Context": make_context,
    "NYUDv2": make_nyud,
    "SIFT Flow": make_siftflow,
    "Cityscapes": make_cityscapes,
    "ADE20K": make_ade20k,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_listed_as_it_is_opened(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path)
    found = list_files(path)
    assert (found.source, found.layout, found.unusable) == (str(path), layout, [])
    assert set(found.scenes) == set(available_splits(path)) & {"train", "val", "test"}
    for split, scenes in found.scenes.items():
        dataset = open_dataset(path, split)
        assert isinstance(dataset, FileDataset)
        assert [s.name for s in scenes] == list(dataset.names)
        assert [s.image for s in scenes] == [s.image for s in dataset.scenes]
        assert [s.mask for s in scenes] == [s.mask for s in dataset.scenes]
        assert dict(found.inputs) == dataset.sources
        if layout != "plain folder":
            assert dict(found.tasks[split]) == dataset.tasks
    assert found.count == sum(map(len, found.scenes.values())) > 0
    assert (found.lonely_images, found.lonely_masks, found.doubles, found.ignored) == ([], [], [], [])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_examined(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path)
    found = examine(path)
    assert [f.kind for f in found.errors] == []
    assert len(found.looked) == found.listing.count
    for task in found.codings:
        for split in found.listing.scenes:
            dataset = open_dataset(path, split)
            for row, index in zip(found.counts(task)[split], range(len(dataset)), strict=True):
                mask = dataset[index].masks[task]
                np.testing.assert_array_equal(row, np.bincount(mask.ravel(), minlength=256))


def test_names_that_are_declared(tmp_path: Path) -> None:
    make_folder(tmp_path)
    assert list_files(tmp_path).declared is None
    (tmp_path / "classes.txt").write_text("ground\na\nb\n")
    assert list_files(tmp_path).declared == LabelSet(("ground", "a", "b"))
    assert list_files(make_yaml(tmp_path / "y")).declared == LabelSet(("ground", "a", "b"))


@pytest.mark.parametrize("split_folders", [True, False])
def test_held_out(tmp_path: Path, split_folders: bool) -> None:
    layout = "{kind}/{split}/{name}" if split_folders else "{kind}/{name}"
    make_folder(tmp_path, layout, {"train": 25})
    found = list_files(tmp_path)
    assert found.held_out
    assert list(found.scenes) == ["train", "val"]
    for split in ("train", "val"):
        assert [s.name for s in found.scenes[split]] == list(open_dataset(tmp_path, split).names)


def test_a_single_image_is_not_held_out(tmp_path: Path) -> None:
    make_folder(tmp_path, "{kind}/{name}", {"train": 1})
    assert not list_files(tmp_path).held_out


def test_tiles_are_listed_by_their_images(tmp_path: Path) -> None:
    path = make_yaml(tmp_path, "tile: 16")
    assert len(open_dataset(path, "train")) >= 4
    assert [len(s) for s in list_files(path).scenes.values()] == [4, 2, 1]


def test_a_mixed_folder_and_suffixes(tmp_path: Path) -> None:
    for seed in range(3):
        save_scene(tmp_path / "all" / f"{seed}_sat.jpg", tmp_path / "all" / f"{seed}_mask.png", seed)
    (tmp_path / "all/1_mask.png").unlink()
    (tmp_path / "data.yaml").write_text(
        "{train: all, masks_dir: all, image_suffix: _sat, mask_suffix: _mask, names: [a, b, c]}"
    )
    found = list_files(tmp_path / "data.yaml")
    assert sorted(s.name for scenes in found.scenes.values() for s in scenes) == ["0", "2"]
    assert [(p.split, p.name) for p in found.lonely_images] == [("train", "1")]
    (tmp_path / "plain.yaml").write_text("{train: all, masks_dir: all, names: [a, b, c]}")
    assert list_files(tmp_path / "plain.yaml").count == 0  # 0_sat.jpg and 0_mask.png share no name
    assert len(list_files(tmp_path / "plain.yaml").lonely_images) == 3


def test_several_folders_of_a_split_keep_their_names_apart(tmp_path: Path) -> None:
    for part in ("one", "two"):
        save_scene(tmp_path / part / "images" / "a.png", tmp_path / part / "masks" / "a.png", 0)
    (tmp_path / "two/masks/a.png").unlink()
    save(tmp_path / "two/masks/b.png", scene(0)[1])
    shutil.copy(tmp_path / "two/images/a.png", tmp_path / "two/images/a.bmp")
    (tmp_path / "d.yaml").write_text("{train: [one/images, two/images], names: [a, b, c]}")
    found = list_files(tmp_path / "d.yaml")
    assert [s.name for s in found.scenes["train"]] == ["one/images/a"]
    assert [p.name for p in found.lonely_images] == ["two/images/a"]
    assert [p.name for p in found.lonely_masks] == ["two/images/b"]
    assert [p.name for p in found.doubles] == ["two/images/a"]


def test_what_is_lonely_twice_or_not_read(tmp_path: Path) -> None:
    make_folder(tmp_path)
    images = tmp_path / "train" / "images"
    shutil.copy(images / "0000.png", images / "0000.bmp")
    shutil.copy(images / "0000.png", images / "new.png")
    shutil.copy(images / "0000.png", tmp_path / "val" / "masks" / "new.png")
    for name in ("a.gif", "b.HEIC", ".hidden.gif", "notes.txt"):
        (images / name).write_bytes(b"x")
    found = list_files(tmp_path)
    assert [(p.split, p.name, p.path.suffix) for p in found.doubles] == [("train", "0000", ".png")]
    assert [(p.split, p.name) for p in found.lonely_images] == [("train", "new")]
    assert [(p.split, p.name) for p in found.lonely_masks] == [("val", "new")]
    assert [p.name for p in found.ignored] == ["a.gif", "b.HEIC"]


def test_each_split_is_read_by_its_own_reader(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path / "data", {"train": 3, "val": 2})
    for path in (root / "gtFine/val").rglob("*_labelIds.png"):
        with Image.open(path) as picture:
            labels = np.asarray(picture)
        classes = np.array([CITYSCAPES_LABELS[value] for value in labels.ravel().tolist()], np.uint8)
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), classes.reshape(labels.shape))
        path.unlink()
    found = examine(root)
    assert [f.kind for f in found.errors] == []
    train, val = (found.codings[SEMANTIC][split] for split in ("train", "val"))
    assert train.reader != val.reader
    for split in ("train", "val"):
        dataset = open_dataset(root, split)
        for row, index in zip(found.counts(SEMANTIC)[split], range(len(dataset)), strict=True):
            np.testing.assert_array_equal(row, np.bincount(dataset[index].masks[SEMANTIC].ravel(), minlength=256))
    result = repair(found, tmp_path / "fixed")
    for split in ("train", "val"):
        before, after = open_dataset(root, split), open_dataset(result.path, split)
        for index in range(len(before)):
            np.testing.assert_array_equal(after[index].masks[SEMANTIC], before[index].masks[SEMANTIC])


def test_the_test_split_of_cityscapes_without_truth_is_no_fault(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    for path in (tmp_path / "gtFine/test").rglob("*_labelIds.png"):
        save(path, np.zeros((12, 16), np.uint8))
    found = examine(tmp_path)
    assert (list(found.listing.scenes), found.errors) == (["train", "val"], [])


def test_a_split_that_cannot_be_listed_is_a_finding(tmp_path: Path) -> None:
    path = make_voc(tmp_path)
    for image in (tmp_path / "VOCdevkit/VOC2012/JPEGImages").glob("2007_001*"):
        image.unlink()
    found = examine(path)
    assert list(found.listing.scenes) == ["train", "test"]
    assert [f.kind for f in found.errors] == ["cannot be listed"]
    finding = found.errors[0]
    assert (finding.count, "2007_001000.jpg" in finding.names[0]) == (1, True)
    for image in (tmp_path / "VOCdevkit/VOC2012/JPEGImages").iterdir():
        image.unlink()
    nothing = examine(path)
    assert [(f.kind, f.count) for f in nothing.findings] == [("cannot be listed", 3)]
    assert nothing.to_json()["splits"] == {}


def test_the_first_image_decides_how_all_are_read_also_where_it_is_damaged(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "train/images/0000.png").write_bytes(b"")
    found = examine(tmp_path)
    assert [(f.kind, f.names) for f in found.errors] == [("unreadable image", ("train/0000",))]
    assert found.listing.inputs[IMAGE].kind.bands == ()


@pytest.mark.parametrize("source", ["wafer", "maps"])
def test_data_without_files_has_no_scenes(tmp_path: Path, source: str) -> None:
    path = source if source == "wafer" else str(make_wafer_maps(tmp_path))
    found = list_files(path)
    assert (found.scenes, found.count, examine(path).findings) == ({}, 0, [])


def test_nothing_there_and_no_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data set"):
        list_files(tmp_path / "none")
    with pytest.raises(DataError, match="is empty; expected"):
        list_files(tmp_path)
    (tmp_path / "data.yaml").write_text("nonsense: 1")
    with pytest.raises(DataError, match="unknown key 'nonsense'"):
        list_files(tmp_path / "data.yaml")


def test_masks_of_plain_folders_are_read_as_numbers(tmp_path: Path) -> None:
    make_folder(tmp_path)
    task = list_files(tmp_path).tasks["train"][SEMANTIC]
    mask = task.reader.read(tmp_path / "train/masks/0000.png")
    assert mask.max() == VOID
