"""Heartbeats: how the processes of a run meet and end, in real ones."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path

import pytest
from torch import distributed

from fullconv.training import heartbeats
from fullconv.training.heartbeats import watched
from spawned import processes


def test_one_process_watches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "_meet", lambda: pytest.fail("nobody is there to meet"))
    with pytest.raises(RuntimeError, match="^Gloo$"), watched():
        raise RuntimeError("Gloo")


@pytest.mark.parametrize(
    ("error", "said"),
    [(distributed.DistNetworkError("a"), True), (RuntimeError("[x/Gloo/y] a"), True), (RuntimeError("a"), False)],
)
def test_errors_of_collectives_are_told_from_others(error: RuntimeError, said: bool) -> None:
    assert heartbeats._of_a_collective(error) is said


def test_a_stranger_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "count", lambda: 2)
    word = heartbeats.WORD.pack(1)
    peers: heartbeats.Peers = {}
    with socket.create_server(("", 0)) as listener:
        callers = []
        for said in (b"token?" + word, b"tok", b"", b"token!" + word):
            callers.append(socket.create_connection(("localhost", listener.getsockname()[1]), timeout=9))
            callers[-1].sendall(said)
            callers[-1].shutdown(socket.SHUT_WR)
        heartbeats._receive(listener, b"token!", peers)
        assert list(peers) == [1]
        peers[1].sendall(b"in")
        peers[1].close()
        assert [caller.recv(9) for caller in callers] == [b"", b"", b"", b"in"]
        for caller in callers:
            caller.close()


WATCHED = r"""
import json, os, threading, time
import torch
from fullconv.errors import DataError, TrainingError
from fullconv.training import heartbeats
from fullconv.training.heartbeats import watched
from fullconv.training.processes import total

heartbeats.SILENT_SECONDS = 3.0
found = {}
for error in (DataError("a"), RuntimeError("shapes differ"), TrainingError("Gloo, said by ours"), KeyError("k")):
    try:
        with watched():
            raise error
    except Exception as same:
        assert same is error
threads = []
with watched():
    threads.append(threading.active_count())
    total([1.0], torch.device("cpu"))
    if rank == 0:
        time.sleep(5)  # longer than the silence, after the others have left
threads.append(threading.active_count())
with watched():  # the other order: the main process goes first
    if rank:
        time.sleep(5)
found["threads"] = threads
heartbeats.MEETING_SECONDS = 1.0
if rank == 1:
    os.environ["MASTER_ADDR"] = "nowhere.invalid"
try:
    with watched():
        found["problem"] = "met"
except TrainingError as error:
    found["problem"] = str(error)
print(json.dumps(found))
"""

UNMET = (
    "the processes cannot connect for their heartbeats (port PORT of localhost: TimeoutError: timed out); open the "
    "ports between the machines, or set MASTER_ADDR to an address of the first that all others reach"
)


def test_the_early_ones_are_not_missed_and_who_cannot_be_met_is_named(tmp_path: Path) -> None:
    ended = processes(3, tmp_path, WATCHED)
    assert [each.code for each in ended] == [0, 0, 0], ended
    for each in ended:
        assert each.err == ""
        found = json.loads(each.out)
        assert found["threads"][0] - found["threads"][1] == 1, "the thread of heartbeats, and its end"
        problem = re.sub(r"port \d+", "port PORT", found["problem"])
        assert problem == f"process 1 of 3 ({socket.gethostname()}): {UNMET}"


DEATH = r"""
import os, signal, time
import torch
from fullconv.training import heartbeats
from fullconv.training.heartbeats import watched
from fullconv.training.processes import total

heartbeats.SILENT_SECONDS = 3.0
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


LEFT = r"""
import torch
from fullconv.errors import TrainingError
from fullconv.training import heartbeats
from fullconv.training.processes import total

heartbeats.SILENT_SECONDS = 3.0
try:
    with heartbeats.watched():
        if rank == 0:
            total([1.0], torch.device("cpu"))
except TrainingError as error:
    print(error)
"""


def test_who_waits_for_one_that_left_as_it_should_is_told(tmp_path: Path) -> None:
    """The other said goodbye, so no heartbeat is missed; it is the sum that fails."""
    waiting, left = processes(2, tmp_path, LEFT)
    assert (waiting.code, left.code, left.out) == (0, 0, "")
    told = r"another process of this run ended \([A-Z].+\); go on with --resume when all are back\n"
    assert re.fullmatch(told, waiting.out)
