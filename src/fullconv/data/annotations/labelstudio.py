"""Label Studio's JSON: polygons, brushes, rectangles and ellipses, in percent of the image.

Source: Label Studio's manual, "Label Studio JSON format of annotated tasks". Of several annotations of a task the
first that was not cancelled counts. Rectangles are turned clockwise about their upper left corners.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

from fullconv.data.annotations.brush import Brush
from fullconv.data.annotations.entry import Entry, read_json
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.regions import Ellipse, Polygon, Region, rectangle
from fullconv.data.annotations.scene import AnnotatedImage, Export, Shape, skipped, split_of_name
from fullconv.data.image import SUFFIXES
from fullconv.errors import DataError, printable

_REGIONS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
_LARGEST = 2**31
_UPLOAD = re.compile(r"[0-9a-f]{8}-")


def read(files: list[Path], images: Images) -> Export:
    """Read Label Studio files; the classes are the labels that occur, in alphabetical order.

    Raises:
        DataError: a file that does not hold what Label Studio's do; one line with file and entry.
    """
    without_area: Counter[str] = Counter()
    found = [_task(task, images, without_area) for path in files for task in read_json(path).items()]
    names = sorted({shape.label for image in found for shape in image.shapes if shape.label})
    return Export(dict.fromkeys(names), found, notes=skipped(without_area))


def _task(task: Entry, images: Images, without_area: Counter[str]) -> AnnotatedImage:
    name = _image_name(task["data"])
    near = task.file.parent
    image = images.find(name, task.where, near)
    if image is None:  # uploads get a prefix that the user's own files do not have
        folder, _, last = name.rpartition("/")
        image = images.find(f"{folder}/{_UPLOAD.sub('', last, count=1)}", task.where, near)
    annotations = task.get("annotations") or task["completions"]
    valid = (each for each in annotations.items() if not (each.get("was_cancelled") or Entry(False, near)).value)
    first = next(valid, None)
    shapes: list[Shape] = []
    size = None
    for result in first["result"].items() if first else ():
        kind = result["type"].text()
        if kind not in _REGIONS:
            without_area[printable(kind)[:40]] += 1
            continue
        size = result["original_height"].whole(1, _LARGEST), result["original_width"].whole(1, _LARGEST)
        turn = result.get("image_rotation")
        if turn and turn.number():
            turn.refuse("0: turn the image itself")
        value = result["value"]
        labels = [each.label() for each in value.each(kind)]
        if len(labels) > 1:
            value[kind].refuse("one label")
        shapes.append(Shape(labels[0] if labels else "", _region(kind, value, size), result.where))
    return AnnotatedImage(name, image, tuple(shapes), task.where, split_of_name(name), size)


def _image_name(data: Entry) -> str:
    """The path of the image that a task is about: its first value that ends as a picture's name does."""
    if not isinstance(data.value, dict):
        data.refuse("an object")
    for value in data.value.values():
        if isinstance(value, str):
            address, _, query = value.partition("?")
            name = unquote(query.removeprefix("d=") if query.startswith("d=") else address)
            if Path(name).suffix.lower() in SUFFIXES:
                return name.removeprefix("/data/upload/")
    raise DataError(f"{data.where} names no image ({', '.join(SUFFIXES)}); export a project of images")


def _region(kind: str, value: Entry, size: tuple[int, int]) -> Region:
    height, width = size
    if kind == "polygonlabels":
        return Polygon(((value["points"].points() * (width / 100, height / 100),),))
    if kind == "brushlabels":
        if value["format"].value != "rle":
            value["format"].refuse("'rle'")
        return Brush(bytes(value["rle"].wholes(0, 255).tolist()), size)
    turn = value.get("rotation")
    angle = turn.number() if turn else 0.0
    x, y = value["x"].number() * width / 100, value["y"].number() * height / 100
    if kind == "rectanglelabels":
        sides = value["width"].number() * width / 100, value["height"].number() * height / 100
        return rectangle(x, y, *sides, angle, about_centre=False)
    return Ellipse((x, y), (value["radiusX"].number() * width / 100, value["radiusY"].number() * height / 100), angle)
