"""A classifier of one's own as a trunk: against the classifier's own layers, and through files and training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fullconv
from classifiers import CLASSIFIERS
from fullconv.errors import GeometryError, OptionError
from fullconv.geometry import inputs
from fullconv.nets import FCN, InputOptions, NetOptions
from fullconv.nets.dense_classifier import DenseClassifier, convolutionalize
from fullconv.nets.wired_trunk import WiredTrunk
from inmemory import some

ODD = ("asymmetric kernels",)
"""Specimens whose strides differ along the axes: no trunks."""


def dense(name: str) -> DenseClassifier:
    specimen = CLASSIFIERS[name]
    inputs = InputOptions((127.5,) * specimen.channels, (64.0,) * specimen.channels)
    return convolutionalize(specimen.build(), specimen.size, inputs=inputs)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name not in ODD])
def test_any_classifier_scores_images_of_any_size(name: str) -> None:
    own = dense(name)
    taps = WiredTrunk.of(own).taps
    for stride in (max(taps), min(taps)):
        net = FCN(trunk=own, classes=3, stride=stride).eval()
        for size in ((1, 1), (33, 47), (20, 64)):
            with torch.no_grad():
                assert net(torch.zeros(2, own.channels, *size)).shape == (2, 3, *size)


def test_features_are_those_of_the_classifier_s_layers() -> None:
    """Written out: conv 5, relu, pool 2, conv 3, relu, linear, relu, linear; the first linear one padded by half."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU()]
    hidden, last = nn.Linear(8 * 3 * 3, 10), nn.Linear(10, 4)
    own = convolutionalize(nn.Sequential(*layers, nn.Flatten(), hidden, nn.ReLU(), last), 14)
    net = FCN(trunk=own, classes=2, inputs=InputOptions((0.0,) * 3, (1.0,) * 3)).eval()
    trunk = next(iter(net.trunks.values()))
    assert isinstance(trunk, WiredTrunk)
    # The units of conv1 are centred on pixel 2, those of pool1 on 2.5, of conv2 and the padded linear layer on 4.5.
    assert trunk.padding == (5, 5)
    image = torch.randn(2, 3, 19, 22)
    with torch.no_grad():
        x = F.pad(image, (5, 5, 5, 5))
        for layer in layers:
            x = layer(x)
        expected = F.conv2d(x, hidden.weight.view(10, 8, 3, 3), hidden.bias, padding=1).relu()
        assert torch.equal(trunk.features(image, [2])[2], expected)


def test_pooling_over_the_whole_map_is_dropped() -> None:
    """As for FCN-GoogLeNet (reference 2.5): the features are the map that the classifier averages."""
    own = dense("mean of a tuple")
    trunk = WiredTrunk.of(own)
    stride = max(trunk.taps)
    assert not any(isinstance(layer, nn.AvgPool2d) for layer in trunk.net.layers.values())
    assert any(isinstance(layer, nn.AvgPool2d) for layer in own.net.layers.values())
    assert trunk.channels(stride) > own.classes


@pytest.mark.parametrize("name", ["resnet", "googlenet", "lenet", "convnext"])
def test_fields_are_what_gradients_see(name: str) -> None:
    own = dense(name)
    net = FCN(trunk=own, classes=2).eval().double()
    trunk = next(iter(net.trunks.values()))
    assert isinstance(trunk, WiredTrunk)
    for layer in trunk.net.layers.values():  # all paths must carry something: positive weights, averages for maxima
        for parameter in layer.parameters(recurse=False):
            nn.init.uniform_(parameter, 0.1, 1)
    stride = max(trunk.taps)
    side = 8 * stride + trunk.paths(stride)[0][-1].extent  # type: ignore[union-attr]
    image = torch.rand(1, own.channels, side, side, dtype=torch.float64, requires_grad=True)
    features = trunk.features(image, [stride])[stride]
    middle = features.shape[2] // 2
    features[0, :, middle, middle].sum().backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0).nonzero()
    rows, _ = trunk.paths(stride)
    first, last = inputs(rows, middle, middle + 1)
    lowest, highest = int(seen[:, 0].min()), int(seen[:, 0].max()) + 1
    assert first <= lowest <= first + 2 * stride  # maxima pick some pixels of the field
    assert last - 2 * stride <= highest <= last


