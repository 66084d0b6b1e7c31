"""The journal of a folder of masks: which images were labelled, by what, so that another call can go on.

A hidden file of JSON lines: first the identity of what labels, then an entry for each image, added when its files are
in place. A line that a kill tore does not count, nor does an entry whose files have since changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from fullconv.errors import DataError, OptionError, printable
from fullconv.files import atomic, hold

NAME = ".labelled.jsonl"
"""Hidden, so that no folder of images or masks shows it."""

MAX_LINE = 1 << 16
"""Bytes: the longest name that systems allow, escaped, and the counts of 255 classes."""

FULL = (errno.ENOSPC, errno.EDQUOT)

HOPELESS = (*FULL, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE)
"""Errors of a disk: the next file would meet them too."""

DIGITS = 8
"""Of digests, as messages show them."""

Identity = Mapping[str, str | bool]
"""By name, what labels are made by: model, versions and options."""

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}(\.[^.]+)", re.DOTALL)  # as `fullconv.files.atomic` names them
_TEXT, _NUMBER, _NUMBERS = ("mask", "stamp"), ("height", "width"), ("sizes", "counts")


@dataclass(frozen=True)
class Entry:
    """An image that was labelled.

    Attributes:
        mask: its path below the folder.
        stamp: of the image's file, see `stamp`.
        sizes: bytes of each file that was written.
        height, width: of the image.
        counts: pixels of each class; void's are in none.
    """

    mask: str
    stamp: str
    sizes: tuple[int, ...]
    height: int
    width: int
    counts: tuple[int, ...]

    def holds(self, mark: str, outputs: Sequence[Path], classes: int) -> bool:
        """Whether the image's stamp is the same and all that was wanted is there, of the sizes that were written."""
        return mark == self.stamp and len(self.counts) == classes and _sizes(outputs) == self.sizes

    def line(self) -> bytes:
        """What `read` inverts."""
        return _line(asdict(self))

    @classmethod
    def read(cls, line: bytes) -> Entry | None:
        """The entry of a line; None: it is torn, or none that `line` writes."""
        value = object_of(line)
        if set(value) != {*_TEXT, *_NUMBER, *_NUMBERS}:
            return None
        numbers = [value[name] for name in _NUMBER]
        for name in _NUMBERS:
            if not isinstance(value[name], list):
                return None
            numbers += value[name]
        if not all(isinstance(value[name], str) for name in _TEXT):
            return None
        if not all(type(number) is int and number >= 0 for number in numbers):
            return None
        if sum(value["counts"]) > value["height"] * value["width"] or not value["height"] * value["width"]:
            return None
        return cls(**value | {name: tuple(value[name]) for name in _NUMBERS})


class Journal:
    """The journal of a folder; see `held`.

    Attributes:
        folder: of the masks.
        path: of the journal in it.
        kept: whether it holds entries, which another call goes on from.

    Args:
        mask: the one that it is of; default: all of the folder.
    """

    def __init__(self, folder: Path, mask: Path | None = None) -> None:
        self.folder, self.path = folder, folder / (NAME if mask is None else f".{mask.name}{NAME}")
        self._shown = folder if mask is None else mask
        self._appending = Lock()
        self.kept = False

    def name(self, mask: Path) -> str:
        """What a mask is called in the journal."""
        return mask.relative_to(self.folder).as_posix()

    def read(self) -> tuple[dict[str, Any], dict[str, Entry]]:
        """Identity and entries by mask; both empty where no journal is, or none that can be read."""
        entries: dict[str, Entry] = {}
        if not self.path.is_file():
            return {}, {}
        try:
            with self.path.open("rb") as file:
                identity = object_of(file.readline(MAX_LINE))
                for line in iter(lambda: file.readline(MAX_LINE), b""):
                    if entry := Entry.read(line):
                        entries[entry.mask] = entry
        except OSError:
            return {}, {}
        return identity, entries

    def write(self, identity: Identity, entries: Iterable[Entry]) -> None:
        """Write it anew; raises DataError."""
        lines = [entry.line() for entry in entries]
        self.kept = bool(lines)
        with self._writing(self.folder), atomic(self.path, durable=False) as path, path.open("wb") as file:
            file.write(_line(dict(identity)))
            file.writelines(lines)

    def append(self, entry: Entry) -> None:
        """Add an entry, from any thread: a kill after this does not lose it; raises DataError."""
        # Unlike "ab", "rb+" does not make anew what has vanished.
        with self._appending, self._writing(self.path), self.path.open("rb+") as file:
            file.seek(0, os.SEEK_END)
            file.write(entry.line())
            self.kept = True

    def remove(self) -> None:
        """Forget all; raises DataError."""
        with self._writing(self.folder):
            self.path.unlink(missing_ok=True)
            self.kept = False

    def require(self) -> None:
        """The folder must still be there: what writes into it would make it anew, elsewhere if its disk is gone.

        Raises:
            DataError: it has vanished.
        """
        self._require(self.path)

    def _require(self, path: Path) -> None:
        if not path.exists():
            raise DataError(
                f"{printable(self.folder)} has vanished, or its journal {NAME}, while images were labelled; "
                "check the folder and disk, then go on with --resume"
            )

    def sweep(self, outputs: Iterable[Path]) -> None:
        """Remove temporary files that a kill left of these outputs and of the journal."""
        names: dict[Path, set[str]] = {}
        for path in (*outputs, self.path):
            names.setdefault(path.parent, set()).add(path.name)
        for folder, known in names.items():
            with suppress(OSError):
                for path in folder.iterdir():
                    found = _TEMPORARY.fullmatch(path.name)
                    if found and found[1] + found[2] in known:
                        path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self, there: Path) -> Iterator[None]:
        """`there` was there before."""
        try:
            yield
        except OSError as error:
            self._require(there)
            raise unwritable(self._shown, error, self.kept, f"its journal {self.path.name} ") from error


