"""Input channels: how a first convolution takes over filters, and with them the normalisation that they expect.

By name where both nets have an input of one name; else colour goes to colour; what is left begins with the mean of the
colour filters, as in the paper's early fusion (Long et al. 2015, section 5; reference 1.2, color-d).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from fullconv.nets import InputOptions


@dataclass(frozen=True)
class Piece:
    """Filters of some channels of an input, made of those of the donor's channels [start, start + count).

    Attributes:
        how: "copied"; or "mean" or "sum" of the donor's filters, one channel repeated `count` times.
        source: [start, stop) of the donor's channels.
        reverse: whether they are taken in reverse.
    """

    how: str
    source: tuple[int, int]
    count: int
    reverse: bool = False

    def of(self, weight: Tensor) -> Tensor:
        """(O, I, kh, kw) of the donor -> (O, count, kh, kw)."""
        part = weight[:, slice(*self.source)]
        if self.how == "copied":
            return part.flip(1) if self.reverse else part
        whole = part.sum(1, keepdim=True) if self.how == "sum" else part.mean(1, keepdim=True)
        return whole.expand(-1, self.count, -1, -1)


@dataclass(frozen=True)
class Filters:
    """What one input gets: its normalisation and its pieces, in the order of its channels."""

    options: InputOptions
    pieces: tuple[Piece, ...]


def plan_inputs(
    own: Mapping[str, InputOptions], given: Mapping[str, InputOptions], default: InputOptions
) -> dict[str, Filters]:
    """For each input of a trunk the filters that it takes from a trunk with the inputs `given`.

    Args:
        own: the inputs of the trunk, in the order of its channels.
        given: those of the donor's.
        default: the trunk's own normalisation of colour: an input that has it gives it up with its filters; one with
            another, such as the mean of a data set, keeps its mean, and one of bands all of its range.
    """
    starts, stop = {}, 0
    for name, each in given.items():
        starts[name] = stop
        stop += each.channels
    colour = next((name for name, each in given.items() if each.channels == 3 and not each.log), None)
    spread = (starts[colour], starts[colour] + 3) if colour else (0, stop)
    free = [name for name in given if name not in own or given[name].channels != own[name].channels]
    plan: dict[str, Filters] = {}
    for name, each in own.items():
        same = name in given and name not in free
        twin = name if same else next((n for n in free if _alike(given[n], each)), None)
        if twin is not None:
            if not same:
                free.remove(twin)
            # Bands keep their own range: what the donor's pictures had says nothing of them.
            own_range = bool(each.bands) and given[twin].bands != each.bands
            options = each if own_range else given[twin] if same else _fitted(each, given[twin], default)
            start, reverse = starts[twin], own_range and given[twin].order != each.order
            copied = Piece("copied", (start, start + each.channels), each.channels, reverse=reverse)
            plan[name] = Filters(options, (copied,))
        elif colour and len(own) == 1 and not each.log and each.channels == 1:
            # A grey image is a colour image of three equal channels, whose filters add up.
            theirs = given[colour]
            options = each if each.bands else replace(each, mean=(fmean(theirs.mean),), std=(fmean(theirs.std),))
            plan[name] = Filters(options, (Piece("sum", spread, 1),))
        elif colour and len(own) == 1 and each.channels > 3:
            theirs, more = given[colour], each.channels - 3
            options = each
            if not each.bands:
                mean, std = (*theirs.mean, *each.mean[3:]), (*theirs.std, *(fmean(theirs.std),) * more)
                options = replace(each, mean=mean, std=std)
            # More than three channels are always read in their order.
            copied = Piece("copied", spread, 3, reverse=theirs.order == "bgr")
            plan[name] = Filters(options, (copied, Piece("mean", spread, more)))
        else:
            plan[name] = Filters(each, (Piece("mean", spread, each.channels),))
    return plan


def filters(plan: Mapping[str, Filters], weight: Tensor) -> Tensor:
    """The trunk's first weight (O, I, kh, kw) from the donor's; the donor's itself where it is all copied."""
    pieces = _pieces(plan)
    if [(p.how, p.source, p.reverse) for p in pieces] == [("copied", (0, weight.shape[1]), False)]:
        return weight
    return torch.cat([piece.of(weight) for piece in pieces], dim=1)


def described(plan: Mapping[str, Filters]) -> str:
    """In words, for a report; "copied" where nothing else was done.

    >>> rgb, depth = InputOptions((0, 0, 0), (1, 1, 1)), InputOptions((7.8,), (1,), log=True)
    >>> described(plan_inputs({"color": rgb, "depth": depth}, {"image": rgb}, rgb))
    'color copied, depth the mean of 3 filters'
    """
    pieces = _pieces(plan)
    if all(piece.how == "copied" and not piece.reverse for piece in pieces):
        return "copied"
    words = []
    for name, each in plan.items():
        parts = []
        for piece in each.pieces:
            count = piece.source[1] - piece.source[0]
            reverse = " in reverse" if piece.reverse else ""
            parts.append(f"copied{reverse}" if piece.how == "copied" else f"the {piece.how} of {count} filters")
        words.append(f"{name} {' and '.join(parts)}")
    return ", ".join(words)


def _pieces(plan: Mapping[str, Filters]) -> Sequence[Piece]:
    return [piece for each in plan.values() for piece in each.pieces]


def _alike(given: InputOptions, own: InputOptions) -> bool:
    return given.channels == own.channels and given.log == own.log


def _fitted(own: InputOptions, given: InputOptions, default: InputOptions) -> InputOptions:
    """The normalisation of an input that takes the filters of one of another name."""
    if own == default:
        return given
    # Its mean is its data set's. Order is that of colours: an input that is not reversed may be none.
    return replace(own, std=given.std, order=given.order if own.order == "bgr" else own.order)
