"""Calls that mix, move, pick or drop dimensions of a tensor: their effects on each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from torch import Tensor

from fullconv.fields import Fields
from fullconv.nets.tracing.calls import Call
from fullconv.nets.tracing.effects import MIXES, Effect, Rule, kept, mixed
from fullconv.nets.tracing.graph import Shape

SPREADS = "spreads one value over the whole map"
DROPS = "takes the map apart into a row of numbers"


def _several(dims: int | Sequence[int]) -> Sequence[int]:
    return [dims] if isinstance(dims, int) else dims


def _batch_norm(call: Call, old: Shape, _: Shape) -> list[Effect]:
    if call.options.get("training"):
        remembers = getattr(call.layer, "track_running_stats", True)
        fix = "in training mode; call eval() first" if remembers else "always; give it track_running_stats=True"
        return mixed(len(old), range(len(old)), f"takes statistics of the batch {fix}")
    return mixed(len(old), [1], "scales every position otherwise")


def _statistics(_: Call, old: Shape, __: Shape) -> list[Effect]:
    return mixed(len(old), range(len(old)), "normalises by statistics of the whole map")


def _channels(_: Call, old: Shape, __: Shape) -> list[Effect]:
    """What works on dimension 1, the channels."""
    return mixed(len(old), [1])


def _third_last(_: Call, old: Shape, __: Shape) -> list[Effect]:
    return mixed(len(old), [len(old) - 3])


def _prelu(call: Call, old: Shape, _: Shape) -> list[Effect]:
    return mixed(len(old), [1] if call.options["weight"].numel() > 1 else [], "scales every position otherwise")


DEFAULTS = {"glu": -1, "normalize": 1, "unbind": 0, "sort": -1, "topk": -1}
"""Dimensions that are meant where none is given; for all other calls it is every one."""

REASONS = {
    "flip": "turns the map round",
    "roll": "moves positions from one end of the map to the other",
    "cumsum": "adds up along the map",
    "unbind": "takes the map apart into single positions",
}


def _along(call: Call, old: Shape, new: Shape) -> list[Effect] | None:
    """Along some dimensions, which may vanish."""
    rank = len(old)
    given = call.options.get("dim", DEFAULTS.get(call.name))
    if call.name in ("layer_norm", "rms_norm"):
        normalized = call.options["normalized_shape"]
        given = range(-(1 if isinstance(normalized, int) else len(normalized)), 0)
    elif call.name == "linear":
        given = -1
    elif isinstance(given, bool):  # x.std(False): no dimension, but whether it is unbiased
        given = None
    chosen = range(rank) if given is None else [given] if isinstance(given, int) else given
    dims = {dim % rank for dim in chosen} or set(range(rank))
    effects = mixed(rank, dims, REASONS.get(call.name, MIXES))
    return effects if len(new) == rank else _without(effects, dims)


def _without(effects: list[Effect], dims: Collection[int]) -> list[Effect]:
    """The same, where some dimensions vanish."""
    left = [dim for dim in range(len(effects)) if dim not in dims]
    return [
        replace(effect, to=left.index(dim)) if dim in left else Effect(None, None, effect.reason or DROPS)
        for dim, effect in enumerate(effects)
    ]


def _reshape(_: Call, old: Shape, new: Shape) -> list[Effect]:
    """A dimension survives where its own size and the product of those before it stay."""
    effects: list[Effect] = []
    behind = len(new)
    for dim in reversed(range(len(old))):  # of several places, of size 1, the last: batch and channels come first
        before = prod(old[:dim])
        places = [q for q in range(behind) if new[q] == old[dim] and prod(new[:q]) == before]
        behind = places[-1] if places else behind
        effects.insert(0, Effect(behind) if places else Effect(None, None, DROPS))
    return effects


def _squeeze(call: Call, old: Shape, _: Shape) -> list[Effect]:
    rank = len(old)
    given = call.options.get("dim")
    dims = {dim % rank for dim in (range(rank) if given is None else _several(given))}
    return _without(kept(rank), {dim for dim in dims if old[dim] == 1})


def _unsqueeze(call: Call, old: Shape, _: Shape) -> list[Effect]:
    at = call.options["dim"] % (len(old) + 1)
    return [Effect(dim + (dim >= at)) for dim in range(len(old))]


def _permute(call: Call, old: Shape, _: Shape) -> list[Effect]:
    rank, options = len(old), call.options
    order = list(range(rank))
    if call.name == "transpose":
        first, second = options["dim0"] % rank, options["dim1"] % rank
        order[first], order[second] = order[second], order[first]
    elif call.name == "movedim":
        pairs = zip(_several(options["destination"]), _several(options["source"]), strict=True)
        moves = {to % rank: dim % rank for to, dim in pairs}
        rest = iter(dim for dim in order if dim not in moves.values())
        order = [moves[to] if to in moves else next(rest) for to in range(rank)]
    else:
        order = [dim % rank for dim in _several(options["dim"])]
    return [Effect(order.index(dim)) for dim in range(rank)]


def _parts(_: Call, old: Shape, new: Shape) -> list[Effect]:
    """Chunks along a dimension."""
    return mixed(len(old), [dim for dim in range(len(old)) if old[dim] != new[dim]], "cuts the map into parts")


def _item(call: Call, old: Shape, _: Shape) -> list[Effect] | None:
    index = call.options["index"]
    return _picked(list(index) if isinstance(index, tuple) else [index], old)


def _select(call: Call, old: Shape, _: Shape) -> list[Effect] | None:
    return _picked([*[slice(None)] * (call.options["dim"] % len(old)), call.options["index"]], old)


def _narrow(call: Call, old: Shape, new: Shape) -> list[Effect] | None:
    dim, start = call.options["dim"] % len(old), call.options["start"]
    if not isinstance(start, int):
        return None
    start = start + old[dim] if start < 0 else start
    return _picked([*[slice(None)] * dim, slice(start, start + new[dim])], old)


def _picked(items: list[Any], old: Shape) -> list[Effect] | None:
    """By numbers, slices and one list or tensor of numbers, as in ``x[:, [2, 1, 0], ..., ::2]``."""
    lists = [each for each in items if isinstance(each, list | Tensor)]
    kinds = [type(each) for each in items]
    if not set(kinds) <= {int, slice, type(None), type(Ellipsis), *map(type, lists)}:
        return None
    if any(isinstance(each, Tensor) and each.ndim != 1 for each in lists):
        return None
    if any(isinstance(each, list) and any(type(number) is not int for number in each) for each in lists):
        return None
    if len(lists) > 1 or (lists and int in kinds):  # they are broadcast, and may move to the front
        return None
    if type(Ellipsis) in kinds:
        at = kinds.index(type(Ellipsis))
        items[at : at + 1] = [slice(None)] * (len(old) - len([each for each in items if each is not None]) + 1)
    effects: list[Effect] = []
    to = 0
    for item in [*items, *[slice(None)] * len(old)]:
        dim = len(effects)
        if item is not None and dim == len(old):
            break
        if type(item) is int:
            effects.append(Effect(None, None, "picks single positions of the map"))
        elif isinstance(item, slice):
            start, _, step = item.indices(old[dim])
            effects.append(Effect(to, Fields((start,), (start + 1,), step)))
        elif item is not None:
            effects.append(Effect(to, None, "picks positions of the map by their numbers"))
        to += type(item) is not int
    return effects


def _expand(_: Call, old: Shape, new: Shape) -> list[Effect]:
    """Dimensions of one position become many, or maps are repeated."""
    behind = len(new) - len(old)
    return [
        Effect(dim + behind) if size == new[dim + behind] else Effect(dim + behind, None, SPREADS)
        for dim, size in enumerate(old)
    ]


DIMENSIONS: dict[str, Rule] = {
    name: rule
    for names, rule in (
        ("amax amin argmax cumsum flip glu layer_norm linear log_softmax logsumexp max mean min norm", _along),
        ("normalize prod rms_norm roll softmax softmin sort std sum topk unbind var", _along),
        ("channel_shuffle local_response_norm", _channels),
        ("softmax2d", _third_last),
        ("group_norm instance_norm", _statistics),
        ("batch_norm", _batch_norm),
        ("prelu", _prelu),
        ("view reshape flatten unflatten", _reshape),
        ("squeeze", _squeeze),
        ("unsqueeze", _unsqueeze),
        ("permute transpose movedim", _permute),
        ("chunk split tensor_split", _parts),
        ("getitem", _item),
        ("select", _select),
        ("narrow", _narrow),
        ("expand expand_as broadcast_to repeat", _expand),
        ("type_as to", lambda _, old, __: kept(len(old))),
    )
    for name in names.split()
}
"""By the name of the call."""
