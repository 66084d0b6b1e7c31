"""Trimaps against hand computation and a loop over pixels with explicit distances."""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID
from fullconv.metrics import ConfusionMatrix, Trimap
from fullconv.metrics.boundary import filled

Map = np.ndarray
V = VOID
WIDTHS = (1, 2, 4)


def label_maps() -> st.SearchStrategy[tuple[Map, Map]]:
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
    return shapes.flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.uint8, shape, elements=st.sampled_from((0, 1, 2, V))),
            hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)),
        )
    )


def by_loop(truth: Map, prediction: Map, width: int) -> list[list[int]]:
    """One pixel after the other: those of a class nearer than the width to a boundary pixel of the filled truth."""
    height, length = truth.shape
    full = filled(truth, truth != V)
    boundary = [
        (y, x)
        for y, x in product(range(height), range(length))
        if any(
            0 <= a < height and 0 <= b < length and full[a, b] != full[y, x]
            for a, b in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        )
    ]
    counts = [[0] * 3 for _ in range(3)]
    for point in product(range(height), range(length)):
        if truth[point] != V and any(math.dist(point, other) < width for other in boundary):
            counts[truth[point]][prediction[point]] += 1
    return counts


def test_bands_by_hand() -> None:
    trimap = Trimap(2, WIDTHS)
    trimap.update(np.array([[0] * 6 + [1] * 6]), np.array([[0] * 4 + [1] * 6 + [0] * 2]))
    one, two, four = trimap.scores().values()
    assert (one.pixels, two.pixels, four.pixels) == ((1, 1), (2, 2), (4, 4))
    assert one.iu == (0.0, 0.5)
    assert two.iu == (0.0, 0.5)
    assert four.iu == (2 / 4, 4 / 6)


def test_void_never_counts_and_its_border_is_no_boundary() -> None:
    trimap = Trimap(2, (1, 3))
    trimap.update(np.array([[0, 0, V, V, 0, 0]]), np.array([[1, 1, 1, 1, 1, 1]]))
    assert not trimap.counts.any(), "one class alone has no boundary"
    trimap.update(np.array([[0, 0, V, V, 1, 1]]), np.array([[0, 0, 9, 9, 1, 1]]))
    one, three = trimap.scores().values()
    assert one.pixels == (0, 0), "the boundary runs in the middle of the void"
    assert three.pixels == (2, 2)
    assert math.isnan(one.mean_iu)


@given(label_maps())
def test_equals_the_loop_over_pixels(maps: tuple[Map, Map]) -> None:
    trimap = Trimap(3, WIDTHS)
    trimap.update(*maps)
    assert trimap.counts.tolist() == [by_loop(*maps, width) for width in WIDTHS]


@given(label_maps())
def test_a_band_wider_than_the_image_is_the_whole_image(maps: tuple[Map, Map]) -> None:
    trimap, matrix = Trimap(3, (100,)), ConfusionMatrix(3)
    trimap.update(*maps)
    matrix.update(*maps)
    one_label = len(np.unique(filled(maps[0], maps[0] != V))) == 1
    assert trimap.counts[0].tolist() == (matrix.counts * (not one_label)).tolist()


@given(st.lists(label_maps(), min_size=2, max_size=3))
def test_sums_are_one_pass(cases: list[tuple[Map, Map]]) -> None:
    whole, merged = Trimap(3, WIDTHS), Trimap(3, WIDTHS)
    for maps in cases:
        part = Trimap(3, WIDTHS)
        part.update(*maps)
        whole.update(*maps)
        merged = merged + part
    assert whole.counts.dtype == np.int64
    assert np.array_equal(whole.counts, merged.counts)


def test_a_batch_is_its_images_and_counts_are_a_copy() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 3, (2, 4, 9, 11))
    batch, single = Trimap(3, WIDTHS), Trimap(3, WIDTHS)
    batch.update(truth, prediction)
    for one, other in zip(truth, prediction, strict=True):
        single.update(one, other)
    assert np.array_equal(batch.counts, single.counts)
    batch.counts[:] = 0
    assert np.array_equal(batch.counts, single.counts)


def test_absent_classes_as_in_the_matrix_and_json() -> None:
    trimap = Trimap(3, (1,))
    trimap.update(np.array([[0, 1]]), np.array([[0, 2]]))
    assert trimap.scores()[1].mean_iu == pytest.approx(1 / 3)
    assert trimap.scores("excluded")[1].mean_iu == 0.5
    value = json.loads(json.dumps(trimap.to_json("excluded"), allow_nan=False))
    assert value["1"]["mean_iu"] == 0.5
    assert value["1"]["pixels"] == [1, 1, 0]


@pytest.mark.parametrize(("widths", "shown"), [((), "none"), ((0, 1), "0, 1"), ((2, 2), "2, 2"), ((4, 2), "4, 2")])
def test_widths_out_of_range(widths: tuple[int, ...], shown: str) -> None:
    with pytest.raises(OptionError, match=f"trimap widths {shown}; expected pixels from 1, ascending, such as 1,2,4,8"):
        Trimap(2, widths)


def test_refusals() -> None:
    with pytest.raises(OptionError, match="300 classes; expected 1 to 255"):
        Trimap(300)
    with pytest.raises(OptionError, match=r"of 2 classes, widths \(1,\), and 2 classes, widths \(1, 2\); expected"):
        Trimap(2, (1,)) + Trimap(2, (1, 2))
    trimap = Trimap(2, (1,))
    with pytest.raises(DataError, match="prediction holds 5 where the truth counts; expected 0 to 1"):
        trimap.update(np.array([[[0, 1]], [[0, 1]]]), np.array([[[0, 1]], [[5, 1]]]))
    assert not trimap.counts.any()
    with pytest.raises(DataError, match="counts hold -1; expected pixel counts of 0 or more"):
        trimap.with_counts(np.full((1, 2, 2), -1))
