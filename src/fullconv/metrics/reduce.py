"""Metrics of one data set that several processes share: exact sums of their counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from fullconv.metrics.confusion import Counts


class Additive(Protocol):
    """A metric whose state is an array of int64 counts; the counts of two data sets together are the sum."""

    @property
    def counts(self) -> Counts: ...

    def with_counts(self, counts: Counts) -> Self: ...


Metric = TypeVar("Metric", bound=Additive)
Values = TypeVar("Values", bound=NDArray[Any])


def several_processes() -> bool:
    """Whether torch.distributed has a group of more than this process."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def own_share(length: int) -> range:
    """The indices that this process takes of a data set: every index falls to one process, lengths differ by 1."""
    if not several_processes():
        return range(length)
    return range(distributed.get_rank(), length, distributed.get_world_size())


def summed(metric: Metric, reduce_sum: Callable[[Counts], Counts]) -> Metric:
    """The metric of all processes' data together.

    Args:
        metric: of this process; it stays as it was.
        reduce_sum: int64 counts of this process -> their sum over processes, such as `over_processes`.

    >>> from fullconv.metrics import ConfusionMatrix
    >>> matrix = ConfusionMatrix(1)
    >>> matrix.update(np.array([[0, 0, 255]]), np.array([[0, 0, 0]]))
    >>> summed(matrix, lambda counts: 3 * counts).counts.tolist()
    [[6]]
    """
    return metric.with_counts(reduce_sum(metric.counts))


def over_processes(values: Values, device: torch.device) -> Values:
    """The sum over the processes of the default group; int64 is exact. Every process must call it.

    Args:
        values: of one shape and type in all processes.
        device: of the tensor that is sent: a GPU where the group is NCCL's.
    """
    tensor = torch.from_numpy(np.array(values)).to(device)
    distributed.all_reduce(tensor)
    return tensor.cpu().numpy()  # type: ignore[return-value]  # of the same shape and type
