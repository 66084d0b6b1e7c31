"""What a path holds: recognition, splits, and hints where there is nothing to open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fullconv.data import DATASETS, available_splits, open_dataset
from fullconv.data.check import check
from fullconv.data.sample import SEMANTIC, Dataset
from fullconv.data.wafer import Wafer
from fullconv.errors import DataError
from makers import COUNTS, make_camvid, make_folder, make_voc, make_yaml

MAKERS: dict[str, Callable[[Path], Path]] = {
    "YAML file": make_yaml,
    "VOCdevkit": make_voc,
    "CamVid": make_camvid,
    "plain folder": make_folder,
}


def test_every_layout_has_a_maker() -> None:
    assert list(MAKERS) == list(DATASETS)


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("kind", [str, Path])
def test_every_layout_is_recognised_and_opened(tmp_path: Path, name: str, kind: type) -> None:
    path = kind(MAKERS[name](tmp_path / "a b, ü"))
    assert [other for other, layout in DATASETS.items() if layout.recognise(Path(path))] == [name]
    assert available_splits(path) == ("train", "val", "test")
    for split, count in COUNTS.items():
        dataset: Dataset = open_dataset(path, split)
        assert (dataset.source, dataset.split, len(dataset), len(dataset.names)) == (str(path), split, count, count)
        assert check(dataset).problems == ()
        assert set(dataset.labels) == set(dataset[0].masks) == {SEMANTIC}
        assert set(dataset.inputs) == set(dataset[0].inputs)
        with pytest.raises(IndexError):
            dataset[count]
    with pytest.raises(DataError, match="has no split 'dev'; its splits: train, val, test"):
        open_dataset(path, "dev")


def test_wafer() -> None:
    assert available_splits("wafer") == ("train", "val", "test")
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
        open_dataset(tmp_path / "missing" / "xyz", "train")


def test_no_known_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is empty; expected \{train,val,test\}/\{images,masks\}, "):
        open_dataset(tmp_path, "train")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path, "train")
    assert str(caught.value) == (
        f"{tmp_path}: holds notes.txt, pictures/; expected {{train,val,test}}/{{images,masks}}, "
        "{images,masks}/{train,val,test}, {images,masks}, VOCdevkit/VOC20xx, CamVid's train and trainannot, or a YAML "
        "file that says where images and masks are"
    )
    with pytest.raises(DataError, match=r"notes\.txt: is a file; a data set is a folder, a YAML file ending in \.yaml"):
        open_dataset(tmp_path / "notes.txt", "train")
