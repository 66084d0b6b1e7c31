"""Real processes of one run for tests: forked from one that has imported torch, joined by Gloo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

DRIVER = """
import os, signal, sys, traceback
from pathlib import Path
import torch
from torch import distributed
import accelerate
import fullconv.training.batchnorm, fullconv.training.processes

def one(rank, world, folder, code):
    for number in (1, 2):
        os.dup2(os.open(folder / f"{rank}.{number}", os.O_WRONLY | os.O_CREAT), number)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    exec(code, {"__name__": "__main__", "rank": rank, "world": world, "folder": folder})
    distributed.destroy_process_group()

world, folder, code = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
children = []
for rank in range(world):
    child = os.fork()
    if child == 0:
        status = 0
        try:
            one(rank, world, folder, code)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        os._exit(status)
    children.append(child)
ranks, stopped = {child: rank for rank, child in enumerate(children)}, set()
while children:
    child, status = os.waitpid(-1, os.WUNTRACED if len(children) > len(stopped) else 0)
    if os.WIFSTOPPED(status):
        stopped.add(child)
    else:
        (folder / f"{ranks[child]}.status").write_text(str(os.waitstatus_to_exitcode(status)))
        children.remove(child)
    if children and stopped == set(children):
        for child in children:
            os.kill(child, signal.SIGKILL)
"""


class Ended(NamedTuple):
    """What a process came to."""

    code: int
    out: str
    err: str


def processes(world: int, folder: Path, code: str, seconds: float = 60) -> list[Ended]:
    """Run a script in so many processes of one group; it knows its `rank`, `world` and `folder`.

    A process that is stopped (SIGSTOP) is killed when all others have ended.
    """
    words = [sys.executable, "-c", DRIVER, str(world), str(folder), code]
    here = Path(__file__).parent  # where the helpers of the tests lie, so that the script can import them
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return [
        Ended(
            int((folder / f"{rank}.status").read_text()),
            (folder / f"{rank}.1").read_text("utf-8"),
            (folder / f"{rank}.2").read_text("utf-8"),
        )
        for rank in range(world)
    ]
