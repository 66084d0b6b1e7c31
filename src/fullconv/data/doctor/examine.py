"""The examination of a data set: every file looked at once, in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fullconv.data.doctor.budget import PIXELS, Budget, pixels_of, threads_for
from fullconv.data.doctor.checks import all_findings
from fullconv.data.doctor.coding import Coding, find_coding
from fullconv.data.doctor.diagnosis import Diagnosis, Looked
from fullconv.data.doctor.facts import image_facts, mask_facts
from fullconv.data.doctor.findings import SILENT
from fullconv.data.doctor.listing import Listing, list_files
from fullconv.data.mask import MaskReader
from fullconv.data.scenes import Scene, Task

Progress = Callable[[int, int], None]
"""Called with (scenes done, scenes in all)."""

AHEAD = 64
"""Scenes begun before the oldest is done, for each thread: results are small, waiting ones cost nothing."""

FAST_SCENES = 64
"""Scenes of a split whose masks the fast part looks at."""


def examine(
    source: str | Path,
    *,
    fast: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Examine a data set.

    Args:
        source: what `open_dataset` takes.
        fast: look at a sample of the masks and at no image: seconds for any data set. Only where the sample seems to be
            learned wrong are all masks looked at: a class that is rare may be in none of the sample.
        threads: default: the number of processors.
        progress: called after every scene, in the calling thread.

    Raises:
        DataError: nothing there, no known layout, or a description that cannot be read.
    """
    listing = list_files(source)
    every = [(split, scene) for split, scenes in listing.scenes.items() for scene in scenes]
    if fast:
        some = [(split, scene) for split, scenes in listing.scenes.items() for scene in _some(scenes)]
        found = _examined(listing, some, True, threads, progress)
        if len(some) == len(every) or not any(finding.kind in SILENT for finding in found.findings):
            return found
    return _examined(listing, every, fast, threads, progress)


def _examined(
    listing: Listing, chosen: Sequence[tuple[str, Scene]], fast: bool, threads: int | None, progress: Progress | None
) -> Diagnosis:
    """The diagnosis from these scenes."""
    found = Diagnosis(listing, fast=fast)
    budget = Budget(PIXELS)
    inputs = {} if fast else listing.inputs

    def look(item: tuple[str, Scene]) -> Looked:
        split, scene = item
        with budget.taken(pixels_of(scene, inputs)):
            images = {name: image_facts(scene.images[name], each) for name, each in inputs.items()}
            masks = {name: mask_facts(scene.masks[name], task) for name, task in listing.tasks[split].items()}
        return Looked(split, scene, images, masks)

    usual = [pixels_of(scene, inputs) for scene in _some([scene for _, scene in chosen])]
    count = threads_for(usual, threads or os.cpu_count() or 1)
    for done, each in enumerate(_in_threads(look, chosen, count), 1):
        found.looked.append(each)
        if progress is not None:
            progress(done, len(chosen))
    for task in next(iter(listing.tasks.values()), {}):
        found.codings[task] = _codings(found, {split: tasks[task] for split, tasks in listing.tasks.items()}, task)
    found.findings = all_findings(found)
    return found


def _codings(found: Diagnosis, given: Mapping[str, Task], task: str) -> dict[str, Coding]:
    """By split, how the masks of a task are coded: one coding of all splits that are read alike."""
    codings: dict[str, Coding] = {}
    for split, own in given.items():
        alike = [other for other in given if given[other].reader == own.reader]
        if alike[0] != split:
            codings[split] = codings[alike[0]]
        elif isinstance(own.reader, MaskReader):
            facts = [(each.split, each.masks[task]) for each in found.looked if each.split in alike]
            codings[split] = find_coding(facts, own.reader, found.listing.declared)
        else:
            codings[split] = Coding(own.labels, MaskReader(len(own.labels)), declared=True, colours={})
    return codings


def _some(scenes: Sequence[Scene]) -> list[Scene]:
    """A sample, evenly spread: the first and last among them."""
    if len(scenes) <= FAST_SCENES:
        return list(scenes)
    return [scenes[i] for i in np.unique(np.linspace(0, len(scenes) - 1, FAST_SCENES).astype(int))]


def _in_threads(
    look: Callable[[tuple[str, Scene]], Looked], items: Sequence[tuple[str, Scene]], threads: int
) -> Iterator[Looked]:
    """In order, a bounded number ahead; an interrupt does not wait for the rest."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.submit(look, item) for item in items[: AHEAD * threads])
        try:
            for item in items[AHEAD * threads :]:
                yield waiting.popleft().result()
                waiting.append(pool.submit(look, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
