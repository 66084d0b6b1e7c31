"""Numeric precision of a forward pass: float32, or bfloat16 where the processor computes in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from fullconv.errors import unknown_name
from fullconv.nets.modules import evaluating
from fullconv.nets.onednn import SoundGradients

PRECISIONS = ("float32", "bfloat16", "auto")


def has_bfloat16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are faster there than in float32: AMX or AVX512-BF16, or a GPU that has it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def resolve(precision: str, device: torch.device) -> str:
    """ "auto" -> "bfloat16" or "float32"; other names are checked.

    Raises:
        OptionError: an unknown name.
    """
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if precision == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    return precision


@contextmanager
def inference(net: nn.Module, precision: str = "float32") -> Iterator[None]:
    """Evaluation mode, no gradients, the given precision; every module's mode is restored afterwards."""
    device = next(net.parameters()).device
    enabled = resolve(precision, device) == "bfloat16"
    with evaluating(net), torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield


@contextmanager
def learning(device: torch.device, precision: str) -> Iterator[None]:
    """A pass that gradients are wanted of, in the given precision ("float32" or "bfloat16")."""
    sound = SoundGradients() if device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"), sound:
        yield
