"""Plan: where each weight of a net comes from when it takes over those of other nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from fullconv.errors import ModelFileError, printable, shape_text
from fullconv.labels import LabelSet
from fullconv.nets import FCN, InputOptions, NetOptions
from fullconv.nets.fcn import FUSED
from fullconv.nets.head import Head
from fullconv.nets.options import OWN
from fullconv.nets.trunks import TRUNKS
from fullconv.nets.unpool import Unpooling
from fullconv.nets.upsample import (
    BILINEAR_TOLERANCE,
    BilinearUpsampling,
    LearnedUpsampling,
    Upsampling,
    from_bilinear,
)
from fullconv.weights.channels import Filters, described, filters, plan_inputs
from fullconv.weights.donor import Donor, Given, Shape


@dataclass(frozen=True)
class Entry:
    """What became of one weight of the net.

    Attributes:
        key: of the net's state.
        shape: there.
        how: "copied", "reshaped", "zero", "bilinear", "initial" (another fixed start), "fresh" (a random one), or a
            phrase such as "2 of 5 classes: road, sky".
        source, source_shape: in the file it came from; empty where there is none.
        file: that file's name.
    """

    key: str
    shape: Shape
    how: str
    source: str = ""
    source_shape: Shape = ()
    file: str = ""


def input_plans(options: NetOptions, donors: Sequence[Donor]) -> dict[str, dict[str, Filters]]:
    """For each trunk that a donor serves, what its inputs take."""
    if options.trunk == OWN:
        default = next(iter(options.inputs.values()))
    else:
        kind = TRUNKS[options.trunk]
        default = InputOptions(kind.mean, kind.std, kind.order)
    early = options.fusion == "early" and len(options.inputs) > 1
    trunks = {FUSED: options.inputs} if early else {name: {name: each} for name, each in options.inputs.items()}
    plans = {}
    for name, donor in _givers(list(trunks), donors).items():
        source = _in(donor, name)
        given = donor.inputs if source not in donor.inputs else {source: donor.inputs[source]}
        plans[name] = plan_inputs(trunks[name], given, default)
    return plans


def _givers(trunks: Sequence[str], donors: Sequence[Donor]) -> dict[str, Donor]:
    """Which donor serves which trunk."""
    givers: dict[str, Donor] = {}
    for name in trunks:
        named = [donor for donor in donors if name in donor.trunks]
        if named:
            givers[name] = named[0]
    single = [donor for donor in donors if len(donor.trunks) == 1]
    free = [donor for donor in single if donor not in givers.values()] or single
    left = [name for name in trunks if name not in givers]
    for number, name in enumerate(left):
        if free:
            givers[name] = free[min(number, len(free) - 1)]
    return givers


class Plan:
    """Where each weight of a net comes from."""

    def __init__(self, net: FCN, donors: Sequence[Donor], labels: Mapping[str, LabelSet]) -> None:
        self.net, self.donors, self.labels = net, donors, labels
        self.by_trunk = _givers(list(net.trunks), donors)
        self.inputs = input_plans(net.options, donors)
        self.first = {
            name: next(key for key, value in trunk.state_dict().items() if value.ndim == 4)
            for name, trunk in net.trunks.items()
        }
        self.used: set[tuple[int, str]] = set()

    @property
    def givers(self) -> list[Donor]:
        """The donors that gave something."""
        return [donor for number, donor in enumerate(self.donors) if any(n == number for n, _ in self.used)]

    def dropped(self) -> tuple[str, ...]:
        """What the donors hold and the net did not take."""
        lines = []
        for number, donor in enumerate(self.donors):
            left = dict.fromkeys(g.name for key, g in donor.weights.items() if (number, key) not in self.used)
            lines += [*left, *donor.unused]
        return tuple(lines)

    def trunk(self, key: str, value: Tensor) -> tuple[Tensor | None, Entry]:
        """A weight of a trunk."""
        _, name, rest = key.split(".", 2)
        shape = tuple(value.shape)
        donor = self.by_trunk.get(name)
        given_key = "" if donor is None else f"trunks.{_in(donor, name)}.{rest}"
        if donor is None or given_key not in donor.weights:
            if rest.endswith("num_batches_tracked"):
                return torch.zeros((), dtype=value.dtype), Entry(key, shape, "zero")
            return None, Entry(key, shape, "fresh")
        found = self._take(donor, given_key)
        given, tensor = tuple(found.tensor.shape), found.tensor
        how = "copied" if found.shape == given else "reshaped"
        if rest == self.first[name]:
            tensor = filters(self.inputs[name], tensor)
            how = how if tensor is found.tensor else described(self.inputs[name])
        if tuple(tensor.shape) != shape:
            raise ModelFileError(
                f"{printable(donor.path)}: {found.name} is {shape_text(given)}; the net's {key} is "
                f"{shape_text(shape)}: choose the net that it was made for"
            )
        return tensor, self._entry(key, shape, how, donor, found)

    def head(self, key: str, value: Tensor) -> tuple[Tensor, Entry]:
        """A weight of a score layer, or of a learned upsampling."""
        _, task, part, *rest = key.split(".")
        shape = tuple(value.shape)
        # Scores and unpoolings belong to a trunk, whose name follows; one that does not is taken as the first trunk's.
        upscore = cast(Head, self.net.heads[task]).upscore[rest[0]] if part == "upscore" else None
        place = 0 if part == "score" else 2 if isinstance(upscore, Unpooling) else None
        donor = self.by_trunk.get(next(iter(self.net.trunks)) if place is None else rest[place])
        source = None if donor is None else self._task(donor, task)
        if donor is not None and source is not None:
            path = [_in(donor, name) if number == place else name for number, name in enumerate(rest)]
            given = ".".join(("heads", source, part, *path))
            rows = self._rows(donor, source, task, given, shape)
            same = rows == list(range(shape[0])) and tuple(donor.weights[given].tensor.shape) == shape
            if part == "upscore" and same:
                found = self._take(donor, given)
                return found.tensor, self._entry(key, shape, "copied", donor, found)
            if part == "score" and rows is not None and any(row is not None for row in rows):
                return self._score(key, shape, rows, donor, self._take(donor, given))
        if upscore is not None:
            start = deepcopy(cast(Upsampling | Unpooling, upscore)).to_empty(device="cpu")
            start.reset_parameters()
            layer = start.get_submodule(".".join(rest[1:-1]))
            how = "bilinear" if isinstance(layer, LearnedUpsampling) else "initial"
            return start.get_parameter(".".join(rest[1:])).detach(), Entry(key, shape, how)
        return torch.zeros(shape), Entry(key, shape, "zero")

    def _score(
        self, key: str, shape: Shape, rows: list[int | None], donor: Donor, found: Given
    ) -> tuple[Tensor, Entry]:
        if tuple(found.tensor.shape[1:]) != shape[1:]:
            raise ModelFileError(
                f"{printable(donor.path)}: {found.name} reads {found.tensor.shape[1]} channels; the net's {key} "
                f"reads {shape[1]}: choose the net that it was made for"
            )
        stride = int(key.split(".")[4])
        factor = donor.scales.get(stride, 1.0) / self.net.options.scales.get(stride, 1.0)
        scaled = factor != 1 and key.endswith("weight")
        whole = rows == list(range(len(found.tensor)))
        how = "copied" if found.shape == tuple(found.tensor.shape) else "reshaped"
        tensor = found.tensor
        if not whole:
            tensor = torch.zeros(shape)
            names = []
            for row, source in enumerate(rows):
                if source is not None:
                    tensor[row] = found.tensor[source]
                    names.append(printable(self.labels[key.split(".")[1]].names[row]))
            how = f"{len(names)} of {len(rows)} classes: {', '.join(names[:10])}{' ...' if names[10:] else ''}"
        if scaled:
            tensor = tensor * factor
            how += f", times {factor:.6g}"
        return tensor, self._entry(key, shape, how, donor, found)

    def _rows(self, donor: Donor, source: str, task: str, given: str, shape: Shape) -> list[int | None] | None:
        """For each class of the net its number in the donor, None where it has none; None: no scores to take."""
        if given not in donor.weights:
            return None
        count = len(donor.weights[given].tensor)
        theirs, ours = donor.labels.get(source), self.labels.get(task)
        if theirs is None or ours is None or not (theirs.named and ours.named) or theirs.names == ours.names:
            return list(range(count)) if count == shape[0] else None
        numbers = {name: number for number, name in enumerate(theirs.names)}
        return [numbers.get(name) for name in ours.names]

    def _task(self, donor: Donor, task: str) -> str | None:
        """The donor's task whose scores are those of `task`; its strides are ours only in the same trunk."""
        if donor.trunk != self.net.options.trunk_name:
            return None
        tasks = list(dict.fromkeys(key.split(".")[1] for key in donor.weights if key.startswith("heads.")))
        if task in tasks:
            return task
        return tasks[0] if len(tasks) == len(self.net.heads) == 1 else None

    def require_upsampling(self) -> None:
        """A learned upsampling must not be replaced by the fixed one of the same window without a word.

        Raises:
            ModelFileError: it would be.
        """
        for task, each in self.net.heads.items():
            head = cast(Head, each)
            donor = self.by_trunk.get(next(iter(self.net.trunks)))
            source = None if donor is None else self._task(donor, task)
            for place, upscore in head.upscore.items():
                learned = None if donor is None else donor.weights.get(f"heads.{source}.upscore.{place}.weight")
                window = cast(Upsampling, upscore).window
                if donor is None or learned is None or not isinstance(upscore, BilinearUpsampling):
                    continue
                difference = from_bilinear(learned.tensor)
                if learned.tensor.shape[2] == window.kernel and difference > BILINEAR_TOLERANCE:
                    raise ModelFileError(
                        f"{printable(donor.path)}: {learned.name} differs from bilinear upsampling by "
                        f"{difference:.3g}, and this net's is fixed; add --upsampling learned-all"
                    )

    def _take(self, donor: Donor, key: str) -> Given:
        self.used.add((self.donors.index(donor), key))
        return donor.weights[key]

    def _entry(self, key: str, shape: Shape, how: str, donor: Donor, found: Given) -> Entry:
        return Entry(key, shape, how, found.name, found.shape, donor.path.name)


def _in(donor: Donor, trunk: str) -> str:
    """The donor's name for a trunk: it has one of that name, or only one (see `_givers`)."""
    return trunk if trunk in donor.trunks else donor.trunks[0]
