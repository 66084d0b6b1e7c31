"""The check of a whole data set, and what it keeps in memory."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.check import CachedDataset, Moments, check, require_usable
from fullconv.data.folder import open_split
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.data.scenes import FileDataset
from fullconv.data.wafer import Wafer
from fullconv.errors import DataError
from fullconv.labels import VOID, LabelSet
from inmemory import InMemory
from makers import CLASSES, make_folder, scene


def some_pairs(root: Path, count: int = 5) -> FileDataset:
    return open_split(str(root), make_folder(root, counts={"train": count, "val": 1}), "train")


class Given(InMemory):
    """Counts how often each sample is read; an exception in place of a sample is raised."""

    def __init__(self, given: Sequence[Sample | Exception], classes: int = 2) -> None:
        super().__init__([], labels={SEMANTIC: LabelSet.numbered(classes)})
        self.given = given
        self.names = [f"s{index}" for index in range(len(given))]
        self.reads = [0] * len(given)

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        sample = self.given[index]
        if isinstance(sample, Exception):
            raise sample
        return sample


def sample(mask: object, name: str = "s0", size: tuple[int, int] | None = None) -> Sample:
    values = np.array(mask, np.uint8)
    return Sample(name, {IMAGE: np.zeros((*(size or values.shape), 3), np.uint8)}, {SEMANTIC: values})


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
        dataset.scenes[index].mask.write_bytes(b"damaged")
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
    checked = check(Given([DataError("broken"), DataError("x/s1.png: broken")]))
    assert checked.problems == ("s0: broken", "x/s1.png: broken")
    with pytest.raises(
        DataError, match=r"^arrays \(train\): 2 problems in 2 samples:\n  s0: broken\n  x/s1.png: broken$"
    ):
        require_usable(checked)


def test_a_name_within_the_text_names_no_sample() -> None:
    dataset = Given([DataError("holds value 12"), DataError("b.png: holds value 12"), DataError("c\\n3.png: is empty")])
    dataset.names = ["1", "12", "c\n3"]
    assert check(dataset).problems == ("1: holds value 12", "12: b.png: holds value 12", r"c\n3.png: is empty")


def test_check_lets_other_errors_through() -> None:
    dataset = Given([ZeroDivisionError("a bug"), *[sample([[0]])] * 50])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        check(dataset, threads=1)


def test_check_stops_when_progress_raises() -> None:
    class Slow(Given):
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
    checked = check(Given([sample([[0, 7]]), sample([[0, 1]], "s1", size=(2, 1))]))
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
    checked = check(Given([sample(mask) for mask in masks], classes))
    expected = (
        "arrays (train): the semantic masks hold only 0 and 255 = void, so that '0' is the one class; if 255 marks "
        "class 1, set in the data set's YAML label_mapping: {0: 0, 255: 1}"
    )
    assert checked.problems == ((expected,) if trapped else ())


def test_the_cache_keeps_to_its_bound(tmp_path: Path) -> None:
    dataset = some_pairs(tmp_path)
    each = 12 * 16 * 4
    for room, kept in ((0, 0), (each * 3 + each - 1, 3), (each * 5, 5), (each * 9, 5)):
        checked = check(dataset, cache_bytes=room)
        assert len(checked.dataset.kept) == kept
        assert checked.cached_bytes == each * kept


def test_the_cache_serves_from_memory_and_reads_the_rest() -> None:
    dataset = Given([sample([[0, 1]]), sample([[1, 1, 1, 1]]), sample([[1, 0]])])
    checked = check(dataset, threads=1, cache_bytes=16)
    cached = checked.dataset
    assert sorted(cached.kept) == [0, 2]
    for index in (0, 1, 2, -1, -3):
        assert cached[index] is dataset.given[index]
    assert dataset.reads == [1, 2, 1]
    assert len(cached) == 3
    assert (cached.source, cached.split, cached.names) == (dataset.source, dataset.split, dataset.names)
    assert (cached.labels, cached.inputs) == (dataset.labels, dataset.inputs)
    assert cached.fingerprint() == dataset.fingerprint()
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

    class Meeting(Given):
        def __getitem__(self, index: int) -> Sample:
            barrier.wait()  # passes only where two are read at once
            return super().__getitem__(index)

    assert check(Meeting([sample([[0, 1]])] * 4), threads=2).problems == ()


def measured(count: int, kind: str = "uint16", channels: int = 5) -> list[Sample]:
    """Samples of several sizes whose channels have ranges of their own."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(count):
        size = (int(rng.integers(5, 40)), int(rng.integers(5, 40)))
        values = np.abs(
            rng.normal(300 * np.arange(1, channels + 1), 20 * np.arange(1, channels + 1), (*size, channels))
        )
        samples.append(Sample(f"s{index}", {IMAGE: values.astype(kind)}, {SEMANTIC: np.zeros(size, np.uint8)}))
    return samples


def pixels_of(samples: Sequence[Sample]) -> np.ndarray:
    """(N, C) float64: all pixels."""
    return np.concatenate([s.inputs[IMAGE].reshape(-1, s.inputs[IMAGE].shape[2]) for s in samples]).astype(np.float64)


