"""Convolutionalised classifiers against the classifiers themselves, run on windows one by one."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import torchvision_nets
from classifiers import (
    CLASSES,
    CLASSIFIERS,
    IMPOSSIBLE,
    Net,
    images,
    linear,
    padded,
    seeded,
    unpadded,
    windows_of,
)
from fullconv.errors import GeometryError, OptionError
from fullconv.fields import Fields
from fullconv.nets import convolutionalize as rewriting
from fullconv.nets.classifier import Classifier
from fullconv.nets.dense_classifier import DenseClassifier, convolutionalize
from fullconv.nets.options import InputOptions
from fullconv.nets.trace import trace

EVERY = pytest.mark.parametrize("name", CLASSIFIERS)
PADDED = pytest.mark.parametrize("name", [name for name, each in CLASSIFIERS.items() if each.padded])
UNPADDED = pytest.mark.parametrize("name", [name for name, each in CLASSIFIERS.items() if not each.padded])

FEATURES = 12 * 6 * 6
"""Of `unpadded` at 32 x 32."""


@functools.cache
def built(name: str) -> tuple[nn.Module, DenseClassifier]:
    """A specimen and its dense form in float64, which no test changes."""
    specimen = CLASSIFIERS[name]
    net = specimen.build().double()
    return net, convolutionalize(net, specimen.size, channels=specimen.channels)


def pictures(name: str, more: int = 0, count: int = 2) -> Tensor:
    """Larger than the input size by so many pixels, by one less horizontally; float64."""
    specimen = CLASSIFIERS[name]
    height, width = specimen.size
    return images(count, specimen.channels, (height + more, width + max(more - 1, 0))).double()


def same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-12) -> None:
    """Equal to a fraction of the largest value."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@torch.no_grad()
def outputs(net: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, net(x))


# It computes the same.


@EVERY
def test_logits_at_the_input_size(name: str) -> None:
    net, dense = built(name)
    x = pictures(name)
    logits = outputs(net, x).flatten(1)
    same(outputs(dense, x), logits[:, :, None, None])
    assert dense.classes == CLASSES


@UNPADDED
def test_every_cell_of_a_larger_image_is_the_classifier_on_its_window(name: str) -> None:
    net, dense = built(name)
    x = pictures(name, 2 * max(dense.stride) + 3)
    windows = windows_of(net, x, dense.input_size, dense.stride)
    cells = outputs(dense, x)
    assert min(windows.shape[2:]) >= 3
    # What leaves the last pixels of its window unread, or pools what is left over, fits once more.
    more = name in ("odd sizes", "pooling rounded up, windows whole")
    assert all(0 <= a - b <= more for a, b in zip(cells.shape[2:], windows.shape[2:], strict=True))
    same(cells[:, :, : windows.shape[2], : windows.shape[3]], windows)


TRUNKS = {
    "view": "features",
    "adaptive average 6 of 12": "features",
    "adaptive average 7 of 7": "6",
    "average 7": "6",
    "mean of a list": "features",
    "pooling rounded up, windows clipped": "features",
    "alexnet": "features",
    "googlenet": "a4",
    "resnet": "layer2",
    "resnet with bottlenecks": "layer2",
    "densenet": "norms.2",
    "squeezenet": "7",
    "convnext": "down",
}
"""Last layer of what comes before the tail of the padded ones."""


class ReachedError(Exception):
    """The map of a trunk."""


def trunk_of(net: nn.Module, last: str, x: Tensor) -> Tensor:
    def stop(_: nn.Module, __: Any, output: Tensor) -> None:
        raise ReachedError(output.clone())

    hook = net.get_submodule(last).register_forward_hook(stop)
    try:
        outputs(net, x)
    except ReachedError as reached:
        return cast(Tensor, reached.args[0])
    finally:
        hook.remove()
    raise AssertionError(last)


def tail_of(net: nn.Module, last: str, window: Tensor, x: Tensor) -> Tensor:
    """The rest of the net on a map, in place of its own."""
    hook = net.get_submodule(last).register_forward_hook(lambda *_: window)
    try:
        return outputs(net, x).flatten(1)
    finally:
        hook.remove()


