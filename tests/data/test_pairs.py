"""Pairs of files, the check of a whole data set, and what it keeps in memory."""

from __future__ import annotations

import os
import shutil
import threading
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.mask import MaskReader
from fullconv.data.pairs import (
    CachedDataset,
    ImageMaskPairs,
    Pair,
    check,
    listed,
    pair_by_stem,
    require_split,
    require_usable,
)
from fullconv.data.sample import IMAGE, SEMANTIC, Sample
from fullconv.data.wafer import Wafer
from fullconv.errors import DataError
from fullconv.labels import VOID, LabelSet
from makers import CLASSES, make_folder, save, save_scene, scene

LABELS = LabelSet.numbered(CLASSES)


def some_pairs(root: Path, count: int = 5) -> ImageMaskPairs:
    make_folder(root, "{kind}/{name}", {"train": count})
    pairs = pair_by_stem(str(root), root / "images", root / "masks")
    return ImageMaskPairs(str(root), "train", pairs, LABELS, MaskReader(CLASSES))


class InMemory:
    """A data set of arrays; an exception in place of a sample is raised."""

    def __init__(self, samples: Sequence[Sample | Exception], classes: int = 2) -> None:
        self.source, self.split = "arrays", "train"
        self.labels = {SEMANTIC: LabelSet.numbered(classes)}
        self.channels = {IMAGE: 3}
        self.samples = samples
        self.names = [f"s{index}" for index in range(len(samples))]
        self.reads = [0] * len(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        sample = self.samples[index]
        if isinstance(sample, Exception):
            raise sample
        return sample


def sample(mask: object, name: str = "s0", size: tuple[int, int] | None = None) -> Sample:
    values = np.array(mask, np.uint8)
    return Sample(name, {IMAGE: np.zeros((*(size or values.shape), 3), np.uint8)}, {SEMANTIC: values})


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


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_check_counts_what_is_there(tmp_path: Path, threads: int | None) -> None:
    calls: list[tuple[int, int]] = []
    checked = check(some_pairs(tmp_path), lambda done, total: calls.append((done, total)), threads)
    masks = [scene(seed)[1] for seed in range(5)]
    assert checked.pixels[SEMANTIC].tolist() == [sum(int((m == k).sum()) for m in masks) for k in range(CLASSES)]
    assert checked.pixels[SEMANTIC].dtype == np.int64
    assert checked.void == {SEMANTIC: sum(int((m == VOID).sum()) for m in masks)}
    assert checked.sizes == ((12, 16),) * 5
    assert checked.problems == ()
    assert calls == [(i, 5) for i in range(1, 6)]
    require_usable(checked)


def test_check_reports_every_problem_once_and_in_order(tmp_path: Path) -> None:
    dataset = some_pairs(tmp_path, 15)
    for index in range(1, 14):
        dataset.pairs[index].mask.write_bytes(b"damaged")
    checked = check(dataset, cache_bytes=10**9)
    assert len(checked.problems) == 13
    assert all(f"{index:04}.png" in checked.problems[index - 1] for index in range(1, 14))
    assert set(checked.dataset.kept) == {0, 14}
    assert len(checked.sizes) == 2
    with pytest.raises(DataError) as caught:
        require_usable(checked)
    lines = str(caught.value).split("\n")
    assert lines[0] == f"{tmp_path} (train): 13 problems in 15 samples:"
    assert lines[1:11] == [f"  {problem}" for problem in checked.problems[:10]]
    assert lines[11:] == ["  and 3 more"]


def test_a_problem_names_its_sample() -> None:
    checked = check(InMemory([DataError("broken"), DataError("s1 broken")]))
    assert checked.problems == ("s0: broken", "s1 broken")
    with pytest.raises(DataError, match=r"^arrays \(train\): 2 problems in 2 samples:\n  s0: broken\n  s1 broken$"):
        require_usable(checked)


def test_check_lets_other_errors_through() -> None:
    dataset = InMemory([ZeroDivisionError("a bug"), *[sample([[0]])] * 50])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        check(dataset, threads=1)


def test_check_stops_when_progress_raises() -> None:
    class Slow(InMemory):
        def __getitem__(self, index: int) -> Sample:
            time.sleep(0.005)
            return super().__getitem__(index)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    dataset = Slow([sample([[0, 1]])] * 200)
    with pytest.raises(KeyboardInterrupt):
        check(dataset, interrupt, threads=1)
    assert sum(dataset.reads) < 100


def test_check_finds_samples_that_break_the_contract() -> None:
    checked = check(InMemory([sample([[0, 7]]), sample([[0, 1]], "s1", size=(2, 1))]))
    assert checked.problems == (
        "s0: the semantic mask holds value 7; classes are 0..1 and 255 = void; map it to a class",
        "s1: the semantic mask has shape (1, 2), its image is (2, 1) (H, W); make them the same size",
    )


@pytest.mark.parametrize(
    ("masks", "classes", "trapped"),
    [
        ([[[0, 255]], [[0, 0]], [[255, 255]]], 2, True),
        ([[[0, 255]], [[0, 1]]], 2, False),
        ([[[0, 255]]], 1, False),  # one class has nothing to be mistaken for
        ([[[0, 0]]], 2, False),  # no 255 that could be meant as a class
        ([[[255, 255]]], 2, False),
    ],
)
def test_masks_of_0_and_255(masks: list[object], classes: int, trapped: bool) -> None:
    checked = check(InMemory([sample(mask) for mask in masks], classes))
    expected = (
        "arrays (train): the semantic masks hold only 0 and 255 = void, so that '0' is the one class; if 255 marks "
        "class 1, set in the data set's YAML label_mapping: {0: 0, 255: 1}"
    )
    assert checked.problems == ((expected,) if trapped else ())


def test_the_cache_keeps_to_its_bound(tmp_path: Path) -> None:
    dataset = some_pairs(tmp_path)
    each = 12 * 16 * 4
    assert check(dataset).dataset.kept == {}
    assert len(check(dataset, cache_bytes=each * 3 + each - 1).dataset.kept) == 3
    assert len(check(dataset, cache_bytes=each * 5).dataset.kept) == 5


def test_the_cache_serves_from_memory_and_reads_the_rest() -> None:
    dataset = InMemory([sample([[0, 1]]), sample([[1, 1, 1, 1]]), sample([[1, 0]])])
    checked = check(dataset, threads=1, cache_bytes=16)
    cached = checked.dataset
    assert sorted(cached.kept) == [0, 2]
    for index in (0, 1, 2, -1, -3):
        assert cached[index] is dataset.samples[index]
    assert dataset.reads == [1, 2, 1]
    assert len(cached) == 3
    assert (cached.source, cached.split, cached.names) == (dataset.source, dataset.split, dataset.names)
    assert (cached.labels, cached.channels) == (dataset.labels, dataset.channels)
    assert cached.fingerprint() == ""
    with pytest.raises(IndexError):
        cached[3]


def test_the_cache_has_the_fingerprint_behind_it(tmp_path: Path) -> None:
    dataset = some_pairs(tmp_path)
    assert CachedDataset(dataset, {}).fingerprint() == dataset.fingerprint()


def test_check_of_a_generator() -> None:
    dataset = Wafer("val", length=6)
    checked = check(dataset, cache_bytes=10**9)
    assert checked.problems == ()
    every = np.concatenate([dataset[i].masks[SEMANTIC].ravel() for i in range(6)])
    assert checked.pixels[SEMANTIC].tolist() == [int((every == k).sum()) for k in range(len(dataset.labels[SEMANTIC]))]
    assert checked.dataset.fingerprint() == dataset.fingerprint()


def test_check_uses_its_threads() -> None:
    barrier = threading.Barrier(2, timeout=30)

    class Meeting(InMemory):
        def __getitem__(self, index: int) -> Sample:
            barrier.wait()  # passes only where two are read at once
            return super().__getitem__(index)

    assert check(Meeting([sample([[0, 1]])] * 4), threads=2).problems == ()


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