BANDS = InputKind(5, (1, 2, 3, 4, 5))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("log", [False, True])
def test_moments_are_those_of_all_pixels(kind: str, log: bool) -> None:
    samples = measured(7, kind)
    samples[3].inputs[IMAGE][0, 0] = 0  # where depth was not measured: log(1)
    found = check(InMemory(samples, inputs={IMAGE: InputKind(5, (1, 2, 3, 4, 5), log=log)})).moments[IMAGE]
    every = pixels_of(samples)
    every = np.log(np.maximum(every, 1)) if log else every
    np.testing.assert_allclose(found.mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, every.std(0), rtol=1e-9)
    assert all(type(value) is float for value in (*found.mean, *found.std))


@pytest.mark.parametrize("shape", [(1, 700_000, 2), (700_000, 1, 2), (1000, 1500, 1), (2, 3, 1024), (900, 2, 999)])
@pytest.mark.parametrize("log", [False, True])
def test_moments_of_large_images(shape: tuple[int, int, int], log: bool) -> None:
    """Larger than what is summed at a time."""
    values = np.random.default_rng(0).integers(0, 5000, shape, np.uint16) + np.arange(shape[2], dtype=np.uint16)
    data = InMemory(
        [Sample("s", {IMAGE: values}, {SEMANTIC: np.zeros(shape[:2], np.uint8)})],
        inputs={IMAGE: InputKind(shape[2], tuple(range(1, shape[2] + 1)), log=log)},
    )
    found = check(data).moments[IMAGE]
    every = values.reshape(-1, shape[2]).astype(np.float64)
    every = np.log(np.maximum(every, 1)) if log else every
    np.testing.assert_allclose(found.mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, every.std(0), rtol=1e-9)


@pytest.mark.parametrize("log", [False, True])
def test_moments_take_little_memory(log: bool) -> None:
    values = np.ones((2000, 4000, 2), np.uint16)
    data = InMemory(
        [Sample("s", {IMAGE: values}, {SEMANTIC: np.zeros((1, 1), np.uint8)})],
        inputs={IMAGE: InputKind(2, (1, 2), log=log)},
    )
    data.labels = {}
    tracemalloc.start()
    assert check(data).moments[IMAGE].std == (1, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes, "in float64 it would be four times as much"


def test_moments_do_not_depend_on_the_order_of_the_threads() -> None:
    class Shuffled(InMemory):
        def __getitem__(self, index: int) -> Sample:
            time.sleep(0.002 * (index % 3))
            return super().__getitem__(index)

    samples = measured(40, "float32")
    found = [check(Shuffled(samples, inputs={IMAGE: BANDS}), threads=threads).moments for threads in (1, 2, 8, 8)]
    assert found[0] == found[1] == found[2] == found[3], "to the last bit"


def test_moments_are_taken_of_what_was_measured() -> None:
    size = (3, 4)
    inputs = {
        "picture": np.full((*size, 3), 9, np.uint8), "radar": np.full((*size, 2), 7, np.uint8),
        "bands": np.full((*size, 3), 5, np.uint8), "depth": np.full((*size, 1), 100, np.uint16),
    }  # fmt: skip
    kinds = {
        "picture": InputKind(), "radar": InputKind(2), "bands": InputKind(3, (1, 2, 3)), "depth": InputKind(1, log=True)
    }  # fmt: skip
    data = InMemory([Sample("s", inputs, {SEMANTIC: np.zeros(size, np.uint8)})], inputs=kinds)
    moments = check(data).moments
    assert list(moments) == ["radar", "bands", "depth"]
    assert moments["radar"] == Moments((7.0, 7.0), (1.0, 1.0))
    assert moments["bands"] == Moments((5.0, 5.0, 5.0), (1.0, 1.0, 1.0))
    assert moments["depth"].mean == pytest.approx([np.log(100)])
    assert moments["depth"].std == (1.0,)


def test_a_constant_channel_has_deviation_1_and_a_nearly_constant_one_its_own() -> None:
    values = np.full((30, 30, 3), 1234.5678, np.float32)
    values[:15, :, 1] += 0.5
    values[:, :, 2] = 0
    data = InMemory([Sample("s", {IMAGE: values}, {SEMANTIC: np.zeros((30, 30), np.uint8)})], inputs={IMAGE: BANDS})
    assert check(data).moments[IMAGE].std == pytest.approx((1, 0.25, 1), rel=1e-3)


def test_moments_leave_out_what_cannot_be_used() -> None:
    samples = measured(3)
    samples[1].masks[SEMANTIC][0, 0] = 77
    found = check(InMemory(samples, inputs={IMAGE: BANDS}))
    assert len(found.problems) == 1
    np.testing.assert_allclose(found.moments[IMAGE].mean, pixels_of([samples[0], samples[2]]).mean(0), rtol=1e-12)
    for sample in samples:
        sample.masks[SEMANTIC][0, 0] = 77
    assert check(InMemory(samples, inputs={IMAGE: BANDS})).moments == {}
