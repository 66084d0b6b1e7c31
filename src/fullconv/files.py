"""Atomic files and folders: written under a temporary name, then renamed, so that a half-written one never shows."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fullconv.errors import DataError, OptionError, one_line, printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the target's folder; renames it to the target if the block succeeds.

    The temporary name keeps the suffix, by which libraries choose a format. On an error nothing is left behind and
    an older target stays as it was.

    Args:
        path: of the target; missing folders are made.
        durable: it is on the disk before the target is replaced, and the new name when the block is left, so that a
            power cut leaves the old file or the new one, and after the block the new one. That costs milliseconds,
            which masks and pictures by the thousand, made again in seconds, need not.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # an ordinary new file's: safetensors would leave 0600
        temporary.unlink()  # so that a block that writes nothing cannot pass for one that wrote an empty file
        yield temporary
        temporary.chmod(mode)
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can tell (POSIX; some shares cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def hold(folder: Path) -> int | None:
    """Keep a folder this process's alone, where the file system can: a descriptor, until it is closed, or None.

    Raises:
        BlockingIOError: another process holds it.
        OSError: there is no such folder.
    """
    if fcntl is not None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:  # a file system without locks
            os.close(descriptor)
    return None


@contextmanager
def fresh_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside the target, which it becomes if the block succeeds; else nothing is left.

    Args:
        path: of the target, new or an empty folder.

    Raises:
        OptionError: something is there.
        DataError: it cannot be written.
    """
    target = Path(path).absolute()
    require_fresh(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        raise DataError(
            f"{printable(path)}: cannot be written ({one_line(error)}); check the folder and disk"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_fresh(path: Path) -> None:
    """Raise OptionError unless a folder can be made there."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OptionError(f"{printable(path)} exists and is not an empty folder; name a new one")
