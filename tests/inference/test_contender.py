"""Processes that are timed: turns, and what becomes of those that fail."""

from __future__ import annotations

import sys

import pytest

from fullconv.inference.contender import Contender, take_turns

HONEST = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"seconds": 1.0, "got": request, "memory": 5}), flush=True)
"""
DYING = "import sys; sys.stdin.readline(); sys.stderr.write('line\\nno more\\n'); sys.exit(3)"
KILLED = "import os, signal, sys; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)"
AT_ONCE = "raise SystemExit(4)"


def process(code: str) -> Contender:
    return Contender({"kind": "net"}, 1, [sys.executable, "-c", code])


def test_answers_come_back() -> None:
    with process(HONEST) as one:
        assert one.start() == {"seconds": 1.0, "got": {"do": "start", "kind": "net", "threads": 1}}
        assert one.ask("turn", number=3) == {"seconds": 1.0, "got": {"do": "turn", "number": 3}}
        assert (one.memory, one.error) == (5, None)
        running = one.process
    assert running.returncode is not None


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (DYING, "its process ended with code 3: no more"),
        (KILLED, "its process was ended by SIGKILL, as when memory runs out; a smaller --size may fit"),
        (AT_ONCE, "its process ended with code 4"),
    ],
)
def test_a_process_that_dies_says_why(code: str, why: str) -> None:
    with process(code) as one:
        assert one.start() is None
        assert one.error == why
        assert one.ask("turn", number=0) is None


def test_an_error_of_ours_is_told_as_it_is() -> None:
    request = {"kind": "net", "model": "none.safetensors", "engine": "plain", "precision": "float32"}
    with Contender({**request, "images": "", "samples": ""}, 1) as one:
        assert one.start() is None
        assert one.error is not None
        assert one.error.startswith("none.safetensors does not exist; expected a .safetensors model file")


class Fake:
    """Notes its turns, and fails at one."""

    def __init__(self, name: str, log: list[str], fails: int = 99) -> None:
        self.name, self.log, self.fails = name, log, fails

    def ask(self, what: str, number: int) -> dict[str, int] | None:
        self.log.append(f"{self.name}{number}")
        return {"number": number} if number < self.fails else None


def test_all_have_a_turn_before_any_has_another() -> None:
    log: list[str] = []
    told: list[int] = []
    fakes = [Fake("a", log), Fake("b", log, fails=1), Fake("c", log)]
    found = take_turns(fakes, 3, lambda: told.append(1))  # type: ignore[arg-type]
    assert log == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]
    assert [len(each) for each in found] == [3, 1, 3]
    assert len(told) == 9
