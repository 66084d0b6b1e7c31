"""Real wafer maps, which have labels of whole maps and no masks: inputs for prediction, not for training.

WM-811K and MixedWM38 are passed on as ``.npz`` with one of these contents, or as ``.npy`` with maps alone:

    flat (all dies of all maps), shapes (N, 2), labels (N,)    maps of many sizes
    maps (N, H, W), labels (N,) or (N, K), names (K,)          maps of one size
    arr_0 (N, H, W), arr_1 (N, 8)                              MixedWM38 as published

A map holds 0 off the wafer, 1 pass and 2 fail (reference 10.2). Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.image import check_pixels
from fullconv.data.pairs import require_split
from fullconv.data.sample import IMAGE, SEMANTIC, Array, InputKind, Sample
from fullconv.data.wafer import FAIL, LENGTHS, WAFER_LABELS, render
from fullconv.errors import DataError, OptionError, one_line, printable
from fullconv.files import atomic
from fullconv.labels import VOID, LabelSet

if TYPE_CHECKING:
    from fullconv.metrics import Absent

SPLIT = "maps"
"""All that a file holds."""

MIXED_PATTERNS = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Scratch", "Random")
"""Of MixedWM38, in the order of its labels."""

MAX_DIES = 2**30
"""Of all maps of a file; each takes one byte of memory."""

MAX_MAPS = 2**21
"""Of a file; WM-811K has 811,457."""

MAX_BYTES = 2**26
"""Of the shapes, labels and names of a file."""

_LEAST = 8
"""Dies of the shorter side, by which maps are told from pictures: those end in 1, 3 or 4 channels."""

_MOST_ARRAYS = 8
_MOST_NAMES = 256
_MOST_MARKS = 2**23
_CONTENTS = ("flat", "maps", "arr_0")
_CHUNK = 2**20
_SUFFIXES = (".npz", ".npy")
_EXPECTED = "expected maps of 0, 1 and 2 as flat and shapes, maps, or arr_0"


class WaferMaps(Sequence[Array]):
    """The maps of a file: (H, W) uint8 of 0, 1 and 2, read at the first of them; see `wafer_maps`.

    Attributes:
        path: of the file.
        shapes: (H, W) of each map.
        labels: the patterns that are published of each map; none where none are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _arrays(path) as arrays:
            kind = next((name for name in _CONTENTS if name in arrays), None)
            if kind is None:
                raise _unusable(path, f"holds {', '.join(map(printable, arrays)) or 'nothing'}", _EXPECTED)
            self._cells = kind
            shape, _, numbers = _header(arrays[kind])
            if prod(shape) > MAX_DIES:
                raise _unusable(path, f"has {prod(shape)} dies", f"expected up to {MAX_DIES}")
            if kind == "flat" and "shapes" in arrays:
                sizes = _small(path, arrays["shapes"], 2 * MAX_MAPS)
                if sizes.ndim != 2 or sizes.shape[1:] != (2,) or sizes.dtype.kind not in "ui":
                    raise _unusable(path, f"holds shapes of {sizes.dtype} {sizes.shape}", "expected (N, 2) integers")
                self.shapes = [(int(h), int(w)) for h, w in sizes]
            elif len(shape) == 3:
                if shape[0] > MAX_MAPS:
                    raise _unusable(path, f"has {shape[0]} maps", f"expected up to {MAX_MAPS}")
                self.shapes = [(shape[1], shape[2])] * shape[0]
            else:
                raise _unusable(path, f"holds {kind} of shape {shape}", _EXPECTED)
            if _is_npy(path) and path.stat().st_size < arrays[kind].tell() + prod(shape) * numbers.itemsize:
                raise ValueError("cut short")
            for size in set(self.shapes):
                check_pixels(printable(path), size, MAX_DIES)
            dies = sum(map(prod, self.shapes))
            if dies != prod(shape):
                raise _unusable(path, f"has {prod(shape)} dies in {dies} places", "expected as many")
            self.labels = _labels(path, arrays, len(self.shapes))
        self._ends = np.cumsum([prod(size) for size in self.shapes])

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Array]: ...
    def __getitem__(self, index: int | slice) -> Array | Sequence[Array]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        height, width = self.shapes[index]
        end = self._ends[index]
        return self._flat[end - height * width : end].reshape(height, width).copy()

    def __len__(self) -> int:
        return len(self.shapes)

    def name(self, index: int) -> str:
        """The map's file, number and patterns, such as ``val_data_000012_Edge-Ring+Scratch``."""
        patterns = "+".join(re.sub(r"[^A-Za-z0-9-]", "-", label)[:40] for label in self.labels[index])
        return "_".join(filter(None, (self.path.stem, f"{index:06}", patterns)))

    @cached_property
    def _flat(self) -> Array:
        """All dies, map after map."""
        with _arrays(self.path) as arrays:
            stream = arrays[self._cells]
            shape, by_columns, kind = _header(stream)
            if kind.kind not in "ui":
                raise _unusable(self.path, f"holds {kind} numbers", _EXPECTED)
            flat = np.empty(prod(shape), np.uint8)  # takes no memory before it is written
            for start in range(0, flat.size, _CHUNK):
                count = min(_CHUNK, flat.size - start)
                part = _numbers(stream, count, kind)
                if (strange := part[(part < 0) | (part > FAIL)]).size:
                    raise _unusable(self.path, f"holds the number {strange[0]}", _EXPECTED)
                flat[start : start + count] = part
        return flat.reshape(shape, order="F").ravel() if by_columns else flat


