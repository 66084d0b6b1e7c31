"""Masks as pictures, by hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID, LabelSet, voc_colour
from fullconv.report import pictures

LABELS = LabelSet(("background", "ring", "scratch"), ((9, 9, 9), (200, 0, 101), (0, 50, 255)))
HARD = LabelSet((r"a$\frac$c_{d}", "缺陷", "x" * 60, "line\nbreak", " "))


class TestColour:
    def test_every_value_by_hand(self) -> None:
        mask = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
        assert pictures.colour(mask, LABELS).tolist() == [
            [[9, 9, 9], [200, 0, 101], [0, 50, 255]],
            [[128, 128, 0], [224, 224, 192], [200, 0, 101]],
        ]

    @pytest.mark.parametrize("mask", [np.zeros((2, 2), np.int64), np.zeros((1, 2, 2), np.uint8)])
    def test_refuses_what_is_no_mask(self, mask: np.ndarray) -> None:
        with pytest.raises(DataError, match=r"mask is \w+ of shape \(.*\); expected \(H, W\) uint8 class numbers"):
            pictures.colour(mask, LABELS)


class TestOverlay:
    def test_half_and_half_by_hand(self) -> None:
        image = np.array([[[10, 20, 30], [11, 255, 0], [1, 2, 3], [4, 5, 6]]], np.uint8)
        mask = np.array([[1, 2, 0, 255]], np.uint8)
        # (10+200)/2, 20/2, (30+101)/2 = 65.5 up; 11/2 = 5.5 up, (255+50)/2 = 152.5 up, 255/2 = 127.5 up
        expected = [[[105, 10, 66], [6, 153, 128], [1, 2, 3], [4, 5, 6]]]
        assert pictures.overlay(image, mask, LABELS).tolist() == expected

    @given(
        hnp.arrays(np.uint8, (3, 5, 3)),
        hnp.arrays(np.uint8, (3, 5), elements=st.sampled_from([0, 1, 2, 254, 255])),
        st.integers(0, 256),
    )
    def test_equals_the_formula_pixel_by_pixel(self, image: np.ndarray, mask: np.ndarray, parts: int) -> None:
        opacity = parts / 256
        before = image.copy()
        result = pictures.overlay(image, mask, LABELS, opacity)
        assert result.dtype == np.uint8
        for y, x in np.ndindex(mask.shape):
            label = int(mask[y, x])
            over = LABELS.colours[label] if label < 3 else voc_colour(label)
            weight = 0.0 if label in (0, VOID) else opacity
            expected = [
                math.floor((1 - weight) * int(v) + weight * c + 0.5) for v, c in zip(image[y, x], over, strict=True)
            ]
            assert result[y, x].tolist() == expected
        assert (image == before).all()

    @pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1)])
    def test_grey_images(self, shape: tuple[int, ...]) -> None:
        grey = np.arange(12, dtype=np.uint8).reshape(shape)
        mask = np.ones((4, 3), np.uint8)
        expected = pictures.overlay(grey.reshape(4, 3, 1).repeat(3, axis=2), mask, LABELS)
        assert (pictures.overlay(grey, mask, LABELS) == expected).all()

    @pytest.mark.parametrize("opacity", [-0.1, 1.01, math.nan])
    def test_refuses_opacity(self, opacity: float) -> None:
        with pytest.raises(OptionError, match=f"opacity {opacity}; expected 0 .* to 1"):
            pictures.overlay(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), LABELS, opacity)

    @pytest.mark.parametrize(
        "image",
        [np.zeros((2, 2, 3)), np.zeros((3, 2, 3), np.uint8), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8)],
    )
    def test_refuses_images(self, image: np.ndarray) -> None:
        with pytest.raises(
            DataError, match=r"image is \w+ of shape .* for a mask of \(2, 2\); expected uint8 RGB or grey"
        ):
            pictures.overlay(image, np.zeros((2, 2), np.uint8), LABELS)


class TestPanels:
    def test_panels_by_hand(self) -> None:
        image = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], np.uint8)
        truth, prediction = np.array([[0, 1, 255]], np.uint8), np.array([[0, 2, 1]], np.uint8)
        picture = pictures.panels(image, truth, prediction, LABELS)
        f = 85  # floor(256 / 3)
        assert picture.shape == (f, 4 * 3 * f + 12, 3)
        rows = {
            0: [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
            1: [[9, 9, 9], [200, 0, 101], [224, 224, 192]],
            2: [[9, 9, 9], [0, 50, 255], [200, 0, 101]],
            3: [list(pictures.CORRECT), list(pictures.WRONG), list(pictures.UNSCORED)],
        }
        for panel, expected in rows.items():
            left = panel * (3 * f + 4)
            for column, value in enumerate(expected):
                cell = picture[:, left + column * f : left + (column + 1) * f]
                assert (cell == value).all()
            assert (picture[:, left + 3 * f : left + 3 * f + 4] == 255).all()

    @pytest.mark.parametrize(
        ("size", "factor"), [((56, 53), 4), ((129, 4), 1), ((128, 4), 2), ((360, 480), 1), ((1, 1), 256)]
    )
    def test_small_images_are_magnified(self, size: tuple[int, int], factor: int) -> None:
        mask = np.zeros(size, np.uint8)
        picture = pictures.panels(np.zeros((*size, 3), np.uint8), mask, mask, LABELS)
        assert picture.shape == (factor * size[0], 4 * factor * size[1] + 12, 3)

    def test_refuses_a_prediction_of_another_size(self) -> None:
        mask = np.zeros((2, 2), np.uint8)
        with pytest.raises(DataError, match=r"prediction is \(2, 3\) and truth \(2, 2\); expected one"):
            pictures.panels(np.zeros((2, 2, 3), np.uint8), mask, np.zeros((2, 3), np.uint8), LABELS)


def test_names_that_charts_cannot_draw_are_numbers() -> None:
    assert pictures.shown_names(HARD) == [r"a$\frac$c_{d}", "1", "x" * 23 + "…", "3", "4"]
