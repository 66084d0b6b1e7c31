"""Training curves, IU over time and confusion matrices as charts: PNG bytes.

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
from fullconv.labels import VOID, LabelSet
from fullconv.report.pictures import FONT, INK, shown_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
Series = tuple[NDArray[np.float64], NDArray[np.float64]]

CHART_DPI = 150
"""Pixels per inch of the charts."""

INKS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000", "#a89a00")
"""The colours of Okabe and Ito, which colour-blind readers tell apart; their yellow darker, to be seen on white."""

DASHES = ("-", "--", ":", "-.")
"""What tells lines apart where there are more than `INKS`."""

_PRINTED_CLASSES = 21
_MOST_LINES = 12
_FAINT = "#d0d7de"
_CURVES = {
    "val_mean_iu": ("mean IU", INKS[0], 2.2),
    "val_mean_accuracy": ("mean accuracy", INKS[1], 1.2),
    "val_fw_iu": ("f.w. IU", INKS[2], 1.2),
    "val_pixel_accuracy": ("pixel accuracy", INKS[3], 1.2),
}


def curves_png(rows: Rows) -> bytes:
    """Losses, the four validation scores, the learning rate and the speed over the steps.

    `loss_per_pixel` gets a panel of its own unless it equals `loss`: the paper's sum is 1e5 times as large.

    Args:
        rows: of metrics.csv: `step`, `loss`, `loss_per_pixel`, other columns ``loss_NAME`` (of terms and tasks), `lr`,
            `images_per_s`, and `val_mean_iu`, `val_mean_accuracy`, `val_fw_iu`, `val_pixel_accuracy` in 0..1; a key
            that is missing, None or not finite was not measured.

    Returns:
        PNG.
    """
    from matplotlib.figure import Figure

    (_, losses), (_, per_pixel) = series(rows, "loss"), series(rows, "loss_per_pixel")
    apart = per_pixel.size > 0 and not (losses.shape == per_pixel.shape and np.allclose(losses, per_pixel, rtol=1e-4))
    lower = [*(["Loss per pixel"] if apart else []), "Learning rate", "Images per second"]
    figure = Figure(figsize=(11, 5.6), dpi=CHART_DPI, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 6, height_ratios=(4, 3))
    loss = figure.add_subplot(grid[0, :3])
    panels = {"Loss": loss, "Validation": figure.add_subplot(grid[0, 3:], sharex=loss)}
    width = 6 // len(lower)
    for place, title in enumerate(lower):
        panels[title] = figure.add_subplot(grid[1, place * width : (place + 1) * width], sharex=loss)
    for title, axes in panels.items():
        calm(axes, title, "step")

    _draw_losses(loss, rows)
    if apart:
        _draw(panels["Loss per pixel"], rows, "loss_per_pixel", INKS[0])
        fit_losses(panels["Loss per pixel"])
    _draw_scores(panels["Validation"], rows)
    rate, speed = panels["Learning rate"], panels["Images per second"]
    steps, values = series(rows, "lr")
    if values.size:
        rate.plot(steps, values, color=INK, linewidth=1.4, marker=dots(values), markersize=3)
        rate.set_ylim(0, 1.08 * values.max() or 1)
    _draw(speed, rows, "images_per_s", INK)
    if speed.lines:
        speed.set_ylim(bottom=0)
    for axes in panels.values():
        say_if_empty(axes)
    return png_of(figure)


def class_iu_png(rows: Rows) -> bytes:
    """The classes' IU over the steps: lines with names at their ends up to 12 classes, a heat map of more.

    The heat map's rows are sorted by the last IU, so that what is hard is found at the bottom; its columns are the
    evaluations.

    Args:
        rows: of class_iu.csv: `step`, then every class's IU in 0..1; None or nan where there is none.

    Returns:
        PNG.
    """
    from matplotlib.figure import Figure

    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "step"]
    curves = dict(zip(shown(keys), (series(rows, key) for key in keys), strict=True))
    last = {name: float(values[-1]) if values.size else -1.0 for name, (_, values) in curves.items()}
    order = sorted(curves, key=lambda name: -last[name])
    if len(order) > _MOST_LINES:
        return _class_heat_png({name: curves[name] for name in order})
    figure = Figure(figsize=(11, 3.9), dpi=CHART_DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    calm(axes, "IU of each class", "step")
    drawn = [name for name in order if curves[name][1].size]
    for name, height in zip(drawn, _spread([last[name] for name in drawn]), strict=True):
        steps, values = curves[name]
        style = line_style(list(curves).index(name))
        axes.plot(steps, values, **style, linewidth=1.6, marker=dots(values), markersize=3)
        axes.plot([1.008, 1.034], [height] * 2, **style, linewidth=1.6, transform=axes.transAxes, clip_on=False)
        axes.annotate(
            f"{name}  {100 * last[name]:.1f}",
            (1.042, height),
            xycoords="axes fraction",
            va="center",
            color=style["color"],
            fontsize=8.5,
            family=FONT,
            annotation_clip=False,
            parse_math=False,
        )
    _in_percent(axes)
    say_if_empty(axes)
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


def _class_heat_png(curves: Mapping[str, Series]) -> bytes:
    """IU as colour: a row a class, in the order given; a column an evaluation."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    steps = sorted({step for measured, _ in curves.values() for step in measured.tolist()})
    iu = np.full((len(curves), max(len(steps), 1)), np.nan)
    for row, (measured, values) in enumerate(curves.values()):
        iu[row, np.searchsorted(steps, measured)] = values
    height = 0.15 * len(curves)
    figure = Figure(figsize=(11, height + 1.2), dpi=CHART_DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    calm(axes, "IU of each class", "step")
    colours = colormaps["Blues"].with_extremes(bad="#d8dee4")
    image = axes.imshow(np.ma.masked_invalid(iu), colours, aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    format_ = PercentFormatter(1, symbol=" %")
    bar = figure.colorbar(image, shrink=min(1.0, 2.5 / height), aspect=20, pad=0.02, anchor=(0, 1), format=format_)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK, labelfontfamily=FONT)
    text: dict[str, Any] = {"parse_math": False, "family": FONT, "color": INK}
    axes.set_yticks(range(len(curves)), labels=list(curves), **text, fontsize=6.5)
    marked = np.unique(np.linspace(0, len(steps) - 1, 11).astype(int)).tolist() if steps else []
    axes.set_xticks(marked, labels=[f"{steps[place]:,.0f}" for place in marked], **text, fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.hlines(np.arange(len(curves) + 1) - 0.5, -0.5, iu.shape[1] - 0.5, color="white", linewidth=0.6)
    return png_of(figure)


def _draw_losses(axes: Axes, rows: Rows) -> None:
    """The loss, and its terms and tasks where there are several."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("loss_") and key != "loss_per_pixel")
    parts = [key for key in keys if series(rows, key)[1].size]
    _draw(axes, rows, "loss", INKS[0], "all" if parts else None)
    for place, name in enumerate(shown([key.removeprefix("loss_") for key in parts]), 1):
        steps, values = series(rows, parts[place - 1])
        axes.plot(
            steps, smooth(values), **line_style(place), linewidth=1.2, marker=dots(values), markersize=3, label=name
        )
    if parts:
        legend(axes, 1 + len(parts) // 6)
    fit_losses(axes)


def _draw_scores(axes: Axes, rows: Rows) -> None:
    for key, (name, ink, width) in _CURVES.items():
        steps, values = series(rows, key)
        if values.size:
            axes.plot(steps, values, color=ink, linewidth=width, marker=dots(values), markersize=3, label=name)
    if axes.lines:
        _in_percent(axes)
        legend(axes, 2)


def _draw(axes: Axes, rows: Rows, key: str, ink: str, label: str | None = None) -> None:
    """What was measured, pale, and its moving average."""
    steps, values = series(rows, key)
    if values.size:
        axes.plot(steps, values, color=ink, linewidth=0.8, alpha=0.3)
        axes.plot(steps, smooth(values), color=ink, linewidth=1.8, marker=dots(values), markersize=3, label=label)


def _spread(values: Sequence[float], gap: float = 0.07) -> list[float]:
    """Heights for labels near the values, in 0..1 and `gap` apart, so that none lies on another.

    Args:
        values: in 0..1, descending; at most 1 / gap of them.

    >>> [round(height, 2) for height in _spread([0.9, 0.89, 0.02, 0.01])]
    [0.9, 0.83, 0.07, 0.0]
    """
    heights: list[float] = []
    for value in values:
        heights.append(min(value, heights[-1] - gap) if heights else value)
    floor = 0.0
    for place in reversed(range(len(heights))):
        heights[place] = max(heights[place], floor)
        floor = heights[place] + gap
    return heights


def shown(names: Sequence[str]) -> list[str]:
    """Different names for charts: long ones shortened, those in a script that the font lacks as their places."""
    parts = [names[start : start + VOID] for start in range(0, len(names), VOID)]
    short = [name for part in parts for name in shown_names(LabelSet(tuple(part)))]
    return [name if short.index(name) == place else f"{name} ({place})" for place, name in enumerate(short)]


def line_style(place: int) -> dict[str, Any]:
    """Colour and dashes of one of several lines; 32 are different."""
    return {"color": INKS[place % len(INKS)], "linestyle": DASHES[place // len(INKS) % len(DASHES)]}


def series(rows: Rows, key: str, over: str = "step") -> Series:
    """Steps, or another key's values, and values where `key` was measured."""
    pairs = [(row[over], row[key]) for row in rows if row.get(key) is not None and row.get(over) is not None]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moving average over a fortieth of the curve; shorter windows at its ends."""
    half = values.size // 80
    places = np.arange(values.size)
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, values.size)
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((total[last] - total[first]) / (last - first))


def dots(values: NDArray[np.float64]) -> str:
    """Marks for curves of few points: a line through a single one would not be seen."""
    return "o" if values.size <= 30 else ""


def calm(axes: Axes, title: str, over: str) -> None:
    """Thin axes, pale grid, title to the left; below, what the curves run over."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_title(title, loc="left", fontsize=10.5, color=INK, family=FONT)
    axes.set_xlabel(over, fontsize=9, color=INK, family=FONT)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=over == "step"))
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if over == "step" else "{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(which="both", color=_FAINT, labelcolor=INK, labelsize=8.5, labelfontfamily=FONT)
    axes.grid(color=_FAINT, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def fit_losses(axes: Axes) -> None:
    """A logarithmic axis where the losses span more than 1 to 50."""
    values = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines]
    low, high = min((v.min() for v in values), default=1), max((v.max() for v in values), default=1)
    if low > 0 and high > 50 * low:
        axes.set_yscale("log")


def legend(axes: Axes, columns: int) -> None:
    """The lines' names, as they are: a $ is no formula."""
    made = axes.legend(frameon=False, ncols=columns, loc="best", prop={"family": FONT, "size": 8}, labelcolor=INK)
    for text in made.get_texts():
        text.set_parse_math(False)


def say_if_empty(axes: Axes) -> None:
    """No lines are told in words."""
    if not axes.lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="#6e7781", family=FONT)


def _in_percent(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def png_of(figure: Figure) -> bytes:
    """A figure as a PNG."""
    buffer = io.BytesIO()
    no_version = {"Software": None}  # equal charts are equal bytes
    figure.savefig(buffer, format="png", dpi="figure", bbox_inches="tight", pad_inches=0.08, metadata=no_version)
    return buffer.getvalue()
