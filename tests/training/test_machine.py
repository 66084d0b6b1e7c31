"""What a machine has, and the batch that it holds, found on machines that are made up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import yaml
from torch import Tensor, nn

from fullconv.errors import OptionError
from fullconv.machine import cores, free_memory, local_processes, whole_memory
from fullconv.nets import build
from fullconv.training import machine
from fullconv.training.machine import (
    Trial,
    chosen_threads,
    chosen_workers,
    fitting_batch,
    surroundings,
)
from fullconv.training.sampling import Grid

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NET = build("fcn8s-slim", 2, width=0.05).options


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a container's files hold; the others are not there."""
    held: dict[str, str] = {}

    def read(path: Path, encoding: str) -> str:
        assert encoding == "ascii"
        try:
            return held[str(path)]
        except KeyError:
            raise FileNotFoundError(path) from None

    monkeypatch.setattr(Path, "read_text", read)
    return held


@pytest.mark.parametrize(
    ("quota", "count"),
    [(None, 8), ("max 100000\n", 8), ("200000 100000\n", 2), ("150000 100000\n", 2), ("20000 100000\n", 1),
     ("1600000 100000\n", 8), ("", 8), ("many\n", 8)],
)  # fmt: skip
def test_cores_are_those_of_the_affinity_within_the_quota(
    quota: str | None, count: int, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if quota is not None:
        files["/sys/fs/cgroup/cpu.max"] = quota
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4, 12)), raising=False)
    assert cores() == count


@pytest.mark.usefixtures("files")
def test_where_there_is_no_affinity_all_processors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for found, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda found=found: found)
        assert cores() == expected


