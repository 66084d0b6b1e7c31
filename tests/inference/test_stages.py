"""Stages one after the other against the trunk as it is, layer by layer."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from fullconv.inference.stages import Stage, stages_of
from fullconv.nets.packed import PackedConvolution
from fullconv.nets.rectangles import Size, size_after, whole
from fullconv.nets.trunks import TRUNKS, Trunk
from thin_nets import outputs_of, thin


def trunk_of(kind: str, padding: str = "same") -> Trunk:
    net = thin("fcn1s-slim" if kind == "slim1" else f"fcn8s-{kind}", padding=padding, width=1 / 16)
    return cast(Trunk, next(iter(net.trunks.values())))


def run(stages: list[Stage], x: Tensor) -> list[Tensor]:
    """The output of every stage, each run on the whole of its input."""
    found = []
    size: Size = (x.shape[2], x.shape[3])
    with torch.inference_mode():
        for stage in stages:
            after = size_after(stage.layers, size)
            x, size = stage.run(x, whole(size), whole(after), size), after
            found.append(x)
    return found


@pytest.mark.parametrize("padding", ["paper", "same"])
@pytest.mark.parametrize("kind", TRUNKS)
def test_every_stage_gives_what_its_last_layer_gives(kind: str, padding: str) -> None:
    trunk = trunk_of(kind, padding)
    stages = stages_of(trunk, list(trunk.taps), torch.float32)
    x = torch.randn(2, 3, 65, 38)
    expected = outputs_of(trunk, [stage.name for stage in stages], x)
    assert {stage.stride: stage.name for stage in stages if stage.stride}.keys() == trunk.taps.keys()
    for stage, y in zip(stages, run(stages, x), strict=True):
        assert stage.channels == y.shape[1]
        # resnet101 at random weights: 101 layers of float32 sums in two orders.
        assert (y - expected[stage.name]).abs().max() <= 2e-5 * expected[stage.name].abs().max(), stage.name


@pytest.mark.parametrize("kind", TRUNKS)
def test_a_tap_is_the_end_of_a_stage(kind: str) -> None:
    trunk = trunk_of(kind)
    stages = stages_of(trunk, list(trunk.taps), torch.float32)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features = trunk.features(x, list(trunk.taps))
    for stage, y in zip(stages, run(stages, x), strict=True):
        if stage.stride is not None:
            assert (y - features[stage.stride]).abs().max() <= 2e-5 * features[stage.stride].abs().max()
    assert stages[-1].stride == max(trunk.taps)


@pytest.mark.parametrize("stride", [16, 8])
def test_nothing_is_run_beyond_the_last_tap(stride: int) -> None:
    trunk = trunk_of("vgg16")
    stages = stages_of(trunk, [stride], torch.float32)
    assert [stage.stride for stage in stages if stage.stride] == [stride]
    assert stages[-1].stride == stride
    assert stages[-1].name == trunk.taps[stride]


def test_stages_of_vgg() -> None:
    """A convolution, its ReLU, and the pooling behind it; no map of stride 1 but one is kept."""
    stages = stages_of(trunk_of("vgg16"), [32, 16, 8], torch.float32)
    names = [stage.name for stage in stages]
    assert names[:5] == ["relu1_1", "pool1", "relu2_1", "pool2", "relu3_1"]
    assert names[-2:] == ["drop6", "drop7"]
    assert len(stages) == 15, "one for each convolution"
    for stage in stages:
        assert sum(isinstance(layer, PackedConvolution) for layer in stage.layers) == 1
        assert not any(isinstance(layer, nn.ReLU | nn.Dropout) for layer in stage.layers)
    assert stages[1].reads(((1, 2), (0, 3)), (10, 10)) == ((1, 5), (0, 7))


def test_blocks_are_stages() -> None:
    names = [stage.name for stage in stages_of(trunk_of("resnet18"), [32], torch.float32)]
    blocks = [f"layer{layer}.{block}" for layer in range(1, 5) for block in range(2)]
    assert names == ["maxpool", *blocks[:-1], "drop"]


def test_kind_is_what_is_computed_in() -> None:
    stages = stages_of(trunk_of("alexnet"), [32], torch.bfloat16)
    found = run(stages, torch.randn(1, 3, 80, 80))
    assert {y.dtype for y in found} == {torch.bfloat16}
