"""CroppedNet: any FCN on parts of an image, each with all that its scores depend on around it.

For nets that are not known in stages, and for engines that take a net as one piece. What a part's scores read beyond it
is computed again for its neighbour: a plan says how much that is.

Source: Long et al. 2015, section 3 (fields compose from kernels and strides).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isqrt, lcm, prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fullconv.geometry import inputs_of_all
from fullconv.inference.maps import Images, Map, Maps, Reader
from fullconv.inference.reference import Reference
from fullconv.nets import FCN
from fullconv.nets.head import Axes, Head
from fullconv.nets.rectangles import Interval, Rectangle, Size, part, within
from fullconv.nets.trunks.trunk import AnyTrunk

SEEN = 256
"""Rows and columns of the image that shows how many numbers a net holds for a pixel."""

ROOM = 16
"""Budgets of a chunk that one crop may take: its halo costs the more the smaller it is."""

Coarse = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Inputs by name (N, C, H, W) -> coarse scores by task (N, K, h, w) float32."""


@dataclass(frozen=True, eq=False)
class CroppedNet:
    """A net that runs as a whole, on crops.

    Attributes:
        net: in evaluation mode.
        run: the net up to its coarse scores.
        tile: rows and columns of the output that a crop is for; None: by the memory.
    """

    net: FCN
    run: Coarse
    tile: int | None = None

    @classmethod
    def plain(cls, net: FCN, precision: str = "float32") -> CroppedNet:
        """The net as it is.

        Args:
            precision: "float32", "bfloat16" or "auto".
        """
        reference = Reference(net, precision)
        return cls(net, lambda images: {task: each.scores for task, each in reference.coarse(images).items()})

    @property
    def heads(self) -> Mapping[str, Head]:
        """By task."""
        return cast(Mapping[str, Head], self.net.heads)

    def maps(self, size: Size, images: Images, batch: int = 1, tasks: Sequence[str] | None = None) -> Maps:
        """See `Cut.maps`."""
        found = Maps(4, batch)
        crops = found.add(Crops(self, size, images))
        start = 0
        for task, classes in self.net.options.classes.items():
            if tasks is None or task in tasks:
                found.coarse[task] = found.add(Channels(crops, (start, start + classes)))
            start += classes
        return found

    @cached_property
    def paths(self) -> list[Axes]:
        """Every stream from the image to coarse scores."""
        return [axes for task in self.net.heads for _, axes in self.net.paths(task)]

    @cached_property
    def grid(self) -> int:
        """Pixels from which on every layer's cells lie as in the whole image: the least multiple of all strides."""
        return lcm(*cast(AnyTrunk, next(iter(self.net.trunks.values()))).taps, self.stride)

    @property
    def stride(self) -> int:
        """Of the coarse scores."""
        return cast(Head, next(iter(self.net.heads.values()))).output.window.stride

    def read_by(self, cells: Rectangle, size: Size) -> Rectangle:
        """The pixels that coarse scores depend on, from a multiple of the grid on."""
        axes = []
        for axis, (interval, n) in enumerate(zip(cells, size, strict=True)):
            start, stop = within(inputs_of_all([paths[axis] for paths in self.paths], *interval), n)
            start = min(start, n - 1) // self.grid * self.grid
            axes.append((start, max(stop, start + 1)))
        return axes[0], axes[1]

    def coarse_size(self, size: Size) -> Size:
        """(h, w) of the coarse scores of an image."""
        height, width = self._seen(size)[0]
        return height, width

    def multiplications(self, size: Size) -> int:
        """Of the net on one image, up to its coarse scores."""
        return self._seen(size)[1]

    @property
    def weights(self) -> int:
        """Bytes of the net's weights and of those made ready from them, at most."""
        return 8 * sum(each.numel() for each in self.net.parameters())

    @cached_property
    def numbers(self) -> float:
        """Numbers of the largest layer's input and output, a pixel of the image."""
        return self._seen((SEEN, SEEN))[2] / SEEN**2

    def _seen(self, size: Size) -> tuple[tuple[int, int], int, int]:
        """What an image of nothing shows, on a device without memory: coarse size, multiplications, largest layer."""
        if size not in self._known:
            largest = 0

            def look(_: nn.Module, given: Any, y: Any) -> None:
                nonlocal largest
                tensors = [each for each in (*given, y) if isinstance(each, Tensor)]
                largest = max(largest, sum(each.numel() for each in tensors))

            with torch.device("meta"):
                net = FCN(self.net.options).eval()
                x = {name: torch.empty(1, i.channels, *size) for name, i in net.options.inputs.items()}
            hooks = [each.register_forward_hook(look) for each in net.modules() if not any(each.children())]
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                coarse = next(iter(net.coarse(x).values())).scores
            for hook in hooks:
                hook.remove()
            self._known[size] = (coarse.shape[2], coarse.shape[3]), counter.get_total_flops() // 2, largest
        return self._known[size]

    @cached_property
    def _known(self) -> dict[Size, tuple[tuple[int, int], int, int]]:
        return {}


