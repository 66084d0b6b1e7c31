"""The key map against the layer names of the reference, typed by hand, and against the nets of `caffe_nets`."""

from __future__ import annotations

import pytest
import torch

from caffe_nets import CLASSIFIERS, NAMES, layer_shapes
from fullconv.errors import OptionError
from fullconv.nets import FCN, NETS, build
from fullconv.nets.trunks import TRUNKS
from fullconv.weights.caffe_names import CaffeNames, caffe_names

PUBLISHED = [name for name in NAMES if name not in CLASSIFIERS]

TRUNKS_OF_CAFFE = {"alexnet", "alexnet-bvlc", "googlenet", "vgg16"}

CLASSIFIER_OF = {
    "caffenet": "fcn32s-alexnet",
    "alexnet-bvlc": "fcn32s-alexnet-bvlc",
    "vgg16": "fcn32s-vgg16",
    "googlenet": "fcn32s-googlenet",
}

VGG = [
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1", "conv4_2", "conv4_3",
    "conv5_1", "conv5_2", "conv5_3", "fc6", "fc7",
]  # fmt: skip
"""Reference 1.1."""


def empty(name: str, **options: object) -> FCN:
    """At full width, without memory for its weights."""
    with torch.device("meta"):
        return build(name, **options)  # type: ignore[arg-type]


def vgg(trunk: str = "image", suffix: str = "") -> dict[str, str]:
    return {f"{layer}{suffix}": f"trunks.{trunk}.{layer}" for layer in VGG}


@pytest.mark.parametrize(
    ("name", "layers", "upsampling", "scales"),
    [
        (
            "voc-fcn32s",
            {"score_fr": "heads.semantic.score.image.32"},
            {"upscore": "heads.semantic.upscore.output"},
            {},
        ),
        (
            "voc-fcn16s",
            {"score_fr": "heads.semantic.score.image.32", "score_pool4": "heads.semantic.score.image.16"},
            {"upscore2": "heads.semantic.upscore.16", "upscore16": "heads.semantic.upscore.output"},
            {"scale_pool4": 16},
        ),
        (
            "voc-fcn8s-atonce",
            {
                "score_fr": "heads.semantic.score.image.32",
                "score_pool4": "heads.semantic.score.image.16",
                "score_pool3": "heads.semantic.score.image.8",
            },
            {
                "upscore2": "heads.semantic.upscore.16",
                "upscore_pool4": "heads.semantic.upscore.8",
                "upscore8": "heads.semantic.upscore.output",
            },
            {"scale_pool4": 16, "scale_pool3": 8},
        ),
        (
            "siftflow-fcn8s",
            {
                "score_fr_sem": "heads.semantic.score.image.32",
                "score_pool4_sem": "heads.semantic.score.image.16",
                "score_pool3_sem": "heads.semantic.score.image.8",
                "score_fr_geo": "heads.geometric.score.image.32",
                "score_pool4_geo": "heads.geometric.score.image.16",
                "score_pool3_geo": "heads.geometric.score.image.8",
            },
            {
                "upscore2_sem": "heads.semantic.upscore.16",
                "upscore_pool4_sem": "heads.semantic.upscore.8",
                "upscore8_sem": "heads.semantic.upscore.output",
                "upscore2_geo": "heads.geometric.upscore.16",
                "upscore_pool4_geo": "heads.geometric.upscore.8",
                "upscore8_geo": "heads.geometric.upscore.output",
            },
            {"scale_pool4": 16, "scale_pool3": 8},
        ),
    ],
)
def test_heads_on_vgg16(name: str, layers: dict[str, str], upsampling: dict[str, str], scales: dict[str, int]) -> None:
    assert caffe_names(empty(name)) == CaffeNames(vgg() | layers, upsampling, scales)


def test_early_fusion_renames_the_first_convolution() -> None:
    layers = vgg("fused")
    assert layers.pop("conv1_1") == "trunks.fused.conv1_1"
    layers |= {"conv1_1_bgrd": "trunks.fused.conv1_1", "score_fr": "heads.semantic.score.fused.32"}
    assert caffe_names(empty("nyud-fcn32s-color-d")) == CaffeNames(
        layers, {"upscore": "heads.semantic.upscore.output"}, {}
    )


def test_late_fusion_appends_the_inputs_names() -> None:
    scores = {
        "score_frcolor": "heads.semantic.score.color.32",
        "score_frhha": "heads.semantic.score.hha.32",
    }
    assert caffe_names(empty("nyud-fcn32s-color-hha")) == CaffeNames(
        vgg("color", "color") | vgg("hha", "hha") | scores, {"upscore": "heads.semantic.upscore.output"}, {}
    )


def test_one_input_of_another_name_appends_nothing() -> None:
    names = caffe_names(empty("nyud-fcn32s-hha"))
    assert names.layers == vgg("hha") | {"score_fr": "heads.semantic.score.hha.32"}


@pytest.mark.parametrize("name", ["voc-fcn-alexnet", "fcn32s-alexnet-bvlc"])
def test_alexnet(name: str) -> None:
    assert caffe_names(empty(name)) == CaffeNames(
        {
            "conv1": "trunks.image.conv1",
            "conv2": "trunks.image.conv2",
            "conv3": "trunks.image.conv3",
            "conv4": "trunks.image.conv4",
            "conv5": "trunks.image.conv5",
            "fc6": "trunks.image.fc6",
            "fc7": "trunks.image.fc7",
            "score_fr": "heads.semantic.score.image.32",
        },
        {"upscore": "heads.semantic.upscore.output"},
        {},
    )


