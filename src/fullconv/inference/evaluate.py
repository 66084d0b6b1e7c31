"""Scoring: predictions of a whole split at native resolution against its masks, as the paper does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fullconv.data import open_dataset
from fullconv.data.sample import Array, Dataset, Sample, Values
from fullconv.data.scenes import narrowed
from fullconv.errors import OptionError
from fullconv.inference.batches import ahead, coarse_scores
from fullconv.inference.model import Model
from fullconv.inference.reference import Reference
from fullconv.metrics import Absent, BoundaryF, ConfusionMatrix, Scores, Trimap
from fullconv.metrics.boundary import Tolerance
from fullconv.metrics.confusion import check_absent
from fullconv.metrics.reduce import Metric, over_processes, own_share, several_processes, summed
from fullconv.metrics.trimap import check_widths
from fullconv.nets import FCN, NetOptions

Progress = Callable[[int, int], None]
"""Called with (images scored, images in all), of this process's share."""


@dataclass(frozen=True)
class Measures:
    """What is measured beside the confusion matrix, and how absent classes count.

    Attributes:
        absent: "predicted" (the authors' scorer) or "excluded" (the paper's SIFT Flow numbers), see
            `ConfusionMatrix.scores`; None: as the data set's attribute `absent` says, a word or one by task, else
            "predicted".
        boundary: tolerance of the boundary F, pixels or a share of the diagonal such as "0.75%"; None: not measured.
        trimap: widths of bands about the true boundaries, in pixels; none: not measured.

    Raises:
        OptionError: another word, tolerance or widths.
    """

    absent: Absent | None = None
    boundary: float | str | None = None
    trimap: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.absent is not None:
            check_absent(self.absent)
        if self.boundary is not None:
            Tolerance.of(self.boundary)
        if self.trimap:
            check_widths(self.trimap)

    def absent_in(self, data: Dataset) -> dict[str, Absent]:
        """The rule for each task of a data set."""
        return {task: self.absent or data.absent.get(task, "predicted") for task in data.labels}


@dataclass(frozen=True)
class ImageScore:
    """One image's own scores.

    Attributes:
        name: of the sample.
        mean_iu: over the classes that its truth holds, 0..1; nan where all of it is void.
        error: share of its labelled pixels that were predicted wrong, 0..1; nan as above.
    """

    name: str
    mean_iu: float
    error: float


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a split, by task.

    Attributes:
        matrices: confusion matrices.
        absent: which classes without a true pixel enter mean IU; a task that is not named: "predicted".
        boundary, trimap: where asked for.
        images: every image's own scores, in the order of the data set.
    """

    matrices: Mapping[str, ConfusionMatrix]
    absent: Mapping[str, Absent] = field(default_factory=dict)
    boundary: Mapping[str, BoundaryF] = field(default_factory=dict)
    trimap: Mapping[str, Trimap] = field(default_factory=dict)
    images: Mapping[str, Sequence[ImageScore]] = field(default_factory=dict)

    @property
    def matrix(self) -> ConfusionMatrix:
        """Of the first task."""
        return next(iter(self.matrices.values()))

    @property
    def scores(self) -> Scores:
        """Of the first task, with absent classes as the data set or the caller wished."""
        return next(iter(self.by_task().values()))

    def by_task(self) -> dict[str, Scores]:
        """The scores of every task."""
        return {task: matrix.scores(self.rule(task)) for task, matrix in self.matrices.items()}

    def rule(self, task: str) -> Absent:
        """How a task's absent classes count."""
        return self.absent.get(task, "predicted")

    def worst(self, count: int, task: str | None = None) -> list[ImageScore]:
        """The images of lowest mean IU, the lowest first; of equals the one with more errors.

        Args:
            count: of images, at most; those that are all void are never among them.
            task: None: the first.

        Raises:
            OptionError: a count below 1.
        """
        if count < 1:
            raise OptionError(f"{count} worst images; expected 1 or more")
        scored = [image for image in self.images[task or next(iter(self.matrices))] if not math.isnan(image.mean_iu)]
        return sorted(scored, key=lambda image: (image.mean_iu, -image.error, image.name))[:count]


class _Counters:
    """What is counted of one task while predictions come in.

    Args:
        classes: K.
        images: in the data set, those of other processes included.
    """

    def __init__(self, classes: int, images: int, measures: Measures) -> None:
        self.matrix = ConfusionMatrix(classes)
        self.boundary = None if measures.boundary is None else BoundaryF(classes, measures.boundary)
        self.trimap = Trimap(classes, measures.trimap) if measures.trimap else None
        # One row an image, 0 where it is another process's: their sum is then exact.
        self.images: NDArray[np.float64] = np.zeros((images, 2))

    def add(self, index: int, truth: Array, prediction: Array) -> None:
        own = ConfusionMatrix(self.matrix.classes)
        own.update(truth, prediction)
        self.matrix += own
        scores = own.scores("excluded")
        self.images[index] = scores.mean_iu, 1 - scores.pixel_accuracy
        for measure in (self.boundary, self.trimap):
            if measure is not None:
                measure.update(truth, prediction)

    def sum_over_processes(self, device: torch.device) -> None:
        reduce_sum = partial(over_processes, device=device)

        def total(measure: Metric | None) -> Metric | None:
            return None if measure is None else summed(measure, reduce_sum)

        self.matrix = summed(self.matrix, reduce_sum)
        self.boundary, self.trimap = total(self.boundary), total(self.trimap)
        self.images = reduce_sum(self.images)


