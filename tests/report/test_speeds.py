"""Bars of speeds: PNG of any rows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from fullconv.report.speeds import speeds_png

BLUE, GREEN = (0, 114, 178), (0, 158, 115)


def row(precision: str = "float32", ms: float | None = 10.0, width: int = 40) -> dict[str, Any]:
    return {
        "engine": "torch", "precision": precision, "height": 30, "width": width, "median_ms": ms,
        "quartiles_ms": [ms, ms], "speedup": 1.5, "agreement": 0.5, "error": None if ms else "died",
    }  # fmt: skip


def drawn(*rows: dict[str, Any], model: str = "m") -> Any:
    value = {"model": model, "threads": 2, "machine": {"processor": "a processor"}, "rows": rows}
    with Image.open(io.BytesIO(speeds_png(value))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def coloured(image: Any, colour: tuple[int, int, int]) -> int:
    return int((np.abs(image - colour).max(axis=2) < 8).sum())


def test_a_bar_is_as_long_as_its_time() -> None:
    image = drawn(row("float32", 20.0), row("bfloat16", 5.0))
    assert 3.8 < coloured(image, BLUE) / coloured(image, GREEN) < 4.2


def test_failed_rows_sizes_and_odd_names_are_drawn() -> None:
    one = drawn(row(), model="$x$")
    two = drawn(row(), row(width=50), row("int8", None, 50))
    assert two.shape[0] > one.shape[0]
    assert two.shape[1] == one.shape[1]
    failed = drawn(row(ms=None))
    assert failed.shape == one.shape
    assert coloured(failed, BLUE) == 0 < coloured(one, BLUE), "no bar"
    unmeasured = drawn(row(ms=None) | {"error": None})
    assert coloured(unmeasured, BLUE) == 0
    assert 20 < (failed != unmeasured).any(axis=2).sum() < 2000, "a word says which"
