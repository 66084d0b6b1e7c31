"""Label maps in MATLAB 5 files, in which SBD, Pascal-Context, NYUDv2 and SIFT Flow keep theirs.

A MATLAB file is a tree of tagged pieces, and a short one can claim any size and any depth: cells nested a hundred
thousand deep end `scipy.io.loadmat` with a crash of the interpreter, and a struct of 288 bytes makes it ask for 7 GB.
So only the way to the one array that is wanted is walked here, at most one struct deep, and nothing is made before its
bytes were found. Source: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fullconv.data.sample import Array
from fullconv.errors import DataError, one_line, printable
from fullconv.labels import VOID

MAX_BYTES = 2**24
"""Of a file, and of what is in it once inflated; a label map of SIFT Flow takes 0.5 MB, one of SBD 0.2 MB."""

_PART = 2**18
"""Numbers that become classes at a time: NumPy makes eight bytes of each that it looks up in a table."""

_HEADER = 128
_HDF5 = 0x0200
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""NumPy's names of the numbers that pieces hold."""

_STRUCT = 2
_NUMERIC = range(6, 16)
_COMPLEX = 0x0800
_AGAIN = "copy or unpack it again"


@dataclass(frozen=True)
class MatReader:
    """How the numbers of a label map become classes.

    Attributes:
        variable: its name in the files; of a struct's field ``"STRUCT.FIELD"``.
        classes: class or 255 of the numbers `lowest`, `lowest` + 1, ...
        lowest: the smallest number in use.
    """

    variable: str
    classes: tuple[int, ...]
    lowest: int = 0

    @classmethod
    def from_one(cls, variable: str, count: int, lowest: int = 0) -> MatReader:
        """Classes counted from 1 in the files; numbers below that, from `lowest`, are void.

        >>> MatReader.from_one("S", 3, lowest=-1).classes
        (255, 255, 0, 1, 2)
        """
        return cls(variable, (VOID,) * (1 - lowest) + tuple(range(count)), lowest)

    def read(self, path: Path) -> Array:
        """The label map of a file, (H, W) uint8: class numbers and 255 = void.

        Raises:
            DataError: what `read_mat` raises; a number that is no class.
        """
        numbers = read_mat(path, self.variable)
        highest = self.lowest + len(self.classes) - 1
        if numbers.min() < self.lowest or numbers.max() > highest:
            strange = numbers[(numbers < self.lowest) | (numbers > highest)][0]
            raise DataError(
                f"{printable(path)}: {self.variable} holds the number {strange}, expected {self.lowest}..{highest}; "
                "take the file from the data set itself"
            )
        table, labels = np.array(self.classes, np.uint8), np.empty(numbers.size, np.uint8)
        for start in range(0, numbers.size, _PART):
            part = slice(start, start + _PART)
            labels[part] = table[numbers.reshape(-1)[part] - self.lowest]
        return labels.reshape(numbers.shape)


def read_mat(path: Path, variable: str) -> NDArray[np.int32]:
    """A matrix of whole numbers from a MATLAB 5 file.

    Args:
        variable: its name; of a struct's field ``"STRUCT.FIELD"``.

    Returns:
        (H, W) int32.

    Raises:
        DataError: a file that is missing, no MATLAB 5 file (HDF5, as MATLAB 7.3 writes it, is named), larger than
            `MAX_BYTES` or damaged, or holds no such matrix; one line.
    """
    name = printable(path)
    data, order = _content(path)
    variable, _, field = variable.partition(".")
    try:
        matrix = next((m for m in _matrices(name, data, order) if m.name == variable), None)
        if matrix is not None and field:
            matrix = _field(matrix, field, order)
        if matrix is None:
            what = f"{variable}.{field}" if field else variable
            raise DataError(f"{name}: holds no {what!r}; name the data set's folder that holds its label maps")
        values = _numbers(name, matrix, order)
    except (struct.error, zlib.error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: is damaged ({one_line(error)}); {_AGAIN}") from error
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int32, order="C")
    if not (whole == values).all():
        strange = values[whole != values][0]
        raise DataError(f"{name}: {matrix.name or field} holds {strange:g}, expected whole numbers; {_AGAIN}")
    return whole


