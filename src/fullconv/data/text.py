"""Short texts that nobody has checked: class names, lists of images, YAML."""

from __future__ import annotations

from pathlib import Path

from fullconv.errors import DataError, printable

_MAX_BYTES = 2**20


def read_text(path: Path) -> str:
    """A short UTF-8 text, with or without byte order mark.

    Raises:
        DataError: larger than 1 MiB, not UTF-8, or not to be read; one line.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise DataError(f"{printable(path)}: is larger than 1 MiB; expected a short text")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror}); check the path") from error
