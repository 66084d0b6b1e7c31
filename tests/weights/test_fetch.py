"""Fetching from a real server that cuts, lies, changes its mind and redirects."""

from __future__ import annotations

import hashlib
import http.server
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.errors import ModelFileError, OptionError
from fullconv.weights import fetch as module
from fullconv.weights import part
from fullconv.weights.fetch import Fetched, cache_folder, fetch
from fullconv.weights.published import PUBLISHED, PublishedWeights

BODY = random.Random(5).randbytes(300_001)
OTHER = random.Random(6).randbytes(300_001)
TAIL = "tiny-net.caffemodel"


class Answer:
    """One answer of the site; by default what a good server does, ended after `cut` bytes of the body."""

    def __init__(
        self,
        cut: int | None = None,
        *,
        body: bytes | None = None,
        code: int = 0,
        ranges: bool = True,
        if_range: bool = True,
        length: bool | int = True,
        span: str = "",
        chunked: bool = False,
        reset: bool = False,
        headers: dict[str, str | None] | None = None,
        wait: threading.Event | None = None,
    ) -> None:
        self.cut, self.body, self.code, self.ranges, self.if_range = cut, body, code, ranges, if_range
        self.length, self.span, self.chunked, self.reset = length, span, chunked, reset
        self.headers, self.wait = headers or {}, wait

    def send(self, handler: Handler) -> None:
        site, asked = handler.site, handler.headers
        body = site.body if self.body is None else self.body
        start, code = 0, self.code or 200
        headers: dict[str, str | None] = {"Content-Type": "application/octet-stream"}
        headers |= {"ETag": site.tag, "Last-Modified": site.modified}
        headers |= self.headers
        same = asked.get("If-Range") in (headers["ETag"], headers["Last-Modified"]) or not self.if_range
        if not self.code and self.ranges and asked.get("Range") and same:
            start = int(asked["Range"].removeprefix("bytes=").removesuffix("-"))
            code = 206 if start < len(body) else 416
            headers["Content-Range"] = self.span or f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.send_response(code)
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif self.length is not False:
            headers["Content-Length"] = str(len(body) - start if self.length is True else self.length)
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        piece = body[start:] if self.cut is None else body[start:][: self.cut]
        if self.chunked:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.write(b"0\r\n\r\n" if self.cut is None else b"")
        else:
            handler.wfile.write(piece)
        site.sent += len(piece)
        handler.wfile.flush()
        if self.wait:
            self.wait.wait(10)
        if self.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        self.close_connection = True
        self.site.asked.append({"path": self.path, **dict(self.headers)})
        answer = self.site.answers.pop(0) if self.site.answers else Answer()
        if answer is not CLOSE:
            answer.send(self)

    def log_message(self, *_: Any) -> None:
        pass


CLOSE = Answer()
"""The connection is closed without a word."""


class Site(http.server.ThreadingHTTPServer):
    """What there is to fetch, the answers to come (then good ones), the requests that came, the bytes sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(
            ("127.0.0.1", 0), type("OwnHandler", (Handler,), {"site": self, "protocol_version": "HTTP/1.1"})
        )
        self.clear()

    def handle_error(self, *_: Any) -> None:
        pass  # clients that hang up are part of the tests

    def clear(self) -> None:
        self.body = BODY
        self.tag: str | None = '"one"'
        self.modified: str | None = "Mon, 02 Mar 2015 10:00:00 GMT"
        self.answers: list[Answer] = []
        self.asked: list[dict[str, str]] = []
        self.sent = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [each.get("Range") for each in self.asked]


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        site.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts, no proxy of the machine that runs the tests."""
    monkeypatch.setattr(module, "PAUSES", (0.0,) * 4)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def site(server: Site) -> Site:
    server.clear()
    return server


def weights(url: str, digest: str | None = None) -> PublishedWeights:
    return PublishedWeights(url, "voc-fcn8s", digest, "a licence", "a net")


