"""int8: agreement with float32, and a cache that is used, checked, private and bounded."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from fullconv.errors import OptionError
from fullconv.inference import int8
from fullconv.inference.compilers import Compiled, compiler
from fullconv.inference.openvino import graph
from fullconv.inference.samples import Samples

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("openvino", "nncf"))), reason="openvino or nncf is not installed"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FULLCONV_CACHE", str(tmp_path))
    return tmp_path / "int8"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that were quantized."""
    graphs: list[Any] = []
    true = int8._made

    def counted(*args: Any) -> Any:
        graphs.append(true(*args))
        return graphs[-1]

    monkeypatch.setattr(int8, "_made", counted)
    return graphs


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1)).eval()


def scenes(count: int) -> tuple[Tensor, Tensor]:
    """Noisy images whose colour in blocks of 8x8 is their class."""
    labels = torch.randint(0, 3, (count, 5, 7)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return F.one_hot(labels, 3).permute(0, 3, 1, 2).float() + 0.3 * torch.randn(count, 3, 40, 56), labels


def test_a_trained_stage_gives_the_same_labels(capsys: pytest.CaptureFixture[str]) -> None:
    net = small()
    images, labels = scenes(8)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(net(images), labels))
        optimizer.step()
    run = compiler("openvino", "int8").compile(net, 3, list(images[:4].split(1)))
    images, labels = scenes(4)
    with torch.no_grad():
        exact, found = net(images), run(images)
    assert (exact.argmax(1) == labels).float().mean() > 0.9
    assert not torch.equal(exact.bfloat16(), found.bfloat16()), "it is in 8 bits"
    assert (exact.argmax(1) == found.float().argmax(1)).float().mean() > 0.98
    assert capsys.readouterr().out == ""


def test_a_kept_graph_is_used_and_a_damaged_or_foreign_one_made_again(cache: Path, made: list[Any]) -> None:
    x = torch.randn(1, 3, 9, 11)

    def outcome(seed: int = 0) -> Tensor:
        return compiler("openvino", "int8").compile(small(seed), 3, [x])(x)

    first = outcome()
    (path,) = cache.iterdir()
    assert torch.equal(outcome(), first)
    assert len(made) == 1
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = (b"", content[:-1], content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    for number, damage in enumerate(damaged, 2):
        path.write_bytes(damage)
        assert torch.equal(outcome(), first)
        assert len(made) == number
        assert int8.read(path, path.stem) is not None
    outcome(seed=1)
    (other,) = set(cache.iterdir()) - {path}
    path.write_bytes(other.read_bytes())
    count = len(made)
    assert torch.equal(outcome(), first)
    assert len(made) == count + 1


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_folder_that_others_write_to_is_left_alone(cache: Path, made: list[Any]) -> None:
    x = torch.randn(1, 3, 9, 11)
    cache.mkdir()
    cache.chmod(0o777)
    for _ in range(2):
        compiler("openvino", "int8").compile(small(), 3, [x])
    assert len(made) == 2
    assert list(cache.iterdir()) == []


def test_the_longest_unused_go(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(bytes(10))
        os.utime(path, (number, number))
    int8.bound(tmp_path, 20)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["b", "c"]


def test_without_samples() -> None:
    with pytest.raises(OptionError, match=r"^int8 without samples, by which ranges are chosen; give images like those"):
        compiler("openvino", "int8").compile(small(), 3)


def test_a_key_is_of_weights_structure_and_samples() -> None:
    x, strided = Samples([torch.ones(1, 3, 4, 5)]), small()
    strided[0].stride = (2, 2)  # type: ignore[assignment]
    graphs = [graph(net, 3) for net in (small(), small(), small(1), strided)]
    keys = [int8.key_of(each, x) for each in graphs] + [int8.key_of(graphs[0], Samples([2 * next(iter(x))]))]
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(keys) - 1


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("full"), SafetensorError("full"), MemoryError("full")])
def test_a_graph_that_cannot_be_kept_is_used_all_the_same(
    error: Exception, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    x = torch.randn(1, 3, 9, 11)
    expected = compiler("openvino", "int8").compile(small(), 3, [x])(x)
    for path in cache.iterdir():
        path.unlink()
    for what in ("bound", "write"):
        monkeypatch.setattr(int8, what, full)
        assert torch.equal(compiler("openvino", "int8").compile(small(), 3, [x])(x), expected)
    monkeypatch.setattr(Path, "mkdir", full)
    assert torch.equal(compiler("openvino", "int8").compile(small(), 3, [x])(x), expected)


def test_a_failed_write_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object, path: Path, *__: object) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    compiler("openvino", "int8").compile(small(), 3, [torch.randn(1, 3, 9, 11)])
    assert list(cache.iterdir()) == []


def blocks(samples: list[Tensor], middle: int = 1) -> tuple[list[Compiled], list[int]]:
    """Three blocks of which the samples pass from one to the next, compiled; and how often each ran on the way."""
    ran = [0, 0, 0]
    layers = [small(0), small(middle), small(2)]
    for number, each in enumerate(layers):
        each.register_forward_pre_hook(lambda *_, number=number: ran.__setitem__(number, ran[number] + 1))
    passing, found = Samples(samples), []
    for each in layers:
        bare = nn.Sequential(*each).eval()  # hooks are not traced
        found.append(compiler("openvino", "int8").compile(bare, 3, passing))
        passing.through(each)
    return found, ran


def test_samples_run_up_to_the_last_missing_block_alone(cache: Path, made: list[Any]) -> None:
    samples = [torch.randn(1, 3, 9, 11) for _ in range(2)]
    _, ran = blocks(samples)
    assert ran == [2, 2, 0], "the last block's outputs are nobody's samples"
    assert len(made) == 3
    assert blocks(samples)[1] == [0, 0, 0], "all are kept: nothing runs"
    assert len(made) == 3
    with torch.inference_mode():
        entering = [small(0)(x) for x in samples]
    assert int8.key_of(graph(small(1), 3), Samples(entering)) not in {path.stem for path in cache.iterdir()}, (
        "keys are of the first block's samples, which do not depend on how many threads run the blocks"
    )
    kept = set(cache.iterdir())
    _, ran = blocks(samples, middle=5)
    assert ran == [2, 2, 0]
    assert len(set(cache.iterdir()) - kept) == 2, (
        "the first one is the same; what follows other weights has other ranges"
    )


def test_ranges_are_those_of_each_blocks_own_samples() -> None:
    """As if each block had been given its inputs as tensors."""
    samples = [torch.randn(1, 3, 9, 11) for _ in range(2)]
    for number, run in enumerate(blocks(samples)[0]):
        with torch.inference_mode():
            own = [nn.Sequential(*map(small, range(number)))(x) for x in samples]
        expected = compiler("openvino", "int8").compile(small(number), 3, own)(own[0])
        assert torch.equal(run(own[0]), expected)
