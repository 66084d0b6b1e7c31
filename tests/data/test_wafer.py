"""Generated wafer maps as a data set: pure functions of seed, split and index, their mixtures, how they are shown."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.data import wafer
from fullconv.data.sample import Dataset, InputKind
from fullconv.data.wafer import WAFER_LABELS, Wafer, generate, render
from fullconv.data.wafer_patterns import PATTERNS, Field, Pattern
from fullconv.errors import DataError, OptionError

SPLITS = ("train", "val", "test")


# --- a pure function of (seed, split, index) -------------------------------------------------------------------------


@given(
    st.integers(0, 2**70),
    st.integers(0, 2**32 - 1),
    st.sampled_from(SPLITS),
    st.lists(st.integers(0, 50), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_a_map_does_not_depend_on_what_was_generated_before(
    seed: int, index: int, split: str, others: list[int]
) -> None:
    first = generate(seed, index, split=split)
    np.random.seed(len(others))  # noqa: NPY002  the global state must not matter either
    for other in others:
        generate(seed, other, split=split, size=(20, 24))
    again = generate(seed, index, split=split)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_samples_are_the_same_in_any_order() -> None:
    forward = [sample.masks["semantic"] for sample in map(Wafer("val", 20, seed=4).__getitem__, range(20))]
    data = Wafer("val", 20, seed=4)
    backward = [data[index].masks["semantic"] for index in reversed(range(20))]
    assert np.array_equal(forward, backward[::-1])


def test_every_seed_split_and_index_has_its_own_map() -> None:
    # Plain maps differ by their random failures alone, so that a shared stream could not hide behind a pattern.
    # 2**32 and its neighbours take two words of the seed sequence: they must not read as another index or split.
    keys = list(itertools.product((0, 1, 7, 2**32, 2**32 + 1, 2**64), SPLITS, (*range(12), 2**32 - 1)))
    maps = {generate(seed, index, split=split, patterns=())[0].tobytes() for seed, split, index in keys}
    assert len(maps) == len(keys)


def test_the_maps_of_this_version_never_change() -> None:
    digest = hashlib.sha256()
    for split, index in itertools.product(SPLITS, range(40)):
        for array in generate(0, index, split=split):
            digest.update(array.tobytes())
    assert wafer.VERSION == 2, "new maps: give the digest of this version"
    assert digest.hexdigest()[:16] == "af9e693ed0f0c28d"


# --- labels and mixtures ---------------------------------------------------------------------------------------------


def test_labels() -> None:
    assert WAFER_LABELS.names == ("background", "ring", "scratch", "local zone", "circle")
    assert len(set(WAFER_LABELS.colours)) == 5
    named = {name: WAFER_LABELS.names[pattern.label] for name, pattern in PATTERNS.items()}
    assert named == {
        "center": "circle",
        "donut": "ring",
        "edge-ring": "ring",
        "edge-loc": "local zone",
        "loc": "local zone",
        "scratch": "scratch",
    }
    assert list(PATTERNS)[-1] == "scratch"


def test_mixtures_are_those_of_mixedwm38() -> None:
    slots = (("", "center", "donut"), ("", "edge-ring", "edge-loc"), ("", "loc"), ("", "scratch"))
    allowed = {tuple(filter(None, names)) for names in itertools.product(*slots)}
    assert len(allowed) == 38 - 2  # less near-full and random, which never mix
    rng = np.random.default_rng(0)
    drawn = [tuple(wafer._mixture(rng)) for _ in range(4000)]
    assert set(drawn) == allowed
    # .6 x .6 x .65 x .55 = .129, with a standard deviation of .005
    assert drawn.count(()) / len(drawn) == pytest.approx(0.129, abs=0.025)


def test_mixed_maps_hold_every_class() -> None:
    counts = np.zeros(256, dtype=np.int64)
    maps_with_patterns = 0
    for index in range(200):
        _, mask = generate(0, index)
        counts += np.bincount(mask.ravel(), minlength=256)
        maps_with_patterns += bool(((mask > 0) & (mask < 255)).any())
    assert np.all(counts[:5] > 0)
    assert 0.75 < maps_with_patterns / 200 < 0.97


def test_later_patterns_are_painted_over_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def everywhere(_: Any, grid: Any) -> Field:
        return Field(np.ones(grid.r.shape), np.ones(grid.r.shape, dtype=bool))

    def left(_: Any, grid: Any) -> Field:
        half = grid.z.real < 0
        return Field(0.0 * half, half)

    monkeypatch.setitem(PATTERNS, "a", Pattern(1, 1.0, everywhere))
    monkeypatch.setitem(PATTERNS, "b", Pattern(2, 1.0, left))
    cells, mask = generate(0, 0, patterns=("a", "b"), size=(10, 12))
    assert np.all(cells[cells > 0] == 2)
    assert set(mask[:, :6][cells[:, :6] > 0]) == {2}
    assert set(mask[:, 6:][cells[:, 6:] > 0]) == {1}
    assert set(np.unique(generate(0, 0, patterns=("b", "a"), size=(10, 12))[1])) == {0, 1}


# --- render and the data set -----------------------------------------------------------------------------------------


def test_render() -> None:
    image = render(np.array([[0, 1, 2]], dtype=np.uint8))
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0, 0, 0], [128, 128, 128], [255, 255, 255]]]
    assert render(np.zeros((0, 3), dtype=np.uint8)).shape == (0, 3, 3)


def test_render_refuses_what_is_no_wafer_map() -> None:
    with pytest.raises(DataError, match=r"wafer map holds 7; expected 0 \(off the wafer\), 1 \(pass\) and 2 \(fail\)"):
        render(np.array([[0, 7]], dtype=np.uint8))
    with pytest.raises(DataError, match=r"a 3-dimensional uint8 array is no wafer map; expected \(H, W\) uint8"):
        render(np.zeros((2, 2, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="a 2-dimensional float64 array is no wafer map"):
        render(np.zeros((2, 2)))  # type: ignore[arg-type]


def test_the_data_set_serves_what_generate_makes() -> None:
    data = Wafer("val", seed=5)
    as_protocol: Dataset = data
    assert (as_protocol.source, as_protocol.split, len(as_protocol)) == ("wafer", "val", 400)
    assert data.labels == {"semantic": WAFER_LABELS}
    assert data.inputs == {"image": InputKind()}
    sample, (cells, mask) = data[12], generate(5, 12, split="val")
    assert sample.name == data.names[12] == "wafer-val-000012"
    assert np.array_equal(sample.inputs["image"], render(cells))
    assert np.array_equal(sample.masks["semantic"], mask)
    assert sample.size == (56, 53)


def test_default_lengths_and_indices() -> None:
    assert [len(Wafer(split)) for split in SPLITS] == [20_000, 400, 1000]
    data = Wafer("test", 3)
    assert data[-1].name == data[2].name == "wafer-test-000002"
    assert [data[index].name for index in range(len(data))] == list(data.names)
    for index in (3, -4):
        with pytest.raises(IndexError, match=rf"wafer map {index} of 3; give -3\.\.2"):
            data[index]


def test_fingerprints_tell_seed_split_and_length_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = [Wafer(split, length, seed).fingerprint() for split in SPLITS for length in (1, 11) for seed in (0, 1, 11)]
    assert len(set(prints)) == len(prints)
    assert Wafer("val", 400).fingerprint() == Wafer("val").fingerprint()
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in prints)
    monkeypatch.setattr(wafer, "VERSION", wafer.VERSION + 1)
    assert Wafer("train", 1, 0).fingerprint() != prints[0]


def test_options_that_cannot_work() -> None:
    with pytest.raises(OptionError, match="unknown split 'vall'; did you mean 'val'\\? Choices: test, train, val"):
        Wafer("vall")
    with pytest.raises(OptionError, match="unknown split 'tran'; did you mean 'train'"):
        generate(0, 0, split="tran")
    with pytest.raises(OptionError, match="0 wafer maps asked for; give a length of 1 or more"):
        Wafer("train", 0)
    with pytest.raises(OptionError, match="seed -1 is negative; give 0 or more"):
        Wafer(seed=-1)
    with pytest.raises(OptionError, match=r"index 4294967296 is outside 0\.\.4294967295; give the number of a map"):
        generate(0, 2**32)
    with pytest.raises(OptionError, match=r"index -1 is outside"):
        generate(0, -1)
    with pytest.raises(OptionError, match="wafer size 56 x 7; expected at least 8 x 8 dies"):
        generate(0, 0, size=(56, 7))
    with pytest.raises(OptionError, match="unknown pattern 'donuts'; did you mean 'donut'"):
        generate(0, 0, patterns=("donuts",))
