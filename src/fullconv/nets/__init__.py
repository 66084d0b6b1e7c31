"""Nets by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fullconv.errors import OptionError, unknown_name
from fullconv.nets.fcn import FCN
from fullconv.nets.options import InputOptions, NetOptions
from fullconv.nets.trunks import TRUNKS

__all__ = ["FCN", "NETS", "InputOptions", "NetOptions", "build"]


@dataclass(frozen=True)
class Net:
    """A line of the table: trunk and stride of the coarse scores."""

    trunk: str
    stride: int


NETS = {
    "fcn32s-vgg16": Net("vgg16", 32),
    "fcn16s-vgg16": Net("vgg16", 16),
    "fcn8s-vgg16": Net("vgg16", 8),
    "fcn32s-slim": Net("slim", 32),
    "fcn16s-slim": Net("slim", 16),
    "fcn8s-slim": Net("slim", 8),
    # The series goes on: for thin structures (4s, 2s) and for small images (1s: every stride of slim halved).
    "fcn4s-slim": Net("slim", 4),
    "fcn2s-slim": Net("slim", 2),
    "fcn1s-slim": Net("slim1", 1),
}


def build(
    name: str,
    classes: int | Mapping[str, int] = 21,
    *,
    channels: int | Mapping[str, int] = 3,
    dropout: float | None = None,
    **options: Any,
) -> FCN:
    """A net by name, with fresh weights.

    Args:
        name: a key of `NETS`.
        classes: K, or K by task name.
        channels: C, or C by input name. Three channels are RGB and get the trunk's normalisation; others are
            centred at 127.5 with deviation 64.
        dropout: rate; default: the trunk's own.
        options: `padding`, `upsampling`, `fusion`, `width`: see `NetOptions`.

    Raises:
        OptionError: an unknown name or an option out of range.

    >>> import torch
    >>> build("fcn8s-slim", classes=5)(torch.zeros(1, 3, 56, 53)).shape
    torch.Size([1, 5, 56, 53])
    """
    if name not in NETS:
        raise unknown_name("net", name, NETS)
    net = NETS[name]
    kind = TRUNKS[net.trunk]
    known = {"padding", "upsampling", "fusion", "width"}
    if extra := sorted(set(options) - known):
        raise unknown_name("net option", extra[0], known)
    counts = {"image": channels} if isinstance(channels, int) else dict(channels)
    if min(counts.values(), default=0) < 1:
        raise OptionError(f"channels {channels}; expected at least 1")
    inputs = {
        key: InputOptions(kind.mean, kind.std, kind.order)
        if count == 3
        else InputOptions((127.5,) * count, (64.0,) * count)
        for key, count in counts.items()
    }
    return FCN(
        NetOptions(
            trunk=net.trunk,
            stride=net.stride,
            classes={"semantic": classes} if isinstance(classes, int) else dict(classes),
            inputs=inputs,
            dropout=kind.dropout if dropout is None else dropout,
            **options,
        )
    )
