"""Labels for a stream of images: equal sizes go through the net together, in the order they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fullconv.data.sample import Array
from fullconv.nets import FCN
from fullconv.nets.fcn import CoarseScores
from fullconv.nets.precision import inference

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_PIXELS = 1 << 18
"""Pixels in one pass: a photograph goes alone, small images by the dozen (more gains nothing on a processor)."""


def to_tensor(images: list[Array], device: torch.device) -> Tensor:
    """Images (H, W, C) uint8 of one size -> (N, C, H, W) uint8, channels last in memory."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)


def coarse_scores(
    net: FCN, stream: Iterable[tuple[Key, Mapping[str, Array]]], precision: str = "float32"
) -> Iterator[tuple[Key, dict[str, CoarseScores]]]:
    """Coarse scores by task for every (key, inputs by name), in order.

    Args:
        net: its mode is left as it was.
        stream: inputs (H, W, C) uint8.
        precision: "float32", "bfloat16" or "auto".
    """
    batch: list[tuple[Key, Mapping[str, Array]]] = []
    for key, inputs in stream:
        if batch and (_size(inputs) != _size(batch[0][1]) or len(batch) >= _fitting(batch[0][1])):
            yield from _run(net, batch, precision)
            batch = []
        batch.append((key, inputs))
    if batch:
        yield from _run(net, batch, precision)


def ahead(work: Callable[[Item], Result], items: Iterable[Item], threads: int, depth: int) -> Generator[Result]:
    """`map` in threads, at most `depth` results ahead of the consumer, in order."""
    with ThreadPoolExecutor(threads) as pool:
        source = iter(items)
        waiting: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(source, depth))
        try:
            while waiting:
                result = waiting.popleft().result()
                for item in islice(source, 1):
                    waiting.append(pool.submit(work, item))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def _run(
    net: FCN, batch: list[tuple[Key, Mapping[str, Array]]], precision: str
) -> Iterator[tuple[Key, dict[str, CoarseScores]]]:
    device = next(net.parameters()).device
    tensors = {name: to_tensor([inputs[name] for _, inputs in batch], device) for name in net.options.inputs}
    with inference(net, precision):
        tasks = net.coarse(tensors)
    for index, (key, _) in enumerate(batch):
        yield (
            key,
            {
                task: CoarseScores(coarse.scores[index : index + 1], coarse.size, coarse.head)
                for task, coarse in tasks.items()
            },
        )


def _size(inputs: Mapping[str, Array]) -> tuple[int, ...]:
    return next(iter(inputs.values())).shape


def _fitting(inputs: Mapping[str, Array]) -> int:
    height, width = _size(inputs)[:2]
    return max(1, BATCH_PIXELS // (height * width))
