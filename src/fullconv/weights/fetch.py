"""Fetch: published weights come over the network, resumed where a transfer broke, checked by their digest."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from fullconv import __version__
from fullconv.errors import ModelFileError, OptionError, one_line, printable, unknown_name
from fullconv.weights.part import Hashes, Part, by_hand, locked, usable_validator
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
        with locked(target.with_name(f"{target.name}.part.json")) as record:
            if target.exists():  # another fetch, of another process, has just ended
                record.remove()
                return _kept(target, published)
            with Part(target.with_name(f"{target.name}.part"), record, published) as part:
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


class _TransferError(Exception):
    """A transfer that another attempt may bring to its end."""


def _kept(target: Path, published: PublishedWeights) -> Fetched:
    """The file that is there already, if it is the published one."""
    hashes = Hashes(published)
    with target.open("rb") as file:
        size = hashes.read(file)
    if hashes.state is None:
        raise ModelFileError(
            f"{printable(target)} is there and is another file: {hashes.kind} {hashes.found}, expected "
            f"{hashes.expected}; move it away, or name another file with -o"
        )
    return Fetched(target, size, hashes.state, hashes.sha256, kept=True)


@dataclass
class _Transfer:
    """Attempts at getting the rest of a part."""

    published: PublishedWeights
    part: Part
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
        return ModelFileError(f"{self.published.url} {what}{kept}; {by_hand(self.target, self.published)}")


def _reason(error: Exception) -> str:
    return printable(error)[:200] if isinstance(error, _TransferError) else one_line(error)


def _validator_of(headers: http.client.HTTPMessage) -> str:
    """What tells this version of a file from others; empty where the server gives nothing strong enough."""
    tag = usable_validator(headers.get("ETag"))
    return tag if tag.startswith('"') else usable_validator(headers.get("Last-Modified"))


def _continues(headers: http.client.HTTPMessage, part: Part) -> bool:
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