def wafer_maps(path: str | Path) -> WaferMaps:
    """The maps of a ``.npz`` or ``.npy`` file, with the labels of whole maps that are published with them.

    Raises:
        DataError: a file that is missing, damaged, too large or holds something else; other numbers than 0, 1 and 2,
            which is found when the first map is read.
    """
    return WaferMaps(Path(path))


def maps_to_images(path: str | Path, folder: str | Path, limit: int | None = None) -> list[Path]:
    """Write maps as PNG pictures, one pixel a die, drawn as those that nets are trained on (`fullconv.data.wafer`).

    Args:
        path: see `wafer_maps`.
        folder: of the pictures; their names say number and patterns (`WaferMaps.name`).
        limit: only so many maps, spread evenly over the file; default: all.

    Raises:
        DataError: what `wafer_maps` raises.
        OptionError: a limit below 1.
    """
    maps = wafer_maps(path)
    if limit is not None and limit < 1:
        raise OptionError(f"{limit} wafer maps asked for; give a limit of 1 or more")
    count = min(len(maps), limit or len(maps))
    written = []
    for index in (position * len(maps) // count for position in range(count)):
        written.append(Path(folder) / f"{maps.name(index)}.png")
        with atomic(written[-1], durable=False) as temporary:
            Image.fromarray(render(maps[index])).save(temporary, "PNG")
    return written


class WaferMapDataset:
    """Wafer maps as a data set (the protocol of `fullconv.data.sample.Dataset`): inputs, and masks that are void."""

    def __init__(self, source: str, files: Sequence[WaferMaps]) -> None:
        self.source, self.split = source, SPLIT
        self.labels: Mapping[str, LabelSet] = {SEMANTIC: WAFER_LABELS}
        self.absent: Mapping[str, Absent] = {}
        self.inputs: Mapping[str, InputKind] = {IMAGE: InputKind()}
        self.files = tuple(files)
        self._places = [(maps, index) for maps in files for index in range(len(maps))]
        self.names: Sequence[str] = [maps.name(index) for maps, index in self._places]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """The map drawn as an image; raises DataError where its file cannot be read."""
        maps, number = self._places[index]
        image = render(maps[number])
        return Sample(self.names[index], {IMAGE: image}, {SEMANTIC: np.full(image.shape[:2], VOID, np.uint8)})

    def fingerprint(self) -> str:
        """A digest (64 hex digits) of the names and the files' sizes."""
        sizes = [str(maps.path.stat().st_size) for maps in self.files]
        return hashlib.sha256("\n".join([*sizes, *self.names]).encode("utf-8", "surrogateescape")).hexdigest()


def recognise(path: Path) -> bool:
    """Whether a path is a file of wafer maps, or a folder that holds ``.npz`` files of them."""
    return bool(_files(path))


def splits(path: Path) -> tuple[str, ...]:
    """One, with all maps."""
    return (SPLIT,) if recognise(path) else ()


def open_split(source: str, path: Path, split: str) -> WaferMapDataset:
    """All maps.

    Raises:
        DataError: a split to train or score on, since there are no masks; a file that cannot be used.
    """
    if split in LENGTHS:
        raise DataError(
            f"{printable(source)}: holds wafer maps with labels of whole maps and no masks, so nothing can be trained "
            "or scored on it; train on the data set 'wafer', and label these maps with fullconv predict"
        )
    require_split(source, split, splits(path))
    return WaferMapDataset(source, [wafer_maps(file) for file in _files(path)])


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.glob("*.npz") if file.is_file() and _holds_maps(file))
    return [path] if path.suffix.lower() in _SUFFIXES and path.is_file() and _holds_maps(path) else []


