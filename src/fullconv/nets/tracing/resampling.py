"""Calls that move a window over a map, pad or resample it: their effects on its dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

from fullconv.fields import Fields
from fullconv.geometry import Window
from fullconv.nets.tracing.calls import WINDOWS, Call
from fullconv.nets.tracing.effects import Effect, Rule, kept, mixed
from fullconv.nets.tracing.graph import Shape

WRAPS = "pads with the opposite side of the map"

LARGEST_FACTOR = 64
"""In a ratio of interpolation: places closer to whole numbers than 1/64 float32 may round to the wrong cell."""

LARGEST_EXACT = 40
"""Up to this factor torch, which multiplies in float32 and rounds down, finds the nearest of up to 2**14 cells."""


def _windows(call: Call, old: Shape, _: Shape) -> list[Effect] | None:
    """Windows over the last two dimensions; convolutions mix the one before."""
    rank = len(old)
    effects = mixed(rank, [rank - 3] if call.name in ("conv2d", "conv_transpose2d") else [])
    mode = call.options.get("padding_mode", "zeros")
    for dim, window in zip((rank - 2, rank - 1), call.windows(), strict=True):
        fields = Fields.of(window)
        if mode == "circular" and window.padding:
            effects[dim] = Effect(dim, None, WRAPS)
            continue
        if mode != "zeros":
            # Of an even kernel, "same" pads the end by one more.
            end = window.dilation * (window.kernel - 1) - window.padding
            stop = max(window.padding, end) if call.options.get("padding") == "same" else window.padding
            fields = _mirrored(window.padding, stop).then(Fields.of(replace(window, padding=0)))
        effects[dim] = Effect(dim, fields)
    return effects


def _pad(call: Call, old: Shape, _: Shape) -> list[Effect]:
    sides = list(call.options["pad"])
    mode = call.options.get("mode", "constant")
    effects = kept(len(old))
    for number, (start, stop) in enumerate(zip(sides[::2], sides[1::2], strict=True)):
        dim = len(old) - 1 - number
        if mode == "constant" or start == stop == 0:
            effects[dim] = Effect(dim, Fields((-start,), (1 - start,)))
        elif mode == "circular":
            effects[dim] = Effect(dim, None, WRAPS)
        else:
            effects[dim] = Effect(dim, _mirrored(start, stop))
    return effects


def _adaptive(call: Call, old: Shape, new: Shape) -> list[Effect]:
    effects = kept(len(old))
    wanted = call.options.get("output_size")
    wanted = wanted if isinstance(wanted, Sequence) else (wanted, wanted)
    for dim, cells in zip((len(old) - 2, len(old) - 1), wanted, strict=True):
        if cells is not None:
            fields = adaptive_fields(old[dim], new[dim])
            whole = Effect(dim, None, "pools over the whole map")
            effects[dim] = whole if cells == 1 else Effect(dim, fields, "has windows that grow with the map")
    return effects


def _interpolate(call: Call, old: Shape, new: Shape) -> list[Effect] | None:
    options, effects = call.options, kept(len(old))
    mode = options.get("mode", "nearest")
    if mode not in ("nearest", "nearest-exact", "bilinear", "bicubic", "area") or options.get("antialias"):
        return None
    fixed = options.get("recompute_scale_factor") or mode == "area"
    scales = None if fixed else options.get("scale_factor")
    for dim in range(2, len(old)):
        size, cells = old[dim], new[dim]
        scale = scales[dim - 2] if isinstance(scales, Sequence) else scales
        ratio = Fraction(size, cells) if scale is None else _ratio(scale)
        if options.get("align_corners") and size != cells:
            effects[dim] = Effect(dim, None, "aligns the corners of maps, by a ratio that depends on their size")
            continue
        reason = ""
        if scale is None and 1 not in (ratio.numerator, ratio.denominator):
            reason = f"resizes by a ratio that depends on the size of the map ({cells}/{size} here)"
        elif scale is not None and scale != float(1 / ratio):
            reason = f"resizes by {scale:g}, which is no ratio of small numbers"
        fields = adaptive_fields(size, cells) if mode == "area" else _resampled(ratio, mode)
        effects[dim] = Effect(dim, fields, reason)
    return effects


def _ratio(scale: float) -> Fraction:
    """The inverse of a factor, as a ratio of small numbers that is near."""
    if scale < 1:
        return Fraction(1 / scale).limit_denominator(LARGEST_FACTOR)
    return 1 / Fraction(scale).limit_denominator(LARGEST_FACTOR)


def _shuffle(call: Call, old: Shape, new: Shape) -> list[Effect]:
    """Pixels from channels, or the reverse."""
    rank, up = len(old), call.name == "pixel_shuffle"
    effects = mixed(rank, [rank - 3])
    for dim in (rank - 2, rank - 1):
        factor = max(old[dim], new[dim]) // min(old[dim], new[dim])
        effects[dim] = Effect(dim, Fields.of(Window(factor, factor, transposed=up)))
    return effects


def adaptive_fields(size: int, cells: int) -> Fields:
    """The windows of an adaptive pooling of `size` inputs to `cells`: cell i reads [floor(i n / m), ceil((i+1) n / m)).

    >>> adaptive_fields(13, 6).field.size, adaptive_fields(13, 6).stride
    (3, Fraction(13, 6))
    """
    ratio = Fraction(size, cells)
    units = range(ratio.denominator)
    return Fields(tuple(floor(i * ratio) for i in units), tuple(ceil((i + 1) * ratio) for i in units), ratio.numerator)


def _resampled(ratio: Fraction, mode: str) -> Fields:
    """Interpolation: unit i lies at ratio (i + 1/2) - 1/2 of the input, or, of "nearest", at ratio i."""
    starts, stops = [], []
    half = Fraction(1, 2)
    for unit in range(ratio.denominator):
        place = unit * ratio if mode == "nearest" else (unit + half) * ratio - (half if "nearest" not in mode else 0)
        first = last = floor(place)
        if "nearest" not in mode:
            wide = mode == "bicubic" and place.denominator > 1
            first, last = first - wide, ceil(place) + wide
        elif place.denominator == 1 and not _exact(ratio):
            first -= 1
        starts.append(first)
        stops.append(last + 1)
    return Fields(tuple(starts), tuple(stops), ratio.numerator)


def _exact(ratio: Fraction) -> bool:
    """Whether torch finds the nearest cell of every unit: else it may take the one before, by rounding."""
    whole = ratio.numerator == 1 and ratio.denominator <= LARGEST_EXACT
    return whole or ratio.denominator & (ratio.denominator - 1) == 0


def _mirrored(start: int, stop: int) -> Fields:
    """Padding by reflection or repetition: units near either end read back into the map, and count for all."""
    return Fields((-start - 2 * max(stop, 0),), (1 - start + 2 * max(start, 0),))


RESAMPLING: dict[str, Rule] = {
    **dict.fromkeys(WINDOWS, _windows),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _shuffle),
    "interpolate": _interpolate,
    "pad": _pad,
}
"""By the name of the call."""
