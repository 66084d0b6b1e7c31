"""The order of the data: laws, not numbers."""

from __future__ import annotations

from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fullconv.training.draws import Batches, Draw, generator, order

seeds = st.integers(0, 2**32)
lengths = st.integers(1, 40)
batches = st.integers(1, 50)


def first(steps: int, sampler: Batches) -> list[list[Draw]]:
    return list(islice(sampler, steps))


@given(seeds, st.integers(0, 1000), lengths)
def test_an_epoch_is_a_permutation_and_a_pure_function(seed: int, epoch: int, length: int) -> None:
    drawn = order(seed, epoch, length)
    assert sorted(drawn) == list(range(length))
    np.random.seed(0)  # noqa: NPY002  (no global generator may matter)
    assert np.array_equal(drawn, order(seed, epoch, length))


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = {tuple(order(seed, epoch, 30)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(seeds, lengths, batches)
def test_steps_run_through_the_epochs_without_a_gap(seed: int, length: int, batch: int) -> None:
    steps = 3 * length // batch + 2
    draws = [draw for step in first(steps, Batches(length, batch, seed)) for draw in step]
    expected = [(e, int(i)) for e in range(steps * batch // length + 1) for i in order(seed, e, length)]
    assert draws == expected[: steps * batch]


@given(seeds, lengths, batches, st.integers(0, 20))
def test_a_later_start_is_the_tail(seed: int, length: int, batch: int, start: int) -> None:
    whole = first(start + 5, Batches(length, batch, seed))
    assert first(5, Batches(length, batch, seed, start)) == whole[start:]


@given(seeds, lengths, batches, st.integers(1, 5), st.integers(0, 5))
def test_the_processes_share_a_step(seed: int, length: int, batch: int, processes: int, start: int) -> None:
    whole = first(4, Batches(length, batch, seed, start))
    parts = [first(4, Batches(length, batch, seed, start, rank, processes)) for rank in range(processes)]
    for step, expected in enumerate(whole):
        dealt: list[Draw | None] = [None] * batch
        for rank, part in enumerate(parts):
            dealt[rank::processes] = part[step]
        assert dealt == expected


def test_the_streams_of_a_seed_stay_what_they_are() -> None:
    """Runs are resumed by later versions: a use keeps its number."""
    for number, use in enumerate(("order", "augmentation", "loss")):
        expected = np.random.default_rng([number, 3, 5, 2**40]).random(4)
        assert np.array_equal(generator(use, 3, 5, seed=2**40).random(4), expected)
