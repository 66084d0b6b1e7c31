"""Inductor: the compiler "compile", torch.compile, which writes C++ and has it compiled on this machine."""

from __future__ import annotations

import copy
import os
import shutil
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullconv.errors import OptionError, one_line
from fullconv.inference.compilers import Compiled, activation_type, require_float32, stage_input

PROGRAMS = ("cl",) if sys.platform == "win32" else ("g++", "clang++")
"""C++ compilers that torch looks for where the environment variable CXX names none."""


@dataclass(frozen=True)
class Inductor:
    """torch's own compiler, once for all sizes.

    Raises:
        OptionError: there is no C++ compiler.
    """

    precision: str = "float32"
    name: str = "compile"

    def __post_init__(self) -> None:
        wanted = [os.environ["CXX"]] if os.environ.get("CXX") else PROGRAMS
        if not any(map(shutil.which, wanted)):
            raise OptionError(
                f"torch.compile needs a C++ compiler and finds no {' or '.join(wanted)}; install one (Debian: apt "
                "install g++), name it in CXX, or use the engine 'torch'"
            )

    def compile(self, stage: nn.Module, channels: int, samples: Iterable[Tensor] = ()) -> Compiled:  # noqa: ARG002  (int8 alone reads them)
        """See `Compiler.compile`. The work is done at the first call, and takes seconds to a minute."""
        require_float32(stage)
        dtype = activation_type(self.precision)
        with torch.inference_mode(False), torch.no_grad():
            own = copy.deepcopy(stage).eval().to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this overload
            # Stages share the code of nn.Sequential, of which torch would compile eight and leave the rest as they are.
            compiled = torch.compile(own, dynamic=True, isolate_recompiles=True)  # type: ignore[call-overload]  # the stub lacks it

        @torch.no_grad()
        def run(x: Tensor) -> Tensor:
            given = stage_input(x, channels, dtype)
            if given.data_ptr() == x.data_ptr():
                given = given.clone()  # a stage may begin with a ReLU in place
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch warns of what it does itself
                    y: Tensor = compiled(given)
            except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
                raise OptionError(
                    f"torch.compile fails on a {type(stage).__name__} ({one_line(error)}); use the engine 'torch'"
                ) from error
            return y.to(dtype, memory_format=torch.channels_last)

        return run
