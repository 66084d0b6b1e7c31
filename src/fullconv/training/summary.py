"""The end of a run: previews, curves, confusion matrix and the report, from its best model."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fullconv.data.check import Checked
from fullconv.data.sample import Array, Sample
from fullconv.data.text import dotted
from fullconv.files import atomic
from fullconv.inference.batches import coarse_scores
from fullconv.inference.evaluate import Evaluation
from fullconv.inference.model import drawable
from fullconv.inference.reference import Reference
from fullconv.labels import LabelSet
from fullconv.metrics import ConfusionMatrix
from fullconv.report.charts import class_iu_png, confusion_png, curves_png
from fullconv.report.html import Preview, Report, SplitData, write_report
from fullconv.report.pictures import panels
from fullconv.training.losses import class_weights
from fullconv.training.machine import surroundings
from fullconv.training.options import RunOptions
from fullconv.training.run import RunFolder
from fullconv.training.splits import Splits
from fullconv.weights.modelfile import read_model

PREVIEWS = 12
WORST = 6


@dataclass(frozen=True)
class Summary:
    """What is told of a run.

    Attributes:
        best: the evaluation of the best model; None: no model was ever scored.
        steps: done.
        seconds: the run took so far.
        device: that predicts.
        facts: what else the loop knows, a short label and its text each, such as {"processes": "3"}.
    """

    folder: RunFolder
    splits: Splits
    options: RunOptions
    notes: list[str]
    best: Evaluation | None
    steps: int
    seconds: float
    device: torch.device
    command: str
    facts: Mapping[str, str] = field(default_factory=dict)


def write_summary(run: Summary, report: Callable[[float], None]) -> None:
    """Write previews/, curves.png, class_iu.png, confusion.png and report.html.

    Args:
        report: called with the share done, 0..1.
    """
    folder, val = run.folder, run.splits.val.dataset
    net, best = read_model(folder.best).net.to(run.device), run.best
    task = next(iter(val.labels))
    labels = val.labels[task]
    matrix = best.matrix if best else ConfusionMatrix(len(labels))

    spread = np.unique(np.linspace(0, len(val) - 1, PREVIEWS).astype(int)).tolist()
    places = {name: place for place, name in enumerate(val.names)}
    worst = [places[image.name] for image in best.worst(WORST, task)] if best else []
    chosen = list(dict.fromkeys([*spread, *worst]))
    previews: dict[int, Preview] = {}
    (name, options), *_ = net.options.inputs.items()
    stream = ((place, val[place]) for place in chosen)
    reference = Reference(net, run.options.precision)
    answers = coarse_scores(reference, (((p, sample), sample.inputs) for p, sample in stream))
    for (place, sample), tasks in answers:
        predicted = tasks[task].labels()[0].cpu().numpy()
        picture = drawable(sample.inputs[name], options)
        previews[place] = _preview(sample, task, picture, predicted, labels)
        with atomic(folder.previews / f"{sample.name}.png", durable=False) as path:
            Image.fromarray(previews[place].picture).save(path, compress_level=1)
        report(len(previews) / (len(chosen) + 2))

    _write(folder.path / "curves.png", curves_png(folder.rows))
    if folder.class_rows:
        _write(folder.path / "class_iu.png", class_iu_png(folder.class_rows))
    _write(folder.path / "confusion.png", confusion_png(matrix.counts, labels))
    report((len(chosen) + 1) / (len(chosen) + 2))
    write_report(
        folder.report,
        Report(
            title=folder.path.resolve().name,
            command=run.command,
            options=dotted(run.options.to_yaml()),
            facts=_facts(run),
            labels=labels,
            scores=best.scores if best else matrix.scores(),
            counts=matrix.counts,
            rows=folder.rows,
            class_rows=folder.class_rows,
            splits=[_split_data(split, task) for split in (run.splits.train, run.splits.val)],
            weights=_weights(run, task),
            fingerprint=run.splits.fingerprint(),
            previews=[previews[place] for place in spread],
            worst=[previews[place] for place in worst],
            notes=run.notes,
        ),
    )
    report(1.0)


def _preview(sample: Sample, task: str, image: Array, predicted: Array, labels: LabelSet) -> Preview:
    own = ConfusionMatrix(len(labels))
    own.update(sample.masks[task], predicted)
    return Preview(sample.name, panels(image, sample.masks[task], predicted, labels), own.scores("excluded").mean_iu)


def _split_data(split: Checked, task: str) -> SplitData:
    sizes = sorted(split.sizes, key=lambda size: (size[0] * size[1], size))
    labelled = int(split.pixels[task].sum())
    return SplitData(
        split.dataset.split,
        len(split.dataset),
        (sizes[0], sizes[len(sizes) // 2], sizes[-1]),
        labelled / max(labelled + split.void[task], 1),
        tuple((split.pixels[task] / max(labelled, 1)).tolist()),
    )


def _weights(run: Summary, task: str) -> tuple[float, ...]:
    """The classes' factors in the loss; none where they are all 1."""
    return class_weights(run.splits.train.pixels[task].tolist(), run.options.recipe.weights_of(task)) or ()


def _facts(run: Summary) -> dict[str, str]:
    rows, batch = run.folder.rows, run.options.recipe.batch
    rates = [rate for row in rows if (rate := row.get("images_per_s"))]
    others = list(run.best.by_task().items())[1:] if run.best else []
    scored = {row["step"]: iu for row in rows if (iu := row.get("val_mean_iu")) is not None and math.isfinite(iu)}
    train, val = run.splits.train.dataset, run.splits.val.dataset
    facts = {
        "net": f"{run.options.net.stride}s on {run.options.net.trunk}, {run.options.net.padding} padding",
        "data": f"{run.options.data}: {len(train)} {train.split}, {len(val)} {val.split}",
        "time": f"{run.seconds / 60:.1f} min" + _share_of_steps(run),
        "steps": f"{run.steps:,} of {batch} images",
        "epochs": f"{run.steps * batch / len(train):,.1f}",
        **{
            task: f"mean IU {100 * s.mean_iu:.1f} %, pixel accuracy {100 * s.pixel_accuracy:.1f} %"
            for task, s in others
        },
        **({"best model": f"of step {max(scored, key=lambda step: scored[step]):,.0f}"} if scored else {}),
        "images/s": f"{np.median(rates):.1f} (median)" if rates else "n/a",
        "precision": run.options.precision,
        "peak memory": _peak_memory(),
        **run.facts,
    }
    around = surroundings()
    facts |= {name: around.pop(name) for name in ("machine", "gpu") if name in around}
    return facts | {"versions": ", ".join(f"{name} {version}" for name, version in around.items())}


def _share_of_steps(run: Summary) -> str:
    """How much of the time went into training steps; evaluations, files and the start took the rest."""
    before, seconds = 0.0, 0.0
    for row in run.folder.rows:
        step, rate = row["step"] or 0, row.get("images_per_s")
        if rate:
            seconds += (step - before) * run.options.recipe.batch / rate
            before = step
    return f" ({100 * seconds / run.seconds:.0f} % in steps)" if 0 < seconds <= run.seconds else ""


def _peak_memory() -> str:
    """Of this process, where the system tells."""
    try:
        import resource  # not on Windows
    except ImportError:
        return "n/a"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"


def _write(path: Path, content: bytes) -> None:
    with atomic(path, durable=False) as temporary:
        temporary.write_bytes(content)
