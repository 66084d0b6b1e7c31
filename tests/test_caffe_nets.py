"""The Caffe oracle against plain torch, published parameter counts and the layer names of the reference."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from caffe_nets import CLASSIFIERS, NAMES, CaffeNet, caffe_net, layer_shapes, opencv_scores
from fcn_oracle import MEAN_BGR, Oracle, surgery

WIDTH = 1 / 16
CLASSES = {"voc": (21,), "pascalcontext": (60,), "nyud": (40,), "siftflow": (33, 3)}


def random_inputs(net: CaffeNet, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-120, 140, shape).astype(np.float32) for name, shape in net.inputs.items()}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CLASSIFIERS])
@pytest.mark.parametrize("size", [(37, 53), (1, 1)])
def test_scores_have_the_input_size(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    net = caffe_net(name, size, width=WIDTH)
    scores = opencv_scores(net, random_inputs(net), tmp_path)
    assert [score.shape for score in scores.values()] == [(k, *size) for k in CLASSES[name.split("-", maxsplit=1)[0]]]
    assert tuple(scores) == (("score_sem", "score_geo") if name.startswith("siftflow") else ("score",))
    for score in scores.values():
        assert 0.02 < score.std() < 10
        if size != (1, 1):
            assert score.std(axis=(1, 2)).mean() > 0.05, "the scores hardly depend on the place"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_score_1000_classes_whatever_else_the_weights_hold(name: str, tmp_path: Path) -> None:
    net = caffe_net(name, (CLASSIFIERS[name],) * 2, width=WIDTH)
    (scores,) = opencv_scores(net, random_inputs(net), tmp_path).values()
    assert scores.shape == (1000, 1, 1)
    assert 0.1 < scores.std() < 10
    auxiliary = {layer for layer, _, _ in net.layers if layer.startswith(("loss1/", "loss2/"))}
    assert len(auxiliary) == (14 if name == "googlenet" else 0)
    assert not any(f'"{layer}"' in net.prototxt for layer in auxiliary)


def tensors(net: CaffeNet) -> dict[str, list[torch.Tensor]]:
    """The blobs of the layers that have some."""
    return {layer: [torch.from_numpy(blob) for blob in blobs] for layer, _, blobs in net.layers if blobs}


def agree(scores: np.ndarray, expected: torch.Tensor) -> None:
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=1e-4 * expected.std().item())


@pytest.mark.parametrize("size", [(37, 53), (97, 61)])
@pytest.mark.parametrize(
    "name", [name for name in NAMES if re.search("fcn(8|16|32)s", name) and name != "nyud-fcn32s-color-hha"]
)
def test_vgg_nets_equal_plain_torch(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    net = caffe_net(name, size, width=WIDTH, seed=1)
    weights = tensors(net)
    rgb = np.random.default_rng(2).uniform(0, 255, (3, *size)).astype(np.float32)
    inputs = {"data": rgb[::-1] - np.array(MEAN_BGR, np.float32)[:, None, None]}
    of_depth: torch.Tensor | float = 0.0
    if name == "nyud-fcn32s-color-d":
        inputs = {"color": inputs["data"], "depth": np.random.default_rng(3).normal(0, 80, (1, *size)).astype("f4")}
        weight, bias = weights.pop("conv1_1_bgrd")
        weights["conv1_1"] = [weight[:, :3], bias]
        of_depth = F.conv2d(torch.from_numpy(inputs["depth"])[None], weight[:, 3:], padding=100)
    if "atonce" in name:  # the scales folded into what reads them
        for pool, scale in (("pool4", 0.01), ("pool3", 0.0001)):
            assert (weights.pop(f"scale_{pool}")[0] == scale).all()
            weights[f"score_{pool}"][0] = weights[f"score_{pool}"][0] * scale
    answers = opencv_scores(net, inputs, tmp_path)
    for output, classes in zip(net.outputs, CLASSES[name.split("-", maxsplit=1)[0]], strict=True):
        suffix = output.removeprefix("score")
        oracle = Oracle(int(re.findall("fcn([0-9]+)s", name)[0]), classes, WIDTH).eval()
        for key, value in oracle.state_dict().items():
            layer, kind = key.split(".")
            loaded = weights[layer if layer.startswith(("conv", "fc")) else layer + suffix][kind == "bias"]
            if layer.startswith("upscore"):
                assert torch.equal(value, loaded), f"{layer} is not bilinear"
            value.copy_(loaded)
        oracle.conv1_1.register_forward_hook(lambda module, data, output: output + of_depth)
        with torch.no_grad():
            agree(answers[output], oracle(torch.from_numpy(rgb)[None])[0])


def conv(blobs: list[torch.Tensor], x: torch.Tensor, pad: int = 0, stride: int = 1, groups: int = 1) -> torch.Tensor:
    weight, bias = blobs
    return F.conv2d(x, weight, bias, stride, pad, groups=groups)


def lrn(x: torch.Tensor) -> torch.Tensor:
    return F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)


def pool(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


def plain_alexnet(w: dict[str, list[torch.Tensor]], x: torch.Tensor, pad: int, norm_first: bool) -> torch.Tensor:
    """pool5."""
    x = F.relu(conv(w["conv1"], x, pad, 4))
    x = pool(lrn(x)) if norm_first else lrn(pool(x))
    x = F.relu(conv(w["conv2"], x, 2, groups=2))
    x = pool(lrn(x)) if norm_first else lrn(pool(x))
    x = F.relu(conv(w["conv3"], x, 1))
    x = F.relu(conv(w["conv4"], x, 1, groups=2))
    x = F.relu(conv(w["conv5"], x, 1, groups=2))
    return pool(x)


def plain_vgg(w: dict[str, list[torch.Tensor]], x: torch.Tensor) -> torch.Tensor:
    """pool5 of the classifier."""
    for stage, depth in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, depth + 1):
            x = F.relu(conv(w[f"conv{stage}_{index}"], x, 1))
        x = F.max_pool2d(x, 2)
    return x


def plain_googlenet(w: dict[str, list[torch.Tensor]], x: torch.Tensor, pad: int) -> torch.Tensor:
    """inception_5b/output."""
    x = lrn(pool(F.relu(conv(w["conv1/7x7_s2"], x, pad, 2))))
    x = F.relu(conv(w["conv2/3x3_reduce"], x))
    x = pool(lrn(F.relu(conv(w["conv2/3x3"], x, 1))))
    for module in ["3a", "3b", "pool", "4a", "4b", "4c", "4d", "4e", "pool", "5a", "5b"]:
        if module == "pool":
            x = pool(x)
            continue
        m = f"inception_{module}"
        branch3 = conv(w[f"{m}/3x3"], F.relu(conv(w[f"{m}/3x3_reduce"], x)), 1)
        branch5 = conv(w[f"{m}/5x5"], F.relu(conv(w[f"{m}/5x5_reduce"], x)), 2)
        branch4 = conv(w[f"{m}/pool_proj"], F.max_pool2d(x, 3, 1, 1))
        x = F.relu(torch.cat([conv(w[f"{m}/1x1"], x), branch3, branch5, branch4], 1))
    return x


@pytest.mark.parametrize("size", [(37, 53), (97, 61), (1, 1)])
def test_fcn_alexnet_equals_plain_torch(size: tuple[int, int], tmp_path: Path) -> None:
    net = caffe_net("voc-fcn-alexnet", size, width=WIDTH, seed=1)
    w, inputs = tensors(net), random_inputs(net)
    x = plain_alexnet(w, torch.from_numpy(inputs["data"])[None], 100, norm_first=False)
    x = conv(w["score_fr"], F.relu(conv(w["fc7"], F.relu(conv(w["fc6"], x)))))
    x = F.conv_transpose2d(x, surgery(21, 63), stride=32)[0, :, 18 : 18 + size[0], 18 : 18 + size[1]]
    agree(opencv_scores(net, inputs, tmp_path)["score"], x)


@pytest.mark.parametrize("size", [(37, 53), (97, 61), (1, 1)])
def test_fcn_googlenet_equals_plain_torch(size: tuple[int, int], tmp_path: Path) -> None:
    net = caffe_net("voc-fcn-googlenet", size, width=WIDTH, seed=1)
    w, inputs = tensors(net), random_inputs(net)
    x = conv(w["score_fr"], plain_googlenet(w, torch.from_numpy(inputs["data"])[None], 100))
    x = F.conv_transpose2d(x, surgery(21, 63), stride=32)[0, :, 98 : 98 + size[0], 98 : 98 + size[1]]
    agree(opencv_scores(net, inputs, tmp_path)["score"], x)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_equal_plain_torch(name: str, tmp_path: Path) -> None:
    net = caffe_net(name, (CLASSIFIERS[name],) * 2, width=WIDTH, seed=1)
    w, inputs = tensors(net), random_inputs(net)
    x = torch.from_numpy(inputs["data"])[None]
    if name == "googlenet":
        x = F.linear(plain_googlenet(w, x, 3).mean((2, 3)), *w["loss3/classifier"])
    else:
        x = plain_vgg(w, x) if name == "vgg16" else plain_alexnet(w, x, 0, name == "alexnet-bvlc")
        x = F.linear(F.relu(F.linear(F.relu(F.linear(x.flatten(1), *w["fc6"])), *w["fc7"])), *w["fc8"])
    (scores,) = opencv_scores(net, inputs, tmp_path).values()
    agree(scores[:, 0, 0], x[0])


def test_late_fusion_is_the_mean_of_its_branches(tmp_path: Path) -> None:
    fused = caffe_net("nyud-fcn32s-color-hha", (37, 53), width=WIDTH)
    inputs = random_inputs(fused)
    branches = []
    for branch in ("color", "hha"):
        single = caffe_net("nyud-fcn32s-color", (37, 53), width=WIDTH)
        weights = {layer.removesuffix(branch): blobs for layer, _, blobs in fused.layers}
        layers = [(layer, kind, weights[layer] if blobs else []) for layer, kind, blobs in single.layers]
        net = CaffeNet(single.prototxt, layers, single.inputs, single.outputs)
        branches.append(opencv_scores(net, {"data": inputs[branch]}, tmp_path)["score"])
    assert abs(branches[0] - branches[1]).mean() > 0.1
    np.testing.assert_allclose(opencv_scores(fused, inputs, tmp_path)["score"], sum(branches) / 2, rtol=0, atol=1e-4)


def parameters(name: str, counts: Callable[[str, str], bool]) -> int:
    return sum(prod(shape) for layer, kind, shapes in layer_shapes(name) if counts(layer, kind) for shape in shapes)


@pytest.mark.parametrize(
    ("name", "count", "with_upscores"),
    [
        ("voc-fcn32s", 134_346_581, 136_152_917),
        ("voc-fcn16s", 134_357_354, 134_815_994),
        ("voc-fcn8s", 134_362_751, 134_489_759),
        ("voc-fcn8s-atonce", 134_363_519, 134_490_527),
        ("voc-fcn-alexnet", 56_954_261, 58_704_590),
        ("voc-fcn-googlenet", 5_995_077, 7_745_406),
    ],
)
def test_parameters_of_the_nets(name: str, count: int, with_upscores: int) -> None:
    assert parameters(name, lambda layer, kind: kind != "Deconvolution") == count
    assert parameters(name, lambda layer, kind: True) == with_upscores


@pytest.mark.parametrize(
    ("name", "count"),
    [("vgg16", 138_357_544), ("googlenet", 6_998_552), ("caffenet", 60_965_224), ("alexnet-bvlc", 60_965_224)],
)
def test_parameters_of_the_classifiers(name: str, count: int) -> None:
    assert parameters(name, lambda layer, kind: not layer.startswith(("loss1/", "loss2/"))) == count


def test_parameters_of_googlenet_without_its_classifiers() -> None:
    assert parameters("googlenet", lambda layer, kind: not layer.startswith("loss")) == 5_973_552


def test_names_of_the_two_heads() -> None:
    names = [layer for layer, _, _ in layer_shapes("siftflow-fcn8s") if layer.endswith(("_sem", "_semc"))]
    assert names == [
        "score_fr_sem",
        "upscore2_sem",
        "score_pool4_sem",
        "score_pool4_semc",
        "fuse_pool4_sem",
        "upscore_pool4_sem",
        "score_pool3_sem",
        "score_pool3_semc",
        "fuse_pool3_sem",
        "upscore8_sem",
        "score_sem",
    ]
    assert [name.replace("sem", "geo") for name in names] == [
        layer for layer, _, _ in layer_shapes("siftflow-fcn8s") if layer.endswith(("_geo", "_geoc"))
    ]


def test_groups_of_odd_channels_are_refused() -> None:
    with pytest.raises(AssertionError, match="conv2: 6 to 15 channels in 2 groups"):
        caffe_net("caffenet", (227, 227), width=0.06)
