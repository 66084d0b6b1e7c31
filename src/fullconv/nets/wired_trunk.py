"""WiredTrunk: a convolutionalised classifier as the trunk of an FCN.

As the paper does with its classifiers (Long et al. 2015, section 4.1): the last layer is cut off, pooling over the
whole map is dropped, every other layer keeps its weights. Windows as large as the whole map, which fully connected
layers have become, are padded by half their size, and the image by what the other layers lack, so that scores reach
every border of every image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import ceil
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.errors import GeometryError, OptionError
from fullconv.fields import Fields
from fullconv.geometry import Crop, Layer, Window
from fullconv.nets.convolutionalize import SHAPES
from fullconv.nets.dense_classifier import DenseClassifier
from fullconv.nets.modules import evaluating
from fullconv.nets.trace import Trace, TracedLayer, trace
from fullconv.nets.trunks.trunk import Features, Pooling
from fullconv.nets.wired import Ref, Step, Wired
from fullconv.nets.wiring import from_json, to_json

KEYS = {"channels", "size", "net"}
"""Of a trunk as JSON."""


class WiredTrunk(nn.Module):
    """Steps as a trunk; heads ask of it what they ask of a `Trunk`.

    Args:
        net: from (N, C, H, W) to the coarsest features.
        channels: C of the input.
        size: (H, W) of an image at which the steps can be traced.

    Attributes:
        taps: stride -> value that is scored at it, the last one of that stride through which everything goes.
        padding: (vertical, horizontal) pixels of zeros around the image.

    Raises:
        GeometryError: steps that are not local, or without a map to score.
    """

    def __init__(self, net: Wired, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.net, self.input_channels, self.size = net, channels, size
        with evaluating(net):
            layers = steps_traced(net, trace(net, (1, channels, *size)), "a trunk")
        self.taps: dict[int, str] = {}
        self._maps: dict[int, tuple[int, Fields, Fields]] = {}  # (channels, rows, columns) of the taps
        for name in narrows(net):
            layer = layers.get(name)
            if layer is not None and layer.local and layer.axes == (2, 3) and len(layer.shape) == 4:
                rows, columns = layer.fields()
                if rows.period == columns.period == 1 and rows.step == columns.step:
                    self.taps[rows.step], self._maps[rows.step] = name, (layer.shape[1], rows, columns)
        if not self.taps:
            raise GeometryError("the steps give no map of equal strides along both axes; a trunk needs one")
        # Units centred on the first pixel or before it exist, and reach the border, whatever the size of the image.
        maps = [layer.fields() for layer in layers.values() if layer.local]
        down, right = (max(0, *(ceil(pair[axis].centre) for pair in maps)) for axis in range(2))
        self.padding = down, right

    @classmethod
    def of(cls, dense: DenseClassifier) -> WiredTrunk:
        """The trunk of a dense classifier; it shares the weights.

        Raises:
            GeometryError: a net that does not end with a convolution to its classes.
        """
        return cls(_without_score(dense), dense.channels, dense.roomy)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> WiredTrunk:
        """Inverse of `to_json`, with fresh weights, for objects from untrusted files.

        Raises:
            OptionError, GeometryError: no trunk.
        """
        if set(value) != KEYS:
            raise OptionError(f"a trunk of the keys {', '.join(sorted(map(str, value)))}; expected {', '.join(KEYS)}")
        numbers = [value["channels"], *(value["size"] if isinstance(value["size"], list | tuple) else [])]
        if len(numbers) != 3 or not all(type(n) is int and 1 <= n <= 1 << 13 for n in numbers):
            raise OptionError("a trunk's channels and size are not three numbers of 1 to 8192")
        return cls(from_json(value["net"]), numbers[0], (numbers[1], numbers[2]))

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the weights."""
        return {"channels": self.input_channels, "size": list(self.size), "net": to_json(self.net)}

    def features(self, x: Tensor, strides: Collection[int], poolings: Collection[str] = ()) -> Features:  # noqa: ARG002
        """The features (N, C, h, w) at each of `strides`, in one pass."""
        down, right = self.padding
        names = {self.taps[stride]: stride for stride in strides}
        x = F.pad(x, (right, right, down, down)) if down or right else x
        values = self.net.run({self.net.inputs[0]: x}, list(names))
        found = Features()
        for name, stride in names.items():
            found[stride] = values[name]
        return found

    def channels(self, stride: int) -> int:
        """Channels of the tap at `stride`."""
        return self._maps[stride][0]

    def poolings(self) -> dict[int, Pooling]:
        """None: unpooling knows the named trunks' poolings only, and takes learned upsampling here."""
        return {}

    def paths(self, stride: int) -> tuple[list[Layer], list[Layer]]:
        """(vertical, horizontal) geometry from the image to the tap at `stride`: one window of the same fields."""
        rows, columns = (
            _window(fields, padding) for fields, padding in zip(self._maps[stride][1:], self.padding, strict=True)
        )
        return rows, columns


