"""Run folders side by side: read, checked, and compared only where they can be."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fullconv.data.text import brief, dotted, read_text, read_yaml
from fullconv.errors import DataError, ModelFileError, OptionError, one_line, printable
from fullconv.labels import LabelSet
from fullconv.report.compare import SCORES, ComparedRun, Comparison, SeedGroup
from fullconv.training.run import how_far
from fullconv.weights.modelfile import read_header

MOST_RUNS = 32

MAX_BYTES = 64 << 20
"""Of metrics.csv: a line every two seconds for two weeks."""

MAX_ROWS = 1_000_000

MAX_OPTIONS = 2000

_NO_OPTIONS = ("fingerprint", "command", "stages.first.")
"""Keys of run.yaml, or their beginnings; the first stage's options are the last one's but for net, rate and weights."""

_OF_A_SEED = ("seed", "data")
"""In what runs of one group may differ; which data it is, the fingerprint says better than its path."""

_UNBOUNDED = ("step", "seconds", "images_per_s")
_LOSSES = ("loss", "loss_per_pixel")
_MEASURED = (*_UNBOUNDED, *_LOSSES, *(f"val_{key}" for key in SCORES))
_LARGEST = 1e100


def compare(paths: Sequence[str | Path]) -> Comparison:
    """Read run folders and set them side by side.

    Args:
        paths: of 1 to 32 run folders.

    Raises:
        OptionError: none or too many; one that holds no run, or is named twice.
        DataError: run.yaml, metrics.csv or class_iu.csv is damaged.
        ModelFileError: the best model's header is damaged.
    """
    if not 1 <= len(paths) <= MOST_RUNS:
        raise OptionError(f"{len(paths)} runs; expected 1 to {MOST_RUNS} run folders")
    folders = [Path(path) for path in paths]
    resolved = [folder.resolve() for folder in folders]
    for place, folder in enumerate(resolved):
        if folder in resolved[:place]:
            raise OptionError(f"{printable(folders[place])} is named twice; name every run once")
    last = [printable(folder.name) for folder in resolved]
    names = last if len(set(last)) == len(last) else [printable(path) for path in paths]
    runs = tuple(read_run(folder, name) for folder, name in zip(folders, names, strict=True))
    groups = tuple(_seed_groups(runs))
    same = len({_scored_on(run.fingerprint) for run in runs}) == 1
    comparable = same and len({tuple(run.iu) for run in runs if run.iu}) < 2
    return Comparison(runs, groups, tuple(_notes(runs, groups)), comparable)


def read_run(folder: Path, name: str) -> ComparedRun:
    """What a run folder says of its run; raises as `compare`.

    Args:
        name: to call it by.
    """
    if not (folder / "run.yaml").is_file():
        inside = folder.is_dir() and next(folder.glob("*/run.yaml"), None)
        fix = f"name those in it: {printable(folder / '*')}" if inside else "name a run's folder, such as runs/NAME"
        raise OptionError(f"{printable(folder)} holds no run (no run.yaml); {fix}")
    saved = _read_options(folder / "run.yaml")
    rows = _read_metrics(folder / "metrics.csv")
    scores, iu, notes = _read_scores(folder, name, rows)
    options = {key: value for key, value in saved.items() if not key.startswith(_NO_OPTIONS)}
    far = how_far(folder)
    own = _spent(rows, far)
    before = [_spent(_read_metrics(each / "metrics.csv"), how_far(each)) for each in _stages_before(folder, options)]
    steps = [done for done, _ in (own, *before) if done is not None]
    seconds = [spent for _, spent in (own, *before) if spent is not None]
    rates = [row["images_per_s"] for row in rows if "images_per_s" in row]
    unfinished = _unfinished(name, options, own, far.get("progress"), (folder / "report.html").is_file())
    return ComparedRun(
        name,
        printable(folder),
        options,
        scores,
        iu,
        rows,
        sum(seconds) if seconds else None,
        sum(steps) if steps else None,
        statistics.median(rates) if rates else None,
        printable(saved.get("fingerprint") or "")[:100],
        not unfinished,
        (*unfinished, *notes),
    )


def _spent(rows: Sequence[Mapping[str, float]], far: Mapping[str, float]) -> tuple[int | None, float | None]:
    """Steps and seconds of a run or stage; its last model may be of after the last line of metrics.csv.

    Args:
        rows: of metrics.csv.
        far: of `how_far`.
    """
    steps = [int(value) for value in [*(row["step"] for row in rows), far.get("steps_done")] if value is not None]
    seconds = [value for value in [*(row.get("seconds") for row in rows), far.get("seconds")] if value is not None]
    return max(steps, default=None), max(seconds, default=None)


def _stages_before(folder: Path, options: Mapping[str, Any]) -> list[Path]:
    """The folders of the stages before a run's last one; a stage's own folder has none of them."""
    strides = options.get("stages.strides")
    before = strides[:-1] if isinstance(strides, list) else []
    return [folder / name for name in dict.fromkeys(f"{stride}s" for stride in before if isinstance(stride, int))]


def _unfinished(
    name: str, options: Mapping[str, Any], spent: tuple[int | None, float | None], progress: float | None, report: bool
) -> list[str]:
    """A line, where a run did not come to its end.

    Args:
        spent: of `_spent`.
        progress: 0..1; None where an older version trained it, which did not write it down.
    """
    wanted, minutes = (_number(options.get(key)) for key in ("steps", "minutes"))
    steps, seconds = spent[0] or 0, spent[1] or 0.0
    ended = progress == 1
    if progress is None:  # a run keeps some of its time for its report
        ended = (wanted is None or steps >= wanted) and (minutes is None or seconds >= 45 * minutes)
    if ended:
        done = ""
    elif wanted is not None:
        done = f": {steps:,} of {wanted:,.0f} steps"
    elif minutes is not None:
        done = f": {seconds / 60:.1f} of {minutes:g} minutes"
    else:
        done = f": {100 * (progress or 0):.0f} % of it"
    why = "" if report else " (no report.html: it is still at work, or was killed)"
    return [] if ended and report else [f"{name} is unfinished{done}{why}"]


def _read_options(path: Path) -> dict[str, Any]:
    """run.yaml as dotted names and plain values."""
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise DataError(f"{printable(path)}: holds {brief(value)}; expected the options of a run")
    options = {printable(name): _plain(item) for name, item in dotted(value).items()}
    if len(options) > MAX_OPTIONS:
        raise DataError(f"{printable(path)}: holds {len(options)} options; expected at most {MAX_OPTIONS}")
    return options


def _plain(value: Any) -> Any:
    """What JSON can hold, of what YAML can; texts as they can be printed."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {printable(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return printable(value)