@PADDED
def test_every_cell_of_a_padded_one_is_the_tail_on_its_window_of_the_map(name: str) -> None:
    net, dense = built(name)
    assert set(TRUNKS) == {key for key, each in CLASSIFIERS.items() if each.padded}
    last, down = TRUNKS[name], dense.stride[0]
    small, large = pictures(name), pictures(name, 2 * down + 3)
    height, width = trunk_of(net, last, small).shape[2:]
    growth = trunk_of(net, last, pictures(name, 2 * down)).shape[2] - height
    step = growth // 2  # cells of the map from one window to the next
    at, cells = trunk_of(net, last, large), outputs(dense, large)
    assert cells.shape[2:] == ((at.shape[2] - height) // step + 1, (at.shape[3] - width) // step + 1)
    assert cells.shape[2] >= 3
    for i in range(cells.shape[2]):
        for j in range(cells.shape[3]):
            window = at[:, :, i * step :, j * step :][:, :, :height, :width].clone()
            same(cells[:, :, i, j], tail_of(net, last, window, small))


def test_padding_alone_makes_windows_of_an_image_differ() -> None:
    """With the paddings of the same net at 0 they agree."""

    def net() -> nn.Module:
        return Net(padded(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear())

    x = images(1, 3, (47, 45)).double()
    for pad in (True, False):
        classifier = seeded(net)().double()
        for layer in classifier.modules():
            if isinstance(layer, nn.Conv2d) and not pad:
                layer.padding = (0, 0)
        dense = convolutionalize(classifier, 32)
        windows, cells = windows_of(classifier, x, 32, dense.stride), outputs(dense, x)
        if not pad:
            same(cells[:, :, : windows.shape[2], : windows.shape[3]], windows)
            continue
        assert cells.shape == windows.shape
        differs = (cells - windows).abs().amax(1)[0] / windows.abs().max()
        assert (differs > 1e-4).all()  # every window of 32 pixels has a border
        same(cells[:, :, 0, 0], outputs(dense, x[:, :, :32, :32])[:, :, 0, 0], 1e-1)


@settings(max_examples=60)
@given(st.permutations((1, 2, 3)), st.data())
def test_the_order_of_flattening_is_respected(order: Sequence[int], data: st.DataObject) -> None:
    channels, height, width = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2)]))
    stride = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    size = tuple((n - 1) * s + k for n, s, k in zip((height, width), stride, kernel, strict=True))

    def net() -> nn.Module:
        head = nn.Linear(channels * height * width, CLASSES)
        return Net(nn.Conv2d(2, channels, kernel, stride), lambda x: x.permute(0, *order).flatten(1), head)

    classifier = seeded(net, data.draw(st.integers(0, 9)))().double()
    dense = convolutionalize(classifier, (size[0], size[1]))
    x = images(2, 2, (size[0] + 2 * stride[0] + 1, size[1] + stride[1])).double()
    same(outputs(dense, x), windows_of(classifier, x, dense.input_size, dense.stride))
    assert dense.stride == stride


@pytest.mark.parametrize("order", [(1, 2, 3), (2, 3, 1)])
def test_a_net_of_linear_layers_on_the_image_itself(order: tuple[int, ...]) -> None:
    def net() -> nn.Module:
        layers = [nn.Linear(3 * 5 * 4, 7), nn.ReLU(), linear(7)]
        return Net(nn.Identity(), lambda x: x.permute(0, *order).reshape(len(x), -1), *layers)

    classifier = seeded(net)().double()
    dense = convolutionalize(classifier, (5, 4), channels=3)
    assert dense.stride == (1, 1)
    x = images(2, 3, (8, 9)).double()
    same(outputs(dense, x), windows_of(classifier, x, (5, 4), 1))


# The classifier stays as it was, and its parts survive.


def test_modes_are_restored_after_a_refusal() -> None:
    net = IMPOSSIBLE["squeeze and excitation"].build().train()
    cast(nn.Module, net.get_submodule("trunk")).eval()
    modes = [part.training for part in net.modules()]
    with pytest.raises(GeometryError):
        convolutionalize(net, 32)
    assert [part.training for part in net.modules()] == modes


def ranks(values: Tensor) -> list[float]:
    """What a layout does not change."""
    return sorted(values.detach().flatten().tolist())


