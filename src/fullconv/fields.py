"""Fields: which inputs every unit of a map reads, along one axis; closed under composition and union.

A chain of layers has a path (`fullconv.geometry`); a graph with branches and merges has fields. Both count pixels
from 0 and use half-open intervals, which may reach outside the input, where the padding is.

Source: Long et al. 2015, section 3 (composition of kernels and strides), extended to fractional strides and branches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from itertools import pairwise
from math import gcd, lcm

from fullconv.errors import GeometryError
from fullconv.geometry import Field, Layer, Window

LONGEST_PERIOD = 1 << 16
"""Of a pattern of fields; interpolation by odd ratios makes long ones."""


@dataclass(frozen=True)
class Fields:
    """Unit ``i = period q + r`` reads the inputs ``[step q + starts[r], step q + stops[r])``.

    A convolution has period 1 and its stride as the step; a transposed one the reverse. Every interval is the smallest
    that holds what the unit reads of the map before; where the taps leave gaps it holds those. Equal fields are equal
    objects: the pattern is made as short as can be, and the interval of a unit that reads nothing lies where units of
    one input each would.

    Args:
        starts, stops: of the first `period` units; equal where a unit reads nothing.
        step: inputs from one period to the next, >= 1.

    Raises:
        GeometryError: numbers that describe no pattern.

    >>> Fields((0, 1), (1, 2), 2) == Fields()
    True
    >>> Fields.of(Window(3, stride=2, padding=1)).then(Fields.of(Window(5)))
    Fields(starts=(-1,), stops=(10,), step=2)
    >>> Fields.of(Window(4, stride=2, padding=1, transposed=True))
    Fields(starts=(-1, 0), stops=(1, 2), step=1)
    """

    starts: tuple[int, ...] = (0,)
    stops: tuple[int, ...] = (1,)
    step: int = 1

    def __post_init__(self) -> None:
        whole, ends = len(self.starts), list(zip(self.starts, self.stops, strict=False))
        if not whole == len(self.stops) > 0 or self.step < 1 or any(a > b for a, b in ends):
            raise GeometryError(
                f"fields from {self.starts} to {self.stops} in steps of {self.step}; expected as many stops as starts, "
                "none before its start, and a step >= 1"
            )
        ends = [(a, b) if a < b else (self.step * i // whole,) * 2 for i, (a, b) in enumerate(ends)]
        period = next(each for each in range(1, whole + 1) if _repeats(ends, each, self.step))
        starts, stops = zip(*ends[:period], strict=True)
        # Frozen for everyone else.
        self.__dict__.update(starts=starts, stops=stops, step=self.step * period // whole)

    @property
    def period(self) -> int:
        return len(self.starts)

    @property
    def size(self) -> int:
        """Inputs that one unit sees, the most that any sees."""
        return max(stop - start for start, stop in zip(self.starts, self.stops, strict=True))

    @property
    def stride(self) -> Fraction:
        """Distance of neighbouring units, in inputs."""
        return Fraction(self.step, self.period)

    @property
    def start(self) -> int:
        """First input of unit 0's field."""
        return self.starts[0]

    @property
    def centre(self) -> Fraction:
        """Input coordinate of the centre of unit 0, such that unit i is centred on centre + stride i, on average."""
        units = [unit for unit in zip(range(self.period), self.starts, self.stops, strict=True) if unit[1] < unit[2]]
        return sum((Fraction(a + b - 1, 2) - self.stride * r for r, a, b in units), Fraction()) / max(len(units), 1)

    @property
    def field(self) -> Field:
        """Size, stride and centre."""
        return Field(self.size, self.stride, self.centre)

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """The inputs that the units ``[start, stop)`` read; an empty interval for no units or units without inputs.

        >>> Fields.of(Window(2, 2)).inputs(1, 3)
        (2, 6)
        """
        if stop <= start:
            return (self._unit(start)[0],) * 2
        outer = 1 if self._rising else min(self.period, stop - start)  # no unit reads farther out than one of these
        ends = [self._unit(unit) for unit in (*range(start, start + outer), *range(stop - outer, stop))]
        read = [end for end in ends if end[0] < end[1]] or [(ends[0][0],) * 2]
        return min(first for first, _ in read), max(last for _, last in read)

    def then(self, after: Fields) -> Fields:
        """The fields of `after`, whose inputs are this map's units.

        Raises:
            GeometryError: a pattern longer than `LONGEST_PERIOD`.
        """
        turns = self.period // gcd(self.period, after.step)
        ends = [self.inputs(*after.inputs(unit, unit + 1)) for unit in range(_bounded(turns * after.period))]
        return _pattern(ends, turns * after.step // self.period * self.step)

    def __or__(self, other: Fields) -> Fields:
        """The fields of units that read what this and the other map's units of the same number read.

        Raises:
            GeometryError: the strides differ, so that no pattern describes both.
        """
        if self.stride != other.stride:
            raise GeometryError(f"joins maps of strides {self.stride} and {other.stride}; resize one to the other")
        ends = []
        for unit in range(_bounded(lcm(self.period, other.period))):
            (a, b), (c, d) = self._unit(unit), other._unit(unit)
            ends.append((a, b) if c == d else (c, d) if a == b else (min(a, c), max(b, d)))
        return _pattern(ends, int(self.stride * len(ends)))

    @classmethod
    def of(cls, layer: Layer) -> Fields:
        """The fields of one layer's outputs on its input."""
        if not (isinstance(layer, Window) and layer.transposed):
            start, stop = layer.inputs(0, 1)
            return cls((start,), (stop,), layer.inputs(1, 2)[0] - start)
        ends = []
        for unit in range(layer.stride):
            # Tap t of input i falls on unit stride i - padding + dilation t.
            positions = [unit + layer.padding - layer.dilation * tap for tap in range(layer.kernel)]
            read = [position // layer.stride for position in positions if position % layer.stride == 0]
            ends.append((min(read), max(read) + 1) if read else (0, 0))
        return _pattern(ends, 1)

    @classmethod
    def along(cls, path: Iterable[Layer]) -> Fields:
        """The fields of the units at a path's end."""
        return reduce(cls.then, (cls.of(layer) for layer in path), cls())

    @cached_property
    def _rising(self) -> bool:
        """Whether starts and stops rise with the units and all read something, so that the outermost units decide."""
        units = [self._unit(unit) for unit in range(self.period + 1)]
        rising = all(one[0] <= other[0] and one[1] <= other[1] for one, other in pairwise(units))
        return rising and all(start < stop for start, stop in units)

    def _unit(self, unit: int) -> tuple[int, int]:
        turn, phase = divmod(unit, self.period)
        return self.step * turn + self.starts[phase], self.step * turn + self.stops[phase]


def _bounded(period: int) -> int:
    if period > LONGEST_PERIOD:
        raise GeometryError(f"fields repeat only after {period} units; resize by ratios of smaller numbers")
    return period


def _pattern(ends: list[tuple[int, int]], step: int) -> Fields:
    starts, stops = zip(*ends, strict=True)
    return Fields(starts, stops, step)


def _repeats(ends: list[tuple[int, int]], period: int, step: int) -> bool:
    """Whether a pattern that takes `step` inputs is one of `period` units, repeated."""
    if len(ends) % period or step * period % len(ends):
        return False
    shift = step * period // len(ends)
    return all(ends[i + period] == (ends[i][0] + shift, ends[i][1] + shift) for i in range(len(ends) - period))