def test_it_is_a_net_of_its_own() -> None:
    """It shares no weights with the classifier, and can be copied."""
    own = dense("resnet")
    net = FCN(trunk=own, classes=3)
    theirs = {weight.untyped_storage().data_ptr() for weight in own.state_dict().values()}
    assert not theirs & {weight.untyped_storage().data_ptr() for weight in net.state_dict().values()}
    twin = copy.deepcopy(net.eval())
    image = torch.rand(1, 3, 20, 30) * 255
    with torch.no_grad():
        assert torch.equal(twin(image), net(image))


def test_a_file_holds_it(tmp_path: Path) -> None:
    net = FCN(trunk=dense("resnet"), classes=3, stride=4).eval()
    fullconv.Model(net).save(tmp_path / "own.safetensors")
    again = fullconv.load(tmp_path / "own.safetensors").net
    image = torch.rand(1, 3, 37, 41) * 255
    with torch.no_grad():
        assert torch.equal(again(image), net(image))
    assert again.options == net.options
    assert NetOptions.from_json(net.options.to_json()) == net.options


def test_it_trains_from_a_file(tmp_path: Path) -> None:
    """`--net own.safetensors`: its net with the data's classes, its weights to start from."""
    net = FCN(trunk=dense("resnet"), classes=2, stride=4)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
    fullconv.Model(net).save(tmp_path / "own.safetensors")
    done = fullconv.train(
        (some("train", 8), some("val", 4)), str(tmp_path / "own.safetensors"), out=tmp_path / "run", steps=2, lr=0.0
    )
    trained = fullconv.load(done.model).net
    assert trained.options.classes != net.options.classes
    before = {
        key: value for key, value in net.state_dict().items() if key.startswith("trunks.") and "running" not in key
    }
    after = trained.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if value.is_floating_point())


def test_what_is_refused() -> None:
    own = dense("resnet")
    with pytest.raises(OptionError, match="neither options and a trunk; give one"):
        FCN()
    with pytest.raises(OptionError, match="both options and a trunk; give one"):
        FCN(fullconv.build("fcn32s-slim").options, trunk=own)
    with pytest.raises(OptionError, match=r"has no features of stride 3; choose one of 8s, 4s, 2s"):
        FCN(trunk=own, stride=3)
    with pytest.raises(OptionError, match="normalisation is not known; give inputs=InputOptions"):
        FCN(trunk=convolutionalize(CLASSIFIERS["lenet"].build(), 28))
    with pytest.raises(OptionError, match="3 channels for a trunk of 1; give inputs"):
        FCN(trunk=dense("lenet"), inputs=InputOptions((0.0,) * 3, (1.0,) * 3))
    with pytest.raises(GeometryError, match="no map of equal strides along both axes"):
        FCN(trunk=dense("asymmetric kernels"))
    with pytest.raises(OptionError, match="unknown option of a net with its own trunk 'width'"):
        FCN(trunk=own, width=0.5)
    with pytest.raises(OptionError, match="classes beside options, which hold them"):
        FCN(fullconv.build("fcn32s-slim").options, classes=3)
    with pytest.raises(OptionError, match="takes one input, at width 1"):
        NetOptions.from_json({**FCN(trunk=own).options.to_json(), "width": 0.5})
    with pytest.raises(OptionError, match="'own' lacks wiring"):
        NetOptions("own", 8, {"semantic": 2}, {"image": InputOptions((0.0,), (1.0,))})
    options = FCN(trunk=own).options.to_json()
    for wiring, words in (
        ({"net": {}}, "expected"),
        ({**options["wiring"], "channels": True}, "three numbers of 1 to 8192"),
        ({**options["wiring"], "size": [0, 5]}, "three numbers of 1 to 8192"),
    ):
        with pytest.raises(OptionError, match=words):
            FCN(NetOptions.from_json({**options, "wiring": wiring}))


def test_a_classifier_of_one_layer_leaves_no_trunk() -> None:
    own = convolutionalize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8)
    with pytest.raises(GeometryError, match="nothing before"):
        WiredTrunk.of(own)


def test_a_classifier_whose_last_layer_is_no_convolution_of_a_module_has_no_score_layer() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.weight = nn.Conv2d(3, 5, 3), nn.Parameter(torch.randn(4, 5, 6, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(self.first(x), self.weight).flatten(1)

    with pytest.raises(GeometryError, match="no layer that scores its classes"):
        WiredTrunk.of(convolutionalize(Functional(), 8))
