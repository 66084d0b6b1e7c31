"""Data sets of image and mask files."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fullconv.data.image import SUFFIXES, find_images, read_image
from fullconv.data.mask import MaskReader
from fullconv.data.sample import IMAGE, SEMANTIC, Sample
from fullconv.errors import DataError, printable
from fullconv.labels import LabelSet

LISTED = 10
"""How many file names or problems a message lists."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask; `name` is unique in the split."""

    name: str
    image: Path
    mask: Path


class ImageMaskPairs:
    """A `Dataset` of image and mask files: inputs ``{"image"}``, masks ``{"semantic"}``."""

    def __init__(self, source: str, split: str, pairs: Sequence[Pair], labels: LabelSet, reader: MaskReader) -> None:
        self.source = source
        self.split = split
        self.pairs = tuple(pairs)
        self.labels: Mapping[str, LabelSet] = {SEMANTIC: labels}
        self.channels: Mapping[str, int] = {IMAGE: 3}
        self.names: Sequence[str] = tuple(pair.name for pair in pairs)
        self.reader = reader

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8.

        Raises:
            DataError: either file cannot be used, or their sizes differ; one line.
        """
        pair = self.pairs[index]
        image, mask = read_image(pair.image), self.reader.read(pair.mask)
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        if (height, width) != (mask_height, mask_width):
            fix = "make a mask of the image's size"
            if (height, width) == (mask_width, mask_height):
                fix = (
                    "the sides are swapped: only one of the two says in its EXIF that it is rotated; save both upright"
                )
            raise DataError(
                f"{printable(pair.mask)}: is {mask_height} x {mask_width} (H x W), its image {printable(pair.image)} "
                f"is {height} x {width}; {fix}"
            )
        return Sample(pair.name, {IMAGE: image}, {SEMANTIC: mask})

    def fingerprint(self) -> str:
        """A digest (64 hex digits) of labels, reader, names and file sizes: equal for a copy of the data set.

        Raises:
            DataError: a file is gone.
        """
        mapping, colours = self.reader.label_mapping or {}, self.reader.colors or {}
        known = [self.labels[SEMANTIC].to_json(), sorted(mapping.items()), sorted(colours.items())]
        digest = hashlib.sha256(json.dumps(known).encode())
        for pair in self.pairs:
            digest.update(
                f"\n{pair.name}\t{_bytes(pair.image)}\t{_bytes(pair.mask)}".encode("utf-8", "surrogateescape")
            )
        return digest.hexdigest()


def pair_by_stem(source: str, images: Path, masks: Path) -> tuple[Pair, ...]:
    """Pair the pictures below two folders by their relative path without suffix, in order of names.

    Hidden files and files of other kinds are ignored.

    Raises:
        DataError: no picture, two pictures of one name, an image without mask or a mask without image; one line.
    """
    found, labelled = images_by_name(source, images), images_by_name(source, masks)
    if not found:
        raise DataError(f"{printable(images)}: holds no pictures; expected files ending in {', '.join(SUFFIXES)}")
    lonely = [found[key].name for key in found if key not in labelled]
    unused = [labelled[key].name for key in labelled if key not in found]
    if lonely or unused:
        raise mismatch(source, lonely, unused, f"{printable(masks)}")
    return tuple(Pair(file.name, file.path, labelled[key].path) for key, file in sorted(found.items()))


def mismatch(source: str, lonely: Sequence[str], unused: Sequence[str], masks: str) -> DataError:
    """The error for images without mask and masks without image."""
    parts = [
        f"{len(names)} {what} ({listed(names)})"
        for names, what in ((lonely, "images without mask"), (unused, "masks without image"))
        if names
    ]
    return DataError(
        f"{printable(source)}: {' and '.join(parts)}; masks lie in {masks} under their image's name, such as 0001.jpg "
        "and 0001.png: add or remove files"
    )


def listed(names: Iterable[str]) -> str:
    """The first ten, and how many more."""
    every = [printable(name) for name in names]
    more = [f"and {len(every) - LISTED} more"] if len(every) > LISTED else []
    return ", ".join(every[:LISTED] + more)


def require_split(source: str, split: str, have: Sequence[str]) -> None:
    """Raise DataError, naming the splits there are, unless `split` is one of them."""
    if split not in have:
        raise DataError(f"{printable(source)}: has no split {split!r}; its splits: {', '.join(have) or 'none'}")


@dataclass(frozen=True)
class ImageFile:
    """A file that may hold an image; `name` is its relative path without suffix."""

    name: str
    path: Path


def images_by_name(source: str, folder: Path) -> dict[str, ImageFile]:
    """The images below a folder by name; the keys are NFC, because file systems store accents in two ways."""
    found: dict[str, ImageFile] = {}
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        key = unicodedata.normalize("NFC", name)
        if key in found:
            raise DataError(
                f"{printable(source)}: {printable(found[key].path)} and {printable(path.name)} share the name "
                f"{printable(name)!r}; rename or remove one"
            )
        found[key] = ImageFile(name, path)
    return found


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{printable(path)}: no such file; check the path") from error
