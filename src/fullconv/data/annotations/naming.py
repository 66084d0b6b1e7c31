"""Names of the images in the folder that an import writes."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import cast

from fullconv.data.annotations.scene import AnnotatedImage
from fullconv.errors import DataError, printable


def output_names(images: Sequence[AnnotatedImage]) -> list[PurePath]:
    """For each image its relative path: its file's name, with its folders where another has the same name.

    Args:
        images: all of which have files.

    Raises:
        DataError: two images of one split whose masks would have one name.
    """
    paths = [cast(Path, image.path) for image in images]
    files = [path.with_name(image.embedded or path.name) for path, image in zip(paths, images, strict=True)]
    base = Path(os.path.commonpath([os.path.abspath(path.parent) for path in files]))  # noqa: PTH100  (keeps links)
    same: dict[tuple[str | None, str], int] = defaultdict(int)
    for image, path in zip(images, files, strict=True):
        same[image.split, _key(path.stem)] += 1
    taken: dict[tuple[str | None, str], Path] = {}
    names = []
    for image, path in zip(images, files, strict=True):
        name = PurePath(path.name)
        if same[image.split, _key(path.stem)] > 1:
            name = PurePath(os.path.abspath(path)).relative_to(base)  # noqa: PTH100
        other = taken.setdefault((image.split, _key(str(name.with_suffix("")))), path)
        if other is not path:
            raise DataError(
                f"{printable(other)} and {printable(path)} would have masks of one name; rename one of the images"
            )
        names.append(name)
    return names


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()  # what some file systems take for one name
