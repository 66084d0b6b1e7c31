"""Augmentation of an image and its mask together: a pure function of the sample and a random generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fullconv.data.sample import Array, InputKind, Sample, Values
from fullconv.errors import OptionError
from fullconv.kinds import require_kinds
from fullconv.labels import VOID

FILL = 124
"""Grey of the margin around pictures smaller than the crop; the mask is void there."""

LARGEST_SHIFT = 4096
"""Pixels that a sample may be translated by, at most."""


@dataclass(frozen=True)
class Augmentation:
    """What is changed at random.

    Attributes:
        crop: (H, W) of the result, in pixels; None: the sample keeps its size, and `scale` must be (1, 1).
        scale: range of the factor by which the sample is enlarged before the crop, drawn log-uniformly.
        flip: mirror left and right with probability 1/2.
        jitter: largest relative change of brightness, contrast and saturation of pictures, 0..1; measured values
            stay as they are.
        shift: largest random translation in pixels of the sample, 0..4096, in each direction along each axis, before it
            is cropped; what moves in from outside is margin, void in the mask (Long et al. 2015, section 4.4, where
            it is called jittering and goes up to 32 pixels).
    """

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    jitter: float = 0.0
    shift: int = 0

    def __post_init__(self) -> None:
        require_kinds(Augmentation, vars(self))
        low, high = self.scale
        if not 0.1 <= low <= high <= 10:
            raise OptionError(f"scale {self.scale}; expected 0.1 <= low <= high <= 10")
        if self.crop is None and self.scale != (1, 1):
            raise OptionError(f"scale {self.scale} without a crop; give a crop, or leave the scale at 1")
        if self.crop is not None and min(self.crop) < 1:
            raise OptionError(f"crop {self.crop}; expected (H, W) of at least 1 x 1")
        if not 0 <= self.jitter <= 1:
            raise OptionError(f"jitter {self.jitter}; expected 0..1")
        if not 0 <= self.shift <= LARGEST_SHIFT:
            raise OptionError(f"shift {self.shift}; expected 0..{LARGEST_SHIFT}")


def augment(
    sample: Sample, options: Augmentation, rng: np.random.Generator, kinds: Mapping[str, InputKind] | None = None
) -> Sample:
    """A changed copy of the sample; images are resampled bilinearly, masks by nearest pixel.

    Args:
        kinds: of its inputs; default: photographs all.

    The part of the image that the crop shows is cut out before it is scaled, so that the cost is that of the crop.
    """
    kinds = kinds or {}
    inputs, masks = dict(sample.inputs), dict(sample.masks)
    if options.crop is not None or options.shift:
        shown = options.crop or sample.size
        if options.crop is None:
            boxes = [_Span(0.0, float(size), size, 0) for size in shown]
        else:
            factor = float(np.exp(rng.uniform(*np.log(options.scale))))
            boxes = [_span(size, crop, factor, rng) for size, crop in zip(sample.size, shown, strict=True)]
        if options.shift:
            moves = rng.integers(-options.shift, options.shift + 1, 2).tolist()
            boxes = [_moved(*each) for each in zip(boxes, sample.size, moves, strict=True)]
        inputs = {
            name: _resample(image, boxes, shown, margin(image, kinds.get(name))) for name, image in inputs.items()
        }
        masks = {name: _resample(mask, boxes, shown, VOID) for name, mask in masks.items()}
    if options.flip and rng.random() < 0.5:
        inputs = {name: image[:, ::-1] for name, image in inputs.items()}
        masks = {name: mask[:, ::-1] for name, mask in masks.items()}
    if options.jitter:
        inputs = {
            name: _jitter(image, options.jitter, rng) if _is_photo(image, kinds.get(name)) else image
            for name, image in inputs.items()
        }
    return Sample(sample.name, inputs, masks)


def margin(image: Values, kind: InputKind | None = None) -> Values | int:
    """What surrounds an image that is too small: `FILL` around a photograph, the mean of each channel around measured
    values, whose range is their own."""
    if _is_photo(image, kind):
        return FILL
    mean: Values = image.mean((0, 1), dtype=np.float64).astype(image.dtype)
    return mean


def _is_photo(image: Values, kind: InputKind | None) -> bool:
    return image.dtype == np.uint8 and (kind is None or kind.photo)


@dataclass(frozen=True)
class _Span:
    """One axis of a crop: source pixels [start, stop) become `size` pixels from `at` on."""

    start: float
    stop: float
    size: int
    at: int


def _span(size: int, crop: int, factor: float, rng: np.random.Generator) -> _Span:
    seen = crop / factor
    if seen <= size:
        start = rng.uniform(0, size - seen)
        if factor == 1:  # whole pixels, so that nothing is resampled
            start = float(round(start))
        return _Span(start, start + seen, crop, 0)
    shown = min(crop, max(1, round(size * factor)))
    return _Span(0.0, float(size), shown, int(rng.integers(0, crop - shown + 1)))


def _moved(span: _Span, size: int, by: int) -> _Span:
    """The same of an axis of `size` pixels that was translated `by` pixels, as far as it still shows the image.

    Crop pixels are whole: like the size of a small image, the image's new border is rounded to them.
    """
    start, stop = span.start - by, span.stop - by
    scale = span.size / (stop - start)
    low, high = max(0.0, start), min(float(size), stop)
    first, last = round((low - start) * scale), round((high - start) * scale)
    return _Span(low, high, max(0, last - first), span.at + first)


def _resample(array: Values, boxes: list[_Span], crop: tuple[int, int], fill: Values | int) -> Values:
    """(H, W[, C]) -> (*crop[, C]): the boxed part, scaled, on a ground of `fill`."""
    rows, columns = boxes
    if not (rows.size and columns.size):  # translated out of sight
        return np.full((*crop, *array.shape[2:]), fill, dtype=array.dtype)
    method = Image.Resampling.NEAREST if array.ndim == 2 else Image.Resampling.BILINEAR
    box = (columns.start, rows.start, columns.stop, rows.stop)
    whole = array.ndim == 2 or (array.shape[2] == 3 and array.dtype == np.uint8)
    planes = [array] if whole else list(np.moveaxis(array, 2, 0))
    parts = [_resized(plane, (columns.size, rows.size), method, box) for plane in planes]
    part = parts[0] if len(planes) == 1 else np.stack(parts, axis=2)
    part = part.reshape(rows.size, columns.size, *array.shape[2:])
    if part.shape[:2] == crop:
        return part
    ground = np.full((*crop, *array.shape[2:]), fill, dtype=array.dtype)
    ground[rows.at : rows.at + rows.size, columns.at : columns.at + columns.size] = part
    return ground


def _resized(
    plane: Values, size: tuple[int, int], method: Image.Resampling, box: tuple[float, float, float, float]
) -> Values:
    """Pillow resamples bytes and floats."""
    if plane.dtype == np.uint8:
        return np.asarray(Image.fromarray(plane).resize(size, method, box))
    wide = np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, method, box))
    return wide if plane.dtype == np.float32 else np.rint(wide).astype(plane.dtype)


def _jitter(image: Array, strength: float, rng: np.random.Generator) -> Array:
    """Brightness and contrast by one table for all channels, saturation for colour images."""
    brightness, contrast, saturation = 1 + rng.uniform(-strength, strength, 3)
    mean = float(image.mean())
    table = (np.arange(256) - mean) * contrast + mean * brightness
    image = np.clip(np.rint(table), 0, 255).astype(np.uint8)[image]
    if image.shape[2] != 3:
        return image
    grey = np.asarray(Image.fromarray(image).convert("L"))
    blended = Image.blend(Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)), Image.fromarray(image), saturation)
    return np.asarray(blended)
