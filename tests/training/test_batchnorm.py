"""Batch norm over processes: against torch's own, of the batches together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullconv.training.batchnorm import SyncedBatchNorm, sync_batchnorm
from spawned import processes

CHANNELS, STEPS = 5, 2
EVEN = ((2, 5, 7), (2, 5, 7), (2, 5, 7))

CASES: dict[str, dict[str, Any]] = {
    "even": {"sizes": EVEN},
    "uneven": {"sizes": ((1, 6, 4), (3, 6, 4), (2, 6, 4))},
    "none in one": {"sizes": ((2, 3, 3), (0, 3, 3), (1, 3, 3))},
    "one value in one": {"sizes": ((1, 1, 1), (1, 5, 7), (3, 4, 2))},
    "one value each": {"sizes": ((1, 1, 1), (1, 1, 1), (1, 1, 1))},
    "far from zero": {"sizes": EVEN, "shift": 1000.0},
    "unlike each other": {"sizes": EVEN, "apart": 100.0},
    "cumulative": {"sizes": EVEN, "layer": {"momentum": None}},
    "without weights": {"sizes": EVEN, "layer": {"affine": False}},
    "without bias": {"sizes": EVEN, "layer": {"bias": False}},
    "without statistics": {"sizes": EVEN, "layer": {"track_running_stats": False, "eps": 0.1}},
    "contiguous": {"sizes": EVEN, "memory": "contiguous_format"},
    "double": {"sizes": EVEN, "dtype": "float64"},
    "bfloat16": {"sizes": EVEN, "dtype": "bfloat16"},
    "frozen": {"sizes": EVEN, "frozen": True},
}

SCRIPT = r"""
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from fullconv.training.batchnorm import SyncedBatchNorm, sync_batchnorm

calls = []
for name in ("all_gather", "all_reduce"):
    def counted(*args, call=getattr(distributed, name), **more):
        calls.append(call.__name__)
        return call(*args, **more)
    setattr(distributed, name, counted)

found = {}
for name, case in torch.load(folder / "cases", weights_only=True).items():
    net = nn.Sequential(nn.BatchNorm2d(case["channels"], **case["layer"]))
    net.load_state_dict(case["state"])
    if case["x"][0].dtype == torch.float64:
        net.double()
    sync_batchnorm(net)
    net.train(not case["frozen"])
    x, dy = case["x"][rank].requires_grad_(), case["dy"][rank]
    del calls[:]
    for _ in range(case["steps"]):
        x.grad = None
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
            y = net(x)
        y.backward(dy)
    found[name] = {"y": y.detach(), "dx": x.grad, "calls": " ".join(calls), "state": dict(net.state_dict())}
    found[name]["parameters"] = {key: parameter.grad for key, parameter in net.named_parameters()}
torch.save(found, folder / f"{rank}.found")

try:
    net(torch.zeros(2, 3))
except ValueError as error:
    assert str(error) == "expected 4D input (got 2D input)"
else:
    raise SystemExit("2-D input was taken")

# A net in DistributedDataParallel: the mean of the processes' gradients, times their number, is the whole batch's.
torch.manual_seed(0)
make = lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3))
whole, net = make(), make()
net.load_state_dict(whole.state_dict())
sync_batchnorm(net)
model = DistributedDataParallel(net, forward_sync_buffers=False)
images, weights = torch.randn(7, 2, 9, 8), torch.randn(7, 3, 7, 6)
for _ in range(3):
    for each, part in ((whole, slice(None)), (model, slice(rank, None, world))):
        each.zero_grad()
        (each(images[part]) * weights[part]).square().sum().backward()
    with torch.no_grad():
        for one, two in zip(whole.parameters(), net.parameters()):
            torch.testing.assert_close(two.grad * world, one.grad, rtol=1e-4, atol=1e-3)
            one -= 1e-4 * one.grad
            two -= 1e-4 * world * two.grad
for name, value in whole.state_dict().items():
    torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-5, atol=1e-5)
"""


def tensors(case: dict[str, Any]) -> dict[str, Any]:
    """A case with its numbers, for the processes."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.get("dtype", "float32"))
    memory = getattr(torch, case.get("memory", "channels_last"))

    def batch(scale: float, shift: float, size: tuple[int, int, int]) -> Tensor:
        values = scale * torch.randn(size[0], CHANNELS, *size[1:], dtype=torch.float64) + shift
        return values.to(dtype).contiguous(memory_format=memory)

    layer = nn.BatchNorm2d(CHANNELS, **case.get("layer", {}))
    for value in layer.state_dict().values():
        if value.ndim:
            nn.init.uniform_(value, 0.5, 2)
    shift, apart = case.get("shift", 3.0), case.get("apart", 0.0)
    return {
        "x": [batch(2, shift + apart * number, size) for number, size in enumerate(case["sizes"])],
        "dy": [batch(1, 0, size) for size in case["sizes"]],
        "state": {f"0.{name}": value for name, value in layer.state_dict().items()},
        "layer": case.get("layer", {}),
        "frozen": case.get("frozen", False),
        "channels": CHANNELS,
        "steps": STEPS,
    }


