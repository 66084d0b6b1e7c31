"""What a path holds: recognition, splits, and hints where there is nothing to open."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from fullconv.data import DATASETS, available_splits, layout_name, open_dataset
from fullconv.data.check import check
from fullconv.data.sample import Dataset
from fullconv.data.wafer import Wafer
from fullconv.errors import DataError
from fullconv.labels import VOID
from makers import (
    COUNTS,
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
)

MAKERS: dict[str, tuple[Callable[[Path], Path], Mapping[str, int]]] = {
    "YAML file": (make_yaml, COUNTS),
    "SBD": (make_sbd, {"train": 3, "val": 2}),
    "Pascal-Context": (make_context, {"train": 3, "val": 2}),
    "NYUDv2": (make_nyud, {"train": 4, "val": 2, "trainval": 6, "test": 1}),
    "SIFT Flow": (make_siftflow, {"train": 9, "val": 1, "trainval": 10, "test": 2}),
    "Cityscapes": (make_cityscapes, COUNTS),
    "ADE20K": (make_ade20k, {"train": 3, "val": 2}),
    "VOCdevkit": (make_voc, COUNTS),
    "CamVid": (make_camvid, COUNTS),
    "plain folder": (make_folder, COUNTS),
    "wafer maps": (make_wafer_maps, {"maps": 3}),
}
"""By layout: what makes one, and the samples in each split of it."""


def test_every_layout_has_a_maker() -> None:
    assert list(MAKERS) == list(DATASETS)


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("kind", [str, Path])
def test_every_layout_is_recognised_and_opened(tmp_path: Path, name: str, kind: type) -> None:
    maker, counts = MAKERS[name]
    path = kind(maker(tmp_path / "a b, ü"))
    assert [other for other, layout in DATASETS.items() if layout.recognise(Path(path))] == [name]
    assert layout_name(path) == name
    assert available_splits(path) == tuple(counts)
    digests = set()
    for split, count in counts.items():
        dataset: Dataset = open_dataset(path, split)
        assert (dataset.source, dataset.split, len(dataset), len(dataset.names)) == (str(path), split, count, count)
        assert len(set(dataset.names)) == count
        assert check(dataset).problems == ()
        for index in range(count):
            well_formed(dataset, index)
        with pytest.raises(IndexError):
            dataset[count]
        digests.add(dataset.fingerprint())
        assert open_dataset(path, split).fingerprint() == dataset.fingerprint()
    assert len(digests) == len(counts)
    with pytest.raises(DataError, match=f"has no split 'dev'; its splits: {', '.join(counts)}"):
        open_dataset(path, "dev")


def well_formed(dataset: Dataset, index: int) -> None:
    """What `Sample` promises, of what the data set says of itself."""
    sample = dataset[index]
    assert sample.name == dataset.names[index]
    assert (set(sample.inputs), set(sample.masks)) == (set(dataset.inputs), set(dataset.labels))
    for name, kind in dataset.inputs.items():
        assert sample.inputs[name].shape == (*sample.size, kind.channels)
        assert sample.inputs[name].dtype == (np.uint16 if kind.log else np.uint8)
    for task, labels in dataset.labels.items():
        mask = sample.masks[task]
        assert (mask.shape, mask.dtype) == (sample.size, np.uint8)
        assert ((mask < len(labels)) | (mask == VOID)).all()


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "YAML file"])
def test_a_copy_has_the_same_digest(tmp_path: Path, name: str) -> None:
    maker, counts = MAKERS[name]
    path = maker(tmp_path / "a")
    split = next(iter(counts))
    first = open_dataset(path, split).fingerprint()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert open_dataset(tmp_path / "b" / path.relative_to(tmp_path / "a"), split).fingerprint() == first


def test_sbd_beside_voc_is_sbd(tmp_path: Path) -> None:
    root = make_voc(make_sbd(tmp_path))
    assert layout_name(root) == "SBD"
    assert layout_name(root / "VOCdevkit") == layout_name(root / "VOCdevkit" / "VOC2012") == "VOCdevkit"


def test_maps_beside_images_are_not_meant(tmp_path: Path) -> None:
    assert layout_name(make_wafer_maps(make_folder(tmp_path)).parent) == "plain folder"


def test_real_data_is_what_it_is(shared_data: Path) -> None:
    pieces = shared_data / "annotations" / "datumaro"
    found = {
        name: layout_name(shared_data / name) for name in ("camvid", "voc", "wafers/wm811k", "wafers/mixedwm38")
    } | {name: layout_name(pieces / name) for name in ("camvid_dataset", "cityscapes_dataset/train_dataset")}
    assert found == {
        "camvid": "CamVid",
        "voc": "VOCdevkit",
        "wafers/wm811k": "wafer maps",
        "wafers/mixedwm38": "wafer maps",
        "camvid_dataset": "CamVid",
        "cityscapes_dataset/train_dataset": "Cityscapes",
    }
    assert layout_name(pieces / "ade20k2017_dataset" / "dataset") == "ADE20K"
    assert layout_name(pieces / "voc_dataset" / "voc_dataset1") == "VOCdevkit"
    with pytest.raises(DataError, match=r"steel: holds annotations/, images/; expected"):
        layout_name(shared_data / "steel")


def test_wafer() -> None:
    assert available_splits("wafer") == ("train", "val", "test")
    assert layout_name("wafer") == "wafer"
    dataset = open_dataset("wafer", "val")
    assert isinstance(dataset, Wafer)
    assert dataset.split == "val"
    with pytest.raises(DataError, match="wafer: has no split 'dev'; its splits: train, val, test"):
        open_dataset("wafer", "dev")


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "camvid").mkdir()
    with pytest.raises(DataError, match=rf"camvdi: no such data set; did you mean '{tmp_path}/camvid'\?$"):
        open_dataset(tmp_path / "camvdi", "train")
    with pytest.raises(DataError, match=r"wafers: no such data set; did you mean 'wafer'\?$"):
        available_splits("wafers")
    with pytest.raises(DataError, match=r"xyz: no such data set; name a folder, a YAML file or 'wafer'$"):
        layout_name(tmp_path / "missing" / "xyz")


def test_no_known_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is empty; expected \{train,val,test\}/\{images,masks\}, "):
        open_dataset(tmp_path, "train")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path, "train")
    assert str(caught.value) == (
        f"{tmp_path}: holds notes.txt, pictures/; expected {{train,val,test}}/{{images,masks}}, "
        "{images,masks}/{train,val,test}, {images,masks}, the published layout of SBD, Pascal-Context, NYUDv2, "
        "SIFT Flow, Cityscapes, ADE20K, VOCdevkit, CamVid, wafer maps, or a YAML file that says where images "
        "and masks are"
    )
    with pytest.raises(DataError, match=r"notes\.txt: is a file; a data set is a folder, a YAML file ending in \.yaml"):
        open_dataset(tmp_path / "notes.txt", "train")
