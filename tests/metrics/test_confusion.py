"""The confusion matrix and the four numbers, against hand computation, a loop over pixels and torchmetrics."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID
from fullconv.metrics import ConfusionMatrix, Scores
from fullconv.metrics.confusion import scores_of

NAN = math.nan
Case = tuple[int, np.ndarray, np.ndarray]


def torchmetrics(**options: object) -> Any:
    with warnings.catch_warnings():  # its imports warn in some versions; nothing of ours does
        warnings.simplefilter("ignore")
        from torchmetrics import classification
    return classification.MulticlassConfusionMatrix(**options)


def scored(counts: list[list[int]], absent: str = "predicted") -> Scores:
    return ConfusionMatrix.from_counts(np.array(counts)).scores(absent)


def by_loop(classes: int, truth: np.ndarray, prediction: np.ndarray) -> list[list[int]]:
    """One pixel after the other: what the vectorised count must equal."""
    counts = [[0] * classes for _ in range(classes)]
    for true, predicted in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if 0 <= true < classes:
            counts[true][predicted] += 1
    return counts


def scores_by_loop(counts: list[list[int]], absent: str) -> tuple[float, float, float, float]:
    """The formulas of reference 6 in plain Python; nan where nothing was counted."""
    classes = range(len(counts))
    true = [sum(counts[i]) for i in classes]
    if not sum(true):
        return NAN, NAN, NAN, NAN
    union = [true[i] + sum(counts[j][i] for j in classes) - counts[i][i] for i in classes]
    accuracies = [counts[i][i] / true[i] for i in classes if true[i]]
    ius = [counts[i][i] / union[i] for i in classes if (true[i] if absent == "excluded" else union[i])]
    weighted = sum(true[i] * counts[i][i] / union[i] for i in classes if true[i])
    return (
        sum(counts[i][i] for i in classes) / sum(true),
        sum(accuracies) / len(accuracies),
        sum(ius) / len(ius),
        weighted / sum(true),
    )


@st.composite
def truth_and_prediction(draw: st.DrawFn, choices: tuple[int, ...] = (1, 2, 3, 21, 254, 255)) -> Case:
    classes = draw(st.sampled_from(choices))
    shape = draw(st.one_of(hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=6)))
    dtype = draw(st.sampled_from([np.uint8, np.int16, np.int64, np.uint64]))
    low, high = (0, 255) if dtype == np.uint8 else (0, 600) if dtype == np.uint64 else (-300, 600)
    beyond = st.integers(low, high)
    truth = draw(hnp.arrays(dtype, shape, elements=st.one_of(st.integers(0, classes - 1), beyond)))
    prediction = draw(
        hnp.arrays(draw(st.sampled_from([np.uint8, np.int64])), shape, elements=st.integers(0, classes - 1))
    )
    return classes, truth, prediction


class TestCounting:
    def test_rows_are_truth_and_columns_prediction(self) -> None:
        matrix = ConfusionMatrix(3)
        matrix.update(np.array([[0, 0, 1], [2, 2, 2]], np.uint8), np.array([[0, 1, 1], [2, 0, 0]], np.uint8))
        assert matrix.counts.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 1]]
        assert matrix.counts.dtype == np.int64

    def test_void_drops_out_whatever_was_predicted(self) -> None:
        matrix = ConfusionMatrix(2)
        matrix.update(np.array([[255, 254, 2, -1, 1]]), np.array([[0, 1, 255, 99, 1]]))
        assert matrix.counts.tolist() == [[0, 0], [0, 1]]

    @given(truth_and_prediction())
    def test_equals_the_loop(self, case: Case) -> None:
        classes, truth, prediction = case
        matrix = ConfusionMatrix(classes)
        matrix.update(truth, prediction)
        assert matrix.counts.tolist() == by_loop(classes, truth, prediction)

    @given(st.integers(2, 8), st.integers(0, 2**32 - 1), st.floats(0, 1))
    def test_equals_torchmetrics_with_void_and_absent_classes(self, classes: int, seed: int, void: float) -> None:
        rng = np.random.default_rng(seed)
        present = rng.permutation(classes)[: rng.integers(1, classes + 1)]
        truth = np.where(rng.random((2, 9, 7)) < void, VOID, rng.choice(present, (2, 9, 7))).astype(np.uint8)
        prediction = rng.integers(0, classes, truth.shape, dtype=np.uint8)
        matrix = ConfusionMatrix(classes)
        matrix.update(truth, prediction)
        tensors = torch.from_numpy(prediction).long(), torch.from_numpy(truth).long()
        oracle = torchmetrics(num_classes=classes, ignore_index=VOID)
        oracle.update(*tensors)
        assert matrix.counts.tolist() == oracle.compute().tolist()
        rows = matrix.normalised()
        occurs = matrix.counts.sum(axis=1) > 0
        assert np.isnan(rows[~occurs]).all()
        if occurs.any():
            shares = torchmetrics(num_classes=classes, ignore_index=VOID, normalize="true")
            shares.update(*tensors)
            with warnings.catch_warnings():  # of absent classes, whose rows it makes 0
                warnings.simplefilter("ignore")
                expected = shares.compute().numpy()
            assert rows[occurs] == pytest.approx(expected[occurs], abs=1e-6)

    def test_equals_torchmetrics(self) -> None:
        rng = np.random.default_rng(0)
        oracle = torchmetrics(num_classes=21, ignore_index=VOID)
        matrix = ConfusionMatrix(21)
        for _ in range(3):
            truth = rng.integers(0, 21, (2, 57, 33), dtype=np.uint8)
            truth[rng.random(truth.shape) < 0.2] = VOID
            prediction = rng.integers(0, 21, truth.shape, dtype=np.uint8)
            matrix.update(truth, prediction)
            oracle.update(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long())
        assert matrix.counts.tolist() == oracle.compute().tolist()

    def test_more_pixels_than_one_block(self) -> None:
        truth = np.zeros((1025, 1027), np.uint8)
        truth[1024, 5:] = 1
        matrix = ConfusionMatrix(2)
        matrix.update(truth, 1 - truth)
        assert matrix.counts.tolist() == [[0, 1024 * 1027 + 5], [1022, 0]]

    def test_views_count_as_their_copies(self) -> None:
        rng = np.random.default_rng(1)
        truth, prediction = rng.integers(0, 4, (2, 14, 18), dtype=np.uint8)
        view, copy = ConfusionMatrix(4), ConfusionMatrix(4)
        view.update(truth[::2, ::-3], prediction.T[::-3, ::2].T)
        copy.update(truth[::2, ::-3].copy(), prediction.T[::-3, ::2].T.copy())
        assert view.counts.tolist() == copy.counts.tolist()

    def test_counts_beyond_32_bits_stay_exact(self) -> None:
        much = 2**31 + 1
        total = sum((ConfusionMatrix.from_counts(np.array([[much, 1], [0, 3]])) for _ in range(4)), ConfusionMatrix(2))
        total.update(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
        assert total.counts.tolist() == [[4 * much + 1, 4], [0, 12]]
        assert total.scores().pixels == (4 * much + 5, 12)

    @given(st.lists(truth_and_prediction((3,)), max_size=3))
    def test_merged_equals_one_pass(self, cases: list[Case]) -> None:
        whole, merged = ConfusionMatrix(3), ConfusionMatrix(3)
        for _, truth, prediction in cases:
            part = ConfusionMatrix(3)
            part.update(truth, prediction)
            before = part.counts.tolist()
            merged = merged + part
            whole.update(truth, prediction)
            assert part.counts.tolist() == before
        assert merged.counts.tolist() == whole.counts.tolist()

    def test_counts_are_read_only_and_from_counts_copies(self) -> None:
        given_counts = np.array([[1, 2], [3, 4]])
        matrix = ConfusionMatrix.from_counts(given_counts)
        given_counts[0, 0] = 99
        assert matrix.counts.tolist() == [[1, 2], [3, 4]]
        with pytest.raises(ValueError, match="read-only"):
            matrix.counts[0, 0] = 5


class TestNormalised:
    def test_rows_by_hand(self) -> None:
        rows = ConfusionMatrix.from_counts(np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]])).normalised()
        assert rows.dtype == np.float64
        assert rows[[0, 2]].tolist() == [[0.75, 0.25, 0.0], [0.25, 0.25, 0.5]]
        assert np.isnan(rows[1]).all(), "no true pixel"

    def test_counts_replaced(self) -> None:
        matrix = ConfusionMatrix.from_counts(np.array([[1, 2], [3, 4]]))
        assert matrix.with_counts(2 * matrix.counts).counts.tolist() == [[2, 4], [6, 8]]
        assert matrix.counts.tolist() == [[1, 2], [3, 4]]


class TestScores:
    def test_from_sums_where_some_predictions_are_void(self) -> None:
        # True 0: 6 pixels, 4 right, 2 void. True 1: 4 pixels, 3 right, 1 taken for 0.
        scores = scores_of(np.array([4, 3]), np.array([6, 4]), np.array([5, 3]))
        assert scores.iu == (4 / 7, 3 / 4)
        assert scores.accuracy == (4 / 6, 3 / 4)
        assert scores.pixel_accuracy == 0.7

    def test_two_classes_by_hand(self) -> None:
        scores = scored([[6, 2], [1, 3]])
        assert scores.pixel_accuracy == 9 / 12
        assert scores.accuracy == (6 / 8, 3 / 4)
        assert scores.mean_accuracy == 0.75
        assert scores.iu == (6 / 9, 3 / 6)
        assert scores.mean_iu == pytest.approx(7 / 12, rel=1e-15)
        assert scores.fw_iu == pytest.approx((8 * 6 / 9 + 4 * 3 / 6) / 12, rel=1e-15)
        assert scores.pixels == (8, 4)

    def test_class_absent_from_both_counts_nowhere(self) -> None:
        scores = scored([[6, 0, 2], [0, 0, 0], [1, 0, 3]])
        assert scores.iu[0] == 6 / 9
        assert math.isnan(scores.iu[1])
        assert math.isnan(scores.accuracy[1])
        assert scores.mean_iu == pytest.approx((6 / 9 + 3 / 6) / 2, rel=1e-15)
        assert scored([[6, 0, 2], [0, 0, 0], [1, 0, 3]], "excluded").mean_iu == scores.mean_iu

    def test_class_only_predicted_has_iu_0_and_lowers_the_mean(self) -> None:
        counts = [[6, 1, 1], [0, 0, 0], [1, 0, 3]]
        scores = scored(counts)
        assert scores.iu == (6 / 9, 0.0, 3 / 5)
        assert math.isnan(scores.accuracy[1])
        assert scores.mean_iu == pytest.approx((6 / 9 + 0 + 3 / 5) / 3, rel=1e-15)
        assert scores.mean_accuracy == pytest.approx((6 / 8 + 3 / 4) / 2, rel=1e-15)
        assert scores.fw_iu == pytest.approx((8 * 6 / 9 + 4 * 3 / 5) / 12, rel=1e-15)

    def test_sift_flow_rule_leaves_predicted_only_classes_out_of_the_mean(self) -> None:
        counts = [[6, 1, 1], [0, 0, 0], [1, 0, 3]]
        usual, excluded = scored(counts), scored(counts, "excluded")
        assert excluded.mean_iu == pytest.approx((6 / 9 + 3 / 5) / 2, rel=1e-15)
        assert excluded.iu == usual.iu
        assert (excluded.pixel_accuracy, excluded.mean_accuracy, excluded.fw_iu) == (
            usual.pixel_accuracy,
            usual.mean_accuracy,
            usual.fw_iu,
        )

    def test_class_never_found_is_0_in_both_rules(self) -> None:
        counts = [[6, 0], [4, 0]]
        for absent in ("predicted", "excluded"):
            scores = scored(counts, absent)
            assert scores.iu == (0.6, 0.0)
            assert scores.accuracy == (1.0, 0.0)
            assert scores.mean_iu == 0.3

    def test_nothing_counted_is_nan(self) -> None:
        scores = ConfusionMatrix(2).scores()
        numbers = (scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iu, scores.fw_iu, *scores.iu)
        assert all(math.isnan(number) for number in numbers)
        assert scores.pixels == (0, 0)

    @given(
        hnp.arrays(np.int64, st.integers(1, 5).map(lambda k: (k, k)), elements=st.sampled_from([0, 0, 1, 7, 2**33])),
        st.sampled_from(["predicted", "excluded"]),
    )
    def test_equals_the_formulas_in_plain_python(self, counts: np.ndarray, absent: str) -> None:
        scores = ConfusionMatrix.from_counts(counts).scores(absent)
        numbers = (scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iu, scores.fw_iu)
        assert numbers == pytest.approx(scores_by_loop(counts.tolist(), absent), rel=1e-12, nan_ok=True)

    def test_json_is_strict_and_complete(self) -> None:
        value = scored([[1, 0, 1], [0, 0, 0], [0, 0, 2]]).to_json()
        assert json.loads(json.dumps(value, allow_nan=False)) == {
            "pixel_accuracy": 0.75,
            "mean_accuracy": 0.75,
            "mean_iu": pytest.approx((1 / 2 + 2 / 3) / 2),
            "fw_iu": pytest.approx((2 * 1 / 2 + 2 * 2 / 3) / 4),
            "iu": [0.5, None, pytest.approx(2 / 3)],
            "accuracy": [0.5, None, 1.0],
            "pixels": [2, 0, 2],
        }
        assert list(value) == list(Scores.__dataclass_fields__)


class TestRefusals:
    @pytest.mark.parametrize("classes", [0, -1, 256])
    def test_number_of_classes(self, classes: int) -> None:
        with pytest.raises(OptionError, match=f"{classes} classes; expected 1 to 255"):
            ConfusionMatrix(classes)

    def test_shapes_that_differ(self) -> None:
        with pytest.raises(DataError, match=r"truth is \(4, 5\) and prediction \(5, 4\); expected one shape"):
            ConfusionMatrix(2).update(np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8))

    @pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 2), bool), np.zeros(4, np.uint8)])
    @pytest.mark.parametrize("place", ["truth", "prediction"])
    def test_not_a_label_map(self, bad: np.ndarray, place: str) -> None:
        arrays = {"truth": np.zeros((2, 2), np.uint8), "prediction": np.zeros((2, 2), np.uint8), place: bad}
        with pytest.raises(DataError, match=rf"{place} is {bad.dtype} of shape .*expected \(H, W\) or \(N, H, W\)"):
            ConfusionMatrix(2).update(**arrays)

    @pytest.mark.parametrize("value", [3, 255, 300, -1])
    def test_prediction_of_no_class_is_named_and_nothing_counted(self, value: int) -> None:
        matrix = ConfusionMatrix(3)
        with pytest.raises(DataError, match=f"prediction holds {value} where the truth counts; expected 0 to 2"):
            matrix.update(np.array([[255, 1, 2]]), np.array([[99, 1, value]]))
        assert not matrix.counts.any()

    @pytest.mark.parametrize("counts", [np.zeros((2, 3), int), np.zeros((2, 2)), np.zeros(4, int)])
    def test_counts_of_another_form(self, counts: np.ndarray) -> None:
        with pytest.raises(DataError, match=r"counts are .* of shape .*; expected \(K, K\) integers"):
            ConfusionMatrix.from_counts(counts)

    def test_negative_counts(self) -> None:
        with pytest.raises(DataError, match="counts hold -7; expected pixel counts of 0 or more"):
            ConfusionMatrix.from_counts(np.array([[1, 2], [-7, 0]]))

    def test_matrices_of_different_size(self) -> None:
        with pytest.raises(OptionError, match="cannot add matrices of 2 and 3 classes"):
            ConfusionMatrix(2) + ConfusionMatrix(3)

    def test_unknown_rule(self) -> None:
        with pytest.raises(OptionError, match="unknown rule for absent classes 'exclude'; did you mean 'excluded'"):
            ConfusionMatrix(2).scores("exclude")
