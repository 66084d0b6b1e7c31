"""Nets on crops against the same nets on whole images; what a crop must hold, by gradients and by changed pixels."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from classifiers import CLASSIFIERS
from fullconv.inference.cropped import CroppedNet, Crops
from fullconv.inference.reference import Reference
from fullconv.inference.strips import Strips
from fullconv.nets import FCN, InputOptions
from fullconv.nets.dense_classifier import convolutionalize
from fullconv.nets.rectangles import Rectangle, Size
from thin_nets import lively, noise, positive, reading, thin

UNPOOLING = ("fcn32s-vgg16", "fcn8s-vgg16", "fcn16s-alexnet", "fcn8s-slim")
OWN = ("resnet", "lenet", "googlenet")
KNOWN = ("fcn8s-resnet18", "fcn32s-googlenet")


def of_a_classifier(name: str) -> FCN:
    """A net whose trunk is a user's own classifier, its finest stride scored."""
    specimen = CLASSIFIERS[name]
    inputs = InputOptions((127.5,) * specimen.channels, (64.0,) * specimen.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively(FCN(trunk=convolutionalize(specimen.build(), specimen.size, inputs=inputs), classes=3))


@cache
def net_of(name: str, padding: str = "paper") -> FCN:
    if name in CLASSIFIERS:
        return of_a_classifier(name)
    kind = "unpooling" if name in UNPOOLING else "learned-all"
    return thin(name, 3, padding=padding, upsampling=kind, width=0.08)


def cropped(net: FCN, tile: int | None = None) -> CroppedNet:
    reference = Reference(net)
    return CroppedNet(net, lambda x: {task: each.scores for task, each in reference.coarse(x).items()}, tile)


def check(net: FCN, tile: int | None, size: Size, budget: int, steps: int, batch: int = 1) -> None:
    x = noise(batch, net.options.inputs["image"].channels, *size)
    coarse = Reference(net).coarse({"image": x})["semantic"]
    expected, labels = coarse.upsample(), coarse.labels()
    one, other = (Strips(cropped(net, tile), size, reading(x), batch=batch, budget=budget) for _ in range(2))
    rows = [(top, min(top + steps, size[0])) for top in range(0, size[0], steps)]
    found = torch.cat([one.scores("semantic", each) for each in rows], 2)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    differs = torch.cat([other.labels("semantic", each) for each in rows], 1) != labels
    highest, second = expected.topk(2, dim=1).values.unbind(1)
    assert not differs.any() or (highest - second)[differs].max() <= 2e-5 * expected.abs().max()


class TestCropsAreTheWhole:
    @pytest.mark.parametrize("padding", ["paper", "same"])
    @pytest.mark.parametrize("name", [*UNPOOLING[1:], *KNOWN])
    def test_of_nets_by_name(self, name: str, padding: str) -> None:
        for tile, size, budget in ((64, (131, 70), 1 << 26), (100, (61, 150), 1 << 26), (None, (131, 70), 1 << 14)):
            check(net_of(name, padding), tile, size, budget, 60)

    @pytest.mark.parametrize("name", ["fcn8s-slim", "fcn32s-alexnet", "fcn8s-resnet18"])
    @pytest.mark.parametrize("size", [(20, 1500), (1500, 20)], ids=str)
    def test_far_from_the_image_s_first_pixel(self, name: str, size: Size) -> None:
        """Where crops begin beyond it, as wide fields seldom let them."""
        net = net_of(name, "same")
        cut = cropped(net, 250)
        last = tuple((n - 1, n) for n in cut.coarse_size(size))
        assert max(start for start, _ in cut.read_by((last[0], last[1]), size)) > 500
        check(net, 250, size, 1 << 26, 400)

    @pytest.mark.parametrize("name", OWN)
    def test_of_classifiers_of_ones_own(self, name: str) -> None:
        for tile, size, budget in ((8, (71, 40), 1 << 26), (33, (61, 90), 1 << 26), (None, (71, 70), 1 << 6)):
            check(net_of(name), tile, size, budget, 25, batch=2)

    @pytest.mark.parametrize("size", [(1, 1), (1, 170), (170, 1), (20, 31)], ids=str)
    @pytest.mark.parametrize("name", ["fcn8s-vgg16", "fcn8s-resnet18", "resnet"])
    def test_of_images_smaller_than_a_tile_along_an_axis(self, name: str, size: Size) -> None:
        for tile in (64, 1000):
            check(net_of(name), tile, size, 1 << 26, 100)

    @settings(max_examples=15, derandomize=True)
    @given(
        st.sampled_from([*UNPOOLING, *OWN, *KNOWN]), st.sampled_from(["paper", "same"]),
        st.none() | st.integers(1, 150), st.integers(1, 130), st.integers(1, 130), st.sampled_from([1 << 12, 1 << 26]),
    )  # fmt: skip
    def test_of_any_size(self, name: str, padding: str, tile: int | None, h: int, w: int, budget: int) -> None:
        check(net_of(name, padding), None if tile is None else max(tile, h // 3, w // 3), (h, w), budget, 64)


def averaging(net: FCN) -> FCN:
    """With averages for maxima, which pass every pixel on, and in float64."""
    for module in net.modules():
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.MaxPool2d):
                pool = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
                setattr(module, name, pool)
    return net.double()


def seen_by(net: FCN, cells: Rectangle, size: Size) -> Tensor:
    """(number of pixels, 2): those that coarse scores depend on, by a gradient."""
    x = torch.full((1, 3, *size), 250.0, dtype=torch.float64, requires_grad=True)
    scores = net.coarse(x)["semantic"].scores
    torch.autograd.backward(scores[:, :, slice(*cells[0]), slice(*cells[1])].sum())
    assert x.grad is not None
    return x.grad[0].abs().sum(0).nonzero()


class TestReadBy:
    @pytest.mark.parametrize("padding", ["paper", "same"])
    @pytest.mark.parametrize("name", ["fcn32s-vgg16", "fcn8s-vgg16", "fcn8s-alexnet", "fcn8s-slim"])
    def test_is_what_a_gradient_reaches_from_a_multiple_of_the_grid_on(self, name: str, padding: str) -> None:
        net = thin(name, 3, padding=padding, width=1 / 16)
        cut, size = cropped(net), (500, 300)
        height, width = cut.coarse_size(size)
        net = averaging(positive(net))
        for weight in (w for n, w in net.heads.named_parameters() if w.ndim > 1):
            weight.data.abs_()
        for down in ((0, 1), (height // 2, height // 2 + 2), (height - 3, height - 2)):
            cells = (down, (width // 2, width // 2 + 1))
            reads, seen = cut.read_by(cells, size), seen_by(net, cells, size)
            for axis, (start, stop) in enumerate(reads):
                assert start % cut.grid == 0
                if len(seen):
                    assert start == int(seen[:, axis].min()) // cut.grid * cut.grid
                    assert stop == int(seen[:, axis].max()) + 1

    @pytest.mark.parametrize("name", ["fcn8s-vgg16", "fcn16s-alexnet", "fcn8s-resnet18", "resnet"])
    def test_nothing_else_changes_a_bit(self, name: str) -> None:
        net, size = net_of(name, "same"), (320, 290)
        cut = cropped(net)
        x = noise(1, 3, *size)
        expected = cut.run({"image": x})["semantic"]
        height, width = cut.coarse_size(size)
        assert expected.shape[2:] == (height, width)
        cells = (height // 2, height // 2 + 1), (0, 1)
        (top, bottom), (left, right) = cut.read_by(cells, size)
        changed = noise(1, 3, *size, seed=1)
        assert (bottom - top) * (right - left) < size[0] * size[1], "nothing is left to be changed"
        changed[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right]
        found = cut.run({"image": changed})["semantic"]
        assert not torch.equal(found, expected)
        where = (..., slice(*cells[0]), slice(*cells[1]))
        assert torch.equal(found[where], expected[where])

    def test_the_grid_is_that_of_all_strides(self) -> None:
        assert cropped(net_of("fcn8s-vgg16")).grid == 32
        assert cropped(net_of("lenet")).grid == 4


class TestWhatIsKnownBefore:
    @pytest.mark.parametrize("name", ["fcn8s-vgg16", "fcn8s-resnet18", "lenet"])
    @pytest.mark.parametrize("size", [(1, 1), (47, 90)], ids=str)
    def test_of_the_net_on_an_image(self, name: str, size: Size) -> None:
        net = net_of(name)
        cut = cropped(net)
        x = noise(1, net.options.inputs["image"].channels, *size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            scores = net.coarse(x)["semantic"].scores
        assert cut.coarse_size(size) == scores.shape[2:]
        assert 2 * cut.multiplications(size) == counter.get_total_flops()

    def test_numbers_of_a_pixel(self) -> None:
        """VGG-16's first two convolutions: 64 channels in and out, the image padded to more."""
        with torch.device("meta"):
            net = thin("fcn32s-vgg16", padding="same", width=1.0)
        assert cropped(net).numbers == 128

    def test_of_crops(self) -> None:
        net = net_of("fcn8s-resnet18", "same")
        x = noise(1, 3, 200, 150)
        strips = Strips(cropped(net, 64), (200, 150), reading(x))
        with FlopCounterMode(display=False) as counter:
            strips.scores("semantic", (0, 200))
        upsampled = sum(
            flops for name, flops in counter.get_flop_counts()["Global"].items() if "transpose" in str(name)
        )
        assert upsampled == 0  # it is an ordinary convolution to the counter
        with FlopCounterMode(display=False) as last:
            strips.scores("semantic", (136, 200))
        coarse = counter.get_total_flops() - last.get_total_flops()
        assert 2 * strips.maps.multiplications() == pytest.approx(coarse, rel=0.1)

    @pytest.mark.parametrize("tile", [8, 64, 100])
    def test_a_tile_is_for_so_many_pixels(self, tile: int) -> None:
        strips = Strips(cropped(net_of("fcn8s-resnet18", "same"), tile), (333, 333), reading(noise(1, 3, 333, 333)))
        crops = next(each for each in strips.maps.every if isinstance(each, Crops))
        assert (crops.step, crops.across) == (tile // 8, tile // 8)

    def test_less_memory_makes_smaller_crops(self) -> None:
        sides = []
        for budget in (1 << 10, 1 << 14, 1 << 18, 1 << 30):
            net = net_of("fcn8s-resnet18", "same")
            strips = Strips(cropped(net), (333, 333), reading(noise(1, 3, 333, 333)), budget=budget)
            crops = next(each for each in strips.maps.every if isinstance(each, Crops))
            sides.append(crops.step)
        assert sides == sorted(sides)
        assert sides[0] < sides[-1] == crops.size[0]
