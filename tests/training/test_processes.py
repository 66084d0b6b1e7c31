"""Several processes: what they tell each other, and how they end, in real ones."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
import torch
from torch import distributed

from fullconv.errors import DataError, TrainingError
from fullconv.training import processes as module
from fullconv.training.processes import agree, agreed, count, is_main, rank, text_of_main, total, watched
from spawned import processes

CPU = torch.device("cpu")


def test_one_process_talks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_reduce", "broadcast"):
        monkeypatch.setattr(distributed, name, lambda *_: pytest.fail("something was sent"))
    assert (rank(), count(), is_main()) == (0, 1, True)
    assert total([0.1, 2], CPU) == [0.1, 2]
    assert text_of_main("a") == "a"
    agree(None)
    with pytest.raises(TrainingError, match="^no space is left$"):
        agree("no space is left")
    with pytest.raises(RuntimeError, match="^Gloo$"), watched():
        raise RuntimeError("Gloo")
    assert agreed(lambda: 3) == 3
    with pytest.raises(DataError, match="^mask 7.png$"):
        agreed(mask)


@pytest.mark.parametrize(
    ("error", "said"),
    [(distributed.DistNetworkError("a"), True), (RuntimeError("[x/Gloo/y] a"), True), (RuntimeError("a"), False)],
)
def test_errors_of_collectives_are_told_from_others(error: RuntimeError, said: bool) -> None:
    assert module._of_a_collective(error) is said


def test_a_stranger_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "count", lambda: 2)
    word, peers = module.WORD.pack(1), {}
    with socket.create_server(("", 0)) as listener:
        callers = []
        for said in (b"token?" + word, b"tok", b"", b"token!" + word):
            callers.append(socket.create_connection(("localhost", listener.getsockname()[1]), timeout=9))
            callers[-1].sendall(said)
            callers[-1].shutdown(socket.SHUT_WR)
        module._receive(listener, b"token!", peers)
        assert list(peers) == [1]
        peers[1].sendall(b"in")
        peers[1].close()
        assert [caller.recv(9) for caller in callers] == [b"", b"", b"", b"in"]
        for caller in callers:
            caller.close()


def mask() -> None:
    raise DataError("mask 7.png")


TALK = r"""
import json, os, time
import torch
from fullconv.errors import DataError, TrainingError
from fullconv.training import processes as module
from fullconv.training.processes import agree, agreed, count, is_main, rank as own, text_of_main, total, watched

module.SILENT_SECONDS = 3.0
cpu = torch.device("cpu")
assert (own(), count(), is_main()) == (rank, world, rank == 0)
found = {"total": total([rank, 0.1 * 3**rank, 2.0**53 if rank == 0 else 1.0], cpu), "none": total([], cpu)}
texts = ["", "a", "Stra\u00dfe \u6c34 \U0001f6e3\ufe0f\n", "name\udcff.png", "x" * 70000]
found["texts"] = [text_of_main(text if rank == 0 else "another") == text for text in texts]
agree(None)
found["problems"] = []
for who in ([0], [1, 2], [2]):
    try:
        agree(f"mask {rank}.png \u00e4" if rank in who else None)
    except TrainingError as error:
        found["problems"].append(str(error))
assert agreed(lambda: rank) == rank
def read():
    if rank == 1:
        raise DataError("unreadable")
def write():
    if rank == 2:
        raise OSError("disk full")
for work in (read, write):
    try:
        agreed(work)
    except TrainingError as error:
        found["problems"].append(str(error))
for error in (DataError("a"), RuntimeError("shapes differ"), TrainingError("Gloo, said by ours"), KeyError("k")):
    try:
        with watched():
            raise error
    except Exception as same:
        assert same is error
threads = []
import threading
with watched():
    threads.append(threading.active_count())
    total([1.0], cpu)
    if rank == 0:
        time.sleep(5)  # longer than the silence, after the others have left
threads.append(threading.active_count())
with watched():  # the other order: the main process goes first
    if rank:
        time.sleep(5)
found["threads"] = threads
module.MEETING_SECONDS = 1.0
if rank == 1:
    os.environ["MASTER_ADDR"] = "nowhere.invalid"
try:
    with watched():
        found["problems"].append("met")
except TrainingError as error:
    found["problems"].append(str(error).replace(str(error).split("port ")[1].split()[0], "PORT"))
print(json.dumps(found))
"""


UNMET = (
    "the processes cannot connect for their heartbeats (port PORT of localhost: TimeoutError: timed out); open the "
    "ports between the machines, or set MASTER_ADDR to an address of the first that all others reach"
)


def test_three_processes_talk_and_the_early_ones_are_not_missed(tmp_path: Path) -> None:
    ended = processes(3, tmp_path, TALK)
    assert [each.code for each in ended] == [0, 0, 0], ended
    for each in ended:
        assert each.err == ""
        found = json.loads(each.out)
        # 2**53 + 1 + 1: float32 would be far off, and float64 in another order may lose both ones
        assert found["total"][:2] == [3, pytest.approx(1.3, rel=1e-15)]
        assert found["total"][2] in (2.0**53, 2.0**53 + 2)
        assert found["none"] == []
        assert found["texts"] == [True] * 5
        host = socket.gethostname()
        assert found["problems"] == [
            f"process 1 of 3 ({host}): mask 0.png ä",
            f"process 2 of 3 ({host}): mask 1.png ä",
            f"process 3 of 3 ({host}): mask 2.png ä",
            f"process 2 of 3 ({host}): unreadable",
            f"process 3 of 3 ({host}): OSError: disk full",
            f"process 1 of 3 ({host}): {UNMET}",
        ]
        assert found["threads"][0] - found["threads"][1] == 1, "the thread of heartbeats, and its end"
    assert len({json.dumps(json.loads(each.out)["total"]) for each in ended}) == 1


DEATH = r"""
import os, signal, time
import torch
from torch import distributed
from fullconv.training import processes as module
from fullconv.training.processes import total, watched

module.SILENT_SECONDS = 3.0
with watched():
    total([1.0], torch.device("cpu"))
    if rank == VICTIM:
        (folder / "since").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGNAL)
    if rank == BUSY:
        time.sleep(30)
    total([1.0], torch.device("cpu"))
"""


@pytest.mark.parametrize(("victim", "busy", "signal"), [(1, 0, "SIGKILL"), (0, 2, "SIGSTOP"), (2, 0, "SIGSTOP")])
def test_a_death_ends_all(tmp_path: Path, victim: int, busy: int, signal: str) -> None:
    """One of the others is busy with its own, one waits for the group."""
    code = DEATH.replace("VICTIM", str(victim)).replace("BUSY", str(busy)).replace("SIGNAL", signal)
    ended = processes(3, tmp_path, code)
    seconds = time.time() - float((tmp_path / "since").read_text())
    assert seconds < 20
    assert ended[victim].code == -9  # where it was stopped, by the test
    lost = f"fullconv: process {victim + 1} of 3 on {socket.gethostname()} "
    why = "has ended" if signal == "SIGKILL" else "has been silent for 3 s"
    expected = (1, f"{lost}{why}; this process ends: go on with --resume when all are back\n")
    assert [(each.code, each.err) for rank, each in enumerate(ended) if rank != victim] == [expected] * 2
