"""OpenVINO: a stage as its graph, compiled for this processor, once for all sizes where that is sound."""

from __future__ import annotations

import copy
import functools
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullconv.errors import OptionError, one_line
from fullconv.inference.compilers import Compiled, activation_type, require_float32, stage_input
from fullconv.nets.modules import evaluating

EXAMPLES = (16, 64, 256)
"""Rows and columns of the input that a stage is traced with: the first that its unpadded layers do not use up."""

SHAPES = 8
"""(N, h, w) of inputs for which a stage is kept compiled, or for which the kernels of one for all sizes are kept."""

REFUSAL = "While validating node"
"""In its error where a layer cannot take its input's size."""


@dataclass(frozen=True)
class OpenVINO:
    """Intel's compiler for processors.

    Raises:
        OptionError: a package is not installed.
    """

    precision: str = "float32"
    name: str = "openvino"

    def __post_init__(self) -> None:
        runtime()
        if self.precision == "int8":
            from fullconv.inference.int8 import quantiser

            quantiser()

    def compile(self, stage: nn.Module, channels: int, samples: Iterable[Tensor] = ()) -> Compiled:
        """See `Compiler.compile`. Calls from several threads wait for each other."""
        require_float32(stage)
        own = copy.deepcopy(stage).eval()  # the graph reads a stage's own memory
        model = graph(own, channels)
        if self.precision == "int8":
            from fullconv.inference.int8 import quantized

            model = quantized(model, samples)
        return _Run(model, own, channels, self.precision)


def runtime() -> Any:
    """The openvino package, which tells nobody that it is used.

    Raises:
        OptionError: it is not installed.
    """
    # It reports every import and conversion to its maker unless this package of theirs is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: as if not installed
    try:
        import openvino
    except ImportError as error:
        raise OptionError(
            f"openvino cannot be imported ({one_line(error)}); run: pip install 'fullconv[openvino]'"
        ) from error
    return openvino


@functools.cache
def core() -> Any:
    """The one Core of this process, which is never given up.

    Each Core gives its thread another stack for signals and takes it away at its end. Several that end in another
    order than they began leave the thread a stack that is gone, and its next signal, a Ctrl-C, kills the process
    (2026.4.1).

    Raises:
        OptionError: openvino is not installed.
    """
    return runtime().Core()


def graph(stage: nn.Module, channels: int) -> Any:
    """A stage as an OpenVINO model, (N, C, h, w) float32 to float32, N, h and w open.

    Raises:
        OptionError: its graph cannot be had, or depends on sizes in ways that a graph does not hold.
    """
    openvino = runtime()
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad(), evaluating(stage):
            warnings.simplefilter("ignore")
            warnings.simplefilter(
                "error", torch.jit._trace.TracerWarning
            )  # Python decided by a size: true of this one alone
            traced, example = _traced(stage, channels)
            return openvino.convert_model(
                traced, example_input=example, input=[openvino.PartialShape([-1, channels, -1, -1])]
            )
    except Exception as error:  # of many types, torch's and OpenVINO's
        raise OptionError(
            f"a {type(stage).__name__} cannot be converted for OpenVINO ({one_line(error)}); use the engine 'torch'"
        ) from error


def _traced(stage: nn.Module, channels: int) -> tuple[Any, Tensor]:
    for size in EXAMPLES:
        example = torch.zeros(1, channels, size, size)
        try:
            return torch.jit.trace(stage, example, check_trace=False), example  # type: ignore[no-untyped-call]
        except RuntimeError:
            if size == EXAMPLES[-1]:
                raise
    raise OptionError("no size to trace with")


