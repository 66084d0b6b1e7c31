"""Masks and scores as pictures: pixels by hand computation, charts by what their axes hold."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID, LabelSet, voc_colour
from fullconv.metrics import ConfusionMatrix
from fullconv.report import pictures

LABELS = LabelSet(("background", "ring", "scratch"), ((9, 9, 9), (200, 0, 101), (0, 50, 255)))
HARD = LabelSet((r"a$\frac$c_{d}", "缺陷", "x" * 60, "line\nbreak", " "))


def decoded(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Draws a chart and gives its Figure instead of its bytes."""
    figures: list[Any] = []
    original = pictures._png

    def keep(figure: Any) -> bytes:
        figures.append(figure)
        return original(figure)

    monkeypatch.setattr(pictures, "_png", keep)

    def draw(chart: Callable[..., bytes], *args: Any) -> Any:
        assert decoded(chart(*args)).std() > 0
        return figures[-1]

    return draw


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


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


class TestTriptych:
    def test_panels_by_hand(self) -> None:
        image = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]], np.uint8)
        truth, prediction = np.array([[0, 1, 255]], np.uint8), np.array([[0, 2, 1]], np.uint8)
        picture = pictures.triptych(image, truth, prediction, LABELS)
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
        picture = pictures.triptych(np.zeros((*size, 3), np.uint8), mask, mask, LABELS)
        assert picture.shape == (factor * size[0], 4 * factor * size[1] + 12, 3)

    def test_refuses_a_prediction_of_another_size(self) -> None:
        mask = np.zeros((2, 2), np.uint8)
        with pytest.raises(DataError, match=r"prediction is \(2, 3\) and truth \(2, 2\); expected one"):
            pictures.triptych(np.zeros((2, 2, 3), np.uint8), mask, np.zeros((2, 3), np.uint8), LABELS)


