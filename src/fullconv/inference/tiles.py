"""Plans: how an image goes through a net within a bound of memory, what that costs, and what any part of it reads.

A plan's parts lie in bands, one beside the other; each is read from the top down, and within a band a row of a layer is
computed once, but for the few between the layers of a block that two chunks read. One band is the rule. Where memory is
too small for the width of the image there are several, and what they share is computed for each of them: the plan says
how much.

Source: Long et al. 2015, section 3 (fields compose from kernels and strides).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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

PIXEL = 8
"""Bytes a pixel of the parts that are read and written beside the net."""

SMALLEST = 1 << 18
"""Bytes of a chunk below which calls cost more than they compute; then bands get narrower instead."""

PART_PIXELS = 1 << 23
"""Of a part: some seconds of work, which a kill may cost."""

PART_ROWS = 64
"""Parts begin at multiples of it: every coarse cell's rows together."""

NARROWEST = 64
"""Columns of a band."""

ENDLESS = 1 << 60
"""Bytes that no image takes."""

TILES = ("auto", "off")
"""Beside a number of pixels."""


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
    cut: Cut

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

    def strips(self, images: Images, columns: Interval, batch: int = 1) -> Strips:
        """One band of an image, or of several of its size, on its way."""
        return Strips(self.cut, self.size, images, columns=columns, rows=self.rows, batch=batch, budget=self.budget)


def plan(cut: Cut, size: Size, *, tile: int | str = "auto", memory: int | None = None) -> Plan:
    """The cheapest way to label images of a size within a bound of memory.

    It depends on nothing but its arguments and the machine, so that a call that goes on goes on with the same parts.

    Args:
        cut: the net.
        tile: "auto", "off" (the whole image at once), or rows and columns of a tile in pixels.
        memory: bytes that the process may hold; default: half of the machine's.

    Raises:
        OptionError: a tile that is none of these, or a bound that is too small, with the least that works.
    """
    check_tile(tile)
    bound = memory if memory is not None else int(SHARE * whole_memory())
    smallest: Plan | None = None
    for way in _ways(cut, size, tile):
        if way.memory <= bound or (memory is None and tile != "auto"):
            return way
        if smallest is None or way.memory < smallest.memory:
            smallest = way
    least = 0.0 if smallest is None else ceil(smallest.memory / 2**30 * 100) / 100
    other = "" if tile == "auto" else f" with a tile of {tile}"
    raise OptionError(
        f"{bound / 2**30:.2f} GiB of memory for images of {size[0]} x {size[1]}{other}; give at least {least:.2f}GiB"
    )


def _ways(cut: Cut, size: Size, tile: int | str) -> Iterator[Plan]:
    """Plans that need less and less memory: smaller chunks first, which cost next to nothing, then narrower bands."""
    if tile == "off":
        yield _planned(cut, size, size[0], 1, ENDLESS)
    elif isinstance(tile, int) and isinstance(cut, CroppedNet):
        yield _planned(replace(cut, tile=tile), size, tile, 1, BUDGET)
    elif isinstance(tile, int):
        yield _planned(cut, size, tile, -(-size[1] // tile), BUDGET)
    else:
        budget, bands = BUDGET, 1
        while budget >= SMALLEST:
            yield _planned(cut, size, _rows(size), 1, budget)
            budget //= 2
        while size[1] // (bands := 2 * bands) >= NARROWEST:
            for budget in (BUDGET >> 4, BUDGET >> 6, SMALLEST):
                yield _planned(cut, size, _rows(size), bands, budget)


def check_tile(tile: object) -> None:
    """Raise OptionError unless it is a tile; see `plan`."""
    if not (tile in TILES or (isinstance(tile, int) and not isinstance(tile, bool) and tile >= 1)):
        raise OptionError(f"a tile of {tile!r}; expected a number of pixels, {' or '.join(TILES)}")


def _rows(size: Size) -> int:
    return max(1, PART_PIXELS // size[1] // PART_ROWS) * PART_ROWS


def _planned(cut: Cut, size: Size, rows: int, bands: int, budget: int) -> Plan:
    width = -(-size[1] // bands)
    intervals = tuple((left, min(left + width, size[1])) for left in range(0, size[1], width))
    found = [Strips(cut, size, _nothing, columns=columns, rows=rows, budget=budget) for columns in intervals]
    multiplications = sum(strips.maps.multiplications() for strips in found)
    rows = min(rows, size[0])
    memory = PROCESS + cut.weights + max(strips.maps.memory() for strips in found) + PIXEL * rows * width
    return Plan(size, intervals, rows, budget, memory, multiplications, cut.multiplications(size), cut)


def _nothing(rows: Interval, columns: Interval) -> Mapping[str, Tensor]:
    raise GeometryError(f"a plan reads no image, and rows {rows} of columns {columns} were asked for")
