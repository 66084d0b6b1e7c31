"""What a run starts from: the net's options, by name and data, and its first weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fullconv.data.check import Moments
from fullconv.data.sample import Dataset, InputKind
from fullconv.errors import DataError, GeometryError, OptionError, printable
from fullconv.inference.evaluate import require_fit
from fullconv.labels import LabelSet
from fullconv.nets import FCN, NETS, InputOptions, NetOptions, build
from fullconv.weights.donor import Donor
from fullconv.weights.modelfile import MODEL_SUFFIX, read_options
from fullconv.weights.read import read_donor
from fullconv.weights.transplant import transplant


def named_inputs(net: str | NetOptions) -> list[str] | None:
    """The names of the inputs that a net takes; None where it takes those of any data.

    Raises:
        ModelFileError: a file that is no model.
    """
    if isinstance(net, NetOptions):
        return list(net.inputs)
    if net.endswith(MODEL_SUFFIX):
        return list(read_options(net).inputs)
    return list(NETS[net].inputs) or None if net in NETS else None


def choose_net(
    net: str | NetOptions, train: Dataset, net_options: Mapping[str, Any], moments: Mapping[str, Moments] | None = None
) -> NetOptions:
    """The options of the net for a data set's inputs and classes.

    Args:
        net: a name, the path of a model file, whose net it is with the data's classes, or options.
        net_options: of `build`, where it is a name.
        moments: of the inputs whose range is their own: a net by name is given them as its normalisation.

    Raises:
        OptionError: a name or option that is unknown, or a net for other data.
        ModelFileError: a file that is no model.
    """
    if isinstance(net, str) and net.endswith(MODEL_SUFFIX):
        if net_options:
            raise OptionError(f"{printable(net)} has its own {', '.join(net_options)}; leave the options out")
        net = replace(read_options(net), classes={task: len(labels) for task, labels in train.labels.items()})
    elif not isinstance(net, str) and net_options:
        raise OptionError(f"the net has its own {', '.join(net_options)}; leave the options out, or name a net")
    elif isinstance(net, str):
        classes = {task: len(labels) for task, labels in train.labels.items()}
        with torch.device("meta"):  # only its options are wanted here
            name, channels = net, {name: kind.channels for name, kind in train.inputs.items()}
            net = build(name, classes, channels=channels, **net_options).options
        if not NETS[name].inputs and "inputs" not in net_options:
            net = replace(net, inputs=_normalised(net.inputs, train.inputs, moments or {}))
    require_fit(net, train)
    return net


def _normalised(
    inputs: Mapping[str, InputOptions], kinds: Mapping[str, InputKind], moments: Mapping[str, Moments]
) -> dict[str, InputOptions]:
    """The inputs with what the data says of them; DataError where that is nothing a net can be normalised by."""
    found = dict(inputs)
    for name, each in moments.items():
        kind = kinds[name]
        for channel, (mean, std) in enumerate(zip(each.mean, each.std, strict=True)):
            if not (abs(mean) <= 1e6 and 1e-6 <= std <= 1e6):
                band = f"band {kind.bands[channel]}" if kind.bands else f"channel {channel + 1}"
                raise DataError(
                    f"{band} of the input {printable(name)!r} has mean {mean:g} and deviation {std:g}, expected up to "
                    "1e6 and a deviation of at least 1e-6; mark what was not measured as the TIFF's nodata value, or "
                    "scale the band"
                )
        found[name] = InputOptions(each.mean, each.std, log=kind.log, bands=kind.bands, preview=kind.preview)
    return found


def read_donors(net: NetOptions, init: Sequence[str | Path]) -> list[Donor]:
    """The files that the first weights come from.

    Raises:
        ModelFileError: a file cannot be read.
        OptionError: a file of another kind.
    """
    if not init:
        return []
    with torch.device("meta"):
        target = FCN(net)
    return [read_donor(path, target) for path in init]


def require_trainable(net: NetOptions, batch: int, size: tuple[int, int]) -> None:
    """Run a step's forward pass without numbers: what cannot work shows before the first one."""
    with torch.device("meta"):
        images = {name: torch.zeros(batch, i.channels, *size) for name, i in net.inputs.items()}
        try:
            FCN(net).train().coarse(images)
        except GeometryError:
            raise
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise OptionError(
                f"{batch} image of {size[0]} x {size[1]} a step leaves batch norm one value to average over at the "
                "coarsest stride; take 2 images or more a step with --batch"
            ) from error


def make_net(
    options: NetOptions, seed: int, init: Sequence[str], donors: Sequence[Donor], labels: Mapping[str, LabelSet]
) -> tuple[FCN, list[str]]:
    """The net with its first weights, and what became of those of the donors, a line each.

    Args:
        init: the donors' files.
        donors: none where a run is resumed, whose weights come from its state.
        labels: the data's classes by task.
    """
    torch.manual_seed(seed)
    net = FCN(options)
    files = ", ".join(init)
    if not donors:
        return net, [f"init: weights from {files} when the run began"] if files else []
    done = transplant(net, donors, labels)
    return net, [f"init from {files}: {line}" for line in done.summary()]


def with_scales(net: NetOptions, scales: Mapping[int, float]) -> NetOptions:
    """The net with factors on the features of its skips, unless it has its own."""
    if net.scales:
        return net
    return replace(net, scales={stride: scale for stride, scale in scales.items() if stride >= net.stride})
