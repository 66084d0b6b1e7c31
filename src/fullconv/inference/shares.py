"""shares.csv: the size of every labelled image, and the share of its pixels that each class has."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fullconv.errors import DataError, OptionError, printable
from fullconv.files import atomic
from fullconv.inference.journal import Entry, unwritable

if TYPE_CHECKING:
    import _csv

NAME = "shares.csv"

COLUMNS = ("image", "mask", "height", "width")
"""Before those of the classes."""


def write_shares(path: Path, classes: Sequence[str], rows: Sequence[tuple[Path, Entry]]) -> None:
    """Write a line for each image, in the order given, atomically.

    Shares are of all pixels, 0..1: what is missing to 1 is void. Texts are quoted, whatever they hold, numbers are
    not.

    Args:
        classes: names, in the order of the class numbers.
        rows: each image, and what was counted in its mask.

    Raises:
        DataError: it cannot be written.
    """
    try:
        with (
            atomic(path, durable=False) as temporary,
            # As messages show them: names may be no UTF-8, and the table must be.
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = _writer(file)
            writer.writerow([*COLUMNS, *classes])
            for image, entry in rows:
                pixels = entry.height * entry.width
                shares = [count / pixels for count in entry.counts]
                writer.writerow([str(image), entry.mask, entry.height, entry.width, *shares])
    except OSError as error:
        raise unwritable(path, error, kept=bool(rows)) from error


def remove_shares(path: Path) -> None:
    """Remove an earlier table: it must not stay beside masks that are made anew.

    Raises:
        OptionError: another file has the name.
        DataError: it cannot be removed.
    """
    expected = io.StringIO(newline="")
    _writer(expected).writerow(COLUMNS)
    start = expected.getvalue().rstrip("\n").encode()
    try:
        if not path.exists():
            return
        ours = path.is_file() and path.stat().st_size > 0
        if ours:
            with path.open("rb") as file:
                ours = file.read(len(start)) == start
        if not ours:
            raise OptionError(f"{printable(path)} is no table of shares, and would be replaced; choose another folder")
        path.unlink()
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be replaced ({error.strerror}); check the folder") from error


def _writer(file: io.StringIO | io.TextIOWrapper) -> _csv.Writer:
    return csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
