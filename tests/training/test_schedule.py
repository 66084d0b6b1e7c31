"""Progress and learning rate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.errors import OptionError
from fullconv.training.schedule import Length, rate
from fullconv.training.state import Place

fractions = st.floats(0, 1)


def test_steps_alone_count_where_steps_are_given() -> None:
    length = Length(steps=8, seconds=None)
    assert [length.progress(step, 1e9, 50, 100) for step in (0, 1, 4, 8, 9)] == [0, 0.125, 0.5, 1, 1]


def test_minutes_leave_the_reserve_for_the_end() -> None:
    length = Length(steps=None, seconds=60)
    assert [length.progress(7, elapsed, 0, 10) for elapsed in (0, 5, 25, 50, 51)] == [0, 0.1, 0.5, 1, 1]


def test_what_was_over_before_the_first_step_is_no_progress() -> None:
    length = Length(steps=None, seconds=180)
    assert [length.progress(0, elapsed, 20, 10) for elapsed in (0, 20, 95, 170, 171)] == [0, 0, 0.5, 1, 1]


def test_a_reserve_beyond_the_time_ends_the_run() -> None:
    assert Length(steps=None, seconds=5).progress(0, 0.1, 0, 8) == 1
    assert Length(steps=None, seconds=5).progress(0, 6, 6, 1) == 1


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 200), st.floats(0, 90)), max_size=20), st.booleans())
def test_progress_never_falls_whatever_is_measured(moments: list[tuple[int, float, float]], by_time: bool) -> None:
    length = Length(None, 100) if by_time else Length(100, None)
    place, last = Place(), 0.0
    for step, elapsed, reserve in moments:
        place.reach(length.progress(step, elapsed, 3, reserve))
        assert last <= place.progress <= 1
        last = place.progress


@pytest.mark.parametrize(
    ("steps", "seconds", "message"),
    [
        (None, None, "steps or its minutes; give one"),
        (5, 5.0, "steps or its minutes; give one"),
        (0, None, "^0 steps; expected at least 1"),
        (None, 0.0, "^0 minutes; expected a number above 0"),
        (None, -30.0, r"^-0\.5 minutes; expected a number above 0"),
        (None, math.nan, "^nan minutes; expected a number above 0"),
        (None, math.inf, "^inf minutes; expected a number above 0"),
    ],
)
def test_lengths_that_cannot_be(steps: int | None, seconds: float | None, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Length(steps, seconds)


def test_the_cosine_by_hand() -> None:
    found = [rate("cosine", 0.0, progress) for progress in (0, 1 / 3, 0.5, 2 / 3, 1)]
    assert found == pytest.approx([1, 0.75, 0.5, 0.25, 0])


@given(st.sampled_from(["cosine", "fixed"]), fractions, st.lists(fractions, min_size=2, max_size=10))
def test_rates_rise_then_fall_within_0_and_1(schedule: str, warmup: float, moments: list[float]) -> None:
    before = [rate(schedule, warmup, p) for p in sorted(moments) if p < warmup]
    after = [rate(schedule, warmup, p) for p in sorted(moments) if p >= warmup]
    assert before == sorted(before)
    assert after == sorted(after, reverse=True)
    assert all(-1e-12 <= r <= 1 for r in before + after)


@given(st.floats(1e-6, 0.99) | st.just(0.0))
def test_the_warmup_is_linear_and_ends_at_the_full_rate(warmup: float) -> None:
    assert rate("cosine", warmup, warmup) == pytest.approx(1)
    assert rate("fixed", warmup, warmup / 2) == pytest.approx(0.5 if warmup else 1)


@given(fractions)
def test_fixed_without_warmup_is_the_reference_solvers_rate(progress: float) -> None:
    assert rate("fixed", 0.0, progress) == 1
