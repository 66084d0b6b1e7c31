"""Bounds on how far the steps of a net from a file may resize its maps.

Tracing follows the fields of every unit that is told apart (`fullconv.fields`): unbounded, a few bytes could ask for
billions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from fullconv.errors import GeometryError
from fullconv.nets.functions import known_name
from fullconv.nets.layer_table import MAX_FACTOR, MODES, NUMBER, WINDOW, shown
from fullconv.nets.tracing.calls import SIGNATURES, WINDOWS, Call, call_of_layer
from fullconv.nets.wired import Step, Wired

MAX_STRIDE = 1 << 256
"""By which a map may be coarser than the input; slices of channels count too."""

MAX_TAPS = 4096
"""Kernel times stride of a transposed convolution, along one axis."""

Grid = tuple[int, int]
"""Of a map along one axis: `period` units lie on every `step` pixels of the input, as in `Fields`."""


def check_resizing(net: Wired) -> None:
    """Bounds on strides and factors along every path, by which tracing such a net stays cheap.

    Raises:
        GeometryError: a map that is finer than the input, or coarser, by too much.
    """
    grids: dict[str, tuple[Grid, ...]] = dict.fromkeys(net.inputs, ((1, 1), (1, 1)))
    for step in net.steps:
        sources = [grids[name] for name in step.refs()]
        found = []
        for axis, (finer, coarser) in enumerate(_resizing(net, step)):
            period = lcm(*(each[axis][0] for each in sources))
            stride = max((each[axis][1] for each in sources), default=1)
            turns = period // gcd(period, coarser)
            found.append((turns * finer, turns * coarser // period * stride))
        grids[step.name] = tuple(found)
        if max(period for period, _ in found) > MAX_FACTOR or max(stride for _, stride in found) > MAX_STRIDE:
            raise GeometryError(
                f"step {step.name!r} resizes too far; expected maps up to {MAX_FACTOR} times finer, and "
                f"2^{MAX_STRIDE.bit_length() - 1} times coarser, than what they are made of: leave layers out"
            )


def _resizing(net: Wired, step: Step) -> tuple[Grid, Grid]:
    """What a step makes of one unit along (rows, columns): units for how many."""
    call = _call(net, step)
    options = call.options
    if call.name in WINDOWS:
        windows = call.windows()
        if any(window.transposed and window.kernel * window.stride > MAX_TAPS for window in windows):
            raise GeometryError(f"step {step.name!r} is a transposed convolution too large; expected {MAX_TAPS} taps")
        rows, columns = ((w.stride, 1) if w.transposed else (1, w.stride) for w in windows)
        return rows, columns
    one = (1, 1)
    if call.name == "interpolate":
        return _interpolation(step, options)
    if call.name == "pixel_shuffle":
        one = (_literal(step, options["upscale_factor"]), 1)
    elif call.name == "pixel_unshuffle":
        one = (1, _literal(step, options["downscale_factor"]))
    elif call.name == "getitem":
        one = (1, max((_literal(step, each.step or 1) for each in _slices(step.args)), default=1))
    return one, one


def _call(net: Wired, step: Step) -> Call:
    """As `fullconv.nets.tracing.calls.call_of` gives it, with `Ref`s where that has values."""
    if step.kind == "layer":
        layer = net.layers[step.target]
        call = call_of_layer(layer)
        factors = {key: value for key, value in vars(layer).items() if key in ("upscale_factor", "downscale_factor")}
        return Call(call.name, {**call.options, **factors}, layer)
    name = known_name(step.target)
    given = dict(zip(SIGNATURES.get(name, "").split(), step.args, strict=False))
    if name == "conv2d":
        given["kernel_size"] = 1  # its weights have it, and it moves no unit
    return Call(name, {**given, **step.options})


def _interpolation(step: Step, options: Mapping[str, Any]) -> tuple[Grid, Grid]:
    scale, mode = options.get("scale_factor"), options.get("mode", "nearest")
    by_size = any(options.get(key) for key in ("size", "align_corners", "recompute_scale_factor"))
    scales: list[Any] = list(scale) if isinstance(scale, list | tuple) else [scale]
    if by_size or mode not in MODES or not all(NUMBER.fits(each) and 1e-3 <= each <= MAX_FACTOR for each in scales):
        raise GeometryError(
            f"step {step.name!r} resizes otherwise than by a factor of 0.001 to {MAX_FACTOR}, corners not aligned; "
            f"give scale_factor and one of the modes {', '.join(MODES)}"
        )
    ratios = [Fraction(each).limit_denominator(4096) for each in scales]
    rows, columns = ((ratio.numerator, ratio.denominator) for ratio in (ratios[0], ratios[-1]))
    return rows, columns


def _literal(step: Step, value: Any) -> int:
    if not WINDOW.fits(value):
        raise GeometryError(f"step {step.name!r} resizes by {shown(value)}; expected {WINDOW.text}, written out")
    return int(value)


def _slices(value: Any) -> Iterator[slice]:
    if isinstance(value, slice):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _slices(each)
