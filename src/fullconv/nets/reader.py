"""Reads a graph in order: what every tensor in it depends on, and where locality ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

from torch import Tensor
from torch.fx.node import Node

from fullconv.errors import GeometryError
from fullconv.fields import Fields
from fullconv.geometry import Window
from fullconv.nets.calls import POINTWISE, WINDOWS, Call, call_of, tensors_of
from fullconv.nets.graph import VALUE, Shape, Traced, in_place

ROWS, COLUMNS = 0, 1

Reads = tuple[Fields | None, Fields | None]
"""What the units of a map read along (rows, columns) of an input; None: all of it."""


@dataclass(frozen=True)
class Obstacle:
    """Where a net is not local.

    Attributes:
        name, kind: of the layer.
        reason: what it does to the map, for "`name` (`kind`) ...".
    """

    name: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}) {self.reason}"


@dataclass(frozen=True)
class Spot:
    """A tensor's dimensions of rows and columns, and what it reads of the inputs."""

    axes: tuple[int | None, int | None]
    reads: Mapping[str, Reads]

    def then(self, rows: Fields | None, columns: Fields | None) -> Spot:
        """Behind a layer that reads this map so; None: all of it."""
        return replace(
            self,
            reads={name: (_after(own[ROWS], rows), _after(own[COLUMNS], columns)) for name, own in self.reads.items()},
        )


def _after(reads: Fields | None, after: Fields | None) -> Fields | None:
    return None if reads is None or after is None else reads.then(after)


def _either(first: Fields | None, second: Fields | None) -> Fields | None:
    return None if first is None or second is None else first | second


