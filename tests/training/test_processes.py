"""Several processes: what they tell each other, and decide together, in real ones."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from torch import distributed

from fullconv.errors import DataError, TrainingError
from fullconv.training.processes import agree, agreed, count, is_main, least, rank, text_of_main, total
from spawned import processes

CPU = torch.device("cpu")


def test_one_process_talks_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_reduce", "broadcast"):
        monkeypatch.setattr(distributed, name, lambda *_: pytest.fail("something was sent"))
    assert (rank(), count(), is_main()) == (0, 1, True)
    assert total([0.1, 2], CPU) == [0.1, 2]
    assert least(3) == 3
    assert text_of_main("a") == "a"
    agree(None)
    with pytest.raises(TrainingError, match="^no space is left$"):
        agree("no space is left")
    assert agreed(lambda: 3) == 3
    with pytest.raises(DataError, match="^mask 7.png$"):
        agreed(mask)


def mask() -> None:
    raise DataError("mask 7.png")


TALK = r"""
import json
import torch
from fullconv.errors import DataError, TrainingError
from fullconv.training.processes import agree, agreed, count, is_main, rank as own, least, text_of_main, total

cpu = torch.device("cpu")
assert (own(), count(), is_main()) == (rank, world, rank == 0)
found = {"total": total([rank, 0.1 * 3**rank, 2.0**53 if rank == 0 else 1.0], cpu), "none": total([], cpu)}
found["least"] = [least(value) for value in ((5, 3, 4)[rank], -(2**40) - rank, rank == 0, True)]
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
print(json.dumps(found))
"""


def test_three_processes_talk(tmp_path: Path) -> None:
    ended = processes(3, tmp_path, TALK)
    assert [each.code for each in ended] == [0, 0, 0], ended
    for each in ended:
        assert each.err == ""
        found = json.loads(each.out)
        # 2**53 + 1 + 1: float32 would be far off, and float64 in another order may lose both ones
        assert found["total"][:2] == [3, pytest.approx(1.3, rel=1e-15)]
        assert found["total"][2] in (2.0**53, 2.0**53 + 2)
        assert found["none"] == []
        assert found["least"] == [3, -(2**40) - 2, 0, 1]
        assert found["texts"] == [True] * 5
        host = socket.gethostname()
        assert found["problems"] == [
            f"process 1 of 3 ({host}): mask 0.png ä",
            f"process 2 of 3 ({host}): mask 1.png ä",
            f"process 3 of 3 ({host}): mask 2.png ä",
            f"process 2 of 3 ({host}): unreadable",
            f"process 3 of 3 ({host}): OSError: disk full",
        ]
    assert len({json.dumps(json.loads(each.out)["total"]) for each in ended}) == 1


DECIDED = r"""
import json
from dataclasses import replace
import torch
from fullconv.errors import TrainingError
from fullconv.nets import precision
from fullconv.training import once
from fullconv.training.options import Asked
from inmemory import some

data = some("train", 160, (24, 32)), some("val", 2)
asked = Asked(net="fcn1s-slim", net_options={"width": 0.1}, steps=1, threads=1)
opened = once._open(once.Call(asked, data, None, lambda tick: None, "", 0.0), folder / "r", None, False)

def decided(has_bfloat16, base=None, **more):
    precision.has_bfloat16 = lambda device: bool(has_bfloat16[rank])
    try:
        return once._resolved(replace(asked, **more), opened, base, torch.device("cpu"))
    except TrainingError as error:
        return str(error)

first = decided((1, 1, 1))
others = decided((1, 0, 1)), decided((0, 1, 1)), decided((0, 0, 0), first), decided((1, 1, 1), precision="float32")
found = {"precision": [each.precision for each in (first, *others)]}
found["unknown"] = decided((1, 1, 1), precision="half")
tried = []
found["batches"] = []
for trials in TRIALS:
    once.fitting_batch = lambda *args: (tried.append(args[2]), trials[rank])[1]
    recipe = decided((1, 0, 1), overrides={"batch": "auto"}).recipe
    found["batches"].append([recipe.batch, recipe.accumulate])
found["tried"] = tried
print(json.dumps(found))
"""


def test_three_processes_take_what_suits_all(tmp_path: Path) -> None:
    """Batch and parts of each by trial, the recipe's being 6; and the precision that each would take."""
    trials = {
        ((24, 1), (12, 1), (48, 1)): [36, 1],
        ((12, 1), (6, 2), (6, 3)): [18, 9],  # of two images each
        ((6, 3), (6, 1), (6, 2)): [18, 9],
    }
    for each in processes(3, tmp_path, DECIDED.replace("TRIALS", repr(list(trials)))):
        assert (each.code, each.err) == (0, "")
        found = json.loads(each.out)
        assert found["precision"] == ["bfloat16", "float32", "float32", "bfloat16", "float32"]
        assert found["unknown"].startswith(f"process 1 of 3 ({socket.gethostname()}): unknown precision 'half'")
        assert found["batches"] == list(trials.values())
        assert found["tried"] == ["float32"] * 3
