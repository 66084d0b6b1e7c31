"""Head: 1x1 score layers, skip fusion and upsampling of one task; every crop computed from the layers.

Source: Long et al. 2015, sections 3.3 and 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from fullconv import geometry
from fullconv.errors import GeometryError
from fullconv.geometry import Crop, Layer, Window
from fullconv.nets.stacked import StackedUpsampling
from fullconv.nets.trunks.trunk import AnyTrunk, Features, Pooling
from fullconv.nets.unpool import Unpooling
from fullconv.nets.upsample import BilinearUpsampling, Interpolation, LearnedUpsampling, Upsampling

Axes = tuple[list[Layer], list[Layer]]
"""The (vertical, horizontal) paths from the input to some layer."""


@dataclass(frozen=True)
class Kind:
    """How scores are upsampled.

    Attributes:
        step: (K, bilinear window) -> an upsampling to a finer stride of the trunk.
        output: the same for the last one, to the input's size.
        unpools: a stride that a max pooling made is undone by `Unpooling` instead.
    """

    step: Callable[[int, Window], Upsampling]
    output: Callable[[int, Window], Upsampling]
    unpools: bool = False


def _left_over(maps: int, window: Window) -> Upsampling:
    """Learned; where unpooling has come down to the pixels, there is nothing to learn but a crop to take."""
    return (LearnedUpsampling if window.stride > 1 else BilinearUpsampling)(maps, window)


KINDS = {
    "bilinear": Kind(BilinearUpsampling, BilinearUpsampling),
    "interpolation": Kind(Interpolation, Interpolation),
    "learned": Kind(LearnedUpsampling, BilinearUpsampling),
    "learned-all": Kind(LearnedUpsampling, LearnedUpsampling),
    "stacked": Kind(StackedUpsampling, StackedUpsampling),
    "unpooling": Kind(LearnedUpsampling, _left_over, unpools=True),
}
"""By the names of `NetOptions.upsampling`."""


@dataclass(frozen=True)
class Step:
    """The geometry of one upsampling.

    Attributes:
        window: the transposed convolution.
        layers: (vertical, horizontal), from the coarser map to the upsampled one.
        shift: (vertical, horizontal): cell i of the finer map lies on cell i + shift of the upsampled one.
        joining: name of and paths to all else that the map at the step's end reads: a skip, a pooling's indices.
    """

    window: Window
    layers: Axes
    shift: tuple[int, int]
    joining: list[tuple[str, Axes]] = field(default_factory=list)

    def after(self, axes: Axes) -> Axes:
        """The paths to the step's end, by way of a map at the end of `axes` that it upsamples."""
        return self.cropped(_joined(axes, self.layers))

    def cropped(self, axes: Axes) -> Axes:
        """The paths to the upsampled map, cropped as it will be."""
        rows, columns = ([*path, Crop(max(shift, 0))] for path, shift in zip(axes, self.shift, strict=True))
        return rows, columns


