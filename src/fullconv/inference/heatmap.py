"""Heat maps: where in a picture a class is seen, by a convolutional classifier or an FCN.

Source: Long et al. 2015, section 3.1 and figure 2 (a classifier with its fully connected layers made convolutional
gives a heat map in one pass).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fullconv.data.image import as_image
from fullconv.data.sample import Array
from fullconv.errors import DataError, OptionError, printable, unknown_name
from fullconv.files import atomic
from fullconv.inference.batches import to_tensor
from fullconv.inference.model import CONFIDENCE_ROWS, ImageLike, Model
from fullconv.labels import LabelSet
from fullconv.nets.dense_classifier import DenseClassifier
from fullconv.nets.precision import inference
from fullconv.report.heat import OPACITY, heat_overlay, heat_png
from fullconv.report.pictures import shown_names
from fullconv.weights.classifierfile import read_classifier, write_classifier

LEAST_SCALE = 0.5
"""Colours reach at least this probability: what is nowhere more likely must not look like a find."""

_NEAREST = 10


@dataclass(frozen=True, eq=False, repr=False)
class Heatmap:
    """How likely one class is at every place of one image.

    Attributes:
        name: of the class.
        cells: (h, w) float32 of 0..1: the softmax probability of the class in each cell's window.
        image: (H, W, 3) uint8 RGB.
        window: (height, width) in pixels of what one cell classifies; (1, 1) for an FCN, whose cells are pixels.
        stride: (vertical, horizontal) pixels from one window to the next; that of cell (0, 0) begins at pixel (0, 0).
    """

    name: str
    cells: NDArray[np.float32]
    image: Array
    window: tuple[int, int]
    stride: tuple[int, int]

    def __repr__(self) -> str:
        return f"Heatmap({self.name!r}, {self.cells.shape[0]} x {self.cells.shape[1]} cells, peak {self.peak:.3f})"

    @property
    def peak(self) -> float:
        """The highest probability of any cell."""
        return float(self.cells.max())

    @property
    def position(self) -> tuple[int, int]:
        """(row, column) of the first pixel of the peak's window."""
        row, column = np.unravel_index(int(self.cells.argmax()), self.cells.shape)
        return int(row) * self.stride[0], int(column) * self.stride[1]

    @property
    def highest(self) -> float:
        """The probability of the brightest colour: the peak, at least `LEAST_SCALE`."""
        return max(self.peak, LEAST_SCALE)

    def pixels(self) -> NDArray[np.float32]:
        """(H, W) float32: each cell's value at the centre of its window, linear in between, constant beyond the
        outermost ones.

        Cell i is centred on pixel coordinate i stride + (window - 1) / 2; pixel y has its centre at y.
        """
        values = self.cells
        for axis in (0, 1):
            places = (np.arange(self.image.shape[axis]) - (self.window[axis] - 1) / 2) / self.stride[axis]
            places = places.clip(0, self.cells.shape[axis] - 1)
            low = np.floor(places).astype(np.intp)
            high = np.minimum(low + 1, self.cells.shape[axis] - 1)
            share = np.expand_dims((places - low).astype(np.float32), 1 - axis)
            values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
        return values

    def overlay(self, opacity: float = OPACITY) -> Array:
        """(H, W, 3) uint8: the image with the probabilities over it, see `fullconv.report.heat.heat_overlay`.

        Args:
            opacity: 0..1, of the `highest` probability.
        """
        return heat_overlay(self.image, self.pixels(), self.highest, opacity)

    def save(self, path: str | Path, opacity: float = OPACITY) -> None:
        """Write the overlay as a PNG, with title and colour bar; see `save_heatmaps`."""
        save_heatmaps(path, [self], opacity)


@dataclass(eq=False, repr=False)
class DenseModel:
    """A classifier that was made convolutional.

    Args:
        net: as `fullconv.convolutionalize` gives it.
    """

    net: DenseClassifier

    def __repr__(self) -> str:
        return f"DenseModel({self.net.extra_repr()})"

    @classmethod
    def load(cls, path: str | Path) -> DenseModel:
        """Read a classifier file; raises ModelFileError."""
        return cls(read_classifier(path))

    def save(self, path: str | Path) -> None:
        """Write a classifier file, atomically."""
        write_classifier(path, self.net)

    def heatmap(self, image: ImageLike, name: str) -> Heatmap:
        """Where a class is seen; see `heatmaps`."""
        return heatmaps(self, image, name)[0]

    def top(self, image: ImageLike, n: int = 9) -> list[Heatmap]:
        """The n classes whose highest probability in any cell is highest, in that order; see `heatmaps`."""
        return heatmaps(self, image, n=n)


def heatmaps(
    model: DenseModel | Model, image: ImageLike, name: str | None = None, *, n: int = 9
) -> list[Heatmap]:  # fmt: skip
    """The heat map of one class, or of the n classes whose highest probability anywhere in the image is highest.

    Args:
        model: a classifier, or an FCN (its first task): then every pixel is a cell.
        image: a path, PIL image or (H, W, C) uint8 array; for a classifier at least as large as its input size.
        name: of a class, or a part of just one class's name, in upper or lower case.
        n: how many where no name is given.

    Raises:
        DataError: an image smaller than the classifier's windows, or in colour for a classifier of grey pictures.
        OptionError: no such class, or several; n below 1; a classifier that does not know how pictures are normalised.
    """
    if n < 1:
        raise OptionError(f"{n} classes; expected at least 1")
    seen = _seen_by_classifier(model.net, image) if isinstance(model, DenseModel) else _seen_by_fcn(model, image)
    if name is not None:
        chosen = [class_number(name, seen.names)]
    else:
        peaks = np.max([block.max(axis=(1, 2)) for block in seen.blocks()], axis=0)
        chosen = [int(k) for k in np.argsort(-peaks, kind="stable")[:n]]
    cells = zip(*([block[k] for k in chosen] for block in seen.blocks()), strict=True)
    return [
        Heatmap(seen.names[k], np.concatenate(rows), seen.image, seen.window, seen.stride)
        for k, rows in zip(chosen, cells, strict=True)
    ]


