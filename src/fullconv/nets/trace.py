"""Any module -> its geometry: what every layer reads of the input, and what is not local.

A module may tell its own geometry: one with a method ``fields(*arguments) -> (rows, columns)`` of `Fields`, called with
what its forward method got, is taken as one layer whose outputs read its first input so.

Source: Long et al. 2015, section 3 (a net of convolutions, poolings and elementwise functions computes a nonlinear
filter, whose fields follow from kernels and strides).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn
from torch.fx.node import Node

from fullconv.errors import GeometryError
from fullconv.fields import Fields
from fullconv.geometry import Window
from fullconv.nets.tracing.calls import WINDOWS
from fullconv.nets.tracing.graph import VALUE, Shape, Traced, tensors_of
from fullconv.nets.tracing.invariance import follows_size
from fullconv.nets.tracing.reader import Reader
from fullconv.nets.tracing.spots import Obstacle, Reads


@dataclass(frozen=True)
class TracedLayer:
    """One operation on tensors.

    Attributes:
        name: dotted name of the module, or that of the operation in the graph.
        kind: class of the module, or name of the function.
        shape: of its output, at the size that was traced.
        parameters: its learned numbers.
        windows: its own, (vertical, horizontal), where it moves one.
        reads: by input that it depends on.
        axes: which dimensions of the output are (rows, columns); None where there is none.
        node: in the graph.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    windows: tuple[Window, Window] | None
    reads: Mapping[str, Reads]
    axes: tuple[int | None, int | None]
    node: Node

    @property
    def local(self) -> bool:
        """Whether it is a map whose units read limited fields."""
        return None not in self.axes and all(None not in reads for reads in self.reads.values())

    def fields(self, source: str | None = None) -> tuple[Fields, Fields]:
        """Its fields (rows, columns) on an input, by default the first.

        Raises:
            GeometryError: it depends on no such input, or its units read all of it.
        """
        if not self.reads or (source is not None and source not in self.reads):
            raise GeometryError(f"{self.name} does not depend on the input {source or ''}".rstrip())
        rows, columns = self.reads[source or next(iter(self.reads))]
        if rows is None or columns is None:
            raise GeometryError(f"{self.name} reads all of the image; only units of maps have limited fields")
        return rows, columns


@dataclass(frozen=True, repr=False)
class Trace:
    """The geometry of a module.

    Attributes:
        layers: every operation on tensors, in order; the last one is the output (the first of several).
        obstacles: where it is not local, in order.
        traced: the graph.
        shapes: of the inputs, by name.
    """

    layers: tuple[TracedLayer, ...]
    obstacles: tuple[Obstacle, ...]
    traced: Traced
    shapes: Mapping[str, Shape]

    def __repr__(self) -> str:
        return f"Trace({len(self.layers)} layers, {len(self.obstacles)} obstacles)"

    def __str__(self) -> str:
        """A table."""
        from fullconv.receptive import text

        return text(self)

    @property
    def output(self) -> TracedLayer:
        return self.layers[-1]

    def __getitem__(self, name: str) -> TracedLayer:
        """A layer by its name, or the last one of a block (where it is called again, that of the last call).

        Raises:
            GeometryError: no such layer.
        """
        for layer in reversed(self.layers):
            if layer.name == name or layer.node is self.traced.ends.get(name):
                return layer
        nearest = ", ".join(get_close_matches(name, [layer.name for layer in self.layers], n=5, cutoff=0))
        raise GeometryError(f"no layer {name!r} among the {len(self.layers)} of the net; the nearest are {nearest}")

    def require_local(self, purpose: str) -> None:
        """Refuse what would give wrong pixels.

        Raises:
            GeometryError: an obstacle, with its name and reason.
        """
        if self.obstacles:
            more = f" (and {len(self.obstacles) - 1} more)" if len(self.obstacles) > 1 else ""
            raise GeometryError(f"{purpose} needs a net of local layers: {self.obstacles[0]}{more}")


def trace(module: nn.Module, shapes: Shape | Mapping[str, Shape]) -> Trace:
    """The geometry of a module in its present mode.

    Fields are the smallest rectangles that hold all that a unit reads, wherever it is not cut off by the border; only
    channels are not told apart. What is not known to be local reads the whole image and is listed as an obstacle:
    pooling over the whole map, flattening, attention, normalisation by statistics of the map or, in training mode, of
    the batch, and every call that is in no table. A net without obstacles is traced at a larger size too, and must do
    the same there (see `fullconv.nets.tracing.invariance`).

    Args:
        module: any; torch.fx traces it, without computing anything (see `Traced.of`).
        shapes: (N, C, H, W) of its input, or of several by name.

    Raises:
        GeometryError: it cannot be traced.

    >>> block = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
    >>> rows, columns = trace(block, (1, 3, 64, 64)).output.fields()
    >>> rows.size, rows.stride, rows.centre
    (11, Fraction(4, 1), Fraction(0, 1))
    """
    traced = Traced.of(module, shapes)
    reader = Reader(traced)
    reader.read()
    obstacles = reader.obstacles or follows_size(module, shapes, reader)
    layers = [
        TracedLayer(
            traced.title(node),
            call.title,
            tuple(tensors_of(node.meta[VALUE])[0].shape),
            0 if call.layer is None else sum(p.numel() for p in call.layer.parameters()),
            call.windows() if call.name in WINDOWS else None,
            reader.spots[node].reads,
            reader.spots[node].axes,
            node,
        )
        for node, call in reader.calls.items()
    ]
    output = next(node for node in traced.graph.nodes if node.op == "output")
    by_node = {layer.node: layer for layer in layers}
    last = next((by_node[node] for node in output.all_input_nodes if node in by_node), None)
    if last is None:
        raise GeometryError(f"{type(module).__name__} returns no tensor that it computes from its input")
    inputs = {name: tuple(node.meta[VALUE].shape) for name, node in traced.inputs.items()}
    return Trace((*(layer for layer in layers if layer is not last), last), tuple(obstacles), traced, inputs)
