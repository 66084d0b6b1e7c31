"""Unpooling against torch's, against the backward pass of max pooling, and in a net written out layer by layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fullconv.geometry import Window
from fullconv.nets.head import Head
from fullconv.nets.trunks import TRUNKS, Trunk
from fullconv.nets.trunks.trunk import Features, Pooled
from fullconv.nets.unpool import Unpooling, unpool

sizes = st.integers(1, 9)


def pooled_image(height: int, width: int, kernel: int, ceil: bool, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """An image of few values, so that maxima tie, and what pooling it gives."""
    image = torch.randint(0, 4, (2, 3, height, width)).to(dtype).requires_grad_()
    return [image, *F.max_pool2d(image, kernel, 2, kernel // 2 if kernel > 2 else 0, 1, ceil, return_indices=True)]


class TestUnpool:
    @given(st.integers(2, 9), st.integers(2, 9), st.booleans())
    def test_is_torchs_where_windows_do_not_overlap(self, height: int, width: int, ceil: bool) -> None:
        _, y, indices = pooled_image(height, width, 2, ceil)
        values = torch.randn_like(y)
        expected = F.max_unpool2d(values, indices, 2, 2, output_size=[height, width])
        assert torch.equal(unpool(values, Pooled(indices, (height, width))), expected)

    @given(sizes, sizes, st.sampled_from([2, 3, 5]))
    def test_is_the_backward_pass_of_max_pooling(self, height: int, width: int, kernel: int) -> None:
        """Overlapping windows too, whose shared maximum gathers from all of them."""
        image, y, indices = pooled_image(height, width, kernel, True)
        values = torch.randn_like(y)
        (expected,) = torch.autograd.grad(y, image, values)
        mine = unpool(values, Pooled(indices, (height, width)))
        assert torch.allclose(mine, expected, rtol=0, atol=1e-12)
        assert torch.allclose(mine.sum(), values.sum())

    @pytest.mark.parametrize("kernel", [2, 3])
    def test_gradient(self, kernel: int) -> None:
        _, y, indices = pooled_image(5, 4, kernel, True)
        values = torch.randn_like(y).requires_grad_()
        assert torch.autograd.gradcheck(lambda leaf: unpool(leaf, Pooled(indices, (5, 4))), values)


def small_trunk(padding: int, channels: int = 1) -> Trunk:
    """Two poolings of 2x2, then a 3x3 convolution that keeps the map's size only if it is padded."""
    layers = {
        "conv1": nn.Conv2d(channels, 4, 3, padding=6 if padding == 0 else 1),
        "pool1": nn.MaxPool2d(2, 2, ceil_mode=True),
        "conv2": nn.Conv2d(4, 5, 3, padding=1),
        "pool2": nn.MaxPool2d(2, 2, ceil_mode=True),
        "conv3": nn.Conv2d(5, 6, 3, padding=padding),
    }
    return Trunk(layers, {4: "conv3", 2: "conv2"})


def randomised(head: Head) -> Head:
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.5)
    return head


