"""Annotation tools' exports -> a plain folder of images, palette masks and classes.txt.

Each tool's reader (`coco`, `labelme`, `cvat`, `cvat_masks`, `yolo`, `labelstudio`, `supervisely`, `datumaro`) gives an
`Export` of images with shapes or masks in colours (`scene`); `labelling` chooses the classes, `output` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fullconv.data.annotations.formats import FORMATS, At, recognise
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.labelling import label_values
from fullconv.data.annotations.output import Imported, select, survey, write
from fullconv.data.check import Progress
from fullconv.errors import unknown_name
from fullconv.files import require_fresh

__all__ = ["FORMATS", "ORDERS", "Imported", "import_annotations"]

ORDERS = ("tool", "area")


def import_annotations(
    source: str | Path,
    out: str | Path,
    *,
    format: str | None = None,  # noqa: A002  (the option's name)
    images: str | Path | None = None,
    order: str = "tool",
    background: str = "background",
    classes: Sequence[str] | None = None,
    others: str = "error",
    boxes: bool = False,
    empty: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """Write a folder that `open_dataset` opens: ``images``, ``masks`` and ``classes.txt``, by split if any.

    A pixel belongs to a shape if its centre does. Images are copied byte for byte. Nothing is left if it fails.

    Args:
        source: the export, unpacked: its folder or file.
        out: a folder, new or empty.
        format: a key of `FORMATS`; default: told by what the source holds.
        images: the folder of the images, where they do not lie with the source.
        order: which shape lies over another: ``"tool"``, as the tool has it, or ``"area"``, the smaller one.
        background: what pixels that nothing covers become: ``"background"``, class 0, or ``"void"``, 255.
        classes: names in the order of the class numbers; default: the tool's.
        others: what becomes of other labels: ``"error"``, ``"background"`` or ``"void"``.
        boxes: boxes of YOLO are filled; else they are refused.
        empty: images without annotations are taken, as background.
        progress: called with (images done, images in all).

    Raises:
        OptionError: an option that cannot work, or `out` is not empty.
        DataError: an export, image or mask that cannot be used; one line.
    """
    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    source, out = Path(source), Path(out)
    require_fresh(out)
    name, files = recognise(source, format)
    at = At(source, Images(source, None if images is None else Path(images)), boxes)
    export = FORMATS[name].read(files, at)
    kept, notes = select(export.images, at.images.root, empty)
    shapes = [shape for image in kept for shape in image.shapes]
    bare = any(image.painted is None for image in kept)
    labelling = label_values(export, survey(kept), shapes, bare, classes, others, background)
    done = write(out, kept, labelling, order == "area" or export.by_area, progress)
    return replace(done, notes=(f"read as {name}", *export.notes, *notes, *labelling.notes, *done.notes))
