"""Benchmarks of a tiny net, in real processes: what is measured, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from fullconv.errors import ModelFileError, OptionError
from fullconv.inference import benchmark as module
from fullconv.inference.benchmark import agreement, benchmark, combinations, crop_of, quick
from fullconv.inference.contender import COMMAND, Contender
from fullconv.inference.model import Model
from fullconv.inference.timings import Timings
from fullconv.nets import FCN, build
from fullconv.nets.unit_scale import unit_scale

SMALL = {"layers": 1, "channels": 8, "side": 8}
DYING = [sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit('no room')"]


@pytest.fixture(scope="module")
def net() -> FCN:
    return unit_scale(build("fcn8s-slim", 3, width=0.1)).eval()


@pytest.fixture(scope="module")
def model(net: FCN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    Model(net, training={"recipe": {"augmentation": {"crop": [40, 48]}}}).save(path)
    return path


class Mortal(Contender):
    """One that dies where it should run in bfloat16."""

    def __init__(self, request: Mapping[str, Any], threads: int, command: Sequence[str] = COMMAND) -> None:
        super().__init__(request, threads, DYING if request.get("precision") == "bfloat16" else command)


@pytest.fixture(scope="module")
def measured(model: Path) -> Timings:
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "CONVOLUTIONS", SMALL)
    patch.setattr(module, "Contender", Mortal)
    with patch.context():
        return benchmark(model, (), ["torch"], ["float32", "bfloat16"], repeats=2, threads=1)


def test_rows_are_of_the_training_size_and_the_plain_net_is_among_them(measured: Timings) -> None:
    rows = {(row.engine, row.precision): row for row in measured.rows}
    assert set(rows) == {("plain", "float32"), ("torch", "float32"), ("torch", "bfloat16")}
    assert {row.size for row in measured.rows} == {(40, 48)}
    for name in ("plain", "torch"):
        row = rows[name, "float32"]
        assert (len(row.seconds), row.agreement, row.error) == (2, 1.0, None)
        assert row.first is not None
        assert row.median is not None
        assert 0 < row.median < 10
        assert row.memory is not None
        assert 50 << 20 < row.memory < 4 << 30
    assert measured.peaks.keys() == {"float32", "bfloat16"}
    medians = [row.median for row in measured.rows if row.median is not None]
    assert medians == sorted(medians)


def test_a_process_that_dies_is_a_row(measured: Timings) -> None:
    row = measured.rows[-1]
    assert (row.precision, row.seconds, row.error) == ("bfloat16", (), "its process ended with code 1: no room")


def test_multiplications_are_those_of_the_layers(measured: Timings, net: FCN) -> None:
    total = 0

    def count(layer: nn.Module, given: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += output.numel() * layer.weight[0].numel()

    hooks = [each.register_forward_hook(count) for each in net.modules() if isinstance(each, nn.Conv2d)]
    with torch.inference_mode():
        net.coarse(torch.zeros(1, 3, 40, 48, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    # The upsamplings between scores are of the net, too.
    assert total <= measured.plain[40, 48] <= 1.1 * total
    counted = {row.engine: row.multiplications for row in measured.rows if not row.error}
    assert counted["plain"] == measured.plain[40, 48]
    assert counted["torch"] == pytest.approx(total, rel=0.1)


def test_agreement_is_the_share_of_equal_pixels(tmp_path: Path) -> None:
    one = {"0.a": np.zeros((2, 5), np.uint8), "1.a": np.ones((2, 5), np.uint8)}
    other = {**one, "1.a": np.array([[1] * 5, [1, 1, 0, 0, 0]], np.uint8)}
    files = [tmp_path / "one", tmp_path / "other"]
    for path, labels in zip(files, (one, other), strict=True):
        save_file(labels, path)
    assert agreement(*files) == 17 / 20


def test_groups_where_memory_is_small(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process can be started beside another one: each has its turns alone."""
    alive: list[int] = []
    most = 0

    class Cheap:
        """Answers at once."""

        error, memory = None, 5

        def __init__(self, request: Mapping[str, Any], threads: int, command: Sequence[str] = ()) -> None:
            self.machine = request["kind"] == "machine"

        def __enter__(self) -> Cheap:
            nonlocal most
            alive.append(1)
            most = max(most, len(alive))
            return self

        def __exit__(self, *_: object) -> None:
            alive.pop()

        def start(self) -> dict[str, Any]:
            return self.ask("turn")

        def ask(self, what: str, path: str = "", number: int = 0) -> dict[str, Any]:
            if what == "answer":
                save_file({"0.a": np.zeros((1, 1), np.uint8)}, path)
            return {"rates": {"float32": 1e9}} if self.machine else {"seconds": 0.5, "multiplications": 7}

    monkeypatch.setattr(module, "Contender", Cheap)
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    told: list[tuple[int, int, str]] = []
    found = benchmark(
        model, [(8, 8), (9, 9)], ["torch"], ["float32"], repeats=3, threads=1,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert most == 2, "the machine's and one more"
    assert [len(row.seconds) for row in found.rows] == [3] * 4
    assert [row.agreement for row in found.rows] == [1.0] * 4
    assert "8x8: memory holds 1 of 2 combinations at once" in found.notes[0]
    assert all(done <= total for done, total, _ in told)


def test_missing_packages_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    notes: list[str] = []
    pairs = combinations(["torch", "openvino"], ["float32", "int8", "bfloat16"], notes.append)
    assert pairs == [("plain", "float32"), ("torch", "float32"), ("torch", "bfloat16")]
    assert len(notes) == 1
    assert notes[0].startswith("openvino float32 is left out: openvino cannot be imported")
    assert notes[0].endswith("run: pip install 'fullconv[openvino]'")
    with pytest.raises(OptionError, match=r"nothing to measure: openvino float32 is left out: openvino cannot"):
        combinations(["openvino"], ["float32"], notes.append)


@pytest.mark.parametrize(
    ("engines", "precisions", "why"),
    [
        (["tensorrt"], [], "unknown engine 'tensorrt'"),
        ([], ["float16"], "unknown precision 'float16'; did you mean 'bfloat16'"),
        (["torch"], ["int8"], "nothing to measure: torch cannot compute in int8; torch has float32, bfloat16"),
    ],
)
def test_names_that_cannot_work(engines: Sequence[str], precisions: Sequence[str], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        combinations(engines, precisions, lambda _: None)


def test_default_precisions_are_those_with_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in (
        ({}, ["float32"]),
        ({"avx512_bf16": True}, ["float32", "bfloat16"]),
        ({"avx512_vnni": True}, ["float32", "int8"]),
        ({"amx_bf16": True, "amx_int8": True}, ["float32", "bfloat16", "int8"]),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert quick() == expected


def test_what_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown net 'fcn8s-slimm'; did you mean 'fcn8s-slim'"):
        benchmark("fcn8s-slimm")
    with pytest.raises(ModelFileError, match="does not exist"):
        benchmark(tmp_path / "none.safetensors")
    with pytest.raises(OptionError, match="0 repeats; expected 1 to 10000"):
        benchmark(model, repeats=0)
    with pytest.raises(OptionError, match="0 threads; expected 1 to 1024"):
        benchmark(model, threads=0)


@pytest.mark.parametrize("crop", [None, [40], [0, 4], [40.0, 4], "40", [1, 10**6], {"a": 1}, [True, 4]])
def test_a_record_may_say_anything(crop: object) -> None:
    assert crop_of({"recipe": {"augmentation": {"crop": crop}}}) is None
    assert crop_of({"recipe": crop}) is None
    assert crop_of({"recipe": {"augmentation": {"crop": [3, 4]}}}) == (3, 4)


def test_random_weights_are_not_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "build", lambda name: build(name, 3, width=0.1))
    net = Model.load(module._random("fcn8s-slim", tmp_path)).net
    assert all(parameter.detach().abs().max() > 0 for parameter in net.heads.parameters())
