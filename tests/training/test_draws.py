"""The order of the data: laws, not numbers."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.errors import OptionError
from fullconv.training.draws import BLOCK, USES, Batches, Draw, Share, generator, order

seeds = st.integers(0, 2**63 - 1)
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


@given(seeds, lengths, batches, st.integers(0, 60), st.booleans())
def test_a_later_start_is_the_tail(seed: int, length: int, batch: int, start: int, replacement: bool) -> None:
    whole = first(start + 5, Batches(length, batch, seed, replacement=replacement))
    assert first(5, Batches(length, batch, seed, start, replacement)) == whole[start:]


@given(seeds, lengths, batches, st.booleans())
def test_no_two_draws_of_a_run_are_equal(seed: int, length: int, batch: int, replacement: bool) -> None:
    """Each has random numbers of its own, though a sample may come twice in a step."""
    steps = first(60, Batches(length, batch, seed, replacement=replacement))
    draws = [draw for step in steps for draw in step]
    assert {len(step) for step in steps} == {batch}
    assert len(set(draws)) == len(draws)
    assert all(0 <= index < length for _, index in draws)


@given(seeds, seeds)
def test_replacement_is_a_pure_function_of_the_seed(seed: int, other: int) -> None:
    drawn = first(3, Batches(50, 20, seed, replacement=True))
    np.random.seed(1)  # noqa: NPY002  (as above)
    assert first(3, Batches(50, 20, seed, replacement=True)) == drawn
    assert (first(3, Batches(50, 20, other, replacement=True)) == drawn) == (other == seed)


def test_replacement_draws_each_sample_alike_and_each_by_itself() -> None:
    """Reference 5.5: picked uniformly with replacement. 20,000 draws, far beyond one block of them."""
    count, length = 20_000, 10
    steps = first(count // 40, Batches(length, 40, seed=3, replacement=True))
    indices = np.array([index for step in steps for _, index in step])
    assert len(indices) > 15 * BLOCK
    found = np.bincount(indices, minlength=length)
    expected = count / length
    assert ((found - expected) ** 2 / expected).sum() < 27.9  # chi-square, 9 degrees of freedom: 1 in 1000
    # Neighbours too: 99 degrees of freedom; by epochs an image never follows itself within one.
    pairs = np.bincount(indices[:-1] * length + indices[1:], minlength=length**2)
    expected = (count - 1) / length**2
    assert ((pairs - expected) ** 2 / expected).sum() < 148.2
    # The blocks are others, not one again and again.
    assert len({tuple(indices[k * BLOCK : (k + 1) * BLOCK]) for k in range(15)}) == 15


steps = st.integers(0, 60).map(lambda count: [(5, index) for index in range(count)])
"""The draws of a step."""


@given(steps, st.integers(1, 6), st.integers(1, 4))
def test_parts_are_disjoint_complete_and_the_same_on_any_number_of_processes(
    draws: list[Draw], processes: int, factor: int
) -> None:
    accumulate = processes * factor
    alone = Share(accumulate).parts(draws)
    assert len(alone) == accumulate
    assert sorted(draw for part in alone for draw in part) == draws
    assert max(map(len, alone)) - min(map(len, alone)) <= 1
    if accumulate == 1:  # shared out to the processes, not to parts
        return
    shared = [Share(accumulate, rank, processes).parts(draws) for rank in range(processes)]
    assert {len(parts) for parts in shared} == {factor}
    assert sorted(part for parts in shared for part in parts) == sorted(alone)


@given(steps, st.integers(1, 6))
def test_without_parts_the_processes_take_turns(draws: list[Draw], processes: int) -> None:
    """By hand: image i goes to process i mod P."""
    for rank in range(processes):
        expected = [draw for place, draw in enumerate(draws) if place % processes == rank]
        assert Share(1, rank, processes).parts(draws) == [expected]


def test_parts_by_hand() -> None:
    def part(*places: int) -> list[Draw]:
        return [(5, place) for place in places]

    draws = part(*range(10))
    assert Share(4).parts(draws) == [part(0, 4, 8), part(1, 5, 9), part(2, 6), part(3, 7)]
    assert Share(4, 1, 2).parts(draws) == [part(1, 5, 9), part(3, 7)]
    assert Share(2, 1, 2).parts(draws) == [part(1, 3, 5, 7, 9)]


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 4))
def test_the_least_is_that_of_the_smallest_part(batch: int, processes: int, factor: int) -> None:
    for accumulate in (1, processes * factor):
        shares = [Share(accumulate, rank, processes) for rank in range(processes)]
        smallest = min(len(part) for share in shares for part in share.parts([(0, i) for i in range(batch)]))
        if smallest:
            assert [share.least(batch) for share in shares] == [smallest] * processes
        else:
            with pytest.raises(OptionError, match=f"{batch} images a step for .*; give at least .* with --batch"):
                shares[0].least(batch)


def test_shares_that_cannot_be_are_named() -> None:
    with pytest.raises(OptionError, match="^4 parts of a step for 3 processes; give a multiple of 3 with --accumulate"):
        Share(4, 0, 3)
    with pytest.raises(OptionError, match="^2 images a step for 3 processes; give at least 3 with --batch$"):
        Share(1, 0, 3).least(2)
    with pytest.raises(OptionError, match="^3 images a step for 4 parts; give at least 4 with --batch$"):
        Share(4, 0, 2).least(3)


def test_the_streams_of_a_seed_stay_what_they_are() -> None:
    """Runs are resumed by later versions: a use keeps its number."""
    for number, use in enumerate(("order", "augmentation", "loss", "dropout", "replacement", "grid")):
        expected = np.random.default_rng([number, 3, 5, 2**40]).random(4)
        assert np.array_equal(generator(use, 3, 5, seed=2**40).random(4), expected)
    assert len(USES) == number + 1
    indices = np.random.default_rng([4, 1, 7]).integers(0, 9, 1024)  # the second block of the seed 7, of 9 images
    drawn = first(1, Batches(9, 1024, 7, start=1, replacement=True))[0]
    assert drawn == [(1024 + place, index) for place, index in enumerate(indices.tolist())]
