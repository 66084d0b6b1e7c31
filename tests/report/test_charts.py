"""Scores as charts, by what their axes hold."""

from __future__ import annotations

import io
import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
            {
                "step": 10 * i,
                "loss": loss[i],
                "lr": 0.1 / (i + 1),
                "images_per_s": 30.0 + i,
                "val_mean_iu": 0.5 if i % 50 == 49 else None,
            }
            for i in range(count)
        ]

    def test_lines_hold_the_measured_values(self, drawn: Callable[..., Any]) -> None:
        rows = self.rows(400)
        loss, scores, rate, speed = drawn(charts.curves_png, rows).axes
        assert loss.lines[0].get_xydata().tolist() == [[row["step"], row["loss"]] for row in rows]
        assert scores.lines[0].get_xydata().tolist() == [[r["step"], 0.5] for r in rows if r["val_mean_iu"]]
        assert [line.get_label() for line in scores.lines] == ["mean IU"]
        assert rate.lines[0].get_xydata().tolist() == [[row["step"], row["lr"]] for row in rows]
        assert speed.lines[0].get_xydata().tolist() == [[row["step"], row["images_per_s"]] for row in rows]
        assert [axes.get_title("left") for axes in (rate, speed)] == ["Learning rate", "Images per second"]
        values = [row["loss"] for row in rows]
        windows = [values[max(0, i - 5) : i + 6] for i in range(400)]
        assert loss.lines[1].get_ydata() == pytest.approx([sum(window) / len(window) for window in windows], rel=1e-12)

    def test_what_was_not_measured_changes_nothing(self) -> None:
        rows = self.rows(60)
        gaps = [{"step": 5, "loss": None}, {"step": 6}, {"step": 7, "loss": math.nan, "lr": math.inf}]
        assert charts.curves_png([*rows[:3], *gaps, *rows[3:]]) == charts.curves_png(rows)

    def test_says_what_was_not_measured(self, drawn: Callable[..., Any]) -> None:
        assert [texts(axes) for axes in drawn(charts.curves_png, []).axes] == [["not measured"]] * 4
        one = drawn(charts.curves_png, [{"step": 1, "loss": 2.0, "lr": 0.0}])
        assert [texts(axes) for axes in one.axes] == [[], ["not measured"], [], ["not measured"]]
        assert one.axes[0].lines[1].get_marker() == "o"

    @pytest.mark.parametrize(("last", "scale"), [(1.0, "log"), (30.0, "linear"), (0.0, "linear")])
    def test_wide_losses_get_a_logarithmic_axis(self, drawn: Callable[..., Any], last: float, scale: str) -> None:
        rows = [{"step": 0, "loss": 100.0}, {"step": 1, "loss": last}]
        assert drawn(charts.curves_png, rows).axes[0].get_yscale() == scale

    def test_a_sum_and_the_loss_per_pixel_have_a_panel_each(self, drawn: Callable[..., Any]) -> None:
        rows = [{"step": i, "loss": 1e5 * (3 - i), "loss_per_pixel": 3.0 - i} for i in range(3)]
        panels = {axes.get_title("left"): axes for axes in drawn(charts.curves_png, rows).axes}
        assert [line.get_ydata().tolist() for line in panels["Loss"].lines] == [[3e5, 2e5, 1e5]] * 2
        assert panels["Loss per pixel"].lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]

    def test_a_mean_is_the_loss_per_pixel_and_drawn_once(self, drawn: Callable[..., Any]) -> None:
        rows = [{"step": i, "loss": 3.0 - i, "loss_per_pixel": 3.0 - i} for i in range(3)]
        titles = [axes.get_title("left") for axes in drawn(charts.curves_png, rows).axes]
        assert titles == ["Loss", "Validation", "Learning rate", "Images per second"]

    def test_terms_and_tasks_are_lines_beside_the_loss(self, drawn: Callable[..., Any]) -> None:
        rows = [
            {"step": i, "loss": 3.0, "loss_focal": 1.0 + i, "loss_a$b_dice": 0.5, "loss_never": None} for i in range(3)
        ]
        loss = drawn(charts.curves_png, rows).axes[0]
        assert {line.get_label(): list(line.get_ydata()) for line in loss.lines[1:]} == {
            "all": [3.0] * 3,
            "focal": [1.0, 2.0, 3.0],
            "a$b_dice": [0.5] * 3,
        }
        assert [text.get_text() for text in loss.get_legend().get_texts()] == ["all", "focal", "a$b_dice"]
        assert not any(text.get_parse_math() for text in loss.get_legend().get_texts())


