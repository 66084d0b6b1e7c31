"""Parameter groups: what decays, what learns faster; and Caffe's rule, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from fullconv.nets import FCN, build
from fullconv.training.optimizer import make_optimizer, training_mode
from fullconv.training.recipe import Recipe

NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "batch norm": ("fcn8s-slim", {}),
    "biases": ("fcn16s-vgg16", {}),
    "learned upsampling": ("fcn8s-slim", {"upsampling": "learned-all"}),
    "PReLU": ("fcn8s-slim", {"upsampling": "stacked"}),
}


def made(name: str) -> FCN:
    net, options = NETS[name]
    return build(net, {"kind": 2, "side": 3}, width=0.05, **options)


def groups(net: nn.Module, optimizer: Optimizer) -> dict[str, tuple[float, float]]:
    """(decay, factor) by parameter; each is in one group."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = [
        (names[id(parameter)], (group["weight_decay"], group["factor"]))
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("name", NETS)
def test_weights_decay_biases_and_heads_have_rates_of_their_own(name: str, optimizer: str) -> None:
    net = made(name)
    recipe = Recipe(optimizer=optimizer, weight_decay=0.125, bias_lr=2.0, head_lr=8.0)
    found = groups(net, make_optimizer(net, recipe))
    expected = {}
    for module_name, module in net.named_modules():
        for own, _ in module.named_parameters(recurse=False):
            filters = own == "weight" and not isinstance(module, nn.BatchNorm2d | nn.PReLU)
            factor = (2 if own == "bias" else 1) * (8 if module_name.split(".")[0] == "heads" else 1)
            expected[f"{module_name}.{own}"] = (0.125 if filters else 0, factor)
    assert found == expected
    assert len(found) == len(list(net.parameters()))
    factors = {factor for _, factor in found.values()}
    assert factors == {1, 2, 8, 16}


def test_without_factors_there_are_two_groups() -> None:
    net = made("biases")
    optimizer = make_optimizer(net, Recipe())
    assert sorted((group["weight_decay"], group["factor"]) for group in optimizer.param_groups) == [(0, 1), (0.02, 1)]
    assert isinstance(optimizer, AdamW)
    assert isinstance(make_optimizer(net, Recipe(optimizer="sgd")), SGD)


def test_heavy_is_caffes_rule() -> None:
    """Reference 5.4: g += decay w; V = momentum V + lr m g; w -= V, with m = 2 and no decay for biases."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3)).double()
    recipe = Recipe(optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=0.5, bias_lr=2.0)
    optimizer = make_optimizer(net, recipe)
    torch.manual_seed(0)
    weight, bias = (p.detach().clone() for p in net.parameters())
    moving = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(4):
        given = [torch.randn_like(p) for p in net.parameters()]
        for parameter, gradient in zip(net.parameters(), given, strict=True):
            parameter.grad = gradient.clone()
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * group["factor"]
        optimizer.step()
        moving[0] = 0.9 * moving[0] + 0.01 * (given[0] + 0.5 * weight)
        moving[1] = 0.9 * moving[1] + 0.02 * given[1]
        weight, bias = weight - moving[0], bias - moving[1]
    found = list(net.parameters())
    torch.testing.assert_close(found[0].data, weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1].data, bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_of_a_fixed_net_the_score_layers_alone_learn(name: str) -> None:
    net = made(name)
    found = groups(net, make_optimizer(net, Recipe(fixed=True)))
    scores = {
        f"heads.{task}.score.image.{stride}.{own}"
        for task in ("kind", "side")
        for stride in ((32, 16) if name == "biases" else (32, 16, 8))
        for own in ("weight", "bias")
    }
    assert set(found) == scores
    assert {key for key, parameter in net.named_parameters() if parameter.requires_grad} == scores


def test_batch_norm_without_weights_learns_its_statistics() -> None:
    """As in a trunk of one's own."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)).eval()
    training_mode(net)
    assert all(module.training for module in net.modules())


def test_batch_norm_that_does_not_learn_keeps_its_statistics() -> None:
    net = made("batch norm").eval()
    make_optimizer(net, Recipe())
    training_mode(net)
    assert all(module.training for module in net.modules())
    make_optimizer(net, Recipe(fixed=True))
    training_mode(net)
    for module in net.modules():
        assert module.training is not isinstance(module, nn.BatchNorm2d)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = net(torch.rand(2, 3, 40, 40) * 255)
    assert isinstance(found["kind"], Tensor)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