class TestStep:
    @pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1), (9, 2)], ids=str)
    @pytest.mark.parametrize("stride", [4, 2])
    @pytest.mark.parametrize("padding", [1, 0])
    def test_a_small_net_written_out(self, padding: int, stride: int, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        trunk = small_trunk(padding)
        head = randomised(Head(3, {"image": trunk}, stride, "unpooling", {}))
        x = torch.randn(2, 1, *size)
        t, score, up = trunk, head.score["image"], head.upscore

        one = t.conv1(x)
        two, where1 = F.max_pool2d(one, 2, 2, ceil_mode=True, return_indices=True)
        three = t.conv2(two)
        four, where2 = F.max_pool2d(three, 2, 2, ceil_mode=True, return_indices=True)
        y = score["4"](t.conv3(four))
        if padding == 0:  # conv3 lost a cell on every side
            y = F.pad(y, (1, 1, 1, 1))
        y = F.max_unpool2d(up["2"].expand["image"](y), where2, 2, 2, output_size=three.shape[2:])
        y = up["2"].reduce["image"](y)
        if stride == 2:
            y = y + score["2"](three)
        y = F.max_unpool2d(up["1"].expand["image"](y), where1, 2, 2, output_size=one.shape[2:])
        y = up["1"].reduce["image"](y)
        assert y.shape[2:] == one.shape[2:]

        coarse = head({"image": trunk.features(x, head.strides, head.poolings)})
        assert coarse.std() > 0.1
        assert torch.allclose(coarse, y, rtol=1e-4, atol=1e-5)
        first = 5 if padding == 0 else 0  # what conv1's padding adds before the image
        expected = y[:, :, first : first + size[0], first : first + size[1]]
        assert torch.allclose(head.upsample(coarse, size), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(head.labels(coarse, size), head.upsample(coarse, size).argmax(1))

    def test_scores_half_a_cell_beside_the_pooling(self) -> None:
        """Behind an even convolution, as AlexNet's fc6: an average of the two neighbours along each axis."""
        layers = {"first": nn.Conv2d(1, 3, 1), "pool": nn.MaxPool2d(2, 2), "conv": nn.Conv2d(3, 2, 2, padding=1)}
        trunk = Trunk(layers, {2: "conv"})
        head = randomised(Head(2, {"image": trunk}, 2, "unpooling", {}))
        x = torch.randn(1, 1, 8, 6)
        pooled, where = F.max_pool2d(trunk.first(x), 2, 2, return_indices=True)
        scores = head.score["image"]["2"](trunk.conv(pooled))
        assert scores.shape[2:] == (5, 4)
        step = head.upscore["1"]
        y = step.expand["image"](F.avg_pool2d(scores, 2, 1))
        y = step.reduce["image"](F.max_unpool2d(y, where, 2, 2))
        coarse = head({"image": trunk.features(x, head.strides, head.poolings)})
        assert torch.allclose(coarse, y, rtol=1e-4, atol=1e-5)

    def test_several_trunks_are_averaged(self) -> None:
        torch.manual_seed(0)
        trunks = {"a": small_trunk(1), "b": small_trunk(1, channels=2)}
        head = randomised(Head(3, trunks, 4, "unpooling", {}))
        x = {"a": torch.randn(1, 1, 9, 7), "b": torch.randn(1, 2, 9, 7)}
        features = {name: trunk.features(x[name], [4], head.poolings) for name, trunk in trunks.items()}
        step, scores = head.upscore["2"], torch.randn(1, 3, 3, 2)
        apart = []
        for name in trunks:
            one = Unpooling(3, {name: trunks[name].poolings()[4]}, (Window(1, transposed=True), (0, 0)))
            one.expand[name], one.reduce[name] = step.expand[name], step.reduce[name]
            apart.append(one(scores, features))
        assert not torch.allclose(*apart, atol=0.1)  # so that their mean is neither
        assert torch.allclose(step(scores, features), (apart[0] + apart[1]) / 2, rtol=1e-5, atol=1e-5)
        assert repr(step).startswith("Unpooling(\n  3, pooling='pool2'\n")

    def step(self, maps: int, channels: int) -> tuple[Unpooling, dict[str, Features]]:
        """A step, as it starts, and the features of noise."""
        trunk = Trunk({"conv": nn.Conv2d(1, channels, 3, padding=1), "pool": nn.MaxPool2d(2, 2)}, {2: "pool"})
        step = Unpooling(maps, {"image": trunk.poolings()[2]}, (Window(1, transposed=True), (0, 0)))
        return step, {"image": trunk.features(torch.randn(1, 1, 40, 60), [2], ["pool"])}

    @pytest.mark.parametrize(("maps", "channels"), [(3, 3), (3, 16), (1, 5), (2, 3)])
    def test_starts_as_an_upsampling_of_each_class_by_itself(self, maps: int, channels: int) -> None:
        torch.manual_seed(0)
        step, features = self.step(maps, channels)
        for number in range(maps):
            scores = torch.zeros(1, maps, 20, 30)
            scores[:, number] = 2.0
            y = step(scores, features)
            assert y.shape == (1, maps, 40, 60)
            others = [other for other in range(maps) if other != number]
            assert not y[:, others].any()
            # Away from the border all the weight of a value stays on the map.
            assert y[0, number, 2:-2, 2:-2].mean().item() == pytest.approx(2, rel=0.05)

    def test_with_fewer_channels_than_classes_it_starts_as_means(self) -> None:
        torch.manual_seed(0)
        step, features = self.step(5, 2)
        scores = torch.arange(5.0)[None, :, None, None].expand(1, 5, 20, 30)
        means = step(scores, features)[0, :, 2:-2, 2:-2].mean((1, 2)).tolist()
        assert means == pytest.approx([2, 2, 2, 2, 2], rel=0.05)  # of 0, 2, 4 and of 1, 3

    def test_resetting_gives_the_weights_of_the_start(self) -> None:
        step, _ = self.step(3, 4)
        start = {key: value.clone() for key, value in step.state_dict().items()}
        with torch.no_grad():
            for parameter in step.parameters():
                parameter.normal_()
        step.reset_parameters()
        assert all(torch.equal(value, start[key]) for key, value in step.state_dict().items())
        assert all(not value.any() for key, value in start.items() if key.endswith("bias"))


class TestTrunk:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("vgg16", {2: "pool1", 4: "pool2", 8: "pool3", 16: "pool4", 32: "pool5"}),
            ("alexnet", {8: "pool1", 16: "pool2", 32: "pool5"}),
            ("googlenet", {4: "pool1", 8: "pool2", 16: "pool3", 32: "pool4"}),  # not those of its inception modules
            ("resnet50", {4: "maxpool"}),
            ("slim", {4: "pool1", 8: "pool2", 16: "pool3", 32: "pool4"}),
            ("slim1", {2: "pool1", 4: "pool2", 8: "pool3", 16: "pool4"}),
        ],
    )
    def test_poolings_by_the_stride_that_they_make(self, name: str, expected: dict[int, str]) -> None:
        trunk = TRUNKS[name].build(3, None, 0.0, 1 / 16)
        poolings = trunk.poolings()
        assert {stride: each.name for stride, each in poolings.items()} == expected
        entering: dict[str, int] = {}
        for each in poolings.values():
            trunk.get_submodule(each.name).register_forward_pre_hook(
                lambda _, args, key=each.name: entering.__setitem__(key, args[0].shape[1])
            )
        trunk(torch.zeros(1, 3, 40, 40))
        assert {each.name: each.channels for each in poolings.values()} == entering

    def test_others_do_not_count(self) -> None:
        layers = {
            "nested": nn.Sequential(nn.MaxPool2d(2, 2)),
            "average": nn.AvgPool2d(2, 2),
            "oblong": nn.MaxPool2d((2, 3), 2),
            "wide": nn.MaxPool2d(3, 3),
            "same": nn.MaxPool2d(3, 1, 1),
            "pool": nn.MaxPool2d(2),
        }
        assert {stride: each.name for stride, each in Trunk(layers, {48: "pool"}).poolings().items()} == {48: "pool"}

    def test_indices_only_where_they_are_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        trunk, x = small_trunk(1), torch.randn(2, 1, 9, 6)
        with_indices = trunk.features(x, [4, 2], ["pool2"])
        assert list(with_indices.pooled) == ["pool2"]
        indices, size = with_indices.pooled["pool2"]
        assert (indices.shape, indices.dtype, size) == ((2, 5, 3, 2), torch.int64, (5, 3))
        monkeypatch.setattr(F, "max_pool2d", forbidden(F.max_pool2d))
        plain = trunk.features(x, [4, 2])
        assert plain.pooled == {}
        assert plain.keys() == with_indices.keys()
        assert all(torch.equal(plain[stride], with_indices[stride]) for stride in plain)
        with pytest.raises(AssertionError, match="indices"):
            trunk.features(x, [4], ["pool1"])


def forbidden(max_pool2d):
    """`max_pool2d` that must not be asked for indices."""

    def checked(*args, return_indices: bool = False, **kwargs):
        assert not return_indices, "indices"
        return max_pool2d(*args, **kwargs)

    return checked
