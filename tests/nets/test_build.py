"""Nets by name."""

from __future__ import annotations

import pytest
import torch

from fullconv.errors import OptionError
from fullconv.nets import NETS, build
from fullconv.nets.trunks import TRUNKS


@pytest.mark.parametrize("name", NETS)
def test_names_say_what_the_net_is(name: str) -> None:
    with torch.device("meta"):
        net = build(name)
    head, trunk = name.split("-")
    assert head == f"fcn{net.options.stride}s"
    assert net.options.trunk.startswith(trunk)
    assert net.options.classes == {"semantic": 21}
    assert list(net.options.inputs) == ["image"]
    assert net.options.padding == "same"
    assert net.options.dropout == TRUNKS[net.options.trunk].dropout


def test_every_trunk_is_offered_at_each_of_its_strides() -> None:
    offered = {(net.trunk, net.stride) for net in NETS.values()}
    assert {("vgg16", s) for s in (32, 16, 8)} < offered
    assert {("slim", s) for s in (32, 16, 8, 4, 2)} < offered


def test_normalisation_by_channels() -> None:
    net = build("fcn32s-slim", channels={"image": 3, "depth": 1, "hyper": 7}, width=1 / 64)
    image, depth, hyper = net.options.inputs.values()
    assert image.mean == (123.675, 116.28, 103.53)  # ImageNet's 0.485, 0.456, 0.406 times 255
    assert (depth.mean, depth.std) == ((127.5,), (64.0,))
    assert hyper.channels == 7
    vgg = build("fcn32s-vgg16", channels=3, width=1 / 64).options.inputs["image"]
    assert (vgg.order, vgg.std) == ("bgr", (1, 1, 1))


def test_options_reach_the_net() -> None:
    net = build(
        "fcn8s-slim", {"a": 2, "b": 3}, channels=2, dropout=0.25,
        padding="paper", upsampling="learned", fusion="late", width=0.5,
    )  # fmt: skip
    options = net.options
    assert (options.dropout, options.padding, options.upsampling) == (0.25, "paper", "learned")
    assert (options.fusion, options.width, options.classes) == ("late", 0.5, {"a": 2, "b": 3})
    assert net.trunks["image"].conv1_1.weight.shape == (16, 2, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["fcn8-vgg16"], {}, "unknown net 'fcn8-vgg16'; did you mean 'fcn8s-vgg16'"),
        (["fcn8s-slim"], {"widht": 1}, "unknown net option 'widht'; did you mean 'width'"),
        (["fcn8s-slim"], {"stride": 4}, "unknown net option 'stride'"),
        (["fcn8s-slim"], {"channels": 0}, "channels 0; expected at least 1"),
        (["fcn8s-slim"], {"channels": {"a": 3, "b": 0}}, "channels {'a': 3, 'b': 0}; expected at least 1"),
        (["fcn8s-slim"], {"channels": {}}, "channels {}; expected at least 1"),
        (["fcn8s-slim", 0], {}, "task 'semantic' has 0 classes"),
        (["fcn8s-slim"], {"width": 5}, "width 5; expected"),
        (["fcn8s-slim"], {"dropout": 1.0}, "dropout 1.0; expected"),
    ],
)
def test_refusals(arguments: list[object], options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build(*arguments, **options)
