"""Boundary F against hand computation and loops over pixels with explicit distances."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID
from fullconv.metrics import BoundaryF
from fullconv.metrics.boundary import Tolerance, borders, distance_to, filled

Map = np.ndarray
Point = tuple[int, int]
V = VOID


def test_scipy_is_imported_where_it_is_used() -> None:
    code = "import sys, fullconv.metrics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def label_maps(values: tuple[int, ...] = (0, 1, 2, V)) -> st.SearchStrategy[tuple[Map, Map]]:
    """Truth, with void and absent classes, and a prediction of the same small size."""
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
    return shapes.flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape, elements=st.sampled_from(values)),
            hnp.arrays(np.uint8, shape, elements=st.sampled_from(values[:3])),
        )
    )


def points(labels: Map) -> list[Point]:
    return list(product(range(labels.shape[0]), range(labels.shape[1])))


def border_by_loop(labels: Map, known: set[Point]) -> set[Point]:
    found = set()
    for y, x in known:
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if near in known and labels[near] != labels[y, x]:
                found.add((y, x))
    return found


def distance(point: Point, others: set[Point]) -> float:
    return min((math.dist(point, other) for other in others), default=math.inf)


def f_by_loop(truth: Map, prediction: Map, reach: float) -> dict[int, float]:
    """The definition in BoundaryF's docstring, one pixel after the other."""
    labelled = {point for point in points(truth) if truth[point] != V}
    known = set(labelled)
    full = filled(truth, truth != V)  # tested below by itself: among equally near labels any may be taken
    if labelled:
        shallow = {p for p in border_by_loop(full, set(points(truth))) if distance(p, labelled) <= reach}
        known |= {p for p in points(truth) if distance(p, shallow) <= reach}
    true_border, predicted_border = border_by_loop(full, known), border_by_loop(prediction, known)
    result = {}
    for label in range(3):
        own = {p for p in true_border if full[p] == label}
        found = {p for p in predicted_border if prediction[p] == label}
        if own or found:
            recall = sum(distance(p, found) <= reach for p in own) / len(own) if own else 0.0
            precision = sum(distance(p, own) <= reach for p in found) / len(found) if found else 0.0
            together = precision + recall
            result[label] = 2 * precision * recall / together if together else 0.0
    return result


class TestGround:
    @given(label_maps())
    def test_borders_equal_the_loop(self, maps: tuple[Map, Map]) -> None:
        truth, _ = maps
        known = {point for point in points(truth) if truth[point] != V}
        assert set(map(tuple, np.argwhere(borders(truth, truth != V)).tolist())) == border_by_loop(truth, known)
        everywhere = set(points(truth))
        assert set(map(tuple, np.argwhere(borders(truth)).tolist())) == border_by_loop(truth, everywhere)

    @given(label_maps())
    def test_distances_equal_the_loop(self, maps: tuple[Map, Map]) -> None:
        truth, _ = maps
        some = {point for point in points(truth) if truth[point] == 1}
        found = distance_to(truth == 1)
        for point in points(truth):
            assert found[point] == pytest.approx(distance(point, some), rel=1e-12)

    @given(label_maps())
    def test_void_takes_the_label_of_a_nearest_pixel(self, maps: tuple[Map, Map]) -> None:
        truth, _ = maps
        full = filled(truth, truth != V)
        labelled = {point for point in points(truth) if truth[point] != V}
        for point in points(truth):
            nearest = distance(point, labelled)
            choices = {int(truth[p]) for p in labelled if math.dist(point, p) == nearest} or {V}
            assert full[point] in choices


