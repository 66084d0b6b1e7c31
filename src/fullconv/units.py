"""Single units of a net's maps, and the fields that they read: what `fullconv inspect --picture` draws."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fullconv.errors import GeometryError, OptionError, printable, unknown_name
from fullconv.fields import Fields
from fullconv.inspect import inspect_net, output_fields
from fullconv.nets import FCN
from fullconv.nets.trace import Trace, TracedLayer
from fullconv.receptive import shown_layers
from fullconv.report.fields import UnitField

OUTPUT = "output"
"""The map of the final scores, one unit a pixel."""

_NEAREST = 12


@dataclass(frozen=True)
class UnitMap:
    """A map of units.

    Attributes:
        name: of the layer.
        size: (h, w).
        rows, columns: their fields.
    """

    name: str
    size: tuple[int, int]
    rows: Fields
    columns: Fields

    def field(self, row: int, column: int) -> UnitField:
        """Of one unit."""
        return UnitField(
            self.name, (row, column), self.rows.inputs(row, row + 1), self.columns.inputs(column, column + 1)
        )

    def middle(self) -> UnitField:
        """Of the unit in the middle."""
        return self.field(self.size[0] // 2, self.size[1] // 2)


@dataclass(frozen=True)
class Units:
    """The maps of a net.

    Attributes:
        maps: that can be named.
        first: a map of each stride, and the output: a net at a glance.
    """

    maps: Mapping[str, UnitMap]
    first: Sequence[UnitMap]

    def chosen(self, texts: Sequence[str] = ()) -> list[UnitField]:
        """The fields of units written as LAYER:ROW,COLUMN; by default the middle ones of `first`.

        Raises:
            OptionError: a text of another form, a layer that is not there, a unit outside its map.
        """
        return [self._named(text) for text in texts] or [each.middle() for each in self.first]

    def _named(self, text: str) -> UnitField:
        match = re.fullmatch(r"(.+):(\d{1,9}),(\d{1,9})", text, re.ASCII)
        if match is None:
            raise OptionError(f"unit {printable(text)!r}; expected LAYER:ROW,COLUMN, such as {self.first[0].name}:0,0")
        name, row, column = match[1], int(match[2]), int(match[3])
        if name not in self.maps:
            raise unknown_name("layer", name, difflib.get_close_matches(name, self.maps, n=_NEAREST, cutoff=0))
        found = self.maps[name]
        if row >= found.size[0] or column >= found.size[1]:
            raise OptionError(f"unit {text}: {name} is {found.size[0]} x {found.size[1]} here, counted from 0")
        return found.field(row, column)


def units_of_trace(geometry: Trace) -> Units:
    """The maps of a traced module, on its first input; blocks have the map that they end with.

    Raises:
        GeometryError: none of its layers is a map of limited fields.
    """
    maps = {layer.node: _map_of(layer) for layer in geometry.layers if _is_map(layer)}
    if not maps:
        raise GeometryError("no layer has limited fields, so none can be drawn; every unit reads all of the image")
    shown = [maps[layer.node] for layer in shown_layers(geometry) if layer.node in maps]
    named = {each.name: each for each in maps.values()}
    blocks = {name: maps[node] for name, node in geometry.traced.ends.items() if name and node in maps}
    return Units({**blocks, **named}, _of_strides(shown, widest=True))


def units_of_net(net: FCN, size: tuple[int, int]) -> Units:
    """The maps of an FCN's trunks at an input size (H, W), and its output.

    Raises:
        GeometryError: the net cannot take that size.
    """
    maps = []
    for facts in inspect_net(net, size).layers:
        start = int(facts.centre - (facts.field - 1) / 2)
        fields = Fields((start,), (start + facts.field,), int(facts.stride))
        maps.append(UnitMap(facts.name, (facts.size[1], facts.size[2]), fields, fields))
    fields = output_fields(net)
    maps.append(UnitMap(OUTPUT, size, fields, fields))
    return Units({each.name: each for each in maps}, _of_strides(maps, widest=False))


def _is_map(layer: TracedLayer) -> bool:
    return layer.axes != (None, None) and layer.local


def _map_of(layer: TracedLayer) -> UnitMap:
    rows, columns = layer.fields()
    height, width = (1 if axis is None else layer.shape[axis] for axis in layer.axes)
    return UnitMap(layer.name, (height, width), rows, columns)


def _of_strides(maps: Sequence[UnitMap], widest: bool) -> list[UnitMap]:
    """Of each stride the first map, or the first of those that see most; and the last map."""
    chosen: dict[tuple[Fraction, Fraction], UnitMap] = {}
    for each in maps:
        strides = each.rows.stride, each.columns.stride
        before = chosen.get(strides)
        if set(strides) != {Fraction(1)} and (before is None or (widest and each.rows.size > before.rows.size)):
            chosen[strides] = each
    return [*(each for each in chosen.values() if each is not maps[-1]), maps[-1]]
