"""The report of a run: one HTML page that holds everything it shows and asks nothing of the network."""

from __future__ import annotations

import base64
import importlib.resources
import io
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import OptionError
from fullconv.files import atomic
from fullconv.labels import VOID, LabelSet
from fullconv.metrics import Scores
from fullconv.report.charts import CHART_DPI, Rows, class_iu_png, confusion_png, curves_png
from fullconv.report.pictures import CORRECT, UNSCORED, WRONG, Picture

_PAGE_WIDTH = 1100
"""Width of the page's column in CSS pixels; narrower pictures are shown pixel by pixel."""

_LARGEST = 1400
"""Longest side of an embedded picture: sharp on the page's column, and a dozen photos stay below 2 MB."""

_FOLDED_FACTS = ("versions",)


@dataclass(frozen=True, eq=False)
class Preview:
    """One image of the gallery.

    Attributes:
        name: of the sample.
        picture: (H, W, 3) uint8: image, truth, prediction and errors side by side, as `panels` makes it.
        mean_iu: of this image alone, 0..1; None or nan where it was not scored.
    """

    name: str
    picture: Picture
    mean_iu: float | None = None


@dataclass(frozen=True)
class SplitData:
    """What a split of the data holds.

    Attributes:
        name: of the split.
        images: their number.
        sizes: (H, W) of the smallest, the median and the largest image by area.
        labelled: share of all pixels that are not void, 0..1.
        shares: of the labelled pixels, one a class, 0..1.
    """

    name: str
    images: int
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    labelled: float
    shares: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """What the page shows.

    Attributes:
        title: the page's heading.
        command: what the user typed to get here.
        options: every resolved option.
        facts: short label -> text, such as "time", "images/s", "peak memory", "machine"; "versions" is folded away.
        labels: K names and colours.
        scores: of K classes.
        counts: (K, K) int64, rows truth, columns prediction.
        rows: of metrics.csv, as `curves_png` takes them; empty where nothing was trained.
        class_rows: of class_iu.csv, as `class_iu_png` takes them; may be empty.
        splits: what was trained and scored on; may be empty.
        weights: of the classes in the loss, K; empty: all are 1.
        fingerprint: of the data.
        previews: the gallery; may be empty.
        worst: the images of lowest mean IU; may be empty.
        notes: sentences that the reader should see before the numbers are believed.

    Raises:
        OptionError: labels, scores, counts, shares or weights of different numbers of classes.
    """

    title: str
    command: str
    options: Mapping[str, Any]
    facts: Mapping[str, str]
    labels: LabelSet
    scores: Scores
    counts: NDArray[np.int64]
    rows: Rows = field(default=())
    class_rows: Rows = field(default=())
    splits: Sequence[SplitData] = field(default=())
    weights: Sequence[float] = field(default=())
    fingerprint: str = ""
    previews: Sequence[Preview] = field(default=())
    worst: Sequence[Preview] = field(default=())
    notes: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        classes = len(self.labels)
        if len(self.scores.iu) != classes or self.counts.shape != (classes, classes):
            raise OptionError(
                f"{classes} labels, scores of {len(self.scores.iu)} classes, counts of {self.counts.shape}; "
                "expected one number of classes: make all three from one confusion matrix"
            )
        others = [len(split.shares) for split in self.splits] + ([len(self.weights)] if self.weights else [])
        if any(count != classes for count in others):
            raise OptionError(f"{classes} labels, shares and weights of {others} classes; expected one a label")


def write_report(path: str | Path, report: Report) -> None:
    """Write the page, whole or not at all; missing folders are made.

    Args:
        path: the HTML file; replaced where it exists.
        report: what to show.

    Raises:
        OSError: the folder cannot be written.
    """
    # A file name that is no valid Unicode must not cost the report: it gets question marks.
    page = _render(report).encode("utf-8", errors="replace")
    with atomic(path, durable=False) as temporary:
        temporary.write_bytes(page)


