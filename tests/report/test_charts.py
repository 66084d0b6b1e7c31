"""Scores as charts, by what their axes hold."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.errors import OptionError
from fullconv.labels import LabelSet
from fullconv.report import charts

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
    original = charts.png_of

    def keep(figure: Any) -> bytes:
        figures.append(figure)
        return original(figure)

    monkeypatch.setattr(charts, "png_of", keep)

    def draw(chart: Callable[..., bytes], *args: Any) -> Any:
        assert decoded(chart(*args)).std() > 0
        return figures[-1]

    return draw


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


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
        loss, scores, rate = drawn(charts.curves_png, rows).axes
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
        assert charts.curves_png([*rows[:3], *gaps, *rows[3:]]) == charts.curves_png(rows)

    def test_says_what_was_not_measured(self, drawn: Callable[..., Any]) -> None:
        assert [texts(axes) for axes in drawn(charts.curves_png, []).axes] == [["not measured"]] * 3
        one = drawn(charts.curves_png, [{"step": 1, "loss": 2.0, "lr": 0.0}])
        assert [texts(axes) for axes in one.axes] == [[], ["not measured"], []]
        assert one.axes[0].lines[1].get_marker() == "o"

    @pytest.mark.parametrize(("last", "scale"), [(1.0, "log"), (30.0, "linear"), (0.0, "linear")])
    def test_wide_losses_get_a_logarithmic_axis(self, drawn: Callable[..., Any], last: float, scale: str) -> None:
        rows = [{"step": 0, "loss": 100.0}, {"step": 1, "loss": last}]
        assert drawn(charts.curves_png, rows).axes[0].get_yscale() == scale


class TestConfusion:
    def test_prints_percent_of_each_row(self, drawn: Callable[..., Any]) -> None:
        axes = drawn(charts.confusion_png, np.array([[997, 3, 0], [0, 0, 0], [1, 1, 2]]), LABELS).axes[0]
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
        figure = drawn(charts.confusion_png, np.eye(classes, dtype=np.int64), LabelSet.numbered(classes))
        assert len(figure.axes[0].texts) == (classes if classes <= 21 else 0)

    def test_hard_names_and_no_pixels(self) -> None:
        assert decoded(charts.confusion_png(np.zeros((5, 5), np.int64), HARD)).ndim == 3

    def test_refuses_another_number_of_classes(self) -> None:
        with pytest.raises(OptionError, match=r"counts are \(2, 2\) for 3 labels; expected \(3, 3\)"):
            charts.confusion_png(np.zeros((2, 2), np.int64), LABELS)


def test_equal_charts_are_equal_bytes() -> None:
    counts = np.array([[5, 1], [2, 9]])
    assert charts.confusion_png(counts, LabelSet.numbered(2)) == charts.confusion_png(counts, LabelSet.numbered(2))


def test_pyplot_stays_out_and_matplotlib_waits_for_the_first_chart() -> None:
    code = (
        "import sys; from fullconv.report.charts import curves_png; before = 'matplotlib' in sys.modules; "
        "curves_png([]); sys.exit(before or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
