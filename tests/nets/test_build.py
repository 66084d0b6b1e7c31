"""Nets by name."""

from __future__ import annotations

import re

import pytest
import torch

from fullconv.errors import OptionError
from fullconv.nets import NETS, build, published_labels
from fullconv.nets.trunks import TRUNKS


@pytest.mark.parametrize("name", [name for name in NETS if name.startswith("fcn")])
def test_names_say_what_the_net_is(name: str) -> None:
    with torch.device("meta"):
        net = build(name)
    head, _, trunk = name.partition("-")
    assert head == f"fcn{net.options.stride}s"
    assert net.options.trunk == ("slim1" if head == "fcn1s" else trunk)
    assert net.options.classes == {"semantic": 21}
    assert list(net.options.inputs) == ["image"]
    assert net.options.padding == "same"
    assert net.options.dropout == TRUNKS[net.options.trunk].dropout


def test_every_trunk_is_offered_at_each_of_its_strides() -> None:
    offered = {(net.trunk, net.stride) for net in NETS.values()}
    assert {(trunk, s) for trunk in TRUNKS if trunk != "slim1" for s in (32, 16, 8)} < offered
    assert {("slim", s) for s in (4, 2)} < offered


PUBLISHED = {
    "voc-fcn32s": (32, {"semantic": 21}), "voc-fcn16s": (16, {"semantic": 21}), "voc-fcn8s": (8, {"semantic": 21}),
    "voc-fcn8s-atonce": (8, {"semantic": 21}),
    "voc-fcn-alexnet": (32, {"semantic": 21}), "voc-fcn-googlenet": (32, {"semantic": 21}),
    "pascalcontext-fcn32s": (32, {"semantic": 60}), "pascalcontext-fcn16s": (16, {"semantic": 60}),
    "pascalcontext-fcn8s": (8, {"semantic": 60}),
    "nyud-fcn32s-color": (32, {"semantic": 40}), "nyud-fcn32s-hha": (32, {"semantic": 40}),
    "nyud-fcn32s-color-d": (32, {"semantic": 40}), "nyud-fcn32s-color-hha": (32, {"semantic": 40}),
    "siftflow-fcn32s": (32, {"semantic": 33, "geometric": 3}),
    "siftflow-fcn16s": (16, {"semantic": 33, "geometric": 3}),
    "siftflow-fcn8s": (8, {"semantic": 33, "geometric": 3}),
}  # fmt: skip
"""The design's list, with the outputs of reference 1.2."""


def test_every_published_net_is_there() -> None:
    assert {name for name in NETS if not name.startswith("fcn")} == set(PUBLISHED)
    for name, (stride, classes) in PUBLISHED.items():
        with torch.device("meta"):
            options = build(name).options
        assert (options.stride, options.classes, options.padding) == (stride, classes, "paper")
        assert options.upsampling == "bilinear"  # all of them are frozen in the released nets
        assert {task: len(labels) for task, labels in published_labels(name).items()} == classes
    assert published_labels("fcn8s-vgg16") is None


@pytest.mark.parametrize(
    ("name", "means"),
    [  # as the reference's data layers subtract them, from BGR where the layer reverses the file's channels
        ("voc-fcn8s", {"image": [104.00698793, 116.66876762, 122.67891434]}),
        ("pascalcontext-fcn8s", {"image": [104.007, 116.669, 122.679]}),
        ("siftflow-fcn16s", {"image": [114.578, 115.294, 108.353]}),
        ("nyud-fcn32s-color-d", {"color": [116.190, 97.203, 92.318], "depth": [7.844]}),
        ("nyud-fcn32s-color-hha", {"color": [116.190, 97.203, 92.318], "hha": [132.431, 94.076, 118.477]}),
    ],
)
def test_inputs_are_prepared_as_the_reference_prepares_them(name: str, means: dict[str, list[float]]) -> None:
    net = build(name, width=1 / 16)
    assert list(net.normalise) == list(means)
    for key, mean in means.items():
        x = torch.rand(1, len(mean), 2, 3) * 255
        expected = x.flip(1) if key in ("image", "color") else x
        if key == "depth":
            x[0, 0, 0, 0] = 0  # nothing measured
            expected = x.clamp(min=1).log()
        expected = expected - torch.tensor(mean)[:, None, None]
        torch.testing.assert_close(net.normalise[key](x), expected, rtol=0, atol=1e-4)


def test_at_once_scales_the_skips() -> None:
    torch.manual_seed(0)
    plain, scaled = build("voc-fcn8s", width=1 / 16), build("voc-fcn8s-atonce", width=1 / 16)
    assert (plain.options.scales, scaled.options.scales) == ({}, {16: 0.01, 8: 0.0001})
    with torch.no_grad():
        for key, parameter in plain.heads.named_parameters():
            parameter.normal_()
            factor = {"16.weight": 0.01, "8.weight": 0.0001}.get(key.partition("image.")[2], 1)
            scaled.heads.get_parameter(key).copy_(parameter / factor)
    scaled.trunks.load_state_dict(plain.trunks.state_dict())
    x = torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8)
    with torch.inference_mode():
        one, other = plain.eval()(x), scaled.eval()(x)
    assert (one - other).abs().max() < 1e-6 * one.abs().max()


def test_a_published_net_for_other_classes_and_only_for_its_own_inputs() -> None:
    assert build("voc-fcn8s", 5, padding="same", width=1 / 16).options.padding == "same"
    assert (
        build("nyud-fcn32s-hha", 2, channels=3, width=1 / 16).options
        == build("nyud-fcn32s-hha", 2, channels={"hha": 3}, width=1 / 16).options
    )
    message = re.escape(
        "inputs with channels {'image': 3}; nyud-fcn32s-color-d takes {'color': 3, 'depth': 1}: "
        "choose fcn32s-vgg16, which takes any"
    )
    with pytest.raises(OptionError, match=message):
        build("nyud-fcn32s-color-d", channels={"image": 3})
    message = (
        "classes for semantic; siftflow-fcn16s has the tasks semantic, geometric: choose fcn16s-vgg16, which takes any"
    )
    for classes in (5, {"semantic": 5}):
        with pytest.raises(OptionError, match=message):
            build("siftflow-fcn16s", classes)
    assert build("siftflow-fcn16s", {"semantic": 5, "geometric": 2}, width=1 / 16).options.classes["geometric"] == 2


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
