"""LabelMe's JSON, one a picture.

Source: the label files of labelme 4 and 5: polygon, rectangle (two corners), circle (centre and a point on it), mask
(a PNG in base64 between two corners, both included). Labels as labelme's labels.txt has them: ``__ignore__`` is void,
``_background_`` class 0.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from pathlib import Path

from fullconv.data.annotations.entry import Entry, read_json
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.labels_file import read_names
from fullconv.data.annotations.regions import Bitmap, Ellipse, Polygon, Region, rectangle
from fullconv.data.annotations.scene import AnnotatedImage, Export, Shape, skipped, split_of_path
from fullconv.data.image import format_of
from fullconv.errors import DataError, one_line, printable

LABELS = "labels.txt"

_SKIPPED = ("line", "linestrip", "point", "points")
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WebP": ".webp", "BMP": ".bmp"}
_LARGEST = 2**31


def read(files: list[Path], images: Images, source: Path) -> Export:
    """Read LabelMe files, and find the pictures beside them that nobody has annotated.

    Raises:
        DataError: a file that does not hold what LabelMe's do; one line with file and entry.
    """
    without_area: Counter[str] = Counter()
    found = [_read(path, images, without_area, source) for path in files]
    taken = {image.path for image in found}
    for folder in dict.fromkeys(path.parent for path in files) if source.is_dir() else ():
        beside = [path for path in images.in_folder(folder) if path not in taken]
        found += [AnnotatedImage(path.name, path, (), str(path), split_of_path(path, source)) for path in beside]
    names = sorted({shape.label for image in found for shape in image.shapes if shape.label})
    if (source / LABELS).is_file():
        names = read_names(source / LABELS)
    return Export(dict.fromkeys(names), found, notes=skipped(without_area))


def embedded_image(path: Path) -> bytes:
    """The picture that a LabelMe file holds.

    Raises:
        DataError: it is no base64.
    """
    return _decoded(read_json(path)["imageData"])


def _read(path: Path, images: Images, without_area: Counter[str], source: Path) -> AnnotatedImage:
    whole = read_json(path)
    name = whole["imagePath"].text()
    shapes = [_shape(entry, without_area) for entry in whole["shapes"].items()]
    drawn = tuple(shape for shape in shapes if shape is not None)
    height, width = whole.get("imageHeight"), whole.get("imageWidth")
    size = (height.whole(1, _LARGEST), width.whole(1, _LARGEST)) if height and width else None
    image, embedded, data = images.find(name, str(path), near=path.parent), "", whole.get("imageData")
    if image is None and data is not None:
        start = _decoded(Entry(data.text()[:24], path, data.keys))
        image, embedded = path, path.stem + _SUFFIXES.get(format_of(start) or "", ".jpg")
    return AnnotatedImage(name, image, drawn, printable(path), split_of_path(path, source), size, embedded)


def _shape(entry: Entry, without_area: Counter[str]) -> Shape | None:
    kind = entry.get("shape_type")
    name = "polygon" if kind is None else kind.text()
    if name in _SKIPPED:
        without_area[name] += 1
        return None
    return Shape(entry["label"].label(), _region(name, entry), entry.where)


def _region(kind: str, entry: Entry) -> Region:
    points = entry["points"].points()
    if kind == "polygon":
        return Polygon(((points,),))
    if kind not in ("rectangle", "circle", "mask"):
        entry["shape_type"].refuse("polygon, rectangle, circle, mask or a kind without area")
    if len(points) != 2:
        entry["points"].refuse("two points")
    (x0, y0), (x1, y1) = points.tolist()
    if kind == "circle":
        radius = math.hypot(x1 - x0, y1 - y0)
        return Ellipse((x0, y0), (radius, radius))
    if kind == "rectangle":
        return rectangle(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
    size = int(y1) - int(y0) + 1, int(x1) - int(x0) + 1
    return Bitmap(entry["mask"].text(), int(y0), int(x0), size=size)


def _decoded(entry: Entry) -> bytes:
    try:
        return base64.b64decode(entry.text(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{entry.where} is no base64 ({one_line(error)}); export it again") from error
