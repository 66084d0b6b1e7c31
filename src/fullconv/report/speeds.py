"""How long engines take as bars: PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fullconv.report.charts import CHART_DPI, INKS, calm, png_of
from fullconv.report.pictures import FONT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"float32": INKS[0], "bfloat16": INKS[2], "int8": INKS[1]}

BAR = 0.27
"""Inches of a row."""


def speeds_png(value: Mapping[str, Any]) -> bytes:
    """A panel for each size, a bar for each engine and precision, the quickest on top.

    Beside each bar stand the median, how many times as fast as the plain net in float32 that is, and the share of
    labels that are the plain net's. The thin lines are the quartiles.

    Args:
        value: as `fullconv.inference.timings.Timings.to_json` gives it.

    Returns:
        PNG.
    """
    from matplotlib.figure import Figure

    rows: list[dict[str, Any]] = list(value["rows"])
    sizes = list(dict.fromkeys((row["height"], row["width"]) for row in rows))
    groups = [[row for row in rows if (row["height"], row["width"]) == size] for size in sizes]
    counts = [max(1, len(group)) for group in groups]
    height = BAR * sum(counts) + 0.9 * len(groups) + 0.5
    figure = Figure(figsize=(9, height), dpi=CHART_DPI, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(max(1, len(groups)), 1, height_ratios=counts or [1])
    for place, (size, group) in enumerate(zip(sizes, groups, strict=True)):
        axes = figure.add_subplot(grid[place, 0])
        calm(axes, f"{size[0]} x {size[1]}", "milliseconds an image" if place == len(groups) - 1 else "")
        _draw(axes, group)
    processor = str(value["machine"]["processor"])[:80]
    threads = int(value["threads"])
    title = f"{str(value['model'])[-60:]}, {processor}, {threads} thread{'s' * (threads > 1)}"
    figure.suptitle(title, fontsize=9, color=INK, family=FONT, x=0.01, ha="left", parse_math=False)
    return png_of(figure)


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """One size."""
    longest = max((row["quartiles_ms"][1] for row in rows if row["median_ms"] is not None), default=1.0)
    text: dict[str, Any] = {"va": "center", "fontsize": 8, "color": INK, "family": FONT, "parse_math": False}
    for place, row in enumerate(rows):
        if row["median_ms"] is None:
            axes.text(0.005 * longest, place, "failed" if row["error"] else "not measured", **text)
            continue
        low, high = row["quartiles_ms"]
        axes.barh(place, row["median_ms"], 0.72, color=COLOURS.get(row["precision"], INKS[7]))
        axes.plot([low, high], [place, place], color=INK, linewidth=1, solid_capstyle="butt")
        axes.text(max(high, row["median_ms"]) + 0.01 * longest, place, _words(row), **text)
    axes.set_yticks(range(len(rows)), [f"{row['engine']} {row['precision']}" for row in rows], family=FONT)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.42 * longest)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _words(row: Mapping[str, Any]) -> str:
    parts = [f"{row['median_ms']:.3g} ms" if row["median_ms"] < 100 else f"{row['median_ms']:.0f} ms"]
    if row["speedup"] is not None:
        parts.append(f"x {row['speedup']:.1f}")
    if row["agreement"] is not None:
        parts.append(f"{100 * row['agreement']:.2f} % of labels")
    return ",  ".join(parts)
