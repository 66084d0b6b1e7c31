"""The page of several runs side by side: scores, classes, curves, and the options in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fullconv.files import atomic
from fullconv.report.charts import (
    CHART_DPI,
    INKS,
    Rows,
    calm,
    dots,
    fit_losses,
    line_style,
    png_of,
    say_if_empty,
    series,
    shown,
    smooth,
)
from fullconv.report.html import chart, option_text, rendered
from fullconv.report.pictures import FONT, INK

SCORES = {
    "mean_iu": "mean IU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "fw_iu": "f.w. IU",
}
"""The four numbers as model files name them, and as readers do."""

_LONGEST_TEXT = 200


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One of the runs.

    Attributes:
        name: different from the others'.
        path: of its folder.
        options: dotted name -> plain value.
        scores: of its best model on val, by the keys of `SCORES`, 0..1; None where there is none.
        iu: of each class of that model, 0..1 or None; empty if it was never scored.
        rows: of metrics.csv.
        seconds, steps: spent and done, over all stages; None where nothing is known.
        images_per_s: the median, in the last stage; None where nothing is known.
        fingerprint: of the data; empty where there is none.
        finished: it reached its end.
        notes: what the reader should know of it.
    """

    name: str
    path: str
    options: Mapping[str, Any]
    scores: Mapping[str, float | None]
    iu: Mapping[str, float | None]
    rows: Rows = field(default=(), repr=False)
    seconds: float | None = None
    steps: int | None = None
    images_per_s: float | None = None
    fingerprint: str = ""
    finished: bool = True
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All but the rows and the path's type."""
        return {
            "name": self.name,
            "path": self.path,
            **{key: self.scores.get(key) for key in SCORES},
            "iu": dict(self.iu),
            "seconds": self.seconds,
            "steps": self.steps,
            "images_per_s": self.images_per_s,
            "finished": self.finished,
            "fingerprint": self.fingerprint,
            "options": dict(self.options),
        }


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in nothing but the seed.

    Attributes:
        names, seeds: of the runs, two or more.
        mean, deviation: by the keys of `SCORES`: over the runs, the deviation with n - 1 in its denominator.
    """

    names: tuple[str, ...]
    seeds: tuple[Any, ...]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "runs": list(self.names),
            "seeds": list(self.seeds),
            "mean": dict(self.mean),
            "deviation": dict(self.deviation),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: one or more.
        groups: those that are one run with several seeds.
        notes: what the reader should know before the numbers are compared.
        comparable: they were scored on the same data and classes; else none is marked as the best.
    """

    runs: tuple[ComparedRun, ...]
    groups: tuple[SeedGroup, ...] = ()
    notes: tuple[str, ...] = ()
    comparable: bool = True

    def scores(self, key: str) -> list[tuple[float | None, bool]]:
        """One of the four numbers of each run, and whether it is the best."""
        return self._marked([run.scores.get(key) for run in self.runs])

    def iu(self, name: str) -> list[tuple[float | None, bool]]:
        """A class's IU in each run, and whether it is the best."""
        return self._marked([run.iu.get(name) for run in self.runs])

    def _marked(self, values: Sequence[float | None]) -> list[tuple[float | None, bool]]:
        known = [value for value in values if value is not None]
        marks = self.comparable and len(set(known)) > 1  # where all are equal none is the best
        return [(value, marks and value == max(known)) for value in values]

    @property
    def classes(self) -> list[str]:
        """Every class of any run, in the runs' order."""
        return list(dict.fromkeys(name for run in self.runs for name in run.iu))

    def options(self, equal: bool) -> dict[str, list[Any]]:
        """The values, one a run, of the options in which all are equal, or of those in which they differ.

        An option that a run's version did not know is None.
        """
        names = dict.fromkeys(name for run in self.runs for name in run.options)
        table = {name: [run.options.get(name) for run in self.runs] for name in names}
        return {name: values for name, values in table.items() if all(v == values[0] for v in values) == equal}

    def to_json(self) -> dict[str, Any]:
        """A JSON object: the runs, which are best, what they differ in, means over seeds, and notes."""
        names = [run.name for run in self.runs]
        return {
            "runs": [run.to_json() for run in self.runs],
            "best": {
                key: [name for name, (_, best) in zip(names, self.scores(key), strict=True) if best] for key in SCORES
            },
            "comparable": self.comparable,
            "differing": {name: dict(zip(names, values, strict=True)) for name, values in self.options(False).items()},
            "seeds": [group.to_json() for group in self.groups],
            "notes": list(self.notes),
        }