@pytest.mark.parametrize(
    ("bound", "free"),
    [(None, 5000), ("max\n", 5000), ("700\n", 640), ("9000\n", 5000), ("5050\n", 4990), ("50\n", 0)],
)
def test_free_memory_is_what_the_containers_bound_leaves(
    bound: str | None, free: int, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 bytes are taken, 40 of them by files that were read and are not in use."""
    if bound is not None:
        files |= {
            "/sys/fs/cgroup/memory.max": bound,
            "/sys/fs/cgroup/memory.current": "100\n",
            "/sys/fs/cgroup/memory.stat": "anon 30\nfile 70\ninactive_file 40\nactive_file 30\n",
        }
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_memory() == free
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory() == free // 4, "each process its share"


@pytest.mark.parametrize(("bound", "whole"), [(None, 9000), ("max\n", 9000), ("700\n", 700), ("99000\n", 9000)])
def test_whole_memory_is_the_machines_or_the_containers(
    bound: str | None, whole: int, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if bound is not None:
        files["/sys/fs/cgroup/memory.max"] = bound
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=9000, available=5))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert whole_memory() == whole
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert whole_memory() == whole // 2, "each process its share"


def test_the_launcher_says_how_many_processes_share_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert local_processes() == 1
    for said, count in (("4", 4), ("0", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", said)
        assert local_processes() == count


def test_threads_are_a_processs_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    assert [chosen_threads(None, count) for count in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    assert [chosen_threads(count, 4) for count in (1, 7, 1024)] == [1, 7, 1024]
    for wrong in (0, -1, 1025, True):
        with pytest.raises(OptionError, match=rf"^{wrong} threads; expected 1\.\.1024$"):
            chosen_threads(wrong)


def test_one_thread_loads_beside_a_processor_and_up_to_eight_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, alone, four in ((1, 1, 1), (2, 1, 1), (4, 3, 1), (8, 7, 1), (16, 8, 3), (64, 8, 8)):
        monkeypatch.setattr(machine, "cores", lambda count=count: count)
        assert chosen_workers(None, CPU) == 1
        assert (chosen_workers(None, GPU), chosen_workers(None, GPU, 4)) == (alone, four)
        assert (chosen_workers(5, CPU), chosen_workers(1024, GPU)) == (5, 1024)
    for wrong in (0, 1025, True):
        with pytest.raises(OptionError, match=rf"^{wrong} workers; expected 1\.\.1024$"):
            chosen_workers(wrong, CPU)


def test_run_yaml_says_where_a_run_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    around = surroundings()
    assert list(around) == ["fullconv", "torch", "accelerate", "python", "machine"]
    assert yaml.safe_load(yaml.safe_dump(around)) == around
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a fine one")
    assert surroundings() == {**around, "gpu": "a fine one"}


Tried = list[int]
Make = Callable[[Callable[[int], float], Callable[[int], int]], Tried]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """A machine with 1000 bytes free, by the images a second and the bytes of a batch; it notes what is tried."""
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)

    def make(rate: Callable[[int], float], held: Callable[[int], int]) -> Tried:
        tried: Tried = []

        def trial(_model: object, _net: object, _grid: object, batch: int, *_: object) -> Trial:
            tried.append(batch)
            return Trial(batch, batch / rate(batch), held(batch))

        monkeypatch.setattr(machine, "_trial", trial)
        return tried

    return make


def chosen(least: int, most: int = 256) -> tuple[int, int]:
    return fitting_batch(NET, (12, 16), "float32", CPU, least, most)


def test_a_machine_that_does_all_at_once_takes_the_most(make: Make) -> None:
    tried = make(float, lambda _: 1)
    assert chosen(8) == (256, 1)
    assert tried == [1, 2, 8, 16, 32, 64, 128, 256]
    assert chosen(1, most=7) == (4, 1)
    assert chosen(8, most=8) == chosen(8, most=15) == (8, 1)
    assert chosen(6, most=24) == (24, 1)
    assert chosen(9, most=8) == (9, 1), "the recipe's batch in any case"


@pytest.mark.parametrize(
    ("least", "rates", "batch"),  # images a second by batch; what is not among them is not tried
    [
        (1, {1: 5.0, 2: 5.4}, 1),
        (1, {1: 5.0, 2: 5.6, 4: 5.6}, 2),
        (1, {1: 1.0, 2: 2.0, 4: 3.9, 8: 4.2}, 4),
        (1, {1: 1.0, 2: 1.11, 4: 1.22}, 2),  # a tenth more than 1.11 is 1.221
        (4, {1: 9.0, 2: 9.0, 4: 10.0, 8: 10.9}, 4),
        (4, {1: 9.0, 2: 9.0, 4: 10.0, 8: 11.1, 16: 12.0}, 8),
        (4, {1: 10.0, 2: 5.0, 4: 3.0, 8: 3.0}, 4),  # never less than the recipe's
        (6, {1: 1.0, 2: 2.0, 6: 6.0, 12: 9.0, 24: 9.0}, 12),
    ],
)
def test_more_images_must_bring_a_tenth_more_of_them_a_second(
    least: int, rates: dict[int, float], batch: int, make: Make
) -> None:
    tried = make(rates.__getitem__, lambda _: 1)
    assert chosen(least) == (batch, 1)
    assert tried == list(rates)


def up_to(limit: int) -> Callable[[int], int]:
    """A graphics processor that refuses more."""

    def held(batch: int) -> int:
        if batch > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1

    return held


@pytest.mark.parametrize(
    ("least", "held", "expected", "tried"),
    [
        (8, lambda b: 100 + 50 * b, (8, 1), [1, 2, 8]),  # 16 would take 900, more than 700: not tried
        (12, lambda b: 100 + 50 * b, (12, 1), [1, 2, 12]),  # 700 to the byte
        (13, lambda b: 100 + 50 * b, (13, 2), [1, 2, 4, 8]),  # parts of 7 and 6
        (20, lambda b: 100 + 50 * b, (20, 3), [1, 2, 4, 8]),
        (4, lambda b: 800 if b == 4 else 10 * b, (4, 2), [1, 2, 4]),  # tried, and more than was foreseen
        (8, lambda b: 10 * b if b < 8 else 701, (8, 2), [1, 2, 8, 4]),
        (20, up_to(2), (20, 10), [1, 2, 20, 4]),
        (20, up_to(1), (20, 20), [1, 2, 2]),
        (1, up_to(1), (1, 1), [1, 2]),
        (4, up_to(9), (8, 1), [1, 2, 4, 8, 16]),
    ],
)
def test_what_does_not_fit_into_seven_tenths_of_the_memory_goes_in_parts(
    least: int, held: Callable[[int], int], expected: tuple[int, int], tried: Tried, make: Make
) -> None:
    found = make(float, held)
    assert chosen(least) == expected
    assert found == tried


@pytest.mark.parametrize("held", [up_to(0), lambda _: 701])
def test_where_not_even_one_image_fits(held: Callable[[int], int], make: Make) -> None:
    make(float, held)
    for least in (1, 8):
        with pytest.raises(
            OptionError, match="^not even one image of 12 x 16 fits into memory; take smaller crops with --crop$"
        ):
            chosen(least)


def test_batch_norm_over_one_value_is_passed_over(make: Make) -> None:
    def held(batch: int) -> int:
        if batch == 1:
            raise ValueError("Expected more than 1 value per channel when training, got input size [1, 12, 1, 1]")
        return 1

    tried = make(lambda batch: float(min(batch, 8)), held)
    for least in (1, 2, 4):
        del tried[:]
        assert chosen(least) == (8, 1)
        assert tried == [1, 2, 4, 8, 16]

    def broken(batch: int) -> int:
        raise ValueError(f"no batch of {batch}")

    make(float, broken)
    with pytest.raises(ValueError, match="^no batch of 1$"):
        chosen(1)


def test_trials_end_in_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = make(float, lambda _: 1)
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    assert chosen(1) == (4, 1)
    assert tried == [1, 2, 4]  # begun after 25 and 50 seconds, not after 75
    monkeypatch.setattr(machine, "TRIAL_SECONDS", -1.0)
    assert chosen(8) == (8, 1), "the recipe's in any case"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_real_trials(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = build("fcn8s-slim", {"kind": 2, "side": 3}, width=0.05).options
    tried: list[Trial] = []
    trial = machine._trial

    def noted(*args: Any) -> Trial:
        tried.append(trial(*args))
        return tried[-1]

    monkeypatch.setattr(machine, "_trial", noted)
    assert fitting_batch(net, (33, 40), precision, CPU, least=2, most=2) == (2, 1)
    assert [each.batch for each in tried] == [1, 2]
    assert all(each.seconds > 0 for each in tried)
    weights = 4 * sum(p.numel() for p in build("fcn8s-slim", {"kind": 2, "side": 3}, width=0.05).parameters())
    one, two = (each.bytes - 4 * weights for each in tried)
    assert 33 * 40 * 3 * 4 < one < two < 2 * one, "the activations double, copies of the weights do not"
    assert fitting_batch(net, (33, 40), precision, CPU, least=2, most=2, stride=2) == (2, 1)
    assert tried[3].bytes < tried[1].bytes, "scores of every second row and column alone"


class Tiny(nn.Module):
    """A convolution that keeps the size, and a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, images: Mapping[str, Tensor], _: Grid) -> dict[str, Tensor]:
        return {"kind": torch.relu(self.layer(images["image"]))}


def test_the_bytes_of_a_step_by_hand() -> None:
    net = Tiny()
    images = {"image": torch.zeros(1, 1, 5, 6)}
    # For the backward pass: the image, the filters, and the rectified maps, once though two functions keep them; and
    # four times 18 weights and 2 biases: themselves, their gradients, and two averages.
    expected = 4 * (5 * 6 + 2 * 9 + 2 * 5 * 6) + 4 * 4 * (18 + 2)
    assert machine._pass(net, images, Grid(), "float32", CPU) == expected  # type: ignore[arg-type]
    assert all(parameter.grad is None for parameter in net.parameters())
