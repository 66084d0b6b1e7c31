"""StagedNet: a net cut into stages, and the maps that lead through them from an image to its coarse scores."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from fullconv.errors import GeometryError
from fullconv.inference.blank import Border, blanks, borders
from fullconv.inference.compiled import compiled_stages
from fullconv.inference.compilers import Compiler
from fullconv.inference.map_kinds import Averaged, Fused, Scored, Source, Staged
from fullconv.inference.maps import Images, Map, Maps
from fullconv.inference.stages import Stage, stages_of
from fullconv.nets import FCN
from fullconv.nets.head import Head
from fullconv.nets.packed import packed
from fullconv.nets.rectangles import Interval, Size
from fullconv.nets.trunks import Trunk
from fullconv.nets.upsample import Upsampling

KEPT = 1 << 29
"""Bytes of blank maps that are kept beside those of the last size: of FCN-8s VGG-16 some 17 images of nothing, which
serve more sizes of images, since those that differ by whole strides share one."""

SIZES = 1024
"""Of images that are remembered to have no border."""


@dataclass(frozen=True, eq=False)
class StagedNet:
    """A net cut into stages, with its weights ready for one precision.

    Attributes:
        net: in evaluation mode.
        kind: float32 or bfloat16.
        trunks: stages by the trunk's name.
        scores: the score layers by task, trunk and stride.
        heads: copies, by task.
    """

    net: FCN
    kind: torch.dtype
    trunks: Mapping[str, list[Stage]]
    scores: Mapping[str, Mapping[str, Mapping[int, nn.Sequential]]]
    heads: Mapping[str, Head]
    _blanks: OrderedDict[tuple[str, Size, tuple[int, ...]], list[Tensor]] = field(
        default_factory=OrderedDict, repr=False
    )
    _borderless: set[Size] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def knows(net: FCN) -> bool:
        """Whether a net can be cut into stages: not with a trunk of one's own, nor where it unpools."""
        head = cast(Head, next(iter(net.heads.values())))
        return not head.poolings and all(isinstance(trunk, Trunk) for trunk in net.trunks.values())

    @classmethod
    def of(
        cls, net: FCN, kind: torch.dtype = torch.float32, compiler: Compiler | None = None,
        samples: Sequence[Mapping[str, Tensor]] = (),
    ) -> StagedNet:  # fmt: skip
        """A net's stages.

        Args:
            net: in evaluation mode.
            kind: float32 or bfloat16, which score layers compute in, and without a compiler all.
            compiler: makes the trunks' blocks; default: torch, layer by layer.
            samples: inputs by name, (N, C, H, W), for a compiler that wants some.

        Raises:
            GeometryError: a net with a trunk of one's own, or that unpools.
        """
        heads = {task: cast(Head, head) for task, head in net.heads.items()}
        first = next(iter(heads.values()))
        if not cls.knows(net):
            what = "unpooling" if first.poolings else "a trunk of one's own"
            raise GeometryError(f"a net with {what} is not known in stages; run it in crops")
        trunks = {}
        seen = [net.prepared(net.checked(sample)) for sample in samples]
        for name, trunk in net.trunks.items():
            if compiler is None:
                trunks[name] = stages_of(cast(Trunk, trunk), first.strides, kind)
            else:
                own, channels = [each[name] for each in seen], _channels(net, name)
                trunks[name] = compiled_stages(cast(Trunk, trunk), first.strides, channels, compiler, own)
        scores = {
            task: {
                name: {
                    int(stride): packed([_scaled(cast(nn.Conv2d, layer), head.scales.get(int(stride), 1.0))], kind)
                    for stride, layer in cast(nn.ModuleDict, layers).items()
                }
                for name, layers in head.score.items()
            }
            for task, head in heads.items()
        }
        with torch.inference_mode(False):  # scores are upsampled elsewhere too
            copies = {task: copy.deepcopy(head).requires_grad_(False) for task, head in heads.items()}
        return cls(net, kind, trunks, scores, copies)

    def maps(self, size: Size, images: Images, batch: int = 1, tasks: Sequence[str] | None = None) -> Maps:
        """See `Cut.maps`."""
        found = Maps(torch.finfo(self.kind).bits // 8, batch)
        borders = self.borders(size)
        taps = {name: self._taps(found, name, size, images, borders[name]) for name in self.trunks}
        for task in tasks or self.scores:
            found.coarse[task] = self._fused(found, task, taps)
        return found

    def multiplications(self, size: Size) -> int:
        """Of an image in one piece, less those that borders save."""
        return self.maps(size, lambda *_: {}).multiplications()

    @property
    def weights(self) -> int:
        """Bytes of the net's weights and of those made ready from them."""
        numbers = sum(each.numel() for each in self.net.parameters())
        return numbers * (4 + torch.finfo(self.kind).bits // 8)

    def borders(self, size: Size) -> dict[str, list[Border | None]]:
        """By trunk, what no image of a size changes."""
        if size in self._borderless:
            return {name: [None] * len(stages) for name, stages in self.trunks.items()}
        found = {name: borders(stages, size, partial(self._made, name)) for name, stages in self.trunks.items()}
        if not any(each for every in found.values() for each in every):
            if len(self._borderless) >= SIZES:
                self._borderless.clear()
            self._borderless.add(size)
        return found

    def _made(self, trunk: str, size: Size, wanted: Sequence[int]) -> list[Tensor]:
        """Blank maps, computed once while there is room; see `blanks`."""
        key, device = (trunk, size, tuple(wanted)), next(self.net.parameters()).device
        with self._lock:
            found = self._blanks.pop(key, None)
            if found is None:
                found = blanks(self.trunks[trunk], _channels(self.net, trunk), device, size, wanted)
            weight = sum(each.nbytes for kept in self._blanks.values() for each in kept)
            while weight > KEPT:
                _, gone = self._blanks.popitem(last=False)
                weight -= sum(each.nbytes for each in gone)
            self._blanks[key] = found
        return found

    def _taps(
        self, maps: Maps, trunk: str, size: Size, images: Images, borders: Sequence[Border | None]
    ) -> dict[int, Staged]:
        """Of one trunk by stride."""
        at: Map = maps.add(Source(size, _channels(self.net, trunk), partial(self._prepared, images, trunk)))
        taps = {}
        for stage, border in zip(self.trunks[trunk], borders, strict=True):
            at = made = maps.add(Staged(stage, at, border, maps.batch))
            if stage.stride is not None:
                taps[stage.stride] = made
        return taps

    def _fused(self, maps: Maps, task: str, taps: Mapping[str, Mapping[int, Staged]]) -> Map:
        """The coarse scores of a task."""
        head = self.heads[task]
        x = self._scored(maps, task, head.strides[0], taps)
        for stride, step in head.steps.items():
            skip = self._scored(maps, task, stride, taps)
            x = maps.add(Fused(cast(Upsampling, head.upscore[str(stride)]), x, skip, step.shift))
        return x

    def _scored(self, maps: Maps, task: str, stride: int, taps: Mapping[str, Mapping[int, Staged]]) -> Map:
        """A task's scores at a stride, the mean of all trunks."""
        classes = self.net.options.classes[task]
        scored = [
            maps.add(Scored(at[stride], classes, _score(self.scores[task][name][stride]))) for name, at in taps.items()
        ]
        return scored[0] if len(scored) == 1 else maps.add(Averaged(scored))

    def _prepared(self, images: Images, trunk: str, rows: Interval, columns: Interval) -> Tensor:
        inputs = images(rows, columns)
        return self.net.prepared(inputs if self.net.early else {trunk: inputs[trunk]})[trunk]


def _channels(net: FCN, trunk: str) -> int:
    """Of a trunk's input."""
    inputs = net.options.inputs
    return sum(i.channels for i in inputs.values()) if net.early else inputs[trunk].channels


def _score(layers: nn.Sequential) -> Callable[[Tensor], Tensor]:
    return lambda x: cast(Tensor, layers(x)).float()


def _scaled(layer: nn.Conv2d, scale: float) -> nn.Conv2d:
    """The score layer of features times a number (Shelhamer et al. 2016, section 4.2)."""
    if scale == 1:
        return layer
    other = nn.Conv2d(layer.in_channels, layer.out_channels, 1, device="meta")
    other.weight = nn.Parameter(layer.weight.detach() * scale)
    other.bias = layer.bias
    return other
