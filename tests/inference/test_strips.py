"""Images in strips against the plain net on the whole image: every trunk, head, padding and kind of upsampling."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import cache
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullconv.errors import GeometryError
from fullconv.inference.reference import Reference
from fullconv.inference.staged import StagedNet
from fullconv.inference.strips import Strips
from fullconv.nets import FCN, NETS, InputOptions
from fullconv.nets.head import Head
from fullconv.nets.rectangles import Interval, Size
from fullconv.nets.trunks import TRUNKS
from thin_nets import lively, noise, reading, thin

NAMES = [name for name in NETS if name.startswith("fcn")]
KINDS = ("bilinear", "interpolation", "learned", "learned-all", "stacked")
BUDGETS = (1 << 15, 1 << 17, 1 << 20, 1 << 26)

TOLERANCE = 1e-5
"""Of the largest score: float32 sums in two orders."""

DEEP = 5e-5
"""The same for some hundred layers, and where batch norms enlarge what was rounded (as far off is the plain net)."""


@cache
def pair(name: str, padding: str, kind: str, seed: int) -> tuple[FCN, StagedNet]:
    net = thin(name, 2 + seed, seed, padding=padding, upsampling=kind, width=0.08 + 0.04 * seed)
    return net, StagedNet.of(net)


def agree(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Scores are those of the reference, to rounding."""
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def same_labels(found: Tensor, labels: Tensor, scores: Tensor, tolerance: float) -> None:
    """Labels are those of the reference but where its two highest scores are as good as equal."""
    assert found.shape == labels.shape
    assert found.dtype == torch.uint8
    highest, second = scores.topk(2, dim=1).values.unbind(1)
    differs = found != labels
    assert (highest - second)[differs].max().item() <= 2 * tolerance * scores.abs().max() if differs.any() else True
    assert differs.float().mean() < 0.01 or scores[0, 0].numel() < 1000


def in_parts(strips: Strips, task: str, steps: list[int], labels: bool) -> Tensor:
    """Of the whole height, by so many rows at a time, over and over."""
    top, found, number, height = 0, [], 0, strips.size[0]
    while top < height:
        rows = top, min(height, top + steps[number % len(steps)])
        found.append(strips.labels(task, rows) if labels else strips.scores(task, rows))
        top, number = rows[1], number + 1
    return torch.cat(found, 1 if labels else 2)


def check(
    net: FCN, cut: StagedNet, images: dict[str, Tensor], columns: Interval, budget: int, steps: list[int],
    tolerance: float = TOLERANCE, labels: tuple[bool, ...] = (False, True),
) -> None:  # fmt: skip
    """Scores, or labels, or both, of every task, for some columns."""
    coarse = Reference(net).coarse(images)
    first = next(iter(images.values()))

    def strips() -> Strips:
        size = first.shape[2], first.shape[3]
        return Strips(cut, size, reading(images), columns=columns, batch=len(first), budget=budget)

    for kind in labels:
        parts = strips()
        for task, each in coarse.items():
            scores, found = each.upsample()[..., slice(*columns)], in_parts(parts, task, steps, kind)
            if kind:
                same_labels(found, each.labels()[..., slice(*columns)], scores, tolerance)
            else:
                agree(found, scores, tolerance)


def tolerance_of(name: str) -> float:
    return DEEP if name.endswith(("resnet101", "googlenetbn")) else TOLERANCE


def one_pixel_or_more(largest: int) -> st.SearchStrategy[int]:
    return st.sampled_from([1, 2]) | st.integers(1, largest)


