"""The page of several runs, read back, and its chart, by what the axes hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fullconv.report import compare as module
from fullconv.report.charts import INKS
from fullconv.report.compare import SCORES, ComparedRun, Comparison, SeedGroup, comparison_png, short, write_comparison

EVIL = "<script>alert('\"&1')</script>"
DASH = "\N{EN DASH}"


class Page(HTMLParser):
    """Tags, attributes and the rows of the tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.bold: list[str] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if data.strip() and self.tags[-1][0] != "style":
            self.texts.append(" ".join(data.split()))
            if self.in_cell:
                self.rows[-1][-1] += self.texts[-1]
            if "best" in (self.tags[-1][1].get("class") or "").split():
                self.bold.append(self.texts[-1])

    def row(self, head: str) -> list[str]:
        (found,) = [row[1:] for row in self.rows if row[0] == head]
        return found


def one(name: str, mean_iu: float | None = 0.5, **changes: Any) -> ComparedRun:
    values: dict[str, Any] = {
        "name": name,
        "path": f"runs/{name}",
        "options": {"lr": 0.1, "crop": [3, 4], "seed": 0},
        "scores": {} if mean_iu is None else {**dict.fromkeys(SCORES, 0.25), "mean_iu": mean_iu},
        "iu": {} if mean_iu is None else {"road": mean_iu, "car": None},
        "rows": [
            {"step": 10, "seconds": 60.0, "loss": 3e5, "loss_per_pixel": 3.0},
            {"step": 10, "seconds": 66.0, "val_mean_iu": 0.25},
            {"step": 20, "seconds": 120.0, "loss": 2e5, "loss_per_pixel": 2.0, "val_mean_iu": mean_iu},
        ],
        "seconds": 5400.0,
        "steps": 12345,
        "images_per_s": 1234.56,
    }
    return ComparedRun(**(values | changes))


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Page]:
    def make(runs: Sequence[ComparedRun], **more: Any) -> Page:
        write_comparison(tmp_path / "new" / "c.html", Comparison(tuple(runs), **more), f"fullconv compare {EVIL}")
        return Page((tmp_path / "new" / "c.html").read_text("utf-8"))

    return make


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[ComparedRun]], Any]:
    """Draws the chart and gives its Figure."""
    figures: list[Any] = []
    original = module.png_of

    def keep(figure: Any) -> bytes:
        figures.append(figure)
        return original(figure)

    monkeypatch.setattr(module, "png_of", keep)

    def draw(runs: Sequence[ComparedRun]) -> Any:
        assert comparison_png(runs).startswith(b"\x89PNG")
        return figures[-1]

    return draw


class TestPage:
    def test_numbers_stand_in_their_rows(self, page: Callable[..., Page]) -> None:
        shown = page(
            [one("a", 0.5), one("b", 0.625), one("c", None, rows=(), seconds=None, steps=None, images_per_s=None)]
        )
        assert shown.row("aruns/a") == ["50.0", "25.0", "25.0", "25.0", "90.0", "12,345", "1,234.6"]
        assert shown.row("bruns/b") == ["62.5", "25.0", "25.0", "25.0", "90.0", "12,345", "1,234.6"]
        assert shown.row("cruns/c") == [DASH] * 7
        assert shown.row("road") == ["50.0", "62.5", DASH]
        assert shown.row("car") == [DASH] * 3
        assert shown.bold == ["62.5", "62.5"], "where all are equal none is the best"

    def test_nothing_is_the_best_where_runs_do_not_compare(self, page: Callable[..., Page]) -> None:
        shown = page([one("a", 0.5), one("b", 0.625)], comparable=False, notes=("data differs",))
        assert shown.bold == []
        assert "Of each run's best model on val, in percent." in shown.texts
        assert "data differs" in shown.texts

    def test_options_that_differ_and_folded_those_that_do_not(self, page: Callable[..., Page]) -> None:
        shown = page([one("a"), one("b", options={"lr": 0.2, "crop": [3, 4], "flag": True})])
        assert shown.row("lr") == ["0.1", "0.2"]
        assert shown.row("seed") == ["0", DASH]
        assert shown.row("flag") == [DASH, "yes"]
        assert shown.row("crop") == ["3, 4"]
        place = [tag for tag, _ in shown.tags].index("details")
        assert sum(tag == "tr" for tag, _ in shown.tags[place:]) == 1

    def test_means_over_seeds(self, page: Callable[..., Page]) -> None:
        group = SeedGroup(("a", "b"), (0, 7), {"mean_iu": 0.5, "fw_iu": 0.25}, {"mean_iu": 0.0125, "fw_iu": 0.0})
        shown = page([one("a"), one("b")], groups=(group,))
        assert shown.row("a, b") == ["0, 7", "50.0 ± 1.2", f"{DASH} ± {DASH}", f"{DASH} ± {DASH}", "25.0 ± 0.0"]

    def test_one_run_alone(self, page: Callable[..., Page]) -> None:
        shown = page([one("a")])
        assert shown.bold == []
        for text in ("1 run side by side", "Options"):
            assert text in shown.texts
        for text in ("What differs", "Over seeds"):
            assert text not in shown.texts

    def test_text_stays_text_and_nothing_comes_from_outside(self, page: Callable[..., Page], tmp_path: Path) -> None:
        run = one(
            f"name {EVIL}", path=f"path {EVIL}", options={f"option {EVIL}": f"value {EVIL}"}, iu={f"class {EVIL}": 0.5}
        )
        other = one("b", options={f"equal {EVIL}": 1})
        group = SeedGroup((f"group {EVIL}", "b"), (f"seed {EVIL}", 1), {}, {})
        shown = page([run, other], groups=(group,), notes=(f"note {EVIL}",))
        joined = "".join(shown.texts)
        for kind in ("name", "path", "option", "value", "class", "group", "seed", "note", "equal", "compare"):
            assert f"{kind} {EVIL}" in joined, kind
        assert {tag for tag, _ in shown.tags}.isdisjoint({"script", "link", "iframe", "base", "form"})
        policy = [a["content"] for _, a in shown.tags if a.get("http-equiv") == "Content-Security-Policy"]
        assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
        for _, attributes in shown.tags:
            assert (attributes.get("src") or "data:image/png").startswith("data:image/png")
            assert not {"href", "srcset"} & set(attributes)
        assert "://" not in (tmp_path / "new" / "c.html").read_text("utf-8")

    def test_long_values_are_cut(self) -> None:
        assert short(["x" * 150, "y" * 150]) == "x" * 150 + ", " + "y" * 47 + "…"
        assert short("x" * 200) == "x" * 200

    def test_a_page_without_curves_has_no_picture(self, page: Callable[..., Page]) -> None:
        assert not [tag for tag, _ in page([one("a", rows=())]).tags if tag == "img"]
        assert len([tag for tag, _ in page([one("a")]).tags if tag == "img"]) == 1


