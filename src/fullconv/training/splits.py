"""The two splits of a run: opened, checked, and served from memory as far as they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fullconv.data import open_dataset
from fullconv.data.check import Checked, check, require_usable
from fullconv.data.doctor import SILENT, examine, fix_command
from fullconv.data.pairs import listed
from fullconv.data.sample import Dataset
from fullconv.data.scenes import narrowed
from fullconv.errors import DataError, printable
from fullconv.machine import free_memory

SPLITS = ("train", "val")
"""What is trained and scored on, unless others are named."""

Data = str | Path | tuple[Dataset, Dataset]
"""What `open_dataset` takes, or the train and val data sets themselves."""


@dataclass(frozen=True)
class Splits:
    """Both of them."""

    train: Checked
    val: Checked

    def fingerprint(self) -> str:
        """Of both."""
        return f"{self.train.dataset.fingerprint()[:16]}-{self.val.dataset.fingerprint()[:16]}"


def open_splits(
    data: Data,
    progress: Callable[[str, int, int], None] | None = None,
    inputs: Sequence[str] | None = None,
    names: tuple[str, str] = SPLITS,
) -> Splits:
    """Open and check both splits: every image and mask is decoded once.

    Args:
        progress: called with (split, samples done, samples in all).
        inputs: names of those that are wanted; default: all.
        names: of the two splits.

    Raises:
        DataError: whatever is wrong, of both splits, the first ten files of each named.
        OptionError: an input that the data does not have.
    """
    if isinstance(data, tuple):
        train, val = data
    else:
        train, val = (open_dataset(data, name) for name in names)
        require_healthy(data)
    if inputs is not None:
        train, val = narrowed(train, inputs), narrowed(val, inputs)
    for dataset in (train, val):
        if not len(dataset):
            raise DataError(f"{printable(dataset.source)} ({dataset.split}): holds no sample; expected at least one")
    kinds = [({t: labels.names for t, labels in d.labels.items()}, dict(d.inputs)) for d in (train, val)]
    if kinds[0] != kinds[1]:
        raise DataError(f"train has the classes and inputs {kinds[0]}, val {kinds[1]}; expected the same")
    budget = free_memory() // 3
    checked = []
    for dataset in (train, val):
        split = dataset.split
        checked.append(check(dataset, progress and (lambda i, n, s=split: progress(s, i, n)), cache_bytes=budget))
        budget -= checked[-1].cached_bytes
    problems = []
    for each in checked:
        try:
            require_usable(each)
        except DataError as error:
            problems.append(str(error))
    if problems:
        hint = [] if isinstance(data, tuple) else [f"see all, and repair what can be, with: {fix_command(str(data))}"]
        raise DataError("\n".join(problems + hint))
    return Splits(*checked)


def require_healthy(data: str | Path) -> None:
    """The fast part of `fullconv doctor`: masks that can be read, but would be learned wrong. (Those that cannot be
    read are for `check`, which reads them all.)

    Raises:
        DataError: every such error, with what mends it.
    """
    errors = [finding for finding in examine(data, fast=True).errors if finding.kind in SILENT]
    if errors:
        found = [f"  {f.title}: {f.count} of those looked at ({listed(f.names)}); {f.remedy}" for f in errors]
        raise DataError("\n".join([f"{printable(data)}: training would not start, or learn wrong labels:", *found]))


def class_notes(splits: Splits) -> list[str]:
    """What the reader of a score should know of classes that a split lacks, a line each."""
    notes = []
    for task, labels in splits.train.dataset.labels.items():
        of_task = f" ({task})" if len(splits.train.dataset.labels) > 1 else ""
        for one, missing, other in (
            ("train", splits.train.pixels[task] == 0, "what is not in train is not learned"),
            ("val", splits.val.pixels[task] == 0, "what is not in val is not scored"),
        ):
            names = [labels.names[k] for k in np.flatnonzero(missing)]
            if names:
                notes.append(f"{one} has no pixel of {listed(names)}{of_task}: {other}")
    return notes
