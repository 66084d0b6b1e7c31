"""The paper's table 1 beside ours, which is computed or timed: what `fullconv inspect --paper` shows."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from fullconv import geometry
from fullconv.nets import FCN, build, parameter_count
from fullconv.nets.branches import Branches
from fullconv.nets.classifier import Classifier
from fullconv.nets.precision import inference
from fullconv.nets.trunks import TRUNKS, Trunk

if TYPE_CHECKING:
    from rich.table import Table

REPEATS = 3
"""Timed passes; the median counts."""


@dataclass(frozen=True)
class Published:
    """A column of table 1 (Long et al. 2015): the forward time is of 500x500 on a K40c."""

    name: str
    convolutions: int
    parameters: str
    field: int
    stride: int
    seconds: float


TABLE_1 = {
    "voc-fcn-alexnet": Published("FCN-AlexNet", 8, "57M", 355, 32, 0.050),
    "voc-fcn32s": Published("FCN-VGG16", 16, "134M", 404, 32, 0.210),
    "voc-fcn-googlenet": Published("FCN-GoogLeNet", 22, "6M", 907, 32, 0.059),
}

COUNTS = {
    "voc-fcn32s": (134_346_581, 136_152_917),
    "voc-fcn16s": (134_357_354, 134_815_994),
    "voc-fcn8s": (134_362_751, 134_489_759),
    "voc-fcn8s-atonce": (134_362_751, 134_490_527),
    "voc-fcn-alexnet": (56_954_261, 58_704_590),
    "voc-fcn-googlenet": (5_995_077, None),
}
"""Parameters of trunk and score layers, and all values that the Caffe model stores (reference 1.3)."""


@dataclass(frozen=True)
class Column:
    """One net of table 1, ours.

    Attributes:
        convolutions: the longest way through the net in convolutions, the score layer among them.
        parameters: learned ones.
        field: of a score unit, in pixels.
        classifier_field: of the classifier with the average pooling that the FCN drops.
        pool: kernel of that pooling; 0: none.
        stride: of the coarsest scores.
        seconds: of a forward pass on this machine, random weights.
    """

    net: str
    published: Published
    convolutions: int
    parameters: int
    field: int
    classifier_field: int
    pool: int
    stride: int
    seconds: float


@dataclass(frozen=True)
class Count:
    """Parameters of a net: those of trunk and scores, and the values stored in Caffe's form; published and ours."""

    net: str
    published: int
    ours: int
    published_stored: int | None
    stored: int


@dataclass(frozen=True)
class Table1:
    """See `table_1`."""

    size: tuple[int, int]
    columns: list[Column]
    counts: list[Count]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def tables(self) -> list[Table | str]:
        """For a terminal."""
        from rich.table import Table

        compared = Table(box=None, pad_edge=False)
        compared.add_column("")
        for column in self.columns:
            compared.add_column(f"{column.published.name}\npaper", justify="right")
            compared.add_column("\nours", justify="right")
        rows: dict[str, list[str]] = {
            "convolution layers": [f"{v}" for c in self.columns for v in (c.published.convolutions, c.convolutions)],
            "parameters": [v for c in self.columns for v in (c.published.parameters, _millions(c.parameters))],
            "receptive field": [f"{v}" for c in self.columns for v in (c.published.field, c.field)],
            "  with the classifier's pooling": [
                v for c in self.columns for v in ("", f"{c.classifier_field}" if c.pool else "")
            ],
            "stride": [f"{v}" for c in self.columns for v in (c.published.stride, c.stride)],
            "forward time, ms": [f"{1000 * v:.0f}" for c in self.columns for v in (c.published.seconds, c.seconds)],
        }
        for name, values in rows.items():
            compared.add_row(name, *values)
        counts = Table(box=None, pad_edge=False)
        for head in ("parameters", "trunk and scores", "ours", "stored by Caffe", "ours"):
            counts.add_column(head, justify="left" if head == "parameters" else "right")
        for count in self.counts:
            stored = "" if count.published_stored is None else f"{count.published_stored:,}"
            counts.add_row(count.net, f"{count.published:,}", f"{count.ours:,}", stored, f"{count.stored:,}")
        size = f"{self.size[0]} x {self.size[1]}"
        remarks = [
            f"{c.published.name}: {c.classifier_field} is the field of the classifier with its last {c.pool}x{c.pool} "
            f"average pooling. The FCN drops that pooling, so its own field is "
            f"{c.classifier_field} - {c.pool - 1} * {c.stride} = {c.field}."
            for c in self.columns
            if c.pool
        ]
        timing = (
            f"Forward times: the paper's at 500 x 500 on a K40c; ours at {size} on this processor "
            f"({torch.get_num_threads()} threads, float32, median of {REPEATS})."
        )
        return [
            "[bold]Long et al. 2015, table 1[/bold]",
            compared,
            timing,
            *remarks,
            "",
            counts,
            "Stored by Caffe: with the scale layers and the dense bilinear weights of upsampling, which we compute.",
        ]


def table_1(size: tuple[int, int] = (500, 500)) -> Table1:
    """The paper's table 1 and the parameter counts of the reference, with what our nets have.

    Args:
        size: (H, W) of the input of the timed forward passes.
    """
    return Table1(size, [_column(name, size) for name in TABLE_1], [_count(name) for name in COUNTS])


def _column(name: str, size: tuple[int, int]) -> Column:
    with torch.device("meta"):
        net = build(name)
        classifier = Classifier(net.options.trunk)
    trunk = cast(Trunk, next(iter(net.trunks.values())))
    field = geometry.receptive_field(trunk.paths(32)[0])
    return Column(
        name,
        TABLE_1[name],
        _depth(trunk) + 1,
        parameter_count(net),
        field.size,
        geometry.receptive_field(classifier.paths()[0]).size,
        TRUNKS[net.options.trunk].pool,
        int(field.stride),
        _seconds(build(name), size),
    )


def _count(name: str) -> Count:
    with torch.device("meta"):
        plain, dense = build(name), build(name, upsampling="learned-all")
    trunk = cast(Trunk, next(iter(plain.trunks.values())))
    scales = sum(trunk.channels(stride) for stride in plain.options.scales)
    published, stored = COUNTS[name]
    return Count(name, published, parameter_count(plain), stored, parameter_count(dense) + scales)


def _depth(layer: nn.Module) -> int:
    """Convolutions on the longest way through."""
    if isinstance(layer, Branches):
        return max(sum(_depth(each) for _, each in branch) for branch in layer.branches)
    if isinstance(layer, nn.Sequential):
        return sum(map(_depth, layer))
    return int(isinstance(layer, nn.Conv2d))


def _seconds(net: FCN, size: tuple[int, int]) -> float:
    image = torch.zeros(1, 3, *size)
    times = []
    with inference(net):
        for _ in range(REPEATS + 1):  # the first warms up
            start = time.perf_counter()
            net(image)
            times.append(time.perf_counter() - start)
    return median(times[1:])


def _millions(count: int) -> str:
    return f"{count / 1e6:.0f}M"