def write_comparison(path: str | Path, found: Comparison, command: str = "") -> None:
    """Write the page, whole or not at all; it holds everything it shows.

    Args:
        path: the HTML file; replaced where it exists; missing folders are made.
        found: what to show.
        command: what the user typed.
    """
    columns = [found.scores(key) for key in SCORES]
    page = rendered(
        "compare.html.j2",
        command=command,
        marks=found.comparable and len(found.runs) > 1,
        titles=list(SCORES.values()),
        runs=[
            {
                "name": run.name,
                "path": run.path,
                "colour": INKS[place % len(INKS)],
                "scores": [column[place] for column in columns],
                "minutes": None if run.seconds is None else f"{run.seconds / 60:,.1f}",
                "steps": None if run.steps is None else f"{run.steps:,}",
                "speed": None if run.images_per_s is None else f"{run.images_per_s:,.1f}",
            }
            for place, run in enumerate(found.runs)
        ],
        classes={name: found.iu(name) for name in found.classes},
        groups=[
            {
                "names": ", ".join(group.names),
                "seeds": option_text(group.seeds),
                "scores": [(group.mean.get(key), group.deviation.get(key)) for key in SCORES],
            }
            for group in found.groups
        ],
        differing={name: [short(v) for v in values] for name, values in found.options(False).items()},
        equal={name: short(values[0]) for name, values in found.options(True).items()},
        notes=found.notes,
        curves=chart(comparison_png(found.runs)) if any(run.rows for run in found.runs) else None,
    )
    with atomic(path, durable=False) as temporary:
        temporary.write_bytes(page.encode("utf-8", errors="replace"))


def short(value: Any) -> str:
    """An option's value as one line, cut where it is very long."""
    text = option_text(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def comparison_png(runs: Sequence[ComparedRun]) -> bytes:
    """Val mean IU over minutes and over steps, and the loss over steps; a colour and dashes a run.

    The loss is that per pixel if all runs have one, which a mean is too: those of different reductions do not compare.

    Returns:
        PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    columns = 4
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(11, 3.4 + 0.2 * rows), dpi=CHART_DPI, layout="constrained", facecolor="white")
    by_minute, by_step, loss = figure.subplots(1, 3)
    trained = [run for run in runs if series(run.rows, "loss")[1].size]
    by_pixel = [run for run in trained if series(run.rows, "loss_per_pixel")[1].size]
    means = [run for run in trained if run not in by_pixel and run.options.get("recipe.reduction") == "mean"]
    per_pixel = bool(by_pixel) and len(by_pixel) + len(means) == len(trained)
    calm(by_minute, "Mean IU on val", "minutes")
    calm(by_step, "Mean IU on val", "step")
    calm(loss, "Loss per pixel" if per_pixel else "Loss", "step")
    for place, (run, name) in enumerate(zip(runs, shown([run.name for run in runs]), strict=True)):
        style: dict[str, Any] = {**line_style(place), "linewidth": 1.6, "markersize": 3, "label": name}
        seconds, values = series(run.rows, "val_mean_iu", "seconds")
        if values.size:
            by_minute.plot(seconds / 60, values, **style, marker=dots(values))
        steps, values = series(run.rows, "val_mean_iu")
        if values.size:
            by_step.plot(steps, values, **style, marker=dots(values))
        steps, values = series(run.rows, "loss_per_pixel" if per_pixel and run in by_pixel else "loss")
        if values.size:
            loss.plot(steps, smooth(values), **style, marker=dots(values))
    fit_losses(loss)
    for axes in (by_minute, by_step):
        if axes.lines:
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    for axes in (by_minute, by_step, loss):
        say_if_empty(axes)
    lines = {line.get_label(): line for axes in (by_minute, by_step, loss) for line in axes.lines}
    made = figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=min(columns, max(len(lines), 1)),
        frameon=False, prop={"family": FONT, "size": 8.5}, labelcolor=INK,
    )  # fmt: skip
    for text in made.get_texts():
        text.set_parse_math(False)
    return png_of(figure)
