"""Timings: what a benchmark measured, row by row, and on what."""

from __future__ import annotations

import platform
import statistics
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from fullconv import __version__
from fullconv.machine import cores
from fullconv.nets.rectangles import Size

PLAIN = "plain"
"""The engine that is the net as it is."""


@dataclass(frozen=True)
class Row:
    """One combination.

    Attributes:
        size: (H, W).
        seconds: of each image, from uint8 to labels.
        first: seconds of the first image, with building and compiling.
        memory: bytes of its process at most.
        agreement: the share of labels that are those of the plain net in float32.
        multiplications: of an image, as this engine plans it.
        error: why there is nothing of all that, or None.
    """

    engine: str
    precision: str
    size: Size
    seconds: tuple[float, ...] = ()
    first: float | None = None
    memory: int | None = None
    agreement: float | None = None
    multiplications: int | None = None
    error: str | None = None

    @property
    def median(self) -> float | None:
        """Seconds an image."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def quartiles(self) -> tuple[float, float] | None:
        """Of the seconds, lower and upper, by linear interpolation."""
        if not self.seconds:
            return None
        lower, upper = np.quantile(self.seconds, (0.25, 0.75)).tolist()
        return lower, upper

    def share(self, peak: float | None) -> float | None:
        """Of so many operations a second."""
        if not peak or self.multiplications is None or self.median is None:
            return None
        return 2 * self.multiplications / self.median / peak


@dataclass(frozen=True)
class Timings:
    """What was measured.

    Attributes:
        model: the file or name.
        threads: of every process.
        repeats: images that each row's median is of.
        rows: by size, then by speed; those that failed last.
        peaks: operations a second, by precision: the best that convolutions of 512 channels reached in between.
        plain: multiplications of the plain net, by size.
        notes: what should be known of all of it, a line each.
    """

    model: str
    threads: int
    repeats: int
    rows: tuple[Row, ...]
    peaks: dict[str, float]
    plain: dict[Size, int]
    notes: tuple[str, ...]

    @cached_property
    def base(self) -> dict[Size, float]:
        """Seconds of the plain net in float32, by size."""
        rows = [each for each in self.rows if (each.engine, each.precision) == (PLAIN, "float32")]
        return {each.size: each.median for each in rows if each.median is not None}

    def speedup(self, row: Row) -> float | None:
        """Times the plain net in float32 at the row's size."""
        return self.base[row.size] / row.median if row.median and row.size in self.base else None

    def to_json(self) -> dict[str, Any]:
        """Plain values: milliseconds, bytes, GFLOP (a multiplication and an addition are two), shares of 1."""
        return {
            "model": self.model,
            "threads": self.threads,
            "repeats": self.repeats,
            "machine": machine(),
            "versions": versions(),
            "peak_gflops": {name: rate / 1e9 for name, rate in self.peaks.items()},
            "rows": [self._row_json(row) for row in self.rows],
            "notes": list(self.notes),
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        lower, upper = row.quartiles or (None, None)
        return {
            "engine": row.engine,
            "precision": row.precision,
            "height": row.size[0],
            "width": row.size[1],
            "median_ms": _thousand(row.median),
            "quartiles_ms": [_thousand(lower), _thousand(upper)],
            "all_ms": [1e3 * each for each in row.seconds],
            "images_per_s": None if row.median is None else 1 / row.median,
            "speedup": self.speedup(row),
            "first_call_s": row.first,
            "peak_memory_bytes": row.memory,
            "agreement": row.agreement,
            "gflop": None if row.multiplications is None else 2e-9 * row.multiplications,
            "plain_gflop": 2e-9 * self.plain[row.size],
            "share_of_peak": row.share(self.peaks.get(row.precision)),
            "error": row.error,
        }


def machine() -> dict[str, Any]:
    """What this runs on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text("utf-8", "replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return {"processor": name, "cores": cores(), "system": f"{platform.system()} {platform.machine()}"}


def versions() -> dict[str, str]:
    """Of what is measured."""
    found = {"fullconv": __version__, "python": platform.python_version()}
    for name in ("torch", "openvino", "nncf"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _thousand(value: float | None) -> float | None:
    return None if value is None else 1e3 * value
