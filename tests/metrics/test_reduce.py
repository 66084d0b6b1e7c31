"""Sums over processes, without processes: those are in tests/inference/test_evaluate.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import distributed

from fullconv.metrics import BoundaryF, ConfusionMatrix, Trimap
from fullconv.metrics.reduce import own_share, several_processes, summed


@pytest.mark.parametrize("make", [lambda: ConfusionMatrix(3), lambda: BoundaryF(3, 1), lambda: Trimap(3, (1, 2))])
def test_a_sum_is_a_metric_of_the_same_kind(make: Callable[[], Any]) -> None:
    rng = np.random.default_rng(0)
    halves, whole = [make(), make()], make()
    for half in halves:
        maps = rng.integers(0, 3, (2, 5, 7))
        half.update(*maps)
        whole.update(*maps)
    before = halves[0].counts.copy()
    total = summed(halves[0], lambda counts: counts + halves[1].counts)
    assert type(total) is type(whole)
    assert np.array_equal(total.counts, whole.counts)
    assert np.array_equal(halves[0].counts, before)
    assert repr(total.scores()) == repr(whole.scores())


@pytest.mark.parametrize("length", [0, 1, 5, 12])
@pytest.mark.parametrize("world", [2, 3, 7])
def test_shares_are_a_partition(monkeypatch: pytest.MonkeyPatch, length: int, world: int) -> None:
    assert not several_processes()
    assert list(own_share(length)) == list(range(length))
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        shares.append(own_share(length))
    assert sorted(index for share in shares for index in share) == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
