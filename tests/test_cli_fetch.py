"""`fullconv fetch` as people and machines meet it."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from command import Run
from fullconv.cli.fetch import _transfer_bar
from fullconv.weights.published import PUBLISHED, PublishedWeights

BODY = bytes(range(256)) * 999
SHA1, SHA256 = hashlib.sha1(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PublishedWeights]:
    """Published weights on a server of ours; no proxy of the machine that runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tiny.caffemodel").write_bytes(BODY)
    handler = functools.partial(Handler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/tiny.caffemodel"
        scores = {"pixel accuracy": 0.91234, "mean IU": 0.5}
        tiny = PublishedWeights(url, "voc-fcn8s", f"sha1:{SHA1}", "a licence", "a net", "seg11valid", scores)
        monkeypatch.setitem(PUBLISHED, "tiny", tiny)
        yield tiny
        server.shutdown()
        thread.join()


def test_it_says_what_came_and_what_comes_next(run: Run, tiny: PublishedWeights, tmp_path: Path) -> None:
    out = tmp_path / "my nets"
    out.mkdir()
    file = out / "tiny.caffemodel"
    first = run("fetch", "tiny", "-o", out)
    assert (first.code, first.err) == (0, "")
    assert first.out.splitlines() == [
        f"File     {file} ({len(BODY):,} bytes)",
        f"Digest   matches the published sha1; sha256 {SHA256}",
        "Licence  a licence",
        "Scores   pixel accuracy 91.2, mean IU 50.0 on seg11valid",
        f"Next     fullconv convert '{file}' --net voc-fcn8s -o voc-fcn8s.safetensors",
    ]
    assert file.read_bytes() == BODY
    second = run("fetch", "tiny", "-o", out)
    assert second.out.splitlines()[0] == f"File     {file} ({len(BODY):,} bytes, there already)"
    assert second.out.splitlines()[1:] == first.out.splitlines()[1:]


@pytest.mark.parametrize(
    ("digest", "line"),
    [
        (None, f"Digest   none published, so the file could not be checked; sha256 {SHA256}"),
        (f"sha256:{SHA256[:8]}", f"Digest   matches the published sha256 (8 digits of it); sha256 {SHA256}"),
    ],
)
def test_what_the_digest_was_worth(
    run: Run, tiny: PublishedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str | None, line: str
) -> None:
    monkeypatch.setitem(PUBLISHED, "tiny", PublishedWeights(tiny.url, "voc-fcn8s", digest, "a licence", "a net"))
    lines = run("fetch", "tiny", "-o", tmp_path / "a.bin").out.splitlines()
    assert lines[1] == line
    assert [each.split()[0] for each in lines] == ["File", "Digest", "Licence", "Next"]


def test_for_machines(run: Run, tiny: PublishedWeights, tmp_path: Path) -> None:
    result = run("fetch", "tiny", "-o", tmp_path / "a.bin", "--json")
    assert (result.code, result.err) == (0, "")
    said = json.loads(result.out)
    assert said.pop("next") == f"fullconv convert {tmp_path / 'a.bin'} --net voc-fcn8s -o voc-fcn8s.safetensors"
    assert said == {
        "name": "tiny", "url": tiny.url, "net": "voc-fcn8s", "licence": "a licence", "about": "a net",
        "scored_on": "seg11valid", "scores": {"pixel accuracy": 0.91234, "mean IU": 0.5},
        "path": str(tmp_path / "a.bin"), "bytes": len(BODY), "digest": "matches", "published_digest": f"sha1:{SHA1}",
        "sha256": SHA256, "kept": False,
    }  # fmt: skip


def test_the_next_command_is_one_that_convert_takes(run: Run, tiny: PublishedWeights, tmp_path: Path) -> None:
    words = shlex.split(
        run("fetch", "tiny", "-o", tmp_path / "a b.caffemodel").out.splitlines()[-1].removeprefix("Next")
    )
    assert words[0] == "fullconv"
    result = run(*words[1:])
    assert result.code == 1  # 2 were a usage error; these are no weights
    assert "a b.caffemodel" in result.err


@pytest.mark.parametrize("args", [(), ("--list",), ("vgg16-caffe", "--list")])
def test_the_table_fits_100_columns(run: Run, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]) -> None:
    monkeypatch.setenv("COLUMNS", "60")  # of no terminal
    result = run("fetch", *args)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= 100
    rows = {line.split()[0]: line for line in lines[1 : len(PUBLISHED) + 1]}
    assert list(rows) == list(PUBLISHED)
    for name, each in PUBLISHED.items():
        assert each.net in rows[name].split()
        number = rows[name].split()[-1]
        assert f"{number}  {each.licence}" in lines
    assert "mean IU 65.5" in rows["voc-fcn8s"]
    assert "none known" in rows["voc-fcn8s"]
    assert "top-1 57.4" in rows["caffenet"]
    assert "sha1" in rows["caffenet"]
    assert " - " in rows["vgg16-caffe"]


def test_the_table_for_machines(run: Run) -> None:
    listed = json.loads(run("fetch", "--json").out)["weights"]
    assert [each["name"] for each in listed] == list(PUBLISHED)
    first = listed[0]
    assert (first["url"], first["digest"]) == (PUBLISHED["voc-fcn32s"].url, PUBLISHED["voc-fcn32s"].digest)
    assert first["scores"] == dict(PUBLISHED["voc-fcn32s"].scores)


def test_what_cannot_be_had_is_one_line(run: Run, tiny: PublishedWeights, tmp_path: Path) -> None:
    (tmp_path / "site" / "tiny.caffemodel").unlink()
    failed = run("fetch", "tiny", "-o", tmp_path / "a.bin")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith(f"fullconv: {tiny.url} answered 404 ")
    assert failed.err.endswith(
        f"download it on another machine to {tmp_path / 'a.bin'}, then: fullconv convert {tmp_path / 'a.bin'} --net "
        "voc-fcn8s -o voc-fcn8s.safetensors\n"
    )
    assert failed.err.count("\n") == 1
    unknown = run("fetch", "voc-fcn8")
    assert unknown.code == 2
    assert unknown.err.startswith("fullconv: unknown published weights 'voc-fcn8'; did you mean 'voc-fcn8s'?")


def test_the_bar_shows_bytes_speed_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = functools.partial(Console, file=screen, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda stderr: terminal())
    with _transfer_bar("voc-fcn8s", quiet=False) as progress:
        progress(100_000_000, 538_000_000)  # a part was there
        progress(150_000_000, 538_000_000)
    drawn = screen.getvalue()
    for expected in ("voc-fcn8s", "150.0/538.0 MB", "left"):
        assert expected in drawn
    with _transfer_bar("voc-fcn8s", quiet=True) as progress:
        progress(1, None)
    assert screen.getvalue() == drawn
