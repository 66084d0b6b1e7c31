"""Receptive fields of any module, as a table: what every layer reads of the input."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from fullconv.errors import OptionError
from fullconv.fields import Fields
from fullconv.geometry import Window
from fullconv.nets.modules import first_channels
from fullconv.nets.trace import Trace, TracedLayer, trace
from fullconv.nets.tracing.graph import Shape, without_data
from fullconv.nets.tracing.reader import Reads

if TYPE_CHECKING:
    from rich.table import Table

TEXT_WIDTH = 160
"""Columns of a table that is not printed to a terminal."""

Size = int | tuple[int, int]


def receptive_field(
    module: nn.Module, size: Size = 224, channels: int | Mapping[str, int] | None = None
) -> Trace:  # fmt: skip
    """The geometry of a module in evaluation mode; printed, it is a table.

    Args:
        module: any that torch.fx can trace; nothing is computed, and it stays as it was.
        size: (H, W) of the input, or one number for both.
        channels: of the input, or by name of several; default: what the first convolution takes.

    Raises:
        GeometryError: it cannot be traced, or not at this size.
        OptionError: a size or number of channels below 1; no convolution that tells the channels.

    >>> block = nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    >>> print(receptive_field(block, 64))
    input 3 x 64 x 64, 1,184 parameters
    layer  kind       shape        parameters  window     field  stride  start  centre
    0      Conv2d     8 x 32 x 32       1,184  7x7 s2 p3      7       2     -3       0
    2      MaxPool2d  8 x 16 x 16              3x3 s2 p1     11       4     -5       0
    every layer is local
    """
    height, width = (size, size) if isinstance(size, int) else size
    if channels is None:
        channels = first_channels(module)
    counts = {"": channels} if isinstance(channels, int) else dict(channels)
    if min(height, width, *counts.values()) < 1:
        raise OptionError(f"an input of {channels} channels and {height} x {width} pixels; expected at least 1 of each")
    shapes: dict[str, Shape] = {name: (1, count, height, width) for name, count in counts.items()}
    return trace(without_data(module).eval(), shapes[""] if isinstance(channels, int) else shapes)


def shown_layers(geometry: Trace) -> list[TracedLayer]:
    """The layers that learn, move a window, change what is read or the numbers of the map; and the output.

    Left out: activations, dropout, additions of a shortcut, changes of layout.
    """
    before: dict[Any, tuple[object, object]] = {}
    for name, node in geometry.traced.inputs.items():
        before[node] = {name: (Fields(), Fields())}, sorted(geometry.shapes[name])
    obstacles = {obstacle.name for obstacle in geometry.obstacles}
    shown = []
    for layer in geometry.layers:
        own = dict(layer.reads), sorted(layer.shape)
        same = any(before.get(node) == own for node in layer.node.all_input_nodes)
        before[layer.node] = own
        if layer.parameters or layer.windows or not same or layer.name in obstacles or layer is geometry.output:
            shown.append(layer)
    return shown


def to_json(geometry: Trace) -> dict[str, Any]:
    """Plain values; pairs are (vertical, horizontal), null where all of the image is read."""
    return {
        "inputs": {name: list(shape[1:]) for name, shape in geometry.shapes.items()},
        "parameters": _parameters(geometry),
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "shape": list(layer.shape[1:]),
                "parameters": layer.parameters,
                "window": None if layer.windows is None else _window_json(layer.windows),
                "fields": {name: _reads_json(reads) for name, reads in layer.reads.items()},
            }
            for layer in shown_layers(geometry)
        ],
        "obstacles": [{"name": each.name, "kind": each.kind, "reason": each.reason} for each in geometry.obstacles],
    }


def tables(geometry: Trace) -> list[Table | str]:
    """For a terminal: (vertical x horizontal) where the axes differ, "all" where all of the image is read."""
    from rich.markup import escape
    from rich.table import Table

    several = len(geometry.shapes) > 1
    table = Table(box=None, pad_edge=False)
    for column in ("layer", "kind", "shape", "parameters", "window", *(["reads"] if several else [])):
        table.add_column(column, justify="right" if column == "parameters" else "left", overflow="fold")
    for column in ("field", "stride", "start", "centre"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in shown_layers(geometry):
        shape = " x ".join(map(str, layer.shape[1:]))
        count = f"{layer.parameters:,}" if layer.parameters else ""
        first = (escape(layer.name), escape(layer.kind), shape, count, window_text(layer.windows))
        for name, reads in layer.reads.items():
            table.add_row(*first, *([escape(name)] if several else []), *_reads_texts(reads))
            first = ("",) * 5
    inputs = [
        f"{escape(name) + ' ' if several else ''}{' x '.join(map(str, shape[1:]))}"
        for name, shape in geometry.shapes.items()
    ]
    lines: list[Table | str] = [f"input {', '.join(inputs)}, {_parameters(geometry):,} parameters", table]
    if not geometry.obstacles:
        return [*lines, "every layer is local"]
    return [*lines, "", "not local:", *(f"  {escape(str(obstacle))}" for obstacle in geometry.obstacles)]


def text(geometry: Trace) -> str:
    """`tables` as plain text."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=TEXT_WIDTH, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(*tables(geometry), sep="\n")
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def window_text(windows: tuple[Window, Window] | None) -> str:
    """A window in short: kernel, stride s, padding p and dilation d where they are not 1, 0 and 1.

    >>> window_text((Window(7, 2, 3), Window(7, 2, 3))), window_text((Window(1), Window(5, padding=2)))
    ('7x7 s2 p3', '1x5 p0x2')
    """
    if windows is None:
        return ""
    rows, columns = windows
    parts = [f"{rows.kernel}x{columns.kernel}"]
    for letter, usual, pair in (
        ("s", 1, (rows.stride, columns.stride)),
        ("p", 0, (rows.padding, columns.padding)),
        ("d", 1, (rows.dilation, columns.dilation)),
    ):
        if set(pair) != {usual}:
            parts.append(f"{letter}{pair[0]}" if pair[0] == pair[1] else f"{letter}{pair[0]}x{pair[1]}")
    parts += ["ceil"] * rows.ceil + ["transposed"] * rows.transposed
    return " ".join(parts)


def _window_json(windows: tuple[Window, Window]) -> dict[str, Any]:
    rows, columns = windows
    pairs = {name: [getattr(rows, name), getattr(columns, name)] for name in ("kernel", "stride", "padding")}
    return {
        **pairs,
        "dilation": [rows.dilation, columns.dilation],
        "ceil": rows.ceil,
        "transposed": rows.transposed,
    }


def _measures(reads: Reads) -> Iterator[tuple[str, list[float | int | None]]]:
    """Size, stride, start and centre, each (vertical, horizontal)."""
    measures: dict[str, Callable[[Fields], float | int]] = {
        "field": lambda fields: fields.size,
        "stride": lambda fields: float(fields.stride),
        "start": lambda fields: fields.start,
        "centre": lambda fields: float(fields.centre),
    }
    for name, measure in measures.items():
        yield name, [None if fields is None else measure(fields) for fields in reads]


def _reads_json(reads: Reads) -> dict[str, Any]:
    return dict(_measures(reads))


def _reads_texts(reads: Reads) -> list[str]:
    texts = []
    for name, pair in _measures(reads):
        nothing = "all" if name == "field" else "-"
        values = [nothing if value is None else f"{value:.10g}" for value in pair]
        texts.append(values[0] if values[0] == values[1] else " x ".join(values))
    return texts


def _parameters(geometry: Trace) -> int:
    return sum(parameter.numel() for parameter in geometry.traced.root.parameters())
