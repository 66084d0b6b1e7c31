"""Training curves and confusion matrices as charts: PNG bytes.

Charts are drawn on matplotlib's `Figure` objects: pyplot keeps global state, which a server's threads and a user's own
plots would share.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import OptionError
from fullconv.labels import LabelSet
from fullconv.report.pictures import FONT, INK, shown_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

CHART_DPI = 150
"""Pixels per inch of the charts."""

_PRINTED_CLASSES = 21
_FAINT = "#d0d7de"
_CURVES = {  # the colours of Okabe and Ito, which colour-blind readers tell apart
    "val_mean_iu": ("mean IU", "#0072b2", 2.2),
    "val_mean_accuracy": ("mean accuracy", "#e69f00", 1.2),
    "val_fw_iu": ("f.w. IU", "#009e73", 1.2),
    "val_pixel_accuracy": ("pixel accuracy", "#cc79a7", 1.2),
}


def curves_png(rows: Rows) -> bytes:
    """Loss, the four validation scores and the learning rate over the steps.

    Args:
        rows: of metrics.csv: `step`, `loss`, `lr`, and `val_mean_iu`, `val_mean_accuracy`, `val_fw_iu`,
            `val_pixel_accuracy` in 0..1; a key that is missing, None or not finite was not measured.

    Returns:
        PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

    figure = Figure(figsize=(11, 3.3), dpi=CHART_DPI, layout="constrained", facecolor="white")
    loss, scores, rate = figure.subplots(1, 3, width_ratios=(4, 4, 3), sharex=True)
    for axes, title in ((loss, "Loss"), (scores, "Validation"), (rate, "Learning rate")):
        _calm(axes, title)
        axes.set_xlabel("step", fontsize=9, color=INK, family=FONT)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter("{x:g}")

    steps, values = _series(rows, "loss")
    if values.size:
        loss.plot(steps, values, color="#0072b2", linewidth=0.8, alpha=0.3)
        loss.plot(steps, _smooth(values), color="#0072b2", linewidth=1.8, marker=_dots(values), markersize=3)
        if values.min() > 0 and values.max() > 50 * values.min():
            loss.set_yscale("log")
    for key, (name, ink, width) in _CURVES.items():
        steps, values = _series(rows, key)
        if values.size:
            scores.plot(steps, values, color=ink, linewidth=width, marker=_dots(values), markersize=3, label=name)
    if scores.lines:
        scores.set_ylim(0, 1)
        scores.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        scores.legend(frameon=False, ncols=2, loc="best", prop={"family": FONT, "size": 8}, labelcolor=INK)
    steps, values = _series(rows, "lr")
    if values.size:
        rate.plot(steps, values, color=INK, linewidth=1.4, marker=_dots(values), markersize=3)
        rate.set_ylim(0, 1.08 * values.max() or 1)
    for axes in (loss, scores, rate):
        if not axes.lines:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="#6e7781", family=FONT)
    return png_of(figure)


def confusion_png(counts: NDArray[np.int64], labels: LabelSet) -> bytes:
    """The confusion matrix, every row in percent of its true class; the numbers are printed up to 21 classes.

    The colour scale follows the square root, so that a confusion of a few percent is seen among sixty classes too.

    Args:
        counts: (K, K) integers, rows truth, columns prediction; a row without pixels stays grey.
        labels: K names.

    Returns:
        PNG.

    Raises:
        OptionError: counts of another size than the labels'.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    classes = len(labels)
    if counts.shape != (classes, classes):
        raise OptionError(f"counts are {counts.shape} for {classes} labels; expected ({classes}, {classes})")
    true = counts.sum(axis=1, keepdims=True)
    share = np.ma.masked_array(counts / np.maximum(true, 1), mask=np.broadcast_to(true == 0, counts.shape))
    cell = min(max(6 / classes, 0.17 if classes > _PRINTED_CLASSES else 0.36), 0.8)
    size = 8.5 if classes <= _PRINTED_CLASSES else 6.5
    figure = Figure(
        figsize=(cell * classes + 2.6, cell * classes + 1.7), dpi=CHART_DPI, layout="constrained", facecolor="white"
    )
    axes = figure.subplots()
    image = axes.imshow(share, cmap=colormaps["Blues"].with_extremes(bad="#d8dee4"), norm=PowerNorm(0.5, 0, 1))
    bar = figure.colorbar(image, shrink=0.5, aspect=30, pad=0.02, format=PercentFormatter(1, symbol=" %"))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK, labelfontfamily=FONT)
    names: dict[str, Any] = {"labels": shown_names(labels), "parse_math": False, "family": FONT, "fontsize": size}
    axes.set_xticks(range(classes), **names, rotation=90 if classes > 6 else 30, color=INK)
    axes.set_yticks(range(classes), **names, color=INK)
    axes.set_xlabel("prediction", fontsize=10, color=INK, family=FONT)
    axes.set_ylabel("truth (each row 100 %)", fontsize=10, color=INK, family=FONT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    edges = np.arange(classes + 1) - 0.5
    axes.hlines(edges, edges[0], edges[-1], color="white", linewidth=0.8)
    axes.vlines(edges, edges[0], edges[-1], color="white", linewidth=0.8)
    if classes <= _PRINTED_CLASSES:
        for (row, column), value in np.ndenumerate(share.filled(0)):
            if value >= 0.005:
                ink = "white" if value > 0.42 else INK
                axes.text(
                    column,
                    row,
                    f"{100 * value:.0f}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=size - 0.5,
                    family=FONT,
                )
    return png_of(figure)


def _series(rows: Rows, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values where `key` was measured."""
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moving average over a fortieth of the curve; shorter windows at its ends."""
    half = values.size // 80
    places = np.arange(values.size)
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, values.size)
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((total[last] - total[first]) / (last - first))


def _dots(values: NDArray[np.float64]) -> str:
    """Marks for curves of few points: a line through a single one would not be seen."""
    return "o" if values.size <= 30 else ""


def _calm(axes: Axes, title: str) -> None:
    """Thin axes, pale grid, title to the left."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, family=FONT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(which="both", color=_FAINT, labelcolor=INK, labelsize=8.5, labelfontfamily=FONT)
    axes.grid(color=_FAINT, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def png_of(figure: Figure) -> bytes:
    """A figure as a PNG."""
    buffer = io.BytesIO()
    no_version = {"Software": None}  # equal charts are equal bytes
    figure.savefig(buffer, format="png", dpi="figure", bbox_inches="tight", pad_inches=0.08, metadata=no_version)
    return buffer.getvalue()
