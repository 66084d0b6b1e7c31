"""FCN: a trunk, 1x1 score layers, skip fusion and upsampling; every crop computed from the layers.

Sources: Long et al. 2015, sections 3 and 4; Shelhamer et al. 2016, section 4.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from fullconv.errors import GeometryError, OptionError, unknown_name
from fullconv.nets.head import Axes, Head, axes_of
from fullconv.nets.normalise import Normalise
from fullconv.nets.options import OWN, InputOptions, NetOptions
from fullconv.nets.trunks import TRUNKS, Trunk
from fullconv.nets.trunks.trunk import AnyTrunk

if TYPE_CHECKING:  # they take a while to import, and few nets have a trunk of their own
    from fullconv.nets.dense_classifier import DenseClassifier
    from fullconv.nets.wired_trunk import WiredTrunk

PAPER_PADDING = 100
"""Pixels around the input at the first convolution: enough for every size from 1x1 (Long et al., reference nets)."""

Named = Tensor | Mapping[str, Tensor]
"""A tensor, or several by name where a net has several inputs or tasks."""

FUSED = "fused"
"""The name of the one trunk of inputs that are fused early."""


@dataclass(frozen=True)
class CoarseScores:
    """One task's scores before the last upsampling, the cheap form of a net's answer.

    Attributes:
        scores: (N, K, h, w) float32.
        size: (H, W) of the input.
        head: whose geometry maps them to pixels.
    """

    scores: Tensor
    size: tuple[int, int]
    head: Head

    def upsample(self) -> Tensor:
        """Scores (N, K, H, W) float32."""
        return self.head.upsample(self.scores, self.size)

    def labels(self) -> Tensor:
        """Labels (N, H, W) uint8; never more than a few rows of full-size scores in memory."""
        return self.head.labels(self.scores, self.size)


class FCN(nn.Module):
    """A fully convolutional net as `NetOptions` describe it.

    Takes (N, C, H, W) of 0..255 in RGB, uint8 or float, any H, W >= 1; a mapping by input name if it has several.
    An input with `log` is of positive numbers, such as depth in mm.
    Gives float32 scores (N, K, H, W); a mapping by task name if it has several.

    Args:
        options: the net.
        trunk: instead of options, a classifier of one's own, whose layers up to the last and their weights the net
            takes over.
        own: with `trunk`: `classes` (K or by task; 21), `stride` (the coarsest), `inputs` (the classifier's own),
            `upsampling` and `scales`, as in `NetOptions`.

    Raises:
        OptionError: options that name no trunk or a stride that the trunk does not have.
        GeometryError: inputs of a wrong shape or type, or too little padding for their size.
    """

    def __init__(self, options: NetOptions | None = None, *, trunk: DenseClassifier | None = None, **own: Any) -> None:
        super().__init__()
        if (options is None) == (trunk is None):
            raise OptionError(
                f"{'neither' if options is None else 'both'} options and a trunk; give one (a trunk is what "
                "convolutionalize makes of a classifier)"
            )
        if options is not None and own:
            raise OptionError(f"{', '.join(own)} beside options, which hold them; leave them out")
        given = None if trunk is None else _own_trunk(trunk)
        self.options = options = options or _own_options(cast("WiredTrunk", given), trunk, own)
        self.early = options.fusion == "early" and len(options.inputs) > 1
        trunks = self._make_trunks(options, given)
        taps = cast(AnyTrunk, next(iter(trunks.values()))).taps
        if options.stride not in taps:
            raise OptionError(
                f"trunk {options.trunk!r} has no features of stride {options.stride}; "
                f"choose one of {', '.join(f'{s}s' for s in sorted(taps, reverse=True))}"
            )
        if unknown := sorted(s for s in options.scales if s not in taps or s < options.stride):
            raise OptionError(
                f"a scale at stride {unknown[0]}, where {options.stride}s on {options.trunk} scores nothing"
            )
        self.reset_normalisation()
        self.trunks = nn.ModuleDict(trunks)
        self.heads = nn.ModuleDict(
            {
                task: Head(k, trunks, options.stride, options.upsampling, options.scales)
                for task, k in options.classes.items()
            }
        )
        self.to_channels_last()

    def _make_trunks(self, options: NetOptions, given: WiredTrunk | None) -> dict[str, Trunk] | dict[str, WiredTrunk]:
        channels = {name: i.channels for name, i in options.inputs.items()}
        if self.early:
            channels = {FUSED: sum(channels.values())}
        if options.trunk == OWN:
            from fullconv.nets.wired_trunk import WiredTrunk

            trunk = given or WiredTrunk.from_json(options.wiring)
            ((name, count),) = channels.items()
            if count != trunk.input_channels:
                raise OptionError(f"{count} channels for a trunk of {trunk.input_channels}; give inputs of as many")
            return {name: trunk}
        if options.trunk not in TRUNKS:
            raise unknown_name("trunk", options.trunk, TRUNKS)
        padding = PAPER_PADDING if options.padding == "paper" else None
        build = TRUNKS[options.trunk].build
        return {name: build(count, padding, options.dropout, options.width) for name, count in channels.items()}

    def to_channels_last(self) -> None:
        """Lay the weights out as processors convolve fastest."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this overload

    def reset_normalisation(self) -> None:
        """Make the normalisation anew from the options (it is no part of the state)."""
        self.normalise = nn.ModuleDict({name: Normalise(i) for name, i in self.options.inputs.items()})
        first = next(self.parameters(), None)
        if first is not None and not first.is_meta:
            self.normalise.to(first.device, first.dtype)

    def coarse(self, x: Named) -> dict[str, CoarseScores]:
        """One pass -> the coarse scores (N, K, h, w) float32 of every task, by name; raises as `checked`."""
        images = self.checked(x)
        size = cast(tuple[int, int], tuple(next(iter(images.values())).shape[2:]))
        first = next(iter(self._heads().values()))
        features = {
            name: cast(AnyTrunk, self.trunks[name]).features(image, first.strides, first.poolings)
            for name, image in self.prepared(images).items()
        }
        return {task: CoarseScores(head(features), size, head) for task, head in self._heads().items()}

    def prepared(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs by name -> what each trunk takes, by the trunk's name: (N, C, H, W) float32, normalised, channels
        last."""
        ready = {name: self.normalise[name](image) for name, image in images.items()}
        if self.early:
            ready = {FUSED: torch.cat(list(ready.values()), dim=1)}
        return {name: image.contiguous(memory_format=torch.channels_last) for name, image in ready.items()}

    def forward(self, x: Named) -> Named:
        """Scores of the input's size."""
        return self._single({task: coarse.upsample() for task, coarse in self.coarse(x).items()})

    @torch.no_grad()
    def labels(self, x: Named) -> Named:
        """Labels (N, H, W) uint8 (a mapping by task if there are several), without full-size scores."""
        return self._single({task: coarse.labels() for task, coarse in self.coarse(x).items()})

    def paths(self, task: str | None = None) -> list[tuple[str, Axes]]:
        """Every stream from the input to the coarse scores: (name, geometry) pairs, coarsest first.

        The name is that of the tap, or of the pooling whose indices say where scores go.
        """
        head = self._heads()[task or next(iter(self.heads))]
        trunk = cast(AnyTrunk, next(iter(self.trunks.values())))
        coarsest = head.strides[0]
        streams = [(trunk.taps[coarsest], axes_of(trunk, coarsest))]
        for step in head.steps.values():
            streams = [(name, step.after(axes)) for name, axes in streams] + step.joining
        return streams

    def _heads(self) -> dict[str, Head]:
        return {task: cast(Head, head) for task, head in self.heads.items()}

    def _single(self, outputs: dict[str, Tensor]) -> Named:
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def checked(self, x: Named) -> Mapping[str, Tensor]:
        """The inputs by name, (N, C, H, W).

        Raises:
            GeometryError: inputs that are missing or of a wrong shape or type.
        """
        wanted = self.options.inputs
        if isinstance(x, Tensor):
            if len(wanted) > 1:
                raise GeometryError(f"one tensor for a net with inputs {', '.join(wanted)}; give a mapping by name")
            x = {next(iter(wanted)): x}
        if set(x) != set(wanted):
            raise GeometryError(f"inputs {', '.join(sorted(x))}; expected {', '.join(sorted(wanted))}")
        shapes = {name: tuple(x[name].shape) for name in wanted}
        first = next(iter(shapes.values()))
        for name, shape in shapes.items():
            c = wanted[name].channels
            if len(shape) != 4 or shape[1] != c or min(shape) < 1:
                raise GeometryError(
                    f"input {name!r} has shape {shape}; expected (N, {c}, H, W) with N, H and W of at least 1"
                )
            if (shape[0], *shape[2:]) != (first[0], *first[2:]):
                raise GeometryError(f"input {name!r} has shape {shape} beside {first}; give all inputs one N, H and W")
            if x[name].dtype not in (torch.uint8, torch.uint16) and not x[name].is_floating_point():
                raise GeometryError(f"input {name!r} is {x[name].dtype}; expected uint8, uint16 or float")
        return {name: x[name] for name in wanted}


OWN_OPTIONS = ("classes", "stride", "inputs", "upsampling", "scales")
"""That a net with a trunk of one's own takes beside it."""


def _own_trunk(dense: object) -> WiredTrunk:
    from fullconv.nets.dense_classifier import DenseClassifier
    from fullconv.nets.wired_trunk import WiredTrunk

    if not isinstance(dense, DenseClassifier):
        raise OptionError(f"a {type(dense).__name__} as trunk; convolutionalize it first")
    return WiredTrunk.of(copy.deepcopy(dense))


def _own_options(own: WiredTrunk, dense: DenseClassifier | None, given: Mapping[str, Any]) -> NetOptions:
    if unknown := sorted(set(given) - set(OWN_OPTIONS)):
        raise unknown_name("option of a net with its own trunk", unknown[0], OWN_OPTIONS)
    inputs: InputOptions | None = given.get("inputs", None if dense is None else dense.inputs)
    if inputs is None:
        raise OptionError(
            "the classifier's normalisation is not known; give inputs=InputOptions(mean, std), for values of 0..255"
        )
    classes = given.get("classes", 21)
    return NetOptions(
        OWN,
        given.get("stride", max(own.taps)),
        {"semantic": classes} if isinstance(classes, int) else dict(classes),
        {"image": inputs},
        upsampling=given.get("upsampling", "bilinear"),
        scales=given.get("scales", {}),
        dropout=0.0,  # its own layers have it
        wiring=own.to_json(),
    )
