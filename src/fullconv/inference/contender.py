"""Contender: a process that is timed, seen from the one that measures; several take turns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from fullconv.errors import printable

COMMAND = (sys.executable, "-m", "fullconv.inference.timed")

LAST = 300
"""Characters of a dead process's last words that are told."""


class Contender:
    """A process that answers requests, until it fails; what it says last is kept.

    Args:
        request: the fields of "start", see `fullconv.inference.timed`.
        threads: that it computes with.
        command: the process.

    Attributes:
        error: why it failed, or None.
        memory: bytes that it held at most, or None.
    """

    def __init__(self, request: Mapping[str, Any], threads: int, command: Sequence[str] = COMMAND) -> None:
        self.request = {**request, "threads": threads}
        self.error: str | None = None
        self.memory: int | None = None
        self.words = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the process)
        # Threads that wait must not spin beside the process whose turn it is.
        surroundings = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(  # noqa: S603  (our own program)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.words, env=surroundings,
            encoding="utf-8",
        )  # fmt: skip

    def ask(self, what: str, **fields: Any) -> dict[str, Any] | None:
        """An answer; None where it fails, or did before."""
        if self.error is not None or self.process.stdin is None or self.process.stdout is None:
            return None
        try:
            self.process.stdin.write(json.dumps({"do": what, **fields}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:  # it ended before it read
            line = ""
        if not line:
            self._fail(self._obituary())
            return None
        found: dict[str, Any] = json.loads(line)
        self.memory = found.pop("memory", None) or self.memory
        if "error" in found:
            self._fail(found["error"])
            return None
        return found

    def start(self) -> dict[str, Any] | None:
        """Its first answer; see `Timer.start`."""
        return self.ask("start", **self.request)

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # of what it did not read any more
                    pipe.close()
        self.words.close()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fail(self, why: str) -> None:
        self.error = why
        self.close()

    def _obituary(self) -> str:
        code = self.process.wait()
        self.words.seek(0)
        lines = self.words.read().decode("utf-8", "replace").strip().splitlines()
        said = f": {printable(lines[-1].strip())[:LAST]}" if lines else ""
        if code >= 0:
            return f"its process ended with code {code}{said}"
        memory = ", as when memory runs out; a smaller --size may fit" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{memory}{said}"


def take_turns(contenders: Sequence[Contender], repeats: int, told: Callable[[], None]) -> list[list[dict[str, Any]]]:
    """Answers of every contender to every turn: all once, then all again.

    What slows the machine for a while slows all. Those that fail are passed over from then on.

    Args:
        told: called after every turn.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in contenders]
    for number in range(repeats):
        for contender, answers in zip(contenders, found, strict=True):
            answer = contender.ask("turn", number=number)
            if answer is not None:
                answers.append(answer)
            told()
    return found
