"""The key map between our nets and their Caffe models: layer names of the reference nets (reference 1 and 2.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import nn

from fullconv.errors import OptionError
from fullconv.nets import FCN
from fullconv.nets.head import Head
from fullconv.nets.trunks import Trunk

CAFFE_TRUNKS = ("alexnet", "alexnet-bvlc", "googlenet", "vgg16")
"""Trunks of which Caffe models were published."""

TASKS = {"semantic": "sem", "geometric": "geo"}
"""Suffixes of the layers of several heads."""


@dataclass(frozen=True)
class CaffeNames:
    """Caffe's layer names of one net.

    Attributes:
        layers: Caffe layer -> our module, for convolutions: blobs are weight and bias.
        upsampling: Caffe layer -> our module, for deconvolutions: one blob.
        scales: Caffe layer -> stride of the skip that it scales.
    """

    layers: Mapping[str, str]
    upsampling: Mapping[str, str]
    scales: Mapping[str, int]


def caffe_names(net: FCN) -> CaffeNames:
    """The names that the reference repository gives, or would give, to the layers of a net.

    Several trunks have the input's name as a suffix, several heads that of the task; the first convolution of inputs
    fused early is ``conv1_1_bgrd``.

    Raises:
        OptionError: no Caffe model of the trunk was ever published.
    """
    if net.options.trunk not in CAFFE_TRUNKS:
        raise OptionError(
            f"Caffe models are known for the trunks {', '.join(CAFFE_TRUNKS)}, not for {net.options.trunk!r}; "
            "choose a net with one of those"
        )
    layers: dict[str, str] = {}
    upsampling: dict[str, str] = {}
    scales: dict[str, int] = {}
    suffixes = {name: name if len(net.trunks) > 1 else "" for name in net.trunks}
    for name, trunk in net.trunks.items():
        convolutions = [path for path, layer in trunk.named_modules() if isinstance(layer, nn.Conv2d)]
        for number, path in enumerate(convolutions):
            fused = "_bgrd" if net.early and number == 0 else ""
            layers[path.replace(".", "/") + fused + suffixes[name]] = f"trunks.{name}.{path}"
    taps = cast(Trunk, next(iter(net.trunks.values()))).taps
    for task, each in net.heads.items():
        head = cast(Head, each)
        end = f"_{TASKS.get(task, task)}" if len(net.heads) > 1 else ""
        coarsest = head.strides[0]
        for source, suffix in suffixes.items():
            for stride in head.strides:
                tap = "fr" if stride == coarsest else taps[stride]
                layers[f"score_{tap}{suffix}{end}"] = f"heads.{task}.score.{source}.{stride}"
        for at, finer in zip(head.strides, head.strides[1:], strict=False):
            name = f"upscore{at // finer}" if at == coarsest else f"upscore_{taps[at]}"
            upsampling[name + end] = f"heads.{task}.upscore.{finer}"
        last = head.strides[-1]
        upsampling[("upscore" if last == coarsest else f"upscore{last}") + end] = f"heads.{task}.upscore.output"
        scales |= {f"scale_{taps[stride]}": stride for stride in head.strides[1:]}
    return CaffeNames(layers, upsampling, scales)