class TestChart:
    def test_lines_hold_the_measured_values(self, drawn: Callable[..., Any]) -> None:
        minutes, steps, loss = drawn([one("a", 0.5), one("b", 0.75)]).axes
        assert [line.get_xydata().tolist() for line in minutes.lines] == [
            [[1.1, 0.25], [2.0, iu]] for iu in (0.5, 0.75)
        ]
        assert [line.get_xydata().tolist() for line in steps.lines] == [[[10, 0.25], [20, iu]] for iu in (0.5, 0.75)]
        assert [line.get_xydata().tolist() for line in loss.lines] == [[[10, 3.0], [20, 2.0]]] * 2
        assert loss.get_title("left") == "Loss per pixel"
        for axes in (minutes, steps, loss):
            assert [line.get_color() for line in axes.lines] == list(INKS[:2])

    def test_the_loss_itself_where_one_run_has_no_other(self, drawn: Callable[..., Any]) -> None:
        old = one("b", rows=[{"step": 10, "loss": 7.0}])
        loss = drawn([one("a"), old, one("c", rows=())]).axes[2]
        assert loss.get_title("left") == "Loss"
        assert [line.get_ydata().tolist() for line in loss.lines] == [[3e5, 2e5], [7.0]]
        assert loss.get_yscale() == "log"

    def test_a_mean_is_a_loss_per_pixel(self, drawn: Callable[..., Any]) -> None:
        mean = one("b", rows=[{"step": 10, "loss": 7.0}], options={"recipe.reduction": "mean"})
        loss = drawn([one("a"), mean]).axes[2]
        assert loss.get_title("left") == "Loss per pixel"
        assert [line.get_ydata().tolist() for line in loss.lines] == [[3.0, 2.0], [7.0]]
        assert drawn([mean]).axes[2].get_title("left") == "Loss"

    def test_every_run_is_named_once_whatever_its_name(self, drawn: Callable[..., Any]) -> None:
        names = [f"run {place}" for place in range(30)] + ["a$b_c$", "运行"]
        figure = drawn([one(name) for name in names])
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [*names[:31], "31"]
        assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) == 32

    def test_says_what_was_not_measured(self, drawn: Callable[..., Any]) -> None:
        figure = drawn([one("a", rows=[{"step": 1, "loss": 2.0}])])
        assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [["not measured"]] * 2 + [[]]
        assert drawn([one("a", rows=())]).axes[2].texts[0].get_text() == "not measured"


def test_json_holds_it_all() -> None:
    group = SeedGroup(("a", "b"), (0, 1), {"mean_iu": 0.55}, {"mean_iu": 0.07})
    value = Comparison((one("a", 0.5), one("b", 0.6, options={"lr": 0.1})), (group,), ("note",)).to_json()
    assert value["runs"][0] == {
        "name": "a", "path": "runs/a", "mean_iu": 0.5, "pixel_accuracy": 0.25, "mean_accuracy": 0.25, "fw_iu": 0.25,
        "iu": {"road": 0.5, "car": None}, "seconds": 5400.0, "steps": 12345, "images_per_s": 1234.56,
        "finished": True, "fingerprint": "", "options": {"lr": 0.1, "crop": [3, 4], "seed": 0},
    }  # fmt: skip
    # Where all are equal none is the best.
    assert value["best"] == {"mean_iu": ["b"], "pixel_accuracy": [], "mean_accuracy": [], "fw_iu": []}
    assert value["differing"] == {"crop": {"a": [3, 4], "b": None}, "seed": {"a": 0, "b": None}}
    assert value["seeds"] == [
        {"runs": ["a", "b"], "seeds": [0, 1], "mean": {"mean_iu": 0.55}, "deviation": {"mean_iu": 0.07}}
    ]
    assert (value["comparable"], value["notes"]) == (True, ["note"])
