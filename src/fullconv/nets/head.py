"""Head: 1x1 score layers, skip fusion and upsampling of one task; every crop computed from the layers.

Source: Long et al. 2015, sections 3.3 and 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fullconv import geometry
from fullconv.errors import GeometryError
from fullconv.geometry import Crop, Layer, Window
from fullconv.nets.trunks import Trunk
from fullconv.nets.upsample import BilinearUpsampling, LearnedUpsampling, Upsampling

Axes = tuple[list[Layer], list[Layer]]
"""The (vertical, horizontal) paths from the input to some layer."""


@dataclass(frozen=True)
class Step:
    """The geometry of one upsampling.

    Attributes:
        window: the transposed convolution.
        shift: (vertical, horizontal): cell i of the finer map lies on cell i + shift of the upsampled one.
        axes: the paths to the upsampled map, cropped as it will be.
    """

    window: Window
    shift: tuple[int, int]
    axes: Axes

    @classmethod
    def towards(cls, axes: Axes, finer: Axes, factor: int) -> Step:
        """From the map at the end of `axes` to the grid of the one at the end of `finer`."""
        (window, vertical), (other, horizontal) = (
            geometry.upsampling(path, reference, factor) for path, reference in zip(axes, finer, strict=True)
        )
        if other != window:
            raise GeometryError(f"kernels {window.kernel} and {other.kernel} for the two axes; make the layers square")
        shift = (vertical, horizontal)
        rows, columns = ([*path, window, Crop(max(s, 0))] for path, s in zip(axes, shift, strict=True))
        return cls(window, shift, (rows, columns))


class Head(nn.Module):
    """One task: score layers, fused from coarse to fine, and the last upsampling.

    Args:
        classes: K.
        trunks: by name; the scores of several trunks are averaged (late fusion).
        stride: of the coarse scores: 32, 16, 8, ...
        upsampling, scales: see `NetOptions`.

    Attributes:
        strides: of the scored taps, coarsest first.
        steps: stride reached -> geometry of the upsampling to it; stride 1 is the input's size.
    """

    def __init__(
        self, classes: int, trunks: Mapping[str, Trunk], stride: int, upsampling: str, scales: Mapping[int, float]
    ) -> None:
        super().__init__()
        self.scales = dict(scales)
        first = next(iter(trunks.values()))
        self.strides = sorted((s for s in first.taps if s >= stride), reverse=True)
        self.score = nn.ModuleDict(
            {
                name: nn.ModuleDict({str(s): _zeroed(nn.Conv2d(trunk.channels(s), classes, 1)) for s in self.strides})
                for name, trunk in trunks.items()
            }
        )
        self.steps: dict[int, Step] = {}
        at, axes = self.strides[0], axes_of(first, self.strides[0])
        for finer in self.strides[1:]:
            self.steps[finer] = Step.towards(axes, axes_of(first, finer), at // finer)
            at, axes = finer, self.steps[finer].axes
        self.output = Step.towards(axes, ([], []), at)
        if min(self.output.shift) < 0:
            raise GeometryError(f"the scores start {-min(self.output.shift)} pixels inside the image; pad more")

        def layer(step: Step, learned: bool) -> Upsampling:
            return (LearnedUpsampling if learned else BilinearUpsampling)(classes, step.window)

        self.upscore = nn.ModuleDict({str(s): layer(step, upsampling != "bilinear") for s, step in self.steps.items()})
        self.upscore["output"] = layer(self.output, upsampling == "learned-all")

    def forward(self, features: Mapping[str, Mapping[int, Tensor]]) -> Tensor:
        """Features by trunk and stride -> coarse scores (N, K, h, w), float32."""
        fused = self._scores(features, self.strides[0])
        for stride, step in self.steps.items():
            fused = self._fuse(fused, self._scores(features, stride), stride, step)
        return fused

    def upsample(self, coarse: Tensor, size: tuple[int, int]) -> Tensor:
        """Coarse scores -> scores (N, K, H, W) of the input's size."""
        return self.rows(coarse, size, (0, size[0]))

    def rows(self, coarse: Tensor, size: tuple[int, int], rows: tuple[int, int]) -> Tensor:
        """Coarse scores -> the given rows of the scores of the input's size: (N, K, rows, W)."""
        self._check_covers(coarse, size)
        down, right = self.output.shift
        return cast(Tensor, self.upscore["output"](coarse, (rows[0] + down, rows[1] + down), (right, right + size[1])))

    def labels(self, coarse: Tensor, size: tuple[int, int]) -> Tensor:
        """Coarse scores -> labels (N, H, W) uint8, without scores of the input's size."""
        self._check_covers(coarse, size)
        rows, columns = ((s, s + n) for s, n in zip(self.output.shift, size, strict=True))
        upscore = cast(Upsampling, self.upscore["output"])
        return torch.stack([upscore.labels(one, rows, columns) for one in coarse])

    def _scores(self, features: Mapping[str, Mapping[int, Tensor]], stride: int) -> Tensor:
        scale = self.scales.get(stride, 1.0)
        scores = []
        for trunk, layers in self.score.items():
            x = features[trunk][stride]
            scores.append(cast(nn.ModuleDict, layers)[str(stride)](x if scale == 1 else x * scale).float())
        return scores[0] if len(scores) == 1 else torch.stack(scores).mean(0)

    def _fuse(self, coarser: Tensor, skip: Tensor, stride: int, step: Step) -> Tensor:
        """Upsample and add, each map cropped to where both are (Long et al. 2015, section 4.2)."""
        intervals, crops = [], []
        for axis, shift in enumerate(step.shift):
            full, there = step.window.output_size(coarser.shape[2 + axis]), skip.shape[2 + axis]
            if shift >= 0:  # the upsampled map starts before the skip: drop its first cells
                size = min(full - shift, there)
                intervals.append((shift, shift + size))
                crops.append(slice(0, size))
            else:  # the skip starts before it: crop the skip, as the paper's nets do
                if there + shift < full:
                    raise GeometryError(
                        f"the skip at stride {stride} has {there} cells, needs {full - shift}; pad more"
                    )
                intervals.append((0, full))
                crops.append(slice(-shift, -shift + full))
        upsampled = self.upscore[str(stride)](coarser, *intervals)
        return cast(Tensor, upsampled + skip[:, :, crops[0], crops[1]])

    def _check_covers(self, coarse: Tensor, size: tuple[int, int]) -> None:
        for axis in range(2):
            there = self.output.window.output_size(coarse.shape[2 + axis]) - self.output.shift[axis]
            if there < size[axis]:
                raise GeometryError(f"the upsampled scores have {there} of {size[axis]} pixels; pad more")


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Score layers start at zero (Long et al. 2015, section 4.3)."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def axes_of(trunk: Trunk, stride: int) -> Axes:
    rows, columns = trunk.paths(stride)
    return list[Layer](rows), list[Layer](columns)


def crops(head: Head) -> list[tuple[str, Step]]:
    """Every upsampling with its name, as "32s -> 16s", coarsest first."""
    reached = [*(f"{stride}s" for stride in head.steps), "input"]
    steps = [*head.steps.values(), head.output]
    return [(f"{a}s -> {b}", step) for a, b, step in zip(head.strides, reached, steps, strict=True)]
