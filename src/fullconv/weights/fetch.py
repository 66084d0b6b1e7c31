"""Fetch: published weights come over the network, resumed where a transfer broke, checked by their digest."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from fullconv import __version__
from fullconv.errors import ModelFileError, OptionError, one_line, printable, unknown_name
from fullconv.weights.published import PUBLISHED, PublishedWeights

MAX_SIZE = 4 << 30
"""Bytes; the largest published file has 0.56 GB."""

CHUNK = 1 << 16
"""Bytes read at a time, so at most lost when a connection is reset."""

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before the attempts that follow a broken one; after the last the fetch fails. Progress begins anew."""

TRANSIENT = (408, 429, 500, 502, 503, 504)
"""Answers that a server may not give a second time."""

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Fetched:
    """A file that is there.

    Attributes:
        path: of the file.
        bytes: its size.
        digest: ``matches`` or ``none published``.
        sha256: of the file, hex.
        kept: it was there before.
    """

    path: Path
    bytes: int
    digest: str
    sha256: str
    kept: bool


def fetch(
    name: str, out: str | Path | None = None, progress: Progress | None = None, *, timeout: float = 30
) -> Fetched:
    """Fetch published weights, unless they are there already.

    What has arrived is kept in ``FILE.part`` when a transfer breaks or is stopped; the next one goes on there if the
    server still has the same file. The file itself appears whole or not at all. Proxies are those of the environment
    (``http_proxy``, ``https_proxy``, ``no_proxy``).

    Args:
        name: a key of `PUBLISHED`.
        out: the file to write, or an existing folder; default: `cache_folder`.
        progress: called with the bytes that are there and the bytes in all, None where the server does not say.
        timeout: seconds without an answer or a byte after which a connection is given up.

    Raises:
        OptionError: an unknown name; a timeout that is not above 0.
        ModelFileError: the file cannot be had, is not the published one, or cannot be written.
    """
    if name not in PUBLISHED:
        raise unknown_name("published weights", name, PUBLISHED)
    if not timeout > 0:
        raise OptionError(f"timeout {timeout}; expected seconds above 0")
    published = PUBLISHED[name]
    target = Path(cache_folder() if out is None else out)
    if out is None or target.is_dir():
        target /= urlsplit(published.url).path.rpartition("/")[2]
    target = target.absolute()
    try:
        if target.exists():
            return _kept(target, published)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{target.name}.part.json")) as record:
            if target.exists():  # another fetch, of another process, has just ended
                record.remove()
                return _kept(target, published)
            with _Part(target.with_name(f"{target.name}.part"), record, published) as part:
                _Transfer(published, part, target, progress or (lambda *_: None), timeout).run()
                digest = part.finish(target)
            record.remove()
            return Fetched(target, part.size, digest, part.sha256, kept=False)
    except OSError as error:
        raise ModelFileError(
            f"{printable(target)} cannot be written ({one_line(error)}); free space there or name another file with -o"
        ) from error


