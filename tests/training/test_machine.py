"""What a machine has, and the batch that it holds, found on machines that are made up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import yaml
from torch import Tensor, nn

from fullconv.errors import OptionError
from fullconv.nets import build
from fullconv.training import machine
from fullconv.training.machine import (
    Trial,
    chosen_threads,
    chosen_workers,
    cores,
    free_memory,
    largest_batch,
    local_processes,
    surroundings,
)

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


@pytest.mark.parametrize(("bound", "free"), [(None, 5000), ("max\n", 5000), ("700\n", 700), ("9000\n", 5000)])
def test_free_memory_is_within_the_containers_bound(
    bound: str | None, free: int, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if bound is not None:
        files["/sys/fs/cgroup/memory.max"] = bound
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    assert free_memory() == free


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


Machine = Callable[[Callable[[int], float], Callable[[int], int]], None]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with 1000 bytes free, by seconds and bytes of a batch."""
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)

    def make(seconds: Callable[[int], float], held: Callable[[int], int]) -> None:
        monkeypatch.setattr(machine, "_trial", lambda _m, _n, batch, *_: Trial(batch, seconds(batch), held(batch)))

    return make


def chosen(most: int = 256) -> tuple[int, list[int]]:
    batch, trials = largest_batch(NET, (12, 16), "float32", CPU, most)
    return batch, [trial.batch for trial in trials]


def test_a_machine_that_does_all_at_once_takes_the_most(made_up: Machine) -> None:
    made_up(lambda _: 1.0, lambda _: 1)
    assert chosen() == (256, [1, 2, 4, 8, 16, 32, 64, 128, 256])
    assert chosen(most=7) == (4, [1, 2, 4])
    assert chosen(most=8) == (8, [1, 2, 4, 8])


@pytest.mark.parametrize(
    ("rates", "batch"),  # images a second of batches 1, 2, 4 ...; what comes after the last is not tried
    [
        ([5, 5], 1),
        ([5, 5.4], 1),
        ([5, 5.6, 5.6], 2),
        ([1, 2, 3.9, 4.1], 4),
        ([1, 2, 3, 3.35, 3.4], 8),
        ([1, 2, 3, 2], 4),
        ([1, 1.11, 1.22], 2),  # a tenth more than 1.11 is 1.221
    ],
)
def test_more_images_must_bring_a_tenth_more_of_them_a_second(rates: list[float], batch: int, made_up: Machine) -> None:
    made_up(lambda count: count / rates[count.bit_length() - 1], lambda _: 1)
    assert chosen() == (batch, [1 << place for place in range(len(rates))])


def refused(batch: int) -> int:
    if batch > 2:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return 1


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (lambda batch: 100 + 50 * batch, (8, [1, 2, 4, 8])),  # 16 would take 900, more than 700: not tried
        (lambda batch: 60 + 40 * batch, (16, [1, 2, 4, 8, 16])),  # exactly 700
        (lambda batch: 61 + 40 * batch, (8, [1, 2, 4, 8])),
        (lambda batch: 800 if batch == 4 else 10 * batch, (2, [1, 2])),  # tried, and more than was foreseen
        (lambda batch: 900 * batch, (1, [1])),  # at least one, if it fits at all
        (refused, (2, [1, 2])),
    ],
)
def test_a_step_takes_at_most_seven_tenths_of_the_memory(
    held: Callable[[int], int], expected: tuple[int, list[int]], made_up: Machine
) -> None:
    made_up(lambda _: 1.0, held)
    assert chosen() == expected


def test_where_not_even_one_image_fits(made_up: Machine) -> None:
    made_up(lambda _: 1.0, lambda batch: refused(batch + 2))
    with pytest.raises(
        OptionError, match="^not even one image of 12 x 16 fits into memory; take smaller crops with --crop$"
    ):
        chosen()


def test_batch_norm_over_one_value_is_passed_over(made_up: Machine) -> None:
    def held(batch: int) -> int:
        if batch == 1:
            raise ValueError("Expected more than 1 value per channel when training, got input size [1, 12, 1, 1]")
        return 1

    made_up(lambda batch: batch / min(batch, 8), held)
    assert chosen() == (8, [2, 4, 8, 16])

    def broken(batch: int) -> int:
        raise ValueError(f"no batch of {batch}")

    made_up(lambda _: 1.0, broken)
    with pytest.raises(ValueError, match="^no batch of 1$"):
        chosen()


def test_trials_end_in_time(made_up: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(lambda _: 1.0, lambda _: 1)
    clock = iter(range(0, 1000, 25))
    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    assert chosen() == (4, [1, 2, 4])  # begun after 0, 25 and 50 seconds, not after 75
    monkeypatch.setattr(machine, "TRIAL_SECONDS", -1.0)
    assert chosen() == (1, [1]), "one in any case"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_real_trials_leave_no_trace(precision: str) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    net = build("fcn8s-slim", {"kind": 2, "side": 3}, width=0.05).options
    torch.random.set_rng_state(before)
    batch, trials = largest_batch(net, (33, 40), precision, CPU, most=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [trial.batch for trial in trials] == [1, 2]
    assert batch in (1, 2)
    assert all(trial.seconds > 0 for trial in trials)
    weights = 4 * sum(p.numel() for p in build("fcn8s-slim", {"kind": 2, "side": 3}, width=0.05).parameters())
    one, two = (trial.bytes - 4 * weights for trial in trials)
    assert 33 * 40 * 3 * 4 < one < two < 2 * one, "the activations double, copies of the weights do not"


class Tiny(nn.Module):
    """A convolution that keeps the size, and a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        return torch.relu(self.layer(images["image"]))


def test_the_bytes_of_a_step_by_hand() -> None:
    net = Tiny()
    images = {"image": torch.zeros(1, 1, 5, 6)}
    # For the backward pass: the image, the filters, and the rectified maps, once though two functions keep them; and
    # four times 18 weights and 2 biases: themselves, their gradients, and two averages.
    expected = 4 * (5 * 6 + 2 * 9 + 2 * 5 * 6) + 4 * 4 * (18 + 2)
    assert machine._step(net, images, "float32", CPU) == expected
    assert all(parameter.grad is None for parameter in net.parameters())
