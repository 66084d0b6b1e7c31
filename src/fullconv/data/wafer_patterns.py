"""The patterns of failing dies that `fullconv.data.wafer` generates, and the failures at random.

"Measured" below is measured on WM-811K (reference 10.3). "Share" is a share of the dies on the wafer.

Convention: a die is a cell; y points down and x right from the wafer's centre, both divided by the half-axis of the
array, so that the wafer's edge is at radius 1 whatever H and W are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

BACKGROUND, RING, SCRATCH, LOCAL_ZONE, CIRCLE = range(5)
"""Numbers of the classes; their names are those of `fullconv.data.wafer.WAFER_LABELS`."""

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Bools = NDArray[np.bool_]


class Grid(NamedTuple):
    """The dies of a wafer, each array (H, W)."""

    z: Complexes  # position x + iy
    r: Floats  # distance from the centre, |z|
    rim: Floats  # depth below the edge: at most one die's width for the outermost dies, so that they form a closed ring
    wafer: Bools  # True on the wafer
    pitch: tuple[float, float]  # (dy, dx), the distance between neighbouring dies


@functools.lru_cache(maxsize=8)
def grid_of(size: tuple[int, int]) -> Grid:
    """The dies of an array of (H, W); read-only, since every wafer of that size shares them."""
    height, width = size
    y = (2 * np.arange(height) + 1 - height) / height
    x = (2 * np.arange(width) + 1 - width) / width
    z = x[None, :] + 1j * y[:, None]
    r = np.abs(z)
    dy, dx = 2 / height, 2 / width
    outward = np.maximum(np.abs(np.abs(z.real) + dx + 1j * z.imag), np.abs(z.real + 1j * (np.abs(z.imag) + dy)))
    grid = Grid(z, r, 1 + min(dy, dx) - outward, r <= 1, (dy, dx))
    for shared in grid[:4]:
        shared.setflags(write=False)
    return grid


class Field(NamedTuple):
    """One pattern on one wafer, each array (H, W)."""

    rate: Floats  # 0..1, the probability that the pattern fails a die
    footprint: Bools  # the dies that carry its label, failing or not


def _soft(depth: Floats, softness: float) -> Floats:
    """Logistic border: 0.5 at depth 0, towards 1 inside (by tanh, since exp overflows far outside)."""
    return 0.5 * (1 + np.tanh(depth / (2 * softness)))


def _polar(z: Complexes) -> tuple[Floats, Complexes]:
    """Distance and direction (unit complex) of every position."""
    distance = np.maximum(np.abs(z), 1e-9)
    return distance, z / distance


def _wobble(rng: Generator, direction: Complexes, strength: float) -> Floats:
    """A smooth factor around 1 by direction: harmonics 2 to 4 of random phase; no outline is a perfect circle."""
    two, three, four = strength * rng.uniform(0.2, 1.0, 3) * np.exp(2j * np.pi * rng.random(3))
    square = direction * direction
    wave: Complexes = square * (two + direction * three + square * 0.5 * four)
    return 1 + wave.real


def _lognormal(rng: Generator, median: float, spread: float, low: float, high: float) -> float:
    """Log-normal of the given median and log standard deviation, clipped to low..high."""
    return float(np.clip(median * np.exp(spread * rng.standard_normal()), low, high))


def _toward(angle: float) -> complex:
    return complex(np.cos(angle), np.sin(angle))


def center(rng: Generator, grid: Grid) -> Field:
    """Center (circle): a dense blob in the middle with a soft border; label: inside the half-density line.

    Measured: largest cluster .009 / .082 / .406 of the dies (radius .09 / .29 / .64), its centre .02 / .05 / .11 off,
    failure rate .92 in the core.
    """
    radius = _lognormal(rng, 0.27, 0.67, 0.06, 0.75)
    density, softness = rng.uniform(0.88, 0.99), radius * rng.uniform(0.06, 0.22)
    distance, direction = _polar(grid.z - complex(*rng.normal(0, 0.045, 2)))
    distance /= _wobble(rng, direction, 0.12)
    zone = _soft(radius - distance, softness)
    return Field(density * zone, zone > 0.5)


def donut(rng: Generator, grid: Grid) -> Field:
    """Donut (ring): an uneven ring with a mostly good middle; label: where the rate exceeds half the core density.

    Measured: share .161 / .266 / .413; rate by radius peaks at .63-.69 for .3-.5, .11-.17 in the hole, .08 far outside;
    the centre of the largest cluster lies .06 / .23 / .38 off, because one side is denser than the other.
    """
    radius, half_width = rng.uniform(0.39, 0.46), _lognormal(rng, 0.11, 0.45, 0.06, 0.3)
    density, fading = rng.uniform(0.85, 0.99), rng.uniform(0.2, 0.95)
    softness = half_width * rng.uniform(0.08, 0.3)
    distance, direction = _polar(grid.z - complex(*rng.normal(0, 0.055, 2)))
    dense_side = _toward(rng.uniform(0, 2 * np.pi))
    around = 0.5 * (1 - (direction * dense_side.conjugate()).real)  # 0 on the dense side, 1 opposite
    distance /= _wobble(rng, direction, 0.05)
    zone = _soft(half_width * (1.3 - 0.6 * around) - np.abs(distance - radius), softness) * (1 - fading * around**2)
    return Field(np.maximum(density * zone, 0.06 * (distance < radius)), zone > 0.5)


def edge_ring(rng: Generator, grid: Grid) -> Field:
    """Edge-Ring (ring): a thin band along the whole edge, now and then thin over an arc; label: half density.

    Measured on maps of 36 to 66 dies a side: .92 / 1.0 / 1.0 of the outermost dies fail, .16 / .37 / .62 of the next.
    """
    width, density = _lognormal(rng, 0.046, 0.35, 0.045, 0.15), rng.uniform(0.96, 1.0)
    _, direction = _polar(grid.z)
    weak_side = _toward(rng.uniform(0, 2 * np.pi))
    # The cosine is 1 on the weak side, so a limit of 0.8 leaves a gap of about 75 degrees and one above 1 leaves none.
    gap = _soft((direction * weak_side.conjugate()).real - rng.uniform(0.8, 2.2), 0.05)
    zone = _soft(width - grid.rim + 0.004 * (_wobble(rng, direction, 1.0) - 1), rng.uniform(0.001, 0.006)) * (1 - gap)
    return Field(density * zone, zone > 0.5)


def edge_loc(rng: Generator, grid: Grid) -> Field:
    """Edge-Loc (local zone): a lens along part of the edge; label: inside the half-density line.

    Measured: largest cluster .013 / .053 / .398 of the dies, centred at .45 / .84 / .94. Suggested: arc 20-120 degrees,
    depth .1-.25; the deep tail comes from the measurement.
    """
    half_arc = _lognormal(rng, np.radians(31), 0.6, np.radians(10), np.radians(90))
    depth = _lognormal(rng, 0.2, 0.8, 0.06, 1.1)
    density, softness = rng.uniform(0.65, 0.98), rng.uniform(0.06, 0.25)
    angle = np.angle(grid.z * _toward(rng.uniform(0, 2 * np.pi)))
    distance = np.hypot(grid.r * angle / half_arc, (1 - grid.r) / depth)
    zone = _soft(1 - distance, softness)
    return Field(density * zone, zone > 0.5)


def loc(rng: Generator, grid: Grid) -> Field:
    """Loc (local zone): an elliptic blob between the middle and the edge; label: inside the half-density line.

    Suggested: half-axes .08-.3, centre at .2-.75, soft border.
    """
    long_axis = _lognormal(rng, 0.2, 0.5, 0.08, 0.45)
    short_axis = max(long_axis * rng.uniform(0.4, 1.0), 0.06)
    density, softness = rng.uniform(0.65, 0.98), rng.uniform(0.06, 0.3)
    middle = np.sqrt(rng.uniform(0.04, 0.64)) * _toward(rng.uniform(0, 2 * np.pi))
    along = (grid.z - middle) * _toward(rng.uniform(0, np.pi))
    distance, direction = _polar(along.real / long_axis + 1j * along.imag / short_axis)
    distance /= _wobble(rng, direction, 0.15)
    zone = _soft(1 - distance, softness)
    return Field(density * zone, zone > 0.5)


def scratch(rng: Generator, grid: Grid) -> Field:
    """Scratch: a straight or slightly bent stroke, one or two dies wide; label: every die of the stroke.

    Measured: clusters .35 / .62 / 1.35 radii long, 1.0 / 1.4 / 2.4 dies thick. 5-40 % of its dies pass; they are
    rejected with it ("inked"), so they carry its label too.
    """
    length = _lognormal(rng, 1.0, 0.6, 0.3, 2.0)
    bend = rng.normal(0, 0.6)  # total turn, radians
    heading = rng.uniform(0, 2 * np.pi)
    middle = np.sqrt(rng.uniform(0.0, 0.75)) * _toward(rng.uniform(0, 2 * np.pi))
    failing = 1 - _lognormal(rng, 0.1, 0.7, 0.05, 0.4)
    extra = max(0.0, rng.uniform(-1.0, 1.2))  # width beyond one die

    # One row or one column a step, whichever the stroke crosses faster: no die is skipped and corners are cut.
    dy, dx = grid.pitch
    points = max(2, round(length * max(abs(np.cos(heading)) / dx, abs(np.sin(heading)) / dy)))
    turn = heading + bend * np.linspace(-0.5, 0.5, points)
    stroke = np.cumsum(np.exp(1j * turn) / np.maximum(np.abs(np.cos(turn)) / dx, np.abs(np.sin(turn)) / dy))
    stroke += middle - stroke[points // 2]
    if extra:  # the stroke's other side, and its middle so that no hole is left
        beside = 1j * extra * max(dy, dx) * np.exp(1j * turn)
        stroke = np.concatenate([stroke, stroke + 0.5 * beside, stroke + beside])
    footprint = np.zeros(grid.r.shape, dtype=bool)
    row = np.floor((stroke.imag + 1) / dy).astype(np.intp)
    column = np.floor((stroke.real + 1) / dx).astype(np.intp)
    kept = np.abs(stroke) < 1 - 1e-9  # at 1 exactly, the row or column would be one too many
    footprint[row[kept], column[kept]] = True
    return Field(failing * footprint, footprint)


class Pattern(NamedTuple):
    """A pattern of dies."""

    label: int
    lot: float  # factor of the random failures: measured .05 beside Center and Edge-Loc, .08 beside Donut, else .03
    draw: Callable[[Generator, Grid], Field]


PATTERNS: Mapping[str, Pattern] = {
    "center": Pattern(CIRCLE, 1.5, center),
    "donut": Pattern(RING, 2.7, donut),
    "edge-ring": Pattern(RING, 1.3, edge_ring),
    "edge-loc": Pattern(LOCAL_ZONE, 1.7, edge_loc),
    "loc": Pattern(LOCAL_ZONE, 1.7, loc),
    "scratch": Pattern(SCRATCH, 1.0, scratch),
}
"""WM-811K's names of patterns, in the order in which they are painted: scratches last, since they are thin."""


def random_failures(rng: Generator, grid: Grid, lot: float) -> Floats:
    """Random failures: (H, W) rate, log-normal with 10-90 % at .01-.08, two to three times that at the edge."""
    rate = _lognormal(rng, lot * 0.0283, 0.811, 0.002, 0.2)
    return rate * np.where(grid.r > 0.9, rng.uniform(2, 3), 1.0)