def pairs(net: nn.Module, dense: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """A classifier's parameters and what became of them, found by their values."""
    theirs = {tuple(ranks(each)): each for each in net.parameters()}
    ours = {tuple(ranks(each)): each for each in dense.parameters() if tuple(ranks(each)) in theirs}
    assert len(theirs) == len(list(net.parameters())), "weights are told apart by their values"
    assert theirs.keys() == ours.keys()
    yield from ((each, ours[key]) for key, each in theirs.items())


@EVERY
def test_the_classifier_stays_as_it_was(name: str) -> None:
    specimen = CLASSIFIERS[name]
    net = specimen.build()
    for number, part in enumerate(net.modules()):
        part.training = number % 3 == 0  # also by parts
    for number, each in enumerate(net.parameters()):
        each.requires_grad = number % 3 != 1
    modes = [part.training for part in net.modules()]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    dense = convolutionalize(net, specimen.size, channels=specimen.channels)
    assert [part.training for part in net.modules()] == modes
    assert not any(part.training for part in dense.modules())
    assert dense.conformance is not None
    assert dense.conformance.windows == ("map" if specimen.padded else "image")
    assert dense.conformance.cells is not None
    learned = [sum(each.numel() for each in part.parameters() if each.requires_grad) for part in (net, dense)]
    assert learned[0] == learned[1]
    for theirs, ours in pairs(net, dense):
        assert ours.requires_grad is theirs.requires_grad
    x = images(2, specimen.channels, specimen.size)
    logits = outputs(net.eval(), x)
    same(outputs(dense, x).flatten(1), logits.flatten(1), 1e-5)
    for state in dense.state_dict().values():  # nothing of it is the classifier's
        state.zero_()
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert torch.equal(outputs(net, x), logits)
    assert torch.equal(outputs(specimen.build(), x), logits)


def grad_by_value(weights: nn.Parameter) -> Tensor:
    """In the order of the weights, and of the gradient where weights are equal."""
    values, grads = weights.detach().flatten(), cast(Tensor, weights.grad).flatten()
    order = grads.argsort()
    return grads[order[values[order].argsort(stable=True)]]


@EVERY
def test_gradients_are_those_of_the_classifier(name: str) -> None:
    net, dense = (copy.deepcopy(each) for each in built(name))
    x = pictures(name)
    signs = torch.randn((2, CLASSES), generator=torch.Generator().manual_seed(5)).double()
    (net(x.clone()).flatten(1) * signs).sum().backward()
    (dense(x.clone()).flatten(1) * signs).sum().backward()
    for theirs, ours in pairs(net, dense):
        assert theirs.grad is not None
        assert ours.grad is not None
        found, expected = (grad_by_value(each) for each in (ours, theirs))
        assert (found - expected).abs().max() <= 1e-10 * max(float(expected.abs().max()), 1e-3)


def dropouts(net: nn.Module) -> list[tuple[str, float]]:
    """Kinds and rates; those of vectors lie on maps in the dense form."""
    return sorted(
        (type(each).__name__, each.p) for each in net.modules() if isinstance(each, nn.modules.dropout._DropoutNd)
    )


@EVERY
def test_dropout_layers_survive(name: str) -> None:
    net, dense = built(name)
    functional = [("Dropout", 0.5)] if "functional dropout" in name else []
    assert dropouts(dense) == sorted([*dropouts(net), *functional])


@pytest.mark.parametrize(
    "name", ["view", "reshape, functional dropout, log_softmax", "batch norm of vectors", "googlenet"]
)
def test_dropout_acts_in_training_mode_as_in_the_classifier(name: str) -> None:
    net, dense = (copy.deepcopy(each) for each in built(name))
    x = pictures(name)
    results = []
    for each in (net, dense):
        each.train()
        for part in each.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        torch.manual_seed(11)
        results.append(outputs(each, x).flatten(1))
    same(results[1], results[0])
    assert (results[1] - outputs(dense, x).flatten(1)).abs().max() > 1e-3
    same(outputs(dense.eval(), x).flatten(1), outputs(net.eval(), x).flatten(1))


@pytest.mark.parametrize("name", ["batch norm of vectors", "resnet", "densenet"])
def test_batch_norm_keeps_its_statistics_and_goes_on_taking_them(name: str) -> None:
    net, dense = (copy.deepcopy(each) for each in built(name))
    norms = [
        {
            tuple(ranks(part.weight)): part
            for part in each.modules()
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)
        }
        for each in (net, dense)
    ]
    assert norms[0].keys() == norms[1].keys()
    x = pictures(name)
    for training in (False, True):
        for each in (net, dense):
            for part in each.modules():
                part.training = training and not isinstance(part, nn.modules.dropout._DropoutNd)
        same(outputs(dense, x).flatten(1), outputs(net, x).flatten(1), 1e-10)
        for key, theirs in norms[0].items():
            ours = norms[1][key]
            assert (ours.eps, ours.momentum, ours.num_batches_tracked) == (
                theirs.eps, theirs.momentum, theirs.num_batches_tracked
            )  # fmt: skip
            for statistic in ("bias", "running_mean", "running_var"):
                same(getattr(ours, statistic), getattr(theirs, statistic), 1e-10)


def test_batch_norm_without_weights_or_statistics() -> None:
    norm = nn.BatchNorm1d(24, eps=0.1, momentum=None, affine=False)
    classifier = seeded(lambda: nn.Sequential(*unpadded(), nn.Flatten(), nn.Linear(FEATURES, 24), norm, linear(24)))()
    dense = convolutionalize(classifier, 32)
    (found,) = (each for each in dense.modules() if isinstance(each, nn.BatchNorm2d) and each.num_features == 24)
    assert (found.eps, found.momentum, found.affine) == (0.1, None, False)


# Other ways to write a tail.


