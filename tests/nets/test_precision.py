"""Precision: what is computed in bfloat16 is still float32 to everybody else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fullconv.errors import OptionError
from fullconv.nets import FCN, build
from fullconv.nets.precision import has_bfloat16, inference, resolve

CPU = torch.device("cpu")


@pytest.fixture
def net() -> FCN:
    torch.manual_seed(0)
    net = build("fcn8s-slim", 4, width=0.1)
    for name, parameter in net.named_parameters():
        if "score" in name:
            nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_f": True, "amx_bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve("auto", CPU) == expected
    assert has_bfloat16(CPU) == (expected == "bfloat16")
    assert resolve("float32", CPU) == "float32"
    assert resolve("bfloat16", CPU) == "bfloat16"


def test_no_other_device_has_it_untold() -> None:
    assert not has_bfloat16(torch.device("meta"))


def test_an_unknown_precision_is_named() -> None:
    message = r"unknown precision 'bfloat'; did you mean 'bfloat16'\? Choices: auto, bfloat16, float32"
    with pytest.raises(OptionError, match=message):
        resolve("bfloat", CPU)


def test_bfloat16_scores_are_float32_and_near(net: FCN) -> None:
    x = torch.randint(0, 256, (2, 3, 41, 30), dtype=torch.uint8)
    seen: list[torch.dtype] = []
    net.get_submodule("trunks.image.conv1_2").register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with inference(net, "float32"):
        exact = net(x)
    with inference(net, "bfloat16"):
        coarse = net.coarse(x)["semantic"].scores
        near = net(x)
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16], "the convolutions are what is computed in it"
    assert exact.dtype == near.dtype == coarse.dtype == torch.float32
    assert not torch.equal(exact, near)
    assert (exact - near).abs().max() < 0.05 * exact.abs().max()
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_every_modules_mode_and_the_gradients_come_back(net: FCN) -> None:
    net.train()
    net.get_submodule("trunks.image.bn1_1").eval()
    modes = [module.training for module in net.modules()]
    with inference(net):
        assert not any(module.training for module in net.modules())
        assert torch.is_inference_mode_enabled()
    assert [module.training for module in net.modules()] == modes
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_an_error_inside_restores_too(net: FCN) -> None:
    net.train()
    with pytest.raises(RuntimeError, match="inside"), inference(net, "bfloat16"):
        raise RuntimeError("inside")
    assert net.training
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_an_unknown_precision_leaves_the_net_alone(net: FCN) -> None:
    net.train()
    with pytest.raises(OptionError, match="unknown precision"), inference(net, "half"):
        pass
    assert net.training
