"""What a net is made of: layers, sizes, parameters, receptive fields, strides and crops."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from fullconv import geometry
from fullconv.errors import OptionError, printable
from fullconv.fields import Fields
from fullconv.geometry import Window
from fullconv.nets import FCN, NETS, build, parameter_count
from fullconv.nets.branches import Branches
from fullconv.nets.head import Head, crops
from fullconv.nets.paths import paths, windows
from fullconv.nets.trunks import Trunk
from fullconv.nets.unpool import Unpooling
from fullconv.weights.modelfile import read_options

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class LayerFacts:
    """One layer of the trunk; (vertical, horizontal) where axes differ.

    Attributes:
        size: (C, H, W) of its output.
        field, stride, centre: of its units, in input pixels; the centre is that of unit 0.
        tap: whether a score layer reads it.
    """

    name: str
    kind: str
    size: tuple[int, int, int]
    parameters: int
    field: int
    stride: float
    centre: float
    tap: bool


@dataclass(frozen=True)
class CropFacts:
    """One upsampling: its kernel and the computed crop.

    Attributes:
        kind: the class of the layer.
        offset: cells dropped at the top and left of what is `cropped`: "upsampled", or the "skip" if that is the one
            that loses them, or the "coarser" map before an unpooling; negative: zeros are added there.
        kernel, stride: of the transposed convolution; of a stack, of the one that reads the same cells; of an
            unpooling, those of the pooling.
        parameters: learned ones; 0 where it is fixed.
    """

    name: str
    kind: str
    kernel: int
    stride: int
    offset: tuple[int, int]
    cropped: str
    parameters: int


@dataclass(frozen=True)
class Inspection:
    """All of it; see `inspect_net`."""

    net: dict[str, Any]
    size: tuple[int, int]
    layers: list[LayerFacts]
    crops: list[CropFacts]
    scores: dict[str, tuple[int, int, int]]
    parameters: int
    reach: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def tables(self) -> list[Table | str]:
        """For a terminal."""
        from rich.table import Table

        layers = Table(box=None, pad_edge=False)
        for column in ("layer", "kind", "C x H x W", "parameters", "field", "stride", "centre", "scored"):
            layers.add_column(column, justify="left" if column in ("layer", "kind") else "right")
        for f in self.layers:
            size = " x ".join(map(str, f.size))
            marks = (f"{f.stride:g}", f"{f.centre:g}", "*" if f.tap else "")
            layers.add_row(f.name, f.kind, size, f"{f.parameters:,}" if f.parameters else "", str(f.field), *marks)
        steps = Table(box=None, pad_edge=False)
        for column in ("upsampling", "kind", "kernel", "stride", "parameters", "crop offset"):
            steps.add_column(column, justify="left" if column in ("upsampling", "kind") else "right")
        for step in self.crops:
            offset = str(step.offset[0]) if step.offset[0] == step.offset[1] else str(step.offset)
            learned = f"{step.parameters:,}" if step.parameters else "fixed"
            numbers = str(step.kernel), str(step.stride), learned
            steps.add_row(step.name, step.kind, *numbers, f"{offset} of the {step.cropped}")
        title = (
            f"[bold]{self.net['stride']}s on {self.net['trunk']}[/bold], {self.net['padding']} padding, "
            f"input {self.size[0]} x {self.size[1]}"
        )
        scores = ", ".join(" x ".join(map(str, shape)) for shape in self.scores.values())
        facts = (
            f"coarse scores {scores}; parameters {self.parameters:,}; "
            f"a pixel's label depends on {self.reach} x {self.reach} pixels"
        )
        return [
            title,
            layers,
            "",
            steps,
            "",
            facts,
        ]


def named_net(name: str, classes: int | None, padding: str | None) -> FCN:
    """The net of a model file's header, or of a name of `NETS`; without memory for its weights.

    Raises:
        ModelFileError: a file that is no model.
        OptionError: neither a file nor a name; or classes or padding for a file.
    """
    with torch.device("meta"):
        if name not in NETS and (Path(name).exists() or name.endswith(".safetensors")):
            if classes is not None or padding is not None:
                raise OptionError(
                    f"{printable(name)} is a model with its own classes and padding; leave the options out"
                )
            return FCN(read_options(name))
        options: dict[str, Any] = {} if padding is None else {"padding": padding}
        return build(name, classes, **options)


def inspect_net(net: FCN, size: tuple[int, int]) -> Inspection:
    """The facts of a net at an input size (H, W).

    Raises:
        GeometryError: the net cannot take that size.
    """
    heads = {task: cast(Head, head) for task, head in net.heads.items()}
    first = next(iter(heads.values()))
    layers: list[LayerFacts] = []
    taps: dict[tuple[str, int], LayerFacts] = {}
    for name, module in net.trunks.items():
        trunk = cast(Trunk, module)
        walk = _Walk({trunk.taps[stride] for stride in first.strides}, f"{name}." if len(net.trunks) > 1 else "")
        at = _Place((0, *size))
        for child, layer in trunk.named_children():
            at = walk.through(child, layer, at)
        layers += walk.rows
        by_name = {facts.name.removeprefix(walk.prefix): facts for facts in walk.rows if facts.tap}
        taps |= {(name, stride): by_name[trunk.taps[stride]] for stride in first.strides}
    steps: list[CropFacts] = []
    for task, head in heads.items():
        of_task = f" {task}" if len(heads) > 1 else ""
        for trunk_name, scored in head.score.items():
            of_trunk = f" {trunk_name}" if len(net.trunks) > 1 else ""
            for stride, layer in cast(nn.ModuleDict, scored).items():
                tap = taps[trunk_name, int(stride)]
                shape = (cast(nn.Conv2d, layer).out_channels, *tap.size[1:])
                score = replace(tap, name=f"score {stride}s{of_trunk}{of_task}", kind="Conv2d", size=shape, tap=False)
                layers.append(replace(score, parameters=parameter_count(layer)))
        for (name, step), layer in zip(crops(head), head.upscore.values(), strict=True):
            cropped = "skip" if min(step.shift) < 0 else "upsampled"
            offset = (abs(step.shift[0]), abs(step.shift[1]))
            if isinstance(layer, Unpooling):  # it ends on the grid of the pooling's input; the crop comes before it
                cropped, offset = "coarser", layer.offset
            window, kind = step.window, type(layer).__name__
            steps.append(
                CropFacts(name + of_task, kind, window.kernel, window.stride, offset, cropped, parameter_count(layer))
            )
    with torch.device("meta"), torch.no_grad():
        image = {n: torch.zeros(1, i.channels, *size) for n, i in net.options.inputs.items()}
        coarse = FCN(net.options).eval().coarse(image)
    shapes = {task: cast(tuple[int, int, int], tuple(each.scores.shape[1:])) for task, each in coarse.items()}
    return Inspection(net.options.to_json(), size, layers, steps, shapes, parameter_count(net), output_fields(net).size)


def output_fields(net: FCN) -> Fields:
    """What the final pixels of a net's first task depend on, along either axis."""
    head = cast(Head, next(iter(net.heads.values())))
    end: list[geometry.Layer] = [head.output.window, geometry.Crop(head.output.shift[0])]
    streams = [[*rows, *end] for _, (rows, _) in net.paths()]
    starts, stops = zip(*(geometry.inputs_of_all(streams, p, p + 1) for p in range(head.strides[0])), strict=True)
    return Fields(starts, stops, head.strides[0])


