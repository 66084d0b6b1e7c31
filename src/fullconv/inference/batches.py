"""Labels for a stream of images: equal sizes go through the net together, in the order they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Condition
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from fullconv.data.sample import Values
from fullconv.nets import FCN
from fullconv.nets.fcn import CoarseScores

Key = TypeVar("Key")
Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_PIXELS = 1 << 18
"""Pixels in one pass: a photograph goes alone, small images by the dozen (more gains nothing on a processor)."""

THREADS = 2
"""That read and write files beside the net."""

AHEAD = 512
"""Files read or written beside the net, at most: with the smallest images too a pass or two."""

AHEAD_PIXELS = 1 << 22
"""Pixels read or written beside the net: many passes of small images, and of the largest no more than one a thread."""


def to_tensor(images: list[Values], device: torch.device) -> Tensor:
    """Images (H, W, C) of one size -> (N, C, H, W) of their type, channels last in memory."""
    return sent(torch.from_numpy(np.stack(images)), device).permute(0, 3, 1, 2)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On the device; to a GPU from pinned memory, so that the processor need not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Runner(Protocol):
    """A net that is run in some way; see `fullconv.inference.engines`."""

    net: FCN

    def coarse(self, images: Mapping[str, Tensor]) -> dict[str, CoarseScores]:
        """Inputs by name (N, C, H, W) -> coarse scores by task."""
        ...


def coarse_scores(
    runner: Runner, stream: Iterable[tuple[Key, Mapping[str, Values]]]
) -> Iterator[tuple[Key, dict[str, CoarseScores]]]:
    """Coarse scores by task for every (key, inputs by name), in order.

    Args:
        stream: inputs (H, W, C) uint8, uint16 or float32.
    """
    batch: list[tuple[Key, Mapping[str, Values]]] = []
    for key, inputs in stream:
        if batch and (_size(inputs) != _size(batch[0][1]) or len(batch) >= _fitting(batch[0][1])):
            yield from _run(runner, batch)
            batch = []
        batch.append((key, inputs))
    if batch:
        yield from _run(runner, batch)


def ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int = THREADS,
    depth: int | Callable[[Item], int] = AHEAD,
    *,
    weight: Callable[[Result], int] | None = None,
    budget: int = AHEAD_PIXELS,
) -> Generator[Result]:
    """`map` in threads, in order, running ahead of the consumer within bounds.

    Args:
        depth: how many items may be ahead, waiting, at work or done; or how many behind an item that holds much.
        weight: of a result. Work begins only while the results that the consumer has not taken weigh less than
            `budget` together, or when the consumer waits for this one: they never weigh more than `budget` and one
            result a thread.
    """
    room = Condition()
    held, taken, closed = 0, 0, False

    def begin(place: int, item: Item) -> Result:
        nonlocal held
        with room:
            room.wait_for(lambda: held < budget or place == taken or closed)
            if closed:
                raise CancelledError
        result = work(item)
        with room:
            held += weight(result) if weight else 0
        return result

    def take(future: Future[Result]) -> Result:
        nonlocal held, taken
        result = future.result()
        with room:
            held -= weight(result) if weight else 0
            taken += 1
            room.notify_all()
        return result

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for place, item in enumerate(items):
                waiting.append(pool.submit(begin, place, item))
                while len(waiting) > (depth(item) if callable(depth) else depth):
                    yield take(waiting.popleft())
            while waiting:
                yield take(waiting.popleft())
        finally:
            with room:  # the pool waits for its threads, which must not wait for the consumer
                closed = True
                room.notify_all()
            for future in waiting:
                future.cancel()


def depth_of(pixels: int) -> int:
    """How many images of a size may be ahead: `AHEAD_PIXELS` of them, at least one a thread, at most `AHEAD`."""
    return min(max(AHEAD_PIXELS // pixels, THREADS), AHEAD)


def _run(
    runner: Runner, batch: list[tuple[Key, Mapping[str, Values]]]
) -> Iterator[tuple[Key, dict[str, CoarseScores]]]:
    device = next(runner.net.parameters()).device
    names = runner.net.options.inputs
    tasks = runner.coarse({name: to_tensor([inputs[name] for _, inputs in batch], device) for name in names})
    for index, (key, _) in enumerate(batch):
        yield (
            key,
            {
                task: CoarseScores(coarse.scores[index : index + 1], coarse.size, coarse.head)
                for task, coarse in tasks.items()
            },
        )


def _size(inputs: Mapping[str, Values]) -> tuple[int, ...]:
    return next(iter(inputs.values())).shape


def _fitting(inputs: Mapping[str, Values]) -> int:
    height, width = _size(inputs)[:2]
    return max(1, BATCH_PIXELS // (height * width))