class Tail(nn.Module):
    """The unpadded trunk, with layers and constants for any tail."""

    def __init__(self, call: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.call = call
        self.trunk = unpadded()
        self.fc = linear(FEATURES)
        self.other = linear(FEATURES)
        self.square = nn.Linear(CLASSES, CLASSES)
        self.norm = nn.BatchNorm1d(CLASSES)
        self.act = nn.LeakyReLU(0.1, inplace=True)
        self.slopes, self.slope = nn.PReLU(FEATURES), nn.PReLU(CLASSES)
        self.scale = nn.Parameter(torch.ones(CLASSES))
        self.pool = nn.MaxPool2d(6, return_indices=True)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, self.trunk(x))


def tail(call: Callable[[Any, Tensor], Any]) -> nn.Module:
    return seeded(lambda: Tail(call))()


def changed_in_place(net: Any, x: Tensor) -> Any:
    x = x.flatten(1)
    net.act(x)
    x.mul_(2)
    return net.fc(x)


TAILS: dict[str, Callable[[Any, Tensor], Any]] = {
    "one linear twice": lambda net, x: net.square(F.relu(net.square(net.fc(x.flatten(1))))),
    "two of one map": lambda net, x: torch.maximum(net.fc(x.flatten(1)), net.other(x.flatten(1))),
    "concatenated": lambda net, x: torch.cat([net.fc(x.flatten(1)), net.other(x.flatten(1))], -1),
    "concatenated by name": lambda net, x: torch.cat(tensors=[net.fc(x.flatten(1)), x.amax((2, 3))], dim=1),
    "functions": lambda net, x: F.linear(F.linear(x.flatten(1), net.fc.weight), net.square.weight, net.square.bias),
    "by name": lambda net, x: F.linear(bias=net.scale, weight=net.square.weight, input=net.fc(x.flatten(1))),
    "scaled": lambda net, x: net.fc(x.flatten(1)) * net.scale[None] + net.scale.view(1, -1) / 3,
    "temperature": lambda net, x: net.fc(x.flatten(1)) / net.scale[0],
    "slopes": lambda net, x: F.prelu(net.slope(net.fc(x.flatten(1))), net.scale),
    "normalised": lambda net, x: F.normalize(net.fc(x.flatten(1)), 1.0, -1),
    "batch norm as a function": lambda net, x: F.batch_norm(
        net.fc(x.flatten(1)), net.norm.running_mean, net.norm.running_var, net.norm.weight, net.norm.bias
    ),
    "one batch norm twice": lambda net, x: net.norm(net.norm(net.fc(x.flatten(1)))),
    "softmax by name": lambda net, x: F.softmax(input=net.fc(x.flatten(1)), dim=1),
    "softmax of a type": lambda net, x: torch.log_softmax(net.fc(x.flatten(1)), 1, torch.float64).float(),
    "rows, then columns": lambda net, x: x.mean(3).sum(2),
    "sums and maxima": lambda net, x: x.sum((2, 3)) / 36 + x.amax((2, 3)),
    "channels last": lambda net, x: x.permute(0, 2, 3, 1).mean((1, 2)),
    "in one line": lambda net, x: x.flatten(2).mean(-1),
    "there and back": lambda net, x: net.fc(x.flatten(1).view(-1, 12, 6, 6).flatten(1)),
    "a map of one cell": lambda net, x: net.fc(x.flatten(1))[:, :, None, None],
    "in place": lambda net, x: torch.relu_(net.fc(net.act(x.flatten(1)).add_(1))),
    "in place, result dropped": changed_in_place,
    "pooled by its own stride": lambda net, x: F.avg_pool2d(x, 6, 3, divisor_override=2).flatten(1),
    "pooled by the whole": lambda net, x: F.max_pool2d(x, kernel_size=x.shape[2:]).flatten(1),
}


@pytest.mark.parametrize("name", TAILS)
def test_other_tails(name: str) -> None:
    classifier = tail(TAILS[name]).double()
    if "type" in name:
        classifier = tail(TAILS[name])
    dense = convolutionalize(classifier, 32)
    x = images(2, 3, (41, 42)).to(next(classifier.parameters()).dtype)
    tolerance = 1e-12 if x.dtype == torch.float64 else 1e-5
    same(outputs(dense, x[:, :, :32, :32]).flatten(1), outputs(classifier, x[:, :, :32, :32]).flatten(1), tolerance)
    windows = windows_of(classifier, x, 32, dense.stride)
    cells = outputs(dense, x)
    same(cells[:, :, : windows.shape[2], : windows.shape[3]], windows, tolerance)


def test_layers_that_are_called_twice_stay_one() -> None:
    dense = convolutionalize(tail(TAILS["one linear twice"]), 32)
    squares = [each for each in dense.modules() if isinstance(each, nn.Conv2d) and each.in_channels == CLASSES]
    assert len(squares) == 1
    both = convolutionalize(tail(TAILS["one batch norm twice"]), 32)
    assert len({id(each) for each in both.parameters()}) == len(list(both.parameters()))
    norms = [each for each in both.modules() if isinstance(each, nn.BatchNorm2d) and each.num_features == CLASSES]
    assert {id(each.weight) for each in norms} == {id(norms[0].weight)}