@dataclass(frozen=True)
class _Place:
    """Where a walk is: (C, H, W) and the paths from the image."""

    size: tuple[int, int, int]
    rows: tuple[Window, ...] = ()
    columns: tuple[Window, ...] = ()


class _Walk:
    """Through the layers of a trunk, noting the facts of each that has weights, pools, joins branches or is scored."""

    def __init__(self, tapped: Collection[str], prefix: str) -> None:
        self.tapped, self.prefix = tapped, prefix
        self.rows: list[LayerFacts] = []

    def through(self, name: str, layer: nn.Module, at: _Place) -> _Place:
        """Behind a layer; its own layers are noted before it."""
        if isinstance(layer, Branches):
            ends = []
            for branch in layer.branches:
                end = at
                for child, each in branch:
                    end = self.through(f"{name}.{child}", each, end)
                ends.append(end.size)
            size = (layer.channels([c for c, *_ in ends]), *ends[0][1:])
        elif isinstance(layer, nn.Sequential):
            end = at
            for child, each in layer.named_children():
                end = self.through(f"{name}.{child}", each, end)
            size = end.size
        else:
            vertical, horizontal = windows(layer)
            channels = layer.out_channels if isinstance(layer, nn.Conv2d) else at.size[0]
            size = (channels, vertical.output_size(at.size[1]), horizontal.output_size(at.size[2]))
        rows, columns = paths([layer])
        behind = _Place(size, (*at.rows, *rows), (*at.columns, *columns))
        own = 0 if isinstance(layer, Branches | nn.Sequential) else parameter_count(layer)
        if own or name in self.tapped or isinstance(layer, Branches | nn.MaxPool2d | nn.AvgPool2d):
            field = geometry.receptive_field(behind.rows)
            marks = (field.size, float(field.stride), float(field.centre))
            kind = type(layer).__name__
            self.rows.append(LayerFacts(self.prefix + name, kind, size, own, *marks, name in self.tapped))
        return behind
