"""Muon: AdamW, but for the weights of convolutions a momentum whose update is made orthogonal.

The gradient of a convolution is a matrix (outputs, inputs times window) of few strong directions and many weak ones.
An orthogonal matrix in its place changes all of them alike, so that what is rare is learned as fast as what is common:
from random weights a net of ours learns in four minutes what takes AdamW fifteen (docs/log.md).

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

MOMENTUM = 0.95

STEPS = 5
"""Of Newton and Schulz's iteration, which take singular values of 0.01..1 to 0.7..1.2."""

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of its polynomial a x + b x^3 + c x^5 (Jordan et al. 2024)."""

RATE = 25.0
"""Factor on the learning rate: an update's spectral norm, of a wide matrix, where an element of AdamW's is about 1."""

LARGEST = 1024
"""Of a matrix's shorter side: an iteration costs its square times the longer one."""


class Muon(AdamW):
    """Groups with ``matrices`` true hold convolutions' weights; the others are AdamW's.

    Args:
        groups: parameter groups, each with "params", "weight_decay" and "matrices".
        lr: of both kinds.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        matrices = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            if group["matrices"]
            for parameter in group["params"]
        ]
        for _, parameter, _ in matrices:
            parameter.grad = None  # AdamW passes over what has none
        loss: float | None = super().step(closure)
        for group, parameter, gradient in matrices:
            parameter.grad = gradient
            if gradient is not None:
                self._turn(parameter, gradient, group["lr"], group["weight_decay"])
        return loss

    def _turn(self, weight: Tensor, gradient: Tensor, lr: float, weight_decay: float) -> None:
        """One update of a weight (outputs, inputs, height, width)."""
        state = self.state[weight]
        if not state:  # AdamW, when it is given a state, wants the steps of all parameters counted
            state["step"], state["momentum_buffer"] = torch.zeros(()), torch.zeros_like(weight)
        state["step"] += 1
        memory: Tensor = state["momentum_buffer"]
        memory.lerp_(gradient, 1 - MOMENTUM)
        update = gradient.lerp(memory, MOMENTUM)  # Nesterov's
        matrix = update.movedim(1, -1).flatten(1)  # as channels lie in memory
        turned = orthogonal(matrix).view(len(weight), *weight.shape[2:], weight.shape[1]).movedim(-1, 1)
        weight.mul_(1 - RATE * lr * weight_decay)
        weight.add_(turned, alpha=-RATE * lr * sqrt(max(1.0, matrix.shape[0] / matrix.shape[1])))


def orthogonal(matrix: Tensor) -> Tensor:
    """U S V^T -> about U V^T, for a matrix (m, n) float32; its singular values are then near 1, where they were not 0.

    Computed in bfloat16, in which a few percent more or less decide nothing.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)
