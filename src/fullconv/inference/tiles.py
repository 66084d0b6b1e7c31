"""Plans: how an image goes through a net within a bound of memory, what that costs, and what any part of it reads.

A plan's parts lie in bands, one beside the other; each is read from the top down, and within a band a row of a layer is
computed once, but for the few between the layers of a block that two chunks read. One band is the rule. Where memory is
too small for the width of the image there are several, and what they share is computed for each of them: the plan says
how much.

Source: Long et al. 2015, section 3 (fields compose from kernels and strides).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil

from torch import Tensor

from fullconv.errors import GeometryError, OptionError
from fullconv.inference.cropped import CroppedNet
from fullconv.inference.maps import Images
from fullconv.inference.strips import BUDGET, Cut, Strips
from fullconv.machine import whole_memory
from fullconv.nets.rectangles import Interval, Rectangle, Size

SHARE = 0.5
"""Of the machine's memory that labelling takes at most where no bound is given."""

PROCESS = 350 << 20
"""Bytes of Python, torch and the rest, before any net."""

KEPT = 1 << 28
"""Bytes at most, and as many as the maps, that the allocator keeps of maps that were let go; measured."""

PIXEL = 16
"""Bytes a pixel of the parts that are read, labelled and written beside the net."""

COPIES = 6
"""Of coarse scores, while labels are taken from them."""

LARGEST, OVERHEAD = 1 << 26, 0.05
"""Bytes of a chunk at most, where smaller ones would cost a larger share of multiplications than this: those of rows
within blocks that two chunks read."""

SMALLEST = 1 << 18
"""Bytes of a chunk below which calls cost more than they compute; then bands get narrower instead."""

PART_PIXELS = 1 << 23
"""Of a part: some seconds of work, which a kill may cost. Fewer, where a pixel takes more than `PIXEL` bytes."""

PART_ROWS = 64
"""Parts begin at multiples of it: every coarse cell's rows together."""

NARROWEST = 64
"""Columns of a band."""

ENDLESS = 1 << 60
"""Bytes that no image takes."""

TILES = ("auto", "off")
"""Beside a number of pixels."""


@dataclass(frozen=True)
class Beside:
    """What is held beside the net while images are labelled.

    Attributes:
        part: bytes a pixel of a part.
        image: bytes a pixel of the image.
        more: further bytes, by (h, w) of the parts.
    """

    part: float = 0.0
    image: float = 0.0
    more: Callable[[Size], int] = lambda _: 0


NOTHING = Beside()


@dataclass(frozen=True)
class Plan:
    """How images of one size are labelled.

    Attributes:
        size: (H, W).
        bands: intervals of columns, from the left.
        rows: of a part.
        budget: bytes of a chunk of rows; see `Strips`.
        memory: bytes that the process will hold, about.
        multiplications: of all parts.
        least: multiplications of the image in one piece.
        cut: the net as it is run.
    """

    size: Size
    bands: tuple[Interval, ...]
    rows: int
    budget: int
    memory: int
    multiplications: int
    least: int
    cut: Cut = field(repr=False)

    @property
    def parts(self) -> list[Rectangle]:
        """Rectangles (rows, columns) that cover the image: band by band, from the top down."""
        tops = range(0, self.size[0], self.rows)
        return [((top, min(top + self.rows, self.size[0])), columns) for columns in self.bands for top in tops]

    @property
    def overhead(self) -> float:
        """Multiplications beyond those of one piece, as a share of these."""
        return max(0.0, self.multiplications / self.least - 1) if self.least else 0.0  # less: cells that no pixel reads

    def __str__(self) -> str:
        height, width = self.size
        bands = "" if len(self.bands) == 1 else f" in {len(self.bands)} bands of {self.bands[0][1]} columns"
        return (
            f"{height} x {width} pixels, {self.rows} rows at a time{bands}: {2e-9 * self.multiplications:,.0f} GFLOP, "
            f"{self.overhead:.1%} more than in one piece; about {self.memory / 2**30:.2f} GiB"
        )

    def strips(self, images: Images, columns: Interval, batch: int = 1, tasks: Sequence[str] | None = None) -> Strips:
        """One band of an image, or of several of its size, on its way; see `Strips`."""
        return Strips(
            self.cut, self.size, images, columns=columns, rows=self.rows, batch=batch, budget=self.budget, tasks=tasks
        )


