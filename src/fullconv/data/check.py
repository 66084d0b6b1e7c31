"""The look at every sample before anything is learned from it, and what it keeps in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from fullconv.data.pairs import LISTED
from fullconv.data.sample import Dataset, Sample, Values
from fullconv.errors import DataError, printable
from fullconv.labels import VOID, LabelSet

_PART = 2**20
"""Numbers that are made float64, to be summed, at a time."""

Sums = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


class CachedDataset:
    """A `Dataset` that serves the samples it holds from memory and the others from `dataset`.

    The arrays are shared by all who ask for a sample: change a copy.
    """

    def __init__(self, dataset: Dataset, kept: Mapping[int, Sample]) -> None:
        self.dataset = dataset
        self.kept = kept
        self.source = dataset.source
        self.split = dataset.split
        self.labels = dataset.labels
        self.inputs = dataset.inputs
        self.names = dataset.names
        self.absent = dataset.absent

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        position = index + len(self) if index < 0 else index
        return self.kept[position] if position in self.kept else self.dataset[index]

    def fingerprint(self) -> str:
        """That of the data set behind."""
        return self.dataset.fingerprint()


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each channel of an input, over all pixels of all usable samples.

    Of the logarithm, where the net takes it (`InputKind.log`). The deviation of a constant channel is 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Checked:
    """What `check` found.

    Attributes:
        dataset: the data set, serving from memory what fitted.
        problems: one line each, naming the sample; empty if every sample can be used.
        pixels: by task, (K,) int64: the pixels of each class in all usable samples, void left out.
        void: by task, the number of void pixels.
        moments: mean and deviation of the inputs whose range is their own (`InputKind.measured`).
        sizes: (H, W) of each usable sample, in order.
        cached_bytes: of the arrays kept in memory.
    """

    dataset: CachedDataset
    problems: tuple[str, ...]
    pixels: Mapping[str, NDArray[np.int64]]
    void: Mapping[str, int]
    moments: Mapping[str, Moments]
    sizes: tuple[tuple[int, int], ...]
    cached_bytes: int


def check(
    dataset: Dataset,
    progress: Progress | None = None,
    threads: int | None = None,
    cache_bytes: int = 0,
) -> Checked:
    """Decode every sample once, in threads, and keep up to `cache_bytes` of them in memory.

    Args:
        dataset: any; an index it raises DataError for becomes a problem, other errors pass through.
        progress: called after every sample, in the calling thread.
        threads: default: the number of processors, at most 8.
        cache_bytes: bound on the arrays kept; beside them one sample a thread is in memory.
    """
    state = _Tally(dataset, cache_bytes)
    total = len(dataset)
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        try:
            futures = [pool.submit(state.look, index) for index in range(total)]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if progress is not None:
                    progress(done, total)
        except BaseException:  # an interrupt too must not wait for the rest
            pool.shutdown(cancel_futures=True)
            raise
    found = [state.problems[index] for index in sorted(state.problems)]
    for task, labels in dataset.labels.items():
        if len(labels) > 1 and state.void[task] and state.pixels[task][0] and not state.pixels[task][1:].any():
            found.append(
                f"{printable(dataset.source)} ({dataset.split}): the {task} masks hold only 0 and {VOID} = void, so "
                f"that {labels.names[0]!r} is the one class; if {VOID} marks class 1, set in the data set's YAML "
                f"label_mapping: {{0: 0, {VOID}: 1}}"
            )
    return Checked(
        CachedDataset(dataset, state.kept),
        tuple(found),
        state.pixels,
        state.void,
        {name: _moments(sums) for name, sums in state.sums.items() if sums},
        tuple(state.sizes[index] for index in sorted(state.sizes)),
        cache_bytes - state.free,
    )


def require_usable(checked: Checked) -> None:
    """Raise one DataError with the count and the first ten problems, a line each, if there are any."""
    count = len(checked.problems)
    if not count:
        return
    dataset = checked.dataset
    lines = [
        f"{printable(dataset.source)} ({dataset.split}): {count} problem{'s' * (count > 1)} in {len(dataset)} samples:"
    ]
    lines += [f"  {problem}" for problem in checked.problems[:LISTED]]
    if count > LISTED:
        lines.append(f"  and {count - LISTED} more")
    raise DataError("\n".join(lines))


class _Tally:
    """The sums over all samples; one lock, held only to add."""

    def __init__(self, dataset: Dataset, cache_bytes: int) -> None:
        self.dataset = dataset
        self.free = cache_bytes
        self.kept: dict[int, Sample] = {}
        self.problems: dict[int, str] = {}
        self.pixels = {task: np.zeros(len(labels), np.int64) for task, labels in dataset.labels.items()}
        self.void = dict.fromkeys(dataset.labels, 0)
        self.sizes: dict[int, tuple[int, int]] = {}
        self.sums: dict[str, dict[int, Sums]] = {name: {} for name, kind in dataset.inputs.items() if kind.measured}
        self.lock = Lock()

    def look(self, index: int) -> None:
        name = self.dataset.names[index]
        try:
            sample = self.dataset[index]
            counts = {task: _class_counts(sample, task, labels) for task, labels in self.dataset.labels.items()}
        except DataError as error:
            text = str(error)
            subject, colon, _ = text.partition(": ")  # not the whole: sample "1" is not meant by "holds value 12"
            named = colon and printable(name) in subject
            with self.lock:
                self.problems[index] = text if named else f"{printable(name)}: {text}"
            return
        sums = {name: _sums(sample.inputs[name], self.dataset.inputs[name].log) for name in self.sums}
        size = sum(a.nbytes for a in (*sample.inputs.values(), *sample.masks.values()))
        with self.lock:
            self.sizes[index] = sample.size
            for name, each in sums.items():
                self.sums[name][index] = each
            for task, (pixels, void) in counts.items():
                self.pixels[task] += pixels
                self.void[task] += void
            if size <= self.free:
                self.free -= size
                self.kept[index] = sample


def _sums(values: Values, log: bool) -> Sums:
    """(3, C) float64: number, sum and sum of squares of each channel's values."""
    pixels = values.reshape(-1, values.shape[2])
    count, channels = pixels.shape
    sums = np.zeros((3, channels))
    step = max(1, _PART // channels)
    for start in range(0, count, step):
        wide = pixels[start : start + step].astype(np.float64)
        if log:
            wide = np.log(np.maximum(wide, 1))
        sums += np.stack([np.full(channels, len(wide)), wide.sum(0), np.square(wide).sum(0)])
    return sums


def _moments(sums: Mapping[int, Sums]) -> Moments:
    """In the samples' order: the last bit must not depend on which thread was first."""
    count, total, squares = np.sum([sums[index] for index in sorted(sums)], axis=0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # What rounding leaves of a constant's deviation is no deviation.
    std = np.where(deviation > 1e-6 * np.abs(mean), deviation, 1.0)
    return Moments(tuple(mean.tolist()), tuple(std.tolist()))


def _class_counts(sample: Sample, task: str, labels: LabelSet) -> tuple[NDArray[np.int64], int]:
    """((K,) pixels of each class, void pixels); DataError where the sample breaks the contract of `Dataset`."""
    mask = sample.masks[task]
    if mask.shape != sample.size:
        raise DataError(
            f"{printable(sample.name)}: the {task} mask has shape {mask.shape}, its image is {sample.size} (H, W); "
            "make them the same size"
        )
    counts = np.bincount(mask.ravel(), minlength=VOID + 1)
    beyond = np.flatnonzero(counts[len(labels) : VOID])
    if beyond.size:
        raise DataError(
            f"{printable(sample.name)}: the {task} mask holds value {len(labels) + beyond[0]}; classes are "
            f"0..{len(labels) - 1} and {VOID} = void; map it to a class"
        )
    return counts[: len(labels)].astype(np.int64), int(counts[VOID])
