"""YOLO's text files, one an image: a class number and a polygon a line, in image widths and heights.

Source: Ultralytics' manual, "Instance segmentation datasets": data.yaml with `names`, and with `train`, `val` and
`test`, each a folder of images, a .txt list of them, or several of these; labels lie in a folder `labels` where the
images lie in `images`, or beside them. Darknet's obj.names and classes.txt name classes too. Lines of five numbers are
boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fullconv.data.annotations.entry import Entry
from fullconv.data.annotations.images import Images, path_parts
from fullconv.data.annotations.labels_file import read_names
from fullconv.data.annotations.regions import Polygon, rectangle
from fullconv.data.annotations.scene import AnnotatedImage, Export, Shape, split_of_path
from fullconv.data.pairs import listed
from fullconv.data.text import read_text, read_yaml
from fullconv.errors import DataError, printable

NAMES = ("obj.names", "classes.txt")

_MAX_BYTES = 2**26
_SPLITS = ("train", "val", "test")
_OF_LISTS = 2**20
"""Deeper than any folder: a list names its images one by one."""


def read(files: list[Path], images: Images, boxes: bool) -> Export:
    """Read the labels of all images below a data.yaml or a file of names.

    Args:
        files: the file that names the classes.
        images: where images lie.
        boxes: lines of five numbers are filled boxes; else they are refused.

    Raises:
        DataError: boxes, a line that is none of YOLO's, a class number without a name, a `train` or `val` of a
            data.yaml that leads to no image.
    """
    root = files[0].parent
    splits: Mapping[Path, str] = {}
    notes: list[str] = []
    if files[0].suffix in (".yaml", ".yml"):
        whole = Entry(read_yaml(files[0]), files[0])
        names = _names(whole)
        splits, notes = _splits(whole, images)
    else:
        names = read_names(files[0])
    found = []
    for path in images.paths:
        labels = _labels_of(path, images.root, root)
        shapes = _shapes(labels, names, boxes) if labels else ()
        inside = path.relative_to(images.root).as_posix()
        split = splits.get(path) or split_of_path(path, images.root)
        found.append(AnnotatedImage(inside, path, shapes, str(path), split))
    return Export(dict.fromkeys(names), found, notes=notes)


def _names(whole: Entry) -> list[str]:
    if whole.get("kpt_shape"):
        whole["kpt_shape"].refuse("no key points: they have no area")
    given = whole["names"]
    if isinstance(given.value, dict):
        if set(given.value) != set(range(len(given.value))):
            given.refuse("the numbers 0, 1, 2 ... once each")
        given = Entry([given.value[number] for number in range(len(given.value))], given.file, ("names",))
    return [entry.label() for entry in given.items()]


def _splits(whole: Entry, images: Images) -> tuple[dict[Path, str], list[str]]:
    """The split of each image that a data.yaml puts into one, by folders or by lists of images; and notes."""
    below: dict[str, list[Path]] = defaultdict(list)
    for image in images.paths:
        for folder in image.relative_to(images.root).parents:
            below[folder.as_posix()].append(image)
    base = whole.get("path")
    claims: list[tuple[int, str, list[Path]]] = []
    notes = []
    for split in _SPLITS:
        given = whole.get(split)
        if given is None:
            continue
        for entry in given.items() if isinstance(given.value, list) else [given]:
            # Relative to `path`, or to wherever it was trained: what counts is which place of ours it ends in.
            own = _down(entry.text())
            parts = _down(base.text()) + own if base else own
            if own and own[-1].lower().endswith(".txt"):
                found, missing = _listed(entry.file.parent, parts, images)
                depth = _OF_LISTS
                if found and missing:
                    notes.append(f"{entry.where}: {len(missing)} images have no file: {listed(missing)}")
            else:
                while parts and "/".join(parts) not in below:
                    parts = parts[1:]
                found, depth = below["/".join(parts) or "."] if parts or not own else [], len(parts)
            if not found and split != "test":  # tests are often kept back
                entry.refuse(f"a folder or a .txt list of images below {printable(images.root)} (--images)")
            claims.append((depth, split, found))
    splits: dict[Path, str] = {}
    shared: set[Path] = set()
    for _, split, found in sorted(claims, key=lambda claim: -claim[0]):  # images/val before images
        shared.update(image for image in found if splits.setdefault(image, split) != split)
    if shared:
        names = listed(image.name for image in sorted(shared))
        notes.append(f"{len(shared)} images are in several splits, and taken in one: {names}")
    return splits, notes


def _down(name: str) -> list[str]:
    return [part for part in path_parts(name) if part not in ("..", ".")]


def _listed(folder: Path, parts: list[str], images: Images) -> tuple[list[Path], list[str]]:
    """The images that a list of ours names, one a line; and the names of which there is no file."""
    while parts and not _is_file(folder.joinpath(*parts)):
        parts = parts[1:]
    found, missing = [], []
    if parts:
        path = folder.joinpath(*parts)
        names = dict.fromkeys(map(str.strip, read_text(path, _MAX_BYTES).splitlines()))
        for name in filter(None, names):
            image = images.find(name, printable(path), near=path.parent)
            if image is None:
                missing.append(name)
            else:
                found.append(image)
    return found, missing


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for any file
        return False


def _labels_of(image: Path, images: Path, root: Path) -> Path | None:
    """The label file of an image, if there is one."""
    parts = list(image.relative_to(images).with_suffix(".txt").parts)
    places = [image.with_suffix(".txt"), root.joinpath("labels", *parts), root.joinpath("labels", parts[-1])]
    for index in reversed(range(len(parts) - 1)):
        if parts[index].lower() == "images":
            places.insert(0, root.joinpath(*parts[:index], "labels", *parts[index + 1 :]))
    return next((place for place in places if place.is_file()), None)


def _shapes(path: Path, names: list[str], boxes: bool) -> tuple[Shape, ...]:
    shapes = []
    for number, line in enumerate(read_text(path, _MAX_BYTES).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = printable(f"{path}: line {number}")
        try:
            values = np.array([float(word) for word in words])
        except ValueError as error:
            raise DataError(f"{where}: {printable(line)[:60]!r} is not numbers; export it again") from error
        label, points = values[0], values[1:]
        if label not in range(len(names)):
            raise DataError(f"{where}: class {words[0][:20]} has no name; there are names for 0..{len(names) - 1}")
        if not (np.abs(points) <= 2).all():  # a little beyond the image is usual, pixels are not; nan is neither
            raise DataError(f"{where}: coordinates are not of 0..1, image widths and heights; export it again")
        if len(points) == 4:
            if not boxes:
                raise DataError(
                    f"{where}: holds a box, and boxes are no masks; export polygons, or fill boxes with --boxes"
                )
            x, y, width, height = points.tolist()
            region = Polygon(rectangle(x - width / 2, y - height / 2, width, height).parts, relative=True)
        elif len(points) < 6 or len(points) % 2:
            raise DataError(f"{where}: holds {len(words)} numbers, expected a class and x y of three points or more")
        else:
            region = Polygon(((points.reshape(-1, 2),),), relative=True)
        shapes.append(Shape(names[int(label)], region, where))
    return tuple(shapes)
