"""COCO's JSON of instances: polygons and run lengths.

Source: cocodataset.org, "Data format"; categories in the order of their ids, the polygons of one annotation joined,
`iscrowd` void. Shapes have no order, so that small ones lie over large ones.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from fullconv.data.annotations.entry import Entry, read_json
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.regions import Polygon, Region, Runs, coco_lengths
from fullconv.data.annotations.scene import AnnotatedImage, Export, Shape, split_of, split_of_name
from fullconv.errors import DataError, printable

_LARGEST = 2**31
"""Of ids and sides."""


def read(files: list[Path], images: Images) -> Export:
    """Read COCO files, each a split where its name or its folder's, or the images' folders, say so.

    Raises:
        DataError: a file that does not hold what COCO's do; one line with file and entry.
    """
    named = [path for path in files if path.name.startswith("instances_")] or files
    categories: dict[int, str] = {}
    found: list[AnnotatedImage] = []
    notes: list[str] = []
    for path in named:
        whole = read_json(path)
        own: dict[int, str] = {}
        for entry in whole["categories"].items():
            number, label = entry["id"].whole(0, _LARGEST), entry["name"].label()
            own[number] = label
            if categories.setdefault(number, label) != label:
                entry["name"].refuse(f"{categories[number]!r}, the name that category {number} has before")
        shapes, boxes = _shapes(whole, own)
        if boxes:
            notes.append(f"{printable(path)}: {boxes} annotations without segmentation are left out")
        split = split_of(path.stem) or split_of(path.parent.name)
        for entry in whole["images"].items():
            name, number = entry["file_name"].text(), entry["id"].whole(0, _LARGEST)
            size = entry["height"].whole(1, _LARGEST), entry["width"].whole(1, _LARGEST)
            image = images.find(name, entry.where, near=path.parent)
            drawn, place = tuple(shapes.pop(number, ())), split or split_of_name(name)
            found.append(AnnotatedImage(name, image, drawn, entry.where, place, size))
        if shapes:
            number, orphans = next(iter(shapes.items()))
            raise DataError(f"{orphans[0].where}.image_id is {number}, the id of no image; export it again")
    return Export({categories[number]: None for number in sorted(categories)}, found, True, notes)


def _shapes(whole: Entry, categories: dict[int, str]) -> tuple[dict[int, list[Shape]], int]:
    """Shapes by image id, and how many annotations have none."""
    shapes: dict[int, list[Shape]] = defaultdict(list)
    boxes = 0
    for entry in whole["annotations"].items():
        segmentation = entry.get("segmentation")
        if segmentation is None or segmentation.value == []:
            boxes += 1
            continue
        number, category = entry["image_id"].whole(0, _LARGEST), entry["category_id"].whole(0, _LARGEST)
        if category not in categories:
            entry["category_id"].refuse("the id of a category")
        crowd = entry.get("iscrowd")
        if crowd is not None and crowd.value not in (0, 1):
            crowd.refuse("0 or 1")
        void = crowd is not None and bool(crowd.value)
        shapes[number].append(Shape(categories[category], _region(segmentation), entry.where, void=void))
    return shapes, boxes


def _region(entry: Entry) -> Region:
    if isinstance(entry.value, list):
        parts = []
        for ring in entry.items():
            numbers = ring.numbers()
            if len(numbers) % 2:
                ring.refuse("x and y by turns, an even count of numbers")
            parts.append((numbers.reshape(-1, 2),))
        return Polygon(tuple(parts))
    counts, sides = entry["counts"], entry["size"].numbers(1, _LARGEST)
    if len(sides) != 2:
        entry["size"].refuse("[height, width]")
    size = int(sides[0]), int(sides[1])
    if isinstance(counts.value, str):
        try:
            return Runs(coco_lengths(counts.value), size, order="F", whole=True)
        except DataError as error:
            raise DataError(f"{entry.where}: {error}; export it again") from error
    return Runs(counts.wholes(0, _LARGEST), size, order="F", whole=True)
