"""OpenVINO: silent, compiled once, bounded, and refusing what a graph cannot hold."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from fullconv.errors import OptionError
from fullconv.inference import openvino as ours
from fullconv.inference.compilers import compiler

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def test_nothing_is_reported_to_anyone(tmp_path: Path) -> None:
    """Its telemetry writes an identity into the home folder before it sends anything."""
    code = (
        "from fullconv.inference.compilers import compiler; from torch import nn; import sys;"
        "compiler('openvino').compile(nn.Sequential(nn.ReLU()), 3);"
        "sys.exit(sys.modules['openvino_telemetry'] is not None)"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.glob("intel/*")) == []


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_signal_after_several_engines_is_only_a_signal(precision: str, tmp_path: Path) -> None:
    """OpenVINO's cores each give the thread a stack for signals: one that is gone kills the process at Ctrl-C."""
    code = (
        "import signal, torch; from torch import nn; from fullconv.inference.compilers import compiler\n"
        "kept = None\n"
        "for count in range(1, 4):\n"  # each one ends after the next has begun
        f"    made = compiler('openvino', {precision!r}).compile(nn.Conv2d(3, count, 3), 3, [torch.rand(1, 3, 8, 8)])\n"
        "    made(torch.rand(1, 3, 8, 8)); kept = made\n"
        "del made, kept\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt: print('stopped')"
    )
    environment = {**os.environ, "FULLCONV_CACHE": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "stopped\n"), found.stderr


def block() -> nn.Sequential:
    """A small block whose pooling reaches beyond the map at odd sizes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv2d(16, 5, 1),
    ).eval()  # fmt: skip


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The input shape of every model that is compiled."""
    found: list[str] = []
    compiled = ours._Run._compiled

    def counted(self: ours._Run, model: Any) -> Any:
        found.append(str(model.input().partial_shape))
        return compiled(self, model)

    monkeypatch.setattr(ours._Run, "_compiled", counted)
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sizes_in_any_order_are_right_and_compiled_once(precision: str, compilations: list[str]) -> None:
    stage = block()
    run = compiler("openvino", precision).compile(stage, 3)
    order = random.Random(0)
    sizes = [(order.randint(1, 3), order.randint(16, 120), order.randint(16, 120)) for _ in range(40)]
    inputs = [torch.randn(n, 3, h, w) for n, h, w in sizes] * 2
    order.shuffle(inputs)
    outputs = [run(x) for x in inputs]
    tolerance = 1e-5 if precision == "float32" else 0.02
    with torch.inference_mode():
        for x, y in zip(inputs, outputs, strict=True):
            expected = stage(x)
            assert y.shape == expected.shape
            assert (y.float() - expected).abs().max() <= tolerance * expected.abs().max()
    assert compilations == ["[?,?,?,3]"]


@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")
def test_int8_gives_with_open_sizes_what_it_gives_with_fixed_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compilations: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = compiler("openvino", "int8").compile(block(), 3, [torch.randn(1, 3, 40, 40)])
    capabilities = {**torch.cpu.get_capabilities(), "amx_int8": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    fixed = compiler("openvino", "int8").compile(block(), 3, [torch.randn(1, 3, 40, 40)])
    sizes = [(1, 30, 41), (2, 17, 90), (1, 30, 41), (1, 64, 64)]
    for x in [torch.randn(n, 3, h, w) for n, h, w in sizes]:
        assert (run(x) - fixed(x)).abs().max() <= 0.02 * run(x).abs().max()
    assert [each for each in compilations if each != "[?,?,?,3]"] == ["[1,30,41,3]", "[2,17,90,3]", "[1,64,64,3]"], (
        "int8 with open sizes crashes where there is AMX"
    )


def test_no_more_sizes_than_a_few_stay_compiled_where_they_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_int8": True})
    monkeypatch.setattr(ours, "SHAPES", 2)
    stage = nn.Sequential(nn.ReLU())
    run = ours._Run(ours.graph(stage, 3), stage, 3, "int8")
    for size in (4, 5, 4, 6):
        run(torch.ones(1, 3, size, 2))
    assert [shape[1] for shape in run.requests] == [4, 6]
    assert len({id(each) for each in run.requests.values()}) == 2
    assert not ours._Run(ours.graph(stage, 3), stage, 3, "bfloat16").fixed


def test_what_a_model_keeps_of_sizes_is_bounded() -> None:
    """Else it keeps kernels of thousands of sizes: gigabytes."""
    run = compiler("openvino").compile(block(), 3)
    assert isinstance(run, ours._Run)
    grown = []
    for height in (16, 17):
        before = psutil.Process().memory_info().rss
        for width in range(16, 216):
            run(torch.zeros(1, 3, height, width))
        grown.append(psutil.Process().memory_info().rss - before)
    assert grown[1] < 25 << 20, "the first sizes fill what is kept; without a bound it is 64 MB again"
    assert len(run.requests) == ours.SHAPES


def test_torch_computes_the_sizes_that_a_model_refuses() -> None:
    stage = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2, 2, ceil_mode=True)).eval()
    run = compiler("openvino").compile(stage, 3)
    with torch.inference_mode():
        for h, w in ((9, 8), (1, 20), (9, 8), (20, 1), (33, 18)):
            x = torch.randn(2, 3, h, w)
            assert torch.allclose(run(x), stage(x), rtol=1e-5, atol=1e-5)


