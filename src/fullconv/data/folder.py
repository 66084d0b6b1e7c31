"""Plain folders of images and masks, and the YAML file that describes any other arrangement.

Plain layouts, masks paired with images by their relative path without suffix:

    {train,val,test}/{images,masks}    or    {images,masks}/{train,val,test}    or    {images,masks}

A data set with `train` and no `val`, or with no split folders at all, holds out a tenth of `train` as `val`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.image import load_picture, opened, shown
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import ImageMaskPairs, Pair, listed, pair_by_stem, pictures, require_split
from fullconv.errors import DataError, OptionError, unknown_name
from fullconv.labels import VOID, Colour, LabelSet

SPLITS = ("train", "val", "test")
HOLD_OUT = 10
"""One in so many samples of `train` is held out as `val` where a data set has none."""

YAML_SUFFIXES = (".yaml", ".yml")
YAML_KEYS = ("path", *SPLITS, "masks_dir", "names", "label_mapping", "colors")

_MAX_TEXT = 2**20  # bytes of a YAML file or a list of names
_HEX = re.compile(r"#([0-9a-fA-F]{6})")

Folders = Mapping[str, tuple[Path, Path]]
"""By split, the folder of the images and that of the masks."""


def recognise(path: Path) -> bool:
    """Whether a folder has one of the plain layouts."""
    return bool(_split_outside(path)) or all((path / name).is_dir() for name in ("images", "masks"))


def splits(path: Path) -> tuple[str, ...]:
    """The splits of a plain folder, the held-out one included."""
    return _with_hold_out(_folders(path))


def open_split(source: str, path: Path, split: str) -> ImageMaskPairs:
    """One split of a plain folder.

    Class names come from ``classes.txt`` (one a line) in the folder; without it the classes are numbered up to the
    highest value in the masks of all splits, in the colours of the first palette mask.

    Raises:
        DataError: no such split, images and masks that do not pair, masks from which no classes can be told.
    """
    folders = _folders(path)
    require_split(source, split, _with_hold_out(folders))
    labels = _named(path / "classes.txt") if (path / "classes.txt").is_file() else _inferred(source, folders)
    return ImageMaskPairs(source, split, _pairs(source, folders, split), labels, MaskReader(len(labels)))


def recognise_yaml(path: Path) -> bool:
    """Whether a path is a file with a YAML suffix."""
    return path.suffix.lower() in YAML_SUFFIXES and path.is_file()


def yaml_splits(path: Path) -> tuple[str, ...]:
    """The splits a YAML file describes, the held-out one included."""
    return _with_hold_out(_describe(path).folders)


def open_yaml(source: str, path: Path, split: str) -> ImageMaskPairs:
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
    require_split(source, split, _with_hold_out(described.folders))
    pairs = _pairs(source, described.folders, split)
    return ImageMaskPairs(source, split, pairs, described.labels, described.reader)


def held_out(names: Iterable[str]) -> frozenset[str]:
    """A tenth of the names, at least one: those with the smallest SHA-256, so that all machines hold out the same.

    >>> sorted(held_out(f"{i:04}" for i in range(20)))
    ['0004', '0014']
    """
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    return frozenset(ordered[: max(1, round(len(ordered) / HOLD_OUT))])


def _split_outside(path: Path) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if (path / split / "images").is_dir())


def _folders(path: Path) -> Folders:
    outside = _split_outside(path)
    if outside:
        found = {split: (path / split / "images", path / split / "masks") for split in outside}
    else:
        found = {split: (path / "images" / split, path / "masks" / split) for split in SPLITS}
        found = {split: pair for split, pair in found.items() if pair[0].is_dir()}
        found = found or {"train": (path / "images", path / "masks")}
    # A split without masks, such as a test split whose labels are kept back, cannot be trained or scored on.
    usable = {split: pair for split, pair in found.items() if pair[1].is_dir()}
    if not usable:
        raise DataError(f"{shown(path)}: no masks; expected them in {listed(str(m) for _, m in found.values())}")
    return usable


def _with_hold_out(folders: Folders) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if split in folders or (split == "val" and "train" in folders))


def _pairs(source: str, folders: Folders, split: str) -> Sequence[Pair]:
    if "train" not in folders or "val" in folders or split == "test":
        return pair_by_stem(source, *folders[split])
    pairs = pair_by_stem(source, *folders["train"])
    if len(pairs) < 2:
        raise DataError(
            f"{shown(source)}: holds one image, and val is held out of train; add images, or a val split of its own"
        )
    val = held_out(pair.name for pair in pairs)
    return tuple(pair for pair in pairs if (pair.name in val) == (split == "val"))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_TEXT + 1)
        if len(content) > _MAX_TEXT:
            raise DataError(f"{shown(path)}: is larger than 1 MiB; expected a short text")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(path)}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read ({error.strerror}); check the path") from error


def _named(path: Path) -> LabelSet:
    names = [line.strip() for line in _text(path).splitlines()]
    try:
        return LabelSet(tuple(name for name in names if name))
    except OptionError as error:
        raise DataError(f"{shown(path)}: {error}") from error


def _inferred(source: str, folders: Folders) -> LabelSet:
    files = [picture.path for _, masks in folders.values() for picture in pictures(source, masks).values()]
    if not files:
        raise DataError(f"{shown(source)}: no masks; expected them in {listed(str(m) for _, m in folders.values())}")
    stats = [(file, file.stat()) for file in files]
    return _scan(source, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


@lru_cache(maxsize=8)  # each split is opened by itself, and the scan reads the masks of all
def _scan(source: str, files: tuple[tuple[Path, int, int], ...]) -> LabelSet:
    errors: list[DataError] = []
    reader = MaskReader(VOID)

    def values(path: Path) -> NDArray[np.bool_]:
        try:
            return np.bincount(reader.read(path).ravel(), minlength=256) > 0
        except DataError as error:  # one bad mask is for `check` to report, with all others like it
            errors.append(error)
            return np.zeros(256, np.bool_)

    with ThreadPoolExecutor(2) as pool:
        occurs = np.zeros(256, np.bool_)
        for found in pool.map(values, (file for file, _, _ in files)):
            occurs |= found
    if not occurs.any():
        raise errors[0]
    present = np.flatnonzero(occurs[:VOID])
    count = int(present.max(initial=0)) + 1
    if count == 1 and occurs[VOID]:
        raise DataError(
            f"{shown(source)}: the masks hold only 0 and {VOID}, and {VOID} is void; for two classes run "
            f"`fullconv doctor DATA --fix OUT`, or write a YAML file with label_mapping: {{0: 0, {VOID}: 1}}"
        )
    if 4 * len(present) < count:
        raise DataError(
            f"{shown(source)}: the masks hold the values {listed(map(str, present))}, not class numbers 0, 1, 2 ...; "
            "name the classes in classes.txt, or map the values in a YAML file with names and label_mapping"
        )
    return LabelSet(tuple(str(i) for i in range(count)), _palette([file for file, _, _ in files], count))


def _palette(files: Sequence[Path], count: int) -> tuple[Colour, ...]:
    """The colours of the first mask that can be read, if it has a palette of `count` different colours."""
    for path in files:
        try:
            with opened(path) as (stream, head):
                picture = load_picture(path, stream, head)
                return _first_colours(picture, count)
        except DataError:
            continue
    return ()


def _first_colours(picture: Image.Image, count: int) -> tuple[Colour, ...]:
    flat = (picture.getpalette("RGB") or []) if picture.mode == "P" else []
    colours = tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, min(len(flat) - 2, 3 * count), 3))
    ramp = all(colour == (i, i, i) for i, colour in enumerate(colours))  # grey stored as palette: hardly visible
    return colours if len(set(colours)) == count and not ramp else ()


@dataclass(frozen=True)
class _Description:
    folders: Folders
    labels: LabelSet
    reader: MaskReader


def _describe(path: Path) -> _Description:
    """Read and check a YAML file; every DataError begins with its path."""
    name = shown(path)
    given = _load_yaml(path)
    for key in given:
        if key not in YAML_KEYS:
            raise DataError(f"{name}: {unknown_name('key', key, YAML_KEYS)}")
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


def _load_yaml(path: Path) -> dict[Any, Any]:
    text = _text(path)
    try:
        given = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{shown(path)}: is not valid YAML ({shown(reason)}); correct it there") from error
    if not isinstance(given, dict):
        raise DataError(f"{shown(path)}: holds {_brief(given)}, expected the keys {', '.join(YAML_KEYS)}")
    return given


def _split_folders(name: str, root: Path, images: str, masks_dir: str) -> tuple[Path, Path]:
    folder = root / images
    if not folder.is_dir():
        raise DataError(f"{name}: there is no folder {shown(folder)}; correct path or the split")
    parts = list(Path(images).parts)
    candidates = [root / masks_dir / folder.name, root / masks_dir]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        candidates.insert(0, root.joinpath(*parts[:last], masks_dir, *parts[last + 1 :]))
    for candidate in candidates:
        if candidate.is_dir():
            return folder, candidate
    raise DataError(f"{name}: no masks for {shown(images)}; looked in {listed(map(str, candidates))}; set masks_dir")


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
    text = shown(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."
