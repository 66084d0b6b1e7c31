"""Transplanting: a net takes over the weights of other nets, and says what became of each.

Classifier -> FCN-32s -> 16s -> 8s, other classes, colour -> colour and depth, two nets of one input -> late fusion
(Long et al. 2015, sections 4.1, 4.2 and 5; the reference's net surgery).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from fullconv.errors import OptionError, printable
from fullconv.labels import LabelSet
from fullconv.nets import FCN, NetOptions
from fullconv.weights.donor import Checked, Donor
from fullconv.weights.plan import Entry, Plan, input_plans
from fullconv.weights.read import read_donor

ALIKE = {"slim1": "slim"}
"""Trunks whose weights are those of another."""


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


def transplant(
    net: FCN, sources: Sequence[Donor | str | Path], labels: Mapping[str, LabelSet] | None = None
) -> Transplant:
    """Give a net the weights of one or several files, and their normalisation.

    - A trunk comes from the donor that has one of its name; else from the donors with a single trunk, in their order.
    - Score rows follow their classes' names where both sides have names; else they are copied if the counts agree,
      whatever the classes are.
      Rows and skips that no donor has start at zero (Long et al. 2015, section 4.3).
    - First convolutions take the filters of inputs of the same name, colour those of colour; what is left begins with
      the mean of the colour filters (see `channels`). The normalisation comes with them.
    - Factors on the skips are kept or multiplied into the score weights, so that the net computes the same.

    Args:
        net: changed in place; where it is on "meta", it takes the donors' tensors as they are.
        sources: at least one file, or what `read_donor` gave for it.
        labels: the net's classes by task, where they are known.

    Raises:
        ModelFileError: a weight of another shape.
        OptionError: no donor, one of another trunk, or one that gives nothing.
    """
    donors = [each if isinstance(each, Donor) else read_donor(each, net) for each in sources]
    if not donors:
        raise OptionError("nothing to take weights from; give one file or several")
    for donor in donors:
        mine = net.options.trunk_name
        if ALIKE.get(donor.trunk, donor.trunk) != ALIKE.get(mine, mine):
            raise OptionError(
                f"{printable(donor.path)} has the trunk {donor.trunk!r}, the net has {mine!r}; "
                f"choose a net such as fcn32s-{donor.trunk}"
            )
    plan = Plan(net, donors, labels or {})
    state: dict[str, Tensor] = {}
    entries = []
    meta = next(net.parameters()).is_meta
    taken: set[int] = set()
    for key, value in net.state_dict().items():
        tensor, entry = plan.head(key, value) if key.startswith("heads.") else plan.trunk(key, value)
        entries.append(entry)
        if tensor is not None:
            # Two weights of a net must not share memory, as those of two trunks of one donor would.
            memory = tensor.untyped_storage().data_ptr()
            state[key] = tensor.clone() if meta and memory in taken else tensor
            taken.add(memory)
    unused = [donor for donor in donors if donor not in plan.givers]
    if unused:
        raise OptionError(f"{printable(unused[0].path)} gives this net nothing beside the others; leave it out")
    plan.require_upsampling()
    net.load_state_dict(state, strict=False, assign=meta)
    net.options = adopted(net.options, donors)
    net.reset_normalisation()
    return Transplant(tuple(entries), plan.dropped(), tuple(each for donor in donors for each in donor.checked))


def adopted(options: NetOptions, donors: Sequence[Donor]) -> NetOptions:
    """The options with the normalisation that the donors' weights expect."""
    inputs = dict(options.inputs)
    for plan in input_plans(options, donors).values():
        inputs |= {name: each.options for name, each in plan.items()}
    return replace(options, inputs=inputs)
