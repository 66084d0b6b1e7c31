"""Random weights at unit scale: measured layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fullconv.nets import build
from fullconv.nets.unit_scale import unit_scale


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s-slim", {}), ("fcn8s-resnet18", {}), ("fcn8s-vgg16", {}), ("fcn8s-vgg16", {"padding": "paper"}),
        ("nyud-fcn32s-color-d", {}),
    ],
)  # fmt: skip
def test_every_convolution_is_of_order_one_on_other_images(name: str, options: dict[str, str]) -> None:
    net = unit_scale(build(name, width=0.25, **options))
    deviations: list[float] = []

    def look(layer: nn.Module, given: object, output: Tensor) -> None:
        deviations.append(output.std().item())

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(look)
    generator = torch.Generator().manual_seed(5)
    images = {
        key: 255 * torch.rand(1, each.channels, 24, 24, generator=generator).repeat_interleave(8, 2)[..., :24]
        for key, each in net.options.inputs.items()
    }
    with torch.inference_mode():
        coarse = next(iter(net.eval().coarse(images).values()))
    assert len(deviations) > 5
    assert min(deviations) > 0.1
    assert max(deviations) < 10
    assert coarse.scores.std() > 0.1


@pytest.mark.parametrize("name", ["fcn8s-slim", "fcn8s-vgg16"])
def test_several_classes_win(name: str) -> None:
    net = unit_scale(build(name, width=0.25)).eval()
    image = (255 * torch.rand(1, 3, 160, 192, generator=torch.Generator().manual_seed(1))).to(torch.uint8)
    counts = torch.as_tensor(net.labels(image)).flatten().bincount()
    assert (counts > 0).sum() >= 4
    assert counts.max() < 0.8 * counts.sum()


def test_no_map_lies_far_from_zero() -> None:
    net = unit_scale(build("fcn32s-vgg16", width=0.25)).eval()
    means: list[float] = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, y: means.append(y.mean((0, 2, 3)).abs().max().item()))
    noise = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        net.coarse((118 + 64 * noise).clamp(0, 255))
    assert max(means[:2]) < 0.4, "later ones see how noise differs"


def test_batch_norms_know_what_they_see() -> None:
    net = unit_scale(build("fcn8s-resnet18", width=0.25))
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    for layer in norms:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        assert layer.running_mean.abs().max() > 0.01
        assert layer.running_var.mean() == pytest.approx(1, abs=0.9)


def test_seeds_tell_weights_apart_and_modes_stay() -> None:
    one, same, other = (unit_scale(build("fcn8s-slim", width=0.1).train(), seed) for seed in (1, 1, 2))
    weights = [next(iter(net.parameters())) for net in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one.training
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in one.modules())
