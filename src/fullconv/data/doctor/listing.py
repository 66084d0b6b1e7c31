"""What a data set's folders hold, also where images and masks do not fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fullconv.data import available_splits, camvid, folder, layout_name, open_dataset, yamlfile
from fullconv.data.bands import input_of
from fullconv.data.folder import Folders, held_out
from fullconv.data.image import SUFFIXES
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import PLAIN, ImageFile, Names, images_and_masks, prefix_of
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.data.scenes import FileDataset, Input, Scene, Task
from fullconv.errors import DataError
from fullconv.labels import LabelSet

_PICTURES = {".gif", ".jp2", ".heic", ".avif", ".tga", ".ppm", ".pgm", ".psd", ".svg", ".raw", ".dng", ".cr2", ".nef"}
"""Suffixes of pictures that are not read; other files beside images (notes, thumbnails) are nobody's loss."""


@dataclass(frozen=True)
class Place:
    """A file of the data set: its split and its name there."""

    split: str
    name: str
    path: Path


@dataclass
class Listing:
    """The files of a data set.

    Attributes:
        source: as the user named it.
        layout: its name in `DATASETS`.
        scenes: by split, those that have all their files.
        inputs: how images are read.
        tasks: by split, how its masks are read.
        declared: the classes; None where nothing says what they are.
        folders: of a plain folder.
        description: of a YAML file.
        lonely_images, lonely_masks: without the other.
        doubles: pictures that share their name with another one.
        ignored: pictures of kinds that are not read.
        held_out: `val` is a tenth of `train`, and no folder.
        unusable: why a split or all cannot be listed.
    """

    source: str
    layout: str
    scenes: dict[str, list[Scene]] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)
    tasks: dict[str, Mapping[str, Task]] = field(default_factory=dict)
    declared: LabelSet | None = None
    folders: Folders = field(default_factory=dict)
    description: yamlfile.Description | None = None
    lonely_images: list[Place] = field(default_factory=list)
    lonely_masks: list[Place] = field(default_factory=list)
    doubles: list[Place] = field(default_factory=list)
    ignored: list[Place] = field(default_factory=list)
    held_out: bool = False
    unusable: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Scenes in all."""
        return sum(len(scenes) for scenes in self.scenes.values())


def list_files(source: str | Path) -> Listing:
    """The files of a data set of any layout.

    Raises:
        DataError: nothing there, or no known layout, or a description (a YAML file, a list) that cannot be read.
    """
    path, layout = Path(source), layout_name(source)
    found = Listing(str(source), layout)
    if layout == "plain folder":
        found.declared = folder.declared_labels(path)
        reader = MaskReader(len(found.declared)) if found.declared else None
        found.folders = folder.folders_of(path)
        _list_folders(found, found.folders, PLAIN, reader)
    elif layout == "CamVid":
        found.declared = camvid.CAMVID_LABELS
        _list_folders(found, camvid.folders_of(path), PLAIN, camvid.CAMVID_READER)
    elif layout == "YAML file":
        given = yamlfile.describe(path)
        found.declared, found.description = given.labels, given
        _list_folders(found, given.folders, given.suffixes, given.reader, given.bands, given.preview)
    else:
        _list_opened(found)
    return found


def _list_folders(
    found: Listing,
    folders: Folders,
    names: Names,
    reader: MaskReader | None,
    bands: Sequence[int] = (),
    preview: Sequence[int] = (),
) -> None:
    for split, pairs in folders.items():
        scenes = found.scenes.setdefault(split, [])
        for images, masks in pairs:
            prefix = prefix_of(images, [each for each, _ in pairs])
            double: list[ImageFile] = []
            found.ignored += [Place(split, path.name, path) for path in _unread(images)]
            pictures, labelled = images_and_masks(found.source, images, masks, names, double)
            found.doubles += [Place(split, prefix + file.name, file.path) for file in double]
            for key, file in sorted(pictures.items()):
                if key in labelled:
                    scenes.append(Scene.of(prefix + file.name, file.path, labelled[key].path))
                else:
                    found.lonely_images.append(_place(split, prefix, file))
            found.lonely_masks += [
                _place(split, prefix, labelled[k]) for k in sorted(labelled.keys() - pictures.keys())
            ]
    first = next((scene.image for scenes in found.scenes.values() for scene in scenes), None)
    found.inputs = {IMAGE: Input() if first is None else input_of(first, bands, preview)}
    if "train" in found.scenes and "val" not in found.scenes and len(found.scenes["train"]) > 1:
        found.held_out = True
        scenes = found.scenes.pop("train")
        val = held_out([scene.name for scene in scenes])
        rest = {split: found.scenes.pop(split) for split in list(found.scenes)}
        found.scenes["train"] = [scene for scene in scenes if scene.name not in val]
        found.scenes["val"] = [scene for scene in scenes if scene.name in val]
        found.scenes |= rest
    labels = found.declared or LabelSet.numbered(255)
    tasks = {SEMANTIC: Task(labels, reader or MaskReader(len(labels)))}
    found.tasks = dict.fromkeys(found.scenes, tasks)


def _list_opened(found: Listing) -> None:
    every = available_splits(found.source)
    # Other lists, such as trainval, are made of these.
    for split in [split for split in every if split in folder.SPLITS] or every:
        try:
            dataset = open_dataset(found.source, split)
        except DataError as error:
            found.unusable.append(str(error))
            continue
        if not isinstance(dataset, FileDataset):
            continue
        found.inputs, found.tasks[split] = dataset.sources, dataset.tasks
        found.declared = next(iter(dataset.labels.values()))
        found.scenes[split] = list(dataset.scenes)


def _place(split: str, prefix: str, file: ImageFile) -> Place:
    return Place(split, prefix + file.name, file.path)


def _unread(folder: Path) -> list[Path]:
    """Pictures of kinds that are not read."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES - set(SUFFIXES))
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))
