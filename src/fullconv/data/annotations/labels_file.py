"""Text files of class names, one a line."""

from __future__ import annotations

from pathlib import Path

from fullconv.data.text import read_text


def read_names(path: Path) -> list[str]:
    """The names in order; empty lines are passed over.

    Raises:
        DataError: not to be read, or larger than 1 MiB.
    """
    return [name for line in read_text(path).splitlines() if (name := line.strip())]
