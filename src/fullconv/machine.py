"""What this machine leaves to a process: processors and memory, a container's bounds included."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil


def cores() -> int:
    """Processors that this process may use: its affinity and a container's quota included."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or one without a quota ("max")
        return count


def local_processes() -> int:
    """Processes of this run on this machine, as the launcher says."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def whole_memory() -> int:
    """Bytes that this machine, or the container, has for a process of this run, whatever is taken at the moment."""
    whole = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # no container, or one without bound ("max")
        whole = min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return whole // local_processes()


def free_memory() -> int:
    """Bytes that this process may still take: its share among those of the run, a container's bound included.

    A container is charged for the files that were read, too; those that were not read again lately count as free.
    """
    free = int(psutil.virtual_memory().available)
    try:
        bound, taken = (int(Path(f"/sys/fs/cgroup/memory.{what}").read_text("ascii")) for what in ("max", "current"))
        facts = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text("ascii").splitlines())
        free = min(free, max(0, bound - taken + int(facts.get("inactive_file", 0))))
    except (OSError, ValueError):  # no container, or one without bound ("max")
        pass
    return free // local_processes()
