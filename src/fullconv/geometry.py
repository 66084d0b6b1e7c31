"""The algebra of convolution windows: sizes, coordinates, receptive fields and crops, computed from the layers.

Everything here is about one axis and pure integers and fractions; a 2-D layer is two windows.

Convention: pixels are numbered from 0 and pixel i has its centre at coordinate i; intervals are half-open
``[start, stop)`` and may reach outside ``[0, n)``, where the padding is. A path is the sequence of layers from an
ancestor to a descendant, first layer first; the empty path is the ancestor itself.

Sources: Long et al. 2015, section 3 (composition of kernels and strides); the coordinate map of the reference
implementation's crop layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import TypeVar

from fullconv.errors import GeometryError


@dataclass(frozen=True)
class CoordinateMap:
    """out = scale * in + offset, from a coordinate of a layer's input to the coordinate of its output.

    >>> pool = Window(kernel=2, stride=2).coordinate_map()
    >>> pool.inverse()  # unit i of a 2x2 pooling is centred on 2 i + 1/2
    CoordinateMap(scale=Fraction(2, 1), offset=Fraction(1, 2))
    """

    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def then(self, following: CoordinateMap) -> CoordinateMap:
        """`following` applied to what this map gives."""
        return CoordinateMap(self.scale * following.scale, following.scale * self.offset + following.offset)

    def inverse(self) -> CoordinateMap:
        """From output to input: in = (out - offset) / scale."""
        return CoordinateMap(1 / self.scale, -self.offset / self.scale)


@dataclass(frozen=True)
class Window:
    """A convolution, pooling or transposed convolution along one axis.

    Args:
        kernel: taps, >= 1.
        stride: step of the window on its input (or, if transposed, of its copies on the output), >= 1.
        padding: zeros added on both sides (if transposed: taken off both sides of the output), >= 0.
        dilation: distance of neighbouring taps, >= 1.
        ceil: round the output size up instead of down (pooling).
        transposed: a transposed convolution ("deconvolution").

    Raises:
        GeometryError: a number below its bound, or ceil on a transposed window.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    ceil: bool = False
    transposed: bool = False

    def __post_init__(self) -> None:
        if min(self.kernel, self.stride, self.dilation) < 1 or self.padding < 0:
            raise GeometryError(f"{self}: expected kernel, stride and dilation >= 1 and padding >= 0")
        if self.ceil and self.transposed:
            raise GeometryError(f"{self}: a transposed window has no rounding; set ceil=False")

    @property
    def extent(self) -> int:
        """The span of the taps: dilation * (kernel - 1) + 1."""
        return self.dilation * (self.kernel - 1) + 1

    def output_size(self, size: int) -> int:
        """Output cells for `size` input cells, at least 1.

        - convolution: floor((n + 2p - extent) / s) + 1
        - ceil mode: ceil((n + 2p - extent) / s) + 1, less one where the last window would start at or beyond
          n + p (the rule of Caffe for padded poolings and of PyTorch for all)
        - transposed: s (n - 1) + extent - 2p

        Raises:
            GeometryError: the window does not fit on the input.
        """
        if size < 1:
            raise GeometryError(f"size {size}; expected at least 1")
        if self.transposed:
            output = self.stride * (size - 1) + self.extent - 2 * self.padding
        elif self.ceil:
            output = -((self.extent - size - 2 * self.padding) // self.stride) + 1
            if (output - 1) * self.stride >= size + self.padding:
                output -= 1
        else:
            output = (size + 2 * self.padding - self.extent) // self.stride + 1
        if output < 1:
            raise GeometryError(
                f"size {size} is too small for a window of extent {self.extent} with padding {self.padding}; "
                "use a larger input or more padding"
            )
        return output

    def coordinate_map(self) -> CoordinateMap:
        """Where an input coordinate lies on the output: (in + p - (extent - 1)/2) / s; transposed: its inverse."""
        centre = Fraction(self.extent - 1, 2) - self.padding
        if self.transposed:
            return CoordinateMap(Fraction(self.stride), centre)
        return CoordinateMap(Fraction(1, self.stride), -centre / self.stride)

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """The inputs ``[first, last + 1)`` that the outputs ``[start, stop)`` read, padding included."""
        if self.transposed:
            first = -((self.extent - 1 - start - self.padding) // self.stride)
            return first, (stop - 1 + self.padding) // self.stride + 1
        return start * self.stride - self.padding, (stop - 1) * self.stride - self.padding + self.extent

    def outputs_of(self, start: int, stop: int) -> tuple[int, int]:
        """The outputs ``[first, last + 1)`` that read any of the inputs ``[start, stop)``, of an endless map.

        >>> Window(3, stride=2, padding=1).outputs_of(4, 5)  # pixel 4 lies in the window of unit 2 alone
        (2, 3)
        """
        self._require_plain()
        first = (start + self.padding - self.extent) // self.stride + 1
        return first, -(-(stop + self.padding) // self.stride)

    def outputs_within(self, start: int, stop: int) -> tuple[int, int]:
        """The outputs that read nothing but the inputs ``[start, stop)``, of an endless map; empty where none does.

        >>> Window(3, stride=2, padding=1).outputs_within(0, 9)  # unit 0 reads padding too
        (1, 4)
        """
        self._require_plain()
        first = -(-(start + self.padding) // self.stride)
        return first, max(first, (stop + self.padding - self.extent) // self.stride + 1)

    def _require_plain(self) -> None:
        if self.transposed:
            raise GeometryError("a transposed window; expected a plain one: ask a transposed one for `inputs`")


@dataclass(frozen=True)
class Crop:
    """Drops the first `offset` >= 0 cells (the far side is cut to a reference's size)."""

    offset: int

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise GeometryError(f"a crop of {self.offset} cells; expected at least 0")

    def output_size(self, size: int) -> int:
        """What is left at most: n - offset."""
        if size <= self.offset:
            raise GeometryError(f"a crop of {self.offset} leaves nothing of {size} cells; use a larger input")
        return size - self.offset

    def coordinate_map(self) -> CoordinateMap:
        """Where an input coordinate lies on the output: in - offset."""
        return CoordinateMap(offset=Fraction(-self.offset))

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """The inputs that the outputs ``[start, stop)`` read."""
        return start + self.offset, stop + self.offset


Layer = Window | Crop
Path = Sequence[Layer]
P = TypeVar("P", bound=Path)


@dataclass(frozen=True)
class Field:
    """The receptive field of a path's output units.

    Attributes:
        size: input pixels that one unit sees (the most that any unit sees, where they differ).
        stride: distance of neighbouring units, in input pixels.
        centre: input coordinate of the centre of unit 0.
    """

    size: int
    stride: Fraction
    centre: Fraction


def coordinate_map(path: Path) -> CoordinateMap:
    """The map from the path's ancestor to its end."""
    result = CoordinateMap()
    for layer in path:
        result = result.then(layer.coordinate_map())
    return result


def output_size(path: Path, size: int) -> int:
    """Cells at the end of the path for `size` pixels at its start.

    >>> output_size([Window(3, padding=100), Window(2, 2, ceil=True)], 500)
    349
    """
    for layer in path:
        size = layer.output_size(size)
    return size


def inputs(path: Path, start: int, stop: int) -> tuple[int, int]:
    """The pixels at the path's start that its outputs ``[start, stop)`` read, unclipped.

    >>> inputs([Window(2, 2), Window(3)], 0, 1)
    (0, 6)
    """
    for layer in reversed(path):
        start, stop = layer.inputs(start, stop)
    return start, stop


def inputs_of_all(paths: Iterable[Path], start: int, stop: int) -> tuple[int, int]:
    """The union of `inputs` over several paths to the same output, such as the streams of a skip net."""
    ranges = [inputs(path, start, stop) for path in paths]
    return min(first for first, _ in ranges), max(last for _, last in ranges)


def widest(paths: Sequence[P]) -> P:
    """Of branches that start and end together, the one whose outputs read whatever those of the others read.

    Raises:
        GeometryError: the branches' units do not lie on each other, or a window is transposed.

    >>> widest([[Window(1)], [Window(5, padding=2)], [Window(3, padding=1)]])
    [Window(kernel=5, stride=1, padding=2, dilation=1, ceil=False, transposed=False)]
    """
    if any(isinstance(layer, Window) and layer.transposed for path in paths for layer in path):
        raise GeometryError("a transposed window in a branch; its units read differently many pixels")
    if len({coordinate_map(path) for path in paths}) > 1:
        raise GeometryError("branches whose units do not lie on each other; pad each by half its kernel")
    # Fields about one centre lie in each other, and so do those of all units of one grid.
    return max(paths, key=lambda path: receptive_field(path).size)


def receptive_field(path: Path) -> Field:
    """Size, stride and centre of the field of the units at the path's end.

    >>> receptive_field([Window(3), Window(2, 2), Window(3)])
    Field(size=8, stride=Fraction(2, 1), centre=Fraction(7, 2))
    """
    # Units of a path with transposed windows see differently many pixels; the pattern repeats with their strides.
    phases = prod(layer.stride for layer in path if isinstance(layer, Window) and layer.transposed)
    sizes = [last - first for first, last in (inputs(path, unit, unit + 1) for unit in range(phases))]
    back = coordinate_map(path).inverse()
    return Field(max(sizes), back.scale, back.offset)


def compose(first: Window, second: Window) -> Window:
    """One window equal in field and size to `first` followed by `second` (Long et al. 2015, section 3).

    Kernel k + (k' - 1) s, stride s s', padding p + p' s, for kernels taken with their dilation.

    Raises:
        GeometryError: a transposed window, roundings that differ where both strides exceed 1, or rounding up where
            the last window may start in the padding, since its size then obeys no single formula.

    >>> compose(Window(3, 2), Window(5, 2))
    Window(kernel=11, stride=4, padding=0, dilation=1, ceil=False, transposed=False)
    """
    if first.transposed or second.transposed:
        raise GeometryError("transposed windows do not compose to one window; use a path")
    if first.ceil != second.ceil and min(first.stride, second.stride) > 1:
        raise GeometryError("windows with different rounding do not compose to one window; use a path")
    one = Window(
        kernel=first.extent + (second.extent - 1) * first.stride,
        stride=first.stride * second.stride,
        padding=first.padding + second.padding * first.stride,
        ceil=first.ceil if first.stride > 1 else second.ceil,
    )
    if any(w.ceil and w.stride + w.padding > w.extent for w in (first, second, one)):
        raise GeometryError("rounding up, the last window may start in the padding; use a path")
    return one


def alignment(moving: Path, reference: Path) -> int:
    """The shift d with: cell i of `reference` lies on cell i + d of `moving`; both paths start at one ancestor.

    d >= 0 is the offset by which `moving` is cropped to `reference`; d < 0 asks for the opposite crop.

    Raises:
        GeometryError: the strides differ, or the cells do not lie on each other (a half-integer offset).

    >>> conv = Window(3, padding=1)
    >>> alignment([Window(2, 2), Window(4, 2, transposed=True)], [conv])
    1
    """
    between = coordinate_map(reference).inverse().then(coordinate_map(moving))
    if between.scale != 1:
        raise GeometryError(f"strides differ by a factor of {between.scale}; only maps of one stride can be cropped")
    if between.offset.denominator != 1:
        raise GeometryError(
            f"the crop offset is {between.offset}, not a whole number; "
            "an upsampling kernel larger or smaller by one moves it by one half"
        )
    return int(between.offset)


def upsampling(path: Path, reference: Path, factor: int) -> tuple[Window, int]:
    """The bilinear upsampling by `factor` whose cells lie on those of `reference`, and its `alignment` there.

    The kernel is 2 factor or 2 factor - 1: exactly one of the two gives a whole offset (reference 3.4).

    Raises:
        GeometryError: neither does, because the factor is not the ratio of the strides.

    >>> upsampling([Window(2, 2)], [], 2)
    (Window(kernel=4, stride=2, padding=0, dilation=1, ceil=False, transposed=True), 1)
    """
    even = Window(2 * factor, factor, transposed=True)
    odd = Window(2 * factor - 1, factor, transposed=True)
    try:
        return even, alignment([*path, even], reference)
    except GeometryError:
        return odd, alignment([*path, odd], reference)
