"""Trunks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fullconv.nets.trunks.slim import slim
from fullconv.nets.trunks.trunk import Trunk
from fullconv.nets.trunks.vgg import vgg16

__all__ = ["TRUNKS", "Trunk", "TrunkKind"]


@dataclass(frozen=True)
class TrunkKind:
    """How a trunk is built and what its input looks like.

    Attributes:
        build: (channels, padding of the first layer or None for "same", dropout, width) -> Trunk.
        mean, std: of the input in RGB order, 0..255.
        order: channel order in which the first layer reads colour.
        dropout: default rate.
    """

    build: Callable[[int, int | None, float, float], Trunk]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: str
    dropout: float


IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

TRUNKS = {
    # the mean of ILSVRC12 that the reference nets subtract, no scaling (reference 2.2, 5.5)
    "vgg16": TrunkKind(vgg16, (122.67891434, 116.66876762, 104.00698793), (1.0, 1.0, 1.0), "bgr", 0.5),
    # the usual ImageNet statistics times 255: fixed, so that a model does not depend on what it was trained on
    "slim": TrunkKind(slim, IMAGENET_MEAN, IMAGENET_STD, "rgb", 0.1),
    "slim1": TrunkKind(partial(slim, first_stride=1), IMAGENET_MEAN, IMAGENET_STD, "rgb", 0.1),
}
