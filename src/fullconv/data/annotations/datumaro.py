"""Datumaro's "common semantic segmentation": images, masks in colours, and dataset_meta.json.

Source: Datumaro's manual, "Common semantic segmentation"; `label_map` names the classes, by number, and
`segmentation_colors` (in earlier versions `label_colors`) gives their colours in the order of the numbers.
"""

from __future__ import annotations

from pathlib import Path

from fullconv.data.annotations.entry import Entry, read_json
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.mask_pairs import painted_images
from fullconv.data.annotations.scene import Export
from fullconv.labels import Colour

META = "dataset_meta.json"


def read(files: list[Path], images: Images) -> Export:
    """Read the masks beside a dataset_meta.json.

    Raises:
        DataError: a file that does not hold what Datumaro's do; masks that cannot be used.
    """
    whole = read_json(files[0])
    given = whole["label_map"]
    if not isinstance(given.value, dict):
        given.refuse("class names by number")
    names = {Entry(key, given.file, given.keys).parsed().whole(0, 2**31): given[key].label() for key in given.value}
    listed = list((whole.get("segmentation_colors") or whole["label_colors"]).items())
    if len(listed) != len(names):
        given.refuse(f"as many classes as there are colours, {len(listed)}")
    colours = {names[number]: _colour(entry) for number, entry in zip(sorted(names), listed, strict=True)}
    return Export(dict(colours), painted_images(files[0].parent, images, colours, files[0]))


def _colour(entry: Entry) -> Colour:
    values = [item.whole(0, 255) for item in entry.items()]
    if len(values) != 3:
        entry.refuse("[r, g, b]")
    return values[0], values[1], values[2]
