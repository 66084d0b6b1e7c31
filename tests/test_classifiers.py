"""The specimens of tests/classifiers.py are what their tables say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from classifiers import CLASSES, CLASSIFIERS, IMPOSSIBLE, Impossible, Specimen, images, windows_of

EVERY: dict[str, Specimen | Impossible] = {**CLASSIFIERS, **IMPOSSIBLE}
NETS = pytest.mark.parametrize("name", EVERY)


class Edges(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch declares no types here
    """Notes every operation that runs and reads beyond the edge of its map; functions are seen as well as modules.

    Attributes:
        found: "padding" and "clipping", as met.
        pools: poolings that round up, clipped or not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.pools = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        declared = func._schema.arguments
        given = {argument.name: argument.default_value for argument in declared}
        given |= {argument.name: value for argument, value in zip(declared, args, strict=False)} | dict(kwargs or {})
        operation = func.overloadpacket.__name__
        if operation == "constant_pad_nd":  # pads of the last axis first; response norm pads the channels
            self.note(any(given["pad"][:4]), "padding")
        elif isinstance(given.get("padding"), Sequence):
            self.note(any(given["padding"]), "padding")
        if given.get("ceil_mode"):
            self.pools += 1
            dilation = given.get("dilation", 1)
            for axis, size in enumerate(given["self"].shape[-2:]):
                kernel, stride, step = (_along(v, axis) for v in (given["kernel_size"], given["stride"], dilation))
                left = size + 2 * _along(given["padding"], axis) - step * (kernel - 1) - 1
                self.note(left % (stride or kernel) != 0, "clipping")
        return func(*args, **(kwargs or {}))

    def note(self, met: bool, what: str) -> None:
        if met:
            self.found.append(what)


def _along(value: int | Sequence[int], axis: int) -> int:
    """Of what is given once, or for each axis; 0 where it was left out."""
    if isinstance(value, int):
        return value
    return value[axis % len(value)] if value else 0


def edges(net: nn.Module, x: Tensor) -> Edges:
    met = Edges()
    with torch.no_grad(), met:
        net(x)
    return met


def test_the_tables_are_large_enough() -> None:
    assert len(CLASSIFIERS) >= 22
    assert len(IMPOSSIBLE) >= 7
    assert {s.padded for s in CLASSIFIERS.values()} == {True, False}
    assert all(s.words for s in IMPOSSIBLE.values())


@NETS
def test_a_specimen_gives_logits_that_the_image_decides(name: str) -> None:
    specimen = EVERY[name]
    net, x = specimen.build(), images(3, specimen.channels, specimen.size)
    assert not any(module.training for module in net.modules())
    with torch.no_grad():
        logits = net(x)
    assert logits.shape in ((3, CLASSES), (3, CLASSES, 1, 1))
    assert logits.isfinite().all()
    scale, spread = logits.abs().max(), logits.std(0)
    assert 0.05 < scale < 50
    assert spread.mean() > 0.02 * scale
    assert spread.min() > 1e-3 * scale, "a logit that hardly moves hides what is wrong with it"
    alone = torch.cat([specimen.build()(x[i : i + 1]).detach() for i in range(3)])
    if name != "control flow":  # there the images of a batch decide together
        torch.testing.assert_close(alone, logits, rtol=1e-4, atol=1e-5)


@NETS
def test_a_specimen_is_the_same_every_time(name: str) -> None:
    specimen = EVERY[name]
    torch.manual_seed(1)
    first = specimen.build()
    drawn = torch.rand(())
    second = specimen.build()
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    assert all(a is not b for a, b in zip(first.modules(), second.modules(), strict=True))
    torch.manual_seed(1)
    assert drawn == torch.rand(()), "the caller's random numbers are left alone"


