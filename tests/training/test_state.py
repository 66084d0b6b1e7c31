"""A run's states: what was saved comes back bit for bit; what is damaged is passed over, what is foreign refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from fullconv.errors import ModelFileError, TrainingError
from fullconv.nets import FCN, build
from fullconv.nets.precision import learning
from fullconv.training import state as module
from fullconv.training.optimizer import make_optimizer
from fullconv.training.recipe import Recipe
from fullconv.training.state import Place, forget_later, load_state, save_state
from fullconv.weights import modelfile

PLACE = Place(12, 3.25, 0.123456789012345678, 1.5, 7.5, 0.3, [0.1 + 0.2, 1e-300], 7)


def make(kind: str, seed: int, classes: int = 3) -> tuple[FCN, Optimizer]:
    torch.manual_seed(seed)
    net = build("fcn8s-slim", classes, width=0.1, dropout=0.0, upsampling="learned").train()
    for parameter in net.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    optimizer: Optimizer = AdamW(net.parameters(), lr=1e-2, fused=True)
    if kind == "muon":
        optimizer = make_optimizer(net, Recipe(optimizer="muon"))
    elif kind != "adamw":
        optimizer = SGD(net.parameters(), lr=1e-2, momentum={"sgd": 0.9, "plain": 0.0}[kind])
    return net, optimizer


def steps(net: FCN, optimizer: Optimizer, count: int, first: int, bfloat16: bool = False) -> list[float]:
    """On images that depend on the step alone."""
    losses = []
    for step in range(first, first + count):
        x = torch.randint(0, 256, (2, 3, 24, 24), generator=torch.Generator().manual_seed(step))
        with learning(torch.device("cpu"), "bfloat16" if bfloat16 else "float32"):
            scores = net(x.float())
        assert isinstance(scores, Tensor)
        loss = scores.float().square().mean() + scores.float()[:, 0].mean()
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def bits(net: FCN, optimizer: Optimizer) -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Every number and memory layout of net and optimiser, read without the code under test."""
    tensors = dict(net.state_dict())
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{slot}": value for slot, value in slots.items() if value is not None}
    return {name: (value.contiguous().numpy().tobytes(), value.stride()) for name, value in tensors.items()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kept(folder: Path) -> list[int]:
    return [int(name.split("-")[1]) for name in names(folder)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "plain", "muon"])
def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path, kind: str, bfloat16: bool) -> None:
    net, optimizer = make(kind, 0)
    steps(net, optimizer, 2, 0, bfloat16)
    path = save_state(tmp_path / "state", net, optimizer, PLACE)
    before = bits(net, optimizer)
    losses = steps(net, optimizer, 2, 2, bfloat16)

    again, other = make(kind, 1)
    steps(again, other, 1, 7)
    assert load_state(tmp_path / "state", again, other) == (PLACE, [])
    assert bits(again, other) == before
    assert steps(again, other, 2, 2, bfloat16) == losses
    assert bits(again, other) == bits(net, optimizer)
    assert path.parent == tmp_path / "state"
    assert path.name == f"state-000000012-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.safetensors"


def test_the_averages_of_the_optimiser_lie_as_it_laid_them(tmp_path: Path) -> None:
    """Else the check of layouts above could be one of plain layouts alone."""
    net, optimizer = make("adamw", 0)
    steps(net, optimizer, 1, 0)
    save_state(tmp_path, net, optimizer, PLACE)
    again, other = make("adamw", 1)
    load_state(tmp_path, again, other)
    slots = [other.state[p] for p in again.parameters() if p.ndim == 4 and not p.is_contiguous()]
    assert slots
    assert all(s["exp_avg"].is_contiguous(memory_format=torch.channels_last) for s in slots)
    assert not any(s["exp_avg"].is_contiguous() for s in slots)
    assert {(s["step"].device.type, s["step"].ndim, s["step"].item()) for s in slots} == {("cpu", 0, 1.0)}