def together(parts: list[Tensor]) -> Tensor:
    """(N, C, H, W) of any sizes -> (1, C, their values, 1) float64."""
    return torch.cat([part.double().transpose(0, 1).flatten(1) for part in parts], 1)[None, :, :, None]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("batchnorm")
    torch.save({name: tensors(case) for name, case in CASES.items()}, folder / "cases")
    for each in processes(3, folder, SCRIPT):
        assert (each.code, each.err) == (0, ""), each.err
    return [torch.load(folder / f"{rank}.found", weights_only=True) for rank in range(3)]


@pytest.mark.parametrize("name", CASES)
def test_three_processes_are_one_with_the_batches_together(found: list[dict[str, Any]], name: str) -> None:
    case, shares = tensors(CASES[name]), [each[name] for each in found]
    layer = nn.BatchNorm2d(CHANNELS, **case["layer"]).double()
    layer.load_state_dict({key.removeprefix("0."): value for key, value in case["state"].items()})
    layer.train(not case["frozen"])
    x, dy = together(case["x"]).requires_grad_(), together(case["dy"])
    for _ in range(STEPS):
        layer.zero_grad()
        x.grad = None
        y = layer(x)
        y.backward(dy)  # type: ignore[no-untyped-call]
    dtype = case["x"][0].dtype
    # Of float32 numbers about 1, but for the shifted inputs; of bfloat16 their results' own rounding.
    away = max(1.0, max(part.abs().max().item() for part in case["x"] if part.numel()) / 30)
    near = {"rtol": 2e-6, "atol": 2e-6 * away} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    rounded = {"rtol": 2**-8, "atol": 2**-9} if dtype == torch.bfloat16 else near
    own = {"rtol": 2e-6, "atol": 2e-5} if dtype == torch.bfloat16 else near
    torch.testing.assert_close(together([share["y"] for share in shares]), y.detach(), **rounded)
    torch.testing.assert_close(together([share["dx"] for share in shares]), x.grad, **rounded)
    for key, parameter in layer.named_parameters():
        parts = [share["parameters"][f"0.{key}"] for share in shares]
        assert not torch.equal(parts[0], parts[2]), "each process's part"
        summed = torch.stack(parts).double().sum(0)
        scale = max(1.0, parameter.grad.abs().max().item()) * 10
        torch.testing.assert_close(summed, parameter.grad, rtol=own["rtol"], atol=own["atol"] * scale)
    for key, value in layer.state_dict().items():
        for share in shares:
            torch.testing.assert_close(share["state"][f"0.{key}"].to(value.dtype), value, **own)
            assert torch.equal(share["state"][f"0.{key}"], shares[0]["state"][f"0.{key}"]), "in every process"
    for share, part in zip(shares, case["x"], strict=True):
        assert share["y"].dtype == share["dx"].dtype == dtype
        assert share["y"].stride() == share["dx"].stride() == part.stride()
        assert share["calls"] == ("" if case["frozen"] else " ".join(["all_gather all_reduce"] * STEPS))


def test_layers_are_shared_in_place() -> None:
    class Own(nn.BatchNorm2d):
        pass

    net = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3, eps=0.1), nn.BatchNorm1d(3), Own(3), nn.BatchNorm2d(2).eval())
    held, before = list(net), dict(net.named_parameters()) | dict(net.named_buffers())
    sync_batchnorm(net)
    sync_batchnorm(net)
    assert [type(each) for each in net] == [SyncedBatchNorm, nn.BatchNorm1d, Own, SyncedBatchNorm]
    assert all(one is two for one, two in zip(net, held, strict=True))
    after = dict(net.named_parameters()) | dict(net.named_buffers())
    assert all(after[name] is value for name, value in before.items())
    assert [(each.momentum, each.eps, each.training) for each in held][::3] == [(0.3, 0.1, True), (0.1, 1e-5, False)]


@pytest.mark.parametrize("training", [True, False])
def test_in_one_process_it_is_the_plain_layer(training: bool) -> None:
    torch.manual_seed(0)
    shared, plain = nn.BatchNorm2d(3).train(training), nn.BatchNorm2d(3).train(training)
    sync_batchnorm(shared)
    x = torch.randn(2, 3, 4, 5)
    assert type(shared) is SyncedBatchNorm
    assert torch.equal(shared(x), plain(x))
    for name, value in plain.state_dict().items():
        assert torch.equal(shared.state_dict()[name], value)