class Head(nn.Module):
    """One task: score layers, fused from coarse to fine, and the last upsampling.

    Args:
        classes: K.
        trunks: by name; the scores of several trunks are averaged (late fusion).
        stride: of the finest scores that are fused: 32, 16, 8, ...
        upsampling, scales: see `NetOptions`.

    Attributes:
        strides: of the scored taps, coarsest first.
        poolings: names of the poolings whose indices are read.
        steps: stride reached -> geometry of the upsampling to it, coarsest first; the coarse scores are those of the
            last one.
        output: geometry of the upsampling of the coarse scores to the input's size.
        upscore: the upsamplings themselves, by stride reached or "output".
    """

    def __init__(
        self, classes: int, trunks: Mapping[str, AnyTrunk], stride: int, upsampling: str, scales: Mapping[int, float]
    ) -> None:
        super().__init__()
        self.scales = dict(scales)
        first, kind = next(iter(trunks.values())), KINDS[upsampling]
        self.strides = sorted((s for s in first.taps if s >= stride), reverse=True)
        self.score = nn.ModuleDict(
            {
                name: nn.ModuleDict({str(s): _zeroed(nn.Conv2d(trunk.channels(s), classes, 1)) for s in self.strides})
                for name, trunk in trunks.items()
            }
        )
        skips = {s: axes_of(first, s) for s in self.strides}
        poolings = {name: trunk.poolings() for name, trunk in trunks.items()} if kind.unpools else {}
        made = {s: each for s, each in next(iter(poolings.values()), {}).items() if s <= self.strides[0]}
        self.poolings = [each.name for each in made.values()]
        self.steps: dict[int, Step] = {}
        self.upscore = nn.ModuleDict()
        axes = skips[self.strides[0]]
        stops = sorted({*self.strides, *made, *(s // 2 for s in made)}, reverse=True)
        for at, finer in pairwise(stops):
            if at in made:
                aligning = _fitting(axes, _pooled(made[at]), 1)
                layer: Upsampling | Unpooling = Unpooling(classes, {n: p[at] for n, p in poolings.items()}, aligning)
            else:
                grid = skips[finer] if finer in skips else _pooled(made[finer])
                layer = kind.step(classes, _fitting(axes, grid, at // finer)[0])
            self.upscore[str(finer)] = layer
            self.steps[finer] = step = _step(layer, axes, skips.get(finer))
            if at in made:
                pooled = _joined(_pooled(made[at]), (cast(Unpooling, layer).unpooled(),) * 2)
                step.joining.append((made[at].name, step.cropped(pooled)))
            if finer in skips:
                # A skip that the upsampled map is cropped to keeps its grid; one that is itself cropped loses cells.
                rows, columns = (
                    [*path, Crop(max(-shift, 0))] for path, shift in zip(skips[finer], step.shift, strict=True)
                )
                step.joining.append((first.taps[finer], (rows, columns)))
            axes = step.after(axes)
        last = kind.output(classes, _fitting(axes, ([], []), stops[-1])[0])
        self.upscore["output"] = last
        self.output = _step(last, axes, ([], []))
        if min(self.output.shift) < 0:
            raise GeometryError(f"the scores start {-min(self.output.shift)} pixels inside the image; pad more")

    def forward(self, features: Mapping[str, Features]) -> Tensor:
        """Features by trunk and stride -> coarse scores (N, K, h, w), float32."""
        x = self._scores(features, self.strides[0])
        for stride, step in self.steps.items():
            layer = self.upscore[str(stride)]
            x = layer(x, features) if isinstance(layer, Unpooling) else cast(Upsampling, layer).whole(x)
            if stride in self.strides:
                x = _fuse(x, self._scores(features, stride), stride, step.shift)
        return x

    def upsample(self, coarse: Tensor, size: tuple[int, int]) -> Tensor:
        """Coarse scores -> scores (N, K, H, W) of the input's size."""
        return self.rows(coarse, size, (0, size[0]))

    def rows(self, coarse: Tensor, size: tuple[int, int], rows: tuple[int, int]) -> Tensor:
        """Coarse scores -> the given rows of the scores of the input's size: (N, K, rows, W)."""
        self.check_covers(coarse.shape[2:], size)
        down, right = self.output.shift
        return cast(Tensor, self.upscore["output"](coarse, (rows[0] + down, rows[1] + down), (right, right + size[1])))

    def grid(self, coarse: Tensor, size: tuple[int, int], start: tuple[int, int], stride: int) -> Tensor:
        """Coarse scores -> those of every `stride`-th row and column of the input, from (row, column) on."""
        self.check_covers(coarse.shape[2:], size)
        rows, columns = ((s + at, s + n) for s, at, n in zip(self.output.shift, start, size, strict=True))
        return cast(Upsampling, self.upscore["output"]).grid(coarse, rows, columns, stride)

    def labels(self, coarse: Tensor, size: tuple[int, int]) -> Tensor:
        """Coarse scores -> labels (N, H, W) uint8, without scores of the input's size."""
        self.check_covers(coarse.shape[2:], size)
        rows, columns = ((s, s + n) for s, n in zip(self.output.shift, size, strict=True))
        upscore = cast(Upsampling, self.upscore["output"])
        return torch.stack([upscore.labels(one, rows, columns) for one in coarse])

    def _scores(self, features: Mapping[str, Features], stride: int) -> Tensor:
        scale = self.scales.get(stride, 1.0)
        scores = []
        for trunk, layers in self.score.items():
            x = features[trunk][stride]
            scores.append(cast(nn.ModuleDict, layers)[str(stride)](x if scale == 1 else x * scale).float())
        return scores[0] if len(scores) == 1 else torch.stack(scores).mean(0)

    def check_covers(self, cells: Sequence[int], size: tuple[int, int]) -> None:
        """Raise GeometryError unless coarse scores of (h, w) cells reach every pixel of an image of `size`."""
        for axis in range(2):
            there = self.output.window.output_size(cells[axis]) - self.output.shift[axis]
            if there < size[axis]:
                raise GeometryError(f"the upsampled scores have {there} of {size[axis]} pixels; pad more")


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Score layers start at zero (Long et al. 2015, section 4.3)."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _fuse(upsampled: Tensor, skip: Tensor, stride: int, shifts: tuple[int, int]) -> Tensor:
    """Add, each map cropped to where both are (Long et al. 2015, section 4.2)."""
    for axis, shift in enumerate(shifts, 2):
        full, there = upsampled.shape[axis], skip.shape[axis]
        if shift >= 0:  # the upsampled map starts before the skip: drop its first cells
            size = min(full - shift, there)
            upsampled, skip = upsampled.narrow(axis, shift, size), skip.narrow(axis, 0, size)
        else:  # the skip starts before it: crop the skip, as the paper's nets do
            if there + shift < full:
                raise GeometryError(f"the skip at stride {stride} has {there} cells, needs {full - shift}; pad more")
            skip = skip.narrow(axis, -shift, full)
    return upsampled + skip


def _fitting(axes: Axes, grid: Axes, factor: int) -> tuple[Window, tuple[int, int]]:
    """The bilinear window whose cells, from the map at the end of `axes`, lie on those of `grid`; and the shift."""
    (window, vertical), (other, horizontal) = (
        geometry.upsampling(path, reference, factor) for path, reference in zip(axes, grid, strict=True)
    )
    if other != window:
        raise GeometryError(f"kernels {window.kernel} and {other.kernel} for the two axes; make the layers square")
    return window, (vertical, horizontal)


def _step(layer: Upsampling | Unpooling, axes: Axes, finer: Axes | None) -> Step:
    """From the map at the end of `axes`, through a layer, to the grid of that at the end of `finer`, if it is added."""
    layers = (
        layer.layers() if isinstance(layer, Unpooling) else (list[Layer]([layer.window]), list[Layer]([layer.window]))
    )
    shift = (0, 0)
    if finer is not None:
        vertical, horizontal = map(geometry.alignment, _joined(axes, layers), finer)
        shift = (vertical, horizontal)
    return Step(layer.window, layers, shift)


def _joined(axes: Axes, layers: Axes) -> Axes:
    return [*axes[0], *layers[0]], [*axes[1], *layers[1]]


def _pooled(pooling: Pooling) -> Axes:
    """The paths to a pooling's output."""
    rows, columns = pooling.before
    return [*rows, pooling.window], [*columns, pooling.window]


def axes_of(trunk: AnyTrunk, stride: int) -> Axes:
    rows, columns = trunk.paths(stride)
    return list[Layer](rows), list[Layer](columns)


def crops(head: Head) -> list[tuple[str, Step]]:
    """Every upsampling with its name, as "32s -> 16s", coarsest first."""
    reached = [f"{stride}s" for stride in (head.strides[0], *head.steps)]
    steps = [*head.steps.values(), head.output]
    return [(f"{a} -> {b}", step) for (a, b), step in zip(pairwise([*reached, "input"]), steps, strict=True)]
