"""Transplanting: a net takes over the weights of other nets, and says what became of each.

Classifier -> FCN-32s -> 16s -> 8s, other classes, colour -> colour and depth, two nets of one input -> late fusion
(Long et al. 2015, sections 4.1, 4.2 and 5; the reference's net surgery).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fullconv.errors import ModelFileError, OptionError, printable
from fullconv.labels import LabelSet
from fullconv.nets import FCN, InputOptions, NetOptions
from fullconv.nets.upsample import dense_bilinear
from fullconv.weights.donor import Checked, Donor, Given, Shape

ALIKE = {"slim1": "slim"}
"""Trunks whose weights are those of another."""


@dataclass(frozen=True)
class Entry:
    """What became of one weight of the net.

    Attributes:
        key: of the net's state.
        shape: there.
        how: "copied", "reshaped", "zero", "bilinear", "fresh", or a phrase such as "2 of 5 classes: road, sky".
        source, source_shape: in the file it came from; empty where there is none.
        file: that file's name.
    """

    key: str
    shape: Shape
    how: str
    source: str = ""
    source_shape: Shape = ()
    file: str = ""


@dataclass(frozen=True)
class Transplant:
    """What a transplant did.

    Attributes:
        entries: one for each weight of the net, in its order.
        checked: layers of the files that say what the net computes.
        dropped: what the files hold beyond them, a line each.
    """

    entries: tuple[Entry, ...]
    dropped: tuple[str, ...]
    checked: tuple[Checked, ...] = ()

    def fresh(self) -> list[str]:
        """Weights that no file gave and that do not start at a fixed value."""
        return [entry.key for entry in self.entries if entry.how == "fresh"]

    def summary(self) -> list[str]:
        """A few lines: how many weights were treated in each way, and those that were not simply copied."""
        kinds: dict[str, list[str]] = {}
        for entry in self.entries:
            kinds.setdefault(entry.how, []).append(entry.key)
        lines = []
        for how, keys in kinds.items():
            shown = "" if how in ("copied", "reshaped") else f": {', '.join(keys[:12])}{' ...' if keys[12:] else ''}"
            lines.append(f"{len(keys)} weights {how}{shown}")
        if self.dropped:
            more = f" and {len(self.dropped) - 12} more" if len(self.dropped) > 12 else ""
            lines.append(f"not used: {', '.join(self.dropped[:12])}{more}")
        return lines


def transplant(net: FCN, donors: Sequence[Donor], labels: Mapping[str, LabelSet] | None = None) -> Transplant:
    """Give a net the weights of one or several files, and their normalisation.

    - A trunk comes from the donor that has one of its name; else from the donors with a single trunk, in their order.
    - Score rows follow their classes' names where both sides have names; else they are copied if the counts agree.
      Rows and skips that no donor has start at zero (Long et al. 2015, section 4.3).
    - A first convolution that reads more channels than the donor's takes the mean of its filters for the others
      (reference 1.2, color-d).
    - Factors on the skips are kept or multiplied into the score weights, so that the net computes the same.

    Args:
        net: changed in place; where it is on "meta", it takes the donors' tensors as they are.
        donors: at least one; see `read_donor`.
        labels: the net's classes by task, where they are known.

    Raises:
        ModelFileError: a weight of another shape.
        OptionError: a donor of another trunk, or one that gives nothing.
    """
    for donor in donors:
        mine = net.options.trunk
        if ALIKE.get(donor.trunk, donor.trunk) != ALIKE.get(mine, mine):
            raise OptionError(
                f"{printable(donor.path)} has the trunk {donor.trunk!r}, the net has {mine!r}; choose one"
            )
    plan = _Plan(net, donors, labels or {})
    state: dict[str, Tensor] = {}
    entries = []
    meta = next(net.parameters()).is_meta
    taken: set[int] = set()
    for key, value in net.state_dict().items():
        tensor, entry = plan.head(key, value) if key.startswith("heads.") else plan.trunk(key, value)
        entries.append(entry)
        if tensor is not None:
            # Two weights of a net must not share memory, as those of two trunks of one donor would.
            state[key] = tensor.clone() if meta and tensor.data_ptr() in taken else tensor
            taken.add(tensor.data_ptr())
    unused = [donor for donor in donors if donor not in plan.givers]
    if unused:
        raise OptionError(f"{printable(unused[0].path)} gives this net nothing beside the others; leave it out")
    net.load_state_dict(state, strict=False, assign=meta)
    net.options = adopted(net.options, donors)
    net.reset_normalisation()
    return Transplant(tuple(entries), plan.dropped(), tuple(each for donor in donors for each in donor.checked))


def adopted(options: NetOptions, donors: Sequence[Donor]) -> NetOptions:
    """The options with the normalisation that the donors' weights expect."""
    givers = _givers(list(options.inputs), donors)
    inputs: dict[str, InputOptions] = {}
    for name, own in options.inputs.items():
        given = givers[name].inputs if name in givers else {}
        one = given.get(name, next(iter(given.values())) if len(given) == 1 else own)
        inputs[name] = one if one.channels == own.channels else own
    return replace(options, inputs=inputs)


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