class TestClassIU:
    def rows(self, classes: int, count: int = 5) -> list[dict[str, float | None]]:
        """Class k goes up to (k + 1) / (classes + 1)."""
        return [
            {"step": 10.0 * i, **{f"class {k}": (k + 1) / (classes + 1) * i / count for k in range(classes)}}
            for i in range(1, count + 1)
        ]

    @pytest.mark.parametrize("classes", [1, 2, 12])
    def test_few_classes_are_lines_with_names_at_their_ends(self, drawn: Callable[..., Any], classes: int) -> None:
        rows = self.rows(classes)
        axes = drawn(charts.class_iu_png, rows).axes[0]
        names = [f"class {k}" for k in reversed(range(classes))]
        assert [line.get_xydata().tolist() for line in axes.lines[::2]] == [
            [[row["step"], row[name]] for row in rows] for name in names
        ]
        keys = axes.lines[1::2]  # beside the names, each in the style of its curve
        assert [key.get_linestyle() for key in keys] == [line.get_linestyle() for line in axes.lines[::2]]
        assert [set(key.get_ydata()) for key in keys] == [{text.xy[1]} for text in axes.texts]
        assert [text.split("  ")[0] for text in texts(axes)] == names
        assert texts(axes)[0].split("  ")[1] == f"{100 * classes / (classes + 1):.1f}"
        assert [text.get_color() for text in axes.texts] == [line.get_color() for line in axes.lines[::2]]

    @pytest.mark.parametrize("classes", [13, 150])
    def test_many_classes_are_a_heat_map_with_the_hard_ones_below(
        self, drawn: Callable[..., Any], classes: int
    ) -> None:
        rows = self.rows(classes)
        axes = drawn(charts.class_iu_png, rows).axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            f"class {k}" for k in reversed(range(classes))
        ]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "30", "40", "50"]
        assert axes.images[0].get_array().tolist() == [
            [row[f"class {k}"] for row in rows] for k in reversed(range(classes))
        ]

    def test_what_has_no_iu_is_grey_or_no_line(self, drawn: Callable[..., Any]) -> None:
        many = self.rows(13)
        many[0]["class 12"], many[1]["class 12"] = None, math.nan
        for row in many:
            row["class 5"] = None
        image = drawn(charts.class_iu_png, many).axes[0].images[0].get_array()
        assert image.mask.sum() == 2 + 5
        assert image.mask[0].tolist() == [True, True, False, False, False]
        assert image.mask[-1].all()
        few = [{"step": 1.0, "a": 0.5, "b": None}]
        assert texts(drawn(charts.class_iu_png, few).axes[0]) == ["a  50.0"]
        assert texts(drawn(charts.class_iu_png, [{"step": 1.0, "b": None}]).axes[0]) == ["not measured"]

    def test_nothing_measured_of_many_classes(self) -> None:
        assert decoded(charts.class_iu_png([{"step": 1.0, **dict.fromkeys(map(str, range(20)))}])).ndim == 3

    def test_hard_names(self) -> None:
        assert decoded(charts.class_iu_png([{"step": 1.0, **dict.fromkeys(HARD.names, 0.5)}])).ndim == 3
        alike = {f"{'x' * 40}{k}": 0.5 for k in range(300)}
        assert decoded(charts.class_iu_png([{"step": 1.0, **alike}])).ndim == 3

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def test_labels_stay_apart_and_inside(self, values: list[float]) -> None:
        heights = charts._spread(sorted(values, reverse=True))
        assert all(above - below >= 0.07 - 1e-9 for above, below in itertools.pairwise(heights))
        assert min(heights) >= 0
        assert max(heights) <= 1


def test_shortened_names_stay_different() -> None:
    names = [f"{'x' * 40}{k}" for k in range(300)]
    assert len(set(charts.shown(names))) == 300
    assert charts.shown(["road", "缺陷"]) == ["road", "1"]


def test_lines_of_32_runs_differ() -> None:
    styles = [charts.line_style(place) for place in range(32)]
    assert len({tuple(style.items()) for style in styles}) == 32


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