def evaluate(
    model: Model | str | Path,
    data: Dataset | str | Path,
    split: str = "val",
    *,
    precision: str = "float32",
    absent: Absent | None = None,
    boundary: float | str | None = None,
    trimap: Sequence[int] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on a split, every image at its native resolution.

    Args:
        model: a `Model`, or its file.
        data: a `Dataset`, or what `open_dataset` takes.
        split: of the data set, where `data` is a name.
        precision: "float32", "bfloat16" or "auto".
        absent, boundary, trimap: see `Measures`.
        progress: called after every image.

    Raises:
        DataError, ModelFileError: a file cannot be used.
        OptionError: model and data have different classes, or a measure cannot work.
    """
    measures = Measures(absent, boundary, trimap)
    if isinstance(model, str | Path):
        model = Model.load(model)
    if isinstance(data, str | Path):
        data = open_dataset(data, split)
    data = narrowed(data, list(model.net.options.inputs))
    for task, labels in data.labels.items():
        mine = model.label_sets.get(task)
        if mine is not None and mine.names != labels.names:
            raise OptionError(
                f"the model's classes are {', '.join(mine.names)}; the data's are {', '.join(labels.names)}: "
                "score it on data with its own classes, in their order"
            )
    return evaluate_net(model.net, data, precision, progress, measures)


def evaluate_net(
    net: FCN,
    data: Dataset,
    precision: str = "float32",
    progress: Progress | None = None,
    measures: Measures | None = None,
) -> Evaluation:
    """Score a net on every sample of a data set, each at its own size.

    Where torch.distributed is initialised, every process scores its share of the samples and all return the sums,
    which are exact; so all must call it.

    Args:
        net: its mode is left as it was.
        data: samples with masks.
        precision: "float32", "bfloat16" or "auto".
        progress: called after every image.
        measures: default: the confusion matrix and the images' own scores.

    Raises:
        OptionError: the net's tasks, class counts or inputs are not those of the data.
        DataError: a file that cannot be read.
    """
    require_fit(net.options, data)
    measures = measures or Measures()
    counters = {task: _Counters(len(labels), len(data), measures) for task, labels in data.labels.items()}
    indices = own_share(len(data))

    def stream() -> Iterator[tuple[tuple[int, Sample], Mapping[str, Values]]]:
        samples = ahead(data.__getitem__, indices, weight=lambda sample: prod(sample.size))
        for index, sample in zip(indices, samples, strict=True):
            yield (index, sample), sample.inputs

    for done, ((index, sample), tasks) in enumerate(coarse_scores(Reference(net, precision), stream()), 1):
        for task, coarse in tasks.items():
            counters[task].add(index, sample.masks[task], coarse.labels()[0].cpu().numpy())
        if progress is not None:
            progress(done, len(indices))
    if several_processes():
        for each in counters.values():
            each.sum_over_processes(next(net.parameters()).device)
    return Evaluation(
        matrices={task: each.matrix for task, each in counters.items()},
        absent=measures.absent_in(data),
        boundary={task: each.boundary for task, each in counters.items() if each.boundary is not None},
        trimap={task: each.trimap for task, each in counters.items() if each.trimap is not None},
        images={
            task: [ImageScore(name, *row) for name, row in zip(data.names, each.images.tolist(), strict=True)]
            for task, each in counters.items()
        },
    )


def require_fit(net: NetOptions, data: Dataset) -> None:
    """A net can be trained and scored on data with its own tasks, class counts and inputs.

    Raises:
        OptionError: others.
    """
    classes = {task: len(labels) for task, labels in data.labels.items()}
    if dict(net.classes) != classes:
        raise OptionError(
            f"the net has {dict(net.classes)} (task: classes), the data {classes}; use data with the net's classes"
        )
    channels = {name: options.channels for name, options in net.inputs.items()}
    found = {name: kind.channels for name, kind in data.inputs.items()}
    if channels != found:
        raise OptionError(
            f"the net takes {channels} (input: channels), the data has {found}; use data with the net's inputs"
        )
    for name, options in net.inputs.items():
        bands = data.inputs[name].bands
        if options.bands and bands and options.bands != bands:
            raise OptionError(
                f"the net takes the bands {list(options.bands)} of input {name!r}, the data has {list(bands)}; set "
                "bands to the net's in the data set's YAML"
            )