def _read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv with what they measured; none where there is no such file."""
    rows = []
    for row in _lines(path, _MEASURED):
        rows.append(row)
        if len(rows) > MAX_ROWS:
            raise DataError(f"{printable(path)}: holds more than {MAX_ROWS:,} lines; expected a run's metrics")
    return rows


def _lines(path: Path, wanted: Sequence[str] | None = None) -> Iterator[dict[str, float]]:
    """The finite numbers of each line by column; a last line that was cut off, as by a kill, is left out.

    Args:
        wanted: columns; None: all.

    Raises:
        DataError: damage anywhere else.
    """
    if not path.is_file():
        return
    text = read_text(path, MAX_BYTES)
    text = text[: text.rfind("\n") + 1]
    try:
        lines = csv.reader(io.StringIO(text, newline=""))
        names = next(lines, [])
        if "step" not in names:
            raise DataError(f"{printable(path)}: has no column 'step'; move the file away to compare without it")
        damaged = 0
        for line in lines:
            if damaged:
                raise DataError(
                    f"{printable(path)}: line {damaged} is damaged; move the file away to compare without it"
                )
            row = _numbers(names, line, wanted)
            if row is None:
                damaged = lines.line_num
            else:
                yield row
    except csv.Error as error:
        raise DataError(
            f"{printable(path)}: is no table ({one_line(error)}); move it away to compare without it"
        ) from error


def _numbers(names: Sequence[str], line: Sequence[str], wanted: Sequence[str] | None) -> dict[str, float] | None:
    """None where the line is damaged: it lacks columns, or holds what is no number or out of range."""
    if len(line) != len(names):
        return None
    # A class may have any name: in class_iu.csv all columns but the step are scores.
    unbounded, losses = (("step",), ()) if wanted is None else (_UNBOUNDED, _LOSSES)
    row = {}
    for name, text in zip(names, line, strict=True):
        if not text or not (wanted is None or name in wanted):
            continue
        try:
            value = float(text)
        except ValueError:
            return None
        low = -math.inf if name in losses else 0
        high = math.inf if name in (*losses, *unbounded) else 1
        if not math.isnan(value) and not low <= value <= high:
            return None
        if abs(value) < _LARGEST:
            row[name] = value
    return row if "step" in row else None


def _read_scores(
    folder: Path, name: str, rows: Sequence[Mapping[str, float]]
) -> tuple[dict[str, float | None], dict[str, float | None], list[str]]:
    """Scores and class IU of the best model, from its file, or else from the tables; and what to know of them."""
    file = folder / "best.safetensors"
    if file.is_file():
        scores, iu = _scores_of(file)
        return scores, iu, [] if scores else [f"{name} was never scored"]
    scored = [row for row in rows if "val_mean_iu" in row]
    if not scored:
        return {}, {}, [f"{name} was never scored, and has no best.safetensors"]
    row = max(scored, key=lambda row: row["val_mean_iu"])
    at_step: dict[str, float] = {}
    names: dict[str, None] = {}
    for line in _lines(folder / "class_iu.csv"):
        names |= dict.fromkeys(line)
        at_step = line if line["step"] == row["step"] else at_step
    iu = {printable(key): at_step.get(key) for key in names if key != "step"}
    scores = {key: row.get(f"val_{key}") for key in SCORES}
    return scores, iu, [f"{name} has no best.safetensors: its scores are the best in metrics.csv"]


def _scores_of(file: Path) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """The four numbers and the class IU in a model's header; both empty if it was never scored.

    Raises:
        ModelFileError: the header is damaged.
    """
    header = read_header(file)
    try:
        val = header["metrics"].get("val")
        if val is None:
            return {}, {}
        labels = LabelSet.from_json(next(iter(header["labels"].values())))
        values = [val[key] for key in SCORES] + list(val["iu"])
        if len(val["iu"]) != len(labels) or not all(value is None or _number(value, 1) is not None for value in values):
            raise ValueError
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
        raise ModelFileError(
            f"{printable(file)}: its labels and scores are not those of a model; copy or train it again"
        ) from None
    return {key: val[key] for key in SCORES}, dict(zip(map(printable, labels.names), val["iu"], strict=True))


def _number(value: Any, most: float = math.inf) -> float | None:
    """A number of 0 to `most`; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= most else None