class Crops(Map):
    """The coarse scores of all tasks, one behind the other, of crops put side by side."""

    def __init__(self, net: CroppedNet, size: Size, images: Images) -> None:
        super().__init__(net.coarse_size(size), sum(net.net.options.classes.values()))
        self.net, self.image, self.images = net, size, images
        self.across = self.size[1]

    def settle(self, numbers: int, share: float) -> None:
        """Square crops, in cells of the coarse scores; the whole image where it fits."""
        cells = (self.net.tile or isqrt(int(ROOM * numbers / self.net.numbers))) // self.net.stride
        fits = self.net.tile is None and ROOM * numbers >= self.net.numbers * prod(self.image)
        self.step, self.across = self.size if fits else (min(max(1, cells), n) for n in self.size)
        self.step = min(self.step, max(1, ceil(self.size[0] * share)))

    def multiplications(self) -> int:
        rows = [(top, min(top + self.step, self.size[0])) for top in range(0, self.size[0], self.step)]
        first, last = self.held
        columns = [(left, min(left + self.across, last)) for left in range(first, last, self.across)]
        # What a crop reads along an axis depends on where it lies along that axis alone.
        down = Counter(self._read(each, columns[0])[0] for each in rows)
        across = Counter(self._read(rows[0], each)[1] for each in columns)
        return sum(n * m * self.net.multiplications((h, w)) for h, n in down.items() for w, m in across.items())

    def _read(self, rows: Interval, columns: Interval) -> Size:
        """(h, w) that a crop reads."""
        (top, bottom), (left, right) = self.net.read_by((rows, columns), self.image)
        return bottom - top, right - left

    def row_numbers(self) -> int:
        """As `Map.row_numbers`: of the net on a crop."""
        (top, bottom), (left, right) = self.net.read_by(((0, self.step), (0, self.across)), self.image)
        return int(self.net.numbers * (bottom - top) * (right - left)) // self.step

    def make(self, rows: Interval) -> Tensor:
        found = []
        for cells in self._crops(rows):
            pixels = self.net.read_by(cells, self.image)
            coarse = torch.cat(list(self.net.run(self.images(*pixels)).values()), 1)
            origin = [start // self.net.stride for start, _ in pixels]
            there = tuple((at, at + n) for at, n in zip(origin, coarse.shape[2:], strict=True))
            found.append(part(coarse, (there[0], there[1]), cells))
        return found[0] if len(found) == 1 else torch.cat(found, 3)

    def _crops(self, rows: Interval) -> Iterator[Rectangle]:
        first, last = self.held
        for left in range(first, last, self.across):
            yield rows, (left, min(left + self.across, last))


class Channels(Map):
    """Some channels of another map."""

    def __init__(self, source: Map, channels: Interval) -> None:
        super().__init__(source.size, channels[1] - channels[0])
        self.source, self.chosen = Reader(source), slice(*channels)

    def ask(self, columns: Interval) -> None:
        self.source.map.want(columns)

    def settle(self, numbers: int, share: float) -> None:  # noqa: ARG002  (its chunks are the source's)
        self.step = self.source.map.step

    def make(self, rows: Interval) -> Tensor:
        return self.source.part(rows, self.held)[:, self.chosen]
