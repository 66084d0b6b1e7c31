"""The spool of a raster being labelled: raw labels on the disk, and a journal of what is done, to go on from."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from PIL import Image

from fullconv.data.sample import Array
from fullconv.data.text import brief
from fullconv.errors import OptionError, printable
from fullconv.files import atomic, hold, sync_folder
from fullconv.inference.journal import differing, object_of

LABELS = "labels.raw"
"""(H, W) uint8, row after row."""

CONFIDENCE = "confidence.raw"
"""(K, H, W) uint8, plane after plane."""

JOURNAL = "journal"
"""A line of JSON: the identity; then lines of numbers: how many parts are done, and the pixels of each class in them.
The last line counts."""

SECONDS = 3.0
"""Between waits for the disk: what is done in that time is done again after a kill."""

MAX_LINE = 2**24
"""Bytes of a line of a journal that is read."""


_OURS = re.compile(r"journal|\.journal\.[0-9a-f]{8}|(labels|confidence)\.(raw|tif|vrt)(\..+)?", re.DOTALL)
"""Names of what is in a spool: the journal, also as `fullconv.files.atomic` makes it, and what GDAL adds to ours."""


def folder_of(out: Path) -> Path:
    """The hidden folder beside a target in which it is spooled."""
    return out.with_name(f".{out.name}.partial")


def discard(folder: Path) -> None:
    """Remove what a kill left of a spool whose files are finished, unless another process writes there."""
    with suppress(OSError, OptionError):
        held = _hold(folder)
        _remove(folder)
        if held is not None:
            os.close(held)


class Spool:
    """Labels on their way to the disk, part after part.

    A part counts as done when its bytes are on the disk, which is waited for every `SECONDS` and at the end.

    Args:
        folder: of the spool; made where it is not there.
        size: (H, W) of the labels.
        planes: K of the confidences; 0 for none.
        identity: what the labels depend on. Only a spool of the same is gone on with.
        parts: how many there are.
        resume: go on with the spool that is there, if there is one; else it is discarded.
        classes: whose pixels are counted.
        anew: called with how it differs where a spool of another identity is there, which is then discarded; default:
            that is an error.

    Attributes:
        done: how many parts are on the disk for sure.
        counts: pixels of each class in what was written.

    Raises:
        OptionError: a spool of another identity is to be gone on with, another process writes there, or the folder is
            a link or holds what no spool does.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        size: tuple[int, int],
        planes: int,
        identity: Mapping[str, str],
        parts: int,
        resume: bool,
        *,
        classes: int = 0,
        anew: Callable[[str], None] | None = None,
    ) -> None:
        self.folder, self.size, self.planes, self.parts, self._anew = folder, size, planes, parts, anew
        self.done, self.counts = 0, [0] * classes
        self._files: list[IO[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._held = _hold(folder)
        try:
            if resume:
                self._go_on(identity)
            if self.done == 0:
                self._begin(identity)
            self._labels = self._open(LABELS)
            self._confidence = self._open(CONFIDENCE) if planes else None
            self._journal = self._open(JOURNAL)
            self._journal.seek(0, os.SEEK_END)
        except BaseException:
            self.close()
            raise
        self._written = self.done
        self._synced = time.monotonic()
        self._failed: OSError | None = None
        self._unsure: OSError | None = None

    def write(self, rows: tuple[int, int], columns: tuple[int, int], labels: Array, confidence: Array | None) -> None:
        """The next part: labels (h, w) uint8, confidence (K, h, w) uint8 or None.

        Raises:
            OSError: the disk is full or damaged; the part does not count then.
        """
        if self._failed is not None:  # a later part must not be counted in the place of this one
            raise self._failed
        try:
            self._put(self._labels, 0, rows, columns, labels)
            if self._confidence is not None and confidence is not None:
                for plane in range(self.planes):
                    self._put(self._confidence, plane, rows, columns, confidence[plane])
        except OSError as error:
            self._failed = error
            raise
        self._written += 1
        found = Image.fromarray(labels).histogram()  # numpy would make eight bytes of each
        self.counts = [had + more for had, more in zip(self.counts, found, strict=False)]
        if time.monotonic() - self._synced >= SECONDS:
            self.sync()

    def sync(self) -> None:
        """Wait until all written parts are on the disk, then count them.

        Raises:
            OSError: the disk is full or damaged.
        """
        if self._unsure is not None:
            raise self._unsure
        if self._written > self.done:
            try:
                for file in (self._labels, self._confidence):
                    if file is not None:
                        os.fsync(file.fileno())
                _write_all(self._journal, " ".join(map(str, (self._written, *self.counts))).encode() + b"\n")
                os.fsync(self._journal.fileno())
            except OSError as error:
                # Asked again, the system may say that all is well: it forgets what it could not write.
                self._failed = self._unsure = error
                raise
            self.done = self._written
        self._synced = time.monotonic()

    def close(self) -> None:
        """Close the files; the folder stays. What `sync` has not counted does not count."""
        self._close_files()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def remove(self) -> None:
        """Close the files and remove the folder."""
        self._close_files()
        _remove(self.folder)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _close_files(self) -> None:
        for file in self._files:
            with suppress(OSError):
                file.close()
        self._files = []

    def _open(self, name: str) -> IO[bytes]:
        # Unbuffered: an error belongs to the write that met it.
        file: IO[bytes] = (self.folder / name).open("r+b", buffering=0)
        self._files.append(file)
        return file

    def _sizes(self) -> dict[str, int]:
        pixels = self.size[0] * self.size[1]
        return {LABELS: pixels} | ({CONFIDENCE: pixels * self.planes} if self.planes else {})

    def _begin(self, identity: Mapping[str, str]) -> None:
        """Empty files; the journal comes last, so that a kill in between leaves nothing to go on from."""
        for path in self.folder.iterdir():
            if not _OURS.fullmatch(path.name):
                raise OptionError(
                    f"{printable(path)} lies where parts are to be kept, and is none; move it, or choose another --out"
                )
        _clear(self.folder)
        for name, length in self._sizes().items():
            with (self.folder / name).open("xb") as file:
                file.truncate(length)
        with atomic(self.folder / JOURNAL) as path:
            path.write_text(json.dumps(dict(identity)) + "\n", "utf-8")
        sync_folder(self.folder.parent)

    def _go_on(self, identity: Mapping[str, str]) -> None:
        """Count what is done of a spool of this identity, if there is one."""
        journal = self.folder / JOURNAL
        try:
            file = journal.open("rb")
        except FileNotFoundError:
            return
        with file:
            first = file.readline(MAX_LINE)
            found = _identity(first)
            if found is None or not self._is_same(found, identity):
                return
            for name, length in self._sizes().items():
                path = self.folder / name
                if not path.is_file() or path.stat().st_size != length:
                    return
            valid = len(first)
            for line in iter(lambda: file.readline(MAX_LINE), b""):
                done, *counts = _numbers(line) or [-1]
                if not self.done <= done <= self.parts or len(counts) != len(self.counts):
                    break
                if sum(counts) > self.size[0] * self.size[1]:
                    break
                self.done, self.counts, valid = done, counts, valid + len(line)
        os.truncate(journal, valid)

    def _is_same(self, found: Mapping[str, str], identity: Mapping[str, str]) -> bool:
        """Whether what is there is of this identity; raises OptionError where it must be."""
        differs = differing(found, identity)
        if differs is None:
            return True
        name, was, now = differs
        why = f"{printable(name)} {_shown(was)}, found {_shown(now)}"
        if self._anew is None:
            raise OptionError(
                f"{printable(self.folder)} was begun with {why}; label it as it was begun, or leave --resume out to "
                "begin again"
            )
        self._anew(why)
        return False

    def _put(self, file: IO[bytes], plane: int, rows: tuple[int, int], columns: tuple[int, int], values: Array) -> None:
        height, width = self.size
        start = (plane * height + rows[0]) * width + columns[0]
        if columns == (0, width):
            file.seek(start)
            _write_all(file, np.ascontiguousarray(values).tobytes())
            return
        for row in values:
            file.seek(start)
            _write_all(file, row.tobytes())
            start += width


def _write_all(file: IO[bytes], content: bytes) -> None:
    """Write all of it: near the disk's end, a write may take a part."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _hold(folder: Path) -> int | None:
    if folder.is_symlink():
        raise OptionError(
            f"{printable(folder)} is a link, expected a folder of ours; remove it, or choose another --out"
        )
    try:
        return hold(folder)
    except BlockingIOError as error:
        raise OptionError(
            f"another process writes to {printable(folder)}; wait for it, or choose another --out"
        ) from error


def _remove(folder: Path) -> None:
    """The folder stays where others have put something into it."""
    with suppress(OSError):
        _clear(folder)
        folder.rmdir()


def _clear(folder: Path) -> None:
    """The journal goes first: what a kill leaves after that is nothing to go on from, nor to refuse."""
    (folder / JOURNAL).unlink(missing_ok=True)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink()


def _shown(value: str | None) -> str:
    return "not given" if value is None else brief(value)


def _identity(line: bytes) -> dict[str, str] | None:
    """The first line of a journal; None where it is cut or was never one."""
    value = object_of(line)
    return value if value and all(isinstance(item, str) for item in value.values()) else None


def _numbers(line: bytes) -> list[int] | None:
    """The numbers of a line of a journal; None where the line is cut or was never one."""
    words = line[:-1].split(b" ")
    if not line.endswith(b"\n") or not all(word.isdigit() and len(word) < 20 for word in words):
        return None
    return [int(word) for word in words]
