"""torch.compile, with a backend that needs no C++ compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fullconv.errors import OptionError
from fullconv.inference.compilers import compiler

true_compile = torch.compile


def traced(graphs: list[object]) -> Callable[..., Any]:
    """`torch.compile` up to its code generator, which a machine may not have; counts what it compiles."""

    def backend(graph: Any, inputs: object) -> Any:
        graphs.append(graph)
        return graph

    return lambda module, **options: true_compile(module, backend=backend, **options)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    graphs: list[object] = []
    monkeypatch.setattr("shutil.which", lambda program: program)
    monkeypatch.setattr(torch, "compile", traced(graphs))
    return graphs


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_stage_is_compiled_once_for_all_heights(there: list[object], precision: str) -> None:
    torch.manual_seed(0)
    found = compiler("compile", precision)
    for number in range(6):
        stage = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3 + number, 4, 3, padding=1), nn.ReLU(inplace=True))
        run = found.compile(stage, 3 + number)
        for height, width in ((9, 11), (12, 7), (20, 8), (9, 11)):
            x = torch.randn(2, 3 + number, height, width).contiguous(memory_format=torch.channels_last)
            same = x.clone()
            y = run(x)
            assert torch.equal(x, same)
            assert y.is_contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                expected = stage(x.clone())
            assert (y.float() - expected).abs().max() <= (
                1e-5 if precision == "float32" else 0.02
            ) * expected.abs().max()
        run(x[:1])  # torch compiles a batch of one by itself
        assert len(there) == 2 * (number + 1)


def test_without_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.setenv("CXX", "some++")
    with pytest.raises(OptionError, match=r"^torch.compile needs a C\+\+ compiler and finds no some\+\+; install one"):
        compiler("compile")


def test_a_failing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(module: object, **options: object) -> Callable[..., object]:
        def run(x: object) -> object:
            raise RuntimeError("no\nspace")

        return run

    monkeypatch.setattr("shutil.which", lambda program: program)
    monkeypatch.setattr(torch, "compile", failing)
    run = compiler("compile").compile(nn.Sequential(nn.ReLU()), 3)
    with pytest.raises(OptionError, match=r"^torch.compile fails on a Sequential \(RuntimeError: no space\); use the"):
        run(torch.zeros(1, 3, 4, 4))
