"""What the steps of a net may call: methods of tensors and functions, bounded where a file could abuse them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fullconv.errors import GeometryError
from fullconv.nets.tracing.calls import POINTWISE, RENAMED, SIGNATURES, plain_name
from fullconv.nets.tracing.graph import ASSIGNMENTS

METHODS = POINTWISE.union(SIGNATURES, RENAMED, {"dim", "numel", "repeat_interleave", "shape", "size"}) - {
    "cpu",
    "cuda",
    "empty_like",
}  # no net should choose its own device or read memory that it did not write
"""Methods of tensors that a step may call, in-place ones too; "shape" stands for the attribute."""

_LISTED: dict[str, Callable[..., Any]] = {
    f"{space}.{name}": getattr(module, name)
    for space, module in (("torch", torch), ("functional", F), ("operator", operator))
    for name in sorted(METHODS | {"getitem", "matmul"})
    if callable(getattr(module, name, None))
}

NAMES = {id(function): name for name, function in _LISTED.items()}
"""Functions, by what they are -> their names here."""

LONGEST = 64
"""Items of a shape and exponents of numbers that operators take."""


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator for tensors, shapes and numbers of 64 bits alone.

    Python's own also repeat texts and lists, fill in patterns and make numbers of any length: a model file that calls
    them must not be able to fill the memory.
    """

    @functools.wraps(function)
    def call(*operands: Any) -> Any:
        values = [getattr(each, "value", each) for each in operands]  # stand-ins of torch.fx know theirs
        numbers = all(isinstance(value, int) for value in values)
        for value in values:
            shape = isinstance(value, list | tuple) and function not in (operator.mul, operator.imul)
            if (
                (isinstance(value, str | bytes | list | tuple) and not (shape and len(value) <= LONGEST))
                or (isinstance(value, int) and abs(value) >= 1 << 63)
                or (numbers and function in (operator.pow, operator.ipow) and values[-1] > LONGEST)
            ):
                raise GeometryError(
                    f"{function.__name__} of a {type(value).__name__}; expected tensors, shapes or numbers of 64 bits"
                )
        return function(*operands)

    return call


FUNCTIONS = {
    name: _bounded(function) if name.startswith("operator.") and name != "operator.getitem" else function
    for name, function in _LISTED.items()
}
"""Functions that a step may call."""

ASSIGNING = {f"operator.{operation.__name__}" for operation in ASSIGNMENTS}
"""Functions that change their first argument."""

SHARING = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "movedim",
    "getitem", "select", "narrow", "chunk", "split", "tensor_split", "unbind", "expand", "expand_as",
    "identity", "dropout", "contiguous", "detach", "requires_grad", "to", "type", "type_as",
    "float", "double", "half", "bfloat16", "long", "int", "bool",
}  # fmt: skip
"""Calls that may give another view of what they got."""

DROPOUTS: dict[Callable[..., Any], type[nn.modules.dropout._DropoutNd]] = {
    F.dropout: nn.Dropout, F.dropout1d: nn.Dropout1d, F.dropout2d: nn.Dropout2d,
    F.alpha_dropout: nn.AlphaDropout, F.feature_alpha_dropout: nn.FeatureAlphaDropout,
}  # fmt: skip
"""Functions into whose calls torch.fx writes the mode of the trace -> layers, which follow theirs."""


def known_name(target: str) -> str:
    """The name in `SIGNATURES` of what a step calls.

    >>> known_name("torch.relu_"), known_name("functional.adaptive_max_pool2d_with_indices")
    ('relu', 'adaptive_max_pool2d')
    """
    return plain_name(target.rpartition(".")[2])
