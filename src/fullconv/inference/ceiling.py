"""Ceiling: what this processor computes at best in each precision, measured on convolutions that suit it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fullconv.errors import OptionError
from fullconv.inference.compilers import ABLE, Compiled, activation_type, compiler
from fullconv.nets.packed import packed

LAYERS, CHANNELS, SIDE = 2, 512, 64
"""3x3 convolutions one behind the other, on a map of SIDE x SIDE cells: VGG-16's densest work."""

SEED = 0


class Ceiling:
    """Convolutions by every engine that has a precision, compiled and timed; a `Timer`.

    Args:
        precisions: that are measured.
        engines: that may be used, of `ABLE`; those that are not installed are left out.
        layers, channels, side: of the convolutions.
    """

    def __init__(
        self, precisions: Sequence[str], engines: Sequence[str] = ("torch", "openvino"), layers: int = LAYERS,
        channels: int = CHANNELS, side: int = SIDE,
    ) -> None:  # fmt: skip
        self.precisions, self.engines = precisions, engines
        self.shape = (1, channels, side, side)
        self.operations = 2 * layers * 9 * channels**2 * side**2
        self.stage = _stage(layers, channels)

    def start(self) -> dict[str, Any]:
        """Compile all, and time each once."""
        generator = torch.Generator().manual_seed(SEED)
        x = torch.randn(self.shape, generator=generator)
        self.ready: dict[tuple[str, str], tuple[Compiled, Tensor]] = {}
        for precision in self.precisions:
            for name in self.engines:
                if precision in ABLE[name]:
                    try:
                        run = self._function(name, precision, x)
                    except OptionError:  # not installed
                        continue
                    given = x.to(activation_type(precision), memory_format=torch.channels_last)
                    run(given)
                    self.ready[precision, name] = run, given
        return self.turn(0)

    def _function(self, name: str, precision: str, x: Tensor) -> Compiled:
        if name != "torch":
            return compiler(name, precision).compile(self.stage, self.shape[1], [x])
        layers = packed(self.stage, activation_type(precision))

        @torch.inference_mode()
        def run(x: Tensor) -> Tensor:
            y: Tensor = layers(x)
            return y

        return run

    def turn(self, number: int) -> dict[str, Any]:  # noqa: ARG002  (every turn is the same)
        """Operations a second by precision, of the engine that had most: a multiplication and an addition are two."""
        rates: dict[str, float] = {}
        for (precision, _), (run, given) in self.ready.items():
            begin = time.perf_counter()
            run(given)
            rate = self.operations / (time.perf_counter() - begin)
            rates[precision] = max(rate, rates.get(precision, 0.0))
        return {"rates": rates}

    def answer(self, path: str) -> dict[str, Any]:  # noqa: ARG002  (there is nothing to write)
        """Nothing."""
        return {}


def _stage(layers: int, channels: int) -> nn.Sequential:
    """Convolutions and ReLUs that keep maps at unit scale."""
    found: list[nn.Module] = []
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(layers):
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.normal_(layer.weight, 0, (2 / layer.weight[0].numel()) ** 0.5, generator)
        found += [layer, nn.ReLU()]
    return nn.Sequential(*found).eval()
