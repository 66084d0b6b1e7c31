"""Dense output from nets that subsample: shift-and-stitch, and its equal in one pass, filter rarefaction.

Convention: unit t of a dense output reads the image pixels [t - P, t - P + R), where R is the net's field and P its
padding on either side, as deep in the net as it may be (a net that crops has P < 0). There are H + 2P - R + 1 units,
fewer where the net pads less at the end, and the net's own unit i is unit f i, f its stride.

Sources: Long et al. 2015, section 3.2 (Shift-and-stitch is filter rarefaction); Giusti et al. 2013 and OverFeat
(Sermanet et al. 2014) for the first; the a trous algorithm (Mallat 1999) for the second.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from math import gcd
from typing import NoReturn, cast

import torch
from torch import Tensor, nn
from torch.fx.node import Node

from fullconv.errors import GeometryError, OptionError, one_line
from fullconv.fields import Fields
from fullconv.geometry import Window
from fullconv.nets.dense_classifier import DenseClassifier
from fullconv.nets.dilated_pool import DilatedAvgPool, DilatedMaxPool
from fullconv.nets.modules import first_channels
from fullconv.nets.trace import Trace, trace
from fullconv.nets.tracing.calls import WINDOWS, Call, call_of
from fullconv.nets.tracing.graph import VALUE
from fullconv.nets.wired import Ref, Step, Wired, layer_name, wired

BATCH_PIXELS = 1 << 18
"""Pixels of shifted images in one pass."""

Place = tuple[tuple[int, int], tuple[int, int]]
"""Of a map in a rarefied net, for rows and columns: (stride that is kept, dilation)."""

TRACED = 512
"""Side of the image at which a net is traced where none is given."""


@torch.no_grad()
def shift_and_stitch(
    net: nn.Module,
    image: Tensor,
    *,
    pixels: int = BATCH_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Run the net on every shift of the image by less than its stride, and interlace the outputs.

    For each of the f x f shifts (y, x) the image moves down by y and right by x, so that unit i is centred f i - x
    pixels from where unit 0 was: the outputs of all shifts together lie on every pixel. Where the net has no padding
    each value is that of the net run on its own window. With padding, values whose field reaches over the border
    (see `interior`) may differ from those of `rarefy`: zeros then stand at other phases of the inner maps.

    Args:
        net: (N, C, H, W) -> (N, K, h, w), in evaluation mode; a `DenseClassifier` takes its own kind of input.
        image: (N, C, H, W) float.
        pixels: of the shifted images in one pass, the bound of the memory it takes.
        progress: called with (shifts done, shifts in all).

    Returns:
        (N, K, H + 2P - R + 1, W + 2P - R + 1); without padding one value for each window.

    Raises:
        GeometryError: a net that is not local, that upsamples, that gives several values, or whose field is larger
            than the image.
    """
    if not isinstance(image, Tensor) or image.ndim != 4:
        found = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise GeometryError(f"{found}; expected an image (N, C, H, W)")
    if isinstance(net, DenseClassifier):
        net.require(image)
        image, net = net.normalise(image), net.net
    if not image.is_floating_point():
        raise GeometryError(f"an image of {image.dtype}; expected floating point numbers, as the net takes them")
    rows, columns = _fields(trace(net, tuple(image.shape)), "shift-and-stitch")
    sizes = _dense_size(rows, image.shape[2]), _dense_size(columns, image.shape[3])
    down, right = rows.step, columns.step
    shifts = [(y, x) for y in range(down) for x in range(right)]
    canvas = (image.shape[2] + down - 1, image.shape[3] + right - 1)
    together = max(1, pixels // (image.shape[0] * canvas[0] * canvas[1]))
    dense: Tensor | None = None
    for first in range(0, len(shifts), together):
        some = shifts[first : first + together]
        moved = image.new_zeros((len(some), *image.shape[:2], *canvas))
        for place, (y, x) in enumerate(some):
            moved[place, :, :, y : y + image.shape[2], x : x + image.shape[3]] = image
        outputs = net(moved.flatten(0, 1))
        if not isinstance(outputs, Tensor):
            raise GeometryError(f"{type(net).__name__} returns several values; wrap it so that it returns one")
        outputs = outputs.view(len(some), image.shape[0], *outputs.shape[1:])
        if dense is None:
            # All shifts together give no more where the net pads less at the end.
            size = [
                min(n, f * (units - 1) + 1) for n, f, units in zip(sizes, (down, right), outputs.shape[3:], strict=True)
            ]
            dense = outputs.new_empty((*outputs.shape[1:3], *size))
        for output, (y, x) in zip(outputs, some, strict=True):
            top, left = -y % down, -x % right
            part = dense[:, :, top::down, left::right]
            # The first unit of a shifted image reads what was moved in; without a shift there is none.
            i, j = (y > 0), (x > 0)
            part.copy_(output[:, :, i : i + part.shape[2], j : j + part.shape[3]])
        if progress is not None:
            progress(first + len(some), len(shifts))
    return cast(Tensor, dense)


def rarefy(
    net: nn.Module, stride: int = 1, *, size: tuple[int, int] | None = None, channels: int | None = None
) -> nn.Module:
    """The net with an output stride of `stride`, at unchanged fields: strides removed, filters dilated.

    Where a layer of stride s loses it, every later filter f becomes f' with f'_ij = f_{i/s, j/s} if s divides both i
    and j, and 0 otherwise (Long et al. 2015, section 3.2): it is dilated by s, poolings likewise, and padding grows
    with the dilation. Strides are kept from the input on as far as they go into `stride`.

    Args:
        net: (N, C, H, W) -> (N, K, h, w); left as it was.
        stride: of the output, a divisor of the net's; 1 is a value a pixel.
        size: (H, W) of an image that the net takes, to trace it; default: twice the input size of a
            `DenseClassifier`, else 512 x 512.
        channels: C; default: what the first convolution takes.

    Returns:
        A `DenseClassifier` of a `DenseClassifier`, else a `Wired` net; weights are copied.

    Raises:
        GeometryError: a layer that is not local, that upsamples or that cannot be dilated.
        OptionError: a stride that does not divide the net's.
    """
    if isinstance(net, DenseClassifier):
        thinned = cast(Wired, rarefy(net.net, stride, size=size or net.roomy, channels=net.channels))
        dense = DenseClassifier(thinned, net.input_size, net.channels, net.names, net.inputs)
        dense.training = dense.normalise.training = net.training
        return dense
    size = size or (TRACED, TRACED)
    geometry = trace(net, (1, channels or first_channels(net), *size))
    whole = _fields(geometry, "rarefaction")
    if not isinstance(stride, int) or stride < 1 or any(fields.step % stride for fields in whole):
        raise OptionError(
            f"stride {stride}; expected a divisor of the net's, {whole[0].step} (vertical) and {whole[1].step}"
        )
    result = _Rarefier(geometry, net, stride).rarefied()
    try:
        rows, columns = trace(result, (1, channels or first_channels(net), *size)).output.fields()
    except GeometryError as error:
        raise GeometryError(
            "cannot rarefy: without their strides, maps that are joined differ in size, for they were padded otherwise "
            f"({one_line(error.__cause__ or error)}); use shift_and_stitch"
        ) from error
    if {rows.stride, columns.stride} != {Fraction(stride)}:
        raise OptionError(
            f"an output stride of {stride} cannot be had from this net's strides: {rows.stride} and {columns.stride} "
            "are next; choose one of them"
        )
    result.training = result.layers.training = result.constants.training = net.training
    return result


def interior(net: nn.Module, image: Tensor) -> tuple[slice, slice]:
    """The (rows, columns) of a dense output whose fields lie within the image: there no padding is seen.

    There `shift_and_stitch` and `rarefy` agree to rounding, whatever the net pads (reference 4.2).

    Raises:
        GeometryError: see `shift_and_stitch`.
    """
    inner = net.net if isinstance(net, DenseClassifier) else net
    fields = _fields(trace(inner, tuple(image.shape)), "a dense output")
    sizes = [_dense_size(f, n) for f, n in zip(fields, image.shape[2:], strict=True)]
    pads = [max(-f.start, 0) for f in fields]
    rows, columns = (slice(pad, max(pad, size - pad)) for pad, size in zip(pads, sizes, strict=True))
    return rows, columns


def _fields(geometry: Trace, purpose: str) -> tuple[Fields, Fields]:
    """(rows, columns) of a net that only subsamples."""
    geometry.require_local(purpose)
    rows, columns = geometry.output.fields()
    if rows.period > 1 or columns.period > 1:
        raise GeometryError(f"{purpose} needs a net that only subsamples; leave the upsampling at its end out")
    return rows, columns


def _dense_size(fields: Fields, size: int) -> int:
    """H + 2P - R + 1; of what a net crops at the end nothing is known."""
    units = size - fields.start + max(-fields.start, 0) - fields.size + 1
    if units < 1:
        raise GeometryError(f"{size} pixels for a field of {fields.size}; use a larger image")
    return units


class _Rarefier:
    """Walks a traced net and writes its steps with smaller strides; per axis it knows (stride kept, dilation)."""

    def __init__(self, geometry: Trace, net: nn.Module, stride: int) -> None:
        self.geometry, self.stride, self.training = geometry, stride, net.training
        self.axes = {layer.node: layer.axes for layer in geometry.layers}
        self.reads = {layer.node: layer.reads for layer in geometry.layers}
        self.reads |= {start: {name: (Fields(), Fields())} for name, start in geometry.traced.inputs.items()}
        self.net = wired(geometry.traced, net)
        self.layers: dict[str, nn.Module] = dict(self.net.layers.items())
        self.steps: list[Step] = []
        self.at: dict[Node, Place] = {}

    def rarefied(self) -> Wired:
        traced, steps = self.geometry.traced, {step.name: step for step in self.net.steps}
        tensors = {layer.node for layer in self.geometry.layers}
        for node in traced.inputs.values():
            self.at[node] = ((1, 1), (1, 1))
        for node in traced.graph.nodes:
            if node.name not in steps:
                continue
            if node not in tensors:
                self.steps.append(steps[node.name])
                continue
            call = call_of(node, traced.root)
            places = {self.at[each] for each in node.all_input_nodes if each in self.at}
            if len(places) > 1:
                self._refuse(
                    node, call, "joins maps that were subsampled in different orders; keep their strides alike"
                )
            place = places.pop()
            dilated = any(rate > 1 for _, rate in place)
            if call.name in WINDOWS:
                self.at[node] = self._window(node, call, steps[node.name], place)
                continue
            if dilated and call.name == "pad":
                steps[node.name] = self._padded(node, call, steps[node.name], place)
            elif not self._keeps_places(node, dilated):
                self._refuse(
                    node, call, "moves positions by itself, which cannot be dilated; use convolutions or pooling"
                )
            self.steps.append(steps[node.name])
            self.at[node] = place
        constants = dict(self.net.constants.items())
        return Wired(self.layers, self.steps, self.net.inputs, self.net.output, constants).pruned()

    def _keeps_places(self, node: Node, dilated: bool) -> bool:
        """Whether a call that moves no window leaves every position where it is, or, undilated, at least the stride."""
        sources = [self.reads[each] for each in node.all_input_nodes if each in self.reads]
        for name, own in self.reads[node].items():
            for axis in range(2):
                before = [cast(Fields, source[name][axis]) for source in sources if name in source]
                after = cast(Fields, own[axis])
                if after.stride != before[0].stride or (dilated and after != reduce(operator.or_, before)):
                    return False
        return True

    def _window(self, node: Node, call: Call, step: Step, place: Place) -> Place:
        if call.name not in ("conv2d", "max_pool2d", "avg_pool2d"):
            self._refuse(node, call, "cannot be dilated; rarefaction takes convolutions, maximum and average pooling")
        if self.axes[node] != (2, 3):
            self._refuse(node, call, "works on a map that is not (N, C, H, W); permute it before")
        windows, after = [], []
        for window, (kept, rate) in zip(call.windows(), place, strict=True):
            keep = gcd(window.stride, self.stride // kept) if rate == 1 else 1
            windows.append(
                replace(
                    window,
                    stride=keep,
                    padding=window.padding * rate,
                    dilation=window.dilation * rate,
                )
            )
            after.append((kept * keep, rate * window.stride // keep))
        rows, columns = windows
        if (rows, columns) != call.windows():
            uneven = any(w.dilation * (w.kernel - 1) % 2 for w in call.windows())
            if call.options.get("padding") == "same" and uneven:
                self._refuse(node, call, "pads its two sides differently; give the padding as a number")
            if not isinstance(node.meta[VALUE], Tensor):
                self._refuse(node, call, "gives the indices of its maxima, which are of the subsampled map")
            step = self._call(node, call, step, (rows, columns))
        self.steps.append(step)
        return after[0], after[1]

    def _call(self, node: Node, call: Call, step: Step, windows: tuple[Window, Window]) -> Step:
        """The same operation with other windows."""
        rows, columns = windows
        stride, padding, dilation, kernel = (
            (getattr(rows, name), getattr(columns, name)) for name in ("stride", "padding", "dilation", "kernel")
        )
        layer: nn.Module
        if call.name == "conv2d" and isinstance(call.layer, nn.Conv2d):
            held = cast(nn.Conv2d, self.layers[step.target])
            layer = nn.Conv2d(
                held.in_channels, held.out_channels, kernel, stride, padding, dilation, held.groups,
                held.bias is not None, held.padding_mode, device="meta",
            )  # fmt: skip
            if not isinstance(held.weight, nn.Parameter):
                self._refuse(node, call, "computes its weights anew in every pass; remove that parametrization")
            layer.weight, layer.bias = held.weight, held.bias
        elif call.name == "conv2d":
            given = dict(zip(("input", "weight", "bias"), step.args, strict=False)) | dict(step.options)
            own = {"stride": stride, "padding": padding, "dilation": dilation, "groups": call.options.get("groups", 1)}
            return replace(step, args=(given["input"], given["weight"], given.get("bias")), options=own)
        elif call.name == "max_pool2d":
            layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=rows.ceil)
            if any(2 * w.padding > w.kernel for w in windows):  # more than torch's own takes
                layer = DilatedMaxPool(kernel, padding, dilation)
        else:
            divided = call.options.get("count_include_pad", True), call.options.get("divisor_override")
            if dilation == (1, 1):
                layer = nn.AvgPool2d(kernel, stride, padding, rows.ceil, *divided)
            else:
                layer = DilatedAvgPool(kernel, padding, dilation, *divided)
        key = layer_name(self.geometry.traced.title(node), self.layers)
        self.layers[key] = layer.train(self.training)
        return Step(step.name, "layer", key, (Ref(step.refs()[0]),))

    def _padded(self, node: Node, call: Call, step: Step, place: Place) -> Step:
        sides = call.options["pad"]
        sides = [sides] * 4 if isinstance(sides, int) else list(sides)
        (_, down), (_, right) = place
        wide = [n * rate for n, rate in zip(sides, (right, right, down, down, 1, 1, 1, 1), strict=False)]
        value = getattr(call.layer, "value", call.options.get("value", 0.0)) or 0.0
        if call.options.get("mode", "constant") != "constant":
            self._refuse(node, call, "pads with the map's own values; only constants can be dilated")
        return Step(step.name, "function", "functional.pad", (Ref(step.refs()[0]), wide, "constant", value))

    def _refuse(self, node: Node, call: Call, reason: str) -> NoReturn:
        raise GeometryError(f"cannot rarefy: {self.geometry.traced.title(node)} ({call.title}) {reason}")