@pytest.mark.parametrize("kind", ["parametrised", "pruned"])
def test_weights_that_are_computed_become_what_they_are_today(kind: str) -> None:
    def net() -> nn.Module:
        last = linear(FEATURES)
        if kind == "pruned":
            prune.l1_unstructured(last, "weight", 0.5)  # type: ignore[no-untyped-call]  # torch declares no types here
        else:
            parametrizations.weight_norm(last)
        return nn.Sequential(*unpadded(), nn.Flatten(), last)

    classifier = seeded(net)().double()
    dense = convolutionalize(classifier, 32)
    x = images(2, 3, (37, 40)).double()
    same(outputs(dense, x), windows_of(classifier, x, 32, 4))
    (last,) = (each for each in dense.modules() if isinstance(each, nn.Conv2d) and each.kernel_size == (6, 6))
    assert last.weight.requires_grad
    copy.deepcopy(dense)


def test_an_input_that_is_changed_in_place() -> None:
    first = nn.LeakyReLU(0.5, inplace=True)
    classifier = seeded(lambda: nn.Sequential(first, *unpadded(), nn.Flatten(), linear(FEATURES)))()
    dense = convolutionalize(classifier, 32)
    x = images(1, 3, (32, 32))
    same(outputs(dense, x.clone()).flatten(1), outputs(classifier, x.clone()), 1e-5)


def test_a_map_that_is_changed_in_place_where_the_tail_begins() -> None:
    """The check cuts it into windows as it is before."""

    def step(x: Tensor) -> Tensor:
        return F.leaky_relu(x.flatten(1), 0.5, inplace=True)

    classifier = seeded(lambda: Net(padded()[:5], step, linear(12 * 14 * 14)))().double()
    dense = convolutionalize(classifier, 28)
    assert dense.conformance is not None
    assert dense.conformance.windows == "map"


# Sizes, names, inputs, types.


@pytest.mark.parametrize("size", [32, (32, 32), [32, 32]])
def test_the_input_size_is_one_number_or_two(size: Any) -> None:
    classifier = CLASSIFIERS["nn.Flatten"].build()
    assert convolutionalize(classifier, size).input_size == (32, 32)


def test_what_it_says_of_itself() -> None:
    _, dense = built("asymmetric kernels")
    assert dense.stride == (4, 2)
    assert dense.roomy == (80, 64)
    assert dense.names == tuple("01234")
    assert dense.extra_repr() == "5 classes, windows of 40 x 32 every 4 x 2 pixels"


def test_pictures_in_rgb() -> None:
    inputs = InputOptions(mean=(100.0, 110.0, 120.0), std=(32.0, 64.0, 128.0), order="bgr")
    classifier = CLASSIFIERS["nn.Flatten"].build().double()
    plain, dense = (
        convolutionalize(classifier, 32),
        convolutionalize(classifier, 32, inputs=inputs, names=list("abcde")),
    )
    picture = torch.randint(0, 256, (2, 3, 37, 41), dtype=torch.uint8)
    mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (inputs.mean, inputs.std))
    expected = outputs(plain, ((picture - mean) / std)[:, [2, 1, 0]])
    same(outputs(dense, picture), expected)
    assert dense.names == tuple("abcde")


