"""Fields: which inputs every unit of a map reads, along one axis; closed under composition and union.

A chain of layers has a path (`fullconv.geometry`); a graph with branches and merges has fields. Both count pixels
from 0 and use half-open intervals, which may reach outside the input, where the padding is.

Source: Long et al. 2015, section 3 (composition of kernels and strides), extended to fractional strides and branches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import ceil, gcd, lcm

from fullconv.errors import GeometryError
from fullconv.geometry import Field, Layer, Window

LONGEST_PERIOD = 1 << 16
"""Of a pattern of fields; interpolation by odd ratios makes long ones."""


@dataclass(frozen=True)
class Fields:
    """Unit ``i = period q + r`` reads the inputs ``[step q + starts[r], step q + stops[r])``.

    A convolution has period 1 and its stride as the step; a transposed one the reverse. Starts and stops rise with the
    units, and every interval is the smallest that holds what the unit reads; where the taps leave gaps it holds those.

    Args:
        starts, stops: of the first `period` units.
        step: inputs from one period to the next, >= 1.

    >>> Fields.of(Window(3, stride=2, padding=1)).then(Fields.of(Window(5)))
    Fields(starts=(-1,), stops=(10,), step=2)
    >>> Fields.of(Window(4, stride=2, padding=1, transposed=True))
    Fields(starts=(-1, 0), stops=(1, 2), step=1)
    """

    starts: tuple[int, ...] = (0,)
    stops: tuple[int, ...] = (1,)
    step: int = 1

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
        """Input coordinate of the centre of unit 0, such that unit i is centred on centre + stride i."""
        units = zip(range(self.period), self.starts, self.stops, strict=True)
        return sum((Fraction(a + b - 1, 2) - self.stride * r for r, a, b in units), Fraction()) / self.period

    @property
    def field(self) -> Field:
        """Size, stride and centre."""
        return Field(self.size, self.stride, self.centre)

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """The inputs that the units ``[start, stop)`` read; an empty interval for no units or units without inputs.

        >>> Fields.of(Window(2, 2)).inputs(1, 3)
        (2, 6)
        """
        first, last = self._unit(start)[0], self._unit(stop - 1)[1]
        return first, max(first, last) if stop > start else first

    def then(self, after: Fields) -> Fields:
        """The fields of `after`, whose inputs are this map's units.

        Raises:
            GeometryError: a pattern longer than `LONGEST_PERIOD`.
        """
        turns = self.period // gcd(self.period, after.step)
        ends = [self.inputs(*after.inputs(unit, unit + 1)) for unit in range(_bounded(turns * after.period))]
        return _shortest(ends, turns * after.step // self.period * self.step)

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
        return _shortest(ends, int(self.stride * len(ends)))

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
            ends.append((min(read), max(read) + 1) if read else (ceil(Fraction(positions[-1], layer.stride)),) * 2)
        return _shortest(ends, 1)

    @classmethod
    def along(cls, path: Iterable[Layer]) -> Fields:
        """The fields of the units at a path's end."""
        return reduce(cls.then, (cls.of(layer) for layer in path), cls())

    def _unit(self, unit: int) -> tuple[int, int]:
        turn, phase = divmod(unit, self.period)
        return self.step * turn + self.starts[phase], self.step * turn + self.stops[phase]


def _bounded(period: int) -> int:
    if period > LONGEST_PERIOD:
        raise GeometryError(f"fields repeat only after {period} units; resize by ratios of smaller numbers")
    return period


def _shortest(ends: list[tuple[int, int]], step: int) -> Fields:
    """The fields of one period, as a pattern that is as short as can be: equal fields compare equal."""
    whole = len(ends)
    for period in range(1, whole + 1):
        if whole % period or step * period % whole:
            continue
        shift = step * period // whole
        if all(ends[i + period] == (ends[i][0] + shift, ends[i][1] + shift) for i in range(whole - period)):
            break
    starts, stops = zip(*ends[:period], strict=True)
    return Fields(starts, stops, shift)