class Reader:
    """Walks a graph in order and notes what every tensor reads."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.spots: dict[Node, Spot] = {}
        self.calls: dict[Node, Call] = {}
        self.obstacles: list[Obstacle] = []
        self.node: Node
        self.call: Call

    def read(self) -> None:
        """Fill `spots`, `calls` and `obstacles`."""
        starts = {node: name for name, node in self.traced.inputs.items()}
        for node in self.traced.graph.nodes:
            if node in starts:
                rank = node.meta[VALUE].ndim
                self.spots[node] = Spot((rank - 2, rank - 1), {starts[node]: (Fields(), Fields())})
            elif node.op.startswith("call_"):
                self._read(node)

    def _read(self, node: Node) -> None:
        sources = [self.spots[n] for n in node.all_input_nodes if n in self.spots]
        if not sources or not tensors_of(node.meta[VALUE]):  # shapes and constants
            return
        self.node, self.call = node, call_of(node, self.traced.root)
        own = getattr(self.call.layer, "fields", None)
        if own is not None:
            arguments = [each.meta[VALUE] if isinstance(each, Node) else each for each in node.args]
            spot = sources[0].then(*own(*arguments))
        elif self.call.name in POINTWISE:
            spot = self._join(node.all_input_nodes)
        elif self.call.name in WINDOWS:
            spot = self._window(sources)
        else:
            spot = HANDLERS.get(self.call.name, Reader._unknown)(self, sources[0])
        self.spots[node] = spot
        if in_place(node) and isinstance(node.args[0], Node):
            self.spots[node.args[0]] = spot
        self.calls[node] = self.call

    def _obstacle(self, reason: str) -> None:
        self.obstacles.append(Obstacle(self.traced.title(self.node), self.call.title, reason))

    # Every handler gives the spot of the output; `self.node` and `self.call` say of what.

    def _shape(self, node: Node | None = None) -> Shape:
        return tuple(tensors_of((node or self.node).meta[VALUE])[0].shape)

    def _source(self) -> Shape:
        """Shape of the first input."""
        return self._shape(next(n for n in self.node.all_input_nodes if n in self.spots))

    def _whole(self, spot: Spot, axes: Iterable[int], reason: str) -> Spot:
        """All positions along some axes are mixed."""
        mixed = {axis for axis in axes if any(reads[axis] is not None for reads in spot.reads.values())}
        if mixed:
            self._obstacle(reason)
        return spot.then(*(None if axis in mixed else Fields() for axis in (ROWS, COLUMNS)))

    def _unknown(self, spot: Spot) -> Spot:
        whole = self._whole(spot, (ROWS, COLUMNS), "is not known to be local; a method `fields` of its module can say")
        rank = len(self._shape())
        return replace(whole, axes=spot.axes if rank == len(self._source()) else (None, None))

    def _join(self, nodes: Sequence[Node]) -> Spot:
        """Elementwise, with broadcasting."""
        shape = self._shape()
        tensors = [node for node in nodes if isinstance(node.meta[VALUE], Tensor)]
        joined: Spot | None = None
        for node in tensors:
            own = self._shape(node)
            behind = len(shape) - len(own)
            if node in self.spots:
                spot = self.spots[node]
                axes = _moved(spot.axes, behind)
                spread = [a for a, dim in enumerate(axes) if dim is not None and own[dim - behind] == 1 != shape[dim]]
                spot = self._whole(replace(spot, axes=axes), spread, "spreads one value over the whole map")
                joined = spot if joined is None else self._union(joined, spot)
        if joined is None:
            raise GeometryError(f"{self.node.name} joins no tensors of the net")
        for node in tensors:
            if node not in self.spots:
                own = self._shape(node)
                dims = [len(own) - len(shape) + dim for dim in joined.axes if dim is not None]
                if any(dim >= 0 and own[dim] > 1 for dim in dims):
                    joined = self._whole(joined, (ROWS, COLUMNS), "adds to the map a constant of its size")
        return joined

    def _union(self, first: Spot, second: Spot) -> Spot:
        axes = tuple(a if b is None else b for a, b in zip(first.axes, second.axes, strict=True))
        reads = dict(first.reads)
        for name, other in second.reads.items():
            if name not in reads:
                reads[name] = other
                continue
            try:
                own = reads[name]
                reads[name] = (_either(own[ROWS], other[ROWS]), _either(own[COLUMNS], other[COLUMNS]))
            except GeometryError as error:
                self._obstacle(str(error))
                reads[name] = (None, None)
        return Spot((axes[ROWS], axes[COLUMNS]), reads)

    def _window(self, sources: Sequence[Spot]) -> Spot:
        spot = sources[0]
        for other in sources[1:] if self.call.name == "max_unpool2d" else ():
            spot = self._union(spot, other)
        if None in spot.axes:
            return self._unknown(spot)
        rows, columns = (Fields.of(window) for window in self.call.windows())
        mode = self.call.options.get("padding_mode", "zeros")
        if mode == "circular":
            return self._whole(spot, (ROWS, COLUMNS), "pads with the opposite side of the map")
        if mode != "zeros":
            spot = spot.then(*(_mirrored(window.padding, window.padding) for window in self.call.windows()))
            rows, columns = (Fields.of(replace(window, padding=0)) for window in self.call.windows())
        return spot.then(rows, columns)

    def _pad(self, spot: Spot) -> Spot:
        sides = self.call.options["pad"]
        sides = [sides] * 4 if isinstance(sides, int) else list(sides)
        mode = self.call.options.get("mode", "constant")
        fields = []
        for axis in (ROWS, COLUMNS):
            dim = spot.axes[axis]
            place = None if dim is None else 2 * (len(self._shape()) - 1 - dim)
            start, stop = (0, 0) if place is None or place >= len(sides) else (sides[place], sides[place + 1])
            plain = mode == "constant" or start == stop == 0
            fields.append(Fields((-start,), (1 - start,)) if plain else _mirrored(start, stop))
        if mode == "circular":
            return self._whole(spot, (ROWS, COLUMNS), "pads with the opposite side of the map")
        return spot.then(*fields)

    def _adaptive(self, spot: Spot) -> Spot:
        fields: list[Fields | None] = []
        for axis in (ROWS, COLUMNS):
            dim = spot.axes[axis]
            if dim is None:
                return self._unknown(spot)
            size, cells = self._source()[dim], self._shape()[dim]
            fields.append(None if cells == 1 else adaptive_fields(size, cells))
        if None in fields:
            return self._whole(spot, [a for a, f in enumerate(fields) if f is None], "pools over the whole map").then(
                *(f or Fields() for f in fields)
            )
        if self.call.options.get("output_size") not in ((None, None), None):
            self._obstacle("has windows that grow with the map")
        return spot.then(*fields)

    def _interpolate(self, spot: Spot) -> Spot:
        options, fields = self.call.options, []
        mode = options.get("mode", "nearest")
        if mode not in ("nearest", "nearest-exact", "bilinear", "bicubic", "area") or options.get("antialias"):
            return self._unknown(spot)
        scales = options.get("scale_factor")
        fixed = options.get("recompute_scale_factor") or scales is None
        for axis in (ROWS, COLUMNS):
            dim = spot.axes[axis]
            if dim is None:
                return self._unknown(spot)
            size, cells = self._source()[dim], self._shape()[dim]
            scale = None if fixed else scales[axis] if isinstance(scales, list | tuple) else scales
            ratio = Fraction(size, cells) if scale is None else 1 / Fraction(str(float(scale))).limit_denominator(4096)
            corners = bool(options.get("align_corners")) and mode in ("bilinear", "bicubic")
            if corners:
                ratio = Fraction(size - 1, cells - 1) if cells > 1 else Fraction(0)
            if ratio == 0:
                return self._whole(spot, (ROWS, COLUMNS), "spreads one value over the whole map")
            if corners or (1 not in (ratio.numerator, ratio.denominator) and scale is None):
                self._obstacle(f"resizes by a ratio that depends on the size of the map ({1 / ratio} here)")
            fields.append(adaptive_fields(size, cells) if mode == "area" else _resampled(ratio, mode, corners))
        return spot.then(*fields)

    def _mixing(self, spot: Spot) -> Spot:
        """Along some dimensions, which may vanish."""
        rank, shape = len(self._source()), self._shape()
        given = next((self.call.options[key] for key in ("dim", "dims", "axis") if key in self.call.options), None)
        if self.call.name in ("layer_norm", "rms_norm"):
            normalized = self.call.options["normalized_shape"]
            given = range(-(1 if isinstance(normalized, int) else len(normalized)), 0)
        elif self.call.name == "linear":
            given = -1
        elif self.call.name == "normalize" and given is None:
            given = 1
        elif isinstance(given, Tensor):  # max(x, other) of two tensors
            return self._join(self.node.all_input_nodes)
        dims = range(rank) if given is None else [given] if isinstance(given, int) else given
        dims = {dim % rank for dim in dims}
        mixed = [axis for axis in (ROWS, COLUMNS) if spot.axes[axis] in dims]
        spot = self._whole(spot, mixed, "mixes all positions of the map")
        if len(shape) == rank:
            return spot
        kept = [dim for dim in range(rank) if dim not in dims]
        axes = [kept.index(dim) if dim in kept else None for dim in spot.axes]
        return replace(spot, axes=(axes[ROWS], axes[COLUMNS]))

    def _reshape(self, spot: Spot) -> Spot:
        """Dimensions of rows and columns survive where what comes before and their own size stay."""
        old, new = self._source(), self._shape()
        axes: list[int | None] = []
        after = -1
        for dim in spot.axes:
            found = None
            if dim is not None:
                before = prod(old[:dim])
                places = [q for q in range(len(new)) if prod(new[:q]) == before and new[q] == old[dim] and q > after]
                found = places[-1] if places else None
                after = after if found is None else found
            axes.append(found)
        lost = [axis for axis in (ROWS, COLUMNS) if axes[axis] is None and spot.axes[axis] is not None]
        spot = self._whole(spot, lost, "takes the map apart into a row of numbers")
        return replace(spot, axes=(axes[ROWS], axes[COLUMNS]))

    def _permute(self, spot: Spot) -> Spot:
        rank = len(self._source())
        options = self.call.options
        if self.call.name == "transpose":
            order = list(range(rank))
            first, second = options["dim0"] % rank, options["dim1"] % rank
            order[first], order[second] = order[second], order[first]
        else:
            order = [dim % rank for dim in options["dims"]]
        axes = [None if dim is None else order.index(dim) for dim in spot.axes]
        return replace(spot, axes=(axes[ROWS], axes[COLUMNS]))

    def _cat(self, _: Spot) -> Spot:
        spot = self._union_of_all()
        dim = self.call.options.get("dim", 0) % len(self._shape())
        if dim in spot.axes:
            return self._whole(spot, [spot.axes.index(dim)], "puts maps side by side")
        return spot

    def _stack(self, _: Spot) -> Spot:
        spot = self._union_of_all()
        dim = self.call.options.get("dim", 0) % len(self._shape())
        axes = [None if at is None else at + (at >= dim) for at in spot.axes]
        return replace(spot, axes=(axes[ROWS], axes[COLUMNS]))

    def _union_of_all(self) -> Spot:
        spots = [self.spots[node] for node in self.node.all_input_nodes if node in self.spots]
        joined = spots[0]
        for other in spots[1:]:
            joined = self._union(joined, other)
        return joined

    def _parts(self, spot: Spot) -> Spot:
        """Chunks along a dimension, all of one spot."""
        parts = tensors_of(self.node.meta[VALUE])
        for axis, dim in enumerate(spot.axes):
            if dim is not None and (parts[0].ndim != len(self._source()) or parts[0].shape[dim] != self._source()[dim]):
                return self._unknown(self._whole(spot, [axis], "cuts the map into parts"))
        return spot

    def _item(self, spot: Spot) -> Spot:
        """Slices of a tensor, or an element of a tuple."""
        source, index = self.node.args
        if not isinstance(source, Node) or not isinstance(source.meta[VALUE], Tensor):
            return spot
        plain = _values(index)
        items = list(plain) if isinstance(plain, tuple) else [plain]
        shape = self._shape(source)
        if any(not (item is None or item is Ellipsis or isinstance(item, int | slice)) for item in items):
            return self._unknown(spot)
        if Ellipsis in items:
            at = items.index(Ellipsis)
            taken = len([item for item in items if item is not None]) - 1
            items[at : at + 1] = [slice(None)] * (len(shape) - taken)
        axes: list[int | None] = [None, None]
        dim = new = 0
        for item in [*items, *[slice(None)] * len(shape)]:
            if item is None:
                new += 1
                continue
            if dim == len(shape):
                break
            if dim in spot.axes:
                axis = spot.axes.index(dim)
                if isinstance(item, int):
                    spot = self._whole(spot, [axis], "picks single positions of the map")
                else:
                    start, _, step = item.indices(shape[dim])
                    pick = Fields((start,), (start + 1,), step)
                    spot = spot.then(*(pick if axis == a else Fields() for a in (ROWS, COLUMNS)))
                    axes[axis] = new
            dim += 1
            new += isinstance(item, slice)
        return replace(spot, axes=(axes[ROWS], axes[COLUMNS]))

    def _shuffle(self, spot: Spot) -> Spot:
        """Pixels from channels, or the reverse."""
        if None in spot.axes:
            return self._unknown(spot)
        up = self.call.name == "pixel_shuffle"
        large, small = (self._shape(), self._source()) if up else (self._source(), self._shape())
        factor = large[spot.axes[ROWS]] // small[spot.axes[ROWS]]  # type: ignore[index]  # not None
        window = Fields.of(Window(factor, factor, transposed=up))
        return spot.then(window, window)

    def _batch_norm(self, spot: Spot) -> Spot:
        if self.call.options.get("training"):
            return self._whole(
                spot, (ROWS, COLUMNS), "takes statistics of the batch in training mode; call eval() first"
            )
        return spot

    def _statistics(self, spot: Spot) -> Spot:
        return self._whole(spot, (ROWS, COLUMNS), "normalises by statistics of the whole map")

    def _attention(self, _: Spot) -> Spot:
        whole = self._whole(self._union_of_all(), (ROWS, COLUMNS), "weighs all positions of the map against each other")
        return replace(whole, axes=(None, None))

    def _expand(self, spot: Spot) -> Spot:
        old, new = self._source(), self._shape()
        behind = len(new) - len(old)
        axes = _moved(spot.axes, behind)
        spread = [a for a, dim in enumerate(axes) if dim is not None and old[dim - behind] != new[dim]]
        spot = self._whole(spot, spread, "spreads one value over the whole map")
        return replace(spot, axes=axes)


Handler = Callable[[Reader, Spot], Spot]

HANDLERS: dict[str, Handler] = {
    name: handler
    for names, handler in (
        ("adaptive_avg_pool2d adaptive_max_pool2d", Reader._adaptive),
        ("mean sum amax amin max min std var norm prod logsumexp argmax", Reader._mixing),
        ("softmax log_softmax softmin normalize layer_norm rms_norm linear", Reader._mixing),
        ("cumsum flip roll sort topk unbind", Reader._mixing),
        ("view reshape flatten unflatten squeeze unsqueeze", Reader._reshape),
        ("permute transpose", Reader._permute),
        ("chunk split tensor_split", Reader._parts),
        ("pixel_shuffle pixel_unshuffle", Reader._shuffle),
        ("group_norm instance_norm", Reader._statistics),
        ("matmul bmm mm baddbmm einsum scaled_dot_product_attention", Reader._attention),
        ("multi_head_attention_forward", Reader._attention),
        ("expand expand_as broadcast_to", Reader._expand),
        ("batch_norm", Reader._batch_norm),
        ("cat", Reader._cat),
        ("stack", Reader._stack),
        ("getitem", Reader._item),
        ("interpolate", Reader._interpolate),
        ("pad", Reader._pad),
    )
    for name in names.split()
}
"""What is neither elementwise nor a window."""


def adaptive_fields(size: int, cells: int) -> Fields:
    """The windows of an adaptive pooling of `size` inputs to `cells`: cell i reads [floor(i n / m), ceil((i+1) n / m)).

    >>> adaptive_fields(13, 6).field.size, adaptive_fields(13, 6).stride
    (3, Fraction(13, 6))
    """
    ratio = Fraction(size, cells)
    units = range(ratio.denominator)
    return Fields(tuple(floor(i * ratio) for i in units), tuple(ceil((i + 1) * ratio) for i in units), ratio.numerator)


def _resampled(ratio: Fraction, mode: str, corners: bool) -> Fields:
    """Interpolation: unit i lies at ratio i if corners are aligned, else half a pixel off at ratio (i + 1/2) - 1/2."""
    starts, stops = [], []
    half = Fraction(1, 2)
    for unit in range(ratio.denominator):
        if mode == "nearest":
            first = last = floor(unit * ratio)
        elif mode == "nearest-exact":
            first = last = floor((unit + half) * ratio)
        else:
            place = unit * ratio if corners else (unit + half) * ratio - half
            wide = mode == "bicubic" and place.denominator > 1
            first, last = floor(place) - wide, ceil(place) + wide
        starts.append(first)
        stops.append(last + 1)
    return Fields(tuple(starts), tuple(stops), ratio.numerator)


def _mirrored(start: int, stop: int) -> Fields:
    """Padding by reflection or repetition: units near either end read back into the map, and count for all."""
    return Fields((-start - 2 * stop,), (start + 1,))


def _moved(axes: tuple[int | None, int | None], by: int) -> tuple[int | None, int | None]:
    rows, columns = axes
    return None if rows is None else rows + by, None if columns is None else columns + by


def _values(index: Any) -> Any:
    if isinstance(index, Node):
        return index.meta[VALUE]
    if isinstance(index, slice):
        return slice(*(_values(each) for each in (index.start, index.stop, index.step)))
    return tuple(map(_values, index)) if isinstance(index, tuple) else index