@NETS
def test_batch_norms_have_statistics_and_weights_of_their_own(name: str) -> None:
    for module in EVERY[name].build().modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for values, trivial in (
                (module.weight, 1), (module.bias, 0), (module.running_mean, 0), (module.running_var, 1),
            ):  # fmt: skip
                assert (values - trivial).abs().max() > 0.05


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_padding_is_declared(name: str) -> None:
    specimen = CLASSIFIERS[name]
    net = specimen.build()
    found = edges(net, images(2, specimen.channels, specimen.size)).found
    assert bool(found) == specimen.padded, found
    if not specimen.padded:
        for module in net.modules():  # what is set but has no effect would be seen here
            padding = getattr(module, "padding", 0)
            assert padding != "same"
            assert padding in (0, (0, 0), "valid"), module


@pytest.mark.parametrize(
    ("name", "pools", "found"),
    [
        ("pooling rounded up, windows whole", 1, set()),
        ("pooling rounded up, windows clipped", 1, {"clipping"}),
        ("googlenet", 6, {"padding", "clipping"}),
        ("alexnet", 1, {"padding"}),
    ],
)
def test_pooling_that_rounds_up(name: str, pools: int, found: set[str]) -> None:
    specimen = CLASSIFIERS[name]
    met = edges(specimen.build(), images(1, specimen.channels, specimen.size))
    assert met.pools == pools
    assert set(met.found) == found


@pytest.mark.parametrize(
    ("layer", "size", "found"),
    [
        (nn.Conv2d(1, 1, 3), 9, []),
        (nn.Conv2d(1, 1, 3, padding="same"), 9, ["padding"]),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), 9, ["padding"]),
        (nn.ZeroPad2d(1), 9, ["padding"]),
        (nn.MaxPool2d(3, 2, padding=1), 9, ["padding"]),
        (nn.AvgPool2d(3, 2, padding=(0, 1)), 9, ["padding"]),
        (nn.MaxPool2d(3, 2), 10, []),
        (nn.MaxPool2d(3, 2, ceil_mode=True), 9, []),
        (nn.MaxPool2d(3, 2, ceil_mode=True), 10, ["clipping"] * 2),
        (nn.MaxPool2d(2, ceil_mode=True), 9, ["clipping"] * 2),
        (nn.MaxPool2d((3, 1), (2, 1), ceil_mode=True), 10, ["clipping"]),
        (nn.MaxPool2d(3, 2, dilation=2, ceil_mode=True), 9, []),
        (nn.MaxPool2d(3, 2, dilation=2, ceil_mode=True), 10, ["clipping"] * 2),
        (nn.AvgPool2d(3, 2, ceil_mode=True), 10, ["clipping"] * 2),
        (nn.LocalResponseNorm(5), 9, []),
    ],
)
def test_the_edges_are_seen(layer: nn.Module, size: int, found: list[str]) -> None:
    assert edges(layer, torch.randn(1, 1, size, size)).found == found


@pytest.mark.parametrize(
    "pool", [lambda x: F.max_pool2d(x, 2, ceil_mode=True), lambda x: F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2)]
)
def test_edges_of_functions_are_seen(pool: Any) -> None:
    with Edges() as met:
        pool(torch.randn(1, 1, 9, 9))
    assert met.found


class Corner(nn.Module):
    """The window's first and last value."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0], x[:, 0, -1, -1]], dim=1) + self.training


@pytest.mark.parametrize(("size", "stride"), [(3, 2), ((3, 4), 2), ((2, 5), (3, 1)), (1, 1), ((7, 8), 5)])
def test_windows_are_cut_where_they_lie(size: int | tuple[int, int], stride: int | tuple[int, int]) -> None:
    (height, width), (down, right) = ((v, v) if isinstance(v, int) else v for v in (size, stride))
    image = torch.arange(2 * 7 * 8.0).reshape(2, 1, 7, 8)
    net = Corner()
    logits = windows_of(net, image, size, stride)
    assert net.training
    assert logits.shape == (2, 2, math.floor((7 - height) / down) + 1, math.floor((8 - width) / right) + 1)
    for n in range(2):
        for y in range(logits.shape[2]):
            for x in range(logits.shape[3]):
                first = n * 56 + y * down * 8 + x * right
                assert logits[n, :, y, x].tolist() == [first, first + (height - 1) * 8 + width - 1]