@pytest.mark.parametrize("name", ["nn.Flatten", "adaptive average 3 of 8, unequal"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types(name: str, dtype: torch.dtype) -> None:
    specimen = CLASSIFIERS[name]
    classifier = specimen.build().to(dtype)
    dense = convolutionalize(classifier, specimen.size, inputs=InputOptions((0.0,) * 3, (1.0,) * 3))
    assert {each.dtype for each in dense.parameters()} == {dtype}
    assert {each.dtype for each in classifier.parameters()} == {dtype}
    # Compared in float32 at least; but averages over unequal windows become weights, and are rounded as such.
    rounding = max(torch.finfo(dtype).eps if "unequal" in name else 0.0, 1e-6)
    assert dense.conformance is not None
    assert dense.conformance.cells is not None
    assert max(dense.conformance.logits, dense.conformance.cells) < rounding
    x = images(1, 3, specimen.size).to(dtype)
    same(outputs(dense, x).flatten(1), outputs(classifier, x), 4 * torch.finfo(dtype).eps)


class Logits(nn.Module):
    """A published net without its normalisation."""

    def __init__(self, net: torchvision_nets.Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.logits(x)


PUBLISHED = {
    "alexnet": "alexnet-owt", "vgg16": "vgg16", "vgg16_bn": "vgg16bn", "googlenet": "googlenetbn",
    "resnet18": "resnet18", "resnet50": "resnet50",
}  # fmt: skip
"""torchvision's name -> ours."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_classifiers(name: str) -> None:
    net = Logits(torchvision_nets.random_net(name, 1 / 8, CLASSES)).eval()
    dense = convolutionalize(net, 224)
    assert dense.stride == (32, 32)
    assert dense.conformance is not None
    assert dense.conformance.windows == "map"
    x = images(1, 3, (224, 224))
    same(outputs(dense, x).flatten(1), outputs(net, x), 1e-5)
    ours = Classifier(PUBLISHED[name], CLASSES, width=1 / 8)
    fields = trace(dense.net, (1, 3, 448, 448)).output.fields()
    for path, own in zip(ours.paths(), fields, strict=True):
        assert Fields.along(path).size == own.size
        assert Fields.along(path).stride == own.stride
        assert Fields.along(path).centre == own.centre
    sizes = (288, 320)
    with torch.no_grad():
        cells = dense(images(1, 3, sizes)).shape[2:]
    assert cells == ours.eval()(torch.zeros(1, 3, *sizes)).shape[2:]


# The check of itself.


class Uneven(nn.Module):
    """Adds to every cell but the first; claims to be local."""

    def __init__(self, layer: nn.Module, error: float) -> None:
        super().__init__()
        self.layer, self.error = layer, error

    def fields(self, x: Tensor) -> tuple[Fields, Fields]:
        rows, columns = (Fields((0,), (k,)) for k in self.layer.kernel_size)
        return rows, columns

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        y = y.clone()
        y[:, 0].flatten(1)[:, 1:] += self.error
        return y


@pytest.mark.parametrize("name", ["nn.Flatten", "average 7"])
def test_the_check_notices_other_cells(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    specimen = CLASSIFIERS[name]
    whole = rewriting.convolution
    for error in (0.0, 1e-3, torch.nan, torch.inf):
        monkeypatch.setattr(rewriting, "convolution", lambda *a, error=error: Uneven(whole(*a), error))
        if not error:
            convolutionalize(specimen.build(), specimen.size)
            continue
        with pytest.raises(GeometryError, match="the dense form of Sequential is off by .* of the largest logit; exp"):
            convolutionalize(specimen.build(), specimen.size)


@pytest.mark.parametrize("error", [1e-3, torch.nan, -torch.inf])
def test_the_check_notices_other_logits(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rewriting.convolution

    def broken(*given: Any) -> nn.Module:
        layer = whole(*given)
        cast(nn.Conv2d, layer).weight.data.view(-1)[3] += error
        return layer

    monkeypatch.setattr(rewriting, "convolution", broken)
    with pytest.raises(GeometryError, match="the dense form of Sequential is off by"):
        convolutionalize(CLASSIFIERS["nn.Flatten"].build(), 32)


def test_logits_of_minus_infinity_are_no_difference() -> None:
    class Masked(Tail):
        def __init__(self) -> None:
            super().__init__(lambda net, x: net.fc(x.flatten(1)).masked_fill(net.mask, -torch.inf))
            self.register_buffer("mask", torch.tensor([False, True, False, False, False]))

    classifier = Masked().eval()
    conformance = convolutionalize(classifier, 32).conformance
    assert conformance is not None
    assert conformance.logits < 1e-5


def test_without_a_map_through_which_everything_goes_cells_are_not_compared() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(2))
            self.fc = linear(8)

        def forward(self, x: Tensor) -> Tensor:
            maps = [F.adaptive_avg_pool2d(layer(x), 1).flatten(1) for layer in (self.one, self.other)]
            return cast(Tensor, self.fc(torch.cat(maps, 1)))

    conformance = convolutionalize(seeded(Two)(), 8).conformance
    assert conformance is not None
    assert conformance.cells is None
    assert conformance.logits < 1e-5


# Refusals.


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_the_impossible_is_refused_with_the_layer_and_the_reason(name: str) -> None:
    impossible = IMPOSSIBLE[name]
    with pytest.raises(GeometryError) as caught:
        convolutionalize(impossible.build(), impossible.size, channels=impossible.channels)
    message = str(caught.value)
    assert "\n" not in message
    for word in impossible.words:
        assert word.lower() in message.lower()


def sequential(*layers: nn.Module) -> nn.Module:
    return seeded(lambda: nn.Sequential(*unpadded(), *layers))()


CANNOT = "cannot convolutionalize: "


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: x.mean(1).mean((1, 2)), "mean_1 (mean) reads a map of shape (2, 6, 6); expected one of (N, C,"),
        (lambda net, x: net.fc(F.dropout(x.flatten(1))), "dropout (dropout) drops in evaluation mode too; give it tra"),
        (lambda net, x: net.pool(x)[0].flatten(1), "pool (MaxPool2d) gives indices too, which the dense form has not;"),
        (lambda net, x: net.fc(x.flip(2).flatten(1)), "flip (flip) turns the map round"),
        (
            lambda net, x: net.fc(F.relu(x.flatten(1).view(-1, 12, 6, 6)).flatten(1)),
            "relu (relu) takes the map apart otherwise than by flattening or pooling it",
        ),
        (lambda net, x: net.fc((x * x.mean((2, 3), True)).flatten(1)), "mul (mul) joins a map with a value for the wh"),
        (lambda net, x: x.mean((1, 2, 3)), "mean (mean) mixes channels and positions of the map"),
        (lambda net, x: x.permute(0, 2, 3, 1).mean(1).flatten(1), "mean (mean) keeps dimensions of a map that is not"),
        (
            lambda net, x: x.permute(0, 2, 3, 1).mean((1, 2), True).flatten(1),
            "mean (mean) keeps dimensions of a map that is not (N, C, H, W); permute it before",
        ),
        (lambda net, x: x.flatten(0, 1).flatten(1), "flatten_1 (flatten) makes (24, 36) of a map; expected (N, C H W)"),
        (lambda net, x: torch.cat([x.flatten(1), net.fc(x.flatten(1))], 1), "cat (cat) joins values that were laid ou"),
        (lambda net, x: net.fc(x.flatten(1)).flip(1), "flip (flip) is not known in the tail of a classifier, which ma"),
        (lambda net, x: net.fc(x.flatten(1)) @ net.square.weight, "matmul (matmul) is not known in the tail of a clas"),
        (lambda net, x: net.fc(x.flatten(1))[:, [1, 0, 2, 3, 4]], "getitem (getitem) is not known in the tail of a cl"),
        (lambda net, x: net.fc(x.flatten(1))[:, :2], "getitem (getitem) is not known in the tail of a classifier"),
        (lambda net, x: net.fc(x.flatten(1) * net.slopes.weight), "mul (mul) joins the flattened map and a constant"),
        (lambda net, x: net.fc(net.slopes(x.flatten(1))), "slopes (PReLU) joins the flattened map and a constant"),
        (
            lambda net, x: F.linear(net.fc(x.flatten(1)), F.normalize(net.square.weight)),
            "linear (linear) takes weights that are computed; compute them once, and hold them as a parameter",
        ),
        (lambda net, x: F.softmax(net.fc(x.flatten(1)), 0), "softmax (softmax) works across the images of a batch"),
        (lambda net, x: torch.cat([net.fc(x.flatten(1))] * 2), "cat (cat) works across the images of a batch"),
        (lambda net, x: torch.cat([x.flatten(1)] * 2, 1), "cat (cat) joins flattened maps; only vectors (N, C) can be"),
        (lambda net, x: net.fc(x.flatten(1)).mean(1), "mean (mean) mixes the channels of a vector"),
        (lambda net, x: x.flatten(2).transpose(1, 2), "transpose (transpose) takes the positions of the map for a seq"),
        (lambda net, x: net.fc(x.flatten(1)).unsqueeze(2), "unsqueeze (unsqueeze) makes (2, 5, 1) of (2, 5); expected"),
        (lambda net, x: x.flatten(2), "the output flatten has the shape (2, 12, 36), neither logits (N, K) nor a map"),
        (lambda net, x: x, "the output trunk.6 has 6x6 cells; give the size at which it has one"),
        (lambda net, x: x.permute(0, 2, 3, 1), "the output permute has the shape (2, 6, 6, 12), neither logits"),
    ],
)  # fmt: skip
def test_tails_without_a_dense_form(call: Callable[[Any, Tensor], Any], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        convolutionalize(tail(call), 32)
    assert str(caught.value).startswith(CANNOT + message)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Flatten(2), nn.Linear(36, 5), nn.Flatten()], "8 (Linear) reads (2, 12, 36); expected a flattened map (N,"),
        ([nn.Flatten(), nn.BatchNorm1d(FEATURES), linear(FEATURES)], "8 (BatchNorm1d) normalises every position of th"),
        ([nn.Flatten(), nn.LayerNorm(FEATURES), linear(FEATURES)], "8 (LayerNorm) normalises over the flattened map;"),
        ([nn.LayerNorm([12, 6, 6]), nn.Flatten(), linear(FEATURES)], "7 (LayerNorm) mixes all positions of the map"),
        ([nn.Flatten(), nn.Softmax(1), linear(FEATURES)], "8 (Softmax) mixes all positions of the flattened map; only"),
        ([nn.AdaptiveMaxPool2d(4), nn.Flatten(), linear(192)], "7 (AdaptiveMaxPool2d) pools a 6x6 map to 4x4 cells by"),
        ([nn.Conv2d(12, 5, 3)], "the output 7 has 4x4 cells; give the size at which it has one"),
    ],
)  # fmt: skip
def test_layers_without_a_dense_form(layers: Sequence[nn.Module], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        convolutionalize(sequential(*layers), 32)
    assert str(caught.value).startswith(CANNOT + message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: (net.fc(x.flatten(1)), x), "Tail returns several values; wrap it so that it returns one"),
        (lambda net, x: {"out": net.fc(x.flatten(1))}, "Tail returns several values; wrap it so that it returns one"),
        (lambda net, x: net.fc(x.flatten(1)) + torch.ones(5), "Tail makes a tensor in its forward method; make it a b"),
        (lambda net, x: net.fc((x * x.shape[2]).flatten(1)), "a dense classifier needs a net of local layers: mul (mu"),
    ],
)  # fmt: skip
def test_classifiers_that_are_refused(call: Callable[[Any, Tensor], Any], message: str) -> None:
    with pytest.raises(GeometryError) as caught:
        convolutionalize(tail(call), 32)
    assert str(caught.value).startswith(message)


def test_a_size_that_does_not_fit_the_linear_layer() -> None:
    classifier = CLASSIFIERS["nn.Flatten"].build()
    with pytest.raises(
        GeometryError, match=r"\(Linear\) takes 432 numbers and gets 768 at this size; correct the layer"
    ):
        convolutionalize(classifier, 40)


def test_cells_between_pixels_are_refused() -> None:
    classifier = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3), nn.Flatten(), linear(4 * 14 * 14))
    with pytest.raises(GeometryError, match="cells 1/2 by 1/2 pixels apart; leave upsampling out"):
        convolutionalize(classifier, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "input size 0; expected one whole number of pixels, or (H, W)"),
        ({"input_size": (32, -1)}, "input size (32, -1); expected one whole number of pixels, or (H, W)"),
        ({"names": ["a", "b", "c", "d"]}, "4 names, 4 of them different; give each of the 5 classes its own"),
        ({"names": ["a", "b", "c", "d", "a"]}, "5 names, 4 of them different; give each of the 5 classes its own"),
        ({"names": list("abcdef")}, "6 names, 6 of them different; give each of the 5 classes its own"),
        ({"names": list("abcdea")}, "6 names, 5 of them different; give each of the 5 classes its own"),
        ({"input_size": "32"}, "input size '32'; expected one whole number of pixels, or (H, W)"),
        ({"names": "dogs"}, "names 'dogs' are a text; give a list of one name a class"),
        (
            {"inputs": InputOptions((0.5, 0.4, 0.4), (0.2, 0.2, 0.2))},
            "means (0.5, 0.4, 0.4) and deviations (0.2, 0.2, 0.2) are of pictures of 0..1; multiply them by 255",
        ),
        ({"inputs": InputOptions((0.0,), (1.0,))}, "means of 1 channels; the classifier takes 3"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    classifier = CLASSIFIERS["nn.Flatten"].build()
    with pytest.raises(OptionError) as caught:
        convolutionalize(classifier, **{"input_size": 32, **options})
    assert str(caught.value) == message


def test_what_is_no_module() -> None:
    with pytest.raises(OptionError, match=r"a classifier of type type; expected a module, such as MyNet\(\)"):
        convolutionalize(nn.Sequential, 8)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (torch.zeros(3, 40, 40), r"a tensor of shape \(3, 40, 40\)"),
        (torch.zeros(1, 1, 40, 40), r"a tensor of shape \(1, 1, 40, 40\)"),
        (torch.zeros(1, 3, 31, 40), r"a tensor of shape \(1, 3, 31, 40\)"),
        ("photo.jpg", "a str"),
    ],
)
def test_images_that_do_not_fit(image: Any, found: str) -> None:
    dense = convolutionalize(CLASSIFIERS["nn.Flatten"].build(), 32)
    with pytest.raises(GeometryError, match=found + r"; expected \(N, 3, H, W\) with H of at least 32 and W of at"):
        dense(image)


def test_a_batch_of_one_that_is_squeezed_away() -> None:
    class Squeezing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.adaptive_avg_pool2d(self.conv(x), 1).squeeze())

    net = Squeezing().eval()
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(convolutionalize(net, 16)(image)[:, :, 0, 0], net(image))


def test_channels_that_nothing_tells() -> None:
    with pytest.raises(OptionError, match="no convolution tells the channels of the input; give ch"):
        convolutionalize(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), 4)


@pytest.mark.parametrize("pool", [nn.AvgPool2d(6), nn.MaxPool2d(6), nn.LPPool2d(2, 6)], ids=repr)
def test_pooling_over_the_whole_map_takes_steps_of_one_cell(pool: nn.Module) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3)).eval()
    dense = convolutionalize(net, 14)
    assert dense.stride == (2, 2)
    x = torch.randn(1, 1, 20, 24)
    with torch.no_grad():
        found = dense(x)
        assert found.shape == (1, 3, 4, 6)
        for i, j in ((0, 0), (1, 4), (3, 5)):
            torch.testing.assert_close(found[:, :, i, j], net(x[:, :, 2 * i : 2 * i + 14, 2 * j : 2 * j + 14]))
