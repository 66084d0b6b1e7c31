"""Effects: what a call that reads one map does to each of its dimensions.

Which positions are read and where they come out; whether a dimension is that of the rows or of the columns, or neither,
does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fullconv.fields import Fields
from fullconv.nets.tracing.calls import Call
from fullconv.nets.tracing.graph import Shape

ITSELF = Fields()


@dataclass(frozen=True)
class Effect:
    """On one dimension of the input.

    Attributes:
        to: which dimension of the output it is; None: it is gone.
        fields: what every position there reads here; None: all of them.
        reason: why that is not local, for "`name` (`kind`) ..."; empty where it is.
    """

    to: int | None
    fields: Fields | None = ITSELF
    reason: str = ""


Rule = Callable[[Call, Shape, Shape], list[Effect] | None]
"""(call, shape of its input, shape of its first output) -> an effect for every dimension; None: not known."""

MIXES = "mixes all positions of the map"


def kept(rank: int) -> list[Effect]:
    """Every position by itself."""
    return [Effect(dim) for dim in range(rank)]


def mixed(rank: int, dims: Collection[int], reason: str = MIXES) -> list[Effect]:
    """All positions along some dimensions."""
    return [Effect(dim, None, reason) if dim in dims else Effect(dim) for dim in range(rank)]
