"""What a net is made of: layers, sizes, parameters, receptive fields, strides and crops."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from fullconv import geometry
from fullconv.geometry import Layer
from fullconv.nets import FCN, NETS, build
from fullconv.nets.fcn import Head, crops
from fullconv.nets.trace import windows
from fullconv.nets.trunks import Trunk
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
        offset: cells dropped at the top and left ("of the skip" if the skip is the one that loses them).
        kernel, stride: of the transposed convolution.
        parameters: learned ones; 0 where it is fixed.
    """

    name: str
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
    scores: tuple[int, int, int]
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
        for column in ("upsampling", "kernel", "stride", "parameters", "crop offset"):
            steps.add_column(column, justify="left" if column == "upsampling" else "right")
        for step in self.crops:
            offset = str(step.offset[0]) if step.offset[0] == step.offset[1] else str(step.offset)
            learned = f"{step.parameters:,}" if step.parameters else "fixed"
            steps.add_row(step.name, str(step.kernel), str(step.stride), learned, f"{offset} of the {step.cropped}")
        title = (
            f"[bold]{self.net['stride']}s on {self.net['trunk']}[/bold], {self.net['padding']} padding, "
            f"input {self.size[0]} x {self.size[1]}"
        )
        facts = (
            f"coarse scores {' x '.join(map(str, self.scores))}; parameters {self.parameters:,}; "
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


def named_net(name: str, classes: int, padding: str) -> FCN:
    """The net of a model file's header, or of a name of `NETS`; without memory for its weights.

    Raises:
        ModelFileError: a file that is no model.
        OptionError: neither a file nor a name.
    """
    with torch.device("meta"):
        if name not in NETS and (Path(name).exists() or name.endswith(".safetensors")):
            return FCN(read_options(name))
        return build(name, classes, padding=padding)


def inspect_net(net: FCN, size: tuple[int, int]) -> Inspection:
    """The facts of a net's first trunk and first task at an input size (H, W).

    Raises:
        GeometryError: the net cannot take that size.
    """
    trunk = cast(Trunk, next(iter(net.trunks.values())))
    head = cast(Head, next(iter(net.heads.values())))
    tapped = {trunk.taps[stride] for stride in head.strides}
    layers: list[LayerFacts] = []
    at = (0, *size)
    paths: tuple[list[Layer], list[Layer]] = ([], [])
    for name, layer in trunk.named_children():
        vertical, horizontal = windows(layer)
        paths[0].append(vertical)
        paths[1].append(horizontal)
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else at[0]
        at = (channels, vertical.output_size(at[1]), horizontal.output_size(at[2]))
        parameters = _parameters(layer)
        if parameters or isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) or name in tapped:
            field = geometry.receptive_field(paths[0])
            marks = (field.size, float(field.stride), float(field.centre))
            layers.append(LayerFacts(name, type(layer).__name__, at, parameters, *marks, name in tapped))
    taps = {facts.name: facts for facts in layers if facts.tap}
    for stride, layer in cast(nn.ModuleDict, next(iter(head.score.values()))).items():
        tap = taps[trunk.taps[int(stride)]]
        shape = (cast(nn.Conv2d, layer).out_channels, *tap.size[1:])
        score = replace(tap, name=f"score {stride}s", kind="Conv2d", size=shape, tap=False)
        layers.append(replace(score, parameters=_parameters(layer)))
    steps: list[CropFacts] = []
    for name, step in crops(head):
        cropped = "skip" if min(step.shift) < 0 else "upsampled"
        offset = (abs(step.shift[0]), abs(step.shift[1]))
        layer = head.upscore["output" if step is head.output else str(head.strides[len(steps) + 1])]
        steps.append(CropFacts(name, step.window.kernel, step.window.stride, offset, cropped, _parameters(layer)))
    streams = [[*rows, head.output.window, geometry.Crop(head.output.shift[0])] for _, (rows, _) in net.paths()]
    phases = range(head.strides[0])
    reach = max(b - a for a, b in (geometry.inputs_of_all(streams, p, p + 1) for p in phases))
    with torch.device("meta"), torch.no_grad():
        image = {n: torch.zeros(1, i.channels, *size) for n, i in net.options.inputs.items()}
        coarse = next(iter(FCN(net.options).eval().coarse(image).values())).scores
    return Inspection(
        net.options.to_json(),
        size,
        layers,
        steps,
        (coarse.shape[1], coarse.shape[2], coarse.shape[3]),
        _parameters(net),
        reach,
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
