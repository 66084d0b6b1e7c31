"""The report page, read back with the standard library's parser."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.errors import OptionError
from fullconv.labels import LabelSet
from fullconv.metrics import ConfusionMatrix
from fullconv.report.html import Preview, Report, SplitData, write_report
from fullconv.report.pictures import panels

EVIL = "<script>alert('\"&1')</script>"
LABELS = LabelSet(("background", EVIL, "ring"))
COUNTS = np.array([[600, 200, 0], [100, 300, 0], [0, 0, 0]])
VOID_ELEMENTS = {"meta", "img"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"] and data.strip():
            self.texts.append(" ".join(data.split()))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def after(self, text: str, count: int) -> list[str]:
        """The texts that follow the first one that equals `text`."""
        place = self.texts.index(text) + 1
        return self.texts[place : place + count]


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Page]:
    def make(**changes: Any) -> Page:
        matrix = ConfusionMatrix.from_counts(changes.pop("counts", COUNTS))
        values: dict[str, Any] = {
            "title": "a run",
            "command": "fullconv train",
            "options": {},
            "facts": {},
            "labels": LABELS,
            "scores": matrix.scores(),
            "counts": matrix.counts,
        }
        write_report(tmp_path / "report.html", Report(**(values | changes)))
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return make


def embedded(attributes: dict[str, str]) -> Image.Image:
    kind, data = attributes["src"].split(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert kind == f"data:image/{str(image.format).lower()}"
    image.load()
    return image


def everything() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (20, 30), dtype=np.uint8)
    picture = panels(mask * 90, mask, mask, LABELS)
    return {
        "title": f"title {EVIL}",
        "command": f"command {EVIL}",
        "options": {f"option {EVIL}": f"value {EVIL}", "list": [f"item {EVIL}"]},
        "facts": {f"fact {EVIL}": f"text {EVIL}", "versions": f"version {EVIL}"},
        "notes": [f"note {EVIL}"],
        "rows": [{"step": i, "loss": 1 / (i + 1), "lr": 0.1, "val_mean_iu": None} for i in range(9)],
        "class_rows": [{"step": 1.0, "background": 0.5, EVIL: 0.25, "ring": None}],
        "splits": [
            SplitData(f"split {EVIL}", 1234, ((4, 6), (5, 6), (8, 9)), 0.875, (0.75, 0.25, 0.0)),
            SplitData("val", 5, ((7, 7), (7, 7), (7, 7)), 1.0, (0.9, 0.0996, 0.0004)),
        ],
        "weights": (0.5, 2.0, 1.0),
        "fingerprint": f"print {EVIL}",
        "previews": [Preview(f"name {EVIL}", picture, 0.256), Preview("unscored", picture)],
    }


class TestContents:
    def test_headline_numbers_by_hand(self, page: Callable[..., Page]) -> None:
        result = page()
        # pixel 900/1200; accuracies 600/800, 300/400; IU 600/900, 300/600; f.w. (800*2/3 + 400*1/2) / 1200
        for name, value in (
            ("pixel accuracy", "75.0"),
            ("mean accuracy", "75.0"),
            ("mean IU", "58.3"),
            ("f.w. IU", "61.1"),
        ):
            assert result.after(name, 1) == [value]

    def test_table_by_hand(self, page: Callable[..., Page]) -> None:
        result = page()
        assert result.after("background", 7) == ["66.7", "75.0", "800", "(66.7 %)", EVIL, "(25.0 %)", EVIL]
        assert result.after("ring", 5) == ["\N{EN DASH}", "\N{EN DASH}", "0", "(0.0 %)", "\N{EN DASH}"]
        assert result.after("all classes", 3) == ["58.3", "75.0", "1,200"]
        bars = [attributes["style"] for attributes in result.all("i")]
        assert [bar.split("%")[0] for bar in bars] == ["width: 75.0", "width: 66.7", "width: 75.0", "width: 50.0"]
        assert bars[3].endswith("background: rgb(128 0 0)")

    def test_nothing_counted_is_dashes(self, page: Callable[..., Page]) -> None:
        result = page(
            counts=np.zeros((3, 3), np.int64), previews=[Preview("x", np.zeros((4, 4, 3), np.uint8), math.nan)]
        )
        assert result.after("mean IU", 1) == ["\N{EN DASH}"]
        assert "mean IU \N{EN DASH} %" in result.texts
        assert not any("nan" in text for text in result.texts)

    def test_options_facts_and_notes(self, page: Callable[..., Page]) -> None:
        result = page(
            options={
                "lr": 1e-10,
                "mirror": True,
                "weights": None,
                "crop": [352, 300],
                "schedule": {"kind": "poly", "power": 0.9},
            },
            facts={"time": "19 min", "versions": "torch 2"},
            notes=["first", "second"],
        )
        assert result.after("time", 3) == ["19 min", "first", "second"]
        assert result.after("Options and versions", 2) == ["versions", "torch 2"]
        expected = [
            "lr",
            "1e-10",
            "mirror",
            "yes",
            "weights",
            "\N{EN DASH}",
            "crop",
            "352, 300",
            "schedule",
            "kind poly, power 0.9",
        ]
        assert result.after("torch 2", 10) == expected

    def test_sections_without_contents_are_left_out(self, page: Callable[..., Page]) -> None:
        bare, full = page(), page(**everything())
        for heading in ("Training", "Data", "Examples", "Options and versions"):
            assert heading not in bare.texts
            assert heading in full.texts
        assert len(bare.all("img")) == 1
        assert len(full.all("img")) == 5

    def test_data_of_the_splits(self, page: Callable[..., Page]) -> None:
        result = page(**everything())
        assert result.after("labelled pixels %", 6) == [f"split {EVIL}", "1,234", "4 x 6", "5 x 6", "8 x 9", "87.5"]
        assert result.after("87.5", 6) == ["val", "5", "7 x 7", "7 x 7", "7 x 7", "100.0"]
        assert f"print {EVIL}" in result.texts

    def test_classes_shares_and_weights(self, page: Callable[..., Page]) -> None:
        result = page(**everything())
        heads = result.after("true pixels", 4)
        assert heads == [f"split {EVIL} %", "val %", "weight", "most often taken for"]
        assert result.after("background", 7) == ["66.7", "75.0", "800", "75.0", "90.0", "0.5", EVIL]
        assert result.after("ring", 7) == ["\N{EN DASH}", "\N{EN DASH}", "0", "0.0", "0.04", "1", "\N{EN DASH}"]
        table = next(text for text in result.texts if text.startswith("Bars are solid"))
        assert table.endswith("the weight is the class's factor in the loss.")
        assert page().after("true pixels", 1) == ["most often taken for"]

    @pytest.mark.parametrize(
        "changes", [{"weights": (1.0, 2.0)}, {"splits": [SplitData("val", 1, ((1, 1),) * 3, 1.0, (0.5, 0.5))]}]
    )
    def test_refuses_other_numbers_of_classes(self, page: Callable[..., Page], changes: dict[str, Any]) -> None:
        with pytest.raises(OptionError, match=r"3 labels, shares and weights of \[2\] classes; expected one a label"):
            page(**changes)


class TestSafety:
    def test_user_text_stays_text(self, page: Callable[..., Page]) -> None:
        result = page(**everything())
        assert {tag for tag, _ in result.elements}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
        for text in (
            "title",
            "command",
            "option",
            "value",
            "item",
            "fact",
            "text",
            "version",
            "note",
            "name",
            "split",
            "print",
        ):
            assert f"{text} {EVIL}" in result.texts
        assert f"name {EVIL}: image, truth, prediction and errors, from left to right" in [
            a["alt"] for a in result.all("img")
        ]
        assert not any(name.startswith("on") for _, attributes in result.elements for name in attributes)

    def test_nothing_comes_from_outside(self, page: Callable[..., Page], tmp_path: Path) -> None:
        result = page(**everything())
        for _, attributes in result.elements:
            assert attributes.get("src", "data:image/").startswith("data:image/")
            assert not {"href", "srcset", "action"} & set(attributes)
            assert "url(" not in attributes.get("style", "")
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "@import" not in text
        assert "url(" not in text
        assert "://" not in text
        policy = [meta["content"] for meta in result.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
        assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]

    def test_readers_without_eyes(self, page: Callable[..., Page]) -> None:
        result = page(**everything())
        assert result.all("html") == [{"lang": "en"}]
        assert all(len(image["alt"]) > 20 for image in result.all("img"))
        assert all(head["scope"] in ("col", "row") for head in result.all("th"))


class TestPictures:
    def test_maps_of_few_colours_are_exact(self, page: Callable[..., Page]) -> None:
        mask = np.random.default_rng(0).integers(0, 3, (56, 53), dtype=np.uint8)
        picture = panels(mask * 90, mask, mask[::-1], LABELS)
        attributes = page(previews=[Preview("w", picture)]).all("img")[-1]
        assert (np.asarray(embedded(attributes)) == picture).all()
        assert attributes["class"] == "pixelated"
        assert (attributes["width"], attributes["height"]) == ("860", "224")

    def test_large_ones_are_made_smaller(self, page: Callable[..., Page]) -> None:
        ramp = np.arange(2800, dtype=np.float64)[None, :, None] / 11 + np.zeros((700, 1, 3))
        noise = np.random.default_rng(0).normal(0, 4, ramp.shape)
        picture = np.clip(ramp + noise, 0, 255).astype(np.uint8)
        attributes = page(previews=[Preview("photo", picture)]).all("img")[-1]
        image = embedded(attributes)
        assert (image.format, image.size) == ("JPEG", (1400, 350))
        assert "class" not in attributes
        blocks = picture.reshape(350, 2, 1400, 2, 3).mean(axis=(1, 3))
        assert np.abs(np.asarray(image, np.float64) - blocks).mean() < 3

    def test_charts_are_shown_at_their_own_size(self, page: Callable[..., Page]) -> None:
        curves, confusion = page(rows=everything()["rows"]).all("img")
        for attributes in (curves, confusion):
            width, height = embedded(attributes).size
            assert (int(attributes["width"]), int(attributes["height"])) == (round(width * 0.64), round(height * 0.64))
        assert int(curves["width"]) > 1000

    def test_twelve_road_scenes_stay_near_two_megabytes(
        self, page: Callable[..., Page], shared_data: Path, tmp_path: Path
    ) -> None:
        folder = shared_data / "camvid"
        labels = LabelSet.numbered(12)
        previews = []
        for file in sorted((folder / "val").glob("*.png"))[::8][:12]:
            with Image.open(file) as image, Image.open(folder / "valannot" / file.name) as mask:
                truth = np.asarray(mask)
                wrong = truth[::8, ::8].repeat(8, axis=0).repeat(8, axis=1)
                previews.append(Preview(file.stem, panels(np.asarray(image.convert("RGB")), truth, wrong, labels), 0.5))
        assert len(previews) == 12
        page(previews=previews, labels=labels, counts=np.eye(12, dtype=np.int64), rows=everything()["rows"])
        assert (tmp_path / "report.html").stat().st_size < 2.1e6


class TestWriting:
    def test_an_interrupted_write_keeps_the_old_page(
        self, page: Callable[..., Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page(title="old")

        def full(self: Path, data: bytes) -> int:
            with self.open("wb") as file:
                file.write(data[:100])
            raise OSError("no space left")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="no space left"):
            page(title="new")
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
        assert "old" in (tmp_path / "report.html").read_text(encoding="utf-8")

    def test_folders_are_made_and_others_may_read(self, tmp_path: Path) -> None:
        matrix = ConfusionMatrix(3)
        path = tmp_path / "runs" / "x" / "report.html"
        write_report(str(path), Report("t", "", {}, {}, LABELS, matrix.scores(), matrix.counts))
        mask = os.umask(0)
        os.umask(mask)
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
        assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]

    def test_names_that_are_no_unicode_do_not_cost_the_report(self, page: Callable[..., Page]) -> None:
        name = os.fsdecode(b"caf\xe9.png")
        assert "caf?.png" in page(previews=[Preview(name, np.zeros((4, 16, 3), np.uint8))]).texts

    def test_refuses_parts_of_different_runs(self) -> None:
        three, two = ConfusionMatrix(3), ConfusionMatrix(2)
        for scores, counts in ((two.scores(), three.counts), (three.scores(), two.counts)):
            with pytest.raises(
                OptionError, match=r"3 labels, scores of \d classes, counts of .*; expected one number of classes"
            ):
                Report("t", "c", {}, {}, LABELS, scores, counts)