def steps_traced(net: Wired, geometry: Trace, purpose: str) -> dict[str, TracedLayer]:
    """The geometry of every step, by its name.

    Raises:
        GeometryError: a step that is not local.
    """
    geometry.require_local(purpose)
    layers = {layer.node: layer for layer in geometry.layers}
    calls = [node for node in geometry.traced.graph.nodes if node.op.startswith("call_")]
    steps = [step for step in net.steps if step.kind != "constant"]
    if len(calls) != len(steps):  # a call for every step, in the same order
        raise GeometryError(f"{len(calls)} calls of {len(steps)} steps; a layer is no single call")
    return {step.name: layers[node] for step, node in zip(steps, calls, strict=True) if node in layers}


def narrows(net: Wired) -> list[str]:
    """The values through which everything goes that reaches the output, in order."""
    last: dict[str, int] = {}
    for place, step in enumerate(net.steps):
        if step.target not in SHAPES:
            last |= dict.fromkeys(step.refs(), place)
    found, alive = [], set(net.inputs)
    for place, step in enumerate(net.steps):
        alive = {name for name in alive if last.get(name, -1) > place}
        if step.kind != "constant" and step.target not in SHAPES:
            if not alive:
                found.append(step.name)
            alive.add(step.name)
    return found


def _without_score(dense: DenseClassifier) -> Wired:
    """Steps up to the layer that scores the classes, without pooling over the whole map, with room at the borders."""
    net = dense.net
    layers = steps_traced(net, trace(net, (1, dense.channels, *dense.input_size)), "a trunk")
    steps = {step.name: step for step in net.steps}
    scores = [
        step
        for step in net.steps
        if step.kind == "layer" and getattr(net.layers[step.target], "out_channels", None) == dense.classes
    ]
    if not scores or not isinstance(net.layers[scores[-1].target], nn.Conv2d):
        raise GeometryError("the classifier has no layer that scores its classes; a trunk ends before one")
    kept: dict[str, nn.Module] = dict(net.layers.items())
    renamed: dict[str, str] = {}
    changed: list[Step] = []
    for step in net.steps:
        moved = step.renamed(renamed)
        layer = layers.get(step.name)
        held = kept.get(step.target) if step.kind == "layer" else None
        if layer is not None and layer.windows is not None and held is not None and layer.shape[2:] == (1, 1):
            before = cast(Ref, moved.args[0])
            if isinstance(held, nn.AvgPool2d | nn.MaxPool2d):
                renamed[step.name] = before.name
                continue
            if isinstance(held, nn.Conv2d) and max(held.kernel_size) > 1:
                kept[f"{step.target}_padded"] = _padded(held)
                moved = replace(moved, target=f"{step.target}_padded")
        changed.append(moved)
    end = cast(Ref, steps[scores[-1].name].renamed(renamed).args[0]).name
    if end in net.inputs:
        raise GeometryError("the classifier is one layer; a trunk is what comes before it, and there is nothing before")
    return Wired(kept, changed, net.inputs, end, dict(net.constants.items())).pruned().train(net.training)


def _padded(layer: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with half its kernel around the map."""
    padding = (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)
    size = cast(tuple[int, int], layer.kernel_size)
    bias = layer.bias is not None
    other = nn.Conv2d(
        layer.in_channels, layer.out_channels, size, padding=padding, groups=layer.groups, bias=bias, device="meta"
    )
    other.weight, other.bias = layer.weight, layer.bias
    return other


def _window(fields: Fields, padding: int) -> list[Layer]:
    start = fields.start - padding
    window = Window(fields.size, fields.step, max(-start, 0))
    return [window] if start <= 0 else [Crop(start), window]
