"""Pictures to time a net on: of a folder, cut to a size, or smooth noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fullconv.data.image import find_images
from fullconv.data.sample import Values
from fullconv.errors import DataError, OptionError, printable
from fullconv.inference.model import Model
from fullconv.nets import FCN, InputOptions
from fullconv.nets.rectangles import Size
from fullconv.nets.unit_scale import deviations

TIMED, SAMPLES = 4, 8
"""Images that are labelled in turn, and further ones that int8 is calibrated on."""

LONGEST = 512
"""Rows and columns of the latter, at most."""

SEED = 0


@dataclass(frozen=True)
class Pictures:
    """Inputs of a net.

    Attributes:
        inputs: the net's.
        found: those of a folder, (H, W, C) by input name; empty: noise.
    """

    inputs: dict[str, InputOptions]
    found: list[dict[str, Values]]

    @classmethod
    def of(cls, net: FCN, folder: Path | None) -> Pictures:
        """The first pictures of a folder, read as the net's own.

        Raises:
            DataError: no folder, no pictures in it, or one that cannot be read.
            OptionError: a net with several inputs, which pictures of one kind do not fill.
        """
        inputs = dict(net.options.inputs)
        if folder is None:
            return cls(inputs, [])
        if len(inputs) > 1:
            raise OptionError(
                f"--images {printable(folder)} for a net with the inputs {', '.join(inputs)}; leave it out"
            )
        if not folder.is_dir():
            raise DataError(f"{printable(folder)} is no folder; expected one with images")
        paths = list(islice(find_images(folder), TIMED + SAMPLES))
        if not paths:
            raise DataError(f"{printable(folder)} holds no images; expected JPEG, PNG, TIFF, WebP, BMP or .npy")
        model = Model(net)
        return cls(inputs, [model.inputs(path) for path in paths])

    def cut(self, size: Size) -> Iterator[dict[str, Values]]:
        """All of one size (H, W): the middle of those that are larger; smaller ones go on as in mirrors."""
        if not self.found:
            generator = np.random.default_rng(SEED)
            for _ in range(TIMED + SAMPLES):
                yield {name: noise(each, size, generator) for name, each in self.inputs.items()}
        for image in self.found:
            yield {name: fitted(each, size) for name, each in image.items()}


def write_images(pictures: Pictures, size: Size, folder: Path) -> tuple[Path, Path]:
    """Files of the images to label, and of those to calibrate on: the same ones where there are no more."""
    from safetensors.numpy import save_file

    images = list(islice(pictures.cut(size), TIMED))
    samples = list(pictures.cut((min(size[0], LONGEST), min(size[1], LONGEST))))
    files = folder / "images.safetensors", folder / "samples.safetensors"
    for file, chosen in zip(files, (images, samples[TIMED:] or samples), strict=True):
        named = {f"{n}.{name}": each for n, image in enumerate(chosen) for name, each in image.items()}
        save_file({key: np.ascontiguousarray(each) for key, each in named.items()}, file)
    return files


def fitted(image: Values, size: Size) -> Values:
    """The middle of an image (H, W, C), or the image and its mirror images: (h, w, C)."""
    for axis, wanted in enumerate(size):
        there = image.shape[axis]
        at = (np.arange(wanted) + (there - wanted) // 2) % (2 * there)
        image = image.take(np.minimum(at, 2 * there - 1 - at), axis)
    return image


def noise(options: InputOptions, size: Size, generator: np.random.Generator) -> Values:
    """(H, W, C) of the mean and deviation that the net expects, coarse and fine; uint8 where it takes pictures."""
    values: NDArray[np.float32] = np.zeros((*size, options.channels), np.float32)
    for cells, weight in ((8, 0.8), (64, 0.5), (512, 0.33)):
        coarse = generator.standard_normal((*(min(cells, n) for n in size), options.channels), np.float32)
        values += weight * _stretched(coarse, size)
    values = values * np.array(deviations(options), np.float32) + np.array(options.mean, np.float32)
    if options.log:
        return np.exp(values)
    return values if options.bands else values.clip(0, 255).astype(np.uint8)


def _stretched(coarse: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """(h, w, C) -> (H, W, C), linear between cells."""
    for axis, wanted in enumerate(size):
        at = np.linspace(0, coarse.shape[axis] - 1, wanted, dtype=np.float32)
        low = np.floor(at).astype(np.int64)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, coarse.shape[axis] - 1)
        coarse = coarse.take(low, axis) * (1 - part) + coarse.take(high, axis) * part
    return coarse
