"""CVAT's "for images" XML 1.1: polygon, box, ellipse and mask, with z_order, labels and subsets.

Source: CVAT's manual, "XML annotation format". A mask's run lengths go along the rows of its box, the first is
outside. Boxes and ellipses are turned clockwise about their centres.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from fullconv.data.annotations.entry import MAX_BYTES, Entry, Points
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.painted import hex_colour
from fullconv.data.annotations.regions import Ellipse, Polygon, Region, Runs, rectangle
from fullconv.data.annotations.scene import AnnotatedImage, Export, Shape, skipped, split_of, split_of_name
from fullconv.data.text import read_text
from fullconv.errors import DataError, one_line, printable
from fullconv.labels import Colour

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_REGIONS = ("polygon", "box", "ellipse", "mask")
_SKIPPED = ("polyline", "points", "tag", "cuboid", "skeleton")
_LARGEST = 2**31


def read(files: list[Path], images: Images) -> Export:
    """Read CVAT files; a subset of the project, or a file's name, says the split.

    Raises:
        DataError: a file that does not hold what CVAT's do; one line with file and entry.
    """
    labels: dict[str, Colour | None] = {}
    found: list[AnnotatedImage] = []
    without_area: Counter[str] = Counter()
    for path in files:
        root = _parse(path)
        if root.find("track") is not None:
            raise DataError(f"{printable(path)}: holds tracks of a video; export it as 'CVAT for images 1.1'")
        for place, element in enumerate(root.iterfind("./meta//labels/label")):
            name, colour = element.findtext("name"), element.findtext("color")
            entry = Entry(name, path, ("meta", "label", place)).label()
            labels[entry] = hex_colour(Entry(colour, path, ("meta", "label", place, "color"))) if colour else None
        for place, element in enumerate(root.iterfind("image")):
            found.append(_image(element, Entry(dict(element.attrib), path, ("image", place)), images, without_area))
    if not labels:  # a file without its head
        labels = dict.fromkeys(sorted({shape.label for image in found for shape in image.shapes if shape.label}))
    return Export(labels, found, notes=skipped(without_area))


def _parse(path: Path) -> Element:
    from defusedxml.ElementTree import fromstring

    text = read_text(path, MAX_BYTES)
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except (SyntaxError, ValueError) as error:  # ParseError is a SyntaxError
        raise DataError(f"{printable(path)}: is not valid XML ({one_line(error)}); export it again") from error
    if root.tag != "annotations":
        raise DataError(f"{printable(path)}: begins with <{printable(root.tag)[:40]}>, expected CVAT's <annotations>")
    return root


def _image(element: Element, entry: Entry, images: Images, without_area: Counter[str]) -> AnnotatedImage:
    name, subset = entry["name"].text(), entry.get("subset")
    folder = subset.text() if subset else ""
    # An export of a project keeps the images of each subset in a folder of its name.
    image = images.find(f"{folder}/{name}" if folder else name, entry.where, near=entry.file.parent)
    shapes: list[Shape] = []
    for place, child in enumerate(element):
        if child.tag in _SKIPPED:
            without_area[child.tag] += 1
            continue
        if child.tag not in _REGIONS:
            raise DataError(f"{entry.where} holds <{printable(child.tag)[:40]}>, expected {', '.join(_REGIONS)}")
        own = Entry(dict(child.attrib), entry.file, (*entry.keys, child.tag, place))
        z = own.get("z_order")
        height = z.parsed().whole(-_LARGEST, _LARGEST) if z else 0
        shapes.append(Shape(own["label"].label(), _region(child.tag, own), own.where, height))
    size = entry["height"].parsed().whole(1, _LARGEST), entry["width"].parsed().whole(1, _LARGEST)
    split = split_of(folder) or split_of_name(name) or split_of(entry.file.stem)
    return AnnotatedImage(name, image, tuple(shapes), entry.where, split, size)


def _region(kind: str, entry: Entry) -> Region:
    if kind == "polygon":
        return Polygon(((_points(entry["points"]),),))
    if kind == "mask":
        top, left = (entry[key].parsed().whole(-_LARGEST, _LARGEST) for key in ("top", "left"))
        height, width = (entry[key].parsed().whole(1, _LARGEST) for key in ("height", "width"))
        return Runs(_list(entry["rle"]).wholes(0, _LARGEST), (height, width), top, left)
    turn = entry.get("rotation")
    angle = turn.parsed().number() if turn else 0.0
    if kind == "ellipse":
        x, y, rx, ry = (entry[key].parsed().number() for key in ("cx", "cy", "rx", "ry"))
        return Ellipse((x, y), (rx, ry), angle)
    x0, y0, x1, y1 = (entry[key].parsed().number() for key in ("xtl", "ytl", "xbr", "ybr"))
    return rectangle(x0, y0, x1 - x0, y1 - y0, angle)


def _points(entry: Entry) -> Points:
    pairs = entry.text().split(";")
    if any(pair.count(",") != 1 for pair in pairs):
        entry.refuse("points 'x,y;x,y;...'")
    return _list(Entry(",".join(pairs), entry.file, entry.keys)).numbers().reshape(-1, 2)


def _list(entry: Entry) -> Entry:
    try:
        return Entry([float(text) for text in entry.text().split(",")], entry.file, entry.keys)
    except ValueError:
        entry.refuse("numbers with commas between them")