def test_googlenet() -> None:
    names = caffe_names(empty("voc-fcn-googlenet"))
    first = {
        "conv1/7x7_s2": "trunks.image.conv1.7x7_s2",
        "conv2/3x3_reduce": "trunks.image.conv2.3x3_reduce",
        "conv2/3x3": "trunks.image.conv2.3x3",
        "inception_3a/1x1": "trunks.image.inception_3a.1x1",
        "inception_3a/3x3_reduce": "trunks.image.inception_3a.3x3_reduce",
        "inception_3a/3x3": "trunks.image.inception_3a.3x3",
        "inception_3a/5x5_reduce": "trunks.image.inception_3a.5x5_reduce",
        "inception_3a/5x5": "trunks.image.inception_3a.5x5",
        "inception_3a/pool_proj": "trunks.image.inception_3a.pool_proj",
    }
    modules = ["3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    others = {
        layer.replace("3a", module): path.replace("3a", module)
        for module in modules
        for layer, path in first.items()
        if "3a" in layer
    }
    assert names.layers == first | others | {"score_fr": "heads.semantic.score.image.32"}
    assert len(names.layers) == 3 + 9 * 6 + 1
    assert (names.upsampling, names.scales) == ({"upscore": "heads.semantic.upscore.output"}, {})


def test_names_that_the_reference_would_give() -> None:
    """Other tasks keep their name, other taps are scored by theirs."""
    names = caffe_names(empty("fcn16s-googlenet", classes={"road": 2, "sky": 3}))
    scores = {layer: module for layer, module in names.layers.items() if module.startswith("heads")}
    assert scores == {
        "score_fr_road": "heads.road.score.image.32",
        "score_inception_4e_road": "heads.road.score.image.16",
        "score_fr_sky": "heads.sky.score.image.32",
        "score_inception_4e_sky": "heads.sky.score.image.16",
    }
    assert names.scales == {"scale_inception_4e": 16}


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.trunk in TRUNKS_OF_CAFFE])
def test_every_parameter_has_one_name(name: str) -> None:
    net = empty(name, upsampling="learned-all")
    names = caffe_names(net)
    forward = {**names.layers, **names.upsampling}
    assert len(forward) == len(names.layers) + len(names.upsampling)
    inverse = {module: layer for layer, module in forward.items()}
    assert {layer: inverse[module] for layer, module in forward.items()} == {layer: layer for layer in forward}
    keys = {f"{module}.{kind}" for module in names.layers.values() for kind in ("weight", "bias")}
    keys |= {f"{module}.weight" for module in names.upsampling.values()}
    assert keys == set(net.state_dict())
    assert not set(names.scales) & set(forward)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_the_published_net(name: str) -> None:
    """Against lists that know nothing of our nets."""
    net = empty(name, upsampling="learned-all")
    names, state = caffe_names(net), net.state_dict()
    shapes = {layer: blobs for layer, _, blobs in layer_shapes(name) if blobs}
    kinds = {layer: kind for layer, kind, blobs in layer_shapes(name) if blobs}
    assert {layer for layer, kind in kinds.items() if kind == "Convolution"} == set(names.layers)
    assert {layer for layer, kind in kinds.items() if kind == "Deconvolution"} == set(names.upsampling)
    scaled = {layer for layer, kind in kinds.items() if kind == "Scale"}
    assert {names.scales[layer] for layer in scaled} == set(net.options.scales)
    assert set(kinds.values()) <= {"Convolution", "Deconvolution", "Scale"}
    for layer, module in names.layers.items():
        assert shapes[layer] == tuple(tuple(state[f"{module}.{kind}"].shape) for kind in ("weight", "bias")), layer
    for layer, module in names.upsampling.items():
        assert shapes[layer] == (tuple(state[f"{module}.weight"].shape),), layer
    for layer in scaled:
        scores = state[f"heads.semantic.score.image.{names.scales[layer]}.weight"]
        assert shapes[layer] == ((scores.shape[1],),), layer


@pytest.mark.parametrize(("file", "name"), CLASSIFIER_OF.items())
def test_classifiers_have_the_names_of_the_trunk(file: str, name: str) -> None:
    net = empty(name)
    state = net.state_dict()
    trunk = {layer: module for layer, module in caffe_names(net).layers.items() if module.startswith("trunks.")}
    shapes = {layer: blobs for layer, _, blobs in layer_shapes(file) if blobs}
    last = {"loss3/classifier" if file == "googlenet" else "fc8"}
    auxiliary = {layer for layer in shapes if layer.startswith(("loss1/", "loss2/"))}
    assert set(shapes) == set(trunk) | last | auxiliary
    for layer, module in trunk.items():
        weight, bias = shapes[layer]
        ours = state[f"{module}.weight"]
        assert weight == tuple((ours.flatten(1) if layer.startswith("fc") else ours).shape), layer
        assert bias == tuple(state[f"{module}.bias"].shape), layer


@pytest.mark.parametrize("trunk", sorted(set(TRUNKS) - TRUNKS_OF_CAFFE - {"slim1"}))
def test_trunks_without_caffe_models_are_refused(trunk: str) -> None:
    message = (
        "Caffe models are known for the trunks alexnet, alexnet-bvlc, googlenet, vgg16, "
        f"not for '{trunk}'; choose a net with one of those"
    )
    with pytest.raises(OptionError, match=f"^{message}$"):
        caffe_names(empty(f"fcn32s-{trunk}"))
