"""Rows: medians, quartiles, ratios and shares of the peak."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.inference.timings import Row, Timings, machine, versions

SIZE = (30, 40)


def timings(*rows: Row) -> Timings:
    return Timings("m", 2, 3, rows, {"float32": 100e9}, {SIZE: 500_000_000}, ("note",))


@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=12))
def test_quartiles_are_pythons(seconds: list[float]) -> None:
    row = Row("torch", "float32", SIZE, tuple(seconds))
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    assert row.median == pytest.approx(median)
    assert row.quartiles == pytest.approx((lower, upper))


def test_ratios_and_shares() -> None:
    plain = Row("plain", "float32", SIZE, (0.2, 0.1, 0.3), 1.0, 1000, 1.0, 500_000_000)
    quick = Row("torch", "bfloat16", SIZE, (0.05,), 2.0, 2000, 0.5, 400_000_000)
    failed = Row("openvino", "int8", SIZE, error="why")
    value = timings(quick, plain, failed).to_json()
    first, second, third = value["rows"]
    assert first["speedup"] == pytest.approx(4)
    assert (second["speedup"], second["median_ms"], second["images_per_s"]) == pytest.approx((1, 200, 5))
    assert (second["gflop"], second["plain_gflop"], first["gflop"]) == pytest.approx((1.0, 1.0, 0.8))
    assert second["share_of_peak"] == pytest.approx(1.0 / 0.2 / 100)
    assert first["share_of_peak"] is None, "no peak in bfloat16 is known"
    assert (third["error"], third["median_ms"], third["quartiles_ms"]) == ("why", None, [None, None])
    json.dumps(value, allow_nan=False)


def test_without_the_plain_net_there_is_no_ratio() -> None:
    row = Row("torch", "float32", SIZE, (0.1,))
    assert timings(row).speedup(row) is None


def test_what_it_ran_on() -> None:
    assert set(machine()) == {"processor", "cores", "system"}
    assert {"fullconv", "python", "torch"} <= set(versions())