class _Plan:
    """Where each weight of a net comes from."""

    def __init__(self, net: FCN, donors: Sequence[Donor], labels: Mapping[str, LabelSet]) -> None:
        self.net, self.donors, self.labels = net, donors, labels
        self.by_trunk = _givers(list(net.trunks), donors)
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
        found = None if donor is None else self._take(donor, f"trunks.{_in(donor, name)}.{rest}")
        if donor is None or found is None:
            if rest.endswith("num_batches_tracked"):
                return torch.zeros((), dtype=value.dtype), Entry(key, shape, "zero")
            return None, Entry(key, shape, "fresh")
        given = tuple(found.tensor.shape)
        if given == shape:
            how = "copied" if found.shape == given else "reshaped"
            return found.tensor, self._entry(key, shape, how, donor, found)
        if len(shape) == 4 and (given[0], *given[2:]) == (shape[0], *shape[2:]):
            return self._channels(key, shape, donor, found)
        raise ModelFileError(
            f"{printable(donor.path)}: {found.name} is {_times(given)}; the net's {key} is {_times(shape)}: "
            "choose the net (and --width) that it was made for"
        )

    def head(self, key: str, value: Tensor) -> tuple[Tensor, Entry]:
        """A weight of a score layer, or of a learned upsampling."""
        _, task, part, *rest = key.split(".")
        shape = tuple(value.shape)
        trunk = rest[0] if part == "score" else next(iter(self.net.trunks))
        donor = self.by_trunk.get(trunk)
        source = None if donor is None else self._task(donor, task)
        if donor is not None and source is not None:
            path = [_in(donor, rest[0]), *rest[1:]] if part == "score" else rest
            given = ".".join(("heads", source, part, *path))
            rows = self._rows(donor, source, task, given, shape)
            if part == "upscore" and rows is not None and rows == list(range(shape[0])):
                found = self._take(donor, given)
                if found is not None and tuple(found.tensor.shape) == shape:
                    return found.tensor, self._entry(key, shape, "copied", donor, found)
            if part == "score" and rows is not None and any(row is not None for row in rows):
                found = self._take(donor, given)
                if found is not None:
                    return self._score(key, shape, rows, donor, found)
        if part == "upscore":
            return dense_bilinear(shape[0], shape[2]), Entry(key, shape, "bilinear")
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
                    names.append(self.labels[key.split(".")[1]].names[row])
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
        if theirs is None or ours is None or theirs.names == ours.names:
            return list(range(count)) if count == shape[0] else None
        numbers = {name: number for number, name in enumerate(theirs.names)}
        return [numbers.get(name) for name in ours.names]

    def _channels(self, key: str, shape: Shape, donor: Donor, found: Given) -> tuple[Tensor, Entry]:
        """A first convolution of other input channels."""
        weight, count = found.tensor, found.tensor.shape[1]
        mean = weight.mean(1, keepdim=True)
        tensor = mean.repeat(1, shape[1], 1, 1)
        if shape[1] < count:
            return tensor, self._entry(key, shape, f"mean of {count} filters", donor, found)
        start = 0
        inputs = self.net.options.inputs if self.net.early else {}
        if any(each.channels == count for each in inputs.values()):
            for each in inputs.values():
                if each.channels == count:
                    break
                start += each.channels
        tensor[:, start : start + count] = weight
        how = f"channels {start}..{start + count - 1} copied, the others their mean"
        return tensor, self._entry(key, shape, how, donor, found)

    def _task(self, donor: Donor, task: str) -> str | None:
        """The donor's task whose scores are those of `task`; its strides are ours only in the same trunk."""
        if donor.trunk != self.net.options.trunk:
            return None
        tasks = list(dict.fromkeys(key.split(".")[1] for key in donor.weights if key.startswith("heads.")))
        if task in tasks:
            return task
        return tasks[0] if len(tasks) == len(self.net.heads) == 1 else None

    def _take(self, donor: Donor, key: str) -> Given | None:
        if key in donor.weights:
            self.used.add((self.donors.index(donor), key))
        return donor.weights.get(key)

    def _entry(self, key: str, shape: Shape, how: str, donor: Donor, found: Given) -> Entry:
        return Entry(key, shape, how, found.name, found.shape, donor.path.name)


def _in(donor: Donor, trunk: str) -> str:
    """The donor's name for a trunk."""
    return trunk if trunk in donor.trunks else donor.trunks[0]


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))