def _holds_maps(path: Path) -> bool:
    try:
        with _arrays(path) as arrays:
            if "flat" in arrays:
                return "shapes" in arrays
            kind = next((name for name in _CONTENTS if name in arrays), None)
            shape = _header(arrays[kind])[0] if kind else ()
    except DataError:
        return False
    return len(shape) == 3 and min(shape[1:]) >= _LEAST


def _labels(path: Path, arrays: Mapping[str, IO[bytes]], count: int) -> list[tuple[str, ...]]:
    """Of each map: its one label, or the names of those that are marked."""
    stream = arrays.get("labels", arrays.get("arr_1"))
    if stream is None:
        return [()] * count
    labels = _small(path, stream, _MOST_MARKS)
    if labels.shape == (count,):
        return [(str(label),) for label in labels.tolist()]
    names = (
        tuple(map(str, _small(path, arrays["names"], _MOST_NAMES).tolist())) if "names" in arrays else MIXED_PATTERNS
    )
    if labels.shape != (count, len(names)) or labels.dtype.kind not in "uib":
        raise _unusable(
            path,
            f"has labels of {labels.dtype} {labels.shape}",
            f"expected {count} names, or ({count}, {len(names)}) numbers",
        )
    return [tuple(name for name, marked in zip(names, row, strict=True) if marked) for row in labels.tolist()]


@contextmanager
def _arrays(path: Path) -> Iterator[dict[str, IO[bytes]]]:
    """The arrays of a file by name, each as the stream of its ``.npy``; damage inside becomes a DataError."""
    name = printable(path)
    try:
        if _is_npy(path):
            with path.open("rb") as stream:
                yield {"maps": stream}
            return
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = archive.namelist()[:_MOST_ARRAYS]
            yield {each.removesuffix(".npy"): stack.enter_context(archive.open(each)) for each in names}
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file; check the path") from error
    except Exception as error:  # archives and headers can be damaged in any way
        raise _unusable(path, f"cannot be read ({one_line(error)})", "it is damaged or no .npz or .npy file") from error


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the array is stored by columns, and the kind of its numbers."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, kind = read(stream)
    if kind.hasobject:
        raise ValueError("pickled objects, which are not loaded")
    if any(side < 0 for side in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, by_columns, kind


def _small(path: Path, stream: IO[bytes], most: int) -> NDArray[Any]:
    """An array that is not the maps, of so many numbers or names at most: each becomes a Python object."""
    shape, by_columns, kind = _header(stream)
    if prod(shape) > most or prod(shape) * kind.itemsize > MAX_BYTES:
        found = f"holds an array of {kind} {shape}"
        raise _unusable(path, found, f"expected labels of up to {MAX_BYTES >> 20} MiB, and up to {most} of them")
    return _numbers(stream, prod(shape), kind).reshape(shape, order="F" if by_columns else "C")


def _numbers(stream: IO[bytes], count: int, kind: np.dtype[Any]) -> NDArray[Any]:
    data = stream.read(count * kind.itemsize)
    if len(data) != count * kind.itemsize:
        raise ValueError("cut short")
    return np.frombuffer(data, kind)


def _unusable(path: Path, found: str, expected: str) -> DataError:
    return DataError(f"{printable(path)}: {found}; {expected}; export the maps again")
