"""The doctor's page, read as a browser reads it."""

from __future__ import annotations

import base64
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from broken_data import LABELS, make_broken, make_clean
from fullconv.data.doctor import examine
from fullconv.data.sample import SEMANTIC
from fullconv.labels import VOID
from fullconv.report.doctor import LARGEST, SCENES, class_rows, span, write_doctor_page
from makers import make_folder, make_nyud, make_voc, save

VOID_ELEMENTS = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements, their attributes and texts; fails on elements that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.stack: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID_ELEMENTS:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.stack[-1] if self.stack else "", " ".join(data.split())))

    def of(self, tag: str) -> list[str]:
        return [text for own, text in self.texts if own == tag]

    def pictures(self) -> list[Image.Image]:
        found = []
        for tag, name, value in self.attributes:
            if (tag, name) == ("img", "src"):
                head, data = value.split(",", 1)
                assert head in ("data:image/png;base64", "data:image/jpeg;base64")
                found.append(Image.open(BytesIO(base64.b64decode(data))))
        return found


def written(tmp_path: Path, root: Path, command: str = "fullconv doctor DATA") -> Page:
    write_doctor_page(tmp_path / "page.html", examine(root), command)
    return Page(tmp_path / "page.html")


def test_all_findings_are_on_the_page(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_broken(root)
    page, found = written(tmp_path, root), examine(root)
    headings = [text for text in page.of("h3") if ": " in text]
    assert headings == [f"{f.title}: {f.count}" for f in found.findings]
    for finding in found.findings:
        assert f"What it does: {finding.consequence}." in page.of("p")
        assert f"What mends it: {finding.remedy}" in page.of("p")
        for line in finding.lines:
            assert " ".join(line.split()) in page.of("li")
    assert page.of("h1") == ["data"]
    assert page.of("code") == ["fullconv doctor DATA"]
    tiles = [text for text in page.of("span") if text.replace(",", "").isdigit()]
    counts = [sum(f.count for f in found.findings if f.severity == s) for s in ("error", "warning")]
    assert tiles == [*map(str, counts), str(found.listing.count)]


def test_the_table_of_classes_holds_shares_images_and_weights(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    found = examine(root)
    rows = class_rows(found, SEMANTIC)
    assert [row["name"] for row in rows] == list(LABELS.names)
    masks = [np.asarray(Image.open(p)) for p in sorted((root / "val/masks").iterdir())]
    pixels = np.sum([np.bincount(m[m != VOID], minlength=4) for m in masks], axis=0)
    for number, row in enumerate(rows):
        assert row["shares"][1] == (f"{100 * pixels[number] / pixels.sum():.3g}", "8")
    assert sum(float(row["shares"][0][0]) for row in rows) == pytest.approx(100, abs=0.3)
    page = written(tmp_path, root)
    assert [text for text in page.of("th") if text in LABELS.names] == list(LABELS.names)
    for row in rows:
        assert row["weight"] in page.of("td")
    assert "Nothing is wrong with this data set as far as a program can tell." in page.of("p")


def test_sides_and_aspects_as_text(tmp_path: Path) -> None:
    assert (span((12, 16)), span((0.5, 0.5)), span((1 / 3, 4 / 3)), span(None)) == (
        "12 to 16", "0.5", "0.3333 to 1.333", "\N{EN DASH}",
    )  # fmt: skip
    page = written(tmp_path, make_folder(tmp_path / "data"))
    facts = dict(zip(page.of("dt"), page.of("dd"), strict=True))
    assert (facts["sides"], facts["width over height"]) == ("12 to 16 pixels", "1.333")


def test_a_class_without_a_pixel_has_a_dash_for_a_weight(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    (root / "classes.txt").write_text("a\nb\nc\nnever\n")
    assert class_rows(examine(root), SEMANTIC)[3]["weight"] == "\N{EN DASH}"


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_broken(root)
    page = written(tmp_path, root)
    assert "script" not in page.tags
    assert "link" not in page.tags
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith("data:image/")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text


def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "<script>alert(1)</script>".replace("/", "|"))
    (root / "classes.txt").write_text("<img src=x onerror=alert(1)>\n\"b'&amp;\nc\n")
    for kind in ("images", "masks"):
        (root / "train" / kind / "0000.png").rename(root / "train" / kind / "<b onclick=x>\n\udcff.png")
    shutil.copy(root / "train/images/0001.png", root / "train/images/<i>lonely.png")
    write_doctor_page(tmp_path / "page.html", examine(root), '<u>"typed"</u>')
    page = Page(tmp_path / "page.html")
    assert not {"script", "b", "i", "u"} & set(page.tags)
    assert "<img src=x onerror=alert(1)>" in page.of("th")
    assert "\"b'&amp;" in page.of("th")
    assert page.of("code") == ['<u>"typed"</u>']
    assert "train/<i>lonely.png" in page.of("li")
    assert r"train/<b onclick=x>\n\udcff" in page.of("figcaption")
    assert page.of("h1") == ["<script>alert(1)<|script>"]


def test_the_pictures_are_few_and_small(tmp_path: Path) -> None:
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for number in range(12):
        save(root / f"train/images/{number}.png", rng.integers(0, 256, (900, 1600, 3), dtype=np.uint8))
        save(root / f"train/masks/{number}.png", rng.integers(0, 3, (900, 1600), dtype=np.uint8))
    page = written(tmp_path, root)
    pictures = page.pictures()
    assert len(pictures) == SCENES
    assert all(max(picture.size) <= LARGEST for picture in pictures)
    assert all(picture.size == (534, 300) for picture in pictures)
    # Noise, which nothing compresses: photos take a tenth.
    assert (tmp_path / "page.html").stat().st_size < SCENES * 1.34 * 3 * 534 * 300 + 100_000


def test_the_overlay_shows_the_mended_mask(tmp_path: Path) -> None:
    root = make_clean(tmp_path / "data")
    first = written(tmp_path, root).pictures()[0]
    for path in root.rglob("masks/*.png"):
        with Image.open(path) as picture:
            mask = np.asarray(picture)
        save(path, np.where(mask == VOID, VOID, mask + 1).astype(np.uint8))
    second = written(tmp_path, root).pictures()[0]
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


def test_scenes_that_cannot_be_drawn_are_left_out(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    (root / "train/images/0000.png").write_bytes(b"")
    save(root / "train/masks/0001.png", np.zeros((3, 3), np.uint8))
    assert len(written(tmp_path, root).pictures()) == 7 - 2


def test_data_of_several_inputs_and_of_nothing(tmp_path: Path) -> None:
    assert len(written(tmp_path, make_nyud(tmp_path / "nyud")).pictures()) == 7
    path = make_voc(tmp_path / "voc")
    for image in path.rglob("*.jpg"):
        image.unlink()
    assert written(tmp_path, path).pictures() == []
    write_doctor_page(tmp_path / "wafer.html", examine("wafer"))
    assert "It has no files of images and masks to look at." in Page(tmp_path / "wafer.html").of("p")


def test_measured_bands_are_stretched_to_be_seen(tmp_path: Path) -> None:
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for number in range(3):
        (root / "images").mkdir(parents=True, exist_ok=True)
        values = rng.normal(3000, 200, (20, 30, 5)).astype(np.uint16)
        values[:10] += 400
        np.save(root / "images" / f"{number}.npy", values)
        save(root / "masks" / f"{number}.png", np.zeros((20, 30), np.uint8))
    pictures = written(tmp_path, root).pictures()
    assert len(pictures) == 3
    grey = np.asarray(pictures[0].convert("L")).astype(float)
    assert grey[:10].mean() - grey[10:].mean() > 30
    assert 60 < grey.mean() < 200


def test_a_page_that_is_there_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    page = tmp_path / "page.html"
    page.write_text("old")
    found = examine(root)
    found.codings[SEMANTIC] = {}
    with pytest.raises(KeyError):
        write_doctor_page(page, found)
    assert page.read_text() == "old"
    write_doctor_page(page, examine(root))
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "page.html"]
