"""A data set of arrays, for what files cannot say: several inputs, several tasks, chosen pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.labels import LabelSet
from fullconv.metrics import Absent
from makers import CLASSES, SIZE, scene

LABELS = LabelSet.numbered(CLASSES)


class InMemory:
    """A `Dataset` of the given samples."""

    def __init__(
        self,
        samples: Sequence[Sample],
        split: str = "train",
        labels: Mapping[str, LabelSet] | None = None,
        inputs: Mapping[str, InputKind] | None = None,
    ) -> None:
        self.source, self.split = "arrays", split
        self.samples = samples
        self.labels: Mapping[str, LabelSet] = labels or {SEMANTIC: LABELS}
        self.inputs: Mapping[str, InputKind] = inputs or {IMAGE: InputKind()}
        self.absent: Mapping[str, Absent] = {}
        self.names: Sequence[str] = [sample.name for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for sample in self.samples:
            for array in (*sample.inputs.values(), *sample.masks.values()):
                digest.update(f"{sample.name} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()


def one(seed: int, size: tuple[int, int] = SIZE) -> Sample:
    """A scene as a sample."""
    image, mask = scene(seed, size=size)
    return Sample(f"s{seed}", {IMAGE: image}, {SEMANTIC: mask})


def some(split: str, count: int, size: tuple[int, int] = SIZE) -> InMemory:
    """Scenes, others for each split."""
    first = {"train": 0, "val": 1000, "test": 2000}[split]
    return InMemory([one(first + index, size) for index in range(count)], split)
