"""Label maps, training curves and confusion matrices as pictures.

Pictures are (H, W, 3) uint8 RGB arrays, charts are PNG bytes. Charts are drawn on matplotlib's `Figure` objects: pyplot
keeps global state, which a server's threads and a user's own plots would share.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID, LabelSet
from fullconv.metrics import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]
Rows = Sequence[Mapping[str, Any]]

CORRECT, WRONG, UNSCORED = (238, 238, 238), (200, 30, 40), (170, 170, 170)
"""Colours of the errors panel; they differ in lightness, so that the panel reads without colour vision too."""

CHART_DPI = 150
"""Pixels per inch of the charts."""

_GAP = 4
_COMFORTABLE = 256
_PRINTED_CLASSES = 21
_NAME_LENGTH = 24
_FONT = "DejaVu Sans"  # comes with matplotlib: charts look alike on every machine
_INK, _FAINT = "#24292f", "#d0d7de"
_CURVES = {  # the colours of Okabe and Ito, which colour-blind readers tell apart
    "val_mean_iu": ("mean IU", "#0072b2", 2.2),
    "val_mean_accuracy": ("mean accuracy", "#e69f00", 1.2),
    "val_fw_iu": ("f.w. IU", "#009e73", 1.2),
    "val_pixel_accuracy": ("pixel accuracy", "#cc79a7", 1.2),
}


def colour(mask: Picture, labels: LabelSet) -> Picture:
    """The mask in its classes' colours; void and values beyond the classes in VOC colours.

    Args:
        mask: (H, W) uint8.
        labels: names and colours.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: not an (H, W) uint8 array.

    >>> colour(np.array([[1]], np.uint8), LabelSet(("background", "scratch"))).tolist()
    [[[128, 0, 0]]]
    """
    return np.take(labels.palette(), _mask(mask, "mask"), axis=0)


def overlay(image: Picture, mask: Picture, labels: LabelSet, opacity: float = 0.5) -> Picture:
    """The image with its labels laid over it: (1 - opacity) * image + opacity * colour.

    Background (class 0) and void keep the image, as in the authors' pictures (reference 7.1).

    Args:
        image: (H, W, 3) or grey (H, W, 1) or (H, W), uint8.
        mask: (H, W) uint8.
        labels: names and colours.
        opacity: 0..1, kept to 1/256; results round half up.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: an array of another type or size.
        OptionError: opacity out of range.
    """
    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity {opacity}; expected 0 (the image) to 1 (the colours)")
    rgb = _rgb(image, _mask(mask, "mask"))
    # Integers of 1/256 and one table row a label: exact where the weight is 0, and several times as fast as floats.
    weight = np.full((256, 1), round(opacity * 256), dtype=np.uint16)
    weight[[0, VOID]] = 0
    added = labels.palette() * weight + np.uint16(128)
    blended = rgb * (256 - weight)[mask]
    blended += added[mask]
    blended >>= 8
    return blended.astype(np.uint8)


def triptych(image: Picture, truth: Picture, prediction: Picture, labels: LabelSet) -> Picture:
    """Image, truth, prediction and errors side by side, small ones magnified by a whole factor.

    The errors panel shows right pixels in `CORRECT`, wrong ones in `WRONG` and void in `UNSCORED`.

    Args:
        image: (H, W, 3) or grey (H, W, 1) or (H, W), uint8.
        truth, prediction: (H, W) uint8.
        labels: names and colours.

    Returns:
        (f H, 4 f W + 12, 3) uint8 with f = max(1, floor(256 / max(H, W))) and white gaps of 4 between panels.

    Raises:
        DataError: an array of another type or size.
    """
    rgb = _rgb(image, _mask(truth, "truth"))
    if _mask(prediction, "prediction").shape != truth.shape:
        raise DataError(f"prediction is {prediction.shape} and truth {truth.shape}; expected one (H, W)")
    errors = np.array([WRONG, CORRECT], dtype=np.uint8)[(prediction == truth).astype(np.intp)]
    errors[truth == VOID] = UNSCORED
    factor = max(1, _COMFORTABLE // max(*truth.shape, 1))
    panels = [
        panel.repeat(factor, axis=0).repeat(factor, axis=1)
        for panel in (rgb, colour(truth, labels), colour(prediction, labels), errors)
    ]
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)


def legend(labels: LabelSet) -> Picture:
    """The classes' colours with their names, and void: a picture to keep beside coloured masks.

    Returns:
        (H, W, 3) uint8: columns of 12 entries of 24 pixels, each a swatch of 16 x 32 in the class's exact colour.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    names, column, line = [*_shown(labels), "void"], 12, 24
    width = 56 + 8 * max(len(name) for name in names)
    size = (width * -(-len(names) // column), line * min(len(names), column) + 8)
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, facecolor="white")
    for place, (name, rgb) in enumerate(zip(names, labels.palette()[[*range(len(labels)), VOID]], strict=True)):
        x, y = 8 + width * (place // column), size[1] - 8 - line * (place % column) - 16
        swatch = Rectangle((x, y), 32, 16, facecolor=rgb / 255, linewidth=0, antialiased=False)
        figure.add_artist(swatch)
        swatch.set_transform(None)
        text = figure.text(x + 40, y + 8, name, va="center_baseline", family=_FONT, fontsize=8.5, color=_INK)
        text.set(transform=None, parse_math=False)
    return _pixels(figure)


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
        axes.set_xlabel("step", fontsize=9, color=_INK, family=_FONT)
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
        scores.legend(frameon=False, ncols=2, loc="best", prop={"family": _FONT, "size": 8}, labelcolor=_INK)
    steps, values = _series(rows, "lr")
    if values.size:
        rate.plot(steps, values, color=_INK, linewidth=1.4, marker=_dots(values), markersize=3)
        rate.set_ylim(0, 1.08 * values.max() or 1)
    for axes in (loss, scores, rate):
        if not axes.lines:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="#6e7781", family=_FONT)
    return _png(figure)


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
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=_INK, labelfontfamily=_FONT)
    names: dict[str, Any] = {"labels": _shown(labels), "parse_math": False, "family": _FONT, "fontsize": size}
    axes.set_xticks(range(classes), **names, rotation=90 if classes > 6 else 30, color=_INK)
    axes.set_yticks(range(classes), **names, color=_INK)
    axes.set_xlabel("prediction", fontsize=10, color=_INK, family=_FONT)
    axes.set_ylabel("truth (each row 100 %)", fontsize=10, color=_INK, family=_FONT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    edges = np.arange(classes + 1) - 0.5
    axes.hlines(edges, edges[0], edges[-1], color="white", linewidth=0.8)
    axes.vlines(edges, edges[0], edges[-1], color="white", linewidth=0.8)
    if classes <= _PRINTED_CLASSES:
        for (row, column), value in np.ndenumerate(share.filled(0)):
            if value >= 0.005:
                ink = "white" if value > 0.42 else _INK
                axes.text(
                    column,
                    row,
                    f"{100 * value:.0f}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=size - 0.5,
                    family=_FONT,
                )
    return _png(figure)


def class_bars_png(scores: Scores, labels: LabelSet) -> bytes:
    """IU and accuracy of every class as one bar: solid up to the IU, pale up to the accuracy (which is never less).

    Args:
        scores: of K classes.
        labels: K names and colours.

    Returns:
        PNG.

    Raises:
        OptionError: scores of another number of classes than the labels'.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    classes = len(labels)
    if len(scores.iu) != classes:
        raise OptionError(f"scores of {len(scores.iu)} classes for {classes} labels; score with the same labels")
    figure = Figure(figsize=(8, 0.27 * classes + 1), dpi=CHART_DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    _calm(axes, "")
    places = np.arange(classes)
    fill = np.array(labels.colours) / 255
    outline: dict[str, Any] = {"edgecolor": _INK, "linewidth": 0.6}  # pale classes stay visible on white
    text: dict[str, Any] = {"fontsize": 8.5, "color": _INK, "family": _FONT}
    axes.barh(places, np.nan_to_num(scores.accuracy), 0.62, color=0.3 * fill + 0.7, **outline)
    axes.barh(places, np.nan_to_num(scores.iu), 0.62, color=fill, **outline)
    if np.isfinite(scores.mean_iu):
        axes.axvline(scores.mean_iu, color="white", linewidth=2.4)
        axes.axvline(scores.mean_iu, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(scores.mean_iu, -0.66, f"mean IU {100 * scores.mean_iu:.1f} %", ha="center", **text)
    for x, head, values in ((1.07, "IU", scores.iu), (1.19, "accuracy", scores.accuracy)):
        axes.text(x, -0.66, head, transform=axes.get_yaxis_transform(), ha="right", **text)
        for place, value in enumerate(values):
            shown = "\N{EN DASH}" if np.isnan(value) else f"{100 * value:.1f}"
            axes.text(x, place, shown, transform=axes.get_yaxis_transform(), ha="right", va="center_baseline", **text)
    axes.set_yticks(places, labels=_shown(labels), parse_math=False, family=_FONT, fontsize=9)
    axes.set(ylim=(classes - 0.4, -0.6), xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    return _png(figure)


def _mask(mask: Picture, name: str) -> Picture:
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise DataError(f"{name} is {mask.dtype} of shape {mask.shape}; expected (H, W) uint8 class numbers")
    return mask


def _rgb(image: Picture, mask: Picture) -> Picture:
    """(H, W, 3) of an image that fits the mask; grey becomes three equal channels."""
    planes = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or planes.shape not in {(*mask.shape, 1), (*mask.shape, 3)}:
        raise DataError(
            f"image is {image.dtype} of shape {image.shape} for a mask of {mask.shape}; expected uint8 RGB or grey "
            "of that height and width"
        )
    return np.broadcast_to(planes, (*mask.shape, 3))


@functools.cache
def _glyphs() -> frozenset[int]:
    """The characters that the charts' font can draw."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(_FONT)).get_charmap())


def _shown(labels: LabelSet) -> list[str]:
    """Names for charts: long ones shortened, those in a script that the font lacks as class numbers."""
    shown = []
    for number, name in enumerate(labels.names):
        short = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
        shown.append(short if short.strip() and _glyphs().issuperset(map(ord, short)) else str(number))
    return shown


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
    axes.set_title(title, loc="left", fontsize=10.5, color=_INK, family=_FONT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(which="both", color=_FAINT, labelcolor=_INK, labelsize=8.5, labelfontfamily=_FONT)
    axes.grid(color=_FAINT, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def _pixels(figure: Figure) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi="figure")
    width, height = (round(side) for side in figure.bbox.size)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8).reshape(height, width, 4)[..., :3].copy()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    no_version = {"Software": None}  # equal charts are equal bytes
    figure.savefig(buffer, format="png", dpi="figure", bbox_inches="tight", pad_inches=0.08, metadata=no_version)
    return buffer.getvalue()
