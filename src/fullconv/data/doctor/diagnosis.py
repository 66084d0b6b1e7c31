"""What an examination found: every file's facts, the findings, and the tables that follow from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.data.doctor.coding import Coding, class_counts
from fullconv.data.doctor.facts import ImageFacts, MaskFacts
from fullconv.data.doctor.findings import Finding
from fullconv.data.doctor.listing import Listing
from fullconv.data.scenes import Scene
from fullconv.errors import printable
from fullconv.labels import LabelSet


@dataclass(frozen=True, eq=False)
class Looked:
    """A scene with what its files said."""

    split: str
    scene: Scene
    images: dict[str, ImageFacts]
    masks: dict[str, MaskFacts]


@dataclass
class Diagnosis:
    """What is wrong with a data set, and what it holds.

    Attributes:
        listing: its files.
        findings: errors first.
        looked: every scene.
        codings: by task and split, how the masks are read.
        fast: only a sample of the masks was looked at, and no image.
    """

    listing: Listing
    findings: list[Finding] = field(default_factory=list)
    looked: list[Looked] = field(default_factory=list)
    codings: dict[str, dict[str, Coding]] = field(default_factory=dict)
    fast: bool = False

    @property
    def errors(self) -> list[Finding]:
        """The findings that training does not start with."""
        return [finding for finding in self.findings if finding.severity == "error"]

    def labels(self, task: str) -> LabelSet:
        """The classes, which are those of all splits."""
        return next(iter(self.codings[task].values())).labels

    def pixels(self, task: str) -> dict[str, NDArray[np.int64]]:
        """(K,) pixels of each class, by split."""
        count = len(self.labels(task))
        return {split: each.sum(0)[:count] for split, each in self.counts(task).items()}

    def counts(self, task: str) -> dict[str, NDArray[np.int64]]:
        """(N, 256) pixels of each class and void in each scene, by split."""
        codings = self.codings[task]
        rows: dict[str, list[NDArray[np.int64]]] = {split: [] for split in self.listing.scenes}
        for each in self.looked:
            if task in each.masks:
                rows[each.split].append(class_counts(each.masks[task], codings[each.split], each.split))
        return {split: np.stack(own) if own else np.zeros((0, 256), np.int64) for split, own in rows.items()}

    def weights(self, task: str) -> NDArray[np.float64]:
        """(K,) median-frequency weights of the classes in train; nan of classes without a pixel.

        A class's frequency is its share of the pixels of the images that it occurs in; its weight is the median of all
        frequencies over it (Eigen and Fergus 2015, section 6.3.2; the weights of SegNet, reference 7.6).
        """
        split = "train" if "train" in self.listing.scenes else next(iter(self.listing.scenes), "")
        rows = self.counts(task).get(split, np.zeros((0, 256), np.int64))[:, : len(self.labels(task))]
        pixels = rows.sum(0)
        shown = (rows.sum(1, keepdims=True) * (rows > 0)).sum(0)
        frequency = np.full(len(pixels), np.nan)
        np.divide(pixels, shown, out=frequency, where=shown > 0)
        return np.nanmedian(frequency) / frequency if (pixels > 0).any() else frequency

    @cached_property
    def usual_kind(self) -> str:
        """The kind of most images, such as "8-bit RGB"."""
        first = next(iter(self.listing.inputs))
        kinds = Counter(e.images[first].kind for e in self.looked if first in e.images and not e.images[first].problem)
        return kinds.most_common(1)[0][0] if kinds else ""

    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of every readable image."""
        found = (next(iter(each.images.values()), None) for each in self.looked)
        return [facts.size for facts in found if facts is not None and facts.problem is None]

    def sides(self) -> tuple[int, int] | None:
        """The shortest and the longest side of the images, in pixels; None where there are none."""
        every = [side for size in self.sizes() for side in size]
        return (min(every), max(every)) if every else None

    def aspects(self) -> tuple[float, float] | None:
        """The smallest and the largest width over height of the images; None where there are none."""
        every = [width / height for height, width in self.sizes()]
        return (min(every), max(every)) if every else None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        sizes = self.sizes()
        return {
            "data": printable(self.listing.source),
            "layout": self.listing.layout,
            "splits": {split: len(scenes) for split, scenes in self.listing.scenes.items()},
            "findings": [finding.to_json() for finding in self.findings],
            "sizes": {f"{h}x{w}": n for (h, w), n in Counter(sizes).most_common(10)},
            "sides": self.sides(),
            "aspects": self.aspects(),
            "tasks": {task: self._task_json(task) for task in self.codings},
        }

    def _task_json(self, task: str) -> dict[str, Any]:
        pixels, weights = self.pixels(task), self.weights(task)
        return {
            "classes": list(self.labels(task).names),
            "pixels": {split: each.tolist() for split, each in pixels.items()},
            "weights": [None if np.isnan(w) else round(float(w), 4) for w in weights],
        }
