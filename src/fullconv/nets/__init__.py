"""Nets by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fullconv import classes as names
from fullconv.errors import OptionError, unknown_name
from fullconv.labels import LabelSet
from fullconv.nets.fcn import FCN
from fullconv.nets.options import InputOptions, NetOptions
from fullconv.nets.trunks import ILSVRC_MEAN, TRUNKS

__all__ = ["FCN", "NETS", "InputOptions", "NetOptions", "build", "parameter_count", "published_labels"]


@dataclass(frozen=True)
class Net:
    """A line of the table.

    Attributes:
        trunk: a name of `TRUNKS`.
        stride: of the coarse scores.
        classes: of a published net: class names by task.
        inputs, fusion, padding, scales: as in `NetOptions`; no inputs: a colour image with the trunk's normalisation.
    """

    trunk: str
    stride: int
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inputs: Mapping[str, InputOptions] = field(default_factory=dict)
    fusion: str = "early"
    padding: str = "same"
    scales: Mapping[int, float] = field(default_factory=dict)


def _bgr(red: float, green: float, blue: float) -> InputOptions:
    return InputOptions((red, green, blue), (1.0, 1.0, 1.0), "bgr")


def _published(
    trunk: str,
    stride: int,
    classes: Mapping[str, tuple[str, ...]],
    inputs: Mapping[str, InputOptions],
    fusion: str = "early",
    scales: Mapping[int, float] | None = None,
) -> Net:
    return Net(trunk, stride, classes, inputs, fusion, "paper", scales or {})


VOC = ({"semantic": names.VOC}, {"image": _bgr(*ILSVRC_MEAN)})
CONTEXT = ({"semantic": names.PASCAL_CONTEXT}, {"image": _bgr(122.679, 116.669, 104.007)})
SIFTFLOW = (
    {"semantic": names.SIFTFLOW, "geometric": names.SIFTFLOW_GEOMETRY},
    {"image": _bgr(108.353, 115.294, 114.578)},
)
NYUD = {"semantic": names.NYUD}
COLOR = {"color": _bgr(92.318, 97.203, 116.190)}
HHA = {"hha": InputOptions((132.431, 94.076, 118.477), (1.0, 1.0, 1.0))}  # its channels are not reversed
DEPTH = {"depth": InputOptions((7.844,), (1.0,), log=True)}
"""What the data sets of the reference nets are like: classes and normalisation (reference 1 and 7)."""

SKIP_SCALES = {16: 1e-2, 8: 1e-4}
"""Of the at-once net (reference 1.2)."""

NETS = {
    **{f"fcn{stride}s-{trunk}": Net(trunk, stride) for trunk in TRUNKS if trunk != "slim1" for stride in (32, 16, 8)},
    # The series goes on: for thin structures (4s, 2s) and for small images (1s: every stride of slim halved).
    "fcn4s-slim": Net("slim", 4),
    "fcn2s-slim": Net("slim", 2),
    "fcn1s-slim": Net("slim1", 1),
    # The nets of the reference repository, by its names.
    "voc-fcn32s": _published("vgg16", 32, *VOC),
    "voc-fcn16s": _published("vgg16", 16, *VOC),
    "voc-fcn8s": _published("vgg16", 8, *VOC),
    "voc-fcn8s-atonce": _published("vgg16", 8, *VOC, scales=SKIP_SCALES),
    "voc-fcn-alexnet": _published("alexnet", 32, *VOC),
    "voc-fcn-googlenet": _published("googlenet", 32, *VOC),
    "pascalcontext-fcn32s": _published("vgg16", 32, *CONTEXT),
    "pascalcontext-fcn16s": _published("vgg16", 16, *CONTEXT),
    "pascalcontext-fcn8s": _published("vgg16", 8, *CONTEXT),
    "nyud-fcn32s-color": _published("vgg16", 32, NYUD, COLOR),
    "nyud-fcn32s-hha": _published("vgg16", 32, NYUD, HHA),
    "nyud-fcn32s-color-d": _published("vgg16", 32, NYUD, {**COLOR, **DEPTH}),
    "nyud-fcn32s-color-hha": _published("vgg16", 32, NYUD, {**COLOR, **HHA}, fusion="late"),
    "siftflow-fcn32s": _published("vgg16", 32, *SIFTFLOW),
    "siftflow-fcn16s": _published("vgg16", 16, *SIFTFLOW),
    "siftflow-fcn8s": _published("vgg16", 8, *SIFTFLOW),
}


def build(
    name: str,
    classes: int | Mapping[str, int] | None = None,
    *,
    channels: int | Mapping[str, int] | None = None,
    dropout: float | None = None,
    **options: Any,
) -> FCN:
    """A net by name, with fresh weights.

    Args:
        name: a key of `NETS`.
        classes: K, or K by task name; default: those of a published net, else 21.
        channels: C, or C by input name; default: the inputs of a published net, else an RGB image. Three channels are
            RGB and get the trunk's normalisation; others are centred at 127.5 with deviation 64.
        dropout: rate; default: the trunk's own.
        options: `padding`, `upsampling`, `fusion`, `width`, `inputs`: see `NetOptions`.

    Raises:
        OptionError: an unknown name, an option out of range, or inputs or tasks that a published net does not have.

    >>> import torch
    >>> build("fcn8s-slim", classes=5)(torch.zeros(1, 3, 56, 53)).shape
    torch.Size([1, 5, 56, 53])
    >>> build("voc-fcn-alexnet", width=1 / 8).options.classes
    {'semantic': 21}
    """
    if name not in NETS:
        raise unknown_name("net", name, NETS)
    net = NETS[name]
    known = {"padding", "upsampling", "fusion", "width", "inputs"}
    if extra := sorted(set(options) - known):
        raise unknown_name("net option", extra[0], known)
    if classes is None:
        classes = {task: len(each) for task, each in net.classes.items()} or 21
    tasks = {"semantic": classes} if isinstance(classes, int) else dict(classes)
    if net.classes and set(tasks) != set(net.classes):
        raise OptionError(
            f"classes for {', '.join(tasks)}; {name} has the tasks {', '.join(net.classes)}: choose "
            f"fcn{net.stride}s-{net.trunk}, which takes any"
        )
    return FCN(
        NetOptions(
            **{
                "trunk": net.trunk,
                "stride": net.stride,
                "classes": tasks,
                "inputs": _inputs(name, channels),
                "fusion": net.fusion,
                "padding": net.padding,
                "dropout": TRUNKS[net.trunk].dropout if dropout is None else dropout,
                "scales": dict(net.scales),
                **options,
            }
        )
    )


def parameter_count(module: nn.Module) -> int:
    """Learned numbers of a module."""
    return sum(p.numel() for p in module.parameters())


def published_labels(name: str) -> dict[str, LabelSet] | None:
    """The classes of a published net by task; None for other nets."""
    classes = NETS[name].classes
    return {task: LabelSet(each) for task, each in classes.items()} if classes else None


def _inputs(name: str, channels: int | Mapping[str, int] | None) -> dict[str, InputOptions]:
    """The net's inputs for the given channels: its own where it is published, else by the trunk's rule."""
    own = NETS[name].inputs
    if channels is None:
        if own:
            return dict(own)
        channels = 3
    counts = {next(iter(own), "image"): channels} if isinstance(channels, int) else dict(channels)
    if min(counts.values(), default=0) < 1:
        raise OptionError(f"channels {channels}; expected at least 1")
    if own:
        wanted = {key: each.channels for key, each in own.items()}
        if counts != wanted:
            raise OptionError(
                f"inputs with channels {counts}; {name} takes {wanted}: choose fcn{NETS[name].stride}s-"
                f"{NETS[name].trunk}, which takes any"
            )
        return dict(own)
    kind = TRUNKS[NETS[name].trunk]
    return {
        key: InputOptions(kind.mean, kind.std, kind.order)
        if count == 3
        else InputOptions((127.5,) * count, (64.0,) * count)
        for key, count in counts.items()
    }
