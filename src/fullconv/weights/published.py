"""Published weights: where they are, what they are of, and what they were measured to score."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fullconv.errors import printable


@dataclass(frozen=True)
class PublishedWeights:
    """A file that its authors publish.

    Attributes:
        url: its address.
        net: the name of `NETS` that it is, or of a classifier the 32s net that has it as its trunk.
        digest: ``sha1:`` or ``sha256:`` and hex digits, of sha256 as many of the first ones as were published; None
            where none was. Eight digits find damage, not malice.
        licence: what is known of it.
        about: one line.
        scored_on: what the scores were measured on; empty without scores.
        scores: shares of 1 under the names ``pixel accuracy``, ``mean accuracy``, ``mean IU``, ``f.w. IU``, ``top-1``
            and ``top-5``; only those of this very file, not those that the paper gives for an earlier one.
    """

    url: str
    net: str
    digest: str | None
    licence: str
    about: str
    scored_on: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    def next_command(self, path: Path) -> str:
        """What to do with the file: a whole FCN becomes a model, a classifier the beginning of a training."""
        file = shlex.quote(printable(path))
        if self.net.startswith("fcn"):  # no published net: a classifier
            return f"fullconv train --data DATA --net {self.net} --init {file}"
        return f"fullconv convert {file} --net {self.net} -o {self.net}.safetensors"


BERKELEY = "http://dl.caffe.berkeleyvision.org"
VGG = "http://www.robots.ox.ac.uk/~vgg"
PYTORCH = "https://download.pytorch.org/models"

UNRESTRICTED = "unrestricted use (BVLC model licence)"
VGG_TERMS = f"Creative Commons Attribution; see {VGG}/research/very_deep/"
TORCHVISION = "code BSD-3-Clause; the weights may be under ImageNet's terms"

SEG11VALID = "seg11valid (736 images)"
IMAGENET = "ImageNet validation, centre crop"

PUBLISHED: dict[str, PublishedWeights] = {
    # The nets of the paper's authors (reference 1.4). The four numbers were measured again, independently, with
    # these very files (reference 8.6); FCN-AlexNet's is the authors'.
    "voc-fcn32s": PublishedWeights(
        f"{BERKELEY}/fcn32s-heavy-pascal.caffemodel",
        "voc-fcn32s",
        "sha1:05eb922d7829c39448f57e5ab9d8cd75d6c0be6d",
        UNRESTRICTED,
        "FCN-32s of VGG-16, PASCAL VOC and SBD, 21 classes",
        SEG11VALID,
        {"pixel accuracy": 0.904810, "mean accuracy": 0.764824, "mean IU": 0.636261, "f.w. IU": 0.834580},
    ),
    "voc-fcn16s": PublishedWeights(
        f"{BERKELEY}/fcn16s-heavy-pascal.caffemodel",
        "voc-fcn16s",
        None,
        UNRESTRICTED,
        "FCN-16s of VGG-16, PASCAL VOC and SBD, 21 classes",
        SEG11VALID,
        {"pixel accuracy": 0.909971, "mean accuracy": 0.780710, "mean IU": 0.650050, "f.w. IU": 0.842614},
    ),
    "voc-fcn8s": PublishedWeights(
        f"{BERKELEY}/fcn8s-heavy-pascal.caffemodel",
        "voc-fcn8s",
        None,
        UNRESTRICTED,
        "FCN-8s of VGG-16, trained in stages, PASCAL VOC and SBD, 21 classes",
        SEG11VALID,
        {"pixel accuracy": 0.912212, "mean accuracy": 0.776146, "mean IU": 0.655126, "f.w. IU": 0.845445},
    ),
    "voc-fcn8s-atonce": PublishedWeights(
        f"{BERKELEY}/fcn8s-atonce-pascal.caffemodel",
        "voc-fcn8s-atonce",
        None,
        UNRESTRICTED,
        "FCN-8s of VGG-16, trained at once, PASCAL VOC and SBD, 21 classes",
        SEG11VALID,
        {"pixel accuracy": 0.911288, "mean accuracy": 0.784979, "mean IU": 0.653998, "f.w. IU": 0.844326},
    ),
    "voc-fcn-alexnet": PublishedWeights(
        f"{BERKELEY}/fcn-alexnet-pascal.caffemodel",
        "voc-fcn-alexnet",
        None,
        UNRESTRICTED,
        "FCN-AlexNet (CaffeNet), PASCAL VOC and SBD, 21 classes",
        SEG11VALID,
        {"mean IU": 0.480},
    ),
    "pascalcontext-fcn32s": PublishedWeights(
        f"{BERKELEY}/pascalcontext-fcn32s-heavy.caffemodel",
        "pascalcontext-fcn32s",
        None,
        UNRESTRICTED,
        "FCN-32s of VGG-16, PASCAL-Context, 59 classes and background",
    ),
    "pascalcontext-fcn16s": PublishedWeights(
        f"{BERKELEY}/pascalcontext-fcn16s-heavy.caffemodel",
        "pascalcontext-fcn16s",
        None,
        UNRESTRICTED,
        "FCN-16s of VGG-16, PASCAL-Context, 59 classes and background",
    ),
    "pascalcontext-fcn8s": PublishedWeights(
        f"{BERKELEY}/pascalcontext-fcn8s-heavy.caffemodel",
        "pascalcontext-fcn8s",
        None,
        UNRESTRICTED,
        "FCN-8s of VGG-16, PASCAL-Context, 59 classes and background",
    ),
    "nyud-fcn32s-color": PublishedWeights(
        f"{BERKELEY}/nyud-fcn32s-color-heavy.caffemodel",
        "nyud-fcn32s-color",
        None,
        UNRESTRICTED,
        "FCN-32s of VGG-16, NYUDv2 colour, 40 classes",
    ),
    "nyud-fcn32s-hha": PublishedWeights(
        f"{BERKELEY}/nyud-fcn32s-hha-heavy.caffemodel",
        "nyud-fcn32s-hha",
        None,
        UNRESTRICTED,
        "FCN-32s of VGG-16, NYUDv2 HHA (disparity, height, angle), 40 classes",
    ),
    "nyud-fcn32s-color-hha": PublishedWeights(
        f"{BERKELEY}/nyud-fcn32s-color-hha-heavy.caffemodel",
        "nyud-fcn32s-color-hha",
        None,
        UNRESTRICTED,
        "FCN-32s of two VGG-16, NYUDv2 colour and HHA fused late, 40 classes",
    ),
    "siftflow-fcn32s": PublishedWeights(
        f"{BERKELEY}/siftflow-fcn32s-heavy.caffemodel",
        "siftflow-fcn32s",
        None,
        UNRESTRICTED,
        "FCN-32s of VGG-16, SIFT Flow, 33 semantic and 3 geometric classes",
    ),
    "siftflow-fcn16s": PublishedWeights(
        f"{BERKELEY}/siftflow-fcn16s-heavy.caffemodel",
        "siftflow-fcn16s",
        None,
        UNRESTRICTED,
        "FCN-16s of VGG-16, SIFT Flow, 33 semantic and 3 geometric classes",
    ),
    "siftflow-fcn8s": PublishedWeights(
        f"{BERKELEY}/siftflow-fcn8s-heavy.caffemodel",
        "siftflow-fcn8s",
        None,
        UNRESTRICTED,
        "FCN-8s of VGG-16, SIFT Flow, 33 semantic and 3 geometric classes",
    ),
    # The classifiers that the paper's nets began with (reference 2.1, 2.2, 2.4).
    "caffenet": PublishedWeights(
        f"{BERKELEY}/bvlc_reference_caffenet.caffemodel",
        "fcn32s-alexnet",
        "sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        UNRESTRICTED,
        "CaffeNet, the AlexNet of FCN-AlexNet (pooling before normalisation)",
        IMAGENET,
        {"top-1": 0.574, "top-5": 0.804},
    ),
    "alexnet-bvlc": PublishedWeights(
        f"{BERKELEY}/bvlc_alexnet.caffemodel",
        "fcn32s-alexnet-bvlc",
        "sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377",
        UNRESTRICTED,
        "BVLC's AlexNet, in the order of the first publication (normalisation before pooling)",
        IMAGENET,
        {"top-1": 0.571, "top-5": 0.802},
    ),
    "vgg16-caffe": PublishedWeights(
        f"{VGG}/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
        "fcn32s-vgg16",
        "sha1:9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
        VGG_TERMS,
        "VGG-16 of its authors, which the paper's nets began with",
    ),
    "googlenet-bvlc": PublishedWeights(
        f"{BERKELEY}/bvlc_googlenet.caffemodel",
        "fcn32s-googlenet",
        "sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204",
        UNRESTRICTED,
        "GoogLeNet, trained by BVLC",
        IMAGENET,
        {"top-1": 0.687, "top-5": 0.889},
    ),
    # torchvision's (reference 2.6): the digits in a file's name begin its sha256.
    "torchvision-alexnet": PublishedWeights(
        f"{PYTORCH}/alexnet-owt-7be5be79.pth",
        "fcn32s-alexnet-owt",
        "sha256:7be5be79",
        TORCHVISION,
        "AlexNet, the one-weird-trick variant: no groups, no normalisation",
        IMAGENET,
        {"top-1": 0.56522, "top-5": 0.79066},
    ),
    "torchvision-vgg16": PublishedWeights(
        f"{PYTORCH}/vgg16-397923af.pth",
        "fcn32s-vgg16",
        "sha256:397923af",
        TORCHVISION,
        "VGG-16, trained by torchvision",
        IMAGENET,
        {"top-1": 0.71592, "top-5": 0.90382},
    ),
    "torchvision-vgg16-features": PublishedWeights(
        f"{PYTORCH}/vgg16_features-amdegroot-88682ab5.pth",
        "fcn32s-vgg16",
        "sha256:88682ab5",
        "see https://github.com/amdegroot/ssd.pytorch, where torchvision has it from",
        "VGG-16 of its authors without fc6 and fc7, which are NaN in the file",
    ),
    "torchvision-vgg16bn": PublishedWeights(
        f"{PYTORCH}/vgg16_bn-6c64b313.pth",
        "fcn32s-vgg16bn",
        "sha256:6c64b313",
        TORCHVISION,
        "VGG-16 with batch normalisation",
        IMAGENET,
        {"top-1": 0.73360, "top-5": 0.91516},
    ),
    "torchvision-googlenet": PublishedWeights(
        f"{PYTORCH}/googlenet-1378be20.pth",
        "fcn32s-googlenetbn",
        "sha256:1378be20",
        TORCHVISION,
        "GoogLeNet with batch normalisation, by way of TensorFlow",
        IMAGENET,
        {"top-1": 0.69778, "top-5": 0.89530},
    ),
    "torchvision-resnet18": PublishedWeights(
        f"{PYTORCH}/resnet18-f37072fd.pth",
        "fcn32s-resnet18",
        "sha256:f37072fd",
        TORCHVISION,
        "ResNet-18",
        IMAGENET,
        {"top-1": 0.69758, "top-5": 0.89078},
    ),
    "torchvision-resnet34": PublishedWeights(
        f"{PYTORCH}/resnet34-b627a593.pth",
        "fcn32s-resnet34",
        "sha256:b627a593",
        TORCHVISION,
        "ResNet-34",
        IMAGENET,
        {"top-1": 0.73314, "top-5": 0.91420},
    ),
    "torchvision-resnet50": PublishedWeights(
        f"{PYTORCH}/resnet50-0676ba61.pth",
        "fcn32s-resnet50",
        "sha256:0676ba61",
        TORCHVISION,
        "ResNet-50, the first of torchvision's two",
        IMAGENET,
        {"top-1": 0.76130, "top-5": 0.92862},
    ),
    "torchvision-resnet101": PublishedWeights(
        f"{PYTORCH}/resnet101-63fe2227.pth",
        "fcn32s-resnet101",
        "sha256:63fe2227",
        TORCHVISION,
        "ResNet-101, the first of torchvision's two",
    ),
}