@pytest.fixture
def tiny(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts the published weights `tiny` into the table."""

    def put(digest: str | None = None, url: str = "") -> None:
        monkeypatch.setitem(PUBLISHED, "tiny", weights(url or f"{site.address}/{TAIL}", digest))

    put()
    return put


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(ModelFileError) as caught:
        fetch("tiny", *args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_hand(path: Path) -> str:
    return (
        f"download it on another machine to {path}, then: fullconv convert {path} --net voc-fcn8s -o "
        "voc-fcn8s.safetensors"
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


SHA1, SHA256 = hashlib.sha1(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize(
    ("digest", "state"),
    [
        (None, "none published"), (f"sha1:{SHA1}", "matches"), (f"sha256:{SHA256}", "matches"),
        (f"sha256:{SHA256[:8]}", "matches"),
    ],
)  # fmt: skip
def test_a_file_comes_whole(site: Site, tiny: Callable[..., None], tmp_path: Path, digest: str, state: str) -> None:
    tiny(digest)
    steps: list[tuple[int, int | None]] = []
    done = fetch("tiny", tmp_path, lambda *step: steps.append(step))
    assert done == Fetched(tmp_path / TAIL, len(BODY), state, SHA256, kept=False)
    assert done.path.read_bytes() == BODY
    assert files(tmp_path) == [TAIL]
    assert steps[0] == (0, len(BODY))
    assert steps[-1] == (len(BODY), len(BODY))
    assert steps == sorted(steps)
    assert len(site.asked) == 1
    assert site.asked[0]["User-Agent"].startswith("fullconv/")
    assert site.ranges == [None]
    mode, other = done.path.stat().st_mode, tmp_path / "other"
    other.touch()
    assert mode == other.stat().st_mode


@pytest.mark.usefixtures("tiny")
def test_where_it_goes(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("FULLCONV_CACHE", str(tmp_path / "own"))
    assert fetch("tiny").path == tmp_path / "own" / TAIL
    monkeypatch.delenv("FULLCONV_CACHE")
    assert fetch("tiny").path == tmp_path / "xdg" / "fullconv" / TAIL
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home" / ".cache" / "fullconv"
    assert fetch("tiny", tmp_path / "new" / "a.bin").path == tmp_path / "new" / "a.bin"
    assert fetch("tiny", str(tmp_path / "new")).path == tmp_path / "new" / TAIL
    monkeypatch.chdir(tmp_path)
    assert fetch("tiny", "b.bin").path == tmp_path / "b.bin"


def test_a_file_that_is_there_is_kept(site: Site, tiny: Callable[..., None], tmp_path: Path) -> None:
    tiny(f"sha1:{SHA1}")
    (tmp_path / TAIL).write_bytes(BODY)
    assert fetch("tiny", tmp_path) == Fetched(tmp_path / TAIL, len(BODY), "matches", SHA256, kept=True)
    tiny(None)
    (tmp_path / TAIL).write_bytes(b"mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    assert fetch("tiny", tmp_path) == Fetched(tmp_path / TAIL, 4, "none published", digest, kept=True)
    tiny(f"sha1:{SHA1}")
    found = hashlib.sha1(b"mine").hexdigest()
    assert refusal(tmp_path) == (
        f"{tmp_path / TAIL} is there and is another file: sha1 {found}, expected {SHA1}; move it away, or name another "
        "file with -o"
    )
    assert (tmp_path / TAIL).read_bytes() == b"mine"
    assert site.asked == []


@given(
    cuts=st.lists(st.tuples(st.integers(0, len(BODY)), st.booleans()), max_size=4),
    stops=st.lists(st.integers(1, len(BODY)), max_size=3),
    chunk=st.integers(1_000, 100_000),
)
@settings(max_examples=40)
def test_a_transfer_goes_on_byte_for_byte(
    server: Site, cuts: list[tuple[int, bool]], stops: list[int], chunk: int
) -> None:
    server.clear()
    server.answers = [Answer(cut, reset=reset) for cut, reset in cuts]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setitem(PUBLISHED, "tiny", weights(f"{server.address}/{TAIL}", f"sha1:{SHA1}"))
        patch.setattr(module, "CHUNK", chunk)
        for stop in sorted(stops):

            def halt(done: int, total: int | None, stop: int = stop) -> None:
                if stop <= done < len(BODY):
                    raise KeyboardInterrupt

            try:
                fetch("tiny", folder, halt)
            except KeyboardInterrupt:
                part = folder / f"{TAIL}.part"
                assert part.read_bytes() == BODY[: part.stat().st_size]
                assert part.stat().st_size >= stop
        done = fetch("tiny", folder)
        assert done.path.read_bytes() == BODY
        assert (done.digest, done.sha256, done.bytes) == ("matches", SHA256, len(BODY))
        assert files(folder) == [TAIL]
    starts = [int((each or "bytes=0-")[6:-1]) for each in server.ranges]
    assert starts == sorted(starts)
    if not stops and not any(reset for _, reset in cuts):
        assert server.sent == len(BODY)  # nothing came twice


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("answer", [Answer(70_000), Answer(70_000, reset=True), Answer(70_000, headers={"ETag": None})])
def test_the_next_request_asks_for_the_rest(site: Site, tmp_path: Path, answer: Answer) -> None:
    site.tag, site.answers = answer.headers.get("ETag", site.tag), [answer]
    fetch("tiny", tmp_path)
    assert (tmp_path / TAIL).read_bytes() == BODY
    first, second = site.asked
    assert "Range" not in first
    assert 0 < int(second["Range"].removeprefix("bytes=").removesuffix("-")) <= 70_000
    assert second["If-Range"] == (site.tag or site.modified)


@pytest.mark.usefixtures("tiny")
def test_a_killed_fetch_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    held = threading.Event()
    site.answers = [Answer(200_000, wait=held)]
    code = (
        "from fullconv.weights.fetch import fetch; from fullconv.weights.published import *; import sys;"
        f"PUBLISHED['tiny'] = PublishedWeights({PUBLISHED['tiny'].url!r}, 'n', None, '', '');"
        f"fetch('tiny', {str(tmp_path)!r}, lambda *_: print('', flush=True))"
    )
    part = tmp_path / f"{TAIL}.part"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        end = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < end:
            time.sleep(0.01)
        assert "in use by another fetch" in refusal(tmp_path)
        child.send_signal(signal.SIGKILL)
    held.set()
    arrived = part.stat().st_size
    assert arrived > 100_000
    fetch("tiny", tmp_path)
    assert (tmp_path / TAIL).read_bytes() == BODY
    assert site.ranges == [None, f"bytes={arrived}-"]
    assert files(tmp_path) == [TAIL]


def stopped(tmp_path: Path, site: Site, size: int = 100_000) -> int:
    """Leaves a part, as Ctrl-C does; returns its size."""

    def halt(done: int, total: int | None) -> None:
        if done >= size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", tmp_path, halt)
    assert files(tmp_path) == [f"{TAIL}.part", f"{TAIL}.part.json"]
    site.asked.clear()
    return (tmp_path / f"{TAIL}.part").stat().st_size


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("asked", [True, False])
def test_a_changed_file_begins_anew(site: Site, tmp_path: Path, asked: bool) -> None:
    """Whether the server looks at If-Range, or answers with the rest of the new file."""
    stopped(tmp_path, site)
    site.body, site.tag = OTHER, '"two"'
    if not asked:
        site.answers = [Answer(if_range=False)]
    assert fetch("tiny", tmp_path).path.read_bytes() == OTHER
    assert len(site.asked) == (1 if asked else 2)


@pytest.mark.usefixtures("tiny")
def test_what_began_anew_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    stopped(tmp_path, site)
    site.body, site.tag = OTHER, '"two"'
    size = stopped(tmp_path, site)
    assert fetch("tiny", tmp_path).path.read_bytes() == OTHER
    assert [(each["Range"], each["If-Range"]) for each in site.asked] == [(f"bytes={size}-", '"two"')]


@pytest.mark.usefixtures("tiny")
def test_a_part_longer_than_the_file_begins_anew(site: Site, tmp_path: Path) -> None:
    stopped(tmp_path, site)
    site.body = BODY[:50_000]  # with the tag of the longer one
    assert fetch("tiny", tmp_path).path.read_bytes() == BODY[:50_000]
    assert len(site.asked) == 2  # 416, then whole


@pytest.mark.usefixtures("tiny")
def test_a_file_of_another_length_begins_anew(site: Site, tmp_path: Path) -> None:
    site.tag = None
    stopped(tmp_path, site)
    site.body = OTHER + b"more"
    site.answers = [Answer(if_range=False)]
    assert fetch("tiny", tmp_path).path.read_bytes() == OTHER + b"more"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "answers",
    [
        [Answer(ranges=False)],
        [Answer(code=416)],
        [Answer(span="bytes 7-300000/300001")],
        [Answer(span="bytes 0-300000/300001")],
        [Answer(span="bytes x-y/z")],
        [Answer(code=206)],  # without a range
        [Answer(code=503), Answer(code=500), Answer(code=429), Answer(code=504)],
        [CLOSE, CLOSE, Answer(0), Answer(0, reset=True)],
        [Answer(90_000, ranges=False), Answer(50_000), CLOSE, Answer(code=502), Answer(7, reset=True)],
    ],
)
def test_a_server_that_errs_does_no_harm(site: Site, tmp_path: Path, answers: list[Answer]) -> None:
    stopped(tmp_path, site)
    site.answers = list(answers)
    assert fetch("tiny", tmp_path).path.read_bytes() == BODY
    assert files(tmp_path) == [TAIL]
    assert site.answers == []


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"\xff", b"[" * 70_000, b'{"url": 1}', b'{"validator": "\\"one\\"", "total": 300001}',
     b'{"url": "URL", "validator": "\\n", "total": 300001}', b'{"url": "URL", "validator": 5}',
     b'{"url": "URL", "validator": "\\"one\\"", "total": "x"}',
     b'{"url": "URL", "validator": "\\"one\\"", "total": -9}'],
)  # fmt: skip
def test_a_part_without_a_sound_record_is_not_trusted(site: Site, tmp_path: Path, record: bytes) -> None:
    stopped(tmp_path, site)
    (tmp_path / f"{TAIL}.part").write_bytes(b"not what the server has")
    (tmp_path / f"{TAIL}.part.json").write_bytes(record.replace(b"URL", PUBLISHED["tiny"].url.encode()))
    assert fetch("tiny", tmp_path).path.read_bytes() == BODY
    assert files(tmp_path) == [TAIL]


def test_a_part_of_another_address_is_not_trusted(site: Site, tiny: Callable[..., None], tmp_path: Path) -> None:
    stopped(tmp_path, site)
    tiny(url=f"{site.address}/elsewhere/{TAIL}")
    fetch("tiny", tmp_path)
    assert site.ranges == [None]


def test_a_whole_part_needs_no_server(site: Site, tiny: Callable[..., None], tmp_path: Path) -> None:
    stopped(tmp_path, site, len(BODY))  # stopped after the last byte
    assert fetch("tiny", tmp_path).path.read_bytes() == BODY
    assert site.asked == []


def test_without_a_validator_it_begins_anew(site: Site, tiny: Callable[..., None], tmp_path: Path) -> None:
    site.tag, site.modified = 'W/"weak"', None
    site.answers = [Answer(100_000)]
    assert fetch("tiny", tmp_path).path.read_bytes() == BODY
    assert site.ranges == [None, None]
    assert files(tmp_path) == [TAIL]


@pytest.mark.parametrize("digest", [f"sha1:{SHA1}", f"sha256:{SHA256[:8]}"])
def test_another_file_is_removed(site: Site, tiny: Callable[..., None], tmp_path: Path, digest: str) -> None:
    tiny(digest)
    site.body = OTHER
    kind, _, expected = digest.partition(":")
    found = hashlib.new(kind, OTHER).hexdigest()[: len(expected)]
    assert refusal(tmp_path) == (
        f"{site.address}/{TAIL} gave another file: {kind} {found}, expected {expected}; it was removed: fetch again, "
        f"or {by_hand(tmp_path / TAIL)}"
    )
    assert files(tmp_path) == []


def test_a_part_that_was_damaged_on_disk_is_found_out(site: Site, tiny: Callable[..., None], tmp_path: Path) -> None:
    tiny(f"sha1:{SHA1}")
    size = stopped(tmp_path, site)
    (tmp_path / f"{TAIL}.part").write_bytes(bytes(size))
    assert "gave another file" in refusal(tmp_path)
    assert files(tmp_path) == []
    assert fetch("tiny", tmp_path).digest == "matches"


def test_lengths_that_lie(site: Site, tiny: Callable[..., None], tmp_path: Path) -> None:
    site.answers = [Answer(length=len(BODY) + 9)] * 6
    site.tag, site.modified = 'W/"weak"', None
    message = refusal(tmp_path)
    assert "broke off 5 times (ended after 300,001 of 300,010 bytes)" in message
    assert len(site.asked) == 5  # and the first of them made progress
    site.answers = [Answer(length=len(BODY) - 9)]
    tiny(f"sha1:{SHA1}")
    assert "gave another file" in refusal(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.usefixtures("tiny")
def test_more_than_was_announced(site: Site, tmp_path: Path) -> None:
    size = stopped(tmp_path, site)
    site.answers = [Answer(body=BODY + b"tail", span=f"bytes {size}-300000/300001")]
    assert "sent more than 300,001 bytes" in refusal(tmp_path)
    assert files(tmp_path) == []


def test_files_without_a_length(site: Site, tiny: Callable[..., None], tmp_path: Path) -> None:
    tiny(f"sha1:{SHA1}")
    site.answers = [Answer(chunked=True, cut=70_000), Answer(chunked=True, ranges=False)]
    steps: list[tuple[int, int | None]] = []
    assert fetch("tiny", tmp_path, lambda *step: steps.append(step)).path.read_bytes() == BODY
    assert (len(BODY), None) in steps
    site.answers = [Answer(length=False)]
    assert fetch("tiny", tmp_path / "b").path.read_bytes() == BODY
    tiny(None)
    site.answers = [Answer(length=False)]
    assert "gives no length and has no known digest, so that a file cut short would go" in refusal(tmp_path / "c")


@pytest.mark.parametrize("chunked", [False, True])
def test_no_file_is_larger_than_any_published(
    site: Site, tiny: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    tiny(f"sha1:{SHA1}")
    monkeypatch.setattr(module, "MAX_SIZE", 200_000)
    site.answers = [Answer(chunked=chunked)]
    expected = "sent more than 200,000 bytes" if chunked else "announced 300,001 bytes; expected 1 to 200,000"
    assert expected in refusal(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.usefixtures("tiny")
def test_an_empty_file(site: Site, tmp_path: Path) -> None:
    site.body = b""
    assert "announced 0 bytes; expected 1 to 4,294,967,296" in refusal(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.usefixtures("tiny")
def test_a_full_disk_is_found_out_first(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [len(BODY) - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": room[0]}))
    assert refusal(tmp_path) == (
        f"{tmp_path} has 300,000 bytes free; the file needs 300,001: free space there or name another file with -o"
    )
    assert files(tmp_path) == []
    room[0] += 1
    stopped(tmp_path, site)
    room[0] -= 100_000  # the rest fits
    assert fetch("tiny", tmp_path).path.read_bytes() == BODY


@pytest.mark.usefixtures("tiny")
def test_a_place_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = refusal(tmp_path / "file" / "x.bin")
    assert message.startswith(f"{tmp_path / 'file' / 'x.bin'} cannot be written (")
    assert message.endswith("); free space there or name another file with -o")
    (tmp_path / "line\nbreak").mkdir()
    (tmp_path / "line\nbreak" / TAIL).mkdir()
    assert "line\\nbreak" in refusal(tmp_path / "line\nbreak")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(code=404), "answered 404 Not Found"),
        (Answer(code=403), "answered 403 Forbidden"),
        (Answer(code=203), "answered with 203 instead of the file"),
        (Answer(headers={"Content-Type": "text/html; charset=utf-8"}), "answered with a web page instead of the file"),
    ],
)
def test_refusals_are_final(site: Site, tmp_path: Path, answer: Answer, said: str) -> None:
    site.answers = [answer]
    assert refusal(tmp_path / "new") == (f"{site.address}/{TAIL} {said}; {by_hand(tmp_path / 'new')}")
    assert len(site.asked) == 1
    assert files(tmp_path) == []


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("code", [500, 416])
def test_a_server_in_trouble_is_asked_a_few_times(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module, "PAUSES", (1.0, 2.0, 4.0, 8.0))
    monkeypatch.setattr(time, "sleep", slept.append)
    site.answers = [Answer(code=code)] * 9
    assert f"broke off 5 times (answered {code} " in refusal(tmp_path)
    assert slept == [1, 2, 4, 8]
    assert files(tmp_path) == []


@pytest.mark.usefixtures("tiny")
def test_what_arrived_is_kept_when_the_server_gives_up(site: Site, tmp_path: Path) -> None:
    site.answers = [Answer(100_000), *[CLOSE] * 9]
    message = refusal(tmp_path)
    assert "broke off 5 times" in message
    assert "; what arrived (100,000 bytes) is kept for the next fetch; download it on another" in message
    site.answers = []
    fetch("tiny", tmp_path)
    assert site.ranges[-1] == "bytes=100000-"


@pytest.mark.usefixtures("tiny")
def test_a_server_that_always_begins_anew_and_breaks_off_is_given_up(site: Site, tmp_path: Path) -> None:
    site.answers = [Answer(100_000, ranges=False)] * 50
    assert "broke off 5 times" in refusal(tmp_path)
    assert len(site.asked) == 5


@pytest.mark.usefixtures("tiny")
def test_a_server_that_falls_silent(site: Site, tmp_path: Path) -> None:
    held = threading.Event()
    site.answers = [Answer(100_000, wait=held)]
    start = time.monotonic()
    assert fetch("tiny", tmp_path, timeout=0.3).path.read_bytes() == BODY
    assert time.monotonic() - start < 8  # the server would say nothing for 10 s
    held.set()
    assert len(site.asked) == 2


def test_offline_says_what_to_do_by_hand(
    tiny: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{TAIL}"  # nobody listens there
        tiny(url=url)
        message = refusal(tmp_path)
    assert message.startswith(f"{url} cannot be reached (ConnectionRefusedError: ")
    assert message.endswith(f"); {by_hand(tmp_path / TAIL)}")

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    tiny(url=f"https://weights.invalid/{TAIL}")
    assert refusal(tmp_path) == (
        f"https://weights.invalid/{TAIL} cannot be reached (gaierror: [Errno -2] Name or service not known); "
        f"{by_hand(tmp_path / TAIL)}"
    )
    assert files(tmp_path) == []


def test_only_http_and_https(tiny: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / TAIL).write_bytes(b"local")
    monkeypatch.setenv("ftp_proxy", "http://127.0.0.1:1")
    for url in (f"file://{tmp_path / TAIL}", f"ftp://127.0.0.1/{TAIL}", f"data:,x/{TAIL}"):
        tiny(url=url)
        assert "cannot be reached (URLError: <urlopen error unknown url type: " in refusal(tmp_path / "x")


@pytest.mark.usefixtures("tiny")
def test_redirects_within_http(site: Site, tmp_path: Path) -> None:
    moved = Answer(code=302, body=b"", headers={"Location": "/there?x=1"})
    site.answers = [moved, Answer(100_000), moved]
    assert fetch("tiny", tmp_path).path.read_bytes() == BODY
    assert [each["path"] for each in site.asked] == [f"/{TAIL}", "/there?x=1", f"/{TAIL}", "/there?x=1"]
    assert site.ranges[2:] == ["bytes=100000-"] * 2
    site.answers = [moved] * 20
    assert "answered 302" in refusal(tmp_path / "loop")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1/"])
def test_redirects_elsewhere_are_refused(site: Site, tmp_path: Path, to: str) -> None:
    site.answers = [Answer(code=302, body=b"", headers={"Location": to})]
    message = refusal(tmp_path)
    assert "answered 302 Found - " in message
    assert "is not allowed; download it on another machine" in message
    assert files(tmp_path) == []


def test_no_redirect_leaves_https() -> None:
    handler = module._Redirects()
    secure = request.Request("https://a.example/x")
    with tempfile.TemporaryFile() as body:
        moved = handler.redirect_request(secure, body, 302, "Found", {}, "https://b.example/x")  # type: ignore[arg-type]
        assert moved is not None
        assert body.closed
    with (
        tempfile.TemporaryFile() as body,
        pytest.raises(HTTPError, match="redirection to http://b.example/x is not allowed") as caught,
    ):
        handler.redirect_request(secure, body, 302, "Found", {}, "http://b.example/x")  # type: ignore[arg-type]
    caught.value.close()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("to", ["http://[::1/x", "http://127.0.0.1:port/x", "http://a..b/x"])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_to_nonsense(site: Site, tmp_path: Path, to: str, code: int) -> None:
    site.answers = [Answer(code=code, body=b"", headers={"Location": to})]
    message = refusal(tmp_path)
    assert f"answered {code} " in message
    assert " - redirection to no address (" in message


def test_proxies_are_those_of_the_environment(
    site: Site, tiny: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.address)
    tiny(url=f"http://weights.invalid/{TAIL}")
    fetch("tiny", tmp_path / "through")
    assert site.asked[0]["path"] == f"http://weights.invalid/{TAIL}"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    tiny()
    assert "cannot be reached" in refusal(tmp_path / "dead")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch("tiny", tmp_path / "past").path.read_bytes() == BODY


@pytest.mark.usefixtures("tiny")
def test_two_fetches_at_a_time(site: Site, tmp_path: Path) -> None:
    held = threading.Event()
    site.answers = [Answer(100_000, wait=held)]
    done: list[Fetched] = []
    first = threading.Thread(target=lambda: done.append(fetch("tiny", tmp_path)))
    first.start()
    while not (tmp_path / f"{TAIL}.part").exists():
        time.sleep(0.005)
    assert refusal(tmp_path) == (
        f"{tmp_path / TAIL}.part.json is in use by another fetch; wait for it, or name another file with -o"
    )
    held.set()
    first.join()
    assert done[0].path.read_bytes() == BODY
    assert fetch("tiny", tmp_path).kept


@pytest.mark.usefixtures("tiny")
def test_many_fetches_at_a_time_give_one_file(site: Site, tmp_path: Path) -> None:
    outcomes: list[object] = []

    def one() -> None:
        try:
            outcomes.append(fetch("tiny", tmp_path).path.read_bytes() == BODY)
        except ModelFileError as error:
            outcomes.append("in use by another fetch" in str(error))

    threads = [threading.Thread(target=one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 12
    assert files(tmp_path) == [TAIL]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("finished", [True, False])
def test_another_fetch_ends_between_opening_and_locking(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    """Its record is gone: ours must be a new one, and the file that it left is the one wanted."""
    lock, calls = part._lock, []

    def late(file: Any) -> None:
        calls.append(file.name)
        if len(calls) == 1:
            (tmp_path / f"{TAIL}.part.json").unlink()
            if finished:
                (tmp_path / TAIL).write_bytes(BODY)
        lock(file)

    monkeypatch.setattr(part, "_lock", late)
    done = fetch("tiny", tmp_path)
    assert (done.kept, len(calls), len(site.asked)) == (finished, 2, 0 if finished else 1)
    assert done.path.read_bytes() == BODY
    assert files(tmp_path) == [TAIL]


def test_unknown_names_and_timeouts() -> None:
    with pytest.raises(OptionError, match="unknown published weights 'vgg16-cafe'; did you mean 'vgg16-caffe'"):
        fetch("vgg16-cafe")
    for timeout in (0, -1, float("nan")):
        with pytest.raises(OptionError, match=f"timeout {timeout}; expected seconds above 0"):
            fetch("caffenet", timeout=timeout)