def test_the_file_holds_every_tensor_by_name_and_no_generator(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    steps(net, optimizer, 1, 0)
    stored = load_file(save_state(tmp_path, net, optimizer, PLACE))
    count = len(list(net.parameters()))
    expected = {f"net.{name}" for name in net.state_dict()}
    assert stored.keys() == expected | {f"optimizer.{i}.momentum_buffer" for i in range(count)}


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    found = set()
    for turn in range(8):
        net, optimizer = make("adamw", 0)
        steps(net, optimizer, 1, 0)
        found.add(save_state(tmp_path / str(turn), net, optimizer, PLACE).name)
    assert len(found) == 1


def test_a_state_before_the_first_step_forgets_what_was_learned(tmp_path: Path) -> None:
    net, optimizer = make("adamw", 0)
    save_state(tmp_path, net, optimizer, Place())
    again, other = make("adamw", 1)
    steps(again, other, 1, 0)
    assert load_state(tmp_path, again, other) == (Place(0, 0.0, 0.0, 0.0, 0.0, 0.0, [], 0), [])
    assert other.state_dict()["state"] == {}
    assert bits(again, other) == bits(net, optimizer)


def test_the_groups_of_the_optimiser_keep_their_options(tmp_path: Path) -> None:
    net, _ = make("sgd", 0)
    parameters = list(net.parameters())
    groups = [{"params": parameters[:3], "factor": 2.0, "lr": 0.5}, {"params": parameters[3:], "factor": 1.0}]
    optimizer = SGD(groups, lr=0.1, momentum=0.9)
    save_state(tmp_path, net, optimizer, PLACE)
    load_state(tmp_path, net, optimizer)
    assert [(g["factor"], g["lr"], len(g["params"])) for g in optimizer.param_groups] == [
        (2.0, 0.5, 3),
        (1.0, 0.1, len(parameters) - 3),
    ]
    assert optimizer.param_groups[0]["params"][0] is parameters[0]


def test_progress_never_falls() -> None:
    place = Place(progress=0.5)
    place.reach(0.4)
    assert place.progress == 0.5
    place.reach(0.6)
    assert place.progress == 0.6


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    found = []
    for step in (1, 2, 10, 100, 999_999_999):
        save_state(tmp_path, net, optimizer, Place(step))
        found.append(kept(tmp_path))
    assert found == [[1], [1, 2], [2, 10], [10, 100], [100, 999_999_999]]
    assert load_state(tmp_path, net, optimizer)[0].step == 999_999_999


def test_a_state_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    for place in (Place(1), Place(2), Place(2, seconds=1.0), Place(2, seconds=1.0)):
        save_state(tmp_path, net, optimizer, place)
    assert kept(tmp_path) == [1, 2]
    assert load_state(tmp_path, net, optimizer)[0].seconds == 1.0


def test_of_two_states_of_a_step_the_later_is_read(tmp_path: Path) -> None:
    """So a process leaves them that is killed before it deletes the older."""
    net, optimizer = make("sgd", 0)
    for turn in (1.0, 2.0, 3.0):
        older = [save_state(tmp_path / "one", net, optimizer, Place(2, seconds=turn))]
        older.append(save_state(tmp_path / "two", net, optimizer, Place(2, seconds=turn + 10)))
        moved = tmp_path / "one" / older[1].name
        shutil.copyfile(older[1], moved)
        os.utime(older[0], ns=(1, 1))
        assert load_state(tmp_path / "one", net, optimizer)[0].seconds == turn + 10
        os.utime(moved, ns=(0, 0))
        assert load_state(tmp_path / "one", net, optimizer)[0].seconds == turn


def test_states_of_a_future_that_was_given_up_are_deleted(tmp_path: Path) -> None:
    """The run went on from step 60, since 120 and 180 were damaged: it must not come back to them."""
    net, optimizer = make("sgd", 0)
    for step in (30, 60, 120, 180):
        save_state(tmp_path / str(step), net, optimizer, Place(step))
        (tmp_path / "state").mkdir(exist_ok=True)
        (path,) = (tmp_path / str(step)).iterdir()
        path.rename(tmp_path / "state" / path.name)
    save_state(tmp_path / "state", net, optimizer, Place(90))
    assert kept(tmp_path / "state") == [60, 90]


def test_what_a_resume_passed_over_is_not_kept_as_good(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    for step in (60, 120):
        path = save_state(tmp_path, net, optimizer, Place(step))
    path.write_bytes(path.read_bytes()[:-1])
    place, notes = load_state(tmp_path, net, optimizer)
    assert (place.step, len(notes)) == (60, 1)
    forget_later(tmp_path, place.step)
    assert kept(tmp_path) == [60]
    save_state(tmp_path, net, optimizer, Place(130))
    assert kept(tmp_path) == [60, 130]


def test_nothing_is_deleted_before_the_new_state_is_whole_and_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, optimizer = make("sgd", 0)
    for step in (1, 2):
        save_state(tmp_path, net, optimizer, Place(step))
    told: list[tuple[str, list[int]]] = []
    monkeypatch.setattr(module, "sync_folder", lambda path: told.append(("synced", kept(path))))
    unlink = Path.unlink

    def tell(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".safetensors" and not path.name.startswith("."):
            told.append(("unlink", kept(path.parent)))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", tell)
    save_state(tmp_path, net, optimizer, Place(3))
    assert told == [("synced", [1, 2, 3]), ("unlink", [1, 2, 3])]


def test_an_old_state_that_cannot_be_deleted_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer = make("sgd", 0)
    for step in (1, 2):
        save_state(tmp_path, net, optimizer, Place(step))

    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("state-"):
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    save_state(tmp_path, net, optimizer, Place(3))
    assert kept(tmp_path) == [1, 2, 3]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda c: b"",
    "first byte alone": lambda c: c[:1],
    "half of the header": lambda c: c[: 8 + int.from_bytes(c[:8], "little") // 2],
    "header alone": lambda c: c[: 8 + int.from_bytes(c[:8], "little")],
    "half": lambda c: c[: len(c) // 2],
    "last byte gone": lambda c: c[:-1],
    "a byte too many": lambda c: c + b"\0",
    "one bit in the middle": lambda c: c[: len(c) // 2] + bytes([c[len(c) // 2] ^ 16]) + c[len(c) // 2 + 1 :],
    "one bit of the last byte": lambda c: c[:-1] + bytes([c[-1] ^ 1]),
    "zeros at the end": lambda c: c[:-4096] + bytes(4096),
    "noise": lambda c: bytes(range(256)) * 9,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    net, optimizer = make("adamw", 0)
    steps(net, optimizer, 1, 0)
    save_state(tmp_path, net, optimizer, Place(60))
    expected = bits(net, optimizer)
    steps(net, optimizer, 1, 1)
    newest = save_state(tmp_path, net, optimizer, Place(120))
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))

    again, other = make("adamw", 1)
    place, notes = load_state(tmp_path, again, other)
    assert place == Place(60)
    assert bits(again, other) == expected
    why = "empty" if damage == "empty" else "its digest differs: cut short, or changed"
    assert notes == [f"{newest.name} is damaged ({why}); went on from step 60"]
    assert kept(tmp_path) == [60, 120], "reading deletes nothing"


def test_a_state_that_cannot_be_read_gives_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, optimizer = make("sgd", 0)
    save_state(tmp_path, net, optimizer, Place(1))
    newest = save_state(tmp_path, net, optimizer, Place(2))
    digest = module._digest

    def read(path: Path) -> str:
        if path == newest:
            raise OSError(5, "Input/output error")
        return digest(path)

    monkeypatch.setattr(module, "_digest", read)
    place, notes = load_state(tmp_path, net, optimizer)
    assert place.step == 1
    assert notes == [f"{newest.name} is damaged (cannot be read: Input/output error); went on from step 1"]


def test_where_all_are_damaged_all_are_named_and_nothing_changes(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    paths = [save_state(tmp_path, net, optimizer, Place(step)) for step in (1, 2)]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(b"x")
    again, other = make("sgd", 1)
    before = bits(again, other)
    with pytest.raises(ModelFileError, match="holds no whole state: ") as caught:
        load_state(tmp_path, again, other)
    one, two = f"{paths[0].name} is damaged (empty)", f"{paths[1].name} is damaged (its digest differs"
    assert one in str(caught.value)
    assert two in str(caught.value)
    assert str(caught.value).endswith("; start the run anew")
    assert bits(again, other) == before


@pytest.mark.parametrize("folder", ["none", "empty", "others"])
def test_no_state_is_named(tmp_path: Path, folder: str) -> None:
    net, optimizer = make("sgd", 0)
    if folder != "none":
        (tmp_path / "state").mkdir()
    if folder == "others":  # none of them is a state, whatever is in them
        path = save_state(tmp_path / "x", net, optimizer, PLACE)
        for name in (".new.1a2b3c4d.safetensors", "new.safetensors", "state.safetensors", f"{path.name}~", "state-x"):
            shutil.copyfile(path, tmp_path / "state" / name)
        (tmp_path / "state" / path.name).mkdir()
    message = r"does not exist or holds no state: the run stopped before its first state; delete .* and start it anew"
    with pytest.raises(ModelFileError, match=message):
        load_state(tmp_path / "state", net, optimizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("classes", r"found 'net.*' as torch.float32 .*, expected torch.float32 "),
        ("optimizer", "found the optimizer 'SGD', expected 'AdamW'"),
        ("double", r"found 'net.*' as torch.float32 .*, expected torch.float64 "),
    ],
)
def test_a_whole_state_of_another_net_is_refused_at_once(tmp_path: Path, change: str, message: str) -> None:
    net, optimizer = make("sgd", 0)
    again, other = make("adamw" if change == "optimizer" else "sgd", 1, 4 if change == "classes" else 3)
    if change == "double":
        again.double()
    save_state(tmp_path, again, other, Place(1))  # would fit
    steps(net, optimizer, 1, 0)
    save_state(tmp_path, net, optimizer, Place(2))
    before = bits(again, other)
    with pytest.raises(ModelFileError, match=f"of another net, other options or another version .*{message}") as caught:
        load_state(tmp_path, again, other)
    assert str(caught.value).endswith("resume with those it was started with, or start the run anew")
    assert "\n" not in str(caught.value)
    assert bits(again, other) == before


def sign(folder: Path, tensors: dict[str, Tensor], header: Mapping[str, str] | None, step: int = 12) -> None:
    """A file of anybody's making whose digest is right."""
    save_file(tensors, folder / "made", None if header is None else dict(header))
    rename(folder, step)


def rename(folder: Path, step: int = 12) -> None:
    digest = hashlib.sha256((folder / "made").read_bytes()).hexdigest()[:16]
    (folder / "made").rename(folder / f"state-{step:09d}-{digest}.safetensors")


def changed(**values: Any) -> str:
    return json.dumps({"optimizer": "SGD"} | asdict(PLACE) | values)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "JSONDecodeError"),
        ("[1]", r"found the place '\[1\]', expected an object of optimizer, step, seconds, progress"),
        ('{"step": 1}', "expected an object of optimizer, step"),
        (changed(optimizer=["SGD"]), r"found the optimizer \"\['SGD'\]\", expected 'SGD'"),
        (changed(other=1), "expected an object of optimizer, step"),
        ("[" * 100_000, "RecursionError"),
        (" " * (1 << 20) + "{}", "found 1048578 characters about the place, expected up to 1048576"),
        (changed(step="12"), "found step 12, expected 0 to 1e"),
        (changed(step=12.0), r"found step 12.0, expected 0 to 1e"),
        (changed(step=True), "found step True"),
        (changed(step=-1), "found step -1"),
        (changed(step=10**400), "found step 1000"),
        (changed(step=11), "found step 11 within, expected that of its name"),
        (changed(seconds=10**400), r"found seconds 1000.*, expected 0 to 1e\+10"),
        (changed(seconds=None), "found seconds None"),
        (changed(seconds=float("nan")), "found seconds nan"),
        (changed(reserve=float("inf")), "found reserve inf"),
        (changed(progress=1.1), "found progress 1.1, expected 0 to 1"),
        (changed(loss_sums=3.0), r"found loss_sums 3.0, expected a list"),
        (changed(loss_sums=["1"]), r"found loss_sums \['1'\]"),
        (changed(loss_sums=[0.5, float("nan")]), r"found loss_sums \[0.5, nan\]"),
        (changed(loss_sums=[0.5, [1]]), r"found loss_sums \[0.5, \[1\]\]"),
        (changed(loss_steps=1.5), "found loss_steps 1.5"),
        (changed(seconds=1).replace("1,", "1" * 5000 + ",", 1), "ValueError"),
    ],
)
def test_a_hostile_place_is_refused(tmp_path: Path, place: str, message: str) -> None:
    net, optimizer = make("sgd", 0)
    tensors = {f"net.{name}": value.contiguous() for name, value in net.state_dict().items()}
    sign(tmp_path, tensors, {"place": place})
    before = bits(net, optimizer)
    with pytest.raises(ModelFileError, match=f"of another net, other options or another version .*{message}") as caught:
        load_state(tmp_path, net, optimizer)
    assert len(str(caught.value)) < 700
    assert bits(net, optimizer) == before


def test_whole_numbers_stand_for_others_as_json_writes_them(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    tensors = {f"net.{name}": value.contiguous() for name, value in net.state_dict().items()}
    sign(tmp_path, tensors, {"place": changed(seconds=3, loss_sums=[2])})
    place, _ = load_state(tmp_path, net, optimizer)
    assert place == replace(PLACE, seconds=3.0, loss_sums=[2.0])
    assert type(place.seconds) is type(place.loss_sums[0]) is float


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        ("noise", "SafetensorError"),
        ("huge header", "SafetensorError"),
        ("no header", "JSONDecodeError"),
        ("foreign", "found a tensor 'a', expected none"),
        ("half of the slots", "found no tensor 'optimizer.0.exp_avg_sq'"),
        ("a slot too many", "found a tensor 'optimizer.0.max_exp_avg_sq', expected none"),
        ("a parameter too many", "found a tensor 'optimizer.9999.exp_avg', expected none"),
        ("a step with an axis", "found 'optimizer.0.step' as torch.float32 1, expected torch.float32 a single number"),
        ("a type of nobody", "found 'optimizer.0.step' as .* a single number, expected torch.float32"),
        ("pickle", "SafetensorError"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path: Path, hostile: str, message: str) -> None:
    net, optimizer = make("adamw", 0)
    steps(net, optimizer, 1, 0)
    path = save_state(tmp_path, net, optimizer, PLACE)
    tensors = load_file(path)
    path.unlink()
    header: dict[str, str] | None = {"place": changed(optimizer="AdamW")}
    if hostile == "no header":
        header = None
    elif hostile == "foreign":
        tensors = {"a": torch.zeros(2)}
    elif hostile == "half of the slots":
        del tensors["optimizer.0.exp_avg_sq"]
    elif hostile == "a slot too many":
        tensors["optimizer.0.max_exp_avg_sq"] = torch.zeros(1)
    elif hostile == "a parameter too many":
        tensors["optimizer.9999.exp_avg"] = torch.zeros(1)
    elif hostile == "a step with an axis":
        tensors["optimizer.0.step"] = torch.ones(1)
    elif hostile == "a type of nobody":
        tensors["optimizer.0.step"] = torch.ones((), dtype=torch.complex64)
    if hostile in ("noise", "huge header", "pickle"):
        made = {"noise": b"\xff" * 500, "huge header": (1 << 60).to_bytes(8, "little") + b"{}"}
        (tmp_path / "made").write_bytes(made.get(hostile, b"\x80\x04cos\nsystem\n(S'false'\ntR."))
        rename(tmp_path)
    else:
        sign(tmp_path, tensors, header)
    before = bits(net, optimizer)
    with pytest.raises(ModelFileError, match=f"of another net, other options or another version .*{message}"):
        load_state(tmp_path, net, optimizer)
    assert bits(net, optimizer) == before


def rust(text: str) -> SafetensorError:
    return SafetensorError(f"Error while serializing: I/O error: {text}")


@pytest.mark.parametrize(
    ("error", "reason", "fix"),
    [
        (rust("No space left on device (os error 28)"), "No space left on device", "free some space"),
        (OSError(28, "No space left on device"), "No space left on device", "free some space"),
        (OSError(122, "Disk quota exceeded"), "Disk quota exceeded", "free some space"),
        (rust("Permission denied (os error 13)"), "Permission denied", "check the folder and disk"),
        (SafetensorError("odd\nanswer"), "SafetensorError: odd answer", "check the folder and disk"),
    ],
)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_disk_that_takes_no_more_is_named_and_the_states_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, error: Exception, reason: str, fix: str
) -> None:
    net, optimizer = make("sgd", 0)
    folder = tmp_path / "state"
    for step in (120, 180)[:count]:
        save_state(folder, net, optimizer, Place(step))
    before = contents(folder) if count else {}

    def fail(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(modelfile, "save_file", fail)
    with pytest.raises(TrainingError) as caught:
        save_state(folder, net, optimizer, Place(240))
    kept = {
        0: f"no state was saved before: {fix} and start the run anew",
        1: f"the state of step 120 is intact: {fix} and go on with --resume",
        2: f"the states of steps 120 and 180 are intact: {fix} and go on with --resume",
    }
    assert str(caught.value) == f"{tmp_path}: cannot be written ({reason}); {kept[count]}"
    assert contents(folder) == before


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_a_device_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to, never named as a target: safetensors replaces its target, and root may replace a device."""
    net, optimizer = make("sgd", 0)
    save_state(tmp_path, net, optimizer, Place(1))
    before = contents(tmp_path)

    def fill(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
        with Path("/dev/full").open("wb") as file:
            file.write(b"x")

    monkeypatch.setattr(modelfile, "save_file", fill)
    with pytest.raises(TrainingError, match=r"written \(No space left on device\); the state of step 1 is intact"):
        save_state(tmp_path, net, optimizer, Place(2))
    assert contents(tmp_path) == before


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    (tmp_path / "state").write_text("")
    with pytest.raises(
        TrainingError, match=r"^(?!.*state: ).*: cannot be written \(File exists\); no state was saved before: check"
    ):
        save_state(tmp_path / "state", net, optimizer, PLACE)


def test_what_killed_processes_left_is_ignored_then_removed(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    path = save_state(tmp_path, net, optimizer, Place(1))
    for name in (".new.1a2b3c4d.safetensors", "new.safetensors", ".tmpYx3a8Q"):
        (tmp_path / name).write_bytes(path.read_bytes()[:1000])
    (tmp_path / "mine.txt").write_text("kept")
    assert load_state(tmp_path, net, optimizer) == (Place(1), [])
    new = save_state(tmp_path, net, optimizer, Place(2))
    assert names(tmp_path) == sorted(["mine.txt", path.name, new.name])


SCRIPT = """
import os, resource, signal, sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
import torch
from fullconv.errors import TrainingError
from fullconv.training import state
spec = spec_from_file_location("oracle", sys.argv[1])
oracle = module_from_spec(spec)
spec.loader.exec_module(oracle)
root = Path(sys.argv[2])
net, optimizer = oracle.make("sgd", 0)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def killed(name, owner, function, turn):
    if os.fork():
        os.wait()
        return
    plain, calls = getattr(owner, function), []
    def maybe(*args, **kwargs):
        calls.append(args)
        return die() if len(calls) == turn else plain(*args, **kwargs)
    setattr(owner, function, maybe)
    state.save_state(root / name, net, optimizer, state.Place(3))
    os._exit(1)

killed("while writing", state, "save_tensors", 1)
killed("before the sync", os, "fsync", 1)
killed("before the first rename", Path, "replace", 1)
killed("before the digest", state, "_digest", 1)
killed("before the second rename", Path, "replace", 2)
killed("before the sync of the folder", state, "sync_folder", 1)
killed("before the deletion", state, "_states", 1)

size = next((root / "full").iterdir()).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    state.save_state(root / "full", net, optimizer, state.Place(3))
except TrainingError as error:
    print(error, end="")
"""

KILLS = {
    "while writing": False, "before the sync": False, "before the first rename": False, "before the digest": False,
    "before the second rename": False, "before the sync of the folder": True, "before the deletion": True,
}  # fmt: skip
"""When a process is killed, and whether its state is there."""


@pytest.mark.skipif(os.name != "posix", reason="fork, SIGKILL and limits of file sizes")
def test_processes_that_are_killed_and_disks_that_are_full(tmp_path: Path) -> None:
    net, optimizer = make("sgd", 0)
    for name in (*KILLS, "full"):
        for step in (1, 2):
            save_state(tmp_path / name, net, optimizer, Place(step))
    before = contents(tmp_path / "full")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, __file__, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{tmp_path}: cannot be written (File too large); "
        "the states of steps 1 and 2 are intact: free some space and go on with --resume"
    )
    assert contents(tmp_path / "full") == before
    for name, there in KILLS.items():
        found = contents(tmp_path / name)
        assert before.items() <= found.items(), name
        assert (len(found) == 3) == (there or name != "while writing"), name  # something was left, as meant
        again, other = make("sgd", 1)
        assert load_state(tmp_path / name, again, other) == (Place(3 if there else 2), []), name
        assert bits(again, other) == bits(net, optimizer)
        save_state(tmp_path / name, again, other, Place(4))
        assert kept(tmp_path / name) == [3 if there else 2, 4], name
