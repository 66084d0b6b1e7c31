"""Model and Prediction: a net with its labels, and what it says of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fullconv.data.bands import BandsReader
from fullconv.data.image import as_image
from fullconv.data.mask import write_mask
from fullconv.data.nyud import DepthReader
from fullconv.data.sample import Array, Values
from fullconv.errors import OptionError
from fullconv.inference.batches import coarse_scores
from fullconv.inference.engines import Engine, engine
from fullconv.labels import LabelSet
from fullconv.nets import FCN, InputOptions
from fullconv.nets.fcn import CoarseScores
from fullconv.nets.precision import resolve
from fullconv.report.pictures import overlay
from fullconv.weights.modelfile import ModelFile, check_labels, read_header, read_model, write_model

ImageLike = str | Path | Image.Image | Values
"""A path, a PIL image or an (H, W, C) array: uint8, or of any real type where the net takes measured values."""

SMALL, PROBED = 4096, 64
"""Numbers of a weight up to which all are looked at to see whether it has changed, and how many of a larger one."""

CONFIDENCE_ROWS = 64
"""Rows of full-size scores held at a time while confidences are taken."""


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a net says of one image in one task.

    Attributes:
        image: (H, W, 3) uint8 RGB, or grey (H, W, 1): the net's first input as a picture.
        coarse: the scores before the last upsampling, batch of one.
        label_set: the classes.
    """

    image: Array
    coarse: CoarseScores
    label_set: LabelSet

    def __repr__(self) -> str:
        height, width = self.coarse.size
        return f"Prediction({height} x {width}, {len(self.label_set)} classes)"

    @cached_property
    def labels(self) -> Array:
        """(H, W) uint8 class numbers."""
        with torch.inference_mode():
            return self.coarse.labels()[0].cpu().numpy()

    def scores(self) -> NDArray[np.float32]:
        """(K, H, W) float32: the full-size scores before the softmax."""
        with torch.inference_mode():
            return self.coarse.upsample()[0].cpu().numpy()

    def confidence(self) -> NDArray[np.float32]:
        """(H, W) float32 of 0..1: the softmax probability of each pixel's label.

        Near the border it is lower than it should be: upsampling finds no neighbour there and scores fade
        (reference 3.6); the labels are not affected.
        """
        height, width = self.coarse.size
        result = np.empty((height, width), dtype=np.float32)
        for top in range(0, height, CONFIDENCE_ROWS):
            rows = (top, min(top + CONFIDENCE_ROWS, height))
            with torch.inference_mode():
                block = self.coarse.head.rows(self.coarse.scores, self.coarse.size, rows)
                result[slice(*rows)] = torch.softmax(block[0], 0).amax(0).cpu().numpy()
        return result

    def areas(self) -> dict[str, float]:
        """Class name -> its share of the pixels, 0..1."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.label_set))
        return {name: float(n / self.labels.size) for name, n in zip(self.label_set.names, counts, strict=True)}

    def overlay(self, opacity: float = 0.5) -> Array:
        """(H, W, 3) uint8: the image with its labels' colours over it, class 0 left clear."""
        return overlay(self.image, self.labels, self.label_set, opacity)

    def save(self, path: str | Path) -> None:
        """Write the labels as a palette PNG."""
        write_mask(path, self.labels, self.label_set)


