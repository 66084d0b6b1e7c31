"""Blocks that pad by themselves, on rectangles: whatever compiles them, the scores are those of the plain net."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullconv.inference.compiled import CompiledStage, compiled_stages
from fullconv.inference.compilers import Compiled
from fullconv.inference.reference import Reference
from fullconv.inference.staged import StagedNet
from fullconv.inference.strips import Strips
from fullconv.nets.trunks import TRUNKS, Trunk
from thin_nets import noise, reading, thin


@dataclass
class Eager:
    """A compiler that leaves a block as it is, and notes what it was given."""

    name: str = "eager"
    precision: str = "float32"
    seen: list[tuple[int, ...]] = field(default_factory=list)
    samples: list[list[tuple[int, ...]]] = field(default_factory=list)
    reads: bool = True

    def compile(self, stage: nn.Module, channels: int, samples: Iterable[Tensor] = ()) -> Compiled:
        if self.reads:
            assert all(x.shape[1] == channels for x in samples)
            self.samples.append([tuple(x.shape[2:]) for x in samples])
        else:
            self.samples.append([])

        def run(x: Tensor) -> Tensor:
            self.seen.append(tuple(x.shape))
            y: Tensor = stage(x.clone())
            return y

        return run


class Copying(Eager):
    """A compiler as they are: the function has its own weights."""

    def compile(self, stage: nn.Module, channels: int, samples: Iterable[Tensor] = ()) -> Compiled:
        return super().compile(copy.deepcopy(stage).eval(), channels, samples)


@pytest.mark.parametrize("padding", ["same", "paper"])
@pytest.mark.parametrize("trunk", [name for name in TRUNKS if name not in ("resnet101", "slim1")])
@settings(max_examples=4)
@given(data=st.data())
def test_blocks_on_rectangles_give_the_plain_nets_scores(trunk: str, padding: str, data: st.DataObject) -> None:
    head = data.draw(st.sampled_from(["fcn32s", "fcn8s"]))
    net = thin(f"{head}-{trunk}", 3, 0, 0.1, padding=padding)
    height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150))
    left = data.draw(st.integers(0, width - 1))
    columns = left, data.draw(st.integers(left + 1, width))
    x = noise(1, 3, height, width, seed=height)
    with torch.inference_mode():
        staged = StagedNet.of(net, compiler=Eager())
        strips = Strips(staged, (height, width), reading(x), columns=columns,
                        budget=data.draw(st.sampled_from([1 << 12, 1 << 17, 1 << 26])))  # fmt: skip
        found = strips.scores("semantic", (0, height))
        expected = Reference(net).coarse(x)["semantic"].upsample()[..., slice(*columns)]
    scale = expected.abs().max()
    assert float((found - expected).abs().max()) <= 5e-5 * float(scale)


def test_the_papers_pixels_are_not_paid_inside_an_image() -> None:
    net = thin("fcn32s-vgg16", 3, 0, 0.1, padding="paper")
    compiler = Eager()
    with torch.inference_mode():
        staged = StagedNet.of(net, compiler=compiler)
        x = noise(1, 3, 900, 40)
        strips = Strips(staged, (900, 40), reading(x), budget=1 << 16)
        step = strips.maps.every[1].step
        compiler.seen.clear()  # the image of nothing, which is whole
        strips.scores("semantic", (400, 401))
        first = [shape for shape in compiler.seen if shape[1] == 3]
        assert max(shape[2] for shape in first) <= 2 * step + 4, (
            "rows of two convolutions more than the pooled ones ask"
        )


@settings(max_examples=8)
@given(height=st.integers(1, 16), width=st.integers(1, 40))
def test_the_compiler_gets_maps_of_every_size(height: int, width: int) -> None:
    """A stage never turns to the net itself, whose weights and modes are somebody else's."""
    net = thin("fcn32s-resnet18", 3, 0, 0.1, padding="same")
    x = noise(1, 3, height, width)
    with torch.inference_mode():
        staged = StagedNet.of(copy.deepcopy(net), compiler=Copying())
        expected = Reference(net).coarse({"image": x})["semantic"].upsample()
        for parameter in staged.net.trunks.parameters():
            parameter.zero_()
        staged.net.train()
        strips = Strips(staged, (height, width), reading(x))
        found = strips.scores("semantic", (0, height))
    assert (found - expected).abs().max() <= 5e-5 * expected.abs().max()
    assert all(part.training for part in staged.net.modules())


def test_samples_go_from_block_to_block() -> None:
    net = thin("fcn8s-vgg16", 3, 0, 0.1, padding="paper")
    trunk = next(iter(net.trunks.values()))
    assert isinstance(trunk, Trunk)
    compiler = Eager()
    stages = compiled_stages(trunk, (32, 16, 8), 3, compiler, [torch.rand(2, 3, 32, 48)])
    assert [stage.name for stage in stages] == ["pool1", "pool2", "pool3", "pool4", "pool5", "drop7"]
    assert compiler.samples[0] == [(32 + 198, 48 + 198)], "the 100 pixels but one are around the image"
    assert compiler.samples[1] == [(115, 123)]
    assert all(isinstance(stage, CompiledStage) for stage in stages)


def test_blocks_that_need_no_samples_run_none(monkeypatch: pytest.MonkeyPatch) -> None:
    net = thin("fcn8s-slim", 3, 0, 0.1)
    trunk = next(iter(net.trunks.values()))
    assert isinstance(trunk, Trunk)

    def refused(*_: object) -> Tensor:
        raise AssertionError("a convolution ran")

    monkeypatch.setattr(nn.Conv2d, "forward", refused)
    compiler = Eager(reads=False)
    assert len(compiled_stages(trunk, (32, 16, 8), 3, compiler, [torch.rand(1, 3, 32, 48)])) == len(compiler.samples)
