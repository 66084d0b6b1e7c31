"""Protobuf's wire format: the fields of a message in a file, found without reading what they hold.

Files come from anywhere: each length is checked against the message around it, and what could grow has a bound.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from fullconv.errors import ModelFileError, one_line, printable

MAX_FIELDS: Final = 1 << 17
"""Of a file, all messages together; a net of a thousand layers has some 20,000."""

MAX_NAME: Final = 1000
"""Bytes."""

CHUNK: Final = 1 << 16
"""Values that are looked at or converted at a time."""

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
"""Protobuf's wire types; 3 and 4 are its deprecated groups."""

WIDTH: Final = {EIGHT_BYTES: 8, FOUR_BYTES: 4}


class Field(NamedTuple):
    """One field, or a run of unpacked values of one field.

    Its content is bytes `start` to `stop` of the file; `value` is a varint's, `size` the number of values in a run.
    """

    at: int
    number: int
    wire: int
    start: int
    stop: int
    value: int
    size: int


class Scan:
    """A walk over the fields of one file; raises `ModelFileError` where it is damaged."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path, self.file = path, file
        self.size = os.fstat(file.fileno()).st_size
        self._left = MAX_FIELDS

    def damaged(self, at: int, found: str, expected: str) -> ModelFileError:
        """The error for this file."""
        return damaged(self.path, at, found, expected)

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message in bytes `start` to `stop`."""
        at = start
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise self.damaged(at, f"more than {MAX_FIELDS} fields", "the few thousand of a net")
            tag, begin = self.varint(at, stop, 5)
            number, wire = tag >> 3, tag & 7
            if not 1 <= number < 1 << 29:
                raise self.damaged(at, f"field number {number}", "1 to 536870911")
            value, size = 0, 1
            if wire == VARINT:
                value, end = self.varint(begin, stop, 10)
            elif wire == LENGTH:
                length, begin = self.varint(begin, stop, 5)
                end = begin + length
            elif wire in WIDTH:
                end = begin + WIDTH[wire]
            else:
                what = "a group" if wire in {3, 4} else f"wire type {wire}"
                raise self.damaged(at, f"field {number} is {what}", "a number, a float or a length")
            if end > stop:
                raise self.damaged(at, f"field {number} of {end - begin} bytes", f"at most {max(stop - begin, 0)}")
            if wire in WIDTH:
                more = self._run(end, stop, tag, 1 + WIDTH[wire])
                size, end = 1 + more, end + more * (1 + WIDTH[wire])
            yield Field(at, number, wire, begin, end, value, size)
            at = end

    def varint(self, at: int, stop: int, limit: int) -> tuple[int, int]:
        """A number of at most `limit` bytes, seven bits each, and where it ends."""
        content = self.read(at, min(at + limit, stop))
        value = 0
        for index, byte in enumerate(content):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if value >> 64:
                    raise self.damaged(at, "a number of more than 64 bits", "at most 64")
                return value, at + index + 1
        if len(content) == limit:
            raise self.damaged(at, f"a number of more than {limit} bytes", f"at most {limit}")
        raise self.damaged(at, "a message that ends within a number", "its last byte")

    def read(self, start: int, stop: int) -> bytes:
        """Some bytes, all of them."""
        self.file.seek(start)
        content = self.file.read(stop - start)
        if len(content) < stop - start:
            raise self.damaged(start + len(content), "the file ends", f"the {self.size} bytes it had at first")
        return content

    def int32(self, field: Field) -> int:
        """A signed number."""
        self.expect(field, VARINT, "a number")
        return signed(field.value, 32)

    def text(self, field: Field, what: str) -> str:
        """A name, in UTF-8."""
        self.expect(field, LENGTH, what)
        if field.stop - field.start > MAX_NAME:
            raise self.damaged(field.at, f"{what} of {field.stop - field.start} bytes", f"at most {MAX_NAME}")
        try:
            return self.read(field.start, field.stop).decode()
        except UnicodeDecodeError as error:
            raise self.damaged(field.start + error.start, f"{what} that is not UTF-8", "text") from error

    def expect(self, field: Field, wire: int, what: str) -> None:
        """Refuse a field of another wire type."""
        if field.wire != wire:
            raise self.damaged(field.at, f"field {field.number} of wire type {field.wire}", f"{what}, of type {wire}")

    def _run(self, at: int, stop: int, tag: int, step: int) -> int:
        """How many fields of the same tag and size follow at once, for files that store values unpacked."""
        if tag > 0x7F:
            return 0
        total, rows = 0, 8
        while rows := min(rows, (stop - at) // step):
            same = np.frombuffer(self.read(at, at + rows * step), np.uint8)[::step] == tag
            if not same.all():
                return total + int(same.argmin())
            total, at = total + rows, at + rows * step
            rows = min(2 * rows, CHUNK)  # grows with the run, so that a file of short runs costs no more than its size
        return total


def signed(value: int, bits: int) -> int:
    """A varint as a signed number of so many bits; protobuf drops higher ones."""
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half


def damaged(path: Path, at: int, found: str, expected: str) -> ModelFileError:
    """The error for a file that is not as its format has it at byte `at`."""
    return ModelFileError(
        f"{printable(path)} is damaged at byte {at}: {found}; expected {expected}: copy or download it again"
    )


def unreadable(path: Path, error: OSError) -> ModelFileError:
    """The error for a file that the system does not give."""
    return ModelFileError(f"{printable(path)} cannot be read ({one_line(error)}); check the file and its permissions")