def cache_folder() -> Path:
    """Where files go unless told otherwise: $FULLCONV_CACHE, $XDG_CACHE_HOME/fullconv or ~/.cache/fullconv."""
    if own := os.environ.get("FULLCONV_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fullconv"


def convert_command(path: Path, net: str) -> str:
    """The command that makes a model of a fetched file.

    >>> convert_command(Path("/data/my nets/alexnet.pth"), "fcn32s-alexnet-owt")
    "fullconv convert '/data/my nets/alexnet.pth' --net fcn32s-alexnet-owt -o fcn32s-alexnet-owt.safetensors"
    """
    return f"fullconv convert {shlex.quote(printable(path))} --net {net} -o {net}.safetensors"


class _TransferError(Exception):
    """A transfer that another attempt may bring to its end."""


class _Hashes:
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


def _kept(target: Path, published: PublishedWeights) -> Fetched:
    """The file that is there already, if it is the published one."""
    hashes = _Hashes(published)
    with target.open("rb") as file:
        size = hashes.read(file)
    if hashes.state is None:
        raise ModelFileError(
            f"{printable(target)} is there and is another file: {hashes.kind} {hashes.found}, expected "
            f"{hashes.expected}; move it away, or name another file with -o"
        )
    return Fetched(target, size, hashes.state, hashes.sha256, kept=True)


@dataclass
class _Record:
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
def _locked(path: Path) -> Iterator[_Record]:
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
                yield _Record(path, file)
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


class _Part:
    """The bytes that have arrived, on disk and hashed."""

    def __init__(self, path: Path, record: _Record, published: PublishedWeights) -> None:
        self.path, self._record, self._published = path, record, published
        known = record.read()
        self.validator = _validator(known.get("validator"))
        self.total: int | None = known["total"] if isinstance(known.get("total"), int) else None
        self._file = path.open("a+b")
        self._hashes = _Hashes(published)
        self._file.seek(0)
        if known.get("url") == published.url:
            self.size = self._hashes.read(self._file)
        else:
            self.restart()

    def __enter__(self) -> _Part:
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
        self.size, self.validator, self.total, self._hashes = 0, "", None, _Hashes(self._published)

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
                f"{self._hashes.expected}; it was removed: fetch again, or {_by_hand(target, self._published)}"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()  # Windows renames no open file
        self.path.replace(target)
        return self._hashes.state

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._record.remove()


@dataclass
class _Transfer:
    """Attempts at getting the rest of a part."""

    published: PublishedWeights
    part: _Part
    target: Path
    progress: Progress
    timeout: float

    def run(self) -> None:
        part, failures, most = self.part, 0, self.part.size
        opener, connected = _opener(), False
        while part.total is None or part.size != part.total:
            try:
                with self._open(opener) as response:
                    connected = True
                    self._receive(response)
                return
            except URLError as error:
                broken = error.reason if isinstance(error.reason, Exception) else error
                if not connected:
                    raise self._failure(f"cannot be reached ({_reason(broken)})") from error
            except _TransferError as error:
                broken = error
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures > len(PAUSES):
                raise self._failure(f"broke off {failures} times ({_reason(broken)})") from broken
            time.sleep(PAUSES[failures - 1])

    def _open(self, opener: request.OpenerDirector) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"fullconv/{__version__}", "Accept-Encoding": "identity"}
        if self.part.size and self.part.validator:
            headers |= {"Range": f"bytes={self.part.size}-", "If-Range": self.part.validator}
        try:
            response = opener.open(request.Request(self.published.url, headers=headers), timeout=self.timeout)  # noqa: S310  (the opener knows http and https only)
        except HTTPError as error:
            error.close()
            if error.code == 416:
                self.part.restart()
            if error.code in (416, *TRANSIENT):
                raise _TransferError(f"answered {error.code} {error.reason}") from error
            raise self._failure(f"answered {error.code} {printable(error.reason)[:80]}") from error
        except URLError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise _TransferError(one_line(error)) from error
        return response  # type: ignore[no-any-return]

    def _receive(self, response: http.client.HTTPResponse) -> None:
        """Take the body in, to its end.

        Raises:
            _TransferError: it ended early or is not what was asked for.
        """
        part = self.part
        self._check(response)
        if response.status == 200:
            part.begin(_validator_of(response.headers), response.length)
        limit = MAX_SIZE if part.total is None else part.total
        self.progress(part.size, part.total)
        while chunk := self._read(response):
            if part.size + len(chunk) > limit:
                part.restart()
                raise self._failure(f"sent more than {limit:,} bytes")
            part.write(chunk)
            self.progress(part.size, part.total)
        if part.total is not None and part.size < part.total:
            raise _TransferError(f"ended after {part.size:,} of {part.total:,} bytes")

    def _check(self, response: http.client.HTTPResponse) -> None:
        """That an answer can be the file, or the rest of it, and that there is room."""
        part = self.part
        kind = response.headers.get("Content-Type", "")
        if response.status not in (200, 206) or kind.startswith("text/html"):
            what = "a web page" if kind.startswith("text/html") else response.status
            raise self._failure(f"answered with {what} instead of the file")
        total = response.length
        if response.status == 206:
            if not _continues(response.headers, part):
                part.restart()
                raise _TransferError("answered with another range than was asked for")
            total = part.total
        elif total is None and self.published.digest is None:
            raise self._failure("gives no length and has no known digest, so that a file cut short would go unnoticed")
        if total is not None and not 0 < total <= MAX_SIZE:
            raise self._failure(f"announced {total:,} bytes; expected 1 to {MAX_SIZE:,}")
        free = shutil.disk_usage(self.target.parent).free
        needed = (total or 0) - part.size  # which goes on, or makes room
        if needed > free:
            raise ModelFileError(
                f"{printable(self.target.parent)} has {free:,} bytes free; the file needs {needed:,}: free space there "
                "or name another file with -o"
            )

    @staticmethod
    def _read(response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _TransferError(one_line(error)) from error

    def _failure(self, what: str) -> ModelFileError:
        kept = f"; what arrived ({self.part.size:,} bytes) is kept for the next fetch" if self.part.validator else ""
        return ModelFileError(f"{self.published.url} {what}{kept}; {_by_hand(self.target, self.published)}")


def _by_hand(target: Path, published: PublishedWeights) -> str:
    return f"download it on another machine to {printable(target)}, then: {convert_command(target, published.net)}"


def _reason(error: Exception) -> str:
    return printable(error)[:200] if isinstance(error, _TransferError) else one_line(error)


def _validator_of(headers: http.client.HTTPMessage) -> str:
    """What tells this version of a file from others; empty where the server gives nothing strong enough."""
    tag = _validator(headers.get("ETag"))
    return tag if tag.startswith('"') else _validator(headers.get("Last-Modified"))


def _validator(value: object) -> str:
    """A validator that can be sent back as a header, else nothing."""
    return value if isinstance(value, str) and value.isascii() and value.isprintable() else ""


def _continues(headers: http.client.HTTPMessage, part: _Part) -> bool:
    """Whether a partial answer is the rest of the part: not every server that knows ranges knows If-Range."""
    span = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", headers.get("Content-Range", ""))
    tag = headers.get("ETag", part.validator)
    same = tag == part.validator or not part.validator.startswith('"')
    return span is not None and same and (int(span[1]), int(span[2])) == (part.size, part.total)


class _Redirects(request.HTTPRedirectHandler):
    """Follows redirects within http and https, and never from https to http."""

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme, req.type) != ("http", "http"):
            raise HTTPError(req.full_url, code, f"{msg} - redirection to {newurl} is not allowed", headers, fp)
        fp.close()  # its body would be read, however long
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (ValueError, http.client.InvalidURL) as error:
            raise HTTPError(req.full_url, code, f"{msg} - redirection to no address ({error})", headers, fp) from error

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> request.OpenerDirector:
    """An opener for http and https alone: the usual one reads files and speaks FTP as well."""
    opener = request.OpenerDirector()
    proxies = {scheme: url for scheme, url in request.getproxies().items() if scheme in ("http", "https")}
    for handler in (
        request.ProxyHandler(proxies), request.UnknownHandler(), request.HTTPHandler(), request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(), _Redirects(), request.HTTPErrorProcessor(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener
