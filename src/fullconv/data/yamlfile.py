"""The YAML file that describes any arrangement of images and masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fullconv.data.folder import SPLITS, Folders, pairs_of, splits_of
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import ImageMaskPairs, listed, require_split
from fullconv.data.text import read_text
from fullconv.errors import DataError, OptionError, one_line, printable, unknown_name
from fullconv.labels import VOID, Colour, LabelSet

SUFFIXES = (".yaml", ".yml")
KEYS = ("path", *SPLITS, "masks_dir", "names", "label_mapping", "colors")

_HEX = re.compile(r"#([0-9a-fA-F]{6})")


def recognise(path: Path) -> bool:
    """Whether a path is a file with a YAML suffix."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def splits(path: Path) -> tuple[str, ...]:
    """The splits a YAML file describes, the held-out one included."""
    return splits_of(_describe(path).folders)


def open_split(source: str, path: Path, split: str) -> ImageMaskPairs:
    """One split of the data set that a YAML file describes.

    Keys: ``path`` (default: the file's folder; relative to it), ``train``, ``val``, ``test`` (folders of images,
    relative to ``path``), ``masks_dir`` (default ``masks``), ``names`` (a list, or {0: name, ...}), ``label_mapping``
    ({file value: class or 255}), ``colors`` ({class name or void: "#rrggbb", [r, g, b], or a list of those}).
    The masks of a split lie in the first of these that exists: the split's path with its last ``images`` replaced
    by ``masks_dir``; ``path/masks_dir/<last part of the split's path>``; ``path/masks_dir``.

    Raises:
        DataError: no such split, a key or value that cannot be used, images and masks that do not pair.
    """
    described = _describe(path)
    require_split(source, split, splits_of(described.folders))
    pairs = pairs_of(source, described.folders, split)
    return ImageMaskPairs(source, split, pairs, described.labels, described.reader)


@dataclass(frozen=True)
class _Description:
    folders: Folders
    labels: LabelSet
    reader: MaskReader


def _describe(path: Path) -> _Description:
    """Read and check a YAML file; every DataError begins with its path."""
    name = printable(path)
    given = _load(path)
    for key in given:
        if key not in KEYS:
            raise DataError(f"{name}: {unknown_name('key', key, KEYS)}")
    texts = {key: given.get(key) for key in ("path", *SPLITS, "masks_dir")}
    for key, value in texts.items():
        if value is not None and not (isinstance(value, str) and value):
            raise DataError(f"{name}: {key} is {_brief(value)}, expected the path of a folder")
    root = path.parent / (texts["path"] or "")
    masks_dir = texts["masks_dir"] or "masks"
    wanted = {split: texts[split] for split in SPLITS}
    folders = {split: _split_folders(name, root, value, masks_dir) for split, value in wanted.items() if value}
    if not folders:
        raise DataError(f"{name}: names no split; add train: FOLDER (and val, test), the folders of the images")
    names = _names(name, given.get("names"))
    colors = _colors(name, given.get("colors"), names)
    try:
        own = {names.index(label): values[0] for label, values in colors.items() if label in names}
        labels = LabelSet(names, tuple(own[i] for i in range(len(names))) if colors else ())
        table = {c: names.index(label) if label in names else VOID for label, values in colors.items() for c in values}
        reader = MaskReader(len(names), _label_mapping(name, given.get("label_mapping")), table or None)
    except OptionError as error:
        raise DataError(f"{name}: {error}") from error
    return _Description(folders, labels, reader)


def _load(path: Path) -> dict[Any, Any]:
    text = read_text(path)
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)}: is not valid YAML ({one_line(error)}); correct it there") from error
    if not isinstance(given, dict):
        raise DataError(f"{printable(path)}: holds {_brief(given)}, expected the keys {', '.join(KEYS)}")
    return given


def _split_folders(name: str, root: Path, images: str, masks_dir: str) -> tuple[Path, Path]:
    folder = root / images
    if not folder.is_dir():
        raise DataError(f"{name}: there is no folder {printable(folder)}; correct path or the split")
    parts = list(Path(images).parts)
    candidates = [root / masks_dir / folder.name, root / masks_dir]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        candidates.insert(0, root.joinpath(*parts[:last], masks_dir, *parts[last + 1 :]))
    for candidate in candidates:
        if candidate.is_dir():
            return folder, candidate
    raise DataError(
        f"{name}: no masks for {printable(images)}; looked in {listed(map(str, candidates))}; set masks_dir"
    )


def _names(name: str, given: Any) -> tuple[str, ...]:
    values = given
    if isinstance(given, dict):
        if set(given) != set(range(len(given))):
            raise DataError(
                f"{name}: names has the numbers {_brief(list(given))}, expected 0..{len(given) - 1} once each"
            )
        values = [given[i] for i in range(len(given))]
    if not isinstance(values, list) or not values:
        raise DataError(f"{name}: names is {_brief(given)}, expected a list, such as [background, scratch]")
    for value in values:
        if not isinstance(value, str):  # YAML reads no, yes, on, off as booleans
            raise DataError(f"{name}: the class name {_brief(value)} is not text; put it in quotes")
    return tuple(values)


def _label_mapping(name: str, given: Any) -> dict[int, int] | None:
    if given is None:
        return None
    whole = isinstance(given, dict) and all(type(v) is int for pair in given.items() for v in pair)
    if not whole:
        raise DataError(f"{name}: label_mapping is {_brief(given)}, expected whole numbers, such as {{0: 0, 255: 1}}")
    return dict(given)


def _colors(name: str, given: Any, names: Sequence[str]) -> dict[str, list[Colour]]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise DataError(f"{name}: colors is {_brief(given)}, expected {{class name: [r, g, b] or '#rrggbb', ...}}")
    found: dict[str, list[Colour]] = {}
    owner: dict[Colour, str] = {}
    for key, value in given.items():
        if key not in names and key != "void":
            raise DataError(f"{name}: colors: {unknown_name('class', key, [*names, 'void'])}")
        several = isinstance(value, list) and all(isinstance(v, str | list) for v in value) and value
        found[key] = [_colour(name, key, v) for v in (value if several else [value])]
        for colour in found[key]:
            if owner.setdefault(colour, key) != key:
                raise DataError(f"{name}: colors gives {list(colour)} to {owner[colour]!r} and {key!r}; give it to one")
    missing = [label for label in names if label not in found]
    if missing:
        raise DataError(f"{name}: colors has no colour for {listed(missing)}; give every class its own")
    return found


def _colour(name: str, key: str, given: Any) -> Colour:
    match = _HEX.fullmatch(given) if isinstance(given, str) else None
    values = list(bytes.fromhex(match[1])) if match else given
    if isinstance(values, list) and len(values) == 3 and all(type(v) is int and 0 <= v <= 255 for v in values):
        return values[0], values[1], values[2]
    raise DataError(f"{name}: the colour of {key!r} is {_brief(given)}, expected [r, g, b] of 0..255 or '#rrggbb'")


def _brief(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."
