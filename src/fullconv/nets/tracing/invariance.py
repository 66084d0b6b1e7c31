"""Whether a net that is local at one size is the same net at others.

A graph knows one size. A slice that starts at half the height, a window as large as the map, a number divided by the
width or control flow that looks at the shape show only at another: the module is traced again, larger by whole periods
of all its fields, and must read the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from math import ceil, lcm
from typing import Any

from torch import nn
from torch.fx.node import Node, map_arg

from fullconv.errors import GeometryError, one_line
from fullconv.fields import Fields
from fullconv.nets.tracing.calls import call_of
from fullconv.nets.tracing.graph import VALUE, Shape, Traced, tensors_of
from fullconv.nets.tracing.reader import Reader
from fullconv.nets.tracing.spots import COLUMNS, ROWS, Obstacle

SIZED = {
    "view", "reshape", "flatten", "unflatten", "expand", "broadcast_to", "repeat", "narrow", "chunk", "split",
    "tensor_split", "interpolate", "max_unpool2d",
}  # fmt: skip
"""Calls whose numbers may be sizes and places: what they read and give tells whether they are the same."""


GROWTH = 1024
"""Pixels at least: what comes of dividing a size must change."""


def follows_size(module: nn.Module, shapes: Shape | Mapping[str, Shape], reader: Reader) -> list[Obstacle]:
    """Where a module that was found local does something else on a larger input: the first place, or none.

    Args:
        shapes: that `reader` read it at.
    """
    growth = _growth(reader)
    larger: Shape | Mapping[str, Shape]
    if isinstance(shapes, Mapping):
        larger = {name: _grown(shape, growth.get(name)) for name, shape in shapes.items()}
    else:
        larger = _grown(shapes, next(iter(growth.values()), None))
    try:
        traced = Traced.of(module, larger)
    except GeometryError as error:
        reason = f"takes no larger input ({one_line(error.__cause__ or error)})"
        return [Obstacle("forward", type(module).__name__, reason)]
    other = Reader(traced)
    other.read()
    for node, twin in zip_longest(reader.traced.graph.nodes, traced.graph.nodes):
        if node is None or twin is None or (node.op, str(node.target)) != (twin.op, str(twin.target)):
            at, of = (twin, other) if node is None else (node, reader)
            kind = of.calls[at].title if at in of.calls else type(module).__name__
            return [Obstacle(of.traced.title(at), kind, "is not called at all sizes of the input")]
        same = _alike((reader, node), (other, twin)) if node in reader.spots else _given(node) == _given(twin)
        if not same and (node in reader.spots or node in reader.held):
            kind = call_of(node, reader.traced.root).title
            return [Obstacle(reader.traced.title(node), kind, "depends on the size of the map")]
    return []


def _growth(reader: Reader) -> dict[str, tuple[int, int]]:
    """Pixels by which each input is made larger, (rows, columns): whole periods of all fields, and all alike."""
    fields: dict[str, list[tuple[Fields, Fields]]] = {}
    for spot in reader.spots.values():
        for name, (rows, columns) in spot.reads.items():
            if rows is not None and columns is not None:
                fields.setdefault(name, []).append((rows, columns))
    growth = {name: [0, 0] for name in fields}
    for axis in (ROWS, COLUMNS) if fields else ():
        every = [pair[axis] for pairs in fields.values() for pair in pairs]
        strides = {name: pairs[-1][axis].stride for name, pairs in fields.items()}
        units = lcm(*(each.step for each in every)) * lcm(*(stride.denominator for stride in strides.values()))
        smallest = min(stride * units for stride in strides.values())
        for name, stride in strides.items():
            growth[name][axis] = int(stride * units) * ceil(GROWTH / smallest)
    return {name: (rows, columns) for name, (rows, columns) in growth.items()}


def _grown(shape: Shape, growth: tuple[int, int] | None) -> Shape:
    return shape if growth is None else (*shape[:-2], shape[-2] + growth[ROWS], shape[-1] + growth[COLUMNS])


def _alike(first: tuple[Reader, Node], second: tuple[Reader, Node]) -> bool:
    """Whether two nodes read the same, give the same but for the size of the map, and compute with the same numbers."""
    (one, node), (other, twin) = first, second
    axes = one.spots[node].axes
    if one.spots[node] != other.spots.get(twin):
        return False
    shapes = [
        [[size for dim, size in enumerate(tensor.shape) if dim not in axes] for tensor in tensors_of(each.meta[VALUE])]
        for each in (node, twin)
    ]
    return shapes[0] == shapes[1] and _numbers(node, one) == _numbers(twin, other)


def _numbers(node: Node, reader: Reader) -> Any:
    """What a function is given besides tensors, as far as it means no sizes and no places."""
    if node.op not in ("call_function", "call_method") or node not in reader.calls:  # an input that is picked by name
        return None
    call = reader.calls[node]
    if call.name == "getitem":
        index = _given(node)[0][1]
        return [each for each in (index if isinstance(index, tuple) else [index]) if isinstance(each, int)]
    if call.name == "pad":
        return call.options.get("mode"), call.options.get("value")
    return None if call.name in SIZED else _given(node)


def _given(node: Node) -> Any:
    """The arguments of a call without its tensors."""
    return map_arg((node.args, node.kwargs), lambda each: None if tensors_of(each.meta[VALUE]) else each.meta[VALUE])