def test_unpadded_layers_are_traced_with_a_larger_example() -> None:
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(2, 3, 20))
    x = torch.randn(1, 2, 25, 31)
    with torch.inference_mode():
        assert torch.allclose(compiler("openvino").compile(stage, 2)(x), stage(x), rtol=1e-4, atol=1e-5)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 3 else x


def test_a_stage_that_decides_by_its_input_is_refused() -> None:
    with pytest.raises(
        OptionError, match=r"^a Deciding cannot be converted for OpenVINO \(.*\); use the engine 'torch'$"
    ):
        compiler("openvino").compile(Deciding(), 3)


def test_sizes_that_torch_refuses_as_well_are_one_line() -> None:
    run = compiler("openvino").compile(nn.Sequential(nn.Conv2d(3, 4, 7)), 3)
    with pytest.raises(
        OptionError, match=r"^OpenVINO fails on an input of shape \(1, 3, 6, 20\) \(RuntimeError: .*\)"
    ) as e:
        run(torch.zeros(1, 3, 6, 20))
    assert "\n" not in str(e.value)


def failing(message: str) -> Any:
    def fail(*_: object) -> None:
        raise RuntimeError(message)

    return fail


def test_what_is_no_refusal_of_a_size_is_not_computed_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    run = compiler("openvino").compile(block(), 3)
    assert isinstance(run, ours._Run)
    openvino = ours.runtime()
    monkeypatch.setattr(openvino.Model, "reshape", failing("no\nmemory"))
    with pytest.raises(
        OptionError,
        match=r"^OpenVINO fails on an input of shape \(1, 3, 30, 20\) \(RuntimeError: no memory\); use the engine ",
    ):
        run(torch.zeros(1, 3, 30, 20))
    assert run.requests == {}
    monkeypatch.setattr(openvino.Model, "reshape", failing("While validating node 'x': too small"))
    with torch.inference_mode():
        assert torch.equal(run(torch.ones(1, 3, 30, 20)), block()(torch.ones(1, 3, 30, 20)))


def test_a_failing_inference_is_one_line() -> None:
    run = compiler("openvino").compile(block(), 3)
    assert isinstance(run, ours._Run)
    x = torch.zeros(1, 3, 30, 20)
    run(x)
    ((shape, request),) = run.requests.items()

    class Request:
        get_input_tensor, get_output_tensor = request.get_input_tensor, request.get_output_tensor
        infer = failing("no\nmemory")

    run.requests[shape] = Request()
    with pytest.raises(OptionError, match=r"\(1, 3, 30, 20\) \(RuntimeError: no memory\); use the engine 'torch'$"):
        run(x)
    run.requests[shape] = request
    assert run(x).shape == (1, 5, 15, 10), "the lock is open again"


def test_sizes_that_are_refused_do_not_follow_the_stage() -> None:
    stage = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2, 2, ceil_mode=True)).eval()
    x = torch.randn(2, 3, 1, 20)
    run = compiler("openvino").compile(stage, 3)
    with torch.inference_mode():
        expected = stage(x)
        for parameter in stage.parameters():
            parameter.zero_()
    stage.train()
    assert torch.allclose(run(x), expected, rtol=1e-5, atol=1e-5)
