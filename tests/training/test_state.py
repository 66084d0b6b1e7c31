"""A run's state: what was saved comes back bit for bit, and what is damaged is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.optim import SGD, AdamW, Optimizer

from fullconv.errors import ModelFileError
from fullconv.nets import FCN, build
from fullconv.training.state import NAME, Place, load_state, save_state

PLACE = Place(step=12, seconds=3.25, progress=0.123456789012345678, reserve=7.5, next_evaluation=0.3)


def make(kind: str, seed: int) -> tuple[FCN, Optimizer]:
    torch.manual_seed(seed)
    net = build("fcn8s-slim", 3, width=0.1, dropout=0.5, upsampling="learned").train()
    for parameter in net.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    optimizer: Optimizer = AdamW(net.parameters(), lr=1e-2)
    if kind != "adamw":
        optimizer = SGD(net.parameters(), lr=1e-2, momentum={"sgd": 0.9, "plain": 0.0}[kind])
    return net, optimizer


def steps(net: FCN, optimizer: Optimizer, count: int, first: int) -> list[float]:
    """Steps with dropout, on images that depend on the step alone."""
    losses = []
    for step in range(first, first + count):
        x = torch.randint(0, 256, (2, 3, 24, 24), generator=torch.Generator().manual_seed(step))
        scores = net(x.float())
        assert isinstance(scores, torch.Tensor)
        loss = scores.square().mean() + scores[:, 0].mean()
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["adamw", "sgd", "plain"])
def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path, kind: str) -> None:
    net, optimizer = make(kind, 0)
    steps(net, optimizer, 2, 0)
    save_state(tmp_path, net, optimizer, PLACE)
    losses = steps(net, optimizer, 2, 2)

    again, other = make(kind, 1)  # other weights, another generator
    steps(again, other, 1, 7)
    assert load_state(tmp_path, again, other) == PLACE
    assert steps(again, other, 2, 2) == losses
    expected = net.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    assert other.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


def test_dropout_goes_on_from_the_same_number(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    save_state(tmp_path, net, optimizer, Place())
    expected = torch.rand(5)
    torch.manual_seed(99)
    load_state(tmp_path, net, optimizer)
    assert torch.equal(torch.rand(5), expected)


def test_a_state_before_the_first_step(tmp_path: Path) -> None:
    net, optimizer = make("adamw", 0)
    save_state(tmp_path, net, optimizer, Place())
    again, other = make("adamw", 1)
    assert load_state(tmp_path, again, other) == Place(0, 0.0, 0.0, 0.0, 0.0)
    assert other.state_dict()["state"] == {}


def test_an_older_state_is_replaced_whole(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    for step in (1, 2):
        save_state(tmp_path, net, optimizer, Place(step=step))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert load_state(tmp_path, net, optimizer).step == 2


def test_no_state_is_named(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    with pytest.raises(ModelFileError, match=r"does not exist: the run stopped before its first state; delete "):
        load_state(tmp_path, net, optimizer)


@pytest.mark.parametrize("damage", ["short", "empty", "noise", "foreign", "bare", "other net", "place", "generator"])
def test_damaged_states_are_refused(tmp_path: Path, damage: str) -> None:
    net, optimizer = make("adamw", 0)
    steps(net, optimizer, 1, 0)
    save_state(tmp_path, net, optimizer, PLACE)
    path = tmp_path / NAME
    content = path.read_bytes()
    if damage == "short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "noise":
        path.write_bytes(bytes(range(256)) * 9)
    elif damage == "foreign":
        save_file({"a": torch.zeros(2)}, path, metadata={"place": '{"step": 1}'})
    elif damage == "bare":
        save_file({"a": torch.zeros(2)}, path)
    elif damage == "other net":
        other = build("fcn8s-slim", 4, width=0.1)
        save_state(tmp_path, other, SGD(other.parameters()), PLACE)
    elif damage == "place":
        save_file(
            {f"net.{k}": v.contiguous() for k, v in net.state_dict().items()}, path, metadata={"place": '{"stepp": 1}'}
        )
    elif damage == "generator":
        save_file({f"net.{k}": v.contiguous() for k, v in net.state_dict().items()}, path, metadata={"place": "{}"})
    with pytest.raises(ModelFileError, match=r"state.safetensors is damaged or of another net \(") as caught:
        load_state(tmp_path, net, optimizer)
    assert str(caught.value).endswith("start the run anew")
