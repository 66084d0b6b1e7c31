"""Reads a graph in order: what every tensor in it depends on, and where locality ends."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.fx.node import Node, map_arg

from fullconv.errors import GeometryError
from fullconv.fields import Fields
from fullconv.nets.tracing.aliases import Aliases, changed
from fullconv.nets.tracing.calls import POINTWISE, Call, call_of
from fullconv.nets.tracing.dimensions import DIMENSIONS
from fullconv.nets.tracing.effects import Effect, mixed
from fullconv.nets.tracing.graph import CONSTANT, VALUE, Shape, Traced, tensors_of
from fullconv.nets.tracing.resampling import RESAMPLING
from fullconv.nets.tracing.spots import COLUMNS, ROWS, Obstacle, Reads, Spot
from fullconv.nets.tracing.tracer import tells_fields

__all__ = ["Obstacle", "Reader", "Reads", "Spot"]

RULES = DIMENSIONS | RESAMPLING

ELEMENTWISE = POINTWISE - RULES.keys()

ATTENTION = (
    "matmul", "bmm", "mm", "baddbmm", "einsum", "scaled_dot_product_attention", "multi_head_attention_forward",
)  # fmt: skip
"""Calls that weigh the positions of one map by another."""

SHAPES_ONLY = ("expand_as", "type_as", "to")
"""Calls that take no more than the shape or the type of their second tensor."""

ATTENDS = "weighs all positions of the map against each other"
CHANGES = "changes in place a part of the map that is read elsewhere, or what its module holds"
CONSTANTS = "adds to the map a constant of its size"
MADE = "uses a tensor that its forward method makes, which may follow the size of the map; make it a buffer"
PLACES = "gives places in the map as numbers, which only a max_unpool2d that undoes it may use"
TURNED = "joins maps whose rows and columns lie along different dimensions"
UNKNOWN = "is not known to be local; a method `fields` of its module can say"
WEIGHS = "takes its own numbers from the map"


class Reader:
    """Walks a graph in order and notes what every tensor reads."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.spots: dict[Node, Spot] = {}
        self.calls: dict[Node, Call] = {}
        self.obstacles: list[Obstacle] = []
        self.held: set[Node] = set()  # what the module holds, and constants that come from it
        self.node: Node
        self.call: Call

    def read(self) -> None:
        """Fill `spots`, `calls` and `obstacles`."""
        starts = {node: name for name, node in self.traced.inputs.items()}
        aliases = Aliases()
        for node in self.traced.graph.nodes:
            tensors, sources = tensors_of(node.meta.get(VALUE)), _sources(node)
            if not tensors:  # numbers, and the output
                continue
            if node in starts:
                self.spots[node] = Spot.of_input(starts[node], tensors[0].ndim)
            elif any(each in self.spots for each in sources):
                self.node, self.call = node, call_of(node, self.traced.root)
                self.spots[node], self.calls[node] = self._spot(sources), self.call
                target = changed(node, self.call)
                if target is not None:
                    self._change(target, aliases)
            elif self.held.issuperset(sources) if sources else _is_held(node):
                self.held.add(node)
            aliases.add(node)

    # What comes out of the present node.

    def _spot(self, sources: Sequence[Node]) -> Spot:
        node, call = self.node, self.call
        first = node.args[0] if node.args else node.kwargs.get("input")
        if call.name in ("cat", "stack"):
            return self._joined_along(sources)
        if call.name in ELEMENTWISE and isinstance(node.meta[VALUE], Tensor):
            return self._joined(sources)
        if call.name in ATTENTION:
            return self._attention(sources)
        if not isinstance(first, Node) or first not in self.spots:  # a map among the weights
            return self._unknown(sources)
        if not isinstance(first.meta[VALUE], Tensor):
            return self._element(first) if node.target in (operator.getitem, getattr) else self._unknown(sources)
        if tells_fields(call.layer):
            return self._told(first, sources[1:])
        if call.name == "max_unpool2d":
            return self._unpooled(sources)
        if isinstance(call.options.get("dim"), Tensor):  # the maximum of two maps
            return self._joined(sources)
        rule = RULES.get(call.name)
        effects = None if rule is None else rule(call, self._shape(first), self._shape())
        if effects is None:
            return self._unknown(sources)
        return self._weighed(self._after(first, effects), sources[1:])

    def _shape(self, node: Node | None = None) -> Shape:
        return tuple(tensors_of((node or self.node).meta[VALUE])[0].shape)

    def _obstacle(self, reason: str) -> None:
        self.obstacles.append(Obstacle(self.traced.title(self.node), self.call.title, reason))

    def _after(self, node: Node, effects: Sequence[Effect]) -> Spot:
        """Behind a call with these effects on the dimensions of a tensor."""
        spot = self.spots[node]
        one, other = (Effect(None, None) if dim is None else effects[dim] for dim in spot.axes)
        shape = self._shape(node)
        reasons = [each.reason for a, each in enumerate((one, other)) if each.reason and self._spread(spot, shape, a)]
        for reason in dict.fromkeys(reasons):
            self._obstacle(reason)
        reads = {
            name: (self._then(rows, one.fields), self._then(columns, other.fields))
            for name, (rows, columns) in spot.reads.items()
        }
        return Spot((one.to, other.to), reads)

    def _spread(self, spot: Spot, shape: Shape, axis: int) -> bool:
        """Whether a tensor has positions along an axis that can be told apart: else nothing happens to them."""
        dim = spot.axes[axis]
        return (dim is not None and shape[dim] > 1) or any(reads[axis] is not None for reads in spot.reads.values())

    def _then(self, reads: Fields | None, after: Fields | None) -> Fields | None:
        try:
            return None if reads is None or after is None else reads.then(after)
        except GeometryError as error:
            self._obstacle(str(error))
            return None

    def _union(self, first: Spot, second: Spot) -> Spot:
        """Of a tensor that reads what both read."""
        axes = [a if b is None else b for a, b in zip(first.axes, second.axes, strict=True)]
        turned = any(None not in pair and len(set(pair)) > 1 for pair in zip(first.axes, second.axes, strict=True))
        if turned:
            self._obstacle(TURNED)
        reads = dict(first.reads)
        for name, (rows, columns) in second.reads.items():
            own = reads.get(name, (rows, columns))
            reads[name] = (self._either(own[ROWS], rows), self._either(own[COLUMNS], columns))
        joined = Spot((axes[ROWS], axes[COLUMNS]), reads)
        return joined.whole() if turned else joined

    def _either(self, first: Fields | None, second: Fields | None) -> Fields | None:
        try:
            return None if first is None or second is None else first | second
        except GeometryError as error:
            self._obstacle(str(error))
            return None

    def _unknown(self, sources: Sequence[Node], reason: str = UNKNOWN) -> Spot:
        """Reads all of everything."""
        maps = [node for node in sources if node in self.spots]
        if any(self._spread(self.spots[node], self._shape(node), a) for node in maps for a in (ROWS, COLUMNS)):
            self._obstacle(reason)
        value = self.node.meta[VALUE]
        alike = isinstance(value, Tensor) and value.ndim == len(self._shape(maps[0]))
        names = [name for node in maps for name in self.spots[node].reads]
        return Spot(self.spots[maps[0]].axes if alike else (None, None), dict.fromkeys(names, (None, None)))

    # Calls of several tensors.

    def _joined(self, sources: Sequence[Node]) -> Spot:
        """Elementwise, with broadcasting."""
        shape = self._shape()
        maps = [node for node in sources if node in self.spots]
        spots = [self._after(node, DIMENSIONS["expand"](self.call, self._shape(node), shape) or ()) for node in maps]
        joined = self._union_of(spots)
        for node in sources:
            behind = len(shape) - len(self._shape(node))
            axes = self.spots[node].axes if node in self.spots else (None, None)
            for dim, own in zip(joined.axes, axes, strict=True):
                here = -1 if dim is None else dim - behind
                if here >= 0 and here != own and self._shape(node)[here] > 1:
                    return self._refused(joined, CONSTANTS)
        return self._weighed(joined, [node for node in sources if node not in self.spots])

    def _joined_along(self, sources: Sequence[Node]) -> Spot:
        """One behind the other, along a dimension that is there or a new one."""
        rank = len(self._shape())
        at = self.call.options.get("dim", 0) % rank
        spots = []
        for node in sources:
            if node in self.spots:
                new = self.call.name == "stack"
                effects = [Effect(dim + (new and dim >= at)) for dim in range(rank - new)]
                spots.append(self._after(node, effects))
        joined = self._union_of(spots)
        if at in joined.axes:
            self._obstacle("puts maps side by side")
            joined = joined.whole([joined.axes.index(at)])
        return joined if len(spots) == len(sources) else self._refused(joined, CONSTANTS)

    def _union_of(self, spots: Sequence[Spot]) -> Spot:
        joined = spots[0]
        for spot in spots[1:]:
            joined = self._union(joined, spot)
        return joined

    def _refused(self, spot: Spot, reason: str) -> Spot:
        self._obstacle(reason)
        return spot.whole()

    def _weighed(self, spot: Spot, others: Sequence[Node]) -> Spot:
        """By weights and other numbers, which are no maps."""
        for node in others:
            if node in self.spots:
                own = self._unknown([node], WEIGHS)
                spot = self._union(spot, Spot((None, None), own.reads))
            elif node not in self.held and any(self._spread(spot, self._shape(), a) for a in (ROWS, COLUMNS)):
                spot = self._refused(spot, MADE)
        return spot

    def _attention(self, sources: Sequence[Node]) -> Spot:
        first, others = sources[0], sources[1:]
        if self.call.name in ("matmul", "mm") and self.held.issuperset(others):  # a linear layer
            rank = len(self._shape(first))
            effects = mixed(rank, [rank - 1])
            if len(self._shape()) < rank:
                effects[-1] = replace(effects[-1], to=None)
            return self._after(first, effects)
        return replace(self._unknown(sources, ATTENDS), axes=(None, None))

    # Calls of modules that tell, and of tuples.

    def _told(self, first: Node, others: Sequence[Node]) -> Spot:
        """By a module's method `fields`."""
        arguments, options = map_arg((self.node.args, self.node.kwargs), lambda node: node.meta[VALUE])
        tell: Any = getattr(self.call.layer, "fields", None)
        try:
            told = tell(*arguments, **options)
        except TypeError as error:  # another method of that name
            told = error
        if not isinstance(told, tuple) or len(told) != 2 or not all(isinstance(each, Fields) for each in told):
            raise GeometryError(
                f"{self.traced.title(self.node)} ({self.call.title}) has a method `fields` that gives {told!r}; "
                "expected a pair of fullconv.fields.Fields, of rows and columns"
            )
        rank = len(self._shape(first))
        effects = [Effect(dim) for dim in range(rank)]
        effects[-2:] = [Effect(rank - 2, told[ROWS]), Effect(rank - 1, told[COLUMNS])]
        if self.spots[first].axes != (rank - 2, rank - 1) or len(self._shape()) != rank:
            return self._unknown([first, *others])
        return self._weighed(self._after(first, effects), others)

    def _element(self, first: Node) -> Spot:
        """Of several tensors, which all read the same."""
        spot, value = self.spots[first], self.node.meta[VALUE]
        if not isinstance(value, Tensor):
            return spot
        if value.ndim != len(self._shape(first)):
            return self._unknown([first])
        pooling = self.calls[first].name in ("max_pool2d", "adaptive_max_pool2d")
        if pooling and self.node.args[1] != 0 and any(not self._unpools(user) for user in self.node.users):
            return self._refused(spot, PLACES)
        return spot

    def _unpools(self, node: Node) -> bool:
        return node.op != "output" and call_of(node, self.traced.root).name == "max_unpool2d"

    def _unpooled(self, sources: Sequence[Node]) -> Spot:
        """At the very places, in the very windows, that a pooling found."""
        values, places = sources[0], sources[-1]
        pool = places.args[0] if places.target is operator.getitem else None
        found = self.calls.get(pool) if isinstance(pool, Node) else None
        if not isinstance(pool, Node) or found is None or found.name != "max_pool2d":
            return self._unknown(sources)
        windows = [replace(window, transposed=False) for window in self.call.windows()]
        undone = [replace(window, ceil=False) for window in found.windows()]
        sizes = self._shape(_sources(pool)[0]), self._shape(places)
        if windows != undone or sizes != (self._shape(), self._shape(values)):
            return self._unknown(sources)
        effects = RESAMPLING["max_unpool2d"](self.call, self._shape(values), self._shape()) or ()
        return self._union(self._after(values, effects), self._after(places, effects))

    # What changes behind the present node's back.

    def _change(self, target: Node, aliases: Aliases) -> None:
        """Of a tensor in place, and with it of all that share its memory."""
        before, after = self.spots.get(target), self.spots[self.node]
        refused = target in self.held
        for node in aliases.of(target):
            spot = self.spots.get(node)
            if node is target:
                self.spots[node] = after
            elif before is not None and spot is not None and self._parallel(node, target, before):
                self.spots[node] = self._union(spot, Spot((None, None), after.reads))
            elif aliases.used_after(node, self.node):
                refused = True
                axes = (None, None) if spot is None else spot.axes
                self.spots[node] = Spot(axes, {**after.reads, **({} if spot is None else spot.reads)}).whole()
        if refused:
            self._obstacle(CHANGES)

    def _parallel(self, node: Node, target: Node, before: Spot) -> bool:
        """Whether units of the same number in both are the same place."""
        spot = self.spots[node]
        sizes = [
            [None if dim is None else self._shape(each)[dim] for dim in axes]
            for each, axes in ((node, spot.axes), (target, before.axes))
        ]
        return sizes[0] == sizes[1] and spot.reads == before.reads


def _is_held(node: Node) -> bool:
    return node.op == "get_attr" and CONSTANT not in str(node.target)


def _sources(node: Node) -> list[Node]:
    """The tensors that a call is given, in order, as often as it is given them."""
    found: list[Node] = []
    map_arg((node.args, node.kwargs), found.append)
    found = [each for each in found if tensors_of(each.meta[VALUE])]
    return found[:1] if node.target in SHAPES_ONLY else found
