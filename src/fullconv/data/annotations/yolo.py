"""YOLO's text files, one an image: a class number and a polygon a line, in image widths and heights.

Source: Ultralytics' manual, "Instance segmentation datasets": data.yaml with `names`, `train`, `val` and `test`;
labels lie in a folder `labels` where the images lie in `images`, or beside them. Darknet's obj.names and classes.txt
name classes too. Lines of five numbers are boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from fullconv.data.annotations.entry import Entry
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.labels_file import read_names
from fullconv.data.annotations.regions import Polygon, rectangle
from fullconv.data.annotations.scene import AnnotatedImage, Export, Shape, split_of_path
from fullconv.data.text import read_text
from fullconv.errors import DataError, one_line, printable

NAMES = ("obj.names", "classes.txt")

_MAX_BYTES = 2**26
_SPLITS = ("train", "val", "test")


def read(files: list[Path], images: Images, boxes: bool) -> Export:
    """Read the labels of all images below a data.yaml or a file of names.

    Args:
        files: the file that names the classes.
        images: where images lie.
        boxes: lines of five numbers are filled boxes; else they are refused.

    Raises:
        DataError: boxes, a line that is none of YOLO's, a class number without a name.
    """
    root = files[0].parent
    if files[0].suffix in (".yaml", ".yml"):
        names, splits = _described(files[0])
    else:
        names, splits = read_names(files[0]), {}
    found = []
    for path in images.paths:
        labels = _labels_of(path, images.root, root)
        shapes = _shapes(labels, names, boxes) if labels else ()
        inside = path.relative_to(images.root).as_posix()
        split = next((split for split, folder in splits.items() if inside.startswith(f"{folder}/")), None)
        split = split or split_of_path(path, images.root)
        found.append(AnnotatedImage(inside, path, shapes, str(path), split))
    return Export(dict.fromkeys(names), found)


def _described(path: Path) -> tuple[list[str], Mapping[str, str]]:
    """The names of the classes, and by split the folder of its images below the YAML file."""
    text = read_text(path)
    try:
        whole = Entry(yaml.safe_load(text), path)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)}: is not valid YAML ({one_line(error)}); correct it there") from error
    if whole.get("kpt_shape"):
        whole["kpt_shape"].refuse("no key points: they have no area")
    given = whole["names"]
    if isinstance(given.value, dict):
        if set(given.value) != set(range(len(given.value))):
            given.refuse("the numbers 0, 1, 2 ... once each")
        given = Entry([given.value[number] for number in range(len(given.value))], path, ("names",))
    names = [entry.label() for entry in given.items()]
    splits = {}
    for split in _SPLITS:
        folder = whole.get(split)
        if folder and isinstance(folder.value, str):
            # Relative to `path`, or to wherever it was trained: what counts is which folder of ours it ends in.
            parts = [part for part in PurePosixPath(folder.value).parts if part not in ("..", ".", "/")]
            while parts and not path.parent.joinpath(*parts).is_dir():
                parts = parts[1:]
            if parts:
                splits[split] = "/".join(parts)
    return names, splits


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