class TestLegend:
    def test_swatches_hold_the_exact_colours(self) -> None:
        labels = LabelSet.numbered(14)
        picture = pictures.legend(labels)
        width = picture.shape[1] // 2
        for place, rgb in enumerate([*labels.colours, voc_colour(VOID)]):
            x, y = 8 + width * (place // 12), 8 + 24 * (place % 12)
            assert (picture[y : y + 16, x : x + 32] == rgb).all()
            assert (picture[y : y + 16, x - 4 : x] == 255).all()
            assert (picture[y + 16 : y + 20, x : x + 32] == 255).all()
            assert picture[y : y + 16, x + 36 : x + 60].min() < 128, "the name is missing"

    def test_names_that_charts_cannot_draw_are_numbers(self) -> None:
        assert pictures.legend(HARD).ndim == 3  # warnings are errors: a missing glyph or bad formula would show
        assert pictures._shown(HARD) == [r"a$\frac$c_{d}", "1", "x" * 23 + "…", "3", "4"]


class TestCurves:
    def rows(self, count: int) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        loss = rng.random(count) + 1
        return [
            {"step": 10 * i, "loss": loss[i], "lr": 0.1 / (i + 1), "val_mean_iu": 0.5 if i % 50 == 49 else None}
            for i in range(count)
        ]

    def test_lines_hold_the_measured_values(self, drawn: Callable[..., Any]) -> None:
        rows = self.rows(400)
        loss, scores, rate = drawn(pictures.curves_png, rows).axes
        assert loss.lines[0].get_xydata().tolist() == [[row["step"], row["loss"]] for row in rows]
        assert scores.lines[0].get_xydata().tolist() == [[r["step"], 0.5] for r in rows if r["val_mean_iu"]]
        assert [line.get_label() for line in scores.lines] == ["mean IU"]
        assert rate.lines[0].get_xydata().tolist() == [[row["step"], row["lr"]] for row in rows]
        values = [row["loss"] for row in rows]
        windows = [values[max(0, i - 5) : i + 6] for i in range(400)]
        assert loss.lines[1].get_ydata() == pytest.approx([sum(window) / len(window) for window in windows], rel=1e-12)

    def test_what_was_not_measured_changes_nothing(self) -> None:
        rows = self.rows(60)
        gaps = [{"step": 5, "loss": None}, {"step": 6}, {"step": 7, "loss": math.nan, "lr": math.inf}]
        assert pictures.curves_png([*rows[:3], *gaps, *rows[3:]]) == pictures.curves_png(rows)

    def test_says_what_was_not_measured(self, drawn: Callable[..., Any]) -> None:
        assert [texts(axes) for axes in drawn(pictures.curves_png, []).axes] == [["not measured"]] * 3
        one = drawn(pictures.curves_png, [{"step": 1, "loss": 2.0, "lr": 0.0}])
        assert [texts(axes) for axes in one.axes] == [[], ["not measured"], []]
        assert one.axes[0].lines[1].get_marker() == "o"

    @pytest.mark.parametrize(("last", "scale"), [(1.0, "log"), (30.0, "linear"), (0.0, "linear")])
    def test_wide_losses_get_a_logarithmic_axis(self, drawn: Callable[..., Any], last: float, scale: str) -> None:
        rows = [{"step": 0, "loss": 100.0}, {"step": 1, "loss": last}]
        assert drawn(pictures.curves_png, rows).axes[0].get_yscale() == scale


class TestConfusion:
    def test_prints_percent_of_each_row(self, drawn: Callable[..., Any]) -> None:
        axes = drawn(pictures.confusion_png, np.array([[997, 3, 0], [0, 0, 0], [1, 1, 2]]), LABELS).axes[0]
        assert {text.get_position(): text.get_text() for text in axes.texts} == {
            (0, 0): "100",
            (0, 2): "25",
            (1, 2): "25",
            (2, 2): "50",
        }
        shown = axes.images[0].get_array()
        assert shown.mask.tolist() == [[False] * 3, [True] * 3, [False] * 3]
        assert shown[0].tolist() == [0.997, 0.003, 0]
        assert [label.get_text() for label in axes.get_yticklabels()] == list(LABELS.names)

    @pytest.mark.parametrize("classes", [1, 2, 21, 22, 60])
    def test_any_number_of_classes(self, drawn: Callable[..., Any], classes: int) -> None:
        figure = drawn(pictures.confusion_png, np.eye(classes, dtype=np.int64), LabelSet.numbered(classes))
        assert len(figure.axes[0].texts) == (classes if classes <= 21 else 0)

    def test_hard_names_and_no_pixels(self) -> None:
        assert decoded(pictures.confusion_png(np.zeros((5, 5), np.int64), HARD)).ndim == 3

    def test_refuses_another_number_of_classes(self) -> None:
        with pytest.raises(OptionError, match=r"counts are \(2, 2\) for 3 labels; expected \(3, 3\)"):
            pictures.confusion_png(np.zeros((2, 2), np.int64), LABELS)


class TestClassBars:
    def test_bars_end_at_iu_and_accuracy(self, drawn: Callable[..., Any]) -> None:
        scores = ConfusionMatrix.from_counts(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])).scores()
        axes = drawn(pictures.class_bars_png, scores, LABELS).axes[0]
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == pytest.approx([6 / 8, 3 / 4, 0, 6 / 9, 3 / 6, 0])
        assert axes.patches[4].get_facecolor() == pytest.approx((200 / 255, 0, 101 / 255, 1))
        assert texts(axes) == [
            "mean IU 58.3 %",
            "IU",
            "66.7",
            "50.0",
            "\N{EN DASH}",
            "accuracy",
            "75.0",
            "75.0",
            "\N{EN DASH}",
        ]

    def test_hard_names_and_no_pixels(self) -> None:
        assert decoded(pictures.class_bars_png(ConfusionMatrix(5).scores(), HARD)).ndim == 3

    def test_refuses_another_number_of_classes(self) -> None:
        with pytest.raises(OptionError, match="scores of 2 classes for 3 labels; score with the same labels"):
            pictures.class_bars_png(ConfusionMatrix(2).scores(), LABELS)


def test_equal_charts_are_equal_bytes() -> None:
    counts = np.array([[5, 1], [2, 9]])
    assert pictures.confusion_png(counts, LabelSet.numbered(2)) == pictures.confusion_png(counts, LabelSet.numbered(2))


def test_pyplot_stays_out_and_matplotlib_waits_for_the_first_chart() -> None:
    code = (
        "import sys; from fullconv.report import curves_png; before = 'matplotlib' in sys.modules; curves_png([]); "
        "sys.exit(before or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
