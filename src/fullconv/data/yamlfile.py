"""The YAML file that describes any arrangement of images and masks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path, PurePath
from typing import Any

from fullconv.data.bands import input_of, size_of
from fullconv.data.folder import SPLITS, Folders, held_out_of_train, hold_out, splits_of
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import Names, listed, pair_folders, require_split
from fullconv.data.sample import IMAGE, SEMANTIC, Dataset
from fullconv.data.scenes import FileDataset, Task
from fullconv.data.text import brief, read_yaml
from fullconv.data.tiles import Tile, TiledDataset, tile_name, tiles_of
from fullconv.errors import DataError, OptionError, printable, unknown_name
from fullconv.labels import VOID, Colour, LabelSet

SUFFIXES = (".yaml", ".yml")
KEYS = (
    "path", *SPLITS, "masks_dir", "image_suffix", "mask_suffix", "names", "label_mapping", "colors", "bands",
    "preview", "tile",
)  # fmt: skip

_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")
_HEX = re.compile(r"#([0-9a-fA-F]{6})")


def recognise(path: Path) -> bool:
    """Whether a path is a file with a YAML suffix."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def splits(path: Path) -> tuple[str, ...]:
    """The splits a YAML file describes, the held-out one included."""
    return splits_of(describe(path).folders)


def open_split(source: str, path: Path, split: str) -> Dataset:
    """One split of the data set that a YAML file describes.

    Keys:
        path: default: the file's folder; relative to it.
        train, val, test: folders of images, one or a list each, relative to ``path``.
        masks_dir: default ``masks``. The masks of a folder lie in the first of these that exists: the folder's path
            with its last ``images`` replaced by ``masks_dir``; ``path/masks_dir/<last part of the folder's path>``;
            ``path/masks_dir``. Images and masks may lie in one folder: the JPEG files are then the images.
        image_suffix, mask_suffix: what follows a scene's name in the names of its files, such as ``_sat``, ``_mask``.
        names: a list, or {0: name, ...}; default: those of ``colors``, in their order.
        label_mapping: {file value: class or 255}; several values as ``128-255``.
        colors: {class name or void: "#rrggbb", [r, g, b], or a list of those}.
        bands: numbers of the bands that are read, counted from 1; default: all, of rasters that no picture can show.
        preview: those of them that are shown as red, green and blue.
        tile: images are cut into samples of about so many pixels a side.

    Without ``val`` a tenth of the images of ``train`` is held out; of one image alone, a tenth of its tiles.

    Raises:
        DataError: no such split, a key or value that cannot be used, images and masks that do not pair.
    """
    given = describe(path)
    require_split(source, split, splits_of(given.folders))
    shared = held_out_of_train(given.folders, split)
    scenes = pair_folders(source, given.folders["train" if shared else split], given.suffixes)
    input_ = input_of(scenes[0].image, given.bands, given.preview)
    alone = shared and given.tile is not None and len(scenes) == 1
    if shared and not alone:
        scenes = tuple(hold_out(source, scenes, [scene.name for scene in scenes], split))
    dataset = FileDataset(source, split, scenes, {SEMANTIC: Task(given.labels, given.reader)}, {IMAGE: input_})
    if given.tile is None:
        return dataset
    tiles: Sequence[Tile] = tiles_of([size_of(scene.image, input_) for scene in scenes], given.tile)
    if alone:
        tiles = hold_out(source, tiles, [tile_name(scenes[0].name, tile) for tile in tiles], split)
    return TiledDataset(dataset, tiles)


@dataclass(frozen=True)
class Description:
    folders: Folders
    labels: LabelSet
    reader: MaskReader
    suffixes: Names
    bands: tuple[int, ...]
    preview: tuple[int, ...]
    tile: int | None


def describe(path: Path) -> Description:
    """Read and check a YAML file; every DataError begins with its path."""
    name = printable(path)
    given = _load(path)
    for key in given:
        if key not in KEYS:
            raise DataError(f"{name}: {unknown_name('key', key, KEYS)}")
    root = path.parent / (_text(name, given, "path") or "")
    masks_dir = _text(name, given, "masks_dir") or "masks"
    folders = {
        split: [_split_folders(name, root, images, masks_dir) for images in _texts(name, given, split)]
        for split in SPLITS
        if given.get(split) is not None
    }
    if not folders:
        raise DataError(f"{name}: names no split; add train: FOLDER (and val, test), the folders of the images")
    names = _names(name, given)
    colors = _colors(name, given.get("colors"), names)
    try:
        own = {names.index(label): values[0] for label, values in colors.items() if label in names}
        labels = LabelSet(names, tuple(own[i] for i in range(len(names))) if colors else ())
        table = {c: names.index(label) if label in names else VOID for label, values in colors.items() for c in values}
        reader = MaskReader(len(names), _label_mapping(name, given.get("label_mapping")), table or None)
    except OptionError as error:
        raise DataError(f"{name}: {error}") from error
    suffixes = Names(_text(name, given, "image_suffix") or "", _text(name, given, "mask_suffix") or "")
    bands, preview = _bands(name, given, "bands"), _bands(name, given, "preview")
    if preview and len(preview) not in (1, 3):
        raise DataError(f"{name}: preview names {len(preview)} bands, expected three (red, green, blue) or one")
    if bands and not set(preview) <= set(bands):
        raise DataError(f"{name}: preview names bands that bands does not; expected some of {list(bands)}")
    tile = given.get("tile")
    if tile is not None and not (type(tile) is int and 16 <= tile <= 65536):
        raise DataError(f"{name}: tile is {brief(tile)}, expected a number of pixels, 16 or more, such as 256")
    return Description(folders, labels, reader, suffixes, bands, preview, tile)