class _Matrix(NamedTuple):
    """An array's kind, flags, dimensions and name, and the pieces that follow."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str
    rest: Iterator[tuple[int, memoryview]]


def _content(path: Path) -> tuple[memoryview, str]:
    """What follows a file's header, and its byte order."""
    name = printable(path)
    if not path.is_file():
        raise DataError(f"{name}: no such file; check the path")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({one_line(error)}); check the path and the disk") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: is larger than {MAX_BYTES >> 20} MiB; expected one label map a file")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER])
    if order is None:
        raise DataError(f"{name}: is no MATLAB 5 file; {_AGAIN}")
    if struct.unpack_from(f"{order}H", data, 124) == (_HDF5,):
        raise DataError(f"{name}: is a MATLAB 7.3 (HDF5) file, expected MATLAB 5; save it in MATLAB with -v7")
    return memoryview(data)[_HEADER:], order


def _pieces(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The type and content of one piece after another."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, end = at + 8, at + 8 + size
        if kind >> 16:  # up to 4 bytes are packed into the tag itself
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = at + 4, at + 4 + size
            if size > 4:
                raise ValueError(f"a packed piece of {size} bytes")
        if end > len(data):
            raise ValueError(f"a piece ends {end - len(data)} bytes after the end")
        yield kind, data[start:end]
        at = end if kind == _COMPRESSED else end + -end % 8


def _next(pieces: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    piece = next(pieces, None)
    if piece is None:
        raise ValueError("a piece is missing")
    return piece


def _matrices(name: str, data: memoryview, order: str) -> Iterator[_Matrix]:
    left = MAX_BYTES
    for piece in _pieces(data, order):
        kind, content = piece
        if kind == _COMPRESSED:
            inflated = zlib.decompressobj().decompress(content, left + 1)
            left -= len(inflated)
            if left < 0:
                raise DataError(f"{name}: holds more than {MAX_BYTES >> 20} MiB; expected one label map a file")
            kind, content = _next(_pieces(memoryview(inflated), order))
        if kind == _MATRIX:
            yield _matrix(content, order)


def _matrix(content: memoryview, order: str) -> _Matrix:
    rest = _pieces(content, order)
    (flags,) = struct.unpack_from(f"{order}I", _next(rest)[1])
    shape = tuple(np.frombuffer(_next(rest)[1], f"{order}i4").tolist())
    return _Matrix(flags & 0xFF, flags, shape, bytes(_next(rest)[1]).decode("latin-1"), rest)


def _field(matrix: _Matrix, wanted: str, order: str) -> _Matrix | None:
    """A field of a struct's first and only element."""
    if matrix.kind != _STRUCT or matrix.shape != (1, 1):
        return None
    (length,) = struct.unpack(f"{order}i", _next(matrix.rest)[1])
    names = bytes(_next(matrix.rest)[1])
    for start in range(0, len(names), max(length, 1)):
        _, content = _next(matrix.rest)
        if names[start : start + length].split(b"\0")[0] == wanted.encode():
            return _matrix(content, order)
    return None


def _numbers(name: str, matrix: _Matrix, order: str) -> NDArray[Any]:
    """(H, W) numbers, stored by columns and often narrower than their class says."""
    if matrix.kind not in _NUMERIC or matrix.flags & _COMPLEX or len(matrix.shape) != 2 or min(matrix.shape) < 1:
        raise DataError(f"{name}: {matrix.name or 'the field'} is no matrix of real numbers; {_AGAIN}")
    kind, content = _next(matrix.rest)
    if kind not in _TYPES:
        raise ValueError(f"numbers of type {kind}")
    values = np.frombuffer(content, f"{order}{_TYPES[kind]}")
    if values.size != matrix.shape[0] * matrix.shape[1]:
        raise ValueError(f"{values.size} numbers for {matrix.shape[0]} x {matrix.shape[1]}")
    return values.reshape(matrix.shape, order="F")
