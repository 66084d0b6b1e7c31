"""Which tool's export a path holds, told by what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fullconv.data.annotations import coco, cvat, cvat_masks, datumaro, labelme, labelstudio, supervisely, yolo
from fullconv.data.annotations.images import Images
from fullconv.data.annotations.scene import Export
from fullconv.errors import DataError, printable, unknown_name

_LOOK = 2**20
"""Bytes at either end of a file by which its tool is told."""


class At(NamedTuple):
    """Where an export lies: what the user named, where the images are, and whether boxes are filled."""

    source: Path
    images: Images
    boxes: bool


class Format(NamedTuple):
    """A tool's export: the files that a path has of it (none: not this tool's), and how they are read."""

    files: Callable[[Path], list[Path]]
    read: Callable[[list[Path], At], Export]


def _named(*names: str) -> Callable[[Path], list[Path]]:
    """The first of the names that a folder has, or the file itself."""

    def files(source: Path) -> list[Path]:
        candidates = [source] if source.is_file() else [source / name for name in names]
        return [path for path in candidates if path.name in names and path.is_file()][:1]

    return files


def _holding(suffix: str, *marks: str, start: str = "") -> Callable[[Path], list[Path]]:
    """The files below a path, of a suffix, that hold all the marks near their beginnings or ends."""

    def files(source: Path) -> list[Path]:
        found = []
        for path in _all(source, suffix):
            text = _ends(path)
            if text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start.encode()) and all(
                m.encode() in text for m in marks
            ):
                found.append(path)
        return found

    return files


def _supervisely(source: Path) -> list[Path]:
    return [path for path in _named(*supervisely.LISTS)(source) if b'"classes"' in _ends(path)]


def _yolo(source: Path) -> list[Path]:
    files = [source] if source.is_file() else sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    described = [path for path in files if path.suffix in (".yaml", ".yml") and b"names" in _ends(path)]
    return described[:1] or _named(*yolo.NAMES)(source)


# In order of recognition: those told by a file of a certain name first.
FORMATS: dict[str, Format] = {
    "datumaro": Format(_named(datumaro.META), lambda files, at: datumaro.read(files, at.images)),
    "cvat-masks": Format(_named(cvat_masks.LABELMAP), lambda files, at: cvat_masks.read(files, at.images)),
    "supervisely": Format(_supervisely, lambda files, at: supervisely.read(files, at.images)),
    "cvat": Format(_holding(".xml", "<annotations", "<image "), lambda files, at: cvat.read(files, at.images)),
    "coco": Format(
        _holding(".json", '"images"', '"categories"', start="{"), lambda files, at: coco.read(files, at.images)
    ),
    "labelstudio": Format(
        _holding(".json", '"data"', '"result"', start="["), lambda files, at: labelstudio.read(files, at.images)
    ),
    "labelme": Format(
        _holding(".json", '"shapes"', '"imagePath"', start="{"),
        lambda files, at: labelme.read(files, at.images, at.source),
    ),
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
    for key in FORMATS if name is None else (name,):
        files = FORMATS[key].files(source)
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


def _ends(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            start = stream.read(_LOOK)
            stream.seek(max(len(start), path.stat().st_size - _LOOK))
            return start + stream.read(_LOOK)
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror}); check the path") from error
