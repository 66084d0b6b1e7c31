"""Short texts that nobody has checked: class names, lists of images, YAML."""

from __future__ import annotations

from pathlib import Path

from fullconv.errors import DataError, printable

MAX_BYTES = 2**20


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """A short UTF-8 text, with or without byte order mark.

    Args:
        max_bytes: the largest file that is read, a multiple of 1 MiB.

    Raises:
        DataError: larger than `max_bytes`, not UTF-8, or not to be read; one line.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            expected = "a short text" if max_bytes == MAX_BYTES else "a smaller file; split it"
            raise DataError(f"{printable(path)}: is larger than {max_bytes >> 20} MiB; expected {expected}")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror}); check the path") from error
