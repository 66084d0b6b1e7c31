"""The processes of one run, and what they tell each other.

The launcher starts them and `accelerate.Accelerator` joins them into torch.distributed's default group; without a
launcher there is one process, and nothing here sends anything. All processes must call these functions alike.
"""

from __future__ import annotations

import atexit
import gc
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.distributed.nn.functional  # its default arguments would hold the group, were it imported after `join`
from accelerate import Accelerator
from torch import distributed

from fullconv.errors import FullconvError, OptionError, TrainingError, one_line
from fullconv.metrics.reduce import over_processes, several_processes

Result = TypeVar("Result")


def join() -> Accelerator:
    """Join the processes that a launcher started, if one did; until this process ends, unless it was in a group before.

    Raises:
        OptionError: accelerate was set up otherwise in this process.
    """
    before = distributed.is_initialized()
    try:
        # Unless told, it leaves processes on CPUs alone, and takes a precision of its launcher's beside ours.
        accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
    except ValueError as error:
        raise OptionError(
            f"accelerate was set up otherwise in this process ({one_line(error)}); train in one of its own"
        ) from error
    if distributed.is_initialized() and not before:
        atexit.register(_leave)
    return accelerator


def _leave() -> None:
    """End the group and its threads: one that frees a tensor while the interpreter ends would abort the process."""
    if distributed.is_initialized():
        gc.collect()  # nothing else may hold the group
        distributed.destroy_process_group()


def rank() -> int:
    """0 (the main process) to `count()` - 1."""
    return distributed.get_rank() if several_processes() else 0


def count() -> int:
    """Processes of this run, over all machines."""
    return distributed.get_world_size() if several_processes() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and talks to the user."""
    return rank() == 0


def total(values: Sequence[float], device: torch.device) -> list[float]:
    """The sums over the processes, in float64; as they are where there is one process.

    Args:
        values: as many in every process.
        device: of the tensor that is sent.
    """
    if not several_processes():
        return list(values)
    sums: list[float] = over_processes(np.array(values, dtype=np.float64), device).tolist()
    return sums


def least(value: int) -> int:
    """The smallest of the processes' values, of int64."""
    if not several_processes():
        return value
    found = torch.tensor(value, dtype=torch.int64, device=_device())
    distributed.all_reduce(found, distributed.ReduceOp.MIN)
    return int(found)


def text_of_main(text: str) -> str:
    """The main process's text, in every process."""
    return text_of(text, 0)


def text_of(text: str, source: int) -> str:
    """The text of one process, in every process."""
    if not several_processes():
        return text
    own = text.encode("utf-8", "surrogatepass")  # file names need not be UTF-8
    length = torch.tensor(len(own), device=_device())
    distributed.broadcast(length, source)
    data = torch.zeros(int(length), dtype=torch.uint8)
    if rank() == source:
        data = torch.tensor(list(own), dtype=torch.uint8)
    if len(data):
        data = data.to(length.device)
        distributed.broadcast(data, source)
    return bytes(data.tolist()).decode("utf-8", "surrogatepass")


def first_text(text: str | None) -> str | None:
    """The text of the first process that has one, in every process."""
    source = least(count() if text is None else rank())
    return None if source == count() else text_of(text or "", source)


def agree(message: str | None) -> None:
    """Go on only if no process has a problem, so that none is left waiting for one that stopped.

    Args:
        message: this process's problem.

    Raises:
        TrainingError: in every process, with the first problem and whose it is.
    """
    if message is not None and several_processes():
        message = f"process {rank() + 1} of {count()} ({socket.gethostname()}): {message}"
    if (found := first_text(message)) is not None:
        raise TrainingError(found)


def agreed(work: Callable[[], Result]) -> Result:
    """Do what may fail in one process alone, such as reading its files; go on only if it worked in all.

    Raises:
        TrainingError: as of `agree`, where a FullconvError or OSError was raised in any of several processes; a single
            process's own errors stay as they are.
    """
    if not several_processes():
        return work()
    try:
        result = work()
    except (FullconvError, OSError) as error:
        agree(str(error) if isinstance(error, FullconvError) else one_line(error))
        raise
    agree(None)
    return result


def _device() -> torch.device:
    """Of tensors that the default group can send: NCCL sends a GPU's only."""
    if "cpu:" in distributed.get_backend_config():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
