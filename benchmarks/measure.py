"""What the benchmarks share: taking turns, peaks of memory, which commit was measured."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from fullconv.machine import cores

ROOT = Path(__file__).resolve().parents[1]

Action = Callable[[], object]


def take_turns(actions: Mapping[str, Action], runs: int) -> dict[str, list[float]]:
    """Seconds of every run of every action, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for run in range(runs + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak() -> float:
    """The most memory this process held so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, where `ru_maxrss` starts at what the parent held
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / (1 << 10)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def about(threads: int | None = None) -> str:
    """What was measured, and with what: the first line of every result."""
    shown = f"{cores()} threads" if threads is None else f"{threads} threads"
    return f"commit {commit()}, torch {torch.__version__}, {shown}"


def commit() -> str:
    """The checkout's commit, or "unknown"."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
