"""A data set with all the faults at once: each is named, nothing else, and what can be repaired is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt

import fullconv
from broken_data import COUNTS, SIZE, make_broken, make_clean, original
from fullconv.data import open_dataset
from fullconv.data.doctor import Repaired, examine, repair
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.labels import VOID

LEFT = {"class missing", "mostly void", "same image, other mask", "constant image"}
"""What no program can mend."""


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    """The repaired copy of the broken data set."""
    root = tmp_path_factory.mktemp("data")
    make_broken(root / "broken")
    return repair(examine(root / "broken"), root / "fixed")


def test_nothing_is_found_on_the_clean_original(tmp_path: Path) -> None:
    assert examine(make_clean(tmp_path)).findings == []


def test_nothing_is_found_on_camvid(shared_data: Path) -> None:
    found = examine(shared_data / "camvid")
    assert [(f.kind, f.shown) for f in found.findings] == []
    assert found.pixels(SEMANTIC)["train"].sum() > 0.9 * 367 * 360 * 480


def test_every_fault_is_named_and_nothing_else(tmp_path: Path) -> None:
    expected = make_broken(tmp_path / "broken")
    found = examine(tmp_path / "broken", threads=3)
    assert {finding.kind: set(finding.names) for finding in found.findings} == expected
    assert len(expected) >= 18
    severities = [finding.severity for finding in found.findings]
    assert severities == sorted(severities, key=["error", "warning"].index)
    for finding in found.findings:
        assert "{" not in finding.title
        assert finding.consequence
        if finding.severity == "error" and finding.kind != "one name twice":
            assert f"fullconv doctor {tmp_path / 'broken'} --fix FIXED" in finding.remedy
        assert json.loads(json.dumps(finding.to_json()))["count"] == len(expected[finding.kind])


def test_what_is_left_after_the_repair(fixed: Repaired) -> None:
    assert {finding.kind for finding in examine(fixed.path).findings} == LEFT


def test_masks_are_as_they_were_where_nothing_was_lost(fixed: Repaired) -> None:
    dropped = {"00", "02", "03", "04", "13", "14", "15"}
    train = open_dataset(fixed.path, "train")
    assert set(train.names) == {f"{n:02}" for n in range(COUNTS["train"])} - dropped
    lossy, copies, voided = {"05", "10", "11"}, {"12", "19", "21", "23"}, {"07", "09"}
    for index, name in enumerate(train.names):
        if name in lossy | copies | voided:
            continue
        image, mask = original("train", int(name))
        sample = train[index]
        np.testing.assert_array_equal(sample.masks[SEMANTIC], mask, name)
        if name not in ("06", "16", "17", "18", "21"):
            np.testing.assert_array_equal(sample.inputs[IMAGE], image, name)
    test = open_dataset(fixed.path, "test")  # counted from 1
    for index in range(COUNTS["test"]):
        np.testing.assert_array_equal(test[index].masks[SEMANTIC], original("test", index)[1])


def test_masks_that_lost_something_keep_the_rest(fixed: Repaired) -> None:
    train = open_dataset(fixed.path, "train")

    def mask(number: int) -> np.ndarray:
        return train[train.names.index(f"{number:02}")].masks[SEMANTIC]

    without_class = original("train", 7)[1]
    np.testing.assert_array_equal(mask(7), np.where(without_class == 3, VOID, without_class))
    without_void = original("train", 9)[1]
    np.testing.assert_array_equal(mask(9), np.where(without_void == VOID, 0, without_void))
    smaller = np.asarray(
        Image.fromarray(original("train", 5)[1][::2, ::2]).resize(SIZE[::-1], Image.Resampling.NEAREST)
    )
    np.testing.assert_array_equal(mask(5), smaller)
    for number, reach in ((10, 1.5), (11, 3.0)):  # soft edges, JPEG: pixels away from any edge are as they were
        truth = original("train", number)[1]
        edge = np.zeros(truth.shape, bool)
        edge[:-1] |= truth[:-1] != truth[1:]
        edge[1:] |= truth[:-1] != truth[1:]
        edge[:, :-1] |= truth[:, :-1] != truth[:, 1:]
        edge[:, 1:] |= truth[:, :-1] != truth[:, 1:]
        inside = distance_transform_edt(~edge) > reach
        assert inside.mean() > 0.3
        np.testing.assert_array_equal(mask(number)[inside], truth[inside])
        assert (mask(number) != truth).mean() < 0.1


def test_training_starts_on_the_copy_and_not_on_the_original(fixed: Repaired, tmp_path: Path) -> None:
    with pytest.raises(fullconv.errors.DataError, match="share the name .23.; rename or remove one"):
        fullconv.train(fixed.path.parent / "broken", steps=1, out=tmp_path / "a")
    trained = fullconv.train(fixed.path, steps=2, out=tmp_path / "b", net_options={"width": 0.1})
    assert trained.steps == 2
    assert trained.scores is not None


def test_the_copy_says_what_was_changed(fixed: Repaired) -> None:
    written = json.loads((fixed.path / "changes.json").read_text())
    assert written == fixed.to_json()
    assert written["changed"]["mask turned as its image is"] == ["train/06"]
    assert written["dropped"]["the image cannot be read"] == ["train/02", "train/03"]
    assert written["left"] == [
        "pictures that share their name with another",
        "palette masks in which one number has different colours",
        "classes without a pixel in a split",
        "masks that are void or nearly",
        "equal images with different masks",
        "images of one colour",
        "pictures of formats that are not read",
    ]
    assert written["data"] == written["path"] == str(fixed.path)
    assert (fixed.path / "classes.txt").read_text().split() == ["ground", "water", "road", "house"]
