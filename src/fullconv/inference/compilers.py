"""Compilers: a stage of a net -> the same function of its input, computed faster on this processor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from fullconv.errors import GeometryError, OptionError, unknown_name
from fullconv.nets.precision import has_bfloat16

Compiled = Callable[[Tensor], Tensor]
"""(N, C, h, w) float32 or bfloat16, N, h and w of any size, left as it is -> the stage's output, channels last in
memory and of `activation_type`."""


class Compiler(Protocol):
    """One way to compute stages.

    Attributes:
        name: a key of `COMPILERS`.
        precision: of those that it is able of.
    """

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    def compile(self, stage: nn.Module, channels: int, samples: Iterable[Tensor] = ()) -> Compiled:
        """A stage as a quick function; its weights are copied, so that later changes of the stage do not count.

        Args:
            stage: from one tensor to one tensor, with float32 weights on the processor; computed in evaluation mode.
            channels: C of its input.
            samples: inputs (N, C, h, w) that it will meet, read as often as wanted, but not later; int8 needs them.

        Raises:
            OptionError: a stage that cannot be compiled this way, or int8 without samples.
        """


def _openvino(precision: str) -> Compiler:
    from fullconv.inference.openvino import OpenVINO

    return OpenVINO(precision)


def _inductor(precision: str) -> Compiler:
    from fullconv.inference.inductor import Inductor

    return Inductor(precision)


COMPILERS: dict[str, Callable[[str], Compiler]] = {"openvino": _openvino, "compile": _inductor}

ABLE = {
    "torch": ("float32", "bfloat16"),
    "openvino": ("float32", "bfloat16", "int8"),
    "compile": ("float32", "bfloat16"),
}
"""That each engine computes in; "torch" needs no compiler."""


def compiler(name: str, precision: str = "float32") -> Compiler:
    """A compiler by name.

    Args:
        name: "openvino" or "compile" (torch.compile).
        precision: "float32", "bfloat16" or, of OpenVINO, "int8".

    Raises:
        OptionError: an unknown name or precision, or one that needs a package or program that is not there.
    """
    if name not in COMPILERS:
        raise unknown_name("compiler", name, COMPILERS)
    if precision not in ABLE[name]:
        able = [each for each, known in ABLE.items() if precision in known]
        if not able:
            raise unknown_name("precision", precision, ABLE[name])
        raise OptionError(f"precision {precision!r} with {name!r}; it needs {' or '.join(map(repr, able))}")
    return COMPILERS[name](precision)


def activation_type(precision: str) -> torch.dtype:
    """Of what a compiled stage gives: bfloat16 halves what stages read and write, wherever it is not slow."""
    if precision == "bfloat16" or (precision == "int8" and has_bfloat16(torch.device("cpu"))):
        return torch.bfloat16
    return torch.float32


def stage_input(x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """A stage's input, checked, of the given type and channels last in memory; as it is if it is so already.

    Raises:
        GeometryError: another shape than (N, C, h, w) with none of them 0, or a type other than float.
    """
    if x.ndim != 4 or x.shape[1] != channels or min(x.shape) < 1:
        raise GeometryError(
            f"a stage's input of shape {tuple(x.shape)}; expected (N, {channels}, h, w), none of them 0"
        )
    if not x.is_floating_point():
        raise GeometryError(f"a stage's input of {x.dtype}; expected float32 or bfloat16")
    return x.detach().to("cpu", dtype, memory_format=torch.channels_last)


def require_float32(stage: nn.Module) -> None:
    """Raise OptionError unless a stage's weights are float32 and on the processor."""
    for each in (*stage.parameters(), *stage.buffers()):
        if each.is_floating_point() and (each.dtype != torch.float32 or each.device.type != "cpu"):
            raise OptionError(
                f"weights of {each.dtype} on {each.device}; compile takes float32 on cpu: net.float().cpu()"
            )
