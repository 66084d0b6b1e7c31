"""Data sets of files: a scene's images by input name and its masks by task name, and how each is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fullconv.data.image import read_image
from fullconv.data.sample import IMAGE, SEMANTIC, Array, Dataset, InputKind, Sample, Values
from fullconv.errors import DataError, OptionError, printable, unknown_name
from fullconv.labels import LabelSet

if TYPE_CHECKING:
    from fullconv.metrics import Absent


class InputReader(Protocol):
    """Reads the files of one input."""

    def read(self, path: Path) -> Values:
        """(H, W, C); DataError of one line."""
        ...


class TaskReader(Protocol):
    """Reads the files of one task."""

    def read(self, path: Path) -> Array:
        """(H, W) uint8: class numbers and 255 = void; DataError of one line."""
        ...


@dataclass(frozen=True)
class PictureReader:
    """Reads pictures as RGB."""

    def read(self, path: Path) -> Values:
        """(H, W, 3) uint8; see `fullconv.data.image.read_image`."""
        return read_image(path)


@dataclass(frozen=True)
class Input:
    """One input of a data set: how its files are read, and what they hold."""

    reader: InputReader = field(default_factory=PictureReader)
    kind: InputKind = field(default_factory=InputKind)


@dataclass(frozen=True)
class Task:
    """One task of a data set: its classes and how its masks are read.

    Attributes:
        absent: which classes without a true pixel enter mean IU (`ConfusionMatrix.scores`).
    """

    labels: LabelSet
    reader: TaskReader
    absent: Absent = "predicted"


@dataclass(frozen=True)
class Scene:
    """The files of one sample; `name` is unique in the split."""

    name: str
    images: Mapping[str, Path]
    masks: Mapping[str, Path]

    @classmethod
    def of(cls, name: str, image: Path, mask: Path) -> Scene:
        """The ordinary case: one image and its mask."""
        return cls(name, {IMAGE: image}, {SEMANTIC: mask})

    @property
    def image(self) -> Path:
        """Of the first input."""
        return next(iter(self.images.values()))

    @property
    def mask(self) -> Path:
        """Of the first task."""
        return next(iter(self.masks.values()))


class FileDataset:
    """A `Dataset` of image and mask files.

    Args:
        source, split: see `Dataset`.
        scenes: the samples' files; each has every input and task.
        tasks: by name.
        inputs: by name; default: one picture.
    """

    def __init__(
        self,
        source: str,
        split: str,
        scenes: Sequence[Scene],
        tasks: Mapping[str, Task],
        inputs: Mapping[str, Input] | None = None,
    ) -> None:
        self.source = source
        self.split = split
        self.scenes = tuple(scenes)
        self.tasks = dict(tasks)
        self.sources = {IMAGE: Input()} if inputs is None else dict(inputs)
        self.labels: Mapping[str, LabelSet] = {name: task.labels for name, task in self.tasks.items()}
        self.inputs: Mapping[str, InputKind] = {name: each.kind for name, each in self.sources.items()}
        self.absent: Mapping[str, Absent] = {name: task.absent for name, task in self.tasks.items()}
        self.names: Sequence[str] = tuple(scene.name for scene in scenes)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        """The files of a scene, read.

        Raises:
            DataError: a file cannot be used, or sizes differ; one line.
        """
        scene = self.scenes[index]
        inputs = {name: each.reader.read(scene.images[name]) for name, each in self.sources.items()}
        masks = self.masks(index)
        first = next(iter(inputs))
        size = inputs[first].shape[:2]
        for path, found in (
            *((scene.images[name], array.shape[:2]) for name, array in inputs.items()),
            *((scene.masks[name], array.shape) for name, array in masks.items()),
        ):
            if found != size:
                raise _sizes_differ(path, found, scene.images[first], size)
        return Sample(scene.name, inputs, masks)

    def masks(self, index: int) -> dict[str, Array]:
        """The masks of a scene by task, without its images; raises DataError."""
        return {name: task.reader.read(self.scenes[index].masks[name]) for name, task in self.tasks.items()}

    def only(self, names: Sequence[str]) -> FileDataset:
        """The same scenes with these inputs only, in this order: what a net does not take need not be read."""
        return FileDataset(
            self.source, self.split, self.scenes, self.tasks, {name: self.sources[name] for name in names}
        )

    def fingerprint(self) -> str:
        """A digest (64 hex digits) of classes, readers, names and file sizes: equal for a copy of the data set.

        Raises:
            DataError: a file is gone.
        """
        known = [[name, task.labels.to_json(), repr(task.reader)] for name, task in self.tasks.items()]
        known += [[name, repr(each)] for name, each in self.sources.items()]
        digest = hashlib.sha256(json.dumps(known).encode())
        for scene in self.scenes:
            sizes = [_bytes(scene.images[name]) for name in self.sources]
            sizes += [_bytes(scene.masks[name]) for name in self.tasks]
            digest.update("\t".join([f"\n{scene.name}", *map(str, sizes)]).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def narrowed(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """A data set with the inputs of these names only, which is itself where it has no others.

    Raises:
        OptionError: an input that it lacks, or others of a data set that cannot leave them out.
    """
    for name in names:
        if name not in dataset.inputs:
            raise unknown_name(f"input of {printable(dataset.source)}", name, dataset.inputs)
    if set(names) == set(dataset.inputs):
        return dataset
    if not isinstance(dataset, FileDataset):
        raise OptionError(
            f"{printable(dataset.source)}: has the inputs {', '.join(dataset.inputs)}, the net takes "
            f"{', '.join(names)}; use data with the net's inputs"
        )
    return dataset.only(names)


def _sizes_differ(path: Path, found: tuple[int, ...], image: Path, size: tuple[int, ...]) -> DataError:
    fix = "make a mask of the image's size"
    if found == size[::-1]:
        fix = "the sides are swapped: only one of the two says in its EXIF that it is rotated; save both upright"
    return DataError(
        f"{printable(path)}: is {found[0]} x {found[1]} (H x W), its image {printable(image)} "
        f"is {size[0]} x {size[1]}; {fix}"
    )


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{printable(path)}: no such file; check the path") from error