class _Run:
    """A model, compiled once with open sizes, that reads and writes OpenVINO's own memory.

    A new size costs its kernels alone. Sizes that it refuses, such as maps smaller than a pooling, are computed by
    torch.

    What was seen (2026.4.1):
    Given memory of ours, a model with open sizes gave wrong outputs and crashed; in its own memory it gave what models
    of fixed sizes give, over thousands of calls. It keeps the kernels of every size that it met, 2 MB a size for a
    VGG-16 of a quarter of the width, unless it is told how many. int8 with open sizes dies on processors with AMX
    (OpenVINO's issue 37577): there it is compiled for each size by itself.

    Args:
        model: as of `graph`.
        plain: the stage in evaluation mode, whose weights nobody else changes; the model reads the same memory.
        channels: C of its input.
        precision: float32, bfloat16 or int8.
    """

    def __init__(self, model: Any, plain: nn.Module, channels: int, precision: str) -> None:
        openvino = runtime()
        self.plain, self.channels, self.dtype = plain, channels, activation_type(precision)
        self.kind = openvino.Type.bf16 if self.dtype == torch.bfloat16 else openvino.Type.f32
        self.model = _channels_last(model, self.kind)
        self.fixed = precision == "int8" and bool(torch.cpu.get_capabilities().get("amx_int8"))
        self.open: Any = None
        self.requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self.lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        given = stage_input(x, self.channels, x.dtype).permute(0, 2, 3, 1)
        try:
            with self.lock:
                request = self._request(tuple(given.shape))
                y = self._plainly(x) if request is None else self._inferred(request, given)
        except RuntimeError as error:
            raise OptionError(
                f"OpenVINO fails on an input of shape {tuple(x.shape)} ({one_line(error)}); use the engine 'torch'"
            ) from error
        return y

    def _inferred(self, request: Any, given: Tensor) -> Tensor:
        request.get_input_tensor().shape = list(given.shape)
        self._ours(request.get_input_tensor()).copy_(given)
        request.infer()
        y = self._ours(request.get_output_tensor()).clone()  # the next call writes there again
        return y.permute(0, 3, 1, 2)

    def _plainly(self, x: Tensor) -> Tensor:
        y: Tensor = self.plain(x.detach().to("cpu", torch.float32, copy=True))  # layers may work in place
        return y.to(self.dtype, memory_format=torch.channels_last)

    def _request(self, shape: tuple[int, ...]) -> Any:
        """What infers an input (N, h, w, C); None where the model refuses it."""
        if shape not in self.requests:
            model = self.model.clone()
            try:
                model.reshape(list(shape))  # one with open sizes may give an empty map where this refuses
            except RuntimeError as error:
                if REFUSAL not in str(error):
                    raise
                self.requests[shape] = None
            else:
                self.requests[shape] = self._compiled(model) if self.fixed else self._for_all()
            if len(self.requests) > SHAPES:
                self.requests.popitem(last=False)
        self.requests.move_to_end(shape)
        return self.requests[shape]

    def _for_all(self) -> Any:
        if self.open is None:
            model = self.model.clone()
            model.reshape([-1, -1, -1, self.channels])
            self.open = self._compiled(model)
        return self.open

    def _compiled(self, model: Any) -> Any:
        convolutions = sum(each.get_type_name() == "Convolution" for each in model.get_ops())
        settings = {
            "INFERENCE_PRECISION_HINT": self.kind,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same processors
            "CPU_RUNTIME_CACHE_CAPACITY": SHAPES * (2 + convolutions),
        }
        try:
            return core().compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise OptionError(f"OpenVINO cannot compile this ({one_line(error)}); use the engine 'torch'") from error

    def _ours(self, tensor: Any) -> Tensor:
        """A view of an OpenVINO tensor's memory."""
        numbers = np.frombuffer(tensor.data, np.int16 if self.dtype == torch.bfloat16 else np.float32)
        return torch.from_numpy(numbers).view(self.dtype).reshape(tuple(tensor.shape))


def _channels_last(model: Any, kind: Any) -> Any:
    """The model with (N, h, w, C) of another type at both ends."""
    openvino = runtime()
    ends = openvino.preprocess.PrePostProcessor(model)
    for end in (ends.input(), ends.output()):
        end.tensor().set_layout(openvino.Layout("NHWC")).set_element_type(kind)
        end.model().set_layout(openvino.Layout("NCHW"))
    return ends.build()
