"""The upper bound against a plain loop over cells and pixels, hand-made masks and the paper's numbers."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullconv.data.sample import IMAGE, SEMANTIC, Sample
from fullconv.errors import DataError, OptionError
from fullconv.inference.upper_bound import resampled, upper_bound
from fullconv.labels import VOID, LabelSet
from fullconv.metrics import ConfusionMatrix
from inmemory import InMemory, some
from makers import make_voc

V = VOID
MASKS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.sampled_from((0, 1, 2, V)),
)


def by_loop(mask: np.ndarray, factor: int) -> np.ndarray:
    """The definition in `resampled`, in exact fractions."""
    height, width = mask.shape
    down = math.ceil(height / factor), math.ceil(width / factor)
    cells = {}
    for row in range(down[0]):
        for column in range(down[1]):
            block = mask[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor].ravel().tolist()
            cells[row, column] = min(block, key=lambda label: (-block.count(label), label))

    def neighbours(pixel: int, count: int) -> list[tuple[int, Fraction]]:
        place = (pixel + Fraction(1, 2)) / factor - Fraction(1, 2)
        below = math.floor(place)
        part = place - below
        return [(min(max(below + i, 0), count - 1), 1 - part if i == 0 else part) for i in (0, 1)]

    result = np.empty_like(mask)
    for y in range(height):
        for x in range(width):
            score: dict[int, Fraction] = {}
            for row, weight in neighbours(y, down[0]):
                for column, other in neighbours(x, down[1]):
                    label = cells[row, column]
                    score[label] = score.get(label, Fraction(0)) + weight * other
            result[y, x] = min(score, key=lambda label: (-score[label], label))
    return result


def data_of(*masks: np.ndarray, classes: int = 3) -> InMemory:
    samples = [
        Sample(f"{i}", {IMAGE: np.zeros((*mask.shape, 3), np.uint8)}, {SEMANTIC: mask}) for i, mask in enumerate(masks)
    ]
    return InMemory(samples, "val", {SEMANTIC: LabelSet.numbered(classes)})


@given(MASKS, st.integers(1, 11))
def test_resampling_equals_the_loop_in_fractions(mask: np.ndarray, factor: int) -> None:
    assert np.array_equal(resampled(mask, factor), by_loop(mask, factor))


@given(MASKS)
def test_factor_1_is_the_mask_itself(mask: np.ndarray) -> None:
    assert np.array_equal(resampled(mask, 1), mask)


def test_a_size_that_the_factor_does_not_divide_by_hand() -> None:
    mask = np.array([[0, 0, 0, 0, 1]], np.uint8)  # cells 0000 and 1; centres at 1.5 and 5.5
    assert resampled(mask, 4).tolist() == [[0, 0, 0, 0, 1]]
    assert resampled(mask, 8).tolist() == [[0] * 5]
    assert resampled(np.array([[0, 1, 1, 0, V, V]], np.uint8), 3).tolist() == [[1, 1, 1, V, V, V]]


@pytest.mark.parametrize("cells", [[[1, 2], [0, 0]], [[0, 2], [1, 1]]])
def test_of_equals_the_lowest_label_wins(cells: list[list[int]]) -> None:
    mask = np.kron(cells, np.ones((15, 15))).astype(np.uint8)
    # Pixel (13, 12) lies 6/15 and 5/15 cells from its cell's centre: its label has 9/15 * 10/15 = 6/15, as below.
    assert resampled(mask, 15)[13, 12] == 0
    assert np.array_equal(resampled(mask, 15), by_loop(mask, 15))


@given(st.lists(MASKS, min_size=1, max_size=3), st.integers(1, 5))
def test_scores_equal_a_count_over_pixels(masks: list[np.ndarray], factor: int) -> None:
    right, true, predicted = ([0] * 3 for _ in range(3))
    for mask in masks:
        for truth, label in zip(mask.ravel().tolist(), by_loop(mask, factor).ravel().tolist(), strict=True):
            if truth != V:
                true[truth] += 1
                right[truth] += truth == label
                if label != V:
                    predicted[label] += 1
    scores = upper_bound(data_of(*masks), factors=[factor]).scores[SEMANTIC][factor]
    assert scores.pixels == tuple(true)
    for label in range(3):
        union = true[label] + predicted[label] - right[label]
        assert scores.iu[label] == pytest.approx(right[label] / union if union else math.nan, nan_ok=True)
    assert scores.pixel_accuracy == pytest.approx(sum(right) / sum(true) if sum(true) else math.nan, nan_ok=True)


def test_masks_without_void_are_scored_by_the_confusion_matrix() -> None:
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.integers(0, 3, (4, 5)), np.ones((5, 5))).astype(np.uint8) for _ in range(3)]
    bounds = upper_bound(data_of(*masks), factors=(4, 2))
    assert list(bounds.scores[SEMANTIC]) == [2, 4]
    for factor, scores in bounds.scores[SEMANTIC].items():
        matrix = ConfusionMatrix(3)
        for mask in masks:
            matrix.update(mask, by_loop(mask, factor))
        assert scores == matrix.scores()


def test_strides_that_the_masks_need() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 1
    mask[10, :] = 2  # a line of one pixel
    bounds = upper_bound(data_of(mask, classes=4), factors=(2, 8, 16, 64))
    assert bounds.class_strides(SEMANTIC, 0.9) == (16, 16, 1, None)
    assert bounds.stride(SEMANTIC, 0.9) == 1
    assert bounds.stride(SEMANTIC, 0.6) == 16
    assert bounds.scores[SEMANTIC][2].iu[2] == 0


def test_a_data_set_by_name_and_progress(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    seen: list[tuple[int, int]] = []
    bounds = upper_bound(root, "train", (1, 4), lambda *args: seen.append(args))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert bounds.scores[SEMANTIC][1].mean_iu == 1
    assert 0 < bounds.scores[SEMANTIC][4].mean_iu < 1
    with pytest.raises(DataError, match="has no split 'tset'"):
        upper_bound(root, "tset")


@pytest.mark.parametrize(("factors", "shown"), [((), "none"), ((0, 8), "0, 8"), ((8, 4097), "8, 4097")])
def test_factors_out_of_range(factors: tuple[int, ...], shown: str) -> None:
    with pytest.raises(OptionError, match=f"factors {shown}; expected whole numbers from 1 to 4096, such as 8,16,32"):
        upper_bound(some("val", 1), factors=factors)


def test_close_to_the_papers_numbers_on_voc(shared_data: Path) -> None:
    bounds = upper_bound(shared_data / "voc" / "VOCdevkit", "train", (4, 8, 16, 32))
    paper = {4: 98.5, 8: 96.4, 16: 92.8, 32: 86.1}  # on another subset
    for factor, expected in paper.items():
        assert 100 * bounds.scores[SEMANTIC][factor].mean_iu == pytest.approx(expected, abs=1.2)
