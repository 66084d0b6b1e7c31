"""Compilers against the plain stage, at odd sizes and batches."""

from __future__ import annotations

import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fullconv.errors import GeometryError, OptionError
from fullconv.inference.compilers import ABLE, COMPILERS, activation_type, compiler, stage_input
from fullconv.nets.precision import has_bfloat16
from fullconv.nets.trunks import TRUNKS

CPU = torch.device("cpu")
OPENVINO = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
NAMES = [pytest.param("openvino", marks=OPENVINO)]
SIZES = [(1, 37, 41), (2, 24, 53), (1, 37, 41), (3, 9, 11)]
"""N, h, w; one comes again, and the outputs of all must last."""


def cut(trunk: str) -> Iterator[tuple[nn.Sequential, int]]:
    """A small trunk's stages, pooling to pooling and block by block, with the channels that enter them."""
    layers: dict[str, nn.Module] = {}
    channels = 3
    for name, layer in TRUNKS[trunk].build(3, None, 0.5, 1 / 8).named_children():
        layers[name] = layer
        if name.startswith(("pool", "maxpool", "layer", "inception", "drop")):
            stage = nn.Sequential(OrderedDict(layers)).eval()
            yield stage, channels
            with torch.inference_mode():
                channels = stage(torch.zeros(1, channels, 16, 16)).shape[1]
            layers = {}


def unsettle(stage: nn.Module) -> None:
    """Batch norms and biases that do something."""
    for layer in stage.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.running_mean, -0.2, 0.2), (layer.running_var, 0.5, 2), (layer.weight, 0.5, 1.5),
                (layer.bias, -0.2, 0.2),
            ):  # fmt: skip
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.uniform_(layer.bias, -0.2, 0.2)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trunk", ["vgg16", "resnet18", "googlenet", "slim"])
def test_a_stage_gives_what_it_gave(trunk: str, name: str, precision: str) -> None:
    torch.manual_seed(0)
    found = compiler(name, precision)
    assert (found.name, found.precision) == (name, precision)
    tolerance = 1e-5 if precision == "float32" else 0.02
    for stage, channels in cut(trunk):
        unsettle(stage)
        run = found.compile(stage, channels)
        inputs = [torch.randn(n, channels, h, w).relu() for n, h, w in SIZES]
        before = [x.clone() for x in inputs]
        outputs = [run(x) for x in inputs]
        for x, y, same in zip(inputs, outputs, before, strict=True):
            assert torch.equal(x, same), "an input is left as it is"
            with torch.inference_mode():
                expected = stage(same)
            assert y.dtype == activation_type(precision)
            assert y.is_contiguous(memory_format=torch.channels_last)
            assert y.shape == expected.shape
            assert expected.abs().max() > 0.01
            assert (y.float() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_may_begin_with_a_relu_in_place_or_do_nothing(name: str) -> None:
    x = torch.randn(2, 4, 5, 7).contiguous(memory_format=torch.channels_last)
    same = x.clone()
    for stage, expected in ((nn.Sequential(nn.ReLU(inplace=True)), x.relu()), (nn.Sequential(nn.Dropout()), x)):
        y = compiler(name).compile(stage, 4)(x)
        assert torch.equal(y, expected)
        assert torch.equal(x, same)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_keeps_its_mode_and_may_change_afterwards(name: str) -> None:
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4)).train()
    x = torch.randn(2, 3, 8, 9)
    run = compiler(name).compile(stage, 3)
    assert all(layer.training for layer in stage.modules())
    with torch.inference_mode():
        expected = stage.eval()(x)
        for parameter in stage.parameters():
            parameter.mul_(3)
    assert torch.allclose(run(x), expected, rtol=1e-4, atol=1e-5), "at its first size too"


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_any_type_and_layout(name: str) -> None:
    torch.manual_seed(0)
    run = compiler(name).compile(nn.Sequential(nn.Conv2d(5, 6, 3, 2, 1)), 5)
    x = torch.randn(2, 5, 9, 8).bfloat16()
    expected = run(x.float())
    wide = torch.zeros(2, 9, 12, 5).bfloat16()
    wide[:, :, 2:10] = x.permute(0, 2, 3, 1)
    strip = wide.permute(0, 3, 1, 2)[..., 2:10]
    for same in (x, x.contiguous(memory_format=torch.channels_last), strip, x.double().requires_grad_()):
        assert torch.equal(run(same), expected)


@settings(max_examples=15)
@given(n=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40))
@pytest.mark.parametrize("name", NAMES)
def test_one_function_serves_every_size(name: str, n: int, height: int, width: int) -> None:
    stage, run = served(name)
    x = torch.randn(n, 3, height, width)
    with torch.inference_mode():
        expected = stage(x.clone())
    assert torch.allclose(run(x), expected, rtol=1e-5, atol=1e-5)


_SERVED: dict[str, tuple[nn.Module, object]] = {}


def served(name: str):  # type: ignore[no-untyped-def]
    """A stage and its function, made once."""
    if name not in _SERVED:
        torch.manual_seed(0)
        stage = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(8, 5, 5, 2, 2, dilation=1), nn.BatchNorm2d(5),
        ).eval()  # fmt: skip
        _SERVED[name] = stage, compiler(name).compile(stage, 3)
    return _SERVED[name]


def test_tables_agree() -> None:
    assert {"torch", *COMPILERS} == ABLE.keys()


def test_bfloat16_between_stages_only_where_it_is_quick() -> None:
    assert activation_type("float32") == torch.float32
    assert activation_type("bfloat16") == torch.bfloat16
    assert activation_type("int8") == (torch.bfloat16 if has_bfloat16(CPU) else torch.float32)


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        (
            "opencl",
            "float32",
            r"^unknown compiler 'opencl'; did you mean 'openvino'\? Choices: compile, openvino$",
        ),
        ("compile", "int8", r"^precision 'int8' with 'compile'; it needs 'openvino'$"),
        (
            "openvino",
            "float16",
            r"^unknown precision 'float16'; did you mean 'bfloat16'\? Choices: bfloat16, float32, int8$",
        ),
    ],
)
def test_refused_options(name: str, precision: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        compiler(name, precision)


@pytest.mark.parametrize("missing", ["openvino", "nncf"])
def test_a_missing_package_is_told_with_its_command(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "nncf" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    monkeypatch.setitem(sys.modules, missing, None)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=rf"{missing}.* cannot be imported .*pip install 'fullconv\[openvino\]'$"):
        compiler("openvino", "int8")


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_type_are_refused(name: str) -> None:
    with pytest.raises(
        OptionError, match=r"^weights of torch.float64 on cpu; compile takes float32 on cpu: net.float\(\).cpu\(\)$"
    ):
        compiler(name).compile(nn.Sequential(nn.Conv2d(3, 4, 3).double()), 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 4, 4), r"^a stage's input of shape \(3, 4, 4\); expected \(N, 3, h, w\), none of them 0$"),
        (torch.zeros(1, 2, 4, 4), r"shape \(1, 2, 4, 4\)"),
        (torch.zeros(1, 3, 0, 4), r"shape \(1, 3, 0, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"^a stage's input of torch.uint8; expected float32 or bfloat16$"),
    ],
)
def test_refused_inputs(x: torch.Tensor, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        stage_input(x, 3, torch.float32)
