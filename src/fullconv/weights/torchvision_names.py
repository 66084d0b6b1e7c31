"""The key maps between our trunks and torchvision's classifier files (reference 2.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fullconv.nets import InputOptions
from fullconv.nets.trunks import IMAGENET_MEAN, IMAGENET_STD
from fullconv.nets.trunks.googlenet import INCEPTION

IMAGENET: Final = InputOptions(IMAGENET_MEAN, IMAGENET_STD)

HALF: Final = InputOptions((127.5,) * 3, (127.5,) * 3)
"""GoogLeNet's file: its net turns what ImageNet's statistics made into -1..1 itself (transform_input)."""

CAFFE_SCALED: Final = InputOptions((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
"""VGG-16's features-only file: made from Caffe's weights, but for RGB; its classifier is NaN."""


@dataclass(frozen=True)
class KeyMap:
    """How one of torchvision's files calls the layers of a trunk.

    Attributes:
        layers: the trunk's layer -> the file's; layers that are not in it have the same name.
        last: the file's name of the classifier's last layer.
        inputs: what the file's net expects.
        auxiliary: what the names of heads begin with that only training used.
    """

    layers: Mapping[str, str]
    last: str
    inputs: InputOptions = IMAGENET
    auxiliary: tuple[str, ...] = ()

    def source(self, key: str) -> str:
        """The file's name of the trunk's weight `key`, such as ``fc6.bias``."""
        layer, _, weight = key.rpartition(".")
        return f"{self.layers.get(layer, layer)}.{weight}"

    def unwanted(self, source: str) -> bool:
        """Whether the file's weight `source` is of the last layer or an auxiliary head."""
        return source.rpartition(".")[0] == self.last or source.startswith(self.auxiliary)


ALEXNET: Final = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
}

VGG: Final = {
    "1_1": (0, 0), "1_2": (2, 3), "2_1": (5, 7), "2_2": (7, 10), "3_1": (10, 14), "3_2": (12, 17), "3_3": (14, 20),
    "4_1": (17, 24), "4_2": (19, 27), "4_3": (21, 30), "5_1": (24, 34), "5_2": (26, 37), "5_3": (28, 40),
}  # fmt: skip
"""Numbers of the convolutions in ``features``, without and with batch norm, which follows each at once."""

VGG_CLASSIFIER: Final = {"fc6": "classifier.0", "fc7": "classifier.3"}

INCEPTION_BRANCHES: Final = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}

GOOGLENET: Final = {
    ("conv1", "7x7_s2"): "conv1",
    ("conv2", "3x3_reduce"): "conv2",
    ("conv2", "3x3"): "conv3",
    **{
        (f"inception_{module}", ours): f"inception{module}.{theirs}"
        for module in INCEPTION
        for ours, theirs in INCEPTION_BRANCHES.items()
    },
}

RESNET: Final = KeyMap({}, "fc")

TORCHVISION: Final = {
    "alexnet-owt": KeyMap(ALEXNET, "classifier.6"),
    "vgg16": KeyMap({f"conv{name}": f"features.{i}" for name, (i, _) in VGG.items()} | VGG_CLASSIFIER, "classifier.6"),
    "vgg16bn": KeyMap(
        {f"conv{name}": f"features.{i}" for name, (_, i) in VGG.items()}
        | {f"bn{name}": f"features.{i + 1}" for name, (_, i) in VGG.items()}
        | VGG_CLASSIFIER,
        "classifier.6",
    ),
    "googlenetbn": KeyMap(
        {f"{module}.{ours}": f"{theirs}.conv" for (module, ours), theirs in GOOGLENET.items()}
        | {f"{module}.bn_{ours}": f"{theirs}.bn" for (module, ours), theirs in GOOGLENET.items()},
        "fc",
        HALF,
        ("aux1.", "aux2."),
    ),
    "resnet18": RESNET,
    "resnet34": RESNET,
    "resnet50": RESNET,
    "resnet101": RESNET,
}
"""Trunk -> the names in its file (reference 2.6)."""
