"""Which tool's export a path holds, told by what is in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fullconv.data.annotations import coco, cvat, cvat_masks, datumaro, labelme, labelstudio, supervisely, yolo
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.scene import Export
from fullconv.errors import DataError, printable, unknown_name

_LOOK = 2**20
"""Bytes at either end of a file by which its tool is told."""

_MARKS = ("<annotations", '"images"', '"categories"', '"data"', '"result"', '"shapes"', '"classes"', "names")

Look = Callable[[Path], frozenset[str]]
"""The marks that a file holds, and its first character."""


class At(NamedTuple):
    """Where an export lies: what the user named, where the images are, and whether boxes are filled."""

    source: Path
    images: Images
    boxes: bool


class Format(NamedTuple):
    """A tool's export: the files that a path has of it (none: not this tool's), and how they are read."""

    files: Callable[[Path, Look], list[Path]]
    read: Callable[[list[Path], At], Export]


def _named(*names: str) -> Callable[[Path, Look], list[Path]]:
    """The first of the names that a folder has, or the file itself."""

    def files(source: Path, _: Look) -> list[Path]:
        candidates = [source] if source.is_file() else [source / name for name in names]
        return [path for path in candidates if path.name in names and path.is_file()][:1]

    return files


def _marked(suffix: str, *marks: str) -> Callable[[Path, Look], list[Path]]:
    """The files below a path, of a suffix, that have all the marks."""

    def files(source: Path, look: Look) -> list[Path]:
        return [path for path in _all(source, suffix) if look(path).issuperset(marks)]

    return files


def _supervisely(source: Path, look: Look) -> list[Path]:
    return [path for path in _named(*supervisely.LISTS)(source, look) if '"classes"' in look(path)]


def _yolo(source: Path, look: Look) -> list[Path]:
    files = [source] if source.is_file() else sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    described = [path for path in files if path.suffix in (".yaml", ".yml") and "names" in look(path)]
    return described[:1] or _named(*yolo.NAMES)(source, look)


# In order of recognition: those told by a file of a certain name first.
FORMATS: dict[str, Format] = {
    "datumaro": Format(_named(datumaro.META), lambda files, at: datumaro.read(files, at.images)),
    "cvat-masks": Format(_named(cvat_masks.LABELMAP), lambda files, at: cvat_masks.read(files, at.images)),
    "supervisely": Format(_supervisely, lambda files, at: supervisely.read(files, at.images)),
    "cvat": Format(_marked(".xml", "<", "<annotations"), lambda files, at: cvat.read(files, at.images)),
    "coco": Format(_marked(".json", "{", '"images"', '"categories"'), lambda files, at: coco.read(files, at.images)),
    "labelstudio": Format(
        _marked(".json", "[", '"data"', '"result"'), lambda files, at: labelstudio.read(files, at.images)
    ),
    "labelme": Format(_marked(".json", "{", '"shapes"'), lambda files, at: labelme.read(files, at.images, at.source)),
    "yolo": Format(_yolo, lambda files, at: yolo.read(files, at.images, at.boxes)),
}


def recognise(source: Path, name: str | None = None) -> tuple[str, list[Path]]:
    """The tool of an export, and the files that hold its annotations.

    Args:
        source: a file or a folder.
        name: a key of `FORMATS`, to be looked for alone.

    Raises:
        OptionError: an unknown name.
        DataError: nothing there, or nothing of a known tool.
    """
    if name is not None and name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    if not source.exists():
        raise DataError(f"{printable(source)}: no such file or folder; check the path")
    if source.suffix.lower() == ".zip":
        raise DataError(f"{printable(source)}: is an archive; unpack it and name the folder")
    if name is not None and source.is_file():
        return name, [source]
    look = functools.cache(_look)
    for key in FORMATS if name is None else (name,):
        files = FORMATS[key].files(source, look)
        if files:
            return key, files
    what = f"export of {name}" if name else "export of a known tool"
    raise DataError(f"{printable(source)}: holds no {what}; expected one of {', '.join(FORMATS)} (--format)")


def _all(source: Path, suffix: str) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for path in sorted(source.rglob(f"*{suffix}")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts):
            yield path


def _look(path: Path) -> frozenset[str]:
    try:
        with path.open("rb") as stream:
            text = stream.read(_LOOK)
            stream.seek(max(len(text), path.stat().st_size - _LOOK))
            text += stream.read(_LOOK)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror}); check the path") from error
    start = text.lstrip(b"\xef\xbb\xbf \t\r\n")[:1].decode("utf-8", "replace")
    return frozenset([start, *(mark for mark in _MARKS if mark.encode() in text)])