def _seed_groups(runs: Sequence[ComparedRun]) -> Iterator[SeedGroup]:
    alike: dict[str, list[ComparedRun]] = {}
    for run in runs:
        if run.finished and run.scores.get("mean_iu") is not None and "seed" in run.options:
            same = {key: v for key, v in run.options.items() if v is not None and not _is_of_a_seed(key, run)}
            alike.setdefault(json.dumps([run.fingerprint, same], sort_keys=True), []).append(run)
    for group in alike.values():
        if len(group) > 1:
            columns = {key: [v for run in group if (v := run.scores[key]) is not None] for key in SCORES}
            yield SeedGroup(
                tuple(run.name for run in group),
                tuple(run.options["seed"] for run in group),
                {key: statistics.mean(values) for key, values in columns.items() if len(values) == len(group)},
                {key: statistics.stdev(values) for key, values in columns.items() if len(values) == len(group)},
            )


def _is_of_a_seed(key: str, run: ComparedRun) -> bool:
    """Whether runs of one group may differ in it; of stages that came before, the rest is in the last one's options."""
    staged = "stages.strides" in run.options
    return key in _OF_A_SEED or (staged and (key == "init" or key.startswith("stages.first.")))


def _scored_on(fingerprint: str) -> str:
    """The part of a fingerprint that is val's."""
    return fingerprint.partition("-")[2] or fingerprint


def _notes(runs: Sequence[ComparedRun], groups: Sequence[SeedGroup]) -> Iterator[str]:
    """What the reader should know before the numbers are compared."""
    unknown = [run.name for run in runs if not run.fingerprint]
    prints = {run.fingerprint for run in runs}
    if len(runs) > 1 and unknown:
        yield f"{', '.join(unknown)}: run.yaml has no fingerprint of the data, so that scores may be of different data"
    elif len(prints) > 1 and len(set(map(_scored_on, prints))) == 1:
        yield "these runs were trained on different data (fingerprints differ) and scored on the same: scores compare"
    elif len(prints) > 1:
        yield "the runs' data differs (fingerprints differ): scores of different data do not compare"
    classes = {tuple(run.iu): run for run in runs if run.iu}
    if len(classes) > 1:
        counts = ", ".join(f"{run.name} has {len(run.iu)}" for run in classes.values())
        yield (
            f"the runs' classes differ ({counts}): a class's IU stands where a run has one of that name, and "
            "the four numbers of different classes do not compare"
        )
    for group in groups:
        if len({str(seed) for seed in group.seeds}) < len(group.seeds):
            yield f"{', '.join(group.names)}: some have equal seeds, so that their deviation is not that over seeds"
    for run in runs:
        yield from run.notes
