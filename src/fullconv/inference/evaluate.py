"""Scoring: predictions of a whole split at native resolution against its masks, as the paper does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from fullconv.data import open_dataset
from fullconv.data.sample import Array, Dataset, Sample
from fullconv.errors import OptionError
from fullconv.inference.batches import ahead, coarse_scores
from fullconv.inference.model import Model
from fullconv.metrics import ConfusionMatrix, Scores
from fullconv.nets import FCN, NetOptions

Progress = Callable[[int, int], None]
"""Called with (images scored, images in all)."""


@dataclass(frozen=True)
class Evaluation:
    """The confusion matrices of a split, by task."""

    matrices: Mapping[str, ConfusionMatrix]

    @property
    def matrix(self) -> ConfusionMatrix:
        """Of the first task."""
        return next(iter(self.matrices.values()))

    @property
    def scores(self) -> Scores:
        """Of the first task, with absent classes as the reference scorer counts them."""
        return self.matrix.scores()


def evaluate(
    model: Model | str | Path,
    data: Dataset | str | Path,
    split: str = "val",
    *,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on a split, every image at its native resolution.

    Args:
        model: a `Model`, or its file.
        data: a `Dataset`, or what `open_dataset` takes.
        split: of the data set, where `data` is a name.
        precision: "float32", "bfloat16" or "auto".
        progress: called after every image.

    Raises:
        DataError, ModelFileError: a file cannot be used.
        OptionError: model and data have different classes.
    """
    if isinstance(model, str | Path):
        model = Model.load(model)
    if isinstance(data, str | Path):
        data = open_dataset(data, split)
    for task, labels in data.labels.items():
        mine = model.label_sets.get(task)
        if mine is not None and mine.names != labels.names:
            raise OptionError(
                f"the model's classes are {', '.join(mine.names)}; the data's are {', '.join(labels.names)}: "
                "score it on data with its own classes, in their order"
            )
    return evaluate_net(model.net, data, precision, progress)


def evaluate_net(
    net: FCN,
    data: Dataset,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Evaluation:
    """Score a net on every sample of a data set, each at its own size.

    Args:
        net: its mode is left as it was.
        data: samples with masks.
        precision: "float32", "bfloat16" or "auto".
        progress: called after every image.

    Raises:
        OptionError: the net's tasks, class counts or inputs are not those of the data.
        DataError: a file that cannot be read.
    """
    require_fit(net.options, data)
    matrices = {task: ConfusionMatrix(len(labels)) for task, labels in data.labels.items()}

    def stream() -> Iterator[tuple[Sample, Mapping[str, Array]]]:
        for sample in ahead(data.__getitem__, range(len(data)), weight=lambda sample: prod(sample.size)):
            yield sample, sample.inputs

    for done, (sample, tasks) in enumerate(coarse_scores(net, stream(), precision), 1):
        for task, coarse in tasks.items():
            matrices[task].update(sample.masks[task], coarse.labels()[0].cpu().numpy())
        if progress is not None:
            progress(done, len(data))
    return Evaluation(matrices)


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
    if channels != dict(data.channels):
        raise OptionError(
            f"the net takes {channels} (input: channels), the data has {dict(data.channels)}; "
            "use data with the net's inputs"
        )
