"""CVAT's "segmentation mask": VOC's folders and a labelmap.txt with the colour of each class.

Source: CVAT's manual, "Segmentation mask": lines ``name:r,g,b:parts:actions``; comments begin with #.
"""

from __future__ import annotations

import re
from pathlib import Path

from fullconv.data.annotations.images import Images
from fullconv.data.annotations.labels_file import read_names
from fullconv.data.annotations.mask_pairs import painted_images
from fullconv.data.annotations.scene import Export, split_of
from fullconv.errors import DataError, printable
from fullconv.labels import Colour

LABELMAP = "labelmap.txt"

_LINE = re.compile(r"(?P<name>.+?):(?P<red>\d{1,3}),(?P<green>\d{1,3}),(?P<blue>\d{1,3})(:.*)?")


def read(files: list[Path], images: Images) -> Export:
    """Read the masks beside a labelmap.txt; lists in ImageSets/Segmentation are splits.

    Raises:
        DataError: a line that is none of a label map's; masks that cannot be used.
    """
    path = files[0]
    colours: dict[str, Colour] = {}
    for line in read_names(path):
        if line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        colour = tuple(int(match[key]) for key in ("red", "green", "blue")) if match else (256,)
        if match is None or max(colour) > 255:
            raise DataError(f"{printable(path)}: {printable(line)[:60]!r} is not 'name:r,g,b::'; correct the line")
        colours[match["name"].strip()] = (colour[0], colour[1], colour[2])
    lists = sorted((path.parent / "ImageSets" / "Segmentation").glob("*.txt"))
    splits = {name: split for each in lists if (split := split_of(each.stem)) for name in read_names(each)}
    return Export(dict(colours), painted_images(path.parent, images, colours, path, splits))