class TestF:
    def test_a_shifted_stripe_by_hand(self) -> None:
        truth, prediction = np.array([[0, 0, 0, 0, 1, 1, 1, 1]]), np.array([[0, 0, 1, 1, 1, 1, 1, 1]])
        # Borders of class 0: true column 3, predicted 1; of class 1: true 4, predicted 2.
        for tolerance, expected in ((1, 0.0), (1.9, 0.0), (2, 1.0)):
            boundary = BoundaryF(2, tolerance)
            boundary.update(truth, prediction)
            assert boundary.scores().f == (expected, expected)
            assert boundary.scores().mean == expected

    def test_precision_and_recall_by_hand(self) -> None:
        truth = np.zeros((1, 12), np.uint8)
        truth[0, 6:] = 1
        prediction = truth.copy()
        prediction[0, 1] = 1  # a speck far from the boundary
        boundary = BoundaryF(2, 1)
        boundary.update(truth, prediction)
        # Class 0: predicted columns 0, 2, 5, true 5: P = 1/3, R = 1. Class 1: predicted 1, 6, true 6: P = 1/2, R = 1.
        assert boundary.scores().f == pytest.approx((2 / 3 / (4 / 3), 1 / 1.5), abs=1e-9)

    def test_the_tolerance_is_euclidean_and_may_be_a_share_of_the_diagonal(self) -> None:
        truth = np.zeros((30, 40), np.uint8)  # diagonal 50
        truth[3, 4] = 1
        prediction = np.zeros((30, 40), np.uint8)
        prediction[6, 8] = 1  # 5 pixels away
        for tolerance, expected in ((4.9, 0), (5, 1), ("9.9%", 0), ("10%", 1), ("5", 1)):
            boundary = BoundaryF(2, tolerance)
            boundary.update(truth, prediction)
            assert boundary.scores().f[1] == expected, tolerance

    def test_mean_over_images_where_the_class_has_a_boundary(self) -> None:
        boundary = BoundaryF(3, 1)
        boundary.update(np.array([[0, 0, 0, 1, 1, 1]]), np.array([[0, 0, 0, 1, 1, 1]]))  # 0: 1, 1: 1
        boundary.update(np.array([[0, 0, 0, 0, 0, 0]]), np.array([[0, 0, 0, 0, 1, 1]]))  # 0: 0, 1: 0
        boundary.update(np.array([[0, 0, 0, 0, 0, 0]]), np.array([[0, 0, 0, 0, 0, 0]]))  # no boundary
        scores = boundary.scores()
        assert scores.f[:2] == (0.5, 0.5)
        assert math.isnan(scores.f[2])
        assert scores.images == (2, 2, 0)
        assert scores.mean == 0.5

    def test_a_batch_is_its_images(self) -> None:
        rng = np.random.default_rng(0)
        truth, prediction = rng.integers(0, 3, (2, 4, 9, 11))
        batch, single = BoundaryF(3, 1), BoundaryF(3, 1)
        batch.update(truth, prediction)
        for one, other in zip(truth, prediction, strict=True):
            single.update(one, other)
        assert np.array_equal(batch.counts, single.counts)
        batch.update(truth[:0], prediction[:0])
        assert np.array_equal(batch.counts, single.counts)

    def test_nothing_seen_is_nan(self) -> None:
        assert math.isnan(BoundaryF(2).scores().mean)

    @given(label_maps(), st.sampled_from([1, 1.5, 2, 3, "20%"]))
    def test_equals_the_loop_over_pixels(self, maps: tuple[Map, Map], tolerance: float | str) -> None:
        boundary = BoundaryF(3, tolerance)
        boundary.update(*maps)
        expected = f_by_loop(*maps, Tolerance.of(tolerance).pixels(maps[0].shape))
        scores = boundary.scores()
        for label in range(3):
            assert scores.images[label] == (label in expected)
            assert scores.f[label] == pytest.approx(expected.get(label, math.nan), abs=1e-9, nan_ok=True)

    @given(label_maps((0, 1, 2)), st.sampled_from([1, 2.5]))
    def test_truth_and_prediction_may_change_places(self, maps: tuple[Map, Map], tolerance: float) -> None:
        one, other = BoundaryF(3, tolerance), BoundaryF(3, tolerance)
        one.update(*maps)
        other.update(*maps[::-1])
        assert one.counts == pytest.approx(other.counts, abs=1)