def _text(name: str, given: Mapping[Any, Any], key: str) -> str | None:
    value = given.get(key)
    if value is not None and not (isinstance(value, str) and value):
        what = "text" if key.endswith("_suffix") else "the path of a folder"
        raise DataError(f"{name}: {key} is {brief(value)}, expected {what}")
    return value


def _texts(name: str, given: Mapping[Any, Any], key: str) -> list[str]:
    values = given[key] if isinstance(given[key], list) else [given[key]]
    if not values or not all(isinstance(value, str) and value for value in values):
        raise DataError(f"{name}: {key} is {brief(given[key])}, expected the path of a folder, or a list of such")
    paths = [PurePath(os.path.normpath(value)) for value in values]
    if any(path == other or path in other.parents for path, other in permutations(paths, 2)):
        raise DataError(f"{name}: {key} names a folder twice, or one that lies in another; name it once")
    return values


def _bands(name: str, given: Mapping[Any, Any], key: str) -> tuple[int, ...]:
    values = given.get(key)
    values = [] if values is None else [values] if type(values) is int else values
    usable = isinstance(values, list) and all(type(value) is int and 1 <= value <= 1024 for value in values)
    if not usable or len(set(values)) < len(values):
        raise DataError(f"{name}: {key} is {brief(values)}, expected different numbers from 1 on, such as [4, 3, 2]")
    return tuple(values)


def _load(path: Path) -> dict[Any, Any]:
    given = read_yaml(path)
    if not isinstance(given, dict):
        raise DataError(f"{printable(path)}: holds {brief(given)}, expected the keys {', '.join(KEYS)}")
    return given


def _split_folders(name: str, root: Path, images: str, masks_dir: str) -> tuple[Path, Path]:
    folder = root / images
    if not _is_folder(folder):
        raise DataError(f"{name}: there is no folder {printable(folder)}; correct path or the split")
    parts = list(Path(images).parts)
    candidates = [root / masks_dir / folder.name, root / masks_dir]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        candidates.insert(0, root.joinpath(*parts[:last], masks_dir, *parts[last + 1 :]))
    for candidate in candidates:
        if _is_folder(candidate):
            return folder, candidate
    looked = dict.fromkeys(map(str, candidates))
    raise DataError(
        f"{name}: no masks for {printable(images)}: there is no folder {listed(looked)}; set masks_dir to theirs"
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long for any folder
        return False


def _names(name: str, given: Mapping[Any, Any]) -> tuple[str, ...]:
    """The classes, in their order; without ``names`` those that have colours."""
    values, colors = given.get("names"), given.get("colors")
    if values is None and isinstance(colors, dict):
        values = [key for key in colors if key != "void"]
    if values is None:
        raise DataError(f"{name}: has no names; add names: [CLASS, CLASS], the classes in the order of their numbers")
    if isinstance(values, dict):
        if set(values) != set(range(len(values))):
            raise DataError(
                f"{name}: names has the numbers {brief(list(values))}, expected 0..{len(values) - 1} once each"
            )
        values = [values[i] for i in range(len(values))]
    if not isinstance(values, list) or not values:
        raise DataError(f"{name}: names is {brief(values)}, expected a list, such as [background, scratch]")
    for value in values:
        if not isinstance(value, str):  # YAML reads no, yes, on, off as booleans
            raise DataError(f"{name}: the class name {brief(value)} is not text; put it in quotes")
    return tuple(values)


def _label_mapping(name: str, given: Any) -> dict[int, int] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or not all(type(v) is int for v in given.values()):
        raise DataError(f"{name}: label_mapping is {brief(given)}, expected whole numbers, such as {{0: 0, 255: 1}}")
    mapping: dict[int, int] = {}
    for key, target in given.items():
        for value in _file_values(name, key):
            if value in mapping:
                raise DataError(f"{name}: label_mapping gives {value} to {mapping[value]} and {target}; give it once")
            mapping[value] = target
    return mapping


def _file_values(name: str, key: Any) -> range:
    """One value, or the range that ``128-255`` names."""
    match = _RANGE.fullmatch(key) if isinstance(key, str) else None
    first, last = (int(match[1]), int(match[2])) if match else (key, key)
    if type(first) is not int or not 0 <= first <= last <= 65535:
        raise DataError(
            f"{name}: label_mapping has the key {brief(key)}, expected a value such as 7 or a range 128-255"
        )
    return range(first, last + 1)


def _colors(name: str, given: Any, names: Sequence[str]) -> dict[str, list[Colour]]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise DataError(f"{name}: colors is {brief(given)}, expected {{class name: [r, g, b] or '#rrggbb', ...}}")
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
    raise DataError(f"{name}: the colour of {key!r} is {brief(given)}, expected [r, g, b] of 0..255 or '#rrggbb'")
