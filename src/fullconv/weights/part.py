"""The part of a file that has arrived: on disk, hashed, locked, with a record of what it is the beginning of."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from fullconv.errors import ModelFileError, printable
from fullconv.weights.published import PublishedWeights


class Hashes:
    """sha256 of a file, and the digest of the published kind."""

    def __init__(self, published: PublishedWeights) -> None:
        self.kind, _, self.expected = (published.digest or "sha256:").partition(":")
        self._own = hashlib.sha256()
        self._other = None if self.kind == "sha256" else hashlib.new(self.kind, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self._own.update(chunk)
        if self._other:
            self._other.update(chunk)

    def read(self, file: IO[bytes]) -> int:
        """Takes in the rest of a file; returns its bytes."""
        size = 0
        while chunk := file.read(1 << 20):
            self.update(chunk)
            size += len(chunk)
        return size

    @property
    def sha256(self) -> str:
        return self._own.hexdigest()

    @property
    def found(self) -> str:
        """Of the published kind, and as many digits as were published."""
        return (self._other or self._own).hexdigest()[: len(self.expected)]

    @property
    def state(self) -> str | None:
        """As in `Fetched`; None for another file than the published one."""
        if not self.expected:
            return "none published"
        return "matches" if self.found == self.expected else None


@dataclass
class Record:
    """What a part is the beginning of; its file is the lock, too."""

    path: Path
    file: BinaryIO

    def read(self) -> dict[str, Any]:
        self.file.seek(0)
        try:
            record = json.loads(self.file.read(1 << 16))
        except (ValueError, RecursionError):
            return {}  # a new one, or one that a power cut left half written
        return record if isinstance(record, dict) else {}

    def write(self, record: dict[str, Any]) -> None:
        self.file.truncate(0)
        self.file.write(json.dumps(record).encode())
        self.file.flush()

    def remove(self) -> None:
        with suppress(PermissionError):  # Windows lets no open file go: it stays, and does no harm
            self.path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[Record]:
    """The record, open and locked, so that two fetches never write to one part."""
    while True:
        with path.open("a+b") as file:
            try:
                _lock(file)
            except (BlockingIOError, PermissionError):
                raise ModelFileError(
                    f"{printable(path)} is in use by another fetch; wait for it, or name another file with -o"
                ) from None
            if _is_at(file, path):  # else another fetch ended between our opening and our locking, and took it away
                yield Record(path, file)
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO) -> None:
    """Locks a file for this process, or raises at once; the system frees it however the process ends."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Part:
    """The bytes that have arrived, on disk and hashed."""

    def __init__(self, path: Path, record: Record, published: PublishedWeights) -> None:
        self.path, self._record, self._published = path, record, published
        known = record.read()
        self.validator = usable_validator(known.get("validator"))
        self.total: int | None = known["total"] if isinstance(known.get("total"), int) else None
        self._file = path.open("a+b")
        self._hashes = Hashes(published)
        self._file.seek(0)
        if known.get("url") == published.url:
            self.size = self._hashes.read(self._file)
        else:
            self.restart()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not (self.size and self.validator):  # nothing that a later fetch could go on with
            self.remove()

    @property
    def sha256(self) -> str:
        return self._hashes.sha256

    def restart(self) -> None:
        self._file.truncate(0)
        self.size, self.validator, self.total, self._hashes = 0, "", None, Hashes(self._published)

    def begin(self, validator: str, total: int | None) -> None:
        """A transfer from the first byte on; the part is emptied before the record says what it will be."""
        self.restart()
        self.validator, self.total = validator, total
        self._record.write({"url": self._published.url, "validator": validator, "total": total})

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hashes.update(chunk)
        self.size += len(chunk)

    def finish(self, target: Path) -> str:
        """Gives the whole file its name, or removes it if it is another file; returns the digest's state."""
        if self._hashes.state is None:
            self.validator = ""  # so that it is removed
            raise ModelFileError(
                f"{self._published.url} gave another file: {self._hashes.kind} {self._hashes.found}, expected "
                f"{self._hashes.expected}; it was removed: fetch again, or {by_hand(target, self._published)}"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()  # Windows renames no open file
        self.path.replace(target)
        return self._hashes.state

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._record.remove()


def usable_validator(value: object) -> str:
    """A validator that can be sent back as a header, else nothing."""
    return value if isinstance(value, str) and value.isascii() and value.isprintable() else ""


def by_hand(target: Path, published: PublishedWeights) -> str:
    """What to do without this network."""
    return f"download it on another machine to {printable(target)}, then: {published.next_command(target)}"
