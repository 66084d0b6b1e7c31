"""Engines: what runs a net, in which precision, within which memory.

``torch`` is the reference's own arithmetic, with weights laid out once, stage by stage. ``openvino`` and ``compile``
have each stage compiled for the processor. ``auto`` picks by the hardware and says why.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from fullconv.errors import GeometryError, OptionError, unknown_name
from fullconv.inference.compilers import ABLE, Compiler, activation_type, compiler
from fullconv.inference.cropped import CroppedNet
from fullconv.inference.maps import Images
from fullconv.inference.staged import StagedNet
from fullconv.inference.strips import Cut
from fullconv.inference.tiles import PROCESS, Beside, Plan, bound_of, check_memory, check_tile, plan, scores_pixel
from fullconv.nets import FCN
from fullconv.nets.fcn import CoarseScores
from fullconv.nets.head import Head
from fullconv.nets.modules import evaluating
from fullconv.nets.precision import resolve
from fullconv.nets.rectangles import Interval, Size, part, whole
from fullconv.nets.trunks.trunk import AnyTrunk

ENGINES = ("auto", *ABLE)

PRECISIONS = ("auto", *dict.fromkeys(each for able in ABLE.values() for each in able))

MEASURED = ("amx_bf16", "avx512_bf16")
"""Instructions of the processors on which engines were compared; see benchmarks/results.md."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(eq=False)
class Engine:
    """A net ready to label images of any size.

    Of nets that are known in stages the weights are copies: later changes of the net's do not count.

    Attributes:
        net: the net.
        name, precision: those chosen.
        why: one line, where the choice was left open.
        cut: the net as it is run on parts of images.
        tile, memory: see `plan`.
        beside: what is held beside the net; default: coarse scores of whole images.
    """

    net: FCN = field(repr=False)
    name: str
    precision: str
    why: str
    cut: Cut = field(repr=False)
    tile: int | str = "auto"
    memory: int | None = None
    beside: Beside | None = None
    _plans: dict[Size, Plan] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def plan(self, size: Size) -> Plan:
        """How images of a size (H, W) are labelled.

        Raises:
            OptionError: a bound of memory that is too small.
            GeometryError: no size, or too little padding for it.
        """
        if len(size) != 2 or not all(isinstance(n, int) and n >= 1 for n in size):
            raise GeometryError(f"images of size {size}; expected (H, W) of at least 1")
        with self._lock:
            found = self._plans.get(size)
            if found is None:
                beside = self.beside or Beside(image=TWICE * scores_pixel(self.cut))
                found = plan(self.cut, size, tile=self.tile, memory=self.memory, beside=beside)
                if len(self._plans) >= PLANS:
                    self._plans.clear()
                self._plans[size] = found
        return found

    @torch.inference_mode()
    def coarse(self, images: Mapping[str, Tensor]) -> dict[str, CoarseScores]:
        """Inputs by name, (N, C, H, W), as `FCN` takes them -> coarse scores by task, float32.

        Cells that no pixel reads may be 0, other than `FCN.coarse`'s. As many images as the bound of memory has room
        for go together.

        Raises:
            OptionError: a bound of memory that is too small for one image.
            GeometryError: as `FCN`.
        """
        images = self.net.checked(images)
        first = next(iter(images.values()))
        size, fits = (first.shape[2], first.shape[3]), self._together((first.shape[2], first.shape[3]))
        answers = [
            self._coarse({name: each[start : start + fits] for name, each in images.items()}, size)
            for start in range(0, len(first), fits)
        ]
        if len(answers) == 1:
            return answers[0]
        return {
            task: CoarseScores(torch.cat([each[task].scores for each in answers]), size, head)
            for task, head in self.cut.heads.items()
        }

    def _together(self, size: Size) -> int:
        """How many images of a size go together."""
        alone = PROCESS + self.cut.weights
        each = max(1, self.plan(size).memory - alone)
        return max(1, (bound_of(self.memory) - alone) // each)

    def _coarse(self, images: Mapping[str, Tensor], size: Size) -> dict[str, CoarseScores]:
        first, found = next(iter(images.values())), {}
        way = self.plan(size)
        for columns in way.bands:
            strips = way.strips(given(images, size), columns, len(first))
            for task, head in self.cut.heads.items():
                coarse, scores = strips.coarse[task].map, strips.coarse_scores(task)
                if coarse.held == (0, coarse.size[1]):
                    found[task] = CoarseScores(scores, size, head)
                    continue
                if task not in found:  # zeros stay where no pixel reads a cell
                    blank = scores.new_zeros((*scores.shape[:2], *coarse.size))
                    found[task] = CoarseScores(blank, size, head)
                found[task].scores[..., slice(*coarse.held)] = scores
        return found


PLANS = 64
"""Sizes of images whose plans are kept."""

TWICE = 2
"""Coarse scores of whole images are held in pieces and put together."""


def engine(
    net: FCN,
    name: str = "torch",
    precision: str = "float32",
    *,
    tile: int | str = "auto",
    memory: int | None = None,
    samples: Sequence[Mapping[str, Tensor]] = (),
) -> Engine:
    """An engine by name.

    Args:
        net: an FCN; left as it is.
        name: one of `ENGINES`.
        precision: one of `PRECISIONS`; int8 is OpenVINO's alone.
        tile, memory: see `plan`.
        samples: inputs by name, (N, C, H, W), of images that int8 is calibrated on.

    Raises:
        OptionError: an unknown name, a precision that the engine lacks, no tile or bound of memory, or a package that
            is not installed.
    """
    if not isinstance(net, FCN):
        raise OptionError(f"a {type(net).__name__} for a net; expected an FCN: of a Model give its .net")
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    check_tile(tile)
    check_memory(memory)
    device = next(net.parameters()).device
    name, why = _chosen(name, precision, device)
    if precision == "int8" and name != "openvino":
        raise OptionError(f"precision 'int8' with engine {name!r}; int8 is OpenVINO's: --engine openvino")
    if name != "torch" and device.type != "cpu":
        raise OptionError(f"engine {name!r} compiles for the processor, and the net is on {device}; take 'torch'")
    kind = precision if precision == "int8" else resolve(precision, device)
    with evaluating(net):
        cut = _cut(net, name, kind, samples)
    return Engine(net, name, kind, why, cut, tile, memory)


def _chosen(name: str, precision: str, device: torch.device) -> tuple[str, str]:
    """An engine, and why it was picked where the choice was left open."""
    if name != "auto":
        return name, ""
    if precision == "int8":
        return "openvino", "engine openvino: it alone computes in int8"
    if device.type != "cpu":
        return "torch", f"engine torch: the net is on {device}, and the others compile for the processor"
    able = torch.cpu.get_capabilities()
    has = next((name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if able.get(name)), "no wide vectors")
    return "torch", (
        f"engine torch: on a processor with {has}, its packed convolutions were as fast as OpenVINO's in float32 and "
        "bfloat16, and start sooner (fullconv benchmark measures it here)"
        if has in MEASURED
        else f"engine torch: a processor with {has} was not measured; fullconv benchmark does it here"
    )


def _cut(net: FCN, name: str, precision: str, samples: Sequence[Mapping[str, Tensor]]) -> Cut:
    with torch.inference_mode():
        if StagedNet.knows(net):
            if name == "torch":
                return StagedNet.of(net, DTYPES[precision])
            return StagedNet.of(net, activation_type(precision), compiler(name, precision), samples)
    if name == "torch":
        return CroppedNet.plain(net, precision)
    return _compiled_whole(net, compiler(name, precision), samples)


def _compiled_whole(net: FCN, compiler: Compiler, samples: Sequence[Mapping[str, Tensor]]) -> CroppedNet:
    """A net that is not known in stages, compiled as one piece up to its coarse scores."""
    core = _Core(net)
    seen = [core.joined(net.prepared(net.checked(sample))) for sample in samples]
    function = compiler.compile(core, core.channels, seen)

    def run(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        scores = function(core.joined(net.prepared(images))).float()
        return dict(zip(net.options.classes, torch.split(scores, list(net.options.classes.values()), 1), strict=True))

    return CroppedNet(net, run)


class _Core(nn.Module):
    """From what the trunks take, side by side, to the coarse scores of all tasks, side by side."""

    def __init__(self, net: FCN) -> None:
        super().__init__()
        self.trunks, self.heads = net.trunks, net.heads
        inputs = net.options.inputs
        self.sizes = {name: inputs[name].channels for name in net.trunks} if not net.early else {}
        self.channels = sum(i.channels for i in inputs.values())

    def joined(self, prepared: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([prepared[name] for name in self.trunks], 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, list(self.sizes.values()), 1) if self.sizes else (x,)
        first = cast(Head, next(iter(self.heads.values())))
        features = {
            name: cast(AnyTrunk, trunk).features(each, first.strides, first.poolings)
            for (name, trunk), each in zip(self.trunks.items(), parts, strict=True)
        }
        return torch.cat([head(features) for head in self.heads.values()], 1)


def given(images: Mapping[str, Tensor], size: Size) -> Images:
    """Reads rectangles of inputs (N, C, H, W) that are in memory."""

    def read(rows: Interval, columns: Interval) -> Mapping[str, Tensor]:
        return {name: part(image, whole(size), (rows, columns)) for name, image in images.items()}

    return read
