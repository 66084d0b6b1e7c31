"""Spots: what a tensor of a graph reads of the inputs, along which of its dimensions; and where locality ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fullconv.fields import Fields

ROWS, COLUMNS = 0, 1

Reads = tuple[Fields | None, Fields | None]
"""What the units of a map read along (rows, columns) of an input; None: all of it."""


@dataclass(frozen=True)
class Obstacle:
    """Where a net is not local.

    Attributes:
        name, kind: of the layer.
        reason: what it does to the map, for "`name` (`kind`) ...".
    """

    name: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}) {self.reason}"


@dataclass(frozen=True)
class Spot:
    """A tensor's dimensions of rows and columns, and what it reads of the inputs: all, along what it has not."""

    axes: tuple[int | None, int | None]
    reads: Mapping[str, Reads]

    @classmethod
    def of_input(cls, name: str, rank: int) -> Spot:
        """Of an input itself: a map has its rows and columns last, a vector none."""
        if rank < 3:
            return cls((None, None), {name: (None, None)})
        return cls((rank - 2, rank - 1), {name: (Fields(), Fields())})

    def whole(self, axes: Iterable[int] = (ROWS, COLUMNS)) -> Spot:
        """Of what reads all positions along some axes."""
        all_of = set(axes)
        return replace(
            self,
            reads={
                name: (None if ROWS in all_of else rows, None if COLUMNS in all_of else columns)
                for name, (rows, columns) in self.reads.items()
            },
        )