@pytest.mark.parametrize("padding", ["paper", "same"])
@pytest.mark.parametrize("name", NAMES)
def test_strips_are_the_whole(name: str, padding: str) -> None:
    """Four images a net, of different sizes, columns, memory and rows at a time, and kinds of upsampling."""
    first = zlib.crc32(f"{name} {padding}".encode())  # or every net would meet the same cases

    @settings(max_examples=4, derandomize=True, database=None)
    @given(st.data())
    def cases(data: st.DataObject) -> None:
        place = first + data.draw(st.integers(0, 99))
        net, cut = pair(name, padding, KINDS[place % len(KINDS)], place % 3)
        height, width = data.draw(st.integers(1, 90)), data.draw(one_pixel_or_more(90))
        left = data.draw(st.integers(0, width - 1))
        columns = data.draw(st.sampled_from([(0, width), (left, data.draw(st.integers(left + 1, width)))]))
        steps = data.draw(st.lists(st.integers(9, 90), min_size=1, max_size=3))
        images = {"image": noise(data.draw(st.sampled_from([1, 1, 2])), 3, height, width, seed=place % 100)}
        budget, labels = data.draw(st.sampled_from(BUDGETS)), data.draw(st.booleans())
        check(net, cut, images, columns, budget, steps, tolerance_of(name), labels=(labels,))

    cases()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", ["paper", "same"])
@pytest.mark.parametrize("name", ["fcn8s-vgg16", "fcn16s-alexnet", "fcn8s-resnet18", "fcn2s-slim"])
def test_every_kind_of_upsampling(name: str, padding: str, kind: str) -> None:
    net, cut = pair(name, padding, kind, 1)
    check(net, cut, {"image": noise(1, 3, 131, 78)}, (20, 61), 1 << 13, [9, 40])


@pytest.mark.parametrize("trunk", ["vgg16", "googlenet", "resnet50"])
@pytest.mark.parametrize("size", [(1, 1), (1, 190), (190, 1), (2, 2)], ids=str)
def test_images_of_a_pixel(trunk: str, size: Size) -> None:
    for padding in ("paper", "same"):
        net, cut = pair(f"fcn8s-{trunk}", padding, "bilinear", 0)
        check(net, cut, {"image": noise(2, 3, *size)}, (0, size[1]), 1 << 12, [1])


class TestSeveralInputsAndTasks:
    @pytest.mark.parametrize("columns", [(0, 90), (33, 50)])
    @pytest.mark.parametrize("budget", [1 << 12, 1 << 26])
    def test_late_fusion(self, columns: Interval, budget: int) -> None:
        net = thin("nyud-fcn32s-color-hha", None, width=1 / 16)
        images = {"color": noise(1, 3, 70, 90), "hha": noise(1, 3, 70, 90, seed=1)}
        check(net, StagedNet.of(net), images, columns, budget, [11])

    @pytest.mark.parametrize("columns", [(0, 90), (33, 50)])
    def test_early_fusion(self, columns: Interval) -> None:
        """Of colours and the logarithm of depths."""
        net = thin("nyud-fcn32s-color-d", None, width=1 / 16)
        depth = torch.randint(400, 9000, (2, 1, 70, 90), generator=torch.Generator().manual_seed(2)).to(torch.uint16)
        check(net, StagedNet.of(net), {"color": noise(2, 3, 70, 90), "depth": depth}, columns, 1 << 14, [11])

    def test_late_fusion_with_skips(self) -> None:
        options = replace(
            thin("fcn8s-slim", padding="paper").options, fusion="late",
            inputs={"a": InputOptions((9.0,) * 3, (50.0,) * 3), "b": InputOptions((99.0,), (60.0,))},
        )  # fmt: skip
        torch.manual_seed(0)
        net = lively(FCN(options))
        images = {"a": noise(1, 3, 81, 53), "b": noise(1, 1, 81, 53, seed=1)}
        check(net, StagedNet.of(net), images, (7, 50), 1 << 12, [20])

    @pytest.mark.parametrize("columns", [(0, 90), (33, 50)])
    @pytest.mark.parametrize("stride", [32, 16, 8])
    def test_tasks(self, stride: int, columns: Interval) -> None:
        net = thin(f"siftflow-fcn{stride}s", None, width=1 / 16)
        check(net, StagedNet.of(net), {"image": noise(2, 3, 85, 90)}, columns, 1 << 14, [30, 2])

    def test_of_tasks_that_nobody_asks_for_nothing_is_kept(self) -> None:
        net = thin("siftflow-fcn8s", None, width=1 / 16)
        cut, read = StagedNet.of(net), reading(noise(1, 3, 600, 64))
        first, second = net.heads

        def run(tasks: tuple[str, ...] | None) -> tuple[Tensor, int]:
            strips, most, labels = Strips(cut, (600, 64), read, rows=64, budget=1 << 14, tasks=tasks), 0, []
            for top in range(0, 600, 60):
                labels.append(strips.labels(second, (top, top + 60)))
                held = (chunk.nbytes for each in strips.maps.every for chunk in each._chunks.values())
                most = max(most, sum(held) - sum(chunk.nbytes for chunk in strips.maps.every[0]._chunks.values()))
            return torch.cat(labels, 1), most

        (labels, held), (expected, much) = run((second,)), run(None)
        assert torch.equal(labels, expected)
        assert held < much - 600 // 8 * 64 // 8 * len(first), "of the other task every coarse cell is kept"

    def test_the_scales_of_the_at_once_net(self) -> None:
        """With features that large that the skips' hundredths and ten-thousandths count."""
        net = thin("voc-fcn8s-atonce", None, width=1 / 16)
        with torch.no_grad():
            for stride, layer in net.heads["semantic"].score["image"].items():  # type: ignore[union-attr, operator, index]
                layer.weight.div_(net.options.scales.get(int(stride), 1.0))
        check(net, StagedNet.of(net), {"image": noise(1, 3, 85, 90)}, (0, 90), 1 << 14, [30])


