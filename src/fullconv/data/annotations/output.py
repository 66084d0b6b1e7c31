"""An export -> a plain folder of images, palette masks and classes.txt."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fullconv.data.annotations.labelling import Labelling, is_background
from fullconv.data.annotations.labelme import embedded_image
from fullconv.data.annotations.naming import output_names
from fullconv.data.annotations.painted import Painted
from fullconv.data.annotations.scene import AnnotatedImage, draw
from fullconv.data.check import Progress
from fullconv.data.folder import write_classes
from fullconv.data.image import picture_header
from fullconv.data.mask import write_mask
from fullconv.data.pairs import listed
from fullconv.data.sample import Array
from fullconv.errors import DataError, printable
from fullconv.files import fresh_folder
from fullconv.labels import VOID, LabelSet


@dataclass(frozen=True, eq=False)
class Imported:
    """What an import wrote.

    Attributes:
        path: of the folder.
        labels: the classes.
        images: how many.
        shapes: how many were drawn.
        occurrences: (K,) int64, the number of images that have each class.
        pixels: (K,) int64, of each class in all masks.
        void_images: the number of images with void pixels.
        void: the number of void pixels.
        notes: what was left out or changed, one line each.
    """

    path: Path
    labels: LabelSet
    images: int
    shapes: int
    occurrences: NDArray[np.int64]
    pixels: NDArray[np.int64]
    void_images: int
    void: int
    notes: tuple[str, ...]


def select(images: Sequence[AnnotatedImage], root: Path, empty: bool) -> tuple[list[AnnotatedImage], list[str]]:
    """The images to write, entries of one file merged, and notes of those left out.

    Raises:
        DataError: none are left.
    """
    merged: dict[tuple[str | None, Path], AnnotatedImage] = {}
    rest = "train" if any(image.split for image in images) else None
    missing: list[str] = []
    for image in images:
        if image.path is None:
            missing.append(image.name)
            continue
        split = image.split or rest
        first = merged.get((split, image.path))
        shapes = (first.shapes if first else ()) + image.shapes
        merged[split, image.path] = replace(first or image, split=split, shapes=shapes)
    kept = [image for image in merged.values() if empty or image.annotated]
    bare = len(merged) - len(kept)
    notes = []
    if missing:
        text = f"{len(missing)} images have no file below {printable(root)}: {listed(missing)}"
        if not kept:
            raise DataError(f"{text}; name the folder that holds them with --images")
        notes.append(text)
    if bare:
        text = f"{bare} images without annotations are left out; --empty takes them as background"
        if not kept:
            raise DataError(f"no image has annotations: {text}")
        notes.append(text)
    if not kept:
        raise DataError(f"{printable(root)}: the export holds no images; export it again")
    return kept, notes


def survey(images: Sequence[AnnotatedImage]) -> Counter[str]:
    """How often each label occurs: shapes, or pixels of masks in colours.

    Raises:
        DataError: colours that are in no list, the most frequent first.
    """
    seen: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for image in images:
        seen.update(shape.label for shape in image.shapes if not shape.void)
        if image.painted is not None:
            places, others = image.painted.read()
            unknown += others
            source = image.painted.source
            found = np.unique(places[places >= 0])
            labels = list(image.painted.colours)
            seen.update(labels[place] for place in found)
    if unknown:
        colours = listed(f"{colour} ({count} pixels)" for colour, count in unknown.most_common())
        raise DataError(
            f"the masks hold {len(unknown)} colours that {printable(source)} does not list: {colours}; "
            "correct the list, or the masks"
        )
    return seen


def write(
    out: Path, images: Sequence[AnnotatedImage], labelling: Labelling, by_area: bool, progress: Progress | None
) -> Imported:
    """Write the folder, all of it or nothing.

    Raises:
        OptionError: `out` is there and not empty.
        DataError: an image, a mask or a shape that cannot be used.
    """
    labels, names = labelling.labels, output_names(images)
    pixels, occurrences = np.zeros(256, np.int64), np.zeros(256, np.int64)
    thin = 0
    with fresh_folder(out) as folder:
        for done, (image, name) in enumerate(zip(images, names, strict=True)):
            if progress is not None:
                progress(done, len(images))
            place = folder / image.split if image.split else folder
            size = _copy(image, place / "images" / name)
            if image.painted is not None:
                mask = _repaint(image.painted, labelling)
                _check_size(image, size, mask.shape, f"mask {printable(image.painted.path)}")
            else:
                _check_size(image, size, image.size, image.where)
                mask, empty = draw(image.shapes, size, labelling.values, labelling.uncovered, by_area)
                thin += empty
            counts = np.bincount(mask.ravel(), minlength=256)
            pixels += counts
            occurrences += counts > 0
            write_mask((place / "masks" / name).with_suffix(".png"), mask, labels)
        if progress is not None:
            progress(len(images), len(images))
        write_classes(folder, labels)
    notes = [f"{thin} shapes cover no pixel: too thin, outside of their images, or degenerate"] if thin else []
    return Imported(
        out,
        labels,
        len(images),
        sum(len(image.shapes) for image in images),
        occurrences[: len(labels)],
        pixels[: len(labels)],
        int(occurrences[VOID]),
        int(pixels[VOID]),
        tuple(notes),
    )


def _copy(image: AnnotatedImage, target: Path) -> tuple[int, int]:
    """Copy an image byte for byte; (H, W) of it."""
    path = cast(Path, image.path)  # `select` lets no other pass
    target.parent.mkdir(parents=True, exist_ok=True)
    if not image.embedded:
        size = picture_header(path).size
        shutil.copyfile(path, target)
        return size
    target.write_bytes(embedded_image(path))
    try:
        return picture_header(target).size
    except DataError as error:
        raise DataError(str(error).replace(printable(target), f"{printable(path)}: imageData")) from error


def _check_size(image: AnnotatedImage, found: tuple[int, ...], stated: tuple[int, ...] | None, who: str) -> None:
    if stated is None or found == stated:
        return
    fix = "export it again with the images that belong to it"
    if found == stated[::-1]:
        fix = "the sides are swapped: turn the image upright by its EXIF, or annotate it as it is shown"
    raise DataError(
        f"{who} is {stated[0]} x {stated[1]} (H x W), its image {printable(image.path)} {found[0]} x {found[1]}; {fix}"
    )


def _repaint(painted: Painted, labelling: Labelling) -> Array:
    values = [labelling.uncovered if is_background(label) else labelling.values[label] for label in painted.colours]
    return np.array(values, np.uint8)[painted.read()[0]]
