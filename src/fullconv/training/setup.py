"""Before the first step: the data looked at, the options resolved, the net made."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import psutil
import torch

import fullconv
from fullconv.data import open_dataset
from fullconv.data.augment import Augmentation
from fullconv.data.check import Checked, Moments, check, require_usable
from fullconv.data.doctor import SILENT, examine, fix_command
from fullconv.data.pairs import listed
from fullconv.data.sample import Dataset, InputKind
from fullconv.data.scenes import narrowed
from fullconv.errors import DataError, GeometryError, OptionError, printable
from fullconv.inference.evaluate import require_fit
from fullconv.labels import LabelSet
from fullconv.nets import FCN, NETS, InputOptions, NetOptions, build
from fullconv.training.recipes import Recipe, fitted
from fullconv.weights.donor import Donor
from fullconv.weights.modelfile import MODEL_SUFFIX, read_options
from fullconv.weights.read import read_donor
from fullconv.weights.transplant import transplant

SPLITS = ("train", "val")
"""What is trained and scored on, unless others are named."""

Data = str | Path | tuple[Dataset, Dataset]
"""What `open_dataset` takes, or the train and val data sets themselves."""


@dataclass(frozen=True)
class RunOptions:
    """Every resolved option of a run; with the data and the versions it determines the result.

    Attributes:
        data: as the user named it.
        net: trunk, head, classes, inputs, ...
        recipe: with all values fixed.
        name: of the recipe.
        seed: of initial weights, order, augmentation, dropout and loss sampling.
        steps, minutes: the length, one of the two.
        precision: of the training's convolutions, "float32" or "bfloat16".
        init: files the weights started from.
        splits: of the data that were trained and scored on.
    """

    data: str
    net: NetOptions
    recipe: Recipe
    name: str
    seed: int
    steps: int | None
    minutes: float | None
    precision: str
    init: tuple[str, ...] = ()
    splits: tuple[str, str] = SPLITS

    def to_yaml(self) -> dict[str, Any]:
        """Plain values for run.yaml."""
        return asdict(self)

    @classmethod
    def from_yaml(cls, value: Mapping[str, Any]) -> RunOptions:
        """Inverse of `to_yaml`; other keys are ignored.

        Raises:
            OptionError: a key is missing or of a wrong type.
        """
        try:
            recipe = dict(value["recipe"])
            augmentation: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in recipe.pop("augmentation").items()
            }
            made = ("net", "recipe", "init", "splits")
            own = {key: value[key] for key in cls.__dataclass_fields__ if key not in made}
            train, val = value.get("splits", SPLITS)
            return cls(
                net=NetOptions.from_json(value["net"]),
                recipe=Recipe(**recipe, augmentation=Augmentation(**augmentation)),
                init=(value["init"],) if isinstance(value["init"], str) else tuple(value["init"] or ()),
                splits=(train, val),
                **own,
            )
        except OptionError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise OptionError(f"run.yaml is incomplete or of another version ({error}); start a new run") from error


@dataclass(frozen=True)
class Splits:
    """The two splits, checked, and served from memory as far as they fit."""

    train: Checked
    val: Checked

    def fingerprint(self) -> str:
        """Of both."""
        return f"{self.train.dataset.fingerprint()[:16]}-{self.val.dataset.fingerprint()[:16]}"


def open_splits(
    data: Data,
    progress: Callable[[str, int, int], None] | None = None,
    inputs: Sequence[str] | None = None,
    names: tuple[str, str] = SPLITS,
) -> Splits:
    """Open and check both splits: every image and mask is decoded once.

    Args:
        progress: called with (split, samples done, samples in all).
        inputs: names of those that are wanted; default: all.
        names: of the two splits.

    Raises:
        DataError: whatever is wrong, of both splits, the first ten files of each named.
        OptionError: an input that the data does not have.
    """
    if isinstance(data, tuple):
        train, val = data
    else:
        train, val = (open_dataset(data, name) for name in names)
        require_healthy(data)
    if inputs is not None:
        train, val = narrowed(train, inputs), narrowed(val, inputs)
    for dataset in (train, val):
        if not len(dataset):
            raise DataError(f"{printable(dataset.source)} ({dataset.split}): holds no sample; expected at least one")
    kinds = [({t: labels.names for t, labels in d.labels.items()}, dict(d.inputs)) for d in (train, val)]
    if kinds[0] != kinds[1]:
        raise DataError(f"train has the classes and inputs {kinds[0]}, val {kinds[1]}; expected the same")
    budget = _free_memory() // 3
    checked = []
    for dataset in (train, val):
        split = dataset.split
        checked.append(check(dataset, progress and (lambda i, n, s=split: progress(s, i, n)), cache_bytes=budget))
        budget -= checked[-1].cached_bytes
    problems = []
    for each in checked:
        try:
            require_usable(each)
        except DataError as error:
            problems.append(str(error))
    if problems:
        hint = [] if isinstance(data, tuple) else [f"see all, and repair what can be, with: {fix_command(str(data))}"]
        raise DataError("\n".join(problems + hint))
    return Splits(*checked)


def require_healthy(data: str | Path) -> None:
    """The fast part of `fullconv doctor`: masks that can be read, but would be learned wrong. (Those that cannot be
    read are for `check`, which reads them all.)

    Raises:
        DataError: every such error, with what mends it.
    """
    errors = [finding for finding in examine(data, fast=True).errors if finding.kind in SILENT]
    if errors:
        found = [f"  {f.title}: {f.count} of those looked at ({listed(f.names)}); {f.remedy}" for f in errors]
        raise DataError("\n".join([f"{printable(data)}: training would not start, or learn wrong labels:", *found]))


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


def resolve_options(
    data: str,
    splits: Splits,
    net: NetOptions,
    *,
    recipe: str,
    seed: int,
    minutes: float | None,
    epochs: float | None,
    steps: int | None,
    precision: str,
    init: Sequence[str | Path],
    overrides: Mapping[str, Any],
    names: tuple[str, str] = SPLITS,
) -> RunOptions:
    """Everything a user left open, decided."""
    if sum(v is not None for v in (minutes, epochs, steps)) > 1:
        raise OptionError("minutes, epochs and steps are three ways to give one length; choose one")
    if epochs is not None and not 0 < epochs < inf:
        raise OptionError(f"{epochs} epochs; expected a number above 0")
    if not 0 <= seed < 1 << 63:
        raise OptionError(f"seed {seed}; expected 0 or a positive number of at most 63 bits")
    chosen = fitted(recipe, splits.train.sizes, overrides)
    if chosen.fixed and not init:
        raise OptionError("a fixed net learns its score layers alone; give the trunk's weights with --init FILE")
    if epochs is not None:
        steps = max(1, round(epochs * len(splits.train.dataset) / chosen.batch))
    if steps is None and minutes is None:
        steps = chosen.steps
    size = chosen.augmentation.crop or min(splits.train.sizes, key=max)
    _require_trainable(net, chosen.batch, size)
    files = tuple(map(str, init))
    return RunOptions(data, net, chosen, recipe, seed, steps, minutes, precision, files, names)


def _require_trainable(net: NetOptions, batch: int, size: tuple[int, int]) -> None:
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


def make_net(options: RunOptions, donors: Sequence[Donor], labels: Mapping[str, LabelSet]) -> tuple[FCN, list[str]]:
    """The net with its first weights, and what became of those of the donors, a line each.

    Args:
        donors: of `options.init`; none where a run is resumed, whose weights come from its state.
        labels: the data's classes by task.
    """
    torch.manual_seed(options.seed)
    net = FCN(options.net)
    files = ", ".join(options.init)
    if not donors:
        return net, [f"init: weights from {files} when the run began"] if files else []
    done = transplant(net, donors, labels)
    return net, [f"init from {files}: {line}" for line in done.summary()]


def class_notes(splits: Splits) -> list[str]:
    """What the reader of a score should know of classes that a split lacks, a line each."""
    notes = []
    for task, labels in splits.train.dataset.labels.items():
        of_task = f" ({task})" if len(splits.train.dataset.labels) > 1 else ""
        for one, missing, other in (
            ("train", splits.train.pixels[task] == 0, "what is not in train is not learned"),
            ("val", splits.val.pixels[task] == 0, "what is not in val is not scored"),
        ):
            names = [labels.names[k] for k in np.flatnonzero(missing)]
            if names:
                notes.append(f"{one} has no pixel of {listed(names)}{of_task}: {other}")
    return notes


def surroundings() -> dict[str, Any]:
    """Versions and machine, for run.yaml."""
    return {
        "fullconv": fullconv.__version__,
        "torch": str(torch.__version__),  # a str subclass that YAML does not know
        "accelerate": accelerate.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {torch.get_num_threads()} threads",
    }


def _free_memory() -> int:
    """Bytes that this process may still take, a container's bound included."""
    free = int(psutil.virtual_memory().available)
    try:
        bound = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")
        return min(free, int(bound))
    except (OSError, ValueError):  # no container, or one without bound ("max")
        return free