class TestVoid:
    def test_a_border_with_void_is_no_boundary(self) -> None:
        truth = np.array([[0, 0, 0, V, V, V, V, V, V]])
        boundary = BoundaryF(2, 1)
        boundary.update(truth, np.array([[0, 0, 0, 1, 1, 1, 0, 1, 0]]))
        assert boundary.scores().images == (0, 0)

    def test_deep_void_between_two_classes_hides_their_boundary(self) -> None:
        truth = np.array([[0, 0, V, V, V, V, V, V, 1, 1]])
        boundary = BoundaryF(2, 2)
        boundary.update(truth, np.array([[0, 0, 0, 1, 0, 1, 0, 1, 1, 1]]))
        assert boundary.scores().images == (0, 0)

    def test_a_void_outline_has_its_boundary_in_the_middle(self) -> None:
        truth = np.array([[0, 0, 0, 0, V, V, V, V, 1, 1, 1, 1]])
        exact, late = (np.array([[0] * zeros + [1] * (12 - zeros)]) for zeros in (6, 9))
        for prediction, expected in ((exact, 1.0), (late, 0.0)):
            boundary = BoundaryF(2, 2)
            boundary.update(truth, prediction)
            assert boundary.scores().f == (expected, expected)

    def test_all_void_and_predictions_of_no_class_in_void(self) -> None:
        boundary = BoundaryF(2, 1)
        boundary.update(np.full((3, 4), V), np.full((3, 4), V))
        boundary.update(np.array([[0, V, 1, 1]]), np.array([[0, V, 1, 1]]))
        assert boundary.scores().images == (0, 0), "the one pixel between them is of no class"


class TestSums:
    @given(st.lists(label_maps(), min_size=2, max_size=4))
    def test_sums_in_any_order_are_equal(self, cases: list[tuple[Map, Map]]) -> None:
        parts = []
        whole = BoundaryF(3, 1)
        for maps in cases:
            whole.update(*maps)
            parts.append(BoundaryF(3, 1))
            parts[-1].update(*maps)
        forward, backward = sum(parts[1:], parts[0]), sum(parts[-2::-1], parts[-1])
        assert whole.counts.dtype == np.int64
        assert whole.counts.tolist() == forward.counts.tolist() == backward.counts.tolist()
        assert whole.with_counts(whole.counts).scores().images == whole.scores().images

    def test_json_is_strict(self) -> None:
        boundary = BoundaryF(3, "0.75%")
        boundary.update(np.array([[0, 1]]), np.array([[0, 1]]))
        assert json.loads(json.dumps(boundary.to_json(), allow_nan=False)) == {
            "tolerance": "0.75%",
            "mean_f": 1.0,
            "f": [1.0, 1.0, None],
            "images": [1, 1, 0],
        }
        assert BoundaryF(1, 1).to_json()["mean_f"] is None


class TestRefusals:
    @pytest.mark.parametrize("tolerance", [0, -1, "x", "", "%", "101%", "nan", math.inf])
    def test_tolerance(self, tolerance: float | str) -> None:
        message = rf"boundary tolerance '{tolerance}'; expected pixels above 0, such as 2, or a share .* such as 0.75%"
        with pytest.raises(OptionError, match=message):
            BoundaryF(2, tolerance)

    def test_number_of_classes(self) -> None:
        with pytest.raises(OptionError, match="0 classes; expected 1 to 255"):
            BoundaryF(0)

    def test_maps(self) -> None:
        boundary = BoundaryF(2, 1)
        with pytest.raises(DataError, match=r"truth is \(1, 2\) and prediction \(2, 1\); expected one shape"):
            boundary.update(np.zeros((1, 2), int), np.zeros((2, 1), int))
        with pytest.raises(DataError, match=r"prediction is float64 of shape \(1, 2\); expected"):
            boundary.update(np.zeros((1, 2), int), np.zeros((1, 2)))
        with pytest.raises(DataError, match="prediction holds 2 where the truth counts; expected 0 to 1"):
            boundary.update(np.array([[[0, 1]], [[V, 1]]]), np.array([[[0, 1]], [[7, 2]]]))
        assert not boundary.counts.any()

    def test_sums_of_others(self) -> None:
        with pytest.raises(OptionError, match=r"2 classes, tolerance 1, and 2 classes, tolerance 1%; expected the"):
            BoundaryF(2, 1) + BoundaryF(2, "1%")
        for counts in (np.zeros((2, 3), int), np.zeros((2, 2)), np.full((2, 2), -1)):
            with pytest.raises(DataError, match=r"boundary counts are .* of shape .*; expected \(2, 2\) integers"):
                BoundaryF(2).with_counts(counts)
