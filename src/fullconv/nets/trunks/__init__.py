"""Trunks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fullconv.nets.trunks.alexnet import alexnet, alexnet_owt
from fullconv.nets.trunks.googlenet import googlenet
from fullconv.nets.trunks.resnet import resnet
from fullconv.nets.trunks.slim import slim
from fullconv.nets.trunks.trunk import Trunk
from fullconv.nets.trunks.vgg import vgg16

__all__ = ["ILSVRC_MEAN", "IMAGENET_MEAN", "IMAGENET_STD", "TRUNKS", "Trunk", "TrunkKind"]

ILSVRC_MEAN, UNSCALED = (122.67891434, 116.66876762, 104.00698793), (1.0, 1.0, 1.0)
"""RGB means of ILSVRC12 that the reference nets subtract; they scale nothing (reference 2.2, 5.5)."""

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""torchvision's statistics of RGB values, times 255 (reference 2.6)."""


@dataclass(frozen=True)
class TrunkKind:
    """How a trunk is built and what its input looks like.

    Attributes:
        build: (channels, padding of the first layer or None for "same", dropout, width) -> Trunk.
        mean, std: of the input in RGB order, 0..255.
        order: channel order in which the first layer reads colour.
        dropout: default rate.
        padding: of the first layer in the classifier that the trunk comes from; None where there was none.
        pool: kernel of that classifier's last average pooling, which the FCN drops; 0: none.
    """

    build: Callable[[int, int | None, float, float], Trunk]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: str
    dropout: float
    padding: int | None = None
    pool: int = 0


CAFFE = (ILSVRC_MEAN, UNSCALED, "bgr")
TORCHVISION = (IMAGENET_MEAN, IMAGENET_STD, "rgb")
HALF = ((127.5,) * 3, (127.5,) * 3, "rgb")  # the file's net itself maps 0..255 to -1..1 (reference 2.6)

TRUNKS = {
    "alexnet": TrunkKind(alexnet, *CAFFE, 0.5, padding=0),
    "alexnet-bvlc": TrunkKind(partial(alexnet, norm_first=True), *CAFFE, 0.5, padding=0),
    "alexnet-owt": TrunkKind(alexnet_owt, *TORCHVISION, 0.5, padding=2),
    "vgg16": TrunkKind(vgg16, *CAFFE, 0.5, padding=1),
    "vgg16bn": TrunkKind(partial(vgg16, batch_norm=True), *TORCHVISION, 0.5, padding=1),
    "googlenet": TrunkKind(googlenet, (123.0, 117.0, 104.0), UNSCALED, "bgr", 0.4, padding=3, pool=7),
    "googlenetbn": TrunkKind(partial(googlenet, batch_norm=True), *HALF, 0.2, padding=3, pool=7),
    "resnet18": TrunkKind(partial(resnet, depth=18), *TORCHVISION, 0.0, padding=3, pool=7),
    "resnet34": TrunkKind(partial(resnet, depth=34), *TORCHVISION, 0.0, padding=3, pool=7),
    "resnet50": TrunkKind(partial(resnet, depth=50), *TORCHVISION, 0.0, padding=3, pool=7),
    "resnet101": TrunkKind(partial(resnet, depth=101), *TORCHVISION, 0.0, padding=3, pool=7),
    # Statistics that are fixed, so that a model does not depend on what it was trained on.
    "slim": TrunkKind(slim, *TORCHVISION, 0.1),
    "slim1": TrunkKind(partial(slim, first_stride=1), *TORCHVISION, 0.1),
}
