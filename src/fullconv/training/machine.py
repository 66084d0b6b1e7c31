"""Fitting a run to its machine: threads, memory, and the batch that it holds."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import Any

import accelerate
import torch
from torch import Tensor

import fullconv
from fullconv.errors import OptionError
from fullconv.machine import cores, free_memory
from fullconv.nets import FCN, NetOptions
from fullconv.nets.fcn import Named
from fullconv.nets.precision import learning
from fullconv.training.sampling import Grid, GridScores

MOST_THREADS = 1024

GAIN = 1.1
"""Factor in images/s that a batch twice as large must bring."""

SHARE = 0.7
"""Of the free memory that a step may take."""

TRIAL_SECONDS = 60.0
"""That the trials may take together, about."""

LARGEST_TRIAL = 256


def chosen_threads(threads: int | None, local_processes: int = 1) -> int:
    """Threads of a process that computes: as many as its share of the processors, or those that are given.

    Raises:
        OptionError: less than 1 or more than any machine has.
    """
    if threads is None:
        return max(1, cores() // local_processes)
    if isinstance(threads, bool) or not 1 <= threads <= MOST_THREADS:
        raise OptionError(f"{threads} threads; expected 1..{MOST_THREADS}")
    return threads


def chosen_workers(workers: int | None, device: torch.device, local_processes: int = 1) -> int:
    """Threads that load data beside the net: one where the processor computes the net too (a sample takes it 2 ms), up
    to eight beside a GPU; or those that are given.

    Raises:
        OptionError: as above.
    """
    if workers is None:
        return 1 if device.type == "cpu" else max(1, min(8, cores() // local_processes - 1))
    if isinstance(workers, bool) or not 1 <= workers <= MOST_THREADS:
        raise OptionError(f"{workers} workers; expected 1..{MOST_THREADS}")
    return workers


def surroundings() -> dict[str, Any]:
    """Versions and machine, for run.yaml."""
    facts = {
        "fullconv": fullconv.__version__,
        "torch": str(torch.__version__),  # a str subclass that YAML does not know
        "accelerate": accelerate.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {torch.get_num_threads()} threads",
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


@dataclass(frozen=True)
class Trial:
    """What a step of a batch took.

    Attributes:
        batch: images.
        seconds: of a step.
        bytes: of memory, about.
    """

    batch: int
    seconds: float
    bytes: int


def fitting_batch(
    net: NetOptions,
    size: tuple[int, int],
    precision: str,
    device: torch.device,
    least: int,
    most: int = LARGEST_TRIAL,
    stride: int = 1,
) -> tuple[int, int]:
    """Images a step, and the parts they go through the net in, by trial of forward and backward passes.

    A recipe's batch is what it learns well with, so it is the least: where it does not fit into memory it goes in parts
    of as many images as do. Where it fits, twice as many are taken as long as they fit and bring a tenth more images a
    second; beyond that a larger batch would only mean fewer steps.

    Args:
        size: (H, W) of the training images or crops.
        precision: "float32" or "bfloat16".
        least: the recipe's batch.
        most: images, at most.
        stride: of the loss in pixels.

    Returns:
        Batch and parts.

    Raises:
        OptionError: not even one image fits.
    """
    with torch.random.fork_rng([]):  # first weights are drawn on the processor
        model = GridScores(FCN(net).to(device).train())
    grid = Grid(stride=stride)
    budget = SHARE * (free_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0])
    trials: list[Trial] = []

    def fits(batch: int) -> bool:
        """Tried, unless memory would not hold it: every image takes as much."""
        if trials:
            nothing = Trial(0, 0.0, 0)
            few, many = [nothing, *trials][-2:]
            if many.bytes + (batch - many.batch) * (many.bytes - few.bytes) / (many.batch - few.batch) > budget:
                return False
        try:
            trials.append(_trial(model, net, grid, batch, size, precision, device))
        except torch.OutOfMemoryError:
            return False
        except ValueError as error:  # batch norm over the one value that a small image leaves
            if "more than 1 value per channel" not in str(error):
                raise
            return True
        return trials[-1].bytes <= budget

    part = 0
    for few in (1, 2, least):
        if part < few <= least:
            if not fits(few):
                break
            part = few
    if not part:
        raise OptionError(
            f"not even one image of {size[0]} x {size[1]} fits into memory; take smaller crops with --crop"
        )
    if part < least:
        while 2 * part < least and fits(2 * part):
            part *= 2
        return least, -(-least // part)
    start = time.monotonic()
    while 2 * part <= most and time.monotonic() - start < TRIAL_SECONDS and fits(2 * part):
        if len(trials) > 1 and _rate(trials[-1]) < GAIN * _rate(trials[-2]):
            break
        part *= 2
    return part, 1


def _rate(trial: Trial) -> float:
    return trial.batch / trial.seconds


def _trial(
    model: GridScores,
    net: NetOptions,
    grid: Grid,
    batch: int,
    size: tuple[int, int],
    precision: str,
    device: torch.device,
) -> Trial:
    """One pass that does not count, for what is made at the first, and the fastest of two."""
    images = {name: torch.full((batch, i.channels, *size), 127.0, device=device) for name, i in net.inputs.items()}
    seconds, held = [], 0
    for _ in range(3):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        began = time.monotonic()
        held = _pass(model, images, grid, precision, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            held = torch.cuda.max_memory_allocated(device)
        seconds.append(time.monotonic() - began)
    return Trial(batch, min(seconds[1:]), held)


def _pass(model: GridScores, images: Named, grid: Grid, precision: str, device: torch.device) -> int:
    """Forward and backward; the bytes held in between, and those of weights, gradients and the optimiser's averages."""
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with learning(device, precision):
            scores = model(images, grid)
        total = torch.stack([each.float().square().mean() for each in scores.values()]).sum()
    torch.autograd.backward(total)
    model.zero_grad()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return sum(held.values()) + 4 * weights