def plan(
    cut: Cut, size: Size, *, tile: int | str = "auto", memory: int | None = None, beside: Beside = NOTHING
) -> Plan:
    """The cheapest way to label images of a size within a bound of memory.

    It depends on nothing but its arguments and the machine, so that a call that goes on goes on with the same parts.

    Args:
        cut: the net.
        tile: "auto", "off" (the whole image at once), or rows and columns of a tile in pixels.
        memory: bytes that the process may hold; default: half of the machine's, or what it takes at least.
        beside: what is held beside the net.

    Raises:
        OptionError: a tile that is none of these, or a bound that is too small, with the least that works.
        GeometryError: too little padding for the size.
    """
    check_tile(tile, 1)
    bound = bound_of(memory)
    smallest: Plan | None = None
    for way in _ways(cut, size, tile, beside):
        if way.memory <= bound or (memory is None and tile != "auto"):
            return way
        if smallest is None or way.memory < smallest.memory:
            smallest = way
    if smallest is not None and memory is None:
        return smallest
    least = 0.0 if smallest is None else ceil(smallest.memory / 2**30 * 100) / 100
    other = "" if tile == "auto" else f" with a tile of {tile}"
    raise OptionError(
        f"{bound / 2**30:.2f} GiB of memory for images of {size[0]} x {size[1]}{other}; give at least {least:.2f}GiB"
    )


def _ways(cut: Cut, size: Size, tile: int | str, beside: Beside) -> Iterator[Plan]:
    """Plans that need less and less memory: smaller chunks and parts first, which cost little, then narrower bands."""
    planned = partial(_planned, cut, size, beside)
    if tile == "off":
        yield planned(size[0], 1, ENDLESS)
    elif isinstance(tile, int) and isinstance(cut, CroppedNet):
        yield _planned(replace(cut, tile=tile), size, beside, tile, 1, BUDGET)
    elif isinstance(tile, int):
        yield planned(tile, -(-size[1] // tile), BUDGET)
    else:
        budget, bands, rows = BUDGET, 1, _rows(size[1], beside.part)
        while budget < LARGEST and planned(rows, 1, budget).overhead > OVERHEAD:
            budget *= 2
        while budget >= SMALLEST:
            yield planned(rows, 1, budget)
            budget //= 2
            if budget < BUDGET:
                rows = max(1, rows // 2 // PART_ROWS) * PART_ROWS
        while size[1] // (bands := 2 * bands) >= NARROWEST:
            for budget in (BUDGET >> 2, BUDGET >> 4, SMALLEST):
                yield planned(rows, bands, budget)


def check_tile(tile: object, least: int = NARROWEST) -> None:
    """Raise OptionError unless it is a tile; see `plan`.

    Args:
        least: pixels. Of smaller ones the overlap costs many times the image.
    """
    if not (tile in TILES or (isinstance(tile, int) and not isinstance(tile, bool) and tile >= 1)):
        raise OptionError(f"a tile of {tile!r}; expected a number of pixels, {' or '.join(TILES)}")
    if isinstance(tile, int) and tile < least:
        raise OptionError(f"a tile of {tile} pixels; expected {least} or more, {' or '.join(TILES)}")


def check_memory(memory: object) -> None:
    """Raise OptionError unless it is a bound of memory; see `plan`."""
    if memory is not None and (not isinstance(memory, int) or isinstance(memory, bool) or memory < 1):
        raise OptionError(f"memory of {memory!r}; expected a number of bytes, such as 2 << 30, or None")


def bound_of(memory: int | None) -> int:
    """Bytes that labelling may take; see `plan`."""
    return int(SHARE * whole_memory()) if memory is None else memory


def scores_pixel(cut: Cut) -> float:
    """Bytes of all tasks' coarse scores, a pixel of the image."""
    classes = cut.net.options.classes
    return sum(4 * classes[task] / head.output.window.stride**2 for task, head in cut.heads.items())


def _rows(width: int, pixel: float) -> int:
    return max(1, int(PART_PIXELS * PIXEL / max(pixel, PIXEL)) // width // PART_ROWS) * PART_ROWS


def _planned(cut: Cut, size: Size, beside: Beside, rows: int, bands: int, budget: int) -> Plan:
    width = -(-size[1] // bands)
    intervals = tuple((left, min(left + width, size[1])) for left in range(0, size[1], width))
    found = [Strips(cut, size, _nothing, columns=columns, rows=rows, budget=budget) for columns in intervals]
    multiplications = sum(strips.maps.multiplications() for strips in found)
    rows = min(rows, size[0])
    maps = max(strips.maps.memory() for strips in found)
    more = beside.part * rows * width + beside.image * size[0] * size[1] + beside.more((rows, width))
    memory = PROCESS + cut.weights + maps + min(maps, KEPT) + int(more)
    return Plan(size, intervals, rows, budget, memory, multiplications, cut.multiplications(size), cut)


def _nothing(rows: Interval, columns: Interval) -> Mapping[str, Tensor]:
    raise GeometryError(f"a plan reads no image, and rows {rows} of columns {columns} were asked for")