@contextmanager
def held(folder: Path) -> Iterator[Journal]:
    """The journal of a folder, which is this process's alone until the block ends, and is made if it is not there.

    Raises:
        OptionError: another call labels images into it.
        DataError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{printable(folder)} is a file; masks go into a folder: name another")
    descriptor = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = hold(folder)
    except BlockingIOError as error:
        raise OptionError(f"another call labels images into {printable(folder)}; choose another folder") from error
    except OSError as error:
        raise unwritable(folder, error, kept=False) from error
    try:
        yield Journal(folder)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def record_of(mask: Path) -> Journal:
    """The journal of a single raster: a hidden file beside it, not to be appended to."""
    return Journal(mask.parent, mask)


def stamp(image: Path, number: int | None = None, more: Iterable[Path] = ()) -> str:
    """What tells a file from its later versions and from others: of its place, size and time of change.

    Args:
        number: of a map in a file of wafer maps.
        more: files that the image is read from too.

    Returns:
        32 hex digits; nothing for a file that cannot be looked at.
    """
    try:
        facts = image.stat()
        text = f"{facts.st_size} {facts.st_mtime_ns} {number} {image.resolve()}"
        for path in more:
            facts = path.stat()
            text += f"\0{facts.st_size} {facts.st_mtime_ns} {path.resolve()}"
    except OSError:
        return ""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]


def entry_of(mask: str, mark: str, outputs: Sequence[Path], size: tuple[int, int], counts: Sequence[int]) -> Entry:
    """The entry of an image whose files are in place; raises OSError where one is not."""
    return Entry(mask, mark, tuple(path.stat().st_size for path in outputs), *size, tuple(counts))


def differing(found: Mapping[str, Any], wanted: Identity) -> tuple[str, Any, Any] | None:
    """The first part in which two identities differ: its name, what it was and what it is now; None: not given."""
    for name in (*wanted, *(name for name in found if name not in wanted)):
        was, now = found.get(name), wanted.get(name)
        if was != now:
            return name, was, now
    return None


def difference(found: Mapping[str, Any], wanted: Identity) -> str:
    """The same in words; of digests the first eight digits."""
    name, was, now = differing(found, wanted) or ("", None, None)
    if now is None:
        return "other options"
    shown = ["default" if each == "None" else "unknown" if each is None else printable(each) for each in (was, now)]
    long = DIGITS if name in ("model", "calibration") else 80
    return f"{name} {shown[0][:long]}, not {shown[1][:long]}"


def unwritable(path: Path, error: OSError, kept: bool = True, part: str = "") -> DataError:
    """The error that ends a call, since every further file would meet it.

    Args:
        kept: something was done before, and is kept.
        part: of what is at `path`, with a space after it.
    """
    mend = "free some space" if error.errno in FULL else "check the folder and disk"
    mend = f"what was done is kept: {mend}, then go on with --resume" if kept else mend
    return DataError(f"{printable(path)}: {part}cannot be written ({error.strerror}); {mend}")


def _sizes(paths: Sequence[Path]) -> tuple[int, ...] | None:
    try:
        return tuple(path.stat().st_size for path in paths)
    except OSError:
        return None


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def object_of(line: bytes) -> dict[str, Any]:
    """The JSON object of a whole line; empty where it is none."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