class TestStrips:
    def test_coarse_scores(self) -> None:
        net, cut = pair("fcn8s-vgg16", "paper", "bilinear", 0)
        x = noise(2, 3, 97, 60)
        strips = Strips(cut, (97, 60), reading(x), batch=2, budget=1 << 12)
        held = strips.coarse["semantic"].map.held
        expected = Reference(net).coarse({"image": x})["semantic"].scores
        agree(strips.coarse_scores("semantic"), expected[..., slice(*held)], TOLERANCE)

    def test_labels_are_the_highest_of_its_own_scores(self) -> None:
        """Bit for bit: of equal ones the first."""
        for kind in KINDS:
            _, cut = pair("fcn8s-alexnet", "paper", kind, 2)
            one, other = (Strips(cut, (97, 60), reading(noise(1, 3, 97, 60)), columns=(5, 44)) for _ in range(2))
            for rows in ((0, 31), (31, 32), (32, 97)):
                assert torch.equal(one.labels("semantic", rows), other.scores("semantic", rows).argmax(1))

    def test_bfloat16_is_as_close_as_autocast(self) -> None:
        net, _ = pair("fcn8s-vgg16", "paper", "bilinear", 2)
        x = noise(1, 3, 97, 60)
        exact, autocast = (
            Reference(net, kind).coarse({"image": x})["semantic"].upsample() for kind in ("float32", "bfloat16")
        )
        strips = Strips(StagedNet.of(net, torch.bfloat16), (97, 60), reading(x), budget=1 << 14)
        off = (strips.scores("semantic", (0, 97)) - exact).abs().max()
        assert off <= 1.5 * (autocast - exact).abs().max()
        assert off > 1e-5 * exact.abs().max(), "not rounded at all"

    def test_too_little_padding(self) -> None:
        """As the plain net says it, before anything is read."""
        net = thin("fcn32s-vgg16", padding="same", width=1 / 16)
        head = cast(Head, net.heads["semantic"])
        head.output = replace(head.output, shift=(head.output.shift[0] + 99, head.output.shift[1]))
        read = reading(noise(1, 3, 1, 1))
        with pytest.raises(GeometryError, match=r"the upsampled scores have -\d+ of 1 pixels; pad more"):
            Strips(StagedNet.of(net), (1, 1), read)


def test_every_trunk_is_met() -> None:
    assert {NETS[name].trunk for name in NAMES} == set(TRUNKS)


def test_one_row_at_a_time() -> None:
    net, cut = pair("fcn8s-alexnet", "paper", "bilinear", 0)
    check(net, cut, {"image": noise(1, 3, 40, 31)}, (3, 20), 1, [1])


def test_nets_that_are_not_known_in_stages() -> None:
    net = thin("fcn32s-vgg16", upsampling="unpooling", width=1 / 16)
    assert not StagedNet.knows(net)
    with pytest.raises(GeometryError, match="a net with unpooling is not known in stages; run it in crops"):
        StagedNet.of(net)