@dataclass(eq=False, repr=False)
class Model:
    """A net and its labels.

    Args:
        net: the FCN.
        labels: a LabelSet, or one by task name; default: numbered classes.
        training, metrics: the record kept in the model file.

    Raises:
        OptionError: labels that do not fit the net's classes.
    """

    net: FCN
    labels: LabelSet | Mapping[str, LabelSet] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    _engines: dict[str, Engine] = field(default_factory=dict, init=False)
    _state: object = field(default=None, init=False)

    def __repr__(self) -> str:
        options = self.net.options
        return f"Model({options.stride}s on {options.trunk}, {dict(options.classes)} (task: classes))"

    def __post_init__(self) -> None:
        classes = self.net.options.classes
        if self.labels is None:
            self.label_sets = {task: LabelSet.numbered(k) for task, k in classes.items()}
        elif isinstance(self.labels, LabelSet):
            self.label_sets = {next(iter(classes)): self.labels}
        else:
            self.label_sets = dict(self.labels)
        check_labels(self.net.options, self.label_sets)
        if len(classes) == 1:
            self.labels = next(iter(self.label_sets.values()))
        else:
            self.labels = self.label_sets

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a model file; raises ModelFileError."""
        file = read_model(path)
        return cls(file.net, file.labels, file.training, file.metrics)

    def save(self, path: str | Path) -> None:
        """Write a model file, atomically."""
        write_model(path, ModelFile(self.net, self.label_sets, self.training, self.metrics))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}, "_state": None}  # made for this very net, and not to be copied

    def predict(self, image: ImageLike | Mapping[str, ImageLike], precision: str = "float32") -> Prediction:
        """Labels of one image, of any size.

        Args:
            image: a path, PIL image or (H, W, C) uint8 array; a mapping by input name for nets with several inputs.
                Of an input with `bands` a raster's path, or an array of (H, W, C) numbers with these bands alone.
                Depth (an input with `log`) is an array of (H, W) numbers in mm, 0 where nothing was measured.
            precision: "float32", "bfloat16" or "auto".

        Returns:
            The prediction of the net's task (its first, where it has several: see `predict_tasks`).

        Raises:
            DataError: an image that cannot be read.
            OptionError: images that are not of the net's inputs; another precision.
            GeometryError: too little padding for the size.
        """
        return next(iter(self.predict_tasks(image, precision).values()))

    def predict_tasks(
        self, image: ImageLike | Mapping[str, ImageLike], precision: str = "float32"
    ) -> dict[str, Prediction]:
        """As `predict`, for every task by name; raises as it does."""
        inputs = self.inputs(image)
        (_, tasks), *_ = coarse_scores(self.engine(precision), [(None, inputs)])
        return self.predictions(inputs, tasks)

    def engine(self, precision: str = "float32") -> Engine:
        """What `predict` runs the net with; made anew when the net's weights have changed.

        Changes are seen as torch counts them. Of those that it does not count (through ``.data``), those of single
        numbers of a large weight may be missed.

        Args:
            precision: "float32", "bfloat16" or "auto".

        Raises:
            OptionError: another precision.
        """
        state = _state([*self.net.parameters(), *self.net.buffers()])
        if self._state != state:
            self._engines, self._state = {}, state
        if precision == "auto":
            precision = resolve(precision, next(self.net.parameters()).device)
        if precision not in self._engines:
            self._engines[precision] = engine(self.net, "torch", precision)
        return self._engines[precision]

    def scores(self, image: ImageLike | Mapping[str, ImageLike], precision: str = "float32") -> NDArray[np.float32]:
        """(K, H, W) float32 scores of one image; raises as `predict`."""
        return self.predict(image, precision).scores()

    def predictions(self, inputs: Mapping[str, Values], tasks: Mapping[str, CoarseScores]) -> dict[str, Prediction]:
        """Predictions by task from the net's coarse scores."""
        (name, options), *_ = self.net.options.inputs.items()
        drawn = drawable(inputs[name], options)
        return {task: Prediction(drawn, coarse, self.label_sets[task]) for task, coarse in tasks.items()}

    def inputs(self, image: ImageLike | Mapping[str, ImageLike]) -> dict[str, Values]:
        """Checked (H, W, C) arrays by input name; files are read as those of the training were."""
        wanted = self.net.options.inputs
        given = dict(image) if isinstance(image, Mapping) else {next(iter(wanted)): image}
        if set(given) != set(wanted):
            raise OptionError(f"images for {', '.join(given)}; the net's inputs are {', '.join(wanted)}")
        arrays: dict[str, Values] = {}
        for name, options in wanted.items():
            value = given[name]
            if options.bands and isinstance(value, str | Path):
                arrays[name] = BandsReader(options.bands).read(Path(value))
                continue
            if options.log and isinstance(value, str | Path):
                arrays[name] = DepthReader().read(Path(value))
                continue
            if options.log or options.bands:
                arrays[name] = _measured(name, value, options)
                continue
            ready = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape[2:] == (options.channels,)
            array = value if ready else as_image(value)
            if not isinstance(array, np.ndarray) or array.shape[2] != options.channels:
                raise OptionError(
                    f"image {name!r} is RGB; the net takes an (H, W, {options.channels}) uint8 array there"
                )
            arrays[name] = array
        return arrays


def _state(weights: Sequence[Tensor]) -> tuple[list[tuple[int, int]], bytes]:
    """What changes when weights do: where they lie, torch's counts of changes, and some of the numbers."""
    counts = [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in weights]
    probes = torch.cat([_probe(each.detach()) for each in weights])
    return counts, probes.cpu().numpy().tobytes()


def _probe(numbers: Tensor) -> Tensor:
    """Some of them, float32."""
    if numbers.numel() > SMALL and numbers.untyped_storage().nbytes() >= numbers.nbytes:
        numbers = torch.as_strided(numbers, (PROBED,), (numbers.numel() // PROBED,), numbers.storage_offset())
    return numbers.flatten().float()


def _measured(name: str, value: object, options: InputOptions) -> Values:
    """Numbers of any real type, (H, W, C) or, of one channel, (H, W) -> (H, W, C) float32."""
    shapes = [(options.channels,), *([()] if options.channels == 1 else [])]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "uif" or value.shape[2:] not in shapes:
        found = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        shape = "(H, W)" if options.channels == 1 else f"(H, W, {options.channels})"
        what = "depth in mm" if options.log else "the bands of the files it was trained on"
        raise OptionError(f"input {name!r} is {found}; expected an array of {shape} numbers, such as {what}")
    if value.ndim < 2 or not np.isfinite(value).all():
        raise OptionError(f"input {name!r} is not two-dimensional or not finite; put 0 where nothing was measured")
    return cast(Values, value.astype(np.float32).reshape(*value.shape[:2], -1))


def drawable(image: Values, options: InputOptions) -> Array:
    """An input as a picture shows it.

    Measured values are stretched from two deviations below the mean of what the net was trained on to two above; of
    several channels the chosen ones are shown (`InputOptions.preview`), else the first as grey.
    """
    chosen = [options.bands.index(band) for band in options.preview]
    if not chosen:
        chosen = list(range(options.channels)) if options.channels in (1, 3) else [0]
    image = image[:, :, chosen]
    if image.dtype == np.uint8:
        return image
    values = np.log(np.maximum(image, 1)) if options.log else image.astype(np.float32)
    mean, std = np.array(options.mean, np.float32)[chosen], np.array(options.std, np.float32)[chosen]
    return np.clip((values - mean) * (255 / 4 / std) + 127.5, 0, 255).astype(np.uint8)


def load(path: str | Path) -> Model | Any:
    """Read a model file.

    Returns:
        An FCN's `Model`; of a convolutional classifier its `DenseModel`. For type checkers it is the former: code for
        the latter calls `DenseModel.load`.

    Raises:
        ModelFileError: missing, damaged, not a fullconv model, or of a later format.
    """
    if read_header(path).get("kind") == "classifier":
        from fullconv.inference.heatmap import DenseModel

        return DenseModel.load(path)
    return Model.load(path)
