"""The state of a run, from which it goes on as if it had never stopped: weights, optimiser, generator, place.

One safetensors file: nothing pickled is written or read. The order of the data and its augmentation are pure
functions of the step (see `draws`), so a number is all that is kept of them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from fullconv.errors import ModelFileError
from fullconv.files import atomic

NAME = "state.safetensors"


@dataclass
class Place:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        seconds: spent in the run so far, over all its sessions.
        progress: 0..1 of the run, never falling.
        reserve: seconds kept for the run's end.
        next_evaluation: progress (0..1) at which the next evaluation is due.
    """

    step: int = 0
    seconds: float = 0.0
    progress: float = 0.0
    reserve: float = 0.0
    next_evaluation: float = 0.0

    def reach(self, progress: float) -> None:
        """Go on to `progress`, but never back: a growing reserve makes the same moment an earlier one."""
        self.progress = max(self.progress, progress)


def save_state(folder: Path, net: nn.Module, optimizer: Optimizer, place: Place) -> None:
    """Write the state, replacing an older one only when the new one is complete."""
    tensors: dict[str, Tensor] = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{index}.{slot}"] = value
    tensors["generator"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["generator.cuda"] = torch.cuda.get_rng_state()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(folder / NAME) as path:
        save_file(tensors, path, metadata={"place": json.dumps(asdict(place))})


def load_state(folder: Path, net: nn.Module, optimizer: Optimizer) -> Place:
    """Read the state into net and optimiser.

    Raises:
        ModelFileError: missing, damaged, or of another net.
    """
    path = folder / NAME
    if not path.is_file():
        raise ModelFileError(
            f"{path} does not exist: the run stopped before its first state; delete {folder.parent} and start it anew"
        )
    try:
        with safe_open(path, "pt") as file:
            place = Place(**json.loads((file.metadata() or {})["place"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
        for index, parameter in enumerate(_parameters(optimizer)):
            prefix = f"optimizer.{index}."
            slots = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            for slot, value in slots.items():
                # Adam counts its steps on the CPU; averages live beside their parameter, in its memory layout.
                like = value.to(parameter.device) if value.ndim else value
                if value.ndim == 4:
                    like = like.contiguous(memory_format=torch.channels_last)
                optimizer.state[parameter][slot] = like
        torch.set_rng_state(tensors["generator"])
        if "generator.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["generator.cuda"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{path} is damaged or of another net ({error}); start the run anew") from error
    return place


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
