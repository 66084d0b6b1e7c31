"""A CSV file of numbers: grows by lines, and comes back from whatever a kill left of it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fullconv.errors import DataError, TrainingError, printable
from fullconv.files import atomic

Row = dict[str, float | None]
"""By column; None where nothing was measured."""


class Table:
    """A CSV file of numbers that grows by lines; its header and what was read back are written anew, atomically.

    Args:
        path: of the file; nothing is read or written before a method is called that does.
        columns: the first of them ``step``.

    Attributes:
        columns: of the file; may grow.
        rows: of the file, by column; columns that a row lacks are empty.
    """

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self.path = path
        self.columns = list(columns)
        self.rows: list[Row] = []
        self._header: list[str] | None = None  # of the file that this object has written

    def add_columns(self, names: Iterable[str], before: str | None = None) -> None:
        """Further columns, those that are not there; before one of them, or at the end."""
        place = len(self.columns) if before is None else self.columns.index(before)
        self.columns[place:place] = [name for name in dict.fromkeys(names) if name not in self.columns]

    def append(self, row: Row) -> None:
        """Write a line.

        Raises:
            TrainingError: the disk is full, or cannot be written.
        """
        self.rows.append(row)
        if self._header != self.columns:
            self._rewrite()
            return
        with _writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            self._write(file, [row])

    def sync(self) -> None:
        """All rows are on the disk when this returns; raises as `append`."""
        if self._header == self.columns:
            with _writing(self.path), self.path.open("rb+") as file:
                os.fsync(file.fileno())
        elif self.rows or self.path.exists():  # what `restore` dropped must not come back with a later state
            self._rewrite()

    def restore(self, step: int) -> list[str]:
        """Read the rows back up to a step, its own included; what a kill left at the end is dropped.

        Returns:
            The file's columns, which may be fewer, more and in another order; none if there is no file.

        Raises:
            DataError: the file cannot be read, or is damaged before a row that counts.
        """
        if not self.path.is_file():
            return []
        try:
            header, lines, first = self._read()
        except (OSError, ValueError, csv.Error) as error:
            raise self._unreadable(error) from error
        rows: list[Row] = []
        damaged: tuple[int, str] | None = None
        for number, line in enumerate(lines, first):
            row = _row(line, header)
            if row is None:
                damaged = damaged or (number, line)
            elif (row["step"] or 0) <= step:
                if damaged:
                    found, expected = f"line {damaged[0]}: found {damaged[1][:40]!r}", f"{len(header)} numbers"
                    raise self._unreadable(f"{found}, expected {expected}")
                rows.append(row)
        self.rows[:] = rows
        self._header = None
        return header

    def _read(self) -> tuple[list[str], list[str], int]:
        """Header, complete lines below it, and the number of the first of them."""
        content = self.path.read_bytes()
        text = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace")
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, strict=True)  # of the header alone, for names may be quoted; no number is
        header = next(reader, ["step"])
        if header[:1] != ["step"] or len(set(header)) < len(header):
            raise ValueError(f"line 1: found {','.join(header)[:40]!r}, expected columns, the first of them step")
        return header, lines.read().split("\n")[:-1], reader.line_num + 1

    def _unreadable(self, why: object) -> DataError:
        return DataError(f"{printable(self.path)} cannot be read ({why}); move it away to go on without it")

    def _rewrite(self) -> None:
        with _writing(self.path), atomic(self.path) as path, path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(self.columns)
            self._write(file, self.rows)
        self._header = list(self.columns)

    def _write(self, file: io.TextIOBase, rows: Iterable[Row]) -> None:
        writer = csv.DictWriter(file, self.columns, restval="")
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def _row(line: str, header: Sequence[str]) -> Row | None:
    """The numbers of a line; None: it is damaged."""
    fields = line.removesuffix("\r").split(",")
    try:
        row = dict(zip(header, [float(field) if field else None for field in fields], strict=True))
    except ValueError:
        return None
    return row if (row["step"] or 0.0).is_integer() and fields[0] else None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{printable(path)}: cannot be written ({error.strerror}); free some space and go on with --resume"
        ) from error


def _text(value: float | None) -> str:
    """Whole numbers with all their digits, as steps need, others with six."""
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"
