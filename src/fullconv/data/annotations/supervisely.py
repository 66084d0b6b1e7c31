"""Supervisely: a list of classes with colours, beside masks in those colours or annotations in JSON.

Source: Supervisely's manual, "Supervisely annotation format": `classes` of meta.json; ann/IMAGE.json with objects of
the types polygon (exterior and interior rings), rectangle and bitmap (a PNG in zlib and base64, and its origin).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fullconv.data.annotations.entry import Entry, Points, read_json
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.mask_pairs import painted_images
from fullconv.data.annotations.painted import hex_colour
from fullconv.data.annotations.regions import Bitmap, Polygon, Region, rectangle
from fullconv.data.annotations.scene import AnnotatedImage, Export, Shape, skipped, split_of_path
from fullconv.errors import printable
from fullconv.labels import Colour

LISTS = ("meta.json", "classes.json")
"""Files that list the classes."""

_LARGEST = 2**31


def read(files: list[Path], images: Images) -> Export:
    """Read the annotations below a list of classes, or, where there are none, the masks.

    Raises:
        DataError: a file that does not hold what Supervisely's do; masks that cannot be used.
    """
    source = files[0].parent
    colours: dict[str, Colour] = {}
    for entry in read_json(files[0])["classes"].items():
        colours[entry["title"].label()] = hex_colour(entry["color"])
    annotations = sorted(path for path in source.rglob("*.json") if path.parent.name == "ann")
    if not annotations:
        return Export(dict(colours), painted_images(source, images, colours, files[0]))
    without_area: Counter[str] = Counter()
    found = [_read(path, images, without_area, source) for path in annotations]
    return Export(dict(colours), found, notes=skipped(without_area))


def _read(path: Path, images: Images, without_area: Counter[str], source: Path) -> AnnotatedImage:
    whole = read_json(path)
    sides = whole["size"]
    size = sides["height"].whole(1, _LARGEST), sides["width"].whole(1, _LARGEST)
    shapes = [_shape(entry, without_area) for entry in whole["objects"].items()]
    name = f"{path.parent.parent.name}/img/{path.stem}"
    image = images.find(name, printable(path), near=path.parent.parent)
    drawn = tuple(shape for shape in shapes if shape is not None)
    return AnnotatedImage(path.stem, image, drawn, printable(path), split_of_path(path, source), size)


def _shape(entry: Entry, without_area: Counter[str]) -> Shape | None:
    kind = entry.get("geometryType")
    # Early exports have no type: what is no bitmap is a polygon.
    name = kind.text() if kind else "bitmap" if entry.get("bitmap") else "polygon"
    if name not in ("bitmap", "polygon", "rectangle"):
        without_area[printable(name)[:40]] += 1
        return None
    return Shape(entry["classTitle"].label(), _region(name, entry), entry.where)


def _region(kind: str, entry: Entry) -> Region:
    if kind == "bitmap":
        bitmap = entry["bitmap"]
        origin = [item.whole(-_LARGEST, _LARGEST) for item in bitmap["origin"].items()]
        if len(origin) != 2:
            bitmap["origin"].refuse("[x, y]")
        return Bitmap(bitmap["data"].text(), origin[1], origin[0], compressed=True)
    points = entry["points"]
    exterior: Points = points["exterior"].points()
    if kind == "polygon":
        return Polygon(((exterior, *(ring.points() for ring in points.each("interior"))),))
    if len(exterior) != 2:
        points["exterior"].refuse("two points")
    (x0, y0), (x1, y1) = exterior.tolist()
    return rectangle(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