def rendered(template: str, **values: Any) -> str:
    """A page of this folder, with everything in it escaped."""
    import jinja2

    folder = importlib.resources.files("fullconv.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, share=_share, text=option_text, rgb=_rgb)
    return environment.get_template(template).render(**values)


def _render(report: Report) -> str:
    return rendered(
        "report.html.j2",
        report=report,
        headline=_headline(report.scores),
        facts={name: text for name, text in report.facts.items() if name not in _FOLDED_FACTS},
        folded={name: text for name, text in report.facts.items() if name in _FOLDED_FACTS} | dict(report.options),
        classes=_classes(report),
        curves=chart(curves_png(report.rows)) if report.rows else None,
        class_iu=chart(class_iu_png(report.class_rows)) if report.class_rows else None,
        confusion=chart(confusion_png(report.counts, report.labels)),
        previews=[figure(preview) for preview in report.previews],
        worst=[figure(preview) for preview in report.worst],
        void=tuple(report.labels.palette()[VOID].tolist()),
        errors={"correct": CORRECT, "wrong": WRONG, "void": UNSCORED},
    )


def _headline(scores: Scores) -> list[tuple[str, float, str]]:
    """Name, value and meaning of the four numbers, the one that papers compare first."""
    return [
        ("mean IU", scores.mean_iu, "overlap of truth and prediction, mean over classes"),
        ("pixel accuracy", scores.pixel_accuracy, "share of pixels labelled correctly"),
        ("mean accuracy", scores.mean_accuracy, "share of each class found, mean over classes"),
        ("f.w. IU", scores.fw_iu, "overlap, classes weighted by their pixels"),
    ]


def _classes(report: Report) -> list[dict[str, Any]]:
    """One row of the table a class, with the class that it is most often taken for."""
    total = sum(report.scores.pixels)
    wrong = report.counts.copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for number, name in enumerate(report.labels.names):
        pixels = report.scores.pixels[number]
        taken_for = int(wrong[number].argmax())
        share = int(wrong[number, taken_for]) / pixels if pixels else 0
        rows.append(
            {
                "name": name,
                "colour": report.labels.colours[number],
                "iu": report.scores.iu[number],
                "accuracy": report.scores.accuracy[number],
                "pixels": pixels,
                "share": pixels / total if total else math.nan,
                "shares": [split.shares[number] for split in report.splits],
                "weight": report.weights[number] if report.weights else None,
                "taken_for": (report.labels.names[taken_for], share) if share >= 0.005 else None,
            }
        )
    return rows


def chart(png: bytes) -> dict[str, Any]:
    """A chart at its size on paper, so that its letters are as large as the page's."""
    width, height = struct.unpack(">II", png[16:24])  # of the header chunk, which every PNG starts with
    scale = 96 / CHART_DPI
    return {"address": _address("png", png), "width": round(width * scale), "height": round(height * scale)}


def figure(preview: Preview) -> dict[str, Any]:
    """A preview as the template shows it: PNG where that is smaller (maps of few colours), else JPEG."""
    from PIL import Image

    image = Image.fromarray(preview.picture)
    image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    files = {}
    for kind, options in (("png", {}), ("jpeg", {"quality": 90, "subsampling": 0})):
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **options)
        files[kind] = buffer.getvalue()
    kind = min(files, key=lambda name: len(files[name]))
    return {
        "name": preview.name,
        "mean_iu": preview.mean_iu,
        "address": _address(kind, files[kind]),
        "width": image.width,
        "height": image.height,
        "pixelated": preview.picture.shape[1] <= _PAGE_WIDTH,
    }


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _percent(value: float | None) -> str:
    """
    >>> _percent(0.6551), _percent(math.nan), _percent(None)
    ('65.5', '\N{EN DASH}', '\N{EN DASH}')
    """
    return "\N{EN DASH}" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def option_text(value: Any) -> str:
    """An option's value as a reader would write it."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {option_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(option_text(item) for item in value)
    return str(value)


def _share(value: float) -> str:
    """A share in percent; of small ones, the first digits that count.

    >>> _share(0.6551), _share(0.00012), _share(0.0), _share(math.nan)
    ('65.5', '0.012', '0.0', '\N{EN DASH}')
    """
    return f"{100 * value:.2g}" if 0 < value < 0.01 else _percent(value)


def _rgb(colour: Sequence[int]) -> str:
    return f"rgb({colour[0]} {colour[1]} {colour[2]})"