def save_heatmaps(path: str | Path, maps: Sequence[Heatmap], opacity: float = OPACITY) -> None:
    """Write heat maps of one image as one PNG: each titled with its peak, on its own scale of colours.

    Raises:
        OptionError: a path that does not end in .png.
    """
    if Path(path).suffix.lower() != ".png":
        raise OptionError(f"{printable(path)} does not end in .png; heat maps are PNG")
    png = heat_png([(f"{_shown(e.name)}   {100 * e.peak:.1f} %", e.overlay(opacity), e.highest) for e in maps])
    with atomic(path, durable=False) as temporary:
        temporary.write_bytes(png)


def class_number(name: str, names: Sequence[str]) -> int:
    """The class of a name, or of a part of just one name in upper or lower case.

    Raises:
        OptionError: none or several.

    >>> class_number("tabby", ["tiger cat", "Tabby cat"])
    1
    """
    if name in names:
        return names.index(name)
    wanted = name.casefold()
    found = [k for k, each in enumerate(names) if wanted and wanted in each.casefold()]
    whole = [k for k in found if names[k].casefold() == wanted]
    if len(found) == 1 or len(whole) == 1:
        return (whole or found)[0]
    if found:
        listed = ", ".join(repr(names[k]) for k in found[:_NEAREST])
        more = f" and {len(found) - _NEAREST} more" if len(found) > _NEAREST else ""
        raise OptionError(f"class {name!r} may be {listed}{more}; give more of the name")
    raise unknown_name("class", name, difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0))


@dataclass(frozen=True)
class _Seen:
    """What a model sees of an image.

    Attributes:
        names: of its classes.
        image, window, stride: as in `Heatmap`.
        blocks: gives the probabilities from top to bottom in blocks of rows, (K, rows, w) float32.
    """

    names: Sequence[str]
    image: Array
    window: tuple[int, int]
    stride: tuple[int, int]
    blocks: Callable[[], Iterator[NDArray[np.float32]]]


def _seen_by_classifier(net: DenseClassifier, image: ImageLike) -> _Seen:
    if net.inputs is None:
        raise OptionError(
            "this classifier does not know how pictures are normalised; make it with convolutionalize(..., "
            "inputs=InputOptions(mean, std)), of its training, for values of 0..255"
        )
    what = f"{printable(image)}: " if isinstance(image, str | Path) else ""
    if net.channels not in (1, 3) or net.inputs.log:
        raise OptionError("this classifier takes no pictures in colour or grey; call its net with a tensor")
    rgb = as_image(image)
    (height, width), least = rgb.shape[:2], net.input_size
    if height < least[0] or width < least[1]:
        raise DataError(
            f"{what}the image is {height} x {width} pixels (H x W), the classifier takes {least[0]} x {least[1]} or "
            "more; enlarge it"
        )
    if net.channels == 1 and not (rgb == rgb[:, :, :1]).all():
        raise DataError(f"{what}the image is in colour, the classifier takes grey; convert it")
    device = next(net.parameters()).device
    with inference(net):
        scores = net(to_tensor([rgb[:, :, : net.channels]], device))[0].float()
        values = _probabilities(net, scores).cpu().numpy()
    return _Seen(net.names, rgb, least, net.stride, lambda: iter([values]))


def _probabilities(net: DenseClassifier, scores: Tensor) -> Tensor:
    """(K, h, w) outputs -> probabilities: of the classes against each other, or each by itself where the net ends in a
    sigmoid or has one output."""
    last = net.net.steps[-1]
    if last.target.endswith("sigmoid") or isinstance(dict(net.net.layers.items()).get(last.target), nn.Sigmoid):
        return scores
    if len(scores) == 1:
        return scores.sigmoid()
    # A classifier may end in a softmax itself, or in its logarithm, which another softmax does not change.
    given = bool((scores >= 0).all()) and bool(((scores.sum(0) - 1).abs() < 1e-3).all())
    return scores if given else scores.softmax(0)


def _seen_by_fcn(model: Model, image: ImageLike) -> _Seen:
    prediction = model.predict(image)
    coarse, drawn = prediction.coarse, prediction.image
    height = coarse.size[0]

    def blocks() -> Iterator[NDArray[np.float32]]:
        for top in range(0, height, CONFIDENCE_ROWS):
            with torch.inference_mode():
                rows = (top, min(top + CONFIDENCE_ROWS, height))
                scores = coarse.head.rows(coarse.scores, coarse.size, rows)
                yield scores[0].softmax(0).cpu().numpy()

    rgb = drawn if drawn.shape[2] == 3 else np.repeat(drawn, 3, axis=2)
    return _Seen(prediction.label_set.names, rgb, (1, 1), (1, 1), blocks)


def _shown(name: str) -> str:
    """A class's name for a title: shortened, and a question mark where the charts' font cannot draw it."""
    shown = shown_names(LabelSet((name,)))[0]
    return "?" if shown == "0" != name else shown
